"""A decoder over any backbone, in which lung and lesion attend to one another."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import count
from mmdls.modules.attention import Attention
from mmdls.modules.segmentation._blocks import STRUCTURES, ConvBlock, PaddedNet
from mmdls.registry import backbones, segmentation_nets

__all__ = ["CrossAttentionUNet"]


class _CrossAttention(nn.Module):
    """Lung tokens attend to lesion tokens and lesion tokens to lung tokens; both are added to the map they came from.

    Positions enter as fixed sines and cosines, so that any size of map is understood.
    """

    def __init__(self, channels: int, n_heads: int):
        super().__init__()
        self.split = nn.ModuleDict({name: nn.Conv2d(channels, channels, 1) for name in STRUCTURES})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(channels) for name in STRUCTURES})
        self.attention = nn.ModuleDict({name: Attention(channels, n_heads) for name in STRUCTURES})
        self.merge = nn.Conv2d(2 * channels, channels, 1)

    def tokens(self, features: Tensor) -> dict[str, Tensor]:
        """Features (N, D, H, W) -> tokens (N, H * W, D) of lung and lesion, each after a look at the other's."""
        place = _positions(features)
        own = {name: split(features).flatten(2).transpose(1, 2) for name, split in self.split.items()}
        seen = {name: self.norm[name](tokens) for name, tokens in own.items()}
        return {
            name: own[name] + self.attention[name](seen[name] + place, seen[other] + place, seen[other])
            for name, other in (STRUCTURES, STRUCTURES[::-1])
        }

    def forward(self, features: Tensor) -> Tensor:
        both = torch.cat(list(self.tokens(features).values()), dim=-1).transpose(1, 2)
        return features + self.merge(both.unflatten(2, features.shape[-2:]))


@segmentation_nets.register("cross_attention_unet")
class CrossAttentionUNet(PaddedNet):
    """A backbone's feature maps, lung and lesion tokens that attend to one another, and a decoder that refines logits.

    From the coarsest map to the finest, each level joins the backbone's map and corrects the logits of the level
    before. All levels can be supervised (:meth:`pyramid`), and the fine ones have little left to learn. At one level
    the features become lung tokens and lesion tokens, and each kind attends to the other.

    Parameters
    ----------
    in_channels : int, default=1
    backbone : str or class, default="resnet10"
        A name in ``mmdls.registry.backbones``, or a class that keeps the same contract.
    backbone_params : dict, default={"width": 16}
    max_channels : int, default=64
        Widest map of the decoder.
    attention_stride : int, default=16
        Pixels of the image, along an edge, that one token stands for; the level that comes closest is taken.
    n_heads : int, default=4

    Attributes
    ----------
    encoder : torch.nn.Module
        The backbone.

    References
    ----------
    .. [1] Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image segmentation. MICCAI,
       2015.
    .. [2] Vaswani A et al. Attention is all you need. NeurIPS, 2017.
    .. [3] Lee C-Y et al. Deeply-supervised nets. AISTATS, 2015.

    Examples
    --------
    >>> import torch
    >>> net = CrossAttentionUNet()
    >>> {name: tuple(logits.shape) for name, logits in net(torch.zeros(2, 1, 50, 41)).items()}
    {'lung': (2, 1, 50, 41), 'lesion': (2, 1, 50, 41)}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "backbone": [str, callable],
        "backbone_params": [Mapping, None],
        "max_channels": [count(1)],
        "attention_stride": [count(1)],
        "n_heads": [count(1)],
    }

    def __init__(
        self,
        in_channels: int = 1,
        backbone: Any = "resnet10",
        backbone_params: Mapping[str, Any] | None = None,
        max_channels: int = 64,
        attention_stride: int = 16,
        n_heads: int = 4,
    ):
        super().__init__()
        if backbone_params is None:
            backbone_params = {"width": 16} if backbone in ("resnet10", "resnet18") else {}
        cls = backbone if callable(backbone) else backbones[backbone]
        self.encoder = cls(in_channels=in_channels, **backbone_params)
        strides = _strides(self.encoder, in_channels)
        widths = [min(channels, max_channels) for channels in self.encoder.out_channels]
        self.detail: nn.Module | None = None
        maps = list(self.encoder.out_channels)
        if strides[0] > 2:
            self.detail = ConvBlock(in_channels, widths[0], stride=2)
            strides, widths, maps = [2, *strides], [widths[0], *widths], [widths[0], *maps]
        self.multiple = strides[-1]
        self.levels = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level, (channels, width) in enumerate(zip(maps, widths, strict=True)):
            below = widths[level + 1] if level + 1 < len(widths) else 0
            self.levels.append(ConvBlock(channels + below, width))
            fine = strides[0] if level == 0 else 1
            self.heads.append(nn.Conv2d(width, len(STRUCTURES) * fine**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(strides[0])
        self.attention_level = min(range(len(strides)), key=lambda i: (abs(strides[i] - attention_stride), strides[i]))
        self.cross_attention = _CrossAttention(widths[self.attention_level], n_heads)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Logits of every level, fine to coarse, each (N, 2, h, w), of the padded image."""
        image = self._pad(image)
        maps = list(self.encoder(image))
        if self.detail is not None:
            maps = [self.detail(image), *maps]
        found: list[Tensor] = []
        features = None
        for level in reversed(range(len(maps))):
            skip = maps[level]
            if features is not None:
                skip = torch.cat([skip, functional.interpolate(features, skip.shape[-2:], mode="nearest")], dim=1)
            features = self.levels[level](skip)
            if level == self.attention_level:
                features = self.cross_attention(features)
            logits = self.heads[level](features)
            if level == 0:
                logits = self.shuffle(logits)
            if found:
                logits = logits + functional.interpolate(found[-1], logits.shape[-2:], mode="bilinear")
            found.append(logits)
        return found[::-1]

    def _logits(self, image: Tensor) -> Tensor:
        return self.pyramid(image)[0]

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "backbone": optuna.distributions.CategoricalDistribution(["resnet10", "resnet18"]),
            "max_channels": optuna.distributions.CategoricalDistribution([32, 64, 128]),
        }


def _strides(backbone: nn.Module, in_channels: int, size: int = 64) -> list[int]:
    """Pixels of the image to a pixel of each map."""
    training = backbone.training
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        maps: Sequence[Tensor] = backbone.eval()(torch.zeros(1, in_channels, size, size))
    backbone.train(training)
    strides = [size // m.shape[-1] for m in maps]
    sizes = [m.shape[-1] for m in maps]
    if any(stride * after != size for stride, after in zip(strides, sizes, strict=True)):
        raise ValueError(
            f"a backbone for segmentation keeps, halves or quarters the image; got maps of {sizes} from {size} pixels."
        )
    return strides


def _positions(features: Tensor) -> Tensor:
    """Sines and cosines of row and column, (1, H * W, D)."""
    channels, height, width = features.shape[1:]
    quarter = -(-channels // 4)
    frequency = torch.logspace(0, -2, quarter, device=features.device, dtype=torch.float32)
    row, column = (torch.arange(size, device=features.device)[:, None] * frequency for size in (height, width))
    row, column = row[:, None].expand(-1, width, -1), column[None].expand(height, -1, -1)
    place = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=-1)
    return place[..., :channels].reshape(1, height * width, channels).to(features.dtype)
