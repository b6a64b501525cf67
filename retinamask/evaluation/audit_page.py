"""The page of an audit: one file that shows the findings, with pictures of examples, and nothing else is needed.

Made of an `Audit` of `retinamask.dataset.audit`, in the style and with the pieces of `page`. Pictures are small and
lie within the page; all text is escaped, the names of files and classes included.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.anchors import Anchors
from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.audit import Audit, Example, Finding
from retinamask.dataset.images import ImageError, read_image
from retinamask.evaluation import drawing, plots
from retinamask.evaluation.page import document, grid, missing, paragraphs, section

MOST_PICTURES = 6  # of one finding
MOST_OF_EXAMPLE = 3  # pictures of one example, such as a group of copies
SIDE = 220  # pixels; the longer side of a picture
MOST_LABELS = 4  # on one picture; more would hide it
SURROUNDINGS = 5  # a picture of a small box shows so many times its longer side

TURNED = "turned by EXIF"  # the finding that is shown both ways
CSS = """
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
"""


def write_audit_page(audit: Audit, path: str | Path) -> Path:
    """Write the page of an audit, replacing an older one in one step, and return its path."""
    title = f"Audit of {Path(audit.source.name).name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _headline(audit),
        section("Findings", _findings(audit)),
        section("Classes and boxes", _figures(audit)),
        section("Anchors", _anchors(audit)),
        section("In detail", _details(audit)) if audit.findings else "",
    ]
    files.write_text(path, document(title, "\n".join(body), CSS))
    return Path(path)


def class_figure(audit: Audit) -> Figure:
    """Boxes of each class, as bars."""
    return plots.class_counts(audit.source.table, audit.classes())


def size_figure(audit: Audit) -> Figure:
    """Histograms of the sizes and the aspect ratios of the boxes of readable images, at the model's input."""
    sizes = {path: look.upright_wh for path, look in audit.looks.items() if look.upright_wh}
    table = audit.source.table
    table = table[table["image_path"].isin(sizes)]
    defaults = Anchors()
    return plots.box_sizes(objects(table), sizes, defaults.sizes, audit.settings.image_size, defaults.ratios)


def example_pictures(audit: Audit, finding: Finding) -> list[list[tuple[Image.Image, str]]]:
    """Pictures of a finding's examples with their boxes, and captions: a list for each example that can be shown.

    At most `MOST_PICTURES` altogether; an example that shows several images gets at most `MOST_OF_EXAMPLE`.
    """
    shown: list[list[tuple[Image.Image, str]]] = []
    for example in finding.examples:
        room = min(MOST_OF_EXAMPLE, MOST_PICTURES - sum(map(len, shown)))
        readable = [file for file in example.files if file in audit.looks and audit.looks[file].upright_wh]
        pictures = [_picture(audit, example, file) for file in readable[:room]]
        if finding.name == TURNED and pictures and room > 1:
            unturned = _picture(audit, example, readable[0], upright=False)
            pictures = [(pictures[0][0], f"{pictures[0][1]}, upright"), (unturned[0], "as keras-retinanet reads it")]
        pictures = [(picture, caption) for picture, caption in pictures if picture]
        if pictures:
            shown.append(pictures)
    return shown


def example_strip(audit: Audit, finding: Finding) -> Image.Image | None:
    """The pictures of a finding's examples side by side, for a notebook; `None` if there are none."""
    pictures = [picture for example in example_pictures(audit, finding) for picture, _ in example]
    if not pictures:
        return None
    gap = SIDE // 20
    width = sum(picture.width + gap for picture in pictures) - gap
    strip = Image.new("RGB", (width, max(picture.height for picture in pictures)), drawing.PAPER)
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width + gap
    return strip


def _headline(audit: Audit) -> str:
    counts = [
        (len(audit.looks), "images"),
        (len(objects(audit.source.table)), "boxes"),
        (audit.count("error"), "kinds of errors"),
        (audit.count("warning"), "kinds of warnings"),
        (audit.count("note"), "notes"),
    ]
    tiles = "".join(f"<div><b>{count:,}</b><small>{escape(name)}</small></div>" for count, name in counts)
    return f'<div class="figures">{tiles}</div>'


def _findings(audit: Audit) -> str:
    if not audit.findings:
        return missing("Nothing was found.")
    rows = "".join(
        f"<tr><td>{_badge(finding)}</td><td>{escape(finding.name)}</td>"
        f'<td class="count">{escape(finding.counted())}</td><td>{escape(finding.message)}</td></tr>\n'
        for finding in audit.findings
    )
    head = "<tr><th></th><th>finding</th><th>count</th><th>what to do</th></tr>"
    return f"<table>\n{head}\n{rows}</table>"


