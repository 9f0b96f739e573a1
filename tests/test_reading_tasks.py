"""Competing risks and numbers in a hospital's own table are read as they were meant, or refused with what to say."""

import datetime

import numpy as np
import pandas as pd
import pytest

from mmdls import registry
from mmdls.cohort import Task, check_target, find_tasks, read_cohort, reconcile_endpoints
from mmdls.datasets import load_cohort

IDS = ["007", "012", "P-3", "4", "0005"]
DAYS = [31, 400, 1234, 90, 365]
MONTHS = [day / 30.4375 for day in DAYS]
CAUSES = [1, 0, 2, 1, 0]
START = [datetime.date(2015, 1, 25), datetime.date(2015, 11, 13)] * 2 + [datetime.date(2016, 2, 29)]
END = [start + datetime.timedelta(days=days) for start, days in zip(START, DAYS, strict=True)]


def table(**columns):
    return pd.DataFrame({"id": IDS} | columns)


def read(frame, **words):
    return read_cohort(frame, **({"id": "id"} | words))


def death_of(frame, spec, **words):
    """The competing risks of death, read from the columns that ``spec`` names."""
    return read(frame, endpoints={"death": spec}, **words).y


def assert_causes(y, causes=CAUSES):
    assert list(y) == ["death_time", "death_cause"]
    np.testing.assert_allclose(y["death_time"], MONTHS, rtol=0, atol=1e-9)
    assert y["death_cause"].tolist() == causes and y["death_cause"].dtype == np.int64
    (task,) = find_tasks(y).values()
    assert task.kind == "competing_risks"


# -- competing risks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("causes", "codes"),
    [
        ([1, 0, 2, 1, 0], None),
        ([1.0, 0.0, 2.0, 1.0, 0.0], None),
        (pd.array([1, 0, 2, 1, 0], dtype="Int64"), None),
        (pd.Categorical([1, 0, 2, 1, 0]), None),
        (["1", "0.0", " 2", "1.0", "0"], None),
        (["1:Cancer", "0:Alive", "2: Heart", "1=cancer", "0:CENSORED"], None),
        (["1", "alive", "2", "1", "Censored"], None),
        (["cancer", "alive", "Heart ", "CANCER", "lost"], {"cancer": 1, "alive": 0, "heart": 2, "lost": 0}),
        ([2, 1, 3, 2, 1], {1: 0, 2: 1, 3: 2}),
    ],
)
@pytest.mark.parametrize("name", ["WHY", "death_cause", "death"])
def test_causes_in_any_coding(causes, codes, name):
    words = {} if codes is None else {"codes": {name: codes}}
    assert_causes(death_of(table(days=DAYS, why=causes), {"time": "days", "cause": "why"}, **words))


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ({"days_to_death": DAYS}, {}),
        ({"OS_MONTHS": MONTHS}, {}),
        ({"survival": [day / 365.25 for day in DAYS]}, {"units": "years"}),
        ({"survival": [day / 7 for day in DAYS]}, {"units": {"death": "weeks"}}),
        ({"survival": pd.to_timedelta(DAYS, unit="D")}, {}),
        ({"survival": [f"{day} d" for day in DAYS]}, {}),
    ],
)
def test_the_follow_up_of_competing_risks_has_any_unit(time, words):
    assert_causes(death_of(table(**time, why=CAUSES), {"time": next(iter(time)), "cause": "why"}, **words))


def test_dates_give_the_follow_up_of_competing_risks():
    frame = table(first=START, last=END, why=CAUSES)
    assert_causes(death_of(frame, {"start": "first", "end": "last", "cause": "why"}))
    died = [end if cause else None for end, cause in zip(END, CAUSES, strict=True)]
    frame = frame.assign(died=died, why=["cancer", None, "heart", "cancer", ""])
    spec = {"start": "first", "end": "last", "event_date": "died", "cause": "why"}
    assert_causes(death_of(frame, spec, codes={"why": {"cancer": 1, "heart": 2}}))
    both = read(frame, endpoints={"death": spec}, codes={"why": {"cancer": 1, "heart": 2}}).report
    assert both["became"].tolist() == ["", "death_time", "death_time", "death_cause", "death_cause, death_time"]


