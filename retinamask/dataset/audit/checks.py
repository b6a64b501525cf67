"""The checks on annotation files, images, boxes, classes and anchors: each is a function that gives cases of `KINDS`.

`copy_checks` has those on copies and splits.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, images
from retinamask.dataset.anchors import POSITIVE_OVERLAP, Anchors, best_overlaps, coverage, suggest
from retinamask.dataset.annotations import BOX_COLUMNS, count_boxes, image_paths, objects, relative_path
from retinamask.dataset.audit.source import Look, Source
from retinamask.dataset.formats.reading import CLIP_LIMIT

SEVERITIES = ("error", "warning", "note")  # makes training wrong; makes it worse; good to know
MOST_EXAMPLES = 10

_SINGULARS = {"boxes": "box", "classes": "class", "groups of names": "group of names"}
LARGER = (1.5, 2.0)  # input sizes, as multiples of the one asked for, that coverage is told for too
LEAST_GAIN = 0.005  # share of the boxes that a suggestion must cover more to be worth a change

# fmt: off
KINDS = {
    "missing image": ("error", "images", "The table names images that are not there: training on it stops or leaves "
        "them out. Put them back, or leave them out of the table."),
    "unreadable image": ("error", "images", "Not an image of a known format. Replace the files or leave them out."),
    "damaged image": ("error", "images", "Cut short or broken inside. Fetch the files again or leave them out."),
    "too many pixels": ("error", "images", "More pixels than an image may have: a decompression bomb, or a scan that "
        "is to be made smaller. Such files are not decoded; make them smaller or leave them out."),
    "turned by EXIF": ("warning", "images", "labelImg, OpenCV and retinamask turn these images as EXIF asks; "
        "keras-retinanet's own reader, PIL and tf.io do not, and see their boxes in the wrong place. Store the pixels "
        "upright and drop the EXIF orientation."),
    "CMYK image": ("warning", "images", "Made for print: readers disagree about the colours. Save the images as RGB."),
    "16-bit image": ("warning", "images", "retinamask scales them to 8 bits, keras-retinanet's reader cuts grey ones "
        "off at 255, which leaves them white. Save the images with 8 bits."),
    "black-and-white image": ("warning", "images", "Only black and white, no grey between: a scan rather than a "
        "photograph. Look whether they belong here."),
    "palette image": ("note", "images", "At most 256 colours; read as RGB without harm."),
    "transparent pixels": ("warning", "images", "Transparency is dropped when the network reads an image, and colours "
        "that no viewer shows come up. Flatten the images onto a background."),
    "alpha channel": ("note", "images", "All of it is opaque, so that nothing is lost when it is dropped."),
    "annotation of another size": ("error", "images", "The image was changed after it was annotated, or the annotation "
        "belongs to another: its boxes are likely to be shifted. Look at the boxes; scale or redraw them."),
    "unusable annotation file": ("error", "files", "Left out, with its image: see each for the reason. Mend the file "
        "or draw its boxes again."),
    "unusable box": ("error", "boxes", "Left out: see each for the reason. Draw it again."),
    "XML without a size": ("note", "files", "The image's own size is used."),
    "said while reading the annotations": ("note", "remarks", "What reading the files had to say."),
    "image without annotation": ("note", "images", "They are looked at, but not trained on. Annotate them, or take "
        "them away."),
    "boxes of the unturned image": ("error", "images", "Drawn on the image as stored, without the turn that EXIF asks "
        "for: retinamask, labelImg and OpenCV turn it, and the boxes no longer fit. Store the pixels upright, as the "
        "boxes need them, and drop the EXIF orientation."),
    "box outside the image": ("error", "boxes", f"More than {CLIP_LIMIT} pixels past the edge, or not on the image at "
        "all: boxes of another image or of another size of it. Redraw or drop them."),
    "two classes for one box": ("error", "boxes", "Nearly the same box with two classes: at least one is wrong. Look, "
        "and delete it."),
    "box past the edge": ("warning", "boxes", f"Up to {CLIP_LIMIT} pixels past the edge, as drawn by hand. Clip them; "
        "the readers of annotation files do."),
    "tiny box": ("warning", "boxes", "A side of less than {tiny_side:g} pixels once the image is fitted into "
        "{image_size} pixels: hardly anything is left to learn from. Use a larger image size, cut the images into "
        "tiles, or drop such boxes."),
    "same box twice": ("warning", "boxes", "Two boxes of one class that overlap by an IoU above {same_overlap:g}: one "
        "face, counted twice. Delete one of them."),
    "image without objects": ("note", "images", "Backgrounds are welcome, up to a point. Look whether their faces were "
        "forgotten."),
    "class names alike": ("error", "groups of names", "Names that differ only in case, white space, hyphens or "
        "underscores are likely to be one class: the network would learn to tell it from itself. Rename the labels."),
    "unknown class": ("error", "classes", "The class list ({classes}) lacks these. Add them to it or fix the labels."),
    "class without boxes": ("warning", "classes", "In the class list, and on no image: it cannot be learnt. Add "
        "images, or take it off the list."),
    "rare class": ("warning", "classes", "Fewer than {rare_share:.0%} of the boxes of the largest class: it is seldom "
        "seen in training and easily lost. Add images."),
    "same picture in two splits": ("error", "groups", "The network is judged on pictures that it has memorised: "
        "figures of such a test are too good. Split again so that groups of copies stay together."),
    "split image not in the table": ("warning", "images", "They are looked at here, but without their boxes. Audit the "
        "table that the splits were made from."),
    "image in no split": ("note", "images", "In the table, and in none of the splits."),
    "exact copies labelled differently": ("error", "pairs", "The same file with other annotations: at least one is "
        "wrong. Compare, and delete a file or mend its labels."),
    "near-copies labelled differently": ("warning", "pairs", "Nearly the same picture with other annotations: look "
        "whether a face was forgotten or mistaken."),
    "exact file copies": ("warning", "groups", "The same bytes under several names: {exact[files]} files, of which "
        "{exact[surplus]} are one too many. Keep one of each."),
    "near-duplicate images": ("warning", "groups", "The same picture scaled, compressed, cropped a little, mirrored, "
        "or nearly so: {near[files]} files (exact copies included), of which {near[surplus]} are one too many. Keep "
        "each group on one side of a split, or a test measures what was memorised."),
    "missed by the anchors": ("warning", "boxes", "No anchor overlaps them by half, so that they are never learnt. "
        "Boxes covered by {coverage}. Train at a larger image size, or with suggested anchors where there are some."),
}
"""What may be wrong: how bad that is, what there are so many of, and what follows from it and what to do."""
# fmt: on
_TRAITS = {
    "CMYK": "CMYK image",
    "16 bits": "16-bit image",
    "1 bit": "black-and-white image",
    "palette": "palette image",
    "transparent": "transparent pixels",
    "opaque alpha": "alpha channel",
}
_ACTIONS = {
    "skipped file": "unusable annotation file",
    "dropped box": "unusable box",
    "clipped box": "box past the edge",
}
# notes of the readers that other checks find by themselves
_IN_CHECKS = re.compile("no <size>|is turned by EXIF|without .* left out|differ only in case")


class Example(NamedTuple):
    """One case of a finding: its files, what is special there, and the box that is meant, if any."""

    files: tuple[str, ...]
    detail: str = ""
    box_xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        name: what it is, a key of `KINDS`.
        severity: one of `SEVERITIES`.
        count: how many cases there are; ``unit`` says of what.
        unit: such as ``images`` or ``boxes``, in the plural.
        message: what follows from it and what to do.
        examples: at most `MOST_EXAMPLES` of the cases.
    """

    name: str
    severity: str
    count: int
    unit: str
    message: str
    examples: tuple[Example, ...] = ()

    def counted(self) -> str:
        """Number and unit, such as ``1 box`` or ``1,200 boxes``."""
        return f"{self.count:,} {_SINGULARS.get(self.unit, self.unit[:-1]) if self.count == 1 else self.unit}"

    def files(self) -> list[str]:
        """The files of the examples, each once, at most `MOST_EXAMPLES`."""
        return list(dict.fromkeys(file for example in self.examples for file in example.files))[:MOST_EXAMPLES]

    def record(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        shown = [{"files": list(case.files[:MOST_EXAMPLES]), "detail": case.detail} for case in self.examples]
        return {**asdict(self), "examples": shown}


Case = tuple[str, Example]  # a key of `KINDS`, and one case of it


def findings_of(cases: Iterable[Case], facts: Mapping[str, Any]) -> list[Finding]:
    """Gather cases in findings, the worst first, with examples of many files; ``facts`` are for the messages."""
    by_kind, findings = defaultdict(list), []
    for name, example in cases:
        by_kind[name].append(example)
    for name, (severity, unit, message) in KINDS.items():
        if examples := by_kind[name]:
            first_of_file: dict[tuple[str, ...], Example] = {}
            others = [each for each in examples if first_of_file.setdefault(each.files, each) is not each]
            chosen = (*first_of_file.values(), *others)[:MOST_EXAMPLES]
            findings.append(Finding(name, severity, len(examples), unit, message.format(**facts), chosen))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))  # stable


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table for reading: severity, name, count, what to do, files."""
    rows = [(f.severity, f.name, f.count, f.unit, f.message, ", ".join(f.files())) for f in findings]
    return pd.DataFrame(rows, columns=["severity", "finding", "count", "of", "what to do", "examples"])


class ImageBoxes(NamedTuple):
    """The boxes of one image: ``boxes_xyxy`` of shape ``(N, 4)`` and ``N`` class names."""

    path: str
    boxes_xyxy: np.ndarray
    class_names: list[str]


def by_image(table: pd.DataFrame) -> Iterator[ImageBoxes]:
    """The boxes of each image that has some, in the table's order."""
    rows = objects(table)
    boxes_xyxy, names = rows[BOX_COLUMNS].to_numpy(dtype=float), rows["class_name"].to_numpy()
    positions = rows.groupby("image_path", sort=False).indices
    for path in dict.fromkeys(rows["image_path"]):
        yield ImageBoxes(path, boxes_xyxy[positions[path]], names[positions[path]].tolist())


