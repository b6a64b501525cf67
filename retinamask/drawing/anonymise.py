"""Hide faces in a picture that is to be shown to others."""

import cv2
import numpy as np

ANONYMISE = ("blur", "pixelate")

_MARGIN = 0.1  # of a box's sides, added on each side: detectors draw tightly, and an outline can give someone away
_CELLS = 6  # mean colors along the longer side; of 14, networks still name the person


def anonymise(image_rgb: np.ndarray, boxes_xyxy: np.ndarray, how: str) -> np.ndarray:
    """Return a copy of the image in which the faces inside the boxes are hidden.

    Each box is reduced to six mean colors along its longer side, whatever its size, so that what is lost cannot be
    computed from what is left, as it can of a Gaussian blur; see McPherson et al. 2016 (arXiv:1609.00408).

    Args:
        image_rgb: ``uint8`` array of shape ``(height, width, 3)``, which stays as it is.
        boxes_xyxy: faces ``(N, 4)`` in pixels; they may reach past the image.
        how: ``blur`` for a smooth transition between the colors, ``pixelate`` for squares.

    Raises:
        ValueError: ``how`` is neither.
    """
    if how not in ANONYMISE:
        raise ValueError(f"anonymise is {how!r}, expected {' or '.join(ANONYMISE)}")
    hidden, size_wh = image_rgb.copy(), np.array(image_rgb.shape[1::-1])
    for box in np.asarray(boxes_xyxy, float).reshape(-1, 4):
        grow_wh = _MARGIN * (box[2:] - box[:2])
        left, top = np.clip(np.floor(box[:2] - grow_wh), 0, size_wh).astype(int)
        right, bottom = np.clip(np.ceil(box[2:] + grow_wh), 0, size_wh).astype(int)
        sides_wh = np.array([right - left, bottom - top])
        if sides_wh.min() > 0:
            cells_wh = np.ceil(sides_wh * min(1, _CELLS / sides_wh.max())).astype(int)
            means = cv2.resize(image_rgb[top:bottom, left:right], cells_wh.tolist(), interpolation=cv2.INTER_AREA)
            between = cv2.INTER_NEAREST if how == "pixelate" else cv2.INTER_CUBIC
            hidden[top:bottom, left:right] = cv2.resize(means, sides_wh.tolist(), interpolation=between)
    return hidden
