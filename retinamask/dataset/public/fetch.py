"""Fetch by name: a public data set, made annotations.csv and classes.csv, or the verified files of a face detector.

Each comes from its address or from what was fetched by hand. A data set appears under its name only when all of it is
there; until then it is in a hidden folder beside it.
"""

import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retinamask import __version__
from retinamask.dataset import annotations, files, formats
from retinamask.dataset.public import catalogue, unpack
from retinamask.dataset.public.catalogue import PublicData
from retinamask.dataset.public.download import DownloadError, download

RECORD = "source.json"

_DEEPEST = 2  # folders that an archive may have around what is used, such as REPOSITORY-COMMIT/


@dataclass(frozen=True)
class Fetched:
    """A data set on the disk: its content and its problems."""

    folder: Path
    images: int
    boxes: dict[str, int]  # by class, in id order
    problems: list[str]
    differences: list[str]  # from what the catalogue expects
    sha256: str | None  # of the archive; none for a folder
    archive: Path | None = None  # where it is, if it was downloaded just now
    was_there: bool = False


def fetch(name: str, folder: str | Path = "data", source: str | Path | None = None) -> Fetched:
    """Fetch, verify, unpack and convert a data set of the catalogue into ``folder/name/``.

    The archive stays in ``folder/downloads/``, so that it is not downloaded again if something later fails.

    Args:
        name: as in `catalogue.DATA_SETS`.
        folder: where data sets are kept.
        source: an archive or an unpacked folder that was fetched by hand; it is read, not changed.

    Returns:
        What is there now. If ``folder/name/`` was there and whole already, it is left alone.

    Raises:
        ValueError: no such name, ``folder/name/`` is something else, or nothing in it can be used; of it
            `DownloadError` and `unpack.ArchiveError`.
    """
    if name not in catalogue.DATA_SETS:
        raise ValueError(f"no public data set is called {name!r}; there are: {', '.join(catalogue.DATA_SETS)}")
    entry, target = catalogue.DATA_SETS[name], Path(folder) / name
    if target.exists():
        try:
            record = json.loads((target / RECORD).read_text(encoding="utf-8"))
            known = {key: record[key] for key in ("images", "boxes", "problems", "differences", "sha256")}
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(
                f"{target} exists and was not made by this command; it stays as it is: move it, or name another "
                "--folder"
            ) from None
        return Fetched(target, **known, was_there=True)
    if not entry.format or not (entry.url or source):
        raise DownloadError(f"{name}: {entry.by_hand}")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{name}.part")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    archive = Path(source or target.parent / "downloads" / f"{'-'.join(filter(None, (name, entry.commit[:12])))}.zip")
    if not source:
        try:
            login = kaggle_login() if entry.login == "kaggle" else None
            download(entry.url, archive, sha256=entry.sha256, auth=login)
        except DownloadError as error:
            raise DownloadError(
                f"{error}\nOr fetch it by hand from {entry.home} and run: retinamask fetch {name} --from FILE"
            ) from None
    try:
        if archive.is_dir():
            _copy_folder(entry, archive, staging)
        else:
            try:
                unpack.unpack(archive, staging, _placer(entry))
            except unpack.ArchiveError as error:
                wanted = ", ".join(filter(None, entry.used))
                message = f"{error}; expected {wanted} of {entry.home}" if wanted else str(error)
                if not source and isinstance(error, unpack.DamagedError):
                    archive.unlink(missing_ok=True)
                    message += ". The downloaded file is removed; run it again"
                raise type(error)(message) from None
        fetched = _convert(name, entry, archive, staging, target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return fetched if source else dataclasses.replace(fetched, archive=archive)


def kaggle_login() -> tuple[str, str]:
    """Return the user's own Kaggle name and key, from where Kaggle's own program looks for them.

    Raises:
        DownloadError: there are none.
    """
    name, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    path = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    if not (name and key) and path.is_file():
        try:
            login = json.loads(path.read_text(encoding="utf-8"))
            name, key = login["username"], login["key"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DownloadError(
                f"{path}: not a Kaggle token ({type(error).__name__}); expected "
                '{"username": "...", "key": "..."} as kaggle.com/settings gives it'
            ) from None
    if not (name and key):
        raise DownloadError(
            "Kaggle asks for your own account: at https://www.kaggle.com/settings, under API, create a token and put "
            f"the file kaggle.json at {path}, or set KAGGLE_USERNAME and KAGGLE_KEY"
        )
    return name, key


def _placer(entry: PublicData) -> Callable[[PurePosixPath], PurePosixPath | None]:
    """Return a function that maps a path in the archive to one in the result, by the entry's ``used`` folders.

    Folders below a class folder, such as one for each person, become the beginning of the file's name (``PERSON__``).
    """
    wanted = [(PurePosixPath(used).parts, target) for used, target in entry.used.items()]

    def place(path: PurePosixPath) -> PurePosixPath | None:
        for parts, target in wanted:
            for start in range(min(_DEEPEST + 1, len(path.parts) - len(parts))):
                if path.parts[start : start + len(parts)] == parts:
                    rest = path.parts[start + len(parts) :]
                    return PurePosixPath(target, *(["__".join(rest)] if entry.format == "class_folders" else rest))
        return None

    return place


def _copy_folder(entry: PublicData, source: Path, staging: Path) -> None:
    """Copy from a folder that was unpacked by hand; links are not followed."""
    place, own_name = _placer(entry), source.resolve().name  # the folder may itself be the used one
    for path in sorted(source.rglob("*")):
        relative = PurePosixPath(path.relative_to(source).as_posix())
        placed = place(relative) or place(own_name / relative)
        if placed is not None and path.is_file() and not path.is_symlink():
            (staging / placed).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staging / placed)
    if not staging.exists():
        wanted = ", ".join(filter(None, entry.used)) or "files"
        raise ValueError(f"{source} holds none of the expected folders; expected {wanted}, as from {entry.home}")


def _convert(name: str, entry: PublicData, archive: Path, staging: Path, target: Path) -> Fetched:
    """Write annotations.csv, classes.csv and the record beside the files."""
    try:
        table, classes, problems = formats.read_annotations(staging, staging, {}, format_name=entry.format)
    except ValueError as error:  # its paths are about to go
        raise annotations.AnnotationError(str(error).replace(str(staging), name)) from None
    if annotations.objects(table).empty:
        raise annotations.AnnotationError(f"{archive}: not one box is left; {formats.summary(problems)}")
    annotations.write_classes(classes, staging / "classes.csv")
    annotations.write_annotations(table, staging / "annotations.csv")
    found = {
        "images": len(annotations.image_paths(table)),
        "boxes": annotations.count_boxes(table, classes)["boxes"].to_dict(),
        "problems": [str(problem).replace(str(staging), str(target)) for problem in problems],
        "sha256": None if archive.is_dir() else files.sha256(archive),
    }
    boxes = found["boxes"]
    counts = [("images", found["images"], entry.images), ("boxes", sum(boxes.values()), entry.boxes)]
    counts += [(f"boxes of {label}", boxes.get(label, 0), count) for label, count in entry.classes.items()]
    differences = [f"{have:,} {what}, expected {want:,}" for what, have, want in counts if want not in (None, have)]
    if entry.classes and set(boxes) != set(entry.classes):
        differences.append(f"classes are {', '.join(boxes)}, expected {', '.join(entry.classes)}")
    if entry.commit and zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:  # GitHub writes the commit there
            commit = opened.comment.decode("utf-8", "replace")
        if commit and commit != entry.commit:
            differences.append(f"the archive is of commit {commit}, expected {entry.commit}")
    found["differences"] = differences
    source = {key: getattr(entry, key) for key in ("home", "url", "licence", "citation")}
    files.write_json(staging / RECORD, {"name": name, **source, **found, "retinamask": __version__})
    return Fetched(target, **found)


def kept_files(name: str, folder: str | Path | None = None) -> list[Path]:
    """Return the files of a face detector on the disk, in the catalogue's order.

    Raises:
        ValueError: not all of them are there.
    """
    place = Path(folder or _cache()) / name
    paths = [place / file.name for file in catalogue.FACE_MODELS[name].files]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{place} lacks {', '.join(missing)}; run: retinamask fetch {name}, or give the file(s) of {name} by path "
            "(--face-model)"
        )
    return paths


