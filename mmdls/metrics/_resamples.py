"""Evaluate a metric for one vector of patient weights, or for those of many resamples at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from mmdls.metrics._checks import check_weights
from mmdls.metrics._notes import warn

__all__ = ["UndefinedMetricWarning", "over_resamples", "ratio"]

_BLOCK = 2**17  # numbers per block of resamples, so that a block stays in the processor's cache


def over_resamples(
    statistic: Callable[[np.ndarray], np.ndarray], sample_weight: Any, n: int, undefined: str, numbers: int = _BLOCK
) -> float | np.ndarray:
    """Evaluate a statistic of patient weights for all resamples, in blocks of them.

    Parameters
    ----------
    statistic : callable
        Maps weights (R, n) to values (R,) or (R, ...); NaN where it is undefined.
    sample_weight : array of shape (n,) or (R, n), default=None
        None counts every patient once.
    n : int
        Patients.
    undefined : str
        Why the value can be undefined: the text of an ``UndefinedMetricWarning`` when a single value is NaN.
    numbers : int, default=2**17
        Weights per block of resamples.

    Returns
    -------
    float or array
        One value for weights (n,), R values for weights (R, n).
    """
    sample_weight = check_weights(sample_weight, n)
    table = np.atleast_2d(sample_weight)
    size = max(1, numbers // max(n, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.concatenate([statistic(table[i : i + size].astype(np.float64)) for i in range(0, len(table), size)])
    if sample_weight.ndim == 2:
        return values
    value = values[0]
    if np.isnan(value).any():
        warn(undefined, UndefinedMetricWarning, stacklevel=3)
    return float(value) if value.ndim == 0 else value


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
