"""The record of a run for its snapshots, and its identity: whether a checkpoint is of the same run."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retinamask.dataset.annotations import fingerprint
from retinamask.detectors import _keras
from retinamask.training import distribution
from retinamask.training.examples import Examples
from retinamask.training.settings import TrainingError, TrainingSettings

_PACKAGES = ("retinamask", "tensorflow", "tf-keras", "keras-retinanet", "numpy")
# These do not touch the weights, so that a resumed run may have other values.
_FREE = ("keep_best", "keep_last", "checkpoint_minutes", "cache", "precision", "accumulate")


def of_run(examples: Examples, settings: TrainingSettings, weights: str, used: str, stem: Path) -> dict[str, Any]:
    """The training record of a snapshot."""
    return {
        "run": stem.name,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "parameters": {**settings.record(), "precision_used": used},
        "training_table_fingerprint": fingerprint(examples.table, examples.detector.classes),
        "images": len(examples),
        "images_left_out": len(examples.unusable),
        "identity": identity(examples, settings, weights),
        "device": _keras.device_line(),
        "devices": distribution.describe(distribution.strategy()),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def identity(examples: Examples, settings: TrainingSettings, weights: str) -> dict[str, Any]:
    """The choices that must be the same for a run to be resumed: with others the weights would differ."""
    detector = examples.detector
    chosen = {name: value for name, value in settings.record().items() if name not in _FREE}
    return {
        "training table": fingerprint(examples.table, examples.detector.classes),
        "readable images": len(examples),
        "classes": detector.classes,
        "detector": {"name": detector.name, **detector.record()},
        "weights": weights,
        **chosen,
    }


def check_same_run(before: dict[str, Any], now: dict[str, Any], stem: Path) -> None:
    """Raise `TrainingError` if a checkpoint is of a run with other settings or other data."""
    before = _with_later_settings(before)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        listed = "\n".join(f"  {name}: {before.get(name)} then, {now[name]} now" for name in changed)
        raise TrainingError(
            f"{stem}: its checkpoint is of a run that differs:\n{listed}\n"
            "Resume it as it was begun, or train under another name"
        )


def _with_later_settings(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity of an earlier version, with the settings that came later at their defaults, as it was trained."""
    defaults = TrainingSettings().record()
    augmentation = {**defaults["augmentation"], **identity.get("augmentation", {})}
    return {**defaults, **identity, "augmentation": augmentation}
