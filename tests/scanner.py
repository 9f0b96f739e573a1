"""Small DICOM files for tests, written by pydicom with every header under control."""

from itertools import count
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
)

_numbers = count(1)


def generate_uid():
    """The next one, so that files are the same in every run."""
    return f"1.2.826.0.1.3680043.8.498.{next(_numbers)}"


SECRET = "Muster^Erika"
PET = {
    "SOPClassUID": PositronEmissionTomographyImageStorage,
    "Modality": "PT",
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["ATTN", "DECY", "SCAT"],
    "PatientWeight": 70.0,
    "SeriesDate": "20200301",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200301",
    "AcquisitionTime": "110000.00",
    "RescaleSlope": 2.0,
    "RescaleIntercept": 0.0,
    "FrameReferenceTime": 60000.0,
    "ActualFrameDuration": 120000,
    "dose": 350e6,
    "half_life": 6586.2,
    "start_time": "100000.00",
    "start_date_time": None,
}


def with_headers(dataset, headers):
    """Set elements by keyword or tag; None deletes. ``dose`` and its like go to the item of the injection."""
    drug = Dataset()
    names = {
        "dose": "RadionuclideTotalDose",
        "half_life": "RadionuclideHalfLife",
        "start_time": "RadiopharmaceuticalStartTime",
        "start_date_time": "RadiopharmaceuticalStartDateTime",
    }
    for name, value in headers.items():
        if name in names:
            if value is not None:
                setattr(drug, names[name], value)
        elif isinstance(name, tuple):
            dataset.add_new(name, *value)
        elif value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if len(drug) and "RadiopharmaceuticalInformationSequence" not in headers:
        dataset.RadiopharmaceuticalInformationSequence = [drug]
    return dataset


def base(kind=CTImageStorage, rows=6, columns=8):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = SECRET, "X-4711-Q", "19470229"
    dataset.AccessionNumber, dataset.InstitutionName = "ACC-998877", "Klinik Musterstadt"
    dataset.Modality, dataset.SeriesNumber, dataset.ImageType = "CT", 3, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200301", "105900", "1"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SliceThickness = 3.0
    return dataset


def write_series(
    folder, stored=None, *, step=3.0, spacing=(0.7, 0.8), turn=None, first=(-20.0, 30.0, 100.0), each=None, **headers
):
    """One file a slice, named so that the order of names is not that of places; returns the stored values."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if stored is None:
        stored = np.random.default_rng(0).integers(0, 2000, (5, 6, 8)).astype(np.int16)
    turn = np.eye(3) if turn is None else turn
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for i, pixels in enumerate(stored):
        dataset = base(rows=pixels.shape[0], columns=pixels.shape[1])
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.InstanceNumber = len(stored) - i
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        place = np.array(first) + turn[:, 2] * step * i
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in place]
        dataset.ImageOrientationPatient = [f"{value:.9f}" for value in (*turn[:, 0], *turn[:, 1])]
        dataset.PixelSpacing = list(spacing)
        dataset.PixelData = pixels.tobytes()
        with_headers(dataset, headers)
        with_headers(dataset, each(i) if each else {})
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(folder / f"{(i * 7) % 11:02d}-{i}.dcm", enforce_file_format=True)
    return stored


def item(**headers):
    dataset = Dataset()
    for name, value in headers.items():
        setattr(dataset, name, value)
    return dataset


def write_enhanced(path, stored=None, *, step=3.0, **headers):
    """All slices in one file."""
    if stored is None:
        stored = np.random.default_rng(0).integers(0, 2000, (5, 6, 8)).astype(np.int16)
    dataset = base(EnhancedCTImageStorage, *stored.shape[1:])
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (generate_uid() for _ in "123")
    dataset.NumberOfFrames, dataset.InstanceNumber = len(stored), 1
    dataset.ContentDate, dataset.ContentTime = "20200301", "110000"
    scale = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.8], SliceThickness=step, SpacingBetweenSlices=step)],
            PixelValueTransformationSequence=[scale],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[-20, 30, 100 + step * i])],
            FrameContentSequence=[item(DimensionIndexValues=[i + 1])],
        )
        for i in range(len(stored))
    ]
    dataset.PixelData = stored.tobytes()
    with_headers(dataset, headers)
    dataset.save_as(path, enforce_file_format=True)
    return stored


def series_uid(folder):
    """The UID of the series in a folder."""
    return dcmread(next(Path(folder).iterdir())).SeriesInstanceUID
