"""Boxes on images, contact sheets and figures: right pixels, right numbers, and no name that breaks them."""

import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw

from retinamask.dataset.annotations import BOX_COLUMNS, DETECTION_COLUMNS, make_table
from retinamask.drawing import style
from retinamask.drawing.boxes import draw_boxes, place_labels
from retinamask.drawing.contact_sheet import Example, contact_sheet, cut_outs, side_by_side
from retinamask.evaluation import plots

CLASSES = {"mask": 0, "no_mask": 1}
GREEN = ImageColor.getrgb(style.GREEN)
STRANGE_NAMES = ["naïve é", "面具", "$x_1$", "_hidden", "a\nb", "<b>", "x" * 300, "🙂"]
NO_BOXES = make_table([("a.jpg", *[None] * 5)])


def white(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 255, dtype=np.uint8)


def annotation(*box: float, class_name: str = "mask") -> pd.DataFrame:
    return make_table([("a.jpg", *box, class_name)])


def detection(*box: float, class_name: str = "mask", score: float = 0.9) -> pd.DataFrame:
    return make_table([("a.jpg", *box, class_name, score)], DETECTION_COLUMNS)


# --- Boxes on images ---


@pytest.mark.parametrize("boxes", [make_table([]), NO_BOXES], ids=["no rows", "no objects"])
def test_an_image_without_boxes_stays_as_it_is(boxes):
    image = draw_boxes(white(40, 30), boxes, CLASSES, ground_truth=boxes)
    np.testing.assert_array_equal(np.asarray(image), white(40, 30))


def test_a_box_covers_its_pixels_up_to_the_half_open_edge():
    drawn = np.asarray(draw_boxes(white(200, 200), annotation(50, 60, 150, 160), CLASSES))
    green = (drawn == GREEN).all(axis=2)
    columns = np.flatnonzero(green[120])
    rows = np.flatnonzero(green[:, 120])
    assert (columns.min(), columns.max(), rows.max()) == (50, 149, 159)
    assert not green[100, 60:140].any()  # the inside shows the image


def test_the_image_given_is_not_drawn_upon():
    image_rgb = white(100, 100)
    image_rgb.flags.writeable = False
    draw_boxes(image_rgb, annotation(10, 30, 90, 90), CLASSES, annotation(20, 20, 80, 80))
    assert (image_rgb == 255).all()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 5, 5), (95, 95, 100, 100), (-9, -9, 500, 500), (99.6, 0, 140, 20), (200, 0, 210, 9)],
)
@pytest.mark.parametrize("size_wh", [(100, 100), (1, 1), (3000, 20)])
def test_boxes_at_and_beyond_the_edges_are_drawn(box, size_wh):
    image = draw_boxes(white(*size_wh), detection(*box), CLASSES, annotation(*box))
    assert image.size == size_wh
    assert (np.asarray(image) != 255).any()


def test_the_best_score_is_on_top():
    boxes = [detection(20, 40, 80, 80, score=0.9), detection(20, 40, 80, 80, class_name="no_mask", score=0.4)]
    for order in (boxes, boxes[::-1]):
        drawn = np.asarray(draw_boxes(white(100, 100), pd.concat(order), CLASSES))
        assert tuple(drawn[79, 50]) == GREEN


def overlap(chips: np.ndarray) -> float:
    """The largest area that two labels share."""
    sides = np.minimum(chips[:, None, 2:], chips[None, :, 2:]) - np.maximum(chips[:, None, :2], chips[None, :, :2])
    return np.triu(sides.clip(0).prod(axis=2), 1).max()


def test_a_label_stands_at_its_box_and_inside_the_image():
    corners = [(0, 0, 40, 40), (160, 0, 200, 40), (0, 160, 40, 200), (160, 160, 200, 200)]
    for box in [*corners, (80, 80, 120, 120), (0, 0, 200, 200), (199, 199, 200, 200)]:
        ((left, top, right, bottom),) = place_labels([box], [(70, 16)], (200, 200))
        assert left >= 0 and right <= 200 and top >= 0 and bottom <= 200 and (right - left, bottom - top) == (70, 16)
        assert left <= box[2] and right >= box[0] and top <= box[3] and bottom >= box[1]  # it touches the box
    assert place_labels([(80, 80, 120, 120)], [(70, 16)], (200, 200)).tolist() == [[80, 64, 150, 80]]  # above
    assert place_labels([], np.empty((0, 2)), (200, 200)).shape == (0, 4)


