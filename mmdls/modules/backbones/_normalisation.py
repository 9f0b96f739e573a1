"""Normalisation that never looks at the other images of a batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls import kernels

__all__ = ["FrozenNorm", "GroupNorm", "group_norm"]


def group_norm(channels: int) -> "GroupNorm":
    """Group normalisation with as many as 8 groups."""
    groups = next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
    return GroupNorm(groups, channels)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with what follows it in a network, by :func:`mmdls.kernels.group_norm`."""

    def forward(self, image: Tensor, added: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """Maps (N, C, ...) -> the same, normalised, with another map added, with or without ReLU."""
        return kernels.group_norm(image, self.num_groups, self.weight, self.bias, self.eps, added=added, relu=relu)


class FrozenNorm(nn.Module):
    """Normalisation by the statistics of the images on which weights were learned; only scale and shift are trained.

    Parameters
    ----------
    channels : int
    eps : float, default=1e-5
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps

    def forward(self, image: Tensor, added: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """Maps (N, C, ...) -> the same, normalised, with another map added, with or without ReLU."""
        shape = (1, -1, *[1] * (image.ndim - 2))
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        out = torch.addcmul(shift.view(shape).to(image.dtype), image, scale.view(shape).to(image.dtype))
        if added is not None:
            out = out + added
        return functional.relu(out, inplace=True) if relu else out
