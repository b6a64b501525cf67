"""labelImg sessions: its window in a process of its own, repaired, and what is done before and after it.

`repair` and `window` run in labelImg's process and import nothing that loads OpenCV, whose Qt is not PyQt5's;
`port`, `folder`, `proposals`, `process` and `outcome` run in ours.
"""
