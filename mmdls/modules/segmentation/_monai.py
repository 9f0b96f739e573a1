"""Networks of MONAI behind the same contract."""

from typing import Any

from torch import Tensor

from mmdls.modules.monai import monai_class
from mmdls.modules.segmentation._blocks import STRUCTURES, PaddedNet

__all__ = ["MonaiNet"]

# Without these MONAI's U-Net cannot be built.
_MONAI_DEFAULTS = {"UNet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}}


class MonaiNet(PaddedNet):
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
        self.multiple = multiple
        self.net = monai_class(name)(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=len(STRUCTURES),
            **(_MONAI_DEFAULTS.get(name, {}) | params),
        )

    def _logits(self, image: Tensor) -> Tensor:
        logits = self.net(image)
        return logits[0] if isinstance(logits, list | tuple) else logits
