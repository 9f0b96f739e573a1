"""DeLong's test, Holm's correction, bootstrap weights and intervals, calibration at a horizon."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm
from sklearn.linear_model import LogisticRegression
from sksurv.nonparametric import kaplan_meier_estimator

from mmdls import metrics
from mmdls.metrics._calibration import _solve
from mmdls.metrics._checks import check_probabilities
from mmdls.metrics._classification import weighted_auc
from mmdls.metrics._comparison import p_text


def test_delong_variance_equals_its_definition():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=(2, 60)) + labels, 1)
    structure = []
    for score in scores:
        a, b = score[labels == 1][:, None], score[labels == 0][None, :]
        structure.append((a > b) + 0.5 * (a == b))
    wins, losses = [s.mean(axis=1) for s in structure], [s.mean(axis=0) for s in structure]
    covariance = np.cov(wins) / (labels == 1).sum() + np.cov(losses) / (labels == 0).sum()
    difference, error, p = metrics.delong_test(labels, *scores)
    assert difference == pytest.approx(structure[0].mean() - structure[1].mean())
    assert error == pytest.approx(np.sqrt([1, -1] @ covariance @ [1, -1]))
    assert metrics.delong_test(labels, scores[1], scores[0])[2] == pytest.approx(p)


def test_delong_has_no_answer_where_nothing_differs():
    assert np.isnan(metrics.delong_test([0, 1, 0, 1], [1, 2, 3, 4], [1, 2, 3, 4])[2])
    assert np.isnan(metrics.delong_test([1, 1, 1], [1, 2, 3], [3, 2, 1])[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_between_none_and_bonferroni(p_values):
    p_values = np.array(p_values)
    corrected = metrics.holm_correction(p_values)
    assert (corrected >= p_values).all()
    assert (corrected <= np.minimum(p_values * len(p_values), 1) + 1e-15).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_holm_leaves_undefined_alone():
    np.testing.assert_allclose(metrics.holm_correction([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_bootstrap_weights_keep_strata_and_clusters():
    strata = np.repeat([0, 1, 1, 2], 10)
    weights = metrics.bootstrap_weights(40, 50, strata=strata, random_state=0)
    for value in (0, 1, 2):
        assert (weights[:, strata == value].sum(axis=1) == (strata == value).sum()).all()
    centres = np.repeat(np.arange(8), 5)
    drawn = metrics.bootstrap_weights(40, 50, clusters=centres, random_state=0).reshape(50, 8, 5)
    assert (drawn == drawn[:, :, :1]).all() and (drawn[:, :, 0].sum(axis=1) == 8).all()
    again = metrics.bootstrap_weights(40, 50, strata=strata, random_state=0)
    np.testing.assert_array_equal(weights, again)


def test_bootstrap_weights_are_multinomial():
    weights = metrics.bootstrap_weights(7, 40_000, random_state=1).astype(float)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.03)


def test_intervals_equal_scipy():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    values = rng.exponential(size=80)

    def mean(weights):
        return values.mean() if weights is None else weights @ values / weights.sum(axis=1)

    weights = metrics.bootstrap_weights(80, 20_000, random_state=0)
    for method in ("percentile", "bca"):
        expected = bootstrap((values,), np.mean, n_resamples=20_000, method=method, random_state=1)
        value, low, high, _ = metrics.bootstrap_interval(mean, weights, method=method)
        assert value == pytest.approx(values.mean())
        assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_intervals_of_mostly_undefined_resamples_are_undefined():
    assert np.isnan(metrics.percentile_interval([np.nan, np.nan, 1.0])).all()
    assert not np.isnan(metrics.percentile_interval([np.nan, 2.0, 1.0])).any()


def test_observed_expected_ratio_equals_kaplan_meier_over_mean_risk():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(20, 200), rng.random(200) < 0.6
    survival = rng.random(200)
    times, surviving = kaplan_meier_estimator(event, time)
    observed = 1 - surviving[times <= 12.0][-1]
    expected = observed / (1 - survival).mean()
    assert metrics.observed_expected_ratio(event, time, survival, 12.0) == pytest.approx(expected)
    with pytest.warns(metrics.UndefinedMetricWarning, match="followed for 900 months"):
        assert np.isnan(metrics.observed_expected_ratio(event, time, survival, 900.0))


def test_calibration_slope_at_a_horizon_is_a_weighted_logistic_regression():
    rng = np.random.default_rng(1)
    log_odds = rng.normal(size=500)
    true = rng.exponential(30 * np.exp(-log_odds))
    leaving = rng.exponential(60, 500)
    y = np.rec.fromarrays([true <= leaving, np.minimum(true, leaving)], names="event,time")
    y = np.array(y, dtype=[("event", bool), ("time", float)])
    case, control = metrics.horizon_weights(y, y, 24.0)
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds[:, None], case > 0, case + control)
    slope = metrics.survival_calibration_slope(y, y, 1 / (1 + np.exp(log_odds)), 24.0)
    assert slope == pytest.approx(model.coef_[0, 0], abs=1e-4)


@pytest.mark.slow
def test_intervals_of_the_concordance_index_cover():
    """400 cohorts of 200 patients, 400 resamples each; the truth from 40,000 patients."""
    rng = np.random.default_rng(0)

    def cohort(n):
        risk = rng.normal(size=n)
        true, leaving = rng.exponential(np.exp(-risk)), rng.exponential(2.0, size=n)
        return true <= leaving, np.minimum(true, leaving), risk

    truth = np.mean([metrics.concordance_index(*cohort(40_000)) for _ in range(5)])
    covered = 0
    for k in range(400):
        sample = cohort(200)
        weights = metrics.bootstrap_weights(200, 400, random_state=k)
        low, high = metrics.percentile_interval(metrics.concordance_index(*sample, weights))
        covered += low <= truth <= high
    assert 0.93 <= covered / 400 <= 0.97, covered / 400


def simulated(n, seed=0, spread=1.0):
    """Outcomes whose true survival at 24 months is known; predictions too extreme by ``spread``."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    true, leaving = rng.exponential(30 * np.exp(-risk)), rng.uniform(0, 90, n)
    y = np.empty(n, dtype=[("event", bool), ("time", float)])
    y["event"], y["time"] = true <= leaving, np.minimum(true, leaving)
    return y, np.exp(-np.exp(spread * risk) * 24 / 30), true


