"""Bootstrap of patients as weights, so that one call of a metric computes it in all resamples."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

__all__ = ["bca_interval", "bootstrap_interval", "bootstrap_weights", "distance_interval", "percentile_interval"]

_JACKKNIFE_GROUPS = 200


def bootstrap_weights(
    n: int, n_resamples: int = 1000, *, strata: Any = None, clusters: Any = None, random_state: Any = None
) -> np.ndarray:
    """How often each patient is drawn in each resample.

    Parameters
    ----------
    n : int
        Patients.
    n_resamples : int, default=1000
    strata : array of shape (n,), default=None
        Patients are drawn within each value, so its count stays the same; for example the event.
    clusters : array of shape (n,), default=None
        Whole clusters are drawn; for example the centre.
    random_state : int, numpy Generator or None, default=None

    Returns
    -------
    ndarray of shape (n_resamples, n), uint16

    Raises
    ------
    ValueError
        If strata and clusters are both given, or there is a single cluster.

    References
    ----------
    .. [1] Efron B, Tibshirani RJ. An introduction to the bootstrap. Chapman & Hall, 1993.

    Examples
    --------
    >>> bootstrap_weights(4, 2, random_state=0).sum(axis=1)
    array([4, 4], dtype=uint64)
    """
    generator = np.random.default_rng(random_state)
    if clusters is not None:
        names, member = np.unique(np.asarray(clusters), return_inverse=True)
        if strata is not None:
            raise ValueError(
                "give either strata or clusters: whole clusters cannot be drawn within strata of patients."
            )
        if len(names) < 2:
            raise ValueError(f"clusters has {len(names)} value; at least 2 clusters are needed to draw among them.")
        return _draw(np.arange(len(names)), len(names), n_resamples, generator)[:, member]
    if strata is None:
        return _draw(np.arange(n), n, n_resamples, generator)
    strata = np.asarray(strata)
    weights = np.zeros((n_resamples, n), dtype=np.uint16)
    for value in np.unique(strata):
        weights += _draw(np.flatnonzero(strata == value), n, n_resamples, generator)
    return weights


def _draw(members: np.ndarray, n: int, n_resamples: int, generator: np.random.Generator) -> np.ndarray:
    weights = np.empty((n_resamples, n), dtype=np.uint16)
    rows = max(1, 2**17 // max(n, 1))
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        drawn = members[generator.integers(len(members), size=(size, len(members)), dtype=np.uint32)]
        drawn += np.arange(size)[:, None] * n
        weights[start : start + size] = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
    return weights


def percentile_interval(draws: Any, confidence_level: float = 0.95) -> tuple[float, float]:
    """Quantiles of the resampled values; resamples in which the metric is undefined (NaN) are left out.

    Parameters
    ----------
    draws : array-like of shape (R,)
        The metric in each resample.
    confidence_level : float, default=0.95

    Returns
    -------
    low, high : float
        NaN if fewer than half of the resamples have a value.

    Examples
    --------
    >>> percentile_interval(np.arange(101.0), confidence_level=0.5)
    (25.0, 75.0)
    """
    return _quantiles(np.asarray(draws), (1 - confidence_level) / 2, (1 + confidence_level) / 2)


def distance_interval(value: float, draws: Any, confidence_level: float = 0.95) -> tuple[float, float]:
    """Interval of a distance, such as a calibration error, which is never negative and grows by resampling.

    Resampled values lie above the distance as it lies above the truth, so their lower quantile is no limit. The upper
    limit is their upper quantile; the square of the lower one is as far below the square of the value, and at least 0,
    since noise adds its variance to a squared distance.

    Parameters
    ----------
    value : float
        The distance on all patients.
    draws : array-like of shape (R,)
        Its resampled values.
    confidence_level : float, default=0.95

    Returns
    -------
    low, high : float
        Around the value; NaN if fewer than half of the resamples have a value.

    Examples
    --------
    >>> low, high = distance_interval(0.16, np.linspace(0.10, 0.20, 101), confidence_level=0.9)
    >>> round(low, 3), round(high, 3)
    (0.115, 0.195)
    """
    _, high = percentile_interval(draws, confidence_level)
    if np.isnan(value) or np.isnan(high):
        return float("nan"), float("nan")
    high = max(high, value)
    return float(np.sqrt(max(2 * value**2 - high**2, 0.0))), high


def bca_interval(value: float, draws: Any, jackknife: Any, confidence_level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated interval.

    Parameters
    ----------
    value : float
        The metric on all patients.
    draws : array of shape (R,)
        Its resampled values.
    jackknife : array of shape (n_groups,)
        Its values without each patient, or without each of many groups of patients.
    confidence_level : float, default=0.95

    Returns
    -------
    low, high : float

    References
    ----------
    .. [1] Efron B. Better bootstrap confidence intervals. JASA, 1987.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=2000)
    >>> low, high = bca_interval(0.0, draws, np.linspace(-1, 1, 50))
    >>> bool(abs(low + 1.96) < 0.15 and abs(high - 1.96) < 0.15)
    True
    """
    draws, jackknife = np.asarray(draws), np.asarray(jackknife)
    known = draws[~np.isnan(draws)]
    jackknife = jackknife[~np.isnan(jackknife)]
    if np.isnan(value) or not len(known) or not len(jackknife):
        return float("nan"), float("nan")
    below = np.clip(np.mean(known < value) + np.mean(known == value) / 2, 0.5 / len(known), 1 - 0.5 / len(known))
    bias = ndtri(below)
    influence = jackknife.mean() - jackknife
    scale = (influence**2).sum() ** 1.5
    acceleration = (influence**3).sum() / (6 * scale) if scale > 0 else 0.0
    z = bias + ndtri(np.array([(1 - confidence_level) / 2, (1 + confidence_level) / 2]))
    return _quantiles(draws, *ndtr(bias + z / (1 - acceleration * z)))


