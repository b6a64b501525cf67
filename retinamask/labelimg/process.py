"""Start labelImg's window in a process of its own and wait until it ends.

Above `folder`. The process gets its own class list, an environment without OpenCV's Qt (opencv-python points
QT_QPA_PLATFORM_PLUGIN_PATH at its plugins when it is imported, and PyQt5 then aborts) and no settings of the user.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinamask.dataset import files
from retinamask.labelimg.folder import Session

# -P: a folder named libs where the user stands must not hide labelImg's own package of that name
WINDOW = [sys.executable, "-P", "-m", "retinamask.labelimg.window"]
_OPENCV_SETS = ("QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR")


class Ended(NamedTuple):
    """How a window ended: exit ``status`` (negative: the signal), images ``seen``, and what went wrong in it."""

    status: int
    seen: set[Path]
    failures: list[str]  # exceptions that plain labelImg would have ended with
    elsewhere: list[str]  # other folders that it saved to
    log_tail: str


def show(session: Session) -> Ended:
    """Open the window on a session and return when it has closed, by whatever cause.

    Ctrl-C in the terminal asks the window to save and close, a second one kills it.
    """
    with tempfile.TemporaryDirectory(prefix="retinamask-labelimg-") as folder:
        description, log, events_file = (Path(folder) / name for name in ("session.json", "log.txt", "events.jsonl"))
        classes_file = Path(folder) / "classes.txt"
        files.write_text(classes_file, "".join(f"{name}\n" for name in session.class_names))
        given = {
            "image_folder": str(session.image_folder),
            "images": [str(image) for image in sorted(session.sizes_wh, key=_as_people_count)],
            "classes_file": str(classes_file),
            "annotation_folder": str(session.annotation_folder),
            "port_format": session.port_format,
            "events_file": str(events_file),
        }
        files.write_json(description, given)
        with open(log, "wb") as output:
            status = _run([*WINDOW, str(description)], output)
        log_tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        events = _events(events_file)
    return Ended(
        status,
        seen={Path(event["seen"]) for event in events if "seen" in event},
        failures=[event["failed"] for event in events if "failed" in event],
        elsewhere=sorted({event["elsewhere"] for event in events if "elsewhere" in event}),
        log_tail=log_tail,
    )


def environment() -> dict[str, str]:
    """This process's environment as labelImg's needs it."""
    from cv2 import __file__ as opencv

    folder = str(Path(opencv).parent)
    kept = {name: value for name, value in os.environ.items() if name not in _OPENCV_SETS or folder not in value}
    return {**kept, "PYTHONUTF8": "1"}  # labelImg opens classes.txt in the locale's encoding


def in_words(status: int) -> str:
    """An exit status for people: ``exit status 3``, ``signal 6 (SIGABRT)``."""
    if status >= 0:
        return f"exit status {status}"
    known = [number.name for number in signal.Signals if number == -status]
    return f"signal {-status}" + "".join(f" ({name})" for name in known)


def _run(command: list[str], output) -> int:
    """Run the window's process; a request to end, such as a closed terminal, ends it as Ctrl-C does."""
    with _ends_as_ctrl_c():
        return _wait(command, output)


@contextlib.contextmanager
def _ends_as_ctrl_c() -> Iterator[None]:
    def interrupt(*_):
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(command: list[str], output) -> int:
    with subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.STDOUT) as window:
        asked = False
        while True:
            try:
                return window.wait()
            except KeyboardInterrupt:  # the window gets it too where both share a terminal; asking twice is harmless
                window.kill() if asked else window.terminate()
                asked = True


def _as_people_count(path: Path) -> list[int | str]:
    """Sorting key that puts 2 before 10, as labelImg does: texts and numbers in turn."""
    parts = re.split("([0-9]+)", str(path).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _events(path: Path) -> list[dict]:
    """What the window has noted; a line that its end cut short says nothing."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events