def test_calibration_errors_are_small_only_for_calibrated_predictions():
    y, survival, _ = simulated(3000)
    ici, e50, e90 = metrics.calibration_errors(y["event"], y["time"], survival, 24.0)
    assert ici < 0.02 and e50 <= e90 < 0.05
    y, extreme, _ = simulated(3000, spread=2.5)
    assert metrics.calibration_errors(y["event"], y["time"], extreme, 24.0)[0] > 3 * ici
    with pytest.warns(metrics.UndefinedMetricWarning, match="no calibration curve"):
        assert np.isnan(metrics.calibration_errors(y["event"], y["time"], np.full(3000, 0.5), 24.0)).all()


@pytest.mark.parametrize("decimals", [3, 0])
def test_calibration_errors_of_resamples_equal_a_cox_model_of_the_drawn_patients(decimals):
    """Breslow ties, and the spline's knots of the whole cohort."""
    y, survival, _ = simulated(250, 3, spread=1.5)
    event, time = y["event"], np.round(y["time"], decimals)
    weights = metrics.bootstrap_weights(250, 6, random_state=0)
    values = np.array(metrics.calibration_errors(event, time, survival, 24.0, weights))
    x = np.log(-np.log(np.clip(survival, 1e-6, 1 - 1e-6)))
    low, middle, high = np.quantile(x, [0.1, 0.5, 0.9])
    cube = {knot: np.clip(x - knot, 0, None) ** 3 for knot in (low, middle, high)}
    bend = cube[low] - cube[middle] * (high - low) / (high - middle) + cube[high] * (middle - low) / (high - middle)
    basis = np.column_stack([x, bend])
    for row, found in zip(weights, values.T, strict=True):
        i = np.repeat(np.arange(250), row)
        fit = metrics.cox_regression(event[i], time[i], basis[i], ties="breslow")
        log_hazard = (basis[i] - basis.mean(axis=0)) @ fit.coefficients
        times, hazard = metrics.baseline_cumulative_hazard(event[i], time[i], log_hazard, "breslow")
        observed = 1 - np.exp(-hazard[times <= 24.0][-1] * np.exp(log_hazard))
        error = np.abs(observed - (1 - survival[i]))
        np.testing.assert_allclose(found, [error.mean(), *np.quantile(error, [0.5, 0.9])], atol=1e-6)


