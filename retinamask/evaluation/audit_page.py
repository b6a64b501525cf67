"""The page of an audit: one file with the findings of a `retinamask.dataset.audit.Audit` and pictures of examples."""

import io
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.anchors import Anchors
from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.audit import Audit, Example, Finding
from retinamask.dataset.images import ImageError, read_image
from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import PAPER, class_colors
from retinamask.evaluation import plots
from retinamask.evaluation.page import embedded, templates

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


def write_audit_page(audit: Audit, path: str | Path) -> Path:
    """Write the page of an audit, replacing an older one in one step, and return its path."""
    headline = {
        "images": len(audit.looks),
        "boxes": len(objects(audit.source.table)),
        "kinds of errors": audit.count("error"),
        "kinds of warnings": audit.count("warning"),
        "notes": audit.count("note"),
    }
    findings = []
    for finding in audit.findings:
        examples = [
            [(_embedded(picture.save, "jpeg", quality=82), caption) for picture, caption in pictures]
            for pictures in example_pictures(audit, finding)
        ]
        rows = [(", ".join(example.files[:MOST_OF_EXAMPLE]), example.detail) for example in finding.examples]
        findings.append((finding, examples, rows))
    figures = {"boxes of each class": class_figure(audit), "box sizes and aspect ratios": size_figure(audit)}
    page = templates.from_string(AUDIT).render(
        title=f"Audit of {Path(audit.source.name).name}",
        headline=[(name, f"{count:,}") for name, count in headline.items()],
        findings=findings,
        class_rows=[(row.Index, f"{row.boxes:,}", f"{row.images:,}") for row in audit.class_counts().itertuples()],
        figures=[(name, _embedded(figure.savefig, dpi=110)) for name, figure in figures.items()],
        anchor_rows=[
            "{anchors}|{image_size}|{covered:,} of {boxes:,}|{share:.1%}|{mean_overlap:.3f}".format(**record).split("|")
            for record in audit.anchors.covered
        ],
        suggestion=audit.anchors.suggestion,
        side=audit.settings.image_size,
        colors=class_colors(audit.classes()),
    )
    files.write_text(path, page)
    return Path(path)


def _embedded(save: Callable[..., object], kind: str = "png", **options: float) -> str:
    buffer = io.BytesIO()
    save(buffer, format=kind, **options)
    return embedded(buffer.getvalue(), kind)


def class_figure(audit: Audit) -> Figure:
    """Draw the boxes of each class, as bars."""
    return plots.class_counts(audit.source.table, audit.classes())


def size_figure(audit: Audit) -> Figure:
    """Draw histograms of the sizes and aspect ratios of the boxes of readable images, at the model's input."""
    sizes = {path: look.upright_wh for path, look in audit.looks.items() if look.upright_wh}
    table = audit.source.table
    table = table[table["image_path"].isin(sizes)]
    defaults = Anchors()
    return plots.box_sizes(objects(table), sizes, defaults.sizes, audit.settings.image_size, defaults.ratios)


def example_pictures(audit: Audit, finding: Finding) -> list[list[tuple[Image.Image, str]]]:
    """Draw a finding's examples with their boxes and give captions: a list for each example that can be shown.

    At most `MOST_PICTURES` altogether; an example that shows several images gets at most `MOST_OF_EXAMPLE`.
    """
    shown: list[list[tuple[Image.Image, str]]] = []
    for example in finding.examples:
        room = min(MOST_OF_EXAMPLE, MOST_PICTURES - sum(map(len, shown)))
        readable = [file for file in example.files if file in audit.looks and audit.looks[file].upright_wh]
        pictures = [(_picture(audit, example, file), file.rsplit("/", 1)[-1]) for file in readable[:room]]
        if finding.name == TURNED and pictures and room > 1:
            unturned = _picture(audit, example, readable[0], upright=False)
            pictures = [(pictures[0][0], f"{pictures[0][1]}, upright"), (unturned, "as keras-retinanet reads it")]
        pictures = [(picture, caption) for picture, caption in pictures if picture]
        if pictures:
            shown.append(pictures)
    return shown


def example_strip(audit: Audit, finding: Finding) -> Image.Image | None:
    """Put the pictures of a finding's examples side by side, for a notebook; `None` if there are none."""
    pictures = [picture for example in example_pictures(audit, finding) for picture, _ in example]
    if not pictures:
        return None
    rights = list(accumulate(picture.width + SIDE // 20 for picture in pictures))
    strip = Image.new("RGB", (rights[-1] - SIDE // 20, max(picture.height for picture in pictures)), PAPER)
    for picture, left in zip(pictures, [0, *rights], strict=False):
        strip.paste(picture, (left, 0))
    return strip


def _picture(audit: Audit, example: Example, file: str, upright: bool = True) -> Image.Image | None:
    """Draw one image with its boxes, small: all of it, or the surroundings of a small box that is meant."""
    try:
        image_rgb = read_image(audit.source.folder / file, upright=upright)
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
    rows = objects(audit.source.table[audit.source.table["image_path"] == file])
    edges = (rows[BOX_COLUMNS] - [left, top, left, top]) * scale
    inside = (edges["x2"] > 0) & (edges["y2"] > 0) & (edges["x1"] < small.width) & (edges["y1"] < small.height)
    rows = rows.assign(**edges)[inside]
    return draw_boxes(np.asarray(small), rows, audit.classes(), labels=len(rows) <= MOST_LABELS)
