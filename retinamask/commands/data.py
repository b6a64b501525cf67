"""Commands on data sets: draw, fetch, read, convert, audit and split them."""

import sys
from pathlib import Path

from retinamask.commands import add_command
from retinamask.dataset.files import refuse_existing

_OTHERS = (
    "Open Images, Roboflow and VisualData give their sets as archives in known formats. Unpack one and run: "
    "retinamask annotations FOLDER --from coco|yolo|voc|open_images"
)
_SHOWN_PROBLEMS = 20


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
    text = "class list: read if it exists, else written; classes.csv beside the CSV if left out"
    table.add_argument("--classes", help=text)
    table.add_argument("--images", help="folder of the images, if they are not where the annotations say")
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
    _add_reading(convert)

    text = "Fetch a public data set by name, verified, as annotations.csv and classes.csv; or a face detector's files."
    fetch = add_command(subparsers, "fetch", fetch_command, text)
    fetch.epilog = _OTHERS
    fetch.add_argument("name", nargs="?", metavar="NAME", help="one of --list")
    text = "it comes into FOLDER/NAME/ (default: data for data sets, ~/.cache/retinamask for face detectors)"
    fetch.add_argument("--folder", help=text)
    text = "an archive, or an unpacked folder, or the files of a face detector, that you fetched by hand"
    fetch.add_argument("--from", dest="source", metavar="FILE_OR_FOLDER", help=text)
    fetch.add_argument("--list", action="store_true", help="list what there is")
    _add_checking(subparsers)


def _add_checking(subparsers) -> None:
    """Declare the commands on a table that is there: audit and split."""
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

    text = "Split annotations.csv into train, val and test files beside it, with copies of a picture kept together."
    split = add_command(subparsers, "split", split_command, text)
    split.add_argument("annotations", help="the CSV; a split that lies beside it keeps its images")
    split.add_argument("--classes", help="classes.csv, if every class of the table should be one of it")
    split.add_argument("--val", type=float, default=0.15, help="share of the images for validation, 0 to 1")
    split.add_argument("--test", type=float, default=0.15, help="share of the images for the final test, 0 to 1")
    split.add_argument("--seed", type=int, default=0, help="another one deals otherwise")
    split.add_argument("--folds", type=int, default=0, help="so many splits of what is not test, instead of --val")
    group_by = "regular expression with one group: images where it captures the same of the path stay together"
    split.add_argument("--group-by", default="", metavar="PATTERN", help=group_by)
    split.add_argument("--forget-gone", action="store_true", help="give up the sides of images that left the table")
    split.add_argument("--force", action="store_true", help="forget the split that is there and replace it")


def _add_reading(command) -> None:
    """Declare the options of both commands that read annotations."""
    text = "voc, yolo, coco, createml, csv, open_images, cvat, labelme, via, vott or class_folders"
    command.add_argument("--from", dest="format", help=f"{text}; without it, told by the files")
    text = "take images without annotation as without faces"
    command.add_argument("--with-unannotated", action="store_true", help=text)
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
    formats.write_format(table, classes, given.target, given.folder, given.folder, **options)
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

    options = given.class_map, image_folder, given.with_unannotated, given.format
    table, classes, problems = formats.read_annotations(sources, csv_folder, known or {}, *options)
    for problem in problems:
        print(problem, file=sys.stderr)
    return table, classes, problems


def audit_command(given) -> None:
    from retinamask.dataset import files
    from retinamask.evaluation.audit import audit

    for path, option in ((given.json, "--json"), (given.html, "--html")):
        if path:
            refuse_existing(Path(path), given.force, option)
    settings = {"image_size": given.image_size, "tiny_side": given.tiny}
    settings |= {} if given.max_pixels is None else {"max_pixels": given.max_pixels}
    found = audit(given.source, given.classes, given.images, given.splits, **settings)
    _print_findings(found)
    if given.json:
        files.write_json(given.json, found.record())
        print(f"written: {given.json}")
    if given.html:
        print(f"written: {found.write_page(given.html)}")


def _print_findings(found) -> None:
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


def split_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.split_files import SplitSettings, split_beside

    classes = annotations.read_classes(given.classes) if given.classes else None
    table = annotations.read_annotations(given.annotations, classes)
    settings = SplitSettings(
        given.val, given.test, given.seed, given.folds, given.group_by, given.force, given.forget_gone
    )
    made = split_beside(given.annotations, table, settings)
    for problem in [*made.groups.unreadable, *made.rejoined]:
        print(problem, file=sys.stderr)
    print(_sizes(made.tables, classes or sorted(annotations.objects(table)["class_name"].unique())).to_string())
    print("\n".join(_sentences(made, settings)))


