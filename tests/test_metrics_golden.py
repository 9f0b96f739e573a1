"""Values computed in R on the data sets lung and gbsg, to the digits printed; where R packages differ in definition
from us and from each other, the test repeats their definition and meets them with it.

Origin: tests/benchmark_data of torchsurv (MIT), written by the R scripts that lie beside them."""

import json

import numpy as np
import pytest

from mmdls import metrics

PRINTED = 6e-5  # four decimals


@pytest.fixture(scope="module")
def golden(data_dir):
    folder = data_dir / "golden_survival" / "torchsurv"
    return lambda name: json.loads((folder / f"benchmark_{name}.json").read_text())


def outcome(event, time):
    y = np.empty(len(time), dtype=[("event", bool), ("time", float)])
    y["event"], y["time"] = event, time
    return y


def train_and_test(case):
    train = outcome(case["train_status"], case["train_time"])
    return train, outcome(case["test_status"], case["test_time"]), np.array(case["estimate"])


def plain_censoring(y, at, left):
    """Kaplan-Meier of censoring that leaves patients at risk at the moment of their death, as survfit does when events
    and censorings trade places. Ours, prodlim's and pec's let deaths come first: who died then cannot be censored."""
    times, observed = metrics.kaplan_meier(~y["event"], y["time"])
    return metrics.step_values(times, observed, at, left=left)


def test_kaplan_meier_of_survival(golden):
    for case in golden("kaplan_meier"):
        times, survival = metrics.kaplan_meier(case["status"], case["time"])
        np.testing.assert_array_equal(times, case["times"])
        np.testing.assert_allclose(survival, case["surv_prob_survival"], atol=PRINTED)


def test_censoring_weights_of_pec(golden):
    for case in golden("ipcw"):
        censoring = metrics.CensoringDistribution(outcome(case["status"], case["time"]))
        weights = [censoring.horizon_weight(t) for t in case["times"]]
        np.testing.assert_allclose(weights, case["ipcw_times"], atol=PRINTED)


def test_cox_likelihoods_of_survival(golden):
    for case in golden("cox_with_ties"):
        for ties in ("efron", "breslow"):
            log_hazard = np.squeeze(case[f"log_hazard_{ties}"])
            fit = metrics.cox_regression(case["status"], case["time"], log_hazard, ties)
            # R's fit is the maximum, so a Cox model of its linear predictor has the coefficient 1.
            assert fit.coefficients[0] == pytest.approx(1, abs=2e-3)
            # Log hazards of four decimals move the sum over hundreds of patients by about 1e-3.
            assert fit.log_likelihood == pytest.approx(case[f"log_likelihood_{ties}"][0], abs=3e-3)
    for case in golden("cox_without_ties"):
        fit = metrics.cox_regression(case["status"], case["time"], np.squeeze(case["log_hazard"]))
        assert fit.log_likelihood == pytest.approx(case["log_likelihood"][0], abs=3e-3)


def test_harrell_of_survival(golden):
    for case in golden("cindex"):
        _, y, risk = train_and_test(case)
        value = metrics.concordance_index(y["event"], y["time"], risk)
        assert value == pytest.approx(case["c_Harrell_survival"][0], abs=PRINTED)


def uno(y, risk, weight, tau, tie):
    """Uno's C by its sums; a pair needs a strictly later time, also if that one is a censoring at the same moment."""
    weight = np.where(y["event"] & (y["time"] < tau), weight**-2.0, 0)
    later = y["time"][None] > y["time"][:, None]
    won = (risk[None] < risk[:, None]) + tie * (risk[None] == risk[:, None])
    return (weight[:, None] * later * won).sum() / (weight[:, None] * later).sum()


def test_uno_of_survc1(golden):
    for case in golden("cindex"):
        _, y, risk = train_and_test(case)
        tau, expected = max(case["times"]), case["c_Uno_survC1"][0]
        # Deaths stay at risk of censoring, and pairs that share a time are left out.
        weight = np.maximum(plain_censoring(y, y["time"], left=True), 1e-12)
        assert uno(y, risk, weight, tau, 0.5) == pytest.approx(expected, abs=PRINTED)
        assert metrics.concordance_index_ipcw(y, y, risk, tau) == pytest.approx(expected, abs=6e-4)


def test_uno_of_survauc(golden):
    # On lung. Equal risks count as lost, which matters with one integer covariate. On gbsg no definition that we tried
    # gives its numbers, neither here nor for its AUC, where riskRegression and timeROC agree with ours.
    for case in golden("cindex")[:3]:
        train, y, risk = train_and_test(case)
        weight = np.maximum(plain_censoring(train, y["time"], left=True), 1e-12)
        assert uno(y, risk, weight, max(case["times"]), 0.0) == pytest.approx(case["c_Uno_survAUC"][0], abs=PRINTED)


def test_auc_of_riskregression_and_survauc(golden):
    for number, case in enumerate(golden("auc")):
        train, y, risk = train_and_test(case)
        value = metrics.cumulative_dynamic_auc(y, y, risk, case["times"])
        np.testing.assert_allclose(value, case["auc_cd_Uno_riskRegression"], atol=PRINTED)
        if number < 3:
            value = metrics.cumulative_dynamic_auc(train, y, risk, case["times"])
            np.testing.assert_allclose(value, case["auc_cd_survAUC"], atol=PRINTED)


def test_auc_of_timeroc(golden):
    for case in golden("auc"):
        _, y, risk = train_and_test(case)
        times, expected = np.array(case["times_se"]), np.array(case["auc_cd_Uno_timeROC"])
        between = ~np.isin(times, y["time"])
        value = metrics.cumulative_dynamic_auc(y, y, risk, times)
        np.testing.assert_allclose(value[between], expected[between], atol=PRINTED)
        # At the moment of an event timeROC leaves that event out of the cases, and out of the controls too.
        lower = (risk[None] < risk[:, None]) + 0.5 * (risk[None] == risk[:, None])
        for time, theirs in zip(times[~between], expected[~between], strict=True):
            case_weight, control = metrics.horizon_weights(y, y, time)
            pairs = (case_weight * (y["time"] < time))[:, None] * control
            assert (pairs * lower).sum() / pairs.sum() == pytest.approx(theirs, abs=PRINTED)


def test_brier_scores_of_survmetrics(golden):
    for case in golden("brier_score"):
        _, y, survival = train_and_test(case)
        times = np.array(case["times"], dtype=float)
        # Censoring weights by the plain Kaplan-Meier curve, and at t instead of just before it.
        own = np.maximum(plain_censoring(y, y["time"], left=False), 1e-12)[:, None]
        died = y["event"][:, None] & (y["time"][:, None] <= times)
        alive = (y["time"][:, None] > times) / plain_censoring(y, times, left=False)
        score = (died / own * survival**2 + alive * (1 - survival) ** 2).mean(axis=0)
        np.testing.assert_allclose(score, case["brier_score_survMetrics"], atol=PRINTED)
        ours = metrics.brier_score(y, y, survival, times)
        np.testing.assert_allclose(ours, case["brier_score_survMetrics"], atol=3e-4)
        # Its integral takes the left end of every interval; ours is the trapezoidal rule.
        left = (np.diff(times) * ours[:-1]).sum() / np.ptp(times)
        assert left == pytest.approx(case["ibrier_score_survMetrics"][0], abs=2e-4)
        right = (np.diff(times) * ours[1:]).sum() / np.ptp(times)
        assert metrics.integrated_brier_score(y, y, survival, times) == pytest.approx((left + right) / 2)
