"""Heads: a shared representation to the parameters of a task, its loss and its probabilities.

Every head has, with the targets of its task (``Task.targets``: classes, or event and time):

* ``prepare(*targets, sample_weight)`` is called once before training, with the outcomes of the training rows;
* ``forward(features (B, D)) -> parameters (B, P)``;
* ``loss(parameters, *targets, sample_weight)`` is a scalar connected to the parameters, zero without information.

A head of classes (``nominal_heads``, ``ordinal_heads``) is built with their number, and also has
``probabilities(parameters) -> (B, K)``. A survival head also has:

* ``risk(parameters) -> (B,)``: higher = earlier event;
* ``fit_baseline(parameters, event, time, sample_weight)`` is called once after training, with the training rows;
* ``times``: the grid (T,) in months on which the fitted survival function is known;
* ``survival_function(parameters, time (T,)) -> (B, T)``: starts at 1 and never rises.

``sample_weight (B,)`` stands last and may be None or be left out; a patient of weight 0 counts as absent.

A loss that is marked by :func:`of_many` also takes parameters (k, B, P) by several heads of the same patients, with
weights (k, B) or none, and gives the loss of each, (k,). Several small losses take several times as long as one of all.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count, one_of
from mmdls.modules.losses import CoxRiskSet, cox_loss
from mmdls.registry import nominal_heads, ordinal_heads, survival_heads

__all__ = ["ClassHead", "CoxHead", "OrdinalHead", "is_of_many", "of_many", "weighted_mean"]

_Loss = TypeVar("_Loss", bound=Callable[..., Tensor])


def of_many(loss: _Loss) -> _Loss:
    """Mark the loss of a head that also takes parameters (k, B, P) and gives losses (k,)."""
    loss.is_of_many = True  # type: ignore[attr-defined]
    return loss


def is_of_many(head: Any) -> bool:
    """Whether the loss of a head is marked by :func:`of_many`; one that overrides it has to say so itself."""
    return getattr(head.loss, "is_of_many", False)


@nominal_heads.register("softmax")
@ordinal_heads.register("softmax")
class ClassHead(nn.Module):
    """One logit a class, softmax, cross-entropy.

    Parameters
    ----------
    in_features : int
    n_classes : int

    Examples
    --------
    >>> import torch
    >>> head = ClassHead(8, n_classes=3)
    >>> logits = head(torch.zeros(4, 8))
    >>> head.probabilities(logits).shape, head.loss(logits, torch.tensor([0, 1, 2, 1])).shape
    (torch.Size([4, 3]), torch.Size([]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_classes": [count(1)],
    }

    def __init__(self, in_features: int, n_classes: int):
        super().__init__()
        self.linear = nn.Linear(in_features, n_classes)

    def prepare(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Nothing to prepare."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, K)."""
        return self.linear(features)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, K) -> probabilities (B, K)."""
        return _positive(torch.log_softmax(logits, dim=1))

    @of_many
    def loss(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Logits (B, K), classes (B,) -> weighted mean cross-entropy."""
        target = target.expand(logits.shape[:-1])
        nll = functional.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
        return weighted_mean(nll.view(target.shape), sample_weight)


@ordinal_heads.register("continuation_ratio")
class OrdinalHead(nn.Module):
    """Continuation-ratio logits for ordered classes: ``sigmoid(f_k) = P(y > k | y >= k)``.

    Unlike proportional odds, each step has its own weights, so the step from III to IV may depend on other features
    than the step from I-II to III. The probabilities of the classes always sum to one.

    Parameters
    ----------
    in_features : int
    n_classes : int

    References
    ----------
    .. [1] Shi X, Cao W, Raschka S. Deep neural networks for rank-consistent ordinal regression based on conditional
       probabilities. Pattern Analysis and Applications, 2023.

    Examples
    --------
    >>> import torch
    >>> head = OrdinalHead(8, n_classes=3)
    >>> logits = head(torch.zeros(4, 8))  # a step from each class to the next
    >>> logits.shape, head.probabilities(logits).shape
    (torch.Size([4, 2]), torch.Size([4, 3]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_classes": [count(2)],
    }

    def __init__(self, in_features: int, n_classes: int):
        super().__init__()
        self.linear = nn.Linear(in_features, n_classes - 1)

    def prepare(self, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Nothing to prepare."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, K - 1)."""
        return self.linear(features)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, K - 1) -> probabilities (B, K)."""
        # Differences of P(y >= k) would cancel to zero, or below, at large logits: sums of logarithms do not.
        reached = functional.pad(torch.cumsum(functional.logsigmoid(logits), dim=1), (1, 0))
        return _positive(reached + functional.pad(functional.logsigmoid(-logits), (0, 1)))

    @of_many
    def loss(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Logits (B, K - 1), classes (B,) -> weighted mean negative log-likelihood."""
        step = torch.arange(logits.shape[-1], device=logits.device)
        passed = (target[:, None] > step).to(logits.dtype)
        reached = target[:, None] >= step
        nll = functional.binary_cross_entropy_with_logits(logits, passed.expand_as(logits), reduction="none")
        return weighted_mean((nll * reached).sum(dim=-1), sample_weight)


