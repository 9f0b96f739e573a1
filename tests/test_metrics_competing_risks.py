"""Metrics of competing risks: scikit-survival, closed forms, loops over pairs, and the metrics of one cause alone."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from sksurv.nonparametric import cumulative_incidence_competing_risks
from sksurv.util import Surv

from mmdls import metrics
from mmdls.metrics import UndefinedMetricWarning
from tests.simulated_outcomes import cause_specific_rates, draw_competing_risks, true_incidence

TIMES = np.array([6.0, 12.0, 24.0])
METRICS = {
    "concordance": lambda y, f, w=None, cause=1: metrics.concordance_index_cause(
        y["cause"], y["time"], f[:, 1], w, cause=cause
    ),
    "ipcw": lambda y, f, w=None, cause=1: metrics.concordance_index_ipcw_cause(y, y, f[:, 1], 24.0, w, cause=cause),
    "auc": lambda y, f, w=None, cause=1: metrics.cumulative_dynamic_auc_cause(y, y, f, TIMES, w, cause=cause),
    "brier": lambda y, f, w=None, cause=1: metrics.brier_score_cause(y, y, f, TIMES, w, cause=cause),
    "ibs": lambda y, f, w=None, cause=1: metrics.integrated_brier_score_cause(y, y, f, TIMES, w, cause=cause),
    "ipa": lambda y, f, w=None, cause=1: metrics.index_of_prediction_accuracy_cause(y, y, f, TIMES, w, cause=cause),
    "integrated_ipa": lambda y, f, w=None, cause=1: metrics.integrated_ipa_cause(y, y, f, TIMES, w, cause=cause),
    "ratio": lambda y, f, w=None, cause=1: metrics.observed_expected_ratio_cause(
        y["cause"], y["time"], f[:, 1], 12.0, w, cause=cause
    ),
}
ONE_CAUSE = {
    "concordance": lambda y, f, w=None: metrics.concordance_index(y["event"], y["time"], f[:, 1], w),
    "ipcw": lambda y, f, w=None: metrics.concordance_index_ipcw(y, y, f[:, 1], 24.0, w),
    "auc": lambda y, f, w=None: metrics.cumulative_dynamic_auc(y, y, f, TIMES, w),
    "brier": lambda y, f, w=None: metrics.brier_score(y, y, 1 - f, TIMES, w),
    "ibs": lambda y, f, w=None: metrics.integrated_brier_score(y, y, 1 - f, TIMES, w),
    "ipa": lambda y, f, w=None: metrics.index_of_prediction_accuracy(y, y, 1 - f, TIMES, w),
    "integrated_ipa": lambda y, f, w=None: metrics.integrated_ipa(y, y, 1 - f, TIMES, w),
    "ratio": lambda y, f, w=None: metrics.observed_expected_ratio(y["event"], y["time"], 1 - f[:, 1], 12.0, w),
}


def structured(causes, time):
    outcome = np.empty(len(causes), dtype=[("cause", int), ("time", float)])
    outcome["cause"], outcome["time"] = causes, time
    return outcome


def cohort(n=150, seed=0, decimals=None, cause=1, **options):
    """Outcomes, and incidences of one cause that carry signal and ties."""
    signal, causes, time = draw_competing_risks(n, seed, decimals=decimals, **options)
    noisy = signal + np.random.default_rng(seed).normal(0, 1, n)
    incidence = true_incidence(cause_specific_rates(noisy), TIMES)[:, cause - 1]
    return structured(causes, time), incidence.round(2)


# -- the Aalen-Johansen estimator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 0, -1])
def test_incidence_equals_scikit_survival(decimals):
    _, causes, time = draw_competing_risks(200, 1, rates=(0.03, 0.02, 0.01), effects=(0, 1, -1), decimals=decimals)
    times, expected = cumulative_incidence_competing_risks(causes, time)[:2]
    found_times, found = metrics.cumulative_incidence(causes, time)
    np.testing.assert_array_equal(found_times, times)
    np.testing.assert_allclose(found, expected[1:], atol=1e-12)


@pytest.mark.parametrize("decimals", [None, 0])
def test_incidences_and_kaplan_meier_sum_to_one_in_every_resample(decimals):
    _, causes, time = draw_competing_risks(120, 2, decimals=decimals)
    weights = metrics.bootstrap_weights(120, 20, random_state=0)
    times, incidence = metrics.cumulative_incidence(causes, time, weights)
    _, survival = metrics.kaplan_meier(causes > 0, time, weights)
    assert incidence.shape == (20, 2, len(times)) and (np.diff(incidence) >= 0).all()
    np.testing.assert_allclose(incidence.sum(axis=1) + survival, 1, atol=1e-12)
    for row, found in zip(weights, incidence, strict=True):
        drawn = np.repeat(np.arange(120), row)
        at, expected = metrics.cumulative_incidence(causes[drawn], time[drawn], n_causes=2)
        np.testing.assert_allclose(found[:, np.isin(times, at)], expected, atol=1e-12)


def test_without_censoring_the_incidence_is_a_share_of_the_patients():
    _, causes, time = draw_competing_risks(300, 3, censoring=0, decimals=0)
    times, incidence = metrics.cumulative_incidence(causes, time)
    for cause in (1, 2):
        share = ((time[:, None] <= times) & (causes == cause)[:, None]).mean(axis=0)
        np.testing.assert_allclose(incidence[cause - 1], share, atol=1e-12)


def test_with_one_cause_the_incidence_is_one_minus_kaplan_meier():
    event, time = np.array([True, False, True, True]), np.array([1.0, 2.0, 2.0, 4.0])
    times, incidence = metrics.cumulative_incidence(event, time)
    assert incidence.shape == (1, 3)
    np.testing.assert_allclose(incidence[0], 1 - metrics.kaplan_meier(event, time)[1], atol=1e-15)
    assert metrics.cumulative_incidence(event, time, n_causes=3)[1].shape == (3, 3)
    assert metrics.cumulative_incidence([], [])[1].shape == (1, 0)
    with pytest.raises(ValueError, match="holds the code 2; n_causes=1 allows 1 to 1"):
        metrics.cumulative_incidence([2], [1.0], n_causes=1)


def test_the_estimate_finds_the_known_incidence():
    _, causes, time = draw_competing_risks(20_000, 4, effects=(0, 0))
    times, incidence = metrics.cumulative_incidence(causes, time)
    truth = true_incidence(np.array([[0.04, 0.02]]), times - 0.1)[0]
    assert np.abs(incidence - truth)[:, times < 60].max() < 0.015
    naive = 1 - metrics.kaplan_meier(causes == 1, time)[1]
    assert (naive - truth[0])[times > 30].min() > 0.1, "others as censored overstate it"


# -- laws of all metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("name", METRICS)
def test_with_one_cause_it_is_the_metric_of_survival(name, decimals):
    y, incidence = cohort(decimals=decimals)
    event = Surv.from_arrays(y["cause"] == 1, y["time"])
    alone = structured(y["cause"] == 1, y["time"])
    weights = metrics.bootstrap_weights(len(y), 5, random_state=0)
    for given in (None, weights[0], weights, np.linspace(0, 3, len(y))):
        found, expected = METRICS[name](alone, incidence, given), ONE_CAUSE[name](event, incidence, given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_every_resample_of_an_uncensored_cohort_is_the_metric_of_the_patients_drawn(name):
    y, incidence = cohort(80, decimals=0, censoring=0)
    weights = metrics.bootstrap_weights(80, 10, random_state=0)
    for row, found in zip(weights, METRICS[name](y, incidence, weights), strict=True):
        drawn = np.repeat(np.arange(80), row)
        if "ipa" not in name:  # its reference is not drawn again
            np.testing.assert_allclose(found, METRICS[name](y[drawn], incidence[drawn]), atol=1e-12)


@pytest.mark.parametrize("cause", [1, 2])
def test_without_censoring_they_are_closed_forms(cause):
    y, incidence = cohort(cause=cause, censoring=0)
    by_then = (y["cause"] == cause)[:, None] & (y["time"][:, None] <= TIMES)
    brier = ((by_then - incidence) ** 2).mean(axis=0)
    null = ((by_then - by_then.mean(axis=0)) ** 2).mean(axis=0)
    auc = [skm.roc_auc_score(label, risk) for label, risk in zip(by_then.T, incidence.T, strict=True)]
    np.testing.assert_allclose(METRICS["brier"](y, incidence, cause=cause), brier, atol=1e-12)
    np.testing.assert_allclose(METRICS["auc"](y, incidence, cause=cause), auc, atol=1e-12)
    np.testing.assert_allclose(METRICS["ipa"](y, incidence, cause=cause), 1 - brier / null, atol=1e-12)
    mean, mean_null = (np.trapezoid(values, TIMES) / 18 for values in (brier, null))
    assert METRICS["ibs"](y, incidence, cause=cause) == pytest.approx(mean, abs=1e-12)
    assert METRICS["integrated_ipa"](y, incidence, cause=cause) == pytest.approx(1 - mean / mean_null, abs=1e-12)
    ratio = by_then[:, 1].mean() / incidence[:, 1].mean()
    assert METRICS["ratio"](y, incidence, cause=cause) == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 0, -1])
@pytest.mark.parametrize("cause", [1, 2])
def test_concordance_equals_a_loop_over_pairs(cause, decimals):
    y, incidence = cohort(60, 5, decimals, cause)
    causes, time, risk = y["cause"], y["time"], incidence[:, 1]
    weight = metrics.CensoringDistribution(Surv.from_arrays(causes > 0, time)).event_weight(causes > 0, time)
    plain, weighted = np.zeros(2), np.zeros(2)
    for i in np.flatnonzero(causes == cause):
        for j in range(60):
            other = causes[j] > 0 and causes[j] != cause
            later = time[j] > time[i] or (time[j] == time[i] and causes[j] != cause)
            if later or other:
                won = (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
                plain += won, 1
                if time[i] < 24:
                    weighted += np.array([won, 1]) * weight[i] * (weight[i] if later else weight[j])
    assert METRICS["concordance"](y, incidence, cause=cause) == pytest.approx(plain[0] / plain[1], abs=1e-12)
    assert METRICS["ipcw"](y, incidence, cause=cause) == pytest.approx(weighted[0] / weighted[1], abs=1e-12)


@pytest.mark.parametrize("cause", [1, 2])
def test_weights_take_the_censoring_out(cause):
    """The same 10,000 patients with and without censoring."""
    full, incidence = cohort(10_000, cause=cause, censoring=0)
    lost = np.random.default_rng(9).exponential(25, 10_000)
    y = structured(np.where(full["time"] <= lost, full["cause"], 0), np.minimum(full["time"], lost))
    assert (y["cause"] == 0).mean() > 0.35
    for name, tolerance in {"brier": 0.005, "auc": 0.02, "ipcw": 0.01, "ratio": 0.03, "ipa": 0.02}.items():
        truth = METRICS[name](full, incidence, cause=cause)
        np.testing.assert_allclose(METRICS[name](y, incidence, cause=cause), truth, atol=tolerance, err_msg=name)


def test_the_reference_is_that_of_the_training_rows():
    y, incidence = cohort(100)
    train, _ = cohort(400, 8)
    times, curve = metrics.cumulative_incidence(train)
    flat = np.tile(1 - metrics.step_values(times, 1 - curve[0], TIMES), (100, 1))
    found = metrics.index_of_prediction_accuracy_cause(y, y, flat, TIMES, reference=train)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    assert metrics.integrated_ipa_cause(y, y, flat, TIMES, reference=train) == pytest.approx(0, abs=1e-12)
    unknown = np.append(train, structured([0], [np.nan]))
    assert metrics.integrated_ipa_cause(y, y, incidence, TIMES, reference=unknown) == metrics.integrated_ipa_cause(
        y, y, incidence, TIMES, reference=train
    )


# -- what is undefined or refused --------------------------------------------------------------------------------------


def test_what_cannot_be_estimated_is_nan_and_says_why():
    y, incidence = cohort(60)
    for name in ("concordance", "ipcw", "auc"):
        with pytest.warns(UndefinedMetricWarning):
            assert np.isnan(METRICS[name](y, incidence, cause=7)).all()
    late = np.array([12.0, 1000.0])
    with pytest.warns(UndefinedMetricWarning, match="follow-up ends before"):
        assert np.isnan(metrics.brier_score_cause(y, y, incidence[:, :2], late)).tolist() == [False, True]
    with pytest.warns(UserWarning, match="clipped at 24 months"):
        metrics.integrated_brier_score_cause(y, y, incidence[:, [0, 2, 2]], [6.0, 24.0, 1000.0])
    with pytest.warns(UndefinedMetricWarning, match="nobody is followed for 1000 months"):
        assert np.isnan(metrics.observed_expected_ratio_cause(y["cause"], y["time"], incidence[:, 0], 1000.0))
    with pytest.warns(UserWarning, match="tau clipped at 6 months"):
        metrics.concordance_index_ipcw_cause(structured([0, 0], [5.0, 6.0]), y, incidence[:, 0])


SAME = {
    "float": lambda causes: causes.astype(float),
    "list": lambda causes: causes.tolist(),
    "object": lambda causes: causes.astype(object),
    "nullable": lambda causes: pd.Series(causes).astype("Int64"),
    "unsigned": lambda causes: causes.astype(np.uint8),
}
REFUSED = {
    "text": (lambda causes: causes.astype(str), "whole numbers"),
    "halves": (lambda causes: causes / 2, r"got \['0.5'"),
    "negative": (lambda causes: causes - 1, r"got \['-1'\]"),
    "NaN": (lambda causes: np.where(causes == 2, np.nan, causes), r"got \['nan'\]"),
    "None": (lambda causes: np.where(causes == 2, None, causes), r"got \['None'\]"),
    "infinite": (lambda causes: np.where(causes == 2, np.inf, causes), r"got \['inf'\]"),
    "table": (lambda causes: causes[:, None], r"must have shape \(n,\)"),
}


def test_causes_are_whole_numbers_of_any_dtype():
    y, incidence = cohort(60)
    expected = METRICS["concordance"](y, incidence)
    for name, convert in SAME.items():
        found = metrics.concordance_index_cause(convert(y["cause"]), y["time"], incidence[:, 1])
        assert found == expected, name
    for spoil, said in REFUSED.values():
        with pytest.raises(ValueError, match=said):
            metrics.cumulative_incidence(spoil(y["cause"]), y["time"])


def test_what_cannot_be_meant_is_refused():
    y, incidence = cohort(60)
    for name, metric in METRICS.items():
        for cause in (0, -1, 1.5, True, "1"):
            with pytest.raises(ValueError, match="cause must be the code of a cause"):
                metric(y, incidence, cause=cause)
        if name not in ("concordance", "ipcw", "auc"):
            with pytest.raises(ValueError, match="incidence must hold probabilities"):
                metric(y, incidence * 3)
        with pytest.raises(ValueError, match="NaN or infinite"):
            metric(y, np.where(incidence == incidence.max(), np.nan, incidence))
        with pytest.raises(ValueError, match="one weight a patient"):
            metric(y, incidence, np.ones(3))
    with pytest.raises(ValueError, match="structured array with a field of causes"):
        metrics.brier_score_cause(y["cause"], y, incidence, TIMES)
    ids = pd.Index([f"P{k}" for k in range(60)])
    with pytest.raises(ValueError, match="indices differ"):
        metrics.concordance_index_cause(pd.Series(y["cause"], ids), pd.Series(y["time"], ids[::-1]), incidence[:, 0])
    with pytest.raises(ValueError, match="finite and not negative"):
        metrics.cumulative_incidence([1, 0], [-1.0, 2.0])
