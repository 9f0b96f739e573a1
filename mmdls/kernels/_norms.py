"""Group normalisation, with what usually follows it, in the best way for a shape."""

import torch
from torch import Tensor
from torch.nn import functional

from mmdls.kernels._operators import group_norm_operator, stem_operator
from mmdls.kernels._ways import info, ordinary

__all__ = ["group_norm", "stem"]

# Channels that the kernels handle at once, and numbers of an image from which on they are faster.
_MULTIPLE, _FEWEST = 16, 50_000


def group_norm(
    image: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    added: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Group normalisation of maps, to which another map is added, with ReLU.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    groups : int
    weight : Tensor of shape (C,)
    bias : Tensor of shape (C,)
    eps : float, default=1e-5
    added : Tensor of shape (N, C, H, W), default=None
        None adds nothing.
    relu : bool, default=False

    Returns
    -------
    Tensor of shape (N, C, H, W)
        What ``relu(torch.nn.functional.group_norm(image, groups, weight, bias, eps) + added)`` defines, up to rounding.
        What :func:`conv3x3` leaves to torch is left to that definition here, too, and so are volumes.

    Raises
    ------
    RuntimeError
        If shapes do not fit together, as in torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import group_norm
    >>> group_norm(torch.rand(2, 32, 40, 40), 8, torch.ones(32), torch.zeros(32), relu=True).shape
    torch.Size([2, 32, 40, 40])
    """
    taken = info().way
    if taken not in ("plain", "nnpack") and _fits(image, groups, weight, bias, added):
        return group_norm_operator(image, groups, weight, bias, eps, added, relu, taken)[0]
    out = functional.group_norm(image, groups, weight, bias, eps)
    if added is not None:
        out = out + added
    return functional.relu(out, inplace=True) if relu else out


def stem(
    image: Tensor, weight: Tensor, groups: int, norm_weight: Tensor, norm_bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """What residual networks begin with: convolution of stride 2, group normalisation, ReLU, and the largest of 3 x 3.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    weight : Tensor of shape (D, C, K, K)
        K is odd.
    groups : int
    norm_weight : Tensor of shape (D,)
    norm_bias : Tensor of shape (D,)
    eps : float, default=1e-5

    Returns
    -------
    Tensor of shape (N, D, H / 4, W / 4)
        Sides are rounded up. What ``image = conv2d(image, weight, stride=2, padding=K // 2)`` and
        ``max_pool2d(relu(group_norm(image, groups, norm_weight, norm_bias, eps)), 3, stride=2, padding=1)`` define, up
        to rounding; gradients, NaN and infinities included. Kernels keep no map of a half of the sides, some images at
        a time, and compute it again for the gradient. What :func:`conv3x3` leaves to torch is left to that definition.

    Raises
    ------
    RuntimeError
        If shapes do not fit together, as in torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import stem
    >>> stem(torch.rand(2, 1, 64, 64), torch.rand(16, 1, 7, 7), 8, torch.ones(16), torch.zeros(16)).shape
    torch.Size([2, 16, 16, 16])
    """
    taken = info().way
    if taken not in ("plain", "nnpack") and _begins(image, weight, groups, norm_weight, norm_bias):
        tensors = image, weight, norm_weight, norm_bias
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        return stem_operator(image, weight, groups, norm_weight, norm_bias, eps, keep, taken)[0]
    out = functional.conv2d(image, weight, stride=2, padding=weight.shape[2] // 2)
    out = group_norm(out, groups, norm_weight, norm_bias, eps, relu=True)
    return functional.max_pool2d(out, 3, stride=2, padding=1)


def _begins(image: Tensor, weight: Tensor, groups: int, norm_weight: Tensor, norm_bias: Tensor) -> bool:
    return (
        image.ndim == weight.ndim == 4
        and image.numel() > 0
        and image.shape[1] == weight.shape[1]
        and weight.shape[2] == weight.shape[3]
        and weight.shape[2] % 2 == 1
        and len(weight) > 0
        and len(weight) % _MULTIPLE == 0
        and len(weight) % groups == 0
        and norm_weight.shape == norm_bias.shape == weight.shape[:1]
        and ordinary(image, weight, norm_weight, norm_bias)
    )


def _fits(image: Tensor, groups: int, weight: Tensor, bias: Tensor, added: Tensor | None) -> bool:
    return (
        image.ndim == 4
        and image.numel() > 0
        and image.shape[1] % _MULTIPLE == 0
        and image.shape[1] % groups == 0
        and image[0].numel() >= _FEWEST
        and weight.shape == bias.shape == image.shape[1:2]
        and (added is None or added.shape == image.shape)
        and ordinary(image, weight, bias, added)
    )
