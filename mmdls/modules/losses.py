"""The Cox partial likelihood, exact with ties and at any size of the log hazards."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CoxRiskSet", "cox_loss"]

# Log hazards further apart than this leave the range of doubles in exp().
_SPAN = 600


@dataclass(frozen=True)
class CoxRiskSet:
    """The order of events and times, which does not change while the hazards are learned.

    Make it once with :meth:`of` when the same patients are seen in every step.

    Parameters
    ----------
    order : Tensor of shape (n,)
        Patients from the latest to the earliest time.
    last : Tensor of shape (n,)
        For each patient in that order, the place of the last one with the same time.
    events : Tensor of shape (n_events,)
        Places of the events in that order.
    rank, size : Tensor of shape (n_events,)
        Rank of each event among the events tied with it, from 0, and their number.
    group : Tensor of shape (n_events,)
        Number of the tied time, from the latest.
    n_groups : int
        Number of different times.
    place_group : Tensor of shape (n,)
        The same for every patient.
    """

    order: Tensor
    last: Tensor
    events: Tensor
    rank: Tensor
    size: Tensor
    group: Tensor
    n_groups: int
    place_group: Tensor

    @classmethod
    def of(cls, event: Tensor, time: Tensor) -> "CoxRiskSet":
        """Sort events (n,) and times (n,)."""
        time, order = torch.sort(time, descending=True)
        seen = event[order].bool()
        _, place_group, counts = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
        last = (counts.cumsum(0) - 1)[place_group]
        events = torch.nonzero(seen)[:, 0]
        group = place_group[events]
        n_groups = len(counts)
        tied = torch.bincount(group, minlength=n_groups)
        first = tied.cumsum(0) - tied
        rank = torch.arange(len(events), device=time.device) - first[group]
        return cls(order, last, events, rank, tied[group], group, n_groups, place_group)


def cox_loss(
    log_hazard: Tensor,
    event: Tensor,
    time: Tensor,
    ties: str = "efron",
    sample_weight: Tensor | None = None,
    risk_set: CoxRiskSet | None = None,
) -> Tensor:
    """Negative log partial likelihood, summed over events and divided by their number.

    The order of the patients does not matter, ties are exact, and log hazards of any size give finite, correct values
    and gradients. The gradient has a closed form; it cannot be differentiated again.

    Parameters
    ----------
    log_hazard : Tensor of shape (n,)
    event : Tensor of shape (n,), bool
    time : Tensor of shape (n,)
        Months.
    ties : {"efron", "breslow"}, default="efron"
    sample_weight : Tensor of shape (n,), default=None
        Case weights: a patient of weight 2 counts as two in every risk set, one of weight 0 as absent, and events are
        averaged by weight. Efron's correction takes the mean weight of tied events, as R's ``coxph`` does.
    risk_set : CoxRiskSet, default=None
        ``CoxRiskSet.of(event, time)``, to sort once for many calls.

    Returns
    -------
    Tensor of shape ()
        Zero, connected to the graph, if there is no event.

    References
    ----------
    .. [1] Cox DR. Partial likelihood. Biometrika, 1975.
    .. [2] Efron B. The efficiency of Cox's likelihood function for censored data. JASA, 1977.
    .. [3] Breslow N. Covariance analysis of censored survival data. Biometrics, 1974.

    Examples
    --------
    >>> import torch
    >>> cox_loss(torch.zeros(3), torch.tensor([True, True, False]), torch.tensor([1.0, 2.0, 3.0]))
    tensor(0.8959)
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow'; got {ties!r}.")
    if not log_hazard.shape == event.shape == time.shape or log_hazard.ndim != 1:
        raise ValueError(
            "log_hazard, event and time must have one shape (n,); got "
            f"{tuple(log_hazard.shape)}, {tuple(event.shape)}, {tuple(time.shape)}."
        )
    if sample_weight is not None and sample_weight.shape != log_hazard.shape:
        raise ValueError(
            f"sample_weight must have one shape with log_hazard, {tuple(log_hazard.shape)}; got "
            f"{tuple(sample_weight.shape)}."
        )
    if risk_set is not None and risk_set.order.shape != log_hazard.shape:
        raise ValueError(f"risk_set orders {len(risk_set.order)} patients; log_hazard has {len(log_hazard)}.")
    if sample_weight is not None and not sample_weight.all():
        counted = sample_weight != 0
        return cox_loss(log_hazard[counted], event[counted], time[counted], ties, sample_weight[counted])
    if risk_set is None:
        risk_set = CoxRiskSet.of(event, time)
    if not len(risk_set.events):
        return log_hazard.sum() * 0
    return _CoxLoss.apply(log_hazard, risk_set, ties == "efron", sample_weight)


