"""Cox regression, hazard ratios, log-rank and likelihood-ratio tests against closed forms and values that lifelines
0.30.3 gives (it keeps pandas below 3, so it is not installed for the tests)."""

import numpy as np
import pytest
from scipy.stats import norm
from sksurv.datasets import load_veterans_lung_cancer

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


def test_a_level_without_events_leaves_the_other_ratios_as_they_are():
    rng = np.random.default_rng(4)
    age, level = rng.normal(size=300), rng.integers(0, 4, 300)
    time = np.round(rng.exponential(20 * np.exp(-0.7 * age - 0.5 * (level == 1)))) + 1
    event = (rng.random(300) < 0.7) & (level != 2)
    dummies = (level[:, None] == [1, 2, 3]).astype(float)
    with pytest.warns(UndefinedMetricWarning, match=r"columns \[2\]"):
        ratio, low, high, p = metrics.hazard_ratios(event, time, np.column_stack([age, dummies]))
    assert np.isnan([ratio[2], low[2], high[2], p[2]]).all()
    # In the limit nobody of that level is at risk.
    kept, others = level != 2, [0, 1, 3]
    limit = metrics.hazard_ratios(event[kept], time[kept], np.column_stack([age, dummies[:, [0, 2]]])[kept])
    np.testing.assert_allclose(np.array([ratio, low, high, p])[:, others], np.array(limit), rtol=1e-6)
    zph = metrics.proportional_hazards_test(event, time, np.column_stack([age, dummies]), "identity")
    fewer = np.column_stack([age, dummies[:, [0, 2]]])[kept]
    expected = metrics.proportional_hazards_test(event[kept], time[kept], fewer, "identity")
    assert np.isnan(zph[0][2]) and np.isnan(zph[1][2])
    np.testing.assert_allclose(np.array(zph)[:, others], np.array(expected), rtol=1e-5)
    # The reference itself without events: no ratio to it exists, that of age stays.
    with pytest.warns(UndefinedMetricWarning, match=r"columns \[1, 2, 3\]"):
        ratio = metrics.hazard_ratios(event, time, np.column_stack([age, level[:, None] == [0, 1, 3]]))[0]
    np.testing.assert_allclose(ratio[0], limit[0][0], rtol=1e-6)
    # The likelihood is that of the limit, so tests against smaller models stand.
    both = metrics.cox_regression(event, time, np.column_stack([age, dummies]))
    assert (
        np.isfinite(both.log_likelihood)
        and both.log_likelihood > metrics.cox_regression(event, time, age).log_likelihood
    )


def test_collinear_covariates_have_no_ratio_and_the_others_have():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(150, 2))
    time = rng.exponential(np.exp(-x[:, 0]))
    fit = metrics.cox_regression(np.ones(150), time, np.column_stack([x, 3 - 2 * x[:, 1], np.ones(150)]))
    alone = metrics.cox_regression(np.ones(150), time, x)
    assert np.isnan(fit.coefficients).tolist() == [False, True, True, True]
    np.testing.assert_allclose(fit.coefficients[0], alone.coefficients[0])
    np.testing.assert_allclose(fit.covariance[0, 0], alone.covariance[0, 0])
    np.testing.assert_allclose(fit.log_likelihood, alone.log_likelihood)


def test_a_rare_covariate_never_ends_in_an_error():
    """A covariate that 1 to 3 of 60 patients have, beside a strong and wide one: Newton's first step is too far."""
    rng = np.random.default_rng(6)
    for k in range(300):
        rare = np.zeros(60)
        rare[rng.choice(60, 1 + k % 3, replace=False)] = 1
        wide = rng.standard_t(2, 60)
        time = np.ceil(rng.exponential(20 * np.exp(-np.clip(2 * wide + 3 * rare, -30, 30)))) + 0.1
        event = rng.random(60) < (0.15 if k % 2 else 0.9)
        fit = metrics.cox_regression(event, time, np.column_stack([rare, wide]))
        if event.any():
            assert fit.log_likelihood >= fit.null_log_likelihood
        finite = ~np.isnan(fit.coefficients)
        assert (np.diag(fit.covariance)[finite] > 0).all()


