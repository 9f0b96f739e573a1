"""Tables that a patient lacks are what the others say of them, and models that lack tables are right without them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import mmdls
from mmdls import MMDLS, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.encoders import TableData
from mmdls.estimators import TabularEncoder
from mmdls.training._completion import Completion, _best_number, _Factors, location_and_scale
from mmdls.training._inputs import Inputs

SIZES = {"clinical": 3, "pet": 4, "genes": 6}


def draw(n, seed=0, n_factors=2):
    """Tables of common factors and noise, and the covariance of all columns."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).normal(size=(sum(SIZES.values()), n_factors))
    columns = rng.normal(size=(n, n_factors)) @ loadings.T + rng.normal(size=(n, len(loadings)))
    tables = np.split(columns, np.cumsum(list(SIZES.values()))[:-1], axis=1)
    return tables, loadings @ loadings.T + np.eye(len(loadings)), loadings


def inputs_of(tables, here, linear=True):
    data = {
        name: TableData(table, there, linear=linear) for name, table, there in zip(SIZES, tables, here.T, strict=True)
    }
    return Inputs.of(data)


def some_missing(n, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, len(SIZES))) < 0.7


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(320, n_slices=1, image_size=8, n_radiomics=6, return_X_y=True, random_state=1)
    return X.drop(columns=["centre", "treatment", "lesion_image", "lung_image"]), y[["stage"]]


@pytest.fixture(scope="module")
def model(cohort):
    X, y = cohort
    trainer = Trainer(max_epochs=1)
    return MMDLS(trainer=trainer, n_members=1, random_state=0).fit(X[:200], y[:200])


def without(X, *blocks):
    gone = X.copy()
    gone[[c for c in X if c.split("_")[0] in blocks]] = np.nan
    return gone


def test_expected_tables_are_the_conditional_means_of_a_normal_distribution():
    tables, covariance, loadings = draw(5)
    places = np.split(np.arange(len(covariance)), np.cumsum(list(SIZES.values()))[:-1])
    factors = _Factors([loadings[own] for own in places], [np.ones(len(own)) for own in places])
    here = np.array([[True, False, True], [False, False, True], [True, True, True], [False] * 3, [True, False, False]])
    expected = np.hstack(factors.expected([np.where(here[:, [i]], t, np.nan) for i, t in enumerate(tables)], here))
    columns = np.hstack(tables)
    for row, pattern in enumerate(here):
        seen = np.concatenate([own for own, there in zip(places, pattern, strict=True) if there] or [[]]).astype(int)
        hidden = np.setdiff1d(np.arange(len(covariance)), seen)
        exact = covariance[np.ix_(hidden, seen)] @ np.linalg.solve(covariance[np.ix_(seen, seen)], columns[row, seen])
        np.testing.assert_allclose(expected[row, hidden], exact, atol=1e-10)


def test_factors_are_learned_from_patients_who_lack_tables():
    tables, covariance, _ = draw(1500)
    here = some_missing(1500)
    shown = [np.where(here[:, [i]], table, np.nan) for i, table in enumerate(tables)]
    found = _Factors.fit(shown, here, np.ones(1500), 2)
    loadings = np.vstack(found.loadings)
    close = 0.1 * covariance.max()  # sampling error; with zeros for what is missing half of a covariance would be left
    np.testing.assert_allclose(loadings @ loadings.T + np.diag(np.concatenate(found.noise)), covariance, atol=close)


def test_a_weight_is_a_repetition():
    tables, _, _ = draw(60)
    here, weight = some_missing(60), np.arange(60) % 3 + 1
    weighted = _Factors.fit(tables, here, weight, 1)
    again = np.repeat(np.arange(60), weight)
    repeated = _Factors.fit([table[again] for table in tables], here[again], np.ones(len(again)), 1)
    for one, other in zip(weighted.noise, repeated.noise, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02)


