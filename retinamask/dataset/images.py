"""The one road from an image file to network input, and back.

Training, inference and evaluation all go this way: read (EXIF orientation applied, RGB), resize
keeping the aspect, normalise, pad right and bottom with zeros (training does the last two in the graph, see
`retinamask.detectors.detector.network_input`). Because the padding is right and bottom, one number, the ``scale``,
undoes it.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 89_478_485  # Pillow's own limit; larger files are taken for decompression bombs: 268 MB once decoded

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # JPEG includes MPO, which some phones write into .jpg files
_EXIF_ORIENTATION = 0x0112
_TURNS = {  # EXIF orientation: what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
PREPROCESSINGS = {
    "caffe": (True, 1.0, IMAGENET_MEAN_BGR),
    "tf": (True, 127.5, (1.0, 1.0, 1.0)),
    "tf_rgb": (False, 127.5, (1.0, 1.0, 1.0)),
    "unit_rgb": (False, 255.0, (0.0, 0.0, 0.0)),
}
"""How networks expect pixels: BGR or not, the divisor, and the mean to subtract afterwards.

``caffe`` (ResNet, VGG) and ``tf`` (MobileNet, DenseNet) are as keras-retinanet feeds its backbones, ``tf_rgb`` is
keras.applications' for MobileNetV2, ``unit_rgb`` is Darknet's.
"""


class ImageError(ValueError):
    """An image file cannot be used; the message names it and says why."""


class DamagedImageError(ImageError):
    """The file is an image, but cut short or broken inside."""


class TooManyPixelsError(ImageError):
    """The file says that it has more pixels than an image may have."""


class Inspection(NamedTuple):
    """The content of an image file, and how it is stored."""

    image_rgb: np.ndarray  # upright, as from `read_image`
    size_wh: tuple[int, int]  # as stored, before any turn
    upright_wh: tuple[int, int]
    orientation: int  # EXIF's, 1 to 8; 1 also where there is none
    traits: tuple[str, ...]  # of "CMYK", "palette", "1 bit", "16 bits", "transparent", "opaque alpha"


def read_image(path: str | Path, least_side: int | None = None, upright: bool = True) -> np.ndarray:
    """Read an image upright, as ``uint8`` RGB of shape ``(height, width, 3)``.

    Transparency is left out and the colours below it stay, as in keras-retinanet's reader; 16-bit grey is
    scaled to 8 bits, which that reader cuts off at 255. Of several pictures in a file the first counts.

    Args:
        path: the file.
        least_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, several times faster, as
            long as both sides keep this many pixels.
        upright: whether to turn it as EXIF asks; without, it is as keras-retinanet's reader sees it.

    Raises:
        ImageError: missing, not an image, cut short, more than `MAX_PIXELS` pixels, or numbers of 32 bits, whose
            range nobody knows.
    """
    with _opened(path) as image:
        if least_side:
            image.draft("RGB", (least_side, least_side))
        _decode(image, path)
        return _rgb(image, _turn(image) if upright else None)


def inspect_image(path: str | Path, max_pixels: int = MAX_PIXELS, least_side: int | None = None) -> Inspection:
    """Read an image as `read_image` does, and say how it is stored.

    Args:
        path, least_side: as in `read_image`.
        max_pixels: images with more are not decoded; at most `MAX_PIXELS`.

    Raises:
        ImageError: as `read_image`; damage is a `DamagedImageError`, size a `TooManyPixelsError`.
    """
    with _opened(path, max_pixels) as image:
        size_wh = image.size
        # Pillow keeps 8 bits of a coloured PNG's 16
        deep = image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile)
        traits = ["16 bits"] * (deep or image.mode.startswith("I;16"))
        if least_side:
            image.draft("RGB", (least_side, least_side))
        _decode(image, path)
        turn = _turn(image)
        orientation = next((number for number, known in _TURNS.items() if known == turn), 1)
        traits += [name for mode, name in (("CMYK", "CMYK"), ("P", "palette"), ("1", "1 bit")) if image.mode == mode]
        if image.mode in ("RGBA", "LA", "PA"):
            lowest, _ = image.getchannel("A").getextrema()
            traits.append("transparent" if lowest < 255 else "opaque alpha")
        elif "transparency" in image.info:
            traits.append("transparent")
        return Inspection(_rgb(image, turn), size_wh, _upright_size(size_wh, turn), orientation, tuple(traits))


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image, from the file's header where the format allows it."""
    with _opened(path) as image:
        return _upright_size(image.size, _turn(image))


