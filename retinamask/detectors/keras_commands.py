"""keras-retinanet's own commands, run under today's TensorFlow.

Its users' old command lines work again, and it can be measured beside us. The code is keras-retinanet's, as
installed; whole models are looked through before it reads them (see `keras_files`).
"""

import contextlib
import importlib
import warnings
from collections.abc import Iterator

from retinamask.detectors import _keras, keras_files

COMMANDS = {
    "train": "keras_retinanet.bin.train",
    "evaluate": "keras_retinanet.bin.evaluate",
    "convert-model": "keras_retinanet.bin.convert_model",
    "debug": "keras_retinanet.bin.debug",
}


def run(command: str, arguments: list[str]) -> None:
    """Run one of keras-retinanet's commands with the arguments that it knows.

    Raises:
        ValueError: no such command, or a model that `keras_files.check` refuses.
    """
    if command not in COMMANDS:
        raise ValueError(f"keras-retinanet has no command {command!r}; it has: {', '.join(COMMANDS)}")
    _keras.prepare()
    with _checked_loading(), warnings.catch_warnings():
        # What a package of 2020 calls is deprecated today, which its user can do nothing about.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
        importlib.import_module(COMMANDS[command]).main(arguments)


@contextlib.contextmanager
def _checked_loading() -> Iterator[None]:
    """Within this block keras-retinanet's `load_model` reads only files that pass the check."""
    from keras_retinanet import models

    load_model = models.load_model

    def checked(filepath, *arguments, **options):
        keras_files.check(filepath)
        return load_model(filepath, *arguments, **options)

    models.load_model = checked
    try:
        yield
    finally:
        models.load_model = load_model
