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

    def pipeline(shard: tuple[int, int], parts: int):
        chosen = settings.augmentation, settings.seed, first_step, settings.balance
        return input_pipeline.batches(examples, settings.batch_size, *chosen, shard, parts)

    if distribution.is_default(strategy):
        return pipeline((0, 1), 1)

    def of_worker(context):
        workers = context.num_input_pipelines
        return _endless(pipeline((context.input_pipeline_id, workers), strategy.num_replicas_in_sync // workers))

    return strategy.distribute_datasets_from_function(of_worker)


def _endless(data):
    """The same, known not to end: else all workers would ask each other before every batch whether one is left."""
    import tensorflow

    return data.apply(tensorflow.data.experimental.assert_cardinality(tensorflow.data.INFINITE_CARDINALITY))
