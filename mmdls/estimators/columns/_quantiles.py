"""Quantiles of patients who count more or less."""

from collections.abc import Sequence

import numpy as np

__all__ = ["weighted_quantile"]


def weighted_quantile(
    values: np.ndarray, probabilities: float | Sequence[float] | np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Quantiles of columns, missing values left out: a weight is a repetition, and its scale means nothing.

    The quantile is the lowest value up to which the share of the weight reaches the probability, and halfway to the
    next value where it reaches it exactly, so that the median is the usual one.

    Parameters
    ----------
    values : ndarray of shape (n,) or (n, n_columns)
    probabilities : float or sequence of shape (n_probabilities,)
    sample_weight : ndarray of shape (n,), default=None

    Returns
    -------
    ndarray
        Of the shape of ``probabilities`` for one column, one row a probability for several; NaN for an empty column.

    Examples
    --------
    >>> float(weighted_quantile(np.array([3.0, 1.0, 2.0, np.nan]), 0.5))
    2.0
    >>> weighted_quantile(np.array([1.0, 2.0, 3.0]), [0.2, 0.5], np.array([1, 0, 3]))
    array([1., 3.])
    """
    weight = np.ones(len(values)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    columns = values[weight > 0].reshape((weight > 0).sum(), -1)
    weight = weight[weight > 0]
    order = np.argsort(columns, axis=0, kind="stable")
    ranked = np.take_along_axis(columns, order, axis=0)
    reached = np.where(np.isnan(ranked), 0.0, weight[order]).cumsum(axis=0)
    last = np.maximum((~np.isnan(ranked)).sum(axis=0) - 1, 0)
    quantiles = []
    for probability in np.atleast_1d(probabilities):
        target = probability * reached[-1]
        # Sums of weights round; a share that is reached up to that is reached.
        low = np.minimum((reached < target * (1 - 1e-12)).sum(axis=0), last)
        high = np.minimum((reached <= target * (1 + 1e-12)).sum(axis=0), last)
        low, high = (np.take_along_axis(ranked, place[None], axis=0)[0] for place in (low, high))
        quantiles.append(np.where(low == high, low, low / 2 + high / 2))
    return np.reshape(quantiles, np.shape(probabilities) + values.shape[1:])
