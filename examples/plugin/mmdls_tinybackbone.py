"""A backbone for mmdls that fits on one screen."""

from torch import Tensor, nn

__all__ = ["TinyBackbone"]


class TinyBackbone(nn.Module):
    """Two strided convolutions with group normalisation.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=8
        Channels of the first map; the second has twice as many.
    """

    def __init__(self, in_channels: int = 1, width: int = 8):
        super().__init__()
        self.out_channels = [width, 2 * width]
        self.fine = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.GroupNorm(1, width), nn.ReLU()
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.GroupNorm(1, 2 * width), nn.ReLU()
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/2 and 1/4 of its size."""
        fine = self.fine(image)
        return [fine, self.coarse(fine)]
