"""YOLO text files (``class centre_x centre_y width height``, shares of the image) to entries and back.

With the lists that say which classes and images there are, as Darknet (``obj.data``, ``obj.names``, ``train.txt``:
https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects), Ultralytics (``data.yaml``:
https://docs.ultralytics.com/datasets/detect/), labelImg 1.8.6 (``classes.txt``) and Roboflow (``_darknet.labels``)
write them.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from retinamask.dataset import files, images
from retinamask.dataset.annotations import AnnotationError, number, relative_path
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject, Problem, folders_up_to, found_object
from retinamask.dataset.formats.parsing import read_text
from retinamask.dataset.formats.places import labels_of
from retinamask.dataset.formats.writing import Picture, stems
from retinamask.dataset.image_files import is_image, walk

NAME_LISTS = (".names", ".labels")
YAML = (".yaml", ".yml")
IMAGES = ("link", "copy", "none")
LABEL_FOLDER = "obj_train_data"

_SPLITS = ("train", "val", "valid", "test")
_EDGE = 1 + 1e-6  # what rounding makes of 1
_NOTE = "# One list for both: divide train.txt before training, val must be images that train has not seen.\n"


# --- Labels ---


def label_files(files: list[Path]) -> list[Path]:
    """The text files that may hold labels: all but class lists, lists of images, and notes such as a read-me."""
    texts = [path for path in files if path.suffix.lower() == ".txt" and path.name != "classes.txt"]
    return [
        path
        for path in texts
        if looks_like_labels(path)
        or not (is_image_list(path) or path.name.lower().startswith(("readme.", "license.")))
        or (path.stat().st_size == 0)
    ]


def looks_like_labels(path: Path) -> bool:
    """Whether the first line of a text is a class and at least four numbers."""
    fields = _first_line(path).split()
    return len(fields) >= 5 and all(number(field) == number(field) for field in fields)


def is_image_list(path: Path) -> bool:
    """Whether a text file lists images: its first line ends like the name of one."""
    return _first_line(path).strip().lower().endswith(images.EXTENSIONS)


def _first_line(path: Path) -> str:
    try:
        return read_text(path).strip().split("\n")[0]
    except ValueError:
        return ""


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem | Path]:
    """Read one label file, or all those of the images that ``data.yaml``, ``obj.data`` or ``train.txt`` names.

    An empty label file is an image without objects.
    """
    suffix = path.suffix.lower()
    if suffix not in (*YAML, ".data") and not (suffix == ".txt" and is_image_list(path)):
        yield from _labels(path, asked)
        return
    found, missing = listed_images(path)
    for name in missing:
        yield Problem("skipped file", str(path), f"{name!r} does not exist; put it there")
    own = described_names(path)
    asked.class_list.update(dict.fromkeys(filter(None, own or ())))
    for image_path in found:
        label_path = next(iter(labels_of(image_path, ".txt")), None)
        if label_path is None:
            yield image_path
            continue
        try:
            for item in _labels(label_path, asked, own):
                yield item._replace(image_path=image_path) if isinstance(item, Entry) else item
        except ValueError as error:
            yield Problem("skipped file", str(label_path), str(error).removeprefix(f"{label_path}: "))


def _labels(path: Path, asked: Asked, own: list[str] | None = None) -> Iterator[Entry | Problem]:
    """Yield the entry of one label file, and notes on its class list."""
    try:
        names = own or _names(path, asked)
    except ValueError:
        if read_text(path).strip():
            raise
        names = []  # an image without objects needs none
    for name, count in Counter(names).items():
        if count > 1:
            message = f"class {name!r} stands in the class list {count} times; these are taken as one"
            yield Problem("note", str(path.parent), message)
    yield Entry(path, str(path), objects(path, names), own_stem=True, relative=True)


def objects(path: Path, names: list[str]) -> list[FoundObject]:
    """The lines of a label file, boxes as shares of the image; `ValueError` if it is not readable as text."""
    lines = enumerate(read_text(path).split("\n"), 1)
    return [found_object(f"{path} line {at}", _object, line.split(), names) for at, line in lines if line.strip()]


def _object(fields: list[str], names: list[str]) -> tuple[str, tuple[float, ...]]:
    if len(fields) != 5:
        hint = {6: "; with a score?"}.get(len(fields), "; an outline?" if len(fields) > 6 else "")
        raise ValueError(f"found {len(fields)} numbers, expected 5: class, centre x and y, width, height{hint}")
    label, x, y, width, height = numbers = [number(field) for field in fields]
    if strange := [field for field, found in zip(fields, numbers, strict=True) if found != found]:
        raise ValueError(f"found {strange[0][:40]!r}, expected a number")
    if label != int(label) or not 0 <= label < len(names):
        raise ValueError(f"class {fields[0]} is beyond the list of {len(names)} classes ({', '.join(names)})")
    if not all(0 <= value <= _EDGE for value in (x, y, width, height)):
        hint = "; these may be pixels" if max(x, y, width, height) > 2 else ""
        raise ValueError(f"found {' '.join(fields[1:])}, expected shares of the image from 0 to 1{hint}")
    return names[int(label)], (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


# --- Lists of classes ---


def _names(path: Path, asked: Asked) -> list[str]:
    """The class list of a label file, from its own folder or those between it and the folder that the user named.

    Raises:
        ValueError: there is no list, or lists disagree.
    """
    if path.parent not in asked.memory:  # each folder is looked through once
        folders = folders_up_to(path, asked.root)
        try:
            names = [folder / name for folder in folders for name in sorted(os.listdir(folder)) if name[0] != "."]
            found = {place: listed for place in names if (listed := described_names(place)) is not None}
            lists = list(found.values())
            if any(listed != lists[0] for listed in lists):
                shown = "; ".join(f"{place}: {', '.join(listed)}" for place, listed in found.items())
                raise ValueError(f"class lists disagree, keep one: {shown}")
            if not lists:
                shown = ", ".join(map(str, folders))
                raise ValueError(f"no class list; expected classes.txt, obj.names or data.yaml in one of {shown}")
            asked.memory[path.parent] = lists[0]
            asked.class_list.update(dict.fromkeys(filter(None, lists[0])))
        except ValueError as error:
            asked.memory[path.parent] = error
    if isinstance(asked.memory[path.parent], ValueError):
        raise asked.memory[path.parent]
    return asked.memory[path.parent]


def described_names(path: Path) -> list[str] | None:
    """The class list that a file holds or points to, ``None`` if it is no such file.

    Raises:
        ValueError: it should be one and is not readable.
    """
    if path.suffix.lower() == ".data":
        named = data_options(path).get("names")
        place = located(path.parent, named) if named else None
        return described_names(place) if place and place.suffix.lower() in (*NAME_LISTS, ".txt") else None
    if path.suffix.lower() in NAME_LISTS or path.name == "classes.txt":
        return [line.strip() for line in read_text(path).rstrip().split("\n")]
    names = _load_yaml(path).get("names") if path.suffix.lower() in YAML else None
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


def _load_yaml(path: Path) -> dict:
    """The mapping in a YAML file, every scalar a text; empty if it is none."""
    try:
        content = _Texts(read_text(path)).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" line {line + 1}"
        raise ValueError(f"{path}{where}: not readable as YAML ({getattr(error, 'problem', None) or error})") from None
    return content if isinstance(content, dict) else {}


# --- Lists of images ---


def listed_images(path: Path) -> tuple[list[Path], list[str]]:
    """The images that ``data.yaml``, ``obj.data`` or a list such as ``train.txt`` names, and names without a file."""
    base, names = path.parent, [path.name]
    if path.suffix.lower() in YAML:
        content = _load_yaml(path)
        base = path.parent / str(content.get("path") or "")
        values = [content[split] for split in _SPLITS if content.get(split)]
        names = [name for value in values for name in (value if isinstance(value, list) else [value])]
        if bad := [name for name in names if not isinstance(name, str)]:
            raise ValueError(f"{path}: found {str(bad[0])[:80]!r} for images, expected a path or a list of paths")
    elif path.suffix.lower() == ".data":
        names = [value for key, value in data_options(path).items() if key in _SPLITS]
    found, missing = {}, []
    for name in names:
        place = located(base, name)
        if place is None:
            missing.append(name)
        elif place.is_dir():
            found |= dict.fromkeys(walk(place).images())
        elif is_image(place):
            found[place] = None
        else:
            for line in filter(None, map(str.strip, read_text(place).split("\n"))):
                image_path = located(place.parent, line)
                if image_path and image_path.is_file():
                    found[image_path] = None
                else:
                    missing.append(line)
    return list(found), missing


def data_options(path: Path) -> dict[str, str]:
    """The ``key = value`` lines of an ``obj.data``; `ValueError` if it is not readable, or has a key twice."""
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


# --- Writing ---


def write_yolo(new: Path, pictures: list[Picture], classes: dict[str, int], folder: Path, images: str = "link") -> None:
    """Write label files, their class list in every form, and the list of images.

    ``obj_train_data/`` holds a ``.txt`` an image and ``classes.txt`` (labelImg); beside it lie ``obj.names``,
    ``obj.data`` and ``train.txt`` (Darknet, to be started in that folder) and ``data.yaml`` (Ultralytics). Both
    demand the images beside the label files: they are there as ``images`` says: ``link`` (symbolic links, which Windows
    gives only with special rights), ``copy``, or ``none``: then ``train.txt`` names the images where they are, which is
    enough for labelImg and for reading back with the folder of the images. Ten decimals.
    """
    if images not in IMAGES:
        raise AnnotationError(f"images is {images!r}, expected one of: {', '.join(IMAGES)}")
    # the class list lies among the label files
    found = stems([picture.path for picture in pictures]).items()
    stem_of = {path: f"{stem}_" if Path(stem).name.lower() == "classes" else stem for path, stem in found}
    renamed = [path for path, stem in stem_of.items() if Path(stem).name != path.stem]
    if images == "none" and renamed:  # a label file is found by the stem of its image
        raise AnnotationError(
            f"{renamed[0]}: another image differs only in the extension, or its label file would be classes.txt; "
            "use images copy or link"
        )
    listed = []
    for picture in pictures:
        label_path = new / LABEL_FOLDER / f"{stem_of[picture.path]}.txt"
        files.write_text(label_path, label_lines(picture, classes))
        placed = label_path.with_name(Path(stem_of[picture.path]).name + picture.path.suffix)
        place_image(picture.path, placed, images)
        inside = f"./{placed.relative_to(new).as_posix()}"  # Ultralytics counts only ./ from the list's folder
        listed.append(relative_path(picture.path, folder) if images == "none" else inside)
    names = sorted(classes, key=classes.get)
    name_lines = "".join(f"{name}\n" for name in names)
    for label_folder in sorted({(new / LABEL_FOLDER / stem).parent for stem in stem_of.values()}):
        files.write_text(label_folder / "classes.txt", name_lines)
    files.write_text(new / "obj.names", name_lines)
    data = {"classes": len(names), "train": "train.txt", "names": "obj.names", "backup": "backup"}
    files.write_text(new / "obj.data", "".join(f"{key} = {value}\n" for key, value in data.items()))
    files.write_text(new / "train.txt", "".join(f"{line}\n" for line in listed))
    record = {"train": "train.txt", "val": "train.txt", "nc": len(names), "names": dict(enumerate(names))}
    files.write_text(new / "data.yaml", _NOTE + yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def label_lines(picture: Picture, classes: dict[str, int], digits: int = 10) -> str:
    """The text of an image's label file; empty for one without objects."""
    width, height = picture.size_wh
    lines = []
    for (x1, y1, x2, y2), name in zip(picture.boxes_xyxy.tolist(), picture.class_names, strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(classes[name]), *(f"{share:.{digits}f}" for share in shares)]) + "\n")
    return "".join(lines)


def place_image(image_path: Path, placed: Path, images: str) -> None:
    """Link or copy an image to a place in a folder of `files.new_folder`; ``images`` is as in `write_yolo`.

    Raises:
        AnnotationError: the system refuses.
    """
    try:
        if images == "link":
            # the folder is renamed afterwards, to a name beside it: the way up and down stays the same
            placed.symlink_to(os.path.relpath(image_path, placed.parent))
        elif images == "copy":
            shutil.copyfile(image_path, placed)
    except OSError as error:
        raise AnnotationError(f"{placed}: no {images} of {image_path} ({error.strerror}); use images copy") from None
