"""Series of DICOM slices as volumes: sorted by position, or refused with the reason."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.scans._headers import Refusal, items, number, numbers, open_dicom, pydicom, text, texts
from mmdls.scans._resampling import MOST_VOXELS
from mmdls.scans._suv import suv_factor
from mmdls.scans._volume import Volume

__all__ = [
    "Plane",
    "Series",
    "affine_of",
    "axes_of",
    "find_series",
    "geometry",
    "pixels",
    "plane_of",
    "read_series",
]

# Classes of objects that hold a scan, by the last numbers of their UID: CT, MR, PET. The value tells whether all slices
# share a file. Enhanced PET is left out: it keeps its unit in elements that are not read here.
_SCANS = {"2": False, "2.1": True, "2.2": True, "4": False, "4.1": True, "4.4": True, "128": False}
_ROOT = "1.2.840.10008.5.1.4.1.1."
# Parts of a slice by which positions may deviate: files round them.
_TOLERANCE = 0.1
# What all slices of a scan share.
_COMMON = ("Rows", "Columns", "FrameOfReferenceUID", "SOPClassUID", "SamplesPerPixel", "Modality", "PatientID",
           "ConvolutionKernel")  # fmt: skip
# Elements that say what pixels are, and classes of objects that are nothing else: of one frame, of several.
_PIXELS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
           "PixelRepresentation", "PixelData")  # fmt: skip
_CAPTURES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.3")
# Compressions that only SimpleITK decodes.
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# Compressions that lose, unless the header denies it: JPEG, JPEG-LS near lossless, JPEG 2000.
_LOSSY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91))


@dataclass(frozen=True)
class Plane:
    """One slice: where it is stored, where it lies, and how its values are scaled."""

    path: Path
    frame: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    scale: tuple[float | None, float | None]


@dataclass(frozen=True)
class Series:
    """The files of one series and their headers."""

    paths: list[Path]
    headers: list[Any]

    @property
    def modality(self) -> str:
        """As in the header: CT, PT or MR."""
        return text(self.headers[0], "Modality")

    @property
    def number(self) -> int | None:
        """Its number in the study."""
        value = number(self.headers[0], "SeriesNumber")
        return None if value is None else int(value)

    @property
    def is_lossy(self) -> bool:
        """Whether a slice was ever compressed with loss, so that its values are not those measured."""
        for header in self.headers:
            stated = text(header, "LossyImageCompression")
            if stated == "01" or (stated != "00" and text(header.file_meta, "TransferSyntaxUID") in _LOSSY):
                return True
        return False

    def missing(self, step: float) -> str:
        """What headers say of slices that are not there, although those that are lie ``step`` mm apart; or nothing."""
        if len(self.paths) == 1 or self.modality not in ("CT", "PT"):
            return ""
        first, count, found = self.headers[0], len(self.paths), []
        between = _count(text(first, "SpacingBetweenSlices"))
        if between and step > 1.5 * between:
            found.append(f"SpacingBetweenSlices is {between:g} mm, and they lie {step:.3g} mm apart")
        numbers = [_count(text(header, "InstanceNumber")) for header in self.headers]
        gaps = set(np.diff(sorted(number for number in numbers if number is not None)))
        if None not in numbers and len(gaps) == 1 and min(gaps) > 1:
            found.append(f"of InstanceNumber every {min(gaps):g}. one is there only")
        is_one = len({text(header, "AcquisitionNumber") for header in self.headers}) == 1
        for tag in ("NumberOfSlices", *(["ImagesInAcquisition"] if is_one else [])):
            stated = _count(text(first, tag))
            if stated and stated > count:
                found.append(f"{tag} is {stated:g}, and there are {count}")
        return "; ".join(found)


def _count(written: str) -> float | None:
    """A number that need not be one for the slices to be read."""
    return float(written) if re.fullmatch(r"\d{1,9}(\.\d*)?", written) else None


def find_series(paths: Sequence[Path], modality: str | None, series: int | str | None) -> Series:
    """The one series of scans among DICOM files; other objects (structures, segmentations, reports, scouts) are none.

    Parameters
    ----------
    paths : sequence of Path
    modality : str or None
    series : int, str or None
        Number or UID.

    Returns
    -------
    Series

    Raises
    ------
    Refusal
        If there is none, or several.
    """
    found: dict[str, Series] = {}
    others: set[str] = set()
    for path in paths:
        header = open_dicom(path)
        kind = text(header, "SOPClassUID")
        if not kind.startswith(_ROOT) or kind.removeprefix(_ROOT) not in _SCANS:
            others.add(
                pydicom().uid.UID(kind).name if kind in pydicom()._uid_dict.UID_dictionary else "unknown objects"
            )
        elif "LOCALIZER" in texts(header, "ImageType"):
            others.add("scout views")
        else:
            one = found.setdefault(text(header, "SeriesInstanceUID"), Series([], []))
            one.paths.append(path)
            one.headers.append(header)
    if not found:
        raise Refusal(f"holds no CT, PET or MR scan, only {', '.join(sorted(others))}")
    chosen = [
        one
        for uid, one in found.items()
        if modality in (None, one.modality) and (series is None or series in (uid, one.number))
    ]
    if len(chosen) != 1:
        listed = sorted(f"{one.modality} series number {one.number} ({len(one.paths)} files)" for one in found.values())
        wanted = (
            f"modality={modality!r}, series={series if isinstance(series, int) else '(by UID)' if series else None}"
        )
        raise Refusal(
            f"holds {len(found)} series, {len(chosen)} of which fit {wanted}: {', '.join(listed[:10])}. Choose one by "
            "modality=, or by series=, its number or UID"
        )
    return chosen[0]


def read_series(series: Series, unit: str | None) -> Volume:
    """The voxels of a series in its unit.

    Parameters
    ----------
    series : Series
    unit : str or None
        ``"SUV"`` converts PET; ``"HU"`` is believed of a CT whose header says "unspecified"; None keeps its own.

    Returns
    -------
    Volume
        As acquired; slices along the normal of their plane.

    Raises
    ------
    Refusal
        If its slices do not make up one regular grid, or its values have no known scale.
    """
    planes = _planes(series)
    order, affine = _grid(planes, series.headers[0])
    planes = [planes[i] for i in order]
    rows, columns = (int(_needed(series.headers[0], tag)) for tag in ("Rows", "Columns"))
    if len(planes) * rows * columns > MOST_VOXELS:
        raise Refusal(f"claims {len(planes)} slices of {rows} x {columns}, more than can be read")
    own_unit, factor = _unit(series, unit)
    scales = [_scale(plane, series.modality) for plane in planes]
    is_whole = factor == 1 and all(float(part).is_integer() for scale in scales for part in scale)
    array = np.empty((len(planes), rows, columns), dtype=np.int16 if is_whole else np.float32)
    stored: dict[Path, np.ndarray] = {}
    for i, (plane, (slope, intercept)) in enumerate(zip(planes, scales, strict=True)):
        if plane.path not in stored:
            stored = {plane.path: pixels(plane.path, rows, columns)}
        if plane.frame >= len(stored[plane.path]):
            raise Refusal("has fewer slices than its header says")
        values = (stored[plane.path][plane.frame].astype(np.float64) * slope + intercept) * factor
        if array.dtype == np.int16 and not (-(2**15) <= values.min() and values.max() < 2**15):
            array = array.astype(np.int32)
        array[i] = values
    return Volume(array, affine, own_unit, series.modality, text(series.headers[0], "FrameOfReferenceUID"))


def geometry(series: Series) -> tuple[np.ndarray, list[int]]:
    """The affine of a series as acquired, and the order of its files, each with one slice.

    Raises
    ------
    Refusal
        As :func:`read_series`, and if one file holds several slices.
    """
    planes = _planes(series)
    if len(planes) != len(series.paths) or text(series.headers[0], "NumberOfFrames") not in ("", "1"):
        raise Refusal("has its slices in one file; a segmentation is written for one file a slice")
    order, affine = _grid(planes, series.headers[0])
    return affine, [int(i) for i in order]


def _planes(series: Series) -> list[Plane]:
    """All slices of a series, in the order of its files."""
    first = series.headers[0]
    if any("ModalityLUTSequence" in header for header in series.headers):
        raise Refusal("has a table of values (ModalityLUTSequence), which is not read here; store values by slope")
    for tag in _COMMON:
        if len({text(header, tag) for header in series.headers}) > 1:
            raise Refusal(f"mixes slices with different {tag}; keep those of one scan")
    if number(first, "SamplesPerPixel") != 1 or text(first, "PhotometricInterpretation") not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise Refusal("is in colour; a scan has one grey value a voxel")
    is_shared = _SCANS[text(first, "SOPClassUID").removeprefix(_ROOT)]
    if not is_shared:
        return [plane_of(path, 0, [header]) for path, header in zip(series.paths, series.headers, strict=True)]
    if len(series.paths) > 1:
        raise Refusal(f"has {len(series.paths)} files with several slices each; give one of them")
    common, frames = items(first, "SharedFunctionalGroupsSequence"), items(first, "PerFrameFunctionalGroupsSequence")
    if not frames or len(frames) != number(first, "NumberOfFrames"):
        raise Refusal(f"describes {len(frames)} slices, and has another NumberOfFrames")
    return [plane_of(series.paths[0], i, [frame, *common]) for i, frame in enumerate(frames)]


def plane_of(path: Path, frame: int, groups: list[Any]) -> Plane:
    """One slice, from its own header, or from the groups of a file with several slices."""

    def find(sequence: str, tag: str, count: int) -> np.ndarray | None:
        places = [item for group in groups for item in (group, *items(group, sequence))]
        return next((found for place in places if (found := numbers(place, tag, count)) is not None), None)

    geometry = (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    )
    found = []
    for sequence, tag, count in geometry:
        value = find(sequence, tag, count)
        if value is None:
            raise Refusal(f"has slices without {tag}, so that their place in the patient is not known")
        found.append(value)
    position, orientation, spacing = found
    slope, intercept = (
        find("PixelValueTransformationSequence", tag, 1) for tag in ("RescaleSlope", "RescaleIntercept")
    )
    scale = (None if slope is None else float(slope[0]), None if intercept is None else float(intercept[0]))
    return Plane(path, frame, position, orientation, spacing, scale)


def axes_of(planes: list[Plane], mixed: str) -> tuple[np.ndarray, np.ndarray]:
    """The directions of slices, rows and columns (3, 3) of parallel planes, and the sides of their pixels in mm.

    Parameters
    ----------
    planes : list of Plane
    mixed : str
        The refusal of planes that differ, ``{}`` for the element.
    """
    orientation, sides = planes[0].orientation, planes[0].spacing
    if any(not np.allclose(plane.orientation, orientation, atol=1e-3) for plane in planes):
        raise Refusal(mixed.format("ImageOrientationPatient"))
    if any(not np.allclose(plane.spacing, sides, rtol=1e-3) for plane in planes):
        raise Refusal(mixed.format("PixelSpacing"))
    right, down = orientation[:3], orientation[3:]
    lengths = np.linalg.norm([right, down], axis=1)
    if not np.allclose(lengths, 1, atol=1e-3) or abs(right @ down) > 1e-3 or not (sides > 0).all():
        raise Refusal("has an ImageOrientationPatient or a PixelSpacing that places no pixels")
    return np.stack([np.cross(right, down), down, right]), sides


def affine_of(axes: np.ndarray, step: float, sides: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The affine of slices that are ``step`` mm apart, from their directions, sides and first position."""
    affine = np.eye(4)
    affine[:3, :3] = (axes * [[step], [sides[0]], [sides[1]]]).T
    affine[:3, 3] = origin
    return affine


