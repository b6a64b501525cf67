"""Progress of long work, on a terminal and in a log."""

import io

import pytest

from retinamask import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by ten seconds at each look."""
    seconds = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))


def test_a_log_gets_a_line_now_and_then(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    assert list(progress.track(range(9), "detecting", "image")) == list(range(9))
    assert log.getvalue().splitlines() == [  # an item takes ten seconds
        "detecting: 3 of 9 images, 0.1 a second, 60 s left",
        "detecting: 6 of 9 images, 0.1 a second, 30 s left",
        "detecting: 9 of 9 images, 0.1 a second, 0 s left",
    ]


def test_batches_count_what_is_in_them_and_what_was_done_before(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    assert len(list(progress.track([[1, 2], [3, 4], [5]], "detecting", "image", done=4, count=len))) == 3
    assert log.getvalue() == "detecting: 9 of 9 images, 0.167 a second, 0 s left\n"


def test_quick_work_says_nothing_in_a_log(monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    assert list(progress.track([], "detecting", "image")) == []
    assert list(progress.track(iter("ab"), "detecting", "image")) == ["a", "b"]
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert list(progress.track(range(3), "detecting", "image")) == [0, 1, 2]
    assert "detecting" in terminal.getvalue() and "/3" in terminal.getvalue()
