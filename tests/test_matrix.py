"""Every registered estimator in every use, on every form of outcome that it learns.

Whatever is registered joins by itself: :func:`mmdls.testing.small_study` finds out what it reads and learns. Values are
held against scikit-learn's and scikit-survival's own metrics, and those of a wrapped model against those of the model.
"""

import functools
import io
from importlib.util import find_spec

import joblib
import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sksurv.metrics import concordance_index_censored

from mmdls.cohort import find_tasks
from mmdls.evaluation import compare, evaluate, make_scorers, predict_tasks
from mmdls.registry import estimators
from mmdls.report import report
from mmdls.search import OptunaSearch, search_space_of
from mmdls.testing import outcome_forms, small_study
from mmdls.testing._studies import finds_masks, measures_scans, reads_images

pytestmark = pytest.mark.filterwarnings("ignore")  # a small cohort is warned about in many places

HORIZONS = (12.0, 24.0)
QUICK_REPORTS = {("mmdls", "boolean"), ("multimodal_survival", "endpoint")}  # a report draws figures for seconds
METRICS = {
    "auc": 1,
    "log_loss": -1,
    "brier_score": -1,
    "quadratic_weighted_kappa": 1,
    "concordance_index": 1,
    "concordance_index_ipcw": 1,
    "cumulative_dynamic_auc": 1,
    "integrated_brier_score": -1,
    "integrated_ipa": 1,
}


def cells(quick=lambda name, outcome: True):
    """Every estimator with every form of outcome; images, and what is not ``quick``, are left to the slow tests."""
    for name in estimators:
        if name == "radiomics_extractor" and find_spec("fastrad") is None:  # comes with an extra
            continue
        model, forms = estimators[name](), outcome_forms(estimators[name])
        for outcome in forms:
            small = not reads_images(model) or (
                not (finds_masks(model) or measures_scans(model)) and outcome == forms[0]
            )
            marks = () if small and quick(name, outcome) else pytest.mark.slow
            yield pytest.param(name, outcome, marks=marks, id=f"{name}-{outcome}")


def is_calibrated(name, outcome):
    """Whether scikit-learn calibrates it: one label, answered by a classifier, or by one behind a transformer."""
    model = estimators[name]()
    behind = not hasattr(model, "predict")
    return outcome not in ("endpoint", "endpoints") and (behind or is_classifier(model))


matrix = pytest.mark.parametrize(("name", "outcome"), list(cells()))


@functools.cache
def fitted_study(name, outcome):
    """A study with its model fitted, once for all uses."""
    model, X, y = small_study(estimators[name], outcome)
    return clone(model).fit(X, y), X, y


@functools.cache
def plain_table(name, outcome):
    return table_of(*fitted_study(name, outcome))


def table_of(model, X, y):
    return evaluate(model, X, y, horizons=HORIZONS, n_resamples=0)


def final(model):
    return model[-1] if isinstance(model, Pipeline) else model


def answered(model, y):
    """The tasks of y that the model was fitted for."""
    endpoint = getattr(final(model), "endpoint", None)
    return [task for task in find_tasks(y).values() if endpoint in (None, task.name)]


def searched(model):
    """A parameter that the model says is worth searching, or else any."""
    return next(iter([*search_space_of(model), *model.get_params()]))


def scorers_of(model, y):
    """Scorers of what the model answers, by name, with task and metric; errors of curves need curves."""
    curves = hasattr(final(model), "predict_survival_function")
    names = [metric for metric in METRICS if curves or not metric.startswith("integrated")]
    found = {f"{task.name}_{metric}": (task, metric) for task in answered(model, y) for metric in names}
    made = make_scorers(y, horizons=HORIZONS)
    return {name: (scorer, *found[name]) for name, scorer in made.items() if name in found}


