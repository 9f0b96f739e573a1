"""Ensembles: the linear part is ridge regression, each patient is held out once, networks must earn their trust."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sksurv.metrics import concordance_index_censored
from torch import nn

from mmdls import Trainer, evaluate
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, MultimodalSurvival, TabularEncoder
from mmdls.estimators.survival._ridge_cox import RidgeCox
from mmdls.modules import (
    ClassHead,
    Combination,
    CoxHead,
    Ensemble,
    LinearPart,
    LinearPredictor,
    Outputs,
)
from mmdls.training._combining import combination_of
from mmdls.training._linear import _choose_penalties, _losses_of, _Problem, fit_linear
from mmdls.training._members import folds_of

LINEAR = TabularEncoder(linear=True)
QUICK = {"trainer": Trainer(max_epochs=2), "table_encoder": LINEAR, "random_state": 0}


@pytest.fixture(scope="module")
def tables():
    X, y = make_nsclc_cohort(90, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    return X[[c for c in X if c.split("_")[0] in ("clinical", "pet")]], y


def numbers(n=80, p=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    time = rng.exponential(np.exp(-x[:, 0] + 0.5 * x[:, 1])).round(1) + 0.1  # with ties
    event = rng.uniform(size=n) < 0.7
    return x - x.mean(axis=0), torch.as_tensor(event), torch.as_tensor(time)


def regression(x, loss, n_parameters=1):
    return _Problem(x, [np.arange(len(x))], loss, np.zeros(n_parameters), False)


@pytest.mark.parametrize("p", [6, 150])
@pytest.mark.parametrize("penalty", [0.02, 1.0])
def test_the_linear_part_is_ridge_cox_regression(p, penalty):
    x, event, time = numbers(p=p)
    y = np.array(list(zip(event.tolist(), time.tolist(), strict=True)), dtype=[("event", bool), ("time", float)])
    expected = RidgeCox(alpha=penalty * int(event.sum())).fit(x, y).coef_
    head = CoxHead(1)
    problem = regression(x, lambda parameters: head.loss(parameters, event, time))
    (coefficients,), _ = problem.fit(np.full(p, penalty))
    np.testing.assert_allclose(coefficients[:, 0], expected, atol=2e-3 * np.abs(expected).max())
    (again,), _ = problem.fit(np.full(p, penalty))  # from the solution
    np.testing.assert_allclose(again, coefficients, atol=2e-3 * np.abs(expected).max())


def test_the_linear_part_is_ridge_logistic_regression():
    x, label, _ = numbers(n=120)
    head = ClassHead(1, 2)
    problem = regression(x, lambda parameters: head.loss(parameters, label.long()), n_parameters=2)
    (coefficients,), (intercept,) = problem.fit(np.full(6, 0.1))
    # Two columns of logits with half the difference each have half the penalty of one with all of it.
    model = LogisticRegression(C=1 / (120 * 0.1 / 2), tol=1e-8).fit(x, label)
    np.testing.assert_allclose(coefficients[:, 1] - coefficients[:, 0], model.coef_[0], atol=1e-3)
    assert intercept[1] - intercept[0] == pytest.approx(model.intercept_[0], abs=1e-3)


def test_penalties_may_differ_between_columns():
    x, event, time = numbers(p=4)
    head = CoxHead(1)
    problem = regression(x, lambda parameters: head.loss(parameters, event, time))
    (held,), _ = problem.fit(np.array([0.01, 0.01, 1e6, 1e6]))
    (expected,), _ = regression(x[:, :2], lambda parameters: head.loss(parameters, event, time)).fit(np.full(2, 0.01))
    np.testing.assert_allclose(held[:2], expected, atol=1e-3)
    assert np.abs(held[2:]).max() < 1e-5


class OneByOne(nn.Module):
    """A head whose loss takes one set of parameters, as those of other packages."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def loss(self, parameters, *targets):
        assert parameters.ndim == 2
        return self.head.loss(parameters, *targets)


