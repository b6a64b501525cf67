"""Find and check the files of a face detector."""

from collections.abc import Sequence
from pathlib import Path

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
