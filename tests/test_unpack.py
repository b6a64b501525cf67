"""Unpacking what nobody here has seen: names and links that lead outside, bombs, damage, and what is left then."""

import contextlib
import gzip
import io
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinamask.dataset.public import unpack as unpacking
from retinamask.dataset.public.unpack import ArchiveError, unpack

NOISE = random.Random(0).randbytes(5000)
FILES = {"set/a.txt": b"a", "set/deep/b.jpg": NOISE, "set/empty": b""}
MB = 1024**2


def zip_of(path: Path, files: dict[str, bytes], modes: dict[str, int] | None = None, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o777) << 16
            archive.writestr(entry, content)
        archive.comment = comment
    return path


def tar_of(path: Path, files: dict[str, bytes | dict]) -> Path:
    """A member is its content, or what its `tarfile.TarInfo` is to have."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(entry, key, value)
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, message: str, **options) -> None:
    """The error's message matches, and nothing is written outside of the folder."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ArchiveError, match=message):
        unpack(archive, archive.parent / "out", **options)
    shutil.rmtree(archive.parent / "out", ignore_errors=True)
    assert sorted(archive.parent.rglob("*")) == before


@pytest.fixture(params=["a.zip", "a.tar", "a.tar.gz", "zip named.tar"])
def make(request, tmp_path):
    """Makes an archive of the same content in each kind."""
    maker = zip_of if request.param.startswith(("a.zip", "zip")) else tar_of
    return lambda files: maker(tmp_path / request.param, files)


# --- Sound archives ---


def test_everything_arrives(make, tmp_path):
    assert unpack(make(FILES), tmp_path / "out") == 3
    assert contents(tmp_path / "out") == FILES
    modes = {path.stat().st_mode & 0o111 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0}, "nothing out of an archive is a program"


def test_only_what_is_wanted_and_where_it_is_wanted(make, tmp_path):
    def place(path: PurePosixPath):
        return PurePosixPath("pictures", path.name) if path.suffix == ".jpg" else None

    assert unpack(make(FILES), tmp_path / "out", place) == 1
    assert contents(tmp_path / "out") == {"pictures/b.jpg": NOISE}


