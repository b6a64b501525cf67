"""YOLO's lists: which classes there are and which images, as Darknet, Ultralytics, labelImg and Roboflow write them.

Below `yolo`. Formats: https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects (``obj.data``,
``obj.names``, ``train.txt``), https://docs.ultralytics.com/datasets/detect/ (``data.yaml``), labelImg 1.8.6
(``classes.txt``), Roboflow (``_darknet.labels``).
"""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from retinamask.dataset import images
from retinamask.dataset.formats.entries import folders_up_to
from retinamask.dataset.image_files import is_image, walk

MAX_BYTES = 64 * 1024 * 1024  # a list of 500,000 images has 30 MB
NAME_LISTS = (".names", ".labels")
YAML = (".yaml", ".yml")

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


def class_names(label_path: Path, root: Path) -> list[str]:
    """The class list for a label file, from its own folder or those between it and the folder that the user named.

    Raises:
        ValueError: there is no list, or lists disagree.
    """
    folders = folders_up_to(label_path, root)
    paths = [folder / name for folder in folders for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    found = {path: names for path in paths if (names := described_names(path)) is not None}
    lists = list(found.values())
    if any(names != lists[0] for names in lists):
        shown = "; ".join(f"{path}: {', '.join(names)}" for path, names in found.items())
        raise ValueError(f"class lists disagree, keep one: {shown}")
    if not lists:
        shown = ", ".join(map(str, folders))
        raise ValueError(f"no class list; expected classes.txt, obj.names or data.yaml in one of {shown}")
    return lists[0]


def described_names(path: Path) -> list[str] | None:
    """The class list that a file holds or points to, ``None`` if it is no such file.

    Raises:
        ValueError: it should be one and is not readable.
    """
    if path.suffix.lower() in YAML:
        return _yaml_names(path)
    if path.suffix.lower() == ".data":
        named = data_options(path).get("names")
        place = located(path.parent, named) if named else None
        return described_names(place) if place and place.suffix.lower() in (*NAME_LISTS, ".txt") else None
    if path.suffix.lower() in NAME_LISTS or path.name == "classes.txt":
        return [line.strip() for line in read_text(path).rstrip().split("\n")]
    return None


def listed_images(path: Path) -> tuple[list[Path], list[str]]:
    """The images that ``data.yaml``, ``obj.data`` or a list such as ``train.txt`` names, and names without a file."""
    base, entries = path.parent, [path.name]
    if path.suffix.lower() in YAML:
        content = load_yaml(path)
        base = path.parent / str(content.get("path") or "")
        values = [content[split] for split in _SPLITS if content.get(split)]
        entries = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
        bad = next((entry for entry in entries if not isinstance(entry, str)), None)
        if bad is not None:
            raise ValueError(f"{path}: found {str(bad)[:80]!r} for images, expected a path or a list of paths")
    elif path.suffix.lower() == ".data":
        entries = [value for key, value in data_options(path).items() if key in _SPLITS]
    found, missing = {}, []
    for entry in entries:
        place = located(base, entry)
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
        first = read_text(path).strip().split("\n")[0]
    except ValueError:
        return False
    return first.strip().lower().endswith(images.EXTENSIONS)


def data_options(path: Path) -> dict[str, str]:
    """The ``key = value`` lines of an ``obj.data``.

    Raises:
        ValueError: not readable as text, or a key stands there twice.
    """
    options: dict[str, str] = {}
    for line in read_text(path).split("\n"):
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and key in options:
            raise ValueError(f"{path}: {key} stands there twice; keep one")
        options |= {key: value} if equals else {}
    return options


def located(base: Path, entry: str) -> Path | None:
    """Where an entry of a list leads, ``None`` if nothing is there.

    It counts from the list's own folder, ``..`` included, since the user named the list. Two tools write otherwise:
    Darknet's entries count from where it is started, usually one folder up, so that they begin with the list's own
    folder or (as CVAT exports them) with ``data/``; Roboflow's begin with one ``../`` too many.

    Raises:
        ValueError: both the path as it is and Roboflow's lead somewhere.
    """
    plain = entry.strip().replace("\\", "/")
    own = f"{os.path.basename(os.path.abspath(base))}/"
    less = [plain.removeprefix(start) for start in (own, "data/", "../") if plain.startswith(start)]
    found = [base / text for text in (plain, *less) if os.path.exists(base / text)]
    if len(found) > 1 and plain.startswith("../"):
        raise ValueError(f"{entry} may be {found[0]} or, as Roboflow means it, {found[1]}; write which")
    return found[0] if found else None


def _images_of(place: Path) -> Iterator[tuple[Path | None, str]]:
    """Images below a folder, or of a list; with ``None`` those that are not there."""
    if place.is_dir():
        yield from ((path, "") for path in walk(place).images())
    elif is_image(place):
        yield place, ""
    else:
        for line in filter(None, map(str.strip, read_text(place).split("\n"))):
            path = located(place.parent, line)
            yield (path if path and path.is_file() else None), line


class _Texts(yaml.BaseLoader):
    """YAML in which all scalars are texts (``no`` is a name), no key stands twice, and no tags are obeyed."""

    def construct_object(self, node, deep=False):
        if node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is refused", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise yaml.constructor.ConstructorError(None, None, f"{twice} stands here twice", node.start_mark)
        return super().construct_object(node, deep)


def load_yaml(path: Path) -> dict:
    """The mapping in a YAML file, every scalar a text; empty if it is none.

    Raises:
        ValueError: with path and line: not readable as YAML, a key twice, a tag.
    """
    try:
        content = _Texts(read_text(path)).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" line {line + 1}"
        raise ValueError(f"{path}{where}: not readable as YAML ({getattr(error, 'problem', None) or error})") from None
    return content if isinstance(content, dict) else {}


def _yaml_names(path: Path) -> list[str] | None:
    """``names`` of a ``data.yaml``: a list, or ids with names."""
    names = load_yaml(path).get("names")
    if names is None:
        return None
    if isinstance(names, dict):
        if set(names) != {str(number) for number in range(len(names))}:
            found = ", ".join(map(str, names))
            raise ValueError(f"{path}: ids of names are {found}, expected 0, 1, 2, ... each once")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: names is {str(names)[:80]!r}, expected a list of class names, or ids with names")
    return [name.strip() for name in names]
