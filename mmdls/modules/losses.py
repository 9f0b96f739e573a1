"""The Cox partial likelihood, exact with ties and at any size of the log hazards."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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
    events : Tensor of shape (n_events,)
        Patients with an event, from the earliest to the latest time.
    last : Tensor of shape (n_events,)
        For each event, the place in ``order`` of the last patient at risk.
    passed : Tensor of shape (n,)
        For each patient, the number of events up to the patient's own time.
    group : Tensor of shape (n_events,)
        Number of each event's time among all different times, from the earliest.
    n_groups : int
        Number of different times.
    size : Tensor of shape (n_events,)
        Number of events at the time of each event.
    first : Tensor of shape (n_events,)
        For each event, the place in ``events`` of the first one at its time.
    share : Tensor of shape (n_events,)
        Efron's share of the tied events that has left the risk set: rank among them, from 0, over ``size``.
    has_ties : bool
        Whether events share a time.
    """

    order: Tensor
    events: Tensor
    last: Tensor
    passed: Tensor
    group: Tensor
    n_groups: int
    size: Tensor
    first: Tensor
    share: Tensor
    has_ties: bool

    @classmethod
    def of(cls, event: Tensor, time: Tensor) -> "CoxRiskSet":
        """Sort events (n,) and times (n,)."""
        increasing, order = torch.sort(time)
        _, moment, counts = torch.unique_consecutive(increasing, return_inverse=True, return_counts=True)
        places = event.bool().index_select(0, order).nonzero().squeeze(1)
        events, group = order.index_select(0, places), moment.index_select(0, places)
        last = len(time) - 1 - (counts.cumsum(0) - counts).index_select(0, group)
        tied = torch.bincount(group, minlength=len(counts))
        until = tied.cumsum(0)
        passed = torch.empty_like(order).scatter_(0, order, until.index_select(0, moment))
        size = tied.index_select(0, group)
        first = (until - tied).index_select(0, group)
        rank = torch.arange(len(events), device=time.device) - first
        share, has_ties = rank / size.double(), bool(rank.any())
        return cls(order.flip(0), events, last, passed, group, len(counts), size, first, share, has_ties)

    @classmethod
    def kept(cls, event: Tensor, time: Tensor) -> "CoxRiskSet":
        """The same, kept beside these very tensors as long as they live: the heads of one batch sort it once."""
        if event.is_inference() or time.is_inference():  # they do not count their changes
            return cls.of(event, time)
        versions = event._version, time._version
        kept = getattr(time, "_cox_risk_set", None)
        if kept is None or kept[0] is not event or kept[1] != versions:
            kept = event, versions, cls.of(event, time)
            time._cox_risk_set = kept  # type: ignore[attr-defined]
        return kept[2]

    def over_ties(self, values: Tensor) -> Tensor:
        """For each event, the sum of ``values`` (..., n_events) over the events tied with it."""
        if not self.has_ties:
            return values
        summed = values.new_zeros(*values.shape[:-1], self.n_groups).index_add_(-1, self.group, values)
        return summed.index_select(-1, self.group)

    def among(self, counted: Tensor) -> tuple[Tensor, Tensor]:
        """``size`` and ``share`` (..., n_events) if only some events (..., n_events) are there; of others anything."""
        if not self.has_ties:
            return self.size, self.share
        before = functional.pad(counted.long().cumsum(-1), (1, 0))
        rank = before[..., :-1] - before.index_select(-1, self.first)
        size = self.over_ties(counted.double()).clamp(min=1)
        return size, rank / size


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
    log_hazard : Tensor of shape (n,) or (k, n)
        Or those of k models.
    event : Tensor of shape (n,), bool
    time : Tensor of shape (n,)
        Months.
    ties : {"efron", "breslow"}, default="efron"
    sample_weight : Tensor of the shape of log_hazard, default=None
        Case weights: a patient of weight 2 counts as two in every risk set, one of weight 0 as absent, and events are
        averaged by weight. Efron's correction takes the mean weight of tied events, as R's ``coxph`` does.
    risk_set : CoxRiskSet, default=None
        ``CoxRiskSet.of(event, time)``, to sort once for many calls.

    Returns
    -------
    Tensor of shape () or (k,)
        Zero, connected to the graph, if there is no event.

    Raises
    ------
    ValueError
        If ``ties`` is unknown, or shapes differ.

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
    if not log_hazard.shape[-1:] == event.shape == time.shape or log_hazard.ndim not in (1, 2):
        raise ValueError(
            "log_hazard, event and time must have one shape (n,), or log_hazard (k, n); got "
            f"{tuple(log_hazard.shape)}, {tuple(event.shape)}, {tuple(time.shape)}."
        )
    if sample_weight is not None and sample_weight.shape != log_hazard.shape:
        raise ValueError(
            f"sample_weight must have one shape with log_hazard, {tuple(log_hazard.shape)}; got "
            f"{tuple(sample_weight.shape)}."
        )
    if risk_set is not None and risk_set.order.shape != time.shape:
        raise ValueError(f"risk_set orders {len(risk_set.order)} patients; log_hazard has {len(time)}.")
    if risk_set is None:
        risk_set = CoxRiskSet.of(event, time)
    if not len(risk_set.events):
        return log_hazard.sum(dim=-1) * 0
    return _CoxLoss.apply(log_hazard, risk_set, ties == "efron", sample_weight)[0]


