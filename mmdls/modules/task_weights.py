"""Weights of tasks that are learned beside the network.

The contract: built with the number of tasks; ``forward(losses (T,)) -> scalar`` whose gradient trains the network. A
loss of exactly 0 is that of a task of which the batch knows nothing. Parameters are trained by the optimiser of the
network, at the learning rate ``learning_rate`` of the class.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmdls._parameters import count
from mmdls.registry import task_weights

__all__ = ["FamoWeights", "UncertaintyWeights"]


@task_weights.register("uncertainty")
class UncertaintyWeights(nn.Module):
    """Each loss is divided by a learned variance of its task, and the logarithm of the variance is added.

    The sum ``exp(-s) L + s / 2`` is least where the weight ``exp(-s)`` is ``1 / (2 L)``: a task with a large loss
    counts for less.

    Parameters
    ----------
    n_tasks : int

    References
    ----------
    .. [1] Kendall A, Gal Y, Cipolla R. Multi-task learning using uncertainty to weigh losses for scene geometry and
       semantics. CVPR, 2018.

    Examples
    --------
    >>> import torch
    >>> UncertaintyWeights(2)(torch.tensor([0.5, 2.0])).item()
    2.5
    """

    learning_rate = 0.025

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_tasks": [count(1)],
    }

    def __init__(self, n_tasks: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Losses (T,) -> their weighted sum."""
        known = losses != 0
        return (torch.exp(-self.log_variance) * losses + known * self.log_variance / 2).sum()


@task_weights.register("famo")
class FamoWeights(nn.Module):
    """FAMO: weights under which the losses of all tasks fall at about the same rate.

    The network descends on the weighted sum of the logarithms of the losses; a task whose logarithm fell more than
    those of others since the last step gets less weight in the next one. The fall is that from step to step, which is
    exact where a step sees all patients, and noisy where a batch is a small part of them.

    Parameters
    ----------
    n_tasks : int

    References
    ----------
    .. [1] Liu B, Feng Y, Stone P, Liu Q. FAMO: fast adaptive multitask optimization. NeurIPS, 2023.

    Examples
    --------
    >>> import torch
    >>> FamoWeights(2)(torch.tensor([0.5, 2.0])).shape
    torch.Size([])
    """

    learning_rate = 0.025
    least = 1e-3  # losses below it, such as negative log densities, count as this

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_tasks": [count(1)],
    }

    def __init__(self, n_tasks: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_tasks))
        self.before: Tensor
        self.register_buffer("before", torch.full((n_tasks,), torch.nan), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Losses (T,) -> a scalar with the gradient of FAMO."""
        known = losses.detach() != 0
        logs = losses.clamp(min=self.least).log()
        fall = torch.where(known, self.before - logs.detach(), 0.0).nan_to_num(0.0)
        weights = torch.softmax(self.logits.detach(), dim=0)
        # The optimiser takes this as the gradient of the logits, on which the network's own loss does not depend.
        self.logits.grad = weights * (fall - weights @ fall)
        self.before = torch.where(known, logs.detach(), self.before)
        weights = weights * known
        scale = (weights / losses.detach().clamp(min=self.least)).sum()
        return (weights * logs).sum() / scale.clamp(min=1e-12)
