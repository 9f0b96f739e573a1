"""The training loop, which is skorch's."""

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import EarlyStopping

__all__ = ["TrainingLoop"]


class TrainingLoop(NeuralNet):
    """skorch's loop, but Ctrl-C raises KeyboardInterrupt instead of ending only this training.

    skorch treats an interrupt as the end of training and returns the net; a search or a cross-validation around it
    would continue with a model trained for fewer epochs than the others. skorch's early stopping uses the same
    interrupt, and still ends training normally.
    """

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> "TrainingLoop":
        """Initialise and train; raises KeyboardInterrupt where skorch would return early."""
        self.interrupt_: KeyboardInterrupt | None = None
        super().fit(X, y, **fit_params)
        if self.interrupt_ is not None:
            raise self.interrupt_
        return self

    def fit_loop(self, X: Any, y: Any = None, **fit_params: Any) -> "TrainingLoop":
        """All epochs that the history does not have yet."""
        try:
            return super().fit_loop(X, y, self.max_epochs - len(self.history), **fit_params)
        except KeyboardInterrupt as interrupt:
            if not any(_stopped(callback) for _, callback in self.callbacks_):
                self.interrupt_ = interrupt
            raise


def _stopped(callback: Any) -> bool:
    """Whether a callback has ended the training."""
    if isinstance(callback, EarlyStopping):
        return callback.misses_ >= callback.patience
    return getattr(callback, "stopped_", False)