def fetch_model(name: str, folder: str | Path | None = None, source: str | Path | None = None) -> list[Path]:
    """Fetch the files of a face detector, verified; what is there already is only verified.

    Args:
        name: as in `catalogue.FACE_MODELS`.
        folder: where models are kept; ``~/.cache/retinamask`` if left out, where `face_detectors` looks for them.
        source: a folder with the files, or the file if there is only one, fetched by hand; it is copied.

    Raises:
        ValueError: no such model; of it `DownloadError`: no connection, wrong bytes, or ``source`` lacks a file.
    """
    if name not in catalogue.FACE_MODELS:
        raise ValueError(f"no model is called {name!r}; there are: {', '.join(catalogue.FACE_MODELS)}")
    entry = catalogue.FACE_MODELS[name]
    for file in entry.files:
        path = Path(folder or _cache()) / name / file.name
        if not source:
            try:
                download(file.url, path, sha256=file.sha256)
            except DownloadError as error:
                raise DownloadError(
                    f"{error}\nOr fetch {file.name} by hand from {entry.home} and run: retinamask fetch {name} "
                    "--from FOLDER"
                ) from None
            continue
        given = Path(source) if Path(source).is_file() else Path(source, file.name)
        if not given.is_file():
            raise DownloadError(f"{given} does not exist; expected {file.name} of {file.size_bytes:,} bytes")
        sha256 = files.sha256(given)
        if sha256 != file.sha256:
            raise DownloadError(
                f"{given}: {given.stat().st_size:,} bytes with SHA-256 {sha256}, expected {file.size_bytes:,} bytes "
                f"with {file.sha256}; it is cut short or another file"
            )
        with files.replacing(path) as temporary:
            shutil.copyfile(given, temporary)
    return kept_files(name, folder)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinamask"
