"""What to do when training dies of something outside: said in a message, in place of TensorFlow's own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from retinamask.training.settings import TrainingError, TrainingSettings


@contextlib.contextmanager
def explained(settings: TrainingSettings, stem: Path) -> Iterator[None]:
    """Turn running out of memory, and the loss of decoded images, within this block into a `TrainingError`."""
    import tensorflow

    try:
        yield
    except (tensorflow.errors.DataLossError, tensorflow.errors.NotFoundError) as error:
        raise TrainingError(
            "the file of decoded images was damaged or removed while it was in use; resume, and it is made anew "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    except (tensorflow.errors.ResourceExhaustedError, MemoryError) as error:
        part = settings.batch_size // settings.accumulate
        raise TrainingError(
            f"a part of {part} images does not fit into memory; cut the batch into more parts (accumulate="
            f"{settings.accumulate * 2} trains the same), or take a smaller image_size or batch_size, or cache='file'. "
            f"The last good snapshot and checkpoint of {stem} are kept ({str(error).splitlines()[0][:200]})"
        ) from error
