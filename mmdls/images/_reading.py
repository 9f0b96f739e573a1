"""Reading one patient's image: a folder of PNG slices, a .npy file, a NIfTI volume, or an array that is there."""

import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls.images._nifti import read_nifti

__all__ = ["is_missing", "read_image", "read_mask"]


def is_missing(cell: Any) -> bool:
    """True for None, NaN and NA.

    Parameters
    ----------
    cell : object
        One cell of a table; an array or a path is never missing.
    """
    return pd.api.types.is_scalar(cell) and bool(pd.isna(cell))


def read_image(cell: Any, patient: Any = None) -> np.ndarray:
    """Read a patient's slices.

    Parameters
    ----------
    cell : path or ndarray of shape (S, H, W) or (H, W)
        A folder of PNG slices (8 or 16 bit grey, in natural order of their names), a ``.npy`` file, a NIfTI volume
        (``.nii``, ``.nii.gz``, turned so that columns run to the patient's left, rows to the back and slices to the
        head), or the slices.
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
        If it is empty, damaged, of an unknown kind, not grey, not finite, or of the wrong shape.
    """
    of = "" if patient is None else f" of patient {patient!r}"
    if isinstance(cell, np.ndarray):
        image, source = cell, f"the array{of}"
    elif isinstance(cell, (str, PathLike)):
        path = Path(fspath(cell))
        source = f"{str(path)!r}{of}"
        if not path.exists():
            raise FileNotFoundError(f"no image at {source}; correct the path, or use None for a missing image.")
        kind = "folder" if path.is_dir() else path.suffix.lower()
        if kind not in _READERS:
            raise ValueError(
                f"{source} is no image that can be read: expected a folder of PNG slices, a .npy, .nii or .nii.gz file "
                f"or an array of shape (S, H, W), got {path.suffix or 'a file without suffix'!r}."
            )
        image = _READERS[kind](path, source)
    else:
        raise TypeError(
            f"an image{of} is a path, an array of shape (S, H, W), or None if missing; got {type(cell).__name__}."
        )
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{source} must have shape (S, H, W) with at least one slice; got {image.shape}.")
    if image.dtype.kind not in "buif":
        raise ValueError(f"{source} must hold numbers; got {image.dtype}.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError(f"{source} has {np.sum(~np.isfinite(image))} pixels that are NaN or infinite; repair it.")
    return image


def read_mask(
    cell: Any, patient: Any = None, like: tuple[int, ...] | None = None, *, allow_empty: bool = False
) -> np.ndarray:
    """Read a patient's mask.

    Parameters
    ----------
    cell : path or ndarray
        As for :func:`read_image`, with two values at the most; the larger one is inside.
    patient : default=None
        Id for messages.
    like : tuple of int, default=None
        Shape (S, H, W) of the image that it belongs to.
    allow_empty : bool, default=False
        Take a mask without any pixel inside: the structure is known to be absent.

    Returns
    -------
    ndarray of shape (S, H, W), bool

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_image`, and if the shape differs, more than two values are found, or nothing is inside.
    """
    of = "" if patient is None else f" of patient {patient!r}"
    mask = read_image(cell, patient)
    if like is not None and mask.shape != tuple(like):
        raise ValueError(
            f"the mask{of} has shape {mask.shape} and its image {tuple(like)}; both need the same slices and pixels."
        )
    values = np.unique(mask)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise ValueError(
            f"the mask{of} holds the values {values[:5].tolist()}; expected 0 outside and one other value inside. "
            "Choose one label, for example mask == 1."
        )
    if not (allow_empty or values.any()):
        raise ValueError(f"the mask{of} is empty: no pixel is inside. Use None if there is no mask.")
    return mask != 0


def _read_folder(path: Path, source: str) -> np.ndarray:
    files = sorted(
        (file for file in path.iterdir() if file.suffix.lower() == ".png"),
        key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)],
    )
    if not files:
        others = sorted(file.name for file in path.iterdir())[:3]
        raise ValueError(
            f"the folder {source} has no PNG slice; it holds {others or 'nothing'}. Put slices there, or use None for "
            "a missing image."
        )
    slices = [_read_png(file, source) for file in files]
    shapes = {image.shape for image in slices}
    if len(shapes) > 1:
        raise ValueError(f"the slices in {source} have different sizes {sorted(shapes)}; one image has one size.")
    return np.stack(slices)


def _read_png(path: Path, source: str) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('PNG slices are read with Pillow; install it with: pip install "mmdls[imaging]"') from error
    try:
        with Image.open(path) as image:
            if image.mode not in _GREY_MODES:
                raise ValueError(
                    f"{path.name!r} in {source} is a colour image (mode {image.mode}); slices must be grey. Convert it "
                    "to 8 or 16 bit grey."
                )
            return np.asarray(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path.name!r} in {source} is no image; remove it or replace it.") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path.name!r} in {source} is damaged ({error}); replace it.") from error


def _read_npy(path: Path, source: str) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{source} is no array of numbers ({error}); write it with numpy.save.") from error


_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
# A new format is one function here: (path, name for messages) -> array (S, H, W).
_READERS: dict[str, Callable[[Path, str], np.ndarray]] = {
    "folder": _read_folder,
    ".png": _read_png,
    ".npy": _read_npy,
    ".nii": read_nifti,
    ".gz": read_nifti,
}
