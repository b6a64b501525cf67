"""MobileNetV2 as a classifier of cut-out faces: the second stage of the two-stage recipe.

A detector whose images are faces, each with one box that covers it; so it is trained, kept and resumed as the others
are. MobileNetV2 is https://arxiv.org/abs/1801.04381, as keras.applications builds it; on top are a pooling, dense
layers with dropout, and a number for each class.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinamask.dataset import images
from retinamask.dataset.faces import MARGIN
from retinamask.detectors import _keras, mobilenet_v2_fpnlite
from retinamask.detectors.detector import Detector
from retinamask.detectors.retinanet import MOMENTUM, NORMALISATIONS
from retinamask.setting import check_settings, setting

POOLINGS = ("average", "max")
CLASSIFIER_LOSSES = ("categorical", "binary")
BLOCKS = 18
"""Blocks of MobileNetV2: the first convolution and 17 blocks of three, with the last convolution in the last one."""

_LOSS = "classification_loss"


@dataclass(frozen=True)
class MaskClassifierSettings:
    """All that is needed, with the classes, to build the same network again.

    A face is stretched to the input, as the published recipes do: padding would tell the network how long its images
    are, which in class folders often tells the class.
    """

    image_height: int = setting(224, "of the input in pixels; faces are stretched to it", 32, 1024)
    image_width: int = setting(224, "of the input in pixels; faces are stretched to it", 32, 1024)
    alpha: float = setting(1.0, mobilenet_v2_fpnlite.ALPHA_HELP, 0.1, 4)
    pooling: str = setting("average", "makes one number of each channel", choices=POOLINGS)
    dense: tuple[int, ...] = setting(
        (128,), "units of the layers between pooling and answer, such as 128 or 256,64; none for no layer", 1
    )
    dropout: float = setting(
        0.5, "share of the inputs of those layers, and of the answer, that an update drops", 0, 0.95
    )
    loss: str = setting(
        "categorical", "softmax over the classes, or binary: one number for two classes", choices=CLASSIFIER_LOSSES
    )
    class_weights: tuple[float, ...] = setting(
        (), "how much an image of each class counts, by id, such as 1,2.5; none for 1 for all", 1e-6, 1e6
    )
    fine_tune_blocks: int = setting(
        4,
        f"of {BLOCKS} blocks, how many from the last learn once the backbone is unfrozen; all with live normalisation",
        0,
        BLOCKS,
    )
    normalisation: str = setting(
        "frozen",
        "batch normalisation keeps its pretrained statistics (frozen) or learns them (live); goes by the weights",
        choices=NORMALISATIONS,
    )
    momentum: float = setting(0.9, **MOMENTUM)
    margin: float = setting(
        MARGIN, "around a face on each side, in training and when asked, as a share of its box's longer side", 0, 5
    )

    def __post_init__(self):
        check_settings(self)


class MaskClassifier(Detector):
    """MobileNetV2 with a small head."""

    name = "mask_classifier"
    Settings = MaskClassifierSettings
    preprocessing = "tf_rgb"
    normalisation_by_weights = True
    classifies = True
    published = ("imagenet",)

    def __init__(self, classes: dict[str, int], settings: MaskClassifierSettings):
        super().__init__(classes, settings)
        if len(classes) < 2:
            raise ValueError(f"a classifier of {', '.join(classes) or 'nothing'}; expected at least two classes")
        if settings.loss == "binary" and len(classes) != 2:
            raise ValueError(f"loss is 'binary' with the {len(classes)} classes {', '.join(classes)}; take categorical")
        if settings.class_weights and len(settings.class_weights) != len(classes):
            raise ValueError(f"class_weights are {settings.class_weights}, expected one for each of {list(classes)}")

    def scale(self, size_wh: tuple[int, int]) -> float:
        """See `Detector.scale`; a face is fitted into the input, to be stretched then."""
        return min(self.settings.image_width / size_wh[0], self.settings.image_height / size_wh[1])

    def batch(self, resized_rgb: list[np.ndarray]) -> np.ndarray:
        """See `Detector.batch`; faces are stretched to the input."""
        size_wh = self.canvas_wh([])
        stretched = [images.stretch(image, size_wh) for image in resized_rgb]
        return images.network_input(stretched, self.preprocessing, size_wh)

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """See `Detector.canvas_wh`."""
        return self.settings.image_width, self.settings.image_height

    def network(self, seed: int | None = None):
        """Build the training network: image in, logits ``(N, classes)``, or ``(N, 1)`` for the loss ``binary``, out.

        Random weights, the same for the same ``seed``. The backbone's layers have keras.applications' names, all
        others begin with ``classifier_``.
        """
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        chosen = self.settings
        inputs = keras.layers.Input((chosen.image_height, chosen.image_width, 3), name="image")
        features = mobilenet_v2_fpnlite.backbone(inputs, chosen.alpha, chosen.momentum).output
        pool = {"average": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[chosen.pooling]
        tensor = pool(name="classifier_pooling")(features)
        for number, units in enumerate([*chosen.dense, None]):
            if chosen.dropout:
                dropout_seed = ((seed or 0) + number) % 2**31
                tensor = replayed_dropout(chosen.dropout, dropout_seed, f"classifier_dropout_{number}")(tensor)
            if units:
                hidden = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"classifier_{number}")
                tensor = hidden(tensor)
        outputs = 1 if chosen.loss == "binary" else len(self.classes)
        logits = keras.layers.Dense(outputs, name="classifier_logits")(tensor)
        network = keras.Model(inputs, logits, name=self.name)
        self.freeze_backbone(network, frozen=False)  # freezes what the settings say
        return network

    def inference_network(self, network):
        """Turn the logits of ``network`` into probabilities ``(N, classes)``, sharing its weights."""
        keras = _keras.prepare()
        logits = keras.layers.Activation("linear", dtype="float32", name="classifier_float32")(network.output)
        if self.settings.loss == "categorical":
            probabilities = keras.layers.Softmax(dtype="float32", name="classifier_probabilities")(logits)
        else:
            second = keras.layers.Activation("sigmoid", dtype="float32", name="classifier_second")(logits)
            first = keras.layers.Rescaling(-1.0, 1.0, dtype="float32", name="classifier_first")(second)
            probabilities = keras.layers.Concatenate(name="classifier_probabilities")([first, second])
        return keras.Model(network.input, probabilities)

    def targets(self, boxes, labels, sizes_wh, canvas_wh: tuple[int, int]) -> dict:
        """Give ``label`` ``(N,)``, the class id of each image's first box, -1 where there is none."""
        return {"label": labels[:, 0]}

    def counts(self, batch: dict) -> dict:
        """Sum in the graph the weights of the images that have a class, by which the loss is divided."""
        import tensorflow as tf

        return {_LOSS: tf.reduce_sum(self._weights(batch["label"]))}

    def losses(self, outputs, batch: dict) -> dict:
        """Sum in the graph the cross-entropy of each image times the weight of its class."""
        import tensorflow as tf

        labels, logits = tf.maximum(batch["label"], 0), tf.cast(outputs, tf.float32)
        if self.settings.loss == "categorical":
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits[:, 0])
        return {_LOSS: tf.reduce_sum(each * self._weights(batch["label"]))}

    def _weights(self, labels):
        """How much each image counts, 0 where it has no class."""
        import tensorflow as tf

        each = tf.constant(self.settings.class_weights or (1.0,) * len(self.classes), tf.float32)
        return tf.gather(each, tf.maximum(labels, 0)) * tf.cast(labels >= 0, tf.float32)

    def freeze_backbone(self, network, frozen: bool) -> None:
        """Freeze the whole backbone (phase one), or let its last blocks learn (phase two)."""
        keras = _keras.prepare()
        live = self.settings.normalisation == "live"
        first = 0 if live else BLOCKS - self.settings.fine_tune_blocks
        block = 0
        for layer in network.layers:
            if layer.name.startswith("classifier_"):
                continue
            if numbered := re.match(r"block_(\d+)_", layer.name):  # as keras.applications names them
                block = int(numbered[1]) + 1
            elif layer.name.startswith("expanded_conv"):
                block = 1
            normalises = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not frozen and block >= first and (live or not normalises)

    def published_weights(self, name: str) -> Path:
        """See `Detector.published_weights`; ``imagenet`` is what keras.applications downloads, into the same place."""
        if name != "imagenet":
            return super().published_weights(name)
        return mobilenet_v2_fpnlite.imagenet_weights(float(self.settings.alpha))


