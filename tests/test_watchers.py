"""Watchers of a training run: what TensorBoard reads back, and the one figure that a notebook keeps."""

import base64
import io
import json
from types import SimpleNamespace

import nbclient
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import annotations
from retinamask.dataset.sample import CLASSES
from retinamask.evaluation import coco, watchers
from retinamask.evaluation.watchers import LiveFigure, TensorBoardWatcher

NEW_RUN, RESUMED = SimpleNamespace(first_step=0, rows=[]), SimpleNamespace(first_step=3, rows=[])

# As the TensorFlow Object Detection API writes them: model_lib_v2.py and metrics/coco_evaluation.py.
STEP_TAGS = [
    "Loss/classification_loss", "Loss/localization_loss", "Loss/regularization_loss", "Loss/total_loss",
    "learning_rate", "steps_per_sec",
]  # fmt: skip
EVALUATION_TAGS = [
    "DetectionBoxes_Precision/mAP",
    "DetectionBoxes_Precision/mAP@.50IOU",
    "DetectionBoxes_Precision/mAP@.75IOU",
    "DetectionBoxes_Precision/mAP (small)",
    "DetectionBoxes_Precision/mAP (medium)",
    "DetectionBoxes_Precision/mAP (large)",
    "DetectionBoxes_Recall/AR@1",
    "DetectionBoxes_Recall/AR@10",
    "DetectionBoxes_Recall/AR@100",
    "DetectionBoxes_Recall/AR@100 (small)",
    "DetectionBoxes_Recall/AR@100 (medium)",
    "DetectionBoxes_Recall/AR@100 (large)",
]


def step_figures(value: float) -> dict[str, float]:
    return dict.fromkeys(STEP_TAGS, value)


def epoch_row(epoch: int, step: int, **figures) -> dict[str, float]:
    return {"epoch": epoch, "step": step, "loss": 1.0, "learning_rate": 1e-4, "seconds": 9.0, **figures}


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def series(events, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture
def evaluation(tiny):
    """A validation as `in_training` leaves it, with everything found but the weak boxes."""
    table = annotations.read_annotations(tiny / "annotations.csv", CLASSES)
    found = annotations.objects(table).assign(score=0.9).reset_index(drop=True)
    found.loc[::2, "score"] = 0.1
    return SimpleNamespace(
        table=table, folder=tiny, detections=found, unreadable={}, detector=SimpleNamespace(classes=CLASSES)
    )


# --- TensorBoard ---


def test_scalars_bear_the_names_of_the_object_detection_api(tmp_path):
    watcher = TensorBoardWatcher(tmp_path / "events")
    watcher.started(NEW_RUN)
    watcher.after_step(5, step_figures(0.5))
    figures = {name: number / 16 for number, name in enumerate(coco.MEANINGS)}
    watcher.after_epoch(epoch_row(1, 6, **figures | {"APs": None, "AP50/mask": 0.25}), None)
    watcher.after_epoch(epoch_row(2, 12), None)  # not evaluated
    watcher.ended()
    events = read_back(tmp_path / "events")
    written = [tag for tag in EVALUATION_TAGS if "mAP (small)" not in tag]
    per_class = "DetectionBoxes_Precision mAP@.50IOU ByCategory/mask"
    assert sorted(events.Tags()["scalars"]) == sorted([*STEP_TAGS, *written, per_class])
    assert {tag: series(events, tag) for tag in STEP_TAGS} == {tag: [(5, 0.5)] for tag in STEP_TAGS}
    for number, tag in enumerate(EVALUATION_TAGS):
        assert tag not in written or series(events, tag) == [(6, number / 16)]
    assert series(events, per_class) == [(6, 0.25)]


def test_a_resumed_run_goes_on_where_its_checkpoint_was(tmp_path):
    killed = TensorBoardWatcher(tmp_path)
    killed.started(NEW_RUN)
    for step in range(1, 6):  # the checkpoint is that of step 3, the end of the first epoch
        killed.after_step(step, step_figures(1.0))
        if step == 3:
            killed.after_epoch(epoch_row(1, 3, AP=0.125), None)
    killed._writer.flush()
    resumed = TensorBoardWatcher(tmp_path)
    resumed.started(RESUMED)
    for step in (5, 6):  # not every step is told
        resumed.after_step(step, step_figures(2.0))
    resumed.after_epoch(epoch_row(2, 6, AP=0.25), None)
    resumed.ended()
    killed.ended()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    events = read_back(tmp_path)
    assert series(events, "Loss/total_loss") == [(1, 1), (2, 1), (3, 1), (5, 2), (6, 2)]
    assert series(events, "DetectionBoxes_Precision/mAP") == [(3, 0.125), (6, 0.25)]


def test_each_evaluation_is_shown_with_its_boxes(tmp_path, evaluation):
    watcher = TensorBoardWatcher(tmp_path, evaluation)
    watcher.started(NEW_RUN)
    for epoch in (1, 2, 3):
        if epoch == 3:  # the second epoch was not evaluated
            evaluation.detections = evaluation.detections.assign(score=0.1)
        watcher.after_epoch(epoch_row(epoch, 10 * epoch), None)
    watcher.ended()
    events = read_back(tmp_path).Images("detections")
    assert [event.step for event in events] == [10, 30]
    with_boxes, without = (np.asarray(Image.open(io.BytesIO(event.encoded_image_string)), int) for event in events)
    assert with_boxes.shape == without.shape == (events[0].height, events[0].width, 3)
    assert 0.001 < (np.abs(with_boxes - without).max(axis=2) > 60).mean() < 0.2


def test_an_unreadable_image_is_not_shown(tmp_path, evaluation):
    first = annotations.image_paths(annotations.objects(evaluation.table))[0]
    evaluation.unreadable[first] = "damaged"
    evaluation.table = evaluation.table.replace({first: "missing.jpg"})
    evaluation.unreadable["missing.jpg"] = "missing"
    watcher = TensorBoardWatcher(tmp_path, evaluation)
    watcher.started(NEW_RUN)
    watcher.after_epoch(epoch_row(1, 10), None)
    watcher.ended()
    assert len(read_back(tmp_path).Images("detections")) == 1


def test_a_full_disk_is_said_once_and_does_not_stop_training(tmp_path, caplog, monkeypatch):
    watcher = TensorBoardWatcher(tmp_path)
    watcher.started(NEW_RUN)

    def full(event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watcher._writer, "add_event", full)
    for step in (1, 2):
        watcher.after_step(step, step_figures(1.0))
    watcher.after_epoch(epoch_row(1, 2, AP=0.5), None)
    watcher.ended()
    assert caplog.text.count("No space left on device") == 1 and str(tmp_path) in caplog.text


# --- The figure in the notebook ---


class Screen:
    """Stands in for IPython's display and for the clock: what is shown, and when."""

    def __init__(self, monkeypatch):
        self.now, self.shown, self.handles = 100.0, [], 0
        monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=None))
        monkeypatch.setattr(watchers.time, "monotonic", lambda: self.now)
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, bundle, raw, display_id):
        self.handles += 1
        self.update(bundle, raw)
        return self

    def update(self, bundle, raw):
        assert raw
        self.shown.append((self.now, base64.b64decode(bundle["image/png"])))


