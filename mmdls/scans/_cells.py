"""From the cells of a table to volumes: paths, volumes in memory, arrays with the sides of their voxels."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images._files import folder_entries, of_patient
from mmdls.images._masks import choose
from mmdls.images._settings import MaskArguments
from mmdls.scans._headers import check_frames, is_dicom
from mmdls.scans._itk import READERS, segment_names
from mmdls.scans._masks import read_structure
from mmdls.scans._reading import NIFTI, read_scan
from mmdls.scans._resampling import resample, upright
from mmdls.scans._volume import Volume, same_geometry

__all__ = ["as_mask", "as_volume", "has_geometry", "label_in"]


def has_geometry(cell: Any) -> bool:
    """Whether a cell says where its voxels lie: DICOM, NIfTI, NRRD, MetaImage, a Volume, or ``(array, spacing)``.

    Parameters
    ----------
    cell : object

    Returns
    -------
    bool
        False for pictures, plain arrays, and for what does not exist.
    """
    if not isinstance(cell, str | PathLike):
        return isinstance(cell, Volume) or _is_pair(cell)
    path = Path(fspath(cell))
    # Pictures are not opened: a cohort has a great many.
    if _is_picture(path) or not str(cell).strip():
        return False
    if path.is_dir():
        return any(entry.is_file() and is_dicom(entry) for entry in folder_entries(path))
    return path.is_file() and (path.suffix.lower() in (*NIFTI, *READERS) or is_dicom(path))


def as_volume(cell: Any, *, unit: str = "", modality: str | None = None, patient: Any = None) -> Volume:
    """The volume of a cell.

    Parameters
    ----------
    cell : path-like, Volume, or (array, spacing)
        What :func:`read_scan` reads, or millimetres between slices, rows and columns beside an array (S, H, W).
    unit : str, default=""
        That the values must have; what states none is taken to be in it.
    modality : str, default=None
        See :func:`read_scan`.
    patient : default=None
        Id for messages.

    Returns
    -------
    Volume
        In the radiological view.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_scan`, if it has another unit, or the cell holds anything else.
    """
    remedy = "give DICOM, NIfTI, NRRD, a Volume, or (array, spacing) with the mm between slices, rows and columns"
    if isinstance(cell, str | PathLike):
        if _is_picture(cell):
            raise ValueError(f"{fspath(cell)!r}{of_patient(patient)} has no voxel size; {remedy}.")
        volume = read_scan(cell, unit=unit or None, modality=modality, patient=patient)
    elif isinstance(cell, Volume):
        volume = cell if cell.unit else replace(cell, unit=unit)
    elif _is_pair(cell):
        volume = Volume(np.asarray(cell[0]), upright(cell[1]), unit=unit)
    else:
        raise TypeError(f"got {type(cell).__name__}{of_patient(patient)}, which has no voxel size; {remedy}.")
    volume = volume.turned()
    if unit and volume.unit != unit:
        raise ValueError(f"the image{of_patient(patient)} is in {volume.unit!r}, and {unit!r} is needed; convert it.")
    return volume


def as_mask(
    cell: Any,
    image: Volume,
    image_cell: Any,
    *,
    label: Any = None,
    resample_mask: bool = False,
    allow_empty: bool = False,
    patient: Any = None,
    arguments: MaskArguments = MaskArguments(),
) -> Volume:
    """The mask of a cell on the voxels of its image.

    Parameters
    ----------
    cell : path-like, Volume, (array, spacing), or ndarray of the shape of the image
        What :func:`read_mask` reads, or a mask in memory. An array has the voxels of an image that is no file.
    image : Volume
        As :func:`as_volume` gave it.
    image_cell : object
        Its cell.
    label : str, int or sequence of them, default=None
        See :func:`read_mask`; names are known in files only.
    resample_mask : bool, default=False
        Bring other voxels to those of the image, by the nearest one; False refuses them.
    allow_empty : bool, default=False
        Accept a mask with nothing inside.
    patient : default=None
        Id for messages.
    arguments : MaskArguments, default=MaskArguments()
        What the user's own arguments are called, for messages.

    Returns
    -------
    Volume
        bool.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_mask`, or if its place is not known.
    """
    of = of_patient(patient)
    if isinstance(cell, str | PathLike):
        if _is_picture(cell):
            raise ValueError(
                f"the mask at {fspath(cell)!r}{of} has no place in the patient, and its image has; give DICOM, NIfTI, "
                "NRRD or a Volume."
            )
        how: Any = {"label": label, "resample": resample_mask, "allow_empty": allow_empty, "patient": patient}
        return read_structure(cell, like=image, arguments=arguments, **how)
    if _has_name(label):
        raise ValueError(
            f"{arguments.label}={label!r} names a structure of a file, and the mask{of} is none; give a number."
        )
    if isinstance(cell, np.ndarray):
        if isinstance(image_cell, str | PathLike):
            raise ValueError(
                f"the image{of} is a file, and the mask an array without a place; give a file or a Volume."
            )
        placed = image_cell if isinstance(image_cell, Volume) else image
        mask = Volume(cell, placed.affine).turned() if cell.shape == placed.shape else None
    else:
        mask = as_volume(cell, patient=patient)
        check_frames(mask.frame, image.frame, f"the mask{of}")
        if not same_geometry(image, mask):
            mask = resample(mask, like=image, order=0, fill=0) if resample_mask else None
    if mask is None:
        raise ValueError(
            f"the mask{of} has other voxels than the image, whose shape is {image.shape}; {arguments.resample}=True "
            "takes the nearest ones."
        )
    inside = choose(mask.array, label, of, arguments)
    if not (allow_empty or inside.any()):
        raise ValueError(f"the mask{of} is empty: no voxel is inside. Use None if there is no mask.")
    return replace(mask, array=inside, affine=image.affine, unit="label", frame=image.frame)


def label_in(cell: Any, label: Any) -> Any:
    """A label as it counts for one mask: a name counts where structures have names; others must hold one structure."""
    if not _has_name(label):
        return label
    if not isinstance(cell, str | PathLike):
        return None
    path = Path(fspath(cell))
    if path.suffix.lower() in READERS and path.is_file():
        return label if segment_names(path) else None
    return label if has_geometry(cell) and path.suffix.lower() not in NIFTI else None


def _has_name(label: Any) -> bool:
    return isinstance(label, str) or (isinstance(label, Sequence) and any(isinstance(one, str) for one in label))


def _is_picture(cell: str | PathLike) -> bool:
    path = Path(fspath(cell))
    kinds = {path.suffix.lower()} if path.is_file() else {entry.suffix.lower() for entry in folder_entries(path)}
    return not kinds.isdisjoint((".png", ".tif", ".tiff", ".npy"))


def _is_pair(cell: Any) -> bool:
    return isinstance(cell, tuple | list) and len(cell) == 2 and np.ndim(cell[0]) == 3
