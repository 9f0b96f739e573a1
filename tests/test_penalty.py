"""The penalty that Cox regressions choose themselves: against a loop over penalties, and folds without chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.model_selection import cross_validate
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis

from mmdls import ClinicalCox, CoxNet, RadiomicsCox
from mmdls.estimators import TabularEncoder
from mmdls.estimators.survival._partial_likelihood import PartialLikelihood, deal
from mmdls.estimators.survival._ridge_cox import RidgeCox
from mmdls.model_selection import CohortKFold, patient_groups


def study(n, p, seed=0, digits=None):
    """Columns that share factors, of which some matter; times rounded so that they are tied."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) @ rng.normal(size=(3, p)) + rng.normal(size=(n, p))
    time = rng.exponential(20 * np.exp(-0.5 * X[:, 0] + 0.4 * X[:, 1]))
    end = rng.exponential(40, n)
    known = np.minimum(time, end) + 1
    outcome = np.zeros(n, dtype=[("event", bool), ("time", float)])
    outcome["event"], outcome["time"] = time < end, known if digits is None else known.round(digits)
    return X, outcome


def log_likelihood(risk, y, ties):
    """Written out, one death after the other."""
    total = 0.0
    for at in np.unique(y["time"][y["event"]]):
        dead = (y["time"] == at) & y["event"]
        left, tied, d = np.exp(risk[y["time"] >= at]).sum(), np.exp(risk[dead]).sum(), dead.sum()
        shares = np.arange(d) / d if ties == "efron" else np.zeros(d)
        total += risk[dead].sum() - np.log(left - shares * tied).sum()
    return total


def worth(fit, X, y, ties, n_folds=5):
    """Cross-validated log partial likelihood, as Verweij and van Houwelingen define it."""
    fold, total = deal(X, y, None, n_folds), 0.0
    for k in range(n_folds):
        train = fold != k
        beta = fit(X[train], y[train])
        total += log_likelihood(X @ beta, y, ties) - log_likelihood(X[train] @ beta, y[train], ties)
    return total


def path_of(X, y, ties):
    """25 penalties from 100 to 0.0001 times the largest eigenvalue of the information at coefficients of zero."""
    information = np.zeros((X.shape[1],) * 2)
    for at in np.unique(y["time"][y["event"]]):
        alive, dead = y["time"] >= at, (y["time"] == at) & y["event"]
        d = dead.sum()
        for share in np.arange(d) / d if ties == "efron" else np.zeros(d):
            weight = alive - share * dead
            centred = X - weight @ X / weight.sum()
            information += centred.T @ (weight[:, None] * centred) / weight.sum()
    return 10.0 ** np.linspace(2, -4, 25) * np.linalg.eigvalsh(information).max()


@pytest.mark.parametrize(
    ("n", "p", "ties", "digits"),
    [(60, 8, "efron", 0), (60, 8, "breslow", 0), (40, 70, "efron", 0), (80, 3, "breslow", None)],
)
def test_the_penalty_is_the_one_that_a_loop_over_penalties_finds(n, p, ties, digits):
    X, y = study(n, p, digits=digits)
    path = path_of(X, y, ties)
    fits = [lambda X, y, a=a: CoxPHSurvivalAnalysis(alpha=a, ties=ties, tol=1e-12).fit(X, y).coef_ for a in path]
    found = [worth(fit, X, y, ties) for fit in fits]
    best = int(np.argmax(found))
    assert 0 < best < len(path) - 1 and np.ptp(found) > 1
    model = RidgeCox(ties=ties).fit(X, y)
    assert model.alpha_ == pytest.approx(path[best])
    np.testing.assert_allclose(model.coef_, fits[best](X, y), rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(model.coef_, RidgeCox(alpha=model.alpha_, ties=ties).fit(X, y).coef_)


def test_the_elastic_net_takes_the_penalty_that_a_loop_over_penalties_finds():
    X, y = study(90, 6, seed=1)
    table = pd.DataFrame(X, columns=[f"clinical_{k}" for k in range(6)])
    model = CoxNet(columns="clinical", n_alphas=7, cv=3).fit(table, y)
    Z = TabularEncoder().fit_transform(table)
    path = CoxnetSurvivalAnalysis(l1_ratio=0.5, n_alphas=7, alpha_min_ratio=0.02).fit(Z, y).alphas_
    found = [
        worth(
            lambda X, y, a=a: CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[a]).fit(X, y).coef_[:, 0], Z, y, "breslow", 3
        )
        for a in path[1:]
    ]
    assert 0 < np.argmax(found) < 5
    assert model.alpha_ == pytest.approx(path[1:][np.argmax(found)])


def test_penalties_without_a_finite_solution_are_not_chosen(monkeypatch):
    X, y = study(90, 6, seed=1)
    table = pd.DataFrame(X, columns=[f"clinical_{k}" for k in range(6)])
    model = CoxNet(columns="clinical", n_alphas=7)
    best, fit = model.fit(table, y).alpha_, CoxnetSurvivalAnalysis.fit

    def diverging(self, X, y):
        if len(X) < 90 and np.min(self.alphas) < best * 1.01:
            raise ArithmeticError("Numerical error, because weights are too large.")
        return fit(self, X, y)

    monkeypatch.setattr(CoxnetSurvivalAnalysis, "fit", diverging)
    path = CoxnetSurvivalAnalysis(l1_ratio=0.5, n_alphas=7, alpha_min_ratio=0.02)
    larger = path.fit(model.pipeline_[0].transform(table), y).alphas_ > best * 1.01
    assert model.fit(table, y).alpha_ == pytest.approx(path.alphas_[larger].min())


