"""Read and write Darknet ``.weights`` files, and put them into a network.

The format is that of https://github.com/AlexeyAB/darknet (``src/parser.c``): three ``int32`` for the version, how many
images training has seen, then ``float32`` numbers only, without names or sizes. Of each convolution, in the order of
the cfg: biases (or the betas of its normalisation, then gammas, means and variances), then the kernel as
(filters, channels, height, width). All little-endian. A file ``*.conv.NN`` stops before layer NN.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinamask.dataset import files
from retinamask.detectors.darknet.cfg import MAX_CLASSES, Layer, Network
from retinamask.detectors.starting_weights import Loaded, WeightsError

VERSION = (0, 2, 5)
"""The version that AlexeyAB's Darknet writes."""

_PARTIAL = re.compile(r"\.conv\.([0-9]{1,4})$")


def _seen_format(version: tuple[int, int, int]) -> str:
    return "<Q" if 10 * version[0] + version[1] >= 2 else "<i"  # 4 bytes before version 0.2


@dataclass(frozen=True, eq=False)
class DarknetWeights:
    """The content of a ``.weights`` file: its version, images seen in training, and its ``float32`` numbers."""

    version: tuple[int, int, int]
    seen: int
    numbers: np.ndarray

    def to_bytes(self) -> bytes:
        """Give the bytes of the file."""
        seen = struct.pack(_seen_format(self.version), self.seen)
        return struct.pack("<3i", *self.version) + seen + self.numbers.astype("<f4").tobytes()


