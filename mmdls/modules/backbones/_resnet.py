"""Residual networks with group normalisation."""

from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.modules.backbones._convolutions import Convolution, stem
from mmdls.modules.backbones._normalisation import group_norm
from mmdls.registry import backbones

__all__ = ["ResNet10Backbone", "ResNet18Backbone", "ResNet34Backbone", "ResNet50Backbone"]


class Shortcut(nn.Sequential):
    """Brings the input of a block to the size of its output."""

    def __init__(self, in_channels: int, out_channels: int, stride: Any, conv: Any):
        super().__init__(conv(in_channels, out_channels, 1, stride=stride, bias=False), group_norm(out_channels))


class PlainShortcut(nn.Module):
    """A shortcut without weights: leaves out what a stride leaves out, and adds channels of zeros.

    Parameters
    ----------
    shortcut : Shortcut
        The one whose place it takes.
    """

    def __init__(self, shortcut: Any):
        super().__init__()
        self.stride = tuple(shortcut[0].stride)
        self.added = shortcut[0].out_channels - shortcut[0].in_channels

    def forward(self, image: Tensor) -> Tensor:
        """Maps (N, C, ...) -> maps of the block's size."""
        kept = image[(slice(None), slice(None), *(slice(None, None, step) for step in self.stride))]
        return functional.pad(kept, (0, 0) * len(self.stride) + (0, self.added))


class Block(nn.Module):
    """Two convolutions of ``kernel``, of images or volumes."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: Any, kernel: Any = 3, conv: Any = Convolution):
        super().__init__()
        self.conv1 = conv(in_channels, width, kernel, stride=stride, padding=half(kernel), bias=False)
        self.bn1 = group_norm(width)
        self.conv2 = conv(width, width, kernel, padding=half(kernel), bias=False)
        self.bn2 = group_norm(width)
        changes = strides(stride) or in_channels != width
        self.downsample = Shortcut(in_channels, width, stride, conv) if changes else None

    def forward(self, image: Tensor) -> Tensor:
        """Maps (N, C, ...) -> maps (N, width, ...)."""
        inner = self.bn1(self.conv1(image), relu=True)
        shortcut = image if self.downsample is None else self.downsample(image)
        return self.bn2(self.conv2(inner), shortcut, relu=True)


class Bottleneck(nn.Module):
    """A convolution of ``kernel`` between two of 1; it strides in the middle, as the usual files of weights do."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: Any, kernel: Any = 3, conv: Any = Convolution):
        super().__init__()
        out_channels = 4 * width
        self.conv1 = conv(in_channels, width, 1, bias=False)
        self.bn1 = group_norm(width)
        self.conv2 = conv(width, width, kernel, stride=stride, padding=half(kernel), bias=False)
        self.bn2 = group_norm(width)
        self.conv3 = conv(width, out_channels, 1, bias=False)
        self.bn3 = group_norm(out_channels)
        changes = strides(stride) or in_channels != out_channels
        self.downsample = Shortcut(in_channels, out_channels, stride, conv) if changes else None

    def forward(self, image: Tensor) -> Tensor:
        """Maps (N, C, ...) -> maps (N, 4 * width, ...)."""
        inner = self.bn1(self.conv1(image), relu=True)
        inner = self.bn2(self.conv2(inner), relu=True)
        shortcut = image if self.downsample is None else self.downsample(image)
        return self.bn3(self.conv3(inner), shortcut, relu=True)


def half(kernel: Any) -> Any:
    """The padding with which a kernel of odd size, or odd sizes, keeps the size of a map."""
    return tuple(size // 2 for size in kernel) if isinstance(kernel, tuple) else kernel // 2


def strides(stride: Any) -> bool:
    """Whether a stride, or one of several, makes a map smaller."""
    return max(stride) > 1 if isinstance(stride, tuple) else stride > 1


class _ResNetBackbone(nn.Module):
    """The residual network of He et al. with group normalisation; subclasses name the depth."""

    blocks: Sequence[int]
    block: ClassVar[type[Block] | type[Bottleneck]] = Block
    # The places of the layers in files that were written from a plain sequence of them.
    sequence = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(1)],
    }

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = group_norm(width)
        self.out_channels = [self.block.expansion * width * 2**stage for stage in range(len(self.blocks))]
        before = width
        for stage, depth in enumerate(self.blocks):
            layers: list[nn.Module] = []
            for i in range(depth):
                layers.append(self.block(before, width * 2**stage, 2 if stage and i == 0 else 1))
                before = self.out_channels[stage]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/4, 1/8, 1/16 and 1/32 of its size."""
        image = stem(self.conv1, self.bn1, image)
        maps = []
        for stage in range(len(self.blocks)):
            image = self.get_submodule(f"layer{stage + 1}")(image)
            maps.append(image)
        return maps

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([16, 32, 64])}


@backbones.register("resnet10")
class ResNet10Backbone(_ResNetBackbone):
    """ResNet of 10 layers, one block a stage; group normalisation, one input channel by default.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018.

    Examples
    --------
    >>> import torch
    >>> backbone = ResNet10Backbone(width=8)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    """

    blocks: Sequence[int] = (1, 1, 1, 1)


@backbones.register("resnet18")
class ResNet18Backbone(_ResNetBackbone):
    """ResNet of 18 layers, two blocks a stage; group normalisation, one input channel by default.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018.

    Examples
    --------
    >>> import torch
    >>> backbone = ResNet18Backbone(width=8)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    searched = False  # takes long, and small cohorts rarely repay it


@backbones.register("resnet34")
class ResNet34Backbone(_ResNetBackbone):
    """ResNet of 34 layers, 3 to 6 blocks a stage; group normalisation, one input channel by default.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018.

    Examples
    --------
    >>> import torch
    >>> backbone = ResNet34Backbone(width=8)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    searched = False  # as above


@backbones.register("resnet50")
class ResNet50Backbone(_ResNetBackbone):
    """ResNet of 50 layers, 3 to 6 bottleneck blocks a stage; group normalisation, one input channel by default.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Wu Y, He K. Group normalization. ECCV, 2018.

    Examples
    --------
    >>> import torch
    >>> backbone = ResNet50Backbone(width=8)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]
    [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    block = Bottleneck
    searched = False  # as above