def test_an_event_beside_the_cause_tells_who_is_censored():
    frame = table(days=DAYS, dead=["yes", "no", "yes", "yes", "no"], why=["cancer", None, "heart", "cancer", None])
    codes = {"why": {"cancer": 1, "heart": 2}}
    spec = {"time": "days", "event": "dead", "cause": "why"}
    cohort = read(frame, endpoints={"os": ("days", "dead"), "death": spec}, units={"days": "days"}, codes=codes)
    assert_causes(cohort.y[["death_time", "death_cause"]])
    assert cohort.y["os_event"].tolist() == [True, False, True, True, False]
    assert cohort.report.loc["dead", "became"] == "os_event, death_cause"
    assert cohort.report.loc["why", "changes"] == (
        "renamed; recoded: 'cancer' -> 1 (2), 'heart' -> 2 (1); empty where no event was seen: 0 (2)"
    )
    everyone = frame.assign(dead=1, why=[1, 2, 2, 1, 1])  # without a 0, which the event makes needless
    assert_causes(death_of(everyone, spec), [1, 2, 2, 1, 1])
    with pytest.raises(ValueError, match="'death', which may be each of \\['dead', 'why'\\]"):
        death_of(frame, spec, codes={"death": codes["why"]})


def test_a_cause_against_the_event_is_refused_or_counted():
    frame = table(days=DAYS, dead=[1, 0, 1, 0, None], why=[1, 2, 0, None, 1])
    spec = {"time": "days", "event": "dead", "cause": "why"}
    with pytest.raises(ValueError, match=r"'why' must hold a cause where an event was seen.*'2' \(1\), '0' \(1\), pat"):
        death_of(frame, spec)
    cohort = read(frame, endpoints={"death": spec}, coerce=True)
    assert cohort.y["death_cause"].isna().tolist() == cohort.y["death_time"].isna().tolist()
    np.testing.assert_array_equal(cohort.y["death_cause"], [1, np.nan, np.nan, 0, np.nan])
    assert cohort.report.loc["why", "n_set_to_nan"] == 2 and cohort.report.loc["days", "n_set_to_nan"] == 3


@pytest.mark.parametrize("coerce", [False, True])
@pytest.mark.parametrize(
    ("causes", "words", "message"),
    [
        (
            ["cancer", "alive", "heart", "cancer", "alive"],
            {},
            r"'why' must hold causes: 0 \(censored\), 1 to 5.*'cancer' \(2\), 'heart' \(1\), patients "
            r"\['007', 'P-3', '4'\].*codes=\{'why': \{'alive': 0, 'cancer': \.\.\., 'heart': \.\.\.\}\}",
        ),
        ([0, 1, 9, 2, 0], {}, r"'9' \(1\), patients \['P-3'\].*missing="),
        ([0, 1, 1.5, -1, 0], {}, r"'1.5' \(1\), '-1' \(1\), patients \['P-3', '4'\]"),
        ([True, False, True, True, False], {}, r"'true' \(3\).*'false': 0, 'true': \.\.\."),
        ([1, 2, 1, 2, 2], {}, r"'why' holds no 0.*\['1', '2'\].*codes=\{'why': \{'1': 1, '2': 2\}\}"),
        (["1:a", "2:b", "1:a", "1:a", "2:b"], {}, "'why' holds no 0"),
        (["1:Alive", "2:Cancer", "0:Dead", "1", "0"], {}, r"contradict each other: \['0:Dead', '1:Alive'\]"),
        ([1, 0, 2, 1, 0], {"codes": {"why": {1: 1, 0: 0, 2: "heart"}}}, r"codes\['why'\] must give causes.*'heart'"),
        ([1, 0, 2, 1, 0], {"codes": {"why": {1: 1, 0: 0, 2: 6}}}, r"codes\['why'\] must give causes.*\{'2': 6\}"),
    ],
)
def test_causes_that_may_mean_something_else_are_refused_whatever_is_asked(causes, words, message, coerce):
    with pytest.raises(ValueError, match=message):
        death_of(table(days=DAYS, why=causes), {"time": "days", "cause": "why"}, coerce=coerce, **words)


def test_causes_without_a_zero_or_of_a_doubtful_name_are_read_where_codes_say_so():
    spec = {"time": "days", "cause": "vital"}
    frame = table(days=DAYS, vital=[1, 2, 2, 1, 1])
    assert_causes(death_of(frame, spec, codes={"vital": {1: 1, 2: 2}}), [1, 2, 2, 1, 1])
    frame["vital"] = CAUSES
    with pytest.raises(ValueError, match="'vital' holds .*0 may mean an event"):
        death_of(frame, spec)
    assert_causes(death_of(frame, spec, codes={"vital": {0: 0, 1: 1, 2: 2}}))
    assert_causes(death_of(table(days=DAYS, survival_cause=CAUSES), spec | {"cause": "survival_cause"}))


