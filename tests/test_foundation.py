"""The tabular foundation model: found only where package and weights are, never downloaded, endpoints by intervals."""

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator as check_sklearn_estimator

from benchmarks import compare as job
from benchmarks import small_cohorts
from mmdls import compare_models, create
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort
from mmdls.metrics import concordance_index, kaplan_meier, step_values
from mmdls.testing import check_estimator
from mmdls.zoo import FoundationClassifier, FoundationSurvival
from mmdls.zoo._foundation import StackedHazards
from mmdls.zoo._inputs import unavailable

VARIABLE = "MMDLS_TABPFN_WEIGHTS"


class FakePFN(LogisticRegression):
    """Takes what TabPFN takes, and would download weights that are not there."""

    def __init__(self, *, model_path="auto", random_state=0, ignore_pretraining_limits=False):
        super().__init__(max_iter=500)
        self.model_path = model_path
        self.random_state = random_state
        self.ignore_pretraining_limits = ignore_pretraining_limits

    def fit(self, X, y):
        if not Path(self.model_path).is_file():
            raise AssertionError(f"downloads {self.model_path}")
        return super().fit(X, y)


class Shares(BaseEstimator):
    """The share of events in each interval, whatever else is known."""

    def fit(self, X, y):
        self.shares_ = pd.Series(y).groupby(X[:, -1]).mean()
        return self

    def predict_proba(self, X):
        share = self.shares_[X[:, -1]].to_numpy()
        return np.column_stack([1 - share, share])


@pytest.fixture
def installed(monkeypatch, tmp_path):
    package = types.ModuleType("tabpfn")
    package.TabPFNClassifier = FakePFN
    monkeypatch.setitem(sys.modules, "tabpfn", package)
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes(b"weights")
    monkeypatch.setenv(VARIABLE, str(weights))
    return weights


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tabpfn", None)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def small():
    X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, n_radiomics=4, return_X_y=True, random_state=0)
    return X.drop(columns=["lesion_image", "lung_image", "centre", "treatment"]), y


def target(event, time):
    return np.array(list(zip(event, time, strict=True)), dtype=[("event", "?"), ("time", "f8")])


# -- endpoints by intervals --------------------------------------------------------------------------------------------


def test_without_features_the_curve_is_kaplan_meiers_at_the_ends_of_intervals():
    rng = np.random.default_rng(0)
    time = rng.exponential(20, 101)
    y = target(time < 40, np.minimum(time, 40))  # everybody who is censored was seen to the end
    model = StackedHazards(Shares()).fit(np.zeros((101, 1)), y)
    assert len(model.edges_) == 6 and model.edges_[-1] == time[time < 40].max()
    curve = model.predict_survival_function(np.zeros((1, 1)))[0]
    at = np.searchsorted(model.unique_times_, model.edges_[1:])
    np.testing.assert_allclose(curve[at], step_values(*kaplan_meier(y["event"], y["time"]), model.edges_[1:]))
    between = (model.unique_times_ > model.edges_[1]) & (model.unique_times_ <= model.edges_[2])
    slope = np.diff(np.log(curve[between])) / np.diff(model.unique_times_[between])
    np.testing.assert_allclose(slope, slope[0])  # the hazard is constant in an interval


def test_a_patient_censored_in_an_interval_counts_if_seen_for_half_of_it():
    event, time = [True, False, False, True, True], [10.0, 14.0, 16.0, 20.0, 20.0]
    model = StackedHazards(Shares(), 3).fit(np.zeros((5, 1)), target(event, time))
    np.testing.assert_array_equal(model.edges_, [0, 10, 20])  # two thirds and all of the events are at one time
    np.testing.assert_allclose(model.classifier_.shares_, [1 / 5, 2 / 3])


def test_curves_fall_and_risks_find_the_order():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    time, censored = rng.exponential(20 * np.exp(-X[:, 0])), rng.exponential(60, 400)
    y = target(time < censored, np.minimum(time, censored))
    model = StackedHazards(LogisticRegression(C=1e3), 8).fit(X[:200], y[:200])
    curves = model.predict_survival_function(X[200:])
    assert (np.diff(curves, axis=1) <= 0).all() and (curves > 0).all() and (curves < 1).all()
    event, seen = y["event"][200:], y["time"][200:]
    found = concordance_index(event, seen, model.predict(X[200:]))
    assert found == pytest.approx(concordance_index(event, seen, X[200:, 0]), abs=0.01)


