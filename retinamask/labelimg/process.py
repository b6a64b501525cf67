"""Run labelImg's window in a process of its own and wait until it ends.

Above `folder`. The process gets its own class list, an environment without OpenCV's Qt (opencv-python points
QT_QPA_PLATFORM_PLUGIN_PATH at its plugins when it is imported, and PyQt5 then aborts) and no settings of the user.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from retinamask.dataset import files
from retinamask.labelimg.folder import Session

# -P: a folder named libs in the working directory must not hide labelImg's own package of that name
WINDOW = [sys.executable, "-P", "-m", "retinamask.labelimg.window"]


class Ended(NamedTuple):
    """How a window ended: exit ``status`` (negative: the signal), images ``seen``, and what went wrong in it."""

    status: int
    seen: set[Path]
    failures: list[str]  # exceptions that plain labelImg would have ended with
    elsewhere: list[str]  # other folders that it saved to
    log_tail: str


def show(session: Session) -> Ended:
    """Open the window on a session and return when it has closed for whatever reason.

    Ctrl-C in the terminal asks the window to save and close, a second one kills it.
    """
    with tempfile.TemporaryDirectory(prefix="retinamask-labelimg-") as folder:
        names = ("session.json", "log.txt", "events.jsonl", "classes.txt")
        description, log, events_file, classes_file = (Path(folder) / name for name in names)
        files.write_text(classes_file, "".join(f"{name}\n" for name in session.class_names))
        events_file.touch()
        given = {
            "image_folder": str(session.image_folder),
            "images": list(map(str, session.sizes_wh)),
            "classes_file": str(classes_file),
            "annotation_folder": str(session.annotation_folder),
            "port_format": session.port_format,
            "events_file": str(events_file),
        }
        files.write_json(description, given)
        with open(log, "wb") as output:
            status = _run([*WINDOW, str(description)], output)
        log_tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        lines = events_file.read_text(encoding="utf-8").splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]  # a full disk cuts the last one short
    return Ended(
        status,
        seen={Path(event["seen"]) for event in events if "seen" in event},
        failures=[event["failed"] for event in events if "failed" in event],
        elsewhere=sorted({event["elsewhere"] for event in events if "elsewhere" in event}),
        log_tail=log_tail,
    )


def environment() -> dict[str, str]:
    """Return this process's environment without OpenCV's Qt."""
    from cv2 import __file__ as opencv

    opencv_sets, folder = ("QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR"), str(Path(opencv).parent)
    kept = {name: value for name, value in os.environ.items() if name not in opencv_sets or folder not in value}
    return {**kept, "PYTHONUTF8": "1"}  # labelImg opens classes.txt in the locale's encoding


def _run(command: list[str], output) -> int:
    """Run the window's process; Ctrl-C, SIGTERM or a closed terminal asks it to save and close, then kills it."""
    with subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.STDOUT) as window:
        requests = iter([window.terminate])  # on Ctrl-C the window gets SIGINT as well; asking twice is harmless
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.signal(number, lambda *_: next(requests, window.kill)()) for number in numbers}
        try:
            return window.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
