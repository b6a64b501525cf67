"""What is to be audited: an annotation CSV, or a folder of annotations whose problems become findings.

Above the formats; the checks see only the table that comes out of here.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from retinamask.dataset import formats
from retinamask.dataset.annotations import (
    AnnotationError,
    image_paths,
    moved,
    read_annotations,
    read_classes,
    relative_path,
)
from retinamask.dataset.audit.findings import Example, Finding, found
from retinamask.dataset.formats import Problem, class_ids, read_voc, voc_xml
from retinamask.dataset.formats.image_files import ImageIndex


@dataclass(frozen=True)
class Source:
    """A data set to audit.

    Attributes:
        name: what was given, for headings.
        table: the annotations.
        folder: what the table's image paths are relative to.
        classes: name to id.
        without_xml: images of a folder that no XML is about, or none that could be used; they are looked at as well.
        written_sizes: width and height in an XML, by image path, where they are not the upright image's.
        problems: what was wrong with the annotation files.
        problem_images: the image of an annotation file that has problems, by that file's path, where it is known.
        splits: the image paths of each split.
        notes: what reading a format other than XML has to tell, and no check finds by itself.
    """

    name: str
    table: pd.DataFrame
    folder: Path
    classes: dict[str, int]
    without_xml: list[str] = field(default_factory=list)
    written_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_images: dict[str, str] = field(default_factory=dict)
    splits: dict[str, set[str]] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)

    def all_images(self) -> list[str]:
        """Each image once: those of the table, those without XML, those that only a split names."""
        own = dict.fromkeys([*image_paths(self.table), *self.without_xml])
        return list(own | dict.fromkeys(sorted(set().union(*self.splits.values()))))


def read_source(
    source: str | Path,
    classes_csv: str | Path | None = None,
    image_folder: str | Path | None = None,
    splits: Iterable[str | Path] = (),
) -> Source:
    """Read what is to be audited.

    Args:
        source: an annotation CSV, or a folder tree with labelImg XML or of another format that `formats.guess` knows.
        classes_csv: the class list; without it ``classes.csv`` beside the CSV or in the folder, else the classes
            as they appear.
        image_folder: where the images are: what a CSV's paths are relative to, if not its own folder; for XML the
            folder tree to search, if not the same.
        splits: CSVs of the splits; each is named by its file, such as ``train``.

    Raises:
        AnnotationError: there is nothing to read, or a CSV that cannot be read.
    """
    source = Path(source)
    if not source.exists():
        raise AnnotationError(f"{source} does not exist; expected an annotation CSV or a folder of annotations")
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    class_list = Path(classes_csv) if classes_csv else (source if source.is_dir() else source.parent) / "classes.csv"
    classes = read_classes(class_list) if classes_csv or class_list.is_file() else None
    if source.is_dir():
        format_name = formats.guess([source])
        if format_name == "voc":
            return _from_xml(source, classes, image_folder, splits)
        table, problems = formats.read(format_name, [source], source, image_folder)
        classes = formats.classes_of(format_name, [source], table) if classes is None else classes
        lonely = _not_in(table, ImageIndex([Path(image_folder or source)]), source)
        notes = [problem for problem in problems if problem.action == "note"]
        read = Source(str(source), table, source, classes, lonely, problems=problems, notes=notes)
        return _with_splits(read, splits, None)
    table = _one_name_each(read_annotations(source))
    folder = Path(image_folder or source.parent)
    classes = class_ids(table) if classes is None else classes
    return _with_splits(Source(str(source), table, folder, classes), splits, image_folder)


def problem_findings(source: Source) -> list[Finding]:
    """What was wrong with the annotation files, by what was done about it."""
    findings = []
    for action, (name, severity, unit, message) in _ACTIONS.items():
        cases = [_case(problem, source) for problem in source.problems if problem.action == action]
        findings += found(name, severity, unit, message, cases)
    unsized = [_case(p, source) for p in source.problems if p.action == "note" and "no <size>" in p.message]
    findings += found("XML without a size", "note", "files", _UNSIZED, unsized)
    findings += found("remark on an annotation", "note", "remarks", _REMARK, [_case(p, source) for p in source.notes])
    known = set(source.problem_images.values())
    lonely = [Example((path,)) for path in source.without_xml if path not in known]
    findings += found("image without annotation", "note", "images", _LONELY, lonely)
    return findings


_ACTIONS = {
    "skipped file": ("unusable annotation file", "error", "files",
                     "Left out, with its image: see each for the reason. Mend the file or draw its boxes again."),
    "dropped box": ("unusable box", "error", "boxes", "Left out: see each for the reason. Draw it again."),
    "clipped box": ("box past the edge", "warning", "boxes", "A few pixels over, as drawn by hand; cut at the edge."),
}  # fmt: skip
_UNSIZED = "The image's own size is used."
_REMARK = "What reading the files had to say."
_LONELY = "They are looked at, but not trained on. Annotate them, or take them away."


def _from_xml(
    source: Path, classes: dict[str, int] | None, image_folder: str | Path | None, splits: Iterable[str | Path]
) -> Source:
    table, problems = read_voc([source], source, image_folder)
    index = ImageIndex([Path(image_folder or source)])
    others = _not_in(table, index, source)
    classes = class_ids(table) if classes is None else classes
    sizes, problem_images = _reread(problems, index, source)
    read = Source(str(source), table, source, classes, others, sizes, problems, problem_images)
    return _with_splits(read, splits, None)


def _not_in(table: pd.DataFrame, index: ImageIndex, folder: Path) -> list[str]:
    """The images that lie there and that the table does not name."""
    others = dict.fromkeys(relative_path(path, folder) for path in index.all())
    for path in image_paths(table):
        others.pop(path, None)
    return list(others)


def _one_name_each(table: pd.DataFrame) -> pd.DataFrame:
    """The table with image paths without ``./`` and the like: one image must not count as two."""
    return table.assign(image_path=table["image_path"].map(posixpath.normpath).astype(object))


def _reread(
    problems: list[Problem], index: ImageIndex, folder: Path
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """The sizes in those XML files that there was something to say about, and the image of each of them."""
    sizes, images = {}, {}
    noted = {problem.where for problem in problems if problem.action == "note"}
    for where in dict.fromkeys(_file_and_line(problem)[0] for problem in problems):
        if not Path(where).is_file():
            continue
        try:
            voc = voc_xml.parse(Path(where))
            images[where] = relative_path(index.find(Path(where), voc.filename), folder)
        except ValueError:  # this is what its problem says; the image may bear the same name
            for image_path in index.candidates(Path(where), "")[:1]:
                images[where] = relative_path(image_path, folder)
            continue
        if voc.size_wh and where in noted:
            sizes[images[where]] = voc.size_wh
    return sizes, images


def _with_splits(source: Source, splits: Iterable[str | Path], image_folder: str | Path | None) -> Source:
    """The source with its splits, their paths written as in the table."""
    own = {_place(source.folder, path): path for path in [*image_paths(source.table), *source.without_xml]}
    members: dict[str, set[str]] = {}
    for split in map(Path, splits):
        folder = Path(image_folder or split.parent)
        paths = image_paths(moved(read_annotations(split), folder, source.folder))
        name = split.stem if split.stem not in members else str(split)
        members[name] = {own.get(_place(source.folder, path), path) for path in paths}
    return replace(source, splits=members)


def _place(folder: Path, path: str) -> str:
    return os.path.abspath(folder / path)


def _case(problem: Problem, source: Source) -> Example:
    """A problem as an example of the annotation file and, if known, its image; the line goes with the text."""
    file, line = _file_and_line(problem)
    image = [source.problem_images[file]] if file in source.problem_images else []
    return Example(
        (relative_path(file, source.folder), *image), f"{line}: {problem.message}" if line else problem.message
    )


def _file_and_line(problem: Problem) -> tuple[str, str]:
    """Where a problem is: the file, and ``line N`` or nothing."""
    match = re.fullmatch(r"(.*?)(?: (line \d+))?", problem.where, flags=re.DOTALL)
    return match[1], match[2] or ""
