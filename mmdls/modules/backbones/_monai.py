"""Networks of MONAI as backbones."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from mmdls.modules.backbones._normalisation import group_norm
from mmdls.modules.monai import monai_class
from mmdls.registry import backbones

__all__ = ["MonaiBackbone"]


@backbones.family("monai")
class MonaiBackbone(nn.Module):
    """A network of ``monai.networks.nets`` as a backbone, by the name ``"monai:<Name>"``.

    Its maps are the last ones that its parts, and the parts of these, give at every size until the smallest one; what
    comes behind, such as a classifier or a decoder, is left out of the features. Batch normalisation is replaced by
    group normalisation. Needs MONAI: ``pip install "mmdls[monai]"``.

    Parameters
    ----------
    name : str
        For example ``"ResNet"`` or ``"DenseNet121"``.
    in_channels : int, default=1
    spatial_dims : int, default=2
        3 for volumes (N, C, D, H, W).
    **params
        Further arguments of the network.

    Examples
    --------
    >>> import torch
    >>> sizes = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 16, 32]}
    >>> backbone = MonaiBackbone("ResNet", **sizes)  # doctest: +SKIP
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]  # doctest: +SKIP
    [(1, 4, 64, 64), (1, 4, 32, 32), (1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)]
    """

    def __init__(self, name: str, in_channels: int = 1, spatial_dims: int = 2, **params: Any):
        super().__init__()
        cls = monai_class(name)
        known = signature(cls).parameters
        # The number of outputs has several names, and no network works without; the outputs are not used.
        outputs = {key: 1 for key in ("out_channels", "num_classes") if key in known and key not in params}
        channels = next((key for key in ("in_channels", "n_input_channels") if key in known), "in_channels")
        if "pretrained" in known:
            params = {"pretrained": False} | params  # nothing is downloaded unless asked for
        self.net = cls(spatial_dims=spatial_dims, **{channels: in_channels}, **outputs, **params)
        self.spatial_dims = spatial_dims
        for part in self.net.modules():
            for key, inner in part.named_children():
                if isinstance(inner, nn.modules.batchnorm._BatchNorm):
                    setattr(part, key, group_norm(inner.num_features))
        with torch.no_grad():
            self.out_channels = [m.shape[1] for m in self(torch.zeros(1, in_channels, *[64] * spatial_dims))]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W), or (N, C, D, H, W) -> maps, fine to coarse.

        Raises
        ------
        ValueError
            If no part of the network gives maps.
        """
        maps: list[Tensor] = []

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == image.ndim and output.shape[2:].numel() > 1:
                if maps and output.shape[2:] == maps[-1].shape[2:]:
                    maps[-1] = output
                elif not maps or output.shape[2:].numel() < maps[-1].shape[2:].numel():
                    maps.append(output)

        parts = [inner for part in self.net.children() for inner in (*part.children(), part)]
        hooks = [part.register_forward_hook(keep) for part in parts]
        try:
            self.net(image)
        finally:
            for hook in hooks:
                hook.remove()
        if not maps:
            name = type(self.net).__name__
            raise ValueError(f"no part of MONAI's {name} gives feature maps; choose another network.")
        return maps
