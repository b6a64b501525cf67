"""Annotation file formats, each to and from the one table of `retinamask.dataset.annotations`.

`FORMATS` names them; `read`, `write_format` and `classes_of` take such a name, and `guess` tells it by what lies in a
folder and how the files begin.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError, first_lines, parse_csv, read_classes
from retinamask.dataset.files import new_folder
from retinamask.dataset.formats import (
    class_folders,
    coco_json,
    createml,
    cvat,
    labelme,
    open_images,
    parsing,
    retinanet_csv,
    via,
    voc,
    vott,
    writing,
    yolo,
)
from retinamask.dataset.formats.class_names import apply_class_map, class_ids, parse_class_map
from retinamask.dataset.formats.entries import Format, Problem, ending
from retinamask.dataset.formats.reading import read_pairs, read_sources, summary
from retinamask.dataset.formats.voc import write_voc
from retinamask.dataset.image_files import walk

__all__ = [
    "FORMATS",
    "Problem",
    "apply_class_map",
    "class_ids",
    "classes_of",
    "format_of",
    "guess",
    "parse_class_map",
    "read",
    "read_annotations",
    "read_pairs",
    "summary",
    "write_format",
    "write_voc",
]

log = logging.getLogger(__name__)

_HEAD_BYTES = 65_536  # of a file that are enough to tell its format
_TOOLS = {  # how the files of a tool begin
    ".xml": {"cvat": r"<annotations[\s>]"},
    ".json": {
        "via": r'"(_via_\w+|region_attributes|file_attributes)"\s*:',
        "vott": r'"assets?"\s*:\s*\{',
        "labelme": r'"shapes"\s*:\s*\[|"image(Path|Data)"\s*:',
    },
    ".csv": {"vott": r'\A\s*"?' + '"?,"?'.join(vott.COLUMNS) + r'"?\s*(\n|\Z)'},
}
_COCO = r'"(images|annotations|categories|licenses)"\s*:\s*\[|"info"\s*:\s*\{'
# files that are known by name alone, and what to do with them: by their ending, and by their beginning
_ENDINGS = {
    **dict.fromkeys((".tfrecord", ".tfrecords", ".record"), "a TFRecord; export as Pascal VOC or COCO"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "an archive; unpack it"),
    ".vott": "VoTT's project, which has no boxes; give the *-asset.json beside it, or VoTT's JSON export",
}
_HEADS = {
    ".xml": [
        (r"<annotations[\s>](?!.*<image[\s>]).*<track[\s>]", cvat.VIDEO),
        (r"<dataset[\s>].*<images[\s>].*<image\s+file=", "dlib's imglab XML; convert it to Pascal VOC"),
        (r"<annotation[\s>](?!.*<bndbox).*<polygon", "XML of MIT's LabelMe, with polygons; convert it to COCO"),
    ],
    ".json": [
        (r'"(rectanglelabels|polygonlabels|original_width|lead_time|completed_by)"\s*:', "Label Studio's JSON"),
        (r'"(classTitle|geometryType)"\s*:', "Supervisely's JSON"),
        (r'"pointLabels"\s*:', "SuperAnnotate's JSON"),
        (r'"(__VIA_PROJECT_ID__|vid_list|loc_prefix)"', "VIA 3's project"),
        (r'"(data_row|media_attributes|Labeled Data)"\s*:', "Labelbox's JSON"),
        (r'"box2d"\s*:', "JSON of Scalabel or BDD100K"),
        (r'"dm_format_version"\s*:', "Datumaro's JSON"),
        (r'"source-ref"\s*:', "a manifest of SageMaker Ground Truth"),
        (r'"(inputTags|suggestiontype)"\s*:', "VoTT 1's JSON; open it in VoTT 2 and export as VoTT JSON"),
    ],
    ".csv": [
        (r"#?filename,file_size,file_attributes,region_count", "VIA's CSV; export as JSON"),
        (r"filename,width,height,class,xmin,ymin,xmax,ymax", "a CSV for TensorFlow's detectors"),
    ],
    ".txt": [(r"\S+\.jpe?g\s*\n\d+\s*\n(-?\d+ ){9}\d+", "WIDER FACE's list of boxes")],
}
_ALIKE = {".jsonl": ".json", ".ndjson": ".json", ".manifest": ".json"}
_XML, _JSON = ending(".xml"), ending(".json")

# fmt: off
FORMATS = {
    "voc": Format(
        voc.entries, _XML, "XML file", "Pascal VOC files as labelImg saves them", "XML", "XML file(s)",
        voc.write_voc_folder, ".xml",
    ),
    "yolo": Format(
        yolo.entries, yolo.label_files, "label file",
        "YOLO's .txt files, one an image, with classes.txt, obj.names or data.yaml", "label file", "label file(s)",
        yolo.write_yolo, ".txt",
    ),
    "coco": Format(
        coco_json.entries, _JSON, "JSON file", "COCO annotations: images, annotations and categories",
        "COCO entry", "COCO image(s)", coco_json.write_coco,
    ),
    "createml": Format(
        createml.entries, _JSON, "JSON file", "CreateML annotations: a list of images and annotations",
        "CreateML entry", "CreateML image(s)", createml.write_createml,
    ),
    "csv": Format(
        retinanet_csv.entries, retinanet_csv.select, "CSV file", "rows of path,x1,y1,x2,y2,class", "CSV row",
        "image(s) of the CSV", retinanet_csv.write_csv,
    ),
    "open_images": Format(
        open_images.entries, open_images.select, "CSV file", "boxes of Open Images: a header with ImageID, XMin, ...",
        "Open Images row", "Open Images image(s)",
    ),
    "cvat": Format(cvat.entries, _XML, "XML file", "CVAT for images 1.1", "CVAT entry", "CVAT image(s)"),
    "labelme": Format(
        labelme.entries, _JSON, "JSON file", "LabelMe's files with shapes, one an image",
        "LabelMe file", "LabelMe file(s)",
    ),
    "via": Format(
        via.entries, _JSON, "JSON file", "a project or annotations of VGG Image Annotator (VIA) 1 or 2",
        "VIA entry", "VIA image(s)",
    ),
    "vott": Format(
        vott.entries, ending(".json", ".csv"), "JSON or CSV file", "an export of VoTT 2, or its *-asset.json",
        "VoTT asset", "VoTT asset(s)",
    ),
    "class_folders": Format(
        class_folders.entries, class_folders.select, "image",
        "a folder of class folders: two or more folders called like classes, with images in them",
        "class folder", "image(s)",
    ),
}
# fmt: on


def read(
    format_name: str,
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read annotations of a format into the table.

    An image is where its annotation says: see `retinamask.dataset.formats.places`. What is not understood is
    reported, and its image left out; so is an image that is annotated twice, differently. Boxes that reach at most
    `reading.CLIP_LIMIT` pixels past the image are clipped; others that make no sense are dropped, and an image that
    has no box left is left out.

    Args:
        format_name: one of `FORMATS`.
        sources: files, or folders that are searched with all below them, linked ones too.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are, if not where the annotations say.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no annotation as images without objects; not those whose annotation
            could not be used.

    Returns:
        The table, sorted by annotation file and image, and what was wrong.

    Raises:
        AnnotationError: the sources hold nothing that could be used.
    """
    if format_name == "class_folders" and image_folder:
        raise AnnotationError("class folders hold their images themselves; leave the folder of the images away")
    return read_sources(_named(format_name), sources, csv_folder, image_folder, classes, with_unannotated)


