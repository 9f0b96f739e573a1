"""Reading a scan from files: one function for all formats."""

import warnings
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images import read_image
from mmdls.images._files import NOTES, folder_entries, of_patient, slice_files
from mmdls.images._nifti import grid_of, read_nifti
from mmdls.images._png import read_slices
from mmdls.scans._dicom import find_series, read_series
from mmdls.scans._headers import Refusal, is_dicom
from mmdls.scans._itk import READERS, read_itk
from mmdls.scans._packed import GZIP, check_packed
from mmdls.scans._resampling import MOST_VOXELS, upright
from mmdls.scans._volume import Volume

__all__ = ["NIFTI", "UNITS", "dicom_files", "read_nifti_volume", "read_scan", "volume_of"]

NIFTI = (".nii", ".gz")
# Units of values that NIfTI files of this library state, as the name of their intent.
UNITS = ("HU", "SUV", "Bq/mL", "CNTS")
_PICTURES = (".png", ".tif", ".tiff")
# Millimetres: sides of voxels, of scans from microscopes on, and the place of the first one.
_SIDES = 0.005, 200.0
_FARTHEST = 1e5


def read_scan(
    path: str | PathLike,
    *,
    unit: str | None = None,
    modality: str | None = None,
    series: int | str | None = None,
    spacing: float | Sequence[float] | None = None,
    patient: Any = None,
) -> Volume:
    """Read a scan with its geometry and its unit.

    Parameters
    ----------
    path : path-like
        A folder of DICOM slices or a DICOM file (CT, PET, MR; several slices in a file if it is enhanced CT or MR), a
        NIfTI (``.nii``, ``.nii.gz``), NRRD or MetaImage file, a folder of PNG or TIFF slices, or a ``.npy`` file.
    unit : str, default=None
        Of DICOM, the unit that is expected: ``"SUV"`` converts PET by :func:`suv_factor`, other units are compared
        with the header's. Other formats state no unit, but for NIfTI of :func:`write_nifti`: say what they hold, for
        example ``"HU"``.
    modality : str, default=None
        Of DICOM, the series to choose: ``"CT"``, ``"PT"`` or ``"MR"``. Of other formats, what they hold.
    series : int or str, default=None
        Number or UID of the DICOM series, where a folder holds several.
    spacing : float or (float, float, float), default=None
        Millimetres between slices, rows and columns. PNG, TIFF and ``.npy`` have none and need it; their first voxel
        is then at (0, 0, 0). Formats that have one refuse it.
    patient : default=None
        Id for messages.

    Returns
    -------
    Volume
        In the radiological view: slices to the head, rows to the back, columns to the patient's left. Voxels keep their
        values and their places.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    TypeError
        If it is no path.
    ValueError
        With the reason why the place or the unit of its voxels is not known: slices are missing, doubled, tilted or
        mixed, the file is damaged, of another kind, or without geometry. No message holds a value that identifies a
        patient.

    Warns
    -----
    UserWarning
        If DICOM was compressed with loss.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/scan.npy", np.zeros((4, 8, 8), dtype=np.int16))
    ...     read_scan(f"{folder}/scan.npy", spacing=(3, 0.8, 0.8), unit="HU").spacing
    (3.0, 0.8, 0.8)
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"the scan{of_patient(patient)} is a path; got {type(path).__name__}.")
    text = fspath(path)
    place, source = Path(text), f"{text!r}{of_patient(patient)}"
    if not text.strip() or not place.exists():
        raise FileNotFoundError(f"there is no scan at {source}; correct the path.")
    try:
        return _read(place, source, unit, modality, series, spacing).turned()
    except Refusal as reason:
        raise ValueError(f"{source} {reason}.") from None


def _read(path: Path, source: str, unit: str | None, modality: str | None, series: Any, spacing: Any) -> Volume:
    files = dicom_files(path)
    if spacing is not None and (files or path.suffix.lower() in (*NIFTI, *READERS)):
        raise Refusal("states its own spacing; leave spacing= out")
    if files:
        found = find_series(files, modality, series)
        if found.is_lossy:
            warnings.warn(f"{source} was compressed with loss: its values deviate from those of the scanner, and so do "
                          "uptake and radiomics. Use the original if there is one.", stacklevel=3)  # fmt: skip
        volume = read_series(found, unit)
        if why := found.missing(volume.spacing[0]):
            warnings.warn(
                f"{source} may lack slices, by its headers: {why}. Look whether all were copied.", stacklevel=3
            )
        return volume
    if series is not None:
        raise Refusal("is no DICOM, and has no series to choose")
    what = {"unit": unit or "", "modality": modality or ""}
    if path.suffix.lower() in NIFTI and path.is_file():
        return read_nifti_volume(path, source, **what)
    if path.suffix.lower() in READERS and path.is_file():
        array, affine, _ = read_itk(path)
        return volume_of(array, affine, **what)
    if path.is_dir():
        array = read_slices(slice_files(path, source, _PICTURES), source)
    elif path.suffix.lower() == ".npy":
        array = read_image(path)
    else:
        raise Refusal("is no scan that can be read: expected DICOM, NIfTI, NRRD, MetaImage, .npy or a folder of PNG")
    if spacing is None:
        raise Refusal("has no geometry: pass spacing=, the millimetres between slices, rows and columns")
    return volume_of(array, upright(spacing), **what)


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files of a folder, or the file itself; empty if it is none.

    Raises
    ------
    Refusal
        If a folder of DICOM files holds something else, or folders only.
    """
    if path.is_file():
        return [path] if is_dicom(path) else []
    entries = [entry for entry in folder_entries(path) if entry.name.upper() != "DICOMDIR"]
    files = [entry for entry in entries if entry.is_file() and entry.suffix.lower() not in NOTES]
    found = [file for file in files if is_dicom(file)]
    if found and len(found) < len(entries) - sum(entry.suffix.lower() in NOTES for entry in entries):
        raise Refusal(f"holds {len(found)} DICOM files, and other files or folders beside them; remove those")
    if entries and not files:
        raise Refusal(f"holds {len(entries)} folders or notes, and no slices; name the folder of one scan")
    return found


