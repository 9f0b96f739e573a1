"""Do 95% intervals hold the truth in 95% of cohorts? 2,000 cohorts of 300 patients, two in five censored, 400
resamples each; the truth from 400,000 uncensored patients. A true coverage of 95% is then found as 94 to 96%."""

import numpy as np
import pytest

from benchmarks.known_truth import measure
from mmdls import metrics

HORIZON, N_COHORTS, N_PATIENTS, N_RESAMPLES = 24.0, 2000, 300, 400


def draw(rng, n):
    """Outcome, risk, predicted survival, label, probability, and the uncensored time."""
    true_risk = rng.normal(size=n)
    risk = true_risk + 0.7 * rng.normal(size=n)
    true, leaving = rng.exponential(30 * np.exp(-true_risk)), rng.uniform(0, 90, n)
    y = np.empty(n, dtype=[("event", bool), ("time", float)])
    y["event"], y["time"] = true <= leaving, np.minimum(true, leaving)
    label = (true_risk + rng.logistic(size=n) > 0).astype(int)
    return y, risk, np.exp(-np.exp(0.7 * risk) * HORIZON / 30), label, 1 / (1 + np.exp(-0.8 * risk)), true


def statistics(y, risk, survival, label, probability):
    event, time = y["event"], y["time"]
    return {
        "concordance_index": lambda w: metrics.concordance_index(event, time, risk, w),
        "cumulative_dynamic_auc": lambda w: metrics.cumulative_dynamic_auc(y, y, risk, HORIZON, w),
        "brier_score": lambda w: metrics.brier_score(y, y, survival, HORIZON, w),
        "index_of_prediction_accuracy": lambda w: metrics.index_of_prediction_accuracy(y, y, survival, HORIZON, w),
        "observed_expected_ratio": lambda w: metrics.observed_expected_ratio(event, time, survival, HORIZON, w),
        "net_benefit": lambda w: metrics.net_benefit(y, y, survival, HORIZON, 0.5, w),
        "auc_score": lambda w: metrics.auc_score(label, probability, w),
        "log_loss": lambda w: metrics.log_loss(label, probability, w),
        "calibration_slope": lambda w: metrics.calibration_slope(label, probability, w),
    }


def truths(rng):
    y, risk, survival, label, probability, true = draw(rng, 400_000)
    dead = true <= HORIZON
    brier = np.mean((survival - ~dead) ** 2)
    null = np.mean((np.mean(~dead) - ~dead) ** 2)
    treated = 1 - survival >= 0.5
    return {
        # Harrell's C is what it is under this censoring.
        "concordance_index": metrics.concordance_index(y["event"], y["time"], risk),
        "cumulative_dynamic_auc": metrics.auc_score(dead.astype(int), risk),
        "brier_score": brier,
        "index_of_prediction_accuracy": 1 - brier / null,
        "observed_expected_ratio": dead.mean() / (1 - survival).mean(),
        "net_benefit": np.mean(treated & dead) - np.mean(treated & ~dead),
        "auc_score": metrics.auc_score(label, probability),
        "log_loss": metrics.log_loss(label, probability),
        "calibration_slope": metrics.calibration_slope(label, probability),
    }


@pytest.mark.slow
def test_intervals_cover():
    rng = np.random.default_rng(0)
    truth = truths(rng)
    held = {(name, method): 0 for name in truth for method in ("percentile", "bca")}
    for seed in range(N_COHORTS):
        *cohort, _ = draw(rng, N_PATIENTS)
        weights = metrics.bootstrap_weights(N_PATIENTS, N_RESAMPLES, random_state=seed)
        for name, statistic in statistics(*cohort).items():
            for method in ("percentile", "bca"):
                _, low, high, _ = metrics.bootstrap_interval(statistic, weights, method=method)
                held[name, method] += low <= truth[name] <= high
    coverage = {key: count / N_COHORTS for key, count in held.items()}
    assert all(0.93 <= share <= 0.97 for share in coverage.values()), coverage


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["dfs", "os"])
def test_weighted_scores_are_unbiased_on_the_simulator_and_naive_ones_are_not(endpoint):
    """10,000 patients, a quarter to a half of them censored before the later horizons."""
    table = measure(10_000, endpoint).set_index(["censoring", "horizon"])
    off = {way: (table.loc[way] - table.loc["truth"]).abs() for way in ("weighted", "censored = event", "left out")}
    assert (off["weighted"] < 0.01).all(axis=None), off["weighted"]
    assert (off["censored = event"].loc[[36, 60], ["observed_risk", "auc"]] > 0.03).all(axis=None)
    assert (off["left out"].loc[60, ["observed_risk", "brier"]] > 0.01).all()


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (1.0, 0.3), (1.5, 0.0)])
def test_intervals_of_calibration_errors_cover(slope, shift):
    """100 cohorts of 150 patients, 200 resamples each; right, too high and too extreme risks. With right ones the truth
    is 0, which no percentile interval holds."""

    def cohort(rng, n):
        risk = rng.normal(size=n)
        true, leaving = rng.exponential(30 * np.exp(-risk)), rng.uniform(0, 90, n)
        right, said = (np.exp(-np.exp(s) * HORIZON / 30) for s in (risk, slope * risk + shift))
        return true <= leaving, np.minimum(true, leaving), said, np.abs(said - right)

    rng = np.random.default_rng(0)
    error = cohort(rng, 400_000)[3]
    truth = np.array([error.mean(), np.median(error), np.quantile(error, 0.9)])
    held = np.zeros(3)
    for seed in range(100):
        event, time, said, _ = cohort(rng, 150)
        values = metrics.calibration_errors(event, time, said, HORIZON)
        weights = metrics.bootstrap_weights(150, 200, random_state=seed)
        draws = metrics.calibration_errors(event, time, said, HORIZON, weights)
        for k in range(3):
            low, high = metrics.distance_interval(values[k], draws[k])
            assert 0 <= low <= values[k] <= high
            held[k] += low <= truth[k] <= high
    assert (held >= 93).all(), held
