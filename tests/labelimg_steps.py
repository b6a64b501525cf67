"""What a person does in labelImg's window, as real Qt events; runs in labelImg's process, not in pytest's.

``python labelimg_steps.py plain|repaired STEPS.json SESSION.json``: STEPS is ``{"steps": [[name, arguments...], ...],
"report": path}``; each step is a function below. Beside each step's name, the report gets what the step returned.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path

from PyQt5.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from PyQt5.QtGui import QMouseEvent, QWheelEvent
from PyQt5.QtTest import QTest
from PyQt5.QtWidgets import QApplication

COMMAND, NONE = Qt.ControlModifier, Qt.NoModifier


def plain(session: dict):
    """labelImg as pip installs it."""
    from labelImg import labelImg

    return labelImg.get_main_app(
        ["labelImg", session["image_folder"], session["classes_file"], session["annotation_folder"]]
    )


def repaired(session: dict):
    from retinamask.labelimg.window import open_window

    return open_window(session)


def on_canvas(window, x: float, y: float) -> QPoint:
    """Where a pixel of the image lies on the canvas."""
    canvas = window.canvas
    return ((QPointF(x, y) + canvas.offset_to_center()) * canvas.scale).toPoint()


def mouse(window, kind, position: QPoint, button=Qt.LeftButton, buttons=Qt.LeftButton):
    canvas = window.canvas
    event = QMouseEvent(kind, QPointF(position), QPointF(canvas.mapToGlobal(position)), button, buttons, NONE)
    QApplication.sendEvent(canvas, event)
    QApplication.processEvents()


def hover(window, x, y):
    mouse(window, QEvent.MouseMove, on_canvas(window, x, y), Qt.NoButton, Qt.NoButton)


def drag(window, *points):
    """Press at the first point (pixels of the image), move over the others, release at the last."""
    places = [on_canvas(window, x, y) for x, y in points]
    mouse(window, QEvent.MouseButtonPress, places[0])
    for place in places[1:]:
        mouse(window, QEvent.MouseMove, place, Qt.NoButton)
    mouse(window, QEvent.MouseButtonRelease, places[-1], buttons=Qt.NoButton)


def answer(text: str):
    """Type into the class dialog as soon as it is there, and press Enter."""
    dialog = QApplication.activeModalWidget()
    if dialog is None or not hasattr(dialog, "edit"):
        QTimer.singleShot(20, lambda: answer(text))
        return
    dialog.edit.selectAll()
    QTest.keyClicks(dialog.edit, text)
    dialog.edit.completer().popup().hide()
    QTest.mouseClick(dialog.button_box.button(dialog.button_box.Ok), Qt.LeftButton)


def draw(window, x1, y1, x2, y2, name):
    key(window, "w")
    hover(window, x1, y1)
    QTimer.singleShot(20, lambda: answer(name))
    drag(window, (x1, y1), ((x1 + x2) / 2, (y1 + y2) / 2), (x2, y2))
    return [item.text() for item in items(window)]


def items(window):
    return [window.label_list.item(row) for row in range(window.label_list.count())]


def key(window, text):
    """A key or shortcut: ``w``, ``ctrl+s``, ``space``, ``left``."""
    *modifiers, letter = text.split("+")
    while QApplication.activeWindow() is not window:  # after a dialog, where there is no window manager
        window.activateWindow()
        QTest.qWait(10)
    code = getattr(Qt, f"Key_{letter.upper() if len(letter) == 1 else letter.capitalize()}")
    QTest.keyClick(window.canvas, code, COMMAND if modifiers else NONE)
    QApplication.processEvents()


def relabel(window, row, name):
    window.label_list.setCurrentRow(row)
    QTimer.singleShot(20, lambda: answer(name))
    key(window, "ctrl+e")
    return [item.text() for item in items(window)]


def wheel(window, delta, with_control):
    position = window.canvas.rect().center()
    place = QPointF(window.canvas.mapToGlobal(position))
    modifiers = COMMAND if with_control else NONE
    turn = QPoint(0, delta)
    event = QWheelEvent(QPointF(position), place, QPoint(), turn, Qt.NoButton, modifiers, Qt.NoScrollPhase, False)
    QApplication.sendEvent(window.canvas, event)
    QApplication.processEvents()
    return view(window)


def view(window):
    return {
        "zoom": window.zoom_widget.value(),
        "down": window.scroll_bars[Qt.Vertical].value(),
        "right": window.scroll_bars[Qt.Horizontal].value(),
        "lowest": window.scroll_bars[Qt.Vertical].maximum(),
    }


def pan(window, x1, y1, x2, y2):
    drag(window, (x1, y1), ((x1 + x2) / 2, (y1 + y2) / 2), (x2, y2))
    return view(window)


def hide_others(window, name):
    """Choose a class in the list above the boxes."""
    window.combo_box.cb.setCurrentText(name)
    QApplication.processEvents()
    return [item.checkState() for item in items(window)]


def show_image(window, row):
    """Double-click an image in the file list."""
    window.file_list_widget.itemDoubleClicked.emit(window.file_list_widget.item(row))
    QApplication.processEvents()


def picture(window, path):
    QApplication.processEvents()
    return window.grab().save(path)


def place(window, x, y):
    """Where a pixel of the image is in a picture of the window."""
    position = window.canvas.mapTo(window, on_canvas(window, x, y))
    return position.x(), position.y()


def resize_box(window, x1, y1, x2, y2):
    """Drag one corner of a box from the first place to the second."""
    hover(window, x1, y1)
    drag(window, (x1, y1), ((x1 + x2) / 2, (y1 + y2) / 2), (x2, y2))


def make_unwritable(window, folder):
    """Put a folder where the annotation file is to be, so that it cannot be written; errors are answered with OK."""
    Path(folder).mkdir(parents=True)
    QTimer.singleShot(50, lambda: press("ok"))


def make_writable(window, folder):
    Path(folder).rmdir()


def delete_image(window, button):
    """File > Delete current image; ``button`` is the answer, yes or no."""
    QTimer.singleShot(20, lambda: press(button))
    window.actions.deleteImg.trigger()


def press(button):
    dialog = QApplication.activeModalWidget()
    if dialog is None:
        QTimer.singleShot(20, lambda: press(button))
        return
    QTest.mouseClick(dialog.button({"yes": dialog.Yes, "no": dialog.No, "ok": dialog.Ok}[button]), Qt.LeftButton)


def state(window):
    return {
        "file": window.file_path and Path(window.file_path).name,
        "boxes": [item.text() for item in items(window)],
        "dirty": window.dirty,
        "verified": window.canvas.verified,
        "listed": [Path(path).name for path in window.m_img_list],
        "classes": list(window.label_hist),
    }


def loaded(window):
    """Modules of which labelImg's process must be free."""
    return sorted({"cv2", "tensorflow"} & set(sys.modules))


def change_save_dir(window, folder):
    """As File > Change Save Dir does once a folder is chosen."""
    Path(folder).mkdir()
    window.default_save_dir = folder


def break_in_a_slot(window):
    """An exception in a Qt callback, of a kind that the repair knows nothing of."""
    QTimer.singleShot(0, lambda: 1 / 0)
    QTest.qWait(50)


def die(window):
    os.kill(os.getpid(), 9)


def close(window):
    return window.close()


def main(kind: str, steps_json: str, session_json: str) -> None:
    faulthandler.dump_traceback_later(60, exit=True)  # such as in a dialog that nobody answers
    given = json.loads(Path(steps_json).read_text(encoding="utf-8"))
    application, window = globals()[kind](json.loads(Path(session_json).read_text(encoding="utf-8")))
    window.activateWindow()
    QTest.qWait(100)  # labelImg loads the folder from its event queue
    report = []
    for name, *arguments in given["steps"]:
        report.append([name, globals()[name](window, *arguments)])
        Path(given["report"]).write_text(json.dumps(report), encoding="utf-8")
    application.processEvents()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # Qt's objects are not taken down in an order that Qt likes without its event loop