def _sizes(tables, classes):
    """Images and boxes by class (columns) of each side (rows)."""
    import pandas as pd

    from retinamask.dataset.annotations import image_paths, objects

    rows = {
        name: {"images": len(image_paths(part)), **objects(part)["class_name"].value_counts().reindex(classes)}
        for name, part in tables.items()
    }
    return pd.DataFrame(rows).T.fillna(0).astype(int)


def _sentences(made, settings) -> list[str]:
    """Report what the user should know, one sentence per line."""
    from retinamask.dataset.annotations import image_paths
    from retinamask.dataset.split_files import copies_found

    count, held, exact = copies_found(made.groups)
    groups = made.groups.numbers.max() + 1
    pictures = made.groups.of_copies().max() + 1
    said = [
        f"{len(made.groups.paths)} images show {pictures} different pictures: {count} groups of copies hold {held} "
        f"images, and {exact} files are copies byte for byte"
    ]
    if settings.group_by:
        said.append(f"{groups} groups with --group-by; {made.groups.unmatched} images do not match it")
    if made.groups.unreadable:
        said.append(f"{len(made.groups.unreadable)} images cannot be read and were not compared")
    if made.kept:
        said.append(f"{made.kept - len(made.rejoined)} images stay where they were, {len(made.rejoined)} changed side")
        said.append("a split was there: shares and seed count for new images only; --force deals all of them anew")
    if made.gone:
        said.append(f"{len(made.gone)} images are no longer in the table, such as {made.gone[0]}")
    mean = sum(made.leaked) / len(made.leaked)
    said.append(
        f"a random split of single images would have copies in train of {made.leaked[0]} images of test with this "
        f"seed, of {mean:.1f} on average over {len(made.leaked)} seeds; this one has none "
        f"(test: {len(image_paths(made.tables['test']))} images)"
    )
    return [*said, "written: " + ", ".join(map(str, made.files))]


def fetch_command(given) -> None:
    from retinamask.dataset.public.catalogue import DATA_SETS, FACE_MODELS, described
    from retinamask.dataset.public.fetch import fetch, fetch_model

    if given.list:
        print("\n\n".join([*map(described, [*DATA_SETS, *FACE_MODELS]), _OTHERS]))
        return
    names = f"{', '.join(DATA_SETS)}; or a face detector: {', '.join(FACE_MODELS)}"
    if given.name is None:
        raise ValueError(f"which data set? Give its name, one of: {names}")
    if given.name in FACE_MODELS:
        paths = fetch_model(given.name, given.folder, given.source)
        print(f"verified by SHA-256: {', '.join(map(str, paths))}")
        print(f"licence: {FACE_MODELS[given.name].licence}")
        return
    if given.name not in DATA_SETS:
        raise ValueError(f"no public data set is called {given.name!r}; there are: {names}")
    fetched = fetch(given.name, given.folder or "data", given.source)
    _report(fetched, DATA_SETS[given.name])


def _report(fetched, entry) -> None:
    """Print counts, licence and what is not as expected."""
    for problem in fetched.problems[:_SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(fetched.problems) > _SHOWN_PROBLEMS:
        print(f"... {len(fetched.problems)} in all, listed in {fetched.folder / 'source.json'}", file=sys.stderr)
    for difference in fetched.differences:
        print(f"not as expected: {difference}", file=sys.stderr)
    counts = ", ".join(f"{count:,} {name}" for name, count in fetched.boxes.items())
    print(f"{fetched.images:,} images, {sum(fetched.boxes.values()):,} boxes ({counts})")
    if fetched.sha256:
        verified = "as expected" if entry.sha256 == fetched.sha256 else "none is known to compare it with"
        print(f"SHA-256 of the archive: {fetched.sha256} ({verified})")
    if fetched.archive:
        print(f"The archive is kept as {fetched.archive}; delete it if you like")
    print(f"licence: {entry.licence}\ncite: {entry.citation}")
    where = f"{fetched.folder / 'annotations.csv'}, {fetched.folder / 'classes.csv'}"
    print(f"{'It was there already' if fetched.was_there else 'Done'}: {where}")
