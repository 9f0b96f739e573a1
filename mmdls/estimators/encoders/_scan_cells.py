"""How the slice encoder reads cells that are scans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images import is_missing, read_image, voxel_spacing
from mmdls.images._components import is_volume
from mmdls.images._cutting import cut_out
from mmdls.images._files import of_patient
from mmdls.images._hounsfield import is_hounsfield
from mmdls.images._masks import read_structure
from mmdls.images._nifti import grid_of
from mmdls.images._settings import MaskArguments
from mmdls.scans import WINDOWS, ScanView
from mmdls.scans._cells import as_mask, as_volume, has_geometry, label_in
from mmdls.scans._reading import NIFTI, UNITS

__all__ = ["ScanReader", "read_ct"]

_ARGUMENTS = MaskArguments("mask_label")
_ERRORS = (FileNotFoundError, OSError, TypeError, ValueError)
_REMEDY = "scan=ScanView(window=(low, high), unit=...) says what is seen of such a scan, of PET unit='SUV'"


@dataclass(frozen=True)
class ScanReader:
    """Reads the scan and the mask of one patient, for :meth:`mmdls.images.SliceStore.build`.

    Parameters
    ----------
    columns : sequence of str
        Of images and masks, for messages.
    view : ScanView or None
        None reads what :func:`mmdls.images.read_image` does not, under a window, whole or inside of its mask.
    intensity_range : (float, float) or None
        The window without a view; None means the lung window for what is in HU.
    label, resample_mask
        See :meth:`ScanView.read`.
    max_slices : int or None
        Evenly spaced slices kept of a view.
    """

    columns: Sequence[str]
    view: ScanView | None
    intensity_range: tuple[float, float] | None
    label: Any
    resample_mask: bool
    max_slices: int | None

    def __call__(
        self, image: Any, mask: Any, patient: Any
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float] | None] | None:
        """The image, its mask to cut out, and its window; None for cells that need no geometry."""
        if self.view is None and not any(map(_is_only_a_scan, (image, mask))):
            return None
        try:
            return self._seen(self.view, image, mask, patient) if self.view else self._whole(image, mask, patient)
        except _ERRORS as error:
            kind = next(kind for kind in _ERRORS if isinstance(error, kind))
            of = "" if f"patient {patient!r}" in str(error) else of_patient(patient)
            raise kind(f"in {' and '.join(map(repr, self.columns))}{of}: {error}") from error

    def extent(self, image: Any, mask: Any, patient: Any) -> np.ndarray | None:
        """Lengths in mm of what is read of a patient, along slices, rows and columns; None where cells do not tell."""
        if not has_geometry(image):
            return None
        how: dict[str, Any] = {"resample_mask": self.resample_mask, "patient": patient, "arguments": _ARGUMENTS}
        if self.view is not None:
            scan, _ = self.view.cut(*self.view._read(image, mask, label=self.label, **how))
            return np.array(scan.shape) * scan.spacing
        scan = as_volume(image, patient=patient)
        shape = np.array(scan.shape)
        if not is_missing(mask):
            inside = as_mask(mask, scan, image, label=label_in(mask, self.label), **how)
            shape = np.array(cut_out(inside.array.astype(np.uint8), inside.array).shape)
        return shape * scan.spacing

    def _seen(self, view: ScanView, image: Any, mask: Any, patient: Any) -> tuple[np.ndarray, None, None]:
        how: dict[str, Any] = {"label": self.label, "resample_mask": self.resample_mask, "patient": patient}
        scan, inside = view.cut(*view._read(image, mask, arguments=_ARGUMENTS, **how))
        if view.n_slices is None and self.max_slices is not None and len(scan.array) > self.max_slices:
            index = np.linspace(0, len(scan.array) - 1, self.max_slices).round().astype(int)
            scan = replace(scan, array=scan.array[index])
            inside = None if inside is None else replace(inside, array=inside.array[index])
        return view.intensities(scan, inside), None, None

    def _whole(
        self, image: Any, mask: Any, patient: Any
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float] | None]:
        window = self.intensity_range
        unit = "HU" if window is not None and is_hounsfield(window) else ""
        scan = as_volume(image, unit=unit, patient=patient)
        if scan.unit not in ("", "HU", "SUV") or (scan.unit == "SUV" and window is None):
            raise ValueError(f"the image of patient {patient!r} is in {scan.unit}; {_REMEDY}.")
        if scan.unit == "HU" and window is None:
            window = WINDOWS["lung"]
        if is_missing(mask):
            return scan.array, None, window
        how: dict[str, Any] = {"label": label_in(mask, self.label), "resample_mask": self.resample_mask}
        return scan.array, as_mask(mask, scan, image, patient=patient, arguments=_ARGUMENTS, **how).array, window


def read_ct(
    image: Any, masks: Mapping[str, Any], patient: Any, labels: Mapping[str, Any], resample_mask: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
    """A CT and masks on its voxels, from images and from scans.

    Parameters
    ----------
    image : object
        A cell as :func:`mmdls.images.read_image` or :func:`mmdls.scans.read_scan` reads it; scans are read in HU.
    masks : dict of str to object
        Cells by structure; those that are missing are left out.
    patient : object
        Id for messages.
    labels : dict of str to object
        What is inside of the masks, by structure.
    resample_mask : bool
        Whether masks with other voxels are resampled.

    Returns
    -------
    image : ndarray of shape (S, H, W)
    masks : dict of str to ndarray of shape (S, H, W), bool
    is_volume : bool
        See :func:`mmdls.images._components.is_volume`.
    """
    known = {name: cell for name, cell in masks.items() if not is_missing(cell)}
    how: dict[str, Any] = {"resample_mask": resample_mask, "allow_empty": True, "patient": patient}
    called = {
        name: {"label": label_in(cell, labels[name]), "arguments": MaskArguments(f"{name}_label")}
        for name, cell in known.items()
    }
    if any(map(_is_only_a_scan, (image, *known.values()))):
        scan = as_volume(image, unit="HU", modality="CT", patient=patient)
        inside = {name: as_mask(cell, scan, image, **called[name], **how).array for name, cell in known.items()}
        return scan.array, inside, is_volume(scan.spacing, len(scan.array))
    voxels = read_image(image, patient)
    inside = {
        name: read_structure(cell, like=voxels.shape, image=image, **called[name], **how)
        for name, cell in known.items()
    }
    is_nifti = isinstance(image, str | PathLike) and Path(image).suffix.lower() in NIFTI
    return voxels, inside, is_volume(voxel_spacing(image) if is_nifti else None, len(voxels))


def _is_only_a_scan(cell: Any) -> bool:
    """Whether a cell has a geometry, and is none of the NIfTI files of unknown unit, which are read as images."""
    is_nifti = isinstance(cell, str | PathLike) and Path(cell).suffix.lower() in NIFTI
    if not is_nifti:
        return has_geometry(cell)
    return Path(cell).is_file() and grid_of(Path(cell), repr(cell)).intent in UNITS