@pytest.fixture
def screen(monkeypatch):
    return Screen(monkeypatch)


def test_one_figure_is_redrawn_now_and_then(screen):
    figure = LiveFigure(seconds=10)
    figure.started(NEW_RUN)
    for step in range(1, 19):
        screen.now = 100.0 + step
        figure.after_step(step, step_figures(1 / step))
    figure.after_epoch(epoch_row(1, 18, AP50=0.5), None)  # 7 s after the last drawing, but an epoch
    figure.after_step(19, step_figures(0.1))
    figure.ended()
    figure.ended()
    assert [now for now, _ in screen.shown] == [101, 111, 118, 118] and screen.handles == 1
    assert len({png for _, png in screen.shown}) == 4
    assert all(Image.open(io.BytesIO(png)).width > 300 for _, png in screen.shown)


def test_drawing_takes_a_small_share_of_the_time(screen, monkeypatch):
    def slowly(rows, points):
        screen.now += 2
        return Figure()

    monkeypatch.setattr(watchers.plots, "training_curves", slowly)
    figure = LiveFigure(seconds=1)
    figure.started(NEW_RUN)
    for epoch in range(1, 31):
        screen.now += 5
        figure.after_epoch(epoch_row(epoch, epoch, AP50=0.5), None)
    assert len(screen.shown) == 4  # 2 of every 42 seconds, of 158 in all


def test_a_long_run_is_drawn_with_a_bounded_number_of_points(screen, monkeypatch):
    monkeypatch.setattr(watchers, "MOST_POINTS", 8)
    figure = LiveFigure(seconds=1e9)
    figure.started(NEW_RUN)
    for step in range(1, 9):
        figure.after_step(step, {"Loss/total_loss": float(step)})
    assert figure._points == [{"step": at, "loss": at} for at in (1.5, 3.5, 5.5, 7.5)]


def test_outside_a_notebook_nothing_is_drawn(capsys):
    figure = LiveFigure(seconds=0)
    figure.started(NEW_RUN)
    figure.after_step(1, step_figures(1.0))
    figure.after_epoch(epoch_row(1, 1), None)
    figure.ended()
    assert figure._handle is None and capsys.readouterr().out == ""


CELL = """
from types import SimpleNamespace
from retinamask.evaluation.watchers import LiveFigure

figure = LiveFigure(seconds=0)
figure.started(SimpleNamespace(first_step=0, rows=[]))
for step in range(1, 8):
    figure.after_step(step, {"Loss/total_loss": 1 / step, "learning_rate": 1e-4})
    print("step", step)
figure.after_epoch({"epoch": 1, "step": 7, "loss": 0.1, "AP": 0.3, "AP50": 0.5}, None)
figure.ended()
"""


def test_a_notebook_that_ran_holds_one_picture(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    pictures = [output["data"]["image/png"] for output in outputs if output.output_type == "display_data"]
    assert len(pictures) == 1 and len(json.dumps(outputs)) < 200_000
    # The last drawing has the three panels, the first had two.
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).width > 1200
    assert "step 7" in "".join(output.text for output in outputs if output.output_type == "stream")
