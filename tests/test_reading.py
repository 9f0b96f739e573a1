"""A hospital's own table is read as it was meant, or refused with the way to say what is meant."""

import datetime
import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.cohorts import load_r01
from mmdls import ClinicalCox, TabularEncoder
from mmdls.cohort import Cohort, check_target, find_tasks, modalities, read_cohort, reconcile_endpoints
from tests.pages import code_of, page

DAYS = [31, 400, 1234, 90, 365]
IDS = ["007", "012", "P-3", "4", "0005"]
needs_data = pytest.mark.skipif("MMDLS_DATA" not in os.environ, reason="MMDLS_DATA is not set: no real data here")


def table(**columns):
    return pd.DataFrame({"id": IDS} | columns)


def outcome(**columns):
    """One endpoint, read from these columns."""
    return {"follow_up_days": DAYS, "dead": [1, 0, 1, 0, 1]} | columns


def read(frame, **words):
    return read_cohort(frame, **({"id": "id"} | words))


def os_of(frame, spec=("follow_up_days", "dead"), **words):
    return read(frame, endpoints={"os": spec}, **words).y


def feature(values, **words):
    """The column x as a feature."""
    return read(table(x=values), blocks={"clinical": ["x"]}, **words).X["clinical_x"]


MONTHS = [day / 30.4375 for day in DAYS]


# -- follow-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("follow_up_days", DAYS, {}),
        ("follow_up_days", [f"{day}.0" for day in DAYS], {}),
        ("daysToDeath", DAYS, {}),
        ("OS (months)", MONTHS, {}),
        ("OS.weeks", [day / 7 for day in DAYS], {}),
        ("survival_years", [day / 365.25 for day in DAYS], {}),
        ("survival", [day / 365.25 for day in DAYS], {"units": "years"}),
        ("survival", DAYS, {"units": {"os": "days"}}),
        ("survival", DAYS, {"units": {"SURVIVAL": "days"}}),
        ("os_time", MONTHS, {}),
        ("survival", pd.to_timedelta(DAYS, unit="D"), {}),
        ("survival", [str(pd.Timedelta(days=day)) for day in DAYS], {}),
        ("survival", [str(datetime.timedelta(days=day)) for day in DAYS], {}),
        ("survival", [datetime.timedelta(days=day) for day in DAYS[:4]] + [f"{DAYS[4]} days"], {}),
        ("survival", [f"{day} d" for day in DAYS], {}),
    ],
)
def test_follow_up_becomes_months_whatever_its_unit(column, values, words):
    y = os_of(table(**{column: values, "dead": [1, 0, 1, 0, 1]}), (column, "dead"), **words)
    np.testing.assert_allclose(y["os_time"], MONTHS, rtol=0, atol=1e-9)
    assert y["os_event"].dtype == bool


START = [datetime.date(2015, 1, 25), datetime.date(2015, 11, 13)] * 2 + [datetime.date(2016, 2, 29)]
END = [start + datetime.timedelta(days=days) for start, days in zip(START, DAYS, strict=True)]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("%Y-%m-%d", {}),
        ("%Y-%m-%d 00:00:00", {}),
        ("%Y-%m-%dT00:00:00Z", {}),
        ("%Y/%m/%d", {}),
        ("%Y%m%d", {}),
        ("%d.%m.%Y", {}),
        ("%d/%m/%Y", {}),
        ("%m/%d/%Y", {}),
        ("%d-%b-%Y", {}),
        ("%d %B %Y", {}),
        ("%B %d, %Y", {}),
        ("%d/%m/%y", {"date_format": "%d/%m/%y"}),
        (None, {}),
        ("datetime64", {}),
    ],
)
def test_dates_become_months(pattern, words):
    def write(dates):
        if pattern is None:
            return pd.Series(dates, dtype=object)
        return pd.to_datetime(dates) if pattern == "datetime64" else [date.strftime(pattern) for date in dates]

    frame = table(start=write(START), last=write(END), dead=["yes", "no", "yes", "no", "yes"])
    y = os_of(frame, {"start": "start", "end": "last", "event": "dead"}, **words)
    np.testing.assert_allclose(y["os_time"], MONTHS, rtol=0, atol=1e-9)
    assert y["os_event"].tolist() == [True, False, True, False, True]


def test_a_date_of_death_is_the_event_and_its_time():
    died = [True, False, True, False, True]
    frame = table(
        start=START,
        died=[end if dead else None for end, dead in zip(END, died, strict=True)],
        last=[datetime.date(2014, 1, 1) if dead else end for end, dead in zip(END, died, strict=True)],
    )
    y = os_of(frame, {"start": "start", "event_date": "died", "end": "last"})
    np.testing.assert_allclose(y["os_time"], MONTHS, rtol=0, atol=1e-9)
    assert y["os_event"].tolist() == died


def test_excel_day_numbers_are_dates_where_they_are_said_to_be():
    zero = datetime.date(1899, 12, 30)
    frame = table(start=[(d - zero).days for d in START], last=[(d - zero).days for d in END], dead=[1, 0, 1, 0, 1])
    spec = {"start": "start", "end": "last", "event": "dead"}
    np.testing.assert_allclose(os_of(frame, spec, date_format="excel")["os_time"], MONTHS, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="'start' must hold dates.*'excel'"):
        os_of(frame, spec)


def test_day_and_month_that_cannot_be_told_apart_are_refused():
    frame = table(start="02/03/2015", last="05/06/2017", dead=[1, 0, 1, 0, 1])
    spec = {"start": "start", "end": "last", "event": "dead"}
    with pytest.raises(ValueError, match=r"'start' holds dates such as '02/03/2015'.*date_format='%d/%m/%Y'"):
        os_of(frame, spec)
    days = {"%d/%m/%Y": datetime.date(2017, 6, 5) - datetime.date(2015, 3, 2)}
    days["%m/%d/%Y"] = datetime.date(2017, 5, 6) - datetime.date(2015, 2, 3)
    for pattern, span in days.items():
        y = os_of(frame, spec, date_format=pattern)
        np.testing.assert_allclose(y["os_time"], span.days / 30.4375, atol=1e-9)


