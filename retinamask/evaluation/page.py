"""One page per run: ``index.html`` in the run's folder shows what the run is worth and leads to its files.

The page is made of what is in the folder: ``metrics.json`` (of `coco.evaluate`), ``run.json`` (the record of the
run), pictures, tables, notebooks; what is missing is not mentioned. It needs neither network nor script; jinja2 escapes
all text, the names of files and classes included.
"""

import base64
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from retinamask.dataset import files
from retinamask.evaluation.coco import MEANINGS

PAGE_NAME = "index.html"
INLINE_LIMIT = 300_000  # bytes; larger pictures are linked, so that the page stays quick to open
MOST_FILES = 200  # how many files are listed

PICTURES = {  # in the order of the page; others follow under their names
    "contact_sheet.png": "Detections",
    "two_stage_sheet.png": "Detections in two stages",
    "training_curves.png": "Training",
    "precision_recall.png": "Precision and recall",
    "confusion_matrix.png": "Confusion of the classes",
    "roc.png": "Found against false alarms (ROC)",
    "calibration.png": "Calibration of the probabilities",
    "prediction_plot.png": "Predictions",
    "mistakes.png": "The most confident mistakes",
    "augmentation.png": "What the network was shown",
    "learning_rate.png": "Learning rate",
    "learning_rate_finding.png": "Search for the learning rate",
    "class_counts.png": "Boxes of each class",
    "box_sizes.png": "Box sizes and anchors",
    "audit_classes.png": "Audit: boxes of each class",
    "audit_box_sizes.png": "Audit: box sizes and anchors",
}

BASE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1f2933; --faded: #5b6773; --paper: #fff; --panel: #f3f5f7;
        --line: #dde3e8; --accent: #007a5a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --faded: #9ba7b3; --paper: #14181c; --panel: #1e242a; --line: #323b44; --accent: #3ccfa4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--paper);
       color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
a, summary { color: var(--accent); }
.missing, small, th { color: var(--faded); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; }
.figures div { flex: 1 1 9rem; padding: .9rem 1.1rem; background: var(--panel); border-radius: .6rem; }
.figures b { display: block; font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: .6rem;
      background: #fff; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .92rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; font-variant-numeric: tabular-nums; }
th { font-weight: 500; }
.record th { width: 11rem; }
.record td:has(> table) { padding: 0; }
.record .record { margin: 0; }
.record .record tr:last-child > * { border: 0; }
summary { cursor: pointer; }
{% block css %}{% endblock %}
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body>
</html>
"""

MACROS = """
{% macro tiles(figures) %}
<div class="figures">
{% for name, value in figures %}<div><b>{{ value }}</b><small>{{ name }}</small></div>{% endfor %}
</div>
{% endmacro %}
{% macro grid(head, rows) %}
<table>
<tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endmacro %}
"""

RUN = """{% extends "base" %}{% from "macros" import tiles, grid %}
{% macro tree(value) %}
{% if value is mapping and value %}
<table class="record">
{% for name, item in value.items() %}<tr><th>{{ name }}</th><td>{{ tree(item) }}</td></tr>
{% endfor %}
</table>
{% else %}{{ value | plain }}{% endif %}
{% endmacro %}
{% macro links(paths) %}
<ul>
{% for path in paths[:most] %}
<li><a href="{{ path | address }}">{{ path }}</a> <small>{{ size(path) | filesizeformat }}</small></li>
{% endfor %}
</ul>
{% if paths | length > most %}<p class="missing">And {{ paths | length - most }} more.</p>{% endif %}
{% endmacro %}
{% block body %}
{% if metrics %}
{{ tiles([("AP50", metrics.AP50 | figure), ("AP", metrics.AP | figure), ("AR100", metrics.AR100 | figure)]) }}
<p><small>On {{ metrics.boxes }} annotated boxes in {{ metrics.images }} images.
{% if metrics.get("leaked_images") %}LEAK: the model was trained on {{ metrics.leaked_images }} of them.{% endif %}
</small></p>
{{ grid(["class", "AP50", "AP75", "AP", "AR100", "boxes"], class_rows) }}
<details><summary>All twelve COCO figures</summary>{{ grid(["figure", "value", "meaning"], figure_rows) }}</details>
{% endif %}
{% for heading, path, source in pictures %}
<section><h2>{{ heading }}</h2>
<a href="{{ path | address }}"><img src="{{ source }}" alt="{{ path }}"></a></section>
{% endfor %}
{% for heading, paths in lists if paths %}<section><h2>{{ heading }}</h2>{{ links(paths) }}</section>{% endfor %}
{% if record %}
<section><h2>Parameters and versions</h2>
<details><summary>The record of the run</summary>{{ tree(record) }}</details></section>
{% endif %}
{% if paths %}<section><h2>All files</h2><details><summary>{{ paths | length }} files</summary>
{{ links(paths) }}</details></section>{% endif %}
<p><small>Written {{ written }}; what came into the folder later is not shown.</small></p>
{% endblock %}
"""


def write_page(run_dir: str | os.PathLike, title: str | None = None) -> Path:
    """Write ``index.html`` for a run, replacing an older one in one step, and return its path.

    Raises:
        FileNotFoundError: ``run_dir`` is not a folder.
        ValueError: ``metrics.json`` or ``run.json`` is not JSON.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir} is not a folder; a page is written for an existing run")
    found = sorted(path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file())
    names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    names = [name for name in names if name != PAGE_NAME]
    drawn = [name for name in names if name.endswith(".png") and "/" not in name]
    pictures = []
    for name in (*(name for name in PICTURES if name in drawn), *(name for name in drawn if name not in PICTURES)):
        content = (run_dir / name).read_bytes()
        source = embedded(content) if len(content) <= INLINE_LIMIT else _address(name)
        pictures.append((PICTURES.get(name, Path(name).stem.replace("_", " ")), name, source))
    metrics = _read_record(run_dir / "metrics.json") or _read_record(run_dir / "two_stage_metrics.json")
    columns = ("AP50", "AP75", "AP", "AR100")
    per_class = metrics["per_class"].items() if metrics else ()
    own = _read_record(run_dir / "run.json")
    page = templates.get_template("run").render(
        title=f"Run {run_dir.name}" if title is None else title,
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
        metrics=metrics,
        class_rows=[[name, *(_figure(own[key]) for key in columns), own["boxes"]] for name, own in per_class],
        figure_rows=[[name, _figure(metrics[name]), text] for name, text in MEANINGS.items()] if metrics else [],
        pictures=pictures,
        lists=[
            (heading, [name for name in names if name.endswith(suffix)])
            for heading, suffix in (("Pages", ".html"), ("Tables", ".csv"), ("Notebooks", ".ipynb"))
        ],
        record={name: value for name, value in own.items() if name != "metrics" and value is not None},
        paths=names,
        most=MOST_FILES,
        size=lambda name: (run_dir / name).stat().st_size,
    )
    files.write_text(run_dir / PAGE_NAME, page)
    return run_dir / PAGE_NAME


def embedded(content: bytes, kind: str = "png") -> str:
    """Return the address of a picture that is within the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _read_record(path: Path) -> dict:
    """Return the content of a JSON file; nothing if there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record


def _address(name: str) -> str:
    """Return a relative link; ``./`` keeps a name such as ``javascript:x`` from being read as a scheme."""
    return "./" + quote(name)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plain(value: Any) -> str:
    """Return a value of the record as text."""
    if value is None:
        return "–"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


templates = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
templates.loader = jinja2.DictLoader({"base": BASE, "macros": MACROS, "run": RUN})
templates.filters |= {"address": _address, "figure": _figure, "plain": _plain}
