"""Writing volumes as NIfTI, and masks as DICOM segmentations (SEG) that refer to their scan."""

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls._files import whole_file
from mmdls.scans._dicom import find_series, geometry
from mmdls.scans._headers import Refusal, pydicom
from mmdls.scans._reading import UNITS, dicom_files
from mmdls.scans._resampling import resample
from mmdls.scans._volume import Volume, same_geometry

__all__ = ["write_nifti", "write_segmentation"]

# All that is taken over from the headers of a scan: nothing in them names a patient, a hospital or a day.
_KEPT = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "InstanceNumber", "Rows", "Columns", "PixelSpacing", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient",
)  # fmt: skip
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def write_nifti(volume: Volume, path: str | PathLike) -> None:
    """Write a volume or a mask as NIfTI; :func:`read_scan` and :func:`read_mask` give it back at the same places.

    Parameters
    ----------
    volume : Volume
        A mask of bool becomes 0 and 1. The unit of a scan is written too.
    path : path-like
        Ends in ``.nii`` or ``.nii.gz``.

    Raises
    ------
    ValueError
        If the path has another ending.
    TypeError
        If the volume is none.
    ImportError
        Without nibabel.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls.scans import read_scan
    >>> volume = Volume(np.arange(24).reshape(2, 3, 4), np.diag([1.0, 1, 1, 1])[:, [2, 1, 0, 3]], unit="HU")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_nifti(volume, f"{folder}/scan.nii.gz")
    ...     bool((read_scan(f"{folder}/scan.nii.gz").array == volume.array).all())
    True
    """
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(
            'NIfTI files are written with nibabel; install it with: pip install "mmdls[scans]"'
        ) from error
    if not fspath(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"a volume is written as .nii or .nii.gz; got {fspath(path)!r}.")
    _check_volume(volume, "what is written")
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        array = array.astype(np.int32) if np.abs(array).max() < 2**31 else array.astype(np.float64)
    # DICOM runs to the left and the back, NIfTI to the right and the front, columns first.
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    if volume.unit in UNITS:
        image.header["intent_name"] = volume.unit
    with whole_file(path) as partial:
        nibabel.save(image, partial)


def write_segmentation(masks: Mapping[str, Volume], path: str | PathLike, scan: str | PathLike, **series: Any) -> None:
    """Write masks as one DICOM segmentation of a scan, one segment each.

    Of the scan's headers only its geometry and the UIDs that it is found by are taken over; name, id, dates and all
    else that could identify the patient stay empty.

    Parameters
    ----------
    masks : dict of str to Volume
        By the label of the segment; on the voxels of the scan, as :func:`read_scan` gives them.
    path : path-like
    scan : path-like
        The DICOM folder or file of the scan, one slice a file.
    **series : str or int
        ``modality`` and ``series`` choose the scan as in :func:`read_scan`.

    Raises
    ------
    ValueError
        If the scan is no DICOM series of slices, or a mask has other voxels, nothing inside, or values besides 0 and 1,
        such as probabilities.
    TypeError
        If ``series`` holds anything else, or a mask is no :class:`Volume`.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls.datasets import make_scans
    >>> from mmdls.scans import read_mask, read_scan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scans = make_scans(folder, n_patients=1, random_state=0).scans.iloc[0]
    ...     ct = read_scan(scans["ct"])
    ...     lesion = read_mask(scans["structures"], like=ct, label="lesion")
    ...     write_segmentation({"lesion": lesion}, f"{folder}/lesion.dcm", scan=scans["ct"])
    ...     again = read_mask(f"{folder}/lesion.dcm", like=ct, label="lesion")
    >>> bool((again.array == lesion.array).all())
    True
    """
    try:
        chosen = find_series(dicom_files(Path(scan)), series.pop("modality", None), series.pop("series", None))
        affine, order = geometry(chosen)
    except Refusal as reason:
        raise ValueError(f"{fspath(scan)!r} {reason}.") from None
    if series:
        raise TypeError(f"write_segmentation takes modality= and series= beside its own; got {sorted(series)}.")
    if not masks:
        raise ValueError("there is no mask to write.")
    headers = [_clean(chosen.headers[i]) for i in order]
    shape = (len(headers), int(headers[0].Rows), int(headers[0].Columns))
    acquired = Volume(np.broadcast_to(False, shape), affine, "label")
    turned = acquired.turned()
    for name, mask in masks.items():
        _check_volume(mask, f"the mask {name!r}")
        if not same_geometry(turned, mask):
            raise ValueError(
                f"the mask {name!r} has other voxels than the scan; bring it to them by mmdls.scans.resample."
            )
        if not mask.array.any():
            raise ValueError(f"the mask {name!r} is empty; leave it out, since a segmentation holds no empty segment.")
        if not np.isin(mask.array, (0, 1)).all():
            raise ValueError(
                f"the mask {name!r} holds other values than 0 and 1; give one structure a mask, and of probabilities "
                "what is above a threshold: dataclasses.replace(mask, array=mask.array > 0.5)."
            )
    arrays = [resample(Volume(m.array != 0, m.affine, "label"), like=acquired).array for m in masks.values()]
    _highdicom_file(np.stack(arrays, axis=-1), list(masks), headers, path)


def _check_volume(volume: Any, what: str) -> None:
    """Refuse what is no volume, such as an array, whose places nobody knows."""
    if not isinstance(volume, Volume):
        raise TypeError(
            f"{what} must be a mmdls.scans.Volume; got {type(volume).__name__}. An array on the voxels of a scan "
            'becomes one by Volume(array, scan.affine, "label").'
        )


def _highdicom_file(array: np.ndarray, names: list[str], headers: list[Any], path: Any) -> None:
    try:
        import highdicom
    except ImportError as error:
        raise ImportError('DICOM SEG is written with highdicom; install it with: pip install "mmdls[scans]"') from error
    code = pydicom().sr.codedict.codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="mmdls", version="1", family=code.cid7162.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=i,
            segment_label=name,
            segmented_property_category=code.SCT.Tissue,
            segmented_property_type=code.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for i, name in enumerate(names, start=1)
    ]
    file = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=array.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="mmdls",
        manufacturer_model_name="mmdls",
        software_versions="1",
        device_serial_number="0",
    )
    with whole_file(path) as partial:
        file.save_as(partial)


def _clean(header: Any) -> Any:
    """A header with its geometry and UIDs only."""
    kept = pydicom().Dataset()
    for keyword in _KEPT:
        if keyword in header:
            kept[keyword] = header[keyword]
    for keyword in _EMPTY:
        setattr(kept, keyword, "")
    return kept
