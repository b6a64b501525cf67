"""What several test files share: the drawn sample, one small trained network, and the data beside the project."""

import os
from pathlib import Path

import pytest

from retinamask.dataset import annotations
from retinamask.dataset.formats import read
from retinamask.dataset.sample import CLASSES, draw_sample

ROOT = Path(__file__).parents[1]
BACKBONE = "mobilenet128_0.25"  # test_keras_files and the pipeline have a ResNet50
# with so short a memory of its statistics that it tells images apart after a few steps
SMALL = {"backbone": BACKBONE, "image_size": 96, "normalisation": "live", "momentum": 0.3}
# 80 to 25 seconds of a processor each: begun first, so that no process waits at the end (--no-loadscope-reorder).
LONGEST = (
    "test_pipeline",
    "test_keras_files",
    "test_train",
    "test_distribution",
    "test_detect",
    "test_survival",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets that may lie beside the project; without it the test is skipped."""
    folder = Path(os.environ.get("RETINAMASK_DATA", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}; name their folder in RETINAMASK_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with twelve drawn scenes of 96 px, ``annotations.csv`` and ``classes.csv``."""
    folder = tmp_path_factory.mktemp("tiny")
    draw_sample(folder / "scenes", images=12, size=96, seed=3)
    table, problems = read("voc", [folder / "scenes"], folder)
    assert problems == []
    annotations.write_annotations(table, folder / "annotations.csv")
    annotations.write_classes(CLASSES, folder / "classes.csv")
    return folder


@pytest.fixture(scope="session")
def trained(tiny):
    """A small RetinaNet after two epochs of ten steps on the tiny scenes, with its evaluation."""
    from retinamask import detectors
    from retinamask.evaluation.in_training import epoch_evaluation
    from retinamask.training.input_pipeline import Examples
    from retinamask.training.settings import TrainingSettings
    from retinamask.training.train import train

    table = annotations.read_annotations(tiny / "annotations.csv", CLASSES)
    detector = detectors.create("retinanet", CLASSES, **SMALL)
    settings = TrainingSettings(epochs=2, steps=10, batch_size=2, learning_rate=1e-3, schedule="constant", seed=5)
    stem, log_csv = tiny / "snapshots" / "tiny", tiny / "log.csv"
    evaluate = epoch_evaluation(detector, annotations.of_images(table, annotations.image_paths(table)[:2]), tiny)
    return train(Examples(table, tiny, detector), settings, stem, evaluate=evaluate, log_csv=log_csv)


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two workers in this process, at an address.

    Closed after each file: its heartbeats draw from `random`, which Hypothesis takes for a flaky test.
    """
    import distributed

    options = {"threads_per_worker": 1, "dashboard_address": ":0", "protocol": "tcp"}
    with distributed.LocalCluster(n_workers=2, processes=False, **options) as started:
        yield started


@pytest.fixture(scope="module")
def processes():
    """The address of a cluster of two processes, and a client."""
    import distributed

    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **options) as started, distributed.Client(started) as client:
        client.wait_for_workers(2, timeout=30)
        yield started.scheduler_address, client
