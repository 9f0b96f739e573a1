"""Which epoch is best on the patients held out."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor

from mmdls.modules import LossName
from mmdls.training._net import CohortNet
from mmdls.training._ranks import is_first_rank

__all__ = ["Selection"]

_LEAST_GAIN = 1e-4  # of the loss
_FIRST_EPOCHS = 10  # of a longer training, in which a best epoch says something


@dataclass
class _Best:
    """The best epoch so far."""

    loss: float = float("inf")
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    held_out: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        vars(self).update(state)


class Selection(Callback):
    """Keep the weights of the epoch with the best loss of all held-out patients together; stop when it gets no better.

    The loss is the sum over tasks. Beside a linear part it is that of the mean of both; a task that the networks make
    worse than the linear part alone counts as that, and stops no other.

    Parameters
    ----------
    rows : ndarray of int
        All patients held out.
    tasks : frozenset of str
        Whose losses decide.
    patience : int or None
    """

    def __init__(self, rows: np.ndarray, tasks: frozenset[str], patience: int | None):
        self.rows = rows
        self.tasks = tasks
        self.patience = patience

    def on_train_begin(self, net: CohortNet, **kwargs: object) -> None:
        """Take the losses of the linear part alone."""
        index, self.stopped_ = torch.as_tensor(self.rows), False
        self.best_, self.linear_losses_ = _Best(), {}
        names = sorted(self.tasks & net.linear.keys())
        if names:
            losses = torch.stack([net.task_loss(name, net.linear[name], index).double() for name in names])
            # All ranks take the first rank's losses, as they do those of an epoch, since these decide when to stop.
            self.linear_losses_ = dict(zip(names, net.compute.ranks.broadcast(losses).tolist(), strict=True))

    def on_epoch_end(self, net: CohortNet, **kwargs: object) -> None:
        """Compare, keep, stop; the losses are those of the step, which :class:`_TaskLosses` has recorded."""
        epoch = len(net.history)
        loss = self._total(net, {name: net.history[-1, f"valid_{LossName(name).label}"] for name in self.tasks})
        better = loss < self.best_.loss - _LEAST_GAIN * abs(loss)
        net.history.record("event_best", better)
        if better:
            self.best_ = _Best(loss, epoch, self._weights(net), net.held_out_)
        elif self.patience is not None and epoch - self.best_.epoch >= self.patience:
            self.stopped_ = True
            raise KeyboardInterrupt  # so skorch's own early stopping ends a training

    def on_train_end(self, net: CohortNet, **kwargs: object) -> None:
        """Restore the best weights."""
        self._warn(net)
        if self.best_.weights:  # not if training keeps the last, or was interrupted in its first epoch
            net.module_.members.load_state_dict(self.best_.weights)
            net.held_out_ = dict(self.best_.held_out)
        self.best_ = _Best()  # a fitted model keeps neither a second copy of weights nor patients

    def _warn(self, net: CohortNet) -> None:
        """Say what to do if training ended too early, or if nothing was learned."""
        if self.linear_losses_:  # a linear part answers where networks learned little
            return
        n_epochs, best = len(net.history), self.best_.epoch
        if n_epochs == net.max_epochs and best == n_epochs > _FIRST_EPOCHS:
            what = f"was still falling after the last of {n_epochs} epochs; raise max_epochs or learning_rate"
        elif best <= 2 and n_epochs > _FIRST_EPOCHS:
            what = (
                f"was best after epoch {best} of {n_epochs}: the networks learned nothing that helps with new "
                "patients. Lower learning_rate, give more patients, or doubt that X tells anything of y"
            )
        else:
            return
        if is_first_rank():
            warnings.warn(f"the loss of the patients held out {what}.", ConvergenceWarning, stacklevel=2)

    def _total(self, net: CohortNet, losses: dict[str, float]) -> float:
        weights = net.criterion_.weights
        return sum(
            weights.get(name, 1.0) * min(losses[name], self.linear_losses_.get(name, np.inf))
            for name in sorted(self.tasks)
        )

    def _weights(self, net: CohortNet) -> dict[str, Tensor]:
        """A copy of the weights of all networks; none is needed where training keeps the last."""
        if self.patience is None:
            return {}
        return {name: tensor.detach().clone() for name, tensor in net.module_.members.state_dict().items()}

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_")}
