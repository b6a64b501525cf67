"""Which snapshots stay, over whole made-up runs, interrupted ones among them."""

import logging

import pytest
from stub_network import Network, held

from retinamask.detectors import snapshots
from retinamask.training.checkpoints import refuse_existing, run_stem
from retinamask.training.loop import SnapshotKeeper
from retinamask.training.settings import TrainingError


def saving(row):
    def save(path):
        record = {"kind": "training", "detector": "d", "classes": {"mask": 0}, "settings": {}}
        training = {"epoch": row["epoch"], "metrics": row, "best": False}
        return snapshots.save(Network(f"epoch {row['epoch']}"), path, {**record, "training": training})

    return save


def run(keeper, rows, before=()):
    """Keep the snapshots of the epochs of ``rows``, after those of ``before``."""
    log = list(before)
    for row in rows:
        log.append(row)
        keeper.after_epoch(log, saving(row))


def rows(*figures, first=1):
    """Each epoch's AP50, or None where it was not evaluated; the loss falls."""
    return [
        {"epoch": epoch, "loss": 1 / epoch, **({} if value is None else {"AP50": value, "AP": 0.1})}
        for epoch, value in enumerate(figures, first)
    ]


def names(folder):
    """What lies there, checked to be whole pairs, without the suffix."""
    stems = sorted(path.stem for path in folder.glob("*.h5"))
    assert stems == sorted(path.stem for path in folder.glob("*.json"))
    return stems


def epoch_of(snapshot):
    found = snapshots.read(snapshot.weights)
    assert found == snapshot
    assert held(found.weights) == f"epoch {found.record['training']['epoch']}"
    return found.record["training"]["epoch"]


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ((0.5, 0.7, 0.6), 2),
        ((0.5, 0.5, 0.5), 3),  # equal AP50 and AP, lower loss
        ((None, 0.0, None), 2),
        ((None, None, None), 3),
    ],
)
def test_best_and_last(figures, best, tmp_path):
    keeper = SnapshotKeeper(tmp_path / "new" / "run")
    run(keeper, rows(*figures))
    assert names(tmp_path / "new") == ["run_best", "run_last"]
    assert (epoch_of(keeper.best), epoch_of(keeper.last)) == (best, 3)
    assert keeper.best.record["training"]["best"] and not keeper.last.record["training"]["best"]


@pytest.mark.parametrize(
    ("second", "best"),
    [({"AP50": 0.5, "AP": 0.3}, 2), ({"AP50": 0.5, "AP": 0.2, "loss": 3.0}, 1), ({"AP50": 0.4, "AP": 0.9}, 1)],
)
def test_the_rank_is_ap50_then_ap_then_loss(second, best, tmp_path):
    keeper = SnapshotKeeper(tmp_path / "run")
    run(keeper, [{"epoch": 1, "loss": 2.0, "AP50": 0.5, "AP": 0.2}, {"epoch": 2, "loss": 2.0, **second}])
    assert epoch_of(keeper.best) == best


@pytest.mark.parametrize(
    ("second", "best"),
    [
        ({"accuracy": 0.9, "val_loss": 0.2}, 2),
        ({"accuracy": 0.9, "val_loss": 0.4, "loss": 0.1}, 1),
        ({"accuracy": 0.91, "val_loss": 0.4}, 2),
        ({"accuracy": 0.89, "val_loss": 0.1}, 1),
        ({"loss": 0.1}, 1),  # not evaluated
    ],
)
def test_the_rank_of_a_classifier_is_accuracy_then_the_loss_on_validation_images(second, best, tmp_path):
    keeper = SnapshotKeeper(tmp_path / "run")
    run(keeper, [{"epoch": 1, "loss": 2.0, "accuracy": 0.9, "val_loss": 0.3}, {"epoch": 2, "loss": 2.0, **second}])
    assert epoch_of(keeper.best) == best