def _figures(audit: Audit) -> str:
    counts = audit.class_counts()
    rows = [["class", "boxes", "images"]]
    rows += [[str(row.Index), f"{row.boxes:,}", f"{row.images:,}"] for row in counts.itertuples()]
    pictures = [_embedded(_drawn(figure), escape(name)) for name, figure in (
        ("boxes of each class", class_figure(audit)), ("box sizes and aspect ratios", size_figure(audit))
    )]  # fmt: skip
    return grid(rows) + "\n".join(f"<p>{picture}</p>" for picture in pictures)


def _anchors(audit: Audit) -> str:
    rows = [["anchors", "image size", "boxes covered", "share", "mean best IoU"]]
    for record in audit.anchors.covered:
        covered = f"{record['covered']:,} of {record['boxes']:,}"
        figures = [f"{record['share']:.1%}", f"{record['mean_overlap']:.3f}"]
        rows.append([record["anchors"], str(record["image_size"]), covered, *figures])
    text = "A box is covered when an anchor overlaps it by half; keras-retinanet learns no other boxes."
    parts = [paragraphs(text), grid(rows)]
    if audit.anchors.suggestion:
        side = audit.settings.image_size
        sides = f"--image-min-side {side} --image-max-side {side}"
        text = f"The suggestion for keras-retinanet's own training, as the file of its --config, with {sides}. "
        parts.append(paragraphs(text + "retinamask's training takes image sizes, but no anchors so far."))
        parts.append(f"<pre>{escape(audit.anchors.suggestion.config_text())}</pre>")
    return "\n".join(parts)


def _details(audit: Audit) -> str:
    colors = drawing.class_colors(audit.classes()).items()
    key = "".join(f'<span class="swatch" style="background:{color}"></span>{escape(name)}' for name, color in colors)
    return "\n".join([f"<p><small>Colours:{key}</small></p>", *(_detail(audit, f) for f in audit.findings)])


def _detail(audit: Audit, finding: Finding) -> str:
    rows = [["file", "what is there"]]
    rows += [[", ".join(example.files[:MOST_OF_EXAMPLE]), example.detail] for example in finding.examples]
    more = finding.count - len(finding.examples)
    blocks = [_block(pictures) for pictures in example_pictures(audit, finding)]
    return "\n".join(
        [
            f"<h3>{_badge(finding)}{escape(finding.name)}: {escape(finding.counted())}</h3>",
            f"<p>{escape(finding.message)}</p>",
            f'<div class="pictures">{"".join(blocks)}</div>' if blocks else "",
            f"<details><summary>Examples</summary>{grid(rows)}</details>",
            missing(f"And {more:,} more.") if more else "",
        ]
    )


def _badge(finding: Finding) -> str:
    return f'<span class="{finding.severity}">{finding.severity}</span>'


def _block(pictures: Sequence[tuple[Image.Image, str]]) -> str:
    """The pictures of one example, side by side."""
    shown = "".join(
        f"<figure>{_embedded(_encoded(picture, 'JPEG'), escape(caption), 'jpeg')}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in pictures
    )
    return f'<div class="example">{shown}</div>'


def _picture(audit: Audit, example: Example, file: str, upright: bool = True) -> tuple[Image.Image | None, str]:
    """One image with its boxes, small; around the box that is meant, where there is one."""
    try:
        image_rgb = read_image(audit.source.folder / file, upright=upright)
    except ImageError:
        return None, file  # gone since it was looked at
    rows = objects(audit.source.table[audit.source.table["image_path"] == file])
    left, top, right, bottom = _window(image_rgb.shape[1::-1], example.box_xyxy)
    part = Image.fromarray(image_rgb[top:bottom, left:right])
    scale = SIDE / max(part.size)
    small = part.resize([max(1, round(side * scale)) for side in part.size], Image.Resampling.LANCZOS)
    edges = (rows[BOX_COLUMNS] - [left, top, left, top]) * scale
    inside = (edges["x2"] > 0) & (edges["y2"] > 0) & (edges["x1"] < small.width) & (edges["y1"] < small.height)
    rows = rows.assign(**edges)[inside]
    drawn = drawing.draw_boxes(np.asarray(small), rows, audit.classes(), labels=len(rows) <= MOST_LABELS)
    return drawn, file.rsplit("/", 1)[-1]


def _window(size_wh: tuple[int, int], box_xyxy: tuple | None) -> tuple[int, int, int, int]:
    """The part of an image to show: all of it, or the surroundings of a box that is small on it."""
    width, height = size_wh
    whole = (0, 0, width, height)
    if box_xyxy is None:
        return whole
    x1, y1, x2, y2 = box_xyxy
    side = round(SURROUNDINGS * max(x2 - x1, y2 - y1))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    is_on_it = x2 > 0 and y2 > 0 and x1 < width and y1 < height
    if not is_on_it or side >= max(width, height):
        return whole
    return max(0, left), max(0, top), min(width, left + side), min(height, top + side)


def _drawn(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()


def _encoded(picture: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, quality=82)
    return buffer.getvalue()


def _embedded(content: bytes, alt: str, kind: str = "png") -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode("ascii")}" alt="{alt}">'
