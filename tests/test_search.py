"""Search with Optuna: compatible with scikit-learn, folds without leaks, shared studies."""

import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mmdls import MMDLS, ClinicalCox, Part, SliceEncoder, TabularEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.evaluation import evaluate, make_scorers
from mmdls.model_selection import CohortKFold
from mmdls.search import OptunaSearch, search_space_of
from mmdls.search._workers import Trials
from mmdls.training._epoch_callback import current_epoch_callback

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


class LateBad(Moody):
    """As good as any in the first fold, whose rows hold ones; as good as its quality in the others."""

    def score(self, X, y):
        return 1.0 if X[0, 0] else self.quality


def test_an_easy_first_fold_does_not_protect_a_bad_trial():
    X, y = np.zeros((40, 1)), np.arange(40) % 2
    X[:10] = 1
    folds = [(np.setdiff1d(np.arange(40), test), test) for test in np.arange(40).reshape(4, 10)]
    search = OptunaSearch(LateBad(0.9), {"quality": FloatDistribution(0, 1)}, n_trials=20, cv=folds, random_state=0)
    table = search.fit(X, y).cv_results_
    pruned = table["state"] == "PRUNED"
    assert pruned.sum() > 3 and set(table["stopped"][pruned]) <= {"after fold 2 of 4", "after fold 3 of 4"}
    qualities = np.array([params["quality"] for params in table["params"]])
    assert qualities[pruned].max() < qualities[~pruned].max() and not pruned[:5].any()


class Trained(ClassifierMixin, BaseEstimator):
    """Says after every epoch how well it does, and counts the epochs; the first fold is the easier one."""

    epochs: list = []

    def __init__(self, qualities=(0.5, 0.5), max_epochs=10, n_networks=1):
        self.qualities = qualities
        self.max_epochs = max_epochs
        self.n_networks = n_networks

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        first = X[0, 0] > 0  # its training rows begin in the middle
        best = self.qualities[0] + 5 if first else self.qualities[1]
        Trained.epochs.append(0)
        for _ in range(self.n_networks):
            for epoch in range(1, self.max_epochs + 1):
                Trained.epochs[-1] += 1
                if current_epoch_callback():
                    current_epoch_callback()(epoch, best * epoch / self.max_epochs)
        return self


@pytest.mark.parametrize("n_networks", [1, 2])
def test_hopeless_trials_are_stopped_inside_a_fold(n_networks):
    X, y = np.arange(40.0)[:, None], np.arange(40) % 2
    qualities = [(q, q) for q in (0.5, 0.6, 0.7, 0.8, 0.9)]
    qualities += [(0.05, 0.9), (0.65, 0.65), (0.65, -2.0), (2.0, 0.4)]

    def space(trial):
        trial.suggest_float("anything", 0, 1)
        return {"qualities": qualities[trial.number]}

    options = {
        "scoring": lambda estimator, X, y: 0.5,  # says nothing: only epochs can prune
        "n_trials": len(qualities),
        "cv": KFold(2),
        "pruner": optuna.pruners.NopPruner(),
        "epoch_pruner": optuna.pruners.PercentilePruner(75, n_startup_trials=5, n_warmup_steps=3),
        "random_state": 0,
    }
    Trained.epochs = []
    estimator = Trained(n_networks=n_networks)
    table = OptunaSearch(estimator, space, **options).fit(X, y).cv_results_
    assert list(table["state"]) == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE", "PRUNED", "COMPLETE"]
    assert table["stopped"][5] == "in epoch 3 of fold 1" and table["stopped"][7] == "in epoch 3 of fold 2"
    assert np.isnan(table["mean_test_score"][[5, 7]]).all() and (table["seconds"] >= 0).all()
    whole = 10 * n_networks
    assert Trained.epochs == [whole] * 10 + [3] + [whole] * 3 + [3] + [whole] * 2 + [whole]  # the last is the refit
    again = OptunaSearch(estimator, space, **options).fit(X, y).cv_results_
    assert list(again["stopped"]) == list(table["stopped"])
    two = {"scoring": dict.fromkeys("ab", options["scoring"]), "refit": "a"}
    for harmless in ({"epoch_pruner": optuna.pruners.NopPruner()}, {"n_jobs": 2}, two):
        with joblib.parallel_config("threading"):
            search = OptunaSearch(estimator, space, **{**options, **harmless}).fit(X, y)
        assert set(search.cv_results_["state"]) == {"COMPLETE"}


