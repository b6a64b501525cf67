"""The command that audits a data set."""

from pathlib import Path

from retinamask.commands.parsing import add_command
from retinamask.dataset.files import refuse_existing


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    text = "Find what is wrong with a data set: images, boxes, classes, copies, splits, anchors."
    audit = add_command(subparsers, "audit", audit_command, text)
    audit.add_argument("source", metavar="SRC", help="an annotation CSV, or a folder of labelImg XML")
    audit.add_argument("--classes", help="class list; classes.csv beside SRC if left out")
    audit.add_argument("--images", help="folder of the images, if it is not the CSV's or the XML's")
    audit.add_argument("--image-size", type=int, default=512, help="the model fits images into a square of this side")
    audit.add_argument("--splits", nargs="+", default=[], metavar="CSV", help="CSVs that must not share a picture")
    audit.add_argument("--max-pixels", type=int, help="larger images are not decoded; Pillow's own limit if left out")
    audit.add_argument("--tiny", type=float, default=8, help="least side of a box in pixels of the model's input")
    audit.add_argument("--json", help="write everything to this JSON file")
    audit.add_argument("--html", help="write a page with pictures of examples to this file")
    audit.add_argument("--force", action="store_true", help="replace existing files")


def audit_command(given) -> None:
    from retinamask.dataset import files
    from retinamask.dataset.audit import AuditSettings, audit, read_source
    from retinamask.dataset.images import MAX_PIXELS

    for path, option in ((given.json, "--json"), (given.html, "--html")):
        if path:
            refuse_existing(Path(path), given.force, option)
    max_pixels = MAX_PIXELS if given.max_pixels is None else given.max_pixels
    settings = AuditSettings(image_size=given.image_size, max_pixels=max_pixels, tiny_side=given.tiny)
    source = read_source(given.source, given.classes, given.images, given.splits)
    found = audit(source, settings)
    _print(found)
    if given.json:
        files.write_json(given.json, found.record())
        print(f"written: {given.json}")
    if given.html:
        from retinamask.evaluation.audit_page import write_audit_page

        print(f"written: {write_audit_page(found, given.html)}")


def _print(found) -> None:
    """The findings as text, each with a few of its examples."""
    for finding in found.findings:
        print(f"{finding.severity.upper()}: {finding.name}: {finding.counted()}")
        print(f"    {finding.message}")
        for example in finding.examples[:3]:
            files = ", ".join(file for file in example.files[:3] if file != ".")
            print(f"    - {': '.join(filter(None, (files, example.detail))) or 'no file'}")
    if found.anchors.suggestion:
        print(f"\n{found.anchors.suggestion.config_text()}")
    counts = ", ".join(f"{row.boxes} {row.Index}" for row in found.class_counts().itertuples()) or "none"
    reached = found.anchors.covered[0]
    print(
        f"{len(found.looks)} images; boxes: {counts}; keras-retinanet's anchors at {found.settings.image_size} reach "
        f"{reached['covered']} of {reached['boxes']} in readable images; {found.count('error')} kinds of errors, "
        f"{found.count('warning')} of warnings, {found.count('note')} notes"
    )
