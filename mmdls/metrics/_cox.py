"""Cox regression on a few covariates, and hazard ratios."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from mmdls.metrics._checks import check_order, check_outcome
from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import UndefinedMetricWarning

__all__ = [
    "CoxFit",
    "cox_regression",
    "hazard_ratios",
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

    Examples
    --------
    >>> fit = cox_regression([1, 0, 1, 1, 0, 1], [1, 1, 6, 6, 8, 9], [1, 1, 1, 0, 0, 0], ties="breslow")
    >>> fit.coefficients.round(3).tolist(), np.sqrt(np.diag(fit.covariance)).round(3).tolist()
    ([1.475], [1.256])
    >>> round(2 * (fit.log_likelihood - fit.null_log_likelihood), 3)  # the likelihood ratio
    1.479
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
    event, time, covariates = check_covariates(event, time, covariates, ties)
    maximum = maximum_of(event, time, covariates, ties)
    return CoxFit(
        np.where(maximum.finite, maximum.beta, np.nan),
        np.where(np.outer(maximum.finite, maximum.finite), maximum.covariance, np.nan),
        maximum.log_likelihood,
        maximum.null_log_likelihood,
    )


def check_covariates(event: Any, time: Any, covariates: Any, ties: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow'; got {ties!r}.")
    check_order(event=event, time=time, covariates=covariates)
    event, time = check_outcome(event, time)
    covariates = np.asarray(covariates, dtype=np.float64)
    covariates = covariates[:, None] if covariates.ndim == 1 else covariates
    if len(covariates) != len(time) or not np.isfinite(covariates).all():
        raise ValueError(f"covariates must be {len(time)} rows of finite numbers; got shape {covariates.shape}.")
    return event, time, covariates


@dataclass(frozen=True)
class Maximum:
    """Where the partial likelihood is largest; ``beta`` stands far out in directions without a finite maximum."""

    likelihood: "_PartialLikelihood"
    beta: np.ndarray
    covariance: np.ndarray
    finite: np.ndarray
    log_likelihood: float
    null_log_likelihood: float


def maximum_of(event: np.ndarray, time: np.ndarray, covariates: np.ndarray, ties: str) -> Maximum:
    """Newton's method along the directions that carry information, with step halving.

    Directions are the eigenvectors of the information relative to that at zero. Those without any at the start are
    collinear covariates; in those that lose it on the way the likelihood rises for ever, as for a group without an
    event, and the other coefficients converge to what they are in the limit.
    """
    p = covariates.shape[1]
    if not event.any():
        likelihood, nothing = _PartialLikelihood(event, time, covariates, ties), np.full((p, p), np.nan)
        return Maximum(likelihood, np.zeros(p), nothing, np.zeros(p, dtype=bool), float("nan"), float("nan"))
    scale = covariates.std(axis=0)
    varies = scale > 0
    scale = np.where(varies, scale, 1.0)
    likelihood = _PartialLikelihood(event, time, (covariates - covariates.mean(axis=0)) / scale, ties)
    beta, step = np.zeros(p), np.full(p, np.inf)
    value, gradient, information = likelihood(beta)
    null = value
    length, axes = np.linalg.eigh(information)
    informed = length > _NO_INFORMATION * length.max(initial=0.0)
    whitening = axes[:, informed] / np.sqrt(length[informed])
    for _ in range(_ROUNDS):
        values, turned = np.linalg.eigh(whitening.T @ information @ whitening)
        kept = values > _LOST_INFORMATION
        directions = whitening @ turned
        covariance = (directions[:, kept] / values[kept]) @ directions[:, kept].T
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
    return Maximum(likelihood, beta / scale, covariance / np.outer(scale, scale), finite, value, null)


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
        self.fraction = rank / tied[self.group] if ties == "efron" else np.zeros(len(self.at))
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
        shift = eta.max(initial=-np.inf)
        hazard = np.exp(eta - shift)
        moments = [hazard[:, None], hazard[:, None] * self.x]
        moments.append((moments[1][:, :, None] * self.x[:, None, :]).reshape(len(eta), self.x.shape[1] ** 2))
        zero, one, two = (self._at_risk(moment) for moment in moments)
        mean = one / zero
        p = len(beta)
        covariances = (two / zero).reshape(-1, p, p) - mean[:, :, None] * mean[:, None, :]
        return eta[self.at] - shift - np.log(zero[:, 0]), self.x[self.at] - mean, covariances

    def _at_risk(self, moment: np.ndarray) -> np.ndarray:
        summed = moment.cumsum(axis=0)[self.last]
        if not self.fraction.any():
            return summed
        tied = np.zeros((self.n_groups, moment.shape[1]))
        np.add.at(tied, self.group, moment[self.at])
        return summed - self.fraction[:, None] * tied[self.group]


def hazard_ratios(
    event: Any, time: Any, covariates: Any, confidence_level: float = 0.95, ties: str = "efron"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hazard ratios with Wald intervals, from one Cox model of all covariates.

    Parameters
    ----------
    event, time : array of shape (n,)
        Times in months.
    covariates : array of shape (n,) or (n, p)
        For groups give dummies (one column for each group but the reference), not their number; for a ratio
        per standard deviation standardise first.
    confidence_level : float, default=0.95
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
        warn(
            f"no finite hazard ratio of the covariates in the columns {lost}: no event at all or in one of the groups, "
            "or constant or collinear covariates.",
            UndefinedMetricWarning,
        )
    error = np.sqrt(np.diag(fit.covariance))
    margin = ndtri((1 + confidence_level) / 2) * error
    beta = fit.coefficients
    return np.exp(beta), np.exp(beta - margin), np.exp(beta + margin), 2 * ndtr(-np.abs(beta) / error)