@pytest.mark.parametrize("p", [6, 150])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_regressions_of_several_rows_are_fitted_as_each_alone(p, weighted, one_by_one):
    x, event, time = numbers(p=p)
    weight = torch.as_tensor(np.random.default_rng(1).choice([0.5, 1.0, 2.0], len(x))) if weighted else None
    folds, penalty = np.array_split(np.arange(len(x)), [10, 25, 40]), np.full(p, 0.05)
    head = OneByOne(CoxHead(1)) if one_by_one else CoxHead(1)

    def problem(rows):
        return _Problem(x, rows, _losses_of(head, (event, time), weight, rows), np.zeros(1), False)

    together, _ = problem(folds).fit(penalty, 1e-12)
    for rows, found in zip(folds, together, strict=True):
        own = (event[torch.as_tensor(rows)], time[torch.as_tensor(rows)])
        of_own = None if weight is None else weight[torch.as_tensor(rows)]
        loss = lambda parameters, own=own, of_own=of_own: CoxHead(1).loss(parameters[0], *own, of_own)[None]  # noqa: E731
        (alone,), _ = regression(x[rows], loss).fit(penalty, 1e-12)
        np.testing.assert_allclose(found, alone, atol=1e-4 * np.abs(alone).max())


def test_each_table_gets_the_penalty_that_suits_it():
    best = np.array([0.1, 1000.0])
    found = _choose_penalties(lambda tried: float((np.log10(tried / best) ** 2).sum()), [5, 5], 1e-3)
    np.testing.assert_allclose(np.log10(found), np.log10(best), atol=0.51)


def test_a_table_of_noise_costs_little():
    rng = np.random.default_rng(0)
    x, event, time = numbers(n=600, p=8)
    noise = rng.normal(size=(600, 200))
    folds = np.array_split(rng.permutation(200), 5)
    targets, new = (event[:200], time[:200]), slice(200, None)

    def concordance(tables):
        fit = fit_linear(
            [table[:200] for table in tables],
            CoxHead(1),
            targets,
            folds,
            folds,
            np.zeros(1),
            n_informative=float(event[:200].sum()),
        )
        risk = np.hstack(tables)[new] @ fit.coefficients.mean(axis=0)[:, 0]
        return concordance_index_censored(event[new].numpy(), time[new].numpy(), risk)[0]

    alone, together = concordance([x]), concordance([x, noise])
    assert alone > 0.7 and together > alone - 0.005


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_does_not_shrink_the_tables_that_tell_the_stage(seed):
    """The common penalty is strong because of the noise, and a table moved alone seems better off with it."""
    X, y = make_nsclc_cohort(1200, n_slices=1, image_size=8, n_radiomics=1, return_X_y=True, random_state=seed)
    tables = X.filter(regex="^(clinical|pet)_")
    noise = pd.DataFrame(np.random.default_rng(seed).normal(size=(1200, 300)), X.index).add_prefix("radiomics_")
    model = MMDLS(table_encoder=LINEAR, n_members=1, trainer=Trainer(max_epochs=1), random_state=0)

    def auc(X):
        found = evaluate(
            model.fit(X[:200], y.loc[X.index[:200], ["stage"]]),
            X[200:],
            y.loc[X.index[200:], ["stage"]],
            horizons=(),
            n_resamples=0,
        )
        return found.loc[found["metric"] == "auc", "value"].iloc[0]

    alone = auc(tables)
    assert alone > 0.8 and auc(tables.join(noise)) > alone - 0.01


def test_columns_of_absent_tables_count_as_their_mean():
    part = LinearPart({"a": torch.tensor([10.0])}, {"a": torch.tensor([2.0])}, {})
    columns = part.columns({"a": torch.tensor([[14.0], [0.0]])}, {"a": torch.tensor([True, False])})
    assert columns.tolist() == [[2.0], [0.0]]


def test_members_are_averaged_with_the_linear_part():
    predictor = LinearPredictor(torch.ones(2, 1, 1), torch.zeros(2, 1))
    combination = Combination([0.5, 2.0], torch.tensor([1.0]))
    ensemble = Ensemble([], LinearPart({}, {}, {"os": predictor}), {"os": combination})
    linear = {"os": predictor(torch.tensor([[3.0]]).double())}
    members = [Outputs(torch.zeros(1, 1), {"os": torch.tensor([[value]])}) for value in (2.0, 6.0)]
    assert ensemble.combine(members, linear).tasks["os"].item() == 0.5 * 4 + 2 * 3 + 1
    assert ensemble.combine(members, linear).members["os"].flatten().tolist() == [8.0, 10.0]
    assert [ensemble.weights(name) for name in ("os", "dfs")] == [[0.5, 2.0], [1.0, 0.0]]