def expected(model, X, y):
    """Metrics from the methods of the model by the libraries that define them, by (task, metric)."""
    values = {}
    X, last = (model[:-1].transform(X), model[-1]) if isinstance(model, Pipeline) else (X, model)
    several = not is_classifier(last) and not hasattr(last, "endpoint")
    for task in answered(model, y):
        if task.kind == "survival":
            risk = last.predict(X)
            risk = risk[task.name] if several else risk
            time, event = (y[column] for column in task.columns)
            found = concordance_index_censored(event.astype(bool), time, np.asarray(risk))[0]
            values[task.name, "concordance_index"] = found
            continue
        probability = last.predict_proba(X, *[task.name] * several)
        classes = list(last.classes_[task.name] if several else last.classes_)
        label = np.array([classes.index(value) for value in y[task.name]])
        values[task.name, "log_loss"] = log_loss(label, probability, labels=range(len(classes)))
        if len(classes) == 2:
            values[task.name, "auc"] = roc_auc_score(label, probability[:, 1])
    return values


def value_of(table, task, metric):
    return table.loc[(table["task"] == task) & (table["metric"] == metric), "value"].mean()


# -- the matrix ------------------------------------------------------------------------------------------------------


@matrix
def test_evaluate_gives_the_metrics_of_every_task_that_the_model_answers(name, outcome):
    model, X, y = fitted_study(name, outcome)
    table = plain_table(name, outcome)
    assert list(dict.fromkeys(table["task"])) == [task.name for task in answered(model, y)]
    assert (table["value"].notna() | (table["note"] != "")).all(), "an undefined value says why"
    for (task, metric), value in expected(model, X, y).items():
        assert value_of(table, task, metric) == pytest.approx(value, abs=1e-6), (task, metric)
    order = np.random.default_rng(0).permutation(len(y))
    pd.testing.assert_frame_equal(table_of(model, X, y.iloc[order]), table)


@matrix
def test_a_model_of_this_library_is_read_by_its_own_tables(name, outcome, monkeypatch):
    model, X, y = fitted_study(name, outcome)
    if type(final(model)).__module__.startswith("mmdls"):
        monkeypatch.delattr("mmdls.evaluation._predict.predict_one_task")
    assert list(predict_tasks(model, X, y)) == [task.name for task in answered(model, y)]


@matrix
def test_compare_finds_no_difference_between_a_model_and_itself(name, outcome):
    model, X, y = fitted_study(name, outcome)
    table = compare(model, model, X=X, y=y, horizons=HORIZONS, n_resamples=10)
    assert list(dict.fromkeys(table["task"])) == [task.name for task in answered(model, y)]
    assert table["difference"].fillna(0).eq(0).all()
    for row in table.dropna(subset="first").itertuples():
        if np.isnan(row.low):
            assert "undefined in" in row.note, row.metric
        else:
            assert row.low == row.high == 0 and (row.p == 1 or row.test == "DeLong"), row.metric
    plain = plain_table(name, outcome)
    for (task, metric), first in table.groupby(["task", "metric"])["first"].mean().items():
        assert first == pytest.approx(value_of(plain, task, metric), nan_ok=True)


@matrix
def test_every_scorer_gives_the_value_of_evaluate(name, outcome):
    model, X, y = fitted_study(name, outcome)
    scorers = scorers_of(model, y)
    assert {task.name for _, task, _ in scorers.values()} == {task.name for task in answered(model, y)}
    for key, (scorer, task, metric) in scorers.items():
        value = scorer(model, X, y)
        assert np.isfinite(value), key
        assert value == pytest.approx(METRICS[metric] * value_of(plain_table(name, outcome), task.name, metric)), key


READABLE = {"os": "Overall survival", "dfs": "Disease-free survival"}


@pytest.mark.parametrize(("name", "outcome"), list(cells(lambda name, outcome: (name, outcome) in QUICK_REPORTS)))
def test_report_has_every_task_and_the_risk_groups_inside_a_pipeline(name, outcome):
    model, X, y = fitted_study(name, outcome)
    piped = make_pipeline(FunctionTransformer(), FrozenEstimator(model)).fit(X, y)
    text = report({"plain": model, "piped": piped}, X, y, horizons=(12,), by=None, treatment=None, n_resamples=4)
    for task in answered(model, y):
        assert f"<h3>{READABLE.get(task.name, task.name)}</h3>" in text
    if hasattr(final(model), "risk_cutpoints_") and outcome.startswith("endpoint"):
        hazards = text.partition('id="hazard-ratios-and-treatment"')[2].partition("</section>")[0]
        assert "risk group" in hazards, "the risk groups of the model in a pipeline are lost"


