"""Tests of differences between two models on the same patients."""

from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from mmdls.metrics._checks import check_order, check_predictions, class_codes

__all__ = ["bootstrap_p_value", "delong_test", "holm_correction", "p_text"]


def delong_test(y_true: Any, score: Any, other: Any) -> tuple[float, float, float]:
    """Compare two AUCs on the same patients.

    Parameters
    ----------
    y_true : array of shape (n,)
        0 or 1.
    score, other : array of shape (n,)
        Scores of class 1 by the two models.

    Returns
    -------
    difference : float
        AUC of ``score`` minus AUC of ``other``.
    standard_error : float
    p_value : float
        Two-sided; NaN with fewer than two patients of a class, or if both models rank all pairs in the same way.

    References
    ----------
    .. [1] DeLong ER et al. Comparing the areas under two or more correlated receiver operating characteristic
       curves: a nonparametric approach. Biometrics, 1988.
    .. [2] Sun X, Xu W. Fast implementation of DeLong's algorithm for comparing the areas under correlated
       receiver operating characteristic curves. IEEE Signal Processing Letters, 2014.

    Examples
    --------
    >>> difference, error, p = delong_test([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [1, 4, 3, 2, 6, 5])
    >>> round(difference, 3), round(error, 3), round(p, 3)
    (0.222, 0.248, 0.371)
    """
    check_order(y_true=y_true, score=score, other=other)
    positive = class_codes(y_true, 2) == 1
    scores = [check_predictions(values, positive.shape, "score") for values in (score, other)]
    n_positive, n_negative = positive.sum(), (~positive).sum()
    if min(n_positive, n_negative) < 2:
        return float("nan"), float("nan"), float("nan")
    wins, losses = [], []
    for values in scores:
        overall = rankdata(values)
        wins.append((overall[positive] - rankdata(values[positive])) / n_negative)
        losses.append(1 - (overall[~positive] - rankdata(values[~positive])) / n_positive)
    difference = float(wins[0].mean() - wins[1].mean())
    variance = np.var(wins[0] - wins[1], ddof=1) / n_positive + np.var(losses[0] - losses[1], ddof=1) / n_negative
    if variance <= 0:
        return difference, 0.0, float("nan")
    error = float(np.sqrt(variance))
    return difference, error, float(2 * ndtr(-abs(difference) / error))


def bootstrap_p_value(differences: Any) -> float:
    """Two-sided p-value that a paired difference is zero, from its resampled values.

    Twice the fraction of resamples on the rarer side of zero, with the observed sample counted as one more
    resample, so it is never below ``2 / (R + 1)``. NaN if fewer than half of the resamples have a value.

    Parameters
    ----------
    differences : array-like of shape (R,)
        The difference in each resample; NaN where it is undefined.

    Returns
    -------
    float

    References
    ----------
    .. [1] Davison AC, Hinkley DV. Bootstrap methods and their application. Cambridge University Press, 1997.

    Examples
    --------
    >>> round(bootstrap_p_value([0.1] * 99), 3)
    0.02
    """
    differences = np.asarray(differences, dtype=np.float64)
    known = differences[~np.isnan(differences)]
    if 2 * len(known) < len(differences) or not len(known):
        return float("nan")
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(known) + 1)))


def holm_correction(p_values: Any) -> np.ndarray:
    """Correct p-values for multiple testing by Holm's method, which controls the family-wise error rate.

    Parameters
    ----------
    p_values : array of shape (k,)
        NaN values stay NaN and are not counted.

    Returns
    -------
    ndarray of shape (k,)

    References
    ----------
    .. [1] Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of
       Statistics, 1979.

    Examples
    --------
    >>> holm_correction([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    corrected = np.full(p_values.shape, np.nan)
    factor = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factor), 1.0)
    return corrected


def p_text(p: float, name: str = "") -> str:
    """A p-value as journals print it, ``.012`` or ``< .001``, with its name ``p = .012``; nothing if it is NaN."""
    if np.isnan(p):
        return ""
    text = "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
    return text if not name else f"{name} {text}" if p < 0.001 else f"{name} = {text}"
