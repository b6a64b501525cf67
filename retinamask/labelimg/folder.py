"""The folder of a session: the images, where their annotations go, the classes, and what must be refused first.

labelImg saves ``annotation_folder/STEM.xml`` (or ``.txt``), whatever folder the image is in, reads
whatever format it finds there, and numbers YOLO's classes by its own list: each can overwrite a person's work, so the
folder is checked before the window opens.
"""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retinamask.dataset import boxes, files, images
from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import Problem, voc, yolo
from retinamask.dataset.formats.reading import in_pixels
from retinamask.dataset.image_files import walk

SUFFIXES = {"voc": ".xml", "yolo": ".txt"}
CLASSES_TXT = "classes.txt"
RECORD = "preannotated.json"  # written by `retinamask.labelimg.proposals` among the annotation files


@dataclass
class Session:
    """The images of one session, and where their annotations are."""

    image_folder: Path
    annotation_folder: Path
    port_format: str  # voc or yolo
    class_names: list[str]  # in the order of their ids, then those that only the annotation files name
    sizes_wh: dict[Path, tuple[int, int]]  # each image with the size of its upright picture, sorted
    left_out: list[Problem] = field(default_factory=list)

    def annotation_of(self, image: Path) -> Path:
        """Return where labelImg saves the annotation of an image."""
        return self.annotation_folder / (image.stem + SUFFIXES[self.port_format])

    def annotated(self) -> list[tuple[Path, Path]]:
        """List the existing annotation files, each with its image."""
        pairs = [(self.annotation_of(image), image) for image in self.sizes_wh]
        return [pair for pair in pairs if pair[0].is_file() and pair[1].is_file()]

    def unannotated(self) -> list[Path]:
        """List the images that have no annotation file."""
        return [image for image in self.sizes_wh if image.is_file() and not self.annotation_of(image).is_file()]


def data_folder(image_folder: str | Path) -> Path:
    """Return the folder of the data set: the image folder, or the one above it if that is called ``images``."""
    folder = Path(os.path.abspath(image_folder))  # as labelImg does it: without "..", links as they are
    return folder.parent if folder.name == "images" else folder


def prepare(
    image_folder: str | Path, annotation_folder: str | Path | None, port_format: str, classes: dict[str, int]
) -> Session:
    """Check the folders and refuse what labelImg would spoil.

    Args:
        image_folder: searched with all below it.
        annotation_folder: where annotations are and go; without it the folder ``annotations`` in `data_folder` if
            there is one, else the images' own.
        port_format: ``voc`` or ``yolo``.
        classes: name to id, as far as they are fixed.

    Returns:
        The session. An image that cannot be read, or whose annotation labelImg would not show whole, is left out
        with a `Problem`.

    Raises:
        AnnotationError: no images, equal stems, files of another format, or classes in another order.
    """
    image_folder = Path(os.path.abspath(image_folder))
    if not image_folder.is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images to annotate")
    seen = walk(image_folder)
    found = seen.images()
    if not found:
        raise AnnotationError(f"no image below {image_folder}; expected files ending in {', '.join(images.EXTENSIONS)}")
    usual = data_folder(image_folder) / "annotations"
    chosen = Path(os.path.abspath(annotation_folder or (usual if usual.is_dir() else image_folder)))
    if chosen.exists() and not chosen.is_dir():
        raise AnnotationError(f"{chosen} is a file; expected the folder of the annotation files")
    notes = [Problem("note", str(image_folder), note) for note in seen.notes()]
    session = Session(image_folder, chosen, port_format, list(classes), {}, notes)
    _refuse_conflicts(session, found)
    suffix, stems = SUFFIXES[port_format], {path.stem for path in found}
    elsewhere = [path for path in seen.files if path.suffix == suffix and path.stem in stems and path.parent != chosen]
    if elsewhere and annotation_folder is None:
        raise AnnotationError(
            f"annotations go to {chosen}, but there are some elsewhere, such as {elsewhere[0]}; "
            "name the right folder with --annotations"
        )
    lines = read_class_lines(chosen) if port_format == "yolo" else []
    shared = min(len(lines), len(classes))
    if lines[:shared] != session.class_names[:shared]:
        raise AnnotationError(
            f"{chosen / CLASSES_TXT} lists {', '.join(lines)}, the class list is {', '.join(classes)}; "
            "labelImg would renumber the boxes: bring the two into the same order"
        )
    session.class_names = max(lines, session.class_names, key=len)
    used: dict[str, None] = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        checks = [pool.submit(images.check_image, image) for image in found]
        for image, check in zip(found, checks, strict=True):
            path = session.annotation_of(image)
            try:
                size_wh = check.result()[0]
                names = checked_classes(path, size_wh, session.class_names) if path.is_file() else []
            except ValueError as error:
                session.left_out.append(Problem("left out of the session", str(image), str(error)))
                continue
            session.sizes_wh[image] = size_wh
            used |= dict.fromkeys(filter(None, names))
    session.class_names = list(dict.fromkeys([*session.class_names, *used]))
    if not session.sizes_wh:
        raise AnnotationError(f"none of the {len(found)} image(s) can be shown: {session.left_out[-1]}")
    if port_format == "yolo" and not set(used) <= set(lines):
        complete_class_lines(session)
    return session