def test_no_label_hides_another_where_there_is_room():
    both = place_labels([(50, 60, 100, 120), (52, 61, 102, 121)], [(70, 16)] * 2, (200, 200))
    assert overlap(both) == 0
    random = np.random.default_rng(0)
    for count in (5, 40, 100):  # the last cover a quarter of the image
        corners = random.uniform(0, (600, 440), (count, 2))
        boxes_xyxy = np.concatenate([corners, corners + random.uniform(5, 40, (count, 2))], axis=1)
        chips = place_labels(boxes_xyxy, np.c_[random.integers(40, 70, count), [14] * count], (640, 480))
        assert overlap(chips) == 0 and (chips >= 0).all() and (chips[:, 2:] <= (640, 480)).all()
    full = place_labels(boxes_xyxy / 6.4, [(50, 20)] * 100, (100, 75))
    assert overlap(full) > 0 and (full >= 0).all() and (full[:, 2:] <= (100, 75)).all()


def test_labels_of_a_crowd_get_shorter_before_they_hide_it():
    lefts = range(4, 400, 20)
    hidden = {}
    for rows in (1, 6, 60):
        faces = [("a", x, 4 + 8 * y, x + 5, 9 + 8 * y, "mask", 0.9) for y in range(rows) for x in lefts]
        boxes = make_table(faces, DETECTION_COLUMNS)
        boxed = draw_boxes(white(400, 500), boxes, CLASSES, labels=False)
        drawn = draw_boxes(white(400, 500), boxes, CLASSES)
        hidden[rows] = (np.asarray(drawn) != np.asarray(boxed)).any(axis=2).mean()
    assert 0.04 < hidden[1] < hidden[6] < 0.41 and hidden[60] == 0  # of 1200 labels not one


@pytest.mark.parametrize(
    ("size_wh", "name", "label"),
    [((64, 48), "mask", "mask 0.90"), ((64, 48), "mask_worn_wrongly", "0.90"), ((640, 480), "no_mask", "no_mask 0.90")],
)
def test_a_label_without_room_has_no_name_rather_than_half_of_it(size_wh, name, label, monkeypatch):
    texts = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, position, text, **_: texts.append(text))
    draw_boxes(white(*size_wh), detection(9, 20, 50, 44, class_name=name), {name: 0})
    assert texts == [label]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_strange_class_names_can_be_drawn(name):
    boxes = detection(10, 10, 60, 60, class_name=name)
    draw_boxes(white(80, 80), boxes, {name: 0})
    draw_boxes(white(80, 80), boxes, CLASSES)  # a class that is not among the classes
    contact_sheet([Example(name, white(80, 80), boxes, NO_BOXES)], {name: 0}, title=name)


def test_a_class_keeps_its_color_wherever_it_comes():
    assert style.class_colors({"without_mask": 0, "worn wrong": 1, "With Mask": 2}) == {
        "without_mask": style.VERMILLION,
        "worn wrong": style.AMBER,
        "With Mask": style.GREEN,
    }
    many = style.class_colors({f"class {number}": number for number in range(20)})
    assert len(many) == 20 and len(set(many.values())) == len(style.OTHER_COLORS)


# --- Contact sheets ---


def test_a_contact_sheet_may_be_empty():
    assert contact_sheet([], CLASSES, title="Nothing").width > 300


@pytest.mark.parametrize("count, columns, grid", [(1, 4, (1, 1)), (4, 4, (4, 1)), (5, 4, (4, 2)), (3, 1, (1, 3))])
def test_a_contact_sheet_is_a_grid(count, columns, grid):
    examples = [Example(f"{n}.jpg", white(40, 30), NO_BOXES) for n in range(count)]
    sheet = contact_sheet(examples, CLASSES, columns, cell_size=64)
    gap, heading, caption = 4, 16, 7
    assert sheet.size == (gap + grid[0] * (64 + gap), heading + grid[1] * (64 + caption + gap))


