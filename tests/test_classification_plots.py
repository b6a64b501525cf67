"""Pictures of what a classifier says of faces: the right faces, in the right order, the wrong ones marked."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.drawing.style import GREEN, VERMILLION
from retinamask.evaluation import classification, plots
from retinamask.evaluation.classification import prediction_grid
from retinamask.inference.classify import classify_faces

CLASSES = {"with_mask": 0, "without_mask": 1}
REDNESS = (0.9, 0.3, 0.8, 0.05, 0.6, 0.45)  # of the faces, which is what the stand-in sees
TRUE = ("with_mask", "with_mask", "without_mask", "without_mask", "without_mask", "with_mask")
STRANGE_NAMES = ["naïve é", "面具", "$x_1$", "_hidden", "a\nb", "<b>", "x" * 300, "🙂"]


class RedMeansMask:
    """A stand-in for `inference.classify.Classifier` whose answer can be seen in the pixels."""

    classes, margin = CLASSES, 0.0

    def __init__(self):
        self.shapes = []

    def __call__(self, faces_rgb, batch_size=32):
        self.shapes += [face.shape for face in faces_rgb]
        red = np.array([face[..., 0].mean() / 255 for face in faces_rgb], dtype=np.float32).reshape(-1)
        return np.stack([red, 1 - red], axis=1)


@pytest.fixture
def table(tmp_path):
    """Three black images of two faces each, more or less red."""
    rows = []
    for number in range(3):
        pixels = np.zeros((40, 60, 3), dtype=np.uint8)
        for place, left in ((2 * number, 5), (2 * number + 1, 35)):
            pixels[10:30, left : left + 20, 0] = round(255 * REDNESS[place])
            rows.append((f"{number}.png", left, 10, left + 20, 30, TRUE[place]))
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return make_table([*rows, ("nobody.png", *[None] * 5)])


@pytest.fixture
def classified(table, tmp_path):
    return classify_faces(RedMeansMask(), table, tmp_path)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_faces_are_cut_out_and_each_gets_its_own_answer(classified):
    np.testing.assert_allclose(classified.probabilities[:, 0], REDNESS, atol=0.002)
    assert classified.labels.tolist() == [0, 0, 1, 1, 1, 0]
    written = classified.table(classification.decide(classified.probabilities, CLASSES))
    assert written["predicted"].tolist() == [
        "with_mask",
        "without_mask",
        "with_mask",
        "without_mask",
        "with_mask",
        "without_mask",
    ]
    np.testing.assert_allclose(written["probability of without_mask"], 1 - np.array(REDNESS), atol=0.002)


def test_the_margin_is_the_classifiers(table, tmp_path):
    wide = RedMeansMask()
    wide.margin = 0.25
    assert {shape[:2] for shape in classify_faces(wide, table, tmp_path) and wide.shapes} == {(30, 30)}


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_judged(table, tmp_path):
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    (tmp_path / "2.png").unlink()
    found = classify_faces(RedMeansMask(), table, tmp_path)
    assert found.faces["image_path"].tolist() == ["0.png", "0.png"]
    assert len(found.left_out) == 2 and "1.png" in found.left_out[0] and "2.png does not exist" in found.left_out[1]
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(AnnotationError, match=r"none of the 3 image\(s\) can be read, such as: .*0.png"):
        classify_faces(RedMeansMask(), table, tmp_path)


def test_a_class_the_classifier_does_not_know_is_refused(table, tmp_path):
    with pytest.raises(AnnotationError, match="hat"):
        classify_faces(RedMeansMask(), table.assign(class_name="hat"), tmp_path)


def test_the_first_faces_are_shown_with_both_classes_and_the_wrong_ones_in_red(classified):
    predicted = classification.decide(classified.probabilities, CLASSES)
    figure = classification.prediction_plot(classified, predicted, count=4)
    assert [texts(axes)[0] for axes in figure.axes] == [
        "✓ with_mask 0.90",
        "✗ without_mask 0.70",
        "✗ with_mask 0.80",
        "✓ without_mask 0.95",
    ]
    assert [texts(axes)[1] for axes in figure.axes] == [f"true: {name}" for name in TRUE[:4]]
    frames = [to_hex(axes.patches[-1].get_edgecolor()) for axes in figure.axes]
    assert [frame == VERMILLION for frame in frames] == [False, True, True, False]
    inks = [to_hex(axes.texts[0].get_color()) for axes in figure.axes]
    assert inks == [GREEN, VERMILLION, VERMILLION, GREEN]
    assert figure.texts[0].get_text() == "First 4 faces: 2 wrong"
    reds = [axes.images[0].get_array()[..., 0].mean() / 255 for axes in figure.axes]
    np.testing.assert_allclose(reds, REDNESS[:4], atol=0.01)


def test_the_most_confident_mistake_is_the_first(classified):
    predicted = classification.decide(classified.probabilities, CLASSES)
    figure = classification.most_confident_mistakes(classified, predicted, count=3)
    assert [texts(axes)[0] for axes in figure.axes] == ["✗ with_mask 0.80", "✗ without_mask 0.70", "✗ with_mask 0.60"]
    assert [texts(axes)[2] for axes in figure.axes] == ["1.png", "0.png", "2.png"]
    assert "3 of 4, of 6 faces" in figure.texts[0].get_text()
    none = classification.most_confident_mistakes(classified, classified.labels)
    assert none.texts[0].get_text() == "All 6 faces are right."


def faces_of(faces_rgb, classes, names=None) -> SimpleNamespace:
    """What the grid reads of `Classified`: each face is of the first class."""
    names = names or [f"{number}.png" for number in range(len(faces_rgb))]
    faces = pd.DataFrame({"image_path": names, "class_name": list(classes)[0]})
    probabilities = np.full((len(faces), len(classes)), 0.5)
    return SimpleNamespace(faces=faces, classes=classes, probabilities=probabilities, face_rgb=faces_rgb.__getitem__)


def test_the_grid_keeps_the_shape_of_a_face():
    wide = np.full((10, 40, 3), 200, dtype=np.uint8)
    figure = prediction_grid(faces_of([wide, wide[:, :0]], CLASSES), np.array([0, 1]), [0, 1], "")
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left, bottom - top) == pytest.approx((1, 0.25))
    assert not figure.axes[1].images  # a face without a pixel


def test_the_matrix_has_true_classes_in_its_rows():
    labels = np.array([0] * 8 + [1] * 2)
    predicted = np.array([0] * 5 + [1] * 3 + [1] * 2)
    figures = classification.figures(labels, np.eye(2)[predicted], CLASSES)
    counts = pd.DataFrame(figures["confusion"], figures["classes"], figures["classes"])
    axes = plots.confusion_matrix(counts, f"accuracy {figures['accuracy']:.3f}").axes[0]
    assert texts(axes) == ["5\n62.5%", "3\n37.5%", "0\n0.0%", "2\n100.0%"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert (axes.get_ylabel(), axes.get_title("left")) == ("true", "7 of 10 right: accuracy 0.700")


@pytest.mark.parametrize("only", [False, True], ids=["all classes", "one class alone"])
def test_curves_are_drawn_through_their_tables(only):
    random = np.random.default_rng(0)
    labels = np.zeros(50, dtype=int) if only else random.integers(2, size=50)
    probabilities = random.dirichlet([1, 1], size=50)
    judged = labels, probabilities, CLASSES
    figures, curves = classification.figures(*judged), classification.roc(*judged)
    axes = classification.roc_curves(curves, figures).axes[0]
    for line, curve in zip(axes.lines[1:], curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curve["true_positive_rate"])
    said = [text.get_text() for text in axes.get_legend().get_texts()][1]
    assert said == "with_mask: " + (
        "all images or none" if only else f"area {figures['per_class']['with_mask']['roc_auc']:.3f}"
    )
    calibration = classification.calibration(*judged)
    axes, counts = classification.calibration_curves(calibration, figures).axes
    for line, count, curve in zip(axes.lines[1:], counts.lines, calibration.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), curve[["probability", "share"]])
        np.testing.assert_array_equal(count.get_ydata(), curve["images"])


def test_strange_names_can_be_drawn(tmp_path):
    classes = {name: number for number, name in enumerate(STRANGE_NAMES)}
    labels = np.arange(24) % len(classes)
    judged = labels, np.random.default_rng(0).dirichlet([1] * len(classes), size=24), classes
    figures = classification.figures(*judged)
    face = np.zeros((9, 9, 3), dtype=np.uint8)
    drawn = [
        plots.confusion_matrix(pd.DataFrame(figures["confusion"], figures["classes"], figures["classes"]), ""),
        classification.roc_curves(classification.roc(*judged), figures),
        classification.calibration_curves(classification.calibration(*judged), figures),
        prediction_grid(
            faces_of([face] * 24, classes, (STRANGE_NAMES * 24)[:24]), labels, range(24), "".join(STRANGE_NAMES)
        ),
    ]
    for number, figure in enumerate(drawn):
        figure.savefig(tmp_path / f"{number}.png", dpi=40)
