"""Reading, the network and suppression of several batches at once: all in order, few in memory, nothing swallowed."""

import contextlib
import random
import threading
import time

import numpy as np
import pytest
from PIL import Image

from retinamask.dataset import images
from retinamask.inference import detect
from retinamask.inference.detect import Detections, look_at

COUNT = 23


class Counting:
    """Finds one box as wide as the first pixel of an image is red; a batch takes a moment."""

    class_names = ("mask",)

    def __init__(self, concurrent: bool):
        self.concurrent, self.threads, self.inside, self.most, self.measured = concurrent, set(), 0, 0, []

    def __call__(self, images_rgb, score_threshold, suppress):
        self.threads.add(threading.current_thread())
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(random.uniform(0, 0.01))
        self.inside -= 1
        boxes = [np.array([[0, 0, image_rgb[0, 0, 0], 1]]) for image_rgb in images_rgb]
        return [Detections(box, np.ones(1), np.zeros(1, int), 1.0) for box in boxes]

    @contextlib.contextmanager
    def many(self, images_rgb):
        self.measured.append(len(images_rgb))
        yield
        self.measured.append("over")


@pytest.fixture
def photos(tmp_path):
    """Images that say their number, two of them damaged."""
    for number in range(COUNT):
        Image.new("RGB", (40, 30), (number + 1, 0, 0)).save(tmp_path / f"{number:02}.png")
    for number in (0, 9):
        (tmp_path / f"{number:02}.png").write_bytes(b"")
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """The images that have been read so far."""
    paths, read = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: (paths.append(path), read(path))[1])
    return paths


def still_working() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("detecting")]


PATHS = [f"{number:02}.png" for number in range(COUNT)]


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 40])
def test_results_come_in_the_order_of_the_paths(batch_size, concurrent, photos):
    predictor = Counting(concurrent)
    seen = list(look_at(predictor, PATHS, photos, 0.5, batch_size))
    assert [each.path for each in seen] == PATHS
    assert [number for number, each in enumerate(seen) if each.problem] == [0, 9]
    widths = [each.detections.boxes_xyxy[0, 2] for each in seen if not each.problem]
    assert widths == [number + 1 for number in range(COUNT) if number not in (0, 9)]
    if concurrent:
        assert threading.current_thread() not in predictor.threads
        assert predictor.most > 1 or batch_size > 1
    else:
        assert predictor.threads == {threading.current_thread()} and predictor.most == 1
    assert list(look_at(predictor, [], photos, 0.5)) == []


@pytest.mark.parametrize("concurrent", [False, True])
def test_no_more_than_a_few_batches_are_read_ahead_and_none_after_the_end(concurrent, photos, reads):
    looked = look_at(Counting(concurrent), PATHS, photos, 0.5, 2)
    next(looked)
    deadline = time.monotonic() + 20
    while len(reads) < 2 * 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(reads) == 2 * 4
    looked.close()
    assert not still_working()


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("out of memory")])
def test_an_error_in_the_network_comes_out_and_ends_all(error, concurrent, photos, reads, monkeypatch):
    calls, call = [], Counting.__call__

    def failing(self, images_rgb, *options):
        calls.append(images_rgb)
        if len(calls) == 2:
            raise error
        return call(self, images_rgb, *options)

    monkeypatch.setattr(Counting, "__call__", failing)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        list(look_at(Counting(concurrent), PATHS, photos, 0.5, 1))
    assert len(reads) < COUNT and not still_working()


def test_a_predictor_is_made_ready_once_for_many_images(photos, monkeypatch):
    monkeypatch.setattr(detect, "MANY_IMAGES", COUNT)
    predictor = Counting(True)
    assert len(list(look_at(predictor, PATHS[:-1], photos, 0.5))) == COUNT - 1 and predictor.measured == []
    assert len(list(look_at(predictor, PATHS, photos, 0.5))) == COUNT
    assert predictor.measured == [3, "over"]  # the first of four is damaged


@pytest.mark.parametrize("options", [(1.5, 4), (0.5, 0)])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="expected 0 to 1 and at least 1"):
        list(look_at(Counting(False), PATHS, ".", *options))
