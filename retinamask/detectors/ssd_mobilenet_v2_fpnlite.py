"""SSD MobileNet V2 FPNLite as the TensorFlow 2 detection zoo has it, trained here; it says what differs from RetinaNet.

The published recipe is ``ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8``. Its trainer, the TensorFlow Object Detection
API, is unmaintained. Network, anchors, losses and weight penalty are those of its configuration; targets, decoding and
training are ours and those of keras-retinanet. So these differ from the original:

- An image keeps its proportions and is padded; there it is stretched into the square.
- Boxes are learnt as offsets of their edges in fifths of the anchor, not as centre and logarithm of the size.
- An anchor is to find a box from an overlap of 0.5 on, and is ignored above 0.4. There nothing is ignored, and a box
  that no anchor overlaps so much still gets the best one.
- At sizes that 128 does not divide, the original's grids of P6 or P7 start at the edge of the image, ours at half a
  stride from it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retinamask.detectors import _keras, mobilenet_v2_fpnlite, zoo_checkpoint
from retinamask.detectors.retinanet import MOMENTUM, NORMALISATIONS, RetinaNet
from retinamask.detectors.starting_weights import Loaded, WeightsError, load_by_name
from retinamask.setting import check_settings, setting

LOCALIZATIONS = {"huber": 1.0, "smooth_l1": 3.0}
"""Losses of the offsets, and the sigma with which keras-retinanet's smooth L1 is that loss.

``huber`` is the zoo's: a parabola below 1, that is a fifth of the anchor's side; ``smooth_l1`` is keras-retinanet's
own, a line from a ninth of that on.
"""

ZOO_URL = (
    "http://download.tensorflow.org/models/object_detection/tf2/20200711/"
    "ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8.tar.gz"
)

_CODE_SIZE = 4  # numbers that say where a box is; the zoo divides the localization loss by it


@dataclass(frozen=True)
class SSDMobileNetV2FPNLiteSettings:
    """All that is needed, with the classes, to build the same network again.

    The zoo has image sizes of 320 and 640, and a momentum of 0.997, for 50,000 steps. On photographs, from ImageNet
    weights, live normalisation learnt far faster: AP50 0.94 against 0.57 after 400 updates.
    """

    image_size: int = setting(640, "images are fitted into a square of this side, a multiple of 32 pixels", 64, 4096)
    alpha: float = setting(1.0, mobilenet_v2_fpnlite.ALPHA_HELP, 0.1, 4)
    normalisation: str = setting(
        "live", "batch normalisation of the backbone; frozen is for batches of one or two", choices=NORMALISATIONS
    )
    momentum: float = setting(0.9, **MOMENTUM)
    localization: str = setting("huber", "loss of the offsets", choices=tuple(LOCALIZATIONS))
    regularisation: float = setting(4e-5, "half of it times the sum of squares is the weight penalty", 0, 0.9999)
    # in the zoo's order; a size is the zoo's anchor scale of 4 times the stride
    ratios: tuple[float, ...] = setting((1.0, 0.5, 2.0), "height / width of the anchors at a place", 0.01, 100)
    scales: tuple[float, ...] = setting((1.0, 2**0.5), "relative sizes of them", 0.01, 100)
    sizes: tuple[int, ...] = setting((32, 64, 128, 256, 512), "anchor sizes of the levels P3 to P7 in pixels", 1)
    strides: tuple[int, ...] = setting((8, 16, 32, 64, 128), "strides of the levels in pixels", 1)
    max_side: ClassVar[int] = 0  # RetinaNet's other way of resizing is not for this network

    def __post_init__(self):
        check_settings(self)
        if self.image_size % 32:
            raise ValueError(f"image_size is {self.image_size}, expected a multiple of 32")


class SSDMobileNetV2FPNLite(RetinaNet):
    """The zoo's network on keras-retinanet's anchors, losses and decoding."""

    name = "ssd_mobilenet_v2_fpnlite"
    Settings = SSDMobileNetV2FPNLiteSettings
    normalisation_by_weights = False
    published = ("imagenet",)
    weight_files = "an .h5 file, or a checkpoint of TensorFlow's detection zoo"
    preprocessing = "tf_rgb"
    own_layers = re.compile(r"C[34]_reduced|P[3-7](_|$)|head_|regression|classification")

    @property
    def sigma(self) -> float:
        """Of smooth L1, see `RetinaNet`."""
        return LOCALIZATIONS[self.settings.localization]

    def network(self, seed: int | None = None):
        """See `RetinaNet.network`; the weights are drawn so that training from nothing works."""
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        chosen = self.settings
        anchor_count = len(chosen.ratios) * len(chosen.scales)
        network = mobilenet_v2_fpnlite.build(
            len(self.classes), anchor_count, chosen.alpha, chosen.momentum, chosen.regularisation
        )
        self.freeze_backbone(network, frozen=False)  # freezes normalisation where the settings say so
        return network

    def losses(self, outputs, batch: dict) -> dict:
        """See `RetinaNet.losses`; as in the zoo, the offsets count for a quarter: one part for each of the four."""
        summed = super().losses(outputs, batch)
        return {**summed, "localization_loss": summed["localization_loss"] / _CODE_SIZE}

    def published_weights(self, name: str) -> Path:
        """See `Detector.published_weights`; ``imagenet`` is what keras.applications downloads, into the same place."""
        if name != "imagenet":
            raise WeightsError(
                f"the COCO weights are a checkpoint in an archive; unpack {ZOO_URL} and give the path "
                "<where>/checkpoint/ckpt-0 as weights"
            )
        return mobilenet_v2_fpnlite.imagenet_weights(float(self.settings.alpha))

    def load_file(self, network, path: Path) -> Loaded:
        """See `Detector.load_file`: an ``.h5``, of a backbone alone too, or a checkpoint of the TensorFlow 2 zoo."""
        checkpoint = zoo_checkpoint.prefix_of(path)
        return zoo_checkpoint.load(network, checkpoint) if checkpoint else load_by_name(network, path)
