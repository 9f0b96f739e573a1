"""Densely connected networks with group normalisation."""

from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.modules.backbones._convolutions import stem
from mmdls.modules.backbones._normalisation import group_norm
from mmdls.registry import backbones

__all__ = ["DenseNet121Backbone"]


class _Layer(nn.Module):
    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = group_norm(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        found = self.conv1(self.norm1(image, relu=True))
        return torch.cat([image, self.conv2(self.norm2(found, relu=True))], dim=1)


class _Transition(nn.Module):
    def __init__(self, in_channels: int):
        super().__init__()
        self.norm = group_norm(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(self.norm(image, relu=True)), 2, ceil_mode=1 in image.shape[2:])


@backbones.register("densenet121")
class DenseNet121Backbone(nn.Module):
    """DenseNet of 121 layers, each of which reads all before it; group normalisation, one input channel by default.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=64
        Channels of the first convolution; each layer adds half as many. A multiple of 2.

    References
    ----------
    .. [1] Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR, 2017.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018.

    Examples
    --------
    >>> import torch
    >>> backbone = DenseNet121Backbone(width=8)
    >>> [tuple(each.shape[2:]) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(16, 16), (8, 8), (4, 4), (2, 2)]
    """

    searched = False  # takes long, and small cohorts rarely repay it
    blocks = (6, 12, 24, 16)
    # The place of the layers in files that were written from a plain sequence of them.
    sequence = ("features",)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(2)],
    }

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", group_norm(width))
        self.out_channels = []
        channels, growth = width, width // 2
        for stage, depth in enumerate(self.blocks, 1):
            block = nn.Sequential()
            for layer in range(1, depth + 1):
                block.add_module(f"denselayer{layer}", _Layer(channels, growth))
                channels += growth
            self.features.add_module(f"denseblock{stage}", block)
            self.out_channels.append(channels)
            if stage < len(self.blocks):
                self.features.add_module(f"transition{stage}", _Transition(channels))
                channels //= 2
        self.features.add_module("norm5", group_norm(channels))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/4, 1/8, 1/16 and 1/32 of its size."""
        part: Any = self.features
        image = stem(part.conv0, part.norm0, image)
        maps = []
        for stage in range(1, len(self.blocks) + 1):
            image = part.get_submodule(f"denseblock{stage}")(image)
            maps.append(image)
            if stage < len(self.blocks):
                image = part.get_submodule(f"transition{stage}")(image)
        return [*maps[:-1], part.norm5(maps[-1], relu=True)]

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([16, 32, 64])}
