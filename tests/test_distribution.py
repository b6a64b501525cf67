"""Several devices and several machines: what is read of them, and that training is the same as on one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from train_worker import losses, train_runs

from retinamask import detectors
from retinamask.dataset.sample import CLASSES
from retinamask.training import distribution
from retinamask.training.settings import TrainingError, TrainingSettings

SCRIPT = Path(__file__).with_name("train_worker.py")
TWO = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}


def free_ports(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


def of_workers(count: int) -> list[dict[str, str]]:
    """Environments of processes that train together on this machine."""
    workers = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [{"TF_CONFIG": json.dumps({"cluster": workers, "task": task})} for task in tasks]


def started(path: Path, environments: list[dict[str, str]], **given) -> list[subprocess.Popen]:
    """Start a training process in each environment, see train_worker.py."""
    path.write_text(json.dumps(given))
    command, pipes = [sys.executable, str(SCRIPT), str(path)], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return [subprocess.Popen(command, env=os.environ | one, text=True, **pipes) for one in environments]


def ended(processes: list[subprocess.Popen], seconds: float = 600) -> list[tuple[int, str]]:
    """Exit status and output of each; none is left behind."""
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in processes]
        return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory) -> dict[int, float]:
    """The losses of a run on one device."""
    stem = tmp_path_factory.mktemp("alone") / "alone"
    train_runs(tiny, {str(stem): {}})
    return losses(stem)


@pytest.mark.slow  # beside two workers, and parts of a batch in test_train
def test_two_devices_that_accumulate_train_as_one_that_does_not(alone, tiny, tmp_path):
    environment, runs = {"RETINAMASK_DEVICES": "CPU:0,CPU:1"}, {str(tmp_path / "two"): {"accumulate": 2}}
    [(status, printed)] = ended(started(tmp_path / "given.json", [environment], folder=str(tiny), runs=runs))
    assert status == 0, printed
    assert losses(tmp_path / "two") == pytest.approx(alone, rel=1e-4)
    record = json.loads((tmp_path / "two_last.json").read_text())
    assert record["training"]["devices"] == "2 CPUs"
    assert record["training"]["metrics"]["regularization_loss"] > 0.1 * alone[6]
    assert len(alone) == 6 and alone[1] != pytest.approx(alone[6], rel=0.01)


def test_two_workers_train_as_one_device(alone, tiny, tmp_path):
    runs = {str(tmp_path / "pair"): {}}
    both = ended(started(tmp_path / "given.json", of_workers(2), folder=str(tiny), runs=runs))
    assert [status for status, _ in both] == [0, 0], both
    assert losses(tmp_path / "pair") == pytest.approx(alone, rel=1e-4)
    record = json.loads((tmp_path / "pair_last.json").read_text())
    assert record["training"]["devices"] == "2 workers x 1 CPU"
    assert "epoch 2/2" in both[0][1] and "epoch" not in both[1][1]  # only the chief prints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "by", "expected"),
    [(1, signal.SIGKILL, -signal.SIGKILL), (0, signal.SIGTERM, -signal.SIGINT)],  # SIGTERM stops training as Ctrl-C
)
def test_a_lost_worker_stops_the_run_and_one_that_is_left_resumes_it(alone, tiny, tmp_path, victim, by, expected):
    stem = tmp_path / "torn"
    given = {"folder": str(tiny), "runs": {str(stem): {}}}
    both = ended(started(tmp_path / "given.json", of_workers(2), die=[victim, 5, by], **given))
    assert both[victim][0] == expected, both[victim][1]
    status, printed = both[1 - victim]
    assert status == 1 and "TrainingError: a worker was lost: one of the 2" in printed, printed
    assert "Start again with resume" in printed
    before = losses(stem)
    assert set(before) >= {1, 2, 3} and 5 not in before
    train_runs(tiny, given["runs"], resume=True)
    assert sorted(losses(stem)) == [1, 2, 3, 4, 5, 6]
    assert {**before, **losses(stem)} == pytest.approx(alone, rel=1e-4)


def test_keras_retinanets_losses_differ_when_a_batch_is_dealt_out_and_ours_do_not():
    """Two images on two devices, of which one has more positive anchors and larger errors."""
    from keras_retinanet import losses as theirs

    detector = detectors.create("retinanet", CLASSES, image_size=64)
    boxes, labels = np.float32([[[8, 8, 56, 56]], [[14, 14, 42, 42]]]), np.int32([[0], [1]])
    sizes_wh = np.int32([[64, 64], [64, 64]])
    targets = detector.targets(boxes, labels, sizes_wh, (64, 64))
    batch = {"images": np.zeros((2, 64, 64, 3), np.uint8), "sizes_wh": sizes_wh, "boxes": boxes, "labels": labels}
    batch |= {name: value.numpy() for name, value in targets.items()}
    random = np.random.default_rng(0)
    outputs = [random.normal(size=(2, 774, 4)).astype("f4"), random.uniform(0.01, 0.5, (2, 774, 2)).astype("f4")]
    outputs[0][1] /= 10
    halves = [slice(0, 1), slice(1, 2)]
    dealt = [({name: v[half] for name, v in batch.items()}, [v[half] for v in outputs]) for half in halves]
    counts = [{name: float(v) for name, v in detector.counts(part).items()} for part, _ in dealt]
    assert counts[0] != counts[1] and all(count["classification_loss"] >= 1 for count in counts)

    for number, name, loss in [
        (0, "localization_loss", theirs.smooth_l1()),
        (1, "classification_loss", theirs.focal()),
    ]:
        whole = float(loss(detector.dense_targets(batch)[number], outputs[number]))
        per_replica = [float(loss(detector.dense_targets(part)[number], out[number])) for part, out in dealt]
        assert abs(sum(per_replica) / 2 / whole - 1) > 0.1
        ours = sum(float(detector.losses(out, part)[name]) for part, out in dealt)
        assert ours / sum(count[name] for count in counts) == pytest.approx(whole, rel=1e-5)


def test_a_batch_that_does_not_divide_is_named_with_the_nearest_that_do(monkeypatch):
    monkeypatch.setattr(distribution, "describe", lambda strategy: "3 GPUs")
    three = SimpleNamespace(num_replicas_in_sync=3)
    distribution.check_batch(three, TrainingSettings(batch_size=12, accumulate=2))
    with pytest.raises(TrainingError, match="batch_size 8 cannot be divided among 3 GPUs in 2 part.*6 or 12"):
        distribution.check_batch(three, TrainingSettings(batch_size=8, accumulate=2))
    with pytest.raises(TrainingError, match="the nearest is 3"):
        distribution.check_batch(three, TrainingSettings(batch_size=2))


def test_alone_nothing_is_distributed(monkeypatch):
    for config in ("", json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}})):
        monkeypatch.setenv("TF_CONFIG", config)
        strategy = distribution.strategy()
        assert distribution.is_default(strategy) and distribution.describe(strategy) == "1 device"
        assert distribution.shard(strategy) == (0, 1) and distribution.is_chief(strategy)
        assert distribution.from_chief(strategy, np.float32([1, np.nan])).dtype == np.float32


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("RETINAMASK_DEVICES", "GPU:7")
    with pytest.raises(TrainingError, match="no device GPU:7 here; there are: CPU:0"):
        distribution.strategy()
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(TrainingError, match="asks for GPU:7, .*choose among them with CUDA_VISIBLE_DEVICES"):
        distribution.strategy()


def test_workers_must_be_first_to_use_tensorflow(monkeypatch):
    import tensorflow

    assert float(tensorflow.constant(1.0)) == 1
    monkeypatch.setattr(distribution, "wait_for_all", lambda cluster: None)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 0}}))
    with pytest.raises(TrainingError, match="training must begin before TensorFlow computes anything"):
        distribution.strategy()


def test_a_worker_that_sees_something_else_than_the_chief_says_what(monkeypatch):
    chief, sent = {"checkpoint": 40, "seed": 0}, []
    monkeypatch.setattr(distribution, "shard", lambda strategy: (0, 2))
    monkeypatch.setattr(distribution, "from_chief", lambda strategy, values: sent.append(values) or values)
    distribution.check_agreement(None, chief)
    monkeypatch.setattr(distribution, "shard", lambda strategy: (1, 2))
    monkeypatch.setattr(distribution, "from_chief", lambda strategy, values: sent[0])
    distribution.check_agreement(None, dict(chief))
    with pytest.raises(TrainingError, match="worker 1 of 2 does not see the same as worker 0: checkpoint. All workers"):
        distribution.check_agreement(None, {**chief, "checkpoint": None})


def test_only_the_loss_of_a_worker_is_taken_for_one(monkeypatch):
    from tensorflow import errors

    lost = errors.UnavailableError(None, None, "Graph execution error:\n\nCollective ops is aborted by: Socket closed")
    with pytest.raises(errors.UnavailableError), distribution.stopping_together(distribution.strategy()):
        raise lost
    monkeypatch.setattr(distribution, "shard", lambda strategy: (0, 2))
    message = r"a worker was lost.*\(Collective ops is aborted by: Socket closed\)"
    with pytest.raises(TrainingError, match=message), distribution.stopping_together(None):
        raise lost
    with pytest.raises(ZeroDivisionError), distribution.stopping_together(None):
        raise ZeroDivisionError


def test_a_cluster_is_read(monkeypatch):
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "[::1]:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.read_cluster() == distribution.Cluster(("a:1", "b:1", "[::1]:2"), 2)
    monkeypatch.setenv("TF_CONFIG", json.dumps({**config, "task": {"type": "chief", "index": 0}}))
    assert distribution.read_cluster().index == 0
    monkeypatch.setenv("TF_CONFIG", " ")
    assert distribution.read_cluster() is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{'cluster':", r"TF_CONFIG cannot be read \(JSONDecodeError.*\): \{'cluster':"),
        ("{}", r"TF_CONFIG cannot be read \(KeyError\('cluster'\)\): \{\}"),
        ("[1]", r"TF_CONFIG cannot be read .*: \[1\]"),
        ('{"cluster": []}', r"has the cluster \[\], expected different addresses"),
        ({"cluster": {"worker": []}}, r"has the cluster \{'worker': \[\]\}, expected different addresses"),
        ({"cluster": {"worker": "10.0.0.1:2222"}}, 'cannot be read .*: {"cluster": {"worker": "10.0.0.1:2222"}}'),
        ({"cluster": {"worker": [1]}}, "cannot be read"),
        ({"cluster": {"worker": ["10.0.0.1"]}}, "has the address '10.0.0.1', which is not host:port"),
        ({"cluster": {"worker": ["a:99999"]}}, "has the address 'a:99999', which is not host:port"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, r"\['a:1', 'a:1'\]\}, expected different addresses"),
        ({"cluster": {**TWO, "ps": ["c:1"]}}, r"'ps': \['c:1'\]\}, expected .* all of a chief or of workers"),
        ({"cluster": TWO}, "has the task None, expected the type and index of one of {'worker': "),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, "'index': 2}, expected the type and index of one"),
        ({"cluster": TWO, "task": {"type": "worker", "index": "0"}}, "'index': '0'}, expected the type and index"),
        ({"cluster": TWO, "task": {"type": "chief", "index": 0}}, "'chief', 'index': 0}, expected the type"),
    ],
)
def test_a_wrong_cluster_is_named_and_an_example_given(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(TrainingError, match=message) as raised:
        distribution.strategy()
    assert '"task": {"type": "worker", "index": 0}' in str(raised.value)


def test_workers_wait_for_each_other():
    ports = free_ports(3)
    addresses, ready, all_there = tuple(f"127.0.0.1:{port}" for port in ports), [], threading.Barrier(3)

    def join(index: int) -> None:
        distribution.wait_for_all(distribution.Cluster(addresses, index), seconds=60)
        with socket.create_server(("", ports[index])):  # TensorFlow answers there from now on
            ready.append(index)
            all_there.wait(60)

    threads = [threading.Thread(target=join, args=(index,)) for index in range(3)]
    threads[0].start()
    threads[1].start()
    threads[0].join(1)
    assert not ready
    threads[2].start()
    for thread in threads:
        thread.join()
    assert sorted(ready) == [0, 1, 2]


def test_a_worker_that_does_not_come_is_named():
    here, there = free_ports(2)
    with pytest.raises(TrainingError, match=rf"1 of 2 workers did not answer within 0 s: 127.0.0.1:{there}"):
        distribution.wait_for_all(distribution.Cluster((f"127.0.0.1:{here}", f"127.0.0.1:{there}"), 0), seconds=0)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrainingError, match=f"port {port}, which TF_CONFIG gives this worker, cannot be opened"):
            distribution.wait_for_all(distribution.Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0))