def read_annotations(
    source: str | Path | Iterable[str | Path],
    folder: str | Path = ".",
    known: dict[str, int] | str | Path | None = None,
    class_map: dict[str, str] | str | None = None,
    image_folder: str | Path | None = None,
    with_unannotated: bool = False,
    format_name: str | None = None,
) -> tuple[pd.DataFrame, dict[str, int], list[Problem]]:
    """Read annotations of any known format into a table, and rename or join their classes; see `read`.

    Args:
        source: an annotation file, a folder of them, or several of these.
        folder: what the image paths of the table are relative to; the working folder if left out.
        known: the classes, name to id, or a class list; ``classes.csv`` in a folder ``source`` if left out and there.
            None are known if it is ``{}``: then the classes are those of the files, in their order.
        class_map: old class names to new ones, as ``"Mask=mask,NoMask=no_mask"`` or as a dict; others stay.
        image_folder: of the images, if they are not where the annotations say.
        with_unannotated: whether images without annotation are taken as images without faces.
        format_name: such as ``yolo``; told by the files if left out.

    Returns:
        Rows ``image_path, x1, y1, x2, y2, class_name``, the classes (name to id), and what was wrong with the files.

    Example:
        >>> table, classes, problems = rm.read_annotations("data/mine")
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if known in (None, "") and len(sources) == 1 and Path(sources[0], "classes.csv").is_file():
        known = Path(sources[0], "classes.csv")
    known = read_classes(known) if isinstance(known, (str, Path)) and known else known or None
    class_map = parse_class_map(class_map) if isinstance(class_map, str) and class_map else class_map or {}
    format_name = format_name or guess(sources)
    wanted = known
    if known and class_map:
        unknown = sorted(set(class_map.values()) - set(known))
        if unknown:
            raise AnnotationError(f"class map: {', '.join(unknown)} is not among the classes ({', '.join(known)})")
        # what has one of the known names now, or will have it
        wanted = dict.fromkeys([*class_map, *(name for name in known if name not in class_map)])
    table, problems = read(format_name, sources, folder, image_folder, wanted, with_unannotated)
    table, found = apply_class_map(table, classes_of(format_name, sources, table), class_map)
    return table, known or found, problems


def write_format(
    table: pd.DataFrame, classes: dict[str, int], to: str, out: str | Path, folder: str | Path = ".", **options: str
) -> None:
    """Write a table as ``voc``, ``yolo``, ``coco``, ``createml`` or ``csv`` into a new folder, whole or not at all.

    Args:
        table: annotations with image paths relative to ``folder``.
        classes: name to id.
        to: the format.
        out: a new or empty folder.
        folder: see ``table``.
        options: of the format, such as ``images="copy"`` of ``yolo``.

    Raises:
        AnnotationError: nothing is written then.

    Example:
        >>> rm.write_format(table, classes, "yolo", "data/mine_yolo")
    """
    writer = _named(to).write
    if writer is None:
        able = ", ".join(name for name, known in FORMATS.items() if known.write)
        raise AnnotationError(f"{to} is only read; formats that can be written: {able}")
    pictures = writing.pictures(table, classes, folder)
    with new_folder(out) as new:
        writer(new, pictures, classes, Path(out).resolve(), **options)


def classes_of(format_name: str, sources: Iterable[str | Path], table: pd.DataFrame) -> dict[str, int]:
    """Class ids: the order that the files themselves list, then the others as they first appear in the table.

    Beside files of formats without a list, writers leave a ``classes.csv``. ``table`` is what `read` made of the
    sources.
    """
    sources = list(map(Path, sources))
    if format_name == "class_folders":
        return class_ids(table, class_folders.folder_classes(sources))
    paths = [(source if source.is_dir() else source.parent) / "classes.csv" for source in sources]
    beside = [name for path in paths if path.is_file() for name in read_classes(path)]
    return class_ids(table, table.attrs.get("class_list") or beside)


def _named(format_name: str) -> Format:
    if format_name not in FORMATS:
        raise AnnotationError(f"format is {format_name!r}, expected one of: {', '.join(FORMATS)}")
    return FORMATS[format_name]


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
    if not formats and all(source.is_dir() for source in sources) and len(class_folders.folder_classes(sources)) >= 2:
        return "class_folders"  # one folder of images may be called anything
    if not formats and damaged:
        raise AnnotationError(f"{first_lines(damaged)}\nno other annotations in {shown}")
    if not formats:
        listed = "".join(f"\n- {name}: {form.expected}" for name, form in FORMATS.items())
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
        ValueError: it may be one, and is damaged, or of a kind that is known but not read: "Label Studio's JSON;
            export as COCO".
    """
    suffix, head = path.suffix.lower(), ""
    kinds, tools = _HEADS.get(_ALIKE.get(suffix, suffix), []), _TOOLS.get(suffix, {})
    if kinds:
        try:
            with open(path, "rb") as file:
                start = file.read(_HEAD_BYTES)  # COCO's files are large
        except OSError:  # the reader reports it
            start = b""
        head = start.decode(json.detect_encoding(start), errors="ignore").lstrip("\ufeff \t\r\n")
    kind = next((kind for pattern, kind in kinds if re.search(pattern, head, re.DOTALL)), _ENDINGS.get(suffix))
    if "ImageSets" in path.parts and suffix == ".txt":
        kind = "a list of images of the Pascal VOC devkit; give its folder Annotations"
    if kind:
        raise ValueError(f"{path} is {kind if ';' in kind else f'{kind}; export as Pascal VOC or COCO'}")
    if suffix != ".json" or head.startswith("{"):
        for name, pattern in tools.items():
            if re.search(pattern, head):
                return name
    if suffix == ".xml":
        return "voc"
    if suffix == ".json":
        if head.startswith("[") and ('"image"' in head or head.rstrip() == "[]"):
            return "createml"
        if head.startswith("{") and re.search(_COCO, head):
            return "coco"
        parsing.load_json(path, (dict, list))  # says what is wrong, if it is no JSON
        return None
    if suffix == ".csv" and path.name.lower() != "classes.csv":
        header = head.partition("\n")[0].replace('"', "").split(",")
        if set(open_images.COLUMNS) <= set(map(str.strip, header)):
            return "open_images"
        retinanet_csv.refuse_detections(path)
        parse_csv(path)
        return "csv"
    if suffix == ".txt" and path.name != "classes.txt":
        return "yolo" if yolo.looks_like_labels(path) or yolo.is_image_list(path) else None
    return "yolo" if yolo.described_names(path) is not None else None
