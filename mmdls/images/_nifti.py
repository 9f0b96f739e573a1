"""NIfTI volumes: read in one common orientation, written in the geometry of the original image."""

import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from itertools import product
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls._files import whole_file

__all__ = ["Grid", "grid_of", "read_nifti", "voxel_spacing", "write_mask"]

# The radiological view: columns run to the patient's left, rows to the back, slices to the head.
_ORIENTATION = ("L", "P", "S")
# Of length, by NIfTI's codes.
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
# Grids that differ by less than this fraction of a voxel's shortest side are equal, since files round their geometry.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Grid:
    """The positions of a volume's voxels in the patient, in the axis order of :func:`read_image`.

    Parameters
    ----------
    shape : tuple of int
        Slices, rows, columns.
    affine : ndarray of shape (4, 4)
        From (slice, row, column, 1) to millimetres to the patient's right to left, back to front, feet to head.
    is_known : bool
        False if the file has no orientation codes, so that its position in the patient is unknown.
    unit : str, default="mm"
        Of length, as the file states it: ``"mm"``, ``"meter"``, ``"micron"``, or ``"unknown"`` if it states none.
    intent : str, default=""
        What the file says that its values are, by a name of any kind.
    is_ambiguous : bool, default=False
        True if the file states two places (sform and qform) that differ; the first one counts.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    is_known: bool
    unit: str = "mm"
    intent: str = ""
    is_ambiguous: bool = False

    @property
    def spacing(self) -> np.ndarray:
        """Millimetres from slice to slice, row to row, column to column."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def distance(self, other: "Grid") -> float:
        """Millimetres between voxels of the same index, the largest of all; infinite if the shapes differ."""
        if self.shape != other.shape:
            return np.inf
        corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in self.shape))])
        return float(np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1).max())

    def is_same(self, other: "Grid") -> bool:
        """Whether voxels of the same index lie at the same place, within a tenth of a voxel's shortest side."""
        return self.distance(other) <= _TOLERANCE * float(self.spacing.min())


def grid_of(path: Path, source: str) -> Grid:
    """The positions of a NIfTI file's voxels, without reading the voxels.

    Parameters
    ----------
    path : Path
    source : str
        Its name for messages.

    Returns
    -------
    Grid

    Raises
    ------
    ValueError
        If it is damaged, no NIfTI file, or without geometry.
    """
    volume = _load(path, source)
    shape = volume.shape[:3]
    affine = volume.affine @ _nibabel().orientations.inv_ornt_aff(_turn(volume), shape)
    turned = tuple(shape[int(axis)] for axis in np.argsort(_turn(volume)[:, 0]))
    unit = _UNITS.get(int(volume.header["xyzt_units"]) % 8, "another unit")
    intent = bytes(volume.header["intent_name"].tobytes()).rstrip(b"\0").decode("latin-1")
    grid = Grid(turned[::-1], affine[:, [2, 1, 0, 3]], _is_coded(volume), unit, intent)
    if not (int(volume.header["sform_code"]) > 0 and int(volume.header["qform_code"]) > 0):
        return grid
    try:
        sform, qform = (Grid(shape, form, True) for form in (volume.get_sform(), volume.get_qform()))
    except ValueError as error:  # of a quaternion that is no rotation
        raise _damaged(source, error) from error
    return replace(grid, is_ambiguous=not sform.distance(qform) <= _TOLERANCE * float(grid.spacing.min()))


