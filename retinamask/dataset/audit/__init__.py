"""The audit of a data set: all that can be wrong with images, boxes, classes, copies and splits, in one table.

Each image is decoded once, whatever is asked of it. The page that shows an audit is
`retinamask.evaluation.audit_page`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from retinamask.dataset import copies, images
from retinamask.dataset.annotations import count_boxes, image_paths, objects
from retinamask.dataset.audit.checks import (
    SEVERITIES,
    AnchorReport,
    Example,
    Finding,
    check_anchors,
    check_annotation_files,
    check_boxes,
    check_classes,
    check_image_files,
    findings_table,
)
from retinamask.dataset.audit.copy_checks import Copies, check_copies, check_splits, find_copies
from retinamask.dataset.audit.source import Look, Source, look_at, read_source

__all__ = ["Audit", "AuditSettings", "Example", "Finding", "audit", "findings_table", "read_source"]


@dataclass(frozen=True)
class AuditSettings:
    """From where on something is a finding.

    ``image_size`` is the side of the square that the model fits an image into, in pixels; ``max_pixels`` the most
    that an image may have; ``tiny_side`` the least side of a box in the model's input; ``near_bits`` the most bits,
    of 80, by which the hashes of two copies differ; ``same_overlap`` the IoU above which two boxes are one;
    ``rare_share`` and ``low_coverage`` are shares of boxes, 0 to 1.
    """

    image_size: int = 512
    max_pixels: int = images.MAX_PIXELS
    tiny_side: float = 8
    near_bits: int = copies.NEAR_BITS
    same_overlap: float = 0.9
    rare_share: float = 0.1
    low_coverage: float = 0.95

    def __post_init__(self):
        if not 64 <= self.image_size <= 4096:
            raise ValueError(f"image_size is {self.image_size}, expected 64 to 4096 pixels")
        if not 1 <= self.max_pixels <= images.MAX_PIXELS:
            limit = f"{images.MAX_PIXELS:,}"
            raise ValueError(f"max_pixels is {self.max_pixels:,}, expected 1 to {limit}: training reads no larger ones")
        if not self.tiny_side >= 0:
            raise ValueError(f"tiny_side is {self.tiny_side}, expected 0 or more pixels")


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        source: what was audited.
        settings: see `AuditSettings`.
        findings: the worst first.
        looks: what is known of each image, by path.
        copies: groups of copies.
        anchors: how many boxes the anchors reach.
    """

    source: Source
    settings: AuditSettings
    findings: list[Finding]
    looks: dict[str, Look]
    copies: Copies
    anchors: AnchorReport

    def classes(self) -> dict[str, int]:
        """The classes with those added that stand on boxes only."""
        others = sorted(set(objects(self.source.table)["class_name"]) - set(self.source.classes))
        return self.source.classes | {name: len(self.source.classes) + i for i, name in enumerate(others)}

    def class_counts(self) -> pd.DataFrame:
        """Boxes and images of each class."""
        return count_boxes(self.source.table, self.classes())

    def count(self, severity: str) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        suggestion = self.anchors.suggestion
        return {
            "source": self.source.name,
            "settings": asdict(self.settings),
            "images": len(self.looks),
            "annotated_images": len(image_paths(self.source.table)),
            "boxes": len(objects(self.source.table)),
            "classes": self.class_counts().to_dict("index"),
            "severities": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.record() for finding in self.findings],
            "copies": self.copies.record(),
            "anchor_coverage": self.anchors.covered,
            "anchor_parameters": suggestion.config_text() if suggestion else None,
        }


def audit(source: Source, settings: AuditSettings | None = None) -> Audit:
    """Audit what `read_source` has read."""
    settings = settings or AuditSettings()
    looks = {look.path: look for look in look_at(source.all_images(), source.folder, settings.max_pixels)}
    same = find_copies(looks, settings.near_bits)
    anchors = check_anchors(source, looks, settings)
    checks = (check_image_files, check_annotation_files, check_boxes, check_classes)
    findings = [finding for check in checks for finding in check(source, looks, settings)]
    findings += [*check_splits(source, looks, same), *check_copies(source, looks, same), *anchors.finding]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable
    return Audit(source, settings, findings, looks, same, anchors)
