"""Weights of patients and of classes reach everything that is learned; a patient of weight 0 is not there."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils import compute_sample_weight

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival, SliceEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators.survival._risk_groups import fit_cutpoints
from mmdls.modules import CoxHead

QUICK = {"trainer": Trainer(max_epochs=3), "random_state": 0}


def plain_baseline(log_hazard, event, time, weight, ties):
    """The definition, event time by event time: cumulative hazard at every time seen."""
    hazard, times = np.exp(log_hazard), np.unique(time)
    total, found = 0.0, []
    for t in times:
        left, tied = (weight * hazard)[time >= t].sum(), event & (time == t)
        for k in range(tied.sum()):
            own = (weight * hazard)[tied].sum() * k / tied.sum() if ties == "efron" else 0.0
            total += weight[tied].mean() / (left - own)
        found.append(total)
    return times, np.array(found)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_baseline_hazard_follows_its_definition(ties, weighted):
    rng = np.random.default_rng(0)
    log_hazard, event, time = rng.normal(size=80), rng.random(80) < 0.6, rng.integers(1, 15, 80).astype(float)
    weight = rng.uniform(0.2, 3, 80) if weighted else np.ones(80)
    head = CoxHead(1, ties=ties)
    given = [torch.as_tensor(part) for part in (log_hazard[:, None], event, time)]
    head.fit_baseline(*given, *([torch.as_tensor(weight)] if weighted else []))
    times, expected = plain_baseline(log_hazard, event, time, weight, ties)
    np.testing.assert_array_equal(head.times, times)
    np.testing.assert_allclose(head.log_cumulative_hazard.exp(), expected, rtol=1e-10)
    absent = torch.as_tensor(np.where(np.arange(80) % 3, weight, 0.0))
    head.fit_baseline(*given, absent)
    there = absent.numpy() > 0
    fewer = CoxHead(1, ties=ties)
    fewer.fit_baseline(*(part[there] for part in given), absent[there])
    torch.testing.assert_close(head.log_cumulative_hazard, fewer.log_cumulative_hazard, rtol=0, atol=0)
    torch.testing.assert_close(head.times, fewer.times)


@pytest.fixture(scope="module")
def patients():
    return make_nsclc_cohort(80, n_slices=2, image_size=12, n_radiomics=4, return_X_y=True, random_state=0)


@pytest.mark.parametrize("survival", ["cox", "logistic_hazard"])
def test_a_patient_of_weight_zero_is_not_there(patients, survival):
    X, y = patients
    weight = np.where(np.arange(80) % 4 == 1, 0.0, np.random.default_rng(1).uniform(0.5, 2, 80))
    # What the absent ones hold would bend scales, curves, cut-points and averages.
    X, y = X.copy(), y.copy()
    X.loc[weight == 0, "clinical_age"] = 1e4
    y.loc[weight == 0, ["dfs_time", "os_time"]], y.loc[weight == 0, ["dfs_event", "os_event"]] = 0.5, True
    model = MMDLS(survival_head=survival, auxiliary_horizons=(12,), **QUICK)
    there = weight > 0
    alone = model.fit(X[there], y[there], sample_weight=weight[there])
    answers = _answers(alone, X)
    ids = pd.Series(weight, X.index).sample(frac=1, random_state=0)
    for given in (weight, ids):
        found = _answers(
            MMDLS(survival_head=survival, auxiliary_horizons=(12,), **QUICK).fit(X, y, sample_weight=given), X
        )
        for name, values in answers.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_an_encoder_that_trains_alone_does_not_see_them_either(patients):
    X, y = patients[0][["lesion_image"]], patients[1]
    weight = np.where(np.arange(80) % 3, 1.5, 0.0)
    encoder = SliceEncoder(embedding_dim=4, **QUICK)
    alone = encoder.fit(X[weight > 0], y[weight > 0], sample_weight=weight[weight > 0]).transform(X)
    np.testing.assert_array_equal(encoder.fit(X, y, sample_weight=weight).transform(X), alone)


def _answers(model, X):
    nobody = X.reindex(["nobody"])
    with pytest.warns(UserWarning, match="none of the modalities"):
        average = model.predict_proba(nobody, "stage")
    return {
        "labels": model.predict(X)["stage"],
        "curves": model.predict_survival_function(X, "os", return_array=True),
        "groups": model.predict_risk_group(X, "os"),
        "cut-points": model.risk_cutpoints_["os"],
        "average": average,
        "history": model.history_[["train_loss", "valid_loss"]],
    }


def test_weights_reach_validation_cutpoints_and_averages(patients):
    X, y = patients
    X = X[["clinical_age", "pet_suvmax"]]
    weight = np.random.default_rng(2).uniform(0.1, 5, 80)
    model = MMDLS(n_members=1, **QUICK).fit(X, y, sample_weight=weight)
    risk = model.predict(X)["os"].to_numpy()
    known = y["os_time"].notna().to_numpy()
    np.testing.assert_array_equal(model.risk_cutpoints_["os"], fit_cutpoints(risk[known], weight[known]))
    assert not np.array_equal(model.risk_cutpoints_["os"], fit_cutpoints(risk[known]))
    outcome = y.loc[known]
    times, hazard = plain_baseline(
        risk[known], outcome["os_event"].to_numpy() == 1, outcome["os_time"].to_numpy(), weight[known], "efron"
    )
    curves = model.predict_survival_function(X, "os", return_array=True)
    np.testing.assert_allclose(curves, np.exp(-np.exp(risk)[:, None] * hazard), rtol=1e-5)
    np.testing.assert_array_equal(model.unique_times_["os"], times)
    with pytest.warns(UserWarning, match="none of the modalities"):
        average = model.predict_proba(X.iloc[:1] * np.nan, "stage")[0]
    np.testing.assert_allclose(average, np.average(model.predict_proba(X, "stage"), axis=0, weights=weight), rtol=1e-6)
    plain = MMDLS(n_members=1, **QUICK).fit(X, y)
    first = [fitted.history_["valid_loss"].iloc[0] for fitted in (model, plain)]
    assert first[0] != pytest.approx(first[1], rel=1e-3)


def test_the_baseline_can_be_estimated_again_with_weights(patients):
    X, y = patients
    X = X[["clinical_age", "pet_suvmax"]]
    model = MMDLS(**QUICK).fit(X, y)
    half = np.where(np.arange(80) < 40, 1.0, 0.0)
    weighted = model.fit_baselines(X, y, sample_weight=half).predict_survival_function(X, "os", return_array=True)
    alone = model.fit_baselines(X[:40], y[:40]).predict_survival_function(X, "os", return_array=True)
    np.testing.assert_array_equal(weighted, alone)


def test_impossible_weights_are_refused(patients):
    X, y = patients
    model = MMDLS(**QUICK)
    with pytest.raises(ValueError, match="must contain at least one non-zero"):
        model.fit(X, y, sample_weight=np.zeros(80))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        model.fit(X, y, sample_weight=-np.ones(80))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, y, sample_weight=np.full(80, np.nan))
    known = y["os_event"] == 1
    with pytest.raises(ValueError, match="endpoint 'os' has no event"):
        MultimodalSurvival(endpoint="os", **QUICK).fit(X, y, sample_weight=(~known).astype(float))


@pytest.fixture(scope="module")
def imbalanced():
    rng = np.random.default_rng(0)
    label = np.array(["rare"] * 15 + ["common"] * 105)
    return rng.normal(size=(120, 3)) + (label == "rare")[:, None], label


@pytest.mark.parametrize("class_weight", ["balanced", {"rare": 5.0, "common": 0.5}, {"rare": 3.0}])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_weights_of_patients(imbalanced, class_weight, weighted):
    X, y = imbalanced
    weight = np.random.default_rng(1).uniform(0.5, 2, 120) if weighted else None
    found = MultimodalClassifier(class_weight=class_weight, **QUICK).fit(X, y, sample_weight=weight)
    if class_weight == "balanced":
        total = {label: (np.ones(120) if weight is None else weight)[y == label].sum() for label in ("rare", "common")}
        by_class = {label: sum(total.values()) / (2 * part) for label, part in total.items()}
    else:
        by_class = class_weight
    given = compute_sample_weight(by_class | {"common": by_class.get("common", 1.0)}, y)
    given = given if weight is None else given * weight
    expected = MultimodalClassifier(**QUICK).fit(X, y, sample_weight=given)
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def test_balanced_classes_find_the_rare_one(imbalanced):
    X, y = imbalanced
    found = {
        how: (
            MultimodalClassifier(class_weight=how, trainer=Trainer(max_epochs=25), random_state=0).fit(X, y).predict(X)
            == "rare"
        ).sum()
        for how in (None, "balanced")
    }
    assert found["balanced"] > found[None] + 10
    with pytest.warns(UserWarning, match="no two classes of 'label'.*nobody is held out"):
        MultimodalClassifier(class_weight={"rare": 0.0, "common": 1.0}, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match="are not in class_weight"):
        MultimodalClassifier(class_weight={"rar": 2.0}, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match="class_weight must hold finite numbers of 0 or more"):
        MultimodalClassifier(class_weight={"rare": -2.0, "common": 1.0}, **QUICK).fit(X, y)