def read_nifti(path: Path, source: str) -> np.ndarray:
    """Voxels (S, H, W), brought to the common orientation by swapping and flipping axes only.

    Parameters
    ----------
    path : Path
    source : str
        Its name for messages.

    Returns
    -------
    ndarray of shape (S, H, W)

    Raises
    ------
    ValueError
        If it is damaged, no NIfTI file, without geometry or with two that differ, or not three-dimensional.

    Warns
    -----
    UserWarning
        If the file does not state its orientation in the patient.
    """
    if grid_of(path, source).is_ambiguous:
        raise ValueError(
            f"{source} states two places of its voxels that differ (sform and qform), and programs choose differently; "
            "write it with one, for example nibabel: image.set_qform(image.affine, 1)."
        )
    volume = _load(path, source)
    if set(volume.shape[3:]) - {1}:
        raise ValueError(f"{source} must be a volume with three axes; got shape {volume.shape}. Choose one volume.")
    if not _is_coded(volume):
        warnings.warn(
            f"{source} has no orientation codes (sform_code = qform_code = 0): how it lies in the patient is not "
            "known. It is read as if its axes ran to the left, to the front and to the head. Check a slice against "
            "the original, and write the file with its affine.",
            stacklevel=4,
        )
    try:
        return _voxels(volume)
    except _DAMAGES as error:
        raise _damaged(source, error) from error


def _voxels(volume: Any) -> np.ndarray:
    """Voxels (S, H, W), read slice by slice: the library would hold copies of what it reads at once."""
    stored, rest = volume.dataobj, (0,) * (len(volume.shape) - 3)
    values = np.asanyarray(stored[(..., 0, *rest)]).dtype
    turned = [volume.shape[int(axis)] for axis in np.argsort(_turn(volume)[:, 0])]
    voxels = np.empty(turned[::-1], dtype=np.float32 if values == np.float64 else values.newbyteorder("="))
    as_stored = _nibabel().orientations.apply_orientation(voxels.transpose(2, 1, 0), _back(volume))
    for i in range(volume.shape[2]):
        as_stored[..., i] = stored[(..., i, *rest)]
    return voxels


def voxel_spacing(path: str | PathLike) -> tuple[float, float, float]:
    """Distance of slices, rows and columns in millimetres of a NIfTI file, in the order of :func:`read_image`.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    (float, float, float)

    Raises
    ------
    ValueError
        If it is damaged, without geometry, or measures in another unit.

    Examples
    --------
    >>> import nibabel, tempfile
    >>> scan = nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.diag([0.75, 0.75, 3.0, 1.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nibabel.save(scan, f"{folder}/ct.nii.gz")
    ...     voxel_spacing(f"{folder}/ct.nii.gz")
    (3.0, 0.75, 0.75)
    """
    grid = grid_of(Path(fspath(path)), repr(fspath(path)))
    if grid.unit not in ("mm", "unknown"):
        raise ValueError(f"{fspath(path)!r} measures space in {grid.unit} instead of mm; write it in mm.")
    slices, rows, columns = grid.spacing
    return float(slices), float(rows), float(columns)


def write_mask(mask: np.ndarray, path: str | PathLike, like: str | PathLike) -> None:
    """Write a mask as NIfTI on the voxels of the image that it belongs to.

    Parameters
    ----------
    mask : ndarray of shape (S, H, W), bool
        In the order of :func:`read_image`.
    path : path-like
        Ends in ``.nii`` or ``.nii.gz``.
    like : path-like
        The NIfTI file of the image; its affine and orientation are kept.

    Raises
    ------
    ValueError
        If the image is no NIfTI file, or has another shape.

    Examples
    --------
    >>> import nibabel, tempfile
    >>> from mmdls.images import read_mask
    >>> scan = nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4))  # columns, rows, slices
    >>> mask = np.zeros((4, 8, 8), dtype=bool)
    >>> mask[1, 2:5, 2:5] = True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nibabel.save(scan, f"{folder}/ct.nii.gz")
    ...     write_mask(mask, f"{folder}/mask.nii.gz", like=f"{folder}/ct.nii.gz")
    ...     again = read_mask(f"{folder}/mask.nii.gz")
    >>> bool((again == mask).all())
    True
    """
    nibabel = _nibabel()
    path, like = fspath(path), fspath(like)
    for name in (path, like):
        if not name.endswith((".nii", ".nii.gz")):
            raise ValueError(f"masks are written as NIfTI on the voxels of a NIfTI image; {name!r} is none.")
    image = _load(Path(like), repr(like))
    voxels = nibabel.orientations.apply_orientation(np.asarray(mask, dtype=bool).transpose(2, 1, 0), _back(image))
    if voxels.shape != image.shape[:3]:
        raise ValueError(
            f"the mask has shape {voxels.shape} and the image {like!r} {image.shape}, columns first; both need the "
            "same voxels."
        )
    header: Any = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"], header["cal_max"] = 0, 1
    with whole_file(path) as partial:
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.uint8), image.affine, header), partial)


