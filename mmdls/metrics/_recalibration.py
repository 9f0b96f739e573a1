"""Calibration of class probabilities."""

from typing import Any

import numpy as np

from mmdls.metrics._checks import check_classes
from mmdls.metrics._classification import binary_scores, one_against_rest
from mmdls.metrics._resamples import over_resamples, ratio

__all__ = ["calibration_intercept", "calibration_slope", "expected_calibration_error"]

_ROUNDS = 25


def calibration_slope(
    y_true: Any, y_proba: Any, sample_weight: Any = None, *, strata: Any = None
) -> float | np.ndarray:
    """Slope of a logistic regression of the outcome on the predicted log odds.

    1 is ideal; below 1 the predictions are too extreme. Two classes only. NaN if the two classes can be
    separated by the prediction, where the slope is infinite.

    Parameters
    ----------
    y_true, y_proba, sample_weight
        As in :func:`auc_score`.
    strata : array of shape (n,), default=None
        One slope with an intercept for each value, such as the fold of out-of-fold predictions.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Cox DR. Two further applications of a model for binary regression. Biometrika, 1958.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.repeat([0.2, 0.8], 10)
    >>> round(calibration_slope(np.r_[[1] * 2, [0] * 8, [1] * 8, [0] * 2], p), 6)
    1.0
    """
    codes, score = binary_scores(y_true, y_proba)
    return over_resamples(
        lambda block: recalibrate(codes, log_odds_of(score), block, slope=True, strata=strata)[:, 1],
        sample_weight,
        len(codes),
        "the slope does not exist: one class only, equal predictions, or separated classes.",
    )


def calibration_intercept(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Calibration in the large: intercept of a logistic regression with the predicted log odds as offset; 0
    is ideal.

    Above 0 the risk is underestimated. Two classes only.

    Parameters
    ----------
    y_true, y_proba, sample_weight
        As in :func:`auc_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Cox DR. Two further applications of a model for binary regression. Biometrika, 1958.

    Examples
    --------
    >>> round(calibration_intercept([0, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]), 6)
    1.098612
    """
    codes, score = binary_scores(y_true, y_proba)
    return over_resamples(
        lambda block: recalibrate(codes, log_odds_of(score), block, slope=False)[:, 0],
        sample_weight,
        len(codes),
        "the intercept does not exist: one class only.",
    )


def expected_calibration_error(
    y_true: Any, y_proba: Any, n_bins: int = 10, sample_weight: Any = None
) -> float | np.ndarray:
    """Mean distance between confidence and accuracy over bins of equal width.

    Two classes: the predicted probability of class 1 against its observed frequency. More than two: the mean over
    classes, one against the rest.

    Parameters
    ----------
    y_true, y_proba
        As in :func:`auc_score`.
    n_bins : int, default=10
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Naeini MP et al. Obtaining well calibrated probabilities using Bayesian binning. AAAI, 2015.

    Examples
    --------
    >>> round(expected_calibration_error([0, 1], [0.0, 0.8]), 6)
    0.1
    """
    codes, y_proba = check_classes(y_true, y_proba)
    members, scores = one_against_rest(codes, y_proba)

    def one(block: np.ndarray, own: np.ndarray, score: np.ndarray) -> np.ndarray:
        bins = np.clip((score * n_bins).astype(int), 0, n_bins - 1)
        gaps = np.zeros((len(score), n_bins))
        gaps[np.arange(len(score)), bins] = score - own
        return ratio(np.abs(block @ gaps).sum(axis=1), block.sum(axis=1))

    def statistic(block: np.ndarray) -> np.ndarray:
        return np.mean([one(block, own, score) for own, score in zip(members, scores, strict=True)], axis=0)

    return over_resamples(statistic, sample_weight, len(codes), "there are no patients.")


def log_odds_of(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.log(clipped) - np.log1p(-clipped)


def recalibrate(
    outcome: np.ndarray, log_odds: np.ndarray, weights: np.ndarray, *, slope: bool, strata: Any = None
) -> np.ndarray:
    """Intercept and slope (R, 2) by Newton's method for all resamples; NaN where it does not converge.

    Every stratum has an intercept of its own; the one that is returned is their mean. A stratum of one outcome says
    nothing of the slope, and is left out.
    """
    _, code = np.unique(np.zeros(len(outcome)) if strata is None else np.asarray(strata), return_inverse=True)
    member = np.eye(code.max(initial=0) + 1)[code]
    cases, all_ = (weights * outcome) @ member, weights @ member
    mixed = (cases > 0) & (cases < all_)
    weights = weights * mixed[:, code]
    intercepts, slopes = np.zeros(mixed.shape), np.full(len(weights), 0.0 if slope else 1.0)
    for _ in range(_ROUNDS):
        fitted = 1 / (1 + np.exp(-np.clip(intercepts[:, code] + slopes[:, None] * log_odds, -35, 35)))
        residual = weights * (outcome - fitted)
        information = weights * fitted * (1 - fitted)
        gradient, a = residual @ member, information @ member
        a = np.where(mixed, a, 1.0)
        b = (information * log_odds) @ member
        slope_step = np.zeros(len(weights))
        if slope:
            total = information @ log_odds**2
            within = total - (b**2 / a).sum(axis=1)
            score = residual @ log_odds - (b * gradient / a).sum(axis=1)
            slope_step = np.where(within > 1e-12 * total, score / within, np.nan)
        steps = (gradient - b * slope_step[:, None]) / a
        intercepts = intercepts + np.clip(steps, -5, 5)
        slopes = slopes + np.clip(slope_step, -5, 5)
        largest = np.maximum(np.abs(steps).max(axis=1), np.abs(slope_step))
        if np.nanmax(largest, initial=0) < 1e-10:
            break
    done = mixed.any(axis=1) & (largest < 1e-6)
    intercept = intercepts.sum(axis=1) / np.maximum(mixed.sum(axis=1), 1)
    return np.where(done[:, None], np.column_stack([intercept, slopes]), np.nan)
