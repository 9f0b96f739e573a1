"""A simulated scanner: DICOM CT and PET series with structure sets, of simulated patients whose truth is known."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from mmdls.datasets._simulation import as_generator, make_nsclc_cohort

__all__ = ["make_scans"]

# Hounsfield units and SUV of air, soft tissue and lung; the lesion's SUV is the patient's.
_HU = {"air": -1000.0, "body": 40.0, "lung": -800.0, "lesion": 30.0}
_SUV = {"air": 0.0, "body": 1.0, "lung": 0.4}
_CT_SPACING, _PET_SPACING = np.array([5.0, 3.0, 3.0]), np.array([5.0, 5.0, 5.0])
_SHAPE_MM = np.array([160.0, 210.0, 270.0])
# Half axes in mm along slices, rows and columns, and the distance of the lungs' centres from the middle.
_BODY, _LUNG, _ASIDE = np.array([1e6, 100.0, 130.0]), np.array([75.0, 75.0, 50.0]), 60.0
_HALF_LIFE, _WAIT = 6586.2, 3600
_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
}


def make_scans(folder: str | PathLike, n_patients: int = 4, *, noise: float = 0.0, random_state: Any = None) -> Bunch:
    """Simulate patients with lung cancer, and write their CT, PET and contours as DICOM.

    Patients and outcomes are those of :func:`make_nsclc_cohort`. The lesion is a ball in a lung, of the diameter and
    the SUV of the patient, but of 2 to 8 cm: smaller ones have too few voxels for radiomics. The PET stores activity
    at the time of the scan, with another slope in every slice.

    Parameters
    ----------
    folder : path-like
        Gets one folder a patient, with ``ct/``, ``pet/`` (a file a slice) and ``structures/`` (RTSTRUCT with the
        structures "lesion", "lung-left" and "lung-right"). Needs pydicom: ``pip install "mmdls[scans]"``.
    n_patients : int, default=4
    noise : float, default=0.0
        Standard deviation of the noise, in HU in the CT; in the PET a thousandth of it, in SUV.
    random_state : int, Generator, RandomState or None, default=None

    Returns
    -------
    Bunch
        data : DataFrame
            ``clinical_*``, centre and treatment.
        target : DataFrame
            Subtype, stage and the two endpoints.
        scans : DataFrame
            Paths ``ct``, ``pet`` and ``structures``.
        truth : DataFrame
            ``lesion_ml`` (of the ball), ``lesion_suv``, ``lesion_hu``, ``lung_ml`` (of both lungs, without the
            lesion), ``weight`` in kg, ``dose`` in Bq, and what :func:`make_nsclc_cohort` knows.
        groups : Series
            The centre of each patient.

    Raises
    ------
    ValueError
        If ``noise`` is below 0 or not finite.
    ImportError
        Without pydicom.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls.scans import read_scan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cohort = make_scans(folder, n_patients=1, random_state=0)
    ...     pet = read_scan(cohort.scans["pet"].iloc[0], unit="SUV")
    >>> bool(abs(pet.array.max() - cohort.truth["lesion_suv"].iloc[0]) < 0.01)
    True
    """
    _pydicom()
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise must be a number of 0 or more; got {noise!r}.")
    rng = as_generator(random_state)
    cohort: Any = make_nsclc_cohort(n_patients, n_slices=1, image_size=8, n_radiomics=0, random_state=rng)
    kept = [name for name in cohort.data.columns if not name.endswith("_image") and not name.startswith("pet_")]
    scans, truth = [], []
    for number, (patient, row) in enumerate(cohort.data.iterrows(), start=1):
        place = Path(folder) / str(patient)
        body = _Patient(row, rng)
        for kind in ("CT", "PT"):
            _write_series(place / {"CT": "ct", "PT": "pet"}[kind], kind, body, number, noise, rng)
        _write_contours(place / "structures", body, number)
        scans.append({"ct": str(place / "ct"), "pet": str(place / "pet"), "structures": str(place / "structures")})
        truth.append(body.truth())
    cohort.truth = cohort.truth.join(pd.DataFrame(truth, index=cohort.data.index))
    return Bunch(
        data=cohort.data[kept],
        target=cohort.target,
        scans=pd.DataFrame(scans, index=cohort.data.index),
        truth=cohort.truth,
        groups=cohort.groups,
    )


class _Patient:
    """A body of ellipsoids, in mm from its middle to the head, the back and the left."""

    def __init__(self, row: pd.Series, rng: np.random.Generator):
        self.radius = float(np.clip(row["clinical_diameter"] * 5, 10, 40))
        self.suv = float(row["pet_suvmean"])
        self.weight = float(rng.uniform(50, 95))
        self.dose = float(np.round(self.weight * rng.uniform(3.5, 4.5)) * 1e6)
        side = rng.choice([-1, 1])
        self.lungs = {"lung-right": np.array([0, 0, -_ASIDE]), "lung-left": np.array([0, 0, _ASIDE])}
        room = _LUNG - self.radius
        self.lesion = np.array([0, 0, side * _ASIDE]) + rng.uniform(-0.3, 0.3, 3) * np.maximum(room, 0)

    def structures(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Centre and half axes of each structure."""
        lungs = {name: (centre, _LUNG) for name, centre in self.lungs.items()}
        return {"lesion": (self.lesion, np.full(3, self.radius)), **lungs}

    def values(self, places: np.ndarray, of: dict[str, float]) -> np.ndarray:
        """The value at each place (..., 3)."""
        value = np.where(_inside(places, np.zeros(3), _BODY), of["body"], of["air"])
        for name, (centre, axes) in reversed(self.structures().items()):
            value = np.where(_inside(places, centre, axes), of["lesion" if name == "lesion" else "lung"], value)
        return value

    def truth(self) -> dict[str, float]:
        """What a reader of the files should find."""
        ball = 4 / 3 * np.pi * self.radius**3 / 1000
        grid = _places(_CT_SPACING)
        in_lungs = np.any([_inside(grid, centre, _LUNG) for centre in self.lungs.values()], axis=0)
        free = in_lungs & ~_inside(grid, self.lesion, np.full(3, self.radius))
        voxel = np.prod(_CT_SPACING) / 1000
        return {"lesion_ml": ball, "lesion_suv": self.suv, "lesion_hu": _HU["lesion"], "lung_ml": free.sum() * voxel,
                "weight": self.weight, "dose": self.dose}  # fmt: skip


