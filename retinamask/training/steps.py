"""One training step: the losses of a global batch, their gradient over all devices and parts, the update.

Below `train`, which repeats it. A loss is divided by what its detector counts (the positive anchors) in the
whole batch, over all devices and parts, so that the step means the same however the batch is dealt out;
keras-retinanet's own losses divide by what each device sees.
"""

from typing import Any

from retinamask.training.settings import TrainingSettings

REGULARISATION = "regularization_loss"


class TrainingStep:
    """A step that trains ``network`` on the batches of `input_pipeline`.

    Args:
        detector: gives ``network_input``, ``counts`` and ``losses`` in the graph.
        network: the training network, built in the scope of ``strategy``.
        optimizer: an `Optimizer`, built for all trainable variables of the network.
        settings: how to train.
        strategy: how devices share the work.
        averages: moving averages of the network's variables to keep, or None.
    """

    def __init__(self, detector, network, optimizer, settings: TrainingSettings, strategy, averages=None):
        self._detector, self._network, self._optimizer = detector, network, optimizer
        self._settings, self._strategy, self._averages = settings, strategy, averages
        self.trace()

    def trace(self) -> None:
        """Build the graph anew, after layers were frozen or unfrozen."""
        import tensorflow

        self._variables = self._network.trainable_variables
        self._part = tensorflow.function(self._part_gradients)
        # One graph for input of all sizes, where these change.
        self._step = tensorflow.function(self._update, reduce_retracing=True)
        self._gradients_alone = tensorflow.function(self._gradients, reduce_retracing=True)

    def __call__(self, batch, step: int) -> dict[str, Any]:
        """Update the network.

        Args:
            batch: an element of the (distributed) data set.
            step: number of updates before this one.

        Returns:
            Scalars by name: each loss, divided, and ``total_loss``.
        """
        import tensorflow

        kept = min(self._settings.ema, (1 + step) / (10 + step))  # so that the random start is soon forgotten
        return self._step(batch, tensorflow.constant(kept, tensorflow.float32))

    def gradients(self, batch):
        """Compute total loss and gradients without an update, to measure how long they take."""
        return self._gradients_alone(batch)

    def _update(self, batch, kept) -> dict[str, Any]:
        """In the graph: one update on every device, then the averages."""
        import tensorflow

        def on_device(share):
            gradients, losses = self._device_gradients(share)
            self._optimizer.apply(gradients, self._variables)
            return losses

        losses = self._strategy.run(on_device, args=(batch,))
        losses = {name: self._strategy.reduce("SUM", value, axis=None) for name, value in losses.items()}
        if self._averages is not None:
            self._averages.update(self._strategy, kept)
        return {**losses, "total_loss": tensorflow.add_n(list(losses.values()))}

    def _gradients(self, batch):
        import tensorflow

        gradients, losses = self._strategy.run(self._device_gradients, args=(batch,))
        losses = [self._strategy.reduce("SUM", value, axis=None) for value in losses.values()]
        return tensorflow.add_n(losses), gradients

    def _device_gradients(self, batch):
        """Gradients of the whole global batch, and this device's share of each loss; part after part.

        Each part's activations are gone before the next begins.
        """
        import tensorflow

        device = tensorflow.distribute.get_replica_context()
        counted = device.all_reduce("SUM", self._detector.counts(batch))
        counts = {name: tensorflow.maximum(1.0, count) for name, count in counted.items()}
        parts = self._settings.accumulate
        size = batch["images"].shape[0] // parts if parts > 1 else 0

        def add_part(index, *sums):
            part = {name: value[index * size : (index + 1) * size] for name, value in batch.items()}
            return index + 1, *tensorflow.nest.map_structure(tensorflow.add, sums, self._part(part, counts))

        if parts == 1:
            gradients, losses = self._part(batch, counts)
        else:
            nothing = [tensorflow.zeros(variable.shape) for variable in self._variables]
            none_lost = dict.fromkeys([*counts, REGULARISATION], tensorflow.zeros(()))
            start = (tensorflow.constant(0), nothing, none_lost)
            _, gradients, losses = tensorflow.while_loop(
                lambda index, *_: index < parts, add_part, start, parallel_iterations=1
            )
        return device.all_reduce("SUM", gradients), losses

    def _part_gradients(self, part, counts):
        """Gradients and losses of one part on one device, each loss divided by its count."""
        import tensorflow

        with tensorflow.GradientTape() as tape:
            images = self._detector.network_input(part["images"], part["sizes_wh"])
            sums = self._detector.losses(self._network(images, training=True), part)
            losses = {name: total / counts[name] for name, total in sums.items()}
            shares = self._strategy.num_replicas_in_sync * self._settings.accumulate  # each adds its own
            penalties = self._network.losses or [tensorflow.zeros(())]
            losses[REGULARISATION] = tensorflow.cast(tensorflow.add_n(penalties), tensorflow.float32) / shares
            scaled = self._optimizer.scaled(tensorflow.add_n(list(losses.values())))
        gradients = tape.gradient(scaled, self._variables, unconnected_gradients="zero")
        return self._optimizer.unscaled(gradients), losses


class Averages:
    """Exponential moving averages of a network's variables, those of its batch normalisation too."""

    def __init__(self, network):
        import tensorflow

        self._averaged = list(network.weights)
        self.variables = [tensorflow.Variable(value, trainable=False) for value in network.get_weights()]

    def update(self, strategy, kept) -> None:
        """Move each average towards its variable by the share ``1 - kept``; in the graph, outside of replicas."""

        def move(average, value):
            average.assign_sub((1 - kept) * (average - value))

        for average, variable in zip(self.variables, self._averaged, strict=True):
            strategy.extended.update(average, move, args=(variable,))

    def values(self) -> list:
        """The averages as arrays, in the order of the network's weights."""
        return [variable.numpy() for variable in self.variables]