def check_image_files(source: Source, looks: dict[str, Look]) -> Iterator[Case]:
    """Find what cannot be read, what EXIF turns, what is stored unusually, and images of another size than written."""
    for look in looks.values():
        if look.trouble:
            yield look.trouble, Example((look.path,), look.message)
        if look.orientation != 1:
            detail = f"EXIF orientation {look.orientation}, stored as {_size(look.size_wh)}"
            yield "turned by EXIF", Example((look.path,), detail)
        for trait in look.traits:
            yield _TRAITS[trait], Example((look.path,))
    for path, written_wh in source.written_sizes.items():
        upright_wh = looks[path].upright_wh
        if upright_wh and written_wh not in (upright_wh, looks[path].size_wh):
            detail = f"it says {_size(written_wh)}, the image has {_size(upright_wh)}"
            yield "annotation of another size", Example((path,), detail)


def check_annotation_files(source: Source) -> Iterator[Case]:
    """Find what was wrong with the annotation files, by what was done about it."""
    for problem in source.problems:
        name = _ACTIONS.get(problem.action)
        if problem.action == "note" and not problem.written_wh:
            if "no <size>" in problem.message:
                name = "XML without a size"
            elif not _IN_CHECKS.search(problem.message):
                name = "said while reading the annotations"
        if name:
            file, line = re.fullmatch(r"(.*?)(?: (line \d+))?", problem.where, flags=re.DOTALL).groups()
            image = [problem.image_path] if problem.image_path else []
            detail = f"{line}: {problem.message}" if line else problem.message
            yield name, Example((relative_path(file, source.folder), *image), detail)
    known = {problem.image_path for problem in source.problems}
    for path in source.unannotated:
        if path not in known:
            yield "image without annotation", Example((path,))