def state(session: Session) -> dict[str, str]:
    """Return the SHA-256 of every annotation file that labelImg may have written, by name."""
    suffixes = (".xml", ".txt", ".json")  # the last is what its third format would write
    found = sorted(path for path in session.annotation_folder.glob("*") if path.suffix in suffixes and path.is_file())
    others = (RECORD, CLASSES_TXT)
    return {path.name: files.sha256(path) for path in found if path.name not in others and path.name[0] != "."}


def complete_class_lines(session: Session) -> None:
    """Make ``classes.txt`` list every class: it is what labelImg reads boxes by, and it ends on an index beyond it."""
    if read_class_lines(session.annotation_folder) != session.class_names:
        text = "".join(f"{name}\n" for name in session.class_names)
        files.write_text(session.annotation_folder / CLASSES_TXT, text)


def checked_classes(path: Path, size_wh: tuple[int, int], class_names: list[str]) -> list[str]:
    """Return the class of each box in an annotation file that labelImg would show whole.

    Args:
        path: the XML or txt file.
        size_wh: width and height of its upright image.
        class_names: the lines of ``classes.txt``; not used for VOC.

    Raises:
        ValueError: with path: not readable, or labelImg would leave boxes out, which saving would then lose.
    """
    is_yolo = path.suffix == SUFFIXES["yolo"]
    found = yolo.objects(path, class_names) if is_yolo else voc.parse(path).objects
    if wrong := next((item for item in found if item.wrong), None):
        raise ValueError(f"{wrong.where}: {wrong.wrong}")
    if not is_yolo:
        from libs.pascal_voc_io import PascalVocReader  # labelImg's own; it passes over what it cannot read

        shown = len(PascalVocReader(str(path)).get_shapes())
        if shown != len(found):
            raise ValueError(f"{path}: labelImg would show {shown} of {len(found)} box(es); mend the file first")
        return [item.name for item in found]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if len(line.strip().split(" ")) != 5:
            raise ValueError(f"{path}: line {number}: labelImg reads five numbers with one space between; mend it")
    shares = np.array([item.box_xyxy for item in found]).reshape(-1, 4)
    boxes_xyxy = boxes.whole_pixels(boxes.clip(in_pixels(shares, size_wh), size_wh).round(2))  # six decimals: dust
    if not boxes.areas(boxes_xyxy).all():
        raise ValueError(f"{path}: a box under one pixel, which saving would lose; remove it")
    return [item.name for item in found]


def read_class_lines(folder: Path) -> list[str]:
    """Read the names in a folder's ``classes.txt`` in order, none where there is no such file.

    Raises:
        AnnotationError: not UTF-8 text, or a name stands there twice.
    """
    path = folder / CLASSES_TXT
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read ({error}); expected UTF-8 text, a class a line") from None
    names = [line.strip() for line in lines]
    if names != lines or "" in names or path.read_bytes().startswith(b"\xef\xbb\xbf"):
        raise AnnotationError(
            f"{path}: labelImg would take an empty line, a blank at an end or a byte order mark for a part of the "
            "classes; mend the file first"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(f"{path}: {', '.join(map(repr, twice))} stand(s) there twice; keep each class once")
    return names


def _refuse_conflicts(session: Session, found: list[Path]) -> None:
    """Refuse images that share an annotation file, and files that labelImg would read instead of ours or not see."""
    by_stem = defaultdict(list)
    for path in found:
        by_stem[path.stem].append(path)
    equal = [paths for paths in by_stem.values() if len(paths) > 1]
    if equal:
        listed = "; ".join(f"{first} and {second}" for first, second, *_ in equal[:5])
        raise AnnotationError(
            f"{len(equal)} name(s) stand for more than one image, for which labelImg has one annotation file only: "
            f"{listed}; rename them, or annotate folder by folder"
        )
    here = session.annotation_folder
    other = SUFFIXES["yolo" if session.port_format == "voc" else "voc"]
    mixed = [image for image in found if (here / (image.stem + other)).is_file()]
    if session.port_format == "voc":  # where both exist labelImg takes the XML
        mixed = [image for image in mixed if not session.annotation_of(image).is_file()]
    if mixed:
        raise AnnotationError(
            f"{len(mixed)} image(s) have a {other} file in {here}, such as {mixed[0].stem}{other}, and labelImg would "
            "continue in that format; name the format with --port-format, convert the files, or name another "
            "--annotations folder"
        )
