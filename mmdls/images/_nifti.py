"""NIfTI volumes: in one orientation inside, in their own geometry when masks are written back."""

import zlib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_nifti", "voxel_spacing", "write_mask"]

# As radiologists look at slices: columns run to the patient's left, rows to the back, slices to the head.
_ORIENTATION = ("L", "P", "S")


def read_nifti(path: Path, source: str) -> np.ndarray:
    """Voxels (S, H, W), turned to the orientation of all images: only by swapping and flipping axes.

    Parameters
    ----------
    path : Path
    source : str
        Its name for messages.

    Raises
    ------
    ValueError
        If it is damaged, no NIfTI file, or not three-dimensional.
    """
    nibabel = _nibabel()
    try:
        volume = nibabel.load(path)
        voxels = np.asanyarray(volume.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{source} cannot be read as NIfTI ({error}); replace it.") from error
    if voxels.ndim != 3:
        raise ValueError(f"{source} must be a volume with three axes; got shape {voxels.shape}. Choose one volume.")
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    turn = nibabel.orientations.ornt_transform(_own(volume), nibabel.orientations.axcodes2ornt(_ORIENTATION))
    return nibabel.orientations.apply_orientation(voxels, turn).transpose(2, 1, 0)


def voxel_spacing(path: str | PathLike) -> tuple[float, float, float]:
    """Distance of slices, rows and columns in millimetres of a NIfTI file, in the order of :func:`read_image`.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    (float, float, float)
    """
    nibabel = _nibabel()
    volume = nibabel.load(fspath(path))
    turn = nibabel.orientations.ornt_transform(_own(volume), nibabel.orientations.axcodes2ornt(_ORIENTATION))
    zooms = volume.header.get_zooms()
    columns, rows, slices = (zooms[axis] for axis in np.argsort(turn[:, 0]))
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
    """
    nibabel = _nibabel()
    path, like = fspath(path), fspath(like)
    for name in (path, like):
        if not name.endswith((".nii", ".nii.gz")):
            raise ValueError(f"masks are written as NIfTI on the voxels of a NIfTI image; {name!r} is none.")
    image = nibabel.load(like)
    back = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt(_ORIENTATION), _own(image))
    voxels = nibabel.orientations.apply_orientation(np.asarray(mask, dtype=bool).transpose(2, 1, 0), back)
    if voxels.shape != image.shape:
        raise ValueError(
            f"the mask has shape {voxels.shape} and the image {like!r} {image.shape}, columns first; both need the "
            "same voxels."
        )
    header: Any = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"], header["cal_max"] = 0, 1
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.uint8), image.affine, header), path)


def _own(volume: Any) -> np.ndarray:
    return _nibabel().orientations.io_orientation(volume.affine)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError('NIfTI files are read with nibabel; install it with: pip install "mmdls[imaging]"') from error
    return nibabel
