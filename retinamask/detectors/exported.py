"""Exports: one ONNX or LiteRT file with all that inference must know, run without TensorFlow.

An ONNX file (https://onnx.ai, opset 17) has its record in its metadata, a LiteRT file (https://ai.google.dev/edge/litert)
in a ``.tflite.json`` beside it. Both hold the training network, of which the detector reads scores and boxes in NumPy;
of a classifier the inference network.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import files
from retinamask.detectors.faster_precision import faster_precision, remembered
from retinamask.detectors.snapshots import ATTRIBUTE, CHECKSUM, FORMAT, Snapshot, SnapshotError, beside, onnx_checksum

FORMATS = {"onnx": ".onnx", "litert": ".tflite"}
BACKENDS = {"openvino": ".onnx", "onnxruntime": ".onnx", "litert": ".tflite"}
"""What runs a file of which kind; the first is a dependency of the package, the others where they are installed."""
PRECISIONS = ("auto", "float32", "bfloat16")
_SIDE_BY_SIDE = 0.1  # that bfloat16's rounding may change an output; the error below changes scores by up to 0.9
MANY_IMAGES = 100  # from so many on a measurement of bfloat16 pays

_TENSORS = threading.Lock()  # two threads that make OpenVINO's first tensors wait for each other for ever


def save(model: Any, path: Path, record: dict[str, Any]) -> Snapshot:
    """Write an export whole or not at all: an ``onnx.ModelProto`` or the bytes of a LiteRT model."""
    record = {"format": FORMAT, **record, "created": datetime.now(UTC).isoformat(timespec="microseconds")}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, allow_nan=False)
    try:
        with files.replacing(path) as temporary:
            if path.suffix == ".onnx":
                import onnx

                onnx.helper.set_model_props(model, {ATTRIBUTE: text, CHECKSUM: onnx_checksum(model, text)})
                model = model.SerializeToString()
            temporary.write_bytes(model)
            checksum = files.sha256(temporary)
            if path.suffix == ".tflite":
                files.write_json(beside(path), {**record, "weights_sha256": checksum})
    except OSError as error:
        if not files.is_full(error):
            raise
        raise SnapshotError(f"{path}: the disk is full; free space and export again") from None
    return Snapshot(path, {**record, "weights_sha256": checksum})


class ExportedNetwork:
    """The network of an export, called as a tf-keras model is; several threads may call it at once.

    Attributes:
        snapshot: the export.
        backend: what runs it, one of `BACKENDS`.
        precision: ``float32`` or ``bfloat16``, what convolutions that are not int8 are computed in.
    """

    def __init__(self, snapshot: Snapshot, backend: str | None = None, precision: str = "auto"):
        """Load a network.

        Args:
            snapshot: an export.
            backend: one of `BACKENDS`; ``openvino`` or ``litert`` by the file if left out.
            precision: one of `PRECISIONS`; ``auto`` is float32 until `measure` has found bfloat16 faster, once on
                each machine. Only OpenVINO computes in bfloat16; beside int8 it would gain little and cost accuracy.

        Raises:
            SnapshotError: the backend is unknown, not installed, for other files, or cannot run the network.
        """
        suffix = snapshot.weights.suffix
        backend = backend or next(name for name, kind in BACKENDS.items() if kind == suffix)
        if BACKENDS.get(backend) != suffix:
            fitting = [name for name, kind in BACKENDS.items() if kind == suffix]
            raise SnapshotError(
                f"{snapshot.weights}: backend is {backend}, expected {' or '.join(fitting)} for {suffix}"
            )
        module = "ai_edge_litert" if backend == "litert" else backend
        if find_spec(module) is None:
            package = module.replace("_", "-")
            raise SnapshotError(f"backend {backend} is not installed; install it with: pip install {package}")
        known = PRECISIONS if backend == "openvino" else ("auto", "float32")
        if precision not in known:
            found = f"{snapshot.weights}: precision is {precision}, expected {' or '.join(known)} of {backend}"
            raise SnapshotError(f"{found}; bfloat16 is of openvino alone, int8 is chosen when exporting")
        if precision == "auto" and snapshot.record["export"]["precision"] == "int8":
            precision = "float32"
        self.snapshot, self.backend, self._wanted = snapshot, backend, precision
        self.precision = "float32" if precision == "auto" else precision
        self._own = threading.local()
        if precision == "auto" and backend == "openvino":
            self.precision = (remembered(self._key()) or {"precision": "float32"})["precision"]
        self._load()

    def predict_on_batch(self, batch: np.ndarray) -> list[np.ndarray]:
        """Give the outputs of a network input ``float32 (N, height, width, 3)``."""
        if self.backend == "litert":
            return self._in_litert(batch)
        blob = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        if self.backend == "onnxruntime":
            with self._explained():  # some of what it lacks shows only here
                return self._session.run(None, {"image": blob})
        import openvino

        with _TENSORS:
            if not hasattr(self._own, "request") or self._own.of is not self._compiled:
                self._own.request, self._own.of = self._compiled.create_infer_request(), self._compiled
            request = self._own.request
            request.set_input_tensor(openvino.Tensor(blob, shared_memory=True))
            request.start_async()
        request.wait()
        with _TENSORS:
            return [np.array(request.get_output_tensor(place).data) for place in range(self._outputs)]

    @contextlib.contextmanager
    def many(self, batch: np.ndarray) -> Iterator[None]:
        """Compute calls of several threads side by side, a core each, while the block runs, if that gives the same.

        `measure` comes first.
        """
        self.measure(batch)
        if self.backend != "openvino":
            yield
            return
        one_on_all_cores, expected = self._compiled, self.predict_on_batch(batch)
        try:
            self._load("THROUGHPUT")
            # OpenVINO 2026.4 then computes int8 convolutions that share weights, as RetinaNet's heads do, wrongly
            pairs = zip(expected, self.predict_on_batch(batch), strict=True)
            if not all(np.allclose(one, other, atol=_SIDE_BY_SIDE) for one, other in pairs):
                self._compiled = one_on_all_cores
            yield
        finally:
            self._compiled = one_on_all_cores

    def measure(self, batch: np.ndarray) -> None:
        """Choose for ``auto`` between float32 and bfloat16 by their time for a network input, once on each machine."""
        import openvino

        bfloat16 = self.backend == "openvino" and "BF16" in openvino.Core().get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        )
        if self._wanted != "auto" or not bfloat16 or remembered(self._key()):
            return
        loaded = {}

        def seconds(precision: str) -> float:
            self._compiled, begun = loaded[precision], time.perf_counter()
            self.predict_on_batch(batch)
            return time.perf_counter() - begun

        for self.precision in ("float32", "bfloat16"):
            self._load()
            loaded[self.precision] = self._compiled
        self.precision = faster_precision(self._key(), "a call", {name: partial(seconds, name) for name in loaded})
        self._compiled = loaded[self.precision]

    def _load(self, hint: str = "LATENCY") -> None:
        path = str(self.snapshot.weights)
        with self._explained():
            if self.backend == "openvino":
                import openvino

                hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self.precision]}
                self._compiled = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": hint, **hints})
                self._outputs = len(self._compiled.outputs)
            elif self.backend == "onnxruntime":
                import onnxruntime

                self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            else:
                from ai_edge_litert.interpreter import Interpreter

                self._interpreter = Interpreter(path, num_threads=os.cpu_count())
                self._runner = self._interpreter.get_signature_runner()
                self._lock = threading.Lock()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the runtime, each has its own kinds, into one that says what to do."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[-300:]
            found = f"{self.snapshot.weights}: {self.backend} cannot run it ({reason})"
            raise SnapshotError(f"{found}; take another backend") from None

    def _in_litert(self, batch: np.ndarray) -> list[np.ndarray]:
        """LiteRT's networks take one image, and one after the other."""
        with self._lock:
            each = [self._runner(image=image[None].astype(np.float32)) for image in batch]
        return [np.concatenate([found[name] for found in each]) for name in sorted(each[0])]

    def _key(self) -> str:
        """All that the time of a call depends on."""
        import openvino

        processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
        return (
            f"{processor} x {os.cpu_count()}, openvino {openvino.__version__}, {self.snapshot.record['weights_sha256']}"
        )
