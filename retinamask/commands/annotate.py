"""The command that opens labelImg on a folder of images and turns what was drawn into ``annotations.csv``.

Each step is a function of `retinamask.labelimg`; imports stand inside the functions, as in the other commands.
"""

import sys
from pathlib import Path

from retinamask.commands.parsing import add_command


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    text = (
        "Open labelImg on a folder of images; when it closes, annotations.csv and classes.csv are brought up to date."
    )
    annotate = add_command(subparsers, "annotate", annotate_command, text)
    annotate.add_argument("images", metavar="IMAGES", help="folder of the images, with all below it")
    place = "where annotation files are and go; if left out, 'annotations' beside a folder called images, else IMAGES"
    annotate.add_argument("--annotations", help=place)
    annotate.add_argument("--classes", default="classes.csv", help="class list; new classes are added at its end")
    annotate.add_argument("--snapshot", help="let this detector propose boxes in images that have no annotation yet")
    annotate.add_argument("--score-threshold", type=float, default=0.5, help="propose detections from this score on")
    annotate.add_argument("--port-format", choices=["voc", "yolo"], default="voc", help="what labelImg saves")
    annotate.add_argument("--out", default="annotations.csv", help="the CSV; rows of other images in it stay")


def annotate_command(given) -> int:
    from retinamask.labelimg import outcome, process
    from retinamask.labelimg.folder import prepare, state
    from retinamask.labelimg.proposals import read_record, settle

    out, classes_csv = Path(given.out), Path(given.classes)
    snapshot = _read_snapshot(given.snapshot, given.score_threshold)
    known = _known_classes(classes_csv, snapshot)
    session = prepare(given.images, given.annotations, given.port_format, known)
    in_csv = _annotated_in_csv(session, out)
    read_record(session.annotation_folder)  # a broken one is reported before the work, not after it
    _print_problems(session.left_out)
    print(f"{len(session.sizes_wh)} images; annotations go to {session.annotation_folder}", flush=True)
    before = state(session)
    if snapshot:
        try:
            _propose(session, snapshot, given, in_csv)
        except BaseException:
            settle(session, set())  # nobody has seen any of them
            raise

    ended = process.show(session)
    _print_window(ended)
    proposals = settle(session, ended.seen)
    changes = outcome.compare(session, before)
    rebuilt = outcome.rebuild(session, known, out, classes_csv, changes.deleted)
    _print_changes(session, changes, proposals)
    _print_tables(rebuilt, out, classes_csv)
    return 1 if ended.status else 0


def _read_snapshot(path: str | None, score_threshold: float):
    from retinamask.detectors import snapshots

    if not 0 <= score_threshold <= 1:
        raise ValueError(f"--score-threshold is {score_threshold}, expected 0 to 1")
    return snapshots.read(path) if path else None


def _known_classes(classes_csv: Path, snapshot) -> dict[str, int]:
    """The classes whose ids are fixed: those of the list, else of the snapshot, else none yet."""
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots

    if not classes_csv.exists():
        return dict(snapshot.classes) if snapshot else {}
    classes = annotations.read_classes(classes_csv)
    if snapshot:
        snapshots.check_classes(snapshot, classes)
    return classes


def _annotated_in_csv(session, out: Path) -> set[Path]:
    """Images that have boxes in the CSV but no annotation file; a CSV that cannot be read is refused here."""
    from retinamask.dataset import annotations

    if not out.exists():
        return set()
    paths = annotations.image_paths(annotations.objects(annotations.read_annotations(out)))
    boxed = {(out.parent / path).resolve() for path in paths}
    found = {image for image in session.unannotated() if image.resolve() in boxed}
    if found:
        print(
            f"{len(found)} image(s), such as {min(found)}, have boxes in {out} but no annotation file: labelImg does "
            "not show them, nothing is proposed for them, and what you draw replaces them",
            file=sys.stderr,
        )
    return found


def _propose(session, snapshot, given, leave: set[Path]) -> None:
    from retinamask.inference.detect import Predictor
    from retinamask.labelimg.proposals import propose

    name = Path(given.snapshot).name
    waiting = len(set(session.unannotated()) - leave)
    if not waiting:
        print("every image has an annotation file; nothing is proposed")
        return
    written, unreadable = propose(session, Predictor.load(snapshot), name, given.score_threshold, leave)
    for message in unreadable:
        print(f"nothing proposed: {message}", file=sys.stderr)
    print(f"boxes proposed in {len(written)} of {waiting} images without annotation; correct them", flush=True)


def _print_problems(problems) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)


def _print_window(ended) -> None:
    """How the window ended, if not as it should."""
    from retinamask.labelimg import process

    for failure in ended.failures:
        print(f"labelImg failed, and went on: {failure}", file=sys.stderr)
    for folder in ended.elsewhere:
        print(f"labelImg also saved to {folder}, which is not read here: name it with --annotations", file=sys.stderr)
    if ended.status:
        hint = "" if ended.seen else "; it showed no image: is there a screen? `retinamask doctor` looks for Qt"
        print(f"{ended.log_tail}\nlabelImg ended with {process.in_words(ended.status)}{hint}", file=sys.stderr)
        print("what it had saved is read all the same", file=sys.stderr)


def _print_changes(session, changes, proposals) -> None:
    """What was done in the session, and what is left to do."""
    counts = {"new": changes.new, "changed": changes.changed, "deleted": changes.deleted}
    print("annotation files: " + ", ".join(f"{len(names)} {word}" for word, names in counts.items()))
    for word, names in counts.items():
        if names:
            print(f"  {word}: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}")
    fates = {
        "corrected or confirmed": proposals.corrected,
        "looked at and left as they were": proposals.accepted,
        "deleted": proposals.removed,
        "never shown and taken back": proposals.taken_back,
    }
    if any(fates.values()):
        print("proposals: " + ", ".join(f"{len(names)} {fate}" for fate, names in fates.items()))
    if changes.other_format:
        listed = ", ".join(changes.other_format[:5])
        print(f"{len(changes.other_format)} file(s) in another format, which are not read: {listed}", file=sys.stderr)
    gone = sum(not image.exists() for image in session.sizes_wh)
    print(f"left to annotate: {len(session.unannotated())} of {len(session.sizes_wh) - gone} images")
    if gone:
        print(f"{gone} image(s) were deleted in labelImg", file=sys.stderr)


def _print_tables(rebuilt, out: Path, classes_csv: Path) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.formats import summary

    _print_problems(rebuilt.problems)
    if rebuilt.new_classes:
        print(f"added to {classes_csv}: {', '.join(map(repr, rebuilt.new_classes))}")
    for group in rebuilt.slips:
        print(f"likely a slip of the pen: {' and '.join(map(repr, group))} count as two classes", file=sys.stderr)
    if rebuilt.table.empty:
        print(f"nothing is annotated; {out} is not written")
        return
    images, boxes = annotations.image_paths(rebuilt.table), annotations.objects(rebuilt.table)
    print(annotations.count_boxes(rebuilt.table, rebuilt.classes).to_string())
    print(f"{len(images)} images, {len(boxes)} boxes: {out}, {classes_csv}; {summary(rebuilt.problems)}")
    if rebuilt.kept:
        print(
            f"rows of {rebuilt.kept} image(s) without an annotation file here were taken over from the old {out.name}"
        )
    if rebuilt.backup:
        print(f"the old {out.name} is kept as {rebuilt.backup.name}")
