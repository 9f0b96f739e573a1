"""Convolutions of 3 x 3 with ReLU, one or several, in the best way for their shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mmdls.kernels._operators import conv3x3_operator, pair_sum_operator
from mmdls.kernels._ways import info, ordinary

__all__ = ["conv3x3", "conv3x3_relu_chain", "sums_in_one_pass"]

# Channels that the kernels handle at once, and of the images that enter a chain.
_MULTIPLE, _FEW = 16, 3


def conv3x3(image: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Convolution of 3 x 3 with stride 1 and padding 1, with or without ReLU.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    weight : Tensor of shape (D, C, 3, 3)
    bias : Tensor of shape (D,), default=None
    relu : bool, default=False

    Returns
    -------
    Tensor of shape (N, D, H, W)
        What ``relu(torch.nn.functional.conv2d(image, weight, bias, padding=1))`` defines, up to rounding: gradients,
        NaN and infinities included. Other devices, precisions and numbers of channels, transformations of functions
        and compiled or exported graphs are left to that definition, and so are shapes for which it is as fast.

    Raises
    ------
    RuntimeError
        If shapes do not fit together, as in torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import conv3x3
    >>> image, weight = torch.rand(2, 32, 40, 40), torch.rand(64, 32, 3, 3)
    >>> conv3x3(image, weight, relu=True).shape
    torch.Size([2, 64, 40, 40])
    """
    taken = info().way
    if taken != "plain" and _fits(image, weight, bias) and _pays(image, weight):
        return conv3x3_operator(image, weight, bias, relu, taken)
    out = functional.conv2d(image, weight, bias, padding=1)
    return functional.relu(out, inplace=True) if relu else out


def conv3x3_relu_chain(
    image: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, pooled: bool = False
) -> Tensor:
    """Convolutions of 3 x 3 with ReLU, one after another, and on request the mean over the pixels of the last map.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    weights : sequence of Tensor of shape (D, C, 3, 3)
        Of each layer, D being the C of the next one.
    biases : sequence of Tensor of shape (D,)
    pooled : bool, default=False
        Two layers on images of 1 to 3 channels are then computed in one pass.

    Returns
    -------
    Tensor of shape (N, D, H, W), or (N, D) if pooled

    Raises
    ------
    ValueError
        If there are not as many biases as weights.
    RuntimeError
        If shapes do not fit together, as in torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import conv3x3_relu_chain
    >>> weights = [torch.rand(32, 1, 3, 3), torch.rand(64, 32, 3, 3)]
    >>> biases = [torch.zeros(32), torch.zeros(64)]
    >>> conv3x3_relu_chain(torch.rand(2, 1, 40, 40), weights, biases, pooled=True).shape
    torch.Size([2, 64])
    """
    if pooled:
        sums = sums_in_one_pass(image, weights, biases)
        if sums is not None:
            return sums / image.shape[2:].numel()
    for weight, bias in zip(weights, biases, strict=True):
        image = conv3x3(image, weight, bias, relu=True)
    return image.mean(dim=(2, 3)) if pooled else image


def sums_in_one_pass(image: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor | None:
    """Sums over the pixels of the last map of a chain with ReLU, without making the map.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    weights : sequence of Tensor of shape (D, C, 3, 3)
    biases : sequence of Tensor of shape (D,)

    Returns
    -------
    Tensor of shape (N, D), or None
        None where the kernels cannot do it: for other than two layers, images of more than 3 channels, images whose
        gradient is asked for, and where :func:`conv3x3` leaves a layer to torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import sums_in_one_pass, using
    >>> layers = [torch.rand(32, 1, 3, 3), torch.rand(64, 32, 3, 3)], [torch.zeros(32), torch.zeros(64)]
    >>> with using("plain"):
    ...     print(sums_in_one_pass(torch.rand(2, 1, 40, 40), *layers))
    None
    """
    taken = info().way
    if taken in ("plain", "nnpack") or len(weights) != 2 or len(biases) != 2:
        return None
    (one, two), (bias1, bias2) = weights, biases
    trains = torch.is_grad_enabled()
    if not (
        _fits(image, one, bias1, multiple=1)
        and image.shape[1] <= _FEW
        and one.shape[0] % _MULTIPLE == 0
        and _fits(image, two, bias2, channels=one.shape[0])
        and not (trains and image.requires_grad)
    ):
        return None
    keep = trains and any(tensor.requires_grad for tensor in (one, two, bias1, bias2))
    return pair_sum_operator(image, one, bias1, two, bias2, keep, taken)[0]


def _fits(
    image: Tensor, weight: Tensor, bias: Tensor | None, multiple: int = _MULTIPLE, channels: int | None = None
) -> bool:
    """Whether the kernels can compute a layer: plain tensors in single precision on the processor, whose shapes fit."""
    return (
        image.ndim == weight.ndim == 4
        and weight.shape[1:] == (image.shape[1] if channels is None else channels, 3, 3)
        and weight.shape[1] % multiple == 0
        and weight.shape[0] % _MULTIPLE == 0
        and weight.numel() > 0
        and (bias is None or bias.shape == weight.shape[:1])
        and image.numel() > 0
        and ordinary(image, weight, bias)
    )


def _pays(image: Tensor, weight: Tensor) -> bool:
    """Whether the kernels are faster, decided by the shape of one image alone, so that its answer is always the same.

    Filters are transformed at every call, which has to pay for itself within a few images, and tiles of 2 x 4 pixels
    have to be filled. Found by ``python -m benchmarks.speed --only kernels``.
    """
    n_tiles = -(-image.shape[2] // 2) * -(-image.shape[3] // 4)
    n_filters = weight.shape[0] * weight.shape[1]
    return n_tiles >= 4 and 512 <= n_filters <= 40_000 * n_tiles
