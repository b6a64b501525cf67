"""Hidden faces are gone, and nothing else is."""

import numpy as np
import pytest

from retinamask.drawing.anonymise import anonymise


@pytest.fixture
def noise():
    return np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.mark.parametrize("how", ["blur", "pixelate"])
def test_only_the_box_and_its_margin_change(noise, how):
    before = noise.copy()
    hidden = anonymise(noise, [[20, 30, 60, 80]], how)
    assert (noise == before).all()
    inside = np.zeros(noise.shape, bool)
    inside[25:85, 16:64] = True  # a tenth of 40 and of 50 pixels on each side
    assert (hidden == noise)[~inside].all()
    assert (hidden != noise)[inside].mean() > 0.9


@pytest.mark.parametrize("how", ["blur", "pixelate"])
def test_no_more_is_left_than_six_colors_along_a_side(noise, how):
    """Two faces of the same means look the same afterwards: their pixels cannot be told from what is left."""
    other = noise.copy()
    for top in range(0, 90, 15):
        for left in range(0, 90, 15):
            other[top : top + 15, left : left + 15] = noise[top : top + 15, left : left + 15][::-1, ::-1]
    box = [[-8, -8, 98, 98]]
    noise, other = noise[:, :90], other[:, :90]
    assert (noise != other).mean() > 0.9
    hidden = anonymise(noise, box, how)
    np.testing.assert_array_equal(hidden, anonymise(other, box, how))
    if how == "pixelate":
        cells = hidden.reshape(6, 15, 6, 15, 3)
        assert (cells == cells[:, :1, :, :1]).all()
        np.testing.assert_allclose(cells[:, 0, :, 0], noise.reshape(6, 15, 6, 15, 3).mean((1, 3)), atol=0.51)


def test_boxes_past_the_image_slivers_and_none(noise):
    boxes = [[-50, -50, 20, 20], [110, 80, 400, 400], [500, 500, 600, 600], [50, 10, 50, 60], [70, 10, 70.5, 60]]
    hidden = anonymise(noise, boxes, "blur")
    assert (hidden[:20, :20] != noise[:20, :20]).mean() > 0.9
    assert (hidden[82:, 112:] != noise[82:, 112:]).mean() > 0.9
    assert (anonymise(noise, np.empty((0, 4)), "blur") == noise).all()


def test_another_way_is_refused(noise):
    with pytest.raises(ValueError, match="anonymise is 'black', expected blur or pixelate"):
        anonymise(noise, [[0, 0, 9, 9]], "black")
