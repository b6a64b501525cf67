"""A run's page: it shows what is there, says what is missing, and lets no text break out into markup."""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.evaluation import coco, page

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = 'a"><img src=x>.jpg'
RECORD = {
    "status": "finished",
    "notebooks": {"02_train": {"parameters": {"epochs": 7, "ratios": [0.5, 1], "snapshot": None}}},
    "packages": {"numpy": "2.4.1"},
}


class Elements(HTMLParser):
    """All elements of a page as (tag, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] for name, attributes in self.elements if name == tag]


def metrics_of(class_name: str) -> dict:
    annotations = make_table([("a.jpg", 0, 0, 100, 100, class_name), ("b.jpg", 0, 0, 100, 100, class_name)])
    detections = make_table([("a.jpg", 0, 0, 100, 100, class_name, 0.9)], DETECTION_COLUMNS)
    return coco.evaluate(annotations, detections, {class_name: 0, "never seen": 1})


def fill(run_dir: Path, class_name: str = "mask", record: dict = RECORD) -> Path:
    """Make a run's folder with everything that the page shows."""
    files.write_json(run_dir / "metrics.json", metrics_of(class_name))
    (run_dir / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for name in (*page.PICTURES, "all_my_own.png"):
        Image.new("RGB", (40, 30), "white").save(run_dir / name)
    (run_dir / "02_train.ipynb").write_text("{}")
    (run_dir / "snapshots").mkdir()
    (run_dir / "snapshots" / "best weights.h5").write_bytes(bytes(1_500_000))
    return run_dir


def read(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))


def test_a_run_without_a_part_does_not_mention_it(tmp_path):
    elements = read(page.write_page(tmp_path, "Nothing yet"))
    assert {tag for tag, _ in elements.elements} == {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "p",
        "small",
    }
    (tmp_path / "detections.csv").write_text("")
    elements = read(page.write_page(tmp_path, "A table"))
    assert "Tables" in elements.text and "All files" in elements.text
    assert not {"Notebooks", "Parameters", "COCO", "Training", "Pages"} & set(elements.text.split())


def test_a_full_run_shows_all(tmp_path):
    path = page.write_page(fill(tmp_path), "Masks")
    assert path == tmp_path / "index.html"
    elements = read(path)
    figures = metrics_of("mask")
    for text in ("Masks", f"{figures['AP50']:.3f}", "2 annotated boxes in 2 images"):
        assert text in elements.text
    for text in ("epochs", "7", "0.5, 1", "2.4.1", "never seen", "Box sizes and anchors", "all my own", "1.5 MB"):
        assert text in elements.text
    assert "Notebooks" in elements.text and [tag for tag, _ in elements.elements].count("details") == 3
    assert elements.text.count("small objects") == 2  # all twelve figures are explained


def test_links_lead_to_the_files(tmp_path):
    for name in ("100%.txt", "javascript:x", "#a?b.txt", "ü 面.txt", "'&.txt"):
        (tmp_path / name).write_text("x")
    elements = read(page.write_page(fill(tmp_path), "Masks"))
    links = elements.values("a", "href")
    assert all(link.startswith("./") for link in links)
    linked = {(tmp_path / unquote(link)).resolve() for link in links}
    files = {path.resolve() for path in tmp_path.rglob("*") if path.is_file()}
    assert linked == files - {tmp_path.resolve() / "index.html"}


def test_the_page_asks_nothing_of_the_network(tmp_path):
    path = page.write_page(fill(tmp_path), "Masks")
    elements = read(path)
    assert {tag for tag, _ in elements.elements}.isdisjoint({"script", "link", "iframe"})
    assert all(source.startswith(("data:", "./")) for source in elements.values("img", "src"))
    html = path.read_text(encoding="utf-8")
    assert "http://" not in html and "https://" not in html and "url(" not in html and "@import" not in html


def test_small_pictures_are_within_the_page_and_large_ones_are_linked(tmp_path, monkeypatch):
    sources = read(page.write_page(fill(tmp_path), "")).values("img", "src")
    assert len(sources) == len(page.PICTURES) + 1 and all(
        source.startswith("data:image/png;base64,") for source in sources
    )
    monkeypatch.setattr(page, "INLINE_LIMIT", 10)
    sources = read(page.write_page(tmp_path, "")).values("img", "src")
    assert sources == [f"./{name}" for name in (*page.PICTURES, "all_my_own.png")]


def test_all_text_is_escaped(tmp_path):
    record = {SCRIPT: {"parameters": {"title": SCRIPT, "paths": [BREAKOUT]}}, "other": [{"x": SCRIPT}]}
    fill(tmp_path, class_name=SCRIPT, record=record)
    for name in (BREAKOUT, BREAKOUT + ".png", BREAKOUT + ".ipynb"):
        Image.new("RGB", (4, 3)).save(tmp_path / name, format="PNG")
    path = page.write_page(tmp_path, SCRIPT)

    html = path.read_text(encoding="utf-8")
    assert "<script" not in html and "<img src=x>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "a&#34;&gt;&lt;img src=x&gt;.jpg" in html
    elements = read(path)
    allowed = {"href", "src", "alt", "class", "lang", "charset", "name", "content"}
    assert {attribute for _, attributes in elements.elements for attribute in attributes} <= allowed
    assert elements.text.count(SCRIPT) >= 5  # title, heading, class, and in the record
    assert BREAKOUT + ".png" in elements.values("img", "alt")


def test_hidden_files_and_the_page_itself_are_left_out(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "inside").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    page.write_page(tmp_path, "First")
    assert not read(page.write_page(tmp_path, "Second")).values("a", "href")


def test_a_long_list_of_files_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("x")
    elements = read(page.write_page(tmp_path, ""))
    assert len(elements.values("a", "href")) == 3
    assert "And 2 more." in elements.text


def test_the_page_is_replaced_in_one_step(tmp_path, monkeypatch):
    page.write_page(tmp_path, "Old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        page.write_page(tmp_path, "New")
    assert "Old" in read(tmp_path / "index.html").text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.parametrize("name", ["metrics.json", "run.json"])
@pytest.mark.parametrize("content, message", [("{", "not readable as JSON"), ("[]", "expected a JSON obj")])
def test_broken_records_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        page.write_page(tmp_path, "Broken")


def test_a_run_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        page.write_page(tmp_path / "missing", "Nothing")
