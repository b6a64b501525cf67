"""The snapshot that a run takes: the one that is named, or what it has trained itself."""

import json
from pathlib import Path

from retinamask.detectors import snapshots

MOST_LISTED = 10


def own_snapshot(
    snapshot: str, run_dir: str | Path, snapshots_dir: str | Path, *kinds: str, classifier: bool = False
) -> snapshots.Snapshot:
    """Read the named snapshot, or else the newest that the run of this folder has left; never that of another run.

    Args:
        snapshot: path of an `.h5`, or empty.
        run_dir: the run's folder, whose name its snapshots remember.
        snapshots_dir: where to look, not in folders below it.
        kinds: ``training`` and ``inference``, the preferred one first.
        classifier: look for a classifier of faces instead of a detector.

    Raises:
        ValueError: the run has none; the message names those that there are.
        SnapshotError: a file is missing or damaged.
    """
    if snapshot:
        return snapshots.read(snapshot)
    run, found, others = Path(run_dir).name, [], []
    for path in sorted(Path(snapshots_dir).glob("[!.]*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            training, is_classifier = record.get("training", {}), record["detector"] == "mask_classifier"
            rank = -kinds.index(record["kind"]), training.get("started", ""), training.get("best", False), str(path)
        except (ValueError, KeyError, AttributeError):
            continue  # no snapshot's description, or not of these kinds
        if is_classifier == classifier:
            (found if training.get("run") == run else others).append(rank)
    if found:
        return snapshots.read(max(found)[-1])
    first = "08_train_mask_classifier" if classifier else "a training notebook"
    first += "" if "training" in kinds else " and 03_convert_snapshot"
    listed = ", ".join(rank[-1].replace(".json", ".h5") for rank in others[:MOST_LISTED])
    more = f" and {len(others) - MOST_LISTED} more" if len(others) > MOST_LISTED else ""
    raise ValueError(
        f"the run {run!r} has no {' or '.join(kinds)} snapshot in {snapshots_dir}; run {first} in this run first, or "
        f"name one with the parameter snapshot; there are: {listed or 'none'}{more}"
    )
