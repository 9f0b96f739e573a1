"""One modality to one embedding."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BagNet", "SliceNet", "Standardize", "TabularNet", "pad_items"]


class BagNet(nn.Module):
    """A bag of items to one embedding: features of each item, projection, pooling over the bag.

    The items of a batch arrive packed, without padding. Encoding one item never looks at another one, so the caller
    may encode them in any number of micro-batches and pool afterwards.

    Parameters
    ----------
    backbone : nn.Module
        Makes features of items (k, ...) -> (k, in_features).
    in_features : int
        Width of these features.
    pooling : nn.Module
        See :mod:`mmdls.modules.poolings`, for ``out_features`` features.
    out_features : int
        Width of the embeddings of items and of the bag.

    Examples
    --------
    Two patients with three vectors and one:

    >>> import torch
    >>> from mmdls.modules import MeanPooling
    >>> net = BagNet(torch.nn.Linear(5, 8), 8, MeanPooling(4), 4)
    >>> net(torch.zeros(4, 5), torch.tensor([3, 1])).shape
    torch.Size([2, 4])
    """

    # Whether features cost so much that those of a backbone that does not train are worth keeping.
    costly_features: ClassVar[bool] = False

    def __init__(self, backbone: Any, in_features: int, pooling: Any, out_features: int):
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(in_features, out_features)
        self.pooling = pooling
        self.out_features = out_features

    @property
    def has_fixed_features(self) -> bool:
        """Whether features are worth keeping, since no weight behind them is trained."""
        return self.costly_features and not any(weight.requires_grad for weight in self.backbone.parameters())

    def features(self, items: Tensor) -> Tensor:
        """Items (k, ...) -> features (k, in_features)."""
        return self.backbone(items)

    def maps(self, items: Tensor) -> Any:
        """What the backbone makes of items, which says how much memory it takes."""
        return self.backbone(items)

    def project(self, features: Tensor) -> Tensor:
        """Features (k, in_features) -> item embeddings (k, D)."""
        if self.training or type(self.projection) is not nn.Linear:
            return torch.relu(self.projection(features))
        # In single precision the last digits of an item would depend on how many others are with it.
        weight, bias = self.projection.weight, self.projection.bias
        exact = functional.linear(features.double(), weight.double(), None if bias is None else bias.double())
        return torch.relu(exact).to(features.dtype)

    def encode(self, items: Tensor) -> Tensor:
        """Items (k, ...) -> item embeddings (k, D)."""
        features = self.features(items)
        # Features may differ little between items; half precision would round the differences away.
        with torch.autocast(items.device.type, enabled=False):
            return self.project(features)

    def forward(self, items: Tensor, counts: Tensor) -> Tensor:
        """Packed items (K, ...), items of each patient (B,) -> patient embeddings (B, D)."""
        return self.pool(self.encode(items), counts)

    @torch.no_grad()
    def standardize_features(self, features: Tensor) -> None:
        """Rewrite the projection as if it read these features (k, in_features) standardised.

        Means over whole maps differ little between slices: without this, a new network spends most of its training on
        learning to subtract what they have in common. Only the starting point changes, not what can be learned.
        """
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
        weight = self.projection.weight / std.clamp(min=1e-3 * float(std.max()) + 1e-12)
        self.projection.weight.copy_(weight)
        self.projection.bias.sub_(weight @ mean)

    def pool(self, packed: Tensor, counts: Tensor) -> Tensor:
        """Packed item embeddings (K, D), items of each patient (B,) -> patient embeddings (B, D)."""
        return self.pooling(*pad_items(packed, counts))

    def attention(self, packed: Tensor, counts: Tensor) -> Tensor | None:
        """Packed item embeddings (K, D), counts (B,) -> packed weights (K,), which sum to 1 over a patient.

        None if the pooling does not weigh items.
        """
        if not hasattr(self.pooling, "attention"):
            return None
        items, mask = pad_items(packed, counts)
        return self.pooling.attention(items, mask)[mask]


class SliceNet(BagNet):
    """Slices or volumes to a patient embedding: backbone, mean of its last map, projection, pooling over items.

    Parameters
    ----------
    backbone : nn.Module
        See :mod:`mmdls.modules.backbones`.
    pooling : nn.Module
        See :mod:`mmdls.modules.poolings`, for ``out_features`` features.
    out_features : int
        Width of the slice and patient embeddings.
    mean, std : float, default=0.0 and 1.0
        Images are standardised by these numbers first.
    augmentation : nn.Module, default=None
        See :mod:`mmdls.modules.augmentation`; used in training only, in front of the standardisation.

    Examples
    --------
    Two patients with three slices and one:

    >>> import torch
    >>> from mmdls.modules import ConvBackbone, MeanPooling
    >>> net = SliceNet(ConvBackbone(width=4, strides=(2, 2)), MeanPooling(8), 8)
    >>> net(torch.zeros(4, 1, 16, 16), torch.tensor([3, 1])).shape
    torch.Size([2, 8])
    """

    costly_features = True

    def __init__(
        self,
        backbone: Any,
        pooling: Any,
        out_features: int,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        augmentation: Any = None,
    ):
        super().__init__(backbone, backbone.out_channels[-1], pooling, out_features)
        self.mean = mean
        self.std = std
        self.augmentation = augmentation

    def pool(self, packed: Tensor, counts: Tensor) -> Tensor:
        """Packed slice embeddings (K, D), slices of each patient (B,) -> patient embeddings (B, D)."""
        if self.augmentation is None or not self.training:
            return super().pool(packed, counts)
        slices, mask = pad_items(packed, counts)
        kept = mask & (torch.rand(mask.shape, device=mask.device) >= self.augmentation.slice_dropout)
        return self.pooling(slices, torch.where(kept.any(dim=1, keepdim=True), kept, mask))

    def features(self, items: Tensor) -> Tensor:
        """Images (k, C, H, W) or volumes (k, C, S, H, W) -> mean of the backbone's last map (k, out_channels[-1])."""
        if self.augmentation is not None and self.training:
            # All slices of a volume are changed alike.
            items = self.augmentation(items.flatten(1, -3)).view_as(items)
        if self.mean != 0 or self.std != 1:
            items = (items - self.mean) / self.std
        return self.pixel_means(items)

    def maps(self, items: Tensor) -> list[Tensor]:
        """The backbone's maps of items, or the means over the pixels of the last one where no map is made for them."""
        means = self._means_without_map(items)
        return self.backbone(items) if means is None else [means]

    def pixel_means(self, items: Tensor) -> Tensor:
        """Standardised images or volumes -> mean of the backbone's last map (k, out_channels[-1])."""
        means = self._means_without_map(items)
        if means is not None:
            return means
        # Sum, then divide: the gradient of a mean would be written out over the whole map, in another memory format.
        last = self.backbone(items)[-1]
        pixels = tuple(range(2, last.ndim))
        summed = _HalfSum.apply(last) if last.dtype in (torch.bfloat16, torch.float16) else last.sum(dim=pixels)
        return summed / last.shape[2:].numel()

    def _means_without_map(self, items: Tensor) -> Tensor | None:
        backbone = self.backbone
        # A backbone that is listened to, or compiled, is called as usual.
        if not hasattr(backbone, "pixel_means") or backbone._forward_hooks or backbone._compiled_call_impl:
            return None
        return backbone.pixel_means(items)

    def extra_repr(self) -> str:
        """The numbers that images are standardised by."""
        return f"mean={self.mean!r}, std={self.std!r}"


