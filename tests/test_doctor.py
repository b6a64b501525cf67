"""The doctor: what is installed here is in order, and each fault has a line of its own."""

import importlib
import sys

import pytest

from retinamask import doctor
from retinamask.cli import main


def test_it_names_versions_devices_and_wheels(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "labelimg_faults", lambda facts: [])  # a server has no Qt libraries
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
    monkeypatch.setattr(doctor, "labelimg_faults", lambda facts: [])
    _, faults = doctor.report()
    assert any(line.startswith("tensorflow 2.15.0: expected 2.21") for line in faults)
    assert any(line.startswith("labelImg is missing: expected 1.8.6") for line in faults)


@pytest.mark.parametrize(
    ("module", "check", "advice"),
    [
        ("keras_retinanet.utils.compute_overlap", doctor.overlap_faults, "install a C compiler"),
        ("PyQt5.QtWidgets", doctor.labelimg_faults, "apt-get install"),
    ],
)
def test_an_import_that_fails_says_what_to_install(module, check, advice, monkeypatch):
    real = importlib.import_module

    def failing(name, *arguments):
        if name == module:
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", failing)
    monkeypatch.delitem(sys.modules, module, raising=False)
    lines = list(check([]))
    assert len(lines) == 1 and advice in lines[0] and "libGL" in lines[0]
