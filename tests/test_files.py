"""Writing: all or nothing."""

import hashlib
import os

import pytest

from retinamask.dataset import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_bytes() == b""
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "name", ["a.txt", "new/deep/b.txt", "Bücher und Äpfel/人 a.txt", "no_suffix", "n" * 240 + ".txt"]
)
def test_text_is_written_as_it_is(tmp_path, name):
    files.write_text(tmp_path / name, "ä\nb\n")
    assert (tmp_path / name).read_bytes() == "ä\nb\n".encode()
    assert len(names((tmp_path / name).parent)) == 1


@pytest.mark.parametrize("old", [None, "old"])
def test_after_an_error_nothing_has_changed(tmp_path, old):
    path = tmp_path / "model.h5"
    if old is not None:
        path.write_text(old)
    with pytest.raises(RuntimeError, match="disk full"), files.replacing(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".h5")
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert names(tmp_path) == ([] if old is None else ["model.h5"])
    assert old is None or path.read_text() == old


def test_a_saver_may_remove_and_recreate_the_file(tmp_path):
    with files.replacing(tmp_path / "a.h5") as temporary:
        temporary.unlink()
        temporary.write_text("new")
    assert (tmp_path / "a.h5").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_the_mode_is_that_of_any_other_file(tmp_path):
    (tmp_path / "plain.txt").write_text("")
    files.write_text(tmp_path / "ours.txt", "")
    assert (tmp_path / "ours.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_json_has_not(tmp_path, number):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": number})
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_json_is_readable(tmp_path):
    files.write_json(tmp_path / "a.json", {"name": "Größe", "none": None})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "Größe",\n  "none": null\n}\n'


@pytest.mark.parametrize("content", [b"", b"abc" * 100_000])
def test_checksum(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