def test_interaction_is_the_ratio_of_hazard_ratios_and_swaps_with_the_treatments():
    rng = np.random.default_rng(0)
    score, treated = rng.normal(size=3000), rng.integers(0, 2, 3000)
    time = rng.exponential(np.exp(-score * (0.4 + 0.5 * treated) + 0.3 * treated))
    ratio, low, high, p = metrics.interaction_test(np.ones(3000), time, score, treated)
    assert low < np.exp(0.5) < high and p < 1e-6 and high / low < 1.3
    back = metrics.interaction_test(np.ones(3000), time, score, 1 - treated)
    assert back[:3] == pytest.approx((1 / ratio, 1 / high, 1 / low), rel=1e-5)
    with pytest.raises(ValueError, match="two values; got 3"):
        metrics.interaction_test(np.ones(6), np.arange(6.0), np.arange(6.0), [0, 1, 2, 0, 1, 2])


def test_interaction_test_keeps_its_level():
    p_values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score, treated = rng.normal(size=150), rng.integers(0, 2, 150)
        time = rng.exponential(np.exp(-score - 0.5 * treated))
        p_values.append(metrics.interaction_test(np.ones(150), time, score, treated)[3])
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.09


@pytest.mark.parametrize("power", [np.inf, 1.0, 0.5])
def test_d_calibration_keeps_its_level_whatever_is_censored(power):
    """Nobody, one half, and two thirds of the patients censored: S(T) and S(C) under the true model."""
    p_values, crooked = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        uniform, left = rng.random(300), rng.random(300) ** power
        event, values = uniform >= left, np.maximum(uniform, left)
        p_values.append(metrics.d_calibration(event, values)[1])
        crooked.append(metrics.d_calibration(event, values**1.4)[1])
    assert 0.025 < np.mean(np.array(p_values) < 0.05) < 0.085
    assert np.mean(np.array(crooked) < 0.05) > 0.4
    assert metrics.d_calibration(np.ones(300), rng.random(300) ** 3)[1] < 1e-6


def test_d_calibration_counts_events_against_those_expected_at_risk():
    event, values = np.array([True, False, True, True] * 20), np.tile([0.9, 0.7, 0.4, 0.2], 20)
    cumulative = -np.log(values)
    first, second = np.minimum(cumulative, np.log(2)).sum(), (cumulative - np.log(2)).clip(0).sum()
    statistic, p = metrics.d_calibration(event, values, n_bins=2)
    assert statistic == pytest.approx((20 - first) ** 2 / first + (40 - second) ** 2 / second)
    assert p == pytest.approx(chi2.sf(statistic, 2))
    # Few patients: all bins are joined, which leaves observed against expected events.
    few = metrics.d_calibration(event[:4], values[:4])[0]
    assert few == pytest.approx((3 - cumulative[:4].sum()) ** 2 / cumulative[:4].sum())


def test_net_benefit_equals_its_definition_on_uncensored_patients():
    y, survival, true = simulated(400)
    y["event"], y["time"] = True, true
    for threshold in (0.1, 0.5, 0.8):
        treated, case = 1 - survival >= threshold, true <= 24
        expected = (treated & case).mean() - (treated & ~case).mean() * threshold / (1 - threshold)
        assert metrics.net_benefit(y, y, survival, 24.0, threshold) == pytest.approx(expected)