def test_unknown_causes_are_refused_counted_or_said_to_be_missing():
    frame = table(days=DAYS, why=[1, 0, "unknown", 1, None])
    spec = {"time": "days", "cause": "why"}
    with pytest.raises(ValueError, match=r"'why' must hold causes.*'unknown' \(1\), patients \['P-3'\].*coerce"):
        death_of(frame, spec)
    with pytest.raises(
        ValueError, match=r"time and cause of endpoint 'death' is known in 2 .*An empty cause is unknown"
    ):
        death_of(frame, spec, missing=["unknown"])
    cohort = read(frame, endpoints={"death": spec}, coerce=True)
    np.testing.assert_array_equal(cohort.y["death_cause"], [1, 0, np.nan, 1, np.nan])
    assert cohort.y["death_time"].isna().tolist() == [False, False, True, False, True]
    assert cohort.report.loc[["days", "why"], "n_set_to_nan"].tolist() == [2, 1]
    check_target(cohort.y)


def test_competing_risks_are_found_by_their_names():
    frame = table(Death_Time=MONTHS, DEATH_CAUSE=CAUSES, os_time=MONTHS, os_event=[1, 0, 1, 1, 0])
    cohort = read(frame)
    assert {name: task.kind for name, task in find_tasks(cohort.y).items()} == {
        "death": "competing_risks",
        "os": "survival",
    }
    assert cohort.report["role"].tolist() == ["id", *["endpoint death"] * 2, *["endpoint os"] * 2]
    assert_causes(read(frame, endpoints=["death"]).y)
    assert_causes(read(frame, endpoints={"death": "Death"}).y)
    assert list(read(frame.drop(columns="DEATH_CAUSE")).unused) == ["Death_Time"]
    both = frame.assign(death_event=1)
    for words in ({}, {"endpoints": "death"}):
        with pytest.raises(ValueError, match="'death' is an endpoint with the event 'death_event', or .*'DEATH_CAUSE'"):
            read(both, **words)
    assert list(read(both, endpoints={"death": ("death_time", "death_event")}).y) == ["death_time", "death_event"]


@pytest.mark.parametrize(
    "spec",
    [
        {"time": "days"},
        {"cause": "why"},
        {"start": "days", "cause": "why"},
        {"time": "days", "event_date": "days", "cause": "why"},
        {"time": "days", "cause": "why", "reason": "why"},
    ],
)
def test_competing_risks_of_other_parts_are_refused(spec):
    with pytest.raises(ValueError, match="needs 'time' and 'event'.*competing risks have 'cause'.*Got"):
        death_of(table(days=DAYS, why=CAUSES), spec)


# -- relapse after death -----------------------------------------------------------------------------------------------


LATE = {"dfs_time": [9.0, 4.0, 12.0, 3.0], "dfs_cause": [1, 2, 1, 0], "os_time": [8.0, 6.0, 10.0, 3.0]}


def test_competing_risks_after_death_are_mended_where_the_rule_knows_the_cause():
    y = pd.DataFrame(LATE | {"os_event": [True, False, False, False]}, index=list("abcd"))
    with pytest.raises(ValueError, match="set both dfs_time and dfs_cause to NaN.*reconcile_endpoints"):
        check_target(y)
    for rule, error in (("refuse", "disease-free survival ends after"), ("truncate", r"event of 'os' in rows \['a'\]")):
        with pytest.raises(ValueError, match=error):
            read_cohort(y, relapse_after_death=rule)
    with pytest.warns(UserWarning, match="2 of 4 patients"):
        by_rule = reconcile_endpoints(y, "unknown")
    for mended in (by_rule, read_cohort(y, relapse_after_death="unknown").y):
        np.testing.assert_array_equal(mended["dfs_time"], [np.nan, 4, np.nan, 3])
        np.testing.assert_array_equal(mended["dfs_cause"], [np.nan, 2, np.nan, 0])
    alive = y.assign(os_event=False)  # whoever is followed no longer is censored for every cause
    with pytest.warns(UserWarning, match="2 of 4 patients"):
        mended = reconcile_endpoints(alive, "truncate")
    assert mended["dfs_time"].tolist() == [8, 4, 10, 3] and mended["dfs_cause"].tolist() == [0, 2, 0, 0]
    assert mended["dfs_cause"].dtype == np.int64


