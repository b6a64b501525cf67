"""A model in Python: load a snapshot and detect in files, folders, arrays and PIL images.

On top of `inference`; offered by ``import retinamask as rm``, and used by the commands.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from retinamask.dataset.annotations import DETECTION_COLUMNS, image_paths, make_table
from retinamask.dataset.image_files import find_images
from retinamask.detectors import snapshots
from retinamask.inference.box_fit import Fitted
from retinamask.inference.detect import Predictor, check_options, detect, table_rows
from retinamask.inference.slices import Slices

Picture = str | Path | np.ndarray | Image.Image  # a path may be a folder's


class Model:
    """A detector that is ready to look at images, from `load`.

    Attributes:
        snapshot: the `Snapshot` it was loaded from.
        classes: name to id.
        predictor: gives `Detections` of a list of ``uint8`` RGB arrays.

    Example:
        >>> rm.load("snapshots/mine_best.h5").detect("photos/")
    """

    def __init__(self, snapshot: snapshots.Snapshot, predictor, face_detector: str | None = None):
        self.snapshot, self.predictor, self._face_detector = snapshot, predictor, face_detector
        self.classes = snapshot.classes

    def __repr__(self) -> str:
        faces = f", faces by {self._face_detector}" if self._face_detector else ""
        return f"Model({self.snapshot}{faces})"

    def detect(
        self,
        source: Picture | Sequence[Picture] | pd.DataFrame,
        score_threshold: float | None = None,
        suppress: str = "any_class",
        batch_size: int = 4,
        folder: str | Path = ".",
    ) -> pd.DataFrame:
        """Detect faces.

        Args:
            source: an image file, a folder of images, a glob such as ``"photos/*.jpg"``, a ``.txt`` or ``.lst`` that
                lists images, a ``uint8`` array (RGB ``(height, width, 3)``, RGBA or grey), a
                PIL image, or a list of these; or a table, of which the images are looked at.
            score_threshold: keep detections at or above this score, 0 to 1; the threshold of each class that suited
                the validation images of its training if left out, 0.5 where there is none.
            suppress: ``any_class`` for one box per face, ``per_class`` for COCO figures.
            batch_size: images per call of the network.
            folder: what the image paths of the result, and of a table, are relative to.

        Returns:
            Rows ``image_path, x1, y1, x2, y2, class_name, score`` in pixels of the upright image, one without a box for
            an image in which nothing was found. Images that are no files are called ``image 1``, ``image 2``, ...
            Files that cannot be read are left out and listed in ``table.attrs["problems"]``.

        Raises:
            ValueError: there is no image, none can be read, or an array is not of that kind.

        Example:
            >>> model = rm.load("snapshots/mine_best.h5")
            >>> model.detect("photos/").query("class_name == 'no_mask'")
        """
        predictor = self.predictor
        if score_threshold is None:
            thresholds = self.snapshot.thresholds
            score_threshold = min(thresholds.values())
            if score_threshold < max(thresholds.values()):
                predictor = Fitted(predictor, thresholds=thresholds)
        check_options(score_threshold, batch_size)
        options = {"score_threshold": score_threshold, "suppress": suppress}
        given = list(source) if isinstance(source, (list, tuple)) else [source]
        if isinstance(source, pd.DataFrame):
            files, pictures, paths, problems = [], [], image_paths(source), []
        else:
            files = [item for item in given if isinstance(item, (str, Path))]
            pictures = [rgb_array(item) for item in given if not isinstance(item, (str, Path))]
            paths, problems = find_images(files, folder) if files else ([], [])
        if not (paths or pictures):
            raise ValueError("source has no image; expected a path, a folder, an array, a PIL image or a list of these")
        rows = []
        for start in range(0, len(pictures), batch_size):
            found = predictor(pictures[start : start + batch_size], **options)
            for number, detections in enumerate(found, start + 1):
                rows += table_rows(f"image {number}", detections, predictor.class_names)
        table = make_table(rows, DETECTION_COLUMNS)
        if paths:
            in_files, unreadable = detect(predictor, paths, folder, batch_size=batch_size, **options)
            problems += unreadable
            table = pd.concat([table, in_files], ignore_index=True) if rows else in_files
        table.attrs |= {"problems": problems, "score_threshold": score_threshold}
        return table


def load(
    snapshot: str | Path | snapshots.Snapshot | None = None,
    face_detector: str | None = None,
    face_model: Iterable[str | Path] = (),
    image_size: int | None = None,
    slices: bool | int = False,
    backend: str | None = None,
    precision: str = "auto",
    box_fit: Sequence[float] = (),
    **options: Any,
) -> Model:
    """Load a detector, or a face detector with a classifier of its faces, from snapshots or exports.

    Args:
        snapshot: a training or inference snapshot or its ``.h5``, or an export, ``.onnx`` or ``.tflite``; if left out
            the detector that comes with the project, with a face detector its classifier.
        face_detector: for a classifier: ``haar``, ``res10``, ``yunet``, ``yolov4``, ``yolov4_tiny`` or ``snapshot``.
        face_model: the face detector's files; what ``retinamask fetch`` fetched if left out.
        image_size: side in pixels that a detector resizes images to; that of its training if left out.
        slices: whether a detector also searches images larger than that in tiles, for small faces, or the side of
            the tiles in pixels, see `retinamask.inference.slices`.
        backend: what runs an export: ``openvino``, ``onnxruntime`` or ``litert``; the first that can if left out.
        precision: of an export on OpenVINO: ``float32``, ``bfloat16``, or ``auto`` for the faster one, once measured.
        box_fit: how boxes become those of a data set, from `rm.fit_boxes`.
        options: of the face detector (``score_threshold``, ``nms_threshold``, ``classes``, ``tiling``), and of
            `TwoStage` (``margin``).

    Raises:
        SnapshotError: the snapshot is missing or damaged, or the backend does not run it.
        ValueError: a classifier without a face detector, or the other way round; ``slices`` is no such number.

    Example:
        >>> rm.load().detect("photo.jpg")
        >>> rm.load("snapshots/mine_best.h5")
        Model(snapshots/mine_best.h5 (retinanet resnet50, training model, 512 px, classes mask, no_mask))
    """
    if not isinstance(slices, (int, np.integer)):
        raise ValueError(f"slices is {slices!r}, expected True, False or the side of the tiles in pixels")
    if snapshot is None:
        snapshot = snapshots.shipped("mask_classifier" if face_detector else "mask_detector")
    found = snapshot if isinstance(snapshot, snapshots.Snapshot) else snapshots.read(snapshot)
    runtime = {"backend": backend, "precision": precision}
    if face_detector:
        if image_size is not None or slices is not False:
            name = "image_size" if slices is False else "slices"
            raise ValueError(
                f"{name} has no effect with a face detector, which resizes images by itself; "
                'it has tiling="always" (--face-tiling always) for small faces'
            )
        from retinamask.inference.two_stage import TwoStage

        predictor = TwoStage.load(found, face_detector, face_model, **runtime, **options)
    elif found.classifies:
        raise ValueError(
            f"{found.weights} is a classifier of faces and finds none; it needs a face detector such as snapshot "
            '(--face-detector snapshot, or face_detector="snapshot" in Python)'
        )
    elif options or face_model:
        raise ValueError(f"{', '.join(options) or 'face_model'} has no effect without a face detector")
    else:
        predictor = Predictor.load(found, image_size=image_size, **runtime)
        found = found if image_size is None else found.at(image_size)
        if slices is not False:
            predictor = Slices(predictor, None if slices is True else slices)
    return Model(found, Fitted(predictor, box_fit) if box_fit else predictor, face_detector)


def rgb_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """Make a ``uint8`` RGB array ``(height, width, 3)`` of a PIL image or an array.

    Args:
        image: a PIL image of any mode, turned upright as its EXIF says; or ``uint8``, RGB ``(height, width, 3)``,
            RGBA ``(height, width, 4)``, of which the alpha is dropped, or grey ``(height, width)``.

    Raises:
        ValueError: the array is of another type or shape.
    """
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"found {type(image).__name__}, expected a path, a folder, a NumPy array, a PIL image, or a list of these"
        )
    if image.dtype != np.uint8:
        raise ValueError(
            f"found an array of {image.dtype}, expected uint8 from 0 to 255; of an image from 0 to 1 make "
            "(image * 255).round().astype(np.uint8)"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise ValueError(
            f"found an array of shape {image.shape}, expected (height, width, 3) in RGB order, RGBA or grey"
        )
    return np.ascontiguousarray(image[..., :3])
