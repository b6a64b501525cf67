"""Saving snapshots: whatever happens, the old one or the new one can be read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from stub_network import Network, held

from retinamask.dataset import files
from retinamask.detectors import snapshots

RECORD = {"kind": "training", "detector": "d", "classes": {"mask": 0}, "settings": {}}


class Death(BaseException):
    """What a killed process does from then on: nothing."""


def save(path, text):
    return snapshots.save(Network(text), path, {**RECORD, "training": {"text": text}})


def text_of(path):
    """The text of a snapshot, of which weights and description must agree."""
    found = snapshots.read(path)
    assert found.weights == path and found.record["training"]["text"] == held(path)
    return held(path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def dies_at(patched, call, number_of_calls):
    """From the given call on, nothing that changes a folder or waits for the disk is done any more."""

    def dying(real):
        def function(*arguments, **named):
            number_of_calls[0] += 1
            if number_of_calls[0] >= call:
                raise Death
            return real(*arguments, **named)

        return function

    for name in ("fsync", "replace", "unlink", "link"):
        patched.setattr(os, name, dying(getattr(os, name)))


def outlived(action, call, monkeypatch):
    """Whether the action was done before that call came."""
    with monkeypatch.context() as patched:
        dies_at(patched, call, [0])
        try:
            action()
        except Death:
            return False
    return True


def death_at_every_call(prepare, action, check, folder, monkeypatch):
    """Prepare, die at the n-th call and check, for every n until the action gets through; then it did something."""
    for call in range(1, 50):
        place = folder / str(call)
        place.mkdir()
        prepare(place)
        done = outlived(lambda place=place: action(place), call, monkeypatch)
        check(place, done)
        save(place / "a.h5", "later")
        assert text_of(place / "a.h5") == "later"
        assert [name for name in names(place) if name.startswith(".a")] == []
        if done:
            assert call > 4
            return
    raise RuntimeError("it never came to an end")


def test_death_at_any_call_of_the_first_save(tmp_path, monkeypatch):
    def check(place, done):
        if done or (place / "a.h5").exists():
            assert text_of(place / "a.h5") == "new"
        else:
            with pytest.raises(snapshots.SnapshotError, match="a.h5 does not exist"):
                snapshots.read(place / "a.h5")

    death_at_every_call(lambda place: None, lambda place: save(place / "a.h5", "new"), check, tmp_path, monkeypatch)


def test_death_at_any_call_of_a_later_save(tmp_path, monkeypatch):
    seen = []

    def check(place, done):
        seen.append(text_of(place / "a.h5"))
        assert seen[-1] == "new" or not done
        assert snapshots.read(place / "a.json").weights == place / "a.h5"

    death_at_every_call(
        lambda place: save(place / "a.h5", "old"),
        lambda place: save(place / "a.h5", "new"),
        check,
        tmp_path,
        monkeypatch,
    )
    assert seen == sorted(seen, reverse=True) and {*seen} == {"old", "new"}


@pytest.mark.parametrize("content", ["new", "newer"])
def test_death_at_any_call_of_a_save_after_another_death(content, tmp_path, monkeypatch):
    """The first left the JSON of the old one; the second may hold the same or others, and nobody read in between."""

    def die(*arguments):
        raise Death

    def prepare(place):
        save(place / "a.h5", "old")
        with monkeypatch.context() as patched, pytest.raises(Death):
            patched.setattr(snapshots, "_described", die)
            save(place / "a.h5", "new")
        assert held(place / "a.h5") == "new" and '"old"' in (place / "a.json").read_text()

    def check(place, done):
        assert text_of(place / "a.h5") in ((content,) if done else ("new", content))

    death_at_every_call(prepare, lambda place: save(place / "a.h5", content), check, tmp_path, monkeypatch)


def test_death_at_any_call_of_a_copy(tmp_path, monkeypatch):
    def prepare(place):
        save(place / "a.h5", "old")
        save(place / "source.h5", "new")

    def check(place, done):
        assert text_of(place / "a.h5") in (("new",) if done else ("old", "new"))
        assert text_of(place / "source.h5") == "new"

    def copy(place):
        snapshots.copy(snapshots.read(place / "source.h5"), place / "a.h5", {"best": True})

    death_at_every_call(prepare, copy, check, tmp_path, monkeypatch)


def test_death_at_any_call_of_a_removal(tmp_path, monkeypatch):
    for call in range(1, 6):
        save(tmp_path / "a.h5", "old")
        done = outlived(lambda: snapshots.remove(tmp_path / "a.h5"), call, monkeypatch)
        if not done and (tmp_path / "a.h5").exists():
            assert text_of(tmp_path / "a.h5") == "old"
        assert not done or names(tmp_path) == []
    assert done


def test_a_snapshot_without_its_json_says_all_itself(tmp_path):
    save(tmp_path / "a.h5", "alone")
    beside = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").unlink()
    assert snapshots.read(tmp_path / "a.h5").record == beside


def test_a_snapshot_of_an_earlier_version_is_read_by_its_json(tmp_path):
    save(tmp_path / "a.h5", "old")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file.attrs[snapshots.ATTRIBUTE]
    record = json.loads((tmp_path / "a.json").read_text())
    files.write_json(tmp_path / "a.json", {**record, "weights_sha256": files.sha256(tmp_path / "a.h5")})
    assert text_of(tmp_path / "a.h5") == "old"
    with open(tmp_path / "a.h5", "ab") as file:
        file.write(b"x")
    with pytest.raises(snapshots.SnapshotError, match="SHA-256 differs"):
        snapshots.read(tmp_path / "a.h5")
    (tmp_path / "a.json").unlink()
    with pytest.raises(snapshots.SnapshotError, match="a.json does not exist; .*retinamask convert"):
        snapshots.read(tmp_path / "a.h5")


def test_a_damaged_byte_is_found(tmp_path):
    save(tmp_path / "a.h5", "whole")
    whole = (tmp_path / "a.h5").read_bytes()
    for place in range(0, len(whole), 97):
        (tmp_path / "a.h5").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(snapshots.SnapshotError, match="SHA-256 differs"):
            snapshots.read(tmp_path / "a.h5")


def test_hidden_files_are_no_snapshots(tmp_path):
    """Half-written files have hidden names; those of other snapshots are not touched by a save."""
    save(tmp_path / "run_best.h5", "best")
    others = [".run_best-2.new.h5", ".run_bes-0123456789abcdef.h5", ".other.new.json", ".run_best.h5"]
    for name in others:
        (tmp_path / name).write_text("another process writes this")
    for suffix in (".h5", ".json"):
        (tmp_path / f".run_best.new{suffix}").write_bytes((tmp_path / f"run_best{suffix}").read_bytes())
    save(tmp_path / "run_best.h5", "better")
    assert names(tmp_path) == sorted([*others, "run_best.h5", "run_best.json"])


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_stands_on_its_own(links, tmp_path, monkeypatch):
    def no_links(*arguments):
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    source = save(tmp_path / "a.h5", "first")
    for _ in range(2):  # the second time both are names of one file already
        copied = snapshots.copy(source, tmp_path / "b.h5", {"best": True})
        assert copied == snapshots.read(tmp_path / "b.h5")
    assert copied.record["training"] == {"text": "first", "best": True}
    assert names(tmp_path) == ["a.h5", "a.json", "b.h5", "b.json"]
    save(tmp_path / "a.h5", "second")
    assert (text_of(tmp_path / "a.h5"), text_of(tmp_path / "b.h5")) == ("second", "first")


def python(code, *arguments):
    """Run code in a process of its own, where this file's names are there and ``path`` is the first argument."""
    header = (
        "import signal, sys, time\nsys.path.insert(0, sys.argv[1])\n"
        "from test_snapshots import *\npath = Path(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", header + code, str(Path(__file__).parent), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_random_moments_while_another_process_reads(tmp_path):
    """Twenty writers are killed at some moment after their first snapshot; the reader never finds less than before."""
    said = python(
        """
generator, last, parent = np.random.default_rng(0), 0, os.getpid()
save(path, "0")
for _ in range(20):
    writer = os.fork()
    if not writer:
        number = last
        while os.getppid() == parent:
            number += 1
            save(path, str(number))
        os._exit(0)
    before, until = last, time.monotonic() + generator.uniform(0, 0.1)
    while time.monotonic() < until or last == before:
        found = int(snapshots.read(path).record["training"]["text"])
        if found < last:
            raise RuntimeError(f"{found} after {last}")
        last = found
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    last = int(text_of(path))
print(last)
""",
        tmp_path / "a.h5",
    )
    assert int(said) >= 20
    save(tmp_path / "a.h5", "end")
    assert names(tmp_path) == ["a.h5", "a.json"]


class HDF5Network:
    """Stands in for a network of 4 MB that is written as Keras does it: attributes, a data set, a flush."""

    def save(self, path, include_optimizer):
        import h5py

        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = "x" * 3000
            file.create_group("model_weights").create_dataset("kernel", data=np.ones((1000, 1000), np.float32))
            file.flush()

    def count_params(self):
        return 1_000_000


FILL_THE_DISK = """
import resource
for limit in (100, 3000, 20_000, 1_000_000):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for name in ("a.h5", "first.h5"):
        try:
            snapshots.save(network, path / name, RECORD)
        except ValueError as error:
            print(type(error).__name__, error)
"""


def check_full_disk(folder, prepare):
    save(folder / "a.h5", "old")
    lines = [line for line in python(prepare + FILL_THE_DISK, folder).splitlines() if "Error" in line]
    for replaced, first in zip(lines[::2], lines[1::2], strict=True):
        assert replaced.startswith(f"SnapshotError {folder / 'a.h5'}: no room on the disk; it needs 4.0 MB")
        assert "the a.h5 that was there before stays. Free space, then resume or try again" in replaced
        assert "first.h5: no room" in first and "nothing was there before" in first
    assert len(lines) == 8
    assert names(folder) == ["a.h5", "a.json"]
    assert text_of(folder / "a.h5") == "old"


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_no_room_for_hdf5(tmp_path):
    """HDF5 fails in different ways at different places."""
    check_full_disk(tmp_path, "network = HDF5Network()")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_no_room_for_a_real_network(tmp_path):
    check_full_disk(
        tmp_path,
        """
from retinamask.detectors import _keras
keras = _keras.prepare()
network = keras.Sequential([keras.layers.Input((1000,)), keras.layers.Dense(1000)])
""",
    )


def test_no_room_before_the_new_one_counts(tmp_path, monkeypatch):
    """Here the process lives on, tidies up, and may save again."""
    save(tmp_path / "a.h5", "old")
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        real(descriptor)

    network = Network("new")
    network.count_params = lambda: 250_000
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(snapshots.SnapshotError, match=r"a.h5: no room on the disk; it needs 1.0 MB, .* are free"):
            snapshots.save(network, tmp_path / "a.h5", RECORD | {"training": {"text": "new"}})
    assert text_of(tmp_path / "a.h5") == "old"
    assert names(tmp_path) == ["a.h5", "a.json"]
