"""Cox regression, hazard ratios, log-rank and likelihood-ratio tests against closed forms and lifelines."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.statistics import multivariate_logrank_test
from scipy.stats import norm

from mmdls import metrics
from mmdls.metrics import UndefinedMetricWarning

# Therneau & Grambsch, Modeling Survival Data, appendix E: six patients with tied events.
TIME, EVENT, X = [1, 1, 6, 6, 8, 9], [1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]


def test_the_tied_example_has_its_closed_forms():
    breslow = metrics.cox_regression(EVENT, TIME, X, ties="breslow")
    assert breslow.coefficients[0] == pytest.approx(np.log((3 + np.sqrt(33)) / 2), abs=1e-9)
    r = np.exp(breslow.coefficients[0])
    assert breslow.log_likelihood == pytest.approx(
        2 * np.log(r) - np.log(3 * r + 3) - 2 * np.log(r + 3), abs=1e-9
    )
    efron = metrics.cox_regression(EVENT, TIME, X)
    assert efron.coefficients[0] == pytest.approx(1.6768575, abs=1e-6)


@pytest.mark.parametrize("decimals", [3, 0])
def test_cox_regression_equals_lifelines(decimals):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 3)) * [1, 10, 0.1] + [0, 50, 3]
    true = rng.exponential(30 * np.exp(-0.5 * x[:, 0]))
    leaving = rng.exponential(40, 250)
    time, event = np.round(np.minimum(true, leaving), decimals) + 0.5, true <= leaving
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(time=time, event=event)
    theirs = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-10})
    ours = metrics.cox_regression(event, time, x)
    np.testing.assert_allclose(ours.coefficients, theirs.params_, rtol=1e-5)
    np.testing.assert_allclose(ours.covariance, theirs.variance_matrix_, rtol=1e-4)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood_, rel=1e-9)
    ratio, low, high, p = metrics.hazard_ratios(event, time, x)
    np.testing.assert_allclose(p, theirs.summary["p"], rtol=1e-4)
    np.testing.assert_allclose(low, theirs.summary["exp(coef) lower 95%"], rtol=1e-4)
    null = metrics.cox_regression(event, time, x[:, :1])
    statistic, _ = metrics.likelihood_ratio_test(null, ours)
    assert statistic == pytest.approx(2 * (ours.log_likelihood - null.log_likelihood))
    assert theirs.log_likelihood_ratio_test().test_statistic == pytest.approx(
        2 * (ours.log_likelihood - ours.null_log_likelihood), rel=1e-6
    )


def test_logrank_equals_lifelines():
    rng = np.random.default_rng(1)
    group = rng.integers(0, 3, 200)
    time, event = np.round(rng.exponential(20 - 4 * group)) + 1, rng.random(200) < 0.7
    theirs = multivariate_logrank_test(time, group, event)
    assert metrics.logrank_test(event, time, group) == pytest.approx((theirs.test_statistic, theirs.p_value))


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