def test_any_cause_of_death_ends_an_endpoint_before_it():
    y = pd.DataFrame(LATE, index=list("abcd")).rename(columns={"dfs_cause": "dfs_event"})
    y = y.assign(dfs_event=[1, 1, 0, 0], os_cause=[2, 0, 0, 1])
    y = read_cohort(y, relapse_after_death="truncate").y
    assert y["dfs_time"].tolist() == [8, 4, 10, 3] and y["dfs_event"].tolist() == [True, True, False, False]


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.5, 3, None, 1.75, -2], [2.5, 3, np.nan, 1.75, -2]),
        (["2,5", "3", "NA", "1,75", "-2"], [2.5, 3, np.nan, 1.75, -2]),
        (["1.234,5", "3", "", "7", "-2e1"], [1234.5, 3, np.nan, 7, -20]),
        (pd.array([2, 3, None, 1, -2], dtype="Int64"), [2, 3, np.nan, 1, -2]),
    ],
)
@pytest.mark.parametrize(
    ("column", "numbers", "name"),
    [
        ("FEV1_Value", None, "fev1"),
        ("FEV1 (L)", {"fev1": "fev1 (l)"}, "fev1"),
        ("FEV1 (L)", {"fev1_value": "FEV1 (L)"}, "fev1"),
        ("x", ["x"], "x"),
        ("x_VALUE", "x_VALUE", "x"),
    ],
)
def test_numbers_to_predict_stay_numbers(values, expected, column, numbers, name):
    cohort = read(table(**{column: values}), numbers=numbers)
    assert list(cohort.y) == [f"{name}_value"] and cohort.y.dtypes.tolist() == [np.float64]
    np.testing.assert_array_equal(cohort.y[f"{name}_value"], expected)
    assert cohort.report.loc[column, ["role", "became"]].tolist() == [f"number {name}", f"{name}_value"]
    assert ("by its name" in cohort.report.loc[column, "changes"]) == (numbers is None)
    assert find_tasks(cohort.y)[name].kind == "regression"


def test_a_column_named_as_a_number_is_one_unless_it_is_something_else():
    frame = table(psa_value=[1.5, 2, 3, 4, 5], clinical_ca_value=[1, 2, 3, 4, 5], crp_value=[1, 2, 3, 4, 5])
    frame["site_value"] = ["a", "b", "a", "b", "a"]
    words = {"blocks": {"lab": "psa*"}, "carry": {"crp": "crp_value"}, "classes": {"site": "site_value"}}
    cohort = read(frame, **words)
    assert list(cohort.y) == ["site"]
    assert list(cohort.X) == ["lab_psa_value", "clinical_ca_value", "crp"]
    assert list(read(frame, numbers=[]).unused) == ["psa_value", "crp_value", "site_value"]
    taken = read(frame, numbers=["clinical_ca_value"])
    assert list(taken.y) == ["clinical_ca_value"] and taken.X.shape == (5, 0)
    with pytest.raises(ValueError, match="'psa_value' is asked for twice, as number psa and as block lab"):
        read(frame, numbers="psa_value", blocks={"lab": ["psa_value"]})


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        (
            ["high", "low", "high", 2, 3],
            {},
            r"'x_value' must hold numbers.*'high' \(2\), 'low' \(1\), patients \['007'",
        ),
        (["high"] * 5, {}, r"say with numbers=\[\.\.\.\] which columns are numbers to predict"),
        ([1, 2, "?", 3, 4], {}, r"'\?' \(1\), patients \['P-3'\].*coerce"),
        ([1, 2, np.inf, 3, 4], {}, "'x_value' must hold finite numbers.*'P-3'"),
        ([True, False, True, True, False], {}, "'x_value' holds True and False, which are labels"),
        (["TRUE", "FALSE", "TRUE", "TRUE", "FALSE"], {}, "'x_value' holds True and False, which are labels"),
        (pd.to_datetime(END), {"coerce": True}, "'x_value' holds dates or durations"),
        (["2019-03-28"] * 5, {"coerce": True}, "'x_value' holds dates or durations"),
        ([f"{day} days" for day in DAYS], {"coerce": True}, "'x_value' holds dates or durations"),
        ([1, 2, 1, 2, 1], {"categories": "x_value"}, "'x_value' is a number to predict, and codes or categories"),
        ([1, 2, 1, 2, 1], {"codes": {"x": {1: "a", 2: "b"}}}, "'x_value' is a number to predict, and codes or cat"),
        (["1,234", "2,125", "", "7", "-3"], {}, r"'x_value' holds \['1,234', '2,125'\].*decimal="),
    ],
)
def test_what_is_no_number_is_not_predicted_as_one(values, words, message):
    with pytest.raises(ValueError, match=message):
        read(table(x_value=values), **words)


