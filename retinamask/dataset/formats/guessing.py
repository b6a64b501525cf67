"""Which format a file or a folder is in, told by what lies there.

On top of the readers, below the package's own names.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from retinamask.dataset.annotations import AnnotationError, read_annotations
from retinamask.dataset.formats import yolo_lists
from retinamask.dataset.formats.class_folders import folder_classes
from retinamask.dataset.formats.image_files import is_hidden, is_image
from retinamask.dataset.formats.known_kinds import KNOWN_ENDINGS, known_kind, tool_format
from retinamask.dataset.formats.open_images import has_box_header

LOOKED_FOR = {
    "voc": "XML files (Pascal VOC, labelImg)",
    "yolo": "text files beside images or in labels/, with classes.txt, obj.names or data.yaml",
    "coco": "a JSON file with images, annotations and categories",
    "createml": "a JSON file with a list of images and annotations",
    "open_images": "a CSV file with a header that has ImageID, XMin, ...",
    "csv": "a CSV file with rows of path,x1,y1,x2,y2,class",
    "cvat": "an XML with images and boxes (CVAT for images)",
    "labelme": "JSON files with shapes, one an image (LabelMe)",
    "via": "a JSON file with regions (VGG Image Annotator 1 or 2)",
    "vott": "a JSON file with assets and regions, or a CSV with image,xmin,ymin,xmax,ymax,label (VoTT 2)",
    "class_folders": "folders called like classes, with images in them",
}

_ENDINGS = (".xml", ".json", ".csv", ".txt", *KNOWN_ENDINGS, *yolo_lists.YAML, ".data", *yolo_lists.NAME_LISTS)
_HEAD = 65_536  # bytes of a JSON that are enough to tell


def guess(sources: Iterable[str | Path]) -> str:
    """The name of the format that the sources are in.

    A folder with annotation files of one kind is in that format. CSV tables count only where there are no other
    annotations, because this program writes them beside what it reads; class folders only where there is nothing else.

    Raises:
        AnnotationError: a source does not exist, no format is recognised, or more than one.
    """
    sources = [Path(source) for source in sources]
    found: Counter = Counter()
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected a folder or file of annotations")
        found += Counter(filter(None, map(_format_of, _files(source))))
    shown = ", ".join(map(str, sources))
    formats = [name for name in found if name != "csv"] or list(found)
    if not formats and all(source.is_dir() for source in sources) and _has_class_folders(sources):
        formats = ["class_folders"]
    kinds = [] if formats else [(path, known_kind(path)) for source in sources for path in _files(source)]
    for path, kind in kinds:
        if kind:
            raise AnnotationError(f"{path} is {kind}")
    if not formats:
        listed = "".join(f"\n- {name}: {text}" for name, text in LOOKED_FOR.items())
        raise AnnotationError(f"no annotations that are known in {shown}; looked for:{listed}")
    if len(formats) > 1:
        counts = ", ".join(f"{name} ({found[name]} file(s))" for name in sorted(formats))
        raise AnnotationError(f"annotations of several formats in {shown}: {counts}; name the one to read")
    return formats[0]


def _files(source: Path) -> list[Path]:
    """Files below a folder that may be annotations, sorted."""
    if source.is_file():
        return [source]
    found = []
    for folder, _, names in os.walk(source):
        paths = (Path(folder, name) for name in names if name.lower().endswith(_ENDINGS))
        found += [path for path in paths if not is_hidden(path) and path.is_file()]
    return sorted(found)


def _format_of(path: Path) -> str | None:
    """The format of one file, if it is an annotation file."""
    suffix = path.suffix.lower()
    if known_kind(path):
        return None
    if tool := tool_format(path):
        return tool
    if suffix == ".xml":
        return "voc"
    if suffix == ".json":
        return _json_format(path)
    if suffix == ".csv":
        return _csv_format(path)
    try:
        return "yolo" if _is_yolo(path) else None
    except ValueError:  # a damaged file tells nothing
        return None


def _is_yolo(path: Path) -> bool:
    """Whether a file is a class list, a list of images, or label lines."""
    if path.suffix.lower() != ".txt" or path.name == "classes.txt":
        return yolo_lists.described_names(path) is not None
    first = yolo_lists.read_text(path).strip().split("\n")[0]
    return yolo_lists.is_image_list(path) or (len(first.split()) >= 5 and all(map(_is_number, first.split())))


def _json_format(path: Path) -> str | None:
    """Told by the beginning, because COCO's files are large."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        text = head.decode(json.detect_encoding(head), errors="ignore").lstrip("\ufeff \t\r\n")
    except OSError:
        return None
    if text.startswith("["):
        return "createml" if '"image"' in text or text.rstrip() == "[]" else None
    lists = re.search(r'"(images|annotations|categories|licenses)"\s*:\s*\[|"info"\s*:\s*\{', text)
    return "coco" if text.startswith("{") and lists else None


def _csv_format(path: Path) -> str | None:
    if path.name.lower() == "classes.csv":
        return None
    if has_box_header(path):
        return "open_images"
    try:
        read_annotations(path)
    except ValueError as error:
        return "csv" if path.name == "annotations.csv" and "line" in str(error) else None
    return "csv"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_class_folders(sources: list[Path]) -> bool:
    """Whether there are images, none of them in the source itself beside others."""
    inside = any(is_image(path) for source in sources for path in source.iterdir())
    names = folder_classes(sources)
    return len(names) >= 2 or (bool(names) and not inside) or (len(sources) >= 2 and bool(names))
