"""ConvNeXt: a residual network in the manner of transformers."""

from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.registry import backbones

__all__ = ["ConvNeXtTinyBackbone"]


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        normed = functional.layer_norm(
            image.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normed.permute(0, 3, 1, 2)


class _ToLast(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.permute(0, 2, 3, 1)


class _Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            _ToLast(),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layer_scale * self.block(image).permute(0, 3, 1, 2)


@backbones.register("convnext_tiny")
class ConvNeXtTinyBackbone(nn.Module):
    """ConvNeXt-T: 18 blocks of a wide depthwise convolution and a perceptron of each pixel; layer normalisation.

    Blocks start as nearly nothing (layer scale 1e-6), which suits weights from a file; from scratch on a small cohort
    it learns slowly.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=96
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] Liu Z et al. A ConvNet for the 2020s. CVPR, 2022.

    Examples
    --------
    >>> import torch
    >>> backbone = ConvNeXtTinyBackbone(width=8)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    """

    searched = False  # takes long, and small cohorts rarely repay it
    blocks = (3, 3, 9, 3)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(1)],
    }

    def __init__(self, in_channels: int = 1, width: int = 96):
        super().__init__()
        self.out_channels = [width * 2**stage for stage in range(len(self.blocks))]
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(in_channels, width, 4, stride=4), _ChannelNorm(width)),
        )
        for stage, (depth, channels) in enumerate(zip(self.blocks, self.out_channels, strict=True)):
            if stage:
                halved = nn.Conv2d(channels // 2, channels, 2, stride=2)
                self.features.append(nn.Sequential(_ChannelNorm(channels // 2), halved))
            self.features.append(nn.Sequential(*(_Block(channels) for _ in range(depth))))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/4, 1/8, 1/16 and 1/32 of its size; small images are padded to 32 pixels."""
        height, width = image.shape[-2:]
        image = functional.pad(image, (0, max(0, 32 - width), 0, max(0, 32 - height)))
        maps = []
        for place, layer in enumerate(self.features):
            image = layer(image)
            if place % 2:
                maps.append(image)
        return maps

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([24, 48, 96])}
