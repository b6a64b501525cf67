"""The network that learns, its optimizer, its averages and its step: all state that training changes."""

import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retinamask.detectors import _keras, starting_weights
from retinamask.training import distribution, input_pipeline, precision
from retinamask.training.settings import TrainingError, TrainingSettings

REGULARISATION = "regularization_loss"
UNDECAYED = ("bias", "gamma", "beta")  # last part of the names of what weight decay leaves alone


class Learner:
    """A network ready to be trained.

    Args:
        detector, settings: what to train, and how.
        strategy: from `retinamask.training.distribution.strategy`.
        used: the precision, ``float32``, ``bfloat16`` or ``float16``.
        weights: see `retinamask.detectors.starting_weights.start`; None if state will be put in.

    Attributes:
        loaded: what is known of the starting weights, for the record.
    """

    def __init__(self, detector, settings: TrainingSettings, strategy, used: str, weights: str | None = None):
        import tensorflow as tf

        self.detector, self.settings, self._strategy = detector, settings, strategy
        with strategy.scope(), precision.building(used):
            self.network = detector.network(settings.seed)
            self.loaded: dict[str, Any] = starting_weights.start(self.network, detector, weights) if weights else {}
            self.optimizer = Optimizer(settings, used)
            self.optimizer.build(self.network.trainable_variables)
            # Exponential moving averages of all variables, those of the batch normalisation too.
            self._averaged = list(self.network.weights) if settings.ema else []
            averages = self.network.get_weights() if settings.ema else []
            self._averages = [tf.Variable(value, trainable=False) for value in averages]
        plain = distribution.is_default(strategy) and precision.policy(used) == "float32" and not settings.ema
        self._twin = None if plain else detector.network(settings.seed)
        self._is_frozen = False
        self._trace()

    def step(self, batch, number: int) -> dict[str, Any]:
        """Update the network with an element of the (distributed) data set, after ``number`` other updates.

        Give scalars by name: each loss, divided by its count in the whole batch, and ``total_loss``.
        """
        import tensorflow as tf

        kept = min(self.settings.ema, (1 + number) / (10 + number))  # so that the random start is soon forgotten
        return self._update(batch, tf.constant(kept, tf.float32))

    def _trace(self) -> None:
        """Build the graph of a step; anew after layers were frozen or unfrozen.

        A loss is divided by what its detector counts (the positive anchors) in the whole batch, over all devices and
        parts, so that the step means the same however the batch is divided; keras-retinanet's own losses divide by
        what each device sees.
        """
        import tensorflow as tf

        detector, network, optimizer, strategy = self.detector, self.network, self.optimizer, self._strategy
        variables, parts = network.trainable_variables, self.settings.accumulate

        @tf.function
        def of_part(part, counts):
            with tf.GradientTape() as tape:
                outputs = network(detector.network_input(part["images"], part["sizes_wh"]), training=True)
                losses = {name: total / counts[name] for name, total in detector.losses(outputs, part).items()}
                penalty = tf.add_n(network.losses or [tf.zeros(())])  # of which every part of every device adds a share
                losses[REGULARISATION] = tf.cast(penalty, tf.float32) / (strategy.num_replicas_in_sync * parts)
                scaled = optimizer.scaled(tf.add_n(list(losses.values())))
            gradients = tape.gradient(scaled, variables, unconnected_gradients="zero")
            return optimizer.unscaled(gradients), losses

        def on_device(batch):
            """Update this device's copy and give its share of each loss; part after part, to save memory."""
            device = tf.distribute.get_replica_context()
            counted = device.all_reduce("SUM", detector.counts(batch))
            counts = {name: tf.maximum(1.0, count) for name, count in counted.items()}
            if parts == 1:
                gradients, losses = of_part(batch, counts)
            else:
                size = batch["images"].shape[0] // parts

                def add_part(index, *sums):
                    part = {name: value[index * size : (index + 1) * size] for name, value in batch.items()}
                    return index + 1, *tf.nest.map_structure(tf.add, sums, of_part(part, counts))

                nothing = [tf.zeros(variable.shape) for variable in variables]
                start = tf.constant(0), nothing, dict.fromkeys([*counts, REGULARISATION], tf.zeros(()))
                every = tf.while_loop(lambda index, *_: index < parts, add_part, start, parallel_iterations=1)
                _, gradients, losses = every
            optimizer.apply(device.all_reduce("SUM", gradients), variables)
            return losses

        def update(batch, kept):
            def move(average, value):
                average.assign_sub((1 - kept) * (average - value))

            losses = strategy.run(on_device, args=(batch,))
            losses = {name: strategy.reduce("SUM", value, axis=None) for name, value in losses.items()}
            for average, variable in zip(self._averages, self._averaged, strict=True):
                strategy.extended.update(average, move, args=(variable,))
            return {**losses, "total_loss": tf.add_n(list(losses.values()))}

        self._update = tf.function(update, reduce_retracing=True)  # one graph for input of all sizes

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone; nothing happens if it is so already."""
        if frozen != self._is_frozen:
            self.detector.freeze_backbone(self.network, frozen)
            self._trace()
            self._is_frozen = frozen

    def shown(self):
        """Give the network to judge and to keep: in float32, on one device, of the averaged weights if there are any.

        With several workers all must call this together. It is the same object every time.
        """
        if self._twin is None:
            return self.network
        averages = [average.numpy() for average in self._averages]
        self._twin.set_weights(averages or self.network.get_weights())
        return self._twin

    def arrays(self) -> dict[str, np.ndarray]:
        """Give all state by name; with several workers all must call this together."""
        return {name: np.asarray(variable.numpy()) for name, variable in self._state().items()}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Put back what `arrays` gave."""
        state = self._state()
        if arrays.keys() != state.keys():
            raise TrainingError(
                f"the checkpoint holds {len(arrays)} variables, {len(state)} are expected; it was written by another "
                "version, start the run anew"
            )
        for name, variable in state.items():
            variable.assign(arrays[name])

    def _state(self) -> dict[str, Any]:
        parts = {"network": self.network.weights, "optimizer": self.optimizer.variables, "averages": self._averages}
        return {f"{part}/{number:04d}": each for part, held in parts.items() for number, each in enumerate(held)}


