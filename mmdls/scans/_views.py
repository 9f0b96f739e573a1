"""What a model sees of a volume: a window of intensities, a box in millimetres, the slices around a structure."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from mmdls.images._settings import as_window
from mmdls.scans._resampling import MOST_VOXELS, lengths, outside_value
from mmdls.scans._volume import Volume, same_geometry

__all__ = [
    "WINDOWS",
    "apply_window",
    "box_of",
    "check_count",
    "crop_mm",
    "part_of",
    "slices_around_largest_area",
    "windows_of",
]

# Lowest and highest HU: level -600, width 1500; level 40, width 400.
WINDOWS = {"lung": (-1350.0, 150.0), "mediastinum": (-160.0, 240.0)}


def apply_window(volume: Volume, window: Any) -> np.ndarray:
    """Intensities from 0 to 1 under one window, or under several as channels.

    Parameters
    ----------
    volume : Volume
    window : str, (float, float), or sequence of them
        ``"lung"`` (level -600, width 1500 HU) or ``"mediastinum"`` (level 40, width 400 HU), or the lowest and the
        highest value, in the volume's unit. A sequence gives one channel each.

    Returns
    -------
    ndarray of shape (S, H, W), or (S, C, H, W) for a sequence, float32

    Raises
    ------
    ValueError
        If a window has no such name or no two ends, or one in HU meets another unit.

    Examples
    --------
    >>> volume = Volume(np.array([[[-1350.0, -600, 40, 1000]]]), np.eye(4), unit="HU")
    >>> apply_window(volume, ["lung", "mediastinum"]).tolist()
    [[[[0.0, 0.5, 0.9266666769981384, 1.0]], [[0.0, 0.0, 0.5, 1.0]]]]
    """
    if _is_several(window):
        windows_of(window)
        return np.stack([apply_window(volume, one) for one in window], axis=1)
    ((low, high),) = windows_of(window)
    if isinstance(window, str) and volume.unit != "HU":
        raise ValueError(
            f"the window {window!r} is one of HU, and the volume is in {volume.unit or 'an unknown unit'!r}. Pass "
            "(low, high) in its unit, or read it with unit='HU' if that is what it holds."
        )
    return ((volume.array.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def windows_of(window: Any) -> list[tuple[float, float]]:
    """The lowest and the highest value of each window, as :func:`apply_window` takes them.

    Raises
    ------
    ValueError
        If one has no such name or no two ends, or there is none.
    """
    if _is_several(window):
        if not len(window):
            raise ValueError("window is an empty list; name one window or more.")
        return [ends for one in window for ends in windows_of(one)]
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ValueError(f"there is no window {window!r}; expected one of {sorted(WINDOWS)}, or (low, high).")
        return [WINDOWS[window]]
    return [as_window(window, "window")]


def _is_several(window: Any) -> bool:
    is_pair = isinstance(window, list | tuple) and len(window) == 2 and all(isinstance(end, Real) for end in window)
    return isinstance(window, list | tuple) and not is_pair


def crop_mm(
    volume: Volume, around: Volume | Sequence[float], size: float | Sequence[float], fill: float | None = None
) -> Volume:
    """The part of a volume in a box of a given size in millimetres.

    Parameters
    ----------
    volume : Volume
    around : Volume or (float, float, float)
        A mask, whose bounding box has the same centre, or a place in mm (LPS).
    size : float or (float, float, float)
        Sides in mm along slices, rows and columns, rounded to whole voxels, of which there is at least one.
    fill : float, default=None
        Value beyond the border; as for :func:`resample`.

    Returns
    -------
    Volume
        Its voxels are voxels of the volume, at the same places.

    Raises
    ------
    ValueError
        If the mask is empty or has other voxels than the volume, the place lies outside, or the size is no length.

    Examples
    --------
    >>> volume = Volume(np.zeros((10, 20, 20), dtype=np.int16), np.diag([3.0, 1, 1, 1]), unit="HU")
    >>> crop_mm(volume, around=(15, 10, 10), size=(9, 8, 8)).shape
    (3, 8, 8)
    """
    centre = _centre(volume, around)
    sides = np.maximum(np.rint(lengths(size, "size") / volume.spacing), 1)
    if np.prod(sides) > MOST_VOXELS:
        raise ValueError(f"size={size!r} asks for {np.prod(sides):.3g} voxels; choose a smaller box.")
    return part_of(volume, np.rint(centre - (sides - 1) / 2), sides, fill)


def part_of(volume: Volume, starts: np.ndarray, counts: np.ndarray, fill: float | None = None) -> Volume:
    """Some voxels of a volume and, beyond its border, voxels that it does not have.

    Parameters
    ----------
    volume : Volume
    starts, counts : array of shape (3,)
        The first slice, row and column, which may lie before the volume's, and their numbers.
    fill : float, default=None
        Value beyond the border; as for :func:`resample`.

    Returns
    -------
    Volume
    """
    starts = np.asarray(starts).astype(np.int64)
    ends, limits = starts + np.asarray(counts).astype(np.int64), np.array(volume.shape)
    inner = tuple(slice(max(0, a), max(0, b)) for a, b in zip(starts, np.minimum(ends, limits), strict=True))
    array = volume.array[inner]
    beyond = [(int(max(0, -a)), int(max(0, b - c))) for a, b, c in zip(starts, ends, limits, strict=True)]
    if any(max(pair) for pair in beyond):
        array = np.pad(array, beyond, constant_values=outside_value(volume, fill))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.places(starts)
    return replace(volume, array=array, affine=affine)


def slices_around_largest_area(mask: Volume | np.ndarray, n_slices: int) -> np.ndarray:
    """Indices of neighbouring slices, with the one where a structure is largest in the middle.

    Parameters
    ----------
    mask : Volume or ndarray of shape (S, H, W)
        Not 0 inside the structure.
    n_slices : int
        At the volume's border the others lie on the other side; a shorter volume gives all its slices.

    Returns
    -------
    ndarray of shape (min(n_slices, S),)

    Raises
    ------
    ValueError
        If nothing is inside the mask.

    Examples
    --------
    >>> mask = np.zeros((9, 4, 4), dtype=bool)
    >>> mask[6, :2], mask[7] = True, True
    >>> slices_around_largest_area(mask, 3)
    array([6, 7, 8])
    """
    array = mask.array if isinstance(mask, Volume) else mask
    areas = np.count_nonzero(array, axis=(1, 2))
    if not areas.any():
        raise ValueError("the mask is empty, so that no slice shows the structure.")
    check_count(n_slices)
    n_slices = min(int(n_slices), len(areas))
    # Of several slices with the same area, the middle one.
    largest = np.flatnonzero(areas == areas.max())
    start = int(largest[(len(largest) - 1) // 2]) - (n_slices - 1) // 2
    start = min(max(start, 0), len(areas) - n_slices)
    return np.arange(start, start + n_slices)


def check_count(n_slices: Any) -> None:
    """Refuse what is no number of slices."""
    if not isinstance(n_slices, Integral) or isinstance(n_slices, bool) or n_slices < 1:
        raise ValueError(f"n_slices is a whole number of 1 or more; got {n_slices!r}.")


def box_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last slice, row and column of a structure.

    Raises
    ------
    ValueError
        If nothing is inside.
    """
    if not mask.any():
        raise ValueError("the mask is empty, so that it has no centre.")
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([found[0] for found in places]), np.array([found[-1] for found in places])


def _centre(volume: Volume, around: Any) -> np.ndarray:
    """The (fractional) index in the middle of a box."""
    if not isinstance(around, Volume):
        centre = volume.indices(np.asarray(around, dtype=float))
        if not ((centre >= -0.5) & (centre <= np.array(volume.shape) - 0.5)).all():
            raise ValueError(f"the place {tuple(around)} mm lies outside of the volume; nothing is around it.")
        return centre
    if not same_geometry(volume, around):
        raise ValueError("mask and volume have other voxels; bring the mask to them: resample(mask, like=volume).")
    first, last = box_of(around.array)
    return (first + last) / 2
