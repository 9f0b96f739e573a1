"""SUV by body weight: closed forms by hand for every way a header may state it; the rest is refused."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from mmdls.scans import read_scan, suv_factor
from tests.scanner import PET, item, with_headers, write_series

HALF_LIFE = 6586.2


def header(**changes):
    return with_headers(Dataset(), {**PET, **changes.pop("tags", {}), **changes})


def by_hand(seconds, weight=70.0, dose=350e6, half_life=HALF_LIFE):
    return weight * 1000 / (dose * 0.5 ** (seconds / half_life))


PHILIPS = {(0x7053, 0x0010): ("LO", "Philips PET Private Group")}
GE = {(0x0009, 0x0010): ("LO", "GEMS_PETD_01")}
# The moment in a frame of two minutes when the count rate has its mean, after Taylor: half of it, less a little.
RATE = np.log(2) / HALF_LIFE
MEAN = 60 - RATE * 120**2 / 24

CASES = {
    "start": ({}, by_hand(3600)),
    "administration": ({"DecayCorrection": "ADMIN"}, by_hand(0)),
    "administration needs no times": (
        {"DecayCorrection": "ADMIN", "SeriesTime": None, "start_time": None, "half_life": None},
        by_hand(0),
    ),
    "weight and dose": ({"PatientWeight": 82.5, "dose": 210e6}, by_hand(3600, 82.5, 210e6)),
    "another nuclide": ({"half_life": 4057.7}, by_hand(3600, half_life=4057.7)),
    "fractions of seconds": ({"start_time": "100000.50"}, by_hand(3599.5)),
    "full date and time": ({"start_date_time": "20200301095000.00", "start_time": "095000"}, by_hand(4200)),
    "midnight by times": ({"start_time": "233000", "SeriesTime": "003000", "AcquisitionTime": "003000"}, by_hand(3600)),
    "midnight by dates": (
        {
            "start_date_time": "20200229233000",
            "start_time": "233000",
            "SeriesTime": "003000",
            "AcquisitionTime": "003000",
        },
        by_hand(3600),
    ),
    "no dates at all": (
        {"SeriesDate": None, "AcquisitionDate": None, "start_date_time": "20200301100000", "start_time": None},
        by_hand(3600),
    ),
    "no dates, beds after midnight": (
        {
            "SeriesDate": None,
            "AcquisitionDate": None,
            "start_time": "225500",
            "SeriesTime": "235500",
            "AcquisitionTime": "000500",
        },
        by_hand(3600),
    ),
    "later bed": ({"AcquisitionTime": "112000"}, by_hand(3600)),
    "processed later, GE": (
        {"SeriesTime": "150000", "tags": {**GE, (0x0009, 0x100D): ("DT", "20200301105500.00")}},
        by_hand(3300),
    ),
    "processed later, frames": (
        {"SeriesTime": "150000", "AcquisitionTime": "110000", "FrameReferenceTime": 300000.0},
        by_hand(3600 - 300 + MEAN),
    ),
    "processed the next day": (
        {"SeriesDate": "20200302", "SeriesTime": "090000", "FrameReferenceTime": 60000.0},
        by_hand(3600 - 60 + MEAN),
    ),
    "time zone": (
        {"start_date_time": "20200301100000.00+0100", "TimezoneOffsetFromUTC": "+0100"},
        by_hand(3600),
    ),
    "g/mL": ({"Units": "GML"}, 1.0),
    "g/mL by body weight": ({"Units": "GML", "SUVType": "BW", "PatientWeight": None}, 1.0),
    "Philips, SUV": ({"Units": "CNTS", "tags": {**PHILIPS, (0x7053, 0x1000): ("DS", "0.000551")}}, 0.000551),
    "Philips, activity": (
        {"Units": "CNTS", "tags": {**PHILIPS, (0x7053, 0x1009): ("DS", "1.9")}},
        1.9 * by_hand(3600),
    ),
    "Philips, SUV factor is 0": (
        {"Units": "CNTS", "tags": {**PHILIPS, (0x7053, 0x1000): ("DS", "0"), (0x7053, 0x1009): ("DS", "1.9")}},
        1.9 * by_hand(3600),
    ),
    "known nuclide": ({"nuclide": "C-111A1"}, by_hand(3600)),
    "known nuclide by name": ({"names": ("FDG -- fluorodeoxyglucose", "^18^Fluorine")}, by_hand(3600)),
    "known nuclide by another name": (
        {"half_life": 4057.7, "names": ("68Ga-PSMA-11", "Ga-68")},
        by_hand(3600, half_life=4057.7),
    ),
    "unknown names": ({"half_life": 1234.0, "names": ("PSMA-11 cold", "F18123")}, by_hand(3600, half_life=1234.0)),
    "half-life of days with dates": (
        {"half_life": 360806.0, "start_date_time": "20200229100000", "names": ("I-124", "")},
        by_hand(25 * 3600, half_life=360806.0),
    ),
    "known nuclide, today's code": ({"nuclide": "77004003"}, by_hand(3600)),
}


def made(changes):
    changes = dict(changes)
    nuclide = changes.pop("nuclide", None)
    names = changes.pop("names", None)
    one = header(**changes)
    if names:
        drug = one.RadiopharmaceuticalInformationSequence[0]
        drug.Radiopharmaceutical, drug.RadionuclideCodeSequence = names[0], [item(CodeMeaning=names[1])]
    if nuclide:
        one.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence = [item(CodeValue=nuclide)]
    return one


@pytest.mark.parametrize("name", CASES)
def test_factors_by_hand(name):
    changes, expected = CASES[name]
    assert suv_factor(made(changes)) == pytest.approx(expected, rel=1e-6)


REFUSED = {
    "no PET": ({"Modality": "CT"}, "no PET"),
    "no attenuation": ({"CorrectedImage": ["DECY"]}, "ATTN"),
    "no decay": ({"CorrectedImage": ["ATTN", "SCAT"]}, "DECY"),
    "no corrections": ({"CorrectedImage": None}, "ATTN"),
    "no units": ({"Units": None}, "Units are none of"),
    "other units": ({"Units": "PROPCPS"}, "Units are none of BQML, GML, CNTS"),
    "lean body": ({"Units": "GML", "SUVType": "LBM"}, "not BW"),
    "counts": ({"Units": "CNTS"}, r"\(7053,1000\) or \(7053,1009\)"),
    "counts of another maker": (
        {"Units": "CNTS", "tags": {(0x7053, 0x0010): ("LO", "OTHER"), (0x7053, 0x1000): ("DS", "2")}},
        "in counts",
    ),
    "negative factor": ({"Units": "CNTS", "tags": {**PHILIPS, (0x7053, 0x1000): ("DS", "-1")}}, "below 0"),
    "no weight": ({"PatientWeight": None}, "no PatientWeight"),
    "weight of 0": ({"PatientWeight": 0.0}, "PatientWeight that is none in kg"),
    "weight in grams": ({"PatientWeight": 70000.0}, "PatientWeight that is none in kg"),
    "no dose": ({"dose": None}, "no RadionuclideTotalDose"),
    "dose in kBq": ({"dose": 350e3}, "RadionuclideTotalDose that is none in Bq"),
    "dose in MBq": ({"dose": 350.0}, "RadionuclideTotalDose that is none in Bq"),
    "no half-life": ({"half_life": None}, "no RadionuclideHalfLife"),
    "half-life in minutes": ({"half_life": 109.77, "nuclide": "C-111A1"}, "of its nuclide in seconds"),
    "half-life of another nuclide": ({"half_life": 4057.7, "nuclide": "77004003"}, "of its nuclide in seconds"),
    "half-life of Ga-68 and FDG": ({"half_life": 4057.7, "names": ("FDG", "")}, "of its nuclide in seconds"),
    "half-life of F-18 and gallium": ({"names": ("[68Ga]Ga-DOTATOC", "")}, "of its nuclide in seconds"),
    "half-life of F-18 and the name of carbon": ({"names": ("", "^11^Carbon")}, "of its nuclide in seconds"),
    "half-life of days without dates": ({"half_life": 360806.0}, "several days are possible"),
    "half-life of 0": ({"half_life": 0.0}, "RadionuclideHalfLife that is none in s"),
    "no injection": ({"dose": None, "half_life": None, "start_time": None}, "0 items in Radiopharmaceutical"),
    "two injections": ({"RadiopharmaceuticalInformationSequence": [item(), item()]}, "2 items in Radiopharmaceutical"),
    "no decay reference": ({"DecayCorrection": None}, "neither START nor ADMIN"),
    "not decayed": ({"DecayCorrection": "NONE"}, "neither START nor ADMIN"),
    "no injection time": ({"start_time": None}, "neither RadiopharmaceuticalStartDateTime nor"),
    "odd injection time": ({"start_time": "10"}, "that is no time"),
    "no series time": ({"SeriesTime": None}, "no SeriesTime"),
    "no acquisition time": ({"AcquisitionTime": None}, "no AcquisitionTime"),
    "odd series time": ({"SeriesTime": "1100"}, "no date or time"),
    "two injection times": (
        {"start_date_time": "20200301090000", "start_time": "100000"},
        "StartTime and a RadiopharmaceuticalStartDateTime of different times",
    ),
    "injected after the scan": (
        {"start_date_time": "20200301120000", "start_time": None},
        "-1.0 h after the injection",
    ),
    "injected a little after the scan": ({"start_time": "110500"}, "23.9 h after the injection"),
    "injected last year": ({"start_date_time": "20190301100000"}, "8785.0 h after the injection"),
    "another time zone": ({"start_date_time": "20200301100000+0200", "TimezoneOffsetFromUTC": "+0100"}, "time zone"),
    "processed later, no frames": (
        {"SeriesTime": "150000", "FrameReferenceTime": None},
        "the time of the scan is not known",
    ),
    "processed later, GE without date": (
        {"SeriesTime": "150000", "tags": {**GE, (0x0009, 0x100D): ("DT", "2020")}},
        "no date and time",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_header_is_refused_with_what_is_missing(name):
    changes, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        suv_factor(made(changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"PatientWeight": 71.0}, "different PatientWeight"),
        ({"Units": "CNTS"}, "different Units"),
        ({"dose": 351e6}, "different CorrectedImage or injection"),
        ({"CorrectedImage": ["ATTN"]}, "different CorrectedImage"),
    ],
)
def test_slices_that_disagree_have_no_common_factor(changes, match):
    with pytest.raises(ValueError, match=match):
        suv_factor([header(), header(**changes)])


def test_the_earliest_acquisition_of_all_slices_counts():
    # The second bed lies after the series time, the first one before: the series was written later.
    beds = [header(SeriesTime="110500", AcquisitionTime=time, FrameReferenceTime=reference)
            for time, reference in (("110000", 60000.0), ("111000", 660000.0))]  # fmt: skip
    assert suv_factor(beds) == pytest.approx(by_hand(3600 - 60 + MEAN), rel=1e-6)
    with pytest.raises(ValueError, match="no slices"):
        suv_factor([])


def test_a_series_is_read_in_suv_by_the_slope_of_each_slice(tmp_path):
    stored = write_series(tmp_path, each=lambda i: {"RescaleSlope": i + 0.5}, **PET)
    volume = read_scan(tmp_path, unit="SUV")
    assert volume.array == pytest.approx(stored * (np.arange(5) + 0.5)[:, None, None] * by_hand(3600), rel=1e-5)
    assert (volume.unit, volume.modality, volume.array.dtype) == ("SUV", "PT", np.float32)
    write_series(tmp_path, **{**PET, "PatientWeight": None})
    with pytest.raises(
        ValueError, match="no PatientWeight, so that it has no SUV. Write its PatientWeight in kg into the headers"
    ):
        read_scan(tmp_path, unit="SUV")
    assert read_scan(tmp_path).unit == "Bq/mL"
