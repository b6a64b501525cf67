"""The command that opens labelImg on a folder of images and brings ``annotations.csv`` up to date with what was drawn.

Each step is a function of `retinamask.labelimg`; imports stand inside the functions, as in the other commands.
"""

import sys
from pathlib import Path

from retinamask.commands import add_command


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    text = (
        "Open labelImg on a folder of images; when it closes, annotations.csv and classes.csv are brought up to date "
        "with what was drawn. They are in IMAGES, or in the folder above it if that is called images, unless --out and "
        "--classes name others. If nothing was labelled, no file is changed. In images that have no annotation yet, a "
        "detector proposes boxes."
    )
    annotate = add_command(subparsers, "annotate", annotate_command, text)
    annotate.add_argument("images", metavar="IMAGES", help="folder of the images, with all below it")
    place = (
        "folder of the annotation files; if left out, 'annotations' in IMAGES, or beside it if it is called images; "
        "IMAGES if there is none"
    )
    annotate.add_argument("--annotations", help=place)
    annotate.add_argument("--classes", help="class list; new classes are added at its end; as above if left out")
    proposals = annotate.add_mutually_exclusive_group()
    proposals.add_argument("--snapshot", help="detector that proposes; if left out the one that comes with the project")
    text = "propose nothing, as for test images: boxes accepted unread would be judged against themselves"
    proposals.add_argument("--no-proposals", action="store_true", help=text)
    annotate.add_argument("--score-threshold", type=float, default=0.5, help="propose detections from this score on")
    annotate.add_argument("--port-format", choices=["voc", "yolo"], default="voc", help="what labelImg saves")
    annotate.add_argument("--out", help="the CSV; rows of other images in it are kept; as above if left out")


def annotate_command(given) -> int:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.labelimg import outcome, process
    from retinamask.labelimg.folder import data_folder, prepare, state
    from retinamask.labelimg.proposals import read_record, settle

    if not 0 <= given.score_threshold <= 1:
        raise ValueError(f"--score-threshold is {given.score_threshold}, expected 0 to 1")
    snapshot = snapshots.read(given.snapshot) if given.snapshot else None
    out = Path(given.out or data_folder(given.images) / "annotations.csv")
    classes_csv = Path(given.classes or data_folder(given.images) / "classes.csv")
    known = dict(snapshot.classes) if snapshot else {}
    if classes_csv.exists():
        known = annotations.read_classes(classes_csv)
    if snapshot and (unknown := ", ".join(name for name in snapshot.classes if name not in known)):
        raise ValueError(
            f"{given.snapshot} proposes boxes of {unknown}, which {classes_csv} does not have, only "
            f"{', '.join(known)}; add it there, or take another snapshot"
        )
    session = prepare(given.images, given.annotations, given.port_format, known)
    in_csv = _annotated_in_csv(session, out)
    read_record(session.annotation_folder)  # a broken one is reported before the work, not after it
    for problem in session.left_out:
        print(problem, file=sys.stderr)
    print(
        f"{len(session.sizes_wh)} images; annotations go to {session.annotation_folder}, the table to {out}, "
        f"new classes to {classes_csv}",
        flush=True,
    )
    before = state(session)
    if not (snapshot or given.no_proposals) and set(session.unannotated()) - in_csv:
        snapshot = _shipped(session)
        if snapshot and not session.class_names:
            known, session.class_names = dict(snapshot.classes), list(snapshot.classes)
    if snapshot:
        try:
            _propose(session, snapshot, given, in_csv)
        except BaseException:
            settle(session, set())  # nobody has seen any of them
            raise

    ended = process.show(session)
    proposals = settle(session, ended.seen)
    changes = outcome.compare(session, before)
    _print_session(session, ended, changes, proposals)
    if changes.new or changes.changed or changes.deleted or changes.images_gone:
        rebuilt = outcome.rebuild(session, known, out, classes_csv, changes.deleted)
        _print_tables(rebuilt, known, out, classes_csv)
    else:
        print(f"nothing was labelled; {out} and {classes_csv} are left as they are")
    return 1 if ended.status else 0


def _annotated_in_csv(session, out: Path) -> set[Path]:
    """Find images that have boxes in the CSV but no annotation file; a CSV that cannot be read is refused here."""
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