def bootstrap_interval(
    metric: Callable[[np.ndarray | None], Any],
    weights: np.ndarray,
    *,
    confidence_level: float = 0.95,
    method: str = "percentile",
    clusters: Any = None,
) -> tuple[float, float, float, np.ndarray]:
    """Value and interval of a metric.

    Parameters
    ----------
    metric : callable
        ``metric(None)`` gives the value, ``metric(weights)`` the values of resamples.
    weights : ndarray of shape (R, n)
        From :func:`bootstrap_weights`.
    confidence_level : float, default=0.95
    method : {"percentile", "bca", "distance"}, default="percentile"
        ``"distance"`` is :func:`distance_interval`.
        The acceleration of ``"bca"`` comes from leaving out each patient, or each of 200 groups if there are
        more, or each cluster.
    clusters : array of shape (n,), default=None
        The clusters that were drawn, if any.

    Returns
    -------
    value, low, high : float
    draws : ndarray of shape (R,)

    Raises
    ------
    ValueError
        If ``method`` is unknown.

    Examples
    --------
    >>> from mmdls.metrics import concordance_index
    >>> event, time, risk = [True] * 6, [1.0, 2, 3, 4, 5, 6], [6.0, 5, 4, 3, 1, 2]
    >>> metric = lambda weights: concordance_index(event, time, risk, weights)
    >>> value, low, high, draws = bootstrap_interval(metric, bootstrap_weights(6, 500, random_state=0))
    >>> low <= value <= high
    True
    """
    if method not in ("percentile", "bca", "distance"):
        raise ValueError(f"method must be 'percentile', 'bca' or 'distance'; got {method!r}.")
    value, draws = float(metric(None)), np.asarray(metric(weights))
    if np.isnan(value):
        return value, float("nan"), float("nan"), draws
    if method == "percentile":
        return value, *percentile_interval(draws, confidence_level), draws
    if method == "distance":
        return value, *distance_interval(value, draws, confidence_level), draws
    n = weights.shape[1]
    groups = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if len(np.unique(groups)) > _JACKKNIFE_GROUPS:
        groups = groups % _JACKKNIFE_GROUPS
    without = (groups[None, :] != np.unique(groups)[:, None]).astype(np.uint16)
    return value, *bca_interval(value, draws, metric(without), confidence_level), draws


def _quantiles(draws: np.ndarray, low: float, high: float) -> tuple[float, float]:
    known = draws[~np.isnan(draws)]
    if 2 * len(known) < len(draws) or not len(known):
        return float("nan"), float("nan")
    return float(np.quantile(known, low)), float(np.quantile(known, high))
