"""Damaged files by the thousand: whatever is in them, the readers report it and continue."""

import random
import re
from pathlib import Path

import pytest
from format_files import draw, save

from retinamask.dataset.annotations import AnnotationError, make_table, objects
from retinamask.dataset.formats import read, write_format
from retinamask.dataset.formats.class_names import unwritable
from retinamask.dataset.sample import draw_sample

BATCH = 1000
TOKENS = b'< > / & &#0; &#xD800; ]]> <!-- <!DOCTYPE <?x?> - 1e999 nan \x00 \xff \xef\xbb\xbf [ { " null : ,'.split()
NUMBERS = b"-1 0 0.5 400 405 406 1e3 nan inf 9e999 0x10 - 1,5 \xd9\xa3".split() + [b"9" * 400, b"", b" 7\n"]


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The content after one to three changes to bytes, whole lines or numbers."""
    for _ in range(dice.randint(1, 3)):
        change = dice.choice((_bytes_changed, _lines_changed, _number_changed, _number_changed))
        content = change(content, dice)
    return content


def _bytes_changed(content: bytes, dice: random.Random) -> bytes:
    """A bit flipped, or some bytes deleted, repeated, replaced, put in, or all cut off from a place."""
    start = dice.randrange(len(content) + 1)
    end = min(len(content), start + dice.choice((1, 2, 5, 20, 100)))
    head, middle, tail = content[:start], content[start:end], content[end:]
    flipped = bytes([middle[0] ^ (1 << dice.randrange(8))]) + middle[1:] if middle else b""
    cut = dice.randrange(4) == 0
    changes = (flipped, b"", middle * dice.randint(2, 4), dice.choice(TOKENS) + middle, dice.randbytes(len(middle)))
    return head if cut else head + dice.choice(changes) + tail


def _lines_changed(content: bytes, dice: random.Random) -> bytes:
    """Some lines deleted, repeated, or two exchanged."""
    lines = content.split(b"\n")
    first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
    last = first + dice.choice((1, 1, 2, 12))
    kind = dice.randrange(3)
    if kind == 0:
        del lines[first:last]
    elif kind == 1:
        lines[second:second] = lines[first:last]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _number_changed(content: bytes, dice: random.Random) -> bytes:
    places = list(re.finditer(rb"\d+", content))
    if not places:
        return content
    place = dice.choice(places)
    return content[: place.start()] + dice.choice(NUMBERS) + content[place.end() :]


def real_xml(folder: Path) -> list[bytes]:
    """labelImg files of public data where there are some, else of the drawn sample."""
    public = sorted((folder / "andrewmvd" / "annotations").glob("*.xml"))
    return [path.read_bytes() for path in public[:200]]


def drawn_xml(folder: Path) -> list[bytes]:
    draw_sample(folder / "sample", images=4, size=64, seed=1)
    return [path.read_bytes() for path in sorted((folder / "sample" / "annotations").glob("*.xml"))]


def check(table) -> None:
    """What comes out is a table as the contract says, whatever went in."""
    boxes = objects(table)
    assert (boxes["x1"] >= 0).all() and (boxes["x1"] < boxes["x2"]).all() and (boxes["x2"] <= 400).all()
    assert (boxes["y1"] >= 0).all() and (boxes["y1"] < boxes["y2"]).all() and (boxes["y2"] <= 400).all()
    assert not any(name == "" or name != name.strip() or unwritable(name) for name in boxes["class_name"])


def fuzz_xml(folder: Path, originals: list[bytes], count: int) -> tuple[int, int]:
    """Read ``count`` mutations in batches; how many images came through, and how many problems were reported."""
    dice = random.Random(20)
    for number in range(min(BATCH, count)):
        draw(folder / f"m{number:04d}.jpg", (400, 400))
    images = problems_count = 0
    for _ in range(-(-count // BATCH)):
        for number in range(min(BATCH, count)):
            (folder / f"m{number:04d}.xml").write_bytes(mutated(dice.choice(originals), dice))
        table, problems = read("voc", [folder], folder)
        check(table)
        images += table["image_path"].nunique()
        problems_count += len(problems)
        assert all(str(problem) for problem in problems)
    return images, problems_count


def named_after_nothing(content: bytes) -> bytes:
    """Without the image's name, so that the image beside the XML counts."""
    start, end = content.index(b"<filename>"), content.index(b"</filename>")
    return content[:start] + b"<filename>" + content[end:]


def test_some_mutations_of_xml(tmp_path):
    originals = list(map(named_after_nothing, drawn_xml(tmp_path / "drawn")))
    images, problems = fuzz_xml(tmp_path / "fuzz", originals, 500)
    assert images > 100 and problems > 100


@pytest.mark.slow
def test_100000_mutations_of_xml(shared_data, tmp_path):
    originals = real_xml(shared_data) or drawn_xml(tmp_path / "drawn")
    images, problems = fuzz_xml(tmp_path / "fuzz", list(map(named_after_nothing, originals)), 100_000)
    assert images > 20_000 and problems > 20_000


@pytest.mark.parametrize("name", ["yolo", "coco", "createml", "csv"])
def test_some_mutations_of_the_other_formats(tmp_path, name):
    """Each file of a written set is damaged in turn, the class lists too."""
    boxes = [("images/a.png", 5, 6, 20, 25, "mask"), ("images/b.png", 0, 0, 40, 30, "Öl & Maß")]
    table = make_table([*boxes, ("images/c.png", *[None] * 5)])
    for letter in "abc":
        draw(tmp_path / "images" / f"{letter}.png")
    write_format(table, {"mask": 0, "Öl & Maß": 1}, name, tmp_path / "new", tmp_path)
    dice = random.Random(21)
    paths = sorted(path for path in (tmp_path / "new").rglob("*") if path.suffix != ".png" and path.is_file())
    outcomes = []
    for number in range(200):
        path = paths[number % len(paths)]
        before = path.read_bytes()
        save(path, mutated(before, dice))
        sources = [tmp_path / "new"] if number % 3 else [path]
        try:
            found, problems = read(name, sources, tmp_path, tmp_path / "images", with_unannotated=bool(number % 2))
            check(found)
            outcomes.append(len(problems) > 0)
        except AnnotationError as error:
            assert str(error)
            outcomes.append(True)
        path.write_bytes(before)
    assert True in outcomes
