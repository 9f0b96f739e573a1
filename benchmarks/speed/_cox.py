"""The Cox loss beside other implementations and formulas."""

import argparse
import importlib
import importlib.util

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed._measuring import Step, Variant, compared, difference
from benchmarks.speed._report import Report
from mmdls.modules import cox_loss
from mmdls.modules.losses import CoxRiskSet


def _survival_data(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log hazards in double precision, events, and times in whole days of up to ten years: ties."""
    generator = torch.Generator().manual_seed(0)
    log_hazard = torch.randn(n, generator=generator, dtype=torch.float64)
    time = torch.empty(n, dtype=torch.float64).exponential_(1 / 900, generator=generator).clamp(1, 3650).ceil()
    return log_hazard, torch.rand(n, generator=generator) < 0.6, time


def pycox_formula(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    """The formula of pycox's CoxPH: sort, running sums of hazards; tied times are taken as they come."""
    order = torch.argsort(time, descending=True)
    log_hazard, event = log_hazard[order], event[order]
    shift = log_hazard.max()
    log_at_risk = (log_hazard - shift).exp().cumsum(0).add(1e-7).log() + shift
    return -((log_hazard - log_at_risk) * event).sum() / event.sum()


def quadratic_cox(log_hazard: Tensor, event: Tensor, time: Tensor) -> Tensor:
    """Efron's partial likelihood as it is defined, risk set by risk set."""
    total = log_hazard.new_zeros(())
    for t in torch.unique(time[event]):
        tied = log_hazard[event & (time == t)]
        at_risk = log_hazard[time >= t].exp().sum()
        share = torch.arange(len(tied), dtype=log_hazard.dtype) / len(tied)
        total = total + (at_risk - share * tied.exp().sum()).log().sum() - tied.sum()
    return total / event.sum()


def cox(device: str, how: str, n: int, ties: str) -> Step:
    """Forward and backward of a Cox loss."""
    log_hazard, event, time = (x.to(device) for x in _survival_data(n))
    # torchsurv computes in single precision whatever it is given.
    log_hazard = log_hazard.float() if how != "quadratic" else log_hazard
    log_hazard.requires_grad_()
    if how == "sorted once":
        kept = CoxRiskSet.of(event, time)
        loss = lambda: cox_loss(log_hazard, event, time, ties, risk_set=kept)  # noqa: E731
    elif how == "torchsurv":
        from torchsurv.loss.cox import neg_partial_log_likelihood

        when, n_events = time.float(), int(event.sum())
        loss = lambda: neg_partial_log_likelihood(log_hazard, event, when, ties, "sum") / n_events  # noqa: E731
    elif how == "ours":
        loss = lambda: cox_loss(log_hazard, event, time, ties)  # noqa: E731
    else:
        loss = lambda: pycox_formula(log_hazard, event, time)  # noqa: E731

    def step() -> dict[str, np.ndarray]:
        log_hazard.grad = None
        value = loss()
        value.backward()
        return {"loss": value.detach().cpu().numpy(), "gradient": log_hazard.grad.cpu().numpy()}

    return step


def cox_losses(options: argparse.Namespace, say: Report) -> None:
    """Row (d)."""
    hows = ["ours", "sorted once", "pycox's formula"]
    if importlib.util.find_spec("torchsurv") is not None:
        hows.append("torchsurv")
    for n in (100, 1000, 10**4) if options.quick else (50, 100, 300, 1000, 10**4, 10**5, 10**6):
        calls, repeats = max(1, min(300, 500_000 // n)), max(say.repeats, 7)
        for ties in ("efron", "breslow"):
            found = say.measure({how: Variant(cox, {"how": how, "n": n, "ties": ties}, calls) for how in hows}, repeats)
            job = f"Cox loss ({ties.capitalize()}) and gradient, n = {n:,}"
            if "torchsurv" in hows:
                note = difference(found["ours"].answer, found["torchsurv"].answer)
                goal = 2 if n >= 10**4 and ties == "efron" else 1
                say.row(compared("d", job, "ours", "torchsurv", found, goal, note))
                say.row(compared("d", job, "sorted once", "torchsurv", found))
            if ties == "efron":
                note = "another likelihood: ties as they come"
                say.row(compared("d", job, "ours", "pycox's formula", found, note=note))
    log_hazard, event, time = _survival_data(2000)
    found = [formula(log_hazard, event, time).item() for formula in (cox_loss, quadratic_cox)]
    say.line(
        f"(d) In double precision at n = 2,000 with ties our loss is {found[0]:.12f}, the definition summed risk set "
        f"by risk set {found[1]:.12f}: they differ by {abs(found[0] / found[1] - 1):.0e} (wanted: 1e-10). torchsurv "
        "adds up in single precision whatever it is given, so no agreement with it can be closer than about 1e-6; "
        "values by R are compared in `tests/test_cox_loss.py`."
    )