@pytest.mark.parametrize(
    ("frame", "words", "message"),
    [
        (
            outcome(survival=DAYS),
            {"spec": ("survival", "dead")},
            r"unit of column 'survival' is not known.*units=",
        ),
        (outcome(follow_up_days=[31, 400, -2, 90, 365]), {}, r"no negative.*'-2' \(1\), patients \['P-3'\]"),
        (outcome(follow_up_days=[31, 400, 99999, 90, 365]), {}, r"up to 100 years.*'99999'.*'P-3'"),
        (
            outcome(follow_up_days=[31, 400, "lost", 90, 365]),
            {},
            r"must hold numbers.*'lost' \(1\).*'P-3'",
        ),
        (outcome(follow_up_days=[31, 400, None, 90, 365]), {}, r"only one of time and status of endpoint 'os'.*'P-3'"),
        (outcome(dead=[1, 0, None, 0, 1]), {}, r"only one of time and status of endpoint 'os' is known.*'P-3'"),
        (outcome(dead=[1, 2, 2, 1, 1]), {}, r"'dead' is neither 0 nor 1 throughout: \['1', '2'\].*codes="),
        (outcome(dead=[0, 1, 2, 1, 0]), {}, r"neither 0 nor 1 throughout: \['0', '1', '2'\]"),
        (outcome(dead=["alive", "dead", "maybe", "dead", "alive"]), {}, r"must hold a status.*'maybe' \(1\).*'P-3'"),
        (
            outcome(vital_status=[1, 0, 1, 0, 0]),
            {"spec": ("follow_up_days", "vital_status")},
            "1 may mean that no event",
        ),
        (outcome(censored=[True, False] * 2 + [True]), {"spec": ("follow_up_days", "censored")}, "no event"),
        (outcome(status=[1] * 5), {"spec": ("follow_up_days", "status")}, "nothing but 1.*in the coding 0/1"),
        (outcome(last=pd.to_datetime(END)), {"spec": ("last", "dead")}, "'last' holds dates, not follow-up; give"),
        (outcome(), {"spec": ("follow_up_days",)}, "must be \\(time column, event column\\)"),
        (outcome(), {"spec": {"time": "follow_up_days"}}, "needs 'time' and 'event'"),
        (outcome(), {"units": "fortnights"}, "must be one of"),
    ],
)
def test_outcomes_that_may_mean_two_things_or_nothing_are_refused(frame, words, message):
    with pytest.raises(ValueError, match=message):
        os_of(table(**frame), **words)


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        ([1, 0, 1, 0, 1], None),
        (["1.0", "0.0", " 1", "0", "1"], None),
        ([True, False, True, False, True], None),
        (["TRUE", "false", "True", "FALSE", "true"], None),
        (["1:DECEASED", "0:LIVING", "1:DECEASED", "0:LIVING", "1:DECEASED"], None),
        (["Dead", "alive", "DECEASED", "Living ", "died"], None),
        (["yes", "No", "y", "n", "YES"], None),
        ([2, 1, 2, 1, 2], {1: 0, 2: 1}),
        (["2", "1.0", "2", "1", "2.0"], {1: 0, 2: 1}),
        ([1, 3, 1, 0, 1], {0: 0, 1: True, 3: False}),
        (["tot", "lebt", "Tot", "lebt", "tot"], {"Tot": 1, "lebt": 0}),
    ],
)
def test_status_in_any_coding(status, codes):
    y = os_of(table(follow_up_days=DAYS, DEAD=status), codes=codes and {"dead": codes})
    assert y["os_event"].tolist() == [True, False, True, False, True]


def test_what_cannot_be_read_of_an_outcome_becomes_nan_and_is_counted_on_request():
    frame = table(follow_up_days=[31, -4, "?", 90, 365], dead=[1, 0, 1, 0, "unknown"])
    cohort = read(frame, endpoints={"os": ("follow_up_days", "dead")}, coerce=True)
    assert cohort.y["os_time"].isna().tolist() == [False, True, True, False, True]
    assert cohort.y["os_event"].isna().tolist() == [False, True, True, False, True]
    check_target(cohort.y)
    assert cohort.report.loc["follow_up_days", "n_set_to_nan"] == 3
    assert cohort.report.loc["dead", "n_set_to_nan"] == 1
    assert "'-4' (1) set to NaN" in cohort.report.loc["follow_up_days", "changes"]


def test_a_unit_against_the_name_of_the_column_is_told():
    with pytest.warns(UserWarning, match="read in days, as asked for, although its name says months"):
        os_of(table(OS_MONTHS=DAYS, dead=[1, 0, 1, 0, 1]), ("OS_MONTHS", "dead"), units="days")


def test_endpoints_are_found_by_names_that_say_so():
    frame = table(OS_MONTHS=MONTHS, OS_STATUS=["1:DECEASED", "0:LIVING"] * 2 + ["0:LIVING"], Pfs_Time=MONTHS)
    frame["pfs_EVENT"] = [0, 1, 0, 1, 0]
    cohort = read(frame.assign(smoking_years=3, smoking_status="never"))
    assert list(find_tasks(cohort.y)) == ["pfs", "os"]
    assert read(frame, endpoints={}).y.shape == (5, 0)


# -- relapse after death -----------------------------------------------------------------------------------------------


LATE = pd.DataFrame(
    {
        "dfs_time": [9.0, 4.0, 12.0, 3.0],
        "dfs_event": [True, True, True, False],
        "os_time": [8.0, 6.0, 10.0, 3.0],
        "os_event": [True, False, False, False],
    },
    index=["a", "b", "c", "d"],
)


@pytest.mark.parametrize(
    ("rule", "time", "event"),
    [
        ("truncate", [8.0, 4.0, 10.0, 3.0], [1, 1, 0, 0]),
        ("unknown", [np.nan, 4.0, np.nan, 3.0], [np.nan, 1, np.nan, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [bool, int, float, "boolean", "Int64", object])
def test_relapse_after_death_is_mended_by_a_rule_that_is_counted(rule, time, event, dtype):
    y = LATE.astype({"dfs_event": dtype, "os_event": dtype})
    before = y.copy()
    with pytest.raises(ValueError, match="reconcile_endpoints"):
        check_target(y)
    with pytest.warns(UserWarning, match=r"2 of 4 patients \(50.0%\) have 'dfs' later than 'os'.*\['a', 'c'\]"):
        mended = reconcile_endpoints(y, rule)
    np.testing.assert_array_equal(mended["dfs_time"].to_numpy(float), time)
    np.testing.assert_array_equal(mended["dfs_event"].to_numpy(float, na_value=np.nan), event)
    check_target(mended)
    pd.testing.assert_frame_equal(y, before)
    assert reconcile_endpoints(mended, rule) is mended


def test_relapse_after_death_in_a_table():
    frame = LATE.rename(columns=lambda name: name.replace("dfs", "PFS").upper())
    with pytest.raises(ValueError, match=r"'pfs' ends after .* in 2 of 4 patients: \['a', 'c'\].*truncate"):
        read_cohort(frame)
    cohort = read_cohort(frame, relapse_after_death="truncate")
    assert cohort.y["pfs_time"].tolist() == [8.0, 4.0, 10.0, 3.0]
    assert "2 of 4 patients with 'pfs' after 'os' ['a', 'c']" in cohort.report.loc["PFS_TIME", "changes"]
    with pytest.raises(ValueError, match="relapse_after_death must be"):
        read_cohort(frame, relapse_after_death="drop")
    with pytest.raises(KeyError, match="y lacks"):
        reconcile_endpoints(LATE, "truncate", first="pfs")


# -- numbers and categories --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.5", "2", "", "0.25", "-3e2"], [1.5, 2, np.nan, 0.25, -300]),
        (["1,5", "2", "NA", "0,25", "-3"], [1.5, 2, np.nan, 0.25, -3]),
        (["1,5", "2,125", "", "0,250", "-3"], [1.5, 2.125, np.nan, 0.25, -3]),
        (["1.234,5", "2.125", "", "7", "-3"], [1234.5, 2125, np.nan, 7, -3]),
        (["1,234.5", "2,125", "", "7", "-3"], [1234.5, 2125, np.nan, 7, -3]),
        (["1 234,5", "2\u00a0125", "", "7", "−3"], [1234.5, 2125, np.nan, 7, -3]),
        (["1.234", "2.125", "", "7", "-3"], [1.234, 2.125, np.nan, 7, -3]),
        (['"1.5"', "'2", "", '="7"', " -3 "], [1.5, 2, np.nan, 7, -3]),
        ([1.234, "2,5", None, 7, np.int64(-3)], [1.234, 2.5, np.nan, 7, -3]),
        (pd.array([1, 2, None, 7, -3], dtype="Int64"), [1, 2, np.nan, 7, -3]),
        ([True, False, None, True, False], [1, 0, np.nan, 1, 0]),
        (["True", "FALSE", "", "true", "false"], [1, 0, np.nan, 1, 0]),
        ([None] * 5, [np.nan] * 5),
    ],
)
def test_numbers_stay_numbers(values, expected):
    column = feature(values)
    assert column.dtype == np.float64
    np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize("word", ["unknown", "n/a", "-", ".", "?", ">90", "12 mm", "12.5.3", "1_000", "inf", "#DIV/0!"])
@pytest.mark.parametrize("as_text", [True, False])
def test_words_among_numbers_are_refused_or_counted(word, as_text):
    values = ["61", "70", word, "58", "66"] if as_text else [61, 70, word, 58, 66]
    with pytest.raises(
        ValueError, match=rf"'x' must hold numbers.*{re.escape(repr(word))} \(1\), patients \['P-3'\].*coerce"
    ):
        feature(values)
    cohort = read(table(x=values), blocks={"clinical": ["x"]}, coerce=True)
    np.testing.assert_array_equal(cohort.X["clinical_x"], [61, 70, np.nan, 58, 66])
    assert cohort.report.loc["x", "n_set_to_nan"] == 1
    for missing in ([word], {"X": [word.upper()]}):
        np.testing.assert_array_equal(feature(values, missing=missing), [61, 70, np.nan, 58, 66])


def test_an_infinite_number_is_refused():
    with pytest.raises(ValueError, match="must hold finite numbers"):
        feature([1, 2, np.inf, 3, 4])


@pytest.mark.parametrize("cell", [[1, 2], {"a": 1}, b"x", 1j, np.array([1.0])])
@pytest.mark.parametrize("others", [[1, 2, 3, 4], ["a", "b", "a", "b"]])
def test_cells_that_hold_objects_are_refused(cell, others):
    cells = pd.Series([*others, None], dtype=object)
    cells[4] = cell
    with pytest.raises(ValueError, match=rf"column 'x' holds a {type(cell).__name__}, .* patients \['0005'\]"):
        feature(cells.to_numpy())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.float32("inf"), 10**400])