def test_weights_are_those_of_held_out_patients_and_of_a_plain_mean_before_any():
    rng = np.random.default_rng(0)
    logit, noise = torch.as_tensor(rng.normal(size=(2, 4000, 1)) * 2)
    label = torch.as_tensor(rng.uniform(size=4000) < torch.sigmoid(logit[:, 0] + 0.7).numpy()).double()

    def loss(parameters, label=label):
        return nn.functional.binary_cross_entropy_with_logits(parameters[:, 0], label)

    too_extreme = combination_of(loss, 4 * logit, noise, 4000.0)
    np.testing.assert_allclose(too_extreme.weights, [0.25, 0.0], atol=0.02)
    assert too_extreme.shift.item() == pytest.approx(0.7, abs=0.1)
    few = combination_of(lambda parameters: loss(parameters[:4], label[:4]), 4 * logit, noise, 4.0)
    assert 0.1 < few.weights[1] < 0.9, "four patients change little"


def test_what_a_member_holds_out_it_never_learns_from(tables):
    """The order of follow-up is reversed among the patients that the first member holds out."""
    X, y = tables
    y = y[["os_time", "os_event"]]
    # Penalties of a linear part are chosen by all patients held out together.
    encoder, trainer = TabularEncoder(linear=False), Trainer(max_epochs=3, batch_size=512, patience=None, schedule=None)
    fit = {"n_members": 5, "table_encoder": encoder, "trainer": trainer, "random_state": 0}
    before = MMDLS(**fit).fit(X, y)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    first, second = folds_of(y, np.arange(len(y)), 5, seed)[:2]
    changed = y.copy()
    changed.iloc[first, 0] = 200 - changed.iloc[first, 0]
    np.testing.assert_array_equal(folds_of(changed, np.arange(len(y)), 5, seed)[0], first)
    after = MMDLS(**fit).fit(X, changed)

    def differs(k):
        one, two = (model.net_.module_.members[k].state_dict() for model in (before, after))
        return any(not torch.equal(one[name], two[name]) for name in one)

    assert len(second) and differs(1) and not differs(0)


def test_pure_noise_is_answered_by_the_mean():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(120, 3)), columns=["clinical_a", "clinical_b", "clinical_c"])
    y = pd.DataFrame({"os_time": rng.exponential(size=120), "os_event": 1.0})
    model = MMDLS(table_encoder=LINEAR, n_members=5, trainer=Trainer(max_epochs=30), random_state=0).fit(X, y)
    spread = model.predict(X)["os"].std()
    assert spread < 0.3, "curves of pure noise are near the Kaplan-Meier curve"


def test_networks_get_weight_where_a_line_cannot_follow():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 2)), columns=["clinical_a", "clinical_b"])
    y = pd.DataFrame({"label": np.where(X["clinical_a"] * X["clinical_b"] > 0, "same", "other")})
    encoder = TabularEncoder(hidden_sizes=(16,), linear=True)
    model = MMDLS(table_encoder=encoder, n_members=5, trainer=Trainer(max_epochs=60), random_state=0).fit(X, y)
    assert model.combination_.loc["label", "networks"] > 0.5 and model.score(X, y) > 0.9


def test_penalties_are_chosen_in_folds_where_members_hold_out_nobody():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_a": rng.normal(size=100)})
    y = pd.DataFrame({"fev_value": 3 * X["clinical_a"] + rng.normal(size=100)})
    trainer = Trainer(max_epochs=1, validation_fraction=0)
    linear = [
        MMDLS(table_encoder=LINEAR, n_members=n, trainer=trainer, random_state=0).fit(X, y).net_.module_.linear
        for n in (1, 5)
    ]
    slopes = [part.predictors["fev"].coefficients[:, 0, 0].numpy() * y["fev_value"].std() for part in linear]
    np.testing.assert_allclose(slopes[1], slopes[0][0])
    assert slopes[0][0] == pytest.approx(3 * X["clinical_a"].std(), rel=0.1), "hardly shrunk: the table tells much"


def test_one_member_is_one_network(tables):
    X, y = tables
    model = MMDLS(n_members=1, **QUICK).fit(X, y)
    assert len(model.net_.module_.members) == 1
    assert model.transform(X).shape == (90, 64)
    assert MMDLS(n_members=3, **QUICK).fit(X, y).transform(X).shape == (90, 3 * 64)
    with pytest.raises(ValueError, match="one member has no spread; fit with n_members of at least 2"):
        model.predict_spread(X)


