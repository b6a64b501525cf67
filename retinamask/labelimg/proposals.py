"""Pre-annotation: the detector's boxes as annotation files, so that a person only corrects.

Above `folder`. A proposal is never taken for a person's work: ``preannotated.json`` beside the annotation files lists
each one with its SHA-256, which distinguishes an unchanged one from a corrected one at any later time. One that nobody
has been shown by the end of a session is taken back.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from retinamask.dataset import annotations, boxes, files
from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError
from retinamask.dataset.formats import voc, yolo
from retinamask.dataset.formats.writing import Picture
from retinamask.labelimg.folder import RECORD, Session, complete_class_lines
from retinamask.progress import track

FORMAT = 1
CHUNK = 64  # images between two writes of their files: what an interruption costs
OUTCOMES = {
    "corrected": "corrected or confirmed",  # saved again
    "accepted": "accepted unchanged",
    "removed": "deleted",
    "taken_back": "never shown and taken back",
}


def propose(
    session: Session,
    predictor: Callable,
    snapshot: str,
    score_threshold: float = 0.5,
    leave: Iterable[Path] = (),
) -> tuple[list[str], list[str]]:
    """Write an annotation file for each image that has none and in which something is found.

    Args:
        session: no existing annotation file of it is touched.
        predictor: a `retinamask.inference.detect.Predictor`.
        snapshot: what to name in the record.
        score_threshold: propose what has this score or more, 0 to 1.
        leave: images to leave alone.

    Returns:
        The names of the files written, and a message for each image that could not be read.
    """
    from retinamask.inference.detect import look_at, table_rows

    record = read_record(session.annotation_folder)
    leave, written, unreadable = set(leave), [], []
    images = [image for image in session.unannotated() if image not in leave]
    paths = [annotations.relative_path(image, session.image_folder) for image in images]
    about = {"snapshot": snapshot, "score_threshold": score_threshold}
    looked = track(look_at(predictor, paths, session.image_folder, score_threshold), "proposing", "image", len(paths))
    while chunk := [seen._replace(image_rgb=None) for seen in islice(looked, CHUNK)]:
        unreadable += [seen.problem for seen in chunk if seen.problem]
        readable = [seen for seen in chunk if not seen.problem]
        rows = [row for seen in readable for row in table_rows(seen.path, seen.detections, predictor.class_names)]
        found = annotations.objects(annotations.make_table(rows, annotations.DETECTION_COLUMNS))
        try:
            for relative, rows in found.groupby("image_path", sort=True):
                image = session.image_folder / relative
                path, size_wh = session.annotation_of(image), session.sizes_wh[image]
                boxes_xyxy = boxes.whole_pixels(rows[BOX_COLUMNS].to_numpy())
                large = boxes.areas(boxes_xyxy) > 0
                if not large.any() or path.exists():
                    continue
                if session.port_format == "yolo":
                    complete_class_lines(session)
                names = rows["class_name"][large].tolist()
                write(path, Picture(image, size_wh, boxes_xyxy[large], names), session.class_names)
                proposed = datetime.now(UTC).isoformat(timespec="seconds")
                record[path.name] = {"sha256": files.sha256(path), "boxes": len(names), "proposed": proposed, **about}
                written.append(path.name)
        finally:  # also of those that were written before an interruption
            _write_record(session.annotation_folder, record)
    return written, unreadable


def write(path: Path, picture: Picture, class_names: list[str]) -> None:
    """Write the annotation file of a picture as labelImg would; XML, or text with ids of ``class_names``."""
    if path.suffix == ".xml":
        voc.write_voc(path, picture.path, picture.size_wh, picture.boxes_xyxy, picture.class_names)
        return
    ids = {name: number for number, name in enumerate(class_names)}
    files.write_text(path, yolo.label_lines(picture, ids, digits=6))


def read_record(annotation_folder: Path) -> dict[str, dict]:
    """Return the proposals by the name of their file; empty if there is no record.

    Raises:
        AnnotationError: the record is not what `propose` writes.
    """
    path = annotation_folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        proposals = record["proposals"]
        if record["format"] != FORMAT or not all(isinstance(entry["sha256"], str) for entry in proposals.values()):
            raise ValueError("unknown format")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise AnnotationError(
            f"{path}: not a record of proposals ({error}); move it away if it is not needed: without it, "
            "proposals count as a person's work"
        ) from None
    return proposals


def settle(session: Session, seen: set[Path]) -> dict[str, list[str]]:
    """Decide at the end of a session what became of each open proposal, and note it in the record.

    Args:
        session: the session that ends.
        seen: images that were shown in the window.

    Returns:
        The names of the files of each outcome, by the keys of `OUTCOMES`.
    """
    record, outcomes = read_record(session.annotation_folder), {outcome: [] for outcome in OUTCOMES}
    shown = {session.annotation_of(image).name for image in seen}
    for name, entry in list(record.items()):
        path = session.annotation_folder / name
        if not path.is_file():
            result = "removed"
        elif files.sha256(path) != entry["sha256"]:
            result = "corrected"
        else:
            result = "accepted" if name in shown else "taken_back"
        if entry.get("outcome"):  # settled in an earlier session; it may have been corrected since
            entry["outcome"] = result if result == "corrected" else entry["outcome"]
            continue
        outcomes[result].append(name)
        if result == "taken_back":
            path.unlink()
            del record[name]
        else:
            entry["outcome"] = result
    _write_record(session.annotation_folder, record)
    return outcomes


def _write_record(annotation_folder: Path, record: dict[str, dict]) -> None:
    """Write the record if it has changed; remove an empty one."""
    if record and record != read_record(annotation_folder):
        files.write_json(annotation_folder / RECORD, {"format": FORMAT, "proposals": dict(sorted(record.items()))})
    if not record:
        (annotation_folder / RECORD).unlink(missing_ok=True)
