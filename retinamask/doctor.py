"""Report what is installed, and what is wrong with it in one line each; nothing is changed."""

import importlib
import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Versions that the project needs: name, and what its version must start with.
NEEDED = {
    "tensorflow": "2.21.",
    "tf-keras": "2.21.",
    "keras-retinanet": "1.0.0",
    "keras-resnet": "0.2.0",
    "opencv-python": "4.",
    "numpy": "2.",
    "pandas": "3.",
    "pillow": "13.",
    "matplotlib": "3.",
    "papermill": "2.",
    "jupyter": "1.",
    "labelImg": "1.8.6",
}
OPENCV_WHEELS = [f"opencv-{name}{end}" for name in ("python", "contrib-python") for end in ("", "-headless")]
_REINSTALL = "run: pip install -r requirements.txt"


def report() -> tuple[list[str], list[str]]:
    """Check the environment.

    Returns:
        Lines on what is installed, and lines on what is wrong (empty if nothing is).
    """
    facts, faults = [f"Python {platform.python_version()} on {platform.platform()}"], []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        faults.append(f"Python {platform.python_version()}: expected 3.11 to 3.13; make a new environment with one")
    for name, prefix in NEEDED.items():
        found = installed(name)
        facts.append(f"{name} {found or 'is not installed'}")
        if not found or not found.startswith(prefix):
            faults.append(f"{name} {found or 'is missing'}: expected {prefix.rstrip('.')}; {_REINSTALL}")
    for check in (opencv_faults, overlap_faults, keras_faults):
        faults += check(facts)
    labelimg_facts(facts)
    return facts, faults


def installed(name: str) -> str | None:
    """Return the installed version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def opencv_faults(facts: list[str], find: Callable[[str], str | None] = installed) -> Iterator[str]:
    """Find more than one OpenCV wheel, which all write the same ``cv2`` folder, or version 5."""
    found = {name: number for name in OPENCV_WHEELS if (number := find(name))}
    facts.append("OpenCV wheels: " + (", ".join(f"{name} {number}" for name, number in found.items()) or "none"))
    if len(found) > 1:
        yield f"{len(found)} OpenCV wheels ({', '.join(found)}): uninstall all of them, then {_REINSTALL}"
    for name, number in found.items():
        if int(number.split(".")[0]) >= 5:
            yield f"{name} {number} lost its Caffe and Darknet readers: pip install 'opencv-python==4.14.0.94'"


def overlap_faults(facts: list[str]) -> Iterator[str]:
    """Find that keras-retinanet's compiled part is missing, which needs a C compiler when it is installed."""
    try:
        importlib.import_module("keras_retinanet.utils.compute_overlap")
        facts.append("keras-retinanet's compiled overlap extension: there")
    except ImportError as error:
        yield (
            f"keras-retinanet's compiled overlap extension is missing ({error}): install a C compiler and Python's "
            "headers, then pip install --force-reinstall --no-deps keras-retinanet==1.0.0"
        )


def keras_faults(facts: list[str]) -> Iterator[str]:
    """Report TensorFlow with Keras 2 and its devices, or why it does not start."""
    try:
        from retinamask.detectors._keras import device_line

        facts.append(device_line())
    except Exception as error:  # whatever stops TensorFlow is what the user came to hear
        yield f"TensorFlow does not start: {error}"


def labelimg_facts(facts: list[str], run: Callable[..., subprocess.CompletedProcess] = subprocess.run) -> None:
    """Report whether labelImg's window can open: Qt's plug-in for X11 needs libraries that a server does without."""
    spec = importlib.util.find_spec("PyQt5")
    if not spec:
        facts.append("labelImg's window does not open: PyQt5 is missing")
        return
    plugin = Path(spec.submodule_search_locations[0], "Qt5/plugins/platforms/libqxcb.so")
    missing = []
    if plugin.exists():  # on Linux only
        listed = run(["ldd", str(plugin)], capture_output=True, text=True).stdout
        missing = sorted(set(re.findall(r"(\S+) => not found", listed)))
    if not missing:
        facts.append("labelImg's window (Qt 5): opens if there is a screen")
        return
    # Debian's rule for the packages of libraries: https://www.debian.org/doc/debian-policy/ch-sharedlibs.html
    packages = [re.sub(r"\.so\.", "", re.sub(r"(\d)\.so\.", r"\1-", library)).lower() for library in missing]
    packages = dict.fromkeys(re.sub("^lib(glib|gthread)-2.0-0$", "libglib2.0-0", name) for name in packages)
    install = f"to draw boxes here: apt-get install {' '.join(packages)}"
    facts.append(f"labelImg's window does not open without {', '.join(missing)}; {install}")
