"""Segmentation networks by name: the plain U-Net and the published one."""

from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.modules.attention import Attention
from mmdls.modules.backbones import ResNet18Backbone
from mmdls.modules.segmentation._blocks import STRUCTURES, ConvBlock, PaddedNet
from mmdls.modules.segmentation._monai import MonaiNet
from mmdls.registry import segmentation_nets

__all__ = ["PublishedSegmentationNet", "UNet", "make_segmentation_net"]


def make_segmentation_net(choice: Any, in_channels: int = 1, **params: Any) -> nn.Module:
    """Build a segmentation network by name.

    Parameters
    ----------
    choice : str or class
        A name in ``mmdls.registry.segmentation_nets``; ``"monai:<Name>"`` for a network of ``monai.networks.nets``
        (see :class:`MonaiNet`); or a class that keeps the contract.
    in_channels : int, default=1
    **params
        Further arguments of the network.

    Returns
    -------
    torch.nn.Module

    Examples
    --------
    >>> import torch
    >>> net = make_segmentation_net("unet", width=4)
    >>> net(torch.zeros(1, 1, 37, 50))["lung"].shape
    torch.Size([1, 1, 37, 50])
    """
    if isinstance(choice, str) and choice.startswith("monai:"):
        return MonaiNet(choice.removeprefix("monai:"), in_channels=in_channels, **params)
    cls = choice if callable(choice) else segmentation_nets[choice]
    return cls(in_channels=in_channels, **params)


@segmentation_nets.register("unet")
class UNet(PaddedNet):
    """The plain U-Net: two convolutions a level, skip connections, group normalisation.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=16
        Channels at full size; each coarser level has twice as many.
    depth : int, default=4
        Times the image is halved.

    References
    ----------
    .. [1] Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image segmentation. MICCAI,
       2015.

    Examples
    --------
    >>> import torch
    >>> net = UNet(width=4, depth=2)
    >>> {name: tuple(logits.shape) for name, logits in net(torch.zeros(1, 1, 37, 50)).items()}
    {'lung': (1, 1, 37, 50), 'lesion': (1, 1, 37, 50)}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(1)],
        "depth": [count(1, 10)],
    }

    def __init__(self, in_channels: int = 1, width: int = 16, depth: int = 4):
        super().__init__()
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ConvBlock(before, after, 2) for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            ConvBlock(fine + coarse, fine, 2) for fine, coarse in zip(widths[:-1], widths[1:], strict=True)
        )
        self.head = nn.Conv2d(width, len(STRUCTURES), 1)

    def _logits(self, image: Tensor) -> Tensor:
        maps = []
        for level, block in enumerate(self.down):
            image = block(functional.max_pool2d(image, 2) if level else image)
            maps.append(image)
        features = maps.pop()
        for skip, block in zip(reversed(maps), reversed(self.up), strict=True):
            features = block(torch.cat([skip, functional.interpolate(features, scale_factor=2.0)], dim=1))
        return self.head(features)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([8, 16, 32])}


class _HalfResNet18Backbone(ResNet18Backbone):
    blocks: Sequence[int] = (2, 2)


@segmentation_nets.register("published")
class PublishedSegmentationNet(PaddedNet):
    """The segmentor of the published MM-DLS: half a ResNet-18, self-attention for the lesion, two plain decoders.

    Differs from the original in two ways. It normalises over groups of channels, not over the batch, so that an image's
    masks do not depend on the images beside it; and it interpolates logits, not probabilities, to the image's size.

    Parameters
    ----------
    in_channels : int, default=1
        The original has 3.
    width : int, default=64
        Channels of the stem.

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.
    .. [2] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.

    Examples
    --------
    >>> import torch
    >>> net = PublishedSegmentationNet(width=8)
    >>> {name: tuple(logits.shape) for name, logits in net(torch.zeros(1, 1, 37, 50)).items()}
    {'lung': (1, 1, 37, 50), 'lesion': (1, 1, 37, 50)}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "width": [count(2)],
    }

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.multiple = 8
        self.encoder = _HalfResNet18Backbone(in_channels, width)
        channels = self.encoder.out_channels[-1]
        self.attention = Attention(channels, n_heads=4)
        self.decoders = nn.ModuleDict({name: self._decoder(channels) for name in STRUCTURES})

    @staticmethod
    def _decoder(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels // 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, 1, 1),
        )

    def _logits(self, image: Tensor) -> Tensor:
        lung = self.encoder(image)[-1]
        tokens = lung.flatten(2).transpose(1, 2)
        lesion = lung + self.attention(tokens, tokens, tokens).transpose(1, 2).unflatten(2, lung.shape[-2:])
        logits = torch.cat([self.decoders["lung"](lung), self.decoders["lesion"](lesion)], dim=1)
        return functional.interpolate(logits, image.shape[-2:], mode="bilinear")
