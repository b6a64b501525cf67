"""The command that splits a table so that no picture is on two sides."""

import sys

from retinamask.commands.parsing import add_command


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
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
