"""The slices that are written of a structure: voxels of one size for all patients, HU kept."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from mmdls.scans import Volume
from mmdls.scans._cutting import cut as cut_voxels
from mmdls.scans._views import part_of

__all__ = ["at_levels", "cut", "largest_part"]

_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def largest_part(mask: Volume) -> tuple[Volume, int]:
    """The largest connected part of a mask, and how many parts there are; voxels that share a corner are connected.

    Parameters
    ----------
    mask : Volume
        With something inside.

    Returns
    -------
    Volume, int
    """
    (box,) = ndimage.find_objects(mask.array.view(np.uint8))
    parts, count = ndimage.label(mask.array[box], _TOUCHING)
    if count == 1:
        return mask, 1
    array = np.zeros_like(mask.array)
    array[box] = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return replace(mask, array=array), count


def at_levels(ct: Volume, mask: Volume, shown: np.ndarray, margin: float) -> tuple[Volume, Volume, Volume]:
    """The slices near those that show another structure, without copying them.

    Parameters
    ----------
    ct, mask : Volume
        On the same voxels.
    shown : ndarray of shape (n,)
        Indices of the slices that show the other structure, in order.
    margin : float
        Millimetres before the first one and after the last.

    Returns
    -------
    ct, mask, around : Volume
        Of these slices; the last one is the mask where the other structure is shown. All of everything, if nothing of
        the mask is there.
    """
    if not mask.array[shown].any():
        return ct, mask, mask
    reach = int(np.ceil(margin / ct.spacing[0]))
    start, stop = max(0, shown[0] - reach), min(len(ct.array), shown[-1] + 1 + reach)
    starts, counts = np.array([start, 0, 0]), np.array([stop - start, *ct.shape[1:]])
    ct, mask = (part_of(volume, starts, counts) for volume in (ct, mask))
    array = np.zeros_like(mask.array)
    array[shown - start] = mask.array[shown - start]
    return ct, mask, replace(mask, array=array)


def cut(
    ct: Volume, mask: Volume, around: Volume, n_slices: int, size: float, spacing: tuple[float, float]
) -> tuple[Volume, Volume]:
    """Square slices around a structure: those that show it, or as many around the one where it is largest.

    Parameters
    ----------
    ct, mask : Volume
    around : Volume
        The part of the mask that decides where the slices are, with something inside.
    n_slices : int
        The most.
    size : float
        Side of a slice in mm.
    spacing : (float, float)
        Millimetres from slice to slice, and from pixel to pixel.

    Returns
    -------
    ct, mask : Volume
        int16 and bool, on the same voxels.
    """
    shown = np.flatnonzero(around.array.any(axis=(1, 2)))
    height = (shown[-1] - shown[0] + 1) * around.spacing[0]
    n_slices = min(n_slices, max(1, round(height / spacing[0])))
    # The new slices lie evenly around the middle of the structure.
    count = np.rint((height + 4 * max(spacing[0], around.spacing[0])) / around.spacing[0])
    starts = np.array([np.rint((shown[0] + shown[-1]) / 2 - (count - 1) / 2), 0, 0])
    counts, is_same = np.array([count, *ct.shape[1:]]), mask is around
    ct, mask, around = (part_of(volume, starts, counts) for volume in (ct, mask, around))
    how: Any = {"spacing": (spacing[0], spacing[1], spacing[1]), "crop": (None, size, size), "n_slices": n_slices}
    part, inside = cut_voxels(ct, around, **how)
    if inside is None or not is_same:
        inside, _ = cut_voxels(mask, around, **how)
    return replace(part, array=np.rint(part.array).clip(-(2**15), 2**15 - 1).astype(np.int16)), inside