def test_an_infinite_number_among_others_is_refused_or_counted(value):
    cells = [1, 2.5, value, None, 4]
    with pytest.raises(ValueError, match=r"'x' must hold numbers.*\(1\), patients \['P-3'\]"):
        feature(pd.Series(cells, dtype=object).to_numpy())
    column = read(table(x=pd.Series(cells, dtype=object)), blocks={"clinical": ["x"]}, coerce=True).X["clinical_x"]
    np.testing.assert_array_equal(column, [1, 2.5, np.nan, np.nan, 4])


def test_a_date_among_labels_is_no_label():
    for value in (datetime.date(2001, 1, 1), np.timedelta64(3, "D"), pd.Period("2001")):
        with pytest.raises(ValueError, match="column 'x' holds dates or durations"):
            feature(pd.Series(["a", "b", value, "a", "b"], dtype=object).to_numpy())


def test_a_comma_that_may_be_either_is_refused():
    values = ["1,234", "2,125", "", "7", "-3"]
    with pytest.raises(ValueError, match=r"'x' holds \['1,234', '2,125'\].*decimal=','"):
        feature(values)
    np.testing.assert_array_equal(feature(values, decimal=","), [1.234, 2.125, np.nan, 7, -3])
    np.testing.assert_array_equal(feature(values, decimal={"x": "."}), [1234, 2125, np.nan, 7, -3])
    with pytest.raises(ValueError, match="must hold numbers with the decimal mark ','"):
        feature(["1.5", "2", "3", "4", "5"], decimal=",")
    # Another column of the same table decides, unless points stand there too.
    blocks = {"clinical": ["x", "z"]}
    commas = read(table(x=values, z=["0,5", "1", "2", "3", "4"]), blocks=blocks).X
    np.testing.assert_array_equal(commas["clinical_x"], [1.234, 2.125, np.nan, 7, -3])
    for x, z in ((values, ["0.5", "1"]), (["1.234", "2"], ["0,5", "1"]), (["1.234", "0.5", "0,5"], ["1", "2"])):
        with pytest.raises(ValueError, match="may separate decimals or thousands"):
            read(table(x=[*x, "", "", ""][:5], z=[*z, "2", "3", "4"]), blocks=blocks)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("Sex", ["M", "f", "Male", "FEMALE ", None], ["male", "female", "male", "female", None]),
        ("gender", ["w", "m", "w", "m", ""], ["female", "male", "female", "male", None]),
        ("smoking", ["never", "Never ", "never", "former", None], ["never", "never", "never", "former", None]),
        ("ecog", ["0", "1-2", "1-2", "1-2", ">2"], ["0", "1-2", "1-2", "1-2", ">2"]),
        ("egfr", ["None", "L858R", "None", "unknown", "NA"], ["None", "L858R", "None", "unknown", None]),
    ],
)
def test_categories_have_one_spelling(name, values, expected):
    column = read(table(**{name: values}), blocks={"clinical": [name]}).X.iloc[:, 0]
    assert column.astype(object).where(column.notna(), None).tolist() == expected


def test_codes_and_categories_are_as_said():
    frame = table(sex=[1, 2, 1, 2, np.nan], grade=[1, 2, 3, 3, None])
    cohort = read(
        frame, blocks={"clinical": ["sex", "grade"]}, codes={"SEX": {1: "male", 2: "female"}}, categories="grade"
    )
    assert cohort.X["clinical_sex"].tolist()[:4] == ["male", "female", "male", "female"]
    assert cohort.X["clinical_grade"].tolist()[:4] == ["1", "2", "3", "3"]
    assert cohort.X["clinical_grade"].isna().tolist() == [False] * 4 + [True]
    encoder = TabularEncoder(add_indicator=False).fit(cohort.X)
    assert set(encoder.categories_) == {"clinical_sex", "clinical_grade"}
    with pytest.raises(ValueError, match=r"unknown labels in 'sex'.*'2' \(2\), patients \['012', '4'\]"):
        read(frame, blocks={"clinical": ["sex"]}, codes={"sex": {1: "male"}})
    np.testing.assert_array_equal(
        read(frame, blocks={"clinical": ["sex"]}, codes={"sex": {1: 0, 2: 1}}).X["clinical_sex"], [0, 1, 0, 1, np.nan]
    )


def test_dates_are_no_features():
    frame = table(clinical_age=[50, 60, 70, 80, 90], clinical_birth=pd.to_datetime(START), clinical_seen="2015-01-03")
    with pytest.raises(ValueError, match="'clinical_birth' holds dates"):
        read(frame, blocks={"clinical": ["clinical_birth"]})
    cohort = read(frame)
    assert list(cohort.X) == ["clinical_age"]
    assert set(cohort.unused) == {"clinical_birth", "clinical_seen"}


