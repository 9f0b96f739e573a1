"""Two endpoints of one course of disease: free of disease, relapsed, dead.

A head that joins endpoints is built once for all of them, by ``views(names) -> {name: head}``; each view is a survival
head of its own. ``given`` is the endpoint whose outcome the loss of a view reads beside its own.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.modules.piecewise import IntervalLinear, Intervals, falling_share, log_softplus, never_rising, per_event
from mmdls.registry import survival_heads

__all__ = ["CoherentHead"]

_LOG_ZERO = -200.0  # stands for the logarithm of probability 0, since that of zero has no gradient
_START = 0.2  # the share of first events that are deaths, when training starts


class _Transitions(nn.Module):
    """Hazards of relapse, of death without relapse and of death after relapse, constant within common intervals."""

    earlier_times: Tensor | None
    later_times: Tensor | None

    def __init__(self, in_features: int, n_intervals: int):
        super().__init__()
        self.linear = IntervalLinear(in_features, n_intervals, 3)
        self.intervals = Intervals(n_intervals)
        self.register_buffer("earlier_times", None, persistent=False)
        self.register_buffer("later_times", None, persistent=False)
        self.outcomes: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}

    def learn(self, is_later: bool, event: Tensor, time: Tensor, weight: Tensor) -> None:
        """Place the intervals, and start at observed rates, by the outcomes of one endpoint or of both."""
        self.outcomes[is_later] = event, time, weight
        known = list(self.outcomes.values())
        self.intervals.place(*(torch.cat(parts) for parts in zip(*known, strict=True)))
        times = torch.unique(time[weight > 0].double())
        if is_later:
            self.later_times = times
        else:
            self.earlier_times = times
        first = self.intervals.observed(*self.outcomes.get(False, self.outcomes[is_later]))
        after = 2 * first.mean()
        if len(known) == 2:
            (n_first, until_first), (n_deaths, until_death) = (
                ((w * e).sum(), (w * t).sum()) for e, t, w in (self.outcomes[False], self.outcomes[True])
            )
            after = (n_deaths - _START * n_first).clamp(min=1) / (until_death - until_first).clamp(min=1)
            self.outcomes.clear()
        hazards = torch.stack([(1 - _START) * first, _START * first, torch.ones_like(first) * after])
        bias = self.linear.bias.data.view(3, -1)
        bias[:, : len(first)] = (hazards * self.intervals.widths).clamp(1e-4, 30).expm1().log().to(bias)

    def split(self, parameters: Tensor) -> Tensor:
        """Parameters (B, 3 n_intervals) -> those of the three transitions in the intervals in use (B, 3, J)."""
        return parameters.unflatten(1, (3, -1))[..., : len(self.intervals.widths)]

    def log_rates(self, split: Tensor, time: Tensor) -> Tensor:
        """Logarithms of the hazards per month (B, 3) at a time of each patient (B,)."""
        interval = self.intervals.of(time)
        at = split.gather(2, interval[:, None, None].expand(-1, 3, 1))[..., 0]
        return log_softplus(at) - self.intervals.widths.log().to(split)[interval][:, None]


@survival_heads.register("coherent")
class CoherentHead(nn.Module):
    """Disease-free and overall survival together, from the hazards of an illness-death model.

    Three hazards, constant within common intervals, lead from free of disease to relapse and to death, and from relapse
    to death. Disease-free survival is the probability of the first state, overall survival that of the first two: the
    one is never above the other, for any patient at any time, and neither ever rises. The follow-up of both endpoints
    teaches the same hazards: the loss of the earlier endpoint is its likelihood, and that of the later one its
    likelihood given the earlier one, so that their sum is the likelihood of the whole course. A patient with one known
    endpoint adds what it tells. A first event at the time of death is the death. After a relapse the hazard of death
    depends on the time since treatment, not since the relapse.

    It needs both endpoints in ``y``. Linear parts of tables and the weights of an ensemble's answer are left out for
    them, since they would differ between the endpoints.

    Parameters
    ----------
    in_features : int
    n_intervals : int, default=10
        At most; no more than there are different event times.
    earlier : str, default="dfs"
        The endpoint that ends with relapse or death.
    later : str, default="os"
        The endpoint that ends with death.

    Raises
    ------
    ValueError
        If both endpoints are the same.

    References
    ----------
    .. [1] Fix E, Neyman J. A simple stochastic model of recovery, relapse, death and loss of patients. Human Biology,
       1951.
    .. [2] Putter H, Fiocco M, Geskus RB. Tutorial in biostatistics: competing risks and multi-state models. Statistics
       in Medicine, 2007.

    Examples
    --------
    >>> import torch
    >>> event, time = torch.tensor([True, False, True, True]), torch.tensor([3.0, 5.0, 8.0, 12.0])
    >>> heads = CoherentHead(2, n_intervals=3).views(["dfs", "os"])
    >>> for head in heads.values():
    ...     head.prepare(event, time)
    >>> parameters, times = heads["os"](torch.ones(4, 2)), torch.tensor([2.0, 6.0])
    >>> dfs, os = (heads[name].survival_function(parameters, times) for name in ("dfs", "os"))
    >>> bool((dfs <= os).all())
    True
    """

    searched = False  # needs two endpoints

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_intervals": [count(1)],
        "earlier": [str],
        "later": [str],
    }

    def __init__(self, in_features: int, n_intervals: int = 10, earlier: str = "dfs", later: str = "os"):
        super().__init__()
        if earlier == later:
            raise ValueError(f"earlier and later must be two endpoints; got {earlier!r} twice.")
        self.transitions = _Transitions(in_features, n_intervals)
        self.earlier, self.later = earlier, later
        self.is_later = True

    def views(self, names: Sequence[str]) -> dict[str, nn.Module]:
        """Heads of both endpoints, with the same hazards.

        Raises
        ------
        ValueError
            If other endpoints are asked for.
        """
        if set(names) != {self.earlier, self.later}:
            raise ValueError(
                f"the head 'coherent' answers {self.earlier!r} and {self.later!r} together, and no other endpoint; it "
                f"was chosen for {sorted(names)}. Name the two with Part('coherent', earlier=..., later=...), and "
                "give others a head of their own, as in heads={'pfs': 'cox'}."
            )
        first = copy(self)
        first.is_later = False
        return {self.earlier: first, self.later: self}

    @property
    def given(self) -> str | None:
        """The endpoint whose outcome the loss reads too."""
        return self.earlier if self.is_later else None

    @property
    def times(self) -> Tensor | None:
        """The different times of the training rows (T,); None before :meth:`prepare`."""
        return self.transitions.later_times if self.is_later else self.transitions.earlier_times

    def prepare(self, event: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> None:
        """Place the intervals and start every hazard near its observed rate.

        Raises
        ------
        ValueError
            If there is no event.
        """
        weight = torch.ones_like(time) if sample_weight is None else sample_weight.to(time)
        self.transitions.learn(self.is_later, event, time, weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> parameters of the three transitions (B, 3 n_intervals)."""
        return self.transitions.linear(features)

    def loss(
        self,
        parameters: Tensor,
        event: Tensor,
        time: Tensor,
        sample_weight: Tensor | None = None,
        given: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Negative log-likelihood per event.

        Parameters
        ----------
        parameters : Tensor of shape (B, 3 n_intervals)
        event, time, sample_weight : Tensor of shape (B,)
            Of the endpoint.
        given : (event, time), default=None
            Of the earlier endpoint, NaN = unknown; the likelihood of the later one is then that given the earlier one.

        Returns
        -------
        Tensor of shape ()
        """
        split, event = self.transitions.split(parameters), event.bool()
        if self.is_later:
            likelihood = self._later(split, event, time, given)
        else:
            rates = self.transitions.log_rates(split, time)[:, :2].logsumexp(dim=1)
            passed = self.transitions.intervals.passed(time).to(split)
            likelihood = event * rates - (functional.softplus(split[:, :2]).sum(dim=1) * passed).sum(dim=1)
        weight = torch.ones_like(likelihood) if sample_weight is None else sample_weight.to(likelihood)
        n_events = (weight * event).sum()
        return -per_event((weight * likelihood).sum(), n_events)

    def _later(self, split: Tensor, event: Tensor, time: Tensor, given: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-likelihood of the later endpoint (B,), by what the earlier one tells of the time until then."""
        intervals = self.transitions.intervals
        first, until = (torch.zeros_like(event), torch.zeros_like(time)) if given is None else given
        first, until = first.bool(), torch.minimum(until.to(time).nan_to_num(0.0), time)
        rates = self.transitions.log_rates(split, time)
        left = (intervals.passed(time) - intervals.passed(until)).to(split)
        free, relapsed = _walk(split, left)
        still_free = torch.where(
            event, torch.logaddexp(rates[:, 1] + free, rates[:, 2] + relapsed), torch.logaddexp(free, relapsed)
        )
        at_first = self.transitions.log_rates(split, until)
        relapse = at_first[:, 0] - (functional.softplus(split[:, 2]) * left).sum(dim=1) + event * rates[:, 2]
        direct = event & (until >= time)
        by_first = torch.where(direct, at_first[:, 1], relapse) - at_first[:, :2].logsumexp(dim=1)
        return torch.where(first, by_first, still_free)

    def risk(self, parameters: Tensor) -> Tensor:
        """Minus the restricted mean survival time (months) until the end of the follow-up, (B,)."""
        ends = self.transitions.intervals.ends
        return -torch.trapezoid(self.survival_function(parameters, ends), ends, dim=1).to(parameters)

    def fit_baseline(
        self, parameters: Tensor, event: Tensor, time: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Nothing to fit: the hazards are absolute."""
        self.transitions.outcomes.clear()

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Parameters (B, 3 n_intervals), times (T,) -> survival probability (B, T); flat beyond the follow-up."""
        split, intervals = self.transitions.split(parameters.double()), self.transitions.intervals
        passed = intervals.passed(time)
        pieces = []
        for part in split.split(max(1, 2**22 // max(passed.numel(), 1))):
            states = _walk(part[:, None], passed[None])
            pieces.append(torch.logaddexp(*states) if self.is_later else states[0])
        return never_rising(torch.cat(pieces).exp().clamp(max=1), time)


def _walk(split: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities (...) of being free of disease and of having relapsed, after a walk from the first state.

    Parameters
    ----------
    split : Tensor of shape (..., 3, J)
        Parameters of the transitions.
    share : Tensor of shape (..., J)
        Share of each interval that is walked.
    """
    # Hazards of the walked share of every interval; within it they are constant, and the equations are solved exactly.
    to_relapse, to_death, after = (functional.softplus(split) * share[..., None, :]).unbind(-2)
    leaving = to_relapse + to_death
    lower = torch.minimum(leaving, after)
    entered = log_softplus(split[..., 0, :]) + share.clamp(min=1e-30).log()
    entered = entered + falling_share((leaving - after).abs()).log() - lower
    free = -(leaving.cumsum(-1) - leaving)
    relapsed = torch.full_like(entered[..., 0], _LOG_ZERO)
    for j in range(share.shape[-1]):
        relapsed = torch.logaddexp(relapsed - after[..., j], free[..., j] + entered[..., j])
    return -leaving.sum(-1), relapsed
