"""Convolutions of images as the networks of this package use them."""

from torch import Tensor, nn

from mmdls.kernels import conv3x3

__all__ = ["Convolution"]


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
