"""Normalisation that never looks at the other images of a batch."""

import torch
from torch import Tensor, nn

__all__ = ["FrozenNorm", "group_norm"]


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with as many as 8 groups."""
    groups = next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


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

    def forward(self, image: Tensor) -> Tensor:
        """Maps (N, C, ...) -> the same, normalised."""
        shape = (1, -1, *[1] * (image.ndim - 2))
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(shape).to(image.dtype), image, scale.view(shape).to(image.dtype))
