"""Tiles, by hand."""

import cv2
import numpy as np
import pytest

from retinamask.inference import tiles


def bright_squares(image_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds what is white, as a network would find faces; larger ones are surer."""
    _, _, found, _ = cv2.connectedComponentsWithStats((image_rgb[..., 0] > 200).astype(np.uint8))
    boxes_xywh = found[1:, :4].astype(float)
    return np.c_[boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], boxes_xywh[:, 2] / 1000


def in_each(tiles_rgb: list) -> list:
    return [bright_squares(tile_rgb) for tile_rgb in tiles_rgb]


@pytest.mark.parametrize(("length", "tile", "expected"), [(300, 300, [0]), (120, 300, [0]), (500, 300, [0, 200])])
def test_where_tiles_begin(length, tile, expected):
    assert tiles.tile_corners(length, tile) == expected


def test_tiles_cover_all_and_overlap_by_a_quarter():
    for length in range(301, 4000, 7):
        corners = tiles.tile_corners(length, 300)
        assert corners[0] == 0 and corners[-1] == length - 300 and max(np.diff(corners)) <= 226


def test_tiles_are_what_the_network_takes_in_or_a_quarter():
    assert [tiles.tile_side((width, 700), 300) for width in (400, 1200, 1201, 4000)] == [300, 300, 301, 1000]


def test_every_square_is_found_once_wherever_the_cuts_go():
    image_rgb = np.zeros((1000, 1300, 3), np.uint8)
    expected = [[x, y, x + 50, y + 50] for y in range(5, 950, 105) for x in range(5, 1250, 105)]
    for x1, y1, x2, y2 in expected:
        image_rgb[y1:y2, x1:x2] = 255
    boxes_xyxy, scores = tiles.merge(tiles.find_in_tiles(in_each, image_rgb, 300), 0.4)
    assert sorted(boxes_xyxy.tolist()) == sorted(expected) and (scores == 0.05).all()


def test_what_is_larger_than_the_overlap_is_left_to_the_whole_image():
    image_rgb = np.zeros((600, 600, 3), np.uint8)
    image_rgb[50:550, 50:550] = 255
    in_tiles = tiles.find_in_tiles(in_each, image_rgb, 300)
    assert [len(scores) for _, scores in in_tiles] == [0] * 9
    boxes_xyxy, _ = tiles.merge([bright_squares(image_rgb), *in_tiles], 0.4)
    assert boxes_xyxy.tolist() == [[50, 50, 550, 550]]


def test_a_square_at_the_image_s_own_edge_is_not_cut():
    image_rgb = np.zeros((300, 700, 3), np.uint8)
    image_rgb[:40, :40] = image_rgb[-40:, -40:] = 255
    boxes_xyxy, _ = tiles.merge(tiles.find_in_tiles(in_each, image_rgb, 300), 0.4)
    assert sorted(boxes_xyxy.tolist()) == [[0, 0, 40, 40], [660, 260, 700, 300]]


@pytest.mark.parametrize(
    ("side", "vanish"), [(59, True), (61, False)]
)  # 600 pixels in 300: half, and 1.5 times the least of 20 is 30
def test_faces_would_vanish_near_the_least_size(side, vanish):
    boxes_xyxy = np.array([[0, 0, side, side], [0, 0, 500, 500]])
    assert tiles.faces_would_vanish((600, 400), boxes_xyxy, 300, 20) == vanish
    assert tiles.faces_would_vanish((600, 400), np.empty((0, 4)), 300, 20)
