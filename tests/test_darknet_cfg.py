"""Darknet's cfg: what a file describes, and that anything that cannot be built as written is refused with its line."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinamask.detectors.darknet import cfg
from retinamask.detectors.darknet.template import yolov4_tiny_cfg

TINY = yolov4_tiny_cfg(3)
SMALL = """[net]
width=64
height=32
channels=3

[convolutional]
filters=8
size=3
stride=2
pad=1
activation=leaky

[upsample]
stride=2

[route]
layers=-1,-2
"""


def edited(old: str, new: str, count: int = 1) -> str:
    assert old in TINY
    return TINY.replace(old, new, count)


def line_of(text: str, found: str) -> int:
    return next(number for number, line in enumerate(text.split("\n"), 1) if line == found)


@pytest.mark.parametrize(
    ("levels", "layers", "strides", "masks", "size"),
    [
        (2, 38, [32, 16], [(3, 4, 5), (0, 1, 2)], 24_251_276),
        (3, 45, [32, 16, 8], [(6, 7, 8), (3, 4, 5), (0, 1, 2)], None),
    ],
)
def test_yolov4_tiny_is_described(levels, layers, strides, masks, size):
    """The bytes of the published ``yolov4-tiny.weights``, a header of 20 and 4 for each number, for 80 classes."""
    network = cfg.describe(yolov4_tiny_cfg(80, levels=levels))
    assert len(network.layers) == layers and network.class_count == 80 and network.image_size == 416
    assert [head.stride for head in network.heads] == strides and [head.mask for head in network.heads] == masks
    assert [layer.filters for layer in network.last_convolutions] == [255] * levels
    if size:
        assert 20 + 4 * sum(layer.parameters for layer in network.convolutions) == size
    first = sum(layer.parameters for layer in network.convolutions if layer.index < 29)
    assert 20 + 4 * first == 19_789_716  # bytes of the published yolov4-tiny.conv.29


def test_a_head_says_what_its_section_says():
    coarse, fine = cfg.describe(TINY.replace("ignore_thresh=0.7", "ignore_thresh=.6\niou_thresh=0.2")).heads
    assert coarse.anchors_wh.tolist() == [[81, 82], [135, 169], [344, 319]]
    assert fine.anchors_wh.tolist() == [[10, 14], [23, 27], [37, 58]]
    assert coarse.all_anchors_wh.tolist() == [*fine.anchors_wh.tolist(), *coarse.anchors_wh.tolist()]
    assert (coarse.scale_x_y, coarse.ignore_threshold, coarse.iou_threshold) == (1.05, 0.6, 0.2)
    assert (coarse.iou_normalizer, coarse.objectness_normalizer, coarse.class_normalizer) == (0.07, 1.0, 1.0)


def test_heads_may_share_an_anchor_as_in_the_cfg_of_the_coco_weights():
    coarse, fine = cfg.describe(TINY.replace("mask=0,1,2", "mask=1,2,3")).heads
    assert coarse.mask == (3, 4, 5) and fine.mask == (1, 2, 3)
    assert fine.anchors_wh.tolist() == [[23, 27], [37, 58], [81, 82]]


def test_what_only_darknet_trains_with_is_listed():
    network = cfg.describe(TINY)
    assert {"learning_rate", "steps", "burn_in"} <= set(network.ignored)
    assert network.ignored[-5:] == ("jitter", "random", "resize", "nms_kind", "beta_nms")  # of both heads, once
    assert not {"width", "height", "channels"} & set(network.ignored)


def test_routes_count_from_here_and_from_the_start():
    layers = cfg.describe(TINY).layers
    assert layers[3].sources == (2,) and (layers[3].groups, layers[3].group_id) == (2, 1)
    assert layers[6].sources == (5, 4) and layers[8].sources == (2, 7)
    assert layers[31].sources == (27,) and layers[34].sources == (33, 23)
    assert layers[4].in_channels == 32 and layers[35].in_channels == 128 + 256


def test_comments_and_spaces_do_not_matter():
    spaced = (
        TINY.replace("=", " = ").replace("classes = 3", "classes = 3  # mine").replace("[yolo]", "; head\n [yolo] ")
    )
    plain, other = cfg.describe(TINY), cfg.describe(f"# YOLOv4\n\n{spaced}")
    assert [layer.sources for layer in other.layers] == [layer.sources for layer in plain.layers]
    assert other.class_count == 3


def test_an_image_size_takes_the_place_of_width_and_height():
    network = cfg.describe(TINY, image_size=320)
    assert network.image_size == 320
    assert network.text == TINY.replace("width=416", "width=320").replace("height=416", "height=320")
    with pytest.raises(
        cfg.CfgError, match="width=330 and height=330, expected multiples of 32 up to 4096, such as 320"
    ):
        cfg.describe(TINY, image_size=330)


def test_filters_that_do_not_match_the_classes_are_refused_with_the_number_to_write():
    text = TINY.replace("classes=3", "classes=2")
    line = line_of(TINY, "filters=24")
    expected = rf"line {line}: \[convolutional\] .* filters=24, expected .* = \(2 \+ 5\) \* 3 = 21; write filters=21"
    with pytest.raises(cfg.CfgError, match=rf"^mine.cfg, {expected}"):
        cfg.describe(text, "mine.cfg", class_count=2)


def test_classes_other_than_those_of_the_data_are_refused():
    with pytest.raises(
        cfg.CfgError, match=f"line {line_of(TINY, 'classes=3')}: .*classes=3, expected classes=2; write"
    ):
        cfg.describe(TINY, class_count=2)


@pytest.mark.parametrize(
    ("old", "new", "marked", "message"),
    [
        ("[maxpool]", "[shortcut]", "[shortcut]", r"unknown layer \[shortcut\], known are \[convolutional\]"),
        ("activation=leaky", "activation=mish", "activation=mish", "expected activation=leaky or activation=linear"),
        ("activation=leaky\n", "", "[convolutional]", "no activation in .*, which means logistic, expected"),
        ("stride=2", "stride=2\ngroups=2", "groups=2", "unknown option 'groups' in .convolutional., expected one of a"),
        ("jitter=", "new_coords=1\njitter=", "new_coords=1", r"unknown option 'new_coords' in \[yolo\]"),
        ("momentum", "momentun", "momentun=0.9", r"unknown option 'momentun' \(momentum\?\) in \[net\]"),
        ("mask=3,4,5", "mask=4,5,6", "mask=4,5,6", "mask=4,5,6, expected whole numbers.* from 0 to 5"),
        ("mask=3,4,5", "mask=3,3,5", "mask=3,3,5", "expected each anchor once"),
        ("anchors=10,14, ", "anchors=10, ", "anchors=10, 23,27", r"11 numbers in anchors, expected 2 \* num = 12"),
        ("anchors=10,14", "anchors=10,15", "anchors=10,14, 23,27", "other anchors than in line"),
        ("anchors=10,14", "anchors=0,14", "anchors=0,14, 23,27", "expected numbers.* each from 0.1 to"),
        ("classes=3", "classes=4", "filters=24", "expected .*= 27; write filters=27"),
        ("width=416", "width=420", "height=416", "width=420 and height=416, expected a square"),
        ("width=416\nheight=416", "width=400\nheight=400", "width=400", "expected multiples of 32 .* such as 384"),
        ("width=416\n", "", "[net]", r"no width in \[net\], expected a line width="),
        ("channels=3", "channels=1", "channels=1", r"channels=1, expected channels=3 \(RGB\)"),
        ("filters=64", "filters=6 4", "filters=6 4", "filters=6 4, expected a whole number from 1 to 4096"),
        ("filters=64", "filters=0", "filters=0", "expected a whole number from 1 to 4096"),
        ("size=3", "size=2", "size=2", "size=2, expected an odd number"),
        ("pad=1", "pad=0", "pad=0", "without pad=1, expected pad=1"),
        ("group_id=1", "group_id=2", "group_id=2", "expected a whole number from 0 to 1"),
        ("groups=2", "groups=3", "groups=3", "expected a divisor of its .*64.* channels"),
        ("layers=-1,-2", "layers=-1,-2\ngroups=2", "groups=2", "of 2 layers has groups=2, expected one layer"),
        ("layers=-1,-2", "layers=-1,-7", "layers=-1,-7", "layers=-1,-7, expected whole numbers.* from -6 to 5"),
        ("layers=-1,-2", "layers=-1,0", "layers=-1,0", r"strides \[2, 4\], expected maps of one size"),
        ("layers=-4", "layers=-1", "layers=-1", "layer -1, a .yolo., expected a layer with features"),
        ("size=2\nstride=2", "size=2\nstride=1", "size=2", "size=2 and stride=1, expected size=2 and stride=2"),
        ("iou_loss=ciou", "iou_loss=mse", "iou_loss=mse", "iou_loss=mse, expected iou_loss=ciou"),
        ("truth_thresh=1", "truth_thresh=.5", "truth_thresh=.5", "truth_thresh=.5, expected a number from 1 to 1"),
        ("scale_x_y=1.05", "scale_x_y=1e999", "scale_x_y=1e999", "scale_x_y=1e999, expected a number from 1 to 4"),
        ("classes=3", "classes", "classes", r"found 'classes', expected \[section\] or name=value"),
        ("classes=3", "classes=3\nclasses=3", "classes=3", "classes is in line .* and again in line"),
        ("[net]", "[network]", "[network]", r"the first section is \[network\], expected \[net\]"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_built_as_written_is_refused_with_its_line(old, new, marked, message):
    text = edited(old, new)
    with pytest.raises(cfg.CfgError, match=message) as refused:
        cfg.describe(text, "my.cfg")
    line = int(re.match(r"my\.cfg, line (\d+): ", str(refused.value))[1])
    assert text.split("\n")[line - 1].startswith(marked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no section, expected .net. with width"),
        ("width=416", "line 1: found 'width=416', expected .* with .net. first"),
        (TINY.split("[yolo]")[0], "no .yolo. section, expected one after each last"),
        ("[net]\nwidth=32\nheight=32\n[yolo]\nclasses=1", r"line 4: \[yolo\] with something else above, expected"),
        ("[net]\nwidth=32\nheight=32\n[maxpool]\nsize=2\nstride=2", r"line 4: \[maxpool\] is the first layer"),
        ("[net]\nwidth=32\nheight=32\n[route]\nlayers=-1", "line 5: .*expected whole numbers"),
        (SMALL, "width=64 and height=32, expected a square"),
        (SMALL.replace("height=32", "height=64"), r"joins layers of strides \[1, 2\]"),
        (TINY.replace("size=3\nstride=1", "size=3\nstride=2", 1), "strides|times smaller"),
        (TINY + "[convolutional]\nfilters=1", r"\[convolutional\] after a \[yolo\], expected a \[route\]"),
    ],
)  # fmt: skip
def test_a_file_without_its_parts_is_refused(text, message):
    with pytest.raises(cfg.CfgError, match=message):
        cfg.describe(text)


def test_heads_of_different_classes_are_refused():
    first, second = TINY.rsplit("filters=24", 1)
    with pytest.raises(cfg.CfgError, match="classes=4, the one in line .* has 3; expected the same"):
        cfg.describe(f"{first}filters=27{second.replace('classes=3', 'classes=4')}")


def test_a_file_is_read_as_text(tmp_path):
    path = tmp_path / "mine.cfg"
    path.write_bytes(b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").encode())
    assert cfg.read(path) == TINY
    path.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(cfg.CfgError, match="mine.cfg is not UTF-8 text"):
        cfg.read(path)
    with pytest.raises(cfg.CfgError, match="none.cfg does not exist; expected a Darknet .cfg"):
        cfg.read(tmp_path / "none.cfg")
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(cfg.CfgError, match="has 1000001 bytes, expected"):
        cfg.read(path)


LINES = TINY.split("\n")
VALUES = st.sampled_from(["-1", "0", "1", "2", "3,4,5", "1e9", "nan", "-", "", "٣", "0x1", "9" * 30, "a,b", ",", "1,"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from("dxsv"), VALUES), min_size=1, max_size=4))
def test_a_damaged_file_is_described_or_refused_and_nothing_else(changes):
    lines = list(LINES)
    for place, kind, value in changes:
        other = lines[(place * 7 + 3) % len(lines)]
        lines[place] = {
            "d": "",
            "x": f"{lines[place]}\n{other}",
            "s": other,
            "v": f"{lines[place].split('=')[0]}={value}",
        }[kind]
    try:
        network = cfg.describe("\n".join(lines))
    except cfg.CfgError as error:
        assert re.match(r"cfg(, line \d+)?[:,] ", str(error)) and "expected" in str(error) or "keep one" in str(error)
    else:
        for layer, head in zip(network.last_convolutions, network.heads, strict=True):
            assert layer.filters == (network.class_count + 5) * len(head.mask) and np.isfinite(head.anchors_wh).all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("[]=#;,\n\r net.yolo0123456789-widthchannels\x00\u2028é"), max_size=120))
def test_any_text_is_refused_with_the_right_error(text):
    with pytest.raises(cfg.CfgError):
        cfg.describe(text)
