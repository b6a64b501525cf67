"""From examples to batches: deterministic, resumable at any step, with augmentation and targets in the graph.

Everything about a batch follows from its number: position ``p = step * batch_size + place`` names pass
``p // n`` over the ``n`` examples, its place in that pass's permutation names the image, and ``(seed, p)`` seeds the
augmentation. So a run can be resumed at any step, cut into shards, and computed by any number of threads, and the
batches are the same.
"""

from dataclasses import replace

import numpy as np

from retinamask.detectors import _keras
from retinamask.training import augmentation, distribution
from retinamask.training.examples import Examples
from retinamask.training.settings import AugmentationSettings, TrainingSettings

STRIDE = 32  # pixels that the deepest feature map of a YOLO takes together
UPDATES = 10  # with one side of the input, as in Darknet

_LARGEST = 2**31 - 1  # of an int32
_SIDE = 2_000_003  # distinguishes the draw of the side from the others of the same seed
_MOSAIC = 1_000_003  # what is folded into an example's seed to draw its mosaic; any number augmentation does not use


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
        examples: what to draw from.
        batch_size: images of one update, over all shards and their parts.
        settings: how images are varied; `retinamask.training.settings.NO_AUGMENTATION` only pads them.
        seed: decides order and augmentation; the same seed gives the same batches.
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
    """Raise `ValueError` for augmentation that does not suit a detector.

    That is ``multi_scale`` where the input has one size, rotation and the like where there are boxes, and a mosaic
    where each image is of one class.
    """
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
    """Bring a batch of square input to a side drawn from ``choices``: images, sizes and boxes.

    So a detector learns faces of all sizes (YOLOv2, section 2). The side follows from seed and step alone, so that all
    devices and machines, and a resumed run, take the same.
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
