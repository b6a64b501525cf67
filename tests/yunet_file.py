"""An ONNX file with YuNet's inputs and outputs whose one feature is blue: for tests without the published weights.

Written by https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, whose field numbers stand below.
"""

import numpy as np

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
_FLOAT, _INT64 = 1, 7


def blue_yunet(growth: float = 0) -> bytes:
    """A face of 32 pixels with its middle at the top left corner of each cell of 32 that is blue, as strong as it is.

    YuNet's decoding: the middle is the cell's corner plus the offset, the size is exp(``growth`` times how blue it
    is) strides, and the score is the square root of class times objectness.
    """
    nodes, tensors, outputs = [], [], []
    for head, channels in HEADS.items():
        for stride in STRIDES:
            name, kernel = f"{head}_{stride}", np.zeros((channels, 3, stride, stride), np.float32)
            if head in ("cls", "obj") and stride == 32:
                kernel[:, 0] = 1 / 255 / stride**2  # OpenCV gives BGR
            if head == "bbox" and stride == 32:
                kernel[2:, 0] = growth / 255 / stride**2
            tensors += [_tensor(f"{name}_w", kernel), _tensor(f"{name}_s", np.array([1, -1, channels], np.int64))]
            square = [_ints("kernel_shape", [stride] * 2), _ints("strides", [stride] * 2)]
            nodes += [
                _node("Conv", ["input", f"{name}_w"], f"{name}_c", square),
                _node("Transpose", [f"{name}_c"], f"{name}_t", [_ints("perm", [0, 2, 3, 1])]),
                _node("Reshape", [f"{name}_t", f"{name}_s"], name, []),
            ]
            outputs.append(_value(name, [1, (640 // stride) ** 2, channels]))
    graph = [*(_field(1, node) for node in nodes), _field(2, b"blue"), *(_field(5, tensor) for tensor in tensors)]
    graph += [_field(11, _value("input", [1, 3, 640, 640])), *(_field(12, output) for output in outputs)]
    return _number(1, 8) + _field(7, b"".join(graph)) + _field(8, _number(2, 13))


def _varint(value: int) -> bytes:
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _node(kind: str, inputs: list[str], output: str, attributes: list[bytes]) -> bytes:
    named = [_field(1, name.encode()) for name in inputs]
    return b"".join(
        [*named, _field(2, output.encode()), _field(3, output.encode()), _field(4, kind.encode())]
        + [_field(5, attribute) for attribute in attributes]
    )


def _ints(name: str, values: list[int]) -> bytes:
    return _field(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, 7)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dimensions = b"".join(_number(1, side) for side in array.shape)
    kind = _FLOAT if array.dtype == np.float32 else _INT64
    return dimensions + _number(2, kind) + _field(8, name.encode()) + _field(9, array.tobytes())


def _value(name: str, shape: list[int]) -> bytes:
    dimensions = b"".join(_field(1, _number(1, side)) for side in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _FLOAT) + _field(2, dimensions)))
