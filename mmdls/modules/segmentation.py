"""Segmentation networks: images to logits of lung and lesion.

The contract: ``forward(image (N, C, H, W)) -> {"lung": logits (N, 1, H, W), "lesion": logits (N, 1, H, W)}`` for any
height and width. No network normalises over the batch, so an image's masks never depend on the images beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.backbones import ResNet18Backbone
from mmdls.registry import backbones, segmentation_nets

__all__ = [
    "STRUCTURES",
    "CrossAttentionUNet",
    "MonaiNet",
    "PublishedSegmentationNet",
    "UNet",
    "load_imagenet_weights",
    "make_segmentation_net",
]

STRUCTURES = ("lung", "lesion")


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
    kind = choice if callable(choice) else segmentation_nets[choice]
    return kind(in_channels=in_channels, **params)


class _PaddedNet(nn.Module):
    """Pads an image to a multiple of ``multiple`` by repeating its border, and cuts the logits back."""

    multiple: int

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image (N, C, H, W) -> logits of lung and lesion, each (N, 1, H, W)."""
        height, width = image.shape[-2:]
        logits = self._logits(self._pad(image))[..., :height, :width]
        return {name: logits[:, i : i + 1] for i, name in enumerate(STRUCTURES)}

    def _pad(self, image: Tensor) -> Tensor:
        down, right = (-size % self.multiple for size in image.shape[-2:])
        return functional.pad(image, (0, right, 0, down), mode="replicate") if down or right else image

    def _logits(self, image: Tensor) -> Tensor:
        raise NotImplementedError


class _ConvBlock(nn.Sequential):
    """Convolutions of 3 x 3, each with group normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, n_layers: int = 1, stride: int = 1):
        layers: list[nn.Module] = []
        for layer in range(n_layers):
            before, step = (in_channels, stride) if layer == 0 else (out_channels, 1)
            layers += [
                nn.Conv2d(before, out_channels, 3, stride=step, padding=1, bias=False),
                nn.GroupNorm(_n_groups(out_channels), out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class _Attention(nn.Module):
    """Multi-head attention of some tokens (N, T, D) over others (N, U, D), without the residual."""

    def __init__(self, channels: int, n_heads: int):
        super().__init__()
        if channels % n_heads:
            raise ValueError(f"the channels must be a multiple of n_heads; got {channels} channels, {n_heads} heads.")
        self.n_heads = n_heads
        self.query = nn.Linear(channels, channels)
        # A bias of the keys adds the same to all scores of a query, which the softmax takes out again.
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads = [
            layer(tokens).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, query), (self.key, key), (self.value, value))
        ]
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class _CrossAttention(nn.Module):
    """Lung tokens attend to lesion tokens and lesion tokens to lung tokens; both are added to the map they came from.

    Positions enter as fixed sines and cosines, so that any size of map is understood.
    """

    def __init__(self, channels: int, n_heads: int):
        super().__init__()
        self.split = nn.ModuleDict({name: nn.Conv2d(channels, channels, 1) for name in STRUCTURES})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(channels) for name in STRUCTURES})
        self.attention = nn.ModuleDict({name: _Attention(channels, n_heads) for name in STRUCTURES})
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
class CrossAttentionUNet(_PaddedNet):
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
        kind = backbone if callable(backbone) else backbones[backbone]
        self.encoder = kind(in_channels=in_channels, **backbone_params)
        strides = _strides(self.encoder, in_channels)
        widths = [min(channels, max_channels) for channels in self.encoder.out_channels]
        self.detail: nn.Module | None = None
        maps = list(self.encoder.out_channels)
        if strides[0] > 2:
            self.detail = _ConvBlock(in_channels, widths[0], stride=2)
            strides, widths, maps = [2, *strides], [widths[0], *widths], [widths[0], *maps]
        self.multiple = strides[-1]
        self.levels = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level, (channels, width) in enumerate(zip(maps, widths, strict=True)):
            below = widths[level + 1] if level + 1 < len(widths) else 0
            self.levels.append(_ConvBlock(channels + below, width))
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


@segmentation_nets.register("unet")
class UNet(_PaddedNet):
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
    """

    def __init__(self, in_channels: int = 1, width: int = 16, depth: int = 4):
        super().__init__()
        self.multiple = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _ConvBlock(before, after, 2) for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            _ConvBlock(fine + coarse, fine, 2) for fine, coarse in zip(widths[:-1], widths[1:], strict=True)
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


