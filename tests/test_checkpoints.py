"""Checkpoints: whole or not there, whatever happens to process, disk and bytes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from retinamask.training import checkpoints
from retinamask.training.settings import TrainingError

ARRAYS = {
    "weights/0": np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7),
    "iterations": np.array(2**40 + 1, np.int64),
    "half": np.array([[1.5], [-0.0]], np.float16),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 3), np.float64),
    "big endian": np.arange(3, dtype=">i4"),
    "transposed": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
    "nan": np.array([np.nan, np.inf, -np.inf]),
}
RECORD = {"epoch": 3, "rows": [{"loss": 0.1, "AP50": None}], "Größe": "ü", "nested": {"a": [1, 2.5]}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(first, second):
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def test_everything_comes_back_as_it_was(tmp_path):
    path = checkpoints.save(tmp_path / "runs" / "run", 12, ARRAYS, RECORD)
    assert path == tmp_path / "runs" / "run_checkpoint-00000012.npz"
    found = checkpoints.newest(tmp_path / "runs" / "run")
    assert (found.step, found.record, list(found.arrays)) == (12, RECORD, list(ARRAYS))
    for name, array in ARRAYS.items():
        assert same(found.arrays[name], array), name
        assert found.arrays[name].flags.writeable, name


def test_any_reader_of_npz_reads_it(tmp_path):
    array = np.arange(5, dtype="<f4")
    path = checkpoints.save(tmp_path / "run", 1, {"a": array}, {"x": 2})
    with np.load(path, allow_pickle=False) as found:
        assert json.loads(found["record"].tobytes()) == {"step": 1, "record": {"x": 2}, "arrays": ["a"]}
        np.testing.assert_array_equal(found["a"], array)


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "run_checkpoint-00000012.state").write_bytes(b"retinamask state")
    with pytest.raises(TrainingError, match="12.state was written by an earlier version of retinamask"):
        checkpoints.newest(tmp_path / "run")
    assert checkpoints.newest(tmp_path / "other") is None


def test_nothing_to_save_and_nothing_saved(tmp_path):
    assert checkpoints.newest(tmp_path / "run") is None
    assert checkpoints.newest(tmp_path / "nowhere" / "run") is None
    checkpoints.remove(tmp_path / "nowhere" / "run")
    checkpoints.save(tmp_path / "run", 0, {}, {})
    assert checkpoints.newest(tmp_path / "run") == checkpoints.Checkpoint(0, {}, {})


def test_objects_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoints.save(tmp_path / "run", 1, {"x": np.array([{}])}, {})
    assert names(tmp_path) == []


def test_the_two_newest_stay(tmp_path):
    for step in (5, 99_999_999, 100_000_000):
        checkpoints.save(tmp_path / "run", step, {}, {})
    assert names(tmp_path) == ["run_checkpoint-100000000.npz", "run_checkpoint-99999999.npz"]
    assert checkpoints.newest(tmp_path / "run").step == 100_000_000


def test_only_files_of_the_stem_are_touched(tmp_path):
    strange = tmp_path / "r[u]n*?"
    others = ["run", "r[u]n*?_checkpoint-00000001.npz-2", "ru", "r[u]n*?-2"]
    for name in others:
        checkpoints.save(tmp_path / name, 7, {}, {})
    (tmp_path / "r[u]n*?_checkpoint-7.npz.bak").write_text("mine")
    (tmp_path / ".run_checkpoint.new").write_text("another run is writing")
    before = names(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(strange, step, {}, {})
    assert checkpoints.newest(strange).step == 3
    assert [path.name[-7:] for path in checkpoints.files_of(strange)] == ["002.npz", "003.npz"]
    (tmp_path / ".r[u]n*?_checkpoint.new").write_text("half written by a killed process")
    checkpoints.remove(strange)
    assert names(tmp_path) == before
    assert checkpoints.files_of(strange) == []


def test_any_damaged_byte_is_found_or_changes_nothing(tmp_path, caplog):
    """Some bytes of an archive say nothing, such as the time of a member."""
    checkpoints.save(tmp_path / "run", 1, ARRAYS, RECORD)
    path = checkpoints.save(tmp_path / "run", 2, ARRAYS, RECORD)
    whole, found = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read = checkpoints.read(path)
        except TrainingError:
            found += 1
            continue
        assert (read.step, read.record, list(read.arrays)) == (2, RECORD, list(ARRAYS)), place
        assert all(same(read.arrays[name], array) for name, array in ARRAYS.items()), place
    assert found > 0.7 * len(whole)
    path.write_bytes(whole[:-50])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path / "run").step == 1
    assert "run_checkpoint-00000002.npz: is damaged" in caplog.text


def test_any_missing_end_is_found(tmp_path):
    path = checkpoints.save(tmp_path / "run", 2, ARRAYS, RECORD)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        assert checkpoints.newest(tmp_path / "run") is None


def test_a_damaged_later_one_goes_with_the_next_save(tmp_path):
    """Else it would count as one of the two newest for ever."""
    for step in (1, 2):
        checkpoints.save(tmp_path / "run", step * 10, {}, {})
    (tmp_path / "run_checkpoint-00000020.npz").write_bytes(b"damaged")
    checkpoints.save(tmp_path / "run", 15, {}, {})
    assert names(tmp_path) == ["run_checkpoint-00000010.npz", "run_checkpoint-00000015.npz"]


@pytest.mark.parametrize("call", range(1, 8))
def test_death_at_any_call_leaves_a_whole_one(call, tmp_path, monkeypatch):
    """After its last call a dead process does nothing more, not even in a finally."""

    class Death(BaseException):
        pass

    for step in (1, 2):
        checkpoints.save(tmp_path / "run", step, {"a": np.array(step)}, {})
    calls = []

    def dying(real):
        def function(*arguments, **named):
            calls.append(real)
            if len(calls) >= call:
                raise Death
            return real(*arguments, **named)

        return function

    with monkeypatch.context() as patched:
        for name in ("fsync", "replace", "unlink"):
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            checkpoints.save(tmp_path / "run", 3, {"a": np.array(3)}, {})
            assert len(calls) < call
        except Death:
            pass
    found = checkpoints.newest(tmp_path / "run")
    assert found.step == found.arrays["a"] and found.step in (2, 3)
    checkpoints.save(tmp_path / "run", 4, {}, {})
    assert len(names(tmp_path)) == 2


PREPARE = """
import resource, signal, sys
import numpy as np
from retinamask.training import checkpoints
stem = sys.argv[1]
"""


def python(code, *arguments):
    command = [sys.executable, "-c", PREPARE + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_no_room(tmp_path):
    child = python(
        """
