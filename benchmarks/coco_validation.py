"""COCO figures of 683 images with 100 detections each: `retinamask.evaluation.coco.evaluate` against pycocotools.

Ours is timed as an epoch of training calls it, from the tables to the figures. pycocotools starts from the
dictionaries that it reads from JSON and goes through its index, ``evaluate``, ``accumulate`` and ``summarize``. The
two take turns, and their twelve figures have to agree to 1e-9. Prints one JSON line: median seconds, and their ratio.
"""

import contextlib
import io
import json
import os
import statistics
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.evaluation import coco

IMAGES, OBJECTS, DETECTIONS, RUNS = 683, 5, 100, 5
SIZE_WH = (640, 480)
CLASSES = {"mask": 0, "no_mask": 1, "worn_wrong": 2}


def draw_boxes(generator, count: int) -> np.ndarray:
    """Boxes of 12 to 200 pixels, small, medium and large in COCO's sense."""
    sides = np.exp(generator.uniform(np.log(12), np.log(200), (count, 1))) * generator.uniform(0.8, 1.25, (count, 2))
    corners = generator.uniform(0, 1, (count, 2)) * (SIZE_WH - sides)
    return np.hstack([corners, corners + sides])


def draw_tables():
    """Annotations with about five objects an image; detections: each object a little off, and noise to make 100."""
    generator = np.random.default_rng(0)
    names = list(CLASSES)
    truth, found = [], []
    for number in range(IMAGES):
        path, count = f"{number:04d}.jpg", generator.integers(0, 2 * OBJECTS + 1)
        boxes, labels = draw_boxes(generator, count), generator.integers(0, 3, count)
        truth += [(path, *box, names[label]) for box, label in zip(boxes, labels, strict=True)] or [(path, *[None] * 5)]
        sides = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
        off = boxes + sides * generator.normal(0, 0.06, boxes.shape)
        noise = draw_boxes(generator, DETECTIONS - count)
        scores = np.hstack([generator.beta(4, 2, count), generator.beta(1, 6, len(noise))])
        classes = np.hstack([labels, generator.integers(0, 3, len(noise))])
        rows = zip(np.vstack([off, noise]), classes, scores, strict=True)
        found += [(path, *box, names[label], score) for box, label, score in rows]
    return make_table(truth), make_table(found, DETECTION_COLUMNS)


def as_coco(table, image_ids: dict[str, int]) -> list[dict]:
    """The boxes of a table as pycocotools takes them, ids from 1."""
    boxes = []
    for number, row in enumerate(table.dropna(subset=["class_name"]).itertuples(index=False), start=1):
        width, height = float(row.x2 - row.x1), float(row.y2 - row.y1)
        box = {"id": number, "image_id": image_ids[row.image_path], "category_id": CLASSES[row.class_name]}
        box |= {"bbox": [float(row.x1), float(row.y1), width, height], "area": width * height, "iscrowd": 0}
        boxes.append(box | ({"score": float(row.score)} if "score" in table else {}))
    return boxes


def pycocotools_figures(dataset: dict, detections: list[dict]) -> list[float]:
    """The twelve figures; what pycocotools prints on the way is held back."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return list(evaluator.stats)


def main() -> None:
    annotations, detections = draw_tables()
    image_ids = {path: number for number, path in enumerate(annotations["image_path"].unique(), start=1)}
    dataset = {
        "images": [{"id": number} for number in image_ids.values()],
        "categories": [{"id": number, "name": name} for name, number in CLASSES.items()],
        "annotations": as_coco(annotations, image_ids),
    }
    results = as_coco(detections, image_ids)
    sides = {
        "ours": lambda: [
            value for name, value in coco.evaluate(annotations, detections, CLASSES).items() if name in coco.MEANINGS
        ],
        "pycocotools": lambda: pycocotools_figures(dataset, results),
    }
    seconds, figures = {name: [] for name in sides}, {}
    for run in range(RUNS + 1):
        for name, evaluate in sides.items():
            started = time.perf_counter()
            figures[name] = evaluate()
            if run:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    difference = float(np.abs(np.subtract(*figures.values())).max())
    if not difference <= 1e-9:
        raise RuntimeError(f"the figures differ by {difference}: {figures}")
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    spread = {name: [round(min(values), 3), round(max(values), 3)] for name, values in seconds.items()}
    shown = {
        "benchmark": "coco_validation",
        "images": IMAGES,
        "detections_an_image": DETECTIONS,
        "cpus": os.cpu_count(),
    }
    shown |= {"AP": round(figures["ours"][0], 4), "largest_difference": difference, "runs": RUNS}
    ratio = round(medians["pycocotools"] / medians["ours"], 2)
    print(json.dumps({**shown, "seconds": medians, "spread": spread, "ratio": ratio}))


if __name__ == "__main__":
    main()
