"""After the window has closed: what changed, and ``annotations.csv`` and ``classes.csv`` rebuilt from the files.

On top of the folder. Nothing of an existing CSV is lost: rows of images that this session did not read stay as they
are, and a CSV that is replaced is kept beside the new one under a name with the time.
"""

import itertools
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from retinamask.dataset import annotations, files
from retinamask.dataset.formats import Problem, class_ids
from retinamask.labelimg import port
from retinamask.labelimg.folder import Session, state


@dataclass(frozen=True)
class Changes:
    """Names of the annotation files that a session made, changed and deleted, and of files beside the format."""

    new: list[str]
    changed: list[str]
    deleted: list[str]
    other_format: list[str]


@dataclass(frozen=True)
class Rebuilt:
    """What the two CSV files hold now."""

    table: pd.DataFrame
    classes: dict[str, int]
    problems: list[Problem]
    new_classes: list[str]
    slips: list[list[str]]  # classes that differ in case or white space only
    kept: int  # images whose rows were taken over from the old CSV
    backup: Path | None


def compare(session: Session, before: dict[str, str]) -> Changes:
    """What has become different since ``before``, an earlier `retinamask.labelimg.folder.state`."""
    after, suffix = state(session), port.SUFFIXES[session.port_format]
    ours = {name for name in before.keys() | after.keys() if name.endswith(suffix) and name != port.CLASSES_TXT}
    touched = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return Changes(
        new=[name for name in touched if name in ours and name not in before],
        changed=[name for name in touched if name in ours and name in before and name in after],
        deleted=[name for name in touched if name in ours and name not in after],
        other_format=[name for name in touched if name not in ours and name != port.CLASSES_TXT],
    )


def rebuild(session: Session, known: dict[str, int], out: Path, classes_csv: Path, deleted: Iterable[str]) -> Rebuilt:
    """Read the session's annotation files and write both CSV files, if they differ from what is there.

    Args:
        session: its images and annotation files.
        known: classes whose ids stay; others are numbered after them.
        out: the CSV; rows of images for which no annotation file could be read now are taken over from it.
        classes_csv: the class list.
        deleted: names of annotation files deleted in this session; the old rows of their images go.

    Raises:
        AnnotationError: the CSV that is there cannot be read.
    """
    read, problems = port.read_all(session.annotated(), session.image_folder, out.parent)
    gone = {session.annotation_of(image): image for image in session.sizes_wh}
    dropped = {gone[path] for path in (session.annotation_folder / name for name in deleted) if path in gone}
    dropped |= {image for image in session.sizes_wh if not image.exists()}
    old = annotations.read_annotations(out) if out.exists() else annotations.make_table([])
    table, kept = _merged(old, read, out.parent, dropped)
    classes = _with_new_classes(known, session, table)
    backup = None
    if not table.empty:
        backup = _write_if_changed(table, out)
    if classes and (not classes_csv.exists() or annotations.read_classes(classes_csv) != classes):
        annotations.write_classes(classes, classes_csv)
    return Rebuilt(
        table, classes, problems, [name for name in classes if name not in known], slips(classes), kept, backup
    )


def slips(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are the same but for case and white space: most likely one class, mistyped."""
    groups = defaultdict(list)
    for name in names:
        groups["".join(name.split()).casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _merged(old: pd.DataFrame, read: pd.DataFrame, folder: Path, dropped: set[Path]) -> tuple[pd.DataFrame, int]:
    """Old rows but for the images that were read or dropped, and the read ones, each image at its old place.

    Returns:
        The table, and how many images it has from the old one.
    """
    resolved = {path: (folder / path).resolve() for path in {*old["image_path"], *read["image_path"]}}
    replaced = {resolved[path] for path in read["image_path"]} | {path.resolve() for path in dropped}
    kept = old[~old["image_path"].map(resolved).isin(replaced)]
    place = {path: number for number, path in enumerate(dict.fromkeys(map(resolved.get, old["image_path"])))}
    both = [table for table in (kept, read) if not table.empty]
    if not both:
        return annotations.make_table([]), 0
    table = pd.concat(both, ignore_index=True)
    order = table["image_path"].map(lambda path: place.get(resolved[path], len(place)))
    table = table.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    return table, len(annotations.image_paths(kept))


def _with_new_classes(known: dict[str, int], session: Session, table: pd.DataFrame) -> dict[str, int]:
    """The known classes with their ids, then new ones: YOLO's in the order of its own list, else as they appear."""
    names = list(known)
    if session.port_format == "yolo":
        names += port.read_class_lines(session.annotation_folder)
    names += class_ids(table)
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _write_if_changed(table: pd.DataFrame, out: Path) -> Path | None:
    """Write the table; an existing file with other content is copied first, and the copy's path returned."""
    if not out.exists():
        annotations.write_annotations(table, out)
        return None
    with tempfile.TemporaryDirectory() as folder:
        annotations.write_annotations(table, Path(folder) / out.name)
        if (Path(folder) / out.name).read_bytes() == out.read_bytes():
            return None
    backup = _free_name(out)
    with files.replacing(backup) as temporary:
        shutil.copy2(out, temporary)
    annotations.write_annotations(table, out)
    return backup


def _free_name(out: Path) -> Path:
    """``annotations.csv.20260131-235959.bak``, with a number where that is taken."""
    stem = f"{out.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = itertools.chain([f"{stem}.bak"], (f"{stem}-{number}.bak" for number in itertools.count(2)))
    return next(path for path in (out.with_name(name) for name in names) if not path.exists())
