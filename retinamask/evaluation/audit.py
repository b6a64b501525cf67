"""The audit of a data set: all that is wrong with it, in one table, with pictures of examples, and as a page.

Each image is decoded once, whatever is asked of it; `retinamask.dataset.audit` has the checks.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import copies, files, images
from retinamask.dataset.annotations import BOX_COLUMNS, count_boxes, image_paths, objects
from retinamask.dataset.audit import checks
from retinamask.dataset.audit.checks import SEVERITIES, Example, Finding
from retinamask.dataset.audit.copy_checks import check_copies, check_splits, find_copies
from retinamask.dataset.audit.source import Source, look_at, read_source
from retinamask.dataset.images import ImageError, read_image
from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import PAPER, class_colors
from retinamask.evaluation import plots
from retinamask.evaluation.page import embedded, templates
from retinamask.setting import check_settings, setting

MOST_PICTURES = 6  # of one finding
MOST_OF_EXAMPLE = 3  # pictures of one example, such as a group of copies
SIDE = 220  # pixels; the longer side of a picture
MOST_LABELS = 4  # on one picture; more would hide it
SURROUNDINGS = 5  # a picture of a small box shows so many times its longer side

TURNED = "turned by EXIF"  # the finding that is shown both ways
AUDIT = """{% extends "base" %}{% from "macros" import tiles, grid %}
{% block css %}
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-end; margin: .75rem 0; }
.pictures figure { margin: 0; max-width: 220px; }
.example { display: flex; gap: .4rem; align-items: flex-end; padding: .5rem; background: var(--panel);
           border-radius: .6rem; }
figcaption { color: var(--faded); font-size: .78rem; line-height: 1.35; margin-top: .3rem; }
.error, .warning, .note { border-radius: .4rem; padding: .1rem .5rem; font-size: .8rem; color: #fff;
                          white-space: nowrap; overflow-wrap: normal; }
