"""Small networks that are trained from scratch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import Each, count
from mmdls.kernels import antialiased_sums, conv3x3, sums_in_one_pass
from mmdls.modules.backbones._convolutions import is_conv3x3
from mmdls.registry import backbones

__all__ = ["AntialiasedBackbone", "ConvBackbone"]

_EPSILON = 1e-5  # of the normalisation


@backbones.register("antialiased")
class AntialiasedBackbone(nn.Module):
    """Small network that halves the image in every stage with little aliasing; the default for slices.

    A stage blurs the map in front of it by the binomial filter (1, 2, 1) and subsamples it [1]_, normalises it over
    all channels and pixels of the image [2]_, and puts a convolution with ReLU beside it: the next map is both, the
    blurred one and what was found in it [3]_. So the mean of the last map holds what was found at every scale, fine
    textures too, and a shift of the image changes it little. What is carried on is not normalised, since the grey
    level and the size of a structure are information. The first convolution strides by itself, as in [1]_: blurring
    the image in front of it would take away fine textures before any filter sees them. Shifts of noise as fine as a
    pixel are therefore still seen.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=8
        Channels that the first stage finds; each later stage finds twice as many as the one before.
    depth : int, default=3
        Stages; maps have 1/2, 1/4, 1/8, ... of the image's height and width.

    References
    ----------
    .. [1] Zhang R. Making convolutional networks shift-invariant again. ICML, 2019.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018. (With one group.)
    .. [3] Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR, 2017.

    Examples
    --------
    >>> import torch
    >>> backbone = AntialiasedBackbone(width=4)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(2, 1, 32, 32))], backbone.out_channels
    ([(2, 4, 16, 16), (2, 12, 8, 8), (2, 28, 4, 4)], [4, 12, 28])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(1)],
        "depth": [count(1, 10)],
    }

    # One thread computes so many in a few milliseconds; several would wait for one another longer.
    few_pixels: ClassVar[int] = 2**18

    def __init__(self, in_channels: int = 1, width: int = 8, depth: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 5, stride=2, padding=2)
        self.out_channels = [width * (2**stage - 1) for stage in range(1, depth + 1)]
        self.blurs = nn.ModuleList(_Blur(channels) for channels in self.out_channels[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, before, _EPSILON), nn.Conv2d(before, after - before, 3, padding=1))
            for before, after in pairwise(self.out_channels)
        )

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([8, 16, 32])}

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/2, 1/4, 1/8, ... of its size."""
        maps = [functional.relu(self.stem(image), inplace=True)]
        for blur, stage in zip(self.blurs, self.stages, strict=True):
            blurred = blur(maps[-1])
            maps.append(torch.cat([blurred, functional.relu(stage(blurred), inplace=True)], dim=1))
        return maps

    def pixel_means(self, image: Tensor) -> Tensor | None:
        """Image (N, C, H, W) -> means over the pixels of the last map (N, D), where no map has to be made for them."""
        layers: list[Any] = [self.stem, *(layer for stage in self.stages for layer in stage.children())]
        parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        sums = antialiased_sums(image, parameters, _EPSILON)
        if sums is None:
            return None
        height, width = (-(-length // 2 ** len(self.out_channels)) for length in image.shape[2:])
        return sums / (height * width)


class _Blur(nn.Module):
    """The binomial filter (1, 2, 1) in both directions, at every second pixel."""

    def __init__(self, channels: int):
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.kernel: Tensor
        self.register_buffer("kernel", torch.outer(line, line).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return functional.conv2d(image, self.kernel, stride=2, padding=1, groups=len(self.kernel))


@backbones.register("conv")
class ConvBackbone(nn.Module):
    """Plain 3 x 3 convolutions with ReLU; with the defaults, the encoder of the published MM-DLS.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=32
        Output channels of the first convolution; each further one has twice as many as the one before.
    strides : sequence of int, default=(1, 1)
        Stride of each convolution, which also says how many there are. Strides of 2 cost a quarter each and suit small
        slices.

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.

    Examples
    --------
    >>> import torch
    >>> backbone = ConvBackbone(width=4, strides=(2, 2))
    >>> [tuple(each.shape) for each in backbone(torch.zeros(2, 1, 32, 32))]
    [(2, 4, 16, 16), (2, 8, 8, 8)]
    """

    searched = False  # at full resolution it takes a hundred times as long as the default

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(1)],
        "strides": [Each(count(1))],
    }

    def __init__(self, in_channels: int = 1, width: int = 32, strides: Sequence[int] = (1, 1)):
        super().__init__()
        self.out_channels = [width * 2**layer for layer in range(len(strides))]
        before = [in_channels, *self.out_channels[:-1]]
        self.layers: Any = nn.ModuleList(
            nn.Conv2d(entering, leaving, 3, stride=stride, padding=1)
            for entering, leaving, stride in zip(before, self.out_channels, strides, strict=True)
        )

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([8, 16, 32])}

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> one feature map a layer."""
        maps = []
        for layer in self.layers:
            if is_conv3x3(layer):
                image = conv3x3(image, layer.weight, layer.bias, relu=True)
            else:
                image = functional.relu(layer(image), inplace=True)
            maps.append(image)
        return maps

    def pixel_means(self, image: Tensor) -> Tensor | None:
        """Image (N, C, H, W) -> means over the pixels of the last map (N, D), where no map has to be made for them."""
        if not all(map(is_conv3x3, self.layers)):
            return None
        sums = sums_in_one_pass(image, *zip(*((layer.weight, layer.bias) for layer in self.layers), strict=True))
        return None if sums is None else sums / image.shape[2:].numel()
