"""Search with Optuna: scikit-learn's manners, honest folds, shared studies."""

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mmdls import MMDLS, ClinicalCox, SliceEncoder
from mmdls.evaluation import evaluate, make_scorers
from mmdls.model_selection import CohortKFold
from mmdls.search import OptunaSearch, search_space_of

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = {"logisticregression__C": FloatDistribution(1e-4, 1e3, log=True)}


@pytest.fixture(scope="module")
def data():
    X, y = load_breast_cancer(return_X_y=True)
    return X[:150], y[:150]


def model():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def test_it_finds_what_a_grid_finds_and_answers_like_the_best(data):
    X, y = data
    search = OptunaSearch(model(), SPACE, scoring="roc_auc", n_trials=12, cv=KFold(4), random_state=0).fit(X, y)
    results = search.cv_results_
    best = clone(model()).set_params(**search.best_params_)
    by_hand = cross_val_score(best, X, y, cv=KFold(4), scoring="roc_auc")
    assert search.best_score_ == pytest.approx(by_hand.mean())
    np.testing.assert_allclose([results[f"split{k}_test_score"][search.best_index_] for k in range(4)], by_hand)
    assert search.best_score_ == max(results["mean_test_score"][results["state"] == "COMPLETE"])
    np.testing.assert_array_equal(search.predict_proba(X), best.fit(X, y).predict_proba(X))
    assert search.score(X, y) > 0.9 and list(search.classes_) == [0, 1]
    assert results["params"][0] == {"logisticregression__C": 1.0}  # first of all, the estimator as it was given
    assert not hasattr(search, "transform")


def test_one_seed_gives_one_search(data):
    one, two, other = (
        OptunaSearch(model(), SPACE, n_trials=6, cv=3, random_state=seed).fit(*data).cv_results_ for seed in (0, 0, 1)
    )
    assert list(one["param_logisticregression__C"]) == list(two["param_logisticregression__C"])
    assert list(one["param_logisticregression__C"]) != list(other["param_logisticregression__C"])


def test_several_objectives_give_a_front_and_somebody_must_decide(data):
    scoring = {"auc": "roc_auc", "brier": "neg_brier_score", "accuracy": "accuracy"}
    options = {"scoring": scoring, "objectives": ["auc", "brier"], "n_trials": 8, "cv": 3, "random_state": 0}
    search = OptunaSearch(model(), SPACE, refit="brier", **options).fit(*data)
    means = np.column_stack([search.cv_results_["mean_test_auc"], search.cv_results_["mean_test_brier"]])
    front = [i for i, m in enumerate(means) if not any((o >= m).all() and (o > m).any() for o in means)]
    assert sorted({t.number for t in search.best_trials_}) == front
    assert search.best_index_ == np.argmax(means[:, 1])
    chosen = OptunaSearch(model(), SPACE, refit=lambda table: int(np.argmin(table["mean_test_auc"])), **options)
    assert chosen.fit(*data).best_index_ == np.argmin(means[:, 0])
    with pytest.raises(ValueError, match="2 objectives.*refit must name the score that decides"):
        OptunaSearch(model(), SPACE, **options).fit(*data)
    unfit = OptunaSearch(model(), SPACE, refit=False, **options).fit(*data)
    assert len(unfit.best_trials_) == len(front)
    with pytest.raises(AttributeError, match="refit=False"):
        unfit.predict(data[0])


class Moody(ClassifierMixin, BaseEstimator):
    """Scores as well as it is told to, and fails when it is told to."""

    fits: list = []

    def __init__(self, quality=0.5, fail=False):
        self.quality = quality
        self.fail = fail

    def fit(self, X, y):
        if self.fail:
            raise FloatingPointError("diverged")
        Moody.fits.append(self.quality)
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        return self.quality


