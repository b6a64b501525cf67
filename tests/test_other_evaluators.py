"""Figures of detections against evaluators that others wrote: keras-retinanet's, scikit-learn's, pycocotools'."""

import numpy as np
import pytest
from pycocotools import mask
from scipy.optimize import linear_sum_assignment
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix
from test_coco import CLASSES, pycocotools_evaluator, random_tables

import retinamask as rm
from retinamask.dataset.annotations import BOX_COLUMNS, DETECTION_COLUMNS, image_paths, make_table, objects
from retinamask.detectors import _keras
from retinamask.evaluation.matches import by_threshold


def faces_apart(seed: int, images: int = 30):
    """Annotations and detections: a face has up to three boxes, which reach no other one, and no scores are equal."""
    random = np.random.default_rng(seed)
    annotations, detections, names = [], [], list(CLASSES)[:2]
    for number in range(images):
        path = f"{number:02}.jpg"
        annotations.append((path, *[None] * 5))
        for place in random.permutation(9)[: random.integers(0, 7)]:
            corner = 100 * np.array([place % 3, place // 3]) + random.uniform(20, 30, 2)
            box, label = np.array([*corner, *(corner + random.uniform(30, 50, 2))]), random.integers(2)
            if random.random() < 0.8:
                annotations.append((path, *box, names[label]))
            for _ in range(random.integers(0, 4)):
                near, name = box + random.normal(0, 3, 4), names[label ^ int(random.random() < 0.2)]
                detections.append((path, *near, name, random.uniform(0.06, 1)))
    return make_table(annotations), make_table(detections, DETECTION_COLUMNS)


class Generator:
    """What keras-retinanet's evaluation asks of a generator: images of twice the size that the network is given."""

    def __init__(self, annotations):
        self.tables = [objects(rows) for _, rows in annotations.groupby("image_path")]
        self.size, self.num_classes, self.has_label = lambda: len(self.tables), lambda: len(CLASSES), lambda label: True
        self.load_image, self.preprocess_image = lambda index: np.zeros((1, 1, 3)), lambda image: image
        self.resize_image = lambda image: (image, 0.5)

    def load_annotations(self, index):
        rows = self.tables[index]
        return {"bboxes": rows[BOX_COLUMNS].to_numpy(float), "labels": rows["class_name"].map(CLASSES).to_numpy(int)}


class Model:
    """Gives the detections of one image after the other."""

    def __init__(self, annotations, detections):
        found = objects(detections)
        self.tables = [found[found["image_path"] == path] for path in sorted(image_paths(annotations))]

    def predict_on_batch(self, batch):
        rows = self.tables.pop(0)
        labels = rows["class_name"].map(CLASSES).to_numpy(int)
        return rows[BOX_COLUMNS].to_numpy(float)[None] * 0.5, rows["score"].to_numpy(float)[None], labels[None]


def keras_retinanets(annotations, detections) -> dict[str, float]:
    _keras.prepare()
    from keras_retinanet.utils import eval as theirs

    # its progress bar writes to what was the output when it was first imported, perhaps one that a test has closed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.progressbar, "progressbar", lambda numbers, **_: numbers)
        found, _ = theirs.evaluate(Generator(annotations), Model(annotations, detections))
    return {name: found[label][0] for name, label in CLASSES.items()}


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_keras_retinanets_integral_sampled(seed):
    """It integrates the falling curve of the best precision over all recalls; COCO takes its mean at 101 recalls.

    The sum at the 100 right ends of the steps of 0.01, and that at the left ends, enclose the integral, so that both
    figures differ by at most 0.01. A class that is not annotated has the AP 0 there and is left out of the
    mean; in COCO it has none.
    """
    annotations, detections = faces_apart(seed)
    theirs, found = keras_retinanets(annotations, detections), rm.evaluate(detections, annotations, CLASSES)
    for name in ("mask", "no_mask"):
        curve = by_threshold(found.matches)[name]
        best = np.maximum.accumulate(curve["precision"][::-1])[::-1]
        assert theirs[name] == pytest.approx(best @ np.diff(curve["recall"], prepend=0), abs=1e-9)
        assert 0.2 < theirs[name] < 0.9 and abs(theirs[name] - found["per_class"][name]["AP50"]) <= 0.01
    assert theirs["worn_wrong"] == 0 and found["per_class"]["worn_wrong"]["AP50"] is None


def test_of_two_faces_that_one_box_overlaps_keras_retinanet_knows_the_nearest_alone():
    """The second box is nearer to the face that is taken: a false alarm there, for COCO the other face's."""
    faces = [("a.jpg", 0, 0, 100, 100, "mask"), ("a.jpg", 30, 0, 130, 100, "mask")]
    found = [("a.jpg", 0, 0, 100, 100, "mask", 0.9), ("a.jpg", 10, 0, 110, 100, "mask", 0.8)]
    tables = make_table(faces), make_table(found, DETECTION_COLUMNS)
    assert keras_retinanets(*tables)["mask"] == 0.5 and rm.evaluate(*tables[::-1], CLASSES)["AP50"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_confusion_is_scikit_learns_of_the_best_pairs(seed):
    """Of SciPy's best pairs, from the threshold on; the most confident box of a face counts."""
    annotations, detections = faces_apart(seed)
    found = rm.evaluate(detections, annotations, CLASSES, thresholds=dict.fromkeys(CLASSES, 0.4))
    true, predicted, background = [], [], len(CLASSES)
    for path in image_paths(annotations):
        truth, boxes = (table[table["image_path"] == path] for table in (objects(annotations), found.shown))
        corners = [table[BOX_COLUMNS].to_numpy(float) for table in (boxes, truth)]
        labels = [table["class_name"].map(CLASSES).to_numpy(int) for table in (boxes, truth)]
        xywh = [np.array([[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in each]).reshape(-1, 4) for each in corners]
        ious = np.reshape(mask.iou(*xywh, [0] * len(truth)), (len(boxes), len(truth)))
        pairs = [pair for pair in zip(*linear_sum_assignment(-ious), strict=True) if ious[pair] >= 0.5]
        for box, face in pairs:
            true.append(labels[1][face])
            predicted.append(labels[0][box])
        for face in set(range(len(truth))) - {face for _, face in pairs}:
            true.append(labels[1][face])
            predicted.append(background)
        for box in set(range(len(boxes))) - {box for box, _ in pairs}:
            true.append(background)
            predicted.append(labels[0][box])
    expected = confusion_matrix(true, predicted, labels=range(len(CLASSES) + 1))
    np.testing.assert_array_equal(found.confusion().fillna(0), expected)
    assert expected[0, 1] + expected[1, 0] > 3 and (expected[:2, -1] > 0).all() and (expected[-1, :2] > 0).all()


def test_a_box_of_just_half_the_face_is_right_everywhere():
    truth = make_table([("a.jpg", 0, 0, 10, 10, "mask")])
    found = rm.evaluate(make_table([("a.jpg", 0, 0, 10, 5, "mask", 0.9)], DETECTION_COLUMNS), truth, CLASSES)
    assert found["AP50"] == 1 and found.mistakes.empty and found.confusion().loc["mask", "mask"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_scikit_learns_of_pycocotools_matches(seed):
    """Which boxes are right at IoU 0.5 is pycocotools' word; the expected error weighs the bins by their boxes."""
    annotations, detections = random_tables(seed, images=40)
    matched = [each for each in pycocotools_evaluator(annotations, detections).evalImgs if each]
    matched = [each for each in matched if each["aRng"] == [0, 1e10]]
    axes, _ = rm.evaluate(detections, annotations, CLASSES).pictures()["calibration"].axes
    gap = total = 0
    for line, label in zip(axes.lines[1:], (0, 1), strict=True):
        own = [each for each in matched if each["category_id"] == label]
        scores = np.concatenate([each["dtScores"] for each in own])
        right = np.concatenate([each["dtMatches"][0] > 0 for each in own])
        share, mean = calibration_curve(right, scores, n_bins=10)
        np.testing.assert_allclose(line.get_xydata(), np.stack([mean, share], axis=1))
        counts = np.unique(np.searchsorted(np.linspace(0, 1, 11)[1:-1], scores), return_counts=True)[1]
        gap, total = gap + counts @ abs(share - mean), total + len(scores)
    assert axes.get_title(loc="left") == f"Calibration: expected error {gap / total:.3f}"
