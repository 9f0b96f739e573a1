"""Filters of features, learned from the training rows."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

__all__ = ["CorrelationFilter", "Correlated", "VarianceFilter", "uncorrelated", "unit_columns"]


_BLOCK = 512  # columns


class VarianceFilter(SelectorMixin, BaseEstimator):
    """Keep the features whose variance exceeds a threshold; if none does, the one that varies most.

    Parameters
    ----------
    threshold : float, default=1e-8

    Examples
    --------
    >>> X = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> VarianceFilter().fit_transform(X).ravel().tolist()
    [1.0, 2.0, 3.0]
    """

    def __init__(self, threshold: float = 1e-8):
        self.threshold = threshold

    _parameter_constraints: ClassVar[dict[str, Any]] = {"threshold": [Interval(Real, 0, None, closed="left")]}

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "VarianceFilter":
        """Measure the variances of X (n_samples, n_features); a weight is a repetition."""
        self._validate_params()
        X = validate_data(self, X)
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        variance = np.average((X - np.average(X, axis=0, weights=weight)) ** 2, axis=0, weights=weight)
        self.kept_ = variance > self.threshold
        if not self.kept_.any():
            self.kept_[variance.argmax()] = True
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self, "kept_")
        return self.kept_


class CorrelationFilter(SelectorMixin, BaseEstimator):
    """Go through the features in order and keep each that correlates little with those kept before.

    Parameters
    ----------
    threshold : float, default=0.95
        Largest absolute Pearson correlation with a kept feature.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 1.0], [3.0, 6.1, 2.0]])  # the second is nearly twice the first
    >>> CorrelationFilter(0.9).fit(X).get_support().tolist()
    [True, False, True]
    """

    def __init__(self, threshold: float = 0.95):
        self.threshold = threshold

    _parameter_constraints: ClassVar[dict[str, Any]] = {"threshold": [Interval(Real, 0, 1, closed="both")]}

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "CorrelationFilter":
        """Measure the correlations of X (n_samples, n_features); a weight is a repetition."""
        self._validate_params()
        X = validate_data(self, X)
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.kept_ = np.zeros(X.shape[1], dtype=bool)
        self.kept_[uncorrelated(unit_columns(X, weight), self.threshold, np.arange(X.shape[1]))] = True
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self, "kept_")
        return self.kept_


def unit_columns(X: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Columns (n, n_columns) whose products are Pearson correlations; zeros for one that does not vary."""
    centred = (X - np.average(X, axis=0, weights=weight)) * np.sqrt(weight)[:, None]
    norm = np.sqrt((centred**2).sum(axis=0))
    return centred / np.where(norm > 0, norm, 1.0)


def uncorrelated(columns: np.ndarray, threshold: float, order: np.ndarray) -> np.ndarray:
    """Go through unit columns in an order, and keep each whose correlation with none of those kept before is larger.

    The columns are read in blocks, so that the correlations of all pairs are never in memory.
    """
    kept = np.zeros(0, dtype=int)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~(np.abs(columns[:, block].T @ columns[:, kept]) > threshold).any(axis=1)]
        within = np.abs(columns[:, block].T @ columns[:, block]) > threshold
        free = np.ones(len(block), dtype=bool)
        for place in range(len(block)):
            free[place] = not (within[place, :place] & free[:place]).any()
        kept = np.r_[kept, block[free]]
    return kept


class Correlated:
    """Which of unit columns correlate more than a threshold, found once for many choices among them.

    One bit a pair: 20,000 columns take 50 MB.

    Parameters
    ----------
    columns : ndarray of shape (n, n_columns)
        As of :func:`unit_columns`.
    threshold : float
    """

    def __init__(self, columns: np.ndarray, threshold: float) -> None:
        p = columns.shape[1]
        self.rows = np.empty((p, -(-p // 8)), dtype=np.uint8)
        self.linked = np.empty(p, dtype=bool)
        for start in range(0, p, _BLOCK):
            above = np.abs(columns[:, start : start + _BLOCK].T @ columns) > threshold
            above[np.arange(len(above)), start + np.arange(len(above))] = False
            self.rows[start : start + _BLOCK] = np.packbits(above, axis=1)
            self.linked[start : start + _BLOCK] = above.any(axis=1)

    def uncorrelated(self, order: np.ndarray) -> np.ndarray:
        """:func:`uncorrelated` of the columns in an order."""
        taken, free = np.zeros(self.rows.shape[1], dtype=np.uint8), np.ones(len(order), dtype=bool)
        for place in np.flatnonzero(self.linked[order]):
            column = order[place]
            if taken[column >> 3] & (128 >> (column & 7)):
                free[place] = False
            else:
                np.bitwise_or(taken, self.rows[column], out=taken)
        return order[free]