def test_failed_trials_are_recorded_and_other_errors_stop():
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    space = {"quality": FloatDistribution(0, 1), "fail": CategoricalDistribution([False, True])}
    search = OptunaSearch(Moody(), space, n_trials=12, cv=2, random_state=0).fit(X, y)
    failed = search.cv_results_["state"] == "FAIL"
    assert 0 < failed.sum() < 12
    assert set(search.cv_results_["error"][failed]) == {"FloatingPointError: diverged"}
    assert set(search.cv_results_["error"][~failed]) == {""}
    assert search.best_params_["fail"] is False
    with pytest.raises(
        ValueError, match="none of 3 trials finished; the first error was: FloatingPointError: diverged"
    ):
        OptunaSearch(Moody(fail=True), {"quality": FloatDistribution(0, 1)}, n_trials=3, cv=2).fit(X, y)
    with pytest.raises(FloatingPointError):
        OptunaSearch(Moody(fail=True), {"quality": FloatDistribution(0, 1)}, n_trials=3, cv=2, catch=()).fit(X, y)


def test_bad_trials_are_pruned_after_a_fold():
    X, y = np.zeros((40, 1)), np.arange(40) % 2
    Moody.fits = []
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    search = OptunaSearch(
        Moody(), {"quality": FloatDistribution(0, 1)}, n_trials=20, cv=4, pruner=pruner, random_state=0
    )
    states = search.fit(X, y).cv_results_["state"]
    assert (states == "PRUNED").sum() > 3
    assert len(Moody.fits) == 4 * (states == "COMPLETE").sum() + (states == "PRUNED").sum() + 1  # and the refit
    assert np.isnan(search.cv_results_["mean_test_score"][states == "PRUNED"]).all()


def test_undefined_scores_never_win(data):
    def moody(estimator, X, y):
        return float("nan") if estimator[-1].C < 1 else 0.5

    search = OptunaSearch(model(), SPACE, scoring=moody, n_trials=8, cv=2, random_state=0).fit(*data)
    assert search.best_params_["logisticregression__C"] >= 1
    undefined = search.cv_results_["state"] == "FAIL"
    assert undefined.any() and "undefined in at least one fold" in search.cv_results_["error"][undefined][0]


def test_metadata_reaches_folds_and_fit(data):
    X, y = data
    groups = np.arange(150) // 10

    class Watching(LogisticRegression):
        seen: list = []

        def fit(self, X, y, sample_weight=None):
            Watching.seen.append(None if sample_weight is None else len(sample_weight) == len(X))
            return super().fit(X, y, sample_weight)

    space = {"C": FloatDistribution(0.1, 1)}
    options = {"n_trials": 2, "cv": GroupKFold(3), "random_state": 0}
    OptunaSearch(Watching(max_iter=5000), space, **options).fit(X, y, groups=groups, sample_weight=np.ones(150))
    assert Watching.seen == [True] * 7
    Watching.seen = []
    with config_context(enable_metadata_routing=True):
        inner = Watching(max_iter=5000).set_fit_request(sample_weight=True)
        search = OptunaSearch(inner, space, **options).fit(X, y, groups=groups, sample_weight=np.ones(150))
        assert Watching.seen == [True] * 7
        cross_validate(search, X, y, cv=GroupKFold(2), params={"groups": groups, "sample_weight": np.ones(150)})
    with pytest.raises(ValueError, match="groups"):
        OptunaSearch(Watching(), space, **options).fit(X, y)


def test_a_search_inside_a_cross_validation_never_sees_what_is_left_out(data):
    X, y = data
    search = OptunaSearch(model(), SPACE, n_trials=3, cv=2, random_state=0)
    found = cross_validate(search, X, y, cv=3, return_estimator=True, n_jobs=2)
    studies = [estimator.study_ for estimator in found["estimator"]]
    assert all(len(study.trials) == 3 for study in studies)
    assert len({tuple(t.value for t in study.trials) for study in studies}) == 3
    again = pickle.loads(pickle.dumps(found["estimator"][0]))
    np.testing.assert_array_equal(again.predict(X), found["estimator"][0].predict(X))