def test_net_benefit_under_censoring_estimates_the_uncensored_one():
    y, survival, true = simulated(20_000)
    treated, case = 1 - survival >= 0.6, true <= 24
    expected = (treated & case).mean() - (treated & ~case).mean() * 1.5
    assert metrics.net_benefit(y, y, survival, 24.0, 0.6) == pytest.approx(expected, abs=0.015)


def test_calibration_curves_of_resamples_are_those_of_the_calibration_errors():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=150)
    survival = np.exp(-np.exp(risk) * 12 / 30)
    time, event = rng.exponential(30 * np.exp(-risk)), rng.random(150) < 0.8
    weights = metrics.bootstrap_weights(150, 5, random_state=1)
    curves = metrics.survival_calibration_curve(event, time, survival, 12.0, weights)
    mean = (weights * np.abs(curves - (1 - survival))).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(metrics.calibration_errors(event, time, survival, 12.0, weights)[0], mean)
    whole = metrics.survival_calibration_curve(event, time, survival, 12.0)
    np.testing.assert_array_equal(metrics.survival_calibration_curve(event, time, survival, 12.0, np.ones(150)), whole)
    assert curves.shape == (5, 150) and np.abs(curves - whole).max() > 0.001


def test_intervals_of_distances_hold_the_value():
    assert metrics.distance_interval(0.1, [0.2, 0.3, 0.4])[0] == 0
    low, high = metrics.distance_interval(5.0, np.linspace(4.9, 5.2, 101))
    assert 4.7 < low < 5.0 < high < 5.2 and low**2 + high**2 == pytest.approx(50)
    assert metrics.distance_interval(5.0, [1.0, 2.0]) == (5.0, 5.0)
    assert np.isnan(metrics.distance_interval(5.0, [np.nan, np.nan, 1.0])).all()


def test_a_slope_with_an_intercept_for_each_stratum_is_a_regression_with_indicators():
    rng = np.random.default_rng(2)
    fold = rng.integers(0, 4, 200)
    log_odds = rng.normal(size=200)
    label = (rng.random(200) < 1 / (1 + np.exp(-0.6 * log_odds - fold + 1.5))).astype(int)
    label[fold == 3] = 1  # says nothing of the slope
    design = np.column_stack([log_odds, np.eye(4)[fold]])[fold < 3]
    model = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False).fit(design, label[fold < 3])
    probability = 1 / (1 + np.exp(-log_odds))
    slope = metrics.calibration_slope(label, probability, strata=fold)
    assert slope == pytest.approx(model.coef_[0, 0], abs=1e-4)
    doubled = metrics.calibration_slope(label, probability, np.full((3, 200), 2), strata=fold)
    np.testing.assert_allclose(doubled, slope)
    constant = 0.2 + fold / 10  # tells the folds apart, and nothing inside them
    with pytest.warns(metrics.UndefinedMetricWarning):
        assert np.isnan(metrics.calibration_slope(label, constant, strata=fold))


def test_a_slope_needs_five_events():
    y = np.array([(k < 4, 1.0 + k) for k in range(40)], dtype=[("event", bool), ("time", float)])
    with pytest.warns(metrics.UndefinedMetricWarning, match="4 events by then and 28 patients event-free"):
        assert np.isnan(metrics.survival_calibration_slope(y, y, np.linspace(0.2, 0.8, 40), 12.0))


def test_the_p_value_of_a_bootstrap_counts_the_estimate_itself():
    assert metrics.bootstrap_p_value([0.1] * 99) == pytest.approx(2 * (0 + 1) / (99 + 1), abs=1e-12)
    assert metrics.bootstrap_p_value([-0.1, 0.1, 0.1, np.nan]) == pytest.approx(2 * (1 + 1) / (3 + 1), abs=1e-12)
    assert np.isnan(metrics.bootstrap_p_value([0.1, np.nan, np.nan]))


