"""Validation while training: the COCO figures of a network on a table, for `retinamask.training.train`.

Training takes it as a function, so that it need not import this folder.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from retinamask.dataset.annotations import AnnotationError, image_paths, objects
from retinamask.evaluation import coco
from retinamask.inference.detect import Predictor, detect

log = logging.getLogger(__name__)

_LOGGED = ("AP", "AP50", "AP75", "AR100")


def epoch_evaluation(
    detector, table: pd.DataFrame, folder: str | Path, batch_size: int = 4
) -> Callable[[Any], dict[str, float | None]]:
    """A function from a training network to ``AP``, ``AP50``, ``AP75`` and ``AR100`` on ``table``.

    The inference network is built at the first call and shares the weights, so later calls see what was
    learnt since.
    """
    if objects(table).empty:
        raise AnnotationError("the validation table holds no box; nothing can be evaluated on it")
    predictors: list[Predictor] = []
    paths = image_paths(table)
    if not any(Path(folder, path).is_file() for path in paths):
        raise AnnotationError(f"none of the {len(paths)} validation images is below {folder}, such as {paths[0]}")

    def evaluate(network) -> dict[str, float | None]:
        if not predictors:
            predictors.append(Predictor(detector, detector.inference_network(network)))
        detections, unreadable = detect(predictors[0], paths, folder, batch_size=batch_size)
        for message in unreadable:
            log.warning("counted as without detections: %s", message)
        figures = coco.evaluate(table, detections, detector.classes)
        return {name: figures[name] for name in _LOGGED}

    return evaluate