class Standardize(nn.Module):
    """Vectors standardised by fixed numbers; the backbone of a :class:`BagNet` of vectors.

    Parameters
    ----------
    mean, factor : Tensor of shape (D,)
        What is subtracted, and what the difference is multiplied by.

    Examples
    --------
    >>> import torch
    >>> Standardize(torch.tensor([10.0, 0.0]), torch.tensor([0.5, 1.0]))(torch.tensor([[12.0, 3.0]])).tolist()
    [[1.0, 3.0]]
    """

    def __init__(self, mean: Tensor, factor: Tensor):
        super().__init__()
        self.mean: Tensor
        self.factor: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("factor", factor)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (k, D) -> the same, standardised."""
        return (vectors - self.mean) * self.factor


class _HalfSum(torch.autograd.Function):
    """Sum over the pixels of a map in half precision, added up in single precision.

    Means over whole maps differ little between slices, so rounding the sum would hide what tells them apart. A cast
    would copy the whole map; bands of rows are cast one at a time, in the cache.
    """

    @staticmethod
    def forward(ctx, feature_map: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = feature_map.shape, feature_map.dtype
        bands = feature_map.split(-(-feature_map.shape[2] // 16), dim=2)
        pixels = tuple(range(2, feature_map.ndim))
        return sum(band.sum(dim=pixels, dtype=torch.float32) for band in bands)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.to(ctx.dtype).view(*gradient.shape, *[1] * (len(ctx.shape) - 2)).expand(ctx.shape)


class TabularNet(nn.Module):
    """Features of a block to an embedding: a multilayer perceptron, or the features themselves.

    Parameters
    ----------
    in_features : int
    hidden_sizes : sequence of int, default=()
        Widths of the layers, each followed by GELU and dropout; empty passes the features on unchanged.
    dropout : float, default=0.0

    Examples
    --------
    >>> import torch
    >>> net = TabularNet(5, hidden_sizes=(16, 8))
    >>> net(torch.zeros(3, 5)).shape, net.out_features
    (torch.Size([3, 8]), 8)
    """

    def __init__(self, in_features: int, hidden_sizes: Sequence[int] = (), dropout: float = 0.0):
        super().__init__()
        widths = [in_features, *hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, P) -> (B, D)."""
        return self.layers(features)


def pad_items(packed: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Packed embeddings -> padded (B, S, D) and mask (B, S), where S is the largest count.

    Parameters
    ----------
    packed : Tensor of shape (K, D)
        Embeddings of all items, patient after patient.
    counts : Tensor of shape (B,)
        How many items each patient has; they sum to K.

    Returns
    -------
    padded : Tensor of shape (B, S, D)
    mask : Tensor of shape (B, S), bool
        True for what is no padding.

    Examples
    --------
    >>> import torch
    >>> padded, mask = pad_items(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1]))
    >>> padded[..., 0].tolist(), mask.tolist()
    ([[1.0, 2.0], [3.0, 0.0]], [[True, True], [True, False]])
    """
    most = int(counts.max()) if len(counts) else 0
    mask = torch.arange(most, device=counts.device) < counts[:, None]
    padded = packed.new_zeros(len(counts), most, packed.shape[-1])
    padded[mask] = packed
    return padded, mask
