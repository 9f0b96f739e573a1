"""Splits of cohorts: groups stay whole, outcomes are spread evenly, nothing is refused for being rare."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from sklearn import config_context
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mmdls import OptunaSearch
from mmdls.cohort import survival_target
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import ClinicalCox
from mmdls.model_selection import CohortKFold, strata, stratified_holdout


@pytest.fixture(scope="module")
def patients():
    return make_nsclc_cohort(200, n_slices=1, image_size=8, n_radiomics=0, random_state=5)


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    y = pd.DataFrame({"stage": rng.choice(["I", "II", "IV"], n), "os_time": rng.exponential(20, n)})
    return y.assign(os_event=(rng.random(n) < 0.4).astype(float))


def unevenness(folds, *columns):
    """Largest difference between a fold's share of a value and the cohort's, over folds, values and columns."""
    worst = 0.0
    for column in columns:
        shares = pd.get_dummies(pd.Series(np.asarray(column))).to_numpy(dtype=float)
        worst = max(worst, *(np.abs(shares[test].mean(axis=0) - shares.mean(axis=0)).max() for _, test in folds))
    return worst


def test_every_patient_is_tested_once_and_never_trained_on(patients):
    X, y = patients.data, patients.target
    folds = list(CohortKFold(4, random_state=0).split(X, y))
    assert CohortKFold(4).get_n_splits() == len(folds) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(200))
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(200))
        assert len(test) == 50


def test_events_stages_and_centres_are_spread_more_evenly_than_by_chance(patients):
    X, y = patients.data, patients.target
    columns = (y["os_event"], y["stage"], X["centre"])
    ours, chance = [], []
    for seed in range(8):
        splitter = CohortKFold(5, on=("os", "stage", "centre"), random_state=seed)
        ours.append(unevenness(list(splitter.split(X, y)), *columns))
        chance.append(unevenness(list(KFold(5, shuffle=True, random_state=seed).split(X)), *columns))
    assert np.mean(ours) < 0.5 * np.mean(chance)
    events = [unevenness(list(CohortKFold(5, on=("os",), random_state=s).split(X, y)), y["os_event"]) for s in range(8)]
    assert max(events) < 0.03 < min(chance)


def test_by_default_every_outcome_counts_the_last_endpoint_first(patients):
    X, y = patients.data, patients.target
    assert unevenness(list(CohortKFold(5, random_state=0).split(X, y)), y["os_event"]) < 0.03
    few = y.head(25)
    by_default = strata(few, smallest=5)
    np.testing.assert_array_equal(by_default, strata(few, on=("os", "dfs", "subtype", "stage"), smallest=5))
    assert (by_default != strata(few, on=("dfs", "os", "subtype", "stage"), smallest=5)).any()


def test_groups_are_never_divided_and_events_still_spread(patients):
    X, y = patients.data, patients.target
    rng = np.random.default_rng(0)
    person = rng.integers(0, 70, size=len(X))
    ours, chance = [], []
    for seed in range(5):
        folds = list(CohortKFold(4, on=("os", "stage"), random_state=seed).split(X, y, groups=person))
        for train, test in folds:
            assert not set(person[train]) & set(person[test])
        ours.append(unevenness(folds, y["os_event"]))
        plain = GroupKFold(4, shuffle=True, random_state=seed).split(X, groups=person)
        chance.append(unevenness(list(plain), y["os_event"]))
    assert np.mean(ours) < np.mean(chance)


def test_equal_seeds_give_equal_folds_and_others_differ(patients):
    X, y = patients.data, patients.target

    def tests_of(seed, **how):
        return [test.tolist() for _, test in CohortKFold(3, random_state=seed, **how).split(X, y)]

    assert tests_of(1) == tests_of(1) != tests_of(2)
    assert tests_of(None, shuffle=False) == tests_of(None, shuffle=False)
    assert tests_of(np.random.RandomState(1)) == tests_of(1)  # noqa: NPY002
    splitter = CohortKFold(3, random_state=1)
    assert [t.tolist() for _, t in splitter.split(X, y)] == [t.tolist() for _, t in splitter.split(X, y)]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    tests_of(3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_structured_arrays_and_labels_are_stratified_too(patients):
    X, y = patients.data, patients.target
    outcome = survival_target(y, "os")
    for target, column in ((outcome, outcome["event"]), (y["subtype"], y["subtype"]), (list(y["stage"]), y["stage"])):
        folds = list(CohortKFold(4, random_state=0).split(X, target))
        assert unevenness(folds, column) < 0.02


def test_rare_strata_never_stop_a_split(patients):
    X = patients.data
    y = patients.target.assign(rare=["only one", *["common"] * 199])
    folds = list(CohortKFold(5, on=("rare", "os", "centre", "stage", "subtype"), random_state=0).split(X, y))
    assert [len(test) for _, test in folds] == [40] * 5
    assert unevenness(folds, y["os_event"]) < 0.05
    unknown = y.astype({"os_event": float})
    unknown.loc[unknown.index[:3], ["os_time", "os_event"]] = np.nan
    assert len(list(CohortKFold(5, random_state=0).split(X, unknown))) == 5


@settings(max_examples=60, deadline=None)
@given(n=st.integers(4, 40), smallest=st.integers(2, 6), seed=st.integers(0, 99))
def test_strata_are_large_enough_and_nest_by_importance(n, smallest, seed):
    rng = np.random.default_rng(seed)
    y = table(n, seed)
    X = pd.DataFrame({"centre": rng.integers(0, 4, n)})
    coarse = np.zeros(n, dtype=int)
    for on in (("os",), ("os", "stage"), ("os", "stage", "centre")):
        label = strata(y, X, on, smallest=smallest)
        assert label.shape == (n,) and np.bincount(label).min() >= min(smallest, n)
        # A finer stratum lies inside one stratum of the more important parts.
        assert pd.DataFrame({"fine": label, "coarse": coarse}).groupby("fine")["coarse"].nunique().max() == 1
        coarse = label


def test_strata_tell_combinations_apart_where_there_are_enough():
    y = pd.DataFrame(
        {"os_time": 1.0, "os_event": np.repeat([0.0, 1.0], 8), "stage": np.tile(["I", "I", "II", "II"], 4)}
    )
    label = strata(y, on=("os", "stage"), smallest=4)
    assert len(np.unique(label)) == 4
    assert pd.DataFrame({"label": label, "e": y["os_event"], "s": y["stage"]}).drop_duplicates().shape[0] == 4
    assert len(np.unique(strata(y, on=("os", "stage"), smallest=5))) == 2


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 60), fraction=st.floats(0.05, 0.6), seed=st.integers(0, 99))
def test_a_holdout_divides_the_rows_with_their_events(n, fraction, seed):
    y = table(n, seed)
    kept, held = stratified_holdout(y, fraction, random_state=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(n))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all() and len(kept) > 0
    again = stratified_holdout(y, fraction, random_state=seed)
    np.testing.assert_array_equal(again[1], held)
    if y["os_event"].sum() >= 2:
        assert y["os_event"].iloc[kept].sum() > 0


def test_a_holdout_has_its_share_of_events(patients):
    y = patients.target
    for target in (y, survival_target(y, "os")):
        for seed in range(5):
            kept, held = stratified_holdout(target, 0.2, random_state=seed)
            assert len(held) == 40
            assert abs(y["os_event"].iloc[held].mean() - y["os_event"].mean()) < 0.06
    one, other = (stratified_holdout(y, 0.2, random_state=seed)[1] for seed in (0, 1))
    assert one.tolist() != other.tolist()


def test_what_cannot_be_split_is_said(patients):
    X, y = patients.data, patients.target
    with pytest.raises(KeyError, match="on='hospital' is neither a task of y nor a column of X; known:.*'os'.*centre"):
        list(CohortKFold(3, on=("hospital",)).split(X, y))
    with pytest.raises(ValueError, match=r"on=\['os'\] names columns, so y must be a table; got ndarray"):
        list(CohortKFold(3, on=("os",)).split(X, survival_target(y, "os")))
    with pytest.raises(ValueError, match="y must be given; got None"):
        list(CohortKFold(3).split(X, None))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(CohortKFold(3).split(X.head(10), y))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(CohortKFold(3).split(X, y, groups=np.zeros(5)))
    with pytest.raises(ValueError, match="n_splits"):
        list(CohortKFold(5).split(X.head(3), y.head(3)))
    for fraction in (0, 1, -0.5, 1.5):
        with pytest.raises(ValueError, match="fraction must lie between 0 and 1; got"):
            stratified_holdout(y, fraction)


def scans(n=40, seed=0):
    """Two scans of each patient, whose id is a column and whose rows are shuffled."""
    rng = np.random.default_rng(seed)
    person = rng.permutation(np.repeat([f"P{i:02d}" for i in range(n)], 2))
    index = [f"S{i}" for i in range(2 * n)]
    X = pd.DataFrame({"clinical_x": rng.normal(size=2 * n), "patient_id": person}, index=index)
    y = pd.DataFrame({"os_time": rng.exponential(20, 2 * n), "os_event": rng.random(2 * n) < 0.6}, index=index)
    return X, y


class Watching(CohortKFold):
    """Counts patients on both sides of every fold that is drawn, by the name of the watch."""

    divided: list = []

    def split(self, X, y, groups=None):
        for train, test in super().split(X, y, groups):
            ids = X["patient_id"].to_numpy()
            Watching.divided.append(len(set(ids[train]) & set(ids[test])))
            yield train, test


def searches(**how):
    space = {"alpha": FloatDistribution(0.1, 1)}
    yield GridSearchCV(ClinicalCox(), {"alpha": [0.1, 1]}, cv=Watching(3, random_state=0, **how))
    yield OptunaSearch(ClinicalCox(), space, n_trials=2, cv=Watching(3, random_state=0, **how), random_state=0)


@pytest.mark.parametrize("inside", ["column", "level"])
def test_groups_of_the_table_reach_the_folds_of_a_search_inside_a_cross_validation(inside):
    X, y = scans()
    if inside == "level":
        X = X.set_axis(pd.MultiIndex.from_arrays([X.index, X["patient_id"]], names=["scan", "person"]))
        y = y.set_axis(X.index)
    how = {"groups": "patient_id" if inside == "column" else "person"}
    for search in searches(**how):
        Watching.divided = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", r"The columns \['patient_id'\] of X are not used")
            cross_validate(search, X, y, cv=Watching(3, random_state=0, **how), error_score="raise")
        assert Watching.divided == [0] * 12  # 3 outer folds, 3 inner ones in each
    with config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", r"The columns \['patient_id'\] of X are not used")
        for search in searches(groups=False):
            Watching.divided = []
            cv = Watching(3, random_state=0, groups=False)
            cross_validate(search, X, y, cv=cv, error_score="raise", params={"groups": X["patient_id"]})
            assert Watching.divided == [0] * 12


@pytest.mark.parametrize("outer", [CohortKFold(3, random_state=0), GroupKFold(3)], ids=["ours", "theirs"])
def test_groups_that_do_not_reach_inner_folds_are_an_error(outer):
    X, y = scans()
    person = X.pop("patient_id")
    space = {"alpha": FloatDistribution(0.1, 1)}
    inner = (
        GridSearchCV(ClinicalCox(), {"alpha": [0.1, 1]}, cv=CohortKFold(3)),
        OptunaSearch(ClinicalCox(), space, n_trials=1, cv=CohortKFold(3)),
        OptunaSearch(ClinicalCox(), space, n_trials=1, cv=3),
        make_pipeline(FunctionTransformer(), OptunaSearch(ClinicalCox(), space, n_trials=1)),
    )
    for search in inner:
        with pytest.raises(ValueError, match="groups.* not reach .*CohortKFold\\(groups='patient_id'\\)"):
            cross_validate(search, X, y, cv=outer, groups=person, error_score="raise")
    for search in (
        GridSearchCV(inner[0], {"verbose": [0]}, cv=outer, error_score="raise"),
        OptunaSearch(inner[1], {"verbose": IntDistribution(0, 1)}, n_trials=1, cv=outer),
    ):
        with pytest.raises(ValueError, match="groups.* not reach"):
            search.fit(X, y, groups=person)


def test_plain_folds_inside_are_an_error_too():
    """scikit-learn's own inner folds cannot see what is missing; the outer ones can."""
    X, y = scans()
    person, label = X.pop("patient_id"), y["os_event"].astype(int)
    for inner in (3, KFold(3), None):
        search = GridSearchCV(LogisticRegressionCV(), {"Cs": [2]}, cv=inner)
        with pytest.raises(ValueError, match="groups do not reach the folds inside GridSearchCV"):
            cross_validate(search, X, label, cv=CohortKFold(3), groups=person, n_jobs=2, error_score="raise")