@pytest.mark.parametrize(("verbose", "n_lines"), [(0, 0), (1, 0), (2, 3)])
def test_optuna_tells_of_new_studies_only_if_asked(verbose, n_lines):
    X, y = np.zeros((40, 1)), np.arange(40) % 2
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    options = {"scoring": lambda estimator, X, y: 0.5, "n_trials": 1, "cv": KFold(2), "refit": False}
    try:
        OptunaSearch(Trained(), {"max_epochs": IntDistribution(1, 2)}, verbose=verbose, **options).fit(X, y)
    finally:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logger.removeHandler(handler)
    assert sum("A new study" in line for line in lines) == n_lines  # of the search, and of each fold's epochs


def test_a_hopeless_learning_rate_is_stopped_by_the_held_out_patients():
    X, y = make_nsclc_cohort(160, n_slices=1, image_size=16, return_X_y=True, random_state=0)
    X, y = X.filter(regex="clinical|radiomics"), y[["os_time", "os_event"]]
    rates = [3e-3, 4e-3, 5e-3, 1e-8, 1e-2]

    def space(trial):
        trial.suggest_float("anything", 0, 1)
        return {"trainer__learning_rate": rates[trial.number]}

    tables = [
        OptunaSearch(
            MMDLS(n_members=1, trainer=Trainer(max_epochs=12, validation_fraction=0.4), random_state=0),
            space,
            cv=CohortKFold(2, random_state=0),
            n_trials=len(rates),
            pruner=optuna.pruners.NopPruner(),
            epoch_pruner=optuna.pruners.PercentilePruner(75, n_startup_trials=3, n_warmup_steps=6),
            refit=False,
            random_state=0,
        )
        .fit(X, y)
        .cv_results_
        for _ in range(2)
    ]
    first, second = (pd.DataFrame(table).drop(columns="seconds") for table in tables)
    pd.testing.assert_frame_equal(first, second)
    assert list(first["state"]) == ["COMPLETE"] * 3 + ["PRUNED", "COMPLETE"]
    assert "of fold 1" in first["stopped"][3] and np.isnan(first["mean_test_score"][3])


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
        inner = Watching(max_iter=5000).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
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


@pytest.mark.parametrize("backend", ["loky", "threading", "dask"])
def test_folds_at_once_give_the_same(data, backend):
    options = {"n_trials": 3, "cv": 3, "pruner": optuna.pruners.NopPruner(), "random_state": 0}
    alone = OptunaSearch(model(), SPACE, **options).fit(*data)
    with ExitStack() as stack:
        if backend == "dask":
            distributed = pytest.importorskip("distributed")
            cluster = distributed.LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None)
            stack.enter_context(distributed.Client(stack.enter_context(cluster)))
        stack.enter_context(joblib.parallel_config(backend, n_jobs=2))
        together = OptunaSearch(model(), SPACE, **options).fit(*data)
    for name in ("split0_test_score", "split2_test_score", "mean_test_score"):
        np.testing.assert_allclose(alone.cv_results_[name], together.cv_results_[name])


