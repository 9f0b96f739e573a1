"""Survival in continuous time, with hazards that are constant within intervals."""

from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.registry import survival_heads

__all__ = ["IntervalLinear", "Intervals", "PCHazardHead", "log_softplus", "never_rising"]

_LEAST_HAZARD = 1e-3  # of an interval without an event, when training starts


class Intervals(nn.Module):
    """Intervals from 0 to the end of the follow-up that hold about the same number of events.

    An event at the end of an interval lies inside it.

    Parameters
    ----------
    n_intervals : int
        At most; no more than there are different event times.
    """

    knots: Tensor | None

    def __init__(self, n_intervals: int):
        super().__init__()
        self.n_intervals = n_intervals
        self.register_buffer("knots", None, persistent=False)

    def place(self, event: Tensor, time: Tensor, weight: Tensor) -> None:
        """Choose the ends of the intervals by events (n,), times (n,) and weights (n,) of the training rows.

        Raises
        ------
        ValueError
            If there is no event.
        """
        event, time, weight = event[weight > 0].bool(), time[weight > 0].double(), weight[weight > 0]
        if not event.any():
            raise ValueError("there is no event, so there is no hazard to learn.")
        seen, order = time[event].sort()
        share = weight[event][order].double().cumsum(0)
        wanted = torch.arange(1, self.n_intervals, device=time.device) / self.n_intervals * share[-1]
        inner = seen[torch.searchsorted(share, wanted - 1e-9 * share[-1])]
        # A cohort in which all events are at 0 has an interval too.
        end = time.max().clamp(min=1e-3)
        self.knots = torch.unique(torch.cat([time.new_zeros(1), inner[inner < end], end[None]]))

    @property
    def ends(self) -> Tensor:
        """From 0 to the end of the last interval, (J + 1,), months."""
        if self.knots is None:
            raise RuntimeError("the intervals are unknown; call prepare with training rows first.")
        return self.knots

    @property
    def widths(self) -> Tensor:
        """Of each interval, (J,), months."""
        return self.ends.diff()

    def of(self, time: Tensor) -> Tensor:
        """The number of the interval of each time (...)."""
        return torch.searchsorted(self.ends[1:], time.to(self.ends)).clamp(max=len(self.ends) - 2)

    def passed(self, time: Tensor) -> Tensor:
        """The share of each interval that has passed by a time (...), (..., J)."""
        return ((time.to(self.ends)[..., None] - self.ends[:-1]) / self.widths).clamp(0, 1)

    def observed(self, event: Tensor, time: Tensor, weight: Tensor) -> Tensor:
        """Events per month and patient at risk in each interval, (J,)."""
        n_events = torch.zeros_like(self.widths).index_add(0, self.of(time), (weight * event).double())
        months = (self.passed(time) * weight.double()[:, None]).sum(dim=0) * self.widths
        return n_events.clamp(min=_LEAST_HAZARD) / months.clamp(min=_LEAST_HAZARD)


