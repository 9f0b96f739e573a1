"""Convolutions of images as the networks of this package use them."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mmdls import kernels
from mmdls.kernels import conv3x3
from mmdls.modules.backbones._normalisation import GroupNorm

__all__ = ["Convolution", "is_conv3x3", "stem"]


class Convolution(nn.Conv2d):
    """A convolution that is computed by :func:`mmdls.kernels.conv3x3` where its kernel, stride and padding allow it."""

    def forward(self, image: Tensor) -> Tensor:
        """Maps (N, C, H, W) -> maps (N, D, H', W')."""
        if is_conv3x3(self):
            return conv3x3(image, self.weight, self.bias)
        return super().forward(image)


def is_conv3x3(layer: nn.Conv2d) -> bool:
    """Whether a layer is a plain convolution of 3 x 3 with stride 1 and padding 1."""
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


def stem(convolution: nn.Conv2d, norm: Any, image: Tensor) -> Tensor:
    """Image (N, C, H, W) -> maps (N, D, H / 4, W / 4): convolution of stride 2, normalisation, ReLU, largest of 3 x 3.

    One operation where nobody listens to the layers, :func:`mmdls.kernels.stem`.
    """
    heard = any(layer._forward_hooks or layer._forward_pre_hooks for layer in (convolution, norm))
    if type(norm) is GroupNorm and _halves(convolution) and not heard:
        return kernels.stem(image, convolution.weight, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return functional.max_pool2d(norm(convolution(image), relu=True), 3, stride=2, padding=1)


def _halves(layer: nn.Conv2d) -> bool:
    return (
        layer.stride == (2, 2)
        and layer.padding == tuple(side // 2 for side in layer.kernel_size)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.bias is None
    )