.error { background: #b23a00; } .warning { background: #8a6100; } .note { background: #55616d; }
h3 { font-size: 1.02rem; margin: 2rem 0 .4rem; } h3 .error, h3 .warning, h3 .note { margin-right: .5rem; }
td:nth-child(2) { overflow-wrap: normal; min-width: 9em; }
.count { white-space: nowrap; overflow-wrap: normal; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin: 0 .35em 0 .9em; }
pre { background: var(--panel); padding: .8rem 1rem; border-radius: .6rem; overflow-x: auto; }
{% endblock %}
{% macro badge(finding) %}<span class="{{ finding.severity }}">{{ finding.severity }}</span>{% endmacro %}
{% block body %}
{{ tiles(headline) }}
<section><h2>Findings</h2>
{% if findings %}
<table>
<tr><th></th><th>finding</th><th>count</th><th>what to do</th></tr>
{% for finding, _, _ in findings %}
<tr><td>{{ badge(finding) }}</td><td>{{ finding.name }}</td><td class="count">{{ finding.counted() }}</td>
<td>{{ finding.message }}</td></tr>
{% endfor %}
</table>
{% else %}
<p class="missing">Nothing was found.</p>
{% endif %}
</section>
<section><h2>Classes and boxes</h2>
{{ grid(["class", "boxes", "images"], class_rows) }}
{% for name, source in figures %}<p><img src="{{ source }}" alt="{{ name }}"></p>{% endfor %}
</section>
<section><h2>Anchors</h2>
<p>A box is covered when an anchor overlaps it by half; keras-retinanet learns no other boxes.</p>
{{ grid(["anchors", "image size", "boxes covered", "share", "mean best IoU"], anchor_rows) }}
{% if suggestion %}
<p>The suggestion for keras-retinanet's own training, as the file of its --config, with --image-min-side {{ side }}
--image-max-side {{ side }}. retinamask's training takes image sizes, but no anchors so far.</p>
<pre>{{ suggestion.config_text() }}</pre>
{% endif %}
</section>
{% if findings %}
<section><h2>In detail</h2>
<p><small>Colours:{% for name, color in colors.items() -%}
<span class="swatch" style="background:{{ color }}"></span>{{ name }}{% endfor %}</small></p>
{% for finding, examples, rows in findings %}
<h3>{{ badge(finding) }}{{ finding.name }}: {{ finding.counted() }}</h3>
<p>{{ finding.message }}</p>
{% if examples %}<div class="pictures">
{% for pictures in examples %}<div class="example">
{% for source, caption in pictures %}
<figure><img src="{{ source }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</div>{% endfor %}
</div>{% endif %}
<details><summary>Examples</summary>{{ grid(["file", "problem"], rows) }}</details>
{% if finding.count > rows | length %}
<p class="missing">And {{ "{:,}".format(finding.count - rows | length) }} more.</p>
{% endif %}
{% endfor %}
</section>
{% endif %}
{% endblock %}
"""


def audit(
    source: str | Path,
    classes_csv: str | Path = "",
    image_folder: str | Path = "",
    splits: Iterable[str | Path] = (),
    **settings: Any,
) -> "Audit":
    """Read every image and annotation of a data set and list what is wrong, the worst first.

    Args:
        source: a folder of annotations and images, or an annotation file.
        classes_csv: the class list, if it is not ``classes.csv`` in the folder or beside the file.
        image_folder: of the images, if they are not where the annotations say.
        splits: CSVs that must not share a picture.
        settings: fields of `AuditSettings`, such as ``image_size=512``.

    Example:
        >>> rm.audit("data/mine").table()
    """
    checked = AuditSettings(**settings)
    return Audit(read_source(source, classes_csv or None, image_folder or None, splits), checked)


@dataclass(frozen=True)
class AuditSettings:
    """From where on something is a finding."""

    image_size: int = setting(512, "side of the square that the model fits images into, in pixels", 64, 4096)
    max_pixels: int = setting(
        images.MAX_PIXELS, "images with more are not decoded; training reads no larger ones", 1, images.MAX_PIXELS
    )
    tiny_side: float = setting(8.0, "least side of a box in pixels of the model's input", 0)
    near_bits: int = setting(copies.NEAR_BITS, "bits, of 80, by which the hashes of two copies differ at most", 0, 80)
    same_overlap: float = setting(0.9, "IoU above which two boxes are one", 0, 1)
    rare_share: float = setting(0.1, "a class with a smaller share of the boxes of the largest one is rare", 0, 1)
    low_coverage: float = setting(0.95, "share of the boxes that anchors have to reach", 0, 1)

    def __post_init__(self):
        check_settings(self)


class Audit:
    """The result of an `audit`.

    Attributes:
        source: what was audited.
        settings: see `AuditSettings`.
        findings: the worst first.
        looks: what is known of each image, by path.
        copies: groups of copies.
        anchors: how many boxes the anchors reach.
    """

    def __init__(self, source: Source, settings: AuditSettings):
        self.source, self.settings = source, settings
        self.looks = {look.path: look for look in look_at(source.all_images(), source.folder, settings.max_pixels)}
        self.copies = find_copies(self.looks, settings.near_bits)
        self.anchors = checks.check_anchors(source, self.looks, settings)
        cases = [
            *checks.check_image_files(source, self.looks),
            *checks.check_annotation_files(source),
            *checks.check_boxes(source, self.looks, settings),
            *checks.check_classes(source, settings),
            *check_splits(source, self.looks, self.copies),
            *check_copies(source, self.looks, self.copies),
            *(("missed by the anchors", example) for example in self.anchors.missed),
        ]
        rows = self.anchors.covered
        covered = "; ".join(f"{row['anchors']} at {row['image_size']}: {row['share']:.1%}" for row in rows)
        facts = {"classes": ", ".join(source.classes), "coverage": covered, **self.copies.record()}
        self.findings = checks.findings_of(cases, asdict(settings) | facts)

    def classes(self) -> dict[str, int]:
        """The classes with those added that stand on boxes only."""
        others = sorted(set(objects(self.source.table)["class_name"]) - set(self.source.classes))
        return self.source.classes | {name: len(self.source.classes) + i for i, name in enumerate(others)}

    def class_counts(self) -> pd.DataFrame:
        """Boxes and images of each class."""
        return count_boxes(self.source.table, self.classes())

    def count(self, severity: str) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        suggestion = self.anchors.suggestion
        return {
            "source": self.source.name,
            "settings": asdict(self.settings),
            "images": len(self.looks),
            "annotated_images": len(image_paths(self.source.table)),
            "boxes": len(objects(self.source.table)),
            "classes": self.class_counts().to_dict("index"),
            "severities": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.record() for finding in self.findings],
            "copies": self.copies.record(),
            "anchor_coverage": self.anchors.covered,
            "anchor_parameters": suggestion.config_text() if suggestion else None,
        }

    def table(self) -> pd.DataFrame:
        """List the findings: severity, name, count and what to do."""
        return checks.findings_table(self.findings)

    def save(self, folder: str | Path) -> None:
        """Write the page ``audit.html``, with all pictures, and ``audit.json``."""
        files.write_json(Path(folder, "audit.json"), self.record())
        self.write_page(Path(folder, "audit.html"))

    def plot_classes(self) -> Figure:
        """Draw how many boxes each class has."""
        return plots.class_counts(self.source.table, self.classes())

    def plot_box_sizes(self) -> Figure:
        """Draw the sizes and aspect ratios of the boxes of readable images at the network's input, with the anchors."""
        sizes = {path: look.upright_wh for path, look in self.looks.items() if look.upright_wh}
        table = self.source.table[self.source.table["image_path"].isin(sizes)]
        return plots.box_sizes(table, sizes, self.settings.image_size)

    def write_page(self, path: str | Path) -> Path:
        """Write the page, replacing an older one in one step, and return its path."""
        headline = {
            "images": len(self.looks),
            "boxes": len(objects(self.source.table)),
            "kinds of errors": self.count("error"),
            "kinds of warnings": self.count("warning"),
            "notes": self.count("note"),
        }
        findings = []
        for finding in self.findings:
            examples = [
                [(_embedded(picture.save, "jpeg", quality=82), caption) for picture, caption in pictures]
                for pictures in self.pictures(finding)
            ]
            rows = [(", ".join(example.files[:MOST_OF_EXAMPLE]), example.detail) for example in finding.examples]
            findings.append((finding, examples, rows))
        figures = {"boxes of each class": self.plot_classes(), "box sizes and aspect ratios": self.plot_box_sizes()}
        page = templates.from_string(AUDIT).render(
            title=f"Audit of {Path(self.source.name).name}",
            headline=[(name, f"{count:,}") for name, count in headline.items()],
            findings=findings,
            class_rows=[(row.Index, f"{row.boxes:,}", f"{row.images:,}") for row in self.class_counts().itertuples()],
            figures=[(name, _embedded(figure.savefig, dpi=110)) for name, figure in figures.items()],
            anchor_rows=[
                (row["anchors"], row["image_size"], f"{row['covered']:,} of {row['boxes']:,}")
                + (f"{row['share']:.1%}", f"{row['mean_overlap']:.3f}")
                for row in self.anchors.covered
            ],
            suggestion=self.anchors.suggestion,
            side=self.settings.image_size,
            colors=class_colors(self.classes()),
        )
        files.write_text(path, page)
        return Path(path)

    def picture(self, finding: Finding) -> Image.Image | None:
        """Draw a finding's examples side by side; None if there is nothing to show."""
        pictures = [picture for example in self.pictures(finding) for picture, _ in example]
        if not pictures:
            return None
        rights = list(accumulate(picture.width + SIDE // 20 for picture in pictures))
        strip = Image.new("RGB", (rights[-1] - SIDE // 20, max(picture.height for picture in pictures)), PAPER)
        for picture, left in zip(pictures, [0, *rights], strict=False):
            strip.paste(picture, (left, 0))
        return strip

    def pictures(self, finding: Finding) -> list[list[tuple[Image.Image, str]]]:
        """Draw a finding's examples with their boxes and give captions: a list for each example that can be shown.

        At most `MOST_PICTURES` altogether; an example that shows several images gets at most `MOST_OF_EXAMPLE`.
        """
        shown: list[list[tuple[Image.Image, str]]] = []
        for example in finding.examples:
            room = min(MOST_OF_EXAMPLE, MOST_PICTURES - sum(map(len, shown)))
            readable = [file for file in example.files if file in self.looks and self.looks[file].upright_wh]
            pictures = [(self._picture(example, file), file.rsplit("/", 1)[-1]) for file in readable[:room]]
            if finding.name == TURNED and pictures and room > 1:
                unturned = self._picture(example, readable[0], upright=False)
                pictures = [(pictures[0][0], f"{pictures[0][1]}, upright"), (unturned, "as keras-retinanet reads it")]
            pictures = [(picture, caption) for picture, caption in pictures if picture]
            if pictures:
                shown.append(pictures)
        return shown

    def _picture(self, example: Example, file: str, upright: bool = True) -> Image.Image | None:
        """Draw one image with its boxes, small: all of it, or the surroundings of a small box that is meant."""
        try:
            image_rgb = read_image(self.source.folder / file, upright=upright)
        except ImageError:
            return None  # gone since the audit
        height, width = image_rgb.shape[:2]
        left, top, right, bottom = 0, 0, width, height
        if example.box_xyxy is not None:
            x1, y1, x2, y2 = example.box_xyxy
            side = round(SURROUNDINGS * max(x2 - x1, y2 - y1))
            if x2 > 0 and y2 > 0 and x1 < width and y1 < height and side < max(width, height):
                left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
                left, top, right, bottom = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
        part = Image.fromarray(image_rgb[top:bottom, left:right])
        scale = SIDE / max(part.size)
        small = part.resize([max(1, round(side * scale)) for side in part.size], Image.Resampling.LANCZOS)
        rows = objects(self.source.table[self.source.table["image_path"] == file])
        edges = (rows[BOX_COLUMNS] - [left, top, left, top]) * scale
        inside = (edges["x2"] > 0) & (edges["y2"] > 0) & (edges["x1"] < small.width) & (edges["y1"] < small.height)
        rows = rows.assign(**edges)[inside]
        return draw_boxes(np.asarray(small), rows, self.classes(), labels=len(rows) <= MOST_LABELS)


def _embedded(save: Callable[..., object], kind: str = "png", **options: float) -> str:
    buffer = io.BytesIO()
    save(buffer, format=kind, **options)
    return embedded(buffer.getvalue(), kind)
