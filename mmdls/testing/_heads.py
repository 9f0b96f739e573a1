"""The contract of the heads of each kind of task."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmdls.modules.heads import is_of_many
from mmdls.testing._assertions import close, no_batch_statistics, seeded

__all__ = ["check_class_head", "check_competing_risks_head", "check_regression_head", "check_survival_head"]


def check_class_head(head: Callable[..., nn.Module]) -> None:
    """Probabilities of classes, and a loss that training lowers; weights repeat patients, their order is nothing.

    Parameters
    ----------
    head : class or callable
        Called with the width of the features and the number of classes, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import ClassHead
    >>> check_class_head(ClassHead)
    """
    with seeded():
        n, n_classes = 60, 3
        features = torch.randn(n, 8)
        target = torch.bucketize(features[:, 0].contiguous(), torch.tensor([-0.5, 0.5]))
        weight = torch.arange(n) % 3 + 0.0
        net: Any = head(8, n_classes)
        no_batch_statistics(net)
        net.prepare(target, weight)
        parameters = _train(net, features, target)
        probabilities = net.probabilities(parameters)
        assert probabilities.shape == (n, n_classes), f"expected (B, K); got {tuple(probabilities.shape)}"
        assert (probabilities > 0).all(), "every probability must be above 0"
        close(probabilities.sum(dim=1), torch.ones(n), "probabilities must sum to 1")
        right = (probabilities.argmax(dim=1) == target).float().mean()
        assert right > 0.6, f"classes that follow a feature must be learned; {right:.0%} are right"
        rows = torch.repeat_interleave(torch.arange(n), weight.long())
        rows = rows[torch.randperm(len(rows))]
        repeated = net.loss(parameters[rows], target[rows], None)
        close(net.loss(parameters, target, weight), repeated, "a weight must count as a repetition, in any order")


def check_survival_head(head: Callable[..., nn.Module]) -> None:
    """Permutation-invariant loss, one sign of risk, survival that starts at 1 and never rises.

    Parameters
    ----------
    head : class or callable
        Called with the width of the features, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import CoxHead
    >>> check_survival_head(CoxHead)
    """
    with seeded():
        n = 120
        signal = torch.randn(n)
        features = torch.cat([signal[:, None], torch.randn(n, 7)], dim=1)
        time = (torch.distributions.Exponential(torch.exp(signal) / 20).sample() + 0.5).round().clamp(min=1).double()
        event = torch.rand(n) < 0.7
        net: Any = head(8)
        no_batch_statistics(net)
        net.prepare(event, time)
        parameters = _train(net, features, event, time)
        order = torch.randperm(n)
        permuted = net.loss(parameters[order], event[order], time[order])
        close(permuted, net.loss(parameters, event, time), "the order of patients changed the loss")
        silent = net.loss(net(features), torch.zeros(n, dtype=torch.bool), time)
        assert torch.isfinite(silent) and silent.requires_grad, "no event must give a finite, connected loss"
        risk = net.risk(parameters)
        assert risk.shape == (n,), f"risk must have shape ({n},); got {tuple(risk.shape)}"
        # Heads of many parameters have learned these patients by heart, and noise with the signal.
        assert np.corrcoef(risk, signal)[0, 1] > 0.25, "higher risk must mean earlier event"
        net.fit_baseline(parameters, event, time)
        _check_times(net)
        grid = torch.linspace(0, float(time.max()) + 5, 50, dtype=torch.float64)
        survival = net.survival_function(parameters, grid)
        assert survival.shape == (n, 50), f"survival must be (B, T); got {tuple(survival.shape)}"
        close(survival[:, 0], torch.ones(n), "S(0) must be 1")
        assert (survival.diff(dim=1) <= 1e-9).all() and (survival >= 0).all(), "survival must never rise"
        assert np.corrcoef(survival.mean(dim=1), signal)[0, 1] < -0.5, "higher risk must mean lower survival"


def check_competing_risks_head(head: Callable[..., nn.Module]) -> None:
    """Permutation-invariant loss, incidences that never fall and sum with survival to 1, one sign of risk.

    Parameters
    ----------
    head : class or callable
        Called with the width of the features and the number of causes, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import CauseSpecificCoxHead
    >>> check_competing_risks_head(CauseSpecificCoxHead)
    """
    with seeded():
        n, n_causes = 90, 3  # nobody has an event of the third cause
        signal = torch.randn(n)
        features = torch.cat([signal[:, None], torch.randn(n, 3)], dim=1)
        rates = torch.stack([torch.exp(signal), torch.exp(-signal)], dim=1) / 20
        months = torch.distributions.Exponential(rates).sample()
        time = (months.min(dim=1).values + 0.5).round().clamp(min=1).double()
        cause = torch.where(torch.rand(n) < 0.8, months.argmin(dim=1) + 1, 0)
        net: Any = head(4, n_causes)
        no_batch_statistics(net)
        net.prepare(cause, time)
        parameters = _train(net, features, cause, time)
        order = torch.randperm(n)
        permuted = net.loss(parameters[order], cause[order], time[order])
        close(permuted, net.loss(parameters, cause, time), "the order of patients changed the loss")
        silent = net.loss(net(features), torch.zeros_like(cause), time)
        assert torch.isfinite(silent) and silent.requires_grad, "no event must give a finite, connected loss"
        net.fit_baseline(parameters, cause, time)
        _check_times(net)
        grid = torch.linspace(0, float(time.max()) + 5, 50, dtype=torch.float64)
        survival, incidence = net.survival_function(parameters, grid), net.cumulative_incidence(parameters, grid)
        assert incidence.shape == (n, n_causes, 50), f"incidence must be (B, K, T); got {tuple(incidence.shape)}"
        close(incidence.sum(dim=1) + survival, torch.ones(n, 50), "incidences and survival must sum to 1", 1e-10)
        assert (incidence[:, :, 0] == 0).all(), "the incidence at 0 must be 0"
        assert (incidence.diff(dim=2) >= 0).all(), "incidences must never fall"
        risk = net.risk(parameters)
        assert risk.shape == (n, n_causes), f"risk must be (B, K); got {tuple(risk.shape)}"
        for k, sign in enumerate((1, -1)):
            assert sign * np.corrcoef(risk[:, k], signal)[0, 1] > 0.3, "higher risk must mean more events of the cause"
            assert np.corrcoef(incidence[:, k].mean(dim=1), risk[:, k])[0, 1] > 0.5, "risk must follow the incidence"


def check_regression_head(head: Callable[..., nn.Module]) -> None:
    """One finite value a patient, and a loss that training lowers; weights repeat patients, their order is nothing.

    Parameters
    ----------
    head : class or callable
        Called with the width of the features, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import RegressionHead
    >>> check_regression_head(RegressionHead)
    """
    with seeded():
        n = 60
        features = torch.randn(n, 4)
        target = features[:, 0] + 0.3 * torch.randn(n)
        target = ((target - target.mean()) / target.std()).double()
        weight = torch.arange(n) % 3 + 0.0
        net: Any = head(4)
        no_batch_statistics(net)
        net.prepare(target, weight)
        parameters = _train(net, features, target)
        value = net.value(parameters)
        assert value.shape == (n,) and torch.isfinite(value).all(), f"expected a finite (B,); got {tuple(value.shape)}"
        error = float((value - target).square().mean().sqrt())
        assert error < 0.6, f"a line must be learned, in the unit of the target; the error is {error:.2f} of its std"
        close(net.value(parameters[:1]), value[:1], "a patient alone must equal itself in a batch")
        rows = torch.repeat_interleave(torch.arange(n), weight.long())
        rows = rows[torch.randperm(len(rows))]
        repeated = net.loss(parameters[rows], target[rows], None)
        close(net.loss(parameters, target, weight), repeated, "a weight must count as a repetition, in any order")


def _check_times(net: Any) -> None:
    """The months on which the fitted curves are known."""
    assert getattr(net, "times", None) is not None, (
        "fit_baseline must set times, a tensor (T,) of the rising months on which the fitted curves are known"
    )
    assert (net.times.diff() > 0).all(), "times must rise"


def _train(net: Any, features: Tensor, *targets: Tensor) -> Tensor:
    """Train a head for a while; its parameters for the same patients."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = net.loss(net(features), *targets, None)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], "training must lower the loss"
    parameters = net.eval()(features).detach()
    if is_of_many(net):
        _check_losses_of_many(net, parameters, *targets)
    return parameters


def _check_losses_of_many(net: Any, parameters: Tensor, *targets: Tensor) -> None:
    """Losses of several parameters at once, and their gradients, must be those of each."""
    several = torch.stack([parameters, parameters * 0, -parameters / 2]).requires_grad_()
    weights = (torch.arange(several.shape[:2].numel()) % 4 / 2).view(several.shape[:2])
    for weight, name in ((None, "losses"), (weights, "weighted losses")):
        together = net.loss(several, *targets, weight)
        each = [net.loss(own, *targets, None if weight is None else weight[k]) for k, own in enumerate(several)]
        close(together, torch.stack(each), f"{name} of several parameters must be those of each")
        one, other = (torch.autograd.grad(total, several)[0] for total in (together.sum(), torch.stack(each).sum()))
        close(one, other, f"gradients of {name} of several parameters must be those of each")