# -- classes and ordered groups ----------------------------------------------------------------------------------------


GROUPS = ["I-II", "III", "IV"]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        *[(text, "I-II") for text in ("I", "IA", "Ia", "IA3", "1a", "IB", "IIA", "Stage IIB", "STAGE I", "2B", "I-II")],
        *[
            (text, "I-II")
            for text in ("pathologic stage IB", "Stadium IIa", "IA-IIB", "I/II", "stage 2", "AJCC Stage IA1")
        ],
        *[(text, "III") for text in ("III", "IIIA", "3b", "Stage IIIC", "iii c", "IIIA (N2)", "IIIA/B"[:4], "stage 3")],
        *[(text, "IV") for text in ("IV", "IVA", "iva", "Stage IVB", "4A", "Stage 4")],
    ],
)
def test_stages_are_grouped(text, group):
    for levels in (GROUPS, ["1-2", "3", "4"]):
        y = read(table(tnm=[text, "IIIB", "IIB", "IVA", None]), ordinal={"stage": ("TNM", levels)}).y
        assert y["stage"].tolist()[0] == levels[GROUPS.index(group)]
        assert y["stage"].cat.ordered and list(y["stage"].cat.categories) == levels


@pytest.mark.parametrize("text", ["0", "Tis", "occult", "V", "unknown", "II-III", "T2", "1", "2", "3"])
def test_labels_in_no_group_are_refused_or_counted(text):
    frame = table(tnm=[text, "IIIB", "IIB", "IVA", None])
    with pytest.raises(ValueError, match=rf"unknown labels in 'stage'.*'{text}' \(1\), patients \['007'\]"):
        read(frame, ordinal={"stage": ("tnm", GROUPS)})
    cohort = read(frame, ordinal={"stage": ("tnm", GROUPS)}, coerce=True)
    assert cohort.y["stage"].isna().tolist() == [True, False, False, False, True]
    assert cohort.report.loc["tnm", "n_set_to_nan"] == 1
    coded = read(
        frame,
        ordinal={"stage": ("tnm", GROUPS)},
        codes={"tnm": {text: "III", "iiib": 3, "IIB": "I-II", "IVA": "IV"}},
        coerce=True,
    )
    assert coded.y["stage"].iloc[0] == "III"


def test_bare_digits_are_stages_beside_digits_with_letters():
    y = read(table(tnm=["4", "3a", "1", "2b", "3"]), ordinal={"stage": ("tnm", GROUPS)}).y
    assert y["stage"].tolist() == ["IV", "III", "I-II", "I-II", "III"]


def test_finer_levels_do_not_take_what_is_not_said_to_be_in_them():
    levels = ["I", "II", "IIIA", "IIIB-IV"]
    y = read(table(tnm=["IA", "IIB", "IIIA", "IIIC", "IV"]), ordinal={"stage": ("tnm", levels)}).y
    assert y["stage"].tolist() == ["I", "II", "IIIA", "IIIB-IV", "IIIB-IV"]
    with pytest.raises(ValueError, match=r"'III' \(1\)"):
        read(table(tnm=["IA", "IIB", "III", "IIIC", "IV"]), ordinal={"stage": ("tnm", levels)})


@pytest.mark.parametrize(
    ("values", "labels", "order"),
    [
        (["pT2a", "T1", "cT3", "ypT4", "T1c"], ["T2", "T1", "T3", "T4", "T1"], ["T1", "T2", "T3", "T4"]),
        (["N0", "pN1", "n2", "N3", None], ["N0", "N1", "N2", "N3", None], ["N0", "N1", "N2", "N3"]),
        (["IIIA", "I", "IVb", "IIB", "I"], ["III", "I", "IV", "II", "I"], ["I", "II", "III", "IV"]),
        ([3, 1, 2, 10, None], ["3", "1", "2", "10", None], ["1", "2", "3", "10"]),
        (
            pd.Categorical(["b", "a", "c", "a", None], ["c", "b", "a"], ordered=True),
            ["b", "a", "c", "a", None],
            list("cba"),
        ),
    ],
)
def test_an_order_that_is_plain_needs_no_levels(values, labels, order):
    y = read(table(grade=values), ordinal="grade").y["grade"]
    assert y.astype(object).where(y.notna(), None).tolist() == labels
    assert list(y.cat.categories) == order and y.cat.ordered


def test_an_order_that_is_not_plain_is_asked_for():
    with pytest.raises(ValueError, match=r"'risk' has the labels \['high', 'low'\], whose order is not known"):
        read(table(risk=["low", "high", "low", "high", "low"]), ordinal="risk")
    y = read(table(risk=["low", "HIGH", "low", "High ", "low"]), ordinal={"risk": ("risk", ["low", "high"])}).y
    assert y["risk"].tolist() == ["low", "high", "low", "high", "low"]


def test_levels_alone_are_those_of_the_column_of_that_name():
    frame = table(Stage=["IB", "IV", "IIIA", "IIB", "IIIB"], grade=[1, 2, 1, 2, 1])
    y = read(frame, ordinal={"stage": GROUPS, "grade": ["1", "2"]}).y
    assert y["stage"].tolist() == ["I-II", "IV", "III", "I-II", "III"]
    assert y["grade"].tolist() == ["1", "2", "1", "2", "1"]
    with pytest.raises(TypeError, match="needs a column"):
        read(frame, ordinal={"stage": {"IB": "I-II"}})


@pytest.mark.parametrize("name", ["STATUS", "os_event", "os"])
def test_codes_may_name_what_a_column_becomes(name):
    frame = table(Status=[2, 1, 2, 1, 2], days=DAYS, Sex=[1, 2, 1, 2, 1])
    codes = {name: {1: 0, 2: 1}, "clinical_sex": {1: "male", 2: "female"}}
    X, y = read(frame, endpoints={"os": ("days", "status")}, blocks={"clinical": ["sex"]}, codes=codes)
    assert y["os_event"].tolist() == [True, False, True, False, True]
    assert X["clinical_sex"].tolist() == ["male", "female", "male", "female", "male"]


def test_classes_are_labels():
    frame = table(
        histology=["Adeno", "adeno ", "Squamous", "Adeno", None], site=[1, 2, 1, 2, 1], ki=[0.1, 0.5, 0.7, 0.2, 0.9]
    )
    y = read(frame, classes={"subtype": "Histology", "site": "site"}).y
    assert y["subtype"].tolist()[:4] == ["Adeno", "Adeno", "Squamous", "Adeno"] and y["subtype"].isna().iloc[4]
    assert y["site"].tolist() == ["1", "2", "1", "2", "1"]
    levels = {"subtype": ("histology", ["LUAD", "LUSC"])}
    coded = read(frame, classes=levels, codes={"histology": {"adeno": "LUAD", "squamous": "LUSC"}}).y["subtype"]
    assert list(coded.cat.categories) == ["LUAD", "LUSC"] and not coded.cat.ordered
    with pytest.raises(ValueError, match="unknown labels in 'subtype'.*'Adeno' "):
        read(frame, classes=levels)
    with pytest.raises(ValueError, match="'ki' has 5 different values.*it is no class"):
        read(frame, classes=["ki"])
    with pytest.raises(ValueError, match="'unknown' \\(1\\)"):
        read(frame.replace("Squamous", "unknown"), classes={"subtype": "histology"})


