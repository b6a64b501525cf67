"""Which format a file or a folder is in, told by what lies there.

Above the readers, below the package's own names.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import json_files, retinanet_csv, yolo, yolo_lists
from retinamask.dataset.formats.class_folders import folder_classes
from retinamask.dataset.formats.known_kinds import known_kind, tool_format
from retinamask.dataset.formats.open_images import has_box_header
from retinamask.dataset.image_files import walk

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
    "class_folders": "two or more folders called like classes, with images in them",
}

log = logging.getLogger(__name__)

_HEAD = 65_536  # bytes of a JSON that are enough to tell


def guess(sources: Iterable[str | Path]) -> str:
    """The name of the format that the sources are in.

    A folder with annotation files of one kind is in that format. CSV tables count only where there are no other
    annotations, because this program writes them beside what it reads; class folders only where there is nothing else.

    Raises:
        AnnotationError: a source does not exist, more than one format, or none is recognised: then what is wrong with
            the files that might be annotations.
    """
    sources = [Path(source) for source in sources]
    found: Counter = Counter()
    damaged: list[str] = []
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected a folder or file of annotations")
        for path in walk(source).files if source.is_dir() else [source]:
            try:
                found[format_of(path)] += 1
            except ValueError as error:
                damaged.append(str(error) if str(error).startswith(str(path)) else f"{path}: {error}")
    del found[None]
    shown = ", ".join(map(str, sources))
    formats = [name for name in found if name != "csv"] or list(found)
    if not formats and all(source.is_dir() for source in sources) and _has_class_folders(sources):
        formats = ["class_folders"]
    if not formats and damaged:
        raise AnnotationError("\n".join([*damaged[:20], f"no other annotations in {shown}"]))
    if not formats:
        listed = "".join(f"\n- {name}: {text}" for name, text in LOOKED_FOR.items())
        raise AnnotationError(f"no annotations that are known in {shown}; looked for:{listed}")
    for message in damaged[:20]:  # what else is wrong with files of the format itself, its reader says
        log.warning("%s", message)
    if len(formats) > 1:
        counts = ", ".join(f"{name} ({found[name]} file(s))" for name in sorted(formats))
        raise AnnotationError(f"annotations of several formats in {shown}: {counts}; name the one to read")
    return formats[0]


def format_of(path: Path) -> str | None:
    """The format of one file, ``None`` if it is no annotation file.

    Raises:
        ValueError: it may be one, and is damaged, or of a kind that is known but not read.
    """
    suffix = path.suffix.lower()
    if kind := known_kind(path):
        raise ValueError(f"{path} is {kind}")
    if tool := tool_format(path):
        return tool
    if suffix == ".xml":
        return "voc"
    if suffix == ".json":
        return _json_format(path)
    if suffix == ".csv" and path.name.lower() != "classes.csv":
        if has_box_header(path):
            return "open_images"
        retinanet_csv.read(path)
        return "csv"
    if suffix == ".txt" and path.name != "classes.txt":
        return "yolo" if yolo.looks_like_labels(path) or yolo_lists.is_image_list(path) else None
    return "yolo" if yolo_lists.described_names(path) is not None else None


def _json_format(path: Path) -> str | None:
    """Told by the beginning, because COCO's files are large."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    text = head.decode(json.detect_encoding(head), errors="ignore").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        if '"image"' in text or text.rstrip() == "[]":
            return "createml"
    elif text.startswith("{") and re.search(
        r'"(images|annotations|categories|licenses)"\s*:\s*\[|"info"\s*:\s*\{', text
    ):
        return "coco"
    json_files.load_json(path, (dict, list))  # says what is wrong, if it is no JSON
    return None


def _has_class_folders(sources: list[Path]) -> bool:
    """Whether there are two classes or more: one folder of images may be called anything."""
    return len(folder_classes(sources)) >= 2
