"""Public data sets by name: from a server on this computer, from a file or a folder, and real data where it is."""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from web import cut, page, ranged, serving

from retinamask.cli import main
from retinamask.dataset import annotations, formats
from retinamask.dataset.formats import write_voc
from retinamask.dataset.public import catalogue, download, unpack
from retinamask.dataset.public.download import DownloadError
from retinamask.dataset.public.fetch import fetch, kaggle_login
from retinamask.dataset.public.unpack import ArchiveError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BOX = [[5, 6, 20, 25]]


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download, "TRIES", 2)
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as running:
        yield running


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def change(monkeypatch):
    """Puts a changed entry into the catalogue: nothing here may reach a real address."""

    def put(name: str, **changes) -> None:
        entry = dataclasses.replace(catalogue.DATA_SETS[name], **changes)
        monkeypatch.setattr(catalogue, "DATA_SETS", {**catalogue.DATA_SETS, name: entry})

    return put


def picture(colour="orange", size=(40, 30), kind="JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def voc(folder: Path, image: str, *names: str) -> bytes:
    write_voc(folder / "x.xml", image, (40, 30), BOX * len(names), list(names))
    return (folder / "x.xml").read_bytes()


def zipped(members: dict[str, bytes], comment: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment.encode()
    return file.getvalue()


@pytest.fixture
def praveen_zip(tmp_path) -> bytes:
    """As GitHub packs it: all below one folder, the old pictures of the first version beside."""
    top = f"Face-mask-detector-using-RetinaNet-model-{COMMIT}/"
    members = {
        "README.md": b"# Build",
        "jpegImages/1.jpg": picture("red"),
        "Data/FaceMaskDetector.png": picture(kind="PNG"),
        "Data/maskDetectorJPEGImages/1.jpg": picture(),
        "Data/maskDetectorJPEGImages/2.jpg": picture(),
        "Data/maskDetectorXMLfiles/1.xml": voc(tmp_path, "1.jpg", "mask"),
        "Data/maskDetectorXMLfiles/2.xml": voc(tmp_path, "2.jpg", "noMask", "mask"),
    }
    return zipped({top + name: content for name, content in members.items()}, COMMIT)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


# --- From the address ---


def test_from_the_address_to_the_table(site, data, change, praveen_zip):
    sha256 = hashlib.sha256(praveen_zip).hexdigest()
    url = site.add("/zip", cut(praveen_zip, 900, ETag='"a"'), ranged(praveen_zip, '"a"'))
    change("praveen", url=url, commit=COMMIT, images=2, boxes=3, sha256=sha256)
    fetched = fetch("praveen", data)

    classes = annotations.read_classes(data / "praveen" / "classes.csv")
    table = annotations.read_annotations(data / "praveen" / "annotations.csv", classes)
    assert classes == {"mask": 0, "noMask": 1}
    assert table.values.tolist() == [
        ["maskDetectorJPEGImages/1.jpg", 5, 6, 20, 25, "mask"],
        ["maskDetectorJPEGImages/2.jpg", 5, 6, 20, 25, "noMask"],
        ["maskDetectorJPEGImages/2.jpg", 5, 6, 20, 25, "mask"],
    ]
    assert (data / "praveen" / "maskDetectorJPEGImages" / "1.jpg").read_bytes() == picture()
    assert (fetched.images, fetched.boxes) == (2, {"mask": 2, "noMask": 1})
    assert (fetched.differences, fetched.sha256, fetched.was_there) == ([], sha256, False)
    assert len(fetched.problems) == 1 and "FaceMaskDetector.png" in fetched.problems[0]
    assert names(data) == {"praveen", "downloads"}
    assert names(data / "downloads") == {"praveen-0123456789ab.zip"}

    record = json.loads((data / "praveen" / "source.json").read_text())
    assert (record["url"], record["sha256"], record["boxes"]) == (url, sha256, {"mask": 2, "noMask": 1})
    assert record["licence"].startswith("none stated") and "Anwla" in record["citation"]
    asked = len(site.requests)
    assert formats.guess([data / "praveen"]) == "voc"  # whatever else lies there
    again = fetch("praveen", data)
    assert again == dataclasses.replace(fetched, was_there=True, archive=None) and len(site.requests) == asked


def test_what_is_not_as_expected_is_reported(site, data, change, praveen_zip):
    classes = {"mask": 5, "hat": None}
    change("praveen", url=site.add("/zip", page(praveen_zip)), images=2, boxes=9, classes=classes)
    assert fetch("praveen", data).differences == [
        "3 boxes, expected 9",
        "2 boxes of mask, expected 5",
        "classes are mask, noMask, expected mask, hat",
        f"the archive is of commit {COMMIT}, expected {catalogue.DATA_SETS['praveen'].commit}",
    ]


def test_an_archive_is_not_fetched_again_when_something_later_failed(site, data, change, praveen_zip, monkeypatch):
    change("praveen", url=site.add("/zip", page(praveen_zip)))
    read = formats.read
    monkeypatch.setattr(formats, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch("praveen", data)
    assert names(data) == {"downloads"}
    monkeypatch.setattr(formats, "read", read)
    fetch("praveen", data)
    assert len(site.requests) == 1 and names(data) == {"praveen", "downloads"}


def test_wrong_bytes_leave_nothing(site, data, change, praveen_zip):
    change("praveen", url=site.add("/zip", page(praveen_zip)), sha256="00" * 32)
    with pytest.raises(DownloadError, match=f"expected {'00' * 32} but got .* Deleted download"):
        fetch("praveen", data)
    assert names(data) == {"downloads"} and names(data / "downloads") == set()


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_zip_that_a_server_cut_short(site, data, change, praveen_zip, share):
    """Its Content-Length says the same as what came: only the archive itself knows."""
    part = praveen_zip[: int(len(praveen_zip) * share)]
    change("praveen", url=site.add("/zip", page(part), page(praveen_zip)))
    with pytest.raises(ArchiveError, match="cut short.*The downloaded file is removed; run it again"):
        fetch("praveen", data)
    assert names(data / "downloads") == set()
    assert fetch("praveen", data).images == 2


def test_a_login_page_instead_of_the_file(site, data, change):
    change("praveen", url=site.add("/zip", page(b"<!DOCTYPE html><title>Log in</title>")))
    with pytest.raises(ArchiveError, match="a web page, expected an archive"):
        fetch("praveen", data)


def test_a_sound_archive_without_the_folder_is_kept(site, data, change):
    change("prajnasb", url=site.add("/zip", page(zipped({"observations-master/README.md": b"x"}))))
    message = "at its top it has observations-master; expected experiements/data/with_mask, .*without_mask of https"
    with pytest.raises(ArchiveError, match=message):
        fetch("prajnasb", data)
    assert names(data) == {"downloads"} and len(names(data / "downloads")) == 1


def test_an_archive_is_kept_when_the_disk_is_full(site, data, change, praveen_zip, monkeypatch):
    change("praveen", url=site.add("/zip", page(praveen_zip)))
    monkeypatch.setattr(unpack, "_ROOM_BYTES", 10**18)
    with pytest.raises(ArchiveError, match="no room on the disk"):
        fetch("praveen", data)
    assert len(names(data / "downloads")) == 1
    monkeypatch.undo()
    assert fetch("praveen", data, data / "downloads" / next(iter(names(data / "downloads")))).images == 2


def test_an_archive_that_attacks(site, data, change):
    change("myatmyintzuthin", url=site.add("/zip", page(zipped({"../../evil.xml": b"x"}))))
    with pytest.raises(ArchiveError, match="leads outside"):
        fetch("myatmyintzuthin", data)
    assert names(data) == {"downloads"} and "evil.xml" not in names(data.parent)


def test_every_download_error_says_how_to_go_on_by_hand(site, data, change):
    change("chandrikadeb7", url=site.add("/zip", page(status=404)))
    with pytest.raises(
        DownloadError, match=r"404 Not Found.*\nOr fetch it by hand from https://github.com/chandrika.*"
    ):
        fetch("chandrikadeb7", data)
    assert names(data) == {"downloads"}


def test_nothing_that_can_be_used(site, data, change):
    members = {"a/1.jpg": picture(), "a/1.xml": b"<annotation>"}
    change("myatmyintzuthin", url=site.add("/zip", page(zipped(members))))
    with pytest.raises(annotations.AnnotationError, match="none of the 1 XML file.*\n.*not well-formed"):
        fetch("myatmyintzuthin", data)
    assert names(data) == {"downloads"}


def test_a_folder_that_something_else_made_is_left_alone(data):
    (data / "praveen").mkdir(parents=True)
    (data / "praveen" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="praveen exists and was not made by this command; it stays as it is"):
        fetch("praveen", data)
    assert names(data) == {"praveen"} and names(data / "praveen") == {"mine.txt"}


def test_what_a_killed_run_left_is_cleared_away(site, data, change, praveen_zip):
    (data / ".praveen.part").mkdir(parents=True)
    change("praveen", url=site.add("/zip", page(praveen_zip)))
    fetch("praveen", data)
    assert names(data) == {"praveen", "downloads"}


# --- With one's own Kaggle account ---


@pytest.fixture
def no_kaggle(monkeypatch, tmp_path):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    return tmp_path / ".kaggle" / "kaggle.json"


@pytest.fixture
def andrewmvd_zip(tmp_path) -> bytes:
    xml = voc(tmp_path, "maksssksksss0.png", "with_mask", "mask_weared_incorrect")
    return zipped({"images/maksssksksss0.png": picture(kind="PNG"), "annotations/maksssksksss0.xml": xml})


def test_without_a_kaggle_token_the_message_says_how_to_get_one(no_kaggle, data):
    with pytest.raises(DownloadError) as raised:
        fetch("andrewmvd", data)
    for words in ("kaggle.com/settings", str(no_kaggle), "KAGGLE_USERNAME", "retinamask fetch andrewmvd --from FILE"):
        assert words in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", '{"username": "me"}', "{", '"text"'])
def test_a_kaggle_token_that_is_none(no_kaggle, content):
    no_kaggle.parent.mkdir()
    no_kaggle.write_text(content)
    with pytest.raises(DownloadError, match="kaggle.json: not a Kaggle token .* expected .*username.*key"):
        kaggle_login()


def test_the_kaggle_token_is_used(no_kaggle, site, data, change, andrewmvd_zip, monkeypatch):
    change("andrewmvd", url=site.add("/zip", page(status=401), page(andrewmvd_zip)))
    no_kaggle.parent.mkdir()
    no_kaggle.write_text('{"username": "me", "key": "secret"}')
    with pytest.raises(DownloadError, match="access refused") as raised:
        fetch("andrewmvd", data)
    assert "secret" not in str(raised.value)
    monkeypatch.setenv("KAGGLE_USERNAME", "you")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    assert fetch("andrewmvd", data).boxes == {"with_mask": 1, "mask_weared_incorrect": 1}
    assert site.headers("Authorization") == ["Basic bWU6c2VjcmV0", "Basic eW91OmtleQ=="]  # me:secret, you:key
    assert "eW91" not in (data / "andrewmvd" / "source.json").read_text()


# --- By hand ---


def rmfd(place) -> None:
    """Folders of the masked face recognition set: one for each person in both halves."""
    for half, persons in {"AFDB_masked_face_dataset": "ab", "AFDB_face_dataset": "abc"}.items():
        for person in persons:
            place(f"self-built-masked-face-recognition-dataset/{half}/{person}/0_0_0.jpg", picture(size=(12, 14)))


def check_rmfd(fetched) -> None:
    assert (fetched.images, fetched.boxes, fetched.differences) == (5, {"with_mask": 2, "without_mask": 3}, [])
    table = annotations.read_annotations(fetched.folder / "annotations.csv")
    assert table.values.tolist()[0] == ["with_mask/a__0_0_0.jpg", 0, 0, 12, 14, "with_mask"]


def test_a_set_that_must_be_fetched_by_hand_says_from_where_and_to_where(data):
    with pytest.raises(DownloadError) as raised:
        fetch("x_zhangyang", data)
    for words in ("drive.google.com", "pan.baidu.com", "--from FILE_OR_FOLDER", "AFDB_masked_face_dataset"):
        assert words in str(raised.value)
    assert not data.exists()


def test_persons_become_classes_masked_and_not(data, tmp_path):
    members = {}
    rmfd(members.__setitem__)
    (tmp_path / "by_hand.zip").write_bytes(zipped(members))
    check_rmfd(fetch("x_zhangyang", data, tmp_path / "by_hand.zip"))
    assert names(data) == {"x_zhangyang"} and (tmp_path / "by_hand.zip").exists()


def test_an_unpacked_folder_is_copied_and_left_alone(data, tmp_path):
    def place(name, content):
        path = tmp_path / "Downloads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    rmfd(place)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture())
    person = tmp_path / "Downloads" / "self-built-masked-face-recognition-dataset" / "AFDB_face_dataset" / "a"
    (person / "link.jpg").symlink_to(secret)
    before = sorted((tmp_path / "Downloads").rglob("*"))
    check_rmfd(fetch("x_zhangyang", data, tmp_path / "Downloads"))
    check_rmfd(fetch("x_zhangyang", tmp_path / "more", person.parents[1]))
    assert sorted((tmp_path / "Downloads").rglob("*")) == before
    with pytest.raises(ValueError, match="link|Downloads.*expected images, annotations"):
        fetch("andrewmvd", data, tmp_path / "Downloads")


def test_the_used_folder_itself_will_do(data, tmp_path, praveen_zip):
    with zipfile.ZipFile(io.BytesIO(praveen_zip)) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.glob("*/Data")
    assert fetch("praveen", data, folder).boxes == {"mask": 2, "noMask": 1}


@pytest.mark.parametrize(("name", "source"), [("praveen", "none.zip"), ("satyajeet", None), ("satyajeet", "none.zip")])
def test_what_cannot_be_had(data, tmp_path, name, source):
    with pytest.raises(ValueError, match="none.zip is not a file|address of this repository could not be found"):
        fetch(name, data, source and tmp_path / source)
    assert names(data) == set()


def test_an_unreadable_picture_is_reported_and_the_rest_goes_on(data, tmp_path):
    members = {}
    rmfd(members.__setitem__)
    members["x/AFDB_face_dataset/d/broken.jpg"] = b"no picture"
    (tmp_path / "by_hand.zip").write_bytes(zipped(members))
    fetched = fetch("x_zhangyang", data, tmp_path / "by_hand.zip")
    assert fetched.images == 5
    assert any(str(data / "x_zhangyang" / "without_mask" / "d__broken.jpg") in text for text in fetched.problems)


# --- The catalogue ---


def test_an_unknown_name_lists_the_known_ones(data):
    with pytest.raises(
        ValueError, match="called 'pravin'; there are: praveen, prajnasb, chandrikadeb7, satyajeet, andr"
    ):
        fetch("pravin", data)


@pytest.mark.parametrize("entry", catalogue.DATA_SETS.values(), ids=catalogue.DATA_SETS)
def test_each_entry_says_what_a_person_needs(entry):
    assert entry.licence and entry.citation and entry.home
    assert entry.url is None or entry.url.startswith("https://")
    assert entry.url or entry.by_hand
    assert entry.sha256 or entry.unverified, "what is not verified must say so"
    assert not entry.commit or (len(entry.commit) == 40 and entry.url.endswith(f"/zip/{entry.commit}"))
    counted = [count for count in entry.classes.values() if count is not None]
    assert not counted or sum(counted) == entry.boxes
    assert not (entry.images or entry.boxes) or entry.counted_by


# --- The command ---


def test_the_command(data, tmp_path, praveen_zip, capsys):
    (tmp_path / "by_hand.zip").write_bytes(praveen_zip)
    arguments = ["fetch", "praveen", "--folder", str(data), "--from", str(tmp_path / "by_hand.zip")]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "2 images, 3 boxes (2 mask, 1 noMask)" in said.out
    assert hashlib.sha256(praveen_zip).hexdigest() in said.out and "licence: none stated" in said.out
    assert f"Done: {data / 'praveen' / 'annotations.csv'}" in said.out
    assert "not as expected: 2 images, expected 691" in said.err and "FaceMaskDetector.png" in said.err
    assert main(arguments) == 0
    assert "It was there already" in capsys.readouterr().out


def test_the_list_names_every_set_and_the_way_for_others(capsys):
    assert main(["fetch", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}\n" in said for name in catalogue.DATA_SETS)
    assert "Open Images, Roboflow and VisualData" in said and "--from coco|yolo|voc|open_images" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "which data set? Give its name, one of: praveen"),
        (["fetch", "nothing"], "no public data set is called 'nothing'"),
        (["fetch", "x_zhangyang", "--folder", "d"], "x_zhangyang: it lies where a program cannot fetch it"),
        (["fetch", "praveen", "--folder", "d", "--from", "none.zip"], "none.zip is not a file"),
    ],
)
def test_mistakes_are_one_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert f"retinamask: {message}" in capsys.readouterr().err


# --- Real data, packed as their repositories pack it ---


def packed(source: Path, target: Path, folders: dict[str, str]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for folder, name in folders.items():
            for path in sorted((source / folder).iterdir()):
                archive.write(path, f"repository-{COMMIT}/{name}/{path.name}")
    return target


def test_praveen(shared_data, data, tmp_path):
    folders = {"images": "Data/maskDetectorJPEGImages", "annotations": "Data/maskDetectorXMLfiles"}
    fetched = fetch("praveen", data, packed(shared_data / "praveen", tmp_path / "p.zip", folders))
    assert (fetched.images, sum(fetched.boxes.values()), fetched.problems) == (550, 628, [])
    assert set(fetched.boxes) == {"mask", "noMask"} and fetched.differences == ["550 images, expected 691"]
    table = annotations.read_annotations(fetched.folder / "annotations.csv")
    assert all((fetched.folder / path).is_file() for path in annotations.image_paths(table))


def test_prajnasb(shared_data, data, tmp_path):
    folders = {name: f"experiements/data/{name}" for name in ("with_mask", "without_mask")}
    fetched = fetch("prajnasb", data, packed(shared_data / "prajnasb", tmp_path / "p.zip", folders))
    on_disk = {name: len(list((shared_data / "prajnasb" / name).iterdir())) for name in folders}
    assert (fetched.images, fetched.boxes, fetched.problems) == (1100, on_disk, [])
    table = annotations.read_annotations(fetched.folder / "annotations.csv")
    for path, *box, class_name in table.values.tolist()[::100]:
        with Image.open(shared_data / "prajnasb" / class_name / Path(path).name) as image:
            assert box == [0, 0, *image.size]