# -- names, blocks, ids ------------------------------------------------------------------------------------------------


def test_radiomics_are_one_block_and_diagnostics_are_dropped():
    names = ["original_firstorder_Mean", "wavelet-LLH_glcm_Idm", "log-sigma-1-0-mm-3D_glszm_ZonePercentage"]
    frame = table(**{name: [1.5, 2, 3, 4, 5] for name in [*names, "square_glcm_Id"]}, diagnostics_Versions="3.0")
    frame["original_hospital"] = "A"
    cohort = read(frame)
    assert modalities(cohort.X) == {"radiomics": [f"radiomics_{name}" for name in [*names, "square_glcm_Id"]]}
    assert cohort.report.loc["diagnostics_Versions", "role"] == "dropped"
    assert cohort.report.loc["original_hospital", "role"] == "unused"


def test_blocks_take_what_they_name():
    frame = table(
        AGE=[50, 60, 70, 80, 90], **{"SUV max": [1, 2, 3, 4, 5], "SUV.mean": [1, 2, 3, 4, 5], "clinical_t": 1.0}
    )
    frame = frame.assign(pet_mtv=3.0, Centre=["A", "B"] * 2 + ["A"], arm=1)
    cohort = read(
        frame, blocks={"clinical": {"age": " age"}, "pet": "suv*"}, groups="centre", carry={"treatment": "arm"}
    )
    assert list(cohort.X) == ["clinical_age", "pet_suv_max", "pet_suv_mean", "treatment"]
    assert cohort.groups.tolist() == ["A", "B", "A", "B", "A"]
    assert cohort.groups.index.equals(cohort.X.index)
    assert list(cohort.unused) == ["clinical_t", "pet_mtv"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"id": None}, ValueError, "say which column holds the patients' ids"),
        ({"id": "patient"}, KeyError, "no column 'patient', which id names"),
        ({"blocks": {"clinical": ["agee"]}}, KeyError, r"did you mean \['Age'\]"),
        ({"blocks": {"clinical": ["age", "AGE"]}}, ValueError, "asked for twice"),
        ({"blocks": {"clinical": ["age"]}, "classes": "Age"}, ValueError, "what is predicted is never a feature"),
        ({"blocks": {"clinical": ["dead"]}}, ValueError, "what is predicted is never a feature"),
        ({"blocks": {"clinical": ["id"]}}, ValueError, "asked for twice"),
        ({"blocks": {"pet_ct": ["age"]}}, ValueError, "one word of letters"),
        ({"blocks": {"clinical": "zz*"}}, KeyError, "no column that fits"),
        ({"blocks": {"clinical": {"lung_image": "age"}}}, ValueError, "names images or vectors"),
        ({"carry": "follow_up_x"}, ValueError, "would be a feature of the block"),
        ({"codes": {"nobody": {1: 2}}}, KeyError, "which codes names"),
        ({"codes": {"age": 3}}, TypeError, "must give a meaning for each value"),
        ({"units": {"age": "days"}}, KeyError, "units names"),
        ({"decimal": ";"}, ValueError, "decimal must be"),
        ({"classes": {"os": "Age"}}, ValueError, "asked for twice"),
    ],
)
def test_requests_that_do_not_fit_the_table_are_refused(words, error, message):
    frame = table(Age=[50, 60, 70, 80, 90], follow_up_days=DAYS, dead=[1, 0, 1, 0, 1], follow_up_x=1)
    with pytest.raises(error, match=message):
        read(frame, endpoints={"os": ("follow_up_days", "dead")}, **words)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["007", "7", " a ", "0", "x y"], ["007", "7", "a", "0", "x y"]),
        ([7, 12, 3, 4, 5], ["7", "12", "3", "4", "5"]),
        ([7.0, 12.0, 3.0, 4.0, 5.0], ["7", "12", "3", "4", "5"]),
        (["7.0", "12.0", "3.0", "4.0", "5.0"], ["7", "12", "3", "4", "5"]),
    ],
)
def test_ids_stay_what_they_are(ids, expected):
    assert list(read(table().assign(id=ids)).X.index) == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a ", "c", "d"], r"more than one row for the patients \['a'\]"),
        (["a", None, "b", "", "d"], r"without 'id', in rows \[1, 3\]"),
        ([1.5, 2, 3, 4, 5], "no whole numbers"),
        (["1.23457E+11", "b", "c", "d", "e"], "have lost digits"),
        ([7, 7.0, 3, 4, 5], "more than one row"),
        (["Jos\u00e9", "Jose\u0301", "b", "c", "d"], r"look the same .* 'Jos\\xe9', 'Jose\\u0301'"),
    ],
)
def test_ids_that_are_none_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        read(table(age=60).assign(id=pd.Series(ids, dtype=object)))


# -- files -------------------------------------------------------------------------------------------------------------


def written(folder, content, name="t.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("id,age,sex\n007,61.5,F\n8,70,M\n", "utf-8"),
        ("id,age,sex\r\n007,61.5,F\r\n8,70,M\r\n", "utf-8-sig"),
        ("id;age;sex\n007;61,5;F\n8;70;M\n", "utf-8"),
        ("sep=;\nid;age;sex\n007;61,5;F\n8;70;M\n", "utf-8"),
        ("id\tage\tsex\n007\t61.5\tF\n8\t70\tM\n", "utf-16"),
        ("id,age,sex,\n007,61.5,F,\n8,70,M,\n", "utf-8"),
        ("id,age,sex\n007,61.5,F,\n8,70,M,\n", "utf-8"),
        ("id,age,sex\n007,61.5,F,\n\n8,70,M\n,,\n", "utf-8"),
        ('"id","age","sex"\n"007","61.5","F"\n"8","70","M"\n', "utf-8"),
        (" ID , Age ,SEX\n 007 , 61.5 , F\n8, 70 ,M \n", "utf-8"),
        ("#Patient\tAge\tSex\n#text\tyears\ttext\n#1\t1\t1\nID\tAGE\tSEX\n007\t61.5\tF\n8\t70\tM\n", "utf-8"),
        (",id,age,sex\n0,007,61.5,F\n1,8,70,M\n", "utf-8"),
    ],
)
def test_text_files_of_all_kinds_are_one_table(tmp_path, content, encoding):
    X, y = read_cohort(written(tmp_path, content, encoding=encoding), id="id", blocks={"clinical": ["age", "sex"]})
    assert list(X.index) == ["007", "8"] and y.shape == (2, 0)
    assert X["clinical_age"].tolist() == [61.5, 70] and X["clinical_sex"].tolist() == ["female", "male"]


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("id,age,age\n1,2,3\n", {}, r"has the columns \['age'\] more than once"),
        ("id,age\n1,2,3\n4,5,6\n", {}, r"2 column names, and more cells in the lines \[2, 3\].*row name"),
        ("id,age\n1,2\n4,5,6\n", {}, r"more cells in the lines \[3\].*quotes"),
        ("id,age\n1,2\n\n4\n", {}, r"fewer cells in the lines \[4\]"),
        ("id,age\n", {}, "no patients, only a header"),
        ("", {}, "is empty"),
        ("id,age;x\n1,2;3\n", {}, "may be separated by ',' or ';'; say which with sep="),
        ("#id,age\n1,2\n3,4\n", {}, "may be the header or a comment"),
        ("id,age\n1,2\n,4\n", {}, r"without 'id', in lines \[3\]"),
        ("id,n\u00e4me\n1,2\n".encode("latin-1"), {}, "encoding='cp1252'"),
        (b"PK\x00\x01\n", {}, "no text file"),
    ],
)
def test_broken_files_are_refused_with_the_lines(tmp_path, content, words, message):
    with pytest.raises(ValueError, match=message):
        read_cohort(written(tmp_path, content), id="id", **words)


