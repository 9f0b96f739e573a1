"""Cox regression, hazard ratios, log-rank and likelihood-ratio tests against closed forms and values that lifelines
0.30.3 gives (it keeps pandas below 3, so it is not installed for the tests)."""

import numpy as np
import pytest
from scipy.stats import norm

from mmdls import metrics
from mmdls.metrics import UndefinedMetricWarning

# Therneau & Grambsch, Modeling Survival Data, appendix E: six patients with tied events.
TIME, EVENT, X = [1, 1, 6, 6, 8, 9], [1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]


def test_the_tied_example_has_its_closed_forms():
    breslow = metrics.cox_regression(EVENT, TIME, X, ties="breslow")
    assert breslow.coefficients[0] == pytest.approx(np.log((3 + np.sqrt(33)) / 2), abs=1e-9)
    r = np.exp(breslow.coefficients[0])
    assert breslow.log_likelihood == pytest.approx(2 * np.log(r) - np.log(3 * r + 3) - 2 * np.log(r + 3), abs=1e-9)
    efron = metrics.cox_regression(EVENT, TIME, X)
    assert efron.coefficients[0] == pytest.approx(1.6768575, abs=1e-6)


# By decimals of the times: coefficients, standard errors, log likelihood, its ratio to the null model's.
LIFELINES = {
    3: (
        [0.5786019529007611, -0.0018025602141570345, 0.29140775783433526],
        [0.0935698583559679, 0.009018121391564498, 0.8626875233595281],
        -647.0661106102309,
        40.08135483360411,
    ),
    0: (
        [0.579213914971747, -0.0015561627416948755, 0.32602846653480255],
        [0.0935225269046098, 0.008991463342969783, 0.8627564934168457],
        -648.4869209378419,
        40.16336277111213,
    ),
}


@pytest.mark.parametrize("decimals", LIFELINES)
def test_cox_regression_equals_lifelines(decimals):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 3)) * [1, 10, 0.1] + [0, 50, 3]
    true = rng.exponential(30 * np.exp(-0.5 * x[:, 0]))
    leaving = rng.exponential(40, 250)
    time, event = np.round(np.minimum(true, leaving), decimals) + 0.5, true <= leaving
    coefficients, errors, log_likelihood, against_null = map(np.array, LIFELINES[decimals])
    ours = metrics.cox_regression(event, time, x)
    np.testing.assert_allclose(ours.coefficients, coefficients, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.covariance)), errors, rtol=1e-4)
    assert ours.log_likelihood == pytest.approx(log_likelihood, rel=1e-9)
    assert 2 * (ours.log_likelihood - ours.null_log_likelihood) == pytest.approx(against_null, rel=1e-6)
    ratio, low, high, p = metrics.hazard_ratios(event, time, x)
    np.testing.assert_allclose(ratio, np.exp(coefficients), rtol=1e-5)
    np.testing.assert_allclose(p, 2 * norm.sf(np.abs(coefficients / errors)), rtol=1e-4)
    np.testing.assert_allclose(low, np.exp(coefficients - norm.ppf(0.975) * errors), rtol=1e-4)
    np.testing.assert_allclose(high, np.exp(coefficients + norm.ppf(0.975) * errors), rtol=1e-4)
    null = metrics.cox_regression(event, time, x[:, :1])
    statistic, _ = metrics.likelihood_ratio_test(null, ours)
    assert statistic == pytest.approx(2 * (ours.log_likelihood - null.log_likelihood))


def test_logrank_equals_lifelines():
    rng = np.random.default_rng(1)
    group = rng.integers(0, 3, 200)
    time, event = np.round(rng.exponential(20 - 4 * group)) + 1, rng.random(200) < 0.7
    assert metrics.logrank_test(event, time, group) == pytest.approx((1.4729890063831943, 0.47878937176666103))


def test_no_finite_hazard_ratio_is_nan_with_a_reason():
    time = np.arange(1.0, 9.0)
    for event, covariate in (
        ([1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]),  # no event in one group
        ([0] * 8, time),
        ([1] * 8, [1] * 8),
    ):
        with pytest.warns(UndefinedMetricWarning, match="no finite hazard ratio"):
            assert np.isnan(metrics.hazard_ratios(event, time, covariate)[0]).all()
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(metrics.logrank_test([1, 1], [1.0, 2.0], ["a", "a"])[1])


def test_intervals_of_hazard_ratios_cover():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        x = rng.normal(size=120)
        time = rng.exponential(np.exp(-0.5 * x))
        fit = metrics.cox_regression(np.ones(120), time, x)
        z = (fit.coefficients[0] - 0.5) / np.sqrt(fit.covariance[0, 0])
        covered.append(abs(z) < norm.ppf(0.975))
    assert 0.91 < np.mean(covered) < 0.98


@pytest.mark.parametrize("decimals", [4, 0])
def test_proportional_hazards_test_finds_the_covariate_that_changes(decimals):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2))
    time = np.round(rng.weibull(1.0 + (x[:, 0] > 0), size=200) * 20, decimals) + 1
    event = rng.random(200) < 0.8
    statistic, p = metrics.proportional_hazards_test(event, time, x)
    if decimals == 4:  # lifelines; with ties it splits moments of events differently
        np.testing.assert_allclose(statistic, [10.925931277412849, 0.0029745440527535025], rtol=1e-3)
    assert p[0] < 0.05 < p[1]