@matrix
def test_a_pipeline_evaluates_as_its_last_step(name, outcome):
    model, X, y = small_study(estimators[name], outcome)
    piped = Pipeline([("same", FunctionTransformer()), ("off", "passthrough"), ("model", model)]).fit(X, y)
    pd.testing.assert_frame_equal(table_of(piped, X, y), plain_table(name, outcome))


@matrix
def test_a_frozen_model_evaluates_as_the_model(name, outcome):
    model, X, y = fitted_study(name, outcome)
    piped = make_pipeline(FunctionTransformer(), FrozenEstimator(model)).fit(X, y)
    for frozen in (FrozenEstimator(model), piped, FrozenEstimator(piped)):
        pd.testing.assert_frame_equal(table_of(frozen, X, y), plain_table(name, outcome))


@matrix
def test_a_model_in_a_grid_search(name, outcome):
    model, X, y = small_study(estimators[name], outcome)
    parameter = searched(model)
    scoring = {key: scorer for key, (scorer, *_) in scorers_of(model, y).items()}
    grid = {parameter: [model.get_params()[parameter]]}
    search = GridSearchCV(model, grid, scoring=scoring, refit=next(iter(scoring)), cv=2, error_score="raise").fit(X, y)
    assert np.isfinite([search.cv_results_[f"mean_test_{key}"][0] for key in scoring]).all()
    pd.testing.assert_frame_equal(table_of(search, X, y), plain_table(name, outcome))


@matrix
def test_a_model_in_an_optuna_search(name, outcome):
    model, X, y = small_study(estimators[name], outcome)
    parameter = searched(model)
    space = {parameter: CategoricalDistribution([model.get_params()[parameter]])}
    scorer, *_ = next(iter(scorers_of(model, y).values()))
    search = OptunaSearch(model, space, scoring=scorer, cv=2, n_trials=1, random_state=0).fit(X, y)
    assert np.isfinite(search.best_score_)
    assert search.score(X, y) == pytest.approx(scorer(search.best_estimator_, X, y))
    pd.testing.assert_frame_equal(table_of(search, X, y), plain_table(name, outcome))


@matrix
def test_cross_validation_scores_the_patients_left_out(name, outcome):
    model, X, y = small_study(estimators[name], outcome)
    scorers = scorers_of(model, y)
    found = cross_validate(
        model,
        X,
        y,
        scoring={key: scorer for key, (scorer, *_) in scorers.items()},
        cv=2,
        error_score="raise",
        return_estimator=True,
        return_indices=True,
    )
    for fold, (fitted, rows) in enumerate(zip(found["estimator"], found["indices"]["test"], strict=True)):
        values = expected(fitted, X.iloc[rows], y.iloc[rows])
        for key, (_, task, metric) in scorers.items():
            sign = METRICS[metric]
            assert np.isfinite(found[f"test_{key}"][fold]), key
            if (task.name, metric) in values:
                assert found[f"test_{key}"][fold] == pytest.approx(sign * values[task.name, metric], abs=1e-6), key


@matrix
def test_a_model_read_from_a_file_evaluates_as_before(name, outcome):
    model, X, y = fitted_study(name, outcome)
    buffer = io.BytesIO()
    joblib.dump(make_pipeline(FunctionTransformer(), FrozenEstimator(model)).fit(X, y), buffer)
    pd.testing.assert_frame_equal(
        table_of(joblib.load(io.BytesIO(buffer.getvalue())), X, y), plain_table(name, outcome)
    )


@pytest.mark.parametrize(("name", "outcome"), [cell for cell in cells() if is_calibrated(*cell.values)])
def test_calibrated_probabilities_are_those_of_the_calibrated_model(name, outcome):
    model, X, y = fitted_study(name, outcome)
    calibrated = CalibratedClassifierCV(FrozenEstimator(model)).fit(X, y.iloc[:, 0])
    table = table_of(calibrated, X, y)
    for (task, metric), value in expected(calibrated, X, y).items():
        assert value_of(table, task, metric) == pytest.approx(value, abs=1e-6)


def test_the_matrix_holds_every_registered_estimator_and_every_form_of_outcome():
    found = {cell.values for cell in cells()}
    assert {name for name, _ in found} == set(estimators)
    assert {form for _, form in found} == {"text", "boolean", "integer", "ordered", "endpoint", "endpoints"}