def read(path: str | Path) -> DarknetWeights:
    """Read a ``.weights`` file, whole or ``*.conv.NN``.

    Raises:
        WeightsError: no such file, cut off within its header or a number, of an unknown version, or with numbers that
            are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; expected a Darknet .weights file")
    content = path.read_bytes()
    if len(content) < 16:
        raise WeightsError(f"{path} has {len(content)} bytes, expected a header of 16 or 20; fetch the file again")
    version = struct.unpack_from("<3i", content)
    if not all(0 <= part < 1000 for part in version):
        raise WeightsError(f"{path}: version {version} in its first 12 bytes, expected one such as {VERSION}")
    start = 12 + struct.calcsize(_seen_format(version))
    if len(content) < start or (len(content) - start) % 4:
        raise WeightsError(
            f"{path} has {len(content)} bytes, expected {start} and a multiple of 4; it is cut off, fetch it again"
        )
    (seen,) = struct.unpack_from(_seen_format(version), content, 12)
    numbers = np.frombuffer(content, "<f4", offset=start)
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise WeightsError(
            f"{path}: number {place} of {len(numbers)} is {numbers[place]}, expected finite ones; the file is damaged "
            "or its training had diverged"
        )
    return DarknetWeights(version, seen, numbers)


def load(model, network: Network, path: str | Path) -> Loaded:
    """Put the numbers of a file into ``model`` as `network.build` makes it; nothing is changed if they do not fit.

    A whole file must hold every layer; ``*.conv.NN`` every layer before layer NN. If a whole file fits but for
    another number of classes, the convolutions before each ``[yolo]`` keep their weights and are ``unmapped``.

    Raises:
        WeightsError: the file is damaged or for another network.
    """
    path = Path(path)
    numbers = read(path).numbers
    partial = _PARTIAL.search(path.name)
    stop = int(partial[1]) if partial else len(network.layers)
    wanted = [layer for layer in network.convolutions if layer.index < stop]
    sizes = [layer.parameters for layer in wanted]
    if not wanted:
        raise WeightsError(f"{path}: no layer before layer {stop}, expected *.conv.NN with a larger NN")
    left_out = {}
    if sum(sizes) != len(numbers):
        left_out = {} if partial else _heads_of_other_classes(network, len(numbers))
        if not left_out:
            raise WeightsError(_misfit(path, wanted, len(numbers), bool(partial)))
        sizes = [left_out.get(layer.index, layer.parameters) for layer in wanted]
    arrays = {}
    for layer, part in zip(wanted, np.split(numbers, np.cumsum(sizes)[:-1]), strict=True):
        if layer.index not in left_out:
            arrays.update(_arrays(layer, part, path))
    for name, weights in arrays.items():
        model.get_layer(name).set_weights(weights)
    return Loaded(len(wanted) - len(left_out), unmapped=[f"conv_{index:02d}" for index in left_out])


def write(model, network: Network, path: str | Path, seen: int = 0) -> None:
    """Write the weights of a network for Darknet and OpenCV, in place of an existing file.

    The cfg that goes with it is the ``text`` of ``network``. Darknet continues its schedule from the images ``seen``.
    """
    parts = []
    for layer in network.convolutions:
        kernel, *bias = model.get_layer(f"conv_{layer.index:02d}").get_weights()
        if layer.batch_normalize:
            gamma, beta, mean, variance = model.get_layer(f"norm_{layer.index:02d}").get_weights()
            bias = [beta, gamma, mean, variance]
        parts += [*bias, kernel.transpose(3, 2, 0, 1).ravel()]
    numbers = np.concatenate(parts)
    content = DarknetWeights(VERSION, seen, numbers).to_bytes()
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def _arrays(layer: Layer, numbers: np.ndarray, path: Path) -> dict[str, list[np.ndarray]]:
    """Give the Keras weights of a convolution and of its normalisation by name, from its part of a file."""
    filters = layer.filters
    vectors = numbers[: -filters * layer.in_channels * layer.size**2].reshape(-1, filters)
    kernel = numbers[vectors.size :].reshape(filters, layer.in_channels, layer.size, layer.size).transpose(2, 3, 1, 0)
    if not layer.batch_normalize:
        return {f"conv_{layer.index:02d}": [kernel, vectors[0]]}
    beta, gamma, mean, variance = vectors
    if (variance < 0).any():
        raise WeightsError(
            f"{path}: layer {layer.index} (line {layer.line} of the cfg) has the variance {variance.min():g}, expected "
            "none below 0; the file belongs to another network of the same size"
        )
    return {f"conv_{layer.index:02d}": [kernel], f"norm_{layer.index:02d}": [gamma, beta, mean, variance]}


def _heads_of_other_classes(network: Network, found: int) -> dict[int, int]:
    """Give by index how many of the ``found`` numbers each last convolution has, if only the classes differ."""
    trunk = sum(layer.parameters for layer in network.convolutions)
    per_filter, filters_per_class = {}, {}
    for layer, head in zip(network.last_convolutions, network.heads, strict=True):
        trunk -= layer.parameters
        per_filter[layer.index] = layer.parameters // layer.filters
        filters_per_class[layer.index] = len(head.mask)
    step = sum(per_filter[index] * filters_per_class[index] for index in per_filter)
    values, remainder = divmod(found - trunk, step)
    if remainder or not 1 <= values - 5 <= MAX_CLASSES:
        return {}
    return {index: values * per_filter[index] * filters_per_class[index] for index in per_filter}


def _misfit(path: Path, wanted: list[Layer], found: int, partial: bool) -> str:
    """Describe a file with too few or too many numbers."""
    expected = sum(layer.parameters for layer in wanted)
    begin = f"{path} has {found} numbers, expected {expected} for {len(wanted)} convolutions"
    start = 0
    for layer in wanted:
        if found < start + layer.parameters:
            what = f"layer {layer.index} (line {layer.line} of the cfg: {layer.filters} filters of size {layer.size})"
            advice = "" if partial else "; the first layers alone are read from a file named *.conv.NN, NN of them"
            return (
                f"{begin}: it ends in {what}, which has {found - start} of {layer.parameters} numbers; it is cut off "
                f"or belongs to another network{advice}"
            )
        start += layer.parameters
    return f"{begin}: {found - expected} are left over after the last one; it belongs to another network"
