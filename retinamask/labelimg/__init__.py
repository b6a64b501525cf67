"""labelImg sessions: its window in a process of its own, repaired, and what is done before and after it.

`window` runs in labelImg's process and imports nothing that loads OpenCV, whose Qt is not PyQt5's; the others run in
ours.
"""
