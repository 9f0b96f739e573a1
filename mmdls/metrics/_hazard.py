"""Baseline cumulative hazard of a Cox model."""

from typing import Any

import numpy as np

from mmdls.metrics._checks import check_order, check_outcome, check_predictions, check_weights

__all__ = ["baseline_cumulative_hazard"]


def baseline_cumulative_hazard(
    event: Any, time: Any, log_hazard: Any, ties: str = "efron", sample_weight: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the cumulative hazard of a patient whose log hazard is 0.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    log_hazard : array of shape (n,)
        Linear predictor of a Cox model.
    ties : {"efron", "breslow"}, default="efron"
        Breslow keeps all tied events in the risk set of each of them; Efron removes them one by one, on average.
    sample_weight : array of shape (n,), default=None

    Returns
    -------
    times : ndarray of shape (n_times,)
        The different times, ascending.
    cumulative_hazard : ndarray of shape (n_times,)

    Raises
    ------
    ValueError
        If ``ties`` is unknown, or the weights have another shape.

    References
    ----------
    .. [1] Breslow N. Covariance analysis of censored survival data. Biometrics, 1974.
    .. [2] Efron B. The efficiency of Cox's likelihood function for censored data. JASA, 1977.

    Examples
    --------
    >>> baseline_cumulative_hazard([True, True, False], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0], ties="breslow")
    (array([1., 2.]), array([0.66666667, 0.66666667]))
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties must be 'efron' or 'breslow'; got {ties!r}.")
    check_order(event=event, time=time, log_hazard=log_hazard, sample_weight=sample_weight)
    event, time = check_outcome(event, time)
    log_hazard = check_predictions(log_hazard, time.shape, "log_hazard")
    weight = check_weights(sample_weight, len(time)).astype(np.float64)
    if weight.ndim != 1:
        raise ValueError(f"sample_weight must have shape ({len(time)},); got {weight.shape}.")
    event = event & (weight > 0)  # a patient of weight 0 is no tied event
    times, group = np.unique(time, return_inverse=True)
    shift = log_hazard.max(initial=0.0)
    hazard = weight * np.exp(log_hazard - shift)
    at_risk = np.bincount(group, hazard, len(times))[::-1].cumsum()[::-1]
    tied = np.bincount(group, hazard * event, len(times))
    n_tied = np.bincount(group, event, len(times)).astype(np.int64)
    mean_weight = np.bincount(group, weight * event, len(times)) / np.maximum(n_tied, 1)
    # One term per event; the k-th of d tied events sees the risk set without k/d of the tied hazards.
    at = np.repeat(np.arange(len(times)), n_tied)
    fraction = (np.arange(len(at)) - np.repeat(np.cumsum(n_tied) - n_tied, n_tied)) / n_tied[at]
    left = at_risk[at] - fraction * tied[at] if ties == "efron" else at_risk[at]
    steps = np.divide(mean_weight[at], left, out=np.zeros(len(at)), where=left > 0)
    return times, np.bincount(at, steps, len(times)).cumsum() * np.exp(-shift)
