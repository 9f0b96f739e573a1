"""Which epoch is best on the patients held out, and how far the networks are trusted beside the linear part."""

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor

from mmdls.modules import LossName
from mmdls.training._net import CohortNet
from mmdls.training._ranks import is_first_rank

__all__ = ["Selection"]

_MOST_TRUST = 1.5
_LEAST_GAIN = 1e-4  # of the loss
_FIRST_EPOCHS = 10  # of a longer training, in which a best epoch says something


@dataclass
class _Best:
    """The best epoch so far."""

    loss: float = float("inf")
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    held_out: dict[str, Tensor] = field(default_factory=dict)


class Selection(Callback):
    """Keep the weights of the epoch with the best loss of all held-out patients together; stop when it gets no better.

    Before the first epoch the networks add nothing to the linear part, so that an epoch must be better than that. The
    loss is the sum over tasks. Behind the last epoch each task gets the trust in the networks that suits it best: one
    that they only overfit falls back to its linear predictor.

    Parameters
    ----------
    rows : ndarray of int
        All patients held out.
    tasks : frozenset of str
        Whose losses decide.
    patience : int or None
    single : bool
        One member has too few held-out patients to choose a trust; it is trusted fully.
    """

    def __init__(self, rows: np.ndarray, tasks: frozenset[str], patience: int | None, single: bool):
        self.rows = rows
        self.tasks = tasks
        self.patience = patience
        self.single = single

    def on_train_begin(self, net: CohortNet, **kwargs: object) -> None:
        """Start from the linear part alone."""
        self.index_, self.stopped_ = torch.as_tensor(self.rows), False
        self.start_ = net.held_out_start(self.index_)
        self.best_, self.start_losses_ = _Best(), {}
        if self.start_ and not self.single:
            names = sorted(self.tasks)
            losses = torch.stack([net.task_loss(name, self.start_[name], self.index_).double() for name in names])
            # All ranks take the first rank's losses, as they do those of an epoch, since these decide when to stop.
            self.start_losses_ = dict(zip(names, net.compute.ranks.broadcast(losses).tolist(), strict=True))
            self.best_ = _Best(self._total(net, self.start_losses_), 0, self._weights(net), self.start_)

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
        """Restore the best weights; choose the trust of every task."""
        self._warn(net)
        if self.best_.weights:  # not if training keeps the last, or was interrupted in its first epoch
            net.module_.members.load_state_dict(self.best_.weights)
            net.held_out_ = dict(self.best_.held_out)
        if self.start_ and not self.single:
            for name, parameters in net.held_out_.items():
                predictor = net.module_.linear.predictors[name]
                if name in self.tasks:
                    predictor.trust.fill_(self._best_trust(net, name, parameters))
                net.held_out_[name] = self._mixed(name, parameters, float(predictor.trust))
        self.best_, self.start_ = _Best(), {}  # a fitted model keeps neither a second copy of weights nor patients

    def _warn(self, net: CohortNet) -> None:
        """Say what to do if training ended too early, or if nothing was learned."""
        n_epochs, best = len(net.history), self.best_.epoch
        reads_tables = net.module_.linear is not None and len(net.module_.linear.center) > 0
        if n_epochs == net.max_epochs and best == n_epochs > _FIRST_EPOCHS:
            what = f"was still falling after the last of {n_epochs} epochs; raise max_epochs or learning_rate"
        elif best <= 1 and n_epochs > _FIRST_EPOCHS and not reads_tables:
            what = (
                f"was best after epoch {best} of {n_epochs}: the networks learned nothing that helps with new "
                "patients. Lower learning_rate, give more patients, or doubt that X tells anything of y"
            )
        else:
            return
        if is_first_rank():
            warnings.warn(f"the loss of the patients held out {what}.", ConvergenceWarning, stacklevel=2)

    def _total(self, net: CohortNet, losses: dict[str, float]) -> float:
        """Sum over tasks; one that the networks make worse counts as its linear predictor, and stops no other."""
        weights = net.criterion_.weights
        return sum(
            weights.get(name, 1.0) * min(losses[name], self.start_losses_.get(name, np.inf))
            for name in sorted(self.tasks)
        )

    def _mixed(self, name: str, parameters: Tensor, trust: float) -> Tensor:
        return self.start_[name] + trust * (parameters - self.start_[name])

    def _loss(self, net: CohortNet, name: str, parameters: Tensor, trust: float) -> float:
        return float(net.task_loss(name, self._mixed(name, parameters, trust), self.index_))

    def _best_trust(self, net: CohortNet, name: str, parameters: Tensor) -> float:
        found = minimize_scalar(
            lambda trust: self._loss(net, name, parameters, trust), bounds=(0, _MOST_TRUST), method="bounded"
        )
        return float(found.x) if found.fun < self._loss(net, name, parameters, 0.0) else 0.0

    def _weights(self, net: CohortNet) -> dict[str, Tensor]:
        """A copy of the weights of all networks; none is needed where training keeps the last."""
        if self.patience is None:
            return {}
        return {name: tensor.detach().clone() for name, tensor in net.module_.members.state_dict().items()}

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_")}
