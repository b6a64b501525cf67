"""One optimizer for every training: Adam, AdamW or SGD, with clipping, loss scaling and a state that can be kept.

Sits above `settings`; the training step applies its gradients here. Underneath are tf-keras's "legacy" classes: their
update of a variable is one fused operation, with which a step of a whole RetinaNet is a seventh faster on processors
than with the newer classes.
"""

import functools
import re
from collections.abc import Sequence

from retinamask.detectors import _keras
from retinamask.training.settings import TrainingSettings

UNDECAYED = ("bias", "gamma", "beta")  # last part of the names of what weight decay leaves alone


class Optimizer:
    """An optimizer with all of its state in ``variables``, which a checkpoint keeps and puts back.

    Make it, build it and set its state in the scope of the strategy that made the network's variables. In float16,
    losses are scaled up before the gradients are computed, by a factor that halves when a gradient overflows (that
    update is left out) and doubles after 2000 updates that went well (Micikevicius et al.,
    https://arxiv.org/abs/1710.03740); otherwise `scaled` and `unscaled` change nothing.

    Attributes:
        variables: the state in a fixed order: number of updates, moments, and in float16 the scale of the loss and
            the updates since it changed.
    """

    def __init__(self, settings: TrainingSettings, precision: str):
        self.variables: list = []
        self._gradient_clip = settings.gradient_clip
        self._inner = _keras_optimizer(settings)
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
        """The learning rate of the next updates; called between steps, not in a graph."""
        self._inner.learning_rate.assign(rate)

    def scaled(self, loss):
        """The loss of which the gradients are to be computed."""
        return self._scaler.get_scaled_loss(loss) if self._scaler else loss

    def unscaled(self, gradients: Sequence) -> list:
        """Gradients of the scaled loss as those of the loss; None stays."""
        return self._scaler.get_unscaled_gradients(gradients) if self._scaler else list(gradients)

    def apply(self, gradients: Sequence, variables: Sequence) -> None:
        """One update.

        Called in the replica context of a strategy, outside any `tf.cond` or `tf.while_loop`. When the norm of all
        gradients together is above ``gradient_clip`` they are shortened to it (Pascanu et al.,
        https://arxiv.org/abs/1211.5063).

        Args:
            gradients: already summed over replicas, and unscaled; a None leaves its variable as it is.
            variables: those, of the built ones, that the gradients are for.
        """
        import tensorflow as tf

        if self._gradient_clip > 0:
            gradients, _ = tf.clip_by_global_norm(list(gradients), self._gradient_clip)
        pairs = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        (self._scaler or self._inner).apply_gradients(pairs, experimental_aggregate_gradients=False)


def _keras_optimizer(settings: TrainingSettings):
    legacy = _keras.prepare().optimizers.legacy
    if settings.optimizer == "sgd":
        return legacy.SGD(settings.learning_rate, momentum=settings.momentum)
    if settings.optimizer == "adamw":
        return _decaying_adam()(settings.learning_rate, settings.weight_decay)
    return legacy.Adam(settings.learning_rate)


@functools.cache
def _decaying_adam():
    """Adam with decoupled weight decay, a class that can only be made once Keras is there."""
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
    """Whether weight decay is for this variable: not for biases and the scales and shifts of normalisation."""
    name = re.sub(r"(/replica_\d+)?:\d+$", "", variable.name)  # a strategy names its copies so
    return name.split("/")[-1] not in UNDECAYED
