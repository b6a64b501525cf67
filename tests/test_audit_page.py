"""The page of an audit: it shows every finding with its pictures, needs nothing else, and lets no text out."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sound_data import SIZE, picture

from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.dataset.audit.checks import Example, Finding
from retinamask.dataset.audit.source import read_source
from retinamask.drawing.style import class_colors
from retinamask.evaluation import audit as audit_page
from retinamask.evaluation.audit import Audit, AuditSettings

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = "x\"><img src=y onerror=z>'&.png"


class Page(HTMLParser):
    """The elements, the text and the embedded pictures of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def pictures(self, kind: str) -> list[Image.Image]:
        start = f"data:image/{kind};base64,"
        sources = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(s.removeprefix(start)))) for s in sources if s.startswith(start)]


def audited(folder: Path, rows: list[tuple], classes: dict[str, int], **options):
    annotations.write_annotations(annotations.make_table(rows), folder / "annotations.csv")
    annotations.write_classes(classes, folder / "classes.csv")
    return Audit(read_source(folder / "annotations.csv"), AuditSettings(image_size=320, **options))


@pytest.fixture
def spoilt(tmp_path):
    """An audit with trouble of each sort, and names that try to break out of the page."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(tmp_path / "turned.jpg", exif=exif)
    picture(2).save(tmp_path / BREAKOUT)
    picture(2).resize((160, 120)).save(tmp_path / "copy.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [
        ("turned.jpg", 80, 120, 160, 200, "mask"),
        (BREAKOUT, 100, 80, 170, 150, SCRIPT),
        (BREAKOUT, 10, 40, 16, 47, "Mask"),
        ("copy.png", 50, 40, 85, 75, "mask"),
        ("broken.png", 1, 1, 90, 90, "mask"),
        ("missing.png", 1, 1, 90, 90, "mask"),
    ]
    return audited(tmp_path, rows, {"mask": 0, "Mask": 1, SCRIPT: 2})


def named(result, name: str) -> Finding:
    return next(finding for finding in result.findings if finding.name == name)


def test_every_finding_is_on_the_page(spoilt, tmp_path):
    page = Page(spoilt.write_page(tmp_path / "out" / "audit.html"))
    assert len(spoilt.findings) >= 7
    for finding in spoilt.findings:
        assert finding.name in page.text and finding.message in page.text
        assert all(example.detail in page.text for example in finding.examples)
    assert "Audit of annotations.csv" in page.text
    assert spoilt.anchors.suggestion is None or "[anchor_parameters]" in page.text


def test_the_page_is_one_file_that_asks_nothing_of_the_network(spoilt, tmp_path):
    page = Page(spoilt.write_page(tmp_path / "audit.html"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "a"})
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.elements if tag == "img")
    assert not re.search(r"https?://|url\(|@import", page.html)
    assert len(page.pictures("jpeg")) >= 6 and len(page.pictures("png")) == 2
    assert all(max(shown.size) == audit_page.SIDE for shown in page.pictures("jpeg"))


def test_all_text_is_escaped(spoilt, tmp_path):
    page = Page(spoilt.write_page(tmp_path / "audit.html"))
    assert "<script" not in page.html and "<img src=y" not in page.html
    assert SCRIPT in page.text and BREAKOUT in page.text
    allowed = {"src", "alt", "class", "lang", "charset", "name", "content", "style"}
    assert {attribute for _, attributes in page.elements for attribute in attributes} <= allowed


def test_an_image_turned_by_exif_is_shown_both_ways(spoilt):
    ((upright, caption), (stored, other)), *_ = spoilt.pictures(named(spoilt, "turned by EXIF"))
    assert (caption, other) == ("turned.jpg, upright", "as keras-retinanet reads it")
    assert (upright.height, stored.width) == (audit_page.SIDE, audit_page.SIDE)  # 240 x 320 against 320 x 240
    assert upright.width == stored.height == round(audit_page.SIDE * 240 / 320)


def test_boxes_are_drawn_where_they_are(tmp_path):
    """A blank image with one box: its colour is on the picture at the box's edge, scaled, and not elsewhere."""
    Image.new("RGB", SIZE, "white").save(tmp_path / "a.png")
    result = audited(tmp_path, [("a.png", 160, 120, 240, 200, "mask")], {"mask": 0})
    finding = Finding("x", "note", 1, "images", "", (Example(("a.png",)),))
    (((shown, _),),) = result.pictures(finding)
    color = class_colors({"mask": 0})["mask"]
    pixels = np.asarray(shown)
    drawn = np.argwhere((pixels == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2))
    scale = audit_page.SIDE / 320
    (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0)
    assert (left, right) == pytest.approx((160 * scale, 240 * scale), abs=1.5)
    assert bottom == pytest.approx(200 * scale, abs=1.5) and top < 120 * scale  # the label stands above


def test_a_small_box_is_shown_with_its_surroundings_only(spoilt):
    (((shown, _),), *_) = spoilt.pictures(named(spoilt, "tiny box"))
    # The box of 6 x 7 pixels at (10, 40) has surroundings of 35 x 35 from (-4, 26), cut at the left edge to 31 x 35.
    assert shown.size == (round(audit_page.SIDE * 31 / 35), audit_page.SIDE)


def test_broken_and_vanished_images_have_no_picture(spoilt, tmp_path):
    for name in ("unreadable image", "missing image"):
        assert spoilt.pictures(named(spoilt, name)) == []
        assert spoilt.picture(named(spoilt, name)) is None
    (tmp_path / "turned.jpg").unlink()
    assert spoilt.pictures(named(spoilt, "turned by EXIF")) == []
    spoilt.write_page(tmp_path / "audit.html")


def test_pictures_are_few_however_many_examples_there_are(tmp_path):
    for number in range(12):
        picture(1).save(tmp_path / f"{number}.png")
    result = audited(tmp_path, [(f"{number}.png", 100, 80, 170, 150, "mask") for number in range(12)], {"mask": 0})
    pictures = result.pictures(named(result, "exact file copies"))
    assert list(map(len, pictures)) == [audit_page.MOST_OF_EXAMPLE]
    strip = result.picture(named(result, "exact file copies"))
    assert strip.width > 3 * audit_page.SIDE and strip.height == round(audit_page.SIDE * 240 / 320)
    path = result.write_page(tmp_path / "audit.html")
    assert path.stat().st_size < 400_000


def test_a_data_set_without_boxes_and_without_images_has_a_page_too(tmp_path):
    result = audited(tmp_path, [("missing.png", *(None,) * 5)], {"mask": 0})
    page = Page(result.write_page(tmp_path / "audit.html"))
    assert "missing image" in page.text and "class without boxes" in page.text


def test_nothing_found_is_said(tmp_path):
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    result = audited(tmp_path, [(f"{number}.png", 100, 80, 170, 150, "mask") for number in range(2)], {"mask": 0})
    assert "Nothing was found." in Page(result.write_page(tmp_path / "audit.html")).text


def test_the_command_writes_the_page_and_replaces_it_only_when_told(spoilt, tmp_path, capsys):
    arguments = ["audit", str(tmp_path / "annotations.csv"), "--html", str(tmp_path / "audit.html")]
    assert main(arguments) == 0 and (tmp_path / "audit.html").is_file()
    assert main(arguments) == 2 and "audit.html exists" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
