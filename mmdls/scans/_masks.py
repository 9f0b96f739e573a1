"""Reading a mask of one structure, on the voxels of its scan."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images._files import of_patient
from mmdls.images._masks import choose
from mmdls.images._settings import MaskArguments
from mmdls.scans._headers import NoSuchStructure, Refusal, check_frames, open_dicom, text
from mmdls.scans._itk import READERS, read_itk, segments_of
from mmdls.scans._reading import NIFTI, dicom_files, read_nifti_volume, volume_of
from mmdls.scans._resampling import resample as resampled
from mmdls.scans._rtstruct import RTSTRUCT, rasterise
from mmdls.scans._segmentation import SEGMENTATION, read_segmentation
from mmdls.scans._volume import Volume, distance, same_geometry

__all__ = ["read_mask", "read_structure"]

# The most slices in a row that may have been forgotten; more of them part two lesions.
_FORGOTTEN = 3

_ARGUMENTS = MaskArguments(resample="resample", names="names", allow_empty="allow_empty")


def read_mask(
    path: str | PathLike,
    like: Volume | None = None,
    *,
    label: str | int | Sequence[str | int] | None = None,
    names: Mapping[str, int] | None = None,
    resample: bool = False,
    allow_empty: bool = False,
    patient: Any = None,
) -> Volume:
    """Read the mask of one structure.

    Parameters
    ----------
    path : path-like
        A NIfTI, NRRD or MetaImage file, a DICOM structure set (RTSTRUCT) or segmentation (SEG), or a folder with one
        of these DICOM files alone.
    like : Volume, default=None
        The scan that the mask belongs to; the mask is given on its voxels. None keeps the mask's own, which contours
        do not have.
    label : str, int or sequence of them, default=None
        Which structure: the name or number of an RTSTRUCT's contours or a SEG's segment; of other files the values
        that are inside, or a name. A sequence takes all of them as one, None the only one.
    names : dict of str to int, default=None
        Values by name, of a file that has no names itself. A segmentation of 3D Slicer (``.seg.nrrd``) has.
    resample : bool, default=False
        Bring a mask with other voxels to those of ``like``, by the nearest voxel; False refuses it.
    allow_empty : bool, default=False
        Accept a mask with nothing inside, which means that the structure is absent.
    patient : default=None
        Id for messages.

    Returns
    -------
    Volume
        bool, unit ``"label"``.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_scan`, and if there is no such structure, it is empty, or its voxels are not those of
        ``like``, compared in mm.

    Warns
    -----
    UserWarning
        If a resampled mask reaches beyond the scan, or slices between others have nothing, as if they were forgotten.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls.datasets import make_scans
    >>> from mmdls.scans import read_scan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scans = make_scans(folder, n_patients=1, random_state=0).scans.iloc[0]
    ...     ct = read_scan(scans["ct"])
    ...     lesion = read_mask(scans["structures"], like=ct, label="lesion")
    >>> lesion.shape == ct.shape, lesion.array.dtype.name, bool(lesion.array.any())
    (True, 'bool', True)
    """
    return read_structure(
        path, like, label=label, names=names, resample=resample, allow_empty=allow_empty, patient=patient
    )


def read_structure(
    path: str | PathLike,
    like: Volume | None = None,
    *,
    label: str | int | Sequence[str | int] | None = None,
    names: Mapping[str, int] | None = None,
    resample: bool = False,
    allow_empty: bool = False,
    patient: Any = None,
    arguments: MaskArguments = _ARGUMENTS,
) -> Volume:
    """As :func:`read_mask`; messages name the user's own arguments."""
    if not isinstance(like, Volume | None):
        raise TypeError(f"like is the scan as a Volume, such as read_scan gives it; got {type(like).__name__}.")
    if not isinstance(path, str | PathLike):
        raise TypeError(f"the mask{of_patient(patient)} is a path; got {type(path).__name__}.")
    written, source = fspath(path), f"{fspath(path)!r}{of_patient(patient)}"
    place = Path(written)
    if not written.strip() or not place.exists():
        raise FileNotFoundError(f"there is no mask at {source}; correct the path.")
    try:
        parts = []
        for one in _one_by_one(label, place):
            part = _read(place, source, like, one, names, resample, arguments)
            parts.append(part if like is None else _on_voxels(part, like, resample, of_patient(patient), arguments))
        mask = parts[0]
        if not all(same_geometry(mask, part) for part in parts):
            raise Refusal("holds its structures on different voxels; give the scan by like=")
        if len(parts) > 1:
            mask = replace(mask, array=np.logical_or.reduce([part.array for part in parts]))
        if not (allow_empty or mask.array.any()):
            absent = f"Pass {arguments.allow_empty}=True if the structure is absent"
            raise Refusal(
                "is empty: no voxel is inside. " + (absent if arguments.allow_empty else "Use None if there is no mask")
            )
    except Refusal as reason:
        error = NoSuchStructure if isinstance(reason, NoSuchStructure) else ValueError
        raise error(f"{source} {reason}.") from None
    if left := _left_out(mask.array):
        warnings.warn(
            f"the mask{of_patient(patient)} has nothing on {left} slices between others that show the structure at the "
            "same place; look whether they were forgotten.",
            stacklevel=3,
        )
    return mask


def _left_out(array: np.ndarray) -> int:
    """How many slices are empty, up to three in a row, between two that show something at the same place."""
    shown = np.flatnonzero(array.any(axis=(1, 2)))
    pairs = [(low, high) for low, high in pairwise(shown) if 1 < high - low <= _FORGOTTEN + 1]
    return sum(int(high - low - 1) for low, high in pairs if (array[low] & array[high]).any())


def _one_by_one(label: Any, path: Path) -> list[Any]:
    """The structures to read one after the other; several values of one array are read at once."""
    several = not isinstance(label, str) and isinstance(label, Sequence) and len(label) > 0
    named = several and (bool(dicom_files(path)) or any(isinstance(one, str) for one in label))
    return list(label) if named else [label]


def _read(
    path: Path,
    source: str,
    like: Volume | None,
    label: Any,
    names: Any,
    resample: bool,
    arguments: MaskArguments,
) -> Volume:
    files = dicom_files(path)
    if len(files) > 1 or (path.is_dir() and not files):
        raise Refusal(f"holds {len(files)} DICOM files; name the one with the mask")
    if files:
        dataset = open_dicom(files[0])
        kind = text(dataset, "SOPClassUID")
        if kind == RTSTRUCT:
            array = rasterise(dataset, like, label, resample, arguments)
            return Volume(array, np.eye(4) if like is None else like.affine, "label", "RTSTRUCT")
        if kind == SEGMENTATION:
            return read_segmentation(files[0], label, arguments.label).turned()
        raise Refusal("is a DICOM file, but neither a structure set (RTSTRUCT) nor a segmentation (SEG)")
    suffix = path.suffix.lower()
    found: dict[str, int] = {}
    if suffix in NIFTI:
        volume = read_nifti_volume(path, source, "label", "")
    elif suffix in READERS:
        array, affine, header = read_itk(path)
        volume, found = volume_of(array, affine, "label", ""), segments_of(header)
    else:
        raise Refusal("is no mask that can be read: expected NIfTI, NRRD, MetaImage, or DICOM RTSTRUCT or SEG")
    known = {**found, **(names or {})}
    if isinstance(label, str):
        if label not in known:
            raise Refusal(
                f"has no structure {label!r}; "
                + (
                    f"its names are {known}"
                    if known
                    else f"its names are not known: give its number by {arguments.label}="
                    + (f", or pass {arguments.names}={{name: number}}" if arguments.names else "")
                )
            )
        label = known[label]
    return replace(volume, array=choose(volume.array, label, f" {source}", arguments, own=True)).turned()


def _on_voxels(mask: Volume, like: Volume, resample: bool, of: str, arguments: MaskArguments) -> Volume:
    """The mask on the voxels of its scan."""
    check_frames(mask.frame, like.frame)
    mask = replace(mask, frame=like.frame)
    if same_geometry(like, mask):
        return replace(mask, affine=like.affine)
    placed = _placed(mask, like)
    if placed is not None:
        return placed
    if not resample:
        apart = distance(like, mask)
        where = f"up to {apart:.1f} mm apart" if np.isfinite(apart) else f"{mask.shape} instead of {like.shape}"
        raise Refusal(
            f"has other voxels than its scan: {where}, of {_sides(mask)} instead of {_sides(like)} mm. Give the mask "
            f"of this scan, or pass {arguments.resample}=True"
        )
    moved = resampled(mask, like=like)
    places = like.indices(mask.places(np.argwhere(mask.array)))
    beyond = int(((places < -0.5) | (places > np.array(like.shape) - 0.5)).any(axis=1).sum())
    if beyond and not moved.array.any():
        raise Refusal("lies outside of its scan; give the mask of this scan")
    if beyond:
        warnings.warn(f"{beyond} of {len(places)} voxels of the mask{of} lie beyond its scan and are left out.",
                      stacklevel=4)  # fmt: skip
    return moved


def _placed(mask: Volume, like: Volume) -> Volume | None:
    """A mask of a part of the same voxels, such as the slices that show the structure; None if it has others."""
    start = np.rint(like.indices(mask.affine[:3, 3])).astype(int)
    part = Volume(np.broadcast_to(False, mask.shape), np.array(like.affine), "label")
    affine = like.affine.copy()
    affine[:3, 3] = like.places(start)
    if not same_geometry(replace(part, affine=affine), mask):
        return None
    inside = np.argwhere(mask.array) + start
    if ((inside < 0) | (inside >= like.shape)).any():
        raise Refusal("reaches beyond its scan; give the mask of this scan")
    array = np.zeros(like.shape, dtype=bool)
    array[tuple(inside.T)] = True
    return replace(mask, array=array, affine=like.affine)


def _sides(volume: Volume) -> str:
    return " x ".join(f"{side:.3g}" for side in volume.spacing)
