"""Dropout that a resumed run repeats: the mask follows from a seed and a count of updates, which is a weight.

Below the detectors. Keras's own draws from a state that is in no weights file, so that a run that was killed and
resumed would end with other weights than one that was not.
"""

import functools

from retinamask.detectors import _keras


def replayed_dropout(rate: float, seed: int, name: str):
    """A tf-keras layer that drops a share ``rate`` of its inputs in training and enlarges the others to make up.

    Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html, in the form that Keras has it.
    """
    return _layer_class()(rate, seed, name=name)


@functools.cache
def _layer_class() -> type:
    """The class, made when TensorFlow is there."""
    keras = _keras.prepare()
    import tensorflow

    class ReplayedDropout(keras.layers.Layer):
        """See `replayed_dropout`."""

        def __init__(self, rate: float, seed: int, **options):
            super().__init__(**options)
            self.rate, self.seed = rate, seed

        def build(self, shape):
            self.drawn = self.add_weight(
                name="drawn",
                dtype="float32",  # counts to 16 million, and averages of weights are made of it too
                initializer="zeros",
                trainable=False,
                experimental_autocast=False,
                aggregation=tensorflow.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            super().build(shape)

        def call(self, inputs, training=None):
            if not training:
                return inputs
            replica = tensorflow.distribute.get_replica_context().replica_id_in_sync_group
            count = tensorflow.cast(self.drawn, tensorflow.int32)
            seed = tensorflow.random.experimental.stateless_fold_in(tensorflow.stack([self.seed, count]), replica)
            draws = tensorflow.random.stateless_uniform(tensorflow.shape(inputs), seed)
            self.drawn.assign_add(1.0)
            kept = tensorflow.cast(draws >= self.rate, inputs.dtype)
            return inputs * kept / (1 - self.rate)

        def get_config(self):
            return {**super().get_config(), "rate": self.rate, "seed": self.seed}

    return ReplayedDropout
