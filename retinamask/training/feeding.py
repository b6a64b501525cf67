"""Batches for each device of a strategy, out of the one input pipeline.

Between `input_pipeline` and `loop`.
"""

from retinamask.training import distribution, input_pipeline
from retinamask.training.examples import Examples
from retinamask.training.settings import TrainingSettings


def batches(strategy, examples: Examples, settings: TrainingSettings, first_step: int):
    """An endless data set whose elements are global batches, dealt out to the devices of ``strategy``.

    Every worker knows the order of the whole run and takes its own part of each batch, each of its devices a part
    of that; so the batches are the same for any number of devices.
    """

    def of_worker(worker: int, workers: int):
        return input_pipeline.batches(
            examples,
            settings.batch_size,
            settings.augmentation,
            settings.seed,
            first_step,
            settings.balance,
            shard=(worker, workers),
        )

    if distribution.is_default(strategy):
        return of_worker(0, 1)

    def of_context(context):
        devices = strategy.num_replicas_in_sync // context.num_input_pipelines
        return _dealt(of_worker(context.input_pipeline_id, context.num_input_pipelines), devices)

    return strategy.distribute_datasets_from_function(of_context)


def _dealt(data, devices: int):
    """Each batch cut into one element for each device of this worker."""
    import tensorflow

    if devices == 1:
        return _endless(data)

    def cut(batch):
        parts = {name: tensorflow.stack(tensorflow.split(value, devices)) for name, value in batch.items()}
        return tensorflow.data.Dataset.from_tensor_slices(parts)

    return _endless(data.flat_map(cut))


def _endless(data):
    """The same, known not to end: else all workers would ask each other before every batch whether one is left."""
    import tensorflow

    return data.apply(tensorflow.data.experimental.assert_cardinality(tensorflow.data.INFINITE_CARDINALITY))
