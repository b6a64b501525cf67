"""The doctor: what is installed here is in order, and each fault has a line of its own."""

import importlib
import sys

import pytest

from retinamask import doctor
from retinamask.cli import main


def test_it_names_versions_devices_and_wheels(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "tensorflow 2.21",
        "keras-retinanet 1.0.0",
        "computes on",
        "overlap extension: there",
        "OpenCV wheels: opencv-python 4",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("wheels", "faults"),
    [
        ({}, []),
        ({"opencv-python": "4.14.0.94"}, []),
        ({"opencv-python": "5.0.0.93"}, ["lost its Caffe and Darknet readers"]),
        ({"opencv-python": "4.14.0.94", "opencv-python-headless": "4.14.0.94"}, ["2 OpenCV wheels"]),
    ],
)
def test_opencv(wheels, faults):
    found = list(doctor.opencv_faults([], wheels.get))
    assert len(found) == len(faults) and all(part in line for part, line in zip(faults, found, strict=True))


def test_a_wrong_version_and_a_missing_package(monkeypatch):
    versions = {"tensorflow": "2.15.0", "labelImg": None}
    monkeypatch.setattr(doctor, "installed", lambda name: versions.get(name, doctor.NEEDED.get(name)))
    _, faults = doctor.report()
    assert any(line.startswith("tensorflow 2.15.0: expected 2.21") for line in faults)
    assert any(line.startswith("labelImg is missing: expected 1.8.6") for line in faults)


@pytest.fixture
def fails_to_import(monkeypatch):
    """A function that makes one module fail to import for want of a system library."""
    real = importlib.import_module

    def let(module):
        def failing(name, *arguments):
            if name == module:
                raise ImportError("libGL.so.1: cannot open shared object file")
            return real(name, *arguments)

        monkeypatch.setattr(importlib, "import_module", failing)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return let


def test_a_missing_extension_is_a_fault(fails_to_import):
    fails_to_import("keras_retinanet.utils.compute_overlap")
    (line,) = doctor.overlap_faults([])
    assert "install a C compiler" in line and "libGL" in line


def test_a_server_without_qt_is_in_order(fails_to_import):
    fails_to_import("PyQt5.QtWidgets")
    facts = []
    doctor.labelimg_facts(facts)
    assert len(facts) == 1 and "apt-get install" in facts[0] and "libGL" in facts[0]
    assert doctor.report()[1] == []
