"""Face-mask detection with Keras-RetinaNet: what two notebooks share.

Five folders in the order of the data flow: `dataset`, `detectors`, `training`, `inference` and
`evaluation`. Importing the package is cheap; TensorFlow starts with the first network.
"""

__version__ = "0.1.0"
