"""Numbers of the uptake of a lesion in a PET in SUV; scikit-learn is not needed for them."""

from typing import Any

import numpy as np
from scipy import ndimage

from mmdls.scans import Volume

__all__ = ["UPTAKE", "share_of", "uptake"]

UPTAKE = ("suvmax", "suvmean", "suvpeak", "mtv", "tlg")
# A sphere of 1 mL, in mm.
_RADIUS = (3 * 1000 / (4 * np.pi)) ** (1 / 3)
# Points along each side of a voxel by which its fraction inside the sphere is measured.
_POINTS = 12
_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Reconstructions may scatter around 0; what goes further is HU or the like, and what is higher is Bq/mL.
_LOWEST, _HIGHEST = -5.0, 1000.0


def uptake(
    image: Volume, mask: np.ndarray, *, threshold: Any, lesions: str, peak: str, fractional_edges: bool
) -> dict[str, float]:
    """The numbers that :class:`mmdls.PETFeatures` describes, which explains the parameters.

    Parameters
    ----------
    image : Volume
        In SUV.
    mask : ndarray of shape (S, H, W), bool
        With something inside.
    threshold, lesions, peak, fractional_edges

    Returns
    -------
    dict of str to float
        By :data:`UPTAKE`.

    Raises
    ------
    ValueError
        If the values are no SUV.
    """
    parts, n_parts = ndimage.label(mask, _TOUCHING)
    if lesions == "primary":
        mask = parts == 1 + np.argmax(np.bincount(parts[mask])[1:])
    # The sphere reaches beyond the mask.
    margin = np.ceil(_RADIUS / np.array(image.spacing)).astype(int) + 1
    box = tuple(
        slice(max(0, part.start - more), part.stop + more)
        for part, more in zip(ndimage.find_objects(mask.astype(np.uint8))[0], margin, strict=True)
    )
    suv, mask, parts = image.array[box].astype(float), mask[box], parts[box]
    highest = suv[mask].max()
    if not 0 < highest <= _HIGHEST or suv.min() < _LOWEST:
        raise ValueError(
            f"values in the mask reach {highest:.3g}, and around it go from {suv.min():.3g} to {suv.max():.3g}: "
            "these are no SUV. Give the PET in SUV, and the mask of this PET."
        )
    inside = suv[mask & (suv >= _limits(suv, mask, parts, n_parts, threshold))]
    mtv = inside.size * image.voxel_ml
    mean = inside.mean() if inside.size else np.nan
    top = _peak(suv, mask, image.spacing, peak, fractional_edges)
    return dict(zip(UPTAKE, (highest, mean, top, mtv, mean * mtv if inside.size else 0.0), strict=True))


def share_of(threshold: Any) -> float | None:
    """The share of SUVmax of a threshold in per cent; None for others.

    Raises
    ------
    ValueError
        If it is a text, and no share.
    """
    if not isinstance(threshold, str):
        return None
    number, sign, rest = threshold.partition("%")
    share = float(number) / 100 if number.strip().replace(".", "", 1).isdigit() else np.nan
    if not sign or rest or not 0 < share < 1:
        raise ValueError(f"threshold is a SUV (4.0), a share of SUVmax ('41%') or None; got {threshold!r}.")
    return share


def _limits(suv: np.ndarray, mask: np.ndarray, parts: np.ndarray, n_parts: int, threshold: Any) -> Any:
    """The least SUV of the metabolic volume, for each voxel or for all."""
    share = share_of(threshold)
    if share is None:
        return -np.inf if threshold is None else threshold
    labels = np.where(mask, parts, 0)
    return share * np.r_[0.0, ndimage.maximum(suv, labels, np.arange(1, n_parts + 1))][labels]


def _peak(suv: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], peak: str, fractional: bool) -> float:
    from scipy.signal import fftconvolve  # half a second, which patients without a PET need not wait for

    kernel = _sphere(spacing, fractional)
    total, weight = (fftconvolve(values, kernel, mode="same") for values in (suv, np.ones_like(suv)))
    centres = mask & (suv == suv[mask].max()) if peak == "suvmax" else mask
    return float((total[centres] / weight[centres]).max())


def _sphere(spacing: tuple[float, float, float], fractional: bool) -> np.ndarray:
    """How much of each voxel lies in a sphere of 1 mL around the middle one."""
    n = _POINTS if fractional else 1
    squares = []
    for side in spacing:
        reach = int(np.floor(_RADIUS / side + 0.5))
        voxels = np.arange(-reach, reach + 1)[:, None]
        squares.append(((voxels + (np.arange(n) + 0.5) / n - 0.5) * side) ** 2)
    z, y, x = squares
    distance = z[:, None, None, :, None, None] + y[None, :, None, None, :, None] + x[None, None, :, None, None, :]
    return (distance <= _RADIUS**2).mean(axis=(3, 4, 5))
