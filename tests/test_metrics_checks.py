"""One check of event codes, times, class probabilities and weights, whatever function they are given to."""

import numpy as np
import pandas as pd
import pytest
from sksurv.util import Surv

from mmdls import metrics

N = 40
RNG = np.random.default_rng(0)
EVENT, TIME, RISK = RNG.random(N) < 0.6, np.round(RNG.exponential(20, N), 1) + 0.1, RNG.normal(size=N)
SURVIVAL = np.exp(-np.exp(RISK) * 12 / 30)
LABELS, SCORE = RNG.integers(0, 2, N), RNG.uniform(0.05, 0.95, N)

OUTCOMES = {
    "kaplan_meier": lambda e, t: metrics.kaplan_meier(e, t)[1],
    "median_follow_up": lambda e, t: metrics.median_follow_up(e, t),
    "median_survival": lambda e, t: metrics.median_survival(e, t),
    "horizon_labels": lambda e, t: metrics.horizon_labels(e, t, 12.0),
    "concordance_index": lambda e, t: metrics.concordance_index(e, t, RISK),
    "observed_expected_ratio": lambda e, t: metrics.observed_expected_ratio(e, t, SURVIVAL, 12.0),
    "calibration_errors": lambda e, t: metrics.calibration_errors(e, t, SURVIVAL, 12.0),
    "d_calibration": lambda e, t: metrics.d_calibration(e, SURVIVAL),
    "baseline_cumulative_hazard": lambda e, t: metrics.baseline_cumulative_hazard(e, t, RISK)[1],
    "hazard_ratios": lambda e, t: metrics.hazard_ratios(e, t, RISK),
    "interaction_test": lambda e, t: metrics.interaction_test(e, t, RISK, np.resize(["a", "b"], N)),
    "proportional_hazards_test": lambda e, t: metrics.proportional_hazards_test(e, t, RISK),
    "logrank_test": lambda e, t: metrics.logrank_test(e, t, RISK > 0),
}
SAME = {
    "0/1": EVENT.astype(int),
    "0.0/1.0": EVENT.astype(float),
    "list": EVENT.tolist(),
    "object": np.array(EVENT.tolist(), dtype=object),
    "nullable boolean": pd.Series(EVENT).astype("boolean"),
    "nullable integer": pd.Series(EVENT.astype(int)).astype("Int64"),
    "categorical": pd.Series(EVENT.astype(int)).astype("category"),
}
REFUSED = {
    "1/2": EVENT + 1,
    "0/2": EVENT * 2,
    "text": EVENT.astype(int).astype(str),
    "object text": np.array(EVENT.astype(int).astype(str), dtype=object),
    "words": np.where(EVENT, "Dead", "Alive"),
    "NaN": np.where(np.arange(N) < 5, np.nan, EVENT),
    "None": np.where(np.arange(N) < 5, None, EVENT),
    "nullable": pd.Series(EVENT).astype("boolean").mask(np.arange(N) < 5),
    "categorical words": pd.Series(np.where(EVENT, "Dead", "Alive")).astype("category"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_events_are_booleans_or_0_and_1_in_any_dress(name):
    expected = OUTCOMES[name](EVENT, TIME)
    for code, event in SAME.items():
        np.testing.assert_array_equal(OUTCOMES[name](event, TIME), expected, err_msg=code)
    for event in REFUSED.values():
        with pytest.raises(ValueError, match="event must hold 0 and 1 or booleans only"):
            OUTCOMES[name](event, TIME)


def test_the_rows_of_a_wrong_code_are_named():
    event = EVENT.astype(float)
    event[[3, 7]] = 2
    with pytest.raises(ValueError, match=r"got \['2.0'\] in the rows \[3, 7\]"):
        metrics.kaplan_meier(event, TIME)


@pytest.mark.parametrize("name", sorted(set(OUTCOMES) - {"d_calibration"}))
def test_times_are_numbers_of_every_patient(name):
    np.testing.assert_array_equal(OUTCOMES[name](EVENT, pd.Series(TIME).astype("Float64")), OUTCOMES[name](EVENT, TIME))
    for time, said in (
        (TIME.astype(str), "must be numbers"),
        (TIME.astype("timedelta64[D]"), "must be numbers"),
        (pd.to_datetime("2020-01-01") + pd.to_timedelta(TIME, "D"), "must be numbers"),
        (np.where(np.arange(N) < 2, np.nan, TIME), "finite and not negative"),
        (TIME - 5, "finite and not negative"),
        (TIME[:-1], "one shape"),
    ):
        with pytest.raises(ValueError, match=said):
            OUTCOMES[name](EVENT, time)
    ids = pd.Index([f"P{k}" for k in range(N)])
    with pytest.raises(ValueError, match="indices differ"):
        OUTCOMES[name](pd.Series(EVENT, ids), pd.Series(TIME, ids[::-1]))


PROBABILITIES = {
    name: getattr(metrics, name)
    for name in (
        "accuracy_score",
        "brier_score_classes",
        "log_loss",
        "expected_calibration_error",
        "sensitivity",
        "specificity",
        "negative_predictive_value",
        "calibration_slope",
        "calibration_intercept",
    )
}
ORDERS = {name: getattr(metrics, name) for name in ("auc_score", "average_precision_score")}


@pytest.mark.parametrize("name", [*PROBABILITIES, *ORDERS])
def test_class_probabilities_lie_between_0_and_1_and_sum_to_1(name):
    metric = (PROBABILITIES | ORDERS)[name]
    two = np.column_stack([1 - SCORE, SCORE])
    assert metric(LABELS, two) == metric(LABELS, SCORE)
    metric(LABELS, two.round(2))
    for wrong, said in (
        (two * 2, "between 0 and 1"),
        (two * 0.9, "sum to 1"),
        (np.log(two), "between 0 and 1"),
        (np.column_stack([SCORE, SCORE]), "sum to 1"),
        (np.where(np.arange(N)[:, None] == 4, np.nan, two), "NaN or infinite"),
        (two[:-1], "y_true must have shape"),
    ):
        with pytest.raises(ValueError, match=said):
            metric(LABELS, wrong)
    for codes in (LABELS + 1, LABELS - 0.5, LABELS.astype(str), np.where(LABELS, "LUSC", "LUAD")):
        with pytest.raises(ValueError, match="class codes 0 to 1"):
            metric(codes, two)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_score_is_no_probability(name):
    with pytest.raises(ValueError, match=r"between 0 and 1; got .* in the rows"):
        PROBABILITIES[name](LABELS, SCORE * 3 - 1)


def test_what_looks_at_the_order_takes_any_score():
    for metric in ORDERS.values():
        assert metric(LABELS, SCORE * 3 - 1) == metric(LABELS, SCORE)


def test_codes_and_lengths_of_other_class_metrics():
    with pytest.raises(ValueError, match="class codes 0 to 1"):
        metrics.delong_test(LABELS + 1, SCORE, SCORE)
    with pytest.raises(ValueError, match="one shape"):
        metrics.quadratic_weighted_kappa(LABELS, LABELS[:-1])
    with pytest.raises(ValueError, match="class codes"):
        metrics.quadratic_weighted_kappa(LABELS, LABELS + 0.5)
    with pytest.raises(ValueError, match="y_pred must be class codes 0 to 1"):
        metrics.quadratic_weighted_kappa(LABELS, LABELS + 1, n_classes=2)
    assert metrics.quadratic_weighted_kappa(LABELS, LABELS) == 1.0


@pytest.mark.parametrize("weights", [-np.ones(N), np.full(N, np.nan), np.full(N, np.inf), np.ones(N + 1), ["1"] * N])
def test_weights_are_finite_not_negative_and_one_a_patient(weights):
    y = Surv.from_arrays(EVENT, TIME)
    for call in (
        lambda: metrics.kaplan_meier(EVENT, TIME, weights),
        lambda: metrics.concordance_index(EVENT, TIME, RISK, weights),
        lambda: metrics.brier_score(y, y, SURVIVAL, 12.0, weights),
        lambda: metrics.auc_score(LABELS, SCORE, weights),
        lambda: metrics.baseline_cumulative_hazard(EVENT, TIME, RISK, sample_weight=weights),
    ):
        with pytest.raises(ValueError, match="weight"):
            call()


def test_groups_are_one_known_value_a_patient():
    group = np.where(RISK > 0, "a", "b")
    for call in (
        lambda g: metrics.logrank_test(EVENT, TIME, g),
        lambda g: metrics.interaction_test(EVENT, TIME, RISK, g),
    ):
        assert call(group) == call(pd.Series(group).astype("category")) == call(group.tolist())
        with pytest.raises(ValueError, match="one value a patient"):
            call(group[:-1])
        for missing in (np.nan, None, pd.NA):
            with pytest.raises(ValueError, match="is missing in 4 of 40 rows"):
                call(np.array([*[missing] * 4, *group[4:]], dtype=object))


# -- order of patients, horizons, weights ------------------------------------------------------------------------------


def _cohort_with_ids(n=60):
    rng = np.random.default_rng(7)
    ids = [f"p{i}" for i in range(n)]
    risk = pd.Series(rng.normal(size=n), ids)
    time = pd.Series(rng.exponential(20 * np.exp(-risk)).round(), ids) + 1
    return pd.Series(rng.random(n) < 0.7, ids), time, risk


@pytest.mark.parametrize(
    "metric",
    [
        lambda e, t, r: metrics.concordance_index(e, t, r),
        lambda e, t, r: metrics.concordance_index_antolini(e, t, np.exp(-np.exp(r.to_frame())), [9.0]),
        lambda e, t, r: metrics.cox_regression(e, t, r).coefficients,
        lambda e, t, r: metrics.proportional_hazards_test(e, t, r.to_frame()),
        lambda e, t, r: metrics.logrank_test(e, t, r > 0),
        lambda e, t, r: metrics.interaction_test(e, t, r, r > 0),
        lambda e, t, r: metrics.baseline_cumulative_hazard(e, t, r),
        lambda e, t, r: metrics.observed_expected_ratio(e, t, np.exp(-np.exp(r)), 9.0),
        lambda e, t, r: metrics.calibration_errors(e, t, np.exp(-np.exp(r)), 9.0),
        lambda e, t, r: metrics.d_calibration(e, np.exp(-np.exp(r))),
        lambda e, t, r: metrics.auc_score(e.astype(int), r),
        lambda e, t, r: metrics.log_loss(e.astype(int), np.exp(-np.exp(r))),
        lambda e, t, r: metrics.quadratic_weighted_kappa(e.astype(int), (r > 0).astype(int)),
        lambda e, t, r: metrics.delong_test(e.astype(int), r, t),
    ],
)
def test_series_in_another_order_are_refused(metric):
    event, time, risk = _cohort_with_ids()
    metric(event, time, risk)
    with pytest.raises(ValueError, match="another order"):
        metric(event, time, risk[::-1])


@pytest.mark.parametrize("horizon", [-5.0, 0.0, np.nan, np.inf])
def test_horizons_that_are_no_months_above_0_are_refused(horizon):
    event, time, risk = (values.to_numpy() for values in _cohort_with_ids())
    outcome = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", float)])
    survival = np.exp(-np.exp(risk))
    for metric in (
        lambda: metrics.net_benefit(outcome, outcome, survival, horizon, 0.2),
        lambda: metrics.observed_expected_ratio(event, time, survival, horizon),
        lambda: metrics.calibration_errors(event, time, survival, horizon),
        lambda: metrics.survival_calibration_curve(event, time, survival, horizon),
        lambda: metrics.survival_calibration_slope(outcome, outcome, survival, horizon),
        lambda: metrics.brier_score(outcome, outcome, survival, horizon),
        lambda: metrics.cumulative_dynamic_auc(outcome, outcome, risk, horizon),
        lambda: metrics.horizon_labels(event, time, horizon),
    ):
        with pytest.raises(ValueError, match="months above 0"):
            metric()


def test_a_group_that_is_lost_before_the_first_event_is_no_part_of_the_logrank_test():
    event, time = np.array([1, 1, 1, 1, 0, 0]), np.array([5, 6, 7, 8, 1, 1.0])
    group = np.array(["a", "b", "a", "b", "c", "c"])
    assert metrics.logrank_test(event, time, group) == metrics.logrank_test(event[:4], time[:4], group[:4])
    for outcome in (([1, 1, 0], [5.0, 6.0, 1.0], ["a", "a", "b"]), ([1, 1], [5.0, 5.0], ["a", "b"])):
        with pytest.warns(metrics.UndefinedMetricWarning):
            assert np.isnan(metrics.logrank_test(*outcome)).all()


def test_the_unit_of_weights_does_not_change_calibration_errors():
    event, time, risk = (values.to_numpy() for values in _cohort_with_ids())
    survival = np.exp(-0.4 * np.exp(risk))
    whole = metrics.calibration_errors(event, time, survival, 9.0)
    for weight in (0.1, 1 / 3, 10.0):
        weights = np.full(len(time), weight)
        np.testing.assert_allclose(metrics.calibration_errors(event, time, survival, 9.0, weights), whole, rtol=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_weight_of_0_leaves_a_patient_out_of_the_baseline_hazard(ties):
    event, time, risk = (values.to_numpy() for values in _cohort_with_ids())
    weight = np.resize([1.0, 0.0, 2.0], len(time))
    kept = weight > 0
    times, hazard = metrics.baseline_cumulative_hazard(event, time, risk, ties, weight)
    fewer, expected = metrics.baseline_cumulative_hazard(event[kept], time[kept], risk[kept], ties, weight[kept])
    np.testing.assert_allclose(hazard[np.isin(times, fewer)], expected, rtol=1e-12)


@pytest.mark.parametrize("risk", [1j * RISK, RISK.astype(str), (1e15 * RISK).astype("datetime64[ns]")])
def test_predictions_that_are_no_numbers_are_refused(risk):
    with pytest.raises(TypeError, match="risk must be numbers; got .* of dtype"):
        metrics.concordance_index(EVENT, TIME, risk)
    with pytest.raises(TypeError, match="y_proba must be numbers"):
        metrics.brier_score_classes(LABELS, np.column_stack([risk, risk]))