def test_what_is_left_out_or_undefined_is_said():
    with pytest.warns(metrics.UndefinedMetricWarning, match="measurements that are all equal"):
        assert np.isnan(metrics.intraclass_correlation(np.ones((5, 2))))
    y = np.array([(True, 1.0), (True, 2.0), (False, 3.0)], dtype=[("event", bool), ("time", float)])
    with pytest.warns(UserWarning, match=r"the AUC is not defined at 0\.5 months"):
        assert metrics.integrated_auc(y, y, [3.0, 2.0, 1.0], [0.5, 1.5, 2.5]) == pytest.approx(1.0)
    with pytest.warns(UserWarning, match=r"at 0\.1, 0\.2, 0\.3, 0\.4, 0\.5 months"):  # the first five of six
        metrics.integrated_auc(y, y, [3.0, 2.0, 1.0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.5])


def test_the_curves_of_resamples_of_nobody_have_no_step():
    times, survival = metrics.kaplan_meier([], [], np.ones((3, 0)))
    assert times.shape == (0,) and survival.shape == (3, 0)


def test_the_rows_of_causes_and_incidence_must_be_in_one_order():
    causes, order = pd.Series([1, 2, 0, 0], index=list("abcd")), list("badc")
    with pytest.raises(ValueError, match="order"):
        metrics.observed_expected_ratio_cause(causes, np.arange(4.0) + 1, pd.Series([0.1] * 4, index=order), 3.0)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_value_outside_of_all_resamples_counts_as_half_a_resample(side):
    """Efron's bias correction has no finite value there; of 10 resamples, z0 is that of 0.5 / 10."""
    draws, symmetric = np.arange(10.0), np.array([-1.0, 1.0])  # no acceleration
    low, high = metrics.bca_interval(4.5 + side * 10, draws, symmetric)
    levels = norm.cdf(2 * norm.ppf(0.5 - side * -0.45) + norm.ppf([0.025, 0.975]))
    np.testing.assert_allclose([low, high], 9 * levels)


def test_the_acceleration_leaves_out_groups_of_more_than_200_patients():
    values = np.random.default_rng(0).exponential(size=401)

    def mean(weights):
        return values.mean() if weights is None else weights @ values / weights.sum(axis=1)

    weights = metrics.bootstrap_weights(401, 300, random_state=0)
    without = [np.delete(values, np.s_[k::200]).mean() for k in range(200)]
    _, low, high, draws = metrics.bootstrap_interval(mean, weights, method="bca")
    assert (low, high) == pytest.approx(metrics.bca_interval(values.mean(), draws, without), rel=1e-12)


def test_the_last_bin_of_the_calibration_error_holds_the_risk_of_1():
    label, probability = [1, 0, 1], [0.85, 0.95, 1.0]
    assert metrics.expected_calibration_error(label, probability) == pytest.approx((0.15 + 0.95) / 3)
    assert metrics.expected_calibration_error([0, 1], [0.0, 0.05]) == pytest.approx(0.95 / 2)


def test_calibration_errors_take_predictions_of_0_and_1_as_nearly_so():
    y, survival, _ = simulated(200, 5)
    certain, nearly = survival.copy(), survival.copy()
    certain[:2], nearly[:2] = (0.0, 1.0), (1e-6, 1 - 1e-6)
    errors = [metrics.calibration_errors(y["event"], y["time"], each, 24.0) for each in (certain, nearly)]
    np.testing.assert_allclose(*errors, atol=1e-5)


def test_a_horizon_that_rounding_moves_below_a_time_counts_its_events():
    y, survival, _ = simulated(60, 6)
    event, time = np.ones(60, dtype=bool), np.round(y["time"] + np.arange(60), 1)
    for horizon in np.sort(time)[20:30]:
        exact = metrics.calibration_errors(event, time, survival, horizon)
        np.testing.assert_array_equal(
            metrics.calibration_errors(event, time, survival, np.nextafter(horizon, 0)), exact
        )


