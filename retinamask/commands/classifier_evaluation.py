"""The command that judges a classifier on faces it has not seen.

It calls the functions that the notebook calls. Imports stand inside the functions, so that a command starts only
what it needs.
"""

import sys
from pathlib import Path

from retinamask.commands.classifier import add_source, source_format
from retinamask.commands.parsing import add_command, refuse_existing

FIGURES, PREDICTIONS = "figures.json", "predictions.csv"


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    text = "Evaluate a mask classifier on class folders or on the boxes of a table: figures, curves, and its mistakes."
    judge = add_command(subparsers, "evaluate-classifier", evaluate_classifier_command, text)
    add_source(judge)
    judge.add_argument("--snapshot", required=True, nargs="+", help="snapshot of a classifier; several are averaged")
    judge.add_argument("--flip", action="store_true", help="also look at each face in the mirror, and average")
    judge.add_argument("--threshold", type=float, default=0.5, help="of the probability of --threshold-class")
    text = "class that a face is taken for from --threshold on; without it, the likeliest class counts"
    judge.add_argument("--threshold-class", help=text)
    judge.add_argument("--class-map", help="rename or join classes: Mask=with_mask,NoMask=without_mask")
    judge.add_argument("--strict", action="store_true", help="refuse files that cannot be used, instead of naming them")
    judge.add_argument("--out", help=f"folder for {FIGURES}, {PREDICTIONS} and the pictures")
    judge.add_argument("--count", type=int, default=24, help="faces in each grid")
    judge.add_argument("--force", action="store_true", help="replace what is in the folder")


def evaluate_classifier_command(given) -> None:
    from retinamask.detectors.snapshots import read
    from retinamask.reports import evaluate_classifier

    out = Path(given.out) if given.out else None
    if out:
        refuse_existing(out / FIGURES, given.force)
    if given.count < 1:
        raise ValueError(f"--count is {given.count}, expected at least 1")
    table, folder, skipped = _read(given, read(given.snapshot[0]).classes)
    judged = evaluate_classifier(given.snapshot, table, folder, given.threshold, given.threshold_class, given.flip)
    judged.figures["left_out"] = skipped + _report(judged.faces.left_out)
    _print(judged.figures)
    if out:
        judged.save(out, given.count)
        print(f"written: {out}")


def _read(given, classes: dict[str, int]) -> tuple:
    """The table of the faces, the folder that its paths start from, and how many files and boxes were left out."""
    from retinamask.dataset import formats
    from retinamask.dataset.face_folders import no_images

    source = Path(given.source)
    folder = source if source.is_dir() else source.parent
    format_name = source_format(given)
    class_map = formats.parse_class_map(given.class_map) if given.class_map else None
    table, _, problems = formats.read_mapped(
        [source], folder, given.images, classes, format_name=format_name, class_map=class_map
    )
    messages = no_images(source) if format_name == "class_folders" else []
    left_out = [*messages, *map(str, problems)]
    if given.strict and left_out:
        raise ValueError("\n".join([f"{source} is not sound:", *left_out[:20]]))
    lost = [problem for problem in problems if problem.action in ("skipped file", "dropped box")]
    _report(left_out)
    return table, folder, len(messages) + len(lost)


def _report(left_out: list[str]) -> int:
    for message in left_out:
        print(message, file=sys.stderr)
    return len(left_out)


def _print(figures: dict) -> None:
    low, high = figures["accuracy_interval"]
    left_out = f", {figures['left_out']} left out" if figures["left_out"] else ""
    print(f"{figures['images']} faces{left_out}")
    print(f"accuracy {figures['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}), loss {figures['loss']:.4f}")
    print(f"balanced accuracy {figures['balanced_accuracy']:.4f}, calibration {figures['calibration_error']:.4f} off")
    for name, found in figures["per_class"].items():
        shares = {key: "-" if value is None else f"{value:.4f}" for key, value in found.items() if key != "support"}
        said = ", ".join(f"{key} {value}" for key, value in shares.items())
        taken = dict(zip(figures["classes"], figures["confusion"][figures["classes"].index(name)], strict=True))
        as_what = ", ".join(f"{count} as {other}" for other, count in taken.items())
        print(f"{name}: {said}; {found['support']} faces: {as_what}")
