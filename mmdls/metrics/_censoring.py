"""Kaplan-Meier curves, the distribution of censoring, and outcomes at a horizon."""

from typing import Any

import numpy as np
from scipy.special import ndtri

from mmdls.metrics._checks import check_horizon, check_outcome, check_weights, known_outcome
from mmdls.metrics._times import snap_times

__all__ = [
    "CensoringDistribution",
    "horizon_labels",
    "kaplan_meier",
    "log_log_interval",
    "median_follow_up",
    "median_survival",
    "median_text",
    "step_values",
]

_HALF = float(np.sqrt(np.finfo(np.float64).eps))  # what counts as exactly one half


def kaplan_meier(event: Any, time: Any, sample_weight: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Kaplan-Meier estimate of the survival function.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    times : ndarray of shape (n_times,)
        The different times, ascending.
    survival : ndarray of shape (n_times,) or (R, n_times)
        Probability of being event-free beyond each of them.

    References
    ----------
    .. [1] Kaplan EL, Meier P. Nonparametric estimation from incomplete observations. JASA, 1958.

    Examples
    --------
    >>> kaplan_meier([True, False, True], [1.0, 2.0, 3.0])
    (array([1., 2., 3.]), array([0.66666667, 0.66666667, 0.        ]))
    """
    event, time = check_outcome(event, time)
    sample_weight = check_weights(sample_weight, len(time)).astype(np.float64)
    times, deaths, _, at_risk = _counts(event, time, sample_weight)
    return times, _product_limit(deaths, at_risk)


def step_values(times: np.ndarray, values: np.ndarray, at: Any, left: bool = False) -> np.ndarray:
    """Values of a step function that is 1 before ``times[0]``, or its left limits.

    Parameters
    ----------
    times : ndarray of shape (T,)
        Where the function steps, rising.
    values : ndarray of shape (..., T)
        Its value from each step on.
    at : array-like of shape (A,)
        Times at which it is evaluated.
    left : bool, default=False
        Return the limits from the left.

    Returns
    -------
    ndarray of shape (..., A)

    Examples
    --------
    >>> step_values(np.array([1.0, 3.0]), np.array([0.5, 0.0]), [0.0, 1.0, 3.0], left=True)
    array([1. , 1. , 0.5])
    """
    place = np.searchsorted(times, snap_times(at, times), side="left" if left else "right")
    start = np.ones((*values.shape[:-1], 1))
    return np.concatenate([start, values], axis=-1)[..., place]


def median_follow_up(event: Any, time: Any) -> float:
    """Median follow-up by the reverse Kaplan-Meier method: the median time to censoring, in months; NaN if
    not reached.

    Where the curve is exactly one half over a span of time the median is the middle of that span, as the median of an
    even number of values; at the end of the curve the span ends at the last time. R's package survival does the same.

    Parameters
    ----------
    event : array-like of bool, shape (n,)
    time : array-like of shape (n,)
        Months.

    Returns
    -------
    float
        Months.

    References
    ----------
    .. [1] Schemper M, Smith TL. A note on quantifying follow-up in studies of failure time. Controlled
       Clinical Trials, 1996.

    Examples
    --------
    >>> median_follow_up([False, True, False], [10.0, 12.0, 30.0])
    30.0
    >>> median_follow_up([False, False], [10.0, 30.0])
    20.0
    """
    event, time = check_outcome(event, time)
    times, deaths, censored, at_risk = _counts(event, time, np.ones(len(time)))
    return _half(times, _product_limit(censored, at_risk - deaths))


def median_survival(event: Any, time: Any, confidence_level: float = 0.95) -> tuple[float, float, float]:
    """Median survival of the Kaplan-Meier curve, with the interval of Brookmeyer and Crowley, in months.

    The interval ends where the pointwise limits of the curve (log-log transformed, Greenwood's variance) cross one
    half. Where the curve or a limit is exactly one half over a span of time, the middle of that span is taken. R's
    package survival does the same with ``conf.type="log-log"``.

    Parameters
    ----------
    event : array-like of bool, shape (n,)
    time : array-like of shape (n,)
        Months.
    confidence_level : float, default=0.95

    Returns
    -------
    median, low, high : float
        Months; NaN where the curve, or its limit, does not reach one half.

    References
    ----------
    .. [1] Brookmeyer R, Crowley J. A confidence interval for the median survival time. Biometrics, 1982.

    Examples
    --------
    >>> median_survival([True] * 8, [1.0, 2.0, 4.0, 6.0, 7.0, 11.0, 20.0, 30.0])
    (6.5, 1.0, 20.0)
    >>> median_survival([True, False, False], [1.0, 2.0, 4.0])[0]
    nan
    """
    event, time = check_outcome(event, time)
    times, curve = kaplan_meier(event, time)
    low, high = log_log_interval(event, time, confidence_level)
    known = curve > 0  # the limits of a curve that is 0 are not estimable
    return _half(times, curve), _half(times[known], low[known]), _half(times[known], high[known])


def median_text(event: np.ndarray, time: np.ndarray, confidence_level: float = 0.95) -> str:
    """Median survival in months with its interval as text, ``14.2 [10.1, not reached]``."""
    median, low, high = median_survival(event, time, confidence_level)
    if np.isnan(median):
        return "not reached"
    limits = ", ".join("not reached" if np.isnan(limit) else f"{limit:.1f}" for limit in (low, high))
    return f"{median:.1f} [{limits}]"


def log_log_interval(event: np.ndarray, time: np.ndarray, confidence_level: float) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise limits of the Kaplan-Meier curve at its times: Greenwood's variance on the scale of log(-log S).

    This scale keeps them inside [0, 1]. Where the curve is 1 or 0 they are not estimable and equal it.
    """
    times, deaths, _, at_risk = _counts(event, time, np.ones(len(time)))
    survival = _product_limit(deaths, at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (at_risk * (at_risk - deaths)))
        error = ndtri((1 + confidence_level) / 2) * np.sqrt(greenwood) / np.abs(np.log(survival))
        low, high = survival ** np.exp(error), survival ** np.exp(-error)
    flat = (survival == 1) | (survival == 0)
    return np.where(flat, survival, low), np.where(flat, survival, high)


def _half(times: np.ndarray, curve: np.ndarray) -> float:
    """When a falling curve reaches one half; the middle, if it stays there; NaN if it never does."""
    reached = np.flatnonzero(curve <= 0.5 + _HALF)
    if not len(reached):
        return float("nan")
    below = np.flatnonzero(curve < 0.5 - _HALF)
    end = reached[0] if curve[reached[0]] < 0.5 - _HALF else below[0] if len(below) else -1
    return float(times[reached[0]] + times[end]) / 2


def horizon_labels(event: Any, time: Any, horizon: float) -> np.ndarray:
    """Outcome of each patient at a horizon: 1 event by the horizon, 0 event-free, NaN censored before.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
    horizon : float
        Months. A patient censored exactly at the horizon is event-free.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> horizon_labels([True, False, False], [5.0, 5.0, 20.0], 12.0)
    array([ 1., nan,  0.])
    """
    event, time, horizon = *check_outcome(event, time), check_horizon(horizon)
    time = snap_times(time, [horizon])
    return np.where(event & (time <= horizon), 1.0, np.where(time >= horizon, 0.0, np.nan))


class CensoringDistribution:
    """Probability of still being under observation, by Kaplan-Meier.

    Where events and censorings are tied, the events come first.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows on which it is estimated; rows of unknown outcome (NaN) are left out.

    Attributes
    ----------
    last : float
        End of the follow-up of these rows; there are no weights beyond it.

    Raises
    ------
    ValueError
        If no row has a known outcome.

    Examples
    --------
    Four patients, of whom the second is censored after 5 months, so that one in three is lost to follow-up there:

    >>> outcome = np.array([(True, 3.0), (False, 5.0), (True, 8.0), (True, 12.0)], [("event", bool), ("time", float)])
    >>> censoring = CensoringDistribution(outcome)
    >>> round(censoring.horizon_weight(6.0), 3), censoring.last
    (1.5, 12.0)
    >>> censoring.event_weight(outcome["event"], outcome["time"]).round(3).tolist()
    [1.0, 0.0, 1.5, 1.5]
    """

    def __init__(self, survival_train: np.ndarray) -> None:
        event, time = known_outcome(survival_train)
        if not len(time):
            raise ValueError("no row has a known outcome; the censoring distribution needs at least one.")
        self.times, deaths, censored, at_risk = _counts(event, time, np.ones(len(time)))
        self.observed = _product_limit(censored, at_risk - deaths)
        self.last = float(self.times[-1])

    def event_weight(self, event: np.ndarray, time: np.ndarray) -> np.ndarray:
        """``1 / G(t-)`` for events within the follow-up, 0 for all others, (n,)."""
        time = snap_times(time, self.times)
        observed = step_values(self.times, self.observed, time, left=True)
        return np.divide(1.0, observed, out=np.zeros(len(time)), where=event & (time <= self.last) & (observed > 0))

    def horizon_weight(self, horizon: float) -> float:
        """``1 / G(h)`` for patients event-free at a horizon; NaN beyond the follow-up."""
        horizon = float(snap_times(horizon, self.times))
        observed = float(step_values(self.times, self.observed, horizon))
        return 1 / observed if horizon <= self.last and observed > 0 else float("nan")


def _counts(
    event: np.ndarray, time: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Different times, and events, censorings and patients at risk at each of them (..., n_times)."""
    order = np.argsort(time, kind="stable")
    times, first = np.unique(time[order], return_index=True)
    if not len(times):
        none = np.zeros((*weights.shape[:-1], 0))
        return times, none, none, none
    sorted_weights = weights[..., order]
    total = np.add.reduceat(sorted_weights, first, axis=-1)
    deaths = np.add.reduceat(sorted_weights * event[order], first, axis=-1)
    return times, deaths, total - deaths, total[..., ::-1].cumsum(axis=-1)[..., ::-1]


def _product_limit(leaving: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    fraction = np.divide(leaving, at_risk, out=np.zeros_like(leaving), where=at_risk > 0)
    return np.cumprod(1 - fraction, axis=-1)
