"""Commands on images and annotations.

Each command calls the functions that the notebooks call. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import sys
from pathlib import Path

from retinamask.commands.parsing import add_command
from retinamask.dataset.files import refuse_existing


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    sample = add_command(subparsers, "sample", sample_command, "Draw a sample data set with labelImg XML.")
    sample.add_argument("--out", required=True, help="new folder for images/ and annotations/")
    sample.add_argument("--images", type=int, default=48, help="how many scenes")
    sample.add_argument("--size", type=int, default=256, help="side of a scene in pixels")
    sample.add_argument("--seed", type=int, default=0, help="the same seed draws the same scenes")

    text = "Read annotations of any known format into annotations.csv and classes.csv, checked."
    table = add_command(subparsers, "annotations", annotations_command, text)
    table.add_argument("sources", nargs="+", metavar="SRC", help="folders with annotations, or annotation files")
    table.add_argument("--out", default="annotations.csv", help="the CSV to write; image paths are relative to it")
    table.add_argument(
        "--classes", help="class list: read if it exists, else written; classes.csv beside the CSV if left out"
    )
    table.add_argument("--images", help="folder of the images, if they are not where the annotations say")
    table.add_argument(
        "--with-unannotated", action="store_true", help="take images without annotation as without faces"
    )
    table.add_argument("--force", action="store_true", help="replace an existing CSV")
    _add_reading(table)

    text = "Convert annotations of one format to another, into a new folder."
    convert = add_command(subparsers, "convert-annotations", convert_annotations_command, text)
    convert.add_argument("source", metavar="SRC", help="a folder with annotations, or an annotation file")
    convert.add_argument("folder", metavar="DST", help="a new or empty folder")
    convert.add_argument("--to", required=True, dest="target", help="voc, yolo, coco, createml or csv")
    convert.add_argument("--classes", help="class list whose order counts; without it, the order in SRC")
    convert.add_argument("--images-dir", help="folder of the images, if they are not where the annotations say")
    text = "where the images go that YOLO wants beside its labels: link, copy or none"
    convert.add_argument("--yolo-images", default="link", help=text)
    convert.add_argument("--with-unannotated", action="store_true", help="take images without annotation too")
    _add_reading(convert)


def _add_reading(command) -> None:
    """Declare the options of both commands that read annotations."""
    text = "voc, yolo, coco, createml, csv, open_images, cvat, labelme, via, vott or class_folders"
    command.add_argument("--from", dest="format", help=f"{text}; without it, told by the files")
    text = "rename or join classes: with_mask=mask,without_mask=no_mask; names not in it stay"
    command.add_argument("--class-map", help=text)


def sample_command(given) -> None:
    from retinamask.dataset.sample import draw_sample

    paths = draw_sample(given.out, given.images, given.size, given.seed)
    print(f"{len(paths)} scenes and their labelImg XML files are in {given.out}")


def annotations_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.formats import summary

    out = Path(given.out)
    classes_csv = Path(given.classes) if given.classes else out.with_name("classes.csv")
    refuse_existing(out, given.force)
    if out.resolve() == classes_csv.resolve():
        raise ValueError(f"--out and --classes are both {out}; give two names")
    known = annotations.read_classes(classes_csv) if classes_csv.exists() else None
    if known:
        print(f"classes as listed in {classes_csv}: {', '.join(known)}")
    table, classes, problems = _read(given, given.sources, out.parent, given.images, known)
    if annotations.objects(table).empty:
        raise ValueError(f"no box is left for {classes_csv}; {summary(problems)}: fix them, or name another --classes")
    moved = annotations.write_annotations(table, out)
    if known is None:
        annotations.write_classes(classes, classes_csv)
    boxes = annotations.objects(table)
    print(annotations.count_boxes(table, classes).to_string())
    print(
        f"{_images(table)}, {len(boxes)} boxes ({moved} rounded to whole pixels): "
        f"{out}, {classes_csv}; {summary(problems)}"
    )


def convert_annotations_command(given) -> None:
    from retinamask.dataset import annotations, formats

    known = annotations.read_classes(given.classes) if given.classes else None
    options = {"images": given.yolo_images} if given.target == "yolo" else {}
    table, classes, problems = _read(given, [given.source], given.folder, given.images_dir, known)
    formats.write(given.target, table, classes, given.folder, given.folder, **options)
    print(annotations.count_boxes(table, classes).to_string())
    print(
        f"{_images(table)}, {len(annotations.objects(table))} boxes as {given.target}: "
        f"{given.folder}; {formats.summary(problems)}"
    )


def _images(table) -> str:
    without = int(table["x1"].isna().sum())
    images = table["image_path"].nunique()
    return f"{images} image{'s' * (images != 1)}" + f" ({without} of them without a box)" * bool(without)


def _read(given, sources: list[str], csv_folder, image_folder, known: dict[str, int] | None) -> tuple:
    """The table, its classes, and the problems, which are printed."""
    from retinamask.dataset import formats

    class_map = formats.parse_class_map(given.class_map) if given.class_map else None
    table, classes, problems = formats.read_mapped(
        sources, csv_folder, image_folder, known, given.with_unannotated, given.format, class_map
    )
    for problem in problems:
        print(problem, file=sys.stderr)
    return table, classes, problems
