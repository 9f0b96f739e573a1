"""Metrics against independent implementations, laws, and what happens where they are undefined."""

import numpy as np
import pytest
import sklearn.metrics as skm
import sksurv.metrics as sks
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from mmdls import metrics
from mmdls.metrics import UndefinedMetricWarning


def outcomes(n, seed=0, decimals=None, censoring=0.4):
    """Events, times and risks that carry signal; months rounded to ``decimals`` to make ties."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    true = rng.exponential(30 * np.exp(-risk))
    leaving = rng.exponential(30 / censoring, size=n)
    time = np.minimum(true, leaving)
    if decimals is not None:
        time, risk = np.round(time, decimals), np.round(risk, 1)
    return true <= leaving, time + 0.1, risk


def structured(event, time):
    return Surv.from_arrays(event, time)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 90),
    seed=st.integers(0, 10_000),
    decimals=st.sampled_from([None, 1, 0, -1]),
    censoring=st.sampled_from([0.01, 0.5, 3.0]),
)
def test_concordance_index_equals_scikit_survival_with_any_ties(n, seed, decimals, censoring):
    event, time, risk = outcomes(n, seed, decimals, censoring)
    try:
        with np.errstate(invalid="ignore"):
            expected = sks.concordance_index_censored(event, time, risk)[0]
    except (ValueError, sks.NoComparablePairException):
        expected = np.nan
    if np.isnan(expected):
        with pytest.warns(UndefinedMetricWarning, match="no pair"):
            assert np.isnan(metrics.concordance_index(event, time, risk))
    else:
        assert metrics.concordance_index(event, time, risk) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("n", [40, 700])
def test_every_resample_equals_scikit_survival(n, decimals):
    event, time, risk = outcomes(n, 3, decimals)
    weights = metrics.bootstrap_weights(n, 25, random_state=1)
    values = metrics.concordance_index(event, time, risk, weights)
    for row, value in zip(weights, values, strict=True):
        drawn = np.repeat(np.arange(n), row)
        expected = sks.concordance_index_censored(event[drawn], time[drawn], risk[drawn])[0]
        assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decimals", [None, 0])
def test_every_resample_of_weighted_metrics_equals_scikit_survival_and_scikit_learn(decimals):
    event, time, risk = outcomes(120, 4, decimals)
    train = structured(*outcomes(400, 5)[:2])
    train = np.append(train, structured([False], [time.max() + 1]))
    y, grid = structured(event, time), np.array([8.0, 17.3, 30.1])
    survival = np.exp(-np.exp(risk)[:, None] * grid / 40)
    labels, score = (event & (time < 15)).astype(int), np.round(risk, 1)
    weights = metrics.bootstrap_weights(120, 25, random_state=2)
    uno = metrics.concordance_index_ipcw(train, y, risk, 40.0, weights)
    auc = metrics.cumulative_dynamic_auc(train, y, risk, grid, weights)
    mean_auc = metrics.integrated_auc(train, y, risk, grid, weights)
    brier = metrics.brier_score(train, y, survival, grid, weights)
    integrated = metrics.integrated_brier_score(train, y, survival, grid, weights)
    plain = metrics.auc_score(labels, score, weights)
    precision = metrics.average_precision_score(labels, score, weights)
    for r, row in enumerate(weights):
        i = np.repeat(np.arange(120), row)
        assert uno[r] == pytest.approx(sks.concordance_index_ipcw(train, y[i], risk[i], 40.0)[0], abs=1e-9)
        expected = sks.cumulative_dynamic_auc(train, y[i], risk[i], grid)
        np.testing.assert_allclose(auc[r], expected[0], atol=1e-9)
        assert mean_auc[r] == pytest.approx(expected[1], abs=1e-9)
        np.testing.assert_allclose(brier[r], sks.brier_score(train, y[i], survival[i], grid)[1], atol=1e-9)
        assert integrated[r] == pytest.approx(sks.integrated_brier_score(train, y[i], survival[i], grid), abs=1e-9)
        assert plain[r] == pytest.approx(skm.roc_auc_score(labels[i], score[i]), abs=1e-9)
        assert precision[r] == pytest.approx(skm.average_precision_score(labels[i], score[i]), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 60), seed=st.integers(0, 10_000), decimals=st.sampled_from([None, 0, -1]))
def test_antolini_equals_a_loop_over_pairs(n, seed, decimals):
    event, time, _ = outcomes(n, seed, decimals)
    event[0] |= not event.any()
    rng = np.random.default_rng(seed)
    grid = np.sort(rng.uniform(0, 60, 4))
    survival = np.round(np.sort(rng.random((n, 4)), axis=1)[:, ::-1], 1)
    won = pairs = 0.0
    for i in np.flatnonzero(event):
        at = max(np.searchsorted(grid, time[i], side="right") - 1, 0)
        for j in range(n):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                mine, other = survival[i, at], survival[j, at]
                won, pairs = won + (mine < other) + 0.5 * (mine == other), pairs + 1
    if pairs:
        value = metrics.concordance_index_antolini(event, time, survival, grid)
        assert value == pytest.approx(won / pairs, abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 0])
def test_antolini_is_harrell_for_curves_that_do_not_cross(decimals):
    event, time, risk = outcomes(300, 5, decimals)
    grid = np.linspace(1, 80, 20)
    survival = np.exp(-np.exp(risk)[:, None] * grid / 400)
    expected = metrics.concordance_index(event, time, risk)
    assert metrics.concordance_index_antolini(event, time, survival, grid) == pytest.approx(expected, abs=1e-12)


def test_censored_log_likelihood_is_that_of_the_exponential_distribution():
    event, time, risk = outcomes(200, 3)
    rate = np.exp(risk) / 30
    grid = np.linspace(0, time.max(), 20_001)[1:]
    exact = np.mean(event * np.log(rate) - rate * time)
    value = metrics.censored_log_likelihood(event, time, np.exp(-rate[:, None] * grid), grid)
    assert value == pytest.approx(exact, abs=0.002)


def test_censored_log_likelihood_prefers_the_truth():
    event, time, risk = outcomes(4000, 3)
    grid = np.linspace(1, 150, 150)
    values = [
        metrics.censored_log_likelihood(event, time, np.exp(-np.exp(s * risk)[:, None] * grid / 30), grid)
        for s in (0.5, 0.8, 1.0, 1.2, 1.5)
    ]
    assert np.argmax(values) == 2
    with_end = metrics.censored_log_likelihood(event, time, np.exp(-np.exp(risk)[:, None] * grid[:3] / 30), grid[:3])
    assert np.isfinite(with_end)


def test_concordance_index_obeys_its_laws():
    event, time, risk = outcomes(300, 5, 0)
    value = metrics.concordance_index(event, time, risk)
    shuffled = np.random.default_rng(0).permutation(300)
    assert metrics.concordance_index(event[shuffled], time[shuffled], risk[shuffled]) == pytest.approx(value)
    assert metrics.concordance_index(event, time, -risk) == pytest.approx(1 - value)
    assert metrics.concordance_index(event, time, np.exp(risk)) == pytest.approx(value)
    assert metrics.concordance_index(event, time, np.zeros(300)) == 0.5
    distinct = np.unique(time)
    assert metrics.concordance_index(np.ones(len(distinct), bool), distinct, -distinct) == 1.0


@pytest.mark.parametrize("tau", [None, 25.0])
@pytest.mark.parametrize("tied_risk", [False, True])
def test_uno_equals_scikit_survival(tau, tied_risk):
    train, test = structured(*outcomes(400, 1)[:2]), outcomes(200, 2)
    event, time, risk = test
    risk = np.round(risk) if tied_risk else risk
    inside = time < train["time"].max()
    expected = sks.concordance_index_ipcw(train, structured(event, time)[inside], risk[inside], tau)[0]
    value = metrics.concordance_index_ipcw(train, structured(event, time)[inside], risk[inside], tau)
    assert value == pytest.approx(expected, abs=1e-12)


def test_uno_clips_at_the_end_of_training_follow_up_and_says_so():
    event, time, risk = outcomes(200, 2)
    train = structured(*outcomes(200, 3)[:2])
    train = train[train["time"] < 20]
    with pytest.raises(ValueError):
        sks.concordance_index_ipcw(train, structured(event, time), risk)
    with pytest.warns(UserWarning, match="tau clipped at"):
        value = metrics.concordance_index_ipcw(train, structured(event, time), risk)
    end = np.nextafter(train["time"].max(), np.inf)
    assert value == metrics.concordance_index_ipcw(train, structured(event, time), risk, tau=end)


def test_uno_weighs_by_the_left_limit_where_events_and_censorings_tie():
    y = np.array([(True, 2.0), (False, 2.0), (True, 3.0), (False, 4.0)], dtype=[("event", bool), ("time", float)])
    # At 2 months nobody has left yet, so the first event weighs 1.
    case, _ = metrics.horizon_weights(y, y, 3.0)
    np.testing.assert_allclose(case, [1.0, 0.0, 1.5, 0.0])


def test_survival_metrics_equal_scikit_survival():
    train, (event, time, risk) = structured(*outcomes(500, 1)[:2]), outcomes(300, 2)
    inside = time < train["time"].max()
    test, risk = structured(event, time)[inside], risk[inside]
    grid = np.linspace(3, 60, 12)
    survival = np.exp(-np.exp(risk)[:, None] * grid / 40)
    np.testing.assert_allclose(
        metrics.cumulative_dynamic_auc(train, test, risk, grid),
        sks.cumulative_dynamic_auc(train, test, risk, grid)[0],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        metrics.brier_score(train, test, survival, grid),
        sks.brier_score(train, test, survival, grid)[1],
        rtol=1e-12,
    )
    assert metrics.integrated_brier_score(train, test, survival, grid) == pytest.approx(
        sks.integrated_brier_score(train, test, survival, grid), rel=1e-12
    )
    times, curve = kaplan_meier_estimator(train["event"], train["time"])
    null = np.tile(curve[np.searchsorted(times, grid, side="right") - 1], (len(test), 1))
    expected = 1 - sks.brier_score(train, test, survival, grid)[1] / sks.brier_score(train, test, null, grid)[1]
    np.testing.assert_allclose(metrics.index_of_prediction_accuracy(train, test, survival, grid), expected, rtol=1e-10)
    assert metrics.index_of_prediction_accuracy(train, test, null, grid) == pytest.approx(np.zeros(12), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(10, 120), seed=st.integers(0, 10_000), decimals=st.sampled_from([None, 0]))
def test_metrics_equal_torchsurv(n, seed, decimals):
    torch = pytest.importorskip("torch")
    from torchsurv.metrics.auc import Auc
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.metrics.cindex import ConcordanceIndex

    event, time, risk = outcomes(n, seed, decimals)
    event[np.argmin(time)], event[np.argmax(time)] = True, False
    y = structured(event, time)
    tensors = torch.tensor(event), torch.tensor(time)
    value = metrics.concordance_index(event, time, risk)
    # Pairs that share a time are compared by none or all packages in their own way, so only without ties.
    if decimals is None:
        assert float(ConcordanceIndex()(torch.tensor(risk), *tensors)) == pytest.approx(value, abs=1e-5)
    grid = np.quantile(time, [0.25, 0.5, 0.75]) + 0.01
    grid = np.unique(grid[grid < time.max()])
    case, control = zip(*(metrics.horizon_weights(y, y, t) for t in grid), strict=True)
    own = torch.tensor(np.max(case, axis=0) + np.where(event, 0, 1))
    at = torch.tensor([c.max() for c in control])
    options = {"new_time": torch.tensor(grid), "weight": own, "weight_new_time": at}
    auc = Auc()(torch.tensor(risk), *tensors, **options).numpy()
    ours = metrics.cumulative_dynamic_auc(y, y, risk, grid)
    np.testing.assert_allclose(ours, auc, atol=1e-5)
    survival = np.exp(-np.exp(risk)[:, None] * grid / 40)
    brier = BrierScore()(torch.tensor(survival), *tensors, **options).numpy()
    np.testing.assert_allclose(metrics.brier_score(y, y, survival, grid), brier, atol=1e-6)


def test_weights_are_repetitions_for_every_metric():
    """A patient of weight two counts as two patients."""
    event, time, risk = outcomes(150, 7, 0)
    y, grid = structured(event, time), np.array([6.0, 12.0, 24.0])
    survival = np.exp(-np.exp(risk)[:, None] * grid / 40)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    proba = rng.dirichlet([1, 1, 1], size=150) + np.eye(3)[labels]
    proba = np.round(proba / proba.sum(axis=1, keepdims=True), 3)
    weights = metrics.bootstrap_weights(150, 4, random_state=0)
    two = 1 / (1 + np.exp(-rng.normal(size=150)))
    is_one = (labels == 1).astype(int)
    cases = [
        (lambda i, w: metrics.concordance_index(event[i], time[i], risk[i], w)),
        (lambda i, w: metrics.concordance_index_ipcw(y, y[i], risk[i], None, w)),
        (lambda i, w: metrics.concordance_index_antolini(event[i], time[i], survival[i], grid, w)),
        (lambda i, w: metrics.censored_log_likelihood(event[i], time[i], survival[i], grid, w)),
        (lambda i, w: metrics.net_benefit(y, y[i], survival[i, 1], 12.0, [0.2, 0.5], w)),
        (lambda i, w: metrics.observed_expected_ratio(event[i], time[i], survival[i, 1], 12.0, w)),
        (lambda i, w: metrics.survival_calibration_slope(y, y[i], survival[i, 1], 12.0, w)),
        (lambda i, w: metrics.integrated_auc(y, y[i], risk[i], grid, w)),
        (lambda i, w: metrics.cumulative_dynamic_auc(y, y[i], risk[i], grid, w)),
        (lambda i, w: metrics.brier_score(y, y[i], survival[i], grid, w)),
        (lambda i, w: metrics.integrated_brier_score(y, y[i], survival[i], grid, w)),
        (lambda i, w: metrics.index_of_prediction_accuracy(y, y[i], survival[i], grid, w)),
        (lambda i, w: metrics.integrated_ipa(y, y[i], survival[i], grid, w)),
        (lambda i, w: metrics.auc_score(labels[i], proba[i], w)),
        (lambda i, w: metrics.average_precision_score(labels[i], proba[i], w)),
        (lambda i, w: metrics.brier_score_classes(labels[i], proba[i], w)),
        (lambda i, w: metrics.log_loss(labels[i], proba[i], w)),
        (lambda i, w: metrics.accuracy_score(labels[i], proba[i], w)),
        (lambda i, w: metrics.expected_calibration_error(labels[i], proba[i], sample_weight=w)),
        (lambda i, w: metrics.quadratic_weighted_kappa(labels[i], proba[i].argmax(axis=1), 3, w)),
        (lambda i, w: metrics.specificity(is_one[i], two[i], sample_weight=w)),
        (lambda i, w: metrics.negative_predictive_value(is_one[i], two[i], sample_weight=w)),
        (lambda i, w: metrics.calibration_slope(is_one[i], two[i], w)),
        (lambda i, w: metrics.calibration_intercept(is_one[i], two[i], w)),
    ]
    for number, metric in enumerate(cases):
        values = metric(np.arange(150), weights)
        for row, value in zip(weights, values, strict=True):
            expected = metric(np.repeat(np.arange(150), row), None)
            np.testing.assert_allclose(value, expected, rtol=1e-8, err_msg=str(number))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(8, 80), n_classes=st.integers(2, 4), seed=st.integers(0, 1000))
def test_classification_metrics_equal_scikit_learn(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)]
    proba = np.round(rng.dirichlet(np.ones(n_classes), size=n), 2) + 0.01
    proba /= proba.sum(axis=1, keepdims=True)
    binary = n_classes == 2
    against = proba[:, 1] if binary else proba
    assert metrics.auc_score(labels, proba) == pytest.approx(skm.roc_auc_score(labels, against, multi_class="ovr"))
    members = labels if binary else np.eye(n_classes)[labels]
    assert metrics.average_precision_score(labels, proba) == pytest.approx(
        skm.average_precision_score(members, against)
    )
    assert metrics.log_loss(labels, proba) == pytest.approx(skm.log_loss(labels, proba))
    brier = skm.brier_score_loss(labels, proba[:, 1]) if binary else ((proba - members) ** 2).sum(axis=1).mean()
    assert metrics.brier_score_classes(labels, proba) == pytest.approx(brier)
    predicted = proba.argmax(axis=1)
    kappa = skm.cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(n_classes))
    assert metrics.quadratic_weighted_kappa(labels, predicted, n_classes) == pytest.approx(kappa)
    if binary:
        assert metrics.specificity(labels, proba) == pytest.approx(
            skm.recall_score(labels, proba[:, 1] >= 0.5, pos_label=0)
        )


def test_recalibration_equals_an_unpenalised_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-0.5 * log_odds - 0.3))).astype(int)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(log_odds[:, None], labels)
    proba = 1 / (1 + np.exp(-log_odds))
    assert metrics.calibration_slope(labels, proba) == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    proba[0], labels[0] = 1, 1  # which counts as 1 - 1e-12, as 0 counts as 1e-12 where the classes are exchanged
    log_odds[0] = np.log(1e12)
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10000).fit(log_odds[:, None], labels)
    for slope in (metrics.calibration_slope(labels, proba), metrics.calibration_slope(1 - labels, 1 - proba)):
        assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning", "ignore:the AUC is not defined")
def test_undefined_is_nan_and_never_an_error():
    y = np.array([(False, 1.0), (False, 2.0), (False, 3.0)], dtype=[("event", bool), ("time", float)])
    risk = np.array([1.0, 2.0, 3.0])
    assert np.isnan(metrics.concordance_index(y["event"], y["time"], risk))
    assert np.isnan(metrics.concordance_index_ipcw(y, y, risk))
    assert np.isnan(metrics.cumulative_dynamic_auc(y, y, risk, 2.0))
    assert np.isnan(metrics.brier_score(y, y, risk / 4, 60.0))
    assert np.isnan(metrics.concordance_index_antolini(y["event"], y["time"], (risk / 4)[:, None], [2.0]))
    assert np.isnan(metrics.integrated_auc(y, y, risk, [2.0, 60.0]))
    assert np.isnan(metrics.calibration_errors(y["event"], y["time"], risk / 4, 2.0)).all()
    assert np.isnan(metrics.auc_score([1, 1], [0.1, 0.2]))
    assert np.isnan(metrics.auc_score([0, 1], [[0.5, 0.4, 0.1]] * 2))
    assert np.isnan(metrics.calibration_slope([1, 1], [0.1, 0.2]))
    assert np.isnan(metrics.calibration_slope([0, 1], [0.3, 0.3]))
    assert np.isnan(metrics.calibration_slope([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]))
    assert np.isnan(metrics.specificity([1, 1], [0.1, 0.2]))
    one = y[:1]
    assert np.isnan(metrics.concordance_index(one["event"], one["time"], risk[:1]))
    late = np.array([(True, 1.0), (True, 90.0), (False, 99.0)], dtype=y.dtype)
    scores = metrics.cumulative_dynamic_auc(y, late, risk, [2.0, 60.0])
    assert not np.isnan(scores[0]) and np.isnan(scores[1])


def test_undefined_says_why():
    with pytest.warns(UndefinedMetricWarning, match="only codes \\[1\\] of 2"):
        metrics.auc_score([1, 1], [0.1, 0.2])


def test_integrated_scores_are_clipped_where_weights_end():
    event, time, risk = outcomes(200, 4)
    y = structured(event, time)
    grid = np.array([6.0, 12.0, 24.0, 10_000.0])
    survival = np.exp(-np.exp(risk)[:, None] * grid / 40)
    with pytest.warns(UserWarning, match="clipped at 24 months"):
        value = metrics.integrated_brier_score(y, y, survival, grid)
    assert value == metrics.integrated_brier_score(y, y, survival[:, :3], grid[:3])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: metrics.concordance_index([True, False], [1.0, -2.0], [0.1, 0.2]), "not negative"),
        (lambda: metrics.concordance_index([True, False], [1.0, np.nan], [0.1, 0.2]), "unknown"),
        (lambda: metrics.concordance_index([1, 2], [1.0, 2.0], [0.1, 0.2]), "0 and 1"),
        (lambda: metrics.concordance_index([1, 0], [1.0, 2.0], [0.1, np.nan]), "NaN or infinite"),
        (lambda: metrics.concordance_index([1, 0], [1.0, 2.0], [0.1]), "shape"),
        (
            lambda: metrics.concordance_index([1, 0], [1.0, 2.0], [0.1, 0.3], np.ones(3)),
            "one weight a patient",
        ),
        (lambda: metrics.auc_score([0, 5], [[0.5, 0.5]] * 2), "class codes 0 to 1"),
    ],
)
def test_wrong_arrays_are_refused(call, error):
    with pytest.raises(ValueError, match=error):
        call()


def test_horizon_labels_know_what_is_known():
    labels = metrics.horizon_labels([1, 1, 0, 0, 0], [12, 13, 11, 12, 40], 12)
    np.testing.assert_array_equal(labels, [1, 0, np.nan, 0, 0])


def test_baseline_hazard_equals_scikit_survival_and_its_definition():
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    event, time, risk = outcomes(200, 1, 0)
    risk = risk[:, None]
    breslow = CoxPHSurvivalAnalysis(ties="breslow").fit(risk, structured(event, time))
    times, hazard = metrics.baseline_cumulative_hazard(event, time, risk @ breslow.coef_, ties="breslow")
    np.testing.assert_allclose(hazard, breslow.cum_baseline_hazard_(times), rtol=1e-10)
    # Efron: refining ties by tiny random jitter, averaged, converges to removing tied events one by one.
    order = np.argsort(time, kind="stable")
    efron = metrics.baseline_cumulative_hazard(event, time, np.zeros(200))[1]
    rng = np.random.default_rng(0)
    jitter = np.where(event, rng.permutation(200) * 1e-4, 0.1)
    apart = metrics.baseline_cumulative_hazard(event, time + jitter, np.zeros(200), ties="breslow")
    np.testing.assert_allclose(efron[-1], apart[1][-1], rtol=1e-10)
    assert (np.diff(efron) >= 0).all() and len(order)


def test_baseline_hazard_weights_are_repetitions():
    event, time, risk = outcomes(60, 1, 0)
    repeats = np.random.default_rng(0).integers(1, 4, 60)
    drawn = np.repeat(np.arange(60), repeats)
    weighted = metrics.baseline_cumulative_hazard(event, time, risk, "breslow", repeats)
    repeated = metrics.baseline_cumulative_hazard(event[drawn], time[drawn], risk[drawn], "breslow")
    np.testing.assert_allclose(weighted[1], repeated[1], rtol=1e-12)


def test_median_follow_up_is_the_median_of_the_reverse_kaplan_meier_curve():
    event, time, _ = outcomes(300, 9, censoring=1.0)
    times, following = kaplan_meier_estimator(~event, time)
    assert metrics.median_follow_up(event, time) == times[following <= 0.5][0]


@pytest.mark.parametrize(
    ("event", "time", "median"),
    [
        ([0, 0, 0, 0], [1, 2, 3, 4], 2.5),
        ([0, 0, 0, 0], [1, 2, 2, 4], 2),
        ([0, 0], [10, 30], 20),
        ([0, 0, 1, 1], [1, 2, 3, 4], 3),  # one half until the end of follow-up: up to the last time
        ([0, 1, 0, 0], [1, 2, 5, 9], 5),
        ([0, 0, 1, 0, 0, 0], [1, 2, 3, 4, 5, 6], 4),
        ([0, 0, 0, 1, 0, 0], [1, 2, 3, 4, 5, 6], 4),  # exactly one half from 3 to 5, with an event between
        ([1, 1, 1, 1], [1, 2, 3, 4], float("nan")),
    ],
)
def test_the_median_is_the_middle_of_where_the_curve_is_one_half(event, time, median):
    """R, survival >= 3: quantile(survfit(Surv(time, 1 - event) ~ 1), 0.5)$quantile; no ties between both."""
    assert metrics.median_follow_up(event, np.array(time, float)) == pytest.approx(median, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_the_median_ends_where_the_limits_of_scikit_survival_cross_one_half(seed):
    event, time, _ = outcomes(90, seed, censoring=0.6)
    times, curve, (low, high) = kaplan_meier_estimator(event, time, conf_level=0.9, conf_type="log-log")
    known = curve > 0
    expected = [next(iter(t[values <= 0.5]), np.nan) for t, values in
                ((times, curve), (times[known], low[known]), (times[known], high[known]))]  # fmt: skip
    assert metrics.median_survival(event, time, 0.9) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("time", "censored", "expected"),
    [
        ([9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161], (2, 5, 8, 10), (31, 13, np.nan)),
        ([5, 5, 8, 8, 12, 16, 23, 27, 30, 33, 43, 45], (5,), (23, 5, 33)),
        ([1, 2, 3, 4], (0, 1, 2, 3), (np.nan,) * 3),
        ([1, 2, 3, 4], (), (2.5, 1, np.nan)),  # where the curve is 0 there is no limit
    ],
)
def test_median_survival_of_leukaemia_with_and_without_maintenance(time, censored, expected):
    """The patients of aml, in R's package survival; limits where those of scikit-survival cross one half."""
    event = ~np.isin(np.arange(len(time)), censored)
    assert metrics.median_survival(event, np.array(time, float)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow
def test_horizon_metrics_are_unbiased_against_the_uncensored_truth():
    """Naive scores on those not yet censored are biased; weighted ones are not."""
    rng = np.random.default_rng(0)
    n, horizon = 40_000, 36.0
    risk = rng.normal(size=n)
    true = rng.exponential(40 * np.exp(-risk))
    leaving = rng.uniform(0, 80, size=n)
    y = structured(true <= leaving, np.minimum(true, leaving))
    survival = np.exp(-horizon / 40 * np.exp(risk))
    truth = np.mean((survival - (true > horizon)) ** 2)
    known = metrics.horizon_labels(y["event"], y["time"], horizon)
    naive = np.nanmean((survival - (1 - known)) ** 2)
    weighted = metrics.brier_score(y, y, survival, horizon)
    assert abs(weighted - truth) < 0.002 < abs(naive - truth)
