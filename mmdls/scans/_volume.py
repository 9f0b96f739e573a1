"""A scan in memory: voxels, their places in the patient in millimetres, and their unit."""

from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from mmdls.images._nifti import Grid

__all__ = ["Volume", "same_geometry"]

# Axes count as orthogonal up to this cosine, since files round their geometry.
_SKEW = 1e-3
# Letters of the patient's directions, by axis of LPS coordinates: towards lower values, towards higher values.
_LETTERS = ("RL", "AP", "IS")
# The radiological view: slices to the head, rows to the back, columns to the patient's left.
_VIEW = (2, 1, 0)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or a mask with its geometry.

    Parameters
    ----------
    array : ndarray of shape (S, H, W)
        Slices, rows, columns; finite numbers or bool.
    affine : array of shape (4, 4)
        From (slice, row, column, 1) to millimetres towards the patient's left, back and head (LPS, as in DICOM): the
        place of a voxel's centre. Its axes are orthogonal.
    unit : str, default=""
        Of the values: ``"HU"``, ``"SUV"``, ``"Bq/mL"``, ``"CNTS"``, ``"label"`` (masks) or another one; empty if
        unknown.
    modality : str, default=""
        As in DICOM: ``"CT"``, ``"PT"``, ``"SEG"``, ...; empty if unknown.
    frame : str, default=""
        UID of the frame of reference in which the places are given, of DICOM; empty if unknown.

    Raises
    ------
    TypeError, ValueError
        If the array is no volume of finite numbers, or the affine places none.

    Examples
    --------
    >>> volume = Volume(np.zeros((4, 5, 6)), np.diag([3.0, 0.5, 0.5, 1]), unit="HU")
    >>> volume.spacing
    (3.0, 0.5, 0.5)
    >>> volume.voxel_ml
    0.00075
    """

    array: np.ndarray
    affine: np.ndarray
    unit: str = ""
    modality: str = ""
    frame: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        array = self.array
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
            raise TypeError(f"a volume holds an array of numbers; got {getattr(array, 'dtype', type(array).__name__)}.")
        if np.ma.is_masked(array):
            raise ValueError("a volume holds numbers in all voxels; some of this array are masked: fill or crop them.")
        if array.ndim != 3 or 0 in array.shape:
            raise ValueError(f"a volume has the axes slices, rows, columns, none of them empty; got {array.shape}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"a volume holds finite numbers; {np.sum(~np.isfinite(array))} voxels are not.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
            raise ValueError(f"the affine of a volume is 4 x 4 with the last row 0, 0, 0, 1; got {affine.tolist()}.")
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        if not (sides > 0).all():
            raise ValueError(f"the voxels of a volume have sides above 0 mm; got {sides.tolist()}.")
        cosines = (affine[:3, :3] / sides).T @ (affine[:3, :3] / sides) - np.eye(3)
        if np.abs(cosines).max() > _SKEW:
            raise ValueError(
                f"the axes of a volume are orthogonal; these deviate by up to {np.degrees(np.abs(cosines).max()):.2g} "
                "degrees, as with a tilted gantry. Resample it to orthogonal axes first."
            )
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.array.shape
        return slices, rows, columns

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from slice to slice, row to row, column to column."""
        slices, rows, columns = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slices), float(rows), float(columns)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000

    @property
    def orientation(self) -> str:
        """Where slices, rows and columns run: Left or Right, Anterior or Posterior, Inferior or Superior."""
        order, signs = self._directions()
        return "".join(_LETTERS[axis][int(sign > 0)] for axis, sign in zip(order, signs, strict=True))

    def places(self, indices: Any) -> np.ndarray:
        """Where voxels lie in the patient.

        Parameters
        ----------
        indices : array of shape (..., 3)
            Slice, row, column; fractions lie between voxels.

        Returns
        -------
        ndarray of shape (..., 3)
            Millimetres, LPS.
        """
        return np.asarray(indices) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def indices(self, places: Any) -> np.ndarray:
        """The (fractional) slice, row and column at places in the patient, the inverse of :meth:`places`.

        Parameters
        ----------
        places : array of shape (..., 3)
            Millimetres, LPS.

        Returns
        -------
        ndarray of shape (..., 3)
        """
        return (np.asarray(places) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def turned(self) -> "Volume":
        """In the radiological view: slices to the head, rows to the back, columns to the patient's left.

        Axes are swapped and flipped only, so that every voxel keeps its value and its place; an oblique volume stays
        oblique.

        Returns
        -------
        Volume
        """
        order, signs = self._directions()
        axes = [order.index(axis) for axis in _VIEW]
        array, affine = self.array.transpose(axes), self.affine[:, [*axes, 3]]
        for axis in range(3):
            if signs[axes[axis]] < 0:
                array = np.flip(array, axis)
                affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
                affine[:3, axis] *= -1
        return replace(self, array=np.ascontiguousarray(array), affine=affine)

    def _directions(self) -> tuple[tuple[int, ...], np.ndarray]:
        """For slices, rows and columns, the nearest axis of the patient and its sign; each axis is taken once."""
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        order = max(permutations(range(3)), key=lambda axes: np.abs(cosines[list(axes), range(3)]).sum())
        return order, np.sign(cosines[list(order), range(3)])


def same_geometry(first: Volume, second: Volume, tolerance: float | None = None) -> bool:
    """Whether two volumes have the same voxels: shapes are equal, and voxels of the same index lie at the same place.

    Parameters
    ----------
    first, second : Volume
    tolerance : float, default=None
        Millimetres; None means a tenth of the shortest side of the first one's voxels.

    Returns
    -------
    bool

    Examples
    --------
    >>> volume = Volume(np.zeros((4, 5, 6)), np.diag([3.0, 0.8, 0.8, 1]))
    >>> same_geometry(volume, Volume(volume.array, volume.affine + 0.05 * np.eye(4, k=3)))
    True
    """
    grid, other = _grid(first), _grid(second)
    return grid.is_same(other) if tolerance is None else grid.distance(other) <= tolerance


def distance(first: Volume, second: Volume) -> float:
    """Millimetres between voxels of the same index, the largest of all; infinite if the shapes differ."""
    return _grid(first).distance(_grid(second))


def _grid(volume: Volume) -> Grid:
    return Grid(volume.array.shape, volume.affine, True)
