"""Means and weights over what is there."""

import torch
from torch import Tensor

__all__ = ["masked_mean", "masked_softmax"]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (B, S, D) over S where mask (B, S); zeros where the mask is empty."""
    total = values.masked_fill(~mask[..., None], 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where mask; zeros elsewhere and where the mask is empty."""
    score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
    return torch.softmax(score, dim=-1).masked_fill(~mask, 0.0)
