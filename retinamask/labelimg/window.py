"""labelImg's window for one session: ``python -m retinamask.labelimg.window session.json``.

In labelImg's process, started by `process`, which also writes the JSON. Changes only what loses work or reaches beyond
the session: floats (`accept_floats`), the settings (a pickle in the user's home, neither read nor written),
half-written files, exceptions that end the program, and boxes dropped or images deleted without a question.
"""

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from labelImg import labelImg
from libs import constants, labelFile
from libs.canvas import Canvas
from libs.utils import natural_sort
from PyQt5.QtCore import QSize, QTimer, pyqtSignal
from PyQt5.QtGui import QPainter
from PyQt5.QtWidgets import QAbstractSlider, QApplication, QMessageBox, QSpinBox

from retinamask.dataset import files

FORMATS = {
    "voc": (labelFile.LabelFileFormat.PASCAL_VOC, constants.FORMAT_PASCALVOC),
    "yolo": (labelFile.LabelFileFormat.YOLO, constants.FORMAT_YOLO),
}
WINDOW_SIZE = (1200, 800)
CALLS = {  # QAbstractSlider is what the scroll bars are
    QPainter: ("drawLine", "drawRect", "drawText"),
    QAbstractSlider: ("setValue",),
    QSpinBox: ("setValue",),
}


class RepairedCanvas(Canvas):
    """labelImg's canvas, whose signal carries what it is given.

    ``mouseMoveEvent`` emits floats where ints are declared: PyQt5 would pass on a number from anywhere in memory, and
    dragging the picture would throw it into a corner.
    """

    scrollRequest = pyqtSignal(float, int)


def accept_floats() -> None:
    """Round floats where Qt wants whole numbers, in this process; calling it again changes nothing.

    Python before 3.10 cut floats silently where PyQt5 asked for an int; since then PyQt5 raises TypeError, and an
    exception in a Qt callback ends the program. labelImg 1.8.6 hands floats over in

    - ``libs/canvas.py`` ``paintEvent``: ``drawRect``, ``drawLine`` (https://github.com/HumanSignal/labelImg/issues/838),
    - ``libs/shape.py`` ``paint``: ``drawText`` of the class name beside a box,
    - ``labelImg/labelImg.py`` ``scroll_request``, ``zoom_request``: ``setValue`` of the scroll bars, and through
      ``add_zoom`` and ``set_zoom`` that of the zoom's spin box (issues 872, 899, 938, 1004 and 1011 there).

    Qt's methods are wrapped and no function of labelImg is replaced, so that their other callers are covered too.
    """
    labelImg.Canvas = RepairedCanvas
    for owner, names in CALLS.items():
        for name in names:
            method = getattr(owner, name)
            if not hasattr(method, "__wrapped__"):
                setattr(owner, name, _rounding(method))


def _rounding(method: Callable) -> Callable:
    """``method``, called once more with rounded floats where Qt has no overload for the arguments as they are."""

    @functools.wraps(method)
    def call(self, *arguments):
        try:
            return method(self, *arguments)
        except TypeError:
            return method(self, *(round(value) if isinstance(value, float) else value for value in arguments))

    return call


class SessionSettings(dict):
    """labelImg's settings for this session alone, neither loaded nor saved."""

    def load(self) -> None:
        pass

    save = load


class WholeFiles(labelFile.LabelFile):
    """Writes a whole file or none; labelImg empties the old one before it knows what to write."""

    def save_pascal_voc_format(self, filename, *rest):
        with files.replacing(filename) as temporary:
            super().save_pascal_voc_format(str(temporary), *rest)

    def save_yolo_format(self, filename, *rest):
        with files.replacing(filename) as temporary:
            super().save_yolo_format(str(temporary), *rest)


