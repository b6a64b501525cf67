"""Whether the files of a face detector are whole and the right ones, before OpenCV is given them.

OpenCV's own errors on such files name a line of its C++ source, and a Darknet file that is cut short it takes as it is.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from retinamask.dataset import files
from retinamask.dataset.public import models
from retinamask.detectors.darknet import cfg, sections, weights
from retinamask.detectors.darknet.sections import Section

_AGAIN = "fetch it again"
_LEAST_BYTES = 1000
_VARINT_BYTES = 10


class FaceModelError(ValueError):
    """A model file that cannot be used; the message says which, what was found and what to do."""


def by_suffix(given: Sequence[str | Path], expected: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Path]:
    """Model files by their endings, in whatever order they were given.

    Args:
        given: the paths.
        expected: endings that must be there, once each, such as ``.cfg``.
        optional: endings that may be there.

    Raises:
        FaceModelError: a file is missing, does not exist, or is one too many.
    """
    wanted = f"expected {' and '.join(expected)}{''.join(f', and {suffix} if you like' for suffix in optional)}"
    found: dict[str, Path] = {}
    for path in map(Path, given):
        if path.suffix not in (*expected, *optional) or path.suffix in found:
            raise FaceModelError(f"{path}: no use for this file, {wanted}, one of each")
        if not path.is_file():
            raise FaceModelError(f"{path} does not exist; {wanted}")
        found[path.suffix] = path
    missing = [suffix for suffix in expected if suffix not in found]
    if missing:
        listed = ", ".join(map(str, given)) or "nothing"
        raise FaceModelError(f"no {' and no '.join(missing)} file among {listed}; {wanted}")
    return found


def check_published(path: Path, name: str) -> None:
    """Refuse a damaged copy of a file of the catalogue: as long as it, or called like it, but with other bytes.

    Raises:
        FaceModelError: it is one.
    """
    for file in models.CATALOGUE[name].files:
        size = path.stat().st_size
        if path.name == file.name and size < file.size_bytes:
            raise FaceModelError(f"{path} has {size:,} bytes, expected {file.size_bytes:,}; it is cut short, {_AGAIN}")
        if size == file.size_bytes and files.sha256(path) != file.sha256:
            raise FaceModelError(f"{path}: as long as the published {file.name}, but other bytes; {_AGAIN}")


def check_protobuf(path: Path, kind: str) -> None:
    """Refuse what is not one whole protocol buffer, which ``.caffemodel`` and ``.onnx`` files are.

    Walks over the fields at the top, by https://protobuf.dev/programming-guides/encoding/; a file that is cut short
    ends within one.

    Raises:
        FaceModelError: too short, no such file, or cut short.
    """
    size = path.stat().st_size
    if size < _LEAST_BYTES:
        raise FaceModelError(f"{path} has {size} bytes; expected {kind}, {_AGAIN}")
    with open(path, "rb") as file:
        while file.tell() < size:
            start = file.tell()
            key = _varint(file)
            if key is None or not _skip_field(file, key) or file.tell() > size:
                raise FaceModelError(
                    f"{path} has {size:,} bytes and ends within what begins at byte {start:,}; it is cut short or not "
                    f"{kind}, {_AGAIN}"
                )


def check_prototxt(path: Path) -> None:
    """Refuse a ``.prototxt`` that is no SSD detector, or cut short.

    Raises:
        FaceModelError: it is one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FaceModelError(f"{path} is no text; expected the .prototxt of res10, {_AGAIN}") from None
    text = re.sub(r"#.*", "", text)
    if text.count("{") != text.count("}"):
        raise FaceModelError(f"{path}: {text.count('{')} brackets open and {text.count('}')} close; {_AGAIN}")
    if '"DetectionOutput"' not in text:
        raise FaceModelError(f"{path}: no DetectionOutput layer, so no SSD detector; expected the .prototxt of res10")


def check_darknet(cfg_path: Path, weights_path: Path) -> list[Section]:
    """Refuse a Darknet detector whose weights are not as many as its cfg asks for.

    Returns:
        The sections of the cfg.

    Raises:
        ValueError: one of the files is damaged (of it `FaceModelError`), they do not belong together, or the cfg has
            no ``[yolo]``.
    """
    parsed = sections.parse(cfg.read(cfg_path), str(cfg_path))
    if not any(section.name == "yolo" for section in parsed) or parsed[0].name not in ("net", "network"):
        raise FaceModelError(f"{cfg_path}: expected [net] first and a [yolo] section, as the cfg of a detector has")
    found, expected = len(weights.read(weights_path).numbers), _parameters(parsed)
    if expected is not None and found != expected:
        raise FaceModelError(
            f"{weights_path} holds {found:,} numbers, {cfg_path} asks for {expected:,}; it is cut short or belongs to "
            "another cfg"
        )
    return parsed


def _parameters(parsed: Sequence[Section]) -> int | None:
    """How many numbers the convolutions of a cfg have; ``None`` with layers that are not known here."""
    before = parsed[0].integer("channels", 3)
    channels: list[int] = []
    total = 0
    for index, section in enumerate(parsed[1:]):
        if section.name == "convolutional":
            filters, side = section.integer("filters", 1, low=1), section.integer("size", 1, low=1)
            normalised = 3 * bool(section.integer("batch_normalize", 0))
            total += filters * (before * side * side // section.integer("groups", 1, low=1) + 1 + normalised)
            before = filters
        elif section.name == "route":
            sources = [layer if layer >= 0 else index + layer for layer in section.integers("layers", low=-index)]
            if any(source >= index for source in sources):
                section.refuse("layers of [route] has to be those before it", "layers")
            before = sum(channels[source] for source in sources) // section.integer("groups", 1, low=1)
        elif section.name not in ("maxpool", "upsample", "shortcut", "dropout", "yolo"):
            return None
        channels.append(before)
    return total


def _varint(file) -> int | None:
    """A whole number of variable length, ``None`` if there is none."""
    value = 0
    for place in range(_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return value
    return None


def _skip_field(file, key: int) -> bool:
    """Go behind a field's value; ``False`` if it is not whole or of no known kind."""
    wire, number = key & 7, key >> 3
    if wire == 0:
        return number > 0 and _varint(file) is not None
    length = {1: 8, 5: 4}.get(wire)
    if wire == 2:
        length = _varint(file)
    if length is None or not number:
        return False
    file.seek(length, 1)
    return True
