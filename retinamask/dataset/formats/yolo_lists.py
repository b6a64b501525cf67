"""YOLO's lists: which classes there are and which images, as Darknet, Ultralytics, labelImg and Roboflow write them.

Below `yolo`. Formats: https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects (``obj.data``,
``obj.names``, ``train.txt``), https://docs.ultralytics.com/datasets/detect/ (``data.yaml``), labelImg 1.8.6
(``classes.txt``), Roboflow (``_darknet.labels``).
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from retinamask.dataset import images
from retinamask.dataset.formats.image_files import is_image

MAX_BYTES = 64 * 1024 * 1024  # a list of 500,000 images has 30 MB
LEVELS_UP = 2  # labels/train given, data.yaml beside labels/
NAME_LISTS = (".names", ".labels")
YAML = (".yaml", ".yml")
USUAL_NAMES = ("classes.txt", "obj.names", "obj.data", "data.yaml", "_darknet.labels")

_SPLITS = ("train", "val", "valid", "test")


def read_text(path: Path) -> str:
    """The text of a file with line ends as ``\\n``.

    Raises:
        ValueError: not readable, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path}: {size:,} bytes, expected at most {MAX_BYTES:,}")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def nearest_names(label_path: Path, root: Path) -> list[str]:
    """The class list for a label file: that of its own folder, else of the folders above it.

    Args:
        label_path: the label file.
        root: the folder that was asked for; looked for up to `LEVELS_UP` folders above it.

    Raises:
        ValueError: there is no list, or lists in one folder disagree.
    """
    root, label_folder = root.absolute(), label_path.parent.absolute()
    inside = [folder for folder in (label_folder, *label_folder.parents) if folder.is_relative_to(root)]
    above = [folder for folder in [root, *root.parents][: LEVELS_UP + 1] if folder not in inside]
    for folder in inside or [label_folder]:
        if names := _names_in(_files(folder)):
            return names
    for folder in above:  # not ours: only what is called as a class list is looked at
        if names := _names_in([path for path in _files(folder) if path.name in USUAL_NAMES]):
            return names
    shown = ", ".join(map(str, inside + above))
    raise ValueError(f"no class list; expected classes.txt, obj.names or data.yaml in one of {shown}")


def described_names(path: Path) -> list[str] | None:
    """The class list that a file holds or points to, ``None`` if it is no such file.

    Raises:
        ValueError: it should be one and is not readable.
    """
    if path.suffix.lower() in YAML:
        return _yaml_names(path)
    if path.suffix.lower() == ".data":
        return _data_names(path)
    if path.suffix.lower() in NAME_LISTS or path.name == "classes.txt":
        return [line.strip() for line in read_text(path).rstrip().split("\n")]
    return None


def listed_images(path: Path) -> tuple[list[Path], list[str]]:
    """The images that ``data.yaml``, ``obj.data`` or a list such as ``train.txt`` names, and names without a file.

    Relative paths are looked for from the file's own folder and from those above it, because Darknet counts them
    from where it is started.
    """
    if path.suffix.lower() in YAML:
        content = _yaml(path)
        entries = [entry for split in _SPLITS for entry in _as_list(content.get(split))]
        base = path.parent / str(content.get("path") or "")
    elif path.suffix.lower() == ".data":
        entries = [value for key, value in data_options(path).items() if key in _SPLITS]
        base = path.parent
    else:
        entries, base = [path.name], path.parent
    found, missing = {}, []
    for entry in entries:
        place = find_listed(base, entry) or find_listed(path.parent, entry)
        if place is None:
            missing.append(entry)
            continue
        for image_path, name in _images_of(place):
            found |= {image_path: None} if image_path else {}
            missing += [] if image_path else [name]
    return list(found), missing


def is_image_list(path: Path) -> bool:
    """Whether a text file lists images: its first line ends like the name of one."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = next((line.strip() for line in file if line.strip()), "")
    except (OSError, ValueError):
        return False
    return first.lower().endswith(images.EXTENSIONS)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:  # a folder above that is closed to us
        return []


def _names_in(paths: list[Path]) -> list[str] | None:
    """The one class list among the files of a folder."""
    found = {path: names for path in paths if (names := described_names(path)) is not None}
    lists = list(found.values())
    if any(names != lists[0] for names in lists):
        shown = "; ".join(f"{path}: {', '.join(names)}" for path, names in found.items())
        raise ValueError(f"class lists disagree, keep one: {shown}")
    return lists[0] if lists else None


def _yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" line {line + 1}"
        raise ValueError(f"{path}{where}: not readable as YAML ({getattr(error, 'problem', None) or error})") from None
    return content if isinstance(content, dict) else {}


def _yaml_names(path: Path) -> list[str] | None:
    """``names`` of a ``data.yaml``: a list, or ids with names."""
    names = _yaml(path).get("names")
    if names is None:
        return None
    if isinstance(names, dict):
        ids = sorted(names, key=str)
        if {str(number) for number in ids} != {str(number) for number in range(len(ids))}:
            raise ValueError(f"{path}: ids of names are {', '.join(map(str, ids))}, expected 0, 1, 2, ... each once")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not all(isinstance(name, (str, int, float)) for name in names):
        raise ValueError(f"{path}: names is {str(names)[:80]!r}, expected a list of class names, or ids with names")
    return [str(name).strip() for name in names]


def data_options(path: Path) -> dict[str, str]:
    """The ``key = value`` lines of an ``obj.data``.

    Raises:
        ValueError: not readable as text.
    """
    pairs = (line.partition("=") for line in read_text(path).split("\n") if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _data_names(path: Path) -> list[str] | None:
    named = data_options(path).get("names")
    place = find_listed(path.parent, named) or find_listed(path.parent, Path(named).name) if named else None
    return described_names(place) if place and place.suffix.lower() in (*NAME_LISTS, ".txt") else None


def _as_list(entry) -> list[str]:
    entries = entry if isinstance(entry, list) else [entry]
    return [item for item in entries if isinstance(item, str) and item.strip()]


def find_listed(base: Path, entry: str) -> Path | None:
    """Where a relative path leads from a folder or those above it; Roboflow writes ``../`` too much."""
    plain = entry.strip().replace("\\", "/")
    for text in dict.fromkeys((plain, plain.removeprefix("../"))):
        for folder in [base, *base.absolute().parents[: LEVELS_UP + 1]]:
            try:
                if (folder / text).exists():
                    return folder / text
            except (OSError, ValueError):  # a name that no file can have
                return None
    return None


def _images_of(place: Path) -> Iterator[tuple[Path | None, str]]:
    """Images below a folder, or of a list; with ``None`` those that are not there."""
    if place.is_dir():
        yield from ((path, "") for path in sorted(place.rglob("*")) if is_image(path))
    elif is_image(place):
        yield place, ""
    else:
        for line in filter(None, map(str.strip, read_text(place).split("\n"))):
            path = find_listed(place.parent, line)
            yield (path if path and is_image(path) else None), line
