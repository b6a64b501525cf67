"""Whether a Darknet folder is sound, before it trains for hours: Darknet itself fails late, or trains on nonsense.

Above `cfg`; for folders made here (`files`) or by hand.
"""

from pathlib import Path

from retinamask.dataset import formats
from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import yolo
from retinamask.detectors.darknet import cfg
from retinamask.detectors.darknet.cfg import CfgError


def folder_problems(data_path: str | Path, cfg_path: str | Path) -> list[str]:
    """What is wrong with an ``obj.data``, everything it names, and the cfg that it is to be trained with.

    The numbers of classes have to agree, the cfg has to be one that `cfg.describe` reads, the images have to have
    label files without mistakes, and none may be both in train and in valid.

    Args:
        data_path, cfg_path: what Darknet is started with.

    Returns:
        One message for each problem.

    Raises:
        ValueError: one of the two files cannot be read at all.
    """
    data_path = Path(data_path)
    options, text = yolo.data_options(data_path), cfg.read(cfg_path)
    missing = [key for key in ("classes", "train", "names") if not options.get(key)]
    if missing:
        return [f"{data_path}: no {', '.join(missing)}; expected a line such as {missing[0]} = ..."]
    return [*_counts(data_path, options, text, cfg_path), *_images(data_path, options)]


def _counts(data_path: Path, options: dict[str, str], text: str, cfg_path: str | Path) -> list[str]:
    """Classes of the data file against names and cfg."""
    classes = options["classes"]
    if not (classes.isascii() and classes.isdigit() and int(classes)):
        return [f"{data_path}: classes is {classes!r}, expected a whole number above 0"]
    problems = []
    names_path = yolo.located(data_path.parent, options["names"])
    names = yolo.described_names(data_path)
    if names_path is None or names is None:
        problems.append(
            f"{data_path}: names is {options['names']}, expected a file that is there, has one name a line and ends "
            "in .names"
        )
    elif len(names) != int(classes):
        problems.append(
            f"{names_path}: {len(names)} name(s), expected {classes} as classes = {classes} in {data_path}; "
            "each class has one line, and there is no other"
        )
    try:
        cfg.describe(text, str(cfg_path), int(classes))
    except CfgError as error:
        problems.append(str(error))
    return problems


def _images(data_path: Path, options: dict[str, str]) -> list[str]:
    """Lists, images and label files."""
    places = {key: yolo.located(data_path.parent, options[key]) for key in ("train", "valid") if options.get(key)}
    problems = [f"{data_path}: {key} is {options[key]}, which does not exist" for key in places if not places[key]]
    listed = {key: set(yolo.listed_images(place)[0]) for key, place in places.items() if place}
    shared = sorted(listed.get("train", set()) & listed.get("valid", set()))
    if shared:
        problems.append(
            f"{len(shared)} image(s) are in train and in valid, such as {shared[0]}; figures on them say nothing "
            "about other images"
        )
    try:
        _, found = formats.read("yolo", [data_path], data_path.parent)
        problems += map(str, found)
    except AnnotationError as error:
        problems.append(str(error))
    return problems