def _load(path: Path, source: str) -> Any:
    """The opened file, its header checked."""
    nibabel = _nibabel()
    try:
        # Kept open, a compressed file is unpacked once, and not once for each of its slices.
        volume = nibabel.load(path, keep_file_open=True)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *_DAMAGES) as error:
        raise _damaged(source, error) from error
    if not isinstance(volume, nibabel.Nifti1Pair):
        raise _damaged(source, f"it holds {type(volume).__name__}")
    if len(volume.shape) < 3 or 0 in volume.shape:
        raise ValueError(f"{source} must be a volume with three axes; got shape {volume.shape}. Choose one volume.")
    if int(volume.header["qform_code"]) > 0:
        handedness, *sides = np.asarray(_stored_header(volume)["pixdim"])[:4].tolist()
        # nibabel would take 1 mm for a side of 0.
        if int(volume.header["sform_code"]) == 0 and not all(0 < side < np.inf for side in sides):
            raise ValueError(f"{source} has voxels of {sides} mm; write it with the affine of its series.")
        # The standard takes 0 for 1. Of others, programs take the sign, and nibabel 1.
        if handedness not in (-1, 0, 1):
            raise ValueError(
                f"{source} has {handedness:g} in pixdim[0], where the standard has 1 or -1, so that it is not known "
                "whether its axes are mirrored; write it with the affine of its series."
            )
    start = float(_stored_header(volume)["vox_offset"])
    if isinstance(volume, nibabel.Nifti1Image) and not start >= volume.header.single_vox_offset:
        raise ValueError(f"{source} has its voxels inside its header (vox_offset {start:g}); write it again.")
    slope, intercept = (float(part) for part in _stored_header(volume)[["scl_slope", "scl_inter"]].item())
    # A slope of 0, or one that was never set, means values as stored.
    if np.isinf(slope) or (np.isnan(slope) and not (np.isnan(intercept) or intercept == 0)):
        raise ValueError(
            f"{source} has values of an unknown scale (scl_slope {slope}, scl_inter {intercept}); write it with finite "
            "ones."
        )
    affine = volume.affine[:3, :3]
    is_finite = np.isfinite(volume.affine).all()
    if not is_finite or np.linalg.matrix_rank(affine) < 3 or set(_own(volume)[:, 0]) != {0, 1, 2}:
        raise ValueError(
            f"{source} has an affine that places no volume: {volume.affine[:3].tolist()}. Write it with the affine of "
            "its series."
        )
    return volume


def _stored_header(volume: Any) -> Any:
    """The header as it stands in the file; nibabel corrects and empties parts of it."""
    files = volume.file_map
    with _nibabel().openers.ImageOpener(files.get("header", files["image"]).filename) as file:
        return type(volume.header).from_fileobj(file, check=False).structarr


def _is_coded(volume: Any) -> bool:
    return int(volume.header["sform_code"]) > 0 or int(volume.header["qform_code"]) > 0


def _own(volume: Any) -> np.ndarray:
    return _nibabel().orientations.io_orientation(volume.affine)


def _turn(volume: Any) -> np.ndarray:
    orientations = _nibabel().orientations
    return orientations.ornt_transform(_own(volume), orientations.axcodes2ornt(_ORIENTATION))


def _back(volume: Any) -> np.ndarray:
    orientations = _nibabel().orientations
    return orientations.ornt_transform(orientations.axcodes2ornt(_ORIENTATION), _own(volume))


def _damaged(source: str, error: Any) -> ValueError:
    return ValueError(f"{source} cannot be read as NIfTI ({error}); replace it.")


_DAMAGES = (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, OverflowError, MemoryError, struct.error)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError('NIfTI files are read with nibabel; install it with: pip install "mmdls[imaging]"') from error
    return nibabel