def test_files_of_other_encodings_and_separators_are_read_where_said(tmp_path):
    path = written(tmp_path, "id;n\u00e4me,x\n1;a,b\n", encoding="cp1252")
    cohort = read_cohort(path, id="id", encoding="cp1252", sep=";")
    assert list(cohort.unused) == ["n\u00e4me,x"]


def test_workbooks_are_read_as_the_sheet_shows_them(tmp_path):
    path = tmp_path / "t.xlsx"
    frame = pd.DataFrame(
        {
            "ID": ["007", 8, 9.0],
            "Age": [61.5, "n/a", 70],
            "start": [datetime.datetime(2015, 1, 1)] * 3,
            "end": [datetime.datetime(2015, 1, 31), "2015-03-02", datetime.datetime(2016, 1, 1)],
            "dead": [True, False, True],
        }
    )
    with pd.ExcelWriter(path) as book:
        frame.to_excel(book, sheet_name="patients", index=False)
    words = {
        "id": "id",
        "blocks": {"clinical": ["age"]},
        "endpoints": {"os": {"start": "start", "end": "end", "event": "dead"}},
    }
    with pytest.raises(ValueError, match=r"'Age' must hold numbers.*'n/a' \(1\), patients \['8'\]"):
        read_cohort(path, **words)
    X, y = read_cohort(path, **words, missing=["N/A"])
    assert list(X.index) == ["007", "8", "9"]
    np.testing.assert_array_equal(X["clinical_age"], [61.5, np.nan, 70])
    np.testing.assert_allclose(y["os_time"], np.array([30, 60, 365]) / 30.4375, atol=1e-9)
    with pd.ExcelWriter(path) as book:
        frame.to_excel(book, sheet_name="patients", index=False)
        frame.to_excel(book, sheet_name="old", index=False)
    with pytest.raises(ValueError, match=r"sheets \['patients', 'old'\]; say which one with sheet="):
        read_cohort(path, **words)
    with pytest.raises(KeyError, match="no sheet 'new'"):
        read_cohort(path, **words, sheet="new")
    pd.testing.assert_frame_equal(read_cohort(path, **words, missing=["N/A"], sheet=1).X, X)


def test_other_tables_are_converted_or_refused(tmp_path):
    frame = table(age=[50, 60, 70, 80, 90])
    expected = read(frame, blocks={"clinical": ["age"]}).X
    for other in (polars.DataFrame(frame.to_dict("list")), polars.DataFrame(frame.to_dict("list")).to_arrow()):
        pd.testing.assert_frame_equal(read(other, blocks={"clinical": ["age"]}).X, expected)
    with pytest.raises(TypeError, match="table must be"):
        read(frame.to_numpy())
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="more than once"):
        read(pd.concat([frame, frame["age"]], axis=1))
    indexed = frame.set_index("id")
    pd.testing.assert_frame_equal(read_cohort(indexed, blocks={"clinical": ["age"]}).X, expected)


# -- the account -------------------------------------------------------------------------------------------------------


def test_every_column_is_accounted_for():
    frame = table(age=["61,5", "70", "n/a", "58", "66"], OS_MONTHS=MONTHS, OS_STATUS=["1:DECEASED"] * 5, note="x")
    frame["lung_image"] = ["a.npy", "", None, "d.npy", "e.npy"]
    frame["Unnamed: 9"] = np.nan
    cohort = read(frame, blocks={"clinical": ["age"]}, coerce=True)
    assert isinstance(cohort, Cohort)
    report = cohort.report
    assert list(report.index) == [*frame.columns]
    assert report["role"].tolist() == ["id", "block clinical", *["endpoint os"] * 2, "unused", "image", "dropped"]
    assert report.loc["age", "became"] == "clinical_age"
    assert "decimal commas" in report.loc["age", "changes"] and "'n/a' (1) set to NaN" in report.loc["age", "changes"]
    assert report.loc["OS_STATUS", "changes"] == (
        "renamed; recoded: '1:DECEASED' -> 1 (5); 5 of 5 patients (100%) had an event of 'os'"
    )
    assert report.loc["lung_image", "n_missing"] == 2
    assert cohort.X["lung_image"].tolist() == ["a.npy", None, None, "d.npy", "e.npy"]
    for text in (repr(cohort), cohort._repr_html_()):
        for name in frame:
            assert name in text


def test_vectors_are_carried_and_free_text_is_left_out_with_a_hint():
    frame = table(clinical_report=[f"Solid mass of {i} mm, no effusion seen." for i in range(5)])
    vectors = [np.ones((2, 3)), None, "slide.npy", np.zeros((1, 3)), np.nan]
    frame["slide_vectors"] = pd.Series(vectors, index=frame.index, dtype=object)
    cohort = read(frame)
    assert cohort.report.loc["slide_vectors", ["role", "n_missing"]].tolist() == ["vectors", 2]
    assert cohort.X["slide_vectors"].tolist()[::2] == [vectors[0], "slide.npy", None]
    assert (
        "free text; embed it, and give the vectors as clinical_report_vectors"
        in cohort.report.loc["clinical_report", "changes"]
    )
    assert modalities(cohort.X) == {"slide": ["slide_vectors"]}
    X, y = cohort
    assert X is cohort.X and y is cohort.y


def test_free_text_that_a_block_names_is_kept_and_the_report_says_that_models_refuse_it():
    texts = [f"Solid mass of {i} mm, no effusion seen." for i in range(5)]
    hint = "free text, which models of tables refuse; embed it, and give the vectors as clinical_report_vectors"
    for asked in ({}, {"categories": ["report"]}):
        cohort = read(table(report=texts), blocks={"clinical": ["report"]}, **asked)
        assert (hint in cohort.report.loc["report", "changes"]) == (not asked)
        assert cohort.X["clinical_report"].tolist() == texts
    with pytest.raises(ValueError, match="'clinical_report' holds free text"):
        TabularEncoder().fit(read(table(report=texts), blocks={"clinical": ["report"]}).X)


def test_a_wide_table_is_read_exactly_and_printed_briefly(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 600)), columns=[f"original_glcm_F{i}" for i in range(600)])
    frame.insert(0, "id", [f"{i:03d}" for i in range(50)])
    values = frame.iloc[:, 1:].to_numpy()
    for words in ({}, {"sep": ";", "decimal": ","}):
        frame.to_csv(tmp_path / "t.csv", index=False, **words)
        cohort = read_cohort(tmp_path / "t.csv", id="id")
        np.testing.assert_array_equal(cohort.X.to_numpy(), values)
    assert len(repr(cohort)) < 1000


