"""Out-of-fold predictions in one call: nothing is learned from the patient, and the folds travel with the result."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import mmdls
from mmdls import ClinicalCox, cross_predict
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators.survival._risk_groups import risk_group
from mmdls.evaluation import compare_predictions, evaluate_predictions, resample_predictions, risk_cutpoints
from mmdls.model_selection import CohortKFold
from mmdls.plotting import kaplan_meier
from mmdls.report import report
from mmdls.zoo import SelectInputs

pytestmark = pytest.mark.filterwarnings("ignore:The columns")
QUICK = {"horizons": (24,), "n_resamples": 20}


@pytest.fixture(scope="module")
def cohort():
    return make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)


@pytest.fixture(scope="module")
def centres(cohort):
    return pd.Series(np.resize(np.arange(16), 80), cohort[0].index)


@pytest.fixture(scope="module")
def found(cohort, centres):
    return cross_predict(ClinicalCox(), *cohort, cv=3, groups=centres, horizons=(24,))


def test_every_patient_is_predicted_by_a_model_of_the_other_folds(cohort, centres, found):
    X, y = cohort
    assert list(found) == ["dfs", "os"] and len(found) == 2 and found.folds.nunique() == 3
    assert (found.folds.groupby(centres).nunique() == 1).all()
    for fold in range(3):
        left_out = (found.folds == fold).to_numpy()
        model = ClinicalCox(endpoint="os").fit(X[~left_out], y[~left_out], groups=centres[~left_out])
        risks = model.predict(X[left_out])
        np.testing.assert_allclose(found["os"].loc[left_out, "risk"], risks)
        points = risk_cutpoints(model)["os"]
        assert list(found.risk_groups.loc[left_out, "os"].cat.codes) == list(risk_group(risks, points))
    assert found.fits[["fold", "n_train", "n_test"]].to_numpy()[:, 1:].sum(axis=1).tolist() == [80] * 3


def test_outcomes_of_the_patients_left_out_change_nothing(cohort):
    X, y = cohort[0], cohort[1][["os_time", "os_event"]]
    splits = list(CohortKFold(2, random_state=0).split(X, y))[:1]
    changed = y.copy()
    changed.iloc[splits[0][1], changed.columns.get_loc("os_time")] = 1.0
    one, other = (cross_predict(ClinicalCox(), X, outcomes, cv=splits)["os"] for outcomes in (y, changed))
    pd.testing.assert_frame_equal(one, other)


def test_metrics_are_those_inside_the_folds(cohort, centres, found):
    _, y = cohort
    table = evaluate_predictions(found, y, **QUICK)
    given = evaluate_predictions(dict(found), y, folds=found.folds, clusters=centres, **QUICK)
    pd.testing.assert_frame_equal(table, given)
    pooled = evaluate_predictions(dict(found), y, **QUICK)
    assert (table["value"] != pooled["value"]).any()
    draws = resample_predictions(found, y, horizons=(24,), n_resamples=20)
    np.testing.assert_allclose(draws["value"].to_numpy(), table.loc[table["low"].notna(), "value"])
    assert len(evaluate_predictions(found, y, folds=pd.Series(0, y.index), **QUICK)) == len(pooled)


def test_two_models_are_compared_inside_the_folds_that_they_share(cohort, centres, found):
    X, y = cohort
    other = cross_predict(ClinicalCox(columns="all"), X, y, cv=3, groups=centres, horizons=(24,))
    pair = {"metrics": ["concordance_index"], **QUICK}
    table = compare_predictions(other, found, y, **pair)
    folded = compare_predictions(dict(other), dict(found), y, folds=found.folds, clusters=centres, **pair)
    pd.testing.assert_frame_equal(table, folded)
    pd.testing.assert_frame_equal(table, mmdls.evaluation.compare(other, found, X, y, **pair))
    with pytest.raises(ValueError, match="made in different folds"):
        compare_predictions(found, cross_predict(ClinicalCox(), X, y, cv=2), y, **pair)


def test_a_report_says_which_folds_and_models(cohort):
    X, y = cohort[0], cohort[1][["os_time", "os_event"]]
    text = report({"clinical": cross_predict(ClinicalCox(), X, y, cv=3)}, X, y, groups=X[["clinical_sex"]], **QUICK)
    assert "CohortKFold(" in text and "Fits, and the hyperparameters that they chose" in text
    assert "Cross-validation with 3 folds" in text and "ClinicalCox" in text


def test_figures_take_the_risk_groups(cohort, found):
    _, y = cohort
    ax = kaplan_meier(y["os_event"], y["os_time"], found.risk_groups["os"])
    assert ax.get_legend_handles_labels()[1]


def test_tasks_that_a_model_does_not_answer_are_not_there(cohort):
    X, y = cohort
    answered = cross_predict(make_pipeline(SelectInputs(["pet"]), LogisticRegression()), X.assign(pet_sex=0), y, cv=2)
    assert list(answered) == [name for name, task in mmdls.cohort.find_tasks(y).items() if not task.is_censored]
    with pytest.raises(RuntimeError, match="answer tasks of the kinds .'survival'., and y offers"):
        cross_predict(ClinicalCox(), X, y[["stage"]], cv=2)


def test_patients_who_are_never_left_out_have_no_prediction(cohort):
    X, y = cohort
    part = cross_predict(ClinicalCox(), X, y, cv=[(np.arange(40), np.arange(40, 60))])
    assert len(part["os"]) == 20 and part.folds.notna().sum() == 20
    assert evaluate_predictions(part, y, **QUICK)["n"].max() == 20


def test_what_would_leak_is_refused(cohort, centres):
    X, y = cohort
    with pytest.raises(ValueError, match="fold 0 leaks: 1 rows"):
        cross_predict(ClinicalCox(), X, y, cv=[(np.arange(40), np.arange(39, 80))])
    with pytest.raises(ValueError, match="fold 0 leaks: the groups"):
        cross_predict(ClinicalCox(), X, y, cv=[(np.arange(40), np.arange(40, 80))], groups=centres)
    with pytest.raises(ValueError, match="the model is frozen"):
        cross_predict(FrozenEstimator(ClinicalCox(endpoint="os").fit(X, y)), X, y)
    with pytest.raises(KeyError, match="groups names 'hospital'"):
        cross_predict(ClinicalCox(), X, y, groups="hospital")
    with pytest.raises(RuntimeError, match="'ClinicalCox' failed in fold 0"):
        cross_predict(ClinicalCox(columns=["clinical_none"]), X, y, cv=2)
