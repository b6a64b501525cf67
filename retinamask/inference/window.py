"""Show pictures on the screen as they come."""

import subprocess
import sys
import time

import cv2
import numpy as np

from retinamask.inference.video_files import VideoError

_TRY = """
import sys, cv2
try:
    cv2.namedWindow("retinamask")
except cv2.error as error:
    sys.exit(error.err)
"""
_ENDING_KEYS = (ord("q"), 27)  # 27 is Esc


class Window:
    """A window; closing it, q or Esc ends the work as Ctrl-C does."""

    def __init__(self, name: str):
        self._title, self._start = f"{name} (q ends)", None
        cv2.namedWindow(self._title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)  # without Qt's row of buttons

    @staticmethod
    def check() -> None:
        """Raise `VideoError` if no window can be opened. Another process tries: where there is none OpenCV aborts."""
        tried = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True)
        if tried.returncode:
            found = (tried.stderr.strip() or "no display").splitlines()[0].strip()
            raise VideoError(f"no window can be opened ({found}); show it where there is a display, or use --out-video")

    def write(self, image_rgb: np.ndarray, seconds: float, duration: float) -> None:
        """Show a picture ``seconds`` after the first one or, if it is late, at once; until the next one comes.

        Raises:
            KeyboardInterrupt: the window was closed, or q or Esc was pressed.
        """
        now = time.monotonic()
        self._start = now - seconds if self._start is None else self._start
        key = cv2.waitKey(max(1, round(1000 * (self._start + seconds - now))))
        cv2.imshow(self._title, np.ascontiguousarray(image_rgb[..., ::-1]))
        key = cv2.waitKey(1) if key == -1 else key
        if key in _ENDING_KEYS or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