# -- one table, many codings -------------------------------------------------------------------------------------------


def clean(n, rng):
    days = rng.integers(0, 3000, n)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.2, np.nan, rng.normal(63, 9, n).round(1)),
            "sex": rng.choice(["male", "female"], n),
            "nodes": rng.integers(0, 5, n).astype(float),
            "stage": rng.choice(GROUPS, n),
            "days": days,
            "dead": rng.random(n) < 0.5,
        },
        index=[f"{number:04d}" for number in rng.permutation(9999)[:n]],
    )


SPELLINGS = {
    "I-II": ["IA", "Stage IB", "2a", "I-II"],
    "III": ["IIIA", "3b", "Stage III"],
    "IV": ["IV", "4a", "Stage IVB"],
}


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_table_in_many_codings_gives_the_same_X_and_y(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    truth = clean(data.draw(st.integers(3, 12)), rng)
    draw = lambda *choices: data.draw(st.sampled_from(choices))  # noqa: E731
    words = {"codes": {}, "units": None}
    frame = pd.DataFrame({"id": truth.index})
    frame["age"] = truth["age"].to_numpy()
    sex = draw(("male", "female"), ("M", "F"), ("m", "w"), (1, 2), ("Male ", "FEMALE"))
    frame["sex"] = np.where(truth["sex"] == "male", *pd.Series(sex, dtype=object).to_numpy())
    if sex == (1, 2):
        words["codes"]["sex"] = {1: "male", 2: "female"}
    frame["nodes"] = truth["nodes"].to_numpy()
    frame["stage"] = [rng.choice(SPELLINGS[stage]) for stage in truth["stage"]]
    event = {"days": "days", "months": "months", "years": "years", "weeks": "weeks"}
    unit = draw(*event, "dates", "timedelta")
    if unit == "dates":
        start = pd.Timestamp("2010-03-15")
        frame["first"], frame["last"] = start, start + pd.to_timedelta(truth["days"].to_numpy(), unit="D")
        spec = {"start": "first", "end": "last", "event": "dead"}
    elif unit == "timedelta":
        frame["follow"], spec = pd.to_timedelta(truth["days"].to_numpy(), unit="D"), ("follow", "dead")
    else:
        per = {"days": 1, "weeks": 7, "months": 30.4375, "years": 365.25}[unit]
        frame["follow"], spec, words["units"] = truth["days"].to_numpy() / per, ("follow", "dead"), unit
    yes, no = draw((1, 0), (True, False), ("1:DECEASED", "0:LIVING"), ("Dead", "alive"), (2, 1), ("1.0", "0.0"))
    frame["dead"] = [yes if dead else no for dead in truth["dead"]]
    if yes == 2:
        words["codes"]["dead"] = {2: 1, 1: 0}

    order = rng.permutation(len(frame.columns))
    frame = frame.iloc[:, order]
    change = draw(str.upper, str.lower, str.title, lambda name: f" {name}  ")
    frame = frame.rename(columns=change)
    form = draw("frame", "object", "csv", "semicolon", "nullable", "polars")
    if form == "object":
        frame = frame.astype(object)
    elif form == "nullable":
        frame = frame.convert_dtypes()
    elif form == "polars" and unit not in ("dates", "timedelta"):
        frame = polars.DataFrame({name: frame[name].tolist() for name in frame}, strict=False)
    elif form in ("csv", "semicolon"):
        style = {"sep": ";", "decimal": ","} if form == "semicolon" else {}
        text = frame.to_csv(index=False, **style)
        frame = pd.read_csv(io.StringIO(text), sep=style.get("sep", ","), dtype=str, keep_default_na=False)
        if form == "semicolon":
            words["decimal"] = ","
    X, y = read_cohort(
        frame,
        id="ID",
        blocks={"clinical": ["Age", "Sex", "Nodes"]},
        ordinal={"stage": ("stage", GROUPS)},
        endpoints={"os": spec},
        **words,
    )
    expected = truth.rename(columns=lambda name: f"clinical_{name}")
    for name in ("age", "nodes"):
        np.testing.assert_array_equal(X[f"clinical_{name}"], truth[name])
    assert X["clinical_sex"].tolist() == truth["sex"].tolist()
    assert list(X) == ["clinical_age", "clinical_sex", "clinical_nodes"] and list(X.index) == list(expected.index)
    assert y["stage"].tolist() == truth["stage"].tolist()
    np.testing.assert_array_equal(y["os_time"], np.round(truth["days"] / 30.4375, 9))
    assert y["os_event"].dtype == bool and y["os_event"].tolist() == truth["dead"].tolist()


@pytest.mark.parametrize("name", ["cens", "event_free", "not_dead", "no_relapse", "relapse-free"])
def test_a_status_whose_name_may_mean_the_absence_of_the_event_is_asked_for(name):
    table = pd.DataFrame({"id": list("abcd"), "time": [1, 2, 3, 4], name: [0, 1, 0, 1]})
    words = {"id": "id", "endpoints": {"os": ("time", name)}, "units": "months"}
    with pytest.raises(ValueError, match="1 may mean that no event was seen"):
        read_cohort(table, **words)
    y = read_cohort(table, **words, codes={name: {0: 1, 1: 0}}).y
    assert y["os_event"].tolist() == [True, False, True, False]
    clear = table.rename(columns={name: "event_free_survival_event"})
    assert (
        read_cohort(clear, **words | {"endpoints": {"os": ("time", "event_free_survival_event")}}).y.os_event.sum() == 2
    )


def test_a_status_whose_word_contradicts_its_code_is_refused():
    table = pd.DataFrame({"id": list("abcd"), "time": [1, 2, 3, 4], "status": ["1:LIVING", "0:DECEASED"] * 2})
    words = {"id": "id", "endpoints": {"os": ("time", "status")}, "units": "months"}
    for coerce in (False, True):
        with pytest.raises(ValueError, match=r"contradict each other: \['0:DECEASED', '1:LIVING'\].*codes="):
            read_cohort(table, **words, coerce=coerce)
    y = read_cohort(table, **words, codes={"status": {"1:LIVING": 0, "0:DECEASED": 1}}).y
    assert y["os_event"].tolist() == [False, True, False, True]


@pytest.mark.parametrize("argument", ["classes", "ordinal"])
@pytest.mark.parametrize(
    "cells",
    [
        np.arange(30) / 7,
        np.arange(30),
        pd.date_range("2001", periods=30),
        pd.period_range("2001", periods=30, freq="M"),
    ],
    ids=["measurement", "number of the row", "date", "month"],
)
def test_what_is_no_class_is_no_ordered_one_either(argument, cells):
    table = pd.DataFrame({"id": [f"P{k}" for k in range(30)], "grade": cells})
    with pytest.raises(ValueError, match=rf"column 'grade' h.*it is no class.*{argument}=\{{'grade'"):
        read_cohort(table, id="id", **{argument: ["grade"]})


@pytest.mark.parametrize(
    "cell", [pd.Period("2001-03", "M"), datetime.time(8, 30), "24-Mar-2001", "2001/03/24", "24-03-2001", "Mar 24, 2001"]
)
def test_no_form_of_a_date_is_a_feature(cell):
    table = pd.DataFrame({"id": list("abc"), "seen": [cell] * 3})
    with pytest.raises(ValueError, match="column 'seen' holds dates"):
        read_cohort(table, id="id", blocks={"clinical": ["seen"]})


def test_true_and_false_are_no_follow_up():
    table = pd.DataFrame({"id": list("abc"), "a": [True, False, True], "b": [1, 0, 1]})
    for cells in (table["a"], table["a"].astype(str)):
        with pytest.raises(ValueError, match="column 'a' holds True and False, which are no follow-up"):
            read_cohort(table.assign(a=cells), id="id", endpoints={"os": ("a", "b")}, units="months")


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("blocks", ["a"], "blocks must be a mapping"),
        ("blocks", {"clinical": None}, r"blocks\['clinical'\] must name columns; got None"),
        ("blocks", {1: ["a"]}, "a block's name is one word"),
        ("endpoints", 5.0, "endpoints must name columns"),
        ("endpoints", {"os": None}, r"endpoints\['os'\] must be \(time column, event column\)"),
        ("endpoints", {"": ("t", "s")}, "endpoints must give every task a name"),
        ("units", ["days"], "units must be a mapping"),
        ("units", 5, "units must be a mapping"),
        ("codes", [1], "codes must be a mapping"),
        ("classes", 5.0, "classes must name columns"),
        ("carry", 5.0, "carry must name columns"),
        ("categories", 5.0, "categories must name columns"),
        ("groups", ["s"], "groups must name a column"),
        ("id", ["id"], "id must name a column"),
        ("ordinal", {"s": ("s", {1, 0})}, "levels of 's' must be a list in their order"),
        ("ordinal", {"s": ("s", 5)}, "levels of 's' must be a list in their order"),
        ("ordinal", {"s": ("s", [])}, "levels of 's' must be different labels"),
        ("ordinal", {"s": ("s", [0, 1, 1])}, "levels of 's' must be different labels"),
        ("ordinal", {"s": ("s", [None, 1])}, "levels of 's' must be different labels"),
    ],
)
def test_arguments_of_another_form_are_refused_by_name(argument, value, message):
    table = pd.DataFrame({"id": list("abcd"), "t": [1, 2, 3, 4], "s": [0, 1, 0, 1], "a": [1.5, 2.5, 3.5, 4.5]})
    with pytest.raises((TypeError, ValueError), match=message):
        read_cohort(table, **{"id": "id", argument: value})


