"""Commands on images and annotations.

Each command calls the functions that the notebooks call. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import sys
from pathlib import Path

from retinamask.commands.parsing import add_command, refuse_existing


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    sample = add_command(subparsers, "sample", sample_command, "Draw a sample data set with labelImg XML.")
    sample.add_argument("--out", required=True, help="new folder for images/ and annotations/")
    sample.add_argument("--images", type=int, default=48, help="how many scenes")
    sample.add_argument("--size", type=int, default=256, help="side of a scene in pixels")
    sample.add_argument("--seed", type=int, default=0, help="the same seed draws the same scenes")

    text = "Turn folders of labelImg XML into annotations.csv and classes.csv, checked."
    table = add_command(subparsers, "annotations", annotations_command, text)
    table.add_argument("sources", nargs="+", metavar="SRC", help="folders with XML files, or XML files")
    table.add_argument("--out", default="annotations.csv", help="the CSV to write; image paths are relative to it")
    table.add_argument("--classes", default="classes.csv", help="class list: read if it exists, else written")
    table.add_argument("--images", help="folder of the images, if they are not below SRC")
    table.add_argument("--with-unannotated", action="store_true", help="take images without XML as without faces")
    table.add_argument("--force", action="store_true", help="replace an existing CSV")


def sample_command(given) -> None:
    from retinamask.dataset.sample import draw_sample

    paths = draw_sample(given.out, given.images, given.size, given.seed)
    print(f"{len(paths)} scenes and their labelImg XML files are in {given.out}")


def annotations_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.formats import class_ids, read_voc, summary

    out, classes_csv = Path(given.out), Path(given.classes)
    refuse_existing(out, given.force)
    known = annotations.read_classes(classes_csv) if classes_csv.exists() else None
    table, problems = read_voc(given.sources, out.parent, given.images, known, given.with_unannotated)
    for problem in problems:
        print(problem, file=sys.stderr)
    if annotations.objects(table).empty:
        raise ValueError(f"no box is left for {classes_csv}; {summary(problems)}: fix them, or name another --classes")
    classes = known or class_ids(table)
    if known is None:
        annotations.write_classes(classes, classes_csv)
    moved = annotations.write_annotations(table, out)
    boxes = annotations.objects(table)
    print(annotations.count_boxes(table, classes).to_string())
    print(
        f"{len(annotations.image_paths(table))} images, {len(boxes)} boxes ({moved} rounded to whole pixels): "
        f"{out}, {classes_csv}; {summary(problems)}"
    )
