"""Means and maxima over the slices of a bag."""

from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count
from mmdls.modules.masked import masked_mean
from mmdls.registry import poolings

__all__ = ["MaxPooling", "MeanPooling", "TopKPooling"]


@poolings.register("mean")
class MeanPooling(nn.Module):
    """Mean over the real slices.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding.

    Examples
    --------
    >>> import torch
    >>> slices = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> mask = torch.tensor([[True, True, False]])  # the third slice is padding
    >>> MeanPooling(1)(slices, mask).tolist()
    [[2.0]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
    }

    def __init__(self, in_features: int):
        super().__init__()

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        return masked_mean(slices, mask)


@poolings.register("max")
class MaxPooling(nn.Module):
    """Maximum over the real slices, feature by feature.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding.

    Examples
    --------
    >>> import torch
    >>> slices = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> mask = torch.tensor([[True, True, False]])  # the third slice is padding
    >>> MaxPooling(1)(slices, mask).tolist()
    [[3.0]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
    }

    def __init__(self, in_features: int):
        super().__init__()

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        if slices.shape[1] == 0:
            return slices.new_zeros(slices.shape[0], slices.shape[2])
        highest = slices.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        return torch.where(mask.any(dim=1, keepdim=True), highest, 0.0)


@poolings.register("top_k")
class TopKPooling(nn.Module):
    """Mean of the highest values over the real slices, feature by feature: between the maximum and the mean.

    A lesion fills a few slices of many: the mean of all dilutes it, and the maximum hangs on a single one.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding.
    k : int, default=4
        Values taken; all of a patient with fewer slices.

    Raises
    ------
    ValueError
        If ``k`` is below 1.

    References
    ----------
    .. [1] Durand T, Thome N, Cord M. WELDON: weakly supervised learning of deep convolutional neural networks. CVPR,
       2016.

    Examples
    --------
    >>> import torch
    >>> slices = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]])
    >>> mask = torch.tensor([[True, True, True, False]])  # the fourth slice is padding
    >>> TopKPooling(1, k=2)(slices, mask).tolist()
    [[4.0]]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "k": [count(1)],
    }

    def __init__(self, in_features: int, k: int = 4):
        super().__init__()
        self.k = k

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        k = min(self.k, slices.shape[1])
        # From the highest: the values at padded places come last, and do not count.
        highest = slices.masked_fill(~mask[..., None], -torch.inf).topk(k, dim=1).values
        return masked_mean(highest, torch.arange(k, device=mask.device) < mask.sum(dim=1, keepdim=True))

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"k": optuna.distributions.CategoricalDistribution([2, 4, 8])}