@pytest.mark.parametrize(
    ("keep_best", "keep_last", "numbered"),
    [(1, 1, []), (2, 1, [2, 4, 6]), (1, 2, [2, 5, 6]), (3, 3, [1, 2, 4, 5, 6]), (9, 1, [1, 2, 3, 4, 5, 6])],
)
def test_the_best_and_the_last_stay(keep_best, keep_last, numbered, tmp_path):
    keeper = SnapshotKeeper(tmp_path / "run", keep_best, keep_last)
    run(keeper, rows(0.6, 0.9, 0.3, 0.8, 0.5, 0.1))
    assert names(tmp_path) == [f"run_{epoch:03d}" for epoch in numbered] + ["run_best", "run_last"]
    for epoch in numbered:
        found = snapshots.read(tmp_path / f"run_{epoch:03d}.h5")
        assert (epoch_of(found), found.record["training"]["best"]) == (epoch, False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_of_someone_else_stays(tmp_path):
    (tmp_path / "run_002.h5").write_text("mine")
    (tmp_path / "run_007.json").write_text("mine")
    keeper = SnapshotKeeper(tmp_path / "run", keep_last=2)
    run(keeper, rows(0.9, 0.1, 0.2, 0.3, 0.4, 0.5, first=11))
    assert (tmp_path / "run_002.h5").read_text() == (tmp_path / "run_007.json").read_text() == "mine"


@pytest.mark.parametrize("saved_after", range(7))
@pytest.mark.parametrize("died_after", [0, 1, 2])
def test_an_interrupted_run_leaves_what_a_whole_one_leaves(saved_after, died_after, tmp_path):
    """Epochs that were finished after the last checkpoint come again."""
    figures = rows(0.6, 0.9, 0.3, 0.8, 0.5, 0.1)
    run(SnapshotKeeper(tmp_path / "whole" / "run", 2, 2), figures)
    first, second = (SnapshotKeeper(tmp_path / "cut" / "run", 2, 2) for _ in range(2))
    run(first, figures[: saved_after + died_after])
    second.find(figures[:saved_after])
    run(second, figures[saved_after:], before=figures[:saved_after])
    assert names(tmp_path / "cut") == names(tmp_path / "whole")
    assert (epoch_of(second.best), epoch_of(second.last)) == (2, 6)
    for name in names(tmp_path / "cut"):
        assert held(tmp_path / "cut" / f"{name}.h5") == held(tmp_path / "whole" / f"{name}.h5")


def test_a_best_snapshot_that_is_gone(tmp_path, caplog):
    keeper = SnapshotKeeper(tmp_path / "run")
    run(keeper, rows(0.9))
    snapshots.remove(tmp_path / "run_best.h5")
    other = SnapshotKeeper(tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        other.find(rows(0.9))
    assert "run_best.h5 does not exist" in caplog.text and other.best is None
    run(other, rows(0.4, 0.5, 0.3, first=2), before=rows(0.9))
    assert epoch_of(other.best) == 3


@pytest.mark.parametrize("name", ["best.h5", "last.json", "001.h5", "1234.json", "checkpoint-00000001.npz"])
def test_an_existing_run_is_refused(name, tmp_path):
    (tmp_path / f"r[u]n*_{name}").write_text("")
    with pytest.raises(TrainingError, match=r"r\[u\]n\*_.* exists; choose another run name, move it away, or resume"):
        refuse_existing(tmp_path / "r[u]n*")


def test_other_files_are_in_nobodys_way(tmp_path):
    for name in ("run2_best.h5", "run_best_inference.h5", "run_12.h5", "run_log.csv", "arun_last.h5", "run_x_001.h5"):
        (tmp_path / name).write_text("")
    refuse_existing(tmp_path / "run")
    refuse_existing(tmp_path / "nowhere" / "run")


def test_a_run_that_is_resumed_is_the_last_one_begun(tmp_path):
    assert run_stem(tmp_path, "run") == run_stem(tmp_path, "run", resume=True) == tmp_path / "run"
    (tmp_path / "run_best.h5").write_text("")
    assert (
        run_stem(tmp_path, "run") == tmp_path / "run-2" and run_stem(tmp_path, "run", resume=True) == tmp_path / "run"
    )
    (tmp_path / "run-2_checkpoint-00000003.state").write_text("")
    assert run_stem(tmp_path, "run").name == "run-3" and run_stem(tmp_path, "run", resume=True).name == "run-2"