@pytest.mark.parametrize("size_wh", [(400, 100), (100, 400), (20, 20)])
def test_a_contact_sheet_keeps_the_aspect_and_scales_the_boxes(size_wh):
    red = np.broadcast_to(np.uint8([255, 0, 0]), (*size_wh[::-1], 3))
    plain = np.asarray(contact_sheet([Example("a.jpg", red, NO_BOXES)], {}, cell_size=200))
    rows, columns = np.nonzero((plain == (255, 0, 0)).all(axis=2))
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert (width, height) == tuple(side * 200 // max(size_wh) for side in size_wh)

    boxes = annotation(0, 0, *size_wh)
    drawn = np.asarray(contact_sheet([Example("a.jpg", red, boxes)], CLASSES, cell_size=200))
    assert tuple(drawn[rows.max(), columns.max()]) == tuple(drawn[rows.max(), columns.min()]) == GREEN


def test_tables_side_by_side_and_boxes_cut_out_by_hand(tmp_path):
    Image.fromarray(np.arange(200, dtype=np.uint8)[None].repeat(100, axis=0)).save(tmp_path / "a.png")
    truth = make_table([("a.png", 60, 40, 80, 60, "mask"), ("a.png", 0, 0, 5, 5, "mask")])
    found = make_table([("a.png", 50, 40, 70, 60, "no_mask", 0.9)], DETECTION_COLUMNS)
    rows = side_by_side(["a.png"], tmp_path, {"annotated": truth, "found": found}, truth)
    assert [(each.remark, each.labels) for each in rows] == [("annotated: 2", False), ("found: 1", False)]
    mistakes = pd.concat([found.assign(true_class="mask"), found.assign(true_class=None, x1=190.0, x2=198.0)])
    inside, at_edge = cut_outs(mistakes.reset_index(drop=True), tmp_path, truth)
    assert inside.image_rgb.shape == (60, 60, 3) and inside.image_rgb[0, 0].tolist() == [30, 30, 30]
    assert inside.boxes[BOX_COLUMNS].to_numpy().tolist() == [[20, 20, 40, 40]]
    assert inside.ground_truth[BOX_COLUMNS].to_numpy().tolist() == [[30, 20, 50, 40]]
    assert (inside.remark, at_edge.remark) == ("annotated: mask", "not annotated")
    assert at_edge.image_rgb.shape == (60, 18, 3) and at_edge.ground_truth.empty


@pytest.mark.parametrize("columns, cell_size", [(0, 320), (4, 63)])
def test_a_contact_sheet_refuses_a_grid_that_cannot_be(columns, cell_size):
    with pytest.raises(ValueError, match="columns is"):
        contact_sheet([], CLASSES, columns, cell_size)


# --- Figures ---

LOG = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [3.0, 2.0, 1.0],
        "localization_loss": [3.5, np.nan, 2.0],
        "AP50": [np.nan, 0.7, 0.4],
        "AP": [None, None, None],
        "learning_rate": [1e-4, 1e-4, 1e-5],
    }
)
BOXES = make_table([("a.jpg", 0, 0, 20, 40, "mask"), ("a.jpg", 10, 10, 60, 60, "no_mask")])
CURVE = pd.DataFrame({"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.8, 0.0], "score": [0.9, 0.5, np.nan]})


def metrics_of(*names: str) -> dict:
    return {"per_class": {name: {"AP50": 0.5} for name in names}}


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize(
    "log, titles",
    [
        (LOG.head(0), []),
        (LOG[["epoch"]], []),
        (LOG[["epoch", "loss"]].head(1), ["Loss"]),
        (LOG, ["Loss", "Average precision, best AP50 0.700 in epoch 2", "Learning rate"]),
    ],
    ids=["empty", "no figures", "one epoch", "full"],
)
def test_training_curves_show_what_was_logged(log, titles):
    figure = plots.training_curves(log)
    assert [axes.get_title("left") for axes in figure.axes] == titles
    assert ("No epoch" in texts(figure)) == (not titles)


def test_training_curves_skip_epochs_without_a_value():
    lines = plots.training_curves(LOG).axes[0].lines
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2, 3], [1, 3]]


def full_log(
    epochs: int = 6, classes: tuple[str, ...] = ("with_mask", "without_mask", "mask_worn_wrong")
) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    log = pd.DataFrame({"epoch": epoch, "step": 40 * epoch, "loss": 3.2 / epoch, "localization_loss": 2.2 / epoch})
    log = log.assign(classification_loss=1.0 / epoch, regularization_loss=0.0, learning_rate=1e-4 / epoch)
    log = log.assign(seconds=60.0 * epoch, AP=0.6 - 0.5 / epoch, AP50=0.9 - 0.7 / epoch, AP75=0.7 - 0.6 / epoch)
    return log.assign(**{f"AP50/{name}": 0.95 - 0.2 * n - 0.7 / epoch for n, name in enumerate(classes)})


def test_training_curves_have_a_panel_for_the_classes_if_there_are_several():
    titles = ["Loss", "Average precision, best AP50 0.783 in epoch 6", "AP50 of each class", "Learning rate"]
    figure = plots.training_curves(full_log())
    assert [axes.get_title("left") for axes in figure.axes] == titles
    assert [line.get_label() for line in figure.axes[2].lines] == ["with_mask", "without_mask", "mask_worn_wrong"]
    alone = plots.training_curves(full_log(classes=("face",)))
    assert [axes.get_title("left") for axes in alone.axes] == [titles[0], titles[1], titles[3]]


@pytest.mark.parametrize(("regularization", "lines"), [(0.0, 3), (0.5, 4)])
def test_a_regularization_that_is_none_is_not_drawn(regularization, lines):
    figure = plots.training_curves(full_log().assign(regularization_loss=regularization))
    assert len(figure.axes[0].lines) == lines