def step_timers(examples, settings: TrainingSettings, strategy) -> dict[str, Callable[[], float]]:
    """Give for float32 and bfloat16 a function that takes the seconds of one step of a network that goes nowhere."""
    batch = next(iter(input_pipeline.dealt_out(strategy, examples, settings, 0)))
    learners = {}
    for name in ("float32", "bfloat16"):
        with precision.computing(name):
            learners[name] = Learner(examples.detector, settings, strategy, name)

    def seconds(name: str) -> float:
        with precision.computing(name):
            started = time.perf_counter()
            learners[name].step(batch, 0)["total_loss"].numpy()
            return time.perf_counter() - started

    return {name: lambda name=name: seconds(name) for name in learners}


class Optimizer:
    """Adam, AdamW or SGD, made and built in the scope of the strategy that made the network's variables.

    Underneath are tf-keras's "legacy" classes, whose fused update makes a step of a RetinaNet a seventh faster on
    processors than the newer ones. In float16, losses are scaled up before the gradients are computed, by a factor that
    halves when a gradient overflows (that update is left out) and doubles after 2000 updates that went well
    (Micikevicius et al., https://arxiv.org/abs/1710.03740); otherwise `scaled` and `unscaled` change nothing.

    Attributes:
        variables: all state, in a fixed order: number of updates, moments, and in float16 the scale of the loss and
            the updates since it changed.
    """

    def __init__(self, settings: TrainingSettings, precision: str):
        self.variables: list = []
        self._gradient_clip = settings.gradient_clip
        legacy = _keras.prepare().optimizers.legacy
        if settings.optimizer == "sgd":
            self._inner = legacy.SGD(settings.learning_rate, momentum=settings.momentum)
        elif settings.optimizer == "adamw":
            self._inner = _decaying_adam()(settings.learning_rate, settings.weight_decay)
        else:
            self._inner = legacy.Adam(settings.learning_rate)
        self._scaler = None
        if precision == "float16":
            self._scaler = _keras.prepare().mixed_precision.LossScaleOptimizer(self._inner)

    def build(self, variables: Sequence) -> None:
        """Make the state of all variables that may ever be trained; each `apply` may then bring a part of them."""
        import tensorflow as tf

        with tf.init_scope():
            self._inner._create_all_weights(list(variables))
        scale = self._scaler and self._scaler._loss_scale  # Keras shows the number, not the variable
        self.variables = [*self._inner.variables(), *([scale.current_loss_scale, scale.counter] if scale else [])]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next updates; called between steps, not in a graph."""
        self._inner.learning_rate.assign(rate)

    def scaled(self, loss):
        """Give the loss of which the gradients are to be computed."""
        return self._scaler.get_scaled_loss(loss) if self._scaler else loss

    def unscaled(self, gradients: Sequence) -> list:
        """Turn gradients of the scaled loss into those of the loss; None stays."""
        return self._scaler.get_unscaled_gradients(gradients) if self._scaler else list(gradients)

    def apply(self, gradients: Sequence, variables: Sequence) -> None:
        """Update the variables in the replica context of a strategy; a gradient None leaves its variable as it is.

        Gradients are summed over replicas, and unscaled. When the norm of all of them together is above
        ``gradient_clip`` they are shortened to it (Pascanu et al., https://arxiv.org/abs/1211.5063).
        """
        import tensorflow as tf

        if self._gradient_clip > 0:
            gradients, _ = tf.clip_by_global_norm(list(gradients), self._gradient_clip)
        pairs = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        (self._scaler or self._inner).apply_gradients(pairs, experimental_aggregate_gradients=False)


@functools.cache
def _decaying_adam():
    """Adam with decoupled weight decay."""
    adam = _keras.prepare().optimizers.legacy.Adam

    class DecayingAdam(adam):
        """As `keras.optimizers.AdamW`: weights shrink by ``weight_decay`` x learning rate before each update."""

        def __init__(self, learning_rate: float, weight_decay: float):
            super().__init__(learning_rate, name="AdamW")
            self._weight_decay = weight_decay

        def _resource_apply_dense(self, gradient, variable, apply_state=None):
            if decays(variable):
                rate = apply_state[variable.device, variable.dtype.base_dtype]["lr_t"]
                variable.assign_sub(variable * (self._weight_decay * rate))
            return super()._resource_apply_dense(gradient, variable, apply_state)

    return DecayingAdam


def decays(variable) -> bool:
    """Say whether weight decay is for this variable: not for biases and the scales and shifts of normalisation."""
    name = re.sub(r"(/replica_\d+)?:\d+$", "", variable.name)  # a strategy names its copies so
    return name.split("/")[-1] not in UNDECAYED
