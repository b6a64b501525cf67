"""Checks of the boxes against keras-retinanet's anchors, at the size of the network's input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset import boxes
from retinamask.dataset.anchors import POSITIVE_OVERLAP, Anchors, best_overlaps, coverage, suggest
from retinamask.dataset.audit.box_checks import by_image, shown_box
from retinamask.dataset.audit.findings import Example, Finding, found
from retinamask.dataset.audit.looking import Look
from retinamask.dataset.images import fit_scale

LARGER = (1.5, 2.0)  # input sizes, as multiples of the one asked for, that coverage is told for too
LEAST_GAIN = 0.005  # share of the boxes that a suggestion must cover more to be worth a change


@dataclass(frozen=True)
class AnchorReport:
    """How many boxes the anchors reach.

    Attributes:
        covered: one record a setting: ``anchors``, ``image_size``, ``covered`` (boxes), ``boxes``, ``share`` (0 to 1),
            ``mean_overlap``; the first is keras-retinanet's defaults at the size asked for.
        suggestion: anchors that cover more boxes at that size, ``None`` where they are not needed or not found.
        finding: the boxes that the defaults miss, if too many.
    """

    covered: list[dict[str, Any]]
    suggestion: Anchors | None
    finding: list[Finding]


def check_anchors(
    table: pd.DataFrame, looks: Mapping[str, Look], image_size: int, low_coverage: float = 0.95
) -> AnchorReport:
    """Measure how many boxes keras-retinanet's default anchors train on, and search for better ones if too few.

    Args:
        table: annotations.
        looks: by path.
        image_size: side in pixels of the square that the model fits an image into.
        low_coverage: below this share of boxes, 0 to 1, there is a finding and perhaps a suggestion.
    """
    paths, boxes_xyxy, sizes_wh = _gathered(table, looks)
    resized = _resized(boxes_xyxy, sizes_wh, image_size)
    defaults, suggestion = Anchors(), None
    overlaps = best_overlaps(*resized, defaults)
    covered = [_measured("keras-retinanet's defaults", overlaps, image_size)]
    if coverage(overlaps) >= low_coverage:
        return AnchorReport(covered, None, [])
    better = suggest(*resized, defaults)
    better_overlaps = best_overlaps(*resized, better)
    if coverage(better_overlaps) >= coverage(overlaps) + LEAST_GAIN:
        suggestion = better
        covered.append(_measured("suggestion", better_overlaps, image_size))
    for factor in LARGER:
        size = round(image_size * factor)
        resized = _resized(boxes_xyxy, sizes_wh, size)
        covered.append(_measured("keras-retinanet's defaults", best_overlaps(*resized, defaults), size))
    missed = [
        Example(
            (paths[position],),
            f"{shown_box(boxes_xyxy[position])}: best IoU {overlaps[position]:.2f}",
            tuple(boxes_xyxy[position].tolist()),
        )
        for position in np.argsort(overlaps, kind="stable")
        if overlaps[position] < POSITIVE_OVERLAP
    ]
    return AnchorReport(covered, suggestion, found("missed by the anchors", "warning", "boxes", _said(covered), missed))


def _said(covered: list[dict[str, Any]]) -> str:
    """What to do, with the figures."""
    figures = "; ".join(f"{record['anchors']} at {record['image_size']}: {record['share']:.1%}" for record in covered)
    return (
        "No anchor overlaps them by half, so that they are never learnt. Boxes covered by "
        f"{figures}. Train at a larger image size, or with suggested anchors where there are some."
    )


def _gathered(table: pd.DataFrame, looks: Mapping[str, Look]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All boxes of readable images, clipped, with the path and the size of the image of each."""
    paths, all_boxes, sizes = [], [np.zeros((0, 4))], [np.zeros((0, 2))]
    for image in by_image(table):
        size_wh = looks[image.path].upright_wh
        if size_wh:
            clipped = boxes.clip(image.boxes_xyxy, size_wh)
            clipped = clipped[boxes.areas(clipped) > 0]
            paths += [image.path] * len(clipped)
            all_boxes.append(clipped)
            sizes.append(np.tile(np.array(size_wh, dtype=float), (len(clipped), 1)))
    return paths, np.concatenate(all_boxes), np.concatenate(sizes)


def _resized(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and image sizes as the network gets them."""
    scales = np.array([fit_scale(size, image_size) for size in sizes_wh]).reshape(-1, 1)
    return boxes_xyxy * scales, np.maximum(np.round(sizes_wh * scales), 1)


def _measured(name: str, overlaps: np.ndarray, image_size: int) -> dict[str, Any]:
    return {
        "anchors": name,
        "image_size": image_size,
        "covered": int(np.count_nonzero(overlaps >= POSITIVE_OVERLAP)),
        "boxes": len(overlaps),
        "share": round(coverage(overlaps), 4),
        "mean_overlap": round(float(overlaps.mean()), 4) if len(overlaps) else 1.0,
    }