def test_what_macos_adds_is_left_out(make, tmp_path):
    unpack(make({**FILES, "__MACOSX/set/._a.txt": b"x", "set/._a.txt": b"x", "set/.DS_Store": b"x"}), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_backslashes_are_slashes(make, tmp_path):
    unpack(make({"set\\deep\\b.jpg": NOISE}), tmp_path / "out")
    assert contents(tmp_path / "out") == {"set/deep/b.jpg": NOISE}


# --- Names and links ---

OUTSIDE = ["../evil", "set/../../evil", "/tmp/evil", "..\\evil", "\\evil", "C:\\evil", "C:evil", "//server/evil", ".."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside(make, name):
    refused(make({"set/a.txt": b"a", name: b"evil"}), r"leads outside the folder|is outside the destination")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_place_that_leads_outside(make, name):
    refused(make(FILES), r"leads outside the folder", place=lambda path: PurePosixPath(name))


LINKS = {"../../etc": True, "/etc/passwd": True, "a.txt": False, "../../../x": True, "deep/../../..": True}


@pytest.mark.parametrize(("target", "is_outside"), LINKS.items())
def test_symbolic_links(tmp_path, target, is_outside):
    """Tars whose links lead outside are refused; no link is ever made."""
    mode = {"set/link": stat.S_IFLNK | 0o777}
    zipped = zip_of(tmp_path / "a.zip", {**FILES, "set/link": target.encode()}, mode)
    packed = tar_of(tmp_path / "a.tar", {**FILES, "set/link": {"type": tarfile.SYMTYPE, "linkname": target}})
    if is_outside:
        refused(packed, "'set/link' .*(outside the destination|absolute path); not unpacked")
    for archive in [zipped] if is_outside else [zipped, packed]:
        out = tmp_path / archive.suffix
        assert unpack(archive, out) == 3
        assert contents(out) == FILES and not any(path.is_symlink() for path in out.rglob("*"))


def test_a_file_below_a_link(tmp_path):
    """The link is never made, so nothing can be written through it."""
    members = {"set/link": {"type": tarfile.SYMTYPE, "linkname": "."}, "set/link/a": b"a"}
    assert unpack(tar_of(tmp_path / "a.tar", members), tmp_path / "out") == 1
    assert (tmp_path / "out" / "set" / "link").is_dir()


def test_hard_links(tmp_path):
    link = {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}
    refused(tar_of(tmp_path / "a.tar", {**FILES, "set/link": link}), "outside the destination")
    link["linkname"] = "set/a.txt"
    assert unpack(tar_of(tmp_path / "a.tar", {**FILES, "set/link": link}), tmp_path / "out") == 3


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_devices(tmp_path, kind):
    refused(tar_of(tmp_path / "a.tar", {**FILES, "set/d": {"type": kind}}), "'set/d' is a special file; not unpacked")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a\\b", "a/b")])
def test_names_that_stand_there_twice(tmp_path, twice):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in twice:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    refused(tmp_path / "a.zip", "occurs twice; not unpacked")


# --- Too large ---


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_a_bomb(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(unpacking, "MAX_BYTES", 50 * MB)
    bomb = (zip_of if kind == "a.zip" else tar_of)(tmp_path / kind, {f"zeros{n}": bytes(10 * MB) for n in range(6)})
    assert bomb.stat().st_size < 200_000
    refused(bomb, "more than 52,428,800 bytes unpacked; not unpacked")


def test_a_bomb_that_lies_about_its_size(tmp_path):
    bomb = zip_of(tmp_path / "bomb.zip", {"zeros": bytes(10 * MB)})
    raw, true = bomb.read_bytes(), struct.pack("<I", 10 * MB)
    assert raw.count(true) == 2  # in the entry's own header and in the directory
    bomb.write_bytes(raw.replace(true, struct.pack("<I", 1000)))
    refused(bomb, "damaged or cut short .*CRC")


def test_no_room(make, monkeypatch):
    free = type("usage", (), {"free": unpacking._ROOM_BYTES + 5000})
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda folder: free)
    refused(make(FILES), "no room on the disk of .*; free some")


# --- Damage, and what is no archive ---


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_cut_short(tmp_path, kind, share):
    whole = (zip_of if kind == "a.zip" else tar_of)(tmp_path / kind, {f"set/{n}": NOISE for n in range(20)})
    raw = whole.read_bytes().rstrip(b"\0")  # a tar ends with zeros, of which some may be missing
    whole.write_bytes(raw[: int(len(raw) * share)])
    refused(whole, "cut short")


def test_a_tar_cut_between_two_members(tmp_path):
    archive = tar_of(tmp_path / "a.tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, "cut short; fetch it again")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_a_changed_byte(tmp_path, kind):
    archive = (zip_of if kind == "a.zip" else tar_of)(tmp_path / kind, {"set/a": NOISE})
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    archive.write_bytes(raw)
    refused(archive, "damaged or cut short")


def test_names_that_no_file_can_have(make, tmp_path):
    refused(make({"n" * 300: b"a"}), "damaged .File name too long")
    raw = zip_of(tmp_path / "b.zip", {"ab": b"a"}).read_bytes()
    raw = raw.replace(struct.pack("<HH", 2, 0) + b"ab", struct.pack("<HH", 0, 2) + b"ab")  # the name becomes an extra
    at = raw.index(b"PK\x01\x02") + 28
    (tmp_path / "b.zip").write_bytes(raw[:at] + struct.pack("<HH", 0, 2) + raw[at + 4 :])
    refused(tmp_path / "b.zip", "damaged")


@pytest.mark.parametrize(("field", "number"), [(12, 2**31), (16, 2**31), (12, 0), (10, 60_000)])
def test_a_directory_that_lies_elsewhere(tmp_path, field, number):
    archive = zip_of(tmp_path / "a.zip", FILES)
    raw = bytearray(archive.read_bytes())
    start = len(raw) - 22 + field
    raw[start : start + (2 if field == 10 else 4)] = struct.pack("<H" if field == 10 else "<I", number)
    archive.write_bytes(raw)
    try:
        unpacked = unpack(archive, tmp_path / "out")
    except ArchiveError:
        return
    assert unpacked == len(FILES)


def test_an_encrypted_zip(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"set/a": b"a"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    refused(archive, "'set/a' is encrypted; unpack it by hand")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a zip nor a tar archive"),
        (b"some text", "neither a zip nor a tar archive"),
        (b"\xff\xd8\xff" + NOISE, "neither a zip nor a tar archive"),
        (gzip.compress(b"some text", mtime=0), "neither a zip nor a tar archive"),
        (b"\x1f\x8b", "cut short|neither"),
        (b"\n<!DOCTYPE html><html>log in</html>", "a web page, expected an archive; open its address in a browser"),
        (b"PK\x03\x04" + NOISE, "a zip that is cut short, or one volume of several"),
    ],
)
def test_what_is_no_archive(tmp_path, content, message):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", message)


def test_no_file(tmp_path):
    refused(tmp_path / "none.zip", "none.zip is not a file; expected a zip or tar archive")


def test_nothing_that_is_wanted(make):
    refused(make(FILES), "holds none of the files that are used; at its top it has set", place=lambda path: None)
    refused(make({}), "nothing at all|neither a zip")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data(), st.sampled_from(["a.zip", "a.tar", "a.tar.gz"]))
def test_mutated_archives_raise_nothing_else(tmp_path_factory, data, kind):
    folder = tmp_path_factory.mktemp("fuzz")
    archive = (zip_of if kind == "a.zip" else tar_of)(folder / kind, FILES)
    raw = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(raw)
    with contextlib.suppress(ArchiveError):
        unpack(archive, folder / "out")
    assert sorted(path.name for path in folder.iterdir()) in ([kind], [kind, "out"])
