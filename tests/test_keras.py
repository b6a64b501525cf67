"""Keras 2 for keras-retinanet: in which order TensorFlow is imported, and the learning rate."""

import os
import subprocess
import sys

import pytest

from retinamask.detectors import _keras


def run_python(code: str) -> subprocess.CompletedProcess:
    """Run ``code`` in a fresh Python that does not inherit the choice of Keras made in this one."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_importing_the_package_leaves_tensorflow_alone():
    done = run_python(
        "import sys, retinamask.cli, retinamask.detectors, retinamask.inference.detect, retinamask.training.train\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'tf_keras')))"
    )
    assert done.returncode == 0, done.stderr


def test_tensorflow_first_is_fine_and_the_users_keras_stays_keras_3():
    done = run_python(
        "import tensorflow\n"
        "from retinamask.detectors._keras import prepare\n"
        "tf_keras = prepare()\n"
        "import keras, keras.layers, keras_resnet.models, sys\n"
        "assert keras.__version__.startswith('3.'), keras.__version__\n"
        "assert issubclass(keras_resnet.models.ResNet50, tf_keras.Model)\n"
        "assert prepare() is tf_keras\n"
    )
    assert done.returncode == 0, done.stderr


def test_keras_3_first_is_left_as_it_was():
    done = run_python(
        "import keras, keras.layers\n"
        "layer = keras.layers.Dense\n"
        "from retinamask.detectors._keras import prepare\n"
        "prepare()\n"
        "import keras.layers as again\n"
        "assert again.Dense is layer and keras.layers.Dense is layer\n"
    )
    assert done.returncode == 0, done.stderr


def test_tf_keras_touched_as_keras_3_says_what_to_do():
    done = run_python(
        "import tensorflow\n"
        "tensorflow.keras.layers.Dense(1)\n"
        "from retinamask.detectors._keras import KerasSetupError, prepare\n"
        "try:\n"
        "    prepare()\n"
        "except KerasSetupError as error:\n"
        "    print(error)\n"
    )
    assert "already used as Keras 3" in done.stdout, done.stderr
    assert "Restart the kernel" in done.stdout


@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop", "AdamW"])
def test_lr_is_the_learning_rate(name):
    optimizers = _keras.prepare().optimizers
    assert float(getattr(optimizers, name)(lr=1e-5).learning_rate) == pytest.approx(1e-5)
    assert float(getattr(optimizers, name)(learning_rate=2e-5).learning_rate) == pytest.approx(2e-5)


def test_the_optimizer_of_tf_keras_and_of_tensorflow_is_the_same():
    _keras.prepare()
    import tensorflow

    assert float(tensorflow.keras.optimizers.Adam(lr=1e-5).learning_rate) == pytest.approx(1e-5)


def test_both_names_of_the_learning_rate_are_refused():
    with pytest.raises(ValueError, match="give one of them"):
        _keras.prepare().optimizers.Adam(lr=1e-5, learning_rate=1e-4)


def test_the_device_is_named():
    assert "computes on" in _keras.device_line()
