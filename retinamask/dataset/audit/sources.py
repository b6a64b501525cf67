"""What is to be audited: an annotation CSV, or a folder of annotations whose problems become findings.

Above the formats; the checks see only the table that comes out of here.
"""

import os
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
from retinamask.dataset.formats import Problem, class_ids
from retinamask.dataset.image_files import walk


@dataclass(frozen=True)
class Source:
    """A data set to audit.

    Attributes:
        name: what was given, for headings.
        table: the annotations.
        folder: what the table's image paths are relative to.
        classes: name to id.
        unannotated: images of a folder that are not in the table; they are looked at as well.
        problems: what was wrong with the annotation files.
        splits: the image paths of each split.
    """

    name: str
    table: pd.DataFrame
    folder: Path
    classes: dict[str, int]
    unannotated: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, set[str]] = field(default_factory=dict)

    @property
    def written_sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height in an annotation, by image path, where they are not the upright image's."""
        return {problem.image_path: problem.written_wh for problem in self.problems if problem.written_wh}

    def all_images(self) -> list[str]:
        """Each image once: those of the table, those without XML, those that only a split names."""
        own = dict.fromkeys([*image_paths(self.table), *self.unannotated])
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
        table, problems = formats.read(format_name, [source], source, image_folder)
        classes = formats.classes_of(format_name, [source], table) if classes is None else classes
        known = set(image_paths(table))
        paths = [relative_path(path, source) for path in walk(image_folder or source).images()]
        read = Source(str(source), table, source, classes, [path for path in paths if path not in known], problems)
        return _with_splits(read, splits, None)
    table = read_annotations(source)
    folder = Path(image_folder or source.parent)
    classes = class_ids(table) if classes is None else classes
    return _with_splits(Source(str(source), table, folder, classes), splits, image_folder)


def problem_findings(source: Source) -> list[Finding]:
    """What was wrong with the annotation files, by what was done about it."""
    findings = []
    for action, (name, severity, unit, message) in _ACTIONS.items():
        cases = [_case(problem, source) for problem in source.problems if problem.action == action]
        findings += found(name, severity, unit, message, cases)
    notes = [problem for problem in source.problems if problem.action == "note" and not problem.written_wh]
    unsized = [_case(problem, source) for problem in notes if "no <size>" in problem.message]
    findings += found("XML without a size", "note", "files", _UNSIZED, unsized)
    others = [_case(problem, source) for problem in notes if not _IN_CHECKS.search(problem.message)]
    findings += found("remark on an annotation", "note", "remarks", _REMARK, others)
    known = {problem.image_path for problem in source.problems}
    lonely = [Example((path,)) for path in source.unannotated if path not in known]
    findings += found("image without annotation", "note", "images", _LONELY, lonely)
    return findings


_ACTIONS = {
    "skipped file": ("unusable annotation file", "error", "files",
                     "Left out, with its image: see each for the reason. Mend the file or draw its boxes again."),
    "dropped box": ("unusable box", "error", "boxes", "Left out: see each for the reason. Draw it again."),
    "clipped box": ("box past the edge", "warning", "boxes", "A few pixels over, as drawn by hand; cut at the edge."),
}  # fmt: skip
_UNSIZED = "The image's own size is used."
# what other checks find by themselves
_IN_CHECKS = re.compile("no <size>|is turned by EXIF|without .* left out|differ only in case")
_REMARK = "What reading the files had to say."
_LONELY = "They are looked at, but not trained on. Annotate them, or take them away."


def _with_splits(source: Source, splits: Iterable[str | Path], image_folder: str | Path | None) -> Source:
    """The source with its splits, their paths written as in the table."""
    own = {_place(source.folder, path): path for path in [*image_paths(source.table), *source.unannotated]}
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
    image = [problem.image_path] if problem.image_path else []
    detail = f"{line}: {problem.message}" if line else problem.message
    return Example((relative_path(file, source.folder), *image), detail)


def _file_and_line(problem: Problem) -> tuple[str, str]:
    """Where a problem is: the file, and ``line N`` or nothing."""
    match = re.fullmatch(r"(.*?)(?: (line \d+))?", problem.where, flags=re.DOTALL)
    return match[1], match[2] or ""
