"""Files of annotation tools, told by their beginning: those that are read, and those that are only known by name.

Above `cvat`, `labelme`, `via` and `vott`, below `guessing`.
"""

import json
import re
from pathlib import Path

from retinamask.dataset.formats import cvat, labelme, via, vott

_HEAD = 65_536  # bytes that are enough to tell
_LOOKS_LIKE = {
    ".xml": {"cvat": cvat.looks_like},
    ".json": {"via": via.looks_like, "vott": vott.looks_like, "labelme": labelme.looks_like},
    ".csv": {"vott": vott.looks_like},
}
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
KNOWN_ENDINGS = (*_ENDINGS, *_ALIKE)  # of files that are never read


def tool_format(path: Path) -> str | None:
    """Tell a file of an annotation tool: ``cvat``, ``labelme``, ``via`` or ``vott``; ``None`` for all others."""
    suffix = path.suffix.lower()
    head = _head(path) if suffix in _LOOKS_LIKE else ""
    if suffix == ".json" and not head.startswith("{"):
        return None
    return next((name for name, looks_like in _LOOKS_LIKE.get(suffix, {}).items() if looks_like(head)), None)


def known_kind(path: Path) -> str | None:
    """Name a file that is known but not read, and say what to do: "Label Studio's JSON; export as COCO"."""
    suffix = path.suffix.lower()
    if suffix in _ENDINGS:
        return _ENDINGS[suffix]
    if "ImageSets" in path.parts and suffix == ".txt":
        return "a list of images of the Pascal VOC devkit; give its folder Annotations"
    kinds = _HEADS.get(_ALIKE.get(suffix, suffix), [])
    head = _head(path) if kinds else ""
    kind = next((kind for pattern, kind in kinds if re.search(pattern, head, re.DOTALL)), None)
    return kind if kind is None or ";" in kind else f"{kind}; export as Pascal VOC or COCO"


def _head(path: Path) -> str:
    """The beginning of a text file; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    return head.decode(json.detect_encoding(head), errors="ignore").lstrip("\ufeff \t\r\n")
