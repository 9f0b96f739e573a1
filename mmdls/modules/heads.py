"""Heads: a shared representation to the parameters of a task, its loss and its probabilities.

A class head has ``forward(features (B, D)) -> logits``, ``loss(logits, target, sample_weight)`` and
``probabilities(logits) -> (B, K)``. The contract of a survival head:

* ``prepare(event, time)`` is called once before training, with the outcomes of the training rows;
* ``forward(features (B, D)) -> parameters (B, P)``;
* ``loss(parameters, event, time, sample_weight)`` is a scalar connected to the parameters, zero without information;
* ``risk(parameters) -> (B,)``: higher = earlier event;
* ``fit_baseline(parameters, event, time)`` is called once after training, with the training rows;
* ``times``: the grid (T,) in months on which the fitted survival function is known;
* ``survival_function(parameters, time (T,)) -> (B, T)``: starts at 1 and never rises.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.losses import CoxRiskSet, cox_loss
from mmdls.registry import survival_heads

__all__ = ["ClassHead", "CoxHead", "LogisticHazardHead", "OrdinalHead"]


class ClassHead(nn.Module):
    """One logit a class, softmax, cross-entropy.

    Parameters
    ----------
    in_features : int
    n_classes : int
    """

    def __init__(self, in_features: int, n_classes: int):
        super().__init__()
        self.linear = nn.Linear(in_features, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, K)."""
        return self.linear(features)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, K) -> probabilities (B, K)."""
        return torch.softmax(logits, dim=1)

    def loss(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Logits (B, K), classes (B,) -> weighted mean cross-entropy."""
        return weighted_mean(functional.cross_entropy(logits, target, reduction="none"), sample_weight)


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
    """

    def __init__(self, in_features: int, n_classes: int):
        super().__init__()
        self.linear = nn.Linear(in_features, n_classes - 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits (B, K - 1)."""
        return self.linear(features)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, K - 1) -> probabilities (B, K)."""
        beyond = functional.pad(torch.cumsum(functional.logsigmoid(logits), dim=1), (1, 0)).exp()
        return beyond - functional.pad(beyond[:, 1:], (0, 1))

    def loss(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Logits (B, K - 1), classes (B,) -> weighted mean negative log-likelihood."""
        step = torch.arange(logits.shape[1], device=logits.device)
        passed = (target[:, None] > step).to(logits.dtype)
        reached = target[:, None] >= step
        nll = functional.binary_cross_entropy_with_logits(logits, passed, reduction="none")
        return weighted_mean((nll * reached).sum(dim=1), sample_weight)


