"""Detect in many images so that a kill costs little: parts on the disk while it runs, one CSV when it has finished.

Above `detect`. ``OUT.parts`` beside the CSV holds what makes the run (``run.json``) and a part for every 64 images,
each whole or absent. Memory holds one part, however many images there are.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinamask.dataset import files
from retinamask.dataset.annotations import DETECTION_COLUMNS, AnnotationError, detections_text, make_table, objects
from retinamask.inference.detect import Seen, look_at, table_rows
from retinamask.progress import track

PART = 64  # images; fixed, since a part is known by its first image


@dataclass
class Found:
    """What a run found.

    Attributes:
        faces: how many of each class.
        without: images without a face.
        unreadable: messages.
        best_score: the highest score of all images, also below the threshold.
    """

    faces: Counter[str] = field(default_factory=Counter)
    without: int = 0
    unreadable: list[str] = field(default_factory=list)
    best_score: float = 0.0


def parts_of(out: Path, run: dict[str, Any], resume: bool, force: bool) -> Path:
    """The folder of the parts, checked before the work; nothing is written yet.

    Args:
        out: the CSV to be.
        run: what decides what is found, as plain JSON values.
        resume: take over the parts of a run that was stopped.
        force: begin anew where parts lie.

    Raises:
        ValueError: there are parts, and they are of another run or not to be taken over.
    """
    folder = out.with_name(f"{out.name}.parts")
    if not _parts(folder) or (force and not resume):
        return folder
    if not resume:
        raise ValueError(f"{folder} holds parts of a run that was stopped; add --resume, or begin anew with --force")
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    other = [f"{name} was {before.get(name)}, now {value}" for name, value in run.items() if before.get(name) != value]
    if other:
        raise ValueError(f"{folder} is of another run: {'; '.join(other)}. Give what it had, or leave out --resume")
    return folder


def detect_in_parts(
    predictor, paths: list[str], folder: Path, parts: Path, run: dict[str, Any], resume: bool, **options: Any
) -> Iterator[Seen]:
    """Yield what is seen in each image that no part has yet; a part is written when its images have been dealt with.

    Args:
        predictor, paths, folder, options: as `retinamask.inference.detect.look_at` takes them.
        parts, run, resume: as for `parts_of`.
    """
    if not resume:
        shutil.rmtree(parts, ignore_errors=True)
    files.write_json(parts / "run.json", run)
    first = {start: parts / f"part-{start:09}.json" for start in range(0, len(paths), PART)}
    done = sum(len(paths[start : start + PART]) for start, part in first.items() if part.exists())

    def seen_in_parts() -> Iterator[Seen]:
        for start, part in first.items():
            if part.exists():
                continue
            rows, unreadable, best_score = [], [], 0.0
            for seen in look_at(predictor, paths[start : start + PART], folder, **options):
                yield seen
                if seen.problem:
                    unreadable.append(seen.problem)
                else:
                    rows += table_rows(seen.path, seen.detections, predictor.class_names)
                    best_score = max(best_score, seen.detections.best_score)
            table = make_table(rows, DETECTION_COLUMNS)
            counts = {"faces": objects(table)["class_name"].value_counts().to_dict()}
            counts |= {"without": int(table["x1"].isna().sum()), "unreadable": unreadable, "best_score": best_score}
            files.write_json(part, {**counts, "csv": detections_text(table)})

    yield from track(seen_in_parts(), "detecting", "image", len(paths), done)


def join_parts(parts: Path, out: Path) -> Found:
    """Make the CSV of all parts and remove them.

    Raises:
        AnnotationError: not a single image could be read; there is no CSV then.
    """
    found = Found()
    with files.replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for part in _parts(parts):
            record = json.loads(part.read_text(encoding="utf-8"))
            file.write(record["csv"])
            found.faces.update(record["faces"])
            found.without += record["without"]
            found.unreadable += record["unreadable"]
            found.best_score = max(found.best_score, record["best_score"])
        if not found.faces and not found.without:
            shutil.rmtree(parts)
            count = len(found.unreadable)
            raise AnnotationError(f"none of the {count} image(s) can be read, such as: {found.unreadable[0]}")
    shutil.rmtree(parts)
    return found


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.json"))
