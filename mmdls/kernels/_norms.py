"""Group normalisation, with what usually follows it, in the best way for a shape."""

from torch import Tensor
from torch.nn import functional

from mmdls.kernels._operators import group_norm_operator
from mmdls.kernels._ways import info, ordinary

__all__ = ["group_norm"]

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
