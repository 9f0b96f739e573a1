"""Heads of competing risks: one hazard a cause, and cumulative incidences that sum with survival to 1.

Beside ``prepare``, ``forward`` and ``loss`` (see :mod:`mmdls.modules.heads`; the targets are cause, 0 = censored and
1, 2, ... = the cause of the event, and time) a head of competing risks is built with the number of causes and has:

* ``fit_baseline(parameters, cause, time, sample_weight)`` is called once after training, with the training rows;
* ``times``: the grid (T,) in months on which the fitted curves are known;
* ``survival_function(parameters, time (T,)) -> (B, T)``: probability of no event of any cause;
* ``cumulative_incidence(parameters, time (T,)) -> (B, K, T)``: probability of an event of each cause; never falls, and
  sums over causes with the survival function to 1;
* ``risk(parameters) -> (B, K)``: higher = more likely, or earlier, event of the cause.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count, one_of
from mmdls.modules.heads import CoxHead
from mmdls.modules.piecewise import widths_of_steps
from mmdls.registry import competing_risks_heads

__all__ = ["CauseSpecificCoxHead"]

_NUMBERS = 2**24  # of patients, causes and times that are held at once


@competing_risks_heads.register("cause_specific_cox")
class CauseSpecificCoxHead(nn.Module):
    """Proportional hazards of every cause: one log hazard a cause, the baseline hazards fitted after training.

    The partial likelihood of a cause takes events of other causes as censored; their product is the likelihood of the
    cause-specific hazards. With one cause this is :class:`~mmdls.modules.CoxHead`, in loss, baseline and survival.

    Survival is ``S(t) = exp(-sum_k H_k(t))``. At every event time of the training rows the loss of survival,
    ``S(t-) - S(t)``, is divided among the causes in proportion to the steps of their cumulative hazards. This is the
    integral of ``S dH_k`` if hazards are constant during a step, so that cumulative incidences and survival sum to 1
    exactly, also where steps are large; ``S(t-) dH_k`` would exceed 1 there.

    Parameters
    ----------
    in_features : int
    n_causes : int
    ties : {"efron", "breslow"}, default="efron"

    Raises
    ------
    ValueError
        If there is no cause, or ``ties`` is unknown.

    References
    ----------
    .. [1] Prentice RL et al. The analysis of failure times in the presence of competing risks. Biometrics, 1978.
    .. [2] Putter H, Fiocco M, Geskus RB. Tutorial in biostatistics: competing risks and multi-state models. Statistics
       in Medicine, 2007.

    Examples
    --------
    >>> import torch
    >>> cause, time = torch.tensor([1, 0, 2, 1]), torch.tensor([3.0, 5.0, 8.0, 12.0])
    >>> head = CauseSpecificCoxHead(2, n_causes=2)
    >>> parameters = head(torch.zeros(4, 2))
    >>> head.fit_baseline(parameters, cause, time)
    >>> times = torch.tensor([4.0, 12.0])
    >>> head.cumulative_incidence(parameters, times).shape
    torch.Size([4, 2, 2])
    >>> whole = head.cumulative_incidence(parameters, times).sum(dim=1) + head.survival_function(parameters, times)
    >>> torch.allclose(whole, torch.ones(4, 2, dtype=torch.float64))
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_causes": [count(1)],
        "ties": [one_of("efron", "breslow")],
    }

    def __init__(self, in_features: int, n_causes: int, ties: str = "efron"):
        super().__init__()
        self.causes = nn.ModuleList(CoxHead(in_features, ties) for _ in range(n_causes))

    def prepare(self, cause: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> None:
        """Start from the baseline hazards of patients who are all alike, so that risks are known during training."""
        self.fit_baseline(time.new_zeros(len(time), len(self.causes)), cause, time, sample_weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) -> log hazards (B, K)."""
        return torch.cat([head(features) for head in self.causes], dim=1)

    def loss(self, parameters: Tensor, cause: Tensor, time: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Negative log partial likelihood of all causes per event, so that frequent causes count for more."""
        weight = torch.ones_like(parameters[:, 0]) if sample_weight is None else sample_weight.to(parameters)
        n_events = weight[cause > 0].sum().clamp(min=1e-12)
        losses = []
        for k, head in enumerate(self._heads()):
            event = cause == k + 1
            fraction = weight[event].sum() / n_events
            losses.append(fraction * head.loss(parameters[:, k : k + 1], event, time, sample_weight))
        return torch.stack(losses).sum()

    def fit_baseline(
        self, parameters: Tensor, cause: Tensor, time: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Estimate the cumulative baseline hazard of every cause at the times seen in the training rows."""
        for k, head in enumerate(self._heads()):
            head.fit_baseline(parameters[:, k : k + 1], cause == k + 1, time, sample_weight)

    @property
    def times(self) -> Tensor | None:
        """The different times of the training rows (T,); None before :meth:`prepare`."""
        return self._heads()[0].times

    def risk(self, parameters: Tensor) -> Tensor:
        """Expected months lost to each cause until just beyond the training follow-up, (B, K).

        A cause-specific hazard alone does not rank patients by their incidence, which other causes lower.
        """
        times, _ = self._baseline()
        return self.cumulative_incidence(parameters, times) @ widths_of_steps(times)[1:]

    def survival_function(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Log hazards (B, K), times (T,) -> probability of no event of any cause (B, T)."""
        times, log_hazard = self._baseline()
        place = torch.searchsorted(times, time.to(times), right=True)
        log_baseline = functional.pad(log_hazard, (1, 0), value=-torch.inf)[:, place]
        return torch.exp(-(log_baseline + parameters.double()[:, :, None]).exp().sum(dim=1))

    def cumulative_incidence(self, parameters: Tensor, time: Tensor) -> Tensor:
        """Log hazards (B, K), times (T,) -> probability of an event of each cause (B, K, T)."""
        times, log_hazard = self._baseline()
        log_step = _log_steps(log_hazard)
        steps = (log_step > -torch.inf).any(dim=0)
        times, log_hazard, log_step = times[steps], log_hazard[:, steps], log_step[:, steps]
        place = torch.searchsorted(times, time.to(times), right=True)
        rows = max(1, _NUMBERS // max(log_hazard.numel(), 1))
        found = []
        for block in parameters.double().split(rows):
            survival = torch.exp(-(log_hazard + block[:, :, None]).exp().sum(dim=1))
            lost = -torch.diff(survival, prepend=survival.new_ones(len(block), 1)).clamp(max=0)
            fraction = torch.softmax(log_step + block[:, :, None], dim=1)
            found.append(functional.pad((fraction * lost[:, None]).cumsum(dim=2), (1, 0))[:, :, place])
        return torch.cat(found)

    def _heads(self) -> list[CoxHead]:
        return [head for head in self.causes if isinstance(head, CoxHead)]

    def _baseline(self) -> tuple[Tensor, Tensor]:
        """Times (T,) and log cumulative baseline hazards (K, T)."""
        hazards = [head.log_cumulative_hazard for head in self._heads()]
        known = [hazard for hazard in hazards if hazard is not None]
        if self.times is None or len(known) < len(hazards):
            raise RuntimeError("the baseline hazards are unknown; call fit_baseline with training rows first.")
        return self.times, torch.stack(known)


def _log_steps(log_cumulative: Tensor) -> Tensor:
    """Logarithms of the steps of cumulative hazards (K, T), given by their logarithms; -inf where there is no step."""
    before = functional.pad(log_cumulative, (1, 0), value=-torch.inf)[:, :-1]
    rises = log_cumulative > before
    ratio = torch.where(rises, before - log_cumulative, -1.0)
    return torch.where(rises, log_cumulative + torch.log(-torch.expm1(ratio)), -torch.inf)
