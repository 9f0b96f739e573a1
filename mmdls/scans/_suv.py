"""Standardised uptake values by body weight (SUVbw) from the headers of a PET series."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdls.scans._headers import Refusal, date_time, items, number, text, texts

__all__ = ["suv_factor"]

# Half-lives in seconds.
_HALF_LIVES = {
    "F-18": 6586.2, "Ga-68": 4057.7, "C-11": 1221.8, "N-13": 597.9, "O-15": 122.2, "Rb-82": 75.5, "Cu-64": 45721.0,
    "Zr-89": 282276.0, "I-124": 360806.0,
}  # fmt: skip
# Codes of SNOMED, as written formerly (SRT) and today (SCT).
_CODES = {
    "C-111A1": "F-18", "C-131A3": "Ga-68", "C-105A1": "C-11", "C-107A1": "N-13", "C-B1038": "O-15",
    "77004003": "F-18", "35337001": "Ga-68", "40565003": "C-11", "21576001": "N-13", "129504001": "O-15",
}  # fmt: skip


def _spellings(nuclide: str) -> re.Pattern:
    """A nuclide in a name, such as F-18, 18F, [18F] and ^18^Fluorine."""
    symbol, mass = nuclide.split("-")
    whole = {"F": "Fluorine", "Ga": "Gallium", "C": "Carbon", "N": "Nitrogen", "O": "Oxygen", "Cu": "Copper"}
    letters = f"(?:{symbol}|{whole.get(symbol, symbol)})"
    also = "|FDG|fluorodeoxyglucose" if nuclide == "F-18" else ""
    return re.compile(rf"(?<![a-z\d]){mass}[-^ ]*{letters}(?![a-z])|(?<![a-z]){letters}[-^ ]*{mass}(?!\d){also}", re.I)


_NAMES = {nuclide: _spellings(nuclide) for nuclide in _HALF_LIVES}
_DAY = 86400.0
# Seconds by which two statements of one injection may differ: times are rounded to minutes.
_SAME = 60.0
# More half-lives than this between injection and scan are a mistake of clock, date or unit.
_MOST_HALF_LIVES = 5


def suv_factor(headers: Any) -> float:
    """The factor from rescaled values (stored value x slope + intercept) of a PET series to SUV by body weight.

    Follows the recommendations of the Quantitative Imaging Biomarkers Alliance. Anything that the factor needs and the
    headers lack, or state differently in different slices, is refused.

    Parameters
    ----------
    headers : pydicom.Dataset or sequence of them
        Of all slices of one series; its earliest acquisition counts.

    Returns
    -------
    float
        For ``Units`` BQML, grams of body weight over the dose (Bq) that is left at the time to which the scanner
        corrected decay: that of the scan (``DecayCorrection`` START), or that of the injection (ADMIN). For GML, 1.
        For CNTS, Philips' own factors (7053,1000), or (7053,1009) to Bq/mL.

    Raises
    ------
    ValueError
        With the element that is missing or wrong.

    References
    ----------
    .. [1] Quantitative Imaging Biomarkers Alliance, Computing SUV from DICOM: vendor-neutral pseudo-code, 2012.
    .. [2] DICOM PS3.3, C.8.9 PET modules.

    Examples
    --------
    A patient of 70 kg was given 350 MBq, and the scanner corrected decay to the injection:

    >>> from pydicom import Dataset
    >>> dose = Dataset()
    >>> dose.RadionuclideTotalDose = 350e6
    >>> header = Dataset()
    >>> header.Modality, header.Units, header.DecayCorrection = "PT", "BQML", "ADMIN"
    >>> header.CorrectedImage = ["ATTN", "DECY"]
    >>> header.PatientWeight = 70.0
    >>> header.RadiopharmaceuticalInformationSequence = [dose]
    >>> round(suv_factor(header) * 5000, 3)  # of 5000 Bq/mL
    1.0
    """
    # A dataset is iterable as well.
    slices = [headers] if hasattr(headers, "get_item") else list(headers)
    if not slices:
        raise Refusal("has no slices")
    for tag in ("Modality", "Units", "DecayCorrection", "PatientWeight", "SeriesDate", "SeriesTime", "SUVType"):
        if len({text(one, tag) for one in slices}) > 1:
            raise Refusal(f"has slices with different {tag}, so that they have no common SUV")
    if any(_key(one) != _key(slices[0]) for one in slices):
        raise Refusal("has slices with different CorrectedImage or injection, so that they have no common SUV")
    first = slices[0]
    if text(first, "Modality") != "PT":
        raise Refusal("is no PET (Modality PT), and only PET has SUV")
    corrected = set(texts(first, "CorrectedImage"))
    for names, what in (({"ATTN"}, "attenuation (ATTN)"), ({"DECY", "DECAY"}, "decay (DECY)")):
        if not names & corrected:
            raise Refusal(f"is not corrected for {what} by its CorrectedImage, so that it has no SUV")
    units = text(first, "Units")
    if units == "GML":
        if text(first, "SUVType") not in ("", "BW"):
            raise Refusal("has SUV of another kind than by body weight (SUVType is not BW)")
        return 1.0
    if units == "BQML":
        return _by_weight(slices)
    if units == "CNTS":
        to_suv = _common(slices, (0x7053, 0x1000), (0x7053, 0x0010), "Philips")
        if to_suv:
            return to_suv
        to_activity = _common(slices, (0x7053, 0x1009), (0x7053, 0x0010), "Philips")
        if to_activity:
            return to_activity * _by_weight(slices)
        raise Refusal("is in counts (CNTS) without Philips' factor (7053,1000) or (7053,1009), so that it has no SUV")
    raise Refusal("has no SUV: its Units are none of BQML, GML, CNTS")


def _by_weight(slices: Sequence[Any]) -> float:
    """Grams over Bq."""
    first = slices[0]
    weight = _positive(first, "PatientWeight", "kg", 0.3, 500)
    drugs = items(first, "RadiopharmaceuticalInformationSequence")
    if len(drugs) != 1:
        raise Refusal(
            f"has {len(drugs)} items in RadiopharmaceuticalInformationSequence instead of one injection. "
            + _remedy("the one injection, with its RadionuclideTotalDose in Bq,")
        )
    dose = _positive(drugs[0], "RadionuclideTotalDose", "Bq", 1e6, 1e11)  # in kBq it is below
    reference = text(first, "DecayCorrection")
    if reference == "ADMIN":
        return weight * 1000 / dose
    if reference != "START":
        raise Refusal("is corrected for decay to no known time: DecayCorrection is neither START nor ADMIN")
    half_life = _positive(drugs[0], "RadionuclideHalfLife", "s", 60, 1e7)
    if any(abs(half_life / known - 1) > 0.02 for known in _half_lives(drugs[0])):
        raise Refusal(
            "has a RadionuclideHalfLife that is not the one of its nuclide in seconds, by the code of the nuclide or "
            "the names of nuclide and radiopharmaceutical; correct what is wrong"
        )
    waited = _waited(slices, drugs[0], half_life)
    if not 0 <= waited <= _MOST_HALF_LIVES * half_life:
        raise Refusal(
            f"was scanned {waited / 3600:.1f} h after the injection, by its times; expected 0 to "
            f"{_MOST_HALF_LIVES * half_life / 3600:.1f} h. Correct RadiopharmaceuticalStartTime or SeriesTime"
        )
    return weight * 1000 / (dose * 2 ** (-waited / half_life))


def _half_lives(drug: Any) -> set[float]:
    """Half-lives in seconds of the nuclides that an injection names; empty if none is known."""
    nuclides, drugs = (items(drug, f"{what}CodeSequence") for what in ("Radionuclide", "Radiopharmaceutical"))
    named = " ".join([text(drug, "Radiopharmaceutical"), *(text(code, "CodeMeaning") for code in (*nuclides, *drugs))])
    found = {_CODES.get(text(code, "CodeValue")) for code in nuclides}
    found |= {nuclide for nuclide, pattern in _NAMES.items() if pattern.search(named)}
    return {_HALF_LIVES[nuclide] for nuclide in found if nuclide}


def _waited(slices: Sequence[Any], drug: Any, half_life: float) -> float:
    """Seconds from injection to the time to which decay is corrected."""
    first = slices[0]
    has_dates = all(text(one, tag) for one in slices for tag in ("SeriesDate", "AcquisitionDate"))
    series = _moment(first, "Series", has_dates)
    acquired = [_moment(one, "Acquisition", has_dates) for one in slices]
    # Without dates, of two times the nearer way around midnight counts.
    later = [_seconds(moment - series, None if has_dates else -_DAY / 2) for moment in acquired]
    scan = series if min(later) >= 0 else _scan_time(slices[int(np.argmin(later))], min(later), series, half_life)
    full = text(drug, "RadiopharmaceuticalStartDateTime")
    local, zone = full[:14], full[14:].partition("+")[2] or full[14:].partition("-")[2]
    if zone and text(first, "TimezoneOffsetFromUTC")[1:] != zone:
        raise Refusal("has a RadiopharmaceuticalStartDateTime in another time zone than the scan")
    time_of_full = full[8:].partition("+")[0].partition("-")[0]
    start = text(drug, "RadiopharmaceuticalStartTime") or time_of_full
    one, other = (date_time("20000101", time) for time in (start, time_of_full))
    if one is not None and other is not None and abs(_seconds(one - other, -_DAY / 2)) > _SAME:
        raise Refusal(
            "has a RadiopharmaceuticalStartTime and a RadiopharmaceuticalStartDateTime of different times; correct one"
        )
    injected = date_time(local[:8], time_of_full) if has_dates else None
    if injected is not None:
        return _seconds(scan - injected)
    if not start:
        raise Refusal(
            "has neither RadiopharmaceuticalStartDateTime nor RadiopharmaceuticalStartTime. "
            + _remedy("the time of the injection")
        )
    if one is None:
        raise Refusal("has a RadiopharmaceuticalStartTime that is no time (HHMMSS)")
    # A time without its date: the last one before the scan, if need be on the day before.
    waited = _seconds(scan - one, 0.0)
    if waited + _DAY <= _MOST_HALF_LIVES * half_life:
        raise Refusal(
            "states the time of the injection without its day, and with its half-life several days are possible; add "
            "RadiopharmaceuticalStartDateTime, SeriesDate and AcquisitionDate"
        )
    return waited


def _scan_time(header: Any, later: float, series: np.datetime64, half_life: float) -> np.datetime64:
    """The start of a scan whose series was written after it was acquired."""
    own = text(header, (0x0009, 0x100D))
    creator = text(header, (0x0009, 0x0010))
    if own and creator in ("", "GEMS_PETD_01"):
        moment = date_time(own[:8], own[8:])
        if moment is None:
            raise Refusal("has a GE scan time (0009,100d) that is no date and time")
        return moment
    reference, duration = number(header, "FrameReferenceTime"), number(header, "ActualFrameDuration")
    if not (reference and duration and reference > 0 and duration > 0):
        raise Refusal(
            "has a SeriesTime after its AcquisitionTime, as after processing, and neither GE's scan time (0009,100d) "
            "nor FrameReferenceTime and ActualFrameDuration; the time of the scan is not known"
        )
    rate = np.log(2) / half_life
    decayed = rate * duration / 1000
    # When in the frame the count rate has its mean.
    mean = np.log(decayed / -np.expm1(-decayed)) / rate
    return series + np.timedelta64(round((later - reference / 1000 + mean) * 1e6), "us")


def _moment(header: Any, of: str, has_dates: bool) -> np.datetime64:
    time = text(header, f"{of}Time")
    moment = date_time(text(header, f"{of}Date") if has_dates else "20000101", time)
    if moment is None:
        raise Refusal(f"has no {of}Time (HHMMSS)" if not time else f"has {of}Date or {of}Time that is no date or time")
    return moment


def _seconds(difference: np.timedelta64, lowest: float | None = None) -> float:
    """Seconds; with ``lowest``, whole days are added so that they lie from there to a day later."""
    seconds = float(difference / np.timedelta64(1, "us")) / 1e6
    return seconds if lowest is None else (seconds - lowest) % _DAY + lowest


def _positive(header: Any, tag: str, unit: str, low: float, high: float) -> float:
    value = number(header, tag)
    if value is None:
        raise Refusal(f"has no {tag}, so that it has no SUV. {_remedy(f'its {tag} in {unit}')}")
    if not low <= value <= high:
        what = f"has a {tag} that is none in {unit}: expected {low:g} to {high:g}"
        raise Refusal(f"{what}. {_remedy(f'its {tag} in {unit}')}")
    return value


def _remedy(what: str) -> str:
    return f"Write {what} into the headers of all slices, or give the PET in SUV, as NIfTI, NRRD or a Volume"


def _common(slices: Sequence[Any], tag: Any, creator: Any, owner: str) -> float | None:
    """A private factor that is the same in all slices; None if it is absent or 0."""
    if owner not in (text(slices[0], creator) or owner):
        return None
    values = {number(one, tag) for one in slices}
    if len(values) > 1:
        raise Refusal(f"has slices with different factors ({tag[0]:04x},{tag[1]:04x})")
    value = values.pop()
    if value is not None and value < 0:
        raise Refusal(f"has a factor ({tag[0]:04x},{tag[1]:04x}) below 0")
    return value or None


def _key(header: Any) -> tuple:
    """What all slices of one injection share."""
    tags = ("RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartDateTime")
    drugs = items(header, "RadiopharmaceuticalInformationSequence")
    return (
        *texts(header, "CorrectedImage"),
        *(text(drug, tag) for drug in drugs for tag in (*tags, "RadiopharmaceuticalStartTime")),
    )
