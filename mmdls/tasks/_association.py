"""Likelihood-ratio statistics of regressions of an outcome on the scores of models."""

import numpy as np
from scipy.special import log_softmax

from mmdls.metrics import cox_regression

__all__ = ["cox_association", "linear_association", "logistic_association"]

_ROUNDS = 50


def cox_association(event: np.ndarray, time: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Twice the gain in log partial likelihood of a Cox regression on scores (n, m), and their coefficients (m,)."""
    fit = cox_regression(event, time, scores)
    return 2 * (fit.log_likelihood - fit.null_log_likelihood), fit.coefficients


def linear_association(values: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Twice the gain in log-likelihood of a linear regression on scores (n, m), and their coefficients (m,).

    The errors are normal; their variance is estimated with and without the scores. NaN if the scores are collinear or
    fit exactly.
    """
    centred, design = values - values.mean(), scores - scores.mean(axis=0)
    coefficients, _, rank, _ = np.linalg.lstsq(design, centred)
    left, total = ((centred - design @ coefficients) ** 2).sum(), (centred**2).sum()
    if rank < scores.shape[1] or not left > 1e-12 * total:
        return float("nan"), np.full(scores.shape[1], np.nan)
    return float(len(values) * np.log(total / left)), coefficients


def logistic_association(labels: np.ndarray, probabilities: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Twice the gain in log-likelihood over the class frequencies, and the coefficient of each model.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        From 0; every class has patients.
    probabilities : list of m arrays of shape (n, K)
        Of each model.

    Returns
    -------
    statistic : float
    coefficients : ndarray of shape (m,)
        Of a multinomial regression with an intercept a class and one coefficient a model, whose scores are the log
        odds of each class against the first; NaN without a finite maximum.
    """
    scores = np.stack([_log_odds(table) for table in probabilities], axis=2)
    n, n_classes, n_scores = scores.shape
    constants = np.broadcast_to(np.eye(n_classes)[:, 1:], (n, n_classes, n_classes - 1))
    design = np.concatenate([constants, scores], axis=2)
    frequency = np.bincount(labels, minlength=n_classes) / n
    chosen = design[np.arange(n), labels]

    def likelihood(beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        log_p = log_softmax(design @ beta, axis=1)
        p = np.exp(log_p)
        mean = np.einsum("nk,nkp->np", p, design)
        information = np.einsum("nk,nkp,nkq->pq", p, design, design) - mean.T @ mean
        return float(log_p[np.arange(n), labels].sum()), (chosen - mean).sum(axis=0), information

    beta = np.r_[np.log(frequency[1:] / frequency[0]), np.zeros(n_scores)]
    value, gradient, information = likelihood(beta)
    null = value
    for _ in range(_ROUNDS):
        if np.linalg.cond(information) > 1e10:
            return 2 * (value - null), np.full(n_scores, np.nan)
        step = np.linalg.solve(information, gradient)
        while likelihood(beta + step)[0] < value - 1e-9 * abs(value) and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        value, gradient, information = likelihood(beta)
        if np.abs(step).max() < 1e-8:
            return 2 * (value - null), beta[-n_scores:]
    return 2 * (value - null), np.full(n_scores, np.nan)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    """Log odds of every class against the first, (n, K)."""
    values = np.log(np.clip(probability, 1e-6, 1.0))
    return values - values[:, :1]