def check_image(path: str | Path) -> tuple[tuple[int, int], bool]:
    """Decode the whole file once, cheaply, to find damage before training does.

    Returns:
        ``(width, height)`` of the upright image, and whether EXIF turns or flips it.
    """
    with _opened(path) as image:
        width, height = image.size
        image.draft("RGB", (max(1, width // 8), max(1, height // 8)))  # JPEG: an eighth of the work
        _decode(image, path)
        turn = _turn(image)
    return _upright_size((width, height), turn), turn is not None


def fit_scale(size_wh: tuple[int, int], image_size: int) -> float:
    """Factor that fits an image into a square of ``image_size`` pixels."""
    return image_size / max(size_wh)


def sides_scale(size_wh: tuple[int, int], min_side: int, max_side: int) -> float:
    """keras-retinanet's factor: shorter side to ``min_side``, longer at most ``max_side``."""
    return min(min_side / min(size_wh), max_side / max(size_wh))


def resize(image_rgb: np.ndarray, scale: float) -> np.ndarray:
    """Resize by ``scale`` with bilinear interpolation; each side is rounded, at least one pixel.

    The very same as keras-retinanet's ``resize_image``: OpenCV gets the factor, not the rounded size, so that
    boxes times ``scale`` stay on their pixels.
    """
    height, width = image_rgb.shape[:2]
    fx, fy = max(scale, 1 / width), max(scale, 1 / height)
    return cv2.resize(image_rgb, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)


def stretch(image_rgb: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Resize to a width and height with bilinear interpolation, whatever that does to the proportions."""
    return cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_LINEAR)


def network_input(images_rgb: list[np.ndarray], preprocessing: str, size_wh: tuple[int, int]) -> np.ndarray:
    """Normalise images as a backbone expects and lay them into one batch, padded right and bottom with zeros.

    Args:
        images_rgb: ``uint8`` of shape ``(height, width, 3)``, none larger than the batch.
        preprocessing: a name in `PREPROCESSINGS`.
        size_wh: width and height of the batch.

    Returns:
        ``float32 (N, height, width, 3)``; in memory it lies plane by plane, as exports take it without a copy.
    """
    is_bgr, divisor, mean = PREPROCESSINGS[preprocessing]
    planes = np.zeros((len(images_rgb), 3, *size_wh[::-1]), np.float32)
    for image_rgb, slots in zip(images_rgb, planes, strict=True):
        height, width = image_rgb.shape[:2]
        for channel, slot, subtracted in zip((2, 1, 0) if is_bgr else (0, 1, 2), slots, mean, strict=True):
            plane = slot[:height, :width]
            np.divide(image_rgb[..., channel], np.float32(divisor), out=plane, dtype=np.float32)
            plane -= np.float32(subtracted)
    return planes.transpose(0, 2, 3, 1)


def to_original_pixels(boxes_xyxy: np.ndarray, scale: float) -> np.ndarray:
    """Undo the resize of ``(N, 4)`` boxes, so that they fit the file on disk.

    ``scale`` is resized size / original size of this very image; `ValueError` if it is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}, expected a positive number")
    return np.asarray(boxes_xyxy, dtype=float) / scale


def _opened(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a file lazily and refuse what is no usable image by its header."""
    too_large = f"{path}: more pixels than an image may have, expected at most {max_pixels:,}"
    try:
        image = Image.open(path, formats=_FORMATS)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; expected an image file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a readable image; expected one of {', '.join(_FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixelsError(too_large) from None
    except Exception as error:  # whatever a damaged header makes Pillow's readers raise
        raise ImageError(f"{path}: cannot be opened as an image ({error})") from None
    if image.mode in ("I", "F"):
        image.close()
        raise ImageError(f"{path}: pixels of 32 bits, expected 8 or 16; convert it")
    if image.width * image.height > max_pixels:
        image.close()
        raise TooManyPixelsError(f"{too_large}, found {image.width} x {image.height}")
    return image


def _decode(image: Image.Image, path: str | Path) -> None:
    try:
        image.load()
    except Exception as error:  # whatever damage makes Pillow's decoders raise
        raise DamagedImageError(f"{path}: damaged image ({error}); replace the file or leave it out") from None


def _rgb(image: Image.Image, turn: Image.Transpose | None) -> np.ndarray:
    """A decoded image turned, if asked for, and made 8-bit RGB."""
    turned = image if turn is None else image.transpose(turn)
    if turned.mode.startswith("I;16"):
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    turned.info.pop("transparency", None)  # Pillow would warn that it is lost
    return np.array(turned.convert("RGB"))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that makes the image upright according to EXIF, ``None`` if it is."""
    if image.format == "TIFF":  # Pillow turns it by itself
        return None
    try:
        return _TURNS.get(image.getexif().get(_EXIF_ORIENTATION))
    except Exception:  # damaged EXIF is no EXIF; the pixels can be sound all the same
        return None


def _upright_size(size_wh: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """Size after the turn; orientations 5 to 8 swap the sides."""
    return size_wh[::-1] if turn in [_TURNS[orientation] for orientation in (5, 6, 7, 8)] else size_wh
