"""From a table to batches: deterministic, resumable at any step, with augmentation and targets in the graph.

Everything about a batch follows from its number: position ``p = step * batch_size + place`` names pass
``p // n`` over the ``n`` examples, its place in that pass's permutation names the image, and ``(seed, p)`` seeds the
augmentation. So a run can be resumed at any step, cut into shards, and computed by any number of threads, and the
batches are the same.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, check_classes, image_paths, objects
from retinamask.dataset.boxes import areas, clip, reach_outside
from retinamask.detectors import _keras
from retinamask.training import augmentation, distribution
from retinamask.training.pixel_cache import open_pixels
from retinamask.training.settings import AugmentationSettings, TrainingError, TrainingSettings

log = logging.getLogger(__name__)

STRIDE = 32  # pixels that the deepest feature map of a YOLO takes together
UPDATES = 10  # with one side of the input, as in Darknet

_LARGEST = 2**31 - 1  # of an int32
_SIDE = 2_000_003  # distinguishes the draw of the side from the others of the same seed
_MOSAIC = 1_000_003  # what is folded into an example's seed to draw its mosaic; any number augmentation does not use


class Examples:
    """The images, boxes and labels that a training run draws from.

    Args:
        table: annotations; image paths relative to ``folder``.
        folder: the folder that the image paths are relative to.
        detector: from `retinamask.detectors.create`; gives classes, scale and canvas.
        cache: where the pixels are kept, see `retinamask.training.pixel_cache.open_pixels`.

    Attributes:
        paths: image paths as in the table, without unusable ones.
        unusable: one message for each image that was left out: missing, damaged, or with all of its boxes outside.
        pixels: the resized images, by `retinamask.training.pixel_cache.Pixels.read`.
        canvas_wh: width and height of the network's input.
        boxes: an array ``(M, 4)`` of ``float32`` for each image, in its resized pixels, clipped to it.
        labels: an array ``(M,)`` of ``int32`` class ids for each image.

    Raises:
        AnnotationError: a class is unknown, or not one image can be used.
        PixelCacheError: no room for the pixels.
    """

    def __init__(self, table: pd.DataFrame, folder: str | Path, detector, cache: str = "auto"):
        check_classes(table, detector.classes, "the training table")
        distribution.strategy()  # with several machines before TensorFlow is used for anything, and pixels are tensors
        self.table, self.folder, self.detector = table, folder, detector
        self.pixels = open_pixels(folder, image_paths(table), detector.scale, cache)
        self.boxes: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        rows, outside, kept = dict(iter(objects(table).groupby("image_path"))), [], []
        pixels = self.pixels
        for path, size_wh, scale in zip(pixels.paths, pixels.original_sizes_wh, pixels.scales, strict=True):
            written = rows[path][BOX_COLUMNS].to_numpy(float) if path in rows else np.empty((0, 4))
            inside = clip(written, size_wh)
            stays = areas(inside) > 0
            for box, remains in zip(written, stays, strict=True):
                if reach_outside(box[None], size_wh)[0] > 0:
                    what = "is cut at the edge of" if remains else "is left out: it lies outside"
                    log.warning("%s: box %s %s the image of %s", path, box.tolist(), what, size_wh)
            kept.append(path not in rows or bool(stays.any()))
            if kept[-1]:
                names = rows[path]["class_name"] if path in rows else pd.Series([], dtype=object)
                self.boxes.append((inside[stays] * scale).astype(np.float32))
                self.labels.append(names.map(detector.classes).to_numpy(np.int32)[stays])
            else:
                outside.append(f"{path}: all of its boxes lie outside the image of {size_wh[0]} x {size_wh[1]} pixels")
        self.pixels.keep(kept)
        self.paths, self.unusable = self.pixels.paths, self.pixels.unusable + outside
        for message in self.unusable:
            log.warning("left out of training: %s", message)
        if not self.paths:
            listed = "\n".join(self.unusable[:20])
            raise AnnotationError(f"none of the images below {folder} can be used:\n{listed}")
        self.canvas_wh: tuple[int, int] = detector.canvas_wh(self.pixels.sizes_wh)

    def __len__(self) -> int:
        return len(self.paths)

    def summary(self) -> str:
        """Say, a line each, what there is to learn: images, boxes, those that training cannot use, empty classes.

        Raises:
            TrainingError: there is nothing to learn.
        """
        detector, labels = self.detector, np.concatenate(self.labels)
        counts = {name: int(np.count_nonzero(labels == number)) for name, number in detector.classes.items()}
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        if not len(labels):
            raise TrainingError(f"nothing to learn: none of the {len(self)} images has a box that lies inside it")
        if detector.classifies:
            lines = [f"learning from {len(self)} images: {listed}"]
        else:
            empty = sum(not len(each) for each in self.labels)
            what = f"{len(self)} images, {empty} of them without a box, and {len(labels)} boxes: {listed}"
            of_image = np.repeat(np.arange(len(self)), list(map(len, self.boxes)))
            sizes_wh = np.array(self.pixels.sizes_wh)[of_image]
            reached = int(np.count_nonzero(detector.reached(np.concatenate(self.boxes), of_image, sizes_wh)))
            side = f"{self.canvas_wh[0]} x {self.canvas_wh[1]} pixels"
            figure = f"every box reaches an anchor at {side}"
            if reached < len(labels):
                figure = f"{reached} of {len(labels)} boxes can be learnt at {side}; the rest {detector.unreached}"
            if not reached:
                raise TrainingError(f"nothing to learn: {figure}")
            lines = [f"learning from {what}", figure]
        if self.unusable:
            lines.append(f"{len(self.unusable)} image(s) left out, named above")
        if absent := [name for name, count in counts.items() if not count]:
            what = "images" if detector.classifies else "boxes"
            lines.append(f"nothing to learn for {', '.join(absent)}: the training table has no {what} of it")
        return "\n".join(lines)


def batches(
    examples: Examples,
    batch_size: int,
    settings: AugmentationSettings,
    seed: int,
    first_step: int = 0,
    balance: bool = False,
    shard: tuple[int, int] = (0, 1),
    parts: int = 1,
):
    """Make endless batches: every example once in a random order, then all again in another one.

    Args:
        examples, settings, seed: what is shown, how it is varied, and what decides order and augmentation.
        batch_size: images of one update, over all shards and their parts.
        first_step: the update to begin with; the batches are those that would have followed then.
        balance: show images of rare classes more often, see `entries`.
        shard: ``(i, k)`` takes the i-th contiguous k-th of every batch, for one of ``k`` machines.
        parts: how many batches, one after the other, a shard's share is cut into, one for each of its devices.

    Returns:
        A ``tf.data.Dataset`` of dicts for ``b = batch_size / k / parts`` images: ``images`` ``uint8 (b, H, W, 3)``
        RGB, padded right and bottom with zeros, ``sizes_wh`` ``int32 (b, 2)`` of what is not padding, ``boxes``
        ``float32 (b, M, 4)`` and ``labels`` ``int32 (b, M)``, padded with 0 and -1 to as many as an example may
        hold, and all that the detector's ``targets`` gives.

    Raises:
        ValueError: the batch does not divide into equal shards and parts, or see `check`.
    """
    _keras.prepare()
    import tensorflow as tf

    index, count = shard
    if batch_size % (count * parts):
        raise ValueError(
            f"batch_size {batch_size} does not divide into {count} shard(s) of {parts} part(s) each; "
            f"choose a multiple of {count * parts}"
        )
    share = batch_size // count
    check(examples.detector, settings)
    if examples.detector.classifies:
        settings = replace(settings, visible_share=0)  # a face stays what it is, however little a zoom leaves of it
    load = _loader(examples, settings, seed, balance)
    choices = sides(examples.canvas_wh[0], settings.multi_scale) if settings.multi_scale > 1 else []

    def example(number):
        """Load the example of a number, which names a step and a place in the shard's share."""
        return load(number // share * batch_size + index * share + number % share)

    def with_targets(number, batch):
        if settings.multi_scale > 1:
            step = first_step + number // parts
            batch = _resized(batch, choices, tf.stack([seed % _LARGEST, tf.cast(step // UPDATES, tf.int32) + _SIDE]))
        given = batch["boxes"], batch["labels"], batch["sizes_wh"]
        return {**batch, **examples.detector.targets(*given, examples.canvas_wh)}

    # One shape for all batches, so that one graph does for all of them, and what fills it up.
    most = max(1, max(map(len, examples.labels)) * (4 if settings.mosaic else 1))
    shapes = {"images": (*examples.canvas_wh[::-1], 3), "sizes_wh": (2,), "boxes": (most, 4), "labels": (most,)}
    filling = {"images": np.uint8(0), "sizes_wh": np.int32(0), "boxes": np.float32(0), "labels": np.int32(-1)}
    options = tf.data.Options()
    options.deterministic = True
    return (
        tf.data.Dataset.range(first_step * share, np.iinfo(np.int64).max)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(share // parts, shapes, filling, drop_remainder=True)
        .enumerate()
        .map(with_targets, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def dealt_out(strategy, examples: Examples, settings: TrainingSettings, first_step: int):
    """Make an endless data set of global batches, divided among the devices of ``strategy``.

    Every worker knows the order of the whole run and takes its own part of each batch, each of its devices a part
    of that; so the batches are the same for any number of devices.
    """

    def pipeline(shard: tuple[int, int], parts: int):
        chosen = settings.augmentation, settings.seed, first_step, settings.balance
        return batches(examples, settings.batch_size, *chosen, shard, parts)

    if distribution.is_default(strategy):
        return pipeline((0, 1), 1)
    import tensorflow

    def of_worker(context):
        workers = context.num_input_pipelines
        data = pipeline((context.input_pipeline_id, workers), strategy.num_replicas_in_sync // workers)
        # Else all workers would ask each other before every batch whether one is left.
        return data.apply(tensorflow.data.experimental.assert_cardinality(tensorflow.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(of_worker)


def check(detector, settings: AugmentationSettings) -> None:
    """Raise `ValueError` for augmentation that does not suit a detector."""
    if settings.multi_scale > 1 and not detector.any_canvas:
        raise ValueError(f"multi_scale is {settings.multi_scale}, but {detector.name} takes one size; set it to 1")
    if augmentation.warps(settings) and not detector.classifies:
        raise ValueError(f"rotate, shift, shear and erase are for classifiers; set them to 0 for {detector.name}")
    if settings.mosaic and detector.classifies:
        raise ValueError(f"mosaic is {settings.mosaic}, but an image of {detector.name} has one class; set it to 0")


def sides(side: int, factor: float) -> list[int]:
    """List the multiples of 32 from ``side / factor`` to ``side * factor``; `ValueError` if there is none."""
    smallest, largest = -int(-side / factor // STRIDE), int(side * factor // STRIDE)
    found = [STRIDE * number for number in range(smallest, largest + 1)]
    if not found:
        raise ValueError(f"image_size {side} and multi_scale {factor} leave no side that {STRIDE} divides")
    return found


def _resized(batch: dict, choices: list[int], seed) -> dict:
    """Bring a batch of square input to a side drawn from ``choices``, so that faces of all sizes are learnt.

    As in YOLOv2, section 2. The side follows from seed and step alone.
    """
    import tensorflow as tf

    side = tf.gather(choices, tf.random.stateless_uniform([], seed, 0, len(choices), tf.int32))
    factor = tf.cast(side, tf.float32) / tf.cast(tf.shape(batch["images"])[1], tf.float32)
    pixels = tf.cast(batch["images"], tf.float32)
    pixels = tf.raw_ops.ResizeBilinear(images=pixels, size=tf.stack([side, side]), half_pixel_centers=True)
    return {
        **batch,
        "images": tf.cast(tf.round(pixels), tf.uint8),
        "sizes_wh": tf.cast(tf.round(tf.cast(batch["sizes_wh"], tf.float32) * factor), tf.int32),
        "boxes": batch["boxes"] * factor,
    }


def entries(labels: list[np.ndarray], balance: bool, seed: int) -> np.ndarray:
    """Choose the images of one pass, by index: each once, or those of rare classes more often.

    Repeat factor sampling, https://arxiv.org/abs/1908.03195, section B.2: a class that a share ``f`` of the
    images holds repeats them ``max(1, sqrt(t / f))`` times, an image is repeated as its rarest class asks. Here
    ``t`` is the share of the commonest class. The fraction of a factor is the chance of one more, drawn from ``seed``.
    """
    if not balance:
        return np.arange(len(labels))
    present = [np.unique(held).astype(np.int64) for held in labels]
    held_by = np.bincount(np.concatenate(present))
    factors = np.sqrt(held_by.max(initial=0) / np.maximum(held_by, 1))
    repeats = np.array([max([1.0, *factors[held]]) for held in present])
    whole, fraction = np.divmod(repeats, 1)
    more = np.random.default_rng(seed).random(len(labels)) < fraction
    return np.repeat(np.arange(len(labels)), whole.astype(int) + more)


def _loader(examples: Examples, settings: AugmentationSettings, seed: int, balance: bool):
    """Make a graph function from a position to its augmented example."""
    import tensorflow as tf

    stretched_to = examples.canvas_wh if examples.detector.classifies else None
    read = examples.pixels.reader()
    all_boxes = tf.constant(np.concatenate(examples.boxes), tf.float32)
    all_labels = tf.constant(np.concatenate(examples.labels), tf.int32)
    ends = tf.constant(np.cumsum([0, *map(len, examples.labels)]), tf.int64)
    shown = tf.constant(entries(examples.labels, balance, seed), tf.int64)
    count = len(shown)
    own_seed = seed % _LARGEST

    def source(index):
        """Pixels ``(h, w, 3)``, boxes ``(M, 4)`` and labels ``(M,)`` of one image."""
        begin, end = ends[index], ends[index + 1]
        image, boxes = read(index), all_boxes[begin:end]
        if stretched_to:
            image, boxes = augmentation.stretched(image, boxes, stretched_to)
        return image, boxes, all_labels[begin:end]

    @tf.autograph.experimental.do_not_convert
    def load(position):
        turn, place = position // count, position % count
        order_seed = tf.stack([tf.constant(own_seed, tf.int64), turn])
        index = tf.gather(shown, tf.random.experimental.index_shuffle(place, order_seed, count - 1))
        draw = tf.stack([own_seed, tf.cast(position % _LARGEST, tf.int32)])

        def alone():
            return augmentation.augment(*source(index), draw, settings, examples.canvas_wh)

        def of_four():
            others = tf.random.stateless_uniform([3], mosaic_seed, 0, count, tf.int64)
            four = [source(one) for one in [index, *tf.unstack(tf.gather(shown, others))]]
            return augmentation.mosaic(*map(list, zip(*four, strict=True)), draw, settings, examples.canvas_wh)

        if settings.mosaic:
            mosaic_seed = tf.random.experimental.stateless_fold_in(draw, _MOSAIC)
            chosen = tf.random.stateless_uniform([], mosaic_seed) < settings.mosaic
            made = tf.cond(chosen, of_four, alone)
        else:
            made = alone()
        return dict(zip(("images", "sizes_wh", "boxes", "labels"), made, strict=True))

    return load
