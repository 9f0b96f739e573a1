"""Connected parts of a mask, and the body that a slice shows."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

__all__ = ["clip_to_body", "is_volume", "largest_parts"]

_BODY = -500
# Largest voxel spacing, and least length of the volume, in mm: thicker or fewer slices divide a lung into parts.
_CONTIGUOUS, _VOLUME = 10, 100


def largest_parts(mask: np.ndarray, n: int) -> np.ndarray:
    """The n largest connected parts of a mask, in as many dimensions as it has.

    Parameters
    ----------
    mask : ndarray, bool
    n : int

    Returns
    -------
    ndarray, bool
    """
    labels, count = ndimage.label(mask)
    if count <= n:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.isin(labels, 1 + np.argsort(-sizes, kind="stable")[:n])


def clip_to_body(masks: Sequence[np.ndarray], slices: Iterable[np.ndarray]) -> None:
    """Remove, in place, pixels outside the body: in each slice the largest part above -500 HU, with holes filled.

    Parameters
    ----------
    masks : sequence of ndarray of shape (S, H, W), bool
    slices : iterable of S ndarray of shape (H, W)
        In HU. Masks of a slice without such a part stay unchanged.
    """
    for number, hounsfield in enumerate(slices):
        found = [mask[number] for mask in masks]
        if any(mask.any() for mask in found):
            body = largest_parts(hounsfield > _BODY, 1)
            inside = ndimage.binary_fill_holes(body) if body.any() else True
            for mask in found:
                mask &= inside


def is_volume(spacing: Sequence[float] | None, n_slices: int) -> bool:
    """Whether an image's slices are known to form a volume, in which a lung is one connected part.

    Parameters
    ----------
    spacing : sequence of 3 float, or None
        Millimetres between slices, rows and columns, as far as they are known.
    n_slices : int

    Returns
    -------
    bool
    """
    return spacing is not None and max(spacing) <= _CONTIGUOUS and n_slices * spacing[0] >= _VOLUME
