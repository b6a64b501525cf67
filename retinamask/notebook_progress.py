"""What a person sees while a notebook runs: the cell that is at work, and what it prints.

Below `retinamask.notebooks`, which hands the watch to papermill.
"""

import re
import time
from typing import Any, TextIO


class Watch:
    """The cells begun so far, each announced on the stream, and what passes their output on to it."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.cells: list[Any] = []
        self._name, self._stream = name, stream
        # Apart, so that the text of one does not run into a progress bar on the other.
        self.stdout, self.stderr = (Lines(stream), Lines(stream)) if stream else (None, None)

    def cell_started(self, cell: Any, cell_index: int) -> None:
        """nbclient calls this before each cell, a text cell too."""
        self.end_lines()
        self.cells.append(cell)
        if self._stream and cell.cell_type == "code" and not _is_injected(cell):
            number, title = place(self.cells)
            print(f"[{self._name}] cell {number}: {title}", file=self._stream, flush=True)

    def end_lines(self) -> None:
        """Show what was printed without an end of line."""
        if self._stream:
            self.stdout.end_line()
            self.stderr.end_line()


class Lines:
    """Passes a cell's output on as it comes, so that a long cell is seen to be alive.

    To a terminal the output goes as it is. To a file it goes by whole lines; of a progress bar, which draws
    itself over and over after a carriage return, only the last state and one every half minute are kept.
    """

    SECONDS_BETWEEN_STATES = 30.0

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line, self._shown = stream, "", time.monotonic()

    def write(self, text: str) -> None:
        """papermill calls this with each piece of output."""
        if self._stream.isatty():
            self._stream.write(text)
            return
        *lines, rest = (self._line + text.replace("\b", "")).split("\n")
        for line in lines:
            self._show(line)
        self._line = _last_state(rest) + ("\r" if rest.endswith("\r") else "")
        if time.monotonic() - self._shown >= self.SECONDS_BETWEEN_STATES:
            self.end_line()

    def flush(self) -> None:
        """papermill calls this after each piece of output."""
        self._stream.flush()

    def end_line(self) -> None:
        """Show what was printed without an end of line."""
        if self._line:
            self._show(self._line)
            self._line = ""

    def _show(self, line: str) -> None:
        print(_last_state(line), file=self._stream, flush=True)
        self._shown = time.monotonic()


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def place(cells: list[Any]) -> tuple[int, str]:
    """The last cell's number in the notebook as its author sees it, and its heading or else first line."""
    before, cell = cells[-2] if len(cells) > 1 else None, cells[-1]
    heading = before and before.cell_type == "markdown" and re.match(r"#+ +(.+)", before.source.strip())
    title = heading.group(1) if heading else cell.source.strip().partition("\n")[0]
    return sum(not _is_injected(cell) for cell in cells), title.strip()


def _is_injected(cell: Any) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])
