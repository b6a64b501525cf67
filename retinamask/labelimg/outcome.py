"""After the window has closed: what changed, and ``annotations.csv`` and ``classes.csv`` rebuilt from the files.

Above `folder`. Nothing in an existing CSV is lost: rows of images that this session did not read are kept, and a CSV
that is replaced is copied first, to a name with the time.
"""

import shutil
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from retinamask.dataset import annotations, files
from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import FORMATS, Problem, class_ids, read_pairs
from retinamask.labelimg.folder import SUFFIXES, Session, read_class_lines, state


@dataclass(frozen=True)
class Changes:
    """The changes of a session: names of annotation files, of files in another format, and images deleted in it."""

    new: list[str]
    changed: list[str]
    deleted: list[str]
    other_format: list[str]
    images_gone: list[Path]


@dataclass(frozen=True)
class Rebuilt:
    """The present content of the two CSV files."""

    table: pd.DataFrame
    classes: dict[str, int]
    problems: list[Problem]
    kept: int  # images whose rows were kept from the old CSV
    backup: Path | None


def compare(session: Session, before: dict[str, str]) -> Changes:
    """Return what has changed since ``before``, an earlier `retinamask.labelimg.folder.state`."""
    after, suffix = state(session), SUFFIXES[session.port_format]
    touched = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    ours = [name for name in touched if name.endswith(suffix)]
    return Changes(
        new=[name for name in ours if name not in before],
        changed=[name for name in ours if name in before and name in after],
        deleted=[name for name in ours if name not in after],
        other_format=[name for name in touched if not name.endswith(suffix)],
        images_gone=[image for image in session.sizes_wh if not image.exists()],
    )


def rebuild(session: Session, known: dict[str, int], out: Path, classes_csv: Path, deleted: Container[str]) -> Rebuilt:
    """Read the session's annotation files and write those of the two CSV files that differ.

    Args:
        session: its images and annotation files.
        known: classes whose ids are kept; others are numbered after them.
        out: the CSV; rows of images for which no annotation file could be read now are kept. Removed, with its
            copy left, if no row remains.
        classes_csv: the class list.
        deleted: names of annotation files deleted in this session; the old rows of their images are dropped.

    Raises:
        AnnotationError: the existing CSV cannot be read.
    """
    read, problems = read_all(session.annotated(), session.image_folder, out.parent)
    dropped = {
        image for image in session.sizes_wh if not image.exists() or session.annotation_of(image).name in deleted
    }
    old = annotations.read_annotations(out) if out.exists() else make_table([])
    table, kept = _merged(old, read, out.parent, dropped)
    listed = read_class_lines(session.annotation_folder) if session.port_format == "yolo" else []
    classes = class_ids(table, [*known, *listed])
    backup = None
    if not table.equals(old):
        if out.exists():
            backup = out.with_name(f"{out.name}.{datetime.now():%Y%m%d-%H%M%S}.bak")
            with files.replacing(backup) as temporary:
                shutil.copy2(out, temporary)
        if table.empty:
            out.unlink()
        else:
            annotations.write_annotations(table, out)
    if classes and (classes != known or not classes_csv.exists()):
        annotations.write_classes(classes, classes_csv)
    return Rebuilt(table, classes, problems, kept, backup)


def read_all(
    pairs: Iterable[tuple[Path, Path]], image_folder: Path, csv_folder: Path
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read all annotation files of a session, given each with its image; see `read_pairs`."""
    pairs = sorted(pairs)
    if not pairs:
        return make_table([]), []
    try:
        form = FORMATS["voc" if pairs[0][0].suffix == ".xml" else "yolo"]
        return read_pairs(form, pairs, csv_folder, image_folder)
    except AnnotationError as error:  # not one of them could be used
        return make_table([]), [Problem("skipped file", str(pairs[0][0].parent), str(error))]


def _merged(old: pd.DataFrame, read: pd.DataFrame, folder: Path, dropped: set[Path]) -> tuple[pd.DataFrame, int]:
    """Join the old rows, less the images read or dropped, with the read ones, each image at its old place.

    Returns:
        The table, and how many images it has from the old one.
    """
    resolved = {path: (folder / path).resolve() for path in {*old["image_path"], *read["image_path"]}}
    replaced = {resolved[path] for path in read["image_path"]} | {path.resolve() for path in dropped}
    kept = old[~old["image_path"].map(resolved).isin(replaced)]
    both = [table for table in (kept, read) if not table.empty]
    if not both:
        return make_table([]), 0
    table = pd.concat(both, ignore_index=True)
    place = {path: number for number, path in enumerate(dict.fromkeys(map(resolved.get, old["image_path"])))}
    order = table["image_path"].map(lambda path: place.get(resolved[path], len(place)))
    table = table.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    return table, len(annotations.image_paths(kept))
