"""The doctor: what is installed here is in order, and each fault has a line of its own."""

import importlib
import subprocess
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


@pytest.mark.parametrize(
    ("ldd", "expected"),
    [
        ("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n", "labelImg's window (Qt 5): opens if there is a screen"),
        (  # as on a bare Debian 12, whose packages these are
            "\tlibxkbcommon-x11.so.0 => not found\n\tlibxcb-icccm.so.4 => not found\n"
            "\tlibxcb-image.so.0 => not found\n\tlibxcb-keysyms.so.1 => not found\n\tlibdbus-1.so.3 => not found\n"
            "\tlibxcb-render-util.so.0 => not found\n\tlibxcb-xinerama.so.0 => not found\n"
            "\tlibxcb-shape.so.0 => not found\n\tlibGL.so.1 => not found\n\tlibEGL.so.1 => not found\n"
            "\tlibxcb-icccm.so.4 => not found\n\tlibglib-2.0.so.0 => not found\n"
            "\tlibgthread-2.0.so.0 => not found\n\tlibX11-xcb.so.1 => not found\n",
            "apt-get install libegl1 libgl1 libx11-xcb1 libdbus-1-3 libglib2.0-0 libxcb-icccm4 libxcb-image0 "
            "libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0",
        ),
    ],
)
def test_libraries_of_labelimgs_window(ldd, expected):
    facts = []
    doctor.labelimg_facts(facts, lambda command, **_: subprocess.CompletedProcess(command, 0, ldd))
    assert len(facts) == 1 and facts[0].endswith(expected)
    assert ("does not open without libEGL.so.1, libGL.so.1, " in facts[0]) == ("not found" in ldd)


def test_a_machine_without_pyqt5(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    facts = []
    doctor.labelimg_facts(facts)
    assert facts == ["labelImg's window does not open: PyQt5 is missing"]