def test_spaces_come_from_the_parts_and_wrong_ones_are_named(data):
    space = search_space_of(MMDLS([("lesion", SliceEncoder(), ["lesion_image"])]))
    assert {"dropout", "lesion__embedding_dim"} <= set(space)
    cases = [
        ({}, ValueError, "has no search_space"),
        ({"C": [1, 2]}, TypeError, "needs optuna distributions"),
        ({"gamma": IntDistribution(1, 2)}, ValueError, r"names \['gamma'\], which are no parameters"),
        ({"max_itr": IntDistribution(1, 2)}, ValueError, r"names \['max_itr'\].*Did you mean 'max_iter'\?"),
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
    encoder = SliceEncoder(backbone=Part("conv", width=4, strides=(2,)), embedding_dim=8)
    search = OptunaSearch(
        MMDLS(image_encoder=encoder, trainer=Trainer(max_epochs=2, validation_fraction=0.0), random_state=0),
        space,
        scoring=make_scorers(y, horizons=(24,)),
        objectives=["subtype_auc", "os_concordance_index"],
        refit="os_concordance_index",
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
import numpy as np, optuna, pandas as pd
from optuna.distributions import FloatDistribution
from sklearn.base import BaseEstimator, ClassifierMixin
from mmdls.search import OptunaSearch
optuna.logging.set_verbosity(optuna.logging.ERROR)

class Slow(ClassifierMixin, BaseEstimator):
    def __init__(self, quality=0.5):
        self.quality = quality
    def fit(self, X, y):
        time.sleep(0.03)
        self.classes_ = np.unique(y)
        return self
    def score(self, X, y):
        return self.quality

storage, n_trials, table = sys.argv[1:]
X, y = np.zeros((20, 1)), np.arange(20) % 2
search = OptunaSearch(Slow(), {"quality": FloatDistribution(0, 1)}, n_trials=int(n_trials), cv=2,
                      sampler=optuna.samplers.RandomSampler(), pruner=optuna.pruners.NopPruner(), storage=storage,
                      random_state=0)
pd.DataFrame(search.fit(X, y).cv_results_).to_csv(table)
"""


class Crew:
    """Processes that work on one storage, by default a journal."""

    def __init__(self, folder, n_trials, storage=None):
        self.folder, self.n_trials = folder, n_trials
        self.journal = folder / "study.log"
        self.storage = storage or self.journal
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        (folder / "worker.py").write_text(WORKER)

    def start(self, name):
        command = [sys.executable, self.folder / "worker.py", self.storage, str(self.n_trials), self.folder / name]
        return subprocess.Popen([str(part) for part in command], env=self.environment)

    def tables(self, *names):
        return [pd.read_csv(self.folder / name, index_col=0) for name in names]

    def trials(self):
        if not self.journal.exists():
            return []
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(self.journal)))
        names = optuna.study.get_all_study_names(storage)
        assert len(names) <= 1
        return optuna.load_study(study_name=names[0], storage=storage).trials if names else []

    def kill_in_mid_trial(self, process, n_before=3):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            mine = [t for t in self.trials() if t.user_attrs.get("process", "").split(":")[1:2] == [str(process.pid)]]
            if len(mine) > n_before and mine[-1].state == optuna.trial.TrialState.RUNNING:
                process.send_signal(signal.SIGSTOP)
                if not os.path.lexists(f"{self.journal}.lock"):  # whoever dies while writing costs the others 30 s
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return
                process.send_signal(signal.SIGCONT)
            time.sleep(0.02)
        raise AssertionError("the process was never seen at work")


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


def test_lists_that_differ_late_have_studies_of_their_own(tmp_path):
    """The columns of a block of radiomics are many; what scikit-learn prints ends with the thirtieth."""
    X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, n_radiomics=40, return_X_y=True, random_state=0)
    columns, names = [c for c in X if c.startswith("radiomics_")], []
    for chosen in (columns, columns[:-1], columns[:-2] + columns[-1:], columns):
        model = MMDLS([("radiomics", TabularEncoder(), chosen)], trainer=Trainer(max_epochs=1), random_state=0)
        search = OptunaSearch(model, n_trials=1, cv=2, refit=False, storage=tmp_path / "s.log", random_state=0)
        names.append(search.fit(X, y).study_.study_name)
    assert len(set(names)) == 3 and names[0] == names[-1]


def test_what_changes_a_score_has_a_study_of_its_own(data, tmp_path):
    """Another score, seed or weight must not meet trials of the first search, though rows and folds are the same."""
    X, y = StandardScaler().fit_transform(data[0]), data[1]
    folds, weights = list(KFold(2, shuffle=True, random_state=0).split(X)), np.arange(len(y)) % 3 + 1.0

    def name(random_state=0, sample_weight=None, **scoring):
        options = {"n_trials": 1, "cv": folds, "refit": False, "storage": tmp_path / "s.log", **scoring}
        search = OptunaSearch(
            LogisticRegression(), {"C": FloatDistribution(0.1, 1)}, random_state=random_state, **options
        )
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        return search.fit(X, y, **given).study_.study_name

    others = [
        name(scoring="roc_auc"),
        name(scoring="neg_log_loss"),
        name(scoring=make_scorer(roc_auc_score, response_method="predict_proba")),
        name(scoring=lambda estimator, X, y: 0.5),
        name(random_state=1),
        name(sample_weight=weights),
    ]
    assert len({name(), *others}) == 1 + len(others)
    assert name() == name() and name(scoring="roc_auc") == others[0] and name(sample_weight=weights) == others[-1]


@pytest.mark.parametrize("n_trials", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_two_processes_lose_and_repeat_nothing_though_one_is_killed(tmp_path, n_trials):
    crew = Crew(tmp_path, n_trials)
    first, second = crew.start("first.csv"), crew.start("second.csv")
    crew.kill_in_mid_trial(first)
    again = crew.start("again.csv")
    assert second.wait(timeout=120) == 0 and again.wait(timeout=120) == 0
    complete, died, given_back = [], [], []
    for trial in crew.trials():
        if trial.state == optuna.trial.TrialState.COMPLETE:
            complete.append(trial)
        elif trial.state == optuna.trial.TrialState.FAIL:
            (given_back if "given_back" in trial.user_attrs else died).append(trial)
    assert len(complete) == n_trials
    assert len({t.params["quality"] for t in complete}) == n_trials  # nothing twice
    # Whatever was killed was run again, with the same parameters.
    successors = {t.user_attrs["again"]: t for t in complete if t.user_attrs.get("again", -1) >= 0}
    assert set(successors) == {t.number for t in died}
    assert all(t.params.items() <= successors[t.number].params.items() for t in died)
    assert not any(t.params for t in given_back)
    assert len({t.user_attrs["process"] for t in complete}) >= 2
    tables = crew.tables("second.csv", "again.csv")
    pd.testing.assert_frame_equal(*tables)
    assert (tables[0]["state"] == "COMPLETE").all() and len(tables[0]) == n_trials
    written, kept = sorted(tables[0]["param_quality"]), sorted(t.params["quality"] for t in complete)
    np.testing.assert_allclose(written, kept, rtol=1e-14)  # pandas before 3.1 reads the last digit of a CSV differently


def test_two_processes_share_a_database(tmp_path):
    database = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=database, study_name="makes the tables")
    crew = Crew(tmp_path, 12, database)
    _ends_with_one_table(crew)


def test_two_processes_share_a_grpc_proxy(tmp_path):
    pytest.importorskip("grpc")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    crew = Crew(tmp_path, 12, f"grpc://localhost:{port}")
    serve = (
        "from optuna.storages import get_storage, run_grpc_proxy_server as run\n"
        f"run(get_storage('sqlite:///{tmp_path / 'study.db'}'), host='localhost', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-c", serve], env=crew.environment)
    try:
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            proxy = optuna.storages.GrpcStorageProxy(host="localhost", port=port)
        proxy.wait_server_ready(timeout=600)
        _ends_with_one_table(crew)
    finally:
        server.terminate()
        server.wait()


def _ends_with_one_table(crew):
    workers = [crew.start(name) for name in ("first.csv", "second.csv")]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    one, other = crew.tables("first.csv", "second.csv")
    pd.testing.assert_frame_equal(one, other)
    assert len(one) == one["param_quality"].nunique() == crew.n_trials


def test_an_address_that_is_none_is_named(data):
    with pytest.raises(ValueError, match="expected 'grpc://host:port'"):
        OptunaSearch(model(), SPACE, storage="grpc://localhost").fit(*data)


QUALITY = {"quality": FloatDistribution(0, 1)}


def test_a_trial_too_many_is_given_back(tmp_path, monkeypatch):
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    search = OptunaSearch(Moody(), QUALITY, n_trials=3, cv=2, storage=tmp_path / "study.log", random_state=0)
    ask = optuna.Study.ask

    def ask_late(study):
        if len(study.trials) == 2:  # another process takes the last trial at this very moment
            other = ask(study)
            other.suggest_float("quality", 0, 1)
            study.tell(other, 0.25)
        return ask(study)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", ask_late)
        table = search.fit(X, y).cv_results_
    late = search.study_.trials[3]
    assert late.state == optuna.trial.TrialState.FAIL and not late.params
    assert len(table["state"]) == 3 and list(table["state"]) == ["COMPLETE"] * 3
    assert len(search.set_params(n_trials=5).fit(X, y).cv_results_["state"]) == 5


def test_what_two_processes_put_in_at_once_is_run_once(tmp_path, monkeypatch):
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    search = OptunaSearch(Moody(), QUALITY, n_trials=4, cv=2, storage=tmp_path / "study.log", random_state=0)
    enqueue = optuna.Study.enqueue_trial
    fits, stops = [], iter([True])

    def moody(estimator, X, y):
        fits.append(estimator.quality)
        if next(stops, False):
            raise KeyboardInterrupt
        return estimator.quality

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", lambda *a, **k: [enqueue(*a, **k), enqueue(*a, **k)])
        search.set_params(scoring=moody)
        with pytest.raises(KeyboardInterrupt):
            search.fit(X, y)
        table = search.fit(X, y).cv_results_
    assert list(table["state"]) == ["COMPLETE"] * 4
    assert fits[:3] == [0.5] * 3 and len(fits) == 1 + 2 * 4  # the first trial was stopped once, in its first fold
    assert len(set(table["param_quality"])) == 4


def test_trials_of_other_machines_are_waited_for_while_they_live(tmp_path, monkeypatch):
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    monkeypatch.setattr("mmdls.search._workers.HEARTBEAT_TIMEOUT", 1.0)
    search = OptunaSearch(Moody(), QUALITY, n_trials=1, cv=2, storage=tmp_path / "study.log", random_state=0)
    study = search.fit(X, y).study_
    alive, dead = study.ask(), study.ask()
    for trial in (alive, dead):
        trial.set_user_attr("process", "elsewhere:1:token")
        trial.suggest_float("quality", 0, 1)

    def work():
        for sign in range(20):
            time.sleep(0.1)
            alive.set_user_attr("heartbeat", sign)
        study.tell(alive, 0.125)

    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(work)
        table = search.set_params(n_trials=4).fit(X, y).cv_results_
    assert list(table["state"]) == ["COMPLETE"] * 4
    assert table["param_quality"][2] == dead.params["quality"]
    assert np.isnan(table["split0_test_score"][1]) and not np.isnan(table["split0_test_score"][2])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        dead.set_user_attr("heartbeat", 1)  # too late: it has been run again


def test_a_trial_that_was_taken_over_is_left_to_the_other(tmp_path):
    """A process that slept while others took it for dead goes on with the next trial."""
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    slept = []

    def slow(estimator, X, y):
        if not slept:
            slept.append(study := optuna.load_study(study_name=None, storage=storage()))
            study.tell(study.trials[-1].number, state=optuna.trial.TrialState.FAIL)
        return estimator.quality

    def storage():
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log")))

    search = OptunaSearch(
        Moody(), QUALITY, scoring=slow, n_trials=3, cv=2, storage=tmp_path / "study.log", random_state=0
    )
    table = search.fit(X, y).cv_results_
    assert len(search.study_.trials) == 4 and list(table["state"]) == ["COMPLETE"] * 3
    assert table["param_quality"][0] == 0.5


def test_a_trial_that_kills_every_process_is_given_up(tmp_path):
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    search = OptunaSearch(Moody(), QUALITY, n_trials=1, cv=2, storage=tmp_path / "study.log", random_state=0)
    study = search.fit(X, y).study_
    for _ in range(5):
        trial = study.ask()
        trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}:another")
        trial.suggest_float("quality", 0, 1)
        for _ in range(2):
            Trials(study, n_trials=2)._requeue(study.trials[-1])
    table = search.set_params(n_trials=3).fit(X, y).cv_results_
    assert list(table["state"]) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert table["error"][1] == "its process died 5 times"


def test_what_stopped_a_search_is_run_again(tmp_path):
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    moods = iter([True])

    def moody(estimator, X, y):
        if estimator.quality != 0.5 and next(moods, False):
            raise KeyboardInterrupt
        return estimator.quality

    search = OptunaSearch(
        Moody(), QUALITY, scoring=moody, n_trials=3, cv=2, storage=tmp_path / "study.log", random_state=0
    )
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    table = search.fit(X, y).cv_results_
    assert list(table["state"]) == ["COMPLETE"] * 3
    assert table["param_quality"][1] == search.study_.trials[1].params["quality"]


def test_results_are_a_table(data):
    search = OptunaSearch(model(), SPACE, n_trials=3, cv=2, random_state=0, verbose=1).fit(*data)
    table = pd.DataFrame(search.cv_results_)
    assert len(table) == 3 and (table["seconds"] >= 0).all()


@parametrize_with_checks(
    [OptunaSearch(LogisticRegression(), {"C": FloatDistribution(0.1, 1)}, n_trials=2, cv=2, random_state=0)]
)
def test_it_keeps_the_contract_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


class SlowClassifier(ClassifierMixin, BaseEstimator):
    def __init__(self, a=0.0):
        self.a = a

    def fit(self, X, y):
        time.sleep(0.02)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.resize(self.classes_, len(X))


def test_no_trial_starts_after_the_time_is_up(data, monkeypatch):
    """The clock is the test's own: a quarter of a second a look."""
    clock = iter(np.arange(0.0, 1e6, 0.25))
    monkeypatch.setattr("mmdls.search._workers.monotonic", lambda: next(clock))
    space = {"a": FloatDistribution(0, 1)}
    search = OptunaSearch(SlowClassifier(), space, n_trials=10_000, timeout=2.0, cv=2, random_state=0).fit(*data)
    assert 0 < len(search.cv_results_["state"]) <= 8
    assert set(search.cv_results_["state"]) == {"COMPLETE"} and hasattr(search, "best_estimator_")


def test_weights_reach_the_scores_that_ask_for_them(data):
    """As in scikit-learn's own search: routed weights count when folds are scored."""
    X, y = StandardScaler().fit_transform(data[0]), data[1]
    weights = np.where(y == 1, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=True)
        values = {}
        for asked in (True, False):
            scorer = make_scorer(accuracy_score).set_score_request(sample_weight=asked)
            options = {"scoring": {"weighted": scorer}, "cv": 3, "refit": "weighted"}
            search = OptunaSearch(model, {"C": FloatDistribution(0.5, 0.5)}, n_trials=1, random_state=0, **options)
            grid = GridSearchCV(model, {"C": [0.5]}, **options)
            values[asked] = search.fit(X, y, sample_weight=weights).cv_results_["mean_test_weighted"][0]
            expected = grid.fit(X, y, sample_weight=weights).cv_results_["mean_test_weighted"][0]
            assert values[asked] == pytest.approx(expected, abs=1e-12)
    assert values[True] != values[False]
    np.testing.assert_array_equal(search.decision_function(X), search.best_estimator_.decision_function(X))


@pytest.mark.parametrize("half", [b'{"op_code": 4, "wor', b"\0" * 50], ids=["half", "zeros"])
def test_the_half_line_of_a_writer_that_died_is_forgotten(half, tmp_path):
    path = tmp_path / "study.log"
    before = _journalled(path, 3).cv_results_
    content = path.read_bytes()
    path.write_bytes(content + half)
    again = _journalled(path, 5).cv_results_
    assert len(again["state"]) >= 5 and np.isin(list(before["param_alpha"]), list(again["param_alpha"])).all()
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_damaged_journal_is_named_with_the_line_and_what_to_do(tmp_path):
    path = tmp_path / "study.log"
    _journalled(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"garbage\n", b"\xff\xfe\n", b"\n"):
        path.write_bytes(b"".join([*lines[:4], damage, *lines[4:]]))
        with pytest.raises(ValueError, match=r"the journal '.*study\.log' is damaged in line 5.*head -n 4"):
            _journalled(path, 3)


def _journalled(path, n_trials):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["clinical_a", "clinical_b"])
    y = pd.DataFrame({"os_time": rng.exponential(9, 60), "os_event": 1})
    space = {"alpha": FloatDistribution(0.1, 10)}
    search = OptunaSearch(ClinicalCox(endpoint="os"), space, n_trials=n_trials, cv=2, storage=path, random_state=0)
    return search.fit(X, y)


def test_other_pixels_behind_the_same_paths_have_a_study_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_a": rng.normal(size=60), "lesion_image": [str(tmp_path / "a.npy")] * 60})
    y = pd.DataFrame({"os_time": rng.exponential(9, 60), "os_event": 1})

    def name(grey):
        np.save(tmp_path / "a.npy", np.full((2, 8, 8), grey, np.uint8))
        os.utime(tmp_path / "a.npy", (0, 0))
        cox = ClinicalCox(endpoint="os")
        space = {"alpha": FloatDistribution(0.1, 10)}
        search = OptunaSearch(cox, space, n_trials=1, cv=2, storage=tmp_path / "s.log", random_state=0)
        return search.fit(X, y).study_.study_name

    assert name(1) == name(1) != name(2)
