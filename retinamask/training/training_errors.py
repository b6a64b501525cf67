"""Errors from outside training, of memory, disk or files, as messages that say what to do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset import files
from retinamask.training.settings import TrainingError, TrainingSettings

_NO_RECORD = "Dataset was empty"  # what TensorFlow says of a place after a file's end


@contextlib.contextmanager
def explained(settings: TrainingSettings, stem: Path | None = None) -> Iterator[None]:
    """Turn what runs out or vanishes within this block, memory, disk, decoded images, into a `TrainingError`.

    ``stem`` is that of the run whose snapshots and checkpoints stay; None where there are none.
    """
    import tensorflow

    lost = tensorflow.errors
    try:
        yield
    except (lost.DataLossError, lost.NotFoundError, lost.InvalidArgumentError) as error:
        if isinstance(error, lost.InvalidArgumentError) and _NO_RECORD not in str(error):
            raise
        raise TrainingError(
            "the file of decoded images was damaged or removed while it was in use; resume, and it is made anew "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    except (tensorflow.errors.ResourceExhaustedError, MemoryError, OSError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if files.is_full(error) or "No space left on device" in said:
            what = "the disk is full; free space, then resume"
        elif isinstance(error, OSError):
            raise
        else:
            part = settings.batch_size // settings.accumulate
            what = f"a part of {part} images does not fit into memory; {_smaller(settings)}, or cache='file'"
        kept = f". The last good snapshot and checkpoint of {stem} are kept" if stem else ""
        raise TrainingError(f"{what}{kept} ({said})") from error


def _smaller(settings: TrainingSettings) -> str:
    """A way to take less memory: more parts, as long as the batch divides into them."""
    more = range(settings.accumulate + 1, settings.batch_size + 1)
    parts = next((parts for parts in more if settings.batch_size % parts == 0), None)
    if parts is None:
        return "take a smaller image_size or batch_size"
    return f"cut the batch into more parts (accumulate={parts}), or take a smaller image_size or batch_size"
