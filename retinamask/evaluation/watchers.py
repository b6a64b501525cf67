"""Watchers: what is told how a training run goes, while it goes.

`retinamask.training.train` takes any number of them and knows nothing else about them. They only look: a watcher
must not change the network, nor draw from TensorFlow's, NumPy's or Python's shared random numbers.
"""

from typing import Any


class Watcher:
    """Hears of a run's start, steps, epochs and end; every method may be left as it is, which does nothing.

    On several machines only the first one's watchers are told.
    """

    def started(self, run: Any) -> None:
        """Training begins or, with ``run.first_step`` above 0, goes on.

        Args:
            run: has ``stem`` (path of the snapshots without their endings), ``settings``, ``first_step`` (updates
                made before), ``total_steps``, ``rows`` (the log so far, a dict an epoch) and ``record`` (what its
                snapshots remember of the training).
        """

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        """The figures of an update; they come every few steps.

        Args:
            step: updates made so far, those before a resumed run included.
            figures: ``Loss/total_loss``, ``Loss/localization_loss``, ``Loss/classification_loss``,
                ``Loss/regularization_loss``, ``learning_rate``, ``steps_per_sec`` and ``images_per_sec``.
        """

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        """An epoch has ended and, if it was due, been evaluated.

        Args:
            row: a row of the log: ``epoch``, ``step``, ``loss``, ``localization_loss``, ``classification_loss``,
                ``regularization_loss``, ``learning_rate``, ``seconds``, and after an evaluation its figures, as
                `retinamask.evaluation.in_training` names them.
            network: the training network, with the weights that were judged.
        """

    def ended(self) -> None:
        """No more is to come, whether training finished or was stopped."""
