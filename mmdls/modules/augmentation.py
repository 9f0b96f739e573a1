"""Random changes of images in training, so that a network learns what should not change its answer.

The contract: ``forward(images (k, C, H, W)) -> (k, C, H, W)``, called in training only; all random numbers are drawn
from torch's current generator, the same number for each image, so that equal seeds give equal images in micro-batches
of any size. ``slice_dropout`` is the chance that a slice is left out of its bag; one always stays.
"""

import math
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import Finite, amount, share
from mmdls.registry import augmentations

__all__ = ["StandardAugmentation"]


@augmentations.register("standard")
class StandardAugmentation(nn.Module):
    """Flips, shifts, small rotations, scaling and intensity of each slice, and slices left out.

    Each slice is changed by itself, in one resampling on the tensor: nothing is read or decoded again. What moves in
    from outside is the border, repeated.

    Parameters
    ----------
    flip : float, default=0.5
        Chance of a mirror image, left to right.
    shift : float, default=0.1
        Largest shift in each direction, as a share of the image.
    rotation : float, default=10.0
        Largest angle, degrees.
    scale : float, default=0.1
        Largest change of size: between 1 / (1 + scale) and 1 + scale times.
    intensity : float, default=0.1
        Largest change of contrast and of brightness, as a share of the range of intensities.
    slice_dropout : float, default=0.1
        Chance that a slice is left out.

    Raises
    ------
    ValueError
        If a number is below 0, or a chance above 1.

    References
    ----------
    .. [1] Shorten C, Khoshgoftaar TM. A survey on image data augmentation for deep learning. Journal of Big Data, 2019.

    Examples
    --------
    >>> import torch
    >>> augmentation = StandardAugmentation(rotation=5.0)
    >>> augmentation(torch.rand(4, 1, 16, 16)).shape
    torch.Size([4, 1, 16, 16])
    """

    searched = False  # off until it is asked for

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "flip": [Finite(Real, 0, 1, closed="both")],
        "shift": [Finite(Real, 0, 1, closed="both")],
        "rotation": [amount()],
        "scale": [amount()],
        "intensity": [amount()],
        "slice_dropout": [share()],
    }

    def __init__(
        self,
        flip: float = 0.5,
        shift: float = 0.1,
        rotation: float = 10.0,
        scale: float = 0.1,
        intensity: float = 0.1,
        slice_dropout: float = 0.1,
    ):
        super().__init__()
        self.flip, self.shift, self.rotation = flip, shift, rotation
        self.scale, self.intensity, self.slice_dropout = scale, intensity, slice_dropout

    def forward(self, images: Tensor) -> Tensor:
        """Images (k, C, H, W) with intensities in [0, 1] -> changed images."""
        drawn = torch.rand(len(images), 7, device=images.device, dtype=torch.float32)
        mirror = torch.where(drawn[:, 0] < self.flip, -1.0, 1.0)
        signed = 2 * drawn[:, 1:] - 1
        angle = signed[:, 0] * math.radians(self.rotation)
        size = (signed[:, 1] * math.log1p(self.scale)).exp()
        moved = 2 * self.shift * signed[:, 2:4]
        # Pixels need not be squares of the grid, whose axes both run from -1 to 1: angles are those of the image.
        ratio = images.shape[2] / images.shape[3]
        cosine, sine = angle.cos() / size, angle.sin() / size
        rows = [torch.stack([mirror * cosine, -sine * ratio, moved[:, 0]], dim=1)]
        rows.append(torch.stack([mirror * sine / ratio, cosine, moved[:, 1]], dim=1))
        grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        turned = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        contrast, brightness = (self.intensity * signed[:, i, None, None, None] for i in (4, 5))
        return (turned * (1 + contrast) + brightness).to(images.dtype)