def test_folds_at_once_give_the_same(data):
    alone, together = (
        OptunaSearch(model(), SPACE, n_trials=3, cv=3, n_jobs=n, pruner=optuna.pruners.NopPruner(), random_state=0)
        .fit(*data)
        .cv_results_["mean_test_score"]
        for n in (1, 2)
    )
    np.testing.assert_allclose(alone, together)


def test_spaces_come_from_the_parts_and_wrong_ones_are_named(data):
    space = search_space_of(MMDLS([("lesion", SliceEncoder(), ["lesion_image"])]))
    assert {"dropout", "lesion__backbone"} <= set(space)
    cases = [
        ({}, ValueError, "has no search_space"),
        ({"C": [1, 2]}, TypeError, "needs optuna distributions"),
        ({"gamma": IntDistribution(1, 2)}, ValueError, r"names \['gamma'\], which are no parameters"),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=message):
            OptunaSearch(LogisticRegression(), wrong).fit(*data)
    with pytest.raises(ValueError, match="no parameters|has no search_space"):
        OptunaSearch(LogisticRegression()).fit(*data)
    for wrong, message in (({"objectives": "auc"}, "not among the scores"), ({"scoring": {}}, "empty dict")):
        with pytest.raises(ValueError, match=message):
            OptunaSearch(model(), SPACE, **wrong).fit(*data)

    def drawn(trial):
        return {"logisticregression__C": 10.0 ** trial.suggest_int("exponent", -2, 2)}

    search = OptunaSearch(model(), drawn, n_trials=4, cv=2, random_state=0).fit(*data)
    assert search.best_params_["logisticregression__C"] == 10.0 ** search.study_.best_params["exponent"]


def test_a_multimodal_model_is_searched_on_a_cohort(cohort):
    X, y = cohort.data, cohort.target[["subtype", "os_time", "os_event"]]
    X = X[["lesion_image", "clinical_age", "clinical_sex", "pet_suvmax"]]
    space = {
        "fusion": CategoricalDistribution(["gated", "concat"]),
        "image_encoder__pooling": CategoricalDistribution(["mean", "max"]),
    }
    encoder = SliceEncoder(backbone_params={"channels": (4,), "strides": (2,)}, embedding_dim=8)
    search = OptunaSearch(
        MMDLS(image_encoder=encoder, max_epochs=2, validation_fraction=0.0, random_state=0),
        space,
        scoring=make_scorers(y, horizons=(24,)),
        objectives=["subtype_auc", "os_cindex"],
        refit="os_cindex",
        cv=CohortKFold(2, random_state=0),
        n_trials=2,
        random_state=0,
    ).fit(X, y)
    assert set(search.predict(X).columns) == {"subtype", "os"}
    assert search.cv_results_["params"][0] == {"fusion": "gated", "image_encoder__pooling": "mean"}
    assert len(evaluate(search, X, y, horizons=(24,), n_resamples=0)) > 10
    assert len(search.predict_survival_function(X, "os")) == len(X)


def test_a_classical_model_is_searched_on_a_cohort(cohort):
    X, y = cohort.data, cohort.target[["os_time", "os_event"]]
    space = {"alpha": FloatDistribution(0.1, 1000, log=True)}
    search = OptunaSearch(ClinicalCox(endpoint="os"), space, n_trials=3, cv=2, random_state=0).fit(X, y)
    assert np.isfinite(search.best_score_) and len(search.predict(X)) == len(X)


def test_a_stopped_search_goes_on_as_if_it_had_not_stopped(data, tmp_path):
    options = {"cv": 2, "random_state": 0, "storage": tmp_path / "study.log"}
    OptunaSearch(model(), SPACE, n_trials=3, **options).fit(*data)
    on = OptunaSearch(model(), SPACE, n_trials=8, **options).fit(*data)
    whole = OptunaSearch(model(), SPACE, n_trials=8, **{**options, "storage": None}).fit(*data)
    np.testing.assert_allclose(on.cv_results_["mean_test_score"], whole.cv_results_["mean_test_score"])
    X, y = data
    other = OptunaSearch(model(), SPACE, n_trials=2, **options).fit(X[:-1], y[:-1])
    assert len(other.study_.trials) == 2  # other rows, another study