def _inside(places: np.ndarray, centre: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return (((places - centre) / axes) ** 2).sum(axis=-1) <= 1


def _places(spacing: np.ndarray) -> np.ndarray:
    """Where voxels lie (S, H, W, 3), in mm from the middle."""
    counts = np.rint(_SHAPE_MM / spacing).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * side for n, side in zip(counts, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _write_series(folder: Path, kind: str, body: _Patient, number: int, noise: float, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spacing = _CT_SPACING if kind == "CT" else _PET_SPACING
    places = _places(spacing)
    values = body.values(places, _HU if kind == "CT" else {**_SUV, "lesion": body.suv})
    values = values + rng.standard_normal(values.shape) * (noise if kind == "CT" else noise / 1000)
    # Activity that is left when the scan begins, of which SUV is the share by body weight.
    activity = body.dose * 2 ** (-_WAIT / _HALF_LIFE) / (body.weight * 1000)
    for i, image in enumerate(values):
        file = _file(kind, number, i)
        if kind == "CT":
            file.RescaleSlope, file.RescaleIntercept, file.RescaleType = 1, -1024, "HU"
            stored = np.rint(image + 1024).clip(0, 4095).astype(np.uint16)
        else:
            scaled = np.maximum(image, 0) * activity
            slope = float(f"{max(scaled.max(), 1) / 30000:.6g}")
            file.RescaleSlope, file.RescaleIntercept = slope, 0
            stored = np.rint(scaled / slope).astype(np.uint16)
            _describe_injection(file, body)
        file.Rows, file.Columns = stored.shape
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.SliceThickness, file.PixelSpacing = 15, spacing[0], [spacing[1], spacing[2]]
        file.ImagePositionPatient = [float(value) for value in places[i, 0, 0][::-1]]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImageType, file.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], len(values) - i
        file.PixelData = stored.tobytes()
        file.save_as(folder / f"{len(values) - i:03d}.dcm", enforce_file_format=True)


def _describe_injection(file: Any, body: _Patient) -> None:
    drug = _pydicom().Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = body.dose, _HALF_LIFE
    drug.RadiopharmaceuticalStartTime = "100000.00"
    file.RadiopharmaceuticalInformationSequence = [drug]
    file.Units, file.DecayCorrection, file.CorrectedImage = "BQML", "START", ["ATTN", "DECY", "SCAT"]
    file.PatientWeight = f"{body.weight:.6f}"
    file.SeriesDate = file.AcquisitionDate = "20200101"
    file.SeriesTime = file.AcquisitionTime = "110000.00"


def _write_contours(folder: Path, body: _Patient, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file, dataset = _file("RTSTRUCT", number, 0), _pydicom().Dataset
    heights = _places(_CT_SPACING)[:, 0, 0, 0]
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    file.StructureSetROISequence, file.ROIContourSequence = [], []
    for i, (name, (centre, axes)) in enumerate(body.structures().items(), start=1):
        roi, outline = dataset(), dataset()
        roi.ROINumber, roi.ROIName, outline.ReferencedROINumber = i, name, i
        contours = []
        for height in heights:
            share = 1 - ((height - centre[0]) / axes[0]) ** 2
            if share <= 1e-6:
                continue
            rows = centre[1] + axes[1] * np.sqrt(share) * np.sin(angle)
            columns = centre[2] + axes[2] * np.sqrt(share) * np.cos(angle)
            corners = np.stack([columns, rows, np.full_like(rows, height)], axis=1)
            contour = dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
            contour.ContourData = [f"{value:.4f}" for value in corners.ravel()]
            contours.append(contour)
        outline.ContourSequence = contours
        file.StructureSetROISequence.append(roi)
        file.ROIContourSequence.append(outline)
    file.save_as(folder / "structures.dcm", enforce_file_format=True)


def _file(kind: str, number: int, i: int) -> Any:
    """A file with what all files of a study share; its UIDs are the same in every run."""
    library = _pydicom()
    root = f"1.2.826.0.1.3680043.8.498.7.{number}"
    series = list(_CLASSES).index(kind) + 1
    file = library.Dataset()
    file.file_meta = library.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = library.uid.ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = _CLASSES[kind]
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = f"{root}.{series}.{i + 1}"
    file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = root, f"{root}.{series}", f"{root}.9"
    file.Modality, file.SeriesNumber, file.PatientName, file.PatientID = kind, series, "", f"simulated-{number}"
    return file


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError('DICOM is written with pydicom; install it with: pip install "mmdls[scans]"') from error
    return pydicom
