"""Networks of MONAI as backbones."""

from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmdls._memory import is_out_of_memory
from mmdls._parameters import count
from mmdls.modules.backbones._normalisation import group_norm
from mmdls.modules.monai import monai_class
from mmdls.registry import backbones

__all__ = ["MonaiBackbone"]


@backbones.family("monai")
class MonaiBackbone(nn.Module):
    """A network of ``monai.networks.nets`` as a backbone, by the name ``"monai:<Name>"``.

    Its maps are the last ones that its parts, and the parts of these, give at every size until the smallest one, of an
    image of 64 pixels a side; what comes behind, such as a classifier or a decoder, is left out of the features and is
    not trained. Batch normalisation is replaced by group normalisation. Needs MONAI: ``pip install "mmdls[monai]"``.

    Parameters
    ----------
    name : str
        For example ``"ResNet"`` or ``"DenseNet121"``.
    in_channels : int, default=1
    spatial_dims : int, default=2
        3 for volumes (N, C, D, H, W).
    **params
        Further arguments of the network.

    Raises
    ------
    ImportError
        If MONAI is not installed.
    KeyError
        If it has no such network.
    ValueError
        If the network needs further arguments, or none of its parts gives maps.

    Examples
    --------
    >>> import torch
    >>> sizes = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 16, 32]}
    >>> backbone = MonaiBackbone("ResNet", **sizes)  # doctest: +SKIP
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 64, 64))]  # doctest: +SKIP
    [(1, 4, 64, 64), (1, 4, 32, 32), (1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "name": [str],
        "in_channels": [count(1)],
        "spatial_dims": [count(2, 3)],
    }

    def __init__(self, name: str, in_channels: int = 1, spatial_dims: int = 2, **params: Any):
        super().__init__()
        cls = monai_class(name)
        known = signature(cls).parameters
        # The number of outputs has several names, and no network works without; the outputs are not used.
        outputs = {key: 1 for key in ("out_channels", "num_classes") if key in known and key not in params}
        channels = next((key for key in ("in_channels", "n_input_channels") if key in known), "in_channels")
        if "pretrained" in known:
            params = {"pretrained": False} | params  # nothing is downloaded unless asked for
        arguments = {"spatial_dims": spatial_dims, channels: in_channels, **outputs, **params}
        needed = [
            key for key, one in known.items() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        if missing := [key for key in needed if key not in arguments]:
            given = ", ".join(f"{key}=..." for key in missing)
            raise ValueError(f"MONAI's {name} needs {missing}; give them as in Part('monai:{name}', {given}).")
        self.net = cls(**arguments)
        self.spatial_dims = spatial_dims
        for part in self.net.modules():
            for key, inner in part.named_children():
                if isinstance(inner, nn.modules.batchnorm._BatchNorm):
                    setattr(part, key, group_norm(inner.num_features))
        self._kept = self._choose_maps(torch.zeros(1, in_channels, *[64] * spatial_dims))

    def _choose_maps(self, image: Tensor) -> list[int]:
        """Which outputs of the parts, counted in the order in which they are computed, are the maps."""
        outputs, chosen = self._outputs(image), list[int]()
        for place, output in enumerate(outputs):
            if isinstance(output, Tensor) and output.ndim == image.ndim and output.shape[2:].numel() > 1:
                if chosen and output.shape[2:] == outputs[chosen[-1]].shape[2:]:
                    chosen[-1] = place
                elif not chosen or output.shape[2:].numel() < outputs[chosen[-1]].shape[2:].numel():
                    chosen.append(place)
        if not chosen:
            name = type(self.net).__name__
            raise ValueError(f"no part of MONAI's {name} gives feature maps; choose another network.")
        maps = [outputs[place] for place in chosen]
        self.out_channels = [m.shape[1] for m in maps]
        parameters = list(self.parameters())
        used = torch.autograd.grad(sum(m.sum() for m in maps), parameters, allow_unused=True)
        for parameter, slope in zip(parameters, used, strict=True):
            parameter.requires_grad_(slope is not None)
        return chosen

    def _outputs(self, image: Tensor) -> list[Any]:
        """What the parts give, in the order in which they are computed."""
        outputs: list[Any] = []
        parts = [inner for part in self.net.children() for inner in (*part.children(), part)]
        hooks = [part.register_forward_hook(lambda *call: outputs.append(call[-1])) for part in parts]
        try:
            self.net(image)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W), or (N, C, D, H, W) -> maps, fine to coarse.

        Raises
        ------
        ValueError
            If the network cannot read images of this size.
        """
        try:
            outputs = self._outputs(image)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise  # the caller takes fewer images at once
            size = " x ".join(map(str, image.shape[2:]))
            raise ValueError(
                f"MONAI's {type(self.net).__name__} cannot read images of {size}: {error} Choose larger images or "
                "another network."
            ) from error
        return [outputs[place] for place in self._kept]