def test_an_endpoint_that_all_have_at_once_is_refused():
    with pytest.raises(ValueError, match="every patient has the event in the first interval"):
        StackedHazards(Shares()).fit(np.zeros((4, 1)), target([True] * 4, [3.0] * 4))


# -- package and weights -----------------------------------------------------------------------------------------------


def test_both_estimators_keep_the_contract(installed):
    check_estimator(FoundationSurvival)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_sklearn_estimator(FoundationClassifier())


def test_weights_are_those_of_the_file_that_is_named(installed, tmp_path, small):
    X, y = small
    numbers = X[["clinical_age", "pet_suvmax"]].fillna(0)
    assert FoundationClassifier().fit(numbers, y["subtype"]).model_.model_path == str(installed)
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"weights")
    model = FoundationSurvival(endpoint="os", weights=other, random_state=0).fit(X, y)
    assert model.pipeline_[-1].classifier_.model_.model_path == str(other)
    other.unlink()
    assert model.unavailable().endswith("other.ckpt is no file; name the checkpoint of a classifier")
    with pytest.raises(ImportError, match=r"other.ckpt is no file"):
        FoundationSurvival(endpoint="os", weights=other).fit(X, y)


def test_the_registered_model_answers_endpoints_and_classes(installed, small):
    X, y = small
    found = compare_models(["tables_foundation"], X, y, cv=2, n_resamples=10)
    assert set(found.predictions["tables_foundation"]) == set(find_tasks(y))
    value = found.scores[found.scores["horizon"].isna()].set_index(["task", "metric"])["value"]
    assert value["subtype", "auc"] > 0.6 and value["os", "concordance_index"] > 0.5


@pytest.mark.parametrize("lacking", ["package", "weights"])
def test_it_is_left_out_of_a_comparison_with_a_note(installed, monkeypatch, lacking, small, capsys):
    X, y = small
    y = y[["os_time", "os_event"]]
    if lacking == "package":
        monkeypatch.setitem(sys.modules, "tabpfn", None)
        why = r'TabPFN cannot be imported \(.*\); pip install "mmdls\[foundation\]" brings it'
    else:
        monkeypatch.delenv(VARIABLE)
        why = f"TabPFN needs weights on this machine and neither weights nor {VARIABLE} is set"
    given = {"cox": "clinical_cox", "named": "tables_foundation", "own": create("tables_foundation")}
    found = compare_models(given, X, y, cv=2, n_resamples=10)
    notes = found.scores[found.scores["metric"] == ""].set_index("model")["note"]
    assert list(notes.index) == ["named", "own"] and notes.str.contains(why).all()
    assert list(found.predictions) == ["cox"]
    with pytest.raises(ImportError, match=why):
        create("tables_foundation").fit(X, y)
    with pytest.raises(SystemExit, match=f"tables_foundation cannot be fitted here: {why}"):
        job.chosen("clinical_linear,tables_foundation", X, y)
    assert "tables_foundation" not in job.chosen("all", X, y)
    assert "Not compared: tables_foundation, since TabPFN" in capsys.readouterr().out


def test_it_is_compared_where_it_can_be(installed, small, capsys):
    X, y = small
    assert "tables_foundation" in job.chosen("all", X, y) and not capsys.readouterr().out
    assert unavailable(create("tables_foundation")) == unavailable(create("clinical_cox")) == ""


def test_small_cohorts_say_that_it_is_not_compared(not_installed, small, tmp_path, capsys):
    X, y = small
    pd.to_pickle((X, y[["subtype"]]), tmp_path / "mine.pkl")
    linear = "tables_linear:model__nominal__n_trials=1"
    small_cohorts.main(
        ["--cohorts", "mine", "--cohort", f"mine={tmp_path / 'mine.pkl'}", "--default", linear, "--repeats", "1"]
        + ["--folds", "2", "--seeds", "1", "--models", "tables_foundation", "--out", str(tmp_path / "out")]
    )
    assert "Not compared: tables_foundation, since TabPFN cannot be imported" in capsys.readouterr().out