def _grid(planes: list[Plane], header: Any) -> tuple[np.ndarray, np.ndarray]:
    """The order of slices along the normal of their plane, and the affine of the volume."""
    axes, sides = axes_of(planes, "mixes slices with different {}; keep those of one scan")
    normal = axes[0]
    positions = np.array([plane.position for plane in planes])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    heights, positions = heights[order], positions[order]
    step = _step(heights, header)
    drift = (positions - positions[0]) - np.outer(heights - heights[0], normal)
    if np.abs(drift).max() > _TOLERANCE * sides.min():
        shift = np.linalg.norm(drift[-1]) / (heights[-1] - heights[0])
        raise Refusal(
            f"has slices that are not stacked at right angles, by {np.degrees(np.arctan(shift)):.1f} degrees from "
            "first to last: the gantry was tilted, or slices belong to several scans. Convert it with a program that "
            "resamples tilted scans"
        )
    return order, affine_of(axes, step, sides, positions[0])


def _step(heights: np.ndarray, header: Any) -> float:
    """Millimetres from slice to slice."""
    if len(heights) == 1:
        measures = [item for group in items(header, "SharedFunctionalGroupsSequence") for item in
                    items(group, "PixelMeasuresSequence")]  # fmt: skip
        found = [number(place, "SliceThickness") for place in (header, *measures)]
        thickness = next((value for value in found if value), None)
        if thickness is None or thickness <= 0:
            raise Refusal("is a single slice without SliceThickness, so that its voxels have no height")
        return thickness
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    twice = int(np.sum(gaps <= _TOLERANCE * max(usual, 0)))
    if usual <= 0 or twice:
        raise Refusal(
            f"has {twice or 'many'} slices at the place of another one: copies, or several scans or moments in one "
            "series. Keep the slices of one"
        )
    step = float(heights[-1] - heights[0]) / len(gaps)
    even = heights[0] + step * np.arange(len(heights))
    if np.abs(heights - even).max() > _TOLERANCE * step:
        wide = int(np.sum(gaps > (1 + _TOLERANCE) * usual))
        raise Refusal(
            f"has slices at uneven distances, from {gaps.min():.3g} to {gaps.max():.3g} mm, {wide} of them wider than "
            f"the usual {usual:.3g} mm: slices are missing. Add them"
        )
    return step