checkpoints.save(stem, 1, {"a": np.arange(10)}, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    checkpoints.save(stem, 2, {"a": np.zeros(250_000, np.float64)}, {})
except ValueError as error:
    print(type(error).__name__, error)
""",
        tmp_path / "run",
    )
    said, errors = child.communicate(timeout=60)
    assert said.startswith(f"TrainingError {tmp_path / 'run'}_checkpoint-00000002.npz: no room on the disk"), errors
    assert "it needs 2.0 MB" in said and "run_checkpoint-00000001.npz stays. Free space, then resume" in said
    assert names(tmp_path) == ["run_checkpoint-00000001.npz"]
    assert (checkpoints.newest(tmp_path / "run").arrays["a"] == np.arange(10)).all()


def test_no_room_for_the_first(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="there is no earlier checkpoint of this run"):
        checkpoints.save(tmp_path / "run", 2, {}, {})
    assert names(tmp_path) == []


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.save(tmp_path / "run", 2, {}, {})


def test_killed_at_random_moments(tmp_path):
    """SIGKILL: what is found afterwards is whole and not older than what was reported as saved."""
    generator, last = np.random.default_rng(0), 0
    for _ in range(10):
        child = python(
            """
found = checkpoints.newest(stem)
step = found.step if found else 0
print(step, flush=True)
while True:
    step += 1
    checkpoints.save(stem, step, {"a": np.full(200_000, step)}, {"step": step})
    print(step, flush=True)
""",
            tmp_path / "run",
        )
        assert int(child.stdout.readline()) >= last
        reported = [int(child.stdout.readline())]  # at some moment after the first that it saves
        time.sleep(generator.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        reported += [int(line) for line in child.communicate()[0].split()]
        found = checkpoints.newest(tmp_path / "run")
        last = found.step
        assert last >= max(reported)
        assert found.record == {"step": last} and (found.arrays["a"] == last).all()
    assert last >= 10
    assert len([name for name in names(tmp_path) if name.startswith("run")]) <= 3
