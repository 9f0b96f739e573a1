"""Tests of survival: nested models, interaction, proportional hazards, groups."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import chi2, rankdata
from sksurv.compare import compare_survival

from mmdls.metrics._censoring import kaplan_meier, step_values
from mmdls.metrics._checks import check_event, check_order, check_outcome, check_predictions
from mmdls.metrics._cox import CoxFit, check_covariates, hazard_ratios, maximum_of
from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import UndefinedMetricWarning

__all__ = ["interaction_test", "likelihood_ratio_test", "logrank_test", "proportional_hazards_test"]


def likelihood_ratio_test(smaller: CoxFit, larger: CoxFit) -> tuple[float, float]:
    """Test what covariates add to a nested Cox model of the same patients.

    Parameters
    ----------
    smaller, larger : CoxFit
        Fits on the same patients; the larger has the covariates of the smaller and more.

    Returns
    -------
    statistic, p_value : float

    Raises
    ------
    ValueError
        If the larger model has no more covariates than the smaller one.

    Examples
    --------
    >>> from mmdls.metrics import cox_regression
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2))
    >>> time = rng.exponential(np.exp(-x[:, 1]))
    >>> one, two = (cox_regression(np.ones(200), time, x[:, :k]) for k in (1, 2))
    >>> likelihood_ratio_test(one, two)[1] < 0.001
    True
    """
    added = len(larger.coefficients) - len(smaller.coefficients)
    if added < 1:
        raise ValueError(
            f"larger must have more covariates than smaller; got {len(larger.coefficients)} and "
            f"{len(smaller.coefficients)}."
        )
    statistic = 2 * (larger.log_likelihood - smaller.log_likelihood)
    return float(statistic), float(chi2.sf(max(statistic, 0), added)) if np.isfinite(statistic) else float("nan")


def interaction_test(
    event: Any, time: Any, score: Any, treatment: Any, confidence_level: float = 0.95, ties: str = "efron"
) -> tuple[float, float, float, float]:
    """Ratio of the hazard ratios of a score under two treatments, with its interval and p-value.

    One Cox model of score, treatment and their product. A purely prognostic score has a ratio of 1; a ratio far from 1
    indicates a predictive score. Without randomisation the ratio is no evidence of a treatment benefit.

    Parameters
    ----------
    event, time : array of shape (n,)
        Times in months.
    score : array of shape (n,)
        For example the predicted risk; standardise it for a ratio per standard deviation.
    treatment : array of shape (n,)
        Two values; the ratio is that of the second in sorted order over the first.
    confidence_level : float, default=0.95
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    ratio, low, high, p_value : float
        NaN, with an ``UndefinedMetricWarning``, where the model has no finite maximum.

    Raises
    ------
    ValueError
        If the treatment has not two values.

    References
    ----------
    .. [1] Royston P, Sauerbrei W. A new approach to modelling interactions between treatment and continuous covariates
       in clinical trials by using fractional polynomials. Statistics in Medicine, 2004.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> score, treated = rng.normal(size=400), np.repeat(["no", "yes"], 200)
    >>> time = rng.exponential(np.exp(-score * (treated == "yes")))
    >>> ratio, low, high, p = interaction_test(np.ones(400), time, score, treated)
    >>> low < np.e < high and p < 0.001
    True
    """
    check_order(event=event, time=time, score=score, treatment=treatment)
    n = len(check_event(event))
    treatment, score = _group(treatment, n, "treatment"), check_predictions(score, (n,), "score")
    treatments = np.unique(treatment)
    if len(treatments) != 2:
        raise ValueError(
            f"treatment must have two values; got {len(treatments)}: {list(treatments[:5])}. Compare them in pairs."
        )
    second = (treatment == treatments[1]).astype(np.float64)
    result = hazard_ratios(event, time, np.column_stack([score, second, score * second]), confidence_level, ties)
    ratio, low, high, p = (float(values[2]) for values in result)
    return ratio, low, high, p


def proportional_hazards_test(
    event: Any, time: Any, covariates: Any, transform: str = "rank", ties: str = "efron"
) -> tuple[np.ndarray, np.ndarray]:
    """Test that each hazard ratio stays the same over time.

    A score test of adding the product of the covariate and a function of time to the Cox model, as ``cox.zph`` of R's
    package survival does since version 3.0 (its older approximation assumed that the covariance of the covariates is
    the same in all risk sets).

    Parameters
    ----------
    event, time : array of shape (n,)
        Times in months.
    covariates : array of shape (n,) or (n, p)
    transform : {"rank", "km", "identity", "log"}, default="rank"
        The function of time: its rank among all times, 1 minus the left limit of Kaplan-Meier (the default of R), time
        itself, or its logarithm.
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    statistic, p_value : ndarray of shape (p,)
        Chi-squared with one degree of freedom; NaN where the Cox model has no finite maximum.

    Raises
    ------
    ValueError
        If ``transform`` is unknown.

    References
    ----------
    .. [1] Grambsch PM, Therneau TM. Proportional hazards tests and diagnostics based on weighted residuals.
       Biometrika, 1994.
    .. [2] Therneau TM. A package for survival analysis in R, version 3, function cox.zph. 2020.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=300)
    >>> bool(proportional_hazards_test(np.ones(300), rng.exponential(np.exp(-x)), x)[1][0] > 0.01)
    True
    """
    event, time, covariates = check_covariates(event, time, covariates, ties)
    if transform not in _TRANSFORMS:
        raise ValueError(f"transform must be one of {list(_TRANSFORMS)}; got {transform!r}.")
    maximum = maximum_of(event, time, covariates, ties)
    _, residuals, covariances = maximum.likelihood.terms(maximum.beta)
    moments = _TRANSFORMS[transform](event, time)
    at = np.sort(moments[event])[::-1] - moments[event].mean() if event.any() else np.zeros(0)
    score = at @ residuals
    mixed, own = np.tensordot(at, covariances, 1), np.einsum("d,dpp->p", at**2, covariances)
    # Information about each product given the covariates (the Schur complement).
    left = own - np.einsum("pj,pq,qj->j", mixed, maximum.covariance, mixed)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(maximum.finite & (left > 0), score**2 / left, np.nan)
    return statistic, chi2.sf(statistic, 1)


def _log_time(event: np.ndarray, time: np.ndarray) -> np.ndarray:
    if (time[event] <= 0).any():
        raise ValueError("transform='log' needs events after time 0; use 'rank'.")
    return np.log(np.where(event, time, 1.0))


_TRANSFORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "rank": lambda event, time: rankdata(time),
    "km": lambda event, time: 1 - step_values(*kaplan_meier(event, time), time, left=True),
    "identity": lambda event, time: time,
    "log": _log_time,
}


def logrank_test(event: Any, time: Any, group: Any) -> tuple[float, float]:
    """Log-rank test of equal survival functions in groups.

    Parameters
    ----------
    event : array-like of bool, shape (n,)
    time : array-like of shape (n,)
        Months.
    group : array-like of shape (n,)
        Each patient's group; two or more different values.

    Returns
    -------
    statistic, p_value : float
        NaN, with an ``UndefinedMetricWarning``, without an event or with fewer than two groups at risk at the first.
        A group with nobody at risk by then is left out, as in R's ``survdiff``.

    References
    ----------
    .. [1] Mantel N. Evaluation of survival data and two new rank order statistics arising in its
       consideration. Cancer Chemotherapy Reports, 1966.

    Examples
    --------
    >>> statistic, p = logrank_test([1, 1, 1, 1], [1.0, 2.0, 3.0, 4.0], ["high", "high", "low", "low"])
    >>> round(statistic, 3), round(p, 3)
    (2.882, 0.09)
    """
    check_order(event=event, time=time, group=group)
    event, time = check_outcome(event, time)
    _, group = np.unique(_group(group, len(time), "group"), return_inverse=True)
    # A group without patients at risk at the first event is left out, as in R's survdiff.
    compared = np.isin(group, group[time >= time[event].min()]) if event.any() else event
    event, time, group = event[compared], time[compared], group[compared]
    if len(np.unique(group)) < 2:
        warn("the log-rank test needs an event, and two groups at risk at that time.", UndefinedMetricWarning)
        return float("nan"), float("nan")
    outcome = np.empty(len(time), dtype=[("event", bool), ("time", np.float64)])
    outcome["event"], outcome["time"] = event, time
    try:
        statistic, p_value = compare_survival(outcome, group)
    except np.linalg.LinAlgError:
        warn(
            "the log-rank test has no variance: all patients at risk have the event at one time.",
            UndefinedMetricWarning,
        )
        return float("nan"), float("nan")
    return float(statistic), float(p_value)


def _group(values: Any, n: int, name: str) -> np.ndarray:
    """The group of each patient, (n,), without missing values."""
    group = np.asarray(values)
    if group.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one value a patient; got {group.shape}.")
    if group.dtype.kind == "O":
        missing = np.array([str(value) in ("None", "nan", "<NA>", "NaT") for value in group], dtype=bool)
    else:
        missing = np.isnan(group) if group.dtype.kind == "f" else np.zeros(n, dtype=bool)
    if missing.any():
        raise ValueError(f"{name} is missing in {missing.sum()} of {n} rows; leave these patients out.")
    return group
