"""Error and agreement of predicted numbers."""

from typing import Any

import numpy as np

from mmdls.metrics._checks import check_order, check_predictions
from mmdls.metrics._resamples import over_resamples, ratio

__all__ = [
    "mean_absolute_error",
    "mean_squared_error",
    "r2_score",
    "root_mean_squared_error",
    "spearman_correlation",
]

_NOBODY = "there are no patients, or all of them have weight 0."
_CONSTANT = "all values of {} are equal, or there are fewer than 2 patients."


def r2_score(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Coefficient of determination: 1 minus the squared error relative to that of the mean of ``y_true``.

    1 is perfect, 0 no better than giving everybody the mean of the scored patients, negative worse. It has no unit.

    Parameters
    ----------
    y_true : array of shape (n,)
        Measured values.
    y_pred : array of shape (n,)
        Predicted values.
    sample_weight : array of shape (n,) or (R, n), default=None
        A row per resample gives the value of every resample.

    Returns
    -------
    float, or ndarray of shape (R,)
        NaN, with an ``UndefinedMetricWarning``, if all measured values are equal (scikit-learn gives 0 or 1 there).

    References
    ----------
    .. [1] Kvalseth TO. Cautionary note about R2. The American Statistician, 1985.

    Examples
    --------
    >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.5
    """
    y_true, y_pred = _numbers(y_true, y_pred)
    error = (y_true - y_pred) ** 2

    def statistic(block: np.ndarray) -> np.ndarray:
        mean = ratio(block @ y_true, block.sum(axis=1))
        total = (block * (y_true - mean[:, None]) ** 2).sum(axis=1)
        return np.where(_varies(block, y_true), 1 - ratio(block @ error, total), np.nan)

    return over_resamples(statistic, sample_weight, len(y_true), _CONSTANT.format("y_true"))


def mean_absolute_error(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Mean distance between measured and predicted values, in their unit.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`r2_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> mean_absolute_error([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    1.0
    """
    y_true, y_pred = _numbers(y_true, y_pred)
    return _mean(np.abs(y_true - y_pred), sample_weight)


def mean_squared_error(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Mean squared distance between measured and predicted values, in their unit squared.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`r2_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> mean_squared_error([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    3.0
    """
    y_true, y_pred = _numbers(y_true, y_pred)
    return _mean((y_true - y_pred) ** 2, sample_weight)


def root_mean_squared_error(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Root of the mean squared error, in the unit of the values.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`r2_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> root_mean_squared_error([1.0, 2.0], [1.0, 4.0]) ** 2
    2.0000000000000004
    """
    y_true, y_pred = _numbers(y_true, y_pred)
    return _mean((y_true - y_pred) ** 2, sample_weight, np.sqrt)


def spearman_correlation(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Spearman's rank correlation of measured and predicted values; tied values share their mean rank.

    Ranks are taken anew in every resample. With weights, the rank of a value is the weight below it plus half of the
    weight at it, so a patient of weight 2 counts as two.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`r2_score`.

    Returns
    -------
    float, or ndarray of shape (R,)
        NaN, with an ``UndefinedMetricWarning``, if all measured or all predicted values are equal.

    References
    ----------
    .. [1] Spearman C. The proof and measurement of association between two things. American Journal of Psychology,
       1904.

    Examples
    --------
    >>> spearman_correlation([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    y_true, y_pred = _numbers(y_true, y_pred)
    groups = [np.unique(values, return_inverse=True)[1] for values in (y_true, y_pred)]

    def statistic(block: np.ndarray) -> np.ndarray:
        one, other = (_centred_ranks(block, group) for group in groups)
        covariance = (block * one * other).sum(axis=1)
        spread = np.sqrt((block * one**2).sum(axis=1) * (block * other**2).sum(axis=1))
        return np.clip(ratio(covariance, spread), -1, 1)

    return over_resamples(statistic, sample_weight, len(y_true), _CONSTANT.format("y_true or of y_pred"))


def _numbers(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    check_order(y_true=y_true, y_pred=y_pred)
    if np.ndim(y_true) != 1:
        raise ValueError(f"y_true must have shape (n,); got {np.shape(y_true)}.")
    return check_predictions(y_true, np.shape(y_true), "y_true"), check_predictions(y_pred, np.shape(y_true), "y_pred")


def _mean(loss: np.ndarray, sample_weight: Any, transform: Any = np.asarray) -> float | np.ndarray:
    def statistic(block: np.ndarray) -> np.ndarray:
        return transform(ratio(block @ loss, block.sum(axis=1)))

    return over_resamples(statistic, sample_weight, len(loss), _NOBODY)


def _varies(block: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which resamples (R,) hold more than one different value; exact, where a variance would be rounded."""
    if not len(values):
        return np.zeros(len(block), dtype=bool)
    drawn = block > 0
    return np.where(drawn, values, -np.inf).max(axis=1) > np.where(drawn, values, np.inf).min(axis=1)


def _centred_ranks(block: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Ranks (R, n) in each resample minus their mean, which is half of the total weight."""
    if not len(group):
        return np.zeros_like(block)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(group.max() + 1))
    tied = np.add.reduceat(block[:, order], first, axis=1)
    below = tied.cumsum(axis=1) - tied
    return (below + (tied - tied.sum(axis=1, keepdims=True)) / 2)[:, group]
