"""Which detector: accuracy, speed, memory and size of several on the same images, see ``import retinamask as rm``."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.annotations import image_paths
from retinamask.dataset.copies import copies_remark, hash_images
from retinamask.dataset.images import read_image
from retinamask.detectors import snapshots
from retinamask.detectors.snapshots import Snapshot
from retinamask.drawing import style
from retinamask.drawing.contact_sheet import Example, contact_sheet, side_by_side
from retinamask.evaluation import plots
from retinamask.evaluation.evaluate import Evaluation, evaluate
from retinamask.evaluation.leaks import find_leaks, find_pictures
from retinamask.inference.box_fit import fit_predictor
from retinamask.inference.detect import Predictor, detect
from retinamask.model import load
from retinamask.progress import track

FILES = ("leaderboard.csv", "leaderboard.md", "leaderboard.png", "leaderboard_images.png")
_PICTURED = 6  # images that are drawn for all detectors
_STATUS = Path("/proc/self/status")  # of Linux
_LOOK = f"""
import json, sys
from retinamask.dataset.images import read_image
from retinamask.model import load
predictor = load(sys.argv[1], *json.loads(sys.argv[2])).predictor
for path in sys.argv[3:]:
    predictor([read_image(path)])
print(open("{_STATUS}").read().partition("VmHWM:")[2].split()[0])
"""


def leaderboard(
    models: Sequence[str | Path | Snapshot],
    annotations: pd.DataFrame,
    classes: dict[str, int],
    folder: str | Path = ".",
    passes: int = 5,
    timed_images: int = 4,
    allow_leak: bool = False,
    fit_table: pd.DataFrame | None = None,
    face_detector: str | None = None,
    face_model: Sequence[str | Path] = (),
) -> "Leaderboard":
    """Judge detectors on the same images, and measure them in turns on this machine.

    Args:
        models: training or inference snapshots, or exports; also of classifiers if a face detector is given.
        annotations: of the images.
        classes: name to id.
        folder: what the image paths are relative to.
        passes: how often each looks at the timed images, in turns, after one that warms up.
        timed_images: how many are timed, the first, one after the other.
        allow_leak: report images that show a picture of a detector's training, instead of refusing them.
        fit_table: annotations of training images, with paths that are relative to ``folder`` too: the boxes of each
            model are fitted to them by `rm.fit_boxes`, so that models can be compared that learnt other conventions.
        face_detector: finds the faces for classifiers, as in `rm.load`.
        face_model: its files, as in `rm.load`.

    Raises:
        SnapshotError: a file is missing or damaged, or a classifier without a face detector.
        ValueError: other classes, nothing annotated, fewer than one pass or image, a model given twice, or a leak.

    Example:
        >>> board = rm.leaderboard(["snapshots/a_best.h5", "snapshots/a_best.onnx"], parts["test"], classes)
        >>> board.table, board.picture()
    """
    if passes < 1 or timed_images < 1 or not models:
        raise ValueError(f"{len(models)} models, {passes} passes and {timed_images} timed images, expected at least 1")
    given = [model if isinstance(model, Snapshot) else snapshots.read(model) for model in models]
    names = _names(given)
    if (face_detector or face_model) and not any(snapshot.classifies for snapshot in given):
        raise ValueError("a face detector has no effect, since none of the models is a mask classifier; leave it out")
    faces, face_snapshot = (face_detector, [str(path) for path in face_model]), None
    if face_detector == "snapshot":
        face_snapshot = snapshots.read(face_model[0] if face_model else snapshots.shipped("mask_detector"))
    predictors, leaks, remarks = {}, [], []
    for name, snapshot in zip(names, given, strict=True):
        snapshots.check_classes(snapshot, classes)
        name = f"{name} + {face_detector}" if snapshot.classifies and face_detector else name
        leaks.append(find_leaks(snapshot, annotations, folder, allow_leak, face_snapshot))
        predictors[name] = load(snapshot, *(faces if snapshot.classifies else ())).predictor
        remarks += [f"{name}: {text}" for text in leaks[-1].remarks]
    if fit_table is not None:
        known = hash_images(image_paths(fit_table), folder).upright
        remarks += find_pictures(known, "boxes were fitted", annotations, folder, allow_leak).remarks
        for name, predictor in predictors.items():
            predictors[name], unfitted = fit_predictor(predictor, fit_table, folder)
            remarks.append(f"{name}: boxes fitted to those of training images, --box-fit {predictors[name].box_fit}")
        remarks += [f"boxes were not fitted to: {message}" for message in unfitted]  # the same files for each
    rows, shown, paths = [], {}, image_paths(annotations)
    for (name, predictor), snapshot in zip(predictors.items(), given, strict=True):
        detections, unreadable = detect(predictor, paths, folder, 0.05, suppress="per_class")
        metrics = evaluate(detections, annotations, classes, thresholds=snapshot.thresholds)
        remarks += [f"{name}: {text}" for text in metrics.remarks]
        shown[name] = metrics.shown
        rows.append({"model": name, "detector": snapshot.record["detector"], **_figures(metrics, snapshot)})
    remarks += [f"counted as without detections: {message}" for message in unreadable]  # the same files for each
    remarks += copies_remark(paths, folder)
    readable = image_paths(detections)
    timed = [str(Path(folder, path)) for path in readable[:timed_images]]
    milliseconds = _milliseconds(predictors, timed, passes)
    for row, snapshot, leak in zip(rows, track(given, "measuring memory", "model"), leaks, strict=True):
        row |= {"images_a_second": 1000 / milliseconds[row["model"]], "milliseconds": milliseconds[row["model"]]}
        row["peak_memory_mb"] = _peak_memory(snapshot.weights, timed, faces if snapshot.classifies else ())
        row["file_mb"] = snapshot.weights.stat().st_size / 1e6
        seconds = snapshot.record.get("training", {}).get("metrics", {}).get("seconds", np.nan)
        row |= {"minutes_to_snapshot": seconds / 60, "leaked_images": leak.images}
    table = pd.DataFrame(rows).sort_values("AP", ascending=False, ignore_index=True)
    tables = {"annotated": annotations, **{name: shown[name] for name in table["model"]}}
    return Leaderboard(table, side_by_side(readable[:_PICTURED], folder, tables, annotations), classes, remarks)


def _names(given: list[Snapshot]) -> list[str]:
    """Name models by their files, with folders if names are equal; the same file twice is refused."""
    places = [snapshot.weights.resolve() for snapshot in given]
    if repeated := [str(path) for number, path in enumerate(places) if path in places[:number]]:
        raise ValueError(f"{', '.join(repeated)} is given more than once, expected each model once; leave one out")
    names = [snapshot.weights.name for snapshot in given]
    return names if len(set(names)) == len(names) else [str(snapshot.weights) for snapshot in given]


def _figures(metrics: Evaluation, snapshot: Snapshot) -> dict[str, Any]:
    """Give the columns of a detector's row that say how well it does and at which size."""
    settings = snapshot.record["settings"]
    row = {"image_size": settings.get("image_size") or settings["image_height"]}
    for figure in ("AP", "AP50"):
        low, high = metrics.intervals.get(figure, (np.nan, np.nan))
        row |= {figure: metrics[figure], f"{figure}_low": low, f"{figure}_high": high}
    return row | {f"AP50/{name}": each["AP50"] for name, each in metrics["per_class"].items()}