def test_perfect_order_has_no_finite_ratio():
    time = np.arange(1.0, 41.0)
    for x in (-time, -np.log(time), -np.exp(time / 4)):
        fit = metrics.cox_regression(np.ones(40), time, x)
        assert np.isnan(fit.coefficients).all() and fit.log_likelihood > fit.null_log_likelihood


def test_proportional_hazards_test_is_that_of_r():
    """R, survival >= 3.0, with its own data set; printed on many pages, for example in the vignette "timedep":

    fit <- coxph(Surv(time, status) ~ trt + prior + karno, veteran); cox.zph(fit)          # transform = "km"
    fit <- coxph(Surv(time, status) ~ trt + karno + age, veteran); cox.zph(fit, "rank")    # age: p = 0.153
    """
    x, y = load_veterans_lung_cancer()
    x = x.assign(trt=x["Treatment"] == "test", prior=x["Prior_therapy"] == "yes")
    statistic, p = metrics.proportional_hazards_test(
        y["Status"], y["Survival_in_days"], x[["trt", "prior", "Karnofsky_score"]], "km"
    )
    np.testing.assert_allclose(statistic, [0.288, 2.168, 12.138], atol=5e-4)
    np.testing.assert_allclose(p, [0.59125, 0.14087, 0.00049], atol=5e-6)
    p = metrics.proportional_hazards_test(
        y["Status"], y["Survival_in_days"], x[["trt", "Karnofsky_score", "Age_in_years"]]
    )[1]
    assert round(p[2], 3) == 0.153


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("transform", ["rank", "km", "identity", "log"])
def test_proportional_hazards_test_is_the_score_test_of_a_time_dependent_covariate(ties, transform):
    """The definition, term by term: each event brings the covariate times the centred function of time."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(60, 2))
    time = np.ceil(rng.exponential(8 * np.exp(-x[:, 0])))
    event = rng.random(60) < 0.7
    beta = metrics.cox_regression(event, time, x, ties).coefficients
    curve = dict(zip(*metrics.kaplan_meier(event, time), strict=True))
    of_time = {
        "rank": np.array([np.mean(np.flatnonzero(np.sort(time) == t)) + 1 for t in time]),
        "km": np.array([1 - min([curve[s] for s in curve if s < t], default=1.0) for t in time]),
        "identity": time,
        "log": np.log(time),
    }[transform]
    score, information = np.zeros(4), np.zeros((4, 4))
    for t in np.unique(time[event]):
        dying = event & (time == t)
        g = of_time[dying][0] - of_time[event].mean()
        wide = np.column_stack([x, g * x])
        for k in range(dying.sum()):
            weight = np.exp(x @ beta) * (time >= t) * (1 - (k / dying.sum() if ties == "efron" else 0) * dying)
            mean = weight @ wide / weight.sum()
            score += wide[dying][k] - mean
            information += (wide - mean).T @ ((wide - mean) * weight[:, None]) / weight.sum()
    expected = []
    for j in (2, 3):
        own = np.ix_([0, 1, j], [0, 1, j])
        u = np.array([0, 0, score[j]])
        expected.append(u @ np.linalg.solve(information[own], u))
    statistic, _ = metrics.proportional_hazards_test(event, time, x, transform, ties)
    np.testing.assert_allclose(statistic, expected, rtol=1e-6)


def test_proportional_hazards_test_keeps_its_level_and_finds_the_covariate_that_changes():
    rng = np.random.default_rng(3)
    rejected = []
    for _ in range(200):
        x = rng.normal(size=(150, 2))
        time = rng.weibull(1.0 + (x[:, 0] > 0), size=150) * 20 * np.exp(-0.5 * x[:, 1])
        rejected.append(metrics.proportional_hazards_test(rng.random(150) < 0.8, time, x)[1] < 0.05)
    changing, stable = np.mean(rejected, axis=0)
    assert changing > 0.5 > 0.12 > stable
    with pytest.raises(ValueError, match="transform must be one of"):
        metrics.proportional_hazards_test([1, 1], [1.0, 2.0], [0.0, 1.0], "sqrt")