class SessionWindow(labelImg.MainWindow):
    """labelImg's main window on the images of one session.

    Args:
        session: ``image_folder``, ``images`` (absolute paths), ``classes_file`` (one name a
            line), ``annotation_folder``, ``port_format`` (voc or yolo) and ``events_file``, to which a line of JSON
            is added for each image that was shown, each exception that was survived and each file saved elsewhere.
    """

    def __init__(self, session: dict):
        self.session = session
        super().__init__(None, session["classes_file"], session["annotation_folder"])
        # not through its argument: it would load the folder twice and ask whether to save before anything was done
        self.queue_event(functools.partial(self.import_dir_images, session["image_folder"]))
        self.set_format(FORMATS[session["port_format"]][1])
        self.actions.resetAll.setEnabled(False)  # would start a plain labelImg outside the session

    def scan_all_images(self, folder_path):
        """List the session's images; labelImg would show hidden files and formats that nothing else here reads."""
        if not os.path.samefile(folder_path, self.session["image_folder"]):
            return super().scan_all_images(folder_path)
        images = [path for path in self.session["images"] if os.path.exists(path)]  # one may have been deleted
        natural_sort(images, key=str.lower)
        return images

    def load_file(self, file_path=None):
        """Load an image and note that a person has been shown it."""
        loaded = super().load_file(file_path)
        if loaded:
            self.note({"seen": self.file_path})
        return loaded

    def file_item_double_clicked(self, item=None):
        """Go to another image from the list; labelImg would drop unsaved boxes here without a question."""
        if self.dirty and self.auto_saving.isChecked():
            self.save_file()
        if self.may_continue():
            super().file_item_double_clicked(item)

    def delete_image(self):
        """Delete the image file, but not without a question."""
        if self.file_path is None:
            return
        text = f"Delete this image from the disk?\n{self.file_path}"
        answer = QMessageBox.question(self, "Delete image", text, QMessageBox.Yes | QMessageBox.No, QMessageBox.No)
        if answer == QMessageBox.Yes:
            super().delete_image()

    def save_labels(self, annotation_file_path):
        """Save, and report a failure, which would end labelImg; note what its menu saves to another folder."""
        folder = os.path.dirname(os.path.abspath(annotation_file_path))
        if folder != self.session["annotation_folder"]:
            self.note({"elsewhere": folder})
        try:
            return super().save_labels(annotation_file_path)
        except Exception as error:  # a full disk, a folder that is gone, a character that XML lacks, ...
            self.note({"failed": f"not saved: {annotation_file_path}: {error}"})
            self.error_message("Not saved", f"{annotation_file_path}: {error}")
            return False

    def note(self, event: dict) -> None:
        """Report an event to the process that started this one."""
        with open(self.session["events_file"], "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def stop(self, *_) -> None:
        """Save and close without a question, because the process was asked to end."""
        _on_request(signal.SIG_IGN)  # asked once is enough: Ctrl-C reaches this process twice
        if self.dirty:
            self.save_file()
        self.dirty = False
        self.close()
        QApplication.quit()  # also where a dialog is open


def open_window(session: dict) -> tuple[QApplication, SessionWindow]:
    """Make the application and show the repaired window, without entering Qt's loop."""
    accept_floats()
    settings = {
        constants.SETTING_LABEL_FILE_FORMAT: FORMATS[session["port_format"]][0],
        constants.SETTING_AUTO_SAVE: True,
        constants.SETTING_PAINT_LABEL: True,
        constants.SETTING_WIN_SIZE: QSize(*WINDOW_SIZE),
    }
    labelImg.Settings = lambda: SessionSettings(settings)
    labelImg.LabelFile = WholeFiles
    application = QApplication(["labelImg"])
    application.setApplicationName("labelImg")
    application.setWindowIcon(labelImg.new_icon("app"))
    window = SessionWindow(session)

    def survive(kind, error, trace) -> None:
        """Report an exception and continue; PyQt5 would abort the process and lose the boxes not yet saved."""
        window.note({"failed": f"{kind.__name__}: {error}"})
        traceback.print_exception(kind, error, trace)
        window.status(f"Something went wrong ({error}); save with Ctrl+S and look at the box again", 60_000)

    sys.excepthook = survive
    window.show()
    return application, window


def main(session_json: str) -> int:
    """Show the window until it is closed."""
    application, window = open_window(json.loads(Path(session_json).read_text(encoding="utf-8")))
    _on_request(window.stop)
    ticking = QTimer()  # Python looks at signals only while Python runs
    ticking.timeout.connect(lambda: None)
    ticking.start(200)
    return application.exec_()


def _on_request(handler) -> None:
    """Set what happens when this process is asked to end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
