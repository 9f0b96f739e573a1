"""Cox regression on a few covariates, for hazard ratios and tests."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, rankdata
from sksurv.compare import compare_survival

from mmdls.metrics._censoring import kaplan_meier, step_values
from mmdls.metrics._checks import check_event, check_outcome, check_predictions
from mmdls.metrics._resamples import UndefinedMetricWarning

__all__ = [
    "CoxFit",
    "cox_regression",
    "hazard_ratios",
    "interaction_test",
    "likelihood_ratio_test",
    "logrank_test",
    "proportional_hazards_test",
]

_ROUNDS = 100
_NO_INFORMATION = 1e-10  # of the best known direction, at coefficients of zero
_LOST_INFORMATION = 1e-8  # of what the direction had at zero


@dataclass(frozen=True)
class CoxFit:
    """Result of :func:`cox_regression`.

    Parameters
    ----------
    coefficients : ndarray of shape (p,)
        Log hazard ratios; NaN where there is no finite maximum: of a group without an event, of constant or collinear
        covariates. The others are those in the limit.
    covariance : ndarray of shape (p, p)
    log_likelihood, null_log_likelihood : float
        Partial, with and without the covariates; NaN without an event.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    null_log_likelihood: float


def cox_regression(event: Any, time: Any, covariates: Any, ties: str = "efron") -> CoxFit:
    """Fit a Cox model without penalty by Newton's method.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    covariates : array of shape (n,) or (n, p)
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    CoxFit

    References
    ----------
    .. [1] Cox DR. Regression models and life-tables. Journal of the Royal Statistical Society B, 1972.
    .. [2] Therneau TM, Grambsch PM. Modeling survival data: extending the Cox model. Springer, 2000.

    Examples
    --------
    >>> time, event, x = [1, 1, 6, 6, 8, 9], [1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]
    >>> cox_regression(event, time, x, ties="breslow").coefficients.round(6)
    array([1.475285])
    """
    event, time, covariates = _check(event, time, covariates, ties)
    maximum = _maximum(event, time, covariates, ties)
    return CoxFit(
        np.where(maximum.finite, maximum.beta, np.nan),
        np.where(np.outer(maximum.finite, maximum.finite), maximum.covariance, np.nan),
        maximum.log_likelihood,
        maximum.null_log_likelihood,
    )


