"""Values of DICOM headers, read without the library's conversion.

Conversion warns of invalid values and names them, and a header names the patient. So elements are read as they are
stored, and no message holds a value that could identify anybody.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "NoSuchStructure",
    "Refusal",
    "check_frames",
    "chosen_number",
    "date_time",
    "items",
    "name",
    "number",
    "numbers",
    "open_dicom",
    "pydicom",
    "text",
]

_BINARY = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")


class Refusal(ValueError):
    """Why something cannot be read; the place is added where it is known."""


class NoSuchStructure(Refusal):
    """A file has no structure of the name or number that was asked for."""


def pydicom() -> Any:
    """The package pydicom, an optional dependency."""
    try:
        import pydicom
    except ImportError as error:
        raise ImportError('DICOM files are read with pydicom; install it with: pip install "mmdls[scans]"') from error
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dicom(path: Path, pixels: bool = False) -> Any:
    """A DICOM file as a dataset.

    Parameters
    ----------
    path : Path
    pixels : bool, default=False
        With its pixels, which are not decoded.

    Returns
    -------
    pydicom.Dataset

    Raises
    ------
    Refusal
        If it is damaged, or no DICOM file.
    """
    library = pydicom()
    if not is_dicom(path):
        raise Refusal("is no DICOM file, which begins with 128 bytes and 'DICM'; replace or remove it")
    try:
        syntax = str(library.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
        if syntax in _DEFLATED:
            raise Refusal("is deflated as a whole, which small files can use to fill the memory; store it uncompressed")
        return library.dcmread(path, stop_before_pixels=not pixels)
    except Refusal:
        raise
    except Exception:
        # The library's message may hold a value of the header.
        raise Refusal("is damaged: its DICOM header cannot be read; replace it") from None


def text(dataset: Any, tag: Any) -> str:
    """The first text of an element; empty if there is none."""
    values = _values(dataset, tag)
    return str(values[0]).strip() if values else ""


def name(dataset: Any, tag: str) -> str:
    """A text in the letters of the header's character set, as people write it; empty if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which would hold the value
        try:
            value = dataset[tag].value if tag in dataset else None
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return text(dataset, tag)
    return value.strip() if isinstance(value, str) else text(dataset, tag)


def texts(dataset: Any, tag: Any) -> list[str]:
    """All texts of an element."""
    return [str(value).strip() for value in _values(dataset, tag)]


def number(dataset: Any, tag: Any) -> float | None:
    """The only number of an element; None if it is absent or empty."""
    found = numbers(dataset, tag, 1)
    return None if found is None else float(found[0])


def numbers(dataset: Any, tag: Any, count: int) -> np.ndarray | None:
    """The numbers of an element; None if it is absent or empty.

    Raises
    ------
    Refusal
        If there are others than ``count`` finite numbers.
    """
    values = _values(dataset, tag)
    if not values or values == [""]:
        return None
    try:
        found = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        found = np.empty(0)
    if len(found) != count or not np.isfinite(found).all():
        raise Refusal(f"has no {count} finite number{'s' * (count > 1)} in {_name(tag)}")
    return found


def items(dataset: Any, keyword: str) -> list[Any]:
    """The datasets of a sequence; none if it is absent."""
    try:
        found = dataset.get(keyword)
        return [] if found is None else list(found)
    except Exception:
        raise Refusal(f"is damaged: its {keyword} cannot be read") from None


def check_frames(frame: str, other: str, what: str = "") -> None:
    """Refuse to compare places in two frames of reference, given by their UIDs; an unknown one may be any.

    Parameters
    ----------
    frame, other : str
    what : str, default=""
        What has the first one, if the refusal is not told of a file.
    """
    if frame and other and frame != other:
        raise Refusal(
            f"{what} has another frame of reference (FrameOfReferenceUID) than the scan, as after another visit, so "
            "that its place in the scan is not known. Give the one of this scan; if the two were registered, pass "
            "dataclasses.replace(scan, frame='') as the scan, or one of the two as NIfTI, which has no frame".lstrip()
        )


def chosen_number(names: Mapping[int, str], label: Any, what: str, listed: Any, argument: str) -> int:
    """The number of the one part with this name or number; None means the only one.

    Parameters
    ----------
    names : mapping of int to str
    label : str, int or None
    what, listed
        For the refusal: what the parts are, and those there are.
    argument : str
        Name of the argument that chooses.
    """
    if label is None and len(names) == 1:
        return next(iter(names))
    chosen = [key for key, name in names.items() if label in (key, name)]
    if len(chosen) != 1:
        if label is None:
            raise Refusal(f"has {len(names)} {what}; choose one by {argument}=, of {listed}")
        refusal = Refusal if chosen else NoSuchStructure
        raise refusal(f"has {len(chosen) or 'no'} {what} called {label!r}; choose one by {argument}=, of {listed}")
    return chosen[0]


def date_time(date: str, time: str) -> np.datetime64 | None:
    """A moment from a DICOM date (YYYYMMDD) and time (HHMMSS.F); None if one of both is not complete."""
    date, time = date.replace(".", ""), time.replace(":", "")
    digits, _, fraction = time.partition(".")
    if not (len(date) == 8 and len(digits) == 6 and (date + digits + fraction).isdecimal()):
        return None
    written = f"{date[:4]}-{date[4:6]}-{date[6:]}T{digits[:2]}:{digits[2:4]}:{digits[4:]}.{(fraction or '0')[:6]}"
    try:
        return np.datetime64(written, "us")
    except ValueError:
        return None


def _values(dataset: Any, tag: Any) -> list[Any]:
    library = pydicom()
    element = dataset.get_item(tag, keep_deferred=True) if tag in dataset else None
    if element is None or element.value is None:
        return []
    value = element.value
    if isinstance(value, bytes):
        kind = getattr(element, "VR", None)
        if kind in (None, "UN") and not element.tag.is_private:
            kind = library.datadict.dictionary_VR(element.tag)
        if kind in _BINARY:
            order = "<" if getattr(element, "is_little_endian", True) else ">"
            width = int(_BINARY[kind][1])
            return np.frombuffer(value[: len(value) // width * width], order + _BINARY[kind]).tolist()
        return [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
    return list(value) if isinstance(value, (list, tuple, library.multival.MultiValue)) else [value]


def _name(tag: Any) -> str:
    return tag if isinstance(tag, str) else f"({tag[0]:04x},{tag[1]:04x})"
