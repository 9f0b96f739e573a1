"""Metrics of predicted numbers against scikit-learn and SciPy, in every resample."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from scipy.stats import spearmanr

from mmdls import metrics
from mmdls.metrics import UndefinedMetricWarning

ORACLES = {
    "r2_score": skm.r2_score,
    "mean_absolute_error": skm.mean_absolute_error,
    "mean_squared_error": skm.mean_squared_error,
    "root_mean_squared_error": skm.root_mean_squared_error,
    "spearman_correlation": lambda y_true, y_pred: spearmanr(y_true, y_pred).statistic,
}


def draw(n, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.normal(50, 10, n)
    y_pred = 0.6 * y_true + rng.normal(20, 6, n)
    return (y_true, y_pred) if decimals is None else (y_true.round(decimals), y_pred.round(decimals))


@pytest.mark.parametrize("decimals", [None, 0, -1])
@pytest.mark.parametrize("name", ORACLES)
def test_every_resample_equals_the_oracle_on_the_patients_drawn(name, decimals):
    y_true, y_pred = draw(60, decimals)
    metric, weights = getattr(metrics, name), metrics.bootstrap_weights(60, 30, random_state=1)
    expected = [ORACLES[name](np.repeat(y_true, row), np.repeat(y_pred, row)) for row in weights]
    np.testing.assert_allclose(metric(y_true, y_pred, weights), expected, rtol=0, atol=1e-10)
    assert metric(y_true, y_pred) == pytest.approx(ORACLES[name](y_true, y_pred), abs=1e-12)
    assert metric(y_true, y_pred, weights[0]) == pytest.approx(expected[0], abs=1e-10)


@pytest.mark.parametrize("name", sorted(set(ORACLES) - {"spearman_correlation"}))
def test_weights_that_are_no_counts_equal_scikit_learn(name):
    (y_true, y_pred), weight = draw(40), np.random.default_rng(2).exponential(size=40)
    expected = getattr(skm, name)(y_true, y_pred, sample_weight=weight)
    assert getattr(metrics, name)(y_true, y_pred, weight) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_sees_the_order_only_and_any_scale_of_weights():
    (y_true, y_pred), weight = draw(40, 0), np.random.default_rng(2).integers(0, 4, 40)
    value = metrics.spearman_correlation(y_true, y_pred, weight)
    assert metrics.spearman_correlation(np.exp(y_true / 10), y_pred**3, weight * 0.3) == pytest.approx(value, abs=1e-12)
    assert metrics.spearman_correlation(y_true, -y_pred, weight) == pytest.approx(-value, abs=1e-12)
    assert metrics.spearman_correlation(y_true, 2 * y_true) == 1


@pytest.mark.parametrize("name", ["r2_score", "spearman_correlation"])
def test_equal_values_are_undefined_and_so_are_their_resamples(name):
    metric = getattr(metrics, name)
    # Three times 0.1 has a mean that is not 0.1 in floating point.
    for y_true, y_pred in (([0.1] * 3, [1.0, 2.0, 3.0]), ([1.0], [1.0]), ([], [])):
        with pytest.warns(UndefinedMetricWarning, match="are equal, or there are fewer than 2 patients"):
            assert np.isnan(metric(y_true, y_pred))
    weights = [[3, 0, 0], [1, 1, 1]]
    assert np.isnan(metric([0.1, 0.2, 0.4], [0.2, 0.3, 0.1], weights)).tolist() == [True, False]
    if name == "spearman_correlation":
        with pytest.warns(UndefinedMetricWarning, match="of y_pred are equal"):
            assert np.isnan(metric([1.0, 2.0], [0.1, 0.1]))
    else:
        assert metric([1.0, 3.0], [2.0, 2.0]) == 0.0


def test_errors_of_nobody_are_undefined():
    for name in ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error"):
        with pytest.warns(UndefinedMetricWarning, match="no patients"):
            assert np.isnan(getattr(metrics, name)([], []))
        with pytest.warns(UndefinedMetricWarning, match="weight 0"):
            assert np.isnan(getattr(metrics, name)([1.0], [2.0], [0.0]))


@pytest.mark.parametrize("name", ORACLES)
def test_what_cannot_be_meant_is_refused(name):
    metric = getattr(metrics, name)
    y_true, y_pred = draw(5)
    ids = pd.Index(list("abcde"))
    for wrong, said in (
        ((y_true, y_pred[:-1]), r"y_pred must have shape \(5,\)"),
        ((y_true[:, None], y_pred), r"y_true must have shape \(n,\)"),
        ((np.where(y_true > y_true.min(), y_true, np.nan), y_pred), "y_true has 1 values that are NaN"),
        ((y_true, np.where(y_pred > y_pred.min(), y_pred, np.inf)), "y_pred has 1 values"),
        ((pd.Series(y_true, ids), pd.Series(y_pred, ids[::-1])), "indices differ"),
        ((y_true, y_pred, [-1, 1, 1, 1, 1]), "not negative"),
        ((y_true, y_pred, np.ones(4)), "one weight a patient"),
    ):
        with pytest.raises(ValueError, match=said):
            metric(*wrong)


def test_intervals_come_from_the_bootstrap_of_all_metrics():
    y_true, y_pred = draw(200)
    weights = metrics.bootstrap_weights(200, 400, random_state=0)
    value, low, high, _ = metrics.bootstrap_interval(lambda w: metrics.r2_score(y_true, y_pred, w), weights)
    assert low < value < high
