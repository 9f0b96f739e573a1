"""Reading one patient's image: a folder of PNG slices, a .npy file, a NIfTI volume, or an array in memory."""

import struct
import tokenize
import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmdls._files import check_npy
from mmdls.images._files import find_image, of_patient, slice_files
from mmdls.images._nifti import read_nifti
from mmdls.images._png import read_png, read_slices

__all__ = ["is_missing", "read_image"]

# A three-dimensional array whose first two axes are equal and at least this long may have its slices last.
_LARGE = 64


def is_missing(cell: Any) -> bool:
    """True for None, NaN and NA.

    Parameters
    ----------
    cell : object
        One cell of a table; an array or a path is never missing.

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_missing(cell) for cell in (None, float("nan"), "scan.nii.gz")]
    [True, True, False]
    """
    import pandas as pd  # where cells are, it is loaded; processes that read scans start sooner without

    return pd.api.types.is_scalar(cell) and bool(pd.isna(cell))


def read_image(cell: Any, patient: Any = None) -> np.ndarray:
    """Read a patient's slices.

    Parameters
    ----------
    cell : path, sequence of paths, or ndarray of shape (S, H, W) or (H, W)
        A folder of PNG slices (8 or 16 bit grey, in natural order of their names), a ``.npy`` file, a NIfTI volume
        (``.nii``, ``.nii.gz``, turned so that columns run to the patient's left, rows to the back and slices to the
        head), a list of PNG files in the order of the slices, or the array itself.
    patient : default=None
        Id for messages.

    Returns
    -------
    ndarray of shape (S, H, W)
        As stored: 8-bit greys are uint8.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    TypeError, ValueError
        If it is empty, damaged, of an unknown kind, not grey, not finite, or of the wrong shape; if slices differ in
        size or bit depth; if a folder holds more than the slices of one image.

    Warns
    -----
    UserWarning
        If an array may have its slices last, or a NIfTI file does not state its orientation in the patient.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/scan.npy", np.zeros((3, 16, 16), dtype=np.uint8))
    ...     image = read_image(f"{folder}/scan.npy")
    >>> image.shape, image.dtype.name
    ((3, 16, 16), 'uint8')
    """
    if isinstance(cell, np.ndarray):
        image, source = cell, f"the array{of_patient(patient)}"
    elif isinstance(cell, (str, PathLike)):
        path, kind, source = find_image(cell, patient)
        image = _READERS[kind](path, source)
    elif isinstance(cell, (list, tuple)) and cell and all(isinstance(part, (str, PathLike)) for part in cell):
        source = f"the slices{of_patient(patient)}"
        image = read_slices([find_image(part, patient)[0] for part in cell], source)
    else:
        raise TypeError(
            f"an image{of_patient(patient)} is a path, an array of shape (S, H, W), or None if missing; got "
            f"{type(cell).__name__}."
        )
    return _checked(image, source)


def _checked(image: np.ndarray, source: str) -> np.ndarray:
    """Check that an image has shape (S, H, W) and finite numbers."""
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{source} must have shape (S, H, W) with at least one slice; got {image.shape}.")
    if image.dtype.kind not in "buif":
        raise ValueError(f"{source} must hold numbers; got {image.dtype}.")
    if isinstance(image, np.ma.MaskedArray):
        if np.ma.is_masked(image):
            raise ValueError(f"{source} has {np.ma.count_masked(image)} masked pixels; fill them with a value.")
        image = image.data
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError(f"{source} has {np.sum(~np.isfinite(image))} pixels that are NaN or infinite; repair it.")
    first, height, width = image.shape
    if width in (3, 4) and min(first, height) > 16:
        raise ValueError(
            f"{source} has shape {image.shape}: the last axis looks like colours. Slices are grey, (S, H, W); choose "
            "one colour, and add an axis in front of a single slice."
        )
    if _LARGE <= first == height != width:
        warnings.warn(
            f"{source} has shape {image.shape} and is read as {first} slices of {height} x {width} pixels. If these "
            f"are {width} slices of {first} x {height}, move the last axis to the front: numpy.moveaxis(array, -1, 0).",
            stacklevel=3,
        )
    return image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))


def _read_folder(path: Path, source: str) -> np.ndarray:
    return read_slices(slice_files(path, source), source)


def _read_npy(path: Path, source: str) -> np.ndarray:
    try:
        check_npy(path)
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (
        ValueError,
        EOFError,
        OSError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
        struct.error,
        OverflowError,
        MemoryError,
    ) as error:
        raise ValueError(f"{source} is no array of numbers ({error}); write it with numpy.save.") from error


# A new format is one function here: (path, name for messages) -> array (S, H, W).
_READERS: dict[str, Callable[[Path, str], np.ndarray]] = {
    "folder": _read_folder,
    "png": read_png,
    "npy": _read_npy,
    "nifti": read_nifti,
}
