"""A sound data set of drawn images, which the tests of the audit spoil one way or another."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from retinamask.dataset import annotations
from retinamask.dataset.audit.checks import findings_table
from retinamask.dataset.audit.source import read_source
from retinamask.evaluation.audit import Audit, AuditSettings

CLASSES = {"mask": 0, "no_mask": 1}
SIZE = (320, 240)
COUNT = 8
SETTINGS = AuditSettings(image_size=320)


def picture(seed: int, size_wh: tuple[int, int] = SIZE) -> Image.Image:
    """Large soft spots, others for each seed: two such pictures are no copies of each other."""
    spots = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(spots, size_wh, interpolation=cv2.INTER_CUBIC))


class DataSet:
    """A sound data set of a CSV and its images, to be spoilt by a test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.classes = dict(CLASSES)
        self.rows: list[tuple] = []
        for seed in range(COUNT):
            self.add(f"images/{seed}.png", seed)

    def add(self, path: str, seed: int, *boxes: tuple, **options) -> Path:
        full = self.folder / path
        full.parent.mkdir(exist_ok=True)
        picture(seed).save(full, **options)
        name = list(CLASSES)[seed % 2]
        self.rows += [(path, *box) for box in boxes or [(100 + seed, 80, 170 + seed, 150, name)]]
        return full

    def audit(self, settings: AuditSettings = SETTINGS, **options):
        annotations.write_annotations(annotations.make_table(self.rows), self.folder / "annotations.csv")
        annotations.write_classes(self.classes, self.folder / "classes.csv")
        return Audit(read_source(self.folder / "annotations.csv", **options), settings)


def names(result) -> list[str]:
    return [finding.name for finding in result.findings]


def only(result):
    """The one finding of a data set."""
    assert len(result.findings) == 1, findings_table(result.findings).to_string()
    return result.findings[0]