def test_a_number_alone_means_a_missing_cell_and_names_a_column_without_header():
    X = read_cohort(pd.DataFrame([["a", 5.0], ["b", -999.0]]), id=0, blocks={"clinical": [1]}, missing=-999).X
    assert X["clinical_1"].isna().tolist() == [False, True]


def test_the_page_about_tables_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the report is written there
    names: dict = {}
    exec(compile(code_of("docs/tables.md"), "tables.md", "exec"), names)
    printed = re.search(r"```\n(4 patients.*?)```", page("docs/tables.md"), re.DOTALL)[1]
    assert repr(names["cohort"]) == printed.strip()
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


# -- real tables -------------------------------------------------------------------------------------------------------


@needs_data
def test_the_public_tables_of_r_are_read_as_r_means_them():
    root = Path(os.environ["MMDLS_DATA"]) / "golden_survival" / "r_survival"
    lung = pd.read_csv(root / "lung.csv").set_axis([f"L{k}" for k in range(228)])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        read_cohort(lung, endpoints={"os": ("time", "status")}, units="days")
    words = {"endpoints": {"os": ("time", "status")}, "units": "days"}
    y = read_cohort(lung, **words, codes={"status": {1: 0, 2: 1}}).y
    assert y["os_event"].sum() == 165  # R: sum(lung$status == 2)
    np.testing.assert_allclose(y["os_time"] * 30.4375, lung["time"])
    rotterdam = read_cohort(root / "rotterdam.csv", id="pid", endpoints={"os": ("dtime", "death")}, units="days")
    assert rotterdam.y["os_event"].sum() == 1272  # R: sum(rotterdam$death)


@needs_data
def test_the_real_cohort_gives_the_outcomes_of_its_own_loader():
    expected = load_r01(invalid="drop").target
    path = Path(os.environ["MMDLS_DATA"]) / "r01" / "clinical.csv"
    words = {
        "id": "case_id",
        "endpoints": {
            "dfs": ("dfs_days_from_surgery", "dfs_event"),
            "os": ("os_days_from_surgery", "os_event"),
        },
        "classes": {"subtype": ("subtype", ["LUAD", "LUSC"])},
        "ordinal": {"stage": ("stage_ajcc7", ["I-II", "III", "IV"])},
        "codes": {"stage_ajcc7": {"0": None} | {s: s for s in ("IA", "IB", "IIA", "IIB", "IIIA", "IIIB", "IV")}},
    }
    with pytest.raises(ValueError, match=r"no negative.*'AMC-044', 'R01-106'"):
        read_cohort(path, **words)
    y = read_cohort(path, **words, coerce=True).y
    assert y.index[y["dfs_time"].isna()].tolist() == ["AMC-044", "R01-106"]
    y = y.loc[expected.index]
    pd.testing.assert_frame_equal(y[["subtype", "stage"]], expected[["subtype", "stage"]], check_names=False)
    for column in ("dfs_time", "os_time", "dfs_event", "os_event"):
        np.testing.assert_allclose(y[column].astype(float), expected[column].astype(float), atol=1e-9)


def test_codes_of_an_ordinal_task_may_leave_out_what_names_a_level():
    frame = table(**outcome(), tnm=["0", "IIA", "IV", "0", "3b"])
    words = {"endpoints": {"os": ("follow_up_days", "dead")}, "ordinal": {"stage": ("tnm", ["I-II", "III", "IV"])}}
    with pytest.raises(ValueError, match=r"'0' \(2\).*Recode them with codes"):
        read(frame, **words)
    cohort = read(frame, **words, codes={"tnm": {0: "I-II"}})
    assert cohort.y["stage"].tolist() == ["I-II", "I-II", "IV", "I-II", "III"]
    assert "recoded: '0' -> 'I-II' (2)" in cohort.report.loc["tnm", "changes"]
    unknown = read(frame, **words, codes={"tnm": {0: None}})
    assert unknown.y["stage"].isna().tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match=r"'IIx' \(1\)"):
        read(frame.assign(tnm=["0", "IIx", "IV", "0", "3b"]), **words, codes={"tnm": {0: "I-II"}})


def test_a_table_without_ids_or_features_says_what_to_do(tmp_path):
    frame = table(**outcome()).drop(columns="id")
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, tmp_path / "a.csv"):
        with pytest.raises(
            ValueError, match=r"If no column does.*table\.index = .*Columns: \['follow_up_days', 'dead'\]"
        ):
            read_cohort(source, endpoints={"os": ("follow_up_days", "dead")})
    frame.index = [f"patient {row}" for row in range(len(frame))]
    cohort = read_cohort(frame, endpoints={"os": ("follow_up_days", "dead")})
    assert "no column became a feature" in str(cohort) and cohort.X.shape == (5, 0)
    with pytest.raises(ValueError, match=r"0 feature.*blocks=\{'clinical'"):
        ClinicalCox().fit(cohort.X, cohort.y)
