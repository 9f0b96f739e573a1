"""A small network that halves its maps with little aliasing, up to the sums over the pixels of its last map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdls.kernels._operators import antialiased_operator
from mmdls.kernels._ways import info, ordinary

__all__ = ["antialiased_sums"]

# Channels that the kernels handle at once, and of the images that enter the first layer.
_MULTIPLE, _FEW = 4, 3


def antialiased_sums(image: Tensor, parameters: Sequence[Tensor], eps: float = 1e-5) -> Tensor | None:
    """Sums over the pixels of the last map of a network that halves its maps with little aliasing.

    The first map is ``relu(conv2d(image, weight, bias, stride=2, padding=2))``. Each stage then blurs its map by the
    binomial filter (1, 2, 1) / 4 in both directions at every second pixel, and the next map is the blurred one
    and, with it, ``relu(conv2d(group_norm(blurred, 1, norm_weight, norm_bias, eps), weight, bias, padding=1))``.
    :class:`mmdls.modules.AntialiasedBackbone` is this network and its definition.

    Parameters
    ----------
    image : Tensor of shape (N, C, H, W)
    parameters : sequence of Tensor
        Weight (D, C, 5, 5) and bias (D,) of the first layer; then of each stage norm_weight (E,), norm_bias (E,),
        weight (F, E, 3, 3) and bias (F,), where E is the channels of the map in front of it.
    eps : float, default=1e-5

    Returns
    -------
    Tensor of shape (N, D + F + ...), or None
        What the definition gives, up to rounding; gradients of the parameters, NaN and infinities included. None where
        the kernels cannot do it: for images of more than 3 channels, layers that find other than multiples of 4
        channels, images whose gradient is asked for, and where :func:`conv3x3` leaves a layer to torch.

    Examples
    --------
    >>> import torch
    >>> from mmdls.kernels import antialiased_sums, using
    >>> with using("plain"):
    ...     print(antialiased_sums(torch.rand(2, 1, 40, 40), [torch.rand(8, 1, 5, 5), torch.zeros(8)]))
    None
    """
    taken, trains = info().way, torch.is_grad_enabled()
    if (
        taken in ("plain", "nnpack")
        or image.ndim != 4
        or image.numel() == 0
        or image.shape[1] > _FEW
        or (trains and image.requires_grad)
        or not _fit(image, parameters)
        or not ordinary(image, *parameters)
    ):
        return None
    keep = trains and any(parameter.requires_grad for parameter in parameters)
    return antialiased_operator(image, list(parameters), eps, keep, taken)[0]


def _fit(image: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether the shapes are those of the network, and of a kind that the kernels can compute."""
    if len(parameters) < 2 or len(parameters) % 4 != 2:
        return False
    expected: list[tuple[int, ...]] = []
    channels = 0
    for filters in (parameters[0], *parameters[4::4]):
        found = len(filters)
        if found == 0 or found % _MULTIPLE:
            return False
        norm = [(channels,), (channels,)] if channels else []
        kernel = (channels, 3, 3) if channels else (image.shape[1], 5, 5)
        expected += [*norm, (found, *kernel), (found,)]
        channels += found
    return [tuple(parameter.shape) for parameter in parameters] == expected
