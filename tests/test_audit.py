"""The leak detector: an honest cohort and procedure pass, a planted leak of each kind is caught."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from mmdls import MMDLS, ClinicalCox, Trainer
from mmdls.audit import audit_folds, audit_procedure, audit_tables
from mmdls.datasets import make_nsclc_cohort
from mmdls.metrics import concordance_index

FOLDS = list(KFold(4).split(np.zeros(60)))


@pytest.fixture
def Xy(cohort):
    return cohort.data.copy(), cohort.target.copy()


def failed(findings):
    return findings.set_index("check")["detail"][~findings["passed"].to_numpy()].to_dict()


def test_an_honest_cohort_passes(Xy):
    X, y = Xy
    assert audit_tables(X, y)["passed"].all()
    assert audit_folds(FOLDS, X, groups=np.arange(60))["passed"].all()
    large = make_nsclc_cohort(500, n_slices=1, image_size=8, random_state=0)
    assert audit_tables(large.data, large.target)["passed"].all()


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda X, y: X.assign(clinical_followup=y["os_time"]), "clinical_followup determines os_time"),
        (lambda X, y: X.assign(clinical_days=y["dfs_time"] * -30.4), "clinical_days determines dfs_time"),
        (
            lambda X, y: X.assign(clinical_code=y["subtype"].map({"LUAD": "a", "LUSC": "b"})),
            "clinical_code determines subtype",
        ),
        (
            lambda X, y: X.assign(
                clinical_histology=np.where(y["subtype"] == "LUAD", np.where(np.arange(len(X)) % 2, "a", "b"), "c")
            ),
            "clinical_histology determines subtype",
        ),
        (lambda X, y: X.assign(clinical_died=y["os_event"]), "clinical_died determines os_event"),
        (
            lambda X, y: X.assign(clinical_score=(y["subtype"] == "LUSC") + np.linspace(0, 0.5, len(X))),
            "clinical_score determines subtype",
        ),
    ],
)
def test_an_outcome_among_the_features_is_caught(Xy, plant, said):
    X, y = Xy
    found = failed(audit_tables(plant(X, y), y))
    assert list(found) == ["a feature that is an outcome"] and said in found["a feature that is an outcome"]


def test_scaling_outside_is_caught(Xy):
    X, y = Xy
    columns = [c for c in X.columns if c.startswith("pet_")]
    X[columns] = StandardScaler().fit_transform(X[columns])
    found = failed(audit_tables(X, y))
    assert list(found) == ["numbers standardised over all patients"] and "pet: 5 columns" in found.popitem()[1]
    found = failed(audit_tables(X.assign(pet_raw=np.arange(len(X)) ** 2), y))
    assert "pet: 5 columns" in found["numbers standardised over all patients"]


def test_one_patient_under_two_ids_is_caught(Xy, cohort_on_disk):
    X, y = Xy
    numbers = [c for c in X.columns if c.startswith(("clinical_", "pet_", "radiomics_"))]
    complete = X[numbers].notna().all(axis=1).to_numpy().nonzero()[0]
    X.iloc[complete[-1], X.columns.get_indexer(numbers)] = X.iloc[complete[0]][numbers]
    first, last = X.index[complete[0]], X.index[complete[-1]]
    assert f"{first} and {last}: the same numbers" in failed(audit_tables(X, y))["one patient under two ids"]
    found = failed(audit_folds(FOLDS, X))
    assert f"{first} and {last}" in found["one patient under two ids in training and test"]
    paths = cohort_on_disk.data.copy()
    known = paths.index[paths["lesion_image"].notna()]
    paths.loc[known[1], "lesion_image"] = paths.loc[known[0], "lesion_image"]
    assert "the same image file" in failed(audit_tables(paths, y))["one patient under two ids"]


def test_divided_patients_and_groups_are_caught():
    assert failed(audit_folds([([0, 1], [1, 2])])) == {"a row in training and test": "split 0: row 1"}
    found = failed(audit_folds(FOLDS, groups=np.arange(60) // 7))
    assert "group 2" in found["a group in training and test"]
    assert audit_folds(FOLDS, groups=np.arange(60) // 15)["passed"].all()


def honest(X, y, train, test):
    model = ClinicalCox(endpoint="os").fit(X.iloc[train], y.iloc[train])
    return {"risk": model.predict(X.iloc[test]), "group": model.predict_risk_group(X.iloc[test])}


def cut_points_from_test(X, y, train, test):
    risk = honest(X, y, train, test)["risk"]
    return {"risk": risk, "group": np.searchsorted(np.quantile(risk, [1 / 3, 2 / 3]), risk)}


def scaled_with_test(X, y, train, test):
    columns = ["clinical_age", "clinical_diameter"]
    X = X.copy()
    rows = np.r_[train, test]
    X.loc[X.index[rows], columns] = StandardScaler().fit_transform(X.iloc[rows][columns])
    return X.iloc[test]["clinical_age"].to_numpy()


def scaled_beforehand(X, y, train, test):
    scaled = X[["clinical_age"]].fillna(60.0)
    return ((scaled - scaled.mean()) / scaled.std()).iloc[test]["clinical_age"].to_numpy()


def cut_points_of_everybody(X, y, train, test):
    return (X.iloc[test]["clinical_age"] > 10 * y["os_time"].median() ** 0.5).to_numpy() + y["os_time"].median()


def labels_of_everybody(X, y, train, test):
    rows = np.r_[train, test]
    means = y.iloc[rows].groupby(X.iloc[rows]["clinical_smoking_status"])["os_time"].mean()
    return -X.iloc[test]["clinical_smoking_status"].map(means).to_numpy()


def not_reproducible(X, y, train, test):
    return np.random.default_rng().normal(size=len(test))


@pytest.mark.parametrize(
    ("procedure", "caught"),
    [
        (honest, set()),
        (cut_points_from_test, {"a test row's prediction does not depend on the others"}),
        (scaled_with_test, {"a test row's prediction does not depend on the others"}),
        (scaled_beforehand, {"a test row's prediction does not depend on the others"}),
        (cut_points_of_everybody, {"a test row's prediction does not depend on the others"}),
        (
            labels_of_everybody,
            {"outcomes of test rows change nothing", "a test row's prediction does not depend on the others"},
        ),
        (
            not_reproducible,
            {
                "the same input gives the same prediction",
                "outcomes of test rows change nothing",
                "a test row's prediction does not depend on the others",
            },
        ),
    ],
)
def test_a_procedure_that_leaks_is_caught(Xy, procedure, caught):
    train, test = FOLDS[1]
    assert set(failed(audit_procedure(procedure, *Xy, train, test))) == caught


def test_the_multimodal_model_does_not_leak(Xy):
    def procedure(X, y, train, test):
        model = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(X.iloc[train], y.iloc[train])
        answers = model.predict(X.iloc[test])
        return {"answers": answers, "group": model.predict_risk_group(X.iloc[test], "os")}

    assert audit_procedure(procedure, *Xy, *FOLDS[0], n_permutations=3, n_halves=3)["passed"].all()


def small_cohort(seed, n=90):
    """Patients of whom one of six numbers tells something."""
    rng = np.random.default_rng(seed)
    ids = [f"P{k}" for k in range(n)]
    X = pd.DataFrame(rng.normal(size=(n, 6)), ids, [f"clinical_{letter}" for letter in "abcdef"])
    true, leaving = rng.exponential(20 * np.exp(-0.5 * X["clinical_a"])), rng.uniform(5, 80, n)
    return X, pd.DataFrame({"os_time": np.minimum(true, leaving), "os_event": true <= leaving}, ids)


def cox_risk(X, y, train, test, alpha=1.0):
    outcome = Surv.from_arrays(y["os_event"].iloc[train], y["os_time"].iloc[train])
    return CoxPHSurvivalAnalysis(alpha=alpha).fit(X.iloc[train], outcome).predict(X.iloc[test])


def cox_group(X, y, train, test):
    return cox_risk(X, y, train, test) > np.median(cox_risk(X, y, train, train))


def score(y, rows, risk):
    return concordance_index(y["os_event"].iloc[rows], y["os_time"].iloc[rows], risk)


def sign_chosen_on_test(X, y, train, test):
    risk = X["clinical_b"].iloc[test].to_numpy()
    return risk if score(y, test, risk) >= 0.5 else -risk


def cut_at_the_test_median(X, y, train, test):
    risk = cox_risk(X, y, train, test)
    return risk > np.median(risk)


def penalty_chosen_on_test(X, y, train, test):
    return max((cox_risk(X, y, train, test, alpha) for alpha in (0.01, 100.0)), key=lambda risk: score(y, test, risk))


@pytest.mark.slow
@pytest.mark.parametrize("procedure", [sign_chosen_on_test, cut_at_the_test_median, penalty_chosen_on_test])
def test_a_choice_made_on_test_rows_is_caught_in_95_of_100(procedure):
    caught = [
        not audit_procedure(procedure, *small_cohort(seed), range(60), range(60, 90), random_state=seed)["passed"].all()
        for seed in range(20)
    ]
    assert np.mean(caught) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("procedure", [cox_risk, cox_group])
def test_a_clean_procedure_raises_no_alarm_in_ten_times_its_time_of_four_runs(procedure):
    runs = []

    def counted(*rows):
        runs.append(1)
        return procedure(*rows)

    for seed in range(20):
        found = audit_procedure(counted, *small_cohort(seed), range(60), range(60, 90), random_state=seed)
        assert found["passed"].all()
    assert len(runs) / 20 <= 40


def test_one_choice_on_test_rows_is_caught():
    for procedure in (sign_chosen_on_test, cut_at_the_test_median, penalty_chosen_on_test):
        X, y = small_cohort(0)
        assert not audit_procedure(procedure, X, y, range(60), range(60, 90))["passed"].all()
        shuffled = y.sample(frac=1, random_state=0)
        assert not audit_procedure(procedure, X, shuffled, range(60), range(60, 90))["passed"].all()
    found = audit_procedure(cox_group, X, shuffled, range(60), range(60, 90), n_permutations=2, n_halves=2)
    assert found["passed"].all()


def test_a_class_that_only_a_test_row_has_raises_no_alarm():
    X, y = small_cohort(0)
    y = pd.DataFrame({"subtype": ["LUAD", "LUSC"] * 30 + ["LUAD"] * 29 + ["rare"]}, X.index)

    def shares(X, y, train, test):
        known = y["subtype"].iloc[train]
        return pd.DataFrame({label: np.repeat(np.mean(known == label), len(test)) for label in set(y["subtype"])})

    assert audit_procedure(shares, X, y, range(60), range(60, 90), n_permutations=2, n_halves=6)["passed"].all()


def test_audits_join_by_id_and_check_outcomes(Xy):
    X, y = Xy
    X = X.assign(clinical_followup=y["os_time"])
    shuffled = y.sample(frac=1, random_state=0)
    assert "clinical_followup determines os_time" in failed(audit_tables(X, shuffled))["a feature that is an outcome"]
    groups = pd.Series(np.arange(60) // 7, X.index)
    pd.testing.assert_frame_equal(
        audit_folds(FOLDS, X, groups.sample(frac=1, random_state=0)), audit_folds(FOLDS, X, groups)
    )
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        audit_tables(X, y.assign(os_event=y["os_event"] + 1))
    with pytest.raises(ValueError, match="y lacks"):
        audit_tables(X, y.iloc[1:])


def test_a_copy_of_a_number_or_of_a_time_with_causes_is_found():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"fev_value": rng.normal(2, 0.5, 60), "death_time": rng.exponential(30, 60)})
    y["death_cause"] = rng.integers(0, 3, 60)
    X = pd.DataFrame({"clinical_age": rng.normal(60, 9, 60)})
    assert audit_tables(X, y)["passed"].all()
    X["clinical_late"], X["clinical_litres"] = -(y["death_time"] ** 2), y["fev_value"] * 1000
    X["clinical_word"] = y["death_cause"].map({0: "alive", 1: "cancer", 2: "other"})
    detail = audit_tables(X, y)["detail"][0]
    for column, outcome in {"late": "death_time", "litres": "fev_value", "word": "death_cause"}.items():
        assert f"clinical_{column} determines {outcome}" in detail
    assert detail.count("determines") == 3
