"""Darknet's weights: read, loaded whole or in part, written byte for byte, and refused when they do not fit."""

import struct

import numpy as np
import pytest
from darknet_networks import SMALL_CFG, described, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from retinamask.detectors import _keras
from retinamask.detectors.darknet import cfg, network, weights
from retinamask.detectors.starting_weights import Loaded, WeightsError

SMALL, THREE = cfg.describe(SMALL_CFG), described(2)
NUMBERS = 248 + 32 + 189


@pytest.fixture(scope="module")
def small():
    return network.build(SMALL, seed=1)


@pytest.fixture(scope="module")
def tiny():
    """YOLOv4-tiny for three classes."""
    return network.build(THREE, seed=9)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """The weights of a YOLOv4-tiny for 80 classes, and the network that they come from."""
    description = described(2, classes=80)
    model = drawn(description, seed=5)
    path = tmp_path_factory.mktemp("coco") / "coco.weights"
    weights.write(model, description, path)
    return path, model


def clone(model):
    copy = _keras.prepare().models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def content(count: int = NUMBERS, version=(0, 2, 5), seen: int = 6400) -> bytes:
    """A file whose numbers count up from 0."""
    return struct.pack("<3iQ", *version, seen) + np.arange(count, dtype="<f4").tobytes()


@pytest.fixture
def file(tmp_path):
    """A function that writes bytes into a file and gives its path."""

    def written(data: bytes, name: str = "a.weights"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return written


@pytest.mark.parametrize(("version", "head"), [((0, 2, 5), "<3iQ"), ((0, 1, 0), "<3ii"), ((1, 0, 0), "<3iQ")])
def test_read_and_written_again_is_the_same_file(small, version, head, file, tmp_path):
    """``seen`` has 64 bits from version 0.2 on."""
    seen = 2**40 if head == "<3iQ" else 2**20
    numbers = np.random.default_rng(0).uniform(0, 2, NUMBERS).astype("<f4")
    path = file(struct.pack(head, *version, seen) + numbers.tobytes())
    stored = weights.read(path)
    assert stored.version == version and stored.seen == seen and np.array_equal(stored.numbers, numbers)
    assert weights.load(small, SMALL, path).layers == 3
    weights.write(small, SMALL, tmp_path / "b.weights", stored.seen)
    assert path.read_bytes() == stored.to_bytes()
    if version == weights.VERSION:
        assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()


def test_numbers_go_where_darknet_has_them(small, file):
    """Numbers that count up: 8 betas, gammas, means, variances, then 8 x 3 x 3 x 3 of the kernel, and so on."""
    weights.load(small, SMALL, file(content()))
    gamma, beta, mean, variance = small.get_layer("norm_00").get_weights()
    assert (beta[0], gamma[0], mean[0], variance[7]) == (0, 8, 16, 31)
    (kernel,) = small.get_layer("conv_00").get_weights()
    assert kernel.shape == (3, 3, 3, 8) and kernel[0, 0, 0, 0] == 32
    assert kernel[0, 1, 0, 0] == 33 and kernel[1, 0, 0, 0] == 35  # columns, then rows
    assert kernel[0, 0, 1, 0] == 41 and kernel[0, 0, 0, 1] == 59  # then channels, then filters
    kernel, bias = small.get_layer("conv_06").get_weights()
    assert bias[0] == 280 and kernel[0, 0, 0, 0] == 301 and kernel[0, 0, 7, 20] == NUMBERS - 1


def same(model, other, layer: str) -> bool:
    pairs = zip(model.get_layer(layer).get_weights(), other.get_layer(layer).get_weights(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def test_a_partial_file_starts_the_first_layers_only(tiny, coco):
    """As long as the published file, and from a network for other classes."""
    whole, donor = coco
    partial = whole.with_name("yolov4-tiny.conv.29")
    partial.write_bytes(whole.read_bytes()[:19_789_716])
    model = clone(tiny)
    assert weights.load(model, THREE, partial) == Loaded(17)
    assert all(same(model, donor, name) for name in ("conv_00", "norm_15", "conv_28", "norm_28"))
    assert all(same(model, tiny, name) for name in ("conv_29", "conv_32", "norm_35", "conv_36"))


def test_heads_of_other_classes_keep_their_weights_and_are_named(tiny, coco):
    whole, donor = coco
    assert whole.stat().st_size == 24_251_276  # as the published one
    model = clone(tiny)
    loaded = weights.load(model, THREE, whole)
    assert loaded == Loaded(19, unmapped=["conv_29", "conv_36"])
    assert all(same(model, donor, name) for name in ("norm_28", "conv_32", "norm_35"))  # behind a head in the file, too
    assert all(same(model, tiny, name) for name in ("conv_29", "conv_36"))


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (content()[:-1], "a.weights", "has 1895 bytes, expected 20 and a multiple of 4; it is cut off"),
        (content()[:10], "a.weights", "has 10 bytes, expected a header of 16 or 20"),
        (content()[:16], "a.weights", "has 16 bytes, expected 20 and a multiple of 4"),
        (
            content(NUMBERS - 1),
            "a.weights",
            "has 468 numbers, expected 469 for 3 convolutions: it ends in layer 6 .line 35 of the cfg: 21 filters of "
            "size 1., which has 188 of 189 numbers; it is cut off or belongs to another network; the first lay",
        ),
        (content(248), "a.weights", "ends in layer 3 .*, which has 0 of 32 numbers"),
        (content(0), "a.weights", "ends in layer 0 .*, which has 0 of 248 numbers"),
        (content(NUMBERS + 2), "a.weights", "has 471 numbers, expected 469 .*: 2 are left over after the last one"),
        (content(270), "a.conv.4", "has 270 numbers, expected 280 for 2 .* layer 3 .*has 22 of 32 .*network$"),
        (content(281), "a.conv.4", "has 281 numbers, expected 280 for 2 convolutions: 1 are left over"),
        (content(0), "a.conv.0", "no layer before layer 0, expected .* larger NN"),
        (content(version=(2000, 0, 0)), "a.weights", r"version \(2000, 0, 0\) in its first 12 bytes, expected"),
        (content(version=(-1, 2, 0)), "a.weights", r"version \(-1, 2, 0\)"),
        (content(4) + struct.pack("<f", np.nan), "a.weights", "number 4 of 5 is nan, expected finite ones"),
        (content(28) + struct.pack("<f", -1) * 441, "a.weights", "layer 0 .line 6 .* the variance -1, exp"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(small, data, name, message, file):
    before = small.get_weights()
    with pytest.raises(WeightsError, match=f"{name}.*{message}"):
        weights.load(small, SMALL, file(data, name))
    assert all(np.array_equal(*pair) for pair in zip(before, small.get_weights(), strict=True))


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    weights.write(tiny, THREE, tmp_path / "two.weights")
    with pytest.raises(
        WeightsError, match=r"5884944 numbers, expected 6126376 .* it ends in layer 39 .* 0 of 16640 num"
    ):
        weights.load(None, described(3), tmp_path / "two.weights")


def test_no_file(tmp_path):
    with pytest.raises(WeightsError, match="none.weights does not exist; expected a Darknet .weights file"):
        weights.read(tmp_path / "none.weights")


def test_a_written_file_replaces_the_old_one(small, file):
    path = file(b"old")
    weights.write(small, SMALL, path)
    assert weights.read(path).version == (0, 2, 5) and path.stat().st_size == 20 + 4 * NUMBERS
    assert [entry.name for entry in path.parent.iterdir()] == ["a.weights"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([content(), content(version=(0, 1, 0)), b""]),
    length=st.integers(0, 20 + 4 * NUMBERS + 40),
    damage=st.lists(st.tuples(st.integers(0, 20 + 4 * NUMBERS), st.integers(0, 255)), max_size=4),
    name=st.sampled_from(["a.weights", "a.conv.1", "a.conv.4", "a.conv.9999"]),
)
def test_a_damaged_file_is_loaded_or_refused_and_nothing_else(small, tmp_path_factory, start, length, damage, name):
    data = bytearray(start[:length].ljust(length, b"\x01") if length % 3 else start)
    for place, value in damage:
        if place < len(data):
            data[place] = value
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        loaded = weights.load(small, SMALL, path)
    except WeightsError as error:
        assert name in str(error) and "expected" in str(error)
    else:
        assert loaded.layers and all(np.isfinite(part).all() for part in small.get_weights())
