"""NRRD and MetaImage volumes, read by SimpleITK once their header is known to state a geometry."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.scans._headers import Refusal
from mmdls.scans._packed import GZIP, ZLIB, check_packed
from mmdls.scans._resampling import MOST_VOXELS

__all__ = ["READERS", "read_itk", "segment_names", "segments_of"]

READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
_LONGEST_HEADER = 2**18
# What a header must say about the place of the voxels: one name of each group.
_NEEDED: dict[str, list[tuple[str, ...]]] = {
    "NrrdImageIO": [("space",), ("space directions",), ("space origin",)],
    "MetaImageIO": [
        ("ElementSpacing", "ElementSize"),
        ("TransformMatrix", "Rotation", "Orientation"),
        ("Offset", "Position", "Origin"),
    ],
}
# What SimpleITK passes over, which changes places or values: the pattern that each must have where it is stated.
_IGNORED = {
    "space units": r'("?(mm|millimeters?|millimetres?)"?\s*)*',
    "DistanceUnits": r"mm|\?",
    "HeaderSize": r"0|-1",
    "ElementToIntensityFunctionSlope": r"1(\.0*)?",
    "ElementToIntensityFunctionOffset": r"0(\.0*)?",
}
# How many bytes or lines before the voxels are none; below 0 the voxels stand at the end.
_SKIPS = ("byte skip", "byteskip", "line skip", "lineskip", "HeaderSize")
_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The voxels of a NRRD or MetaImage file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    array : ndarray of shape (S, H, W)
    affine : ndarray of shape (4, 4)
        To LPS.
    header : dict of str to str
        Its texts, such as the names of segments.

    Raises
    ------
    Refusal
        If it is damaged, has no geometry, or is no volume of one number a voxel.
    """
    library = _simpleitk()
    kind = READERS[path.suffix.lower()]
    header, end = _header(path, kind)
    lacking = [names[0] for names in _NEEDED[kind] if not any(name in header for name in names)]
    if lacking:
        raise Refusal(f"has no {', '.join(lacking)} in its header, so that its place in the patient is not known")
    if kind == "NrrdImageIO" and header["space"].lower() not in _SPACES:
        raise Refusal(f"has axes in another space than {sorted(_SPACES)}")
    for name, plain in _IGNORED.items():
        if name in header and not re.fullmatch(plain, header[name]):
            raise Refusal(f"has another {name} in its header than is read here; write it again, in mm, with its values")
    found = _data_length(path, header, end)
    reader = library.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) == 4 and size[3] == 1:
            reader.SetExtractSize([*size[:3], 0])
        elif len(size) != 3 or components != 1:
            raise Refusal(f"is no volume with three axes and one number a voxel; it has {size} x {components}")
        if np.prod([float(one) for one in size]) > MOST_VOXELS:
            raise Refusal(f"claims {size} voxels, more than can be read")
        width = library.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
        expected = int(np.prod(size)) * components * width
        if found not in (None, expected):
            raise Refusal(f"has {found} bytes of voxels where its header states {expected}; replace it")
        image = reader.Execute()
    except Refusal:
        raise
    except RuntimeError:
        raise Refusal("is damaged or cut off; replace it") from None
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return library.GetArrayFromImage(image), affine, header


def segment_names(path: Path) -> dict[str, int]:
    """Names and values of the segments of 3D Slicer in a NRRD file; empty for other files."""
    kind = READERS[path.suffix.lower()]
    return segments_of(_header(path, kind)[0]) if kind == "NrrdImageIO" else {}


def segments_of(header: Mapping[str, str]) -> dict[str, int]:
    """Names and values of the segments of 3D Slicer."""
    found = {}
    for key, name in header.items():
        if match := re.fullmatch(r"Segment(\d+)_Name", key):
            value = header.get(f"Segment{match[1]}_LabelValue", "")
            if value.isdecimal():
                found[name] = int(value)
    return found


def _header(path: Path, kind: str) -> tuple[dict[str, str], int]:
    """The lines ``name: value``, ``name:=value`` or ``name = value`` before the voxels, and where those begin."""
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    ends = {"NrrdImageIO": rb"\r?\n\r?\n", "MetaImageIO": rb"(?m)^ElementDataFile\s*=[^\n]*\n"}
    end = re.search(ends[kind], start)
    if kind == "NrrdImageIO" and not start.startswith(b"NRRD000") or kind == "MetaImageIO" and end is None:
        raise Refusal("is no NRRD file; replace it" if kind == "NrrdImageIO" else "is no MetaImage file; replace it")
    place = len(start) if end is None else end.end()
    line = r"^([^#:\n]+):=? ?(.*?)\r?$" if kind == "NrrdImageIO" else r"^(\w+)\s*=\s*(.*?)\s*$"
    pairs = re.findall(line, start[:place].decode("latin-1"), flags=re.MULTILINE)
    return {name.strip(): value for name, value in pairs}, place


def _data_length(path: Path, header: dict[str, str], end: int) -> int | None:
    """The bytes of the voxels, unpacked; None where they are text or the header lets others stand among them.

    Voxels stand in the file itself, or in one file beside it, and are whole if they are compressed.
    """
    data = header.get("ElementDataFile") or header.get("data file") or header.get("datafile") or "LOCAL"
    if data != "LOCAL" and (Path(data).name != data or not (path.parent / data).is_file()):
        raise Refusal("has its voxels in other files than one beside it; store it as one file")
    place, start = (path, end) if data == "LOCAL" else (path.parent / data, 0)
    encoding = header.get("encoding", "raw").lower()
    is_skipping = any(header.get(name, "0") != "0" for name in _SKIPS)
    if encoding in ("gz", "gzip") or header.get("CompressedData") == "True":
        length = check_packed(place, ZLIB if "CompressedData" in header else GZIP, start)
    elif encoding == "raw" and header.get("BinaryData", "True") == "True":
        length = place.stat().st_size - start
    else:
        return None
    return None if is_skipping else length


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError('such files are read with SimpleITK; install it with: pip install "mmdls[scans]"') from error
    return SimpleITK