def test_models_that_choose_in_folds_of_their_own_are_told_of():
    X, y = scans()
    person, label = X.pop("patient_id"), y["os_event"].astype(int)
    model = LogisticRegressionCV(Cs=2, cv=2, l1_ratios=(0.0,), use_legacy_attributes=False)
    with pytest.warns(UserWarning, match="groups do not reach the folds inside LogisticRegressionCV"):
        cross_validate(model, X, label, cv=CohortKFold(3, random_state=0), groups=person)


def test_groups_are_joined_by_id_and_harmless_ones_pass():
    X, y = scans()
    person = X.pop("patient_id")
    space = {"alpha": FloatDistribution(0.1, 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = list(CohortKFold(3, random_state=0).split(X, y, groups=person))
        shuffled = person.sample(frac=1, random_state=0)
        again = list(CohortKFold(3, random_state=0).split(X, y.sample(frac=1, random_state=1), groups=shuffled))
        OptunaSearch(ClinicalCox(), space, n_trials=1, cv=3, random_state=0).fit(X, y, groups=person)
        cross_validate(ClinicalCox(), X, y, cv=CohortKFold(3), groups=person, error_score="raise")
        nobody_twice = np.arange(len(X))
        search = GridSearchCV(ClinicalCox(), {"alpha": [0.1, 1]}, cv=CohortKFold(3, groups=False))
        cross_validate(search, X, y, cv=CohortKFold(3), groups=nobody_twice, error_score="raise")
    for (train, test), (other_train, other_test) in zip(folds, again, strict=True):
        np.testing.assert_array_equal(train, other_train)
        np.testing.assert_array_equal(test, other_test)
        assert not set(person.iloc[train]) & set(person.iloc[test])


@pytest.mark.parametrize("where", ["patient_id", "Patient ID", "subject_id", "mrn"])
def test_patients_in_several_rows_are_not_divided_without_a_word(where):
    X, y = scans()
    X = X.rename(columns={"patient_id": where})
    message = f"40 patients are in several rows of X \\(in '{where}': P.*CohortKFold\\(groups='{where}'\\)"
    with pytest.raises(ValueError, match=message):
        list(CohortKFold(3).split(X, y))
    assert len(list(CohortKFold(3, groups=False).split(X, y))) == 3
    space = {"alpha": FloatDistribution(0.1, 1)}
    for cv, outcome in ((None, y), (3, y), (3, y["os_event"])):
        with pytest.raises(ValueError, match="40 patients are in several rows"):
            OptunaSearch(ClinicalCox(), space, cv=cv, n_trials=1).fit(X, outcome)
    twice = X.drop(columns=where).set_axis(X[where].rename(None))
    with pytest.raises(ValueError, match="in the index, to be named by X.rename_axis.*CohortKFold"):
        list(CohortKFold(3).split(twice, y.set_axis(twice.index)))


def test_groups_that_cannot_be_right_are_refused():
    X, y = scans()
    for groups, message in (
        ("hospital", "groups='hospital' is neither a column nor an index level of X; known:.*'patient_id'"),
        (3, "groups must name a column or an index level of X, or be False; got 3"),
        (True, "groups must name a column or an index level of X, or be False; got True"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            list(CohortKFold(3, groups=groups).split(X, y))
    with pytest.raises(ValueError, match="groups contradict the column 'patient_id' of X"):
        list(CohortKFold(3, groups="patient_id").split(X, y, groups=np.arange(len(X)) // 2))
    list(CohortKFold(3, groups="patient_id").split(X, y, groups=pd.factorize(X["patient_id"])[0]))
    with pytest.raises(ValueError, match=r"1 rows have no group, such as \['S0'\]"):
        list(CohortKFold(3, groups="patient_id").split(X.assign(patient_id=X["patient_id"].mask(X.index == "S0")), y))
    with pytest.raises(ValueError, match="groups must hold one group for each row, in one column"):
        list(CohortKFold(3).split(X, y, X[["patient_id"]]))
    with pytest.raises(ValueError, match="names a column of X, so X must be a table; got ndarray"):
        list(CohortKFold(3, groups="patient_id").split(X.to_numpy(), y))
    with pytest.raises(ValueError, match="y lacks 80 of the 80 patients"):
        list(CohortKFold(3, groups="patient_id").split(X, y.reset_index(drop=True)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("n_splits", value) for value in (1, 0, -2, True, 2.0, float("nan"), "five", None)),
        *(("on", value) for value in ("os", (), [], 5)),
        *(("shuffle", value) for value in ("yes", None, 1)),
        ("random_state", "seed"),
    ],
)
def test_wrong_parameters_of_a_splitter_are_refused_by_name(patients, name, value):
    with pytest.raises((ValueError, TypeError), match=name if name != "random_state" else "seed"):
        list(CohortKFold(**{"n_splits": 3, name: value}).split(patients.data, patients.target))


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan"), None, "half"])
def test_a_holdout_of_no_fraction_is_refused(patients, fraction):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        stratified_holdout(patients.target, fraction)


def test_it_reads_as_it_was_made():
    assert "groups='patient_id', shuffle" in repr(CohortKFold(groups="patient_id"))
    assert repr(CohortKFold(3, on=("os",), random_state=7)) == (
        "CohortKFold(n_splits=3, on=('os',), shuffle=True, random_state=7)"
    )


def test_searches_and_cross_validation_take_it_with_groups(patients):
    X, y = patients.data, patients.target
    person = np.arange(len(X)) // 4
    cv = CohortKFold(3, on=("os",), random_state=0)
    found = cross_validate(
        ClinicalCox(endpoint="os"), X, y, groups=person, cv=cv, return_indices=True, error_score="raise"
    )
    for train, test in zip(found["indices"]["train"], found["indices"]["test"], strict=True):
        assert not set(person[train]) & set(person[test])
    search = GridSearchCV(ClinicalCox(endpoint="os"), {"alpha": [0.1, 10.0]}, cv=cv, error_score="raise")
    search.fit(X, y, groups=person)
    by_hand = [
        ClinicalCox(endpoint="os", alpha=0.1).fit(X.iloc[train], y.iloc[train]).score(X.iloc[test], y.iloc[test])
        for train, test in cv.split(X, y, groups=person)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][0], np.mean(by_hand))


def test_numbers_are_spread_by_quartiles_and_every_cause_is_in_both_parts():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"fev_value": rng.exponential(size=80), "death_time": rng.exponential(30, 80)})
    y["death_cause"] = np.where(np.arange(80) < 2, 2, np.arange(80) % 2)  # cause 2 is rare
    quarter = pd.qcut(y["fev_value"], 4, labels=False).to_numpy()
    for _, test in CohortKFold(4, on=["fev"], random_state=0).split(y[[]], y):
        assert np.bincount(quarter[test]).tolist() == [5, 5, 5, 5]
    for seed in range(5):
        kept, held = stratified_holdout(y, 0.25, seed)
        assert set(y["death_cause"].iloc[kept]) >= {1, 2} and set(y["death_cause"].iloc[held]) >= {1, 2}
        counts = np.bincount(quarter[held], minlength=4)
        assert counts.min() >= 4 and counts.max() <= 6
