"""What identifies a patient in DICOM headers and in paths, and texts without it."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mmdls.images._files import folder_entries
from mmdls.scans._headers import Refusal, is_dicom, open_dicom, texts

__all__ = ["identifiers", "is_identifying", "without_identity"]

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
                values = texts(header, tag) if tag in header else []
                found.update(values if tag in _IDS else [value for value in values if len(value) >= _SHORTEST])
                if tag in _NAMES:
                    parts = re.split(r"[\^=,\s]+", " ".join(values))
                    found.update(part for part in parts if len(part) >= _SHORTEST)
    return {value for value in found if value.strip()}


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
    """
    plain = _plain(text)
    is_number = re.fullmatch(r"\s*[-+]?\d*[.,]?\d*(e[-+]?\d+)?\s*", text, re.IGNORECASE)
    return any(
        plain == part if is_number or len(part) < _SHORTEST else part in plain
        for value in known
        if (part := _plain(value))
    )


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


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
    written: dict[str, str] = {}
    for scan, path in paths.items():
        place = Path(path)
        for entry in folder_entries(place):
            written[repr(entry.name)] = f"a file of {scan}"
        parents = [str(parent) for parent in place.parents if parent != Path(place.anchor)]
        for whole in (path, *parents):
            for form in (repr(whole), repr(whole)[1:-1], whole):
                written.setdefault(form, scan if whole == path else f"the folder of {scan}")
        written.setdefault(repr(place.name), scan)
    secret = identifiers(paths.values(), every_file=True)
    written |= {value: "***" for value in secret if len(value) >= _SHORTEST}
    if not written:
        return lambda text: text
    any_of = re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True))), re.IGNORECASE)
    known = {form.casefold(): instead for form, instead in written.items()}
    return lambda text: _UID.sub("***", any_of.sub(lambda found: known[found[0].casefold()], text))