WORKER = """
import sys, time
import numpy as np, optuna
from optuna.distributions import FloatDistribution
from sklearn.base import BaseEstimator, ClassifierMixin
from mmdls.search import OptunaSearch
optuna.logging.set_verbosity(optuna.logging.ERROR)

class Slow(ClassifierMixin, BaseEstimator):
    def __init__(self, quality=0.5):
        self.quality = quality
    def fit(self, X, y):
        time.sleep(0.01)
        self.classes_ = np.unique(y)
        return self
    def score(self, X, y):
        return self.quality

X, y = np.zeros((20, 1)), np.arange(20) % 2
search = OptunaSearch(Slow(), {"quality": FloatDistribution(0, 1)}, n_trials=int(sys.argv[2]), cv=2,
                      pruner=optuna.pruners.NopPruner(), storage=sys.argv[1], random_state=0)
search.fit(X, y)
"""


def test_long_estimators_that_differ_late_have_studies_of_their_own(data, tmp_path):
    names = set()
    for last in (1.0, 2.0):
        steps = [StandardScaler(with_mean=False, with_std=False) for _ in range(20)]
        estimator = make_pipeline(*steps, LogisticRegression(C=last, max_iter=50), verbose=False)
        search = OptunaSearch(
            estimator, SPACE, n_trials=1, cv=2, refit=False, storage=tmp_path / "study.log", random_state=0
        )
        names.add(search.fit(*data).study_.study_name)
    assert len(names) == 2


def test_two_processes_lose_and_repeat_nothing_though_one_is_killed(tmp_path):
    journal, n_trials = tmp_path / "study.log", 60
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, str(script), str(journal), str(n_trials)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    first, second = (subprocess.Popen(command, env=environment) for _ in range(2))

    def trials():
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        names = optuna.study.get_all_study_names(storage)
        assert len(names) <= 1
        return optuna.load_study(study_name=names[0], storage=storage).trials if names else []

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not journal.exists():
            time.sleep(0.05)
            continue
        mine = [t for t in trials() if t.user_attrs.get("process", "").split(":")[1:2] == [str(first.pid)]]
        if len(mine) > 3 and mine[-1].state == optuna.trial.TrialState.RUNNING:
            first.send_signal(signal.SIGKILL)
            break
    first.wait()
    again = subprocess.Popen(command, env=environment)
    assert second.wait(timeout=120) == 0 and again.wait(timeout=120) == 0
    found = trials()
    complete = [t for t in found if t.state == optuna.trial.TrialState.COMPLETE]
    assert n_trials <= len(complete) <= n_trials + 1
    assert not [t for t in found if t.state == optuna.trial.TrialState.RUNNING]
    assert len({t.params["quality"] for t in complete}) == len(complete)  # nothing twice
    died = [t for t in found if t.state == optuna.trial.TrialState.FAIL]
    repeated = {t.user_attrs.get("again") for t in complete} - {None}
    assert repeated == {t.number for t in died}
    assert len({t.user_attrs["process"] for t in complete}) >= 2


def test_results_are_a_table(data):
    search = OptunaSearch(model(), SPACE, n_trials=3, cv=2, random_state=0, verbose=1).fit(*data)
    table = pd.DataFrame(search.cv_results_)
    assert len(table) == 3 and (table["seconds"] > 0).all()


@parametrize_with_checks(
    [OptunaSearch(LogisticRegression(), {"C": FloatDistribution(0.1, 1)}, n_trials=2, cv=2, random_state=0)]
)
def test_it_keeps_the_contract_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
