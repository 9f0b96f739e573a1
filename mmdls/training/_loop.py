"""The training loop, which is skorch's."""

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import EarlyStopping

__all__ = ["TrainingLoop"]


class TrainingLoop(NeuralNet):
    """skorch's loop, but Ctrl-C ends the whole program's work, not just this training.

    skorch takes an interrupt as "enough epochs" and returns a net; a search or a cross-validation around it would go on
    with a model that had fewer epochs than the others. Its early stopping interrupts in the same way, and is let be.
    """

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> "TrainingLoop":
        """Initialise and train; raises KeyboardInterrupt where skorch would return early."""
        self._interrupt: KeyboardInterrupt | None = None
        super().fit(X, y, **fit_params)
        if self._interrupt is not None:
            raise self._interrupt
        return self

    def fit_loop(self, X: Any, y: Any = None, *args: Any, **fit_params: Any) -> "TrainingLoop":
        """All epochs."""
        try:
            return super().fit_loop(X, y, *args, **fit_params)
        except KeyboardInterrupt as interrupt:
            stops = [callback for _, callback in self.callbacks_ if isinstance(callback, EarlyStopping)]
            if not any(stop.misses_ >= stop.patience for stop in stops):
                self._interrupt = interrupt
            raise
