"""One page per run: `index.html` in the run's folder shows what the run is worth and leads to its files.

The page is made of what lies in the folder: `metrics.json` (from `coco.write_metrics`), `run.json` (the
record of the run), pictures, notebooks. What is missing is said in a plain sentence. The page asks nothing of
the network and needs no script; all text is escaped, the names of files and classes included.
"""

import base64
import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retinamask.dataset import files
from retinamask.evaluation.coco import MEANINGS

PAGE_NAME = "index.html"
INLINE_LIMIT = 300_000  # bytes; larger pictures are linked, so that the page stays quick to open
MOST_FILES = 200  # how many files are listed

# Picture files that have a place of their own on the page, and their headings.
PICTURES = {
    "contact_sheet.png": "Images",
    "two_stage_sheet.png": "Images, two stages",
    "training_curves.png": "Training",
    "precision_recall.png": "Precision and recall",
}

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --faded: #5b6773; --paper: #fff; --panel: #f3f5f7;
        --line: #dde3e8; --accent: #007a5a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --faded: #9ba7b3; --paper: #14181c; --panel: #1e242a; --line: #323b44;
          --accent: #3ccfa4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--paper);
       color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
a { color: var(--accent); }
p.missing, small, th { color: var(--faded); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; }
.figures div { flex: 1 1 9rem; padding: .9rem 1.1rem; background: var(--panel); border-radius: .6rem; }
.figures b { display: block; font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: .6rem;
      background: #fff; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .92rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; }
th { font-weight: 500; }
td { font-variant-numeric: tabular-nums; }
.record th { width: 11rem; }
.record td:has(> table) { padding: 0; }
.record .record { margin: 0; }
.record .record tr:last-child > * { border: 0; }
summary { cursor: pointer; color: var(--accent); }
""".strip()


def write_page(run_dir: str | os.PathLike, title: str, sections: Sequence[tuple[str, str]] = ()) -> Path:
    """Write `index.html` for a run, replacing an older one in one step, and return its path.

    Args:
        run_dir: the run's folder, which exists.
        title: heading of the page.
        sections: further headings with a text each, plain and without markup, shown below the figures; an
            empty line starts a new paragraph.

    Raises:
        FileNotFoundError: `run_dir` is not a folder.
        ValueError: `metrics.json` or `run.json` is not JSON.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir} is not a folder; a page is written for an existing run")
    paths = _files_of(run_dir)
    notebooks = [path for path in paths if path.suffix == ".ipynb"]
    body = [
        f"<h1>{escape(title)}</h1>",
        *_figures(_read_record(run_dir / "metrics.json") or _read_record(run_dir / "two_stage_metrics.json")),
        *(section(heading, paragraphs(text)) for heading, text in sections),
        *_pictures(run_dir, paths),
        section("Parameters and versions", _run_record(_read_record(run_dir / "run.json"))),
        section("Notebooks", _links(run_dir, notebooks, "notebooks")),
        section("Files", _links(run_dir, paths, "files")),
    ]
    page = run_dir / PAGE_NAME
    files.write_text(page, document(title, "\n".join(body)))
    return page


def document(title: str, body: str, more_css: str = "") -> str:
    """A whole page; `body` is markup, `title` is plain text, `more_css` comes after `CSS`."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{CSS}
{more_css}</style>
</head>
<body>
{body}
</body>
</html>
"""


