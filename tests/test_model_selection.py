"""Splits of cohorts: groups stay whole, outcomes are spread evenly, nothing is refused for being rare."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate

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


def test_it_reads_as_it_was_made():
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