def _shipped(session):
    """Read the detector that comes with the project, or give nothing where it is not there or the classes differ."""
    from retinamask.detectors import snapshots

    try:
        snapshot = snapshots.read(snapshots.shipped("mask_detector"))
    except snapshots.SnapshotError as error:
        print(f"nothing is proposed: {error}", flush=True)
        return None
    if set(snapshot.classes) <= set(session.class_names or snapshot.classes):
        print(f"{snapshot.weights} proposes boxes where no annotation is; --no-proposals turns it off", flush=True)
        return snapshot
    print(
        f"nothing is proposed: the classes of {snapshot.weights} are {', '.join(snapshot.classes)}, those here "
        f"{', '.join(session.class_names)}",
        flush=True,
    )
    return None


def _propose(session, snapshot, given, leave: set[Path]) -> None:
    from retinamask.inference.detect import Predictor
    from retinamask.labelimg.proposals import propose

    waiting = len(set(session.unannotated()) - leave)
    if not waiting:
        print("every image has an annotation file; nothing is proposed")
        return
    predictor, name = Predictor.load(snapshot), snapshot.weights.name
    written, unreadable = propose(session, predictor, name, given.score_threshold, leave)
    for message in unreadable:
        print(f"nothing proposed: {message}", file=sys.stderr)
    print(f"boxes proposed in {len(written)} of {waiting} images without annotation; correct them", flush=True)


def _print_session(session, ended, changes, proposals) -> None:
    """Print what went wrong in the window, what was done there, and what is left to do."""
    import signal

    from retinamask.labelimg.proposals import OUTCOMES

    for failure in ended.failures:
        print(f"labelImg failed and continued: {failure}", file=sys.stderr)
    for folder in ended.elsewhere:
        print(f"labelImg also saved to {folder}, which is not read here: name it with --annotations", file=sys.stderr)
    if ended.status:
        hint = "; it showed no image: is there a screen? `retinamask doctor` names missing libraries"
        how = f"status {ended.status}"
        if ended.status < 0:
            how = f"signal {-ended.status} ({signal.Signals(-ended.status).name})"
        print(f"{ended.log_tail}\nlabelImg ended with {how}{'' if ended.seen else hint}", file=sys.stderr)
        print("what it had saved is read nevertheless", file=sys.stderr)

    counts = {"new": changes.new, "changed": changes.changed, "deleted": changes.deleted}
    print("annotation files: " + ", ".join(f"{len(names)} {word}" for word, names in counts.items()))
    for word, names in counts.items():
        if names:
            print(f"  {word}: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}")
    if any(proposals.values()):
        print("proposals: " + ", ".join(f"{len(proposals[key])} {fate}" for key, fate in OUTCOMES.items()))
    if changes.other_format:
        listed = ", ".join(changes.other_format[:5])
        print(f"{len(changes.other_format)} file(s) in another format, which are not read: {listed}", file=sys.stderr)
    gone = len(changes.images_gone)
    print(f"left to annotate: {len(session.unannotated())} of {len(session.sizes_wh) - gone} images")
    if gone:
        print(f"{gone} image(s) were deleted in labelImg", file=sys.stderr)


def _print_tables(rebuilt, known: dict[str, int], out: Path, classes_csv: Path) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.formats import summary
    from retinamask.dataset.formats.class_names import likely_slips

    for problem in rebuilt.problems:
        print(problem, file=sys.stderr)
    new = [name for name in rebuilt.classes if name not in known]
    if new:
        print(f"added to {classes_csv}: {', '.join(map(repr, new))}")
    for message in likely_slips(rebuilt.classes):
        print(message, file=sys.stderr)
    if rebuilt.table.empty:
        print(f"nothing is annotated; there is no {out}")
    else:
        images, boxes = annotations.image_paths(rebuilt.table), annotations.objects(rebuilt.table)
        print(annotations.count_boxes(rebuilt.table, rebuilt.classes).to_string())
        print(f"{len(images)} images, {len(boxes)} boxes: {out}, {classes_csv}; {summary(rebuilt.problems)}")
    if rebuilt.kept:
        print(f"rows of {rebuilt.kept} image(s) without an annotation file here were kept from the old {out.name}")
    if rebuilt.backup:
        print(f"the old {out.name} is kept as {rebuilt.backup.name}")
