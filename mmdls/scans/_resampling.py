"""Volumes on other voxels: interpolated in millimetres.

Nearest and linear interpolation equal those of SimpleITK to rounding; scipy is required anyway.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage

from mmdls.scans._headers import check_frames
from mmdls.scans._volume import Volume

__all__ = ["MOST_VOXELS", "OUTSIDE", "finer", "lengths", "outside_value", "resample", "upright", "voxels_at"]

# What lies outside of a scan, by unit.
OUTSIDE = {"HU": -1024.0, "SUV": 0.0, "Bq/mL": 0.0, "CNTS": 0.0, "label": 0.0}
# The most voxels of a volume that is made here: 1024 slices of 1024 x 1024.
MOST_VOXELS = 2**30
# Voxels on each side of a place that its value depends on, by the degree of the spline; from 2 on all voxels count, and
# beyond this many less than rounding does.
_READS = (1, 1, 30, 30, 60, 60)
# Of two nearest voxels the upper one is taken, as SimpleITK does, and not one that rounding chooses.
_BETWEEN = 1e-6


def resample(
    volume: Volume,
    *,
    like: Volume | None = None,
    spacing: float | Sequence[float] | None = None,
    order: int | None = None,
    fill: float | None = None,
) -> Volume:
    """Interpolate a volume on other voxels.

    Parameters
    ----------
    volume : Volume
    like : Volume, default=None
        Take its voxels.
    spacing : float or (float, float, float), default=None
        Or keep the axes and the centre, and take voxels of these sides in mm (slices, rows, columns); they cover the
        volume whole. Nothing is averaged: large steps skip voxels.
    order : int, default=None
        Degree of the spline: 0 takes the nearest voxel, 1 is linear, 3 cubic. None is 0 for labels and bool, else 1.
    fill : float, default=None
        Value outside of the volume, whose border is the outer side of its outer voxels. None is air (-1024) for HU,
        0 for SUV, Bq/mL, CNTS and labels, and refuses other units if voxels lie outside.

    Returns
    -------
    Volume
        With order 0 of the same type, else float32.

    Raises
    ------
    ValueError
        If neither or both of like and spacing are given, like has another frame of reference, values between labels are
        asked for, or the value outside is not known.

    Examples
    --------
    >>> ramp = Volume(np.arange(4.0).reshape(4, 1, 1), np.diag([2.0, 1, 1, 1]), unit="HU")
    >>> resample(ramp, spacing=(1, 1, 1)).array.ravel().tolist()
    [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    """
    if (like is None) == (spacing is None):
        raise ValueError("resample takes the voxels of like=, or those of spacing=; give one of them.")
    is_label = volume.unit == "label" or volume.array.dtype == bool
    order = (0 if is_label else 1) if order is None else order
    if isinstance(order, bool) or order not in range(6):
        raise ValueError(f"order is the degree of a spline, 0 to 5; got {order!r}.")
    if is_label and order:
        raise ValueError(f"labels have no values between them: order must be 0; got {order}.")
    like = finer(volume, spacing) if like is None else like
    check_frames(volume.frame, like.frame, "the volume")
    shape, affine = like.shape, like.affine
    turn = np.linalg.inv(volume.affine) @ affine
    # A diagonal matrix goes a faster way through scipy.
    matrix = np.where(np.abs(turn[:3, :3]) * np.array(shape) < 1e-6, 0, turn[:3, :3])
    corners = np.array(list(product(*((0, size - 1) for size in shape)))) @ matrix.T + turn[:3, 3]
    # Nothing else is read.
    first, last = np.floor(corners.min(axis=0)) - _READS[order], np.ceil(corners.max(axis=0)) + _READS[order]
    limits = np.array(volume.shape)
    start = np.clip(first, 0, limits - 1).astype(int)
    stop = np.clip(last + 1, start + 1, limits).astype(int)
    array = volume.array[tuple(map(slice, start, stop))]
    array = array.view(np.uint8) if array.dtype == bool else array
    offset, kind = turn[:3, 3] - start, np.float32 if order else array.dtype
    between = 0.0 if order else _BETWEEN
    moved = ndimage.affine_transform(array, matrix, offset + between, shape, kind, order=order, mode="nearest")
    # The nearest voxel exists up to half a voxel beyond the centres of the outer ones.
    if not ((corners >= -0.5) & (corners < limits - 0.5)).all():
        ones = np.ones(array.shape, dtype=np.uint8)
        inside = ndimage.affine_transform(ones, matrix, offset, shape, order=0, mode="grid-constant", cval=0)
        if not inside.all():
            moved[inside == 0] = outside_value(volume, fill)
    array = moved.view(bool) if volume.array.dtype == bool else moved
    return replace(volume, array=array, affine=affine, frame=like.frame or volume.frame)


def outside_value(volume: Volume, fill: float | None) -> float:
    """The value of voxels outside of a volume."""
    known = {**OUTSIDE, volume.unit: 0.0} if volume.array.dtype == bool else OUTSIDE
    value = known.get(volume.unit) if fill is None else fill
    if value is None:
        raise ValueError(
            f"voxels outside of the volume are asked for, and what a value of unit {volume.unit!r} is there is not "
            "known; pass fill=."
        )
    kind = volume.array.dtype
    if kind.kind in "iu" and not np.iinfo(kind).min <= value <= np.iinfo(kind).max:
        raise ValueError(f"{value:g} is outside of the numbers of {kind}, which the volume holds; pass another fill=.")
    return value


def lengths(value: Any, name: str) -> np.ndarray:
    """Millimetres along slices, rows and columns; one number counts for all three."""
    sides = np.asarray(value)
    sides = sides.astype(float) if sides.dtype.kind in "iuf" else np.full((), np.nan)  # "522" may mean 5 x 2 x 2
    if sides.shape not in ((), (3,)) or not (np.isfinite(sides) & (sides > 0)).all():
        raise ValueError(f"{name} is one length in mm, or three (slices, rows, columns), above 0; got {value!r}.")
    return np.broadcast_to(sides, 3)


def upright(spacing: Any) -> np.ndarray:
    """The affine of slices to the head, rows to the back and columns to the left, with the first voxel at (0, 0, 0)."""
    return np.diag([*lengths(spacing, "spacing")[::-1], 1.0])[:, [2, 1, 0, 3]]


def finer(volume: Volume, spacing: Any, around: tuple[np.ndarray, np.ndarray] | None = None) -> Volume:
    """Voxels of other sides around the same centre, without values, for ``like`` of :func:`resample`.

    Parameters
    ----------
    volume : Volume
    spacing : float or sequence of 3 floats
    around : pair of ndarray of shape (3,), default=None
        Only those that reach into these voxels of the volume: the first and the last slice, row and column.

    Returns
    -------
    Volume
    """
    ratio = lengths(spacing, "spacing") / volume.spacing
    sizes = np.ceil(np.round(np.array(volume.shape) / ratio, 6))
    start = ((np.array(volume.shape) - 1) - (sizes - 1) * ratio) / 2
    if around is not None:
        first, last = ((index - start) / ratio for index in (around[0] - 0.5, around[1] + 0.5))
        first, last = np.clip(np.floor(first), 0, sizes - 1), np.clip(np.ceil(last), 0, sizes - 1)
        start, sizes = start + first * ratio, last - first + 1
    if not np.prod(sizes) <= MOST_VOXELS:
        raise ValueError(f"spacing={spacing!r} asks for {np.prod(sizes):.3g} voxels; the most are {MOST_VOXELS:.3g}.")
    return voxels_at(volume, start, sizes, ratio)


def voxels_at(volume: Volume, start: np.ndarray, counts: np.ndarray, ratio: np.ndarray) -> Volume:
    """Voxels without values, for ``like`` of :func:`resample`.

    Parameters
    ----------
    volume : Volume
    start : ndarray of shape (3,)
        Where the first one is, in voxels of the volume.
    counts : ndarray of shape (3,)
    ratio : ndarray of shape (3,)
        Of their sides to those of the volume.

    Returns
    -------
    Volume
    """
    affine = volume.affine.copy()
    affine[:3, :3] *= ratio
    affine[:3, 3] = volume.places(start)
    return Volume(np.broadcast_to(False, counts.astype(int)), affine)
