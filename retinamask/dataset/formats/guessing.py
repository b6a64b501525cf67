"""Which format a file or a folder is in, told by what lies there and how it begins."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from retinamask.dataset.annotations import AnnotationError, first_lines, parse_csv
from retinamask.dataset.formats import cvat, open_images, parsing, retinanet_csv, vott, yolo
from retinamask.dataset.formats.class_folders import folder_classes
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

_HEAD_BYTES = 65_536  # of a file that are enough to tell
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
    if not formats and all(source.is_dir() for source in sources) and len(folder_classes(sources)) >= 2:
        return "class_folders"  # one folder of images may be called anything
    if not formats and damaged:
        raise AnnotationError(f"{first_lines(damaged)}\nno other annotations in {shown}")
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
