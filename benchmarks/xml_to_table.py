"""labelImg XML to table, files per second, against plain xml.etree and pandas on the same generated files.

Twice, because `read` also finds each image, decodes it to see that it is sound, and checks every box against its
size: once our parser alone against the peer alone (both: XML to DataFrame), and once `read` against the peer that
decodes each image with Pillow too. All four take turns. Prints one JSON line: medians, spreads, and the two ratios.
"""

import json
import os
import statistics
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from retinamask.dataset.annotations import COLUMNS, make_table
from retinamask.dataset.formats import read, voc, write_voc

FILES, SIZE_WH, RUNS = 1000, (640, 480), 5


def draw(folder: Path) -> None:
    """Images of blocks of colour, and zero to eight boxes each."""
    generator = np.random.default_rng(0)
    for number in range(FILES):
        colours = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(colours).resize(SIZE_WH).save(folder / f"{number:04d}.jpg")
        corners = generator.integers(0, 400, (generator.integers(0, 9), 2))
        boxes_xyxy = np.hstack([corners, corners + generator.integers(5, 80, corners.shape)])
        names = generator.choice(["mask", "no_mask"], len(boxes_xyxy)).tolist()
        write_voc(folder / f"{number:04d}.xml", folder / f"{number:04d}.jpg", SIZE_WH, boxes_xyxy, names)


def ours(folder: Path) -> pd.DataFrame:
    """The reader as it is used: with images found, decoded and compared."""
    return read("voc", [folder], folder)[0]


def our_parser(folder: Path) -> pd.DataFrame:
    """Only the XML, parsed with line numbers and without entities."""
    rows = []
    for path in sorted(folder.glob("*.xml")):
        entry = voc.parse(path)
        name = entry.written_name
        rows += [(name, *item.box_xyxy, item.name) for item in entry.objects] or [(name, *[None] * 5)]
    return make_table(rows)


def theirs(folder: Path) -> pd.DataFrame:
    """Read the XML as a tutorial does."""
    rows = []
    for path in sorted(folder.glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        name = root.find("filename").text
        objects = root.findall("object")
        for item in objects:
            box = item.find("bndbox")
            edges = [int(box.find(edge).text) for edge in ("xmin", "ymin", "xmax", "ymax")]
            rows.append((name, *edges, item.find("name").text))
        if not objects:
            rows.append((name, *[None] * 5))
    return pd.DataFrame(rows, columns=COLUMNS)


def theirs_with_images(folder: Path) -> pd.DataFrame:
    """The same, and each image decoded once."""
    table = theirs(folder)
    for name in table["image_path"].unique():
        with Image.open(folder / name) as image:
            image.load()
    return table


def main() -> None:
    sides = {
        "read": ours,
        "etree_pandas_pillow": theirs_with_images,
        "our_parser": our_parser,
        "etree_pandas": theirs,
    }
    speeds = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as name:
        draw(Path(name))
        for run in range(RUNS + 1):
            for side, read in sides.items():
                started = time.perf_counter()
                table = read(Path(name))
                if run:  # the first round warms up
                    speeds[side].append(FILES / (time.perf_counter() - started))
                if table["image_path"].nunique() != FILES:
                    raise RuntimeError(f"{side} read {table['image_path'].nunique()} of {FILES} files")
    medians = {name: round(statistics.median(values)) for name, values in speeds.items()}
    ratios = {
        "read": round(medians["read"] / medians["etree_pandas_pillow"], 2),
        "our_parser": round(medians["our_parser"] / medians["etree_pandas"], 2),
    }
    spread = {name: [round(min(values)), round(max(values))] for name, values in speeds.items()}
    shown = {"benchmark": "xml_to_table", "files": FILES, "image_wh": SIZE_WH, "cpus": os.cpu_count(), "runs": RUNS}
    print(json.dumps({**shown, "files_per_second": medians, "spread": spread, "ratio": ratios}))


if __name__ == "__main__":
    main()
