"""Training that is killed: whatever the moment, what is resumed ends with the very weights of an untouched run."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from darknet_networks import SMALL_CFG

from retinamask import detectors
from retinamask.detectors import snapshots

SCRIPT = Path(__file__).with_name("train_in_process.py")
SMALL = ("yolov4_tiny", {"cfg": SMALL_CFG})  # the point is not its size
RESNET50 = ("retinanet", {"backbone": "resnet50", "image_size": 96, "normalisation": "live"})
SETTINGS = {"epochs": 6, "steps": 4, "batch_size": 2, "learning_rate": 1e-3, "ema": 0.9, "checkpoint_minutes": 0.0}


def process(tiny, stem: Path, detector: tuple[str, dict], **settings) -> subprocess.Popen:
    given = {"folder": str(tiny), "stem": str(stem), **SETTINGS, **settings}
    given["detector"], given["detector_settings"] = detector
    stem.with_suffix(".json").write_text(json.dumps(given))
    command = [sys.executable, str(SCRIPT), str(stem.with_suffix(".json"))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(running: subprocess.Popen) -> str:
    printed, _ = running.communicate(timeout=900)
    assert running.returncode == 0, printed
    return printed


def kill_after(running: subprocess.Popen, stem: Path, steps: int, seconds: float) -> bool:
    """Kill a process this long after it has done so many further steps; False if it was over before."""
    file, first = stem.with_name(f"{stem.name}.step"), None
    while running.poll() is None:
        now = int(file.read_text() or -1) if file.exists() else -1
        first = now if first is None else first
        if now >= 0 and now - max(first, 0) >= steps:
            time.sleep(seconds)
            running.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    running.communicate()
    return running.returncode == -signal.SIGKILL


def assert_same_end(one: Path, other: Path) -> None:
    for end in ("best", "last"):
        weights = [
            detectors.load(snapshots.read(stem.with_name(f"{stem.name}_{end}.h5")), "training")[1].get_weights()
            for stem in (one, other)
        ]
        assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True)), end
    logs = [pd.read_csv(f"{stem}.csv").drop(columns="seconds") for stem in (one, other)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


def killed_and_resumed(tiny, folder, detector: tuple[str, dict], kills: int, seed: int, **settings) -> int:
    """Train once untouched and once killed again and again; how often it was killed before its end."""
    whole, torn = folder / "whole", folder / "torn"
    finish(process(tiny, whole, detector, **settings))
    dice, killed = random.Random(seed), 0
    for number in range(kills):
        running = process(tiny, torn, detector, **settings)
        steps = dice.randrange(1, 3) + (number == 0)  # at first two, before which there is a checkpoint
        killed += kill_after(running, torn, steps, dice.uniform(0, 0.1))
        for end in ("best", "last"):  # never anything but whole snapshots
            if torn.with_name(f"torn_{end}.json").exists():
                snapshots.read(torn.with_name(f"torn_{end}.h5"))
    printed = finish(process(tiny, torn, detector, **settings))
    assert "resuming after step" in printed
    assert_same_end(whole, torn)
    assert not list(folder.glob("*checkpoint*")) and not list(folder.glob(".*"))
    return killed


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tiny, tmp_path):
    assert killed_and_resumed(tiny, tmp_path, SMALL, kills=1, seed=1) == 1


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_as_if_it_had_not_been(tiny, tmp_path):
    assert killed_and_resumed(tiny, tmp_path, SMALL, kills=20, seed=7, epochs=100) == 20


@pytest.mark.slow
def test_a_resnet50_that_was_killed_ends_as_if_it_had_not_been(tiny, tmp_path):
    assert killed_and_resumed(tiny, tmp_path, RESNET50, kills=1, seed=3, epochs=2) == 1