@survival_heads.register("cox")
class CoxHead(nn.Module):
    """Proportional hazards: one log hazard a patient, the baseline hazard fitted after training.

    Parameters
    ----------
    in_features : int
    ties : {"efron", "breslow"}, default="efron"
    bias : bool, default=False
        The baseline hazard takes up any constant, so a bias cannot be learned; the published network has one.

    Raises
    ------
    ValueError
        If ``ties`` is unknown.

    References
    ----------
    .. [1] Cox DR. Regression models and life-tables. JRSS B, 1972.
    .. [2] Efron B. The efficiency of Cox's likelihood function for censored data. JASA, 1977.
    .. [3] Breslow N. Covariance analysis of censored survival data. Biometrics, 1974.

    Examples
    --------
    >>> import torch
    >>> event, time = torch.tensor([True, False, True, True]), torch.tensor([3.0, 5.0, 8.0, 12.0])
    >>> head = CoxHead(2)
    >>> parameters = head(torch.zeros(4, 2))
    >>> round(head.loss(parameters, event, time).item(), 3)
    0.693
    >>> head.fit_baseline(parameters, event, time)
    >>> head.survival_function(parameters, torch.tensor([1.0, 6.0]))[0].round(decimals=3).tolist()
    [1.0, 0.779]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "ties": [one_of("efron", "breslow")],
        "bias": ["boolean"],
    }

    def __init__(self, in_features: int, ties: str = "efron", bias: bool = False):
        super().__init__()
        self.linear = nn.Linear(in_features, 1, bias=bias)
        self.ties = ties
        self.times: Tensor | None
        self.log_cumulative_hazard: Tensor | None
        self.register_buffer("times", None, persistent=False)
        self.register_buffer("log_cumulative_hazard", None, persistent=False)

    def prepare(self, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> None:
        """Nothing to prepare."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> log hazard (B, 1)."""
        return self.linear(features)

    @of_many
    def loss(self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log partial likelihood per event; see :func:`mmdls.modules.cox_loss`."""
        return cox_loss(parameters[..., 0], event, time, self.ties, sample_weight, CoxRiskSet.kept(event, time))

    def risk(self, parameters: Tensor) -> Tensor:
        """Log hazard (B, 1) -> (B,)."""
        return parameters[:, 0]

    def fit_baseline(
        self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Estimate the cumulative baseline hazard at the times seen in the training rows.

        Tied events stand in it as in the loss; with weights it is that of R's ``survfit(coxph(..., weights=))``.
        """
        if sample_weight is not None:
            counted = sample_weight > 0
            parameters, event, time = parameters[counted], event[counted], time[counted]
            sample_weight = sample_weight[counted]
        # In logarithms, so that hazards of any size and spread neither overflow nor vanish.
        risk_set = CoxRiskSet.of(event, time)
        log_weight = torch.zeros_like(parameters[:, 0], dtype=torch.float64)
        if sample_weight is not None:
            log_weight = sample_weight.double().log()
        log_weighted, events = parameters[:, 0].double() + log_weight, risk_set.events
        log_left = torch.logcumsumexp(log_weighted[risk_set.order], 0)[risk_set.last]
        mean_weight = risk_set.over_ties(log_weight[events].exp()) / risk_set.size
        if self.ties == "efron":
            tied = risk_set.over_ties((log_weighted[events] - log_left).exp())
            log_left = log_left + torch.log1p(-risk_set.share * tied)
        self.times = torch.unique(time.double())
        event_time, steps = time.double()[events], mean_weight.log() - log_left
        summed = functional.pad(torch.logcumsumexp(steps, 0), (1, 0), value=-torch.inf)
        self.log_cumulative_hazard = summed[torch.searchsorted(event_time, self.times, right=True)]

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Log hazard (B, 1), times (T,) -> survival probability (B, T)."""
        if self.times is None or self.log_cumulative_hazard is None:
            raise RuntimeError("the baseline hazard is unknown; call fit_baseline with training rows first.")
        place = torch.searchsorted(self.times, time.to(self.times), right=True)
        baseline = functional.pad(self.log_cumulative_hazard, (1, 0), value=-torch.inf)[place]
        return torch.exp(-torch.exp(baseline + parameters[:, :1].double()))


def weighted_mean(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean of values (..., B), weighted if weights (..., B) are given; zero if they sum to zero."""
    if sample_weight is None:
        return values.mean(dim=-1)
    return (values * sample_weight).sum(dim=-1) / sample_weight.sum(dim=-1).clamp(min=1e-12)


def _positive(log_probabilities: Tensor) -> Tensor:
    """Probabilities of logarithms; one below the smallest number of its precision is that number, not zero."""
    return log_probabilities.exp().clamp(min=torch.finfo(log_probabilities.dtype).tiny)
