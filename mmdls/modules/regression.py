"""Heads of regression: one number a patient.

Beside ``prepare``, ``forward`` and ``loss`` (see :mod:`mmdls.modules.heads`; the target is the standardised number) a
head of regression has ``value(parameters) -> (B,)``, the prediction in the same standardised unit.
"""

from typing import Any, ClassVar

import optuna
from torch import Tensor, nn

from mmdls._parameters import count, one_of, positive
from mmdls.modules.heads import of_many, weighted_mean
from mmdls.registry import regression_heads

__all__ = ["RegressionHead"]


@regression_heads.register("regression")
class RegressionHead(nn.Module):
    """A line of the features, fitted by squared or Huber loss.

    The target is standardised on the training rows by the task, so the loss starts near 1/2 whatever the unit is. The
    squared loss estimates the mean. The Huber loss is linear for errors above ``delta``, so that a few extreme values
    have less influence.

    Parameters
    ----------
    in_features : int
    loss : {"squared", "huber"}, default="squared"
        Half of the squared error, or Huber's loss, which is the same for errors up to ``delta``.
    delta : float, default=1.0
        Of the Huber loss, in standard deviations of the training target.

    Raises
    ------
    ValueError
        If ``loss`` is unknown, or ``delta`` is not above 0.

    References
    ----------
    .. [1] Huber PJ. Robust estimation of a location parameter. Annals of Mathematical Statistics, 1964.

    Examples
    --------
    >>> import torch
    >>> head = RegressionHead(8, loss="huber")
    >>> parameters = head(torch.zeros(4, 8))
    >>> head.value(parameters).shape, head.loss(parameters, torch.zeros(4)).shape
    (torch.Size([4]), torch.Size([]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "loss": [one_of("squared", "huber")],
        "delta": [positive()],
    }

    def __init__(self, in_features: int, loss: str = "squared", delta: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(in_features, 1)
        self.delta = float(delta) if loss == "huber" else float("inf")

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """The loss."""
        return {"loss": optuna.distributions.CategoricalDistribution(["squared", "huber"])}

    def prepare(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Nothing to prepare."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> standardised values (B, 1)."""
        return self.linear(features)

    def value(self, parameters: Tensor) -> Tensor:
        """Standardised values (B, 1) -> (B,)."""
        return parameters[:, 0]

    @of_many
    def loss(self, parameters: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Standardised values (B, 1), targets (B,) -> weighted mean loss."""
        error = (parameters[..., 0] - target.to(parameters)).abs()
        inside = error.clamp(max=self.delta)
        return weighted_mean(inside * (error - inside / 2), sample_weight)
