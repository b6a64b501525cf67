"""Small and whole Darknet networks with weights that leave nothing at its default, for the tests of `darknet`."""

import numpy as np

from retinamask.detectors.darknet import cfg, network
from retinamask.detectors.darknet.template import yolov4_tiny_cfg

SMALL_CFG = """[net]
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[route]
layers=-1
groups=2
group_id=1

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=4
size=1
activation=leaky

[upsample]
stride=2

[route]
layers=-1,1

[convolutional]
filters=21
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58
classes=2
num=3
iou_loss=ciou
"""
"""Every kind of layer once; 8 * 3 * 9 + 4 * 8 = 248 numbers, 4 * 4 + 4 * 4 = 32, and 21 * 8 + 21 = 189."""


def described(levels: int, side: int = 416, classes: int = 3) -> cfg.Network:
    """YOLOv4-tiny's description."""
    return cfg.describe(yolov4_tiny_cfg(classes, side, levels))


def drawn(description: cfg.Network, seed: int = 0):
    """The network with every weight drawn, normalisation too, so that boxes stay about as large as anchors."""
    random = np.random.default_rng(seed)
    model = network.build(description, seed=seed)
    for layer in description.convolutions:
        if layer.batch_normalize:
            gamma, variance = random.uniform(0.5, 1.5, layer.filters), random.uniform(0.3, 2, layer.filters)
            beta, mean = random.normal(0, 0.3, (2, layer.filters))
            model.get_layer(f"norm_{layer.index:02d}").set_weights([gamma, beta, mean, variance])
        else:
            convolution = model.get_layer(f"conv_{layer.index:02d}")
            kernel, bias = convolution.get_weights()
            convolution.set_weights([random.normal(0, 0.006, kernel.shape), random.normal(0, 0.5, bias.shape)])
    return model