def test_one_prediction_for_all_has_no_calibration_curve():
    event, time = np.ones(64, dtype=bool), np.random.default_rng(0).permutation(64) + 1.0
    with pytest.warns(metrics.UndefinedMetricWarning, match="no calibration curve"):
        assert np.isnan(metrics.calibration_errors(event, time, np.full(64, 0.5), 30.0)).all()


def test_nobody_has_no_calibration_curve():
    with pytest.warns(metrics.UndefinedMetricWarning, match="no calibration curve"):
        assert np.isnan(metrics.calibration_errors([], [], [], 12.0)).all()


def test_the_weighted_auc_is_a_sum_over_pairs():
    """Patients who count as case, as control, as both and as neither, with weights that differ within each."""
    rng = np.random.default_rng(0)
    case, control = rng.exponential(size=(2, 40)) * (rng.random((2, 40)) < 0.6)
    score, drawn = rng.integers(0, 8, 40).astype(float), rng.integers(0, 3, (4, 40))
    wins = (score[:, None] > score) + (score[:, None] == score) / 2
    for found, row in zip(weighted_auc(score, case, control)(drawn), drawn, strict=True):
        pairs = np.outer(case * row, control * row)
        assert found == pytest.approx((pairs * wins).sum() / pairs.sum(), rel=1e-12)


def test_training_rows_of_unknown_outcome_give_no_weights():
    y, _, _ = simulated(50, 7)
    unknown = np.concatenate([y, np.array([(False, np.nan)] * 3, dtype=y.dtype)])
    np.testing.assert_array_equal(metrics.horizon_weights(unknown, y, 24.0), metrics.horizon_weights(y, y, 24.0))


@pytest.mark.parametrize(
    ("p", "text", "named"),
    [
        (0.0123, ".012", "p = .012"),
        (0.001, ".001", "p = .001"),
        (0.00099, "< .001", "p < .001"),
        (1.0, "1.000", "p = 1.000"),
        (np.nan, "", ""),
    ],
)
def test_p_values_are_printed_as_in_journals(p, text, named):
    assert (p_text(p), p_text(p, "p")) == (text, named)


def test_class_probabilities_are_finite():
    with pytest.raises(ValueError, match="y_proba must be finite; got NaN or infinite values in"):
        check_probabilities([[0.5, 0.5], [np.nan, 0.5]])


def test_two_subjects_measured_twice_have_a_correlation():
    assert metrics.intraclass_correlation([[1.0, 1.0], [2.0, 2.0]]) == pytest.approx(1.0)


def test_two_clusters_can_be_drawn():
    weights = metrics.bootstrap_weights(4, 50, clusters=["a", "a", "b", "b"], random_state=0)
    assert (weights[:, 0] == weights[:, 1]).all() and set(weights[:, 0].tolist()) == {0, 1, 2}


def test_bca_counts_draws_equal_to_the_value_by_half():
    """Efron's formulas, with ties, and with a jackknife that does not vary."""
    draws, jackknife = np.repeat(np.arange(10.0), [1, 2, 3, 4, 10, 4, 3, 2, 1, 10]), np.arange(5.0) ** 2
    influence = jackknife.mean() - jackknife
    skew = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = norm.ppf(((draws < 4).sum() + (draws == 4).sum() / 2) / len(draws))
    for leave_one_out, acceleration in ((jackknife, skew), (np.ones(5), 0.0)):
        z = bias + norm.ppf([0.025, 0.975])
        expected = np.quantile(draws, norm.cdf(bias + z / (1 - acceleration * z)))
        np.testing.assert_allclose(metrics.bca_interval(4.0, draws, leave_one_out), expected, atol=1e-12)


def test_an_interval_of_an_unknown_value_is_unknown():
    found = metrics.bootstrap_interval(lambda w: np.nan if w is None else np.full(len(w), np.nan), np.ones((4, 6)))
    assert np.isnan(found[:3]).all()