class IntervalLinear(nn.Linear):
    """Linear parameters of the hazards of intervals: an effect that all intervals share, and what differs between them.

    Without the first, an effect on all hazards must be learned anew in each interval, from the few events in it. What
    differs starts at 0, so that hazards start proportional.

    Parameters
    ----------
    in_features, n_intervals : int
    n_hazards : int, default=1
        Hazards with intervals of their own; parameters are ordered by them first.

    Attributes
    ----------
    direction : Tensor of shape (n_intervals,)
        How the parameters change with the shared effect; 1 for all until it is set.
    """

    direction: Tensor

    def __init__(self, in_features: int, n_intervals: int, n_hazards: int = 1):
        super().__init__(in_features, n_hazards * n_intervals)
        self.shared = nn.Linear(in_features, n_hazards, bias=False)
        nn.init.zeros_(self.weight)
        self.register_buffer("direction", torch.ones(n_intervals), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> parameters (B, n_hazards * n_intervals)."""
        return super().forward(features) + (self.shared(features)[:, :, None] * self.direction).flatten(1)


@survival_heads.register("pc_hazard")
class PCHazardHead(nn.Module):
    """Piecewise constant hazards in continuous time: every month of follow-up stands in the likelihood as it is.

    The cumulative hazard of an interval is the softplus of its parameter, spread evenly over its months. Intervals end
    at event times of the training rows and hold about the same number of events; the last one ends with the follow-up,
    and beyond it curves are flat. Hazards need not be proportional.

    Parameters
    ----------
    in_features : int
    n_intervals : int, default=10
        At most; no more than there are different event times.

    References
    ----------
    .. [1] Friedman M. Piecewise exponential models for survival data with covariates. Annals of Statistics, 1982.
    .. [2] Kvamme H, Borgan O. Continuous and discrete-time survival prediction with neural networks. Lifetime Data
       Analysis, 2021.

    Examples
    --------
    >>> import torch
    >>> event, time = torch.tensor([True, False, True, True]), torch.tensor([3.0, 5.0, 8.0, 12.0])
    >>> head = PCHazardHead(2, n_intervals=3)
    >>> head.prepare(event, time)
    >>> parameters = head(torch.zeros(4, 2))
    >>> head.survival_function(parameters, torch.tensor([1.0, 5.0, 8.0])).shape, head.risk(parameters).shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    # A column has one effect on all hazards of the linear part; of small hazards it is proportional.
    shares_linear_effects = True
    times: Tensor | None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_intervals": [count(1)],
    }

    def __init__(self, in_features: int, n_intervals: int = 10):
        super().__init__()
        self.linear = IntervalLinear(in_features, n_intervals)
        self.intervals = Intervals(n_intervals)
        self.register_buffer("times", None, persistent=False)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"n_intervals": optuna.distributions.CategoricalDistribution([5, 10, 20])}

    def prepare(self, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> None:
        """Place the intervals and start every hazard at its observed rate.

        Raises
        ------
        ValueError
            If there is no event.
        """
        weight = torch.ones_like(time) if sample_weight is None else sample_weight
        self.intervals.place(event, time, weight)
        self.times = torch.unique(time[weight > 0].double())
        hazard = self.intervals.observed(event, time, weight) * self.intervals.widths
        with torch.no_grad():
            self.linear.bias[: len(hazard)] = hazard.expm1().log().to(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> parameters (B, n_intervals)."""
        return self.linear(features)

    def loss(self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log-likelihood per event."""
        used = self._used(parameters)
        exposed = (functional.softplus(used) * self.intervals.passed(time).to(used)).sum(dim=1)
        interval = self.intervals.of(time)
        rate = log_softplus(used.gather(1, interval[:, None])[:, 0]) - self.intervals.widths.log().to(used)[interval]
        weight = torch.ones_like(exposed) if sample_weight is None else sample_weight.to(exposed)
        n_events = (weight * event).sum()
        return per_event((weight * (exposed - event * rate)).sum(), n_events)

    def risk(self, parameters: Tensor) -> Tensor:
        """Minus the restricted mean survival time (months) until the end of the follow-up, (B,)."""
        hazard = functional.softplus(self._used(parameters))
        before = torch.exp(hazard - hazard.cumsum(dim=1))
        return -(before * falling_share(hazard)) @ self.intervals.widths.to(hazard)

    def fit_baseline(
        self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Nothing to fit: the hazards are absolute."""

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Parameters (B, n_intervals), times (T,) -> survival probability (B, T); flat beyond the follow-up."""
        hazard = functional.softplus(self._used(parameters.double()))
        return never_rising(torch.exp(-hazard @ self.intervals.passed(time).T), time)

    def _used(self, parameters: Tensor) -> Tensor:
        return parameters[:, : len(self.intervals.widths)]


def widths_of_steps(times: Tensor) -> Tensor:
    """Months (J + 1,) from 0 to the first of the event times (J,), between them, and beyond the last one.

    These last ones are the mean of the others, or 1 if they are 0. Without any, an event at the last time would count
    as none, and one event time would tell nobody apart.
    """
    last = torch.where(times[-1:] > 0, times[-1:] / len(times), 1.0)
    return torch.cat([torch.diff(times, prepend=times.new_zeros(1)), last])


def per_event(summed: Tensor, n_events: Tensor) -> Tensor:
    """A sum over patients divided by the number of events; zero, connected to the graph, without an event."""
    some = n_events > 0
    return summed * some / torch.where(some, n_events, 1.0)


def log_softplus(values: Tensor) -> Tensor:
    """Logarithm of softplus, at any size."""
    # Below -15 it is its argument, to single precision.
    return torch.where(values < -15, values, functional.softplus(values.clamp(min=-15)).log())


def falling_share(values: Tensor) -> Tensor:
    """``(1 - exp(-x)) / x`` of values x >= 0, which is 1 at 0."""
    small = values < 1e-3
    safe = torch.where(small, 1.0, values)
    return torch.where(small, 1 - values / 2 + values.square() / 6, -torch.expm1(-safe) / safe)


def never_rising(survival: Tensor, time: Tensor) -> Tensor:
    """Survival (B, T) at times (T,) in any order, without the rises of rounding."""
    order = time.argsort()
    return survival[:, order].cummin(dim=1).values[:, order.argsort()]
