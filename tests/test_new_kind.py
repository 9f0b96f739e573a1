"""A kind of task that the library does not have: one class and one head, and everything else knows what to do."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

from mmdls import MMDLS, Trainer, registry
from mmdls.cohort import Task
from mmdls.training._epoch_callback import epoch_callback


class PoissonHead(nn.Module):
    """The logarithm of the expected number."""

    def __init__(self, in_features):
        super().__init__()
        self.linear = nn.Linear(in_features, 1)

    def prepare(self, count, sample_weight=None):
        nn.init.constant_(self.linear.bias, float(count.mean().log()))

    def forward(self, features):
        return self.linear(features)

    def loss(self, parameters, count, sample_weight=None):
        nll = nn.functional.poisson_nll_loss(parameters[:, 0], count.to(parameters), reduction="none")
        return nll.mean() if sample_weight is None else (nll * sample_weight).sum() / sample_weight.sum()


class RootedHead(PoissonHead):
    """Another head for the same task."""


class CountTask(Task):
    """A number of events: ``<name>_count``."""

    kind, suffixes, about, main_metric = "count", ("count",), "expected number", "r2"
    heads, default_head = {"poisson": PoissonHead}, "poisson"

    def answer(self, head, parameters):
        return parameters.exp()

    def score(self, outcome, predictions):
        return pd.Series(outcome).corr(predictions["value"], method="spearman") / 2 + 0.5


@pytest.fixture(params=[False, True], ids=["shared", "conditioned"])
def study(request, monkeypatch):
    """Lesions counted, beside a label and an endpoint; the registry forgets the kind afterwards."""
    monkeypatch.setattr(registry.tasks, "_parts", dict(registry.tasks._parts))
    monkeypatch.setattr(CountTask, "is_conditioned", request.param)
    registry.tasks.register("count")(CountTask)
    rng, ids = np.random.default_rng(0), [f"P{i}" for i in range(120)]
    X = pd.DataFrame(rng.normal(size=(120, 2)), ids, ["clinical_a", "pet_b"])
    y = pd.DataFrame({"subtype": rng.choice(["LUAD", "LUSC"], 120), "lesions_count": np.nan}, ids)
    y["os_time"], y["os_event"] = rng.exponential(20, 120), rng.random(120) < 0.6
    y["lesions_count"] = rng.poisson(np.exp(1 + X["clinical_a"])).astype(float)
    y.loc[ids[:10], "lesions_count"] = np.nan
    X.loc[ids[-1]] = np.nan
    return X, y


@pytest.mark.filterwarnings("ignore:the risks of", "ignore:1 of 120 patients have none", "ignore:y has no columns of")
def test_a_new_kind_of_task_is_learned_predicted_and_scored(study):
    X, y = study
    model, scores = MMDLS(trainer=Trainer(max_epochs=30), random_state=0), []
    with epoch_callback(lambda epoch, score: scores.append(score)):
        assert list(model.fit(X, y).tasks_) == ["subtype", "lesions", "os"]
    assert len(scores) == len(model.history_) and np.isfinite(scores).all()
    tables = model.predict_tasks(X, [12.0])
    assert list(tables["lesions"]) == ["value"] and (tables["lesions"] > 0).all(axis=None)
    predicted = model.predict(X)
    pd.testing.assert_series_equal(predicted["lesions"], tables["lesions"]["value"], check_names=False)
    assert predicted["lesions"][:-1].corr(np.exp(1 + X["clinical_a"][:-1]), method="spearman") > 0.9
    average = predicted["lesions"][:-1].mean()  # what is answered for a patient without any modality
    assert predicted["lesions"].iloc[-1] == pytest.approx(average, rel=0.02)
    assert model.score(X, y[["lesions_count"]]) > 0.9
    assert {"train_lesions_loss", "train_lesions_loss (clinical alone)", "valid_lesions_loss"} <= set(model.history_)
    assert list(model.training_outcomes_) == list(model.risk_cutpoints_) == list(model.unique_times_) == ["os"]
    for ask in (model.predict_proba, model.predict_survival_function, model.predict_risk_group):
        with pytest.raises(KeyError, match="'lesions' is none of the tasks this answers for"):
            ask(X, "lesions")


def test_weights_and_the_head_of_a_new_kind_count(study):
    X, y = study
    X, y = X[:-1], y[["lesions_count"]][:-1]
    weight = np.where(y["lesions_count"] > 3, 25.0, 1.0)
    model = MMDLS(heads={"lesions": RootedHead}, trainer=Trainer(max_epochs=20), random_state=0)
    light, heavy = (clone(model).fit(X, y, sample_weight=w).predict(X)["lesions"].mean() for w in (None, weight))
    assert heavy > light * 1.2
    assert type(model.fit(X, y).net_.module_.head("lesions")) is RootedHead
    torch.testing.assert_close(PoissonHead(2).loss(torch.zeros(2, 1), torch.tensor([1.0, 3])), torch.tensor(1.0))
