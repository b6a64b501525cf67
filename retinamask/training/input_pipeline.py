"""From examples to batches: an order that any step can be entered at, augmentation and targets in the graph.

Above `examples`, `augmentation` and the detectors; `train` draws its batches from here.

Everything about a batch follows from its number: position ``p = step * batch_size + place`` names pass
``p // n`` over the ``n`` examples, its place in that pass's permutation names the image, and ``(seed, p)`` seeds the
augmentation. So a run can be taken up at any step, cut into shards, and computed by any number of threads, and the
batches are the same.
"""

from dataclasses import replace

import numpy as np

from retinamask.detectors import _keras
from retinamask.training import augmentation, distribution, multi_scale, warping
from retinamask.training.examples import Examples
from retinamask.training.settings import AugmentationSettings, TrainingSettings

_LARGEST = 2**31 - 1  # of an int32
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
    """Endless batches: every example once in a random order, then all again in another one.

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

    def example(number):
        """The shard's examples are numbered through; ``number`` names a step and a place in the shard's share."""
        return load(number // share * batch_size + index * share + number % share)

    def with_targets(number, batch):
        if settings.multi_scale > 1:
            step = first_step + number // parts
            side = multi_scale.drawn_side(examples.canvas_wh[0], settings.multi_scale, seed % _LARGEST, step)
            batch = multi_scale.resized(batch, side)
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
    """An endless data set whose elements are global batches, dealt out to the devices of ``strategy``.

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
    """Raise `ValueError` if something is asked that does not suit a detector.

    That is ``multi_scale`` where the input has one size, turning and the like where there are boxes, and a mosaic
    where each image is of one class.
    """
    if settings.multi_scale > 1 and not detector.any_canvas:
        raise ValueError(f"multi_scale is {settings.multi_scale}, but {detector.name} takes one size; set it to 1")
    if warping.is_asked_for(settings) and not detector.classifies:
        raise ValueError(f"rotate, shift, shear and erase are for classifiers; set them to 0 for {detector.name}")
    if settings.mosaic and detector.classifies:
        raise ValueError(f"mosaic is {settings.mosaic}, but an image of {detector.name} has one class; set it to 0")


def entries(labels: list[np.ndarray], balance: bool, seed: int) -> np.ndarray:
    """Indices of the images of one pass: each once, or those of rare classes more often.

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
    """A graph function from a position to its augmented example."""
    import tensorflow as tf

    source = _Source(examples)
    shown = tf.constant(entries(examples.labels, balance, seed), tf.int64)
    count = len(shown)
    own_seed = seed % _LARGEST

    @tf.autograph.experimental.do_not_convert
    def load(position):
        turn, place = position // count, position % count
        order_seed = tf.stack([tf.constant(own_seed, tf.int64), turn])
        index = tf.gather(shown, tf.random.experimental.index_shuffle(place, order_seed, count - 1))
        draw = tf.stack([own_seed, tf.cast(position % _LARGEST, tf.int32)])

        def alone():
            return augmentation.augment(*source.example(index), draw, settings, examples.canvas_wh)

        def of_four():
            others = tf.random.stateless_uniform([3], mosaic_seed, 0, count, tf.int64)
            four = [source.example(one) for one in [index, *tf.unstack(tf.gather(shown, others))]]
            return augmentation.mosaic(*map(list, zip(*four, strict=True)), draw, settings, examples.canvas_wh)

        if settings.mosaic:
            mosaic_seed = tf.random.experimental.stateless_fold_in(draw, _MOSAIC)
            chosen = tf.random.stateless_uniform([], mosaic_seed) < settings.mosaic
            made = tf.cond(chosen, of_four, alone)
        else:
            made = alone()
        return dict(zip(("images", "sizes_wh", "boxes", "labels"), made, strict=True))

    return load


class _Source:
    """Examples as the graph reads them."""

    def __init__(self, examples: Examples):
        import tensorflow as tf

        self._stretched_to = examples.canvas_wh if examples.detector.classifies else None
        self._read = examples.pixels.reader()
        self._boxes = tf.constant(np.concatenate(examples.boxes), tf.float32)
        self._labels = tf.constant(np.concatenate(examples.labels), tf.int32)
        self._ends = tf.constant(np.cumsum([0, *map(len, examples.labels)]), tf.int64)

    def example(self, index):
        """Pixels ``(h, w, 3)``, boxes ``(M, 4)`` and labels ``(M,)`` of one image."""
        begin, end = self._ends[index], self._ends[index + 1]
        image, boxes = self._read(index), self._boxes[begin:end]
        if self._stretched_to:
            image, boxes = warping.stretched(image, boxes, self._stretched_to)
        return image, boxes, self._labels[begin:end]
