"""One seed gives one model: the same bits with the same threads, the same to 1e-5 with other threads and workers."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from threadpoolctl import threadpool_info

from mmdls import MMDLS, SliceEncoder, Trainer, cross_predict, evaluate
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import (
    ClinicalCox,
    CoxNet,
    MultimodalSurvival,
    SignWeightedBagging,
    SurvivalBoosting,
    SurvivalForest,
)
from mmdls.estimators.survival import _tabular_survival
from mmdls.modules import AntialiasedBackbone, SliceNet
from mmdls.tasks import SurvivalTask
from mmdls.training import _build, _net
from mmdls.training._members import fit_linear_part
from mmdls.training._threads import in_threads, threads_of_torch


@pytest.fixture(scope="module")
def patients():
    X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, missing=0.1, return_X_y=True, random_state=0)
    columns = [c for c in X.columns if c.startswith(("clinical_", "lesion_image"))]
    return X[columns], y[["os_time", "os_event", "subtype"]]


def _model(**settings):
    trainer = Trainer(max_epochs=4, batch_size=20, **settings)
    return MMDLS(n_members=2, image_encoder=SliceEncoder(pooling="gated_attention"), trainer=trainer, random_state=0)


@pytest.fixture(scope="module")
def fitted(patients):
    return _model().fit(*patients)


def _weights(model):
    return {name: tensor.clone() for name, tensor in model.net_.module_.state_dict().items()}


def test_one_seed_gives_the_same_weights_bit_by_bit(patients, fitted):
    torch.rand(3)  # the caller's random numbers are no part of it
    again = _model().fit(*patients)
    weights, others = _weights(fitted), _weights(again)
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    other = _model().set_params(random_state=1).fit(*patients)
    assert any(not torch.equal(weights[name], tensor) for name, tensor in _weights(other).items())


def test_threads_change_rounding_only(patients, fitted):
    X, _ = patients
    torch.set_num_threads(2)
    try:
        model = _model().fit(*patients)
        answers = model.predict_tasks(X)
    finally:
        torch.set_num_threads(1)
    for task, table in fitted.predict_tasks(X).items():
        np.testing.assert_allclose(answers[task], table, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augmentation", [None, "standard"])
def test_bags_are_encoded_side_by_side_where_no_random_numbers_are_drawn(patients, monkeypatch, augmentation):
    counts = []

    def recording(work, arguments, n_workers):
        counts.append(n_workers)
        return in_threads(work, arguments, n_workers)

    monkeypatch.setattr(_net, "in_threads", recording)
    encoder = SliceEncoder(augmentation=augmentation)
    model = MMDLS(n_members=3, image_encoder=encoder, trainer=Trainer(max_epochs=2), random_state=0)
    alone = _weights(clone(model).fit(*patients))
    assert not counts
    with threads_of_torch(2):
        together = [_weights(clone(model).fit(*patients)) for _ in range(2)]
        assert torch.get_num_threads() == 2
    assert set(counts) == (set() if augmentation else {2})
    for name in alone:
        assert torch.equal(together[0][name], together[1][name])
        if not augmentation:  # each bag has one thread, so that not even rounding differs
            assert torch.equal(alone[name], together[0][name])


def test_tables_are_learned_with_one_thread(patients, monkeypatch):
    seen = []

    def recording(*args, **kwargs):
        seen.append((torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}))
        return fit_linear_part(*args, **kwargs)

    monkeypatch.setattr(_build, "fit_linear_part", recording)
    with threads_of_torch(2):
        MMDLS(n_members=1, trainer=Trainer(max_epochs=1)).fit(patients[0].drop(columns="lesion_image"), patients[1])
        assert torch.get_num_threads() == 2
    assert seen == [(1, {1})]


@pytest.mark.parametrize(("few", "n_threads"), [(2**18, 1), (0, 2)])
def test_answers_are_computed_with_one_thread_but_for_many_items(patients, fitted, monkeypatch, few, n_threads):
    """Small networks with several threads wait longer than they compute, and keep other processors busy."""
    monkeypatch.setattr(AntialiasedBackbone, "few_pixels", few)
    seen = {}

    def record(owner, name):
        original = getattr(owner, name)

        def recording(*args, **kwargs):
            seen.setdefault(name, set()).add(torch.get_num_threads())
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, recording)

    for owner, name in ((SliceNet, "features"), (SliceNet, "pool"), (SurvivalTask, "predictions")):
        record(owner, name)
    with threads_of_torch(2):
        fitted.predict(patients[0][:1])
        assert torch.get_num_threads() == 2
    assert seen == {"features": {n_threads}, "pool": {1}, "predictions": {1}}


def test_workers_change_nothing(patients, fitted):
    X, y = patients
    model = _model(n_jobs=2).fit(X, y)
    pd.testing.assert_frame_equal(model.predict(X), fitted.predict(X), check_exact=True)
    pd.testing.assert_frame_equal(*(evaluate(fitted, X, y, n_resamples=20, random_state=0) for _ in range(2)))


@pytest.mark.slow
def test_processes_change_nothing(patients):
    one, two = (cross_predict(_model(), *patients, cv=2, n_jobs=n) for n in (None, 2))
    for task in one.predictions:
        pd.testing.assert_frame_equal(one.predictions[task], two.predictions[task], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [ClinicalCox, CoxNet, SurvivalForest, SurvivalBoosting, SignWeightedBagging])
def test_comparators_depend_on_the_seed_only(patients, kind):
    X, y = patients[0].drop(columns="lesion_image"), patients[1]
    settings = {"random_state": 0} if "random_state" in kind().get_params() else {}
    model = kind(endpoint="os", columns="all", **settings)
    first, second = (clone(model).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    if "n_jobs" in kind().get_params():
        third = clone(model).set_params(n_jobs=2).fit(X, y).predict(X)
        np.testing.assert_allclose(third, first, rtol=1e-12)


def test_many_threads_are_answered_as_one(patients, fitted):
    from concurrent.futures import ThreadPoolExecutor

    X, _ = patients
    parts = [X.iloc[start : start + 9] for start in range(0, 40, 4)]
    alone = [fitted.predict_tasks(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(fitted.predict_tasks, parts))
    for one, other in zip(alone, together, strict=True):
        for task in one:
            pd.testing.assert_frame_equal(one[task], other[task], check_exact=True)


def test_survival_at_asked_times_is_that_of_the_whole_curve(patients, fitted, monkeypatch):
    X, y = patients
    tables = X.drop(columns="lesion_image")
    times = [1e-3, 7.0, 12.5, 36.0, 1e4]
    monkeypatch.setattr(_tabular_survival, "_PATIENTS", 7)
    cox = ClinicalCox(endpoint="os").fit(tables, y)
    single = MultimodalSurvival(endpoint="os", n_members=1, trainer=Trainer(max_epochs=2), random_state=0).fit(
        tables, y
    )
    for model, table, name in ((fitted, X, ["os"]), (cox, tables, []), (single, tables, [])):
        found = model.predict_survival_function(table, *name, times=times)
        assert found.shape == (40, 5) and np.isnan(found[:, -1]).all()
        curves = model.predict_survival_function(table, *name)
        expected = np.array([[curve(time) for time in times[:-1]] for curve in curves])
        np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-9)
        with pytest.raises(ValueError, match="times must be finite months above 0, ascending"):
            model.predict_survival_function(table, *name, times=[12, 6])
