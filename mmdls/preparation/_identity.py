"""What identifies a patient in DICOM headers and in paths, and texts without it."""

import re
import struct
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmdls.images._files import folder_entries
from mmdls.scans._headers import Refusal, is_dicom, open_dicom, pydicom, text, texts

__all__ = ["check_together", "identifiers", "is_identifying", "without_identity"]

_NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "PerformingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician",
    "OperatorsName", "ResponsiblePerson",
)  # fmt: skip
_IDS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "MedicalRecordLocator", "AdmissionID")
_OTHERS = (
    "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "IssuerOfPatientID", "StudyID",
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID", "FrameOfReferenceUID", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
    "StationName", "DeviceSerialNumber", "StudyDescription", "SeriesDescription", "RequestedProcedureDescription",
)  # fmt: skip
# Shorter values, such as the number of a study, stand in any text by chance.
_SHORTEST = 4
# What pydicom raises of a value that is none of its kind.
_ODD_VALUES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
_UID = re.compile(r"\b[0-2](\.\d+){4,}\b")


def identifiers(paths: Iterable[str], every_file: bool) -> set[str]:
    """Values of the DICOM headers of a patient that identify somebody.

    Parameters
    ----------
    paths : iterable of str
        Files and folders; other formats have none.
    every_file : bool
        Whether all files of a folder are read, or the first.

    Returns
    -------
    set of str
        Names also by their parts.
    """
    found: set[str] = set()
    for path in paths:
        for file in _dicom_files(Path(path), every_file):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    header = open_dicom(file)
            except Refusal:
                continue  # nothing in it can be read, here or elsewhere
            for tag in (*_NAMES, *_IDS, *_OTHERS):
                values = _written(header, tag) if tag in header else []
                found.update(values if tag in _IDS else [value for value in values if len(value) >= _SHORTEST])
                if tag.endswith("Date"):
                    days = [value for value in values if re.fullmatch(r"\d{8}", value)]
                    found.update(f"{day[6:]}{day[4:6]}{day[:4]}" for day in days)
                    found.update(f"{day[4:6]}{day[6:]}{day[:4]}" for day in days)
                if tag in _NAMES:
                    parts = re.split(r"[\^=,\s]+", " ".join(values))
                    found.update(part for part in parts if len(part) >= _SHORTEST)
    return {value for value in found if value.strip()}


def _written(header: Any, tag: str) -> list[str]:
    """The values of an element byte by byte, and in the letters of the header's character set."""
    values = texts(header, tag)
    try:
        value = header[tag].value
    except _ODD_VALUES:
        return values
    parts = value if isinstance(value, list | tuple | pydicom().multival.MultiValue) else [value]
    return list(dict.fromkeys([*values, *(str(part) for part in parts)]))


def _dicom_files(path: Path, every_file: bool) -> list[Path]:
    files = [path] if path.is_file() else [entry for entry in folder_entries(path) if entry.is_file()]
    found = []
    for file in files:
        if is_dicom(file):
            found.append(file)
            if not every_file:
                break
    return found


def is_identifying(text: str, known: Iterable[str]) -> bool:
    """Whether a text holds one of the values, whatever the letter case and the signs between letters.

    Parameters
    ----------
    text : str
        A number equals a value or does not hold it.
    known : iterable of str

    Returns
    -------
    bool

    Examples
    --------
    >>> is_identifying("mrn 47-11-2", ["4711-2"]), is_identifying("1947.11", ["4711"])
    (True, False)
    >>> is_identifying("4711.0", ["004711"])  # as spreadsheets write ids
    True
    """
    is_number = re.fullmatch(r"\s*[-+]?\d*[.,]?\d*(e[-+]?\d+)?\s*", text, re.IGNORECASE)
    if is_number:
        plain = _plain(re.sub(r"[.,]0*$", "", text)).lstrip("0")
        return any(plain == _plain(value).lstrip("0") for value in known)
    plain = _plain(text)
    parts = map(_plain, known)
    return any(plain == part if len(part) < _SHORTEST else part in plain for part in parts if part)


def _plain(text: str) -> str:
    """Letters and digits; accents are left out, which are written in several ways."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", text.casefold()))


def without_identity(paths: Mapping[str, str]) -> Callable[[str], str]:
    """What takes all that could identify a patient out of texts such as messages of errors.

    Parameters
    ----------
    paths : mapping of str to str
        The files and folders of the patient, by what they are.

    Returns
    -------
    callable
        Text to text: instead of a path it says what is there, and instead of values of DICOM headers three stars.
    """
    # Several scans may share a place, or the name of a file.
    known: dict[str, tuple[str, list[str]]] = {}
    for scan, path in paths.items():
        place = Path(path)
        files = {repr(entry.name): "a file of " for entry in folder_entries(place)}
        parents = {str(parent): "the folder of " for parent in place.parents if parent != Path(place.anchor)}
        wholes = {
            form: what
            for whole, what in {**parents, path: ""}.items()
            for form in (repr(whole), repr(whole)[1:-1], whole)
        }
        for form, what in {**files, **wholes, repr(place.name): ""}.items():
            first, scans = known.setdefault(form, (what, []))
            scans += [scan] if what == first else []
    written = {form: what + " and ".join(scans) for form, (what, scans) in known.items()}
    secret = identifiers(paths.values(), every_file=True)
    for value in secret:
        if len(value) >= _SHORTEST:
            written |= {unicodedata.normalize("NFC", value): "***", unicodedata.normalize("NFD", value): "***"}
    if not written:
        return lambda text: text
    any_of = re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True))), re.IGNORECASE)
    instead = {form.casefold(): what for form, what in written.items()}
    return lambda text: _UID.sub("***", any_of.sub(lambda found: instead[found[0].casefold()], text))


def check_together(paths: Mapping[str, str]) -> None:
    """Refuse scans and masks whose headers name several patients.

    Parameters
    ----------
    paths : mapping of str to str
        The files and folders of one patient, by what they are.

    Raises
    ------
    ValueError
        Without the values that differ.
    """
    headers = {}
    for scan, path in paths.items():
        if files := _dicom_files(Path(path), every_file=False):
            with suppress(Refusal):  # which is said where the file is read
                headers[scan] = open_dicom(files[0])
    named = {scan: one for scan, header in headers.items() if (one := text(header, "PatientID"))}
    if len(set(named.values())) > 1:
        raise ValueError(
            f"the headers of {', '.join(named)} have different PatientID, so that files of several patients are mixed; "
            "correct the paths of the table"
        )