@segmentation_nets.register("published")
class PublishedSegmentationNet(_PaddedNet):
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
    """

    def __init__(self, in_channels: int = 1, width: int = 64):
        super().__init__()
        self.multiple = 8
        self.encoder = ResNet18Backbone(in_channels, width)
        self.encoder.stages = self.encoder.stages[:2]
        self.encoder.out_channels = self.encoder.out_channels[:2]
        channels = self.encoder.out_channels[-1]
        self.attention = _Attention(channels, n_heads=4)
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


class MonaiNet(_PaddedNet):
    """A two-dimensional network of MONAI, by the name it has in ``monai.networks.nets``.

    Needs MONAI: ``pip install "mmdls[monai]"``.

    Parameters
    ----------
    name : str
        For example ``"UNet"`` or ``"SegResNet"``.
    in_channels : int, default=1
    multiple : int, default=32
        Images are padded to a multiple of it.
    **params
        Arguments of the network, beside ``spatial_dims``, ``in_channels`` and ``out_channels``.
    """

    def __init__(self, name: str, in_channels: int = 1, multiple: int = 32, **params: Any):
        super().__init__()
        try:
            from monai.networks import nets
        except ImportError as error:
            raise ImportError(
                f'the network "monai:{name}" comes from MONAI; install it with: pip install "mmdls[monai]"'
            ) from error
        if not hasattr(nets, name):
            raise KeyError(f"monai.networks.nets has no {name!r}; names are written as there, for example 'UNet'.")
        self.multiple = multiple
        self.net = getattr(nets, name)(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=len(STRUCTURES),
            **(_MONAI_DEFAULTS.get(name, {}) | params),
        )

    def _logits(self, image: Tensor) -> Tensor:
        logits = self.net(image)
        return logits[0] if isinstance(logits, list | tuple) else logits


# Without these MONAI's U-Net cannot be built.
_MONAI_DEFAULTS = {"UNet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}}


def load_imagenet_weights(backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of an ImageNet ResNet, under their usual names, into a ResNet backbone.

    A network whose first convolution sees another number of channels gets the mean over the colours, scaled so that
    equal channels give the same response. Scale and shift of batch normalisation go to group normalisation; running
    statistics and the classifier are left out.

    Parameters
    ----------
    backbone : ResNet10Backbone or ResNet18Backbone
        Or one with fewer stages.
    weights : dict of str to Tensor
        ``conv1.weight``, ``bn1.weight``, ``layer1.0.conv1.weight`` ...

    Raises
    ------
    ValueError
        If the backbone is no ResNet, or names or shapes do not fit.
    """
    own = backbone.state_dict()
    if "stem.0.weight" not in own:
        raise ValueError(
            f"ImageNet weights fit a ResNet backbone ('resnet10', 'resnet18'); got {type(backbone).__name__}."
        )
    found = {}
    for name, value in own.items():
        theirs = _imagenet_name(name)
        if theirs not in weights:
            raise ValueError(
                f"the weights lack {theirs!r}, which the backbone needs; they have {list(weights)[:5]} ... Choose the "
                "file of a ResNet of the same depth."
            )
        given = weights[theirs]
        if name == "stem.0.weight" and given.ndim == 4 and given.shape[1] != value.shape[1]:
            channels = value.shape[1]
            given = given.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * given.shape[1] / channels
        if given.shape != value.shape:
            raise ValueError(
                f"{theirs!r} has shape {tuple(given.shape)} in the weights and {tuple(value.shape)} in the backbone; "
                "ImageNet's ResNets have width=64."
            )
        found[name] = given
    backbone.load_state_dict(found)


def _imagenet_name(name: str) -> str:
    """The usual name of a parameter of a ResNet backbone."""
    part, *rest = name.split(".")
    if part == "stem":
        return f"{'conv1' if rest[0] == '0' else 'bn1'}.{rest[1]}"
    stage, block, *inner = rest
    layer = f"layer{int(stage) + 1}.{block}." + ".".join(inner)
    return layer.replace("norm", "bn").replace("shortcut", "downsample")


def _n_groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


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