def check_boxes(source: Source, looks: dict[str, Look], settings) -> Iterator[Case]:
    """Find boxes in wrong places, tiny or twice; those of unreadable images are judged only against each other."""
    for image in by_image(source.table):
        look, boxes_xyxy = looks[image.path], image.boxes_xyxy
        if look.upright_wh:
            reaches = boxes.reach_outside(boxes_xyxy, look.upright_wh)
            gone = boxes.areas(boxes.clip(boxes_xyxy, look.upright_wh)) == 0
            if drawn := _drawn_unturned(source.written_sizes.get(image.path), look, boxes_xyxy):
                yield "boxes of the unturned image", Example((image.path,), drawn)
            else:
                for position in np.flatnonzero(reaches > 0):
                    detail = f"reaches {reaches[position]:g} px past {_size(look.upright_wh)}"
                    is_bad = gone[position] or reaches[position] > CLIP_LIMIT
                    name = "box outside the image" if is_bad else "box past the edge"
                    yield name, _case(image, position, detail)
            scale = images.fit_scale(look.upright_wh, settings.image_size)
            sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * scale
            for position in np.flatnonzero(sides.min(axis=1) < settings.tiny_side):
                detail = f"becomes {sides[position, 0]:.1f} x {sides[position, 1]:.1f}"
                yield "tiny box", _case(image, position, detail)
        overlaps = np.triu(boxes.overlaps(boxes_xyxy, boxes_xyxy), k=1)
        for first, second in np.argwhere(overlaps > settings.same_overlap):
            names = list(dict.fromkeys([image.class_names[first], image.class_names[second]]))
            box = tuple(boxes_xyxy[first].tolist())
            detail = f"{' and '.join(names)} at {_box(box)}, IoU {overlaps[first, second]:.2f}"
            kind = "same box twice" if len(names) == 1 else "two classes for one box"
            yield kind, Example((image.path,), detail, box)
    for path in image_paths(source.table[source.table["x1"].isna()]):
        yield "image without objects", Example((path,))


