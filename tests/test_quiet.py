"""Nothing is printed unless it is asked for, on standard output or error, by any model, search or comparison."""

import os
import subprocess
import sys

import pytest
from tqdm.auto import tqdm

from mmdls import MultimodalSurvival, Trainer
from mmdls.registry import estimators
from mmdls.testing import outcome_forms, small_study
from mmdls.testing._studies import finds_masks, measures_scans
from tests.pages import ROOT


def slow_with_scans(name):
    model = estimators[name]()
    return pytest.param(name, marks=pytest.mark.slow if finds_masks(model) or measures_scans(model) else ())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [slow_with_scans(name) for name in estimators])
def test_an_estimator_prints_nothing(name, capfd):
    if name == "radiomics_extractor":
        pytest.importorskip("fastrad")
    model, X, y = small_study(estimators[name], outcome_forms(estimators[name])[0])
    model.fit(X, y)
    getattr(model, "predict" if hasattr(model, "predict") else "transform")(X)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")
def test_bars_are_shown_one_at_a_time(cohort, monkeypatch):
    shown, started = [], tqdm.__init__

    def start(bar, *args, **kwargs):
        started(bar, *args, **kwargs)
        if not bar.disable:
            shown.append((bar.desc.rstrip(": "), sum(not other.disable for other in tqdm._instances)))

    monkeypatch.setattr(tqdm, "__init__", start)
    X, y = cohort.data[["clinical_age", "lesion_image"]], cohort.target[["os_time", "os_event"]]
    MultimodalSurvival(n_members=2, trainer=Trainer(max_epochs=1, verbose=1), random_state=0).fit(X, y)
    assert shown == [("reading images", 1), ("training", 1)]


STUDY = """
import warnings

import mmdls
from mmdls.datasets import make_nsclc_cohort
from mmdls.zoo import EmbeddingSearch

warnings.simplefilter("ignore")
X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
X, y = X[["clinical_age", "lesion_image"]], y[["os_time", "os_event"]]
models = {"clinical": "clinical_cox", "search": mmdls.OptunaSearch(mmdls.ClinicalCox(), n_trials=2, random_state=0)}
network = mmdls.MMDLS(n_members=1, trainer=mmdls.Trainer(max_epochs=1), random_state=0)
"""
USES = """
mmdls.OptunaSearch(mmdls.ClinicalCox(), n_trials=2, storage="study.log", random_state=0).fit(X, y)
mmdls.OptunaSearch(mmdls.ClinicalCox(), n_trials=2, storage="sqlite:///study.db", random_state=0).fit(X, y)
EmbeddingSearch(network, n_trials=1).fit(X, y)
found = mmdls.compare_models(models, X, y, cv=2, n_resamples=10)
first, second = (mmdls.cross_predict(mmdls.create("clinical_cox"), X, y, cv=2) for _ in range(2))
mmdls.evaluation.compare_predictions(first, second, y, n_resamples=10)
mmdls.evaluate(network.fit(X, y), X, y, horizons=[12], n_resamples=10)
mmdls.report.report(found, X, y, "report.html", horizons=[12], n_resamples=10)
mmdls.save(network, "network.mmdls", data=(X, y))
mmdls.load("network.mmdls")
mmdls.explain.modality_importance(network, X, y, n_resamples=0)
"""


def printed(code, folder):
    """What a new process prints: here alone Optuna and torch write where a user would see it."""
    done = subprocess.run(
        [sys.executable, "-c", STUDY + code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_searches_comparisons_and_files_print_nothing(tmp_path):
    assert printed(USES, tmp_path) == ""


@pytest.mark.slow
def test_what_is_asked_for_is_printed(tmp_path):
    search = "mmdls.OptunaSearch(mmdls.ClinicalCox(), n_trials=2, random_state=0, verbose={}).fit(X, y)"
    bar, lines = (printed(search.format(verbose), tmp_path) for verbose in (1, 2))
    assert "trials: 100%" in bar and "A new study" not in bar and "A new study" in lines
    assert "models x folds: 100%" in printed("mmdls.compare_models(['clinical_cox'], X, y, cv=2, verbose=1)", tmp_path)
