"""The network of SSD MobileNet V2 FPNLite: keras.applications' backbone, a light pyramid, and one head for all levels.

The structure is that of the TensorFlow 2 detection zoo's "SSD MobileNet V2 FPNLite 640x640"
(https://github.com/tensorflow/models, `research/object_detection`, configuration
``ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8``): MobileNetV2 (https://arxiv.org/abs/1801.04381) under a pyramid
(https://arxiv.org/abs/1612.03144) and RetinaNet's head (https://arxiv.org/abs/1708.02002), each convolution of them
cut into one within channels and one across them. It is put together by keras-retinanet's ``retinanet``.

With alpha 1 it has 2,598,116 parameters for 6 anchors at a place and 2 classes: 2,257,984 in the backbone, 252,800 in
the pyramid, 87,332 in the head.
"""

from pathlib import Path

from retinamask.detectors import _keras
from retinamask.detectors.starting_weights import WeightsError, downloaded_from

DEPTH = 128
LEVELS = ("P3", "P4", "P5", "P6", "P7")
TOWER_LAYERS = 4
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Widths of the backbone for which keras.applications has ImageNet weights."""
ALPHA_HELP = f"width of MobileNetV2; ImageNet weights: {', '.join(map(str, ALPHAS))}"
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
)

_STAGES = {"C3": "block_5_add", "C4": "block_12_add", "C5": "out_relu"}
_EPSILON = 1e-3  # of batch normalisation, in the zoo as in keras.applications
_CLASS_BIAS = -4.6  # a score of 0.01 to begin with


def build(class_count: int, anchor_count: int, alpha: float, momentum: float, regularisation: float):
    """Build the training network with random weights.

    Inputs are ``(N, height, width, 3)`` with sides divisible by 32. Layers of the backbone have keras.applications'
    names, all others begin with the level (``P3`` to ``P7``, ``C3`` and ``C4``) or with ``head_``, ``regression`` or
    ``classification``.

    Args:
        class_count, anchor_count: classes, and anchors at each place.
        alpha: width of the backbone.
        momentum: share of the old moving average that batch normalisation keeps.
        regularisation: the weight penalty is half of this times the sum of squares, as in the zoo; 0 for none.

    Returns:
        A tf-keras model with the outputs ``regression`` ``(N, anchors, 4)`` and ``classification``
        ``(N, anchors, class_count)`` of keras-retinanet. Its ``losses`` hold the weight penalties.
    """
    keras = _keras.prepare()
    from keras_retinanet.models.retinanet import retinanet

    layers = _Layers(momentum, regularisation)
    inputs = keras.layers.Input((None, None, 3), name="image")
    taken = _mobilenet_v2(inputs, alpha, layers)
    stages = {stage: taken.get_layer(name).output for stage, name in _STAGES.items()}
    head = _Head(layers, class_count, anchor_count)
    return retinanet(
        inputs,
        stages,
        class_count,
        num_anchors=anchor_count,
        create_pyramid_features=lambda stages, _: _pyramid(layers, stages),
        submodels=[("regression", head.boxes), ("classification", head.classes)],
        name="ssd_mobilenet_v2_fpnlite",
    )


def backbone(inputs, alpha: float, momentum: float):
    """Build MobileNetV2 alone, without a weight penalty: a tf-keras model on the tensor ``inputs``; see `build`."""
    return _mobilenet_v2(inputs, alpha, _Layers(momentum, regularisation=0))


def imagenet_weights(alpha: float) -> Path:
    """Give the file that keras.applications downloads for a width, in the same place, ~/.keras/models.

    Raises:
        WeightsError: there are none for that width, or no network connection.
    """
    if alpha not in ALPHAS:
        known = ", ".join(map(str, ALPHAS))
        raise WeightsError(f"ImageNet weights are published for alpha {known}, not for {alpha}")
    return downloaded_from(IMAGENET_URL.format(alpha=alpha), f"ImageNet weights for MobileNetV2, alpha {alpha}")


def _mobilenet_v2(inputs, alpha: float, layers: "_Layers"):
    applications = _keras.prepare().applications
    return applications.MobileNetV2(alpha=alpha, include_top=False, weights=None, input_tensor=inputs, layers=layers)


class _Layers:
    """Keras's layers as this network has them; in the form in which keras.applications takes layers from a caller.

    The weight penalty is on what the zoo penalises: all kernels of the backbone, the 1x1 convolutions of the pyramid
    and the part within channels of the separable convolutions, but not their part across channels and not the two
    that predict. Kernels are drawn as He et al. say (https://arxiv.org/abs/1502.01852), counting for a convolution
    within channels only the nine inputs that it sees: the zoo's 0.01 is for a backbone that has been trained, and
    with Keras's own choice hardly anything is left of the signal where nine inputs are counted as thousands.
    """

    def __init__(self, momentum: float, regularisation: float):
        self._keras = _keras.prepare()
        self._momentum, self._regularisation = momentum, regularisation

    def __getattr__(self, name: str):
        return getattr(self._keras.layers, name)

    def Conv2D(self, filters: int, **options):  # noqa: N802, the name that keras.applications calls
        drawn = {"kernel_initializer": self._keras.initializers.HeNormal(), "kernel_regularizer": self._penalty()}
        return self._keras.layers.Conv2D(filters, **drawn, **options)

    def DepthwiseConv2D(self, **options):  # noqa: N802
        drawn = {"depthwise_initializer": self._normal((2 / 9) ** 0.5), "depthwise_regularizer": self._penalty()}
        return self._keras.layers.DepthwiseConv2D(**drawn, **options)

    def BatchNormalization(self, name: str, **_):  # noqa: N802
        return self._keras.layers.BatchNormalization(momentum=self._momentum, epsilon=_EPSILON, name=name)

    def separable(self, name: str, strides: int = 1):
        """Make a 3x3 convolution to `DEPTH` channels, to be normalised."""
        return self._keras.layers.SeparableConv2D(
            DEPTH,
            3,
            strides,
            padding="same",
            use_bias=False,
            depthwise_initializer=self._normal(1 / 3),
            pointwise_initializer=self._keras.initializers.HeNormal(),
            depthwise_regularizer=self._penalty(),
            name=name,
        )

    def predicting(self, name: str, filters: int, bias: float):
        """Make the last convolution of a head, which begins with ``bias`` and hardly anything else."""
        return self._keras.layers.SeparableConv2D(
            filters,
            3,
            padding="same",
            depthwise_initializer=self._normal(1 / 3),
            pointwise_initializer=self._normal(0.01),
            bias_initializer=self._keras.initializers.Constant(bias),
            name=name,
        )

    def _normal(self, deviation: float):
        return self._keras.initializers.RandomNormal(stddev=deviation)

    def _penalty(self):
        return self._keras.regularizers.L2(self._regularisation / 2) if self._regularisation else None


def _pyramid(layers: _Layers, stages: dict) -> dict:
    """P3 to P7 by name; unlike in RetinaNet a level passes on what it shows, and P6 is made from P5."""
    from keras_retinanet.layers import UpsampleLike

    levels = {"P5": layers.Conv2D(DEPTH, kernel_size=1, name="P5")(stages["C5"])}
    for level, stage, above in (("P4", "C4", "P5"), ("P3", "C3", "P4")):
        reduced = layers.Conv2D(DEPTH, kernel_size=1, name=f"{stage}_reduced")(stages[stage])
        enlarged = UpsampleLike(name=f"{above}_upsampled")([levels[above], reduced])
        merged = layers.Add(name=f"{level}_merged")([enlarged, reduced])
        levels[level] = _normalised(layers, layers.separable(f"{level}_conv")(merged), f"{level}_norm", level)
    for level, below in (("P6", "P5"), ("P7", "P6")):
        halved = layers.separable(f"{level}_conv", strides=2)(levels[below])
        levels[level] = _normalised(layers, halved, f"{level}_norm", level)
    return levels


def _normalised(layers: _Layers, tensor, norm: str, relu: str):
    return layers.ReLU(6.0, name=relu)(layers.BatchNormalization(norm)(tensor))


class _Head:
    """Four convolutions and two that predict, the same for every level, with a normalisation for each level.

    What differs from level to level is how large the numbers are: with one normalisation for all of them the moving
    averages fit no level, and a network that trains well finds nothing.
    """

    def __init__(self, layers: _Layers, class_count: int, anchor_count: int):
        self._layers, self._towers = layers, {}
        self._convolutions = [layers.separable(f"head_conv_{number}") for number in range(TOWER_LAYERS)]
        self._boxes = layers.predicting("head_boxes", 4 * anchor_count, 0.0)
        self._classes = layers.predicting("head_classes", class_count * anchor_count, _CLASS_BIAS)
        self._each_box = layers.Reshape((-1, 4), name="head_each_box")
        self._each_class = layers.Reshape((-1, class_count), name="head_each_class")
        self._sigmoid = layers.Activation("sigmoid", name="head_sigmoid")

    def boxes(self, feature):
        """Offsets ``(N, anchors of the level, 4)`` in the units of keras-retinanet."""
        return self._each_box(self._boxes(self._tower(feature)))

    def classes(self, feature):
        """Scores ``(N, anchors of the level, classes)``."""
        return self._sigmoid(self._each_class(self._classes(self._tower(feature))))

    def _tower(self, feature):
        """The features that both predict from; levels come in the order of `LEVELS`, for boxes first."""
        if id(feature) not in self._towers:
            level = LEVELS[len(self._towers)]
            tensor = feature
            for number, convolution in enumerate(self._convolutions):
                tensor = _normalised(
                    self._layers, convolution(tensor), f"head_norm_{number}_{level}", f"head_relu_{number}_{level}"
                )
            self._towers[id(feature)] = feature, tensor  # the feature too, so that its id stays its own
        return self._towers[id(feature)][1]