def _case(image: ImageBoxes, position: int, detail: str) -> Example:
    box = image.boxes_xyxy[position].tolist()
    return Example((image.path,), f"{_box(box)} {detail}", tuple(box))


def _drawn_unturned(written_wh: tuple[int, int] | None, look: Look, boxes_xyxy: np.ndarray) -> str:
    """Say why an image's boxes fit it only without the turn of EXIF; empty if they do not."""
    if look.size_wh == look.upright_wh:
        return ""
    detail = f"stored as {_size(look.size_wh)}, upright {_size(look.upright_wh)}"
    if written_wh == look.size_wh:
        return f"XML says {_size(written_wh)}; {detail}"
    upright, stored = (boxes.reach_outside(boxes_xyxy, size).max() for size in (look.upright_wh, look.size_wh))
    if written_wh is None and upright > CLIP_LIMIT >= stored:
        return f"boxes reach {upright:g} px past the upright image; {detail}"
    return ""


def check_classes(source: Source, settings) -> Iterator[Case]:
    """Find slips of the pen in class names, classes without boxes, and rare ones."""
    rows, classes = objects(source.table), source.classes
    names = list(dict.fromkeys([*classes, *sorted(set(rows["class_name"]))]))
    counts = count_boxes(source.table, dict.fromkeys(names, 0))["boxes"]
    first_files = rows.groupby("class_name")["image_path"].first()
    counted = {name: f"{name!r}: {counts[name]} {'box' if counts[name] == 1 else 'boxes'}" for name in names}
    alike = defaultdict(list)
    for name in names:
        alike[re.sub(r"[\s_-]+", "", name.casefold())].append(name)

    def case(group: list[str], detail: str) -> Example:
        return Example(tuple(first_files[name] for name in group if name in first_files), detail)

    for group in alike.values():
        if len(group) > 1:
            detail = ", ".join(f"{counted[name].replace(': ', ' (', 1)})" for name in group)
            yield "class names alike", case(group, detail)
    most = counts.max() if len(counts) else 0
    for name in names:
        if name not in classes:
            yield "unknown class", case([name], counted[name])
        elif not counts[name]:
            yield "class without boxes", case([name], repr(name))
        if 0 < counts[name] < settings.rare_share * most:
            yield "rare class", case([name], f"{counted[name]} against {most} of {counts.idxmax()!r}")