@survival_heads.register("cox")
class CoxHead(nn.Module):
    """Proportional hazards: one log hazard a patient, the baseline hazard fitted after training.

    Parameters
    ----------
    in_features : int
    ties : {"efron", "breslow"}, default="efron"
    bias : bool, default=False
        The baseline hazard takes up any constant, so a bias cannot be learned; the published network has one.

    References
    ----------
    .. [1] Cox DR. Regression models and life-tables. JRSS B, 1972.
    .. [2] Efron B. The efficiency of Cox's likelihood function for censored data. JASA, 1977.
    .. [3] Breslow N. Covariance analysis of censored survival data. Biometrics, 1974.
    """

    def __init__(self, in_features: int, ties: str = "efron", bias: bool = False):
        super().__init__()
        if ties not in ("efron", "breslow"):
            raise ValueError(f"ties must be 'efron' or 'breslow'; got {ties!r}.")
        self.linear = nn.Linear(in_features, 1, bias=bias)
        self.ties = ties
        self.register_buffer("times", None, persistent=False)
        self.register_buffer("log_cumulative_hazard", None, persistent=False)
        self._sorted: dict[bool, tuple[Tensor, Tensor, CoxRiskSet]] = {}

    def prepare(self, event: Tensor, time: Tensor) -> None:
        """Nothing to prepare."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> log hazard (B, 1)."""
        return self.linear(features)

    def loss(self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log partial likelihood per event; see :func:`mmdls.modules.cox_loss`."""
        risk_set = self._risk_set(event, time)
        return cox_loss(parameters[:, 0], event, time, self.ties, sample_weight, risk_set)

    def _risk_set(self, event: Tensor, time: Tensor) -> CoxRiskSet:
        """The order of these patients; that of the last training and of the last validation batch is kept."""
        known = self._sorted.get(self.training)
        same = known is not None and known[0].shape == event.shape and known[0].device == event.device
        if not (same and torch.equal(known[0], event) and torch.equal(known[1], time)):
            self._sorted[self.training] = event, time, CoxRiskSet.of(event, time)
        return self._sorted[self.training][2]

    def risk(self, parameters: Tensor) -> Tensor:
        """Log hazard (B, 1) -> (B,)."""
        return parameters[:, 0]

    def fit_baseline(self, parameters: Tensor, event: Tensor, time: Tensor) -> None:
        """Estimate the cumulative baseline hazard at the times seen in the training rows."""
        self._sorted.clear()
        # In logarithms, so that hazards of any size and spread neither overflow nor vanish.
        risk_set = CoxRiskSet.of(event, time)
        log_hazard = parameters[:, 0].double()[risk_set.order]
        log_left = torch.logcumsumexp(log_hazard, 0)[risk_set.last][risk_set.events]
        if self.ties == "efron":
            relative = (log_hazard[risk_set.events] - log_left).exp()
            tied = relative.new_zeros(risk_set.n_groups).index_add(0, risk_set.group, relative)[risk_set.group]
            log_left = log_left + torch.log1p(-risk_set.rank / risk_set.size.double() * tied)
        self.times = torch.unique(time.double())
        event_time = time.double()[risk_set.order][risk_set.events].flip(0)
        summed = functional.pad(torch.logcumsumexp(-log_left.flip(0), 0), (1, 0), value=-torch.inf)
        self.log_cumulative_hazard = summed[torch.searchsorted(event_time, self.times, right=True)]

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Log hazard (B, 1), times (T,) -> survival probability (B, T)."""
        if self.times is None:
            raise RuntimeError("the baseline hazard is unknown; call fit_baseline with training rows first.")
        place = torch.searchsorted(self.times, time.to(self.times), right=True)
        baseline = functional.pad(self.log_cumulative_hazard, (1, 0), value=-torch.inf)[place]
        return torch.exp(-torch.exp(baseline + parameters[:, :1].double()))


@survival_heads.register("logistic_hazard")
class LogisticHazardHead(nn.Module):
    """Discrete time: the hazard of each interval is a logistic regression; censoring stands in the likelihood.

    The intervals end at quantiles of the training rows' event times. Inside an interval the cumulative hazard is
    linear. It needs no risk set, so any batch size will do, and hazards need not be proportional.

    Parameters
    ----------
    in_features : int
    n_intervals : int, default=20

    References
    ----------
    .. [1] Gensheimer MF, Narasimhan B. A scalable discrete-time survival model for neural networks. PeerJ, 2019.
    .. [2] Kvamme H, Borgan O. Continuous and discrete-time survival prediction with neural networks. Lifetime Data
       Analysis, 2021.
    """

    def __init__(self, in_features: int, n_intervals: int = 20):
        super().__init__()
        self.linear = nn.Linear(in_features, n_intervals)
        self.n_intervals = n_intervals
        self.register_buffer("times", None, persistent=False)

    def prepare(self, event: Tensor, time: Tensor) -> None:
        """Place the intervals and start every hazard at its observed rate."""
        known = time[event].double()
        levels = torch.linspace(0, 1, self.n_intervals + 1, dtype=torch.float64, device=time.device)[1:]
        ends = torch.quantile(known, levels)
        # Tied quantiles make empty intervals: push them apart by a hair so that the grid rises.
        self.times = ends + torch.arange(self.n_intervals, device=time.device) * 1e-6
        interval = torch.searchsorted(self.times, time.double()).clamp(max=self.n_intervals - 1)
        n_events = torch.bincount(interval[event], minlength=self.n_intervals)
        at_risk = torch.bincount(interval, minlength=self.n_intervals).flip(0).cumsum(0).flip(0)
        rate = ((n_events + 0.5) / (at_risk + 1.0)).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            self.linear.bias.copy_(torch.logit(rate))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits of the hazards (B, n_intervals)."""
        return self.linear(features)

    def loss(self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log-likelihood per event; a patient censored inside an interval has survived the ones before."""
        place = torch.searchsorted(self.times, time.to(self.times))
        interval = torch.arange(self.n_intervals, device=parameters.device)
        survived = interval < place[:, None]
        died = event[:, None] & (interval == place[:, None])
        nll = functional.softplus(parameters) * (survived | died) - parameters * died
        weight = torch.ones_like(parameters[:, 0]) if sample_weight is None else sample_weight
        n_events = (weight * event).sum()
        return (nll.sum(dim=1) * weight).sum() / n_events.clamp(min=1e-12) if n_events > 0 else parameters.sum() * 0

    def risk(self, parameters: Tensor) -> Tensor:
        """Minus the restricted mean survival time (months) over the grid, (B,)."""
        width = torch.diff(self.times, prepend=self.times.new_zeros(1)).to(parameters)
        survival = torch.exp(-functional.softplus(parameters).cumsum(dim=1))
        before = functional.pad(survival[:, :-1], (1, 0), value=1.0)
        return -((survival + before) / 2 * width).sum(dim=1)

    def fit_baseline(self, parameters: Tensor, event: Tensor, time: Tensor) -> None:
        """Nothing to fit: the hazards are absolute."""

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Logits (B, n_intervals), times (T,) -> survival probability (B, T); flat beyond the last interval."""
        if self.times is None:
            raise RuntimeError("the intervals are unknown; call prepare with training rows first.")
        grid = functional.pad(self.times, (1, 0))
        hazard = functional.pad(functional.softplus(parameters.double()).cumsum(dim=1), (1, 0))
        time = time.to(grid).clamp(max=grid[-1])
        place = torch.searchsorted(grid, time, right=True).clamp(1, len(grid) - 1)
        share = (time - grid[place - 1]) / (grid[place] - grid[place - 1])
        return torch.exp(-torch.lerp(hazard[:, place - 1], hazard[:, place], share))


def weighted_mean(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean of values (B,), weighted if weights (B,) are given; zero if they sum to zero."""
    if sample_weight is None:
        return values.mean()
    return (values * sample_weight).sum() / sample_weight.sum().clamp(min=1e-12)
