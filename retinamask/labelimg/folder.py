"""What a session works on: the images, where their annotations go, the classes, and what must be refused first.

Above `port`. labelImg saves ``annotation_folder/STEM.xml`` (or ``.txt``), whatever folder the image is in, reads
whatever format it finds there, and numbers YOLO's classes by its own list: each can overwrite a person's work, so the
folder is looked through before the window opens.
"""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from retinamask.dataset import files, images
from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import Problem
from retinamask.dataset.image_files import walk
from retinamask.labelimg import port

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
        """Where labelImg saves the annotation of an image."""
        return self.annotation_folder / (image.stem + port.SUFFIXES[self.port_format])

    def annotated(self) -> list[tuple[Path, Path]]:
        """Annotation files that are there, each with its image."""
        pairs = [(self.annotation_of(image), image) for image in self.sizes_wh]
        return [pair for pair in pairs if pair[0].is_file() and pair[1].is_file()]

    def unannotated(self) -> list[Path]:
        """Images that have no annotation file."""
        return [image for image in self.sizes_wh if image.is_file() and not self.annotation_of(image).is_file()]


def prepare(
    image_folder: str | Path, annotation_folder: str | Path | None, port_format: str, classes: dict[str, int]
) -> Session:
    """Look through the folders and refuse what labelImg would spoil.

    Args:
        image_folder: searched with all below it.
        annotation_folder: where annotations are and go; without it the folder ``annotations`` beside the images
            if there is one, else the images' own. Made if need be.
        port_format: ``voc`` or ``yolo``.
        classes: name to id, as far as they are fixed.

    Returns:
        The session. An image that cannot be read, or whose annotation labelImg would not show whole, is left out
        with a `Problem`.

    Raises:
        AnnotationError: no images, equal stems, files of another format, or classes in another order.
    """
    image_folder = _absolute(image_folder)
    if not image_folder.is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images to annotate")
    found = walk(image_folder).images()
    if not found:
        raise AnnotationError(f"no image below {image_folder}; expected files ending in {', '.join(images.EXTENSIONS)}")
    _refuse_equal_stems(found)
    chosen = _absolute(annotation_folder) if annotation_folder else _usual_annotation_folder(image_folder)
    session = Session(image_folder, chosen, port_format, list(classes), {})
    _refuse_others(session, found, given=annotation_folder is not None)
    session.annotation_folder.mkdir(parents=True, exist_ok=True)
    if port_format == "yolo":
        _join_class_lines(session)
    _take_images(session, found)
    return session


def state(session: Session) -> dict[str, str]:
    """SHA-256 of every file that labelImg may have written, by name."""
    suffixes = (".xml", ".txt", ".json")  # the last is what its third format would write
    found = sorted(path for path in session.annotation_folder.iterdir() if path.suffix in suffixes and path.is_file())
    return {path.name: files.sha256(path) for path in found if path.name != RECORD and path.name[0] != "."}


def _absolute(path: str | Path) -> Path:
    """As labelImg makes paths absolute, so that it finds them in its list: without ``..``, links as they are."""
    return Path(os.path.abspath(path))


def _usual_annotation_folder(image_folder: Path) -> Path:
    """``annotations`` beside a folder that is called ``images``; beside others it may be about other images."""
    beside = image_folder.parent / "annotations"
    return beside if image_folder.name == "images" and beside.is_dir() else image_folder


def _refuse_equal_stems(found: list[Path]) -> None:
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


def _refuse_others(session: Session, found: list[Path], given: bool) -> None:
    """Files that labelImg would read instead of ours, or that it would not see."""
    here, stems = session.annotation_folder, {path.stem for path in found}
    other = port.SUFFIXES["yolo" if session.port_format == "voc" else "voc"]
    mixed = [image for image in found if (here / (image.stem + other)).is_file()]
    if session.port_format == "voc":  # where both are there labelImg takes the XML
        mixed = [image for image in mixed if not session.annotation_of(image).is_file()]
    if mixed:
        raise AnnotationError(
            f"{len(mixed)} image(s) have a {other} file in {here}, such as {mixed[0].stem}{other}, and labelImg would "
            "go on in that format; name the format with --port-format, convert the files, or name another "
            "--annotations folder"
        )
    suffix = port.SUFFIXES[session.port_format]
    elsewhere = [path for path in session.image_folder.rglob(f"*{suffix}") if path.stem in stems]
    elsewhere = sorted(path for path in elsewhere if path.parent != here)
    if elsewhere and not given:
        raise AnnotationError(
            f"annotations go to {here}, but there are some elsewhere, such as {elsewhere[0]}; "
            "say with --annotations which folder is meant"
        )


def _join_class_lines(session: Session) -> None:
    """Hold ``classes.txt`` against the class list: labelImg overwrites it with its own order."""
    lines, names = port.read_class_lines(session.annotation_folder), session.class_names
    shared = min(len(lines), len(names))
    if lines[:shared] != names[:shared]:
        raise AnnotationError(
            f"{session.annotation_folder / port.CLASSES_TXT} lists {', '.join(lines)}, the class list is "
            f"{', '.join(names)}; labelImg would renumber the boxes: bring the two into one order"
        )
    session.class_names = max(lines, names, key=len)
    if lines != session.class_names:  # labelImg reads this file, not the class list
        text = "".join(f"{name}\n" for name in session.class_names)
        files.write_text(session.annotation_folder / port.CLASSES_TXT, text)


def _take_images(session: Session, found: list[Path]) -> None:
    """Check every image and annotation file; fill in sizes and the classes that only the files name."""
    names = dict.fromkeys(session.class_names)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        for image, size_wh in zip(found, pool.map(_size_or_error, found), strict=True):
            path = session.annotation_of(image)
            try:
                if isinstance(size_wh, ValueError):
                    raise size_wh
                labelled = port.load(path, size_wh, session.class_names) if path.is_file() else []
            except ValueError as error:
                session.left_out.append(Problem("left out of the session", str(image), str(error)))
                continue
            session.sizes_wh[image] = size_wh
            names.update(dict.fromkeys(name for name, _ in labelled if name))
    session.class_names = list(names)
    if not session.sizes_wh:
        raise AnnotationError(f"none of the {len(found)} image(s) can be shown: {session.left_out[0]}")


def _size_or_error(image: Path) -> tuple[int, int] | ValueError:
    try:
        return images.check_image(image)[0]
    except ValueError as error:
        return error
