"""`retinamask detect --dask`: as without it, whatever dies; what is wrong with a cluster is said."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from test_detect_command import SNAPSHOT, StandIn

from retinamask.cli import main
from retinamask.commands import detect
from retinamask.detectors import snapshots
from retinamask.inference import detect_in_parts, detect_on_dask
from retinamask.inference.detect_on_dask import connected, finished

COUNT = 40


class Slow(StandIn):
    """Takes its time, notes which process has loaded it, and kills that with the image ``deadly.png``."""

    def __call__(self, images_rgb, *options):
        time.sleep(0.02)
        if any(tuple(image_rgb[0, 0]) == (9, 9, 9) for image_rgb in images_rgb):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images_rgb, *options)


def load_slow(given):
    with Path(given.snapshot).with_name("loaded.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Slow()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images, one of them damaged, in parts of two; the commands use the stand-in."""
    (tmp_path / "photos").mkdir()
    for index in range(COUNT):
        Image.new("RGB", (10, 8), (1 + index, index // 2, 0)).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "damaged.png").write_bytes(b"no image")
    (tmp_path / "net.h5").write_text("weights")
    monkeypatch.setattr(detect_in_parts, "PART", 2)
    monkeypatch.setattr(detect, "load_predictor", load_slow)
    record = {"weights_sha256": "of net.h5"}
    stub = {"record": record, "weights": tmp_path / "net.h5", "classes": {"mask": 0, "no_mask": 1}}
    stub["thresholds"] = dict.fromkeys(stub["classes"], 0.5)
    monkeypatch.setattr(snapshots, "read", lambda path: type("Snapshot", (), stub))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_a_worker_that_is_killed_loses_and_doubles_nothing(photos, processes, capsys):
    address, client = processes
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while len(list(Path("a.csv.parts").glob("part-*"))) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.append(int(Path("loaded.txt").read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(["detect", "photos", *SNAPSHOT, "--out", "a.csv", "--dask", address]) == 1
    killer.join()
    said = capsys.readouterr()
    assert "41 images: mask 40, no_mask 0, 0 images without a face, 1 unreadable: a.csv" in said.out
    loaded = [int(line) for line in Path("loaded.txt").read_text().split()]
    assert killed[0] in loaded and len(set(loaded)) == len(loaded) <= 3  # each process once, however many parts it had
    assert main(["detect", "photos", *SNAPSHOT, "--out", "b.csv"]) == 1
    assert Path("a.csv").read_text() == Path("b.csv").read_text()
    assert not [path for path in Path().iterdir() if "parts" in path.name]


def test_a_stopped_run_is_resumed_with_and_without_workers(photos, cluster, monkeypatch, capsys):
    command = ["detect", "photos", *SNAPSHOT, "--out", "a.csv", "--save-images", "drawn"]
    on_dask = [*command, "--dask", cluster.scheduler_address]
    with monkeypatch.context() as patched:
        patched.setattr(detect_on_dask, "write_here", stopping_after(5))
        assert main(on_dask) == 130
    assert "a.csv.parts keeps what is done, --resume continues from there" in capsys.readouterr().err
    before = {path.name: path.stat().st_mtime_ns for path in Path("a.csv.parts").glob("part-*")}
    assert 5 <= len(before) < 21
    assert main(on_dask) == 2 and "add --resume" in capsys.readouterr().err
    assert main([*on_dask, "--resume", "--suppress", "per_class"]) == 2
    assert "is of another run: suppress was any_class, now per_class" in capsys.readouterr().err
    kept = {}
    monkeypatch.setattr(detect_in_parts, "_joined", keeping(kept, detect_in_parts._joined))
    assert main([*on_dask, "--resume"]) == 1
    assert before.items() <= kept.items() and len(kept) == 21
    assert main(["detect", "photos", *SNAPSHOT, "--out", "b.csv"]) == 1
    assert Path("a.csv").read_text() == Path("b.csv").read_text() and len(list(Path("drawn").iterdir())) == COUNT


def stopping_after(parts: int):
    write, calls = detect_on_dask.write_here, []

    def stopping(*arguments):
        yield from write(*arguments)
        calls.append(1)
        if len(calls) == parts:
            signal.raise_signal(signal.SIGINT)

    return stopping


def keeping(kept: dict, join):
    def joined(parts, *others):
        kept.update({path.name: path.stat().st_mtime_ns for path in parts})
        return join(parts, *others)

    return joined


def test_an_image_that_kills_each_worker_is_named(photos, processes, capsys):
    import dask

    address, client = processes
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    Image.new("RGB", (9, 9), (9, 9, 9)).save("photos/zz.png")
    assert dask and main(["detect", "photos/1.png", "photos/zz.png", *SNAPSHOT, "--dask", address]) == 2
    message = "images photos/1.png to photos/zz.png: 1 workers died of it, one after the other"
    assert message in capsys.readouterr().err


def test_without_workers_it_is_said_what_to_do_and_the_next_one_goes_on(monkeypatch):
    import distributed

    options = {"threads_per_worker": 1, "processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    monkeypatch.setattr(detect_on_dask, "LOOK_SECONDS", 0.2)
    said = []
    with distributed.LocalCluster(n_workers=1, **options) as one, distributed.Client(one) as client:
        monkeypatch.setattr(detect_on_dask, "print", lambda text, **_: said.append(text) or one.scale(1), raising=False)
        results = finished(client, iter([(str(number), abs, -number) for number in range(3)]))
        assert next(results) == 0
        one.scale(0)
        while client.nthreads():
            time.sleep(0.01)
        assert list(results) == [1, 2]
    expected = "no worker is left, what is done is kept; start one with: dask worker tcp://127.0.0.1:"
    assert said and said[0].startswith(expected)


@pytest.mark.parametrize("gone", ["net.h5", "photos/0.png"])
def test_a_file_that_a_worker_does_not_see(photos, cluster, gone, monkeypatch, capsys):
    """The workers here are threads: what they see is changed when the command has looked at its own files."""
    look = detect_on_dask.files.sha256

    def vanishing(path):
        found = look(path)
        if str(path).endswith(gone):
            Path(gone).rename("elsewhere")
        return found

    monkeypatch.setattr(detect_on_dask.files, "sha256", vanishing)
    assert main(["detect", "photos/0.png", *SNAPSHOT, "--dask", cluster.scheduler_address]) == 2
    said = capsys.readouterr().err
    assert f"{gone} (No such file or directory); put it where all workers see it under this path" in said
    assert "worker tcp://" in said and not Path("detections.csv").exists()


def test_another_file_or_version_on_a_worker(photos, cluster, monkeypatch, capsys):
    command = ["detect", "photos/0.png", *SNAPSHOT, "--dask", cluster.scheduler_address]
    with monkeypatch.context() as patched:
        patched.setattr(detect_on_dask.files, "sha256", lambda path: "0")
        assert main(command) == 2
    assert f"has another file as {Path('net.h5').absolute()}; put it" in capsys.readouterr().err
    monkeypatch.setattr(detect_on_dask, "__version__", "9.9")
    assert main(command) == 2
    assert "has retinamask 0.2.0, this is 9.9; install the same on both" in capsys.readouterr().err


def test_what_does_not_answer_is_said_within_seconds(photos, monkeypatch, capsys):
    import distributed

    monkeypatch.setattr(detect_on_dask, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in ("127.0.0.1:9", f"tcp://127.0.0.1:{silent.getsockname()[1]}", "nonsense://x"):
            begun = time.monotonic()
            assert main(["detect", "photos", *SNAPSHOT, "--dask", address]) == 2
            said = capsys.readouterr().err
            assert f"--dask {address}: no scheduler of Dask answers within 0.5 s" in said
            assert "expected its address, such as tcp://10.0.0.1:8786, or local" in said
            assert time.monotonic() - begun < 20  # Dask itself tries for 30 s
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=":0") as empty:
        assert main(["detect", "photos", *SNAPSHOT, "--dask", empty.scheduler_address]) == 2
    assert "the cluster has no worker; start some with: dask worker" in capsys.readouterr().err


def test_dask_is_not_installed(photos, monkeypatch, capsys):
    monkeypatch.setattr(detect_on_dask, "find_spec", lambda name: None)
    assert main(["detect", "photos", *SNAPSHOT, "--dask", "local"]) == 2
    assert '--dask needs dask; install it with: pip install "retinamask[cluster]"' in capsys.readouterr().err


def test_processes_of_this_machine_have_cores_of_their_own():
    with connected("local") as client:
        cores = client.run(os.sched_getaffinity, 0)
    assert all(1 <= len(own) <= detect_on_dask.CORES for own in cores.values())
    assert len(set().union(*cores.values())) == sum(map(len, cores.values()))