def _milliseconds(predictors: dict[str, Predictor], paths: list[str], passes: int) -> dict[str, float]:
    """Measure how long each takes for an image, from its pixels to boxes: the median of passes that take turns."""
    images_rgb, taken = [read_image(path) for path in paths], {name: [] for name in predictors}
    for number in track(range(passes + 1), "timing", "pass"):
        for name, predictor in predictors.items():
            begun = time.perf_counter()
            for image_rgb in images_rgb:
                predictor([image_rgb])
            if number:  # the first warms up
                taken[name].append(1000 * (time.perf_counter() - begun) / len(images_rgb))
    return {name: statistics.median(each) for name, each in taken.items()}


def _peak_memory(weights: Path, paths: list[str], faces: Sequence = ()) -> float:
    """Measure the largest memory in MB of a process that loads a model and looks at images; NaN but on Linux."""
    if not _STATUS.exists():
        return np.nan
    command = [sys.executable, "-W", "ignore", "-c", _LOOK, str(weights), json.dumps(faces), *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed, perhaps for want of memory"])[-1]
        raise ValueError(f"{weights}: a process of its own cannot run it ({reason}); free memory, or leave it out")
    return int(done.stdout.split()[-1]) * 1024 / 1e6


class Leaderboard:
    """The result of `leaderboard`.

    Attributes:
        table: a row per detector, the best AP first: ``model``, ``detector``, ``image_size``, ``AP`` and ``AP50`` with
            the ends ``_low`` and ``_high`` of their 95 % intervals, ``AP50/CLASS``, ``images_a_second`` and
            ``milliseconds`` of an image (from pixels to boxes, one at a time), ``peak_memory_mb`` of a process of its
            own, ``file_mb`` (of a classifier alone), ``minutes_to_snapshot`` of its last training up to the epoch that
            it holds, NaN if it does not say, and ``leaked_images``.
        remarks: what speaks against the figures.
    """

    def __init__(self, table: pd.DataFrame, pictured: list[Example], classes: dict[str, int], remarks: list[str]):
        self.table, self._pictured, self._classes, self.remarks = table, pictured, classes, remarks

    @property
    def _marks(self) -> list[str]:
        """What stands behind the name of each model: that it knows images."""
        return [" (LEAK)" if leaked else "" for leaked in self.table["leaked_images"].astype(float) > 0]

    def markdown(self) -> str:
        """Write the table as Markdown, and below it the remarks."""
        numbers = {"images_a_second": "images/s", "milliseconds": "ms", "peak_memory_mb": "memory MB"}
        numbers |= {"file_mb": "file MB", "minutes_to_snapshot": "min of last training"}
        by_class = {f"AP50/{name}": f"AP50 {name}" for name in self._classes}
        head = ["model", "px", "AP (95 %)", "AP50 (95 %)", *by_class.values(), *numbers.values()]
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for row, mark in zip(self.table.to_dict("records"), self._marks, strict=True):
            ends = [(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("AP", "AP50")]
            intervals = [
                f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})") for value, low, high in ends
            ]
            classes = [_shown(row[name], ".3f") for name in by_class]
            measured = [_shown(row[name], ".1f") for name in numbers]
            lines.append([row["model"] + mark, str(row["image_size"]), *intervals, *classes, *measured])
        remarks = [f"- {remark}" for remark in self.remarks]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *[""] * bool(remarks), *remarks, ""])

    @style.styled
    def picture(self) -> Figure:
        """Draw AP with its 95 % interval against the images a second."""
        figure, axes = style.begin(9.6, 5)
        for rank, (row, mark) in enumerate(zip(self.table.itertuples(), self._marks, strict=True), start=1):
            color = style.OTHER_COLORS[(rank - 1) % len(style.OTHER_COLORS)]
            ends = [[max(0, row.AP - row.AP_low)], [max(0, row.AP_high - row.AP)]]
            label = f"{rank}  {style.shown_text(style.short(row.model, 34))}{mark}"
            point = {"fmt": "o", "color": color, "elinewidth": 1.2, "capsize": 3, "label": label}
            axes.errorbar(row.images_a_second, row.AP, ends, **point)
            place = {"xytext": (6, 5), "textcoords": "offset points"}
            axes.annotate(str(rank), (row.images_a_second, row.AP), color=style.INK, **place)
        axes.set_xscale("log")
        speeds = self.table["images_a_second"]
        digits = "1235" if speeds.max() > 4 * speeds.min() else "123456789"  # labels of 80, 90 and 100 would overlap
        for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")
        axes.tick_params(which="both", length=3.5, pad=3.5)
        axes.margins(x=0.15)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        axes.set(title="Accuracy and speed, AP with its 95 % interval", ylabel="AP")
        axes.set_xlabel("images a second, one at a time on this machine")
        return figure

    def sheet(self) -> Image.Image:
        """Draw the first images with the annotations and with what each detector shows, side by side."""
        columns = 1 + len(self.table)
        side = min(400, max(160, 1920 // columns))
        return contact_sheet(self._pictured, self._classes, columns, side, "The same images")

    def save(self, folder: str | Path) -> None:
        """Write `FILES`: the table as CSV and as Markdown, `picture` and `sheet`; earlier ones are replaced."""
        csv, markdown, picture, sheet = (Path(folder, name) for name in FILES)
        files.write_text(csv, self.table.to_csv(index=False))
        files.write_text(markdown, self.markdown())
        plots.keep(self.picture(), picture)
        plots.keep(self.sheet(), sheet)


def _shown(value: float | None, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)
