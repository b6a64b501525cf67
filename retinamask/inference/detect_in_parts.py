"""Detect in many images so that a kill costs little: parts on the disk while it runs, one file when it has finished.

``OUT.parts`` beside the file holds what makes the run (``run.json``) and a part for every 64 images, each whole or
absent. Memory holds one part, however many images there are.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import (
    BOX_COLUMNS,
    DETECTION_COLUMNS,
    AnnotationError,
    make_table,
    objects,
    relative_path,
    write_detections,
)
from retinamask.drawing.anonymise import anonymise
from retinamask.inference.detect import check_options, look_at, table_rows
from retinamask.progress import track

PART = 64  # images; fixed, since a part is known by its first image
_AT_ONCE = 64  # parts that become one table, and in Parquet one group of rows


@dataclass
class Found:
    """The sums of a run: faces of each class, images without one, messages, and the highest score, however low.

    ``thin`` counts the boxes of less than a pixel, which no annotation format can hold.
    """

    faces: Counter[str]
    without: int = 0
    unreadable: list[str] = field(default_factory=list)
    best_score: float = 0.0
    thin: int = 0


def detect_in_parts(
    load: Callable[[], Any],
    paths: Sequence[str],
    out: Path,
    run: Mapping[str, Any],
    drawn: Mapping[str, Path],
    resume: bool = False,
    force: bool = False,
    to: str | None = None,
    **options: Any,
) -> Found | None:
    """Detect in images and write the detections; what a stopped run has done is kept in ``OUT.parts``.

    What made a finished file is kept in ``.OUT.run.json`` beside it.

    Args:
        load: gives the predictor, or the `Workers` of a cluster; called when what can be wrong has been checked.
        paths: images relative to the folder of ``out``.
        out: the file to write, see `write_detections`, or with ``to`` a new folder; its own folder is made.
        run: what else decides the result, such as the weights, as plain JSON values.
        drawn: for each image where to save it with its boxes drawn, from `drawn_paths`; empty for nowhere.
        to: write an annotation format, one of `retinamask.dataset.formats.FORMATS`, of which memory holds all boxes.
        resume: take over the parts of the same run, or the finished file.
        force: begin anew where parts or drawn images lie.
        options: of `write_here`.

    Returns:
        The sums; ``None`` if ``resume`` finds that the same run has finished.

    Raises:
        ValueError: there are parts, and they are of another run or not to be taken over; a drawn image exists.
        AnnotationError: not a single image could be read; nothing is written then.
    """
    parts, finished = out.with_name(f"{out.name}.parts"), finished_run(out)
    run = {**run, **{name: options[name] for name in ("score_threshold", "suppress")}, "to": to}
    run |= {"images": len(paths), "images_sha256": hashlib.sha256("\n".join(paths).encode()).hexdigest()}
    done_before = resume and out.exists() and finished.exists()
    if done_before or (any(parts.glob("part-*")) and not (force and not resume)):
        if not resume:
            raise ValueError(f"{parts} holds parts of a run that was stopped; add --resume, or begin anew with --force")
        before = json.loads((finished if done_before else parts / "run.json").read_text(encoding="utf-8"))
        names = [name for name in {**run, **before} if before.get(name) != run.get(name)]
        if other := [f"{name} was {before.get(name)}, now {run.get(name)}" for name in names]:
            found = f"{out if done_before else parts} is of another run: {'; '.join(other)}"
            raise ValueError(f"{found}. Give what it had, or leave out --resume")
    if done_before:
        shutil.rmtree(parts, ignore_errors=True)  # killed while it did this itself
        return None
    if not (resume and (parts / "run.json").exists()):
        for path in drawn.values():
            files.refuse_existing(path, force, "--save-images")
    check_options(options["score_threshold"], options["batch_size"])
    out.parent.mkdir(parents=True, exist_ok=True)
    predictor = load()
    if to:  # imported here, as all that most runs do not need and that takes time
        from retinamask.dataset.formats.writing import check_names

        check_names(predictor.class_names, paths)
    finished.unlink(missing_ok=True)
    if not resume:
        shutil.rmtree(parts, ignore_errors=True)
    files.write_json(parts / "run.json", run)
    there = {part.name for part in parts.glob("part-*")}
    names = [f"part-{start:09}.parquet" for start in range(0, len(paths), PART)]
    missing = {parts / name: paths[PART * n :][:PART] for n, name in enumerate(names) if name not in there}
    done = len(paths) - sum(map(len, missing.values()))
    write_parts = getattr(predictor, "write_parts", partial(write_here, predictor))
    written = write_parts(missing, out.parent, drawn, options)
    for _ in track(written, "detecting", "image", len(paths), done, count=int):
        pass
    return _joined([parts / name for name in names], out, to, predictor.class_names)


def finished_run(out: Path) -> Path:
    """Name the file that says what made a finished ``out``; hidden, so that nothing takes it for annotations."""
    return out.with_name(f".{out.name}.run.json")


def write_here(
    predictor: Any,
    missing: Mapping[Path, Sequence[str]],
    folder: Path,
    drawn: Mapping[str, Path],
    options: Mapping[str, Any],
) -> Iterator[int]:
    """Detect in the images of each part and write it; yield 1 for each image that has been dealt with.

    A part is a Parquet file of the table, with the sums of its images in the metadata, where pandas keeps ``attrs``.

    Args:
        predictor: a `Predictor`, or what is called as one.
        missing: the images of each part.
        folder: where their paths start.
        drawn: as in `detect_in_parts`.
        options: ``score_threshold``, ``suppress`` and ``batch_size`` of `retinamask.inference.detect.look_at`; ``hide``
            to draw no boxes but to hide the faces, ``blur`` or ``pixelate``, see `retinamask.drawing.anonymise`.
    """
    options = dict(options)
    hide = options.pop("hide", None)
    classes = {name: label for label, name in enumerate(predictor.class_names)}
    looked = look_at(predictor, [path for paths in missing.values() for path in paths], folder, **options)
    for part, paths in missing.items():
        rows, unreadable, best_score = [], [], 0.0
        for seen in islice(looked, len(paths)):
            if seen.problem:
                unreadable.append(seen.problem)
            else:
                its_rows = table_rows(seen.path, seen.detections, predictor.class_names)
                rows += its_rows
                best_score = max(best_score, seen.detections.best_score)
                if drawn:
                    with files.replacing(drawn[seen.path]) as temporary:
                        if hide:
                            picture = Image.fromarray(anonymise(seen.image_rgb, seen.detections.boxes_xyxy, hide))
                        else:
                            from retinamask.drawing.boxes import draw_boxes

                            picture = draw_boxes(seen.image_rgb, make_table(its_rows, DETECTION_COLUMNS), classes)
                        picture.save(temporary, quality=92)
            yield 1
        table = make_table(rows, DETECTION_COLUMNS)
        table.attrs = {"faces": objects(table)["class_name"].value_counts().to_dict(), "unreadable": unreadable}
        table.attrs |= {"without": int(table["x1"].isna().sum()), "best_score": best_score}
        with files.replacing(part) as temporary:
            table.to_parquet(temporary, index=False)


def _joined(parts: list[Path], out: Path, to: str | None, class_names: Sequence[str]) -> Found:
    """Make one file, or a folder of the format ``to``, of all parts and remove them."""
    found = Found(Counter(dict.fromkeys(class_names, 0)))

    def tables() -> Iterator[pd.DataFrame]:
        for start in range(0, len(parts), _AT_ONCE):
            rows = []
            for table in map(pd.read_parquet, parts[start : start + _AT_ONCE]):
                rows += table.itertuples(index=False, name=None)
                found.faces.update(table.attrs["faces"])
                found.without += table.attrs["without"]
                found.unreadable += table.attrs["unreadable"]
                found.best_score = max(found.best_score, table.attrs["best_score"])
            yield make_table(rows, DETECTION_COLUMNS)
        if not found.faces.total() and not found.without:
            shutil.rmtree(parts[0].parent)
            count = len(found.unreadable)
            raise AnnotationError(f"none of the {count} image(s) can be read, such as: {found.unreadable[0]}")

    if to:
        from retinamask.dataset import formats

        table = pd.concat(tables(), ignore_index=True)
        thin = boxes.areas(boxes.whole_pixels(table[BOX_COLUMNS].to_numpy())) == 0
        found.thin = int(thin.sum())
        table.loc[thin, BOX_COLUMNS] = np.nan
        formats.write_format(table, {name: label for label, name in enumerate(class_names)}, to, out, out.parent)
    else:
        write_detections(tables(), out)
    (parts[0].parent / "run.json").replace(finished_run(out))
    shutil.rmtree(parts[0].parent)
    return found


def drawn_paths(sources: Sequence[str], paths: Sequence[str], folder: Path, to: str) -> dict[str, Path]:
    """Choose where each image goes when it is drawn: its folders below what all sources have in common are kept.

    Args:
        sources: images and folders as the user named them.
        paths: the images found there, relative to ``folder``.
        folder: where ``paths`` start.
        to: the folder of the drawn images.

    Raises:
        ValueError: a drawn image would replace its original or another one, or be taken for an original next time.
    """
    top = Path(os.path.abspath(to))
    whole = [Path(os.path.abspath(source)) for source in sources]
    common = os.path.commonpath([source if source.is_dir() else source.parent for source in whole])
    for source in sources:
        real_top, real = top.resolve(), Path(source).resolve()
        if real.is_relative_to(real_top) or (real.is_dir() and real_top.is_relative_to(real)):
            where = "is" if real == real_top else "holds" if real.is_relative_to(real_top) else "lies in"
            raise ValueError(
                f"--save-images {to} {where} {source}, where drawn copies would be taken for images the next time; "
                "choose a folder outside"
            )
    drawn: dict[str, Path] = {}
    for path in paths:
        below = relative_path(folder / path, common)  # goes up where a linked folder leads elsewhere
        target = top.joinpath(*(name for name in below.split("/") if name != ".."))
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(f"{target.name}.jpg")
        drawn[path] = target
    for path, count in Counter(drawn.values()).items():
        if count > 1:
            raise ValueError(f"two images would be drawn as {path}; rename one of them")
    return drawn