@pytest.mark.parametrize("kind", [ClinicalCox, RadiomicsCox])
def test_a_number_is_the_penalty_and_noise_gets_a_large_one(kind):
    X, y = study(80, 10)
    table = pd.DataFrame(X, columns=[f"{np.ravel(kind().columns)[0]}_{k}" for k in range(10)])
    assert kind(alpha=2.5).fit(table, y).alpha_ == 2.5
    signal = kind().fit(table, y)
    assert signal.alpha_ == signal.pipeline_[-1].alpha_
    outcomes = np.random.default_rng(1).permutation(y)
    assert kind().fit(table, outcomes).alpha_ > 30 * signal.alpha_
    with pytest.raises(ValueError, match="'alpha' parameter"):
        kind(alpha="best").fit(table, y)


def test_of_equally_good_penalties_the_largest_is_taken():
    X, y = study(30, 2)
    assert RidgeCox().fit(np.ones((30, 1)), y).alpha_ == 100
    y["event"] = np.arange(30) == 3  # the only event is learned from or predicted, never both
    assert RidgeCox().fit(X, y).alpha_ == pytest.approx(path_of(X, y, "efron")[0])


def test_the_value_alone_is_that_of_value_and_gradient():
    X, y = study(50, 3, digits=0)
    weight = np.random.default_rng(0).uniform(0.5, 2, 50)
    for ties in ("efron", "breslow"):
        likelihood, beta = PartialLikelihood(X, y, weight, ties), np.array([0.3, -0.2, 0.1])
        assert likelihood.value(beta) == likelihood(beta)[0]
        even = PartialLikelihood(X, y, np.ones(50), ties)
        assert even.value(beta) == pytest.approx(log_likelihood(X @ beta, y, ties))


# -- folds -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(10, 60), n_folds=st.integers(2, 6))
def test_folds_are_even_in_events_and_follow_up_and_know_no_order(seed, n, n_folds):
    X, y = study(n, 3, seed=seed)
    fold = deal(X, y, n_folds=n_folds)
    assert (fold[np.lexsort([y["time"], ~y["event"]])] == np.arange(n) % n_folds).all()
    y["time"] = y["time"].round()
    fold = deal(X, y, n_folds=n_folds)
    for event in (False, True):
        sizes = np.bincount(fold[y["event"] == event], minlength=n_folds)
        assert np.ptp(sizes) <= 1
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n), rng.permutation(3)
    np.testing.assert_array_equal(deal(X[rows][:, columns], y[rows], None, n_folds), fold[rows])
    twice = np.r_[np.arange(n), rng.integers(0, n, 5)]
    np.testing.assert_array_equal(deal(X[twice], y[twice], None, n_folds), fold[twice])
    groups = rng.integers(0, n // 3, n)
    together = deal(X, y, groups, n_folds)
    assert pd.Series(together).groupby(groups).nunique().max() == 1
    assert len(set(together)) == min(n_folds, len(set(groups)))


@pytest.fixture(scope="module")
def scans():
    """Two scans of each of 60 patients, alike, whose outcomes are a little apart: learned by heart, they look known."""
    X, y = study(60, 30)
    rng = np.random.default_rng(1)
    X, y = np.repeat(X, 2, axis=0) + 0.01 * rng.normal(size=(120, 30)), np.repeat(rng.permutation(y), 2)
    y["time"] += rng.uniform(0, 0.5, 120)
    table = pd.DataFrame(X, columns=[f"clinical_{k}" for k in range(30)], index=[f"S{i}" for i in range(120)])
    outcome = pd.DataFrame({"os_time": y["time"], "os_event": y["event"].astype(int)}, index=table.index)
    return table, outcome, pd.Series(np.arange(120) // 2, table.index)


@pytest.mark.parametrize("model", [ClinicalCox(), CoxNet(columns="clinical", l1_ratio=0.1)])
@pytest.mark.filterwarnings("ignore")
def test_scans_of_a_patient_are_not_divided(scans, model):
    X, y, patient = scans
    divided = model.fit(X, y).alpha_
    kept = model.fit(X, y, groups=patient.sample(frac=1, random_state=0)).alpha_
    assert kept > 5 * divided
    assert model.fit(X, y, groups=patient.to_numpy()).alpha_ == kept
    assert model.fit(X.assign(patient_id=patient), y).alpha_ == kept
    assert model.fit(X.assign(patient_id=patient), y, groups=np.arange(120)).alpha_ == divided
    if isinstance(model, ClinicalCox):
        weight = np.r_[np.zeros(41), np.ones(79)]
        left = model.fit(X, y, sample_weight=weight, groups=patient).alpha_
        assert left == model.fit(X[41:], y[41:], groups=patient[41:]).alpha_
    with pytest.raises(ValueError, match="groups"):
        model.fit(X, y, groups=patient[1:])


@pytest.mark.filterwarnings("ignore")
def test_groups_reach_the_folds_inside_through_routing(scans):
    X, y, patient = scans
    with config_context(enable_metadata_routing=True):
        cv = CohortKFold(2, random_state=0)
        found = cross_validate(ClinicalCox(), X, y, cv=cv, params={"groups": patient}, return_estimator=True)
    for model, (train, _) in zip(found["estimator"], cv.split(X, y, patient), strict=True):
        rows = X.index[train]
        assert model.alpha_ == ClinicalCox().fit(X.loc[rows], y.loc[rows], groups=patient[rows]).alpha_


def test_patients_without_an_id_are_patients_of_their_own():
    X = pd.DataFrame({"patient_id": ["a", None, "a", None, "b"]})
    groups = patient_groups(X)
    assert groups[0] == groups[2] and len(set(groups)) == 4
    assert patient_groups(X[3:]) is None and patient_groups(X.to_numpy()) is None