def section(heading: str, content: str) -> str:
    """A part of the page; `content` is markup, `heading` is plain text."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>"


def missing(sentence: str) -> str:
    """A plain sentence in faded ink, for what there is not."""
    return f'<p class="missing">{escape(sentence)}</p>'


def paragraphs(text: str) -> str:
    """Plain text as paragraphs, which an empty line parts."""
    return "\n".join(f"<p>{escape(paragraph.strip())}</p>" for paragraph in text.split("\n\n"))


def _figures(metrics: dict | None) -> list[str]:
    """Return the headline figures, the figures of each class, and all twelve folded away."""
    if metrics is None:
        return [missing("This run has no evaluation: there is no metrics.json.")]
    headline = [("AP50", metrics.get("AP50")), ("AP", metrics.get("AP")), ("AR100", metrics.get("AR100"))]
    tiles = "".join(f"<div><b>{_number(value)}</b><small>{name}</small></div>" for name, value in headline)
    counts = f"On {metrics.get('boxes', '?')} annotated boxes in {metrics.get('images', '?')} images."
    return [
        f'<div class="figures">{tiles}</div>',
        f"<p><small>{escape(counts)}</small></p>",
        _class_figures(metrics),
        _all_figures(metrics),
    ]


def _class_figures(metrics: dict) -> str:
    names = ("AP50", "AP75", "AP", "AR100")
    rows = [["class", *names, "boxes"]]
    for class_name, figures in metrics.get("per_class", {}).items():
        numbers = [_number(figures.get(name)) for name in names]
        rows.append([class_name, *numbers, str(figures.get("boxes", "?"))])
    return grid(rows)


def _all_figures(metrics: dict) -> str:
    rows = [["figure", "value", "what it says"]]
    rows += [[name, _number(metrics.get(name)), meaning] for name, meaning in MEANINGS.items()]
    return f"<details><summary>All twelve COCO figures</summary>{grid(rows)}</details>"


def grid(rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first row is its head; all cells are escaped."""
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _pictures(run_dir: Path, paths: Sequence[Path]) -> list[str]:
    """Return the known pictures under their headings, then the others together."""
    sections = []
    for name, heading in PICTURES.items():
        picture = run_dir / name
        content = _image(run_dir, picture) if picture in paths else missing(f"This run has no {name}.")
        sections.append(section(heading, content))
    others = [path for path in paths if path.suffix == ".png" and path.name not in PICTURES]
    others = [path for path in others if path.parent == run_dir]
    if others:
        content = "\n".join(f"<p>{escape(path.name)}</p>\n{_image(run_dir, path)}" for path in others)
        sections.append(section("Further figures", content))
    return sections


def _image(run_dir: Path, path: Path) -> str:
    """Return a PNG picture, within the page if it is small."""
    address = _address(run_dir, path)
    source = address
    if path.stat().st_size <= INLINE_LIMIT:
        source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<a href="{address}"><img src="{source}" alt="{escape(path.name)}"></a>'


def _run_record(record: dict | None) -> str:
    if record is None:
        return missing("This run has no record: there is no run.json.")
    # The figures stand above, in full.
    return _tree({name: value for name, value in record.items() if name != "metrics"})


def _tree(value: Any) -> str:
    """Return nested dicts as nested tables and everything else as escaped text."""
    if isinstance(value, dict) and value:
        rows = (f"<tr><th>{escape(name)}</th><td>{_tree(item)}</td></tr>" for name, item in value.items())
        return '<table class="record">\n' + "\n".join(rows) + "\n</table>"
    if value is None:
        return "–"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return escape(", ".join(map(str, value)))
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _links(run_dir: Path, paths: Sequence[Path], what: str) -> str:
    if not paths:
        return missing(f"This run has no {what}.")
    items = []
    for path in paths[:MOST_FILES]:
        name = escape(path.relative_to(run_dir).as_posix())
        items.append(f'<li><a href="{_address(run_dir, path)}">{name}</a> <small>{_size(path)}</small></li>')
    more = missing(f"And {len(paths) - MOST_FILES} more.") if len(paths) > MOST_FILES else ""
    return "<ul>\n" + "\n".join(items) + "\n</ul>" + more


def _address(run_dir: Path, path: Path) -> str:
    """Return a relative link; `./` keeps a name such as `javascript:x` from being read as a scheme."""
    return escape("./" + quote(path.relative_to(run_dir).as_posix()))


def _size(path: Path) -> str:
    size = path.stat().st_size
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _files_of(run_dir: Path) -> list[Path]:
    """Return the run's files in order of their names, without hidden ones and the page itself."""
    names = sorted(path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file())
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return [run_dir / name for name in shown if name != Path(PAGE_NAME)]


def _read_record(path: Path) -> dict | None:
    """Return the content of a JSON file, or None if there is none."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record
