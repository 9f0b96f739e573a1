"""Times that differ by floating rounding only are tied, in every function that takes times."""

import numpy as np
import pytest
from sksurv.util import Surv

from mmdls import metrics

GRID = np.array([0.3, 0.6, 1.2])


def cohort(n=120, seed=0):
    """Months that are tenths, many of them tied."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=n), 1)
    tenths = np.ceil(10 * np.minimum(rng.exponential(0.9 * np.exp(-risk)), rng.exponential(2.0, n))).clip(1, 25)
    return rng.random(n) < 0.7, tenths, risk


def test_the_rule_is_that_of_aeqsurv_in_r():
    # R, survival >= 3: aeqSurv(Surv(c(24173/365.25, 23805/365.25 + 368/365.25, 1, 1 + 1e-8, 1 + 2e-8), rep(1, 5)))
    # By its definition the first of a run of neighbours stays that are apart by at most 1.49e-8 x max(1, mean of the
    # different times).
    time = np.array([24173 / 365.25, 23805 / 365.25 + 368 / 365.25, 1, 1 + 1e-8, 1 + 2e-8, 1 + 1e-6])
    fixed = metrics.tied_times(time)
    assert fixed[0] == fixed[1] == min(time[:2])
    assert fixed[2:].tolist() == [1, 1, 1, 1 + 1e-6]
    # Beyond a mean of one month the tolerance grows with the mean: here 1.49e-8 x 100.5 = 1.5e-6.
    assert metrics.tied_times([1.0, 1.0 + 1e-6, 299.5]).tolist() == [1.0, 1.0, 299.5]
    assert metrics.tied_times([1.0, 1.0 + 1e-6, 2.0]).tolist() == [1.0, 1.0 + 1e-6, 2.0]
    assert metrics.tied_times([]).tolist() == []
    np.testing.assert_array_equal(metrics.tied_times([np.nan, 0.3, 0.1 + 0.2]), [np.nan, 0.3, 0.3])


CALLS = {
    "kaplan_meier": lambda e, t, r, y, g: metrics.kaplan_meier(e, t)[1],
    "median_follow_up": lambda e, t, r, y, g: metrics.median_follow_up(e, t),
    "median_survival": lambda e, t, r, y, g: metrics.median_survival(e, t),
    "horizon_labels": lambda e, t, r, y, g: metrics.horizon_labels(e, t, g[1]),
    "concordance_index": lambda e, t, r, y, g: metrics.concordance_index(e, t, r),
    "concordance_index_ipcw": lambda e, t, r, y, g: metrics.concordance_index_ipcw(y, Surv.from_arrays(e, t), r, g[2]),
    "concordance_index_antolini": lambda e, t, r, y, g: metrics.concordance_index_antolini(e, t, curves(r), g),
    "censored_log_likelihood": lambda e, t, r, y, g: metrics.censored_log_likelihood(e, t, curves(r), g),
    "cumulative_dynamic_auc": lambda e, t, r, y, g: metrics.cumulative_dynamic_auc(y, Surv.from_arrays(e, t), r, g),
    "integrated_auc": lambda e, t, r, y, g: metrics.integrated_auc(y, Surv.from_arrays(e, t), r, g),
    "brier_score": lambda e, t, r, y, g: metrics.brier_score(y, Surv.from_arrays(e, t), curves(r), g),
    "integrated_brier_score": lambda e, t, r, y, g: metrics.integrated_brier_score(
        y, Surv.from_arrays(e, t), curves(r), g
    ),
    "index_of_prediction_accuracy": lambda e, t, r, y, g: metrics.index_of_prediction_accuracy(
        y, Surv.from_arrays(e, t), curves(r), g
    ),
    "observed_expected_ratio": lambda e, t, r, y, g: metrics.observed_expected_ratio(e, t, curves(r)[:, 1], g[1]),
    "survival_calibration_slope": lambda e, t, r, y, g: metrics.survival_calibration_slope(
        y, Surv.from_arrays(e, t), curves(r)[:, 1], g[1]
    ),
    "calibration_errors": lambda e, t, r, y, g: metrics.calibration_errors(e, t, curves(r)[:, 1], g[1]),
    "net_benefit": lambda e, t, r, y, g: metrics.net_benefit(
        y, Surv.from_arrays(e, t), curves(r)[:, 1], g[1], [0.2, 0.5]
    ),
    "baseline_cumulative_hazard": lambda e, t, r, y, g: metrics.baseline_cumulative_hazard(e, t, r)[1],
    "hazard_ratios": lambda e, t, r, y, g: metrics.hazard_ratios(e, t, r),
    "proportional_hazards_test": lambda e, t, r, y, g: metrics.proportional_hazards_test(e, t, r),
    "logrank_test": lambda e, t, r, y, g: metrics.logrank_test(e, t, r > 0),
}


def curves(risk):
    return np.exp(-np.exp(risk)[:, None] * GRID)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("unit", [1.0, 30.4375])
def test_rounding_of_times_and_horizons_changes_nothing(name, unit):
    event, tenths, risk = cohort()
    rng = np.random.default_rng(1)
    exact = tenths / 10 * unit
    # The same months as a difference of two dates, each with its own last bits.
    start = rng.integers(0, 4000, len(exact))
    train, test = ((start + exact) - start, exact * (1 + rng.choice([-2, 0, 2], len(exact)) * np.finfo(float).eps))
    assert len(np.unique(train)) > len(np.unique(exact)) and len(np.unique(test)) > len(np.unique(exact))
    grid = GRID * unit
    clean = CALLS[name](event, exact, risk, Surv.from_arrays(event, exact), grid)
    for time in (train, test):
        for shaken in (grid, grid * (1 + 4 * np.finfo(float).eps), grid * (1 - 4 * np.finfo(float).eps)):
            rounded = CALLS[name](event, time, risk, Surv.from_arrays(event, train), shaken)
            np.testing.assert_allclose(rounded, clean, rtol=1e-9, atol=1e-12, err_msg=str(shaken - grid))