def steps_log(count: int) -> pd.DataFrame:
    step = 5 * np.arange(1, count + 1)
    loss = 3 * np.exp(-step / 300) + 0.4 + np.random.default_rng(0).normal(0, 0.15, count)
    rate = 1e-4 * np.minimum(step / 100, 1)
    return pd.DataFrame({"step": step, "loss": loss, "localization_loss": 0.7 * loss, "learning_rate": rate})


def test_live_curves_show_steps_before_the_first_epoch():
    figure = plots.training_curves(pd.DataFrame(), steps_log(3))
    assert [(axes.get_title("left"), axes.get_xlabel()) for axes in figure.axes] == [
        ("Loss", "step"),
        ("Learning rate", "step"),
    ]
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [[5, 10, 15]] * 2


def test_live_curves_smooth_a_loss_over_many_steps_and_keep_the_points():
    steps = steps_log(100)
    figure = plots.training_curves(full_log(), steps)
    assert [axes.get_xlabel() for axes in figure.axes] == ["step", "epoch", "epoch", "step"]
    faint, smooth = figure.axes[0].lines[:2]
    assert faint.get_ydata().tolist() == steps["loss"].tolist()
    assert np.abs(np.diff(smooth.get_ydata())).mean() < 0.3 * np.abs(np.diff(faint.get_ydata())).mean()
    assert len(figure.axes[3].lines) == 1  # a learning rate is what it is


def test_precision_recall_curves_end_where_recall_ends():
    curves = {"mask": CURVE, "no_mask": CURVE.head(0)}
    metrics = {"per_class": {"mask": {"AP50": 0.625}, "no_mask": {"AP50": None}}}
    figure = plots.precision_recall_curves(curves, metrics)
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [[0.0, 0.5], []]
    assert "mask: AP50 0.625" in texts(figure) and "no_mask: no annotations" in texts(figure)


def test_class_counts_are_those_of_the_table():
    table = pd.concat([BOXES, BOXES.head(1), NO_BOXES], ignore_index=True)
    bars = plots.class_counts(table, {**CLASSES, "worn_wrong": 2}).axes[0].patches
    assert [bar.get_width() for bar in bars] == [2, 1, 0]

    splits = plots.class_counts(table.assign(split=["train", "train", "test", "test"]), CLASSES, "split")
    assert [bar.get_width() for bar in splits.axes[0].patches] == [1, 1, 1, 0]  # train, then test
    assert "train" in texts(splits) and "test" in texts(splits)


def test_box_sizes_are_those_of_the_model_input():
    # Both images are fitted into 200 x 200: by a factor of 2, so that the boxes' sides are 56.6 and 100.
    figure = plots.box_sizes(BOXES, {"a.jpg": (100, 50)}, input_size=200)
    bars = [bar for bar in figure.axes[0].patches if bar.get_height()]
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
    for side, (low, high) in zip((800**0.5 * 2, 100), spans, strict=True):
        assert low <= side <= high
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.class_counts(make_table([]), CLASSES),
        lambda: plots.class_counts(make_table([]), {}),
        lambda: plots.class_counts(make_table([]).assign(split=None), CLASSES, "split"),
        lambda: plots.box_sizes(NO_BOXES, {}, 512),
        lambda: plots.precision_recall_curves({}, {"per_class": {}}),
        lambda: plots.training_curves(pd.DataFrame(), pd.DataFrame()),
    ],
    ids=["counts", "no classes", "splits", "sizes", "curves", "live"],
)
def test_empty_figures_can_be_drawn_and_saved(draw, tmp_path):
    draw().savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("name", STRANGE_NAMES[:6] + STRANGE_NAMES[7:])
def test_strange_names_can_be_plotted(name, tmp_path):
    table = annotation(0, 0, 9, 9, class_name=name).assign(split=name)
    plots.class_counts(table, {name: 0}, "split").savefig(tmp_path / "counts.png")
    log = full_log(classes=(name, "mask"))[["epoch", f"AP50/{name}", "AP50/mask"]]
    assert len(plots.training_curves(log).axes[0].get_legend().get_texts()) == 2
    figure = plots.precision_recall_curves({name: CURVE}, metrics_of(name))
    figure.savefig(tmp_path / "curves.png")
    assert len(figure.axes[0].get_legend().get_texts()) == 1


def test_plots_need_no_pyplot_and_leave_the_style_alone():
    before = dict(matplotlib.rcParams)
    plots.training_curves(LOG)
    assert dict(matplotlib.rcParams) == before
    code = "import sys, retinamask.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
