"""Snapshots: a weights file with the record that describes it, and a JSON file of the same stem with the record again.

The weights file is the ``.h5`` that keras-retinanet itself writes (the whole model without optimizer), so that
keras-retinanet can read it; we read only its weights and build the network from the record. The record stands in the
attribute ``retinamask`` of the ``.h5``, so that one rename replaces both, and with a SHA-256 of the file in the JSON,
for people, for damage, and for listings; snapshots of earlier versions have it there alone. Nothing pickled and no
stored code is ever loaded.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import files
from retinamask.dataset.annotations import AnnotationError, fingerprint
from retinamask.dataset.copies import HASH_BITS
from retinamask.detectors.detector import named

FORMAT = 1
KINDS = ("training", "inference", "export")
ATTRIBUTE = "retinamask"  # of the .h5 and in the metadata of an .onnx, the record without the checksum of the file
CHECKSUM = "retinamask_sha256"  # in the metadata of an .onnx, of its record and weights
_FIELDS = {"kind": str, "detector": str, "classes": dict, "settings": dict, "created": str}


class SnapshotError(ValueError):
    """A snapshot is missing, damaged, or not what was asked for; the message says what to do."""


@dataclass(frozen=True)
class Snapshot:
    """A checked snapshot or export on disk.

    Attributes:
        weights: the ``.h5``, ``.onnx`` or ``.tflite`` file.
        record: the JSON in it or beside it: ``kind`` (one of `KINDS`), ``detector``, ``classes`` (name to id),
            ``settings`` (of the detector), ``inference`` (thresholds, for that kind), ``training`` (parameters,
            fingerprint of the training table, hashes of its pictures and of the validation's, metrics, versions),
            ``created`` and ``weights_sha256``.
    """

    weights: Path
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.record["kind"]

    def at(self, image_size: int) -> "Snapshot":
        """Give the same snapshot with images fitted into a square of another side, which often finds smaller faces."""
        if "image_size" not in self.record["settings"]:
            raise SnapshotError(f"{self.weights} is a classifier, whose image_size is fixed")
        if self.record.get("export", {}).get("image_size", image_size) != image_size:
            found = f"{self.weights} has a fixed image_size of {self.record['export']['image_size']}"
            raise SnapshotError(f"{found}, not {image_size}; export the snapshot again with that --image-size")
        if image_size == self.record["settings"]["image_size"]:
            return self
        record = {**self.record, "settings": {**self.record["settings"], "image_size": image_size}}
        if "training" in record:  # its score thresholds suit its own size
            metrics = record["training"].get("metrics", {})
            kept = {name: value for name, value in metrics.items() if not name.startswith("threshold/")}
            record["training"] = {**record["training"], "metrics": kept}
        return replace(self, record=record)

    @property
    def classes(self) -> dict[str, int]:
        return self.record["classes"]

    @property
    def classifies(self) -> bool:
        """Whether it is a classifier of faces, which finds no boxes."""
        return named(self.record["detector"]).classifies

    @property
    def thresholds(self) -> dict[str, float]:
        """The score of each class from which its F1 was highest on the validation images, 0.5 where that is unknown."""
        metrics = self.record.get("training", {}).get("metrics", {})
        of_export = self.record.get("export", {}).get("thresholds", {})
        return {name: of_export.get(name) or metrics.get(f"threshold/{name}") or 0.5 for name in self.classes}

    def __str__(self) -> str:
        settings = self.record["settings"]
        network = " ".join(filter(None, (self.record["detector"], settings.get("backbone"))))
        side = settings.get("image_size") or f"{settings.get('image_width')} x {settings.get('image_height')}"
        return f"{self.weights} ({network}, {self.kind} model, {side} px, classes {', '.join(self.classes)})"


def save(network, weights: str | Path, record: dict[str, Any]) -> Snapshot:
    """Write ``network`` to ``weights`` (``.h5``), ``record`` into the same file, and again beside it for people.

    An older snapshot of that name is replaced; killed at any moment, `read` gives the old one or the new one. The
    checksum and the time are added to the record.

    Raises:
        SnapshotError: the disk is full; an older snapshot of that name is as it was.
    """
    import h5py

    weights, created = Path(weights), datetime.now(UTC).isoformat(timespec="microseconds")
    record = {"format": FORMAT, **record, "created": created}
    with _replacing(weights, lambda: 4 * network.count_params()) as temporary:
        with warnings.catch_warnings(), _quiet_log():
            warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
            network.save(temporary, include_optimizer=False)
        with h5py.File(temporary, "r+") as file:
            file.attrs[ATTRIBUTE] = json.dumps(record, allow_nan=False)
        files.to_disk(temporary)
        record = {**record, "weights_sha256": files.sha256(temporary)}
    return _described(weights, record)


def copy(snapshot: Snapshot, weights: str | Path, training: dict[str, Any]) -> Snapshot:
    """Give a snapshot another name, with further entries in its training record.

    The weights are a second name of the same file where the file system has that; nothing here ever writes into a
    weights file, so neither can change the other. Raises as `save` does.
    """
    weights = Path(weights)
    record = {**snapshot.record, "training": {**snapshot.record.get("training", {}), **training}}
    with _replacing(weights, lambda: snapshot.weights.stat().st_size) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(snapshot.weights, temporary)
        except OSError:  # not on this file system, or too many names
            shutil.copyfile(snapshot.weights, temporary)
            files.to_disk(temporary)
    return _described(weights, record)


def remove(weights: str | Path) -> None:
    """Remove a snapshot: its weights, its JSON, and what a save that was cut short has left."""
    weights = Path(weights)
    for path in (weights, weights.with_suffix(".json"), _new(weights), _new(weights).with_suffix(".json")):
        path.unlink(missing_ok=True)


def _described(weights: Path, record: dict[str, Any]) -> Snapshot:
    """Write the JSON of weights that have their name."""
    temporary = _new(weights).with_suffix(".json")
    temporary.write_text(files.json_text(record), encoding="utf-8", newline="\n")
    files.to_disk(temporary)
    temporary.replace(weights.with_suffix(".json"))
    files.sync_folder(weights.parent)
    return Snapshot(weights, record)


def _new(weights: Path) -> Path:
    """Name new weights the same each time, so that half of a file never stays for long."""
    return weights.with_name(f".{weights.stem}.new.h5")


@contextlib.contextmanager
def _replacing(weights: Path, needed_bytes: Callable[[], int]) -> Iterator[Path]:
    """Give the path for new weights and rename them in the end; report a full disk."""
    check_name(weights)
    weights.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield _new(weights)
        _new(weights).replace(weights)
    except (OSError, RuntimeError) as error:  # HDF5 raises both
        if not files.is_full(error):
            raise
        stays = f"the {weights.name} that was there before stays" if weights.is_file() else "nothing was there before"
        raise SnapshotError(
            f"{files.no_room(weights, needed_bytes())}; {stays}. Free space, then resume or try again"
        ) from None
    finally:
        _new(weights).unlink(missing_ok=True)
    files.sync_folder(weights.parent)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Silence what tf-keras logs of HDF5, which is chosen because keras-retinanet reads it, and of unused metrics."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def refuse_export(snapshot: Snapshot) -> None:
    """Raise `SnapshotError` for an export, of which no other file can be made."""
    if snapshot.kind == "export":
        made_from = snapshot.record["export"]["converted_from"]["name"]
        raise SnapshotError(f"{snapshot.weights} is an export; expected the snapshot it was made from, {made_from}")


def check_name(weights: Path) -> None:
    """Raise `SnapshotError` for a name that tf-keras would not read again as what it is."""
    if weights.suffix != ".h5" or weights.name.endswith(".weights.h5"):
        raise SnapshotError(f"{weights}: expected a name that ends in .h5, and not in .weights.h5")


def read(path: str | Path) -> Snapshot:
    """Read and verify a snapshot, given its ``.h5`` or its ``.json``, or an export, given its ``.onnx`` or ``.tflite``.

    Raises:
        SnapshotError: a file is missing or damaged, or the weights are not those that the JSON describes.
    """
    if Path(path).suffix in (".onnx", ".tflite"):
        return _read_export(Path(path))
    if Path(path).suffix not in ("", ".h5", ".json"):
        raise SnapshotError(f"{path}: expected a snapshot, .h5 with its .json, or an export, .onnx or .tflite")
    weights, described = Path(path).with_suffix(".h5"), Path(path).with_suffix(".json")
    import h5py

    inside = None  # in files of earlier versions, and in what is no HDF5
    try:
        with open(weights, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(file, "r") as opened:
                found = json.loads(opened.attrs[ATTRIBUTE])
                check_record(found, weights)
                inside = found
    except FileNotFoundError:
        raise SnapshotError(f"{weights} does not exist; a snapshot is an .h5 and a .json file") from None
    if not described.is_file():
        if inside:
            return Snapshot(weights, {**inside, "weights_sha256": checksum})
        raise SnapshotError(
            f"{described} does not exist; a snapshot is an .h5 and a .json file. If {weights.name} is "
            f"keras-retinanet's own: retinamask convert {weights} --classes classes.csv"
        )
    try:
        record = json.loads(described.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SnapshotError(f"{described}: not readable as JSON ({error})") from None
    check_record(record, described, weights_sha256=str)
    if record["weights_sha256"] == checksum:
        return Snapshot(weights, record)
    if inside and inside["created"] != record.get("created"):  # killed, or looked at, between the two renames of a save
        return Snapshot(weights, {**inside, "weights_sha256": checksum})
    raise SnapshotError(
        f"{weights}: SHA-256 differs from the one in {described.name}; the file is damaged or was replaced. "
        "Copy both files again, or train anew"
    )


def shipped(name: str) -> Path:
    """Find a model that comes with the project: ``mask_detector``, or ``mask_classifier`` for faces cut out.

    Raises:
        SnapshotError: it is not there, as where the package was installed without the rest of the repository.
    """
    path = Path(__file__).parents[2] / "snapshots" / f"{name}.onnx"
    if not path.is_file():
        raise SnapshotError(
            f"no snapshot is named, and {path}, which comes with the project, does not exist; name a snapshot, or "
            "install from a clone of the repository: pip install -e ."
        )
    return path


def _read_export(path: Path) -> Snapshot:
    again = "export the snapshot again with retinamask export"
    if not path.is_file():
        raise SnapshotError(f"{path} does not exist; expected an export, made by retinamask export")
    checksum = files.sha256(path)
    if path.suffix == ".tflite":
        try:
            record = json.loads(beside(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SnapshotError(f"{beside(path)} does not exist, and {path.name} needs it; copy both") from None
        except (ValueError, OSError) as error:
            raise SnapshotError(f"{beside(path)}: not readable as JSON ({error}); {again}") from None
        check_record(record, beside(path), weights_sha256=str)
        if record["weights_sha256"] != checksum:
            raise SnapshotError(f"{path}: SHA-256 differs from the one in {beside(path).name}; {again}")
        return Snapshot(path, record)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"{path}: not readable as ONNX ({error}); it is damaged or another file") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if ATTRIBUTE not in metadata:
        raise SnapshotError(f"{path} was not exported by retinamask: it does not say its detector and classes; {again}")
    if onnx_checksum(model, metadata[ATTRIBUTE]) != metadata.get(CHECKSUM):
        raise SnapshotError(f"{path}: its metadata or weights are damaged or were changed; {again}")
    record = json.loads(metadata[ATTRIBUTE])
    check_record(record, path)
    return Snapshot(path, {**record, "weights_sha256": checksum})


def onnx_checksum(model: Any, text: str) -> str:
    """Give the SHA-256 of an ONNX model's record and of its weights, which no format of the file itself protects."""
    return hashlib.sha256(text.encode() + model.graph.SerializeToString(deterministic=True)).hexdigest()


def beside(path: Path) -> Path:
    """Give the JSON file of a LiteRT export; its stem's own would be the snapshot's."""
    return path.with_name(f"{path.name}.json")


def trained_on(snapshot: Snapshot, table) -> bool:
    """Whether ``table`` is what the snapshot was trained on, so that the run's other splits are held out."""
    return snapshot.record.get("training", {}).get("training_table_fingerprint") == fingerprint(table, snapshot.classes)


def image_hashes(snapshot: Snapshot, name: str = "image_hashes") -> np.ndarray | None:
    """Give the hashes of the pictures that a snapshot learnt from, see `retinamask.dataset.copies.Hashes`.

    Args:
        snapshot: of a detector or a classifier.
        name: ``val_image_hashes`` for those on which its epoch and its score thresholds were chosen.

    Returns:
        ``uint8`` of shape ``(N, 10)``, or None if the snapshot does not say.
    """
    text = snapshot.record.get("training", {}).get(name)
    return None if text is None else np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, HASH_BITS // 8)


def check_classes(snapshot: Snapshot, classes: dict[str, int]) -> None:
    """Raise `AnnotationError` unless the snapshot was trained for these classes in this order."""
    before, now = (
        ", ".join(f"{number} {name}" for name, number in each.items()) for each in (snapshot.classes, classes)
    )
    if before != now:
        raise AnnotationError(
            f"{snapshot.weights} was trained for the classes {before}, the annotations have {now}; "
            "use the classes.csv it was trained with, or train anew"
        )


def check_record(record: Any, where: str | Path, **more: type) -> None:
    """Raise `SnapshotError` unless a record has what a snapshot's must have, and ``more``."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise SnapshotError(f"{where}: not a snapshot description of format {FORMAT}")
    wrong = [name for name, kind in {**_FIELDS, **more}.items() if not isinstance(record.get(name), kind)]
    if wrong or record["kind"] not in KINDS:
        raise SnapshotError(
            f"{where}: {', '.join(wrong) or 'kind'} is missing or wrong; it was not written by retinamask"
        )