def test_bca_of_clusters_leaves_out_whole_clusters():
    values, clusters = np.arange(12.0) ** 2, np.repeat(["a", "b", "c", "d"], 3)
    weights = metrics.bootstrap_weights(12, 400, clusters=clusters, random_state=0)
    mean = lambda w: values.mean() if w is None else (w @ values) / w.sum(axis=1)  # noqa: E731
    value, low, high, draws = metrics.bootstrap_interval(mean, weights, method="bca", clusters=clusters)
    left_out = [values[clusters != name].mean() for name in "abcd"]
    assert (low, high) == pytest.approx(metrics.bca_interval(value, draws, left_out))


def test_a_patient_at_the_threshold_is_treated_and_counted():
    y = np.array([(True, 5.0), (False, 20.0)], dtype=[("event", bool), ("time", float)])
    assert metrics.net_benefit(y, y, [0.5, 0.9], 12.0, 0.5) == pytest.approx(0.5)
    assert metrics.sensitivity([0, 1], [0.2, 0.5], threshold=0.5) == 1.0


def test_one_horizon_twice_is_refused():
    y, survival, _ = simulated(30, 0)
    with pytest.raises(ValueError, match="ascending; got"):
        metrics.cumulative_dynamic_auc(y, y, np.zeros((30, 2)), [12.0, 12.0])


def test_an_effect_is_one_newton_step_of_a_quadratic():
    np.testing.assert_allclose(_solve(np.array([[4.0]]), np.array([[2.0]])), [[0.5]])
    information = np.array([[4.0], [1.0], [3.0]])
    np.testing.assert_allclose(
        _solve(information, np.array([[1.0], [2.0]]))[:, 0], np.linalg.solve([[4.0, 1.0], [1.0, 3.0]], [1.0, 2.0])
    )


def test_what_is_left_after_the_last_bin_of_d_calibration_belongs_to_it():
    # Ten patients with a hazard of -log(.4): 6.9 events are expected above a survival of one half, 2.2 below it.
    statistic, p = metrics.d_calibration(np.ones(10), np.full(10, 0.4), n_bins=2)
    expected = -10 * np.log(0.4)
    assert statistic == pytest.approx((10 - expected) ** 2 / expected)
    assert p == pytest.approx(chi2.sf(statistic, 1))


def test_an_effect_with_little_information_is_a_number():
    np.testing.assert_allclose(_solve(np.array([[0.5]]), np.array([[1.0]])), [[2.0]])
    assert np.isnan(_solve(np.array([[1e-7]]), np.array([[1.0]]))).all()


def test_a_threshold_of_1_is_refused():
    y = np.array([(True, 5.0), (False, 20.0)], dtype=[("event", bool), ("time", float)])
    with pytest.raises(ValueError, match="below 1; got 1"):
        metrics.net_benefit(y, y, [0.5, 0.9], 12.0, 1.0)


@pytest.mark.parametrize("value, draws, left_out", [(np.nan, [1, 2], [1, 2]), (1, [np.nan], [1, 2]), (1, [1, 2], [])])
def test_an_interval_of_nothing_is_unknown(value, draws, left_out):
    assert np.isnan(metrics.bca_interval(value, draws, left_out)).all()


def test_each_variable_has_an_intraclass_correlation():
    values = np.random.default_rng(0).normal(size=(9, 2, 3))
    several = metrics.intraclass_correlation(values)
    assert several == pytest.approx([metrics.intraclass_correlation(values[:, :, k]) for k in range(3)])
    assert isinstance(metrics.intraclass_correlation(values[:, :, 0]), float)


def test_a_structured_outcome_has_two_fields():
    y = np.array([(True, 5.0, 1)], dtype=[("event", bool), ("time", float), ("centre", int)])
    with pytest.raises(ValueError, match="an event field and a time field"):
        metrics.net_benefit(y, y, [0.5], 12.0, 0.5)
