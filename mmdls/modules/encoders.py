"""One modality to one embedding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SliceNet", "TabularNet", "pad_slices"]


class SliceNet(nn.Module):
    """Slices to a patient embedding: backbone, mean of its last map, projection, pooling over slices.

    The slices of a batch arrive packed, without padding. Encoding one slice never looks at another one, so the caller
    may encode them in any number of pieces and pool afterwards.

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
    """

    def __init__(self, backbone: Any, pooling: Any, out_features: int, *, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        self.mean = mean
        self.std = std
        self.backbone = backbone
        self.projection = nn.Linear(backbone.out_channels[-1], out_features)
        self.pooling = pooling
        self.out_features = out_features

    def features(self, image: Tensor) -> Tensor:
        """Image (K, C, H, W) -> mean of the backbone's last map (K, out_channels[-1])."""
        if self.mean != 0 or self.std != 1:
            image = (image - self.mean) / self.std
        last = self.backbone(image)[-1]
        # Sum, then divide: the gradient of a mean would be written out over the whole map, in another memory format.
        summed = _HalfSum.apply(last) if last.dtype in (torch.bfloat16, torch.float16) else last.sum(dim=(2, 3))
        return summed / (last.shape[2] * last.shape[3])

    def project(self, features: Tensor) -> Tensor:
        """Features (K, out_channels[-1]) -> slice embeddings (K, D)."""
        return torch.relu(self.projection(features))

    def encode(self, image: Tensor) -> Tensor:
        """Image (K, C, H, W) -> slice embeddings (K, D)."""
        features = self.features(image)
        # Means over whole maps differ little between slices; half precision would round the differences away.
        with torch.autocast(image.device.type, enabled=False):
            return self.project(features)

    @torch.no_grad()
    def standardize_features(self, features: Tensor) -> None:
        """Rewrite the projection as if it read these features (K, out_channels[-1]) standardised.

        Means over whole maps differ little between slices: without this, a new network spends most of its training on
        learning to subtract what they have in common. Only the starting point changes, not what can be learned.
        """
        mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
        weight = self.projection.weight / std.clamp(min=1e-3 * float(std.max()) + 1e-12)
        self.projection.weight.copy_(weight)
        self.projection.bias.sub_(weight @ mean)

    def pool(self, packed: Tensor, counts: Tensor) -> Tensor:
        """Packed slice embeddings (K, D), slices of each patient (B,) -> patient embeddings (B, D)."""
        return self.pooling(*pad_slices(packed, counts))

    def attention(self, packed: Tensor, counts: Tensor) -> Tensor:
        """Packed slice embeddings (K, D), counts (B,) -> packed weights (K,), which sum to 1 over a patient."""
        slices, mask = pad_slices(packed, counts)
        return self.pooling.attention(slices, mask)[mask]


class _HalfSum(torch.autograd.Function):
    """Sum over the pixels of a map in half precision, added up in single precision.

    Means over whole maps differ little between slices, so rounding the sum would hide what tells them apart. A cast
    would copy the whole map; bands of rows are cast one at a time, in the cache.
    """

    @staticmethod
    def forward(ctx, feature_map: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = feature_map.shape, feature_map.dtype
        bands = feature_map.split(-(-feature_map.shape[2] // 16), dim=2)
        return sum(band.sum(dim=(2, 3), dtype=torch.float32) for band in bands)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.to(ctx.dtype)[:, :, None, None].expand(ctx.shape)


class TabularNet(nn.Module):
    """Features of a block to an embedding: a multilayer perceptron, or the features themselves.

    Parameters
    ----------
    in_features : int
    hidden_sizes : sequence of int, default=()
        Widths of the layers, each followed by GELU and dropout; empty passes the features on unchanged.
    dropout : float, default=0.0
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


def pad_slices(packed: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Packed embeddings -> padded (B, S, D) and mask (B, S), where S is the largest count.

    Parameters
    ----------
    packed : Tensor of shape (K, D)
        Embeddings of all slices, patient after patient.
    counts : Tensor of shape (B,)
        How many slices each patient has; they sum to K.
    """
    most = int(counts.max()) if len(counts) else 0
    mask = torch.arange(most, device=counts.device) < counts[:, None]
    padded = packed.new_zeros(len(counts), most, packed.shape[-1])
    padded[mask] = packed
    return padded, mask