class _CoxLoss(torch.autograd.Function):
    """The loss and its gradient, of log hazards (n,), or of several of the same patients (k, n)."""

    @staticmethod
    def forward(
        log_hazard: Tensor, risk_set: CoxRiskSet, efron: bool, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        order, events, efron = risk_set.order, risk_set.events, efron and risk_set.has_ties
        # Double precision keeps sums over a million patients, and hazards hundreds of logs apart, exact enough.
        eta = log_hazard.detach().double()
        at_event = eta.index_select(-1, events)
        event_weight = term_weight = torch.ones_like(at_event)
        share, counted = risk_set.share, None
        lowest, highest = eta.aminmax(dim=-1, keepdim=True)
        if sample_weight is not None:
            weight = sample_weight.detach().double()
            eta, absent = eta + weight.log(), weight == 0
            highest = eta.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
            lowest = eta.masked_fill(absent, torch.inf).amin(-1, keepdim=True)
            event_weight, counted = weight.index_select(-1, events), ~absent.index_select(-1, events)
            size, share = risk_set.among(counted)
            term_weight = risk_set.over_ties(event_weight) / size * counted
        eta, at_event, total = eta - highest, at_event - highest, event_weight.sum(-1)
        # The denominator of an event is `left` times exp(`scale`). Rare cases go through logarithms.
        scale: Tensor | float = 0.0
        wide = bool((highest - lowest >= _SPAN).any())
        if wide:
            scale = eta.index_select(-1, order).logcumsumexp(-1).index_select(-1, risk_set.last)
            if counted is not None:
                scale = scale.masked_fill(~counted, 0.0)
            own, left = (eta.index_select(-1, events) - scale).exp(), torch.ones_like(scale)
        else:
            hazard = eta.exp()
            own = hazard.index_select(-1, events)
            left = hazard.index_select(-1, order).cumsum(-1).index_select(-1, risk_set.last)
        if efron:
            left = left - share * risk_set.over_ties(own)
        if counted is not None:
            left = left.masked_fill(~counted, 1.0)  # where nobody may be at risk
            total = total.masked_fill(total == 0, 1.0)
        loss = ((term_weight * (left.log() + scale)).sum(-1) - (event_weight * at_event).sum(-1)) / total
        # A hazard stands in the denominators of all events up to its own time, a tied event's but for its share.
        inverse = term_weight / left
        if wide:
            summed = functional.pad((inverse.log() - scale).logcumsumexp(-1), (1, 0), value=-torch.inf)
            gradient = (eta + summed.index_select(-1, risk_set.passed)).exp()
        else:
            gradient = hazard * functional.pad(inverse.cumsum(-1), (1, 0)).index_select(-1, risk_set.passed)
        if efron:
            event_weight = event_weight + own * risk_set.over_ties(share * inverse)
        gradient.index_add_(-1, events, event_weight, alpha=-1)
        return loss.to(log_hazard.dtype), (gradient / total[..., None]).to(log_hazard.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor, _: Tensor):
        return upstream[..., None] * ctx.saved_tensors[0], None, None, None

    @staticmethod
    def vmap(info, in_dims: tuple, log_hazard: Tensor, risk_set: CoxRiskSet, efron: bool, sample_weight: Any):
        first = [
            value if dim is None else value.movedim(dim, 0)
            for value, dim in ((log_hazard, in_dims[0]), (sample_weight, in_dims[3]))
        ]
        return _CoxLoss.apply(first[0], risk_set, efron, first[1]), (0, 0)


# Torch asks for it at every call, and finding it takes as long as a third of a small loss.
_CoxLoss.forward.__signature__ = inspect.signature(_CoxLoss.forward)  # type: ignore[attr-defined]