class AnchorReport(NamedTuple):
    """How many boxes the anchors reach."""

    covered: list[dict[str, Any]]
    """One record a setting: ``anchors``, ``image_size``, ``covered`` (boxes), ``boxes``, ``share`` (0 to 1) and
    ``mean_overlap``; the first is keras-retinanet's defaults at the size asked for."""
    suggestion: Anchors | None  # anchors that cover more boxes at that size, where they are needed and found
    missed: list[Example]  # the boxes that the defaults miss, if too many


def check_anchors(source: Source, looks: dict[str, Look], settings) -> AnchorReport:
    """Measure how many boxes keras-retinanet's default anchors train on, and search for better ones if too few."""
    rows = objects(source.table)
    rows = rows[rows["image_path"].isin([path for path, look in looks.items() if look.upright_wh])]
    sizes_wh = np.array([looks[path].upright_wh for path in rows["image_path"]], dtype=float).reshape(-1, 2)
    boxes_xyxy = np.clip(rows[BOX_COLUMNS].to_numpy(dtype=float), 0, np.tile(sizes_wh, 2))
    inside = boxes.areas(boxes_xyxy) > 0
    paths, boxes_xyxy, sizes_wh = rows["image_path"].to_numpy()[inside], boxes_xyxy[inside], sizes_wh[inside]

    def resized(image_size: int) -> tuple[np.ndarray, np.ndarray]:
        scales = np.array([images.fit_scale(size, image_size) for size in sizes_wh]).reshape(-1, 1)
        return boxes_xyxy * scales, np.maximum(np.round(sizes_wh * scales), 1)

    covered: list[dict[str, Any]] = []

    def measured(name: str, anchors: Anchors, image_size: int) -> np.ndarray:
        overlaps = best_overlaps(*resized(image_size), anchors)
        record = {"anchors": name, "image_size": image_size}
        record |= {"covered": int(np.count_nonzero(overlaps >= POSITIVE_OVERLAP)), "boxes": len(overlaps)}
        mean = round(float(overlaps.mean()), 4) if len(overlaps) else 1.0
        covered.append(record | {"share": round(coverage(overlaps), 4), "mean_overlap": mean})
        return overlaps

    defaults, size = Anchors(), settings.image_size
    overlaps = measured("keras-retinanet's defaults", defaults, size)
    if coverage(overlaps) >= settings.low_coverage:
        return AnchorReport(covered, None, [])
    suggestion = suggest(*resized(size), defaults)
    if coverage(measured("suggestion", suggestion, size)) < coverage(overlaps) + LEAST_GAIN:
        suggestion = covered.pop() and None
    for factor in LARGER:
        measured("keras-retinanet's defaults", defaults, round(size * factor))
    missed = [
        Example((paths[at],), f"{_box(boxes_xyxy[at])}: best IoU {overlaps[at]:.2f}", tuple(boxes_xyxy[at].tolist()))
        for at in np.argsort(overlaps, kind="stable")
        if overlaps[at] < POSITIVE_OVERLAP
    ]
    return AnchorReport(covered, suggestion, missed)


def _size(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]} x {size_wh[1]}"


def _box(box_xyxy) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box_xyxy) + ")"
