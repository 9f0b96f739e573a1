"""Parts that a process registers for itself reach the workers of joblib with the estimator."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from joblib.externals.loky.backend.reduction import dumps
from torch import nn

from mmdls import MMDLS, OptunaSearch, SliceEncoder
from mmdls.estimators import LungLesionSegmentor
from mmdls.registry import poolings

ROOT = Path(__file__).parents[1]


def pooling(width):
    """A class as a notebook defines it: another process has no module to import it from."""

    class Sum(nn.Module):
        def forward(self, slices, mask):
            return slices.sum(1)[..., :width]

    Sum.__module__, Sum.__qualname__, Sum.width = "__main__", "Sum", width
    return Sum


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(poolings, "_parts", {name: poolings[name] for name in poolings})
    monkeypatch.setattr(poolings, "_received", set())
    poolings.register("sum")(pooling(1))


MODELS = [
    MMDLS(image_encoder=SliceEncoder(pooling="sum")),
    SliceEncoder(pooling="sum"),
    OptunaSearch(MMDLS(), {}),
    LungLesionSegmentor(),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_worker_knows_the_parts_that_were_registered_where_its_work_comes_from(model, registered):
    sent = dumps(model)
    del poolings._parts["sum"]  # as in a new process
    there = pickle.loads(sent)
    assert poolings["sum"].width == 1 and "_carried" not in vars(there)
    assert repr(there) == repr(model)


def test_a_part_that_is_defined_anew_takes_the_place_of_its_former_self_in_a_worker_alone(registered):
    first = dumps(MMDLS())
    poolings.register("sum")(pooling(2))
    second = dumps(MMDLS())
    pickle.loads(first)
    assert poolings["sum"].width == 2
    del poolings._parts["sum"]
    for sent, width in ((first, 1), (second, 2)):
        pickle.loads(sent)
        assert poolings["sum"].width == width


def test_a_part_of_a_module_is_imported_and_not_missed_where_it_is_unknown(registered, tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text("class Own:\n    def forward(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    import of_mine

    poolings.register("own")(of_mine.Own)
    sent = dumps(MMDLS())
    del poolings._parts["own"], sys.modules["of_mine"]
    pickle.loads(sent)
    assert poolings["own"].__module__ == "of_mine"
    del poolings._parts["own"], sys.modules["of_mine"]
    (tmp_path / "of_mine.py").unlink()
    pickle.loads(sent)
    assert "own" not in poolings


def test_pickles_copies_and_hashes_do_without_the_parts(registered):
    model = MMDLS(image_encoder=SliceEncoder(pooling="sum"))
    pickled, hashed = pickle.dumps(model), joblib.hash(model)
    for twin in (pickle.loads(pickled), copy.copy(model), copy.deepcopy(model)):
        assert vars(twin).keys() == vars(model).keys()
    del poolings._parts["sum"]
    assert (pickle.dumps(model), joblib.hash(model)) == (pickled, hashed)
    pickle.loads(pickled)
    assert "sum" not in poolings


@pytest.mark.slow
def test_folds_run_at_once_in_a_script_that_registers_a_backbone():
    script = """
from optuna.distributions import CategoricalDistribution
from sklearn.model_selection import cross_validate
from torch import nn
from mmdls import MMDLS, OptunaSearch, SliceEncoder, Trainer, compare_models, cross_predict
from mmdls.datasets import make_nsclc_cohort
from mmdls.evaluation import make_scorers
from mmdls.model_selection import CohortKFold
from mmdls.registry import backbones


@backbones.register("tiny")
class Tiny(nn.Module):
    def __init__(self, in_channels=1, width=4):
        super().__init__()
        self.out_channels = [width]
        self.layer = nn.Conv2d(in_channels, width, 3, 2, 1)

    def forward(self, image):
        return [self.layer(image)]


X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, return_X_y=True, random_state=0)
X, y = X[["lesion_image"]], y[["os_time", "os_event"]]
model = MMDLS(image_encoder=SliceEncoder(backbone="tiny"), n_members=1, trainer=Trainer(max_epochs=1), random_state=0)
cv = CohortKFold(2, random_state=0)
cross_validate(model, X, y, cv=cv, scoring=make_scorers(y), n_jobs=2, error_score="raise")
cross_predict(model, X, y, cv=2, n_jobs=2)
compare_models({"own": model}, X, y, cv=2, n_jobs=2, n_resamples=10)
space = {"image_encoder__backbone__width": CategoricalDistribution([2, 4])}
OptunaSearch(model, space, cv=2, n_trials=1, random_state=0, n_jobs=2).fit(X, y)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-"], input=script, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
