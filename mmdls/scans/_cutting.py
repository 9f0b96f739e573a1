"""Voxels of a size, in a box around a structure, of some of its slices: the part of a scan that is looked at."""

from numbers import Real
from typing import Any

import numpy as np

from mmdls.scans._resampling import MOST_VOXELS, resample, voxels_at
from mmdls.scans._views import box_of, part_of, slices_around_largest_area
from mmdls.scans._volume import Volume, same_geometry

__all__ = ["cut", "sides_of"]


def cut(
    scan: Volume,
    mask: Volume | None = None,
    *,
    spacing: Any = None,
    crop: Any = None,
    margin: Any = None,
    n_slices: int | None = None,
    fill: float | None = None,
) -> tuple[Volume, Volume | None]:
    """The voxels that :class:`mmdls.scans.ScanView` describes, which explains the parameters.

    Parameters
    ----------
    scan : Volume
    mask : Volume, default=None
        On the voxels of the scan.
    spacing, crop, margin : float or sequence of 3 floats or None, default=None
    n_slices : int, default=None
    fill : float, default=None
        Value beyond the scan; as for :func:`mmdls.scans.resample`.

    Returns
    -------
    scan, mask : Volume

    Raises
    ------
    ValueError
        If the mask has other voxels than the scan, or is empty where it is needed.
    """
    if mask is not None and not same_geometry(scan, mask):
        raise ValueError("mask and scan have other voxels; bring the mask to them: resample(mask, like=scan).")
    own, shape = np.array(scan.spacing), np.array(scan.shape)
    steps = sides_of(spacing, "spacing")
    # Of the voxels that are made: their sides and places, in voxels of the scan.
    ratio = np.where(np.isnan(steps) | np.isclose(steps, own, rtol=1e-6), 1.0, steps / own)
    counts = np.ceil(np.round(shape / ratio, 6))
    starts = ((shape - 1) - (counts - 1) * ratio) / 2
    if mask is not None and (crop is not None or margin is not None):
        first, last = box_of(mask.array)
        boxed = _box((last - first + 1) * own, own * ratio, crop, margin)
        starts = np.where(np.isnan(boxed), starts, (first + last) / 2 - (boxed - 1) / 2 * ratio)
        counts = np.where(np.isnan(boxed), counts, boxed)
    starts = np.where(ratio == 1, np.rint(starts), starts)
    # Slices are a bag: none is made beyond the scan.
    before = max(np.ceil((-0.5 - starts[0]) / ratio[0] - 1e-6), 0)
    counts[0] = min(np.floor((shape[0] - 0.5 - starts[0]) / ratio[0] + 1e-6) + 1, counts[0]) - before
    if mask is not None and n_slices is not None:
        kept = min(int(n_slices), counts[0])
        largest = np.rint((slices_around_largest_area(mask, 1)[0] - starts[0]) / ratio[0])
        before = np.clip(largest - (kept - 1) // 2, before, before + counts[0] - kept)
        counts[0] = kept
    starts[0] += before * ratio[0]
    if np.prod(counts) > MOST_VOXELS:
        raise ValueError(f"this view has {np.prod(counts):.3g} voxels; choose a smaller box or larger voxels.")
    return _taken(scan, starts, counts, ratio, fill), None if mask is None else _taken(mask, starts, counts, ratio, 0)


def sides_of(value: Any, name: str, least: float | None = None) -> np.ndarray:
    """Millimetres along slices, rows and columns; NaN where there is None."""
    parts = list(value) if isinstance(value, list | tuple | np.ndarray) else [value] * 3
    numbers = [part for part in parts if part is not None]
    are_lengths = all(isinstance(part, Real) and not isinstance(part, bool) for part in numbers)
    if len(parts) != 3 or not are_lengths or not all(0 < part < np.inf or part == least for part in numbers):
        raise ValueError(
            f"{name} is one length in mm, or three (slices, rows, columns), {'above' if least is None else 'from'} 0; "
            f"got {value!r}."
        )
    return np.array([np.nan if part is None else float(part) for part in parts])


def _box(structure: np.ndarray, steps: np.ndarray, crop: Any, margin: Any) -> np.ndarray:
    """Voxels along the sides of the box around a structure, both in mm; NaN keeps the whole side."""
    if margin is None:
        return np.maximum(np.rint(sides_of(crop, "crop") / steps), 1)
    slices, rows, columns = structure + 2 * sides_of(margin, "margin", 0.0)
    square = np.maximum(rows, columns)
    return np.ceil(np.round(np.array([slices, square, square]) / steps, 6))


def _taken(volume: Volume, starts: np.ndarray, counts: np.ndarray, ratio: np.ndarray, fill: float | None) -> Volume:
    """Voxels of other places and sides; those of the volume itself, where they are."""
    if (ratio == 1).all():
        return part_of(volume, starts, counts, fill)
    return resample(volume, like=voxels_at(volume, starts, counts, ratio), fill=fill)
