"""Building blocks of segmentation networks: padding to a multiple, convolutions, attention."""

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["STRUCTURES", "ConvBlock", "PaddedNet"]

STRUCTURES = ("lung", "lesion")


class PaddedNet(nn.Module):
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


class ConvBlock(nn.Sequential):
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


def _n_groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