def balanced_weights(labels: Iterable[str], classes: dict[str, int]) -> tuple[float, ...]:
    """Give the weights with which all classes count the same: images / (classes x images of the class), by id.

    As scikit-learn's ``balanced``, of King and Zeng, *Logistic Regression in Rare Events Data*, 2001.

    Raises:
        ValueError: a class has no image.
    """
    labels = list(labels)
    counts = {name: labels.count(name) for name in sorted(classes, key=classes.get)}
    if not all(counts.values()):
        raise ValueError(f"no image of {', '.join(name for name in counts if not counts[name])}; add some")
    return tuple(len(labels) / (len(classes) * count) for count in counts.values())


def replayed_dropout(rate: float, seed: int, name: str):
    """Make a layer that drops a share ``rate`` of its inputs in training, in a resumed run the same ones.

    Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html, in the form that Keras has it. But Keras draws
    from a state that is in no weights file; here the mask follows from the seed and a count of updates, a weight.
    """
    keras = _keras.prepare()
    import tensorflow as tf

    class ReplayedDropout(keras.layers.Layer):
        def __init__(self, rate: float, seed: int, **options):
            super().__init__(**options)
            self.rate, self.seed = rate, seed

        def build(self, shape):
            self.drawn = self.add_weight(
                name="drawn",
                dtype="float32",  # counts to 16 million, and averages of weights are made of it too
                initializer="zeros",
                trainable=False,
                experimental_autocast=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            super().build(shape)

        def call(self, inputs, training=None):
            if not training:
                return inputs
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            count = tf.cast(self.drawn, tf.int32)
            seed = tf.random.experimental.stateless_fold_in(tf.stack([self.seed, count]), replica)
            draws = tf.random.stateless_uniform(tf.shape(inputs), seed)
            self.drawn.assign_add(1.0)
            return inputs * tf.cast(draws >= self.rate, inputs.dtype) / (1 - self.rate)

        def get_config(self):
            return {**super().get_config(), "rate": self.rate, "seed": self.seed}

    return ReplayedDropout(rate, seed, name=name)