def read_nifti_volume(path: Path, source: str, unit: str, modality: str) -> Volume:
    """A NIfTI file that states where its voxels lie."""
    grid = grid_of(path, source)
    if not grid.is_known:
        raise Refusal(
            "has no orientation codes (sform_code = qform_code = 0), so that its place in the patient is not known; "
            "write it with the affine of its series"
        )
    if grid.is_ambiguous:
        raise Refusal(
            "states two places of its voxels that differ (sform and qform), and programs choose differently; write it "
            "with one, for example nibabel: image.set_qform(image.affine, 1)"
        )
    if grid.unit not in ("mm", "unknown"):
        raise Refusal(f"measures space in {grid.unit} instead of mm; write it with its affine in mm, and in nibabel: "
                      "image.header.set_xyzt_units('mm')")  # fmt: skip
    stated = grid.intent if grid.intent in UNITS else ""
    if stated and unit in UNITS and unit != stated:
        raise Refusal(f"holds {stated}, as it says, and {unit} is expected; convert it")
    if np.prod(np.array(grid.shape, dtype=float)) > MOST_VOXELS:
        raise Refusal(f"claims {grid.shape} voxels, more than can be read")
    if path.suffix.lower() == ".gz":
        check_packed(path, GZIP)
    # NIfTI runs to the right and the front, DICOM to the left and the back.
    affine = np.diag([-1.0, -1, 1, 1]) @ grid.affine
    return volume_of(read_nifti(path, source), affine, unit or stated, modality)


def volume_of(array: np.ndarray, affine: np.ndarray, unit: str, modality: str) -> Volume:
    """A volume, or the refusal of what is none."""
    try:
        volume = Volume(array, affine, unit, modality)
    except (TypeError, ValueError) as error:
        raise Refusal(f"holds no volume: {str(error).rstrip('.')}") from error
    low, high = _SIDES
    if not low <= min(volume.spacing) <= max(volume.spacing) <= high:
        raise Refusal(
            f"has voxels of {' x '.join(f'{side:.3g}' for side in volume.spacing)} mm, and a scan has {low:g} to "
            f"{high:g} mm; if these are metres or micrometres, write it in mm"
        )
    if np.abs(volume.affine[:3, 3]).max() > _FARTHEST:
        raise Refusal(f"lies {np.abs(volume.affine[:3, 3]).max():.3g} mm away; write it with the affine of its series")
    return volume