def pixels(path: Path, rows: int, columns: int) -> np.ndarray:
    """The stored values (frames, rows, columns) of a file."""
    dataset = open_dicom(path, pixels=True)
    stored, highest = number(dataset, "BitsStored"), number(dataset, "HighBit")
    if stored is not None and highest is not None and highest != stored - 1:
        raise Refusal("has pixels whose HighBit is not BitsStored - 1, which DICOM no longer allows; write it anew")
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    known = pydicom().uid.UID(syntax)
    name = known.name if known.is_transfer_syntax else "an unknown transfer syntax"
    if not _has_decoder(syntax):
        raise Refusal(f"has pixels that nothing installed here decodes ({name}); store it uncompressed, for example: "
                      "gdcmconv --raw")  # fmt: skip
    try:
        if syntax in _JPEG_2000 and number(dataset, "PixelRepresentation") == 0 and _is_signed(dataset):
            raise Refusal("has pixels with a sign, and a header without (PixelRepresentation is 0); correct one of "
                          "them")  # fmt: skip
        array = _by_simpleitk(dataset) if syntax in _JPEG_LOSSLESS else dataset.pixel_array
    except (ImportError, Refusal):
        raise
    except Exception:
        # The library's message may hold a value of the header.
        raise Refusal(f"has pixels that cannot be decoded ({name}): the file is cut off or damaged, or store it "
                      "uncompressed") from None  # fmt: skip
    if array.shape[-2:] != (rows, columns) or array.ndim not in (2, 3):
        raise Refusal("has pixels of another size than its header says")
    return array.reshape(-1, rows, columns)


