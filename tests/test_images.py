"""From image file to network input and back: damage, odd formats, EXIF, and keras-retinanet's own numbers."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from retinamask.dataset import images


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    """Large coloured blocks, so that JPEG stays close; no symmetry, so that every turn shows."""
    generator = np.random.default_rng(1)
    blocks = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16, 1), dtype=np.uint8))


def encoded(image_format: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: object) -> Image.Exif:
    result = Image.Exif()
    result[0x0112] = orientation
    return result


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# --- Files that cannot be used ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable image; expected one of JPEG, PNG, BMP, WEBP"),
        (b"hello", "not a readable image"),
        (b"<html></html>", "not a readable image"),
        (b"\xff\xd8\xff\xe0", "not a readable image"),
        (b"\x89PNG\r\n\x1a\n", "not a readable image"),
        (encoded("PPM"), "not a readable image"),
        (encoded("ICO"), "not a readable image"),
    ],
)
@pytest.mark.parametrize("read", [images.read_image, images.check_image, images.image_size])
def test_not_an_image(tmp_path, content, message, read):
    path = tmp_path / "a b.jpg"
    path.write_bytes(content)
    with pytest.raises(images.ImageError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("read", [images.read_image, images.check_image, images.image_size])
def test_no_file(tmp_path, read):
    with pytest.raises(images.ImageError, match=r"none\.jpg does not exist"):
        read(tmp_path / "none.jpg")
    with pytest.raises(images.ImageError, match="cannot be opened"):
        read(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize(
    "content",
    [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("JPEG", "L"), encoded("BMP"), encoded("WEBP")]
    # A PNG's last 20 bytes say only that it ends here.
    + [encoded("PNG")[:-20], encoded("PNG", exif=exif(6))[:-20]],
    ids=["jpeg", "progressive", "grey", "bmp", "webp", "png", "turned-png"],
)
def test_a_file_cut_short(tmp_path, content, share):
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    for read in (images.read_image, images.check_image):
        with pytest.raises(images.ImageError, match=str(path)):
            read(path)


@pytest.mark.parametrize(
    "content",
    [encoded("JPEG", exif=exif(6)), encoded("PNG", exif=exif(6)), encoded("WEBP", exif=exif(6)), encoded("BMP")],
    ids=["jpeg", "png", "webp", "bmp"],
)
def test_whatever_the_damage_only_our_error_comes_out(tmp_path, content):
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for _ in range(150):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        places = generator.integers(0, min(200, len(damaged)), 3)
        damaged[places] = generator.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        for read in (images.read_image, images.check_image):
            try:
                read(path)
            except images.ImageError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("side", [9_460, 14_000, 60_000])  # past the limit, past Pillow's error, far past
@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("read", [images.read_image, images.check_image, images.image_size])
def test_decompression_bomb_is_refused_by_its_header(tmp_path, side, action, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    pillows_limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(images.ImageError, match=r"bomb\.png: more pixels .* at most 89,478,485"):
            read(path)
    assert pillows_limit == Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS


# --- Every kind of image becomes the same array ---


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 7), (8, 8)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_tiny_images(tmp_path, size, image_format):
    path = tmp_path / "tiny"
    Image.new("RGB", size).save(path, image_format)
    assert images.check_image(path) == (size, False)
    assert images.read_image(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("image_format", "mode", "options", "tolerance"),
    [
        ("PNG", "RGB", {}, 0),
        ("BMP", "RGB", {}, 0),
        ("WEBP", "RGB", {"lossless": True}, 0),
        ("JPEG", "RGB", {"quality": 95, "subsampling": 0}, 3),
        ("JPEG", "CMYK", {"quality": 95, "subsampling": 0}, 3),
        ("PNG", "RGBA", {}, 0),
        ("PNG", "P", {}, 51),  # the steps of the web palette
        ("PNG", "P", {"transparency": bytes(10)}, 51),
    ],
)
def test_colour_becomes_rgb(tmp_path, image_format, mode, options, tolerance):
    path = tmp_path / "image"
    path.write_bytes(encoded(image_format, mode, **options))
    found = images.read_image(path)
    assert (found.dtype, found.shape, found.flags.writeable) == (np.uint8, (48, 64, 3), True)
    assert np.abs(found.astype(int) - picture()).max() <= tolerance
    assert images.check_image(path) == ((64, 48), False)


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [("PNG", "L", {}), ("PNG", "LA", {}), ("PNG", "L", {"transparency": 0}), ("JPEG", "L", {"quality": 98})],
)
def test_grey_becomes_rgb(tmp_path, image_format, mode, options):
    path = tmp_path / "image"
    path.write_bytes(encoded(image_format, mode, **options))
    found = images.read_image(path)
    grey = np.asarray(Image.fromarray(picture()).convert("L")).astype(int)
    assert (found.dtype, found.shape) == (np.uint8, (48, 64, 3))
    assert np.abs(found - grey[..., None]).max() <= (2 if image_format == "JPEG" else 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path, channels):
    levels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([levels] * channels))
    assert np.array_equal(images.read_image(tmp_path / "deep.png"), np.dstack([levels >> 8] * 3))


def test_black_and_white(tmp_path):
    Image.fromarray(picture()).convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(images.read_image(tmp_path / "bits.png"))) == {0, 255}


def test_a_phones_multi_picture_file_gives_its_first_picture(tmp_path):
    first, second = Image.fromarray(picture()), Image.new("RGB", (64, 48))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(images.read_image(tmp_path / "phone.jpg").astype(int) - picture()).max() <= 3
    assert images.check_image(tmp_path / "phone.jpg") == ((64, 48), False)


# --- EXIF ---

# What turns the upright image into the stored one, for each orientation.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("image_format", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95, "subsampling": 0})],
)
def test_all_orientations_give_the_same_upright_picture(tmp_path, orientation, image_format, options):
    path = tmp_path / "turned"
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](picture())))
    stored.save(path, image_format, exif=exif(orientation), **options)
    assert np.abs(images.read_image(path).astype(int) - picture()).max() <= (3 if image_format == "JPEG" else 0)
    assert images.image_size(path) == (64, 48)
    assert images.check_image(path) == ((64, 48), orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_there_are_none_of(tmp_path, orientation):
    (tmp_path / "odd.jpg").write_bytes(encoded("JPEG", exif=exif(orientation)))
    assert images.check_image(tmp_path / "odd.jpg") == ((64, 48), False)
    assert images.read_image(tmp_path / "odd.jpg").shape == (48, 64, 3)


def test_damaged_exif_does_not_spoil_sound_pixels(tmp_path):
    content = encoded("WEBP", exif=exif(6)).replace(b"MM\x00*", b"MM\x00_")
    (tmp_path / "odd.webp").write_bytes(content)
    assert images.check_image(tmp_path / "odd.webp") == ((64, 48), False)
    assert images.read_image(tmp_path / "odd.webp").shape == (48, 64, 3)


# --- To the network and back ---


@pytest.mark.parametrize(
    ("size_wh", "side", "expected"),
    [((1, 1), 10, 10), ((100, 50), 200, 2), ((50, 100), 200, 2), ((400, 400), 100, 0.25)],
)
def test_fit_scale(size_wh, side, expected):
    assert images.fit_scale(size_wh, side) == expected


@pytest.mark.parametrize(
    ("size_wh", "expected"), [((800, 800), 1), ((400, 600), 2), ((600, 400), 2), ((400, 1333), 1), ((10, 13330), 0.1)]
)
def test_sides_scale(size_wh, expected):
    assert images.sides_scale(size_wh, 800, 1333) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size_wh", "scale", "expected"),
    [((1, 1), 0.01, (1, 1)), ((1, 1000), 0.1, (1, 100)), ((5, 3), 1, (5, 3)), ((400, 267), 2.5, (1000, 668))],
)
def test_resized_sides(size_wh, scale, expected):
    resized = images.resize(np.zeros((*size_wh[::-1], 3), np.uint8), scale)
    assert (resized.shape, resized.dtype) == ((*expected[::-1], 3), np.uint8)


def test_normalised_by_hand():
    image = np.array([[[255, 127, 0]]], dtype=np.uint8)  # R, G, B
    expected = {
        "caffe": [-103.939, 127 - 116.779, 255 - 123.68],
        "tf": [-1, 127 / 127.5 - 1, 1],
        "tf_rgb": [1, 127 / 127.5 - 1, -1],
        "unit_rgb": [1, 127 / 255, 0],
    }
    assert expected.keys() == images.PREPROCESSINGS.keys()
    for preprocessing, values in expected.items():
        assert images.network_input([image], preprocessing, (1, 1))[0, 0, 0] == pytest.approx(values, abs=1e-5)


def test_network_input_equals_keras_retinanets():
    from keras_retinanet.utils.image import preprocess_image, resize_image

    image = np.random.default_rng(0).integers(0, 256, (333, 517, 3), dtype=np.uint8)
    for sides in ((800, 1333), (256, 300), (100, 1333)):
        expected, expected_scale = resize_image(image, *sides)
        scale = images.sides_scale((517, 333), *sides)
        assert scale == pytest.approx(expected_scale)
        assert np.array_equal(images.resize(image, scale), expected)
    for mode in ("caffe", "tf"):
        expected = preprocess_image(image[..., ::-1], mode)
        found = images.network_input([image], mode, (517, 333))[0]
        assert np.allclose(found, expected, rtol=0, atol=2e-5)  # two last float32 digits


def test_a_batch_is_padded_with_zeros():
    white = [np.full(shape, 255, np.uint8) for shape in ((3, 2, 3), (1, 4, 3))]
    batch = images.network_input(white, "unit_rgb", (6, 5))
    assert (batch.shape, batch.dtype) == ((2, 5, 6, 3), np.float32)
    assert batch.transpose(0, 3, 1, 2).flags.c_contiguous
    assert batch[0, :3, :2].all() and batch[1, :1, :4].all() and batch.sum() == 3 * (3 * 2 + 1 * 4)


@pytest.mark.parametrize("boxes", [np.empty((0, 4)), np.array([[0, 0, 10, 20], [3.5, 4, 7, 9]])])
def test_to_original_pixels_undoes_the_scale(boxes):
    assert images.to_original_pixels(boxes * 1.7, 1.7) == pytest.approx(boxes)


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="expected a positive number"):
        images.to_original_pixels(np.zeros((1, 4)), scale)
