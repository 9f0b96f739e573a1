"""Survival in discrete time, with curves that follow the observed times between the ends of its intervals."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.registry import survival_heads

__all__ = ["LogisticHazardHead"]

# Where all patients at risk have the event, Kaplan-Meier's hazard is infinite; training starts from this one.
_LARGEST_HAZARD = 5.0


@survival_heads.register("logistic_hazard")
class LogisticHazardHead(nn.Module):
    """Discrete time: the hazard of each interval is a logistic regression; censoring stands in the likelihood.

    Intervals end at event times of the training rows and hold about the same number of events. An event at the end of
    an interval lies inside it. Within an interval the cumulative hazard rises at the event times of the training rows,
    by the shares that Kaplan-Meier's does, so that curves step where events were seen, and without any feature they are
    the Kaplan-Meier curve at every time. Patients censored inside an interval count up to then. Beyond the last event
    curves are flat. It needs no risk set, so any batch size will do, and hazards need not be proportional.

    Parameters
    ----------
    in_features : int
    n_intervals : int, default=20
        At most; no more than there are different event times.

    References
    ----------
    .. [1] Gensheimer MF, Narasimhan B. A scalable discrete-time survival model for neural networks. PeerJ, 2019.
    .. [2] Kvamme H, Borgan O. Continuous and discrete-time survival prediction with neural networks. Lifetime Data
       Analysis, 2021.
    """

    # A column has one effect on all hazards of the linear part, as in a proportional-odds model of the hazards.
    shares_linear_effects = True

    def __init__(self, in_features: int, n_intervals: int = 20):
        super().__init__()
        if n_intervals < 1:
            raise ValueError(f"n_intervals must be at least 1; got {n_intervals}.")
        self.linear = nn.Linear(in_features, n_intervals)
        self.n_intervals = n_intervals
        self.times: Tensor | None
        self.event_times: Tensor | None
        self.progress: Tensor | None
        for name in ("times", "event_times", "progress"):
            self.register_buffer(name, None, persistent=False)

    def prepare(self, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> None:
        """Place the intervals and start every hazard at its observed rate.

        Raises
        ------
        ValueError
            If there is no event.
        """
        weight = torch.ones_like(time, dtype=torch.float64) if sample_weight is None else sample_weight.double()
        counted = weight > 0
        event, time, weight = event[counted], time[counted].double(), weight[counted]
        if not event.any():
            raise ValueError("there is no event, so there is no hazard to learn.")
        self.times = torch.unique(time)
        event_times = torch.unique(time[event])
        n_events = weight.new_zeros(len(event_times)).index_add(
            0, torch.searchsorted(event_times, time[event]), weight[event]
        )
        sorted_time, order = time.sort()
        left = weight[order].flip(0).cumsum(0).flip(0)
        at_risk = left[torch.searchsorted(sorted_time, event_times)]
        everybody = n_events >= at_risk * (1 - 1e-9)
        hazard = -torch.log1p(-torch.where(everybody, 0.0, n_events / at_risk))
        hazard[everybody] = _LARGEST_HAZARD
        interval = self._intervals(n_events, everybody)
        total = hazard.new_zeros(int(interval[-1]) + 1).index_add(0, interval, hazard)
        # How many intervals have passed at each event time, with the share of the one that goes on.
        progress = (hazard.cumsum(0) - functional.pad(total.cumsum(0), (1, 0))[interval]) / total[interval] + interval
        ends = functional.pad(interval.diff() > 0, (0, 1), value=True)
        progress[ends] = (interval[ends] + 1).double()
        self.event_times, self.progress = event_times, functional.pad(progress, (1, 0))
        with torch.no_grad():
            self.linear.bias[: len(total)] = total.expm1().log().to(self.linear.bias)

    def _intervals(self, n_events: Tensor, everybody: Tensor) -> Tensor:
        """Number of the interval of each event time: even shares of the events, and one for a last death of all."""
        alone = bool(everybody[-1]) and self.n_intervals > 1 and len(n_events) > 1
        shared = n_events[:-1] if alone else n_events
        share = shared.cumsum(0) / shared.sum()
        interval = torch.ceil(share * (self.n_intervals - alone) - 1e-9).long()
        if alone:
            interval = functional.pad(interval, (0, 1), value=self.n_intervals)
        return torch.unique(interval, return_inverse=True)[1]

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> logits of the hazards (B, n_intervals)."""
        return self.linear(features)

    def loss(self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log-likelihood per event."""
        event_times, progress = self._grid()
        time = time.to(event_times)
        passed = torch.searchsorted(event_times, time, right=True)
        # An event at a time of which the training rows knew none belongs to their next event time.
        own = torch.searchsorted(event_times, time).clamp(max=len(event_times) - 1)
        survived = self._exposure(progress[torch.where(event, own, passed)]).to(parameters)
        nll = (functional.softplus(parameters) * survived).sum(dim=1)
        logit = parameters.gather(1, progress[own].floor().long()[:, None])[:, 0]
        nll = nll - event * _log_event(logit, (progress[own + 1] - progress[own]).to(parameters))
        weight = torch.ones_like(nll) if sample_weight is None else sample_weight.to(nll)
        n_events = (weight * event).sum()
        return (nll * weight).sum() / n_events if n_events > 0 else parameters.sum() * 0

    def risk(self, parameters: Tensor) -> Tensor:
        """Minus the restricted mean survival time (months) until the last event, (B,)."""
        event_times, progress = self._grid()
        width = torch.diff(event_times, prepend=event_times.new_zeros(1)).to(parameters)
        return -self._survival(parameters, progress[:-1]) @ width

    def fit_baseline(
        self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Nothing to fit: the hazards are absolute."""

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Logits (B, n_intervals), times (T,) -> survival probability (B, T); flat beyond the last event."""
        event_times, progress = self._grid()
        passed = torch.searchsorted(event_times, time.to(event_times), right=True)
        return self._survival(parameters.double(), progress[passed])

    def _survival(self, parameters: Tensor, progress: Tensor) -> Tensor:
        return torch.exp(-functional.softplus(parameters) @ self._exposure(progress).to(parameters).T)

    def _exposure(self, progress: Tensor) -> Tensor:
        """Share of each interval that has passed, (..., n_intervals)."""
        interval = torch.arange(self.n_intervals, device=progress.device)
        return (progress[..., None] - interval).clamp(0, 1)

    def _grid(self) -> tuple[Tensor, Tensor]:
        if self.event_times is None or self.progress is None:
            raise RuntimeError("the intervals are unknown; call prepare with training rows first.")
        return self.event_times, self.progress


def _log_event(logit: Tensor, share: Tensor) -> Tensor:
    """Log probability of an event in a share of an interval: ``log(1 - (1 - sigmoid(logit)) ** share)``."""
    # Below -15 the logarithm of softplus is its argument, to single precision.
    log_hazard = torch.where(logit < -15, logit, functional.softplus(logit.clamp(min=-15)).log()) + share.log()
    hazard = log_hazard.clamp(min=-10).exp()
    return torch.where(log_hazard < -10, log_hazard - log_hazard.exp() / 2, torch.log(-torch.expm1(-hazard)))