def _has_decoder(syntax: str) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return syntax in _JPEG_LOSSLESS or bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _is_signed(dataset: Any) -> bool:
    """Whether JPEG 2000 says itself that its values have a sign; pydicom shifts them where the header says no."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import get_j2k_parameters

    count = int(number(dataset, "NumberOfFrames") or 1)
    return bool(get_j2k_parameters(get_frame(dataset.PixelData, 0, number_of_frames=count)).get("is_signed"))


def _by_simpleitk(dataset: Any) -> np.ndarray:
    """Stored values of compressions that pydicom has no decoder for.

    SimpleITK gets a file of the pixels alone, since it would apply scales, or invert MONOCHROME1.
    """
    import SimpleITK

    plain = pydicom().Dataset()
    plain.file_meta = pydicom().dataset.FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    for tag in _PIXELS:
        if tag in dataset:
            plain[tag] = dataset[tag]
    has_frames = text(dataset, "NumberOfFrames") not in ("", "1")
    plain.SOPClassUID = plain.file_meta.MediaStorageSOPClassUID = _CAPTURES[has_frames]
    plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    plain.PhotometricInterpretation = "MONOCHROME2"
    with tempfile.TemporaryDirectory(prefix="mmdls-") as place:
        plain.save_as(Path(place) / "pixels.dcm", enforce_file_format=True)
        image = SimpleITK.ReadImage(str(Path(place) / "pixels.dcm"), imageIO="GDCMImageIO")
    return SimpleITK.GetArrayFromImage(image)


def _scale(plane: Plane, modality: str) -> tuple[float, float]:
    """Slope and intercept from stored values to those of the unit."""
    slope, intercept = plane.scale
    if modality == "MR":
        return 1.0 if slope is None else slope, intercept or 0.0
    if not slope or (intercept is None and modality == "CT"):
        raise Refusal("has slices without RescaleSlope and RescaleIntercept, so that their values have no unit")
    return slope, intercept or 0.0


def _unit(series: Series, wanted: str | None) -> tuple[str, float]:
    """The unit of a series, and the factor to it from rescaled values."""
    first = series.headers[0]
    if series.modality == "PT":
        if wanted == "SUV":
            return wanted, suv_factor(series.headers)
        code = text(first, "Units")
        if not code:
            raise Refusal("has no Units, so that its values have no unit")
        own = {"BQML": "Bq/mL", "GML": "g/mL"}.get(code, code)
    elif series.modality == "CT":
        groups = [first, *items(first, "SharedFunctionalGroupsSequence")]
        groups += items(first, "PerFrameFunctionalGroupsSequence")[:1]
        places = [place for group in groups for place in (group, *items(group, "PixelValueTransformationSequence"))]
        types = {text(place, "RescaleType") for place in places} - {""}
        own = "HU" if types <= {"HU"} or (types == {"US"} and wanted == "HU") else ""
        if not own:
            raise Refusal("is a CT whose RescaleType is not HU; if its values are HU all the same, pass unit='HU'"
                          if types == {"US"} else "is a CT whose RescaleType is not HU")  # fmt: skip
    else:
        own = wanted or ""
    if wanted not in (None, own):
        raise Refusal(f"has values in {own}, and unit={wanted!r} was asked for")
    return own, 1.0


def _needed(header: Any, tag: str) -> float:
    value = number(header, tag)
    if value is None:
        raise Refusal(f"has no {tag}")
    return value
