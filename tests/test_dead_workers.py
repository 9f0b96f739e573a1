"""A worker process that is ended from outside is said, with what to do; nothing hangs, and a study goes on."""

import os
import signal
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from mmdls import ClinicalCox, OptunaSearch, cross_predict
from mmdls.datasets import make_nsclc_cohort
from mmdls.zoo import compare_models

SAID = r"a worker process was ended from outside.*memory was short\. {}.*n_jobs=1"


class Dying(TransformerMixin, BaseEstimator):
    """Ends its process in fit, as a system does that is short of memory, once for each file of a folder."""

    def __init__(self, folder="", strength=1.0):
        self.folder, self.strength = folder, strength

    def fit(self, X, y=None):
        for file in sorted(Path(self.folder).iterdir()):
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def transform(self, X):
        return X

    def get_feature_names_out(self, names=None):
        return names


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    return X[["clinical_age"]], y[["os_time", "os_event"]]


@pytest.fixture
def model(tmp_path):
    return make_pipeline(Dying(str(tmp_path / "deaths")), ClinicalCox())


@pytest.fixture
def deaths(tmp_path):
    (tmp_path / "deaths").mkdir()
    return tmp_path / "deaths"


@pytest.mark.slow
def test_out_of_fold_predictions(cohort, model, deaths):
    (deaths / "one").touch()
    with pytest.raises(RuntimeError, match=SAID.format("The fits that were finished are not kept")):
        cross_predict(model, *cohort, cv=3, n_jobs=2)
    assert not list(deaths.iterdir())
    again, alone = (cross_predict(model, *cohort, cv=3, n_jobs=n_jobs)["os"] for n_jobs in (2, 1))
    pd.testing.assert_frame_equal(again, alone)


def test_comparisons(cohort, model, deaths):
    (deaths / "one").touch()
    models = {"dying": model, "other": ClinicalCox()}
    with pytest.raises(RuntimeError, match=SAID.format("The fits that were finished are not kept")):
        compare_models(models, *cohort, cv=3, n_jobs=2, n_resamples=0)


@pytest.mark.slow
def test_a_search_goes_on_from_its_storage(cohort, model, deaths, tmp_path):
    space = {"dying__strength": optuna.distributions.FloatDistribution(0, 1)}

    def search(n_jobs):
        storage = str(tmp_path / "study.log")
        return OptunaSearch(model, space, n_trials=3, cv=2, n_jobs=n_jobs, storage=storage, refit=False, random_state=0)

    class Second(optuna.samplers.RandomSampler):
        """The second trial ends its worker."""

        def before_trial(self, study, trial):
            if trial.number == 1:
                (deaths / "one").touch()

    with pytest.raises(RuntimeError, match=SAID.format("Finished trials stay in the storage")):
        search(2).set_params(sampler=Second(seed=0)).fit(*cohort)
    found = search(2).set_params(sampler=Second(seed=0)).fit(*cohort)
    assert list(found.cv_results_["state"]) == ["COMPLETE"] * 3
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    kept = found.study_.get_trials()
    assert kept[0].datetime_complete < kept[-1].datetime_start
