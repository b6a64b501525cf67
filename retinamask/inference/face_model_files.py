"""Check and load the files of a face detector: what OpenCV cannot use becomes an error that names them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from retinamask.dataset import files
from retinamask.dataset.public import models


class FaceModelError(ValueError):
    """A model file that cannot be used."""


def by_suffix(given: Sequence[str | Path], expected: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Path]:
    """Sort model files by their endings, in any order.

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
        if (path.name == file.name or size == file.size_bytes) and files.sha256(path) != file.sha256:
            raise FaceModelError(
                f"{path} has {size:,} bytes and is not the published {file.name} of {file.size_bytes:,} bytes; it is "
                "cut short or damaged, fetch it again"
            )


@contextlib.contextmanager
def loading(*paths: Path) -> Iterator[None]:
    """Turn OpenCV's error on files that it cannot load into one that names them."""
    try:
        yield
    except FaceModelError:
        raise
    except (cv2.error, SystemError, ValueError) as error:  # SystemError: how its cascades fail
        listed = " with ".join(map(str, paths))
        reason = " ".join(str(error).split())[:200]
        raise FaceModelError(
            f"{listed}: OpenCV {cv2.__version__} cannot use it ({reason}); it is cut short, damaged or of "
            "another kind, fetch it again"
        ) from None
