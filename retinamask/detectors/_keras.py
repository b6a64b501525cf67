"""The only place that sets up Keras 2 (tf-keras) for keras-retinanet.

keras-retinanet 1.0.0 says ``from tensorflow import keras`` and its dependency keras-resnet 0.2.0
says ``import keras``. Both mean Keras 2. Today the first is Keras 3 unless ``TF_USE_LEGACY_KERAS``
is set before ``tf.keras`` is first touched, and the second is always Keras 3. `prepare` sets the
variable, lets keras-resnet see tf-keras under the name ``keras`` while it is being imported, and
puts ``sys.modules`` back, so that the user's own ``import keras`` stays Keras 3.

Every module that needs TensorFlow calls `prepare` first, inside a function: importing retinamask
never imports TensorFlow.
"""

import contextlib
import functools
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

# Everything below `keras` that keras-resnet and keras-retinanet name in an import statement.
_ALIASED = ("backend", "layers", "metrics", "models", "regularizers", "utils")


class KerasSetupError(RuntimeError, ValueError):
    """TensorFlow was already set up for Keras 3 in this process."""


def prepare() -> ModuleType:
    """Make keras-retinanet importable and return the ``tf_keras`` module.

    Cheap after the first call. Works whether TensorFlow was imported before or not.

    Raises:
        KerasSetupError: ``tf.keras`` was already used as Keras 3 in this process, which cannot be undone.
    """
    asked_for_keras_3 = os.environ.get("TF_USE_LEGACY_KERAS", "1") not in ("1", "true", "True")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    with _quiet_start():
        import tensorflow

        # `tf.keras` is resolved at first touch and then stays: this touch is either the first or tells.
        is_keras_2 = tensorflow.keras.layers.Layer.__module__.startswith("tf_keras")
    if not is_keras_2:
        why = "TF_USE_LEGACY_KERAS=0 was set and " if asked_for_keras_3 else ""
        raise KerasSetupError(
            f"{why}tf.keras was already used as Keras 3 in this process; keras-retinanet needs Keras 2. "
            "Restart the kernel and import retinamask's training or detection before anything touches tf.keras, "
            "or set TF_USE_LEGACY_KERAS=1 before starting Python."
        )
    import tf_keras

    if "keras_resnet" not in sys.modules:
        with _keras_means_tf_keras(tf_keras):
            importlib.import_module("keras_resnet.models")
    _accept_lr(tf_keras)
    return tf_keras


def device_line() -> str:
    """Say in one sentence which device TensorFlow computes on, for notebooks and logs."""
    prepare()
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if not gpus:
        return f"TensorFlow {tensorflow.__version__} computes on the CPU ({os.cpu_count()} cores); no GPU is visible."
    names = [tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    return f"TensorFlow {tensorflow.__version__} computes on {len(gpus)} GPU(s): {', '.join(names)}."


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Hold back what TensorFlow's libraries print when they start: a dozen lines that say that all is well.

    They write to the file descriptor, past Python. Should the start fail, everything held back is shown;
    with ``TF_CPP_MIN_LOG_LEVEL`` set nothing is held back.
    """
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
            import tensorflow

            tensorflow.config.list_physical_devices()
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _keras_means_tf_keras(tf_keras: ModuleType) -> Iterator[None]:
    """Within this block ``import keras`` gives tf-keras; afterwards what it gave before."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "keras"}
    for name in kept:
        del sys.modules[name]
    sys.modules["keras"] = tf_keras
    for name in _ALIASED:
        sys.modules[f"keras.{name}"] = importlib.import_module(f"tf_keras.{name}")
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
            del sys.modules[name]
        sys.modules.update(kept)


def _accept_lr(tf_keras: ModuleType) -> None:
    """Let every optimizer take ``lr=``, which tf-keras 2.21 otherwise drops with a log line.

    keras-retinanet's training command and most tutorials say ``Adam(lr=1e-5)``; without this the
    optimizer keeps its default of 0.001, a hundred times too high.
    """

    def accepting_lr(init):
        @functools.wraps(init)
        def accepting(self, *args, lr=None, **keywords):
            if lr is None:
                return init(self, *args, **keywords)
            if args or "learning_rate" in keywords:
                raise ValueError(f"{type(self).__name__} got lr={lr} and a learning_rate; give one of them")
            return init(self, learning_rate=lr, **keywords)

        accepting.accepts_lr = True
        return accepting

    base = tf_keras.optimizers.Optimizer
    for optimizer in vars(tf_keras.optimizers).values():
        is_one = isinstance(optimizer, type) and issubclass(optimizer, base) and optimizer is not base
        if is_one and not hasattr(optimizer.__init__, "accepts_lr"):
            optimizer.__init__ = accepting_lr(optimizer.__init__)