class _CoxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_hazard: Tensor, risk_set: CoxRiskSet, efron: bool, sample_weight: Tensor | None) -> Tensor:
        # Double precision keeps sums over a million patients, and hazards hundreds of logs apart, exact enough.
        eta = log_hazard.detach()[risk_set.order].double()
        weight = None if sample_weight is None else sample_weight.detach()[risk_set.order].double()
        at_event = risk_set.events
        event_weight = torch.ones_like(eta[at_event]) if weight is None else weight[at_event]
        total = event_weight.sum()
        if total <= 0:
            ctx.gradient = torch.zeros_like(log_hazard)
            return log_hazard.new_zeros(())
        shift = eta.max()
        span = float(shift - eta.min())
        # Rare cases go through logarithms.
        if span < _SPAN:
            hazard = (eta - shift).exp()
            if weight is not None:
                hazard = hazard * weight
            log_at_risk = hazard.cumsum(0)[risk_set.last].log()
        else:
            log_weighted = eta - shift if weight is None else eta - shift + weight.log()
            log_at_risk = torch.logcumsumexp(log_weighted, 0)[risk_set.last]
        log_at_risk = log_at_risk[at_event]
        # Relative hazard of each event within its risk set; all that follows is bounded by one.
        relative = (eta[at_event] - shift - log_at_risk).exp()
        if weight is not None:
            relative = relative * event_weight
            summed = eta.new_zeros(risk_set.n_groups).index_add(0, risk_set.group, event_weight)
            term_weight = summed[risk_set.group] / risk_set.size
        else:
            term_weight = event_weight
        if efron:
            tied = eta.new_zeros(risk_set.n_groups).index_add(0, risk_set.group, relative)[risk_set.group]
            share = risk_set.rank.double() / risk_set.size
            left = 1 - share * tied
        else:
            share, left = None, torch.ones_like(relative)
        log_left = log_at_risk + left.log()
        loss = ((term_weight * log_left).sum() - (event_weight * (eta[at_event] - shift)).sum()) / total
        if ctx.needs_input_grad[0]:
            ctx.gradient = _gradient(
                eta - shift, weight, event_weight, term_weight, log_left, relative, left, share, risk_set, span
            )
            ctx.gradient = (ctx.gradient / total).to(log_hazard.dtype)
        return loss.to(log_hazard.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        return upstream * ctx.gradient, None, None, None


def _gradient(eta, weight, event_weight, term_weight, log_left, relative, left, share, risk_set, span):
    """Derivative of the summed loss by the log hazards, in the patients' own order.

    A patient's hazard stands in the denominator of every event up to its own time; a tied event is taken out of its
    own group's denominators by Efron's share.
    """
    places = eta.new_zeros(len(eta))
    if span < _SPAN:
        inverse = eta.new_zeros(risk_set.n_groups).index_add(0, risk_set.group, term_weight * (-log_left).exp())
        # Groups run from the latest time; a patient meets the groups from its own to the earliest.
        until = inverse.flip(0).cumsum(0).flip(0)[risk_set.place_group]
        places = eta.exp() * until
    else:
        log_inverse = torch.full((len(eta),), -torch.inf, dtype=eta.dtype, device=eta.device)
        log_inverse[risk_set.events] = term_weight.log() - log_left
        cumulative = torch.logcumsumexp(log_inverse.flip(0), 0).flip(0)
        first = torch.searchsorted(risk_set.place_group, risk_set.place_group)
        places = (eta + cumulative[first]).exp()
    if weight is not None:
        places = places * weight
    if share is not None:
        own = eta.new_zeros(risk_set.n_groups).index_add(0, risk_set.group, term_weight * share / left)
        places[risk_set.events] -= own[risk_set.group] * relative
    places[risk_set.events] -= event_weight
    gradient = torch.empty_like(places)
    gradient[risk_set.order] = places
    return gradient