def test_numbers_are_counted_recoded_and_missing_as_said():
    frame = table(x_value=[1.5, "?", -9, 4, 5])
    cohort = read(frame, coerce=True, missing={"x": -9})
    np.testing.assert_array_equal(cohort.y["x_value"], [1.5, np.nan, np.nan, 4, 5])
    assert cohort.report.loc["x_value", ["n_missing", "n_set_to_nan"]].tolist() == [1, 1]
    grades = read(table(x_value=["low", "HIGH", "low", None, "high"]), codes={"x_value": {"low": 1, "high": 3.5}})
    np.testing.assert_array_equal(grades.y["x_value"], [1, 3.5, 1, np.nan, 3.5])


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        (5.0, TypeError, "numbers must name columns"),
        ({"": "x"}, ValueError, "numbers must give every task a name"),
        ({"x": "nobody"}, KeyError, "no column 'nobody', which numbers names"),
        ({"x": ("x", [1, 2])}, TypeError, "numbers must name a column"),
        ({"a": "x", "b": "x"}, ValueError, "'x' is asked for twice, as number a and as number b"),
        ({"os": "x"}, ValueError, r"the tasks \['os'\] are asked for twice"),
        ({"endpoint": "days"}, ValueError, "'days' is asked for twice, as endpoint os and as number endpoint"),
    ],
)
def test_numbers_that_do_not_fit_the_table_are_refused(numbers, error, message):
    with pytest.raises(error, match=message):
        read(
            table(x=[1, 2, 3, 4, 5], days=DAYS, dead=[1, 0] * 2 + [1]),
            endpoints={"os": ("days", "dead")},
            numbers=numbers,
        )


def test_a_block_called_endpoint_holds_no_outcome():
    frame = table(days=DAYS, dead=[1, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="'dead' is asked for twice"):
        read(frame, endpoints={"os": ("days", "dead")}, blocks={"endpoint": ["dead"]})


def test_a_number_of_a_new_kind_of_task_is_found_too(monkeypatch):
    class CountTask(Task):
        kind, suffixes = "count", ("count",)

    monkeypatch.setattr(registry.tasks, "_parts", dict(registry.tasks._parts))
    frame = table(Lesions_Count=["1", "0", "3", "", "2"], n=[1, 2, 3, 4, 5])
    assert list(read(frame).unused) == ["Lesions_Count", "n"]
    registry.tasks.register("count")(CountTask)
    y = read(frame).y
    assert list(y) == ["lesions_count"] and find_tasks(y)["lesions"].kind == "count"
    np.testing.assert_array_equal(y["lesions_count"], [1, 0, 3, np.nan, 2])
    assert list(read(frame, numbers={"nodes_count": "n"}).y) == ["nodes_count"]


def test_two_tasks_of_one_name_are_refused():
    table = pd.DataFrame({"os_time": [1.0, 2], "os_event": [1, 0], "os_value": [3.0, 4]}, index=["a", "b"])
    with pytest.raises(ValueError, match=r"the tasks \['os'\] are asked for twice, or also found"):
        read_cohort(table)


def test_a_folder_gives_competing_risks_and_numbers(tmp_path):
    frame = table(os_time=MONTHS, OS_Cause=CAUSES, fev1_value=["2,5", "3", "", "1,75", "2"], age=[50, 60, 70, 80, 90])
    frame.rename(columns={"id": "pid"}).to_csv(tmp_path / "clinical.csv", index=False, sep=";")
    X, y = load_cohort(tmp_path, return_X_y=True)
    assert list(X) == ["clinical_age"] and list(y) == ["os_time", "os_cause", "fev1_value"]
    assert y["os_cause"].tolist() == CAUSES
    np.testing.assert_array_equal(y["fev1_value"], [2.5, 3, np.nan, 1.75, 2])
    frame.drop(columns="os_time").rename(columns={"id": "pid"}).to_csv(tmp_path / "clinical.csv", index=False)
    with pytest.raises(ValueError, match="'os_cause' alone"):
        load_cohort(tmp_path)


def test_the_report_says_how_many_had_an_event():
    table = pd.DataFrame({"id": list("abcde"), "t": [3.0, 4.0, 5.0, 6.0, None], "s": [1, 1, 2, 1, None]})
    for codes, share in (({1: 0, 2: 1}, "1 of 4 patients (25%)"), ({1: 1, 2: 0}, "3 of 4 patients (75%)")):
        cohort = read_cohort(table, id="id", endpoints={"os": ("t", "s")}, units={"os": "months"}, codes={"s": codes})
        assert f"{share} had an event of 'os'" in cohort.report.loc["s", "changes"]
