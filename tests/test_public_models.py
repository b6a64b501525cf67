"""Published face detectors: fetched from a server on this computer, or copied, and verified."""

import dataclasses
import hashlib

import pytest
from web import cut, page, serving

from retinamask.cli import main
from retinamask.dataset.public import catalogue, download
from retinamask.dataset.public.catalogue import ModelFile
from retinamask.dataset.public.download import DownloadError
from retinamask.dataset.public.fetch import fetch_model, kept_files

CONTENT = {"net.prototxt": b"layer {}" * 50, "net.caffemodel": b"\x0a\x04face" * 500}


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A server; res10 has its files there, and nothing is written outside of ``tmp_path``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(download, "TRIES", 2)
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as running:
        listed = tuple(
            ModelFile(f"{running.url}/{name}", len(content), hashlib.sha256(content).hexdigest())
            for name, content in CONTENT.items()
        )
        entry = dataclasses.replace(catalogue.FACE_MODELS["res10"], files=listed)
        monkeypatch.setattr(catalogue, "FACE_MODELS", {**catalogue.FACE_MODELS, "res10": entry})
        for name, content in CONTENT.items():
            running.add(f"/{name}", page(content))
        yield running


def test_what_is_fetched_is_where_the_face_detector_looks(site, tmp_path, capsys):
    assert main(["fetch", "res10"]) == 0
    paths = kept_files("res10")
    assert [path.parent for path in paths] == [tmp_path / "cache" / "retinamask" / "res10"] * 2
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert "verified by SHA-256" in capsys.readouterr().out
    assert main(["fetch", "res10"]) == 0 and len(site.requests) == 2  # the second time there is nothing to fetch


def test_other_bytes_are_refused(site, tmp_path):
    site.add("/net.caffemodel", page(b"x" * len(CONTENT["net.caffemodel"])))
    with pytest.raises(DownloadError, match="SHA256 hash .*does not match(?s:.*)--from FOLDER"):
        fetch_model("res10", tmp_path / "models")
    with pytest.raises(ValueError, match="lacks net.caffemodel; run: retinamask fetch res10"):
        kept_files("res10", tmp_path / "models")


def test_a_lost_connection_is_said(site, tmp_path):
    site.add("/net.prototxt", cut(CONTENT["net.prototxt"], after=10))
    with pytest.raises(DownloadError, match="gave up after 2 failures"):
        fetch_model("res10", tmp_path / "models")


def test_files_that_were_fetched_by_hand(site, tmp_path, capsys):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert main(["fetch", "res10", "--from", str(tmp_path), "--folder", str(tmp_path / "models")]) == 0
    assert all(path.is_file() for path in kept_files("res10", tmp_path / "models")) and site.requests == []
    (tmp_path / "net.caffemodel").write_bytes(CONTENT["net.caffemodel"][:-9])
    assert main(["fetch", "res10", "--from", str(tmp_path)]) == 2
    assert "net.caffemodel: 2,991 bytes with SHA-256" in capsys.readouterr().err
    (tmp_path / "net.prototxt").unlink()
    assert main(["fetch", "res10", "--from", str(tmp_path)]) == 2
    assert "net.prototxt does not exist; expected" in capsys.readouterr().err


def test_the_list_and_unknown_names(capsys):
    assert main(["fetch", "--list"]) == 0
    said = capsys.readouterr().out
    assert "res10" in said and "yunet" in said and "praveen" in said and "not tried" in said
    assert main(["fetch"]) == 2 and "yunet" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no model is called 'mtcnn'; there are: res10, yunet"):
        fetch_model("mtcnn")


def test_the_catalogue():
    for name, entry in catalogue.FACE_MODELS.items():
        assert name and entry.licence and entry.citation and entry.verified
        for file in entry.files:
            assert file.url.startswith("https://") and len(bytes.fromhex(file.sha256)) == 32 and file.size_bytes > 0