def test_the_spread_has_the_shape_of_predictions(tables):
    X, y = tables
    model = MMDLS(n_members=3, **QUICK).fit(X, y)
    spread, said = model.predict_spread(X, [12, 36]), model.predict_tasks(X, [12, 36])
    assert list(spread) == list(said)
    for name, table in spread.items():
        assert table.shape == said[name].shape and (table.columns == said[name].columns).all()
        assert (table.to_numpy() >= 0).all() and table.to_numpy().max() > 0


def test_curves_come_from_patients_held_out():
    """Many columns of noise: risks of patients learned from are far too extreme for the baseline of new ones."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(500, 40))).add_prefix("clinical_x")
    risk = X["clinical_x0"].to_numpy()
    time = rng.exponential(20 * np.exp(-risk))
    y = pd.DataFrame({"os_time": np.minimum(time, 40), "os_event": (time < 40).astype(float)})
    train, new = slice(0, 150), slice(150, 500)
    model = MMDLS(table_encoder=LINEAR, n_members=5, trainer=Trainer(max_epochs=20), random_state=0).fit(
        X[train], y[train]
    )
    survival = model.predict_survival_function(X[new], "os", return_array=True)
    grid = model.unique_times_["os"]
    seen = [(time[train] > t).mean() for t in (5, 10, 20)]
    said = [survival[:, np.searchsorted(grid, t, side="right") - 1].mean() for t in (5, 10, 20)]
    np.testing.assert_allclose(said, seen, atol=0.05)
    y_new = y[new]
    log_risk = model.predict(X[new])["os"].to_numpy()
    outcome = np.array(
        list(zip(y_new["os_event"] == 1, y_new["os_time"], strict=True)), dtype=[("event", bool), ("time", float)]
    )
    slope = RidgeCox(alpha=1e-6).fit((log_risk - log_risk.mean())[:, None], outcome).coef_[0]
    assert 0.75 < slope < 1.4


def test_a_training_that_ends_too_early_says_so(tables):
    X, y = tables
    y = y[["os_time", "os_event"]]
    encoder = TabularEncoder(linear=False)
    slow = Trainer(max_epochs=12, batch_size=512, learning_rate=1e-3, schedule=None)
    slow = MultimodalSurvival(table_encoder=encoder, n_members=1, trainer=slow, random_state=0)
    with pytest.warns(ConvergenceWarning, match="still falling after the last of 12 epochs; raise max_epochs"):
        slow.fit(X, y)
    rng = np.random.default_rng(1)
    noise = pd.DataFrame(rng.normal(size=(60, 30))).add_prefix("clinical_x")
    outcome = pd.DataFrame({"os_time": rng.exponential(size=60), "os_event": 1.0})
    with pytest.warns(ConvergenceWarning, match="the networks learned nothing that helps with new patients"):
        trainer = Trainer(max_epochs=150, batch_size=512, learning_rate=0.03, weight_decay=0.01)
        MultimodalSurvival(table_encoder=encoder, trainer=trainer, random_state=0).fit(noise, outcome)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        MultimodalSurvival(**QUICK).fit(X, y)
        # The last weights are kept, and the loss was best before.
        fast = Trainer(max_epochs=30, batch_size=512, learning_rate=0.1, weight_decay=0.01, patience=None)
        MultimodalSurvival(table_encoder=encoder, n_members=1, dropout=0.1, trainer=fast, random_state=0).fit(X, y)


@pytest.mark.parametrize("p", [3, 30])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_regression_without_rows_leaves_the_others_alone(p, one_by_one):
    x, event, time = numbers(n=12, p=p)
    rows, start = [np.empty(0, dtype=int), np.arange(12)], np.array([0.5])
    head = OneByOne(CoxHead(1)) if one_by_one else CoxHead(1)
    problem = _Problem(x, rows, _losses_of(head, (event, time), None, rows), start, False)
    coefficients, intercept = problem.fit(np.full(p, 0.1))
    (alone,), _ = regression(x, lambda parameters: CoxHead(1).loss(parameters, event, time)).fit(np.full(p, 0.1))
    assert (coefficients[0] == 0).all() and intercept[0] == 0.5
    np.testing.assert_allclose(coefficients[1], alone, atol=1e-3 * np.abs(alone).max())