def _check(event: Any, time: Any, covariates: Any, ties: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow'; got {ties!r}.")
    event, time = check_outcome(event, time)
    covariates = np.asarray(covariates, dtype=np.float64)
    covariates = covariates[:, None] if covariates.ndim == 1 else covariates
    if len(covariates) != len(time) or not np.isfinite(covariates).all():
        raise ValueError(f"covariates must be {len(time)} rows of finite numbers; got shape {covariates.shape}.")
    return event, time, covariates


@dataclass(frozen=True)
class _Maximum:
    """Where the partial likelihood is largest; ``beta`` stands far out in directions without a finite maximum."""

    likelihood: "_PartialLikelihood"
    beta: np.ndarray
    covariance: np.ndarray
    finite: np.ndarray
    log_likelihood: float
    null_log_likelihood: float


def _maximum(event: np.ndarray, time: np.ndarray, covariates: np.ndarray, ties: str) -> _Maximum:
    """Newton's method along the directions that carry information, with step halving.

    Directions are the eigenvectors of the information relative to that at zero. Those without any at the start are
    collinear covariates; in those that lose it on the way the likelihood rises for ever, as for a group without an
    event, and the other coefficients converge to what they are in the limit.
    """
    p = covariates.shape[1]
    scale = covariates.std(axis=0)
    varies = scale > 0
    scale = np.where(varies, scale, 1.0)
    likelihood = _PartialLikelihood(event, time, (covariates - covariates.mean(axis=0)) / scale, ties)
    if not event.any():
        nothing = np.full((p, p), np.nan)
        return _Maximum(likelihood, np.zeros(p), nothing, np.zeros(p, dtype=bool), float("nan"), float("nan"))
    beta, step = np.zeros(p), np.full(p, np.inf)
    value, gradient, information = likelihood(beta)
    null = value
    length, axes = np.linalg.eigh(information)
    informed = length > _NO_INFORMATION * length.max(initial=0.0)
    whitening = axes[:, informed] / np.sqrt(length[informed])
    for _ in range(_ROUNDS):
        share, turned = np.linalg.eigh(whitening.T @ information @ whitening)
        kept = share > _LOST_INFORMATION
        directions = whitening @ turned
        covariance = (directions[:, kept] / share[kept]) @ directions[:, kept].T
        step = covariance @ gradient
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
        moved = step
        while (proposed := likelihood(beta + moved))[0] < value - 1e-9 * abs(value):
            moved = moved / 2
            if np.abs(moved).max() < 1e-12:
                break
        else:
            beta, (value, gradient, information) = beta + moved, proposed
            continue
        break
    endless = np.column_stack([axes[:, ~informed], directions[:, ~kept]])
    endless = endless / np.maximum(np.abs(endless).max(axis=0, initial=0.0), np.finfo(float).tiny)
    finite = varies & (np.abs(endless).max(axis=1, initial=0.0) < 1e-4) & (np.abs(step) < 1e-6)
    likelihood = _PartialLikelihood(event, time, covariates, ties)
    return _Maximum(likelihood, beta / scale, covariance / np.outer(scale, scale), finite, value, null)


class _PartialLikelihood:
    """Log partial likelihood, gradient and information; sorted once."""

    def __init__(self, event: np.ndarray, time: np.ndarray, covariates: np.ndarray, ties: str) -> None:
        order = np.argsort(-time, kind="stable")
        self.x, event, time = covariates[order], event[order], time[order]
        _, group, counts = np.unique(-time, return_inverse=True, return_counts=True)
        self.at = np.flatnonzero(event)
        self.last = np.cumsum(counts)[group[self.at]] - 1
        self.group = group[self.at]
        tied = np.bincount(self.group, minlength=len(counts))
        rank = np.arange(len(self.at)) - (np.cumsum(tied) - tied)[self.group]
        self.share = rank / tied[self.group] if ties == "efron" else np.zeros(len(self.at))
        self.n_groups = len(counts)

    def __call__(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Log likelihood, gradient and information; minus infinity where they overflow, so that no step leads there."""
        with np.errstate(all="ignore"):
            value, gradient, information = (part.sum(axis=0) for part in self.terms(beta))
        finite = np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(information).all()
        return float(value) if finite else -np.inf, gradient, information

    def terms(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each event, from the latest: log likelihood (d,), Schoenfeld residual (d, p), covariance of the covariates
        in its risk set (d, p, p)."""
        eta = self.x @ beta
        shift = eta.max()
        hazard = np.exp(eta - shift)
        moments = [hazard[:, None], hazard[:, None] * self.x]
        moments.append((moments[1][:, :, None] * self.x[:, None, :]).reshape(len(eta), -1))
        zero, one, two = (self._at_risk(moment) for moment in moments)
        mean = one / zero
        p = len(beta)
        spread = (two / zero).reshape(-1, p, p) - mean[:, :, None] * mean[:, None, :]
        return eta[self.at] - shift - np.log(zero[:, 0]), self.x[self.at] - mean, spread

    def _at_risk(self, moment: np.ndarray) -> np.ndarray:
        summed = moment.cumsum(axis=0)[self.last]
        if not self.share.any():
            return summed
        tied = np.zeros((self.n_groups, moment.shape[1]))
        np.add.at(tied, self.group, moment[self.at])
        return summed - self.share[:, None] * tied[self.group]


def hazard_ratios(
    event: Any, time: Any, covariates: Any, level: float = 0.95, ties: str = "efron"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hazard ratios with Wald intervals, from one Cox model of all covariates.

    Parameters
    ----------
    event, time : array of shape (n,)
    covariates : array of shape (n,) or (n, p)
        For groups give dummies (one column for each group but the reference), not their number; for a ratio
        per standard deviation standardise first.
    level : float, default=0.95
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    ratio, low, high, p_value : ndarray of shape (p,)
        NaN, with an ``UndefinedMetricWarning``, where the model has no finite maximum.

    Examples
    --------
    >>> time, event, x = [1, 1, 6, 6, 8, 9], [1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]
    >>> [values.round(3).item() for values in hazard_ratios(event, time, x)]
    [5.349, 0.437, 65.427, 0.189]
    """
    fit = cox_regression(event, time, covariates, ties)
    if np.isnan(fit.coefficients).any():
        lost = np.flatnonzero(np.isnan(fit.coefficients)).tolist()
        warnings.warn(
            f"no finite hazard ratio of the covariates in the columns {lost}: no event at all or in one of the groups, "
            "or constant or collinear covariates.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    error = np.sqrt(np.diag(fit.covariance))
    margin = ndtri((1 + level) / 2) * error
    beta = fit.coefficients
    return np.exp(beta), np.exp(beta - margin), np.exp(beta + margin), 2 * ndtr(-np.abs(beta) / error)


def likelihood_ratio_test(smaller: CoxFit, larger: CoxFit) -> tuple[float, float]:
    """Test what covariates add to a nested Cox model of the same patients.

    Parameters
    ----------
    smaller, larger : CoxFit
        Fits on the same patients; the larger has the covariates of the smaller and more.

    Returns
    -------
    statistic, p_value : float

    Examples
    --------
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
    event: Any, time: Any, score: Any, treatment: Any, level: float = 0.95, ties: str = "efron"
) -> tuple[float, float, float, float]:
    """Does the hazard ratio of a score differ between two treatments: the ratio of the two hazard ratios.

    One Cox model of score, treatment and their product. A prognostic score has a ratio of 1; a ratio far from 1 says
    that the score is predictive. Without randomisation it says nothing of the benefit of a treatment.

    Parameters
    ----------
    event, time : array of shape (n,)
    score : array of shape (n,)
        For example the predicted risk; standardise it for a ratio per standard deviation.
    treatment : array of shape (n,)
        Two values; the ratio is that of the second in sorted order over the first.
    level : float, default=0.95
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    ratio, low, high, p_value : float
        NaN, with an ``UndefinedMetricWarning``, where the model has no finite maximum.

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
    n = len(check_event(event))
    treatment, score = _group(treatment, n, "treatment"), check_predictions(score, (n,), "score")
    treatments = np.unique(treatment)
    if len(treatments) != 2:
        raise ValueError(
            f"treatment must have two values; got {len(treatments)}: {list(treatments[:5])}. Compare them in pairs."
        )
    second = (treatment == treatments[1]).astype(np.float64)
    result = hazard_ratios(event, time, np.column_stack([score, second, score * second]), level, ties)
    return tuple(float(values[2]) for values in result)


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
    covariates : array of shape (n,) or (n, p)
    transform : {"rank", "km", "identity", "log"}, default="rank"
        The function of time: its rank among all times, 1 minus the left limit of Kaplan-Meier (the default of R), time
        itself, or its logarithm.
    ties : {"efron", "breslow"}, default="efron"

    Returns
    -------
    statistic, p_value : ndarray of shape (p,)
        Chi-squared with one degree of freedom; NaN where the Cox model has no finite maximum.

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
    event, time, covariates = _check(event, time, covariates, ties)
    if transform not in _TRANSFORMS:
        raise ValueError(f"transform must be one of {list(_TRANSFORMS)}; got {transform!r}.")
    maximum = _maximum(event, time, covariates, ties)
    _, residuals, spread = maximum.likelihood.terms(maximum.beta)
    moments = _TRANSFORMS[transform](event, time)
    at = np.sort(moments[event])[::-1] - moments[event].mean() if event.any() else np.zeros(0)
    score = at @ residuals
    mixed, own = np.tensordot(at, spread, 1), np.einsum("d,dpp->p", at**2, spread)
    # Information about each product that is left beside the covariates.
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
    """Log-rank test that groups have one survival function.

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
        NaN, with an ``UndefinedMetricWarning``, with fewer than two groups or without an event.

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
    event, time = check_outcome(event, time)
    group = _group(group, len(time), "group")
    if len(np.unique(group)) < 2 or not event.any():
        warnings.warn("the log-rank test needs two groups and an event.", UndefinedMetricWarning, stacklevel=2)
        return float("nan"), float("nan")
    outcome = np.empty(len(time), dtype=[("event", bool), ("time", np.float64)])
    outcome["event"], outcome["time"] = event, time
    statistic, p_value = compare_survival(outcome, group)
    return float(statistic), float(p_value)


def _group(values: Any, n: int, name: str) -> np.ndarray:
    """One known group a patient, (n,); numbers and text are not mixed."""
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