def test_as_many_factors_as_predict_other_patients():
    tables, _, _ = draw(300)
    assert _best_number(tables, some_missing(300), np.ones(300)) == 2
    noise = [np.random.default_rng(i).normal(size=table.shape) for i, table in enumerate(tables)]
    assert _best_number(noise, some_missing(300), np.ones(300)) == 0


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_few_patients_and_tables_that_hardly_anybody_has_are_completed(n):
    tables, _, _ = draw(n)
    here = np.ones((n, 3), dtype=bool)
    here[:-1, 0] = False
    inputs = inputs_of(tables, here)
    filled = Completion.fit(inputs).fill(inputs)
    assert all(data.table.isfinite().all() for data in filled.data.values()) and filled.present.all()


def test_what_was_measured_stays_and_what_is_absent_never_counts():
    tables, _, _ = draw(200)
    here = some_missing(200)
    here[0] = False
    completion = Completion.fit(inputs_of(tables, here))
    filled = completion.fill(inputs_of(tables, here))
    assert filled.present[1:][here[1:].any(axis=1)].all() and not filled.present[0].any()
    assert torch.equal(filled.measured, torch.as_tensor(here))
    for i, (name, table) in enumerate(zip(SIZES, tables, strict=True)):
        np.testing.assert_array_equal(filled.data[name].table[here[:, i]], table[here[:, i]].astype(np.float32))
    dirty = inputs_of(tables, here)
    for i, name in enumerate(SIZES):
        dirty.data[name].table[~here[:, i]] = 1e6
    again = completion.fill(dirty)
    for name in SIZES:
        assert torch.equal(filled.data[name].table, again.data[name].table)
        assert filled.data[name].linear is filled.data[name].table


def test_tables_that_are_left_aside_or_stand_alone_are_not_completed():
    tables, _, _ = draw(50)
    here = np.ones((50, 3), dtype=bool)
    assert Completion.fit(inputs_of(tables, here, linear=False)) is None
    assert Completion.fit(inputs_of(tables, here & [True, False, False])) is None
    completion = Completion.fit(inputs_of(tables, here & [True, False, True]))
    assert list(completion.center) == ["clinical", "genes"]
    aside = inputs_of(tables, here)
    aside = replace(aside, present=aside.present & torch.tensor([True, False, True]))
    assert not completion.fill(aside).present[:, 1].any()


def test_a_model_of_complete_patients_is_right_for_those_with_fewer_tables(model, cohort):
    """Beside metabolic volume a diameter speaks for a lower stage, alone for a higher one."""
    X, y = cohort[0][200:], cohort[1]["stage"][200:]

    def auc(X):
        return roc_auc_score(y, model.predict_proba(X, "stage"), multi_class="ovr")

    assert auc(X) > 0.75
    assert auc(without(X, "pet", "radiomics")) > 0.58
    assert auc(without(X, "clinical", "radiomics")) > 0.7


def test_answers_without_tables_survive_a_file(model, cohort, tmp_path):
    X = without(cohort[0][200:], "pet")
    mmdls.save(model, tmp_path / "model.mmdls")
    again = mmdls.load(tmp_path / "model.mmdls")
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X))
    assert not again.present_modalities(X)["pet"].any() and again.present_modalities(X)["clinical"].all()


def test_attention_is_paid_to_what_was_measured(model, cohort):
    weights = model.attention_weights(without(cohort[0][200:], "pet"))
    assert (weights["pet"] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_tables_without_a_linear_part_stay_absent(cohort):
    X, y = cohort
    encoder, trainer = TabularEncoder(linear=False), Trainer(max_epochs=1)
    fitted = MMDLS(table_encoder=encoder, n_members=1, trainer=trainer, random_state=0).fit(X[:80], y[:80])
    assert not fitted._inputs(fitted._table(without(X, "pet"), reset=False)).present[:, 1].any()


def test_marks_are_standardised_but_rare_ones_are_not_blown_up():
    table = np.zeros((100, 4))
    table[:50, 0] = 1.0  # a mark of every second patient
    table[:1, 1] = 1.0  # of one in a hundred
    table[:, 2] = 1.0  # of everybody
    table[:, 3] = np.repeat([-3.0, 3.0], 50)  # no mark
    center, scale = location_and_scale(table)
    assert center.tolist() == [0.5, 0.01, 1.0, 0.0]
    assert scale.tolist() == [0.5, 0.25, 1.0, 3.0]
