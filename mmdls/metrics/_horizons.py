"""Censoring weights at horizons, and losses averaged over patients and time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mmdls.metrics._censoring import CensoringDistribution
from mmdls.metrics._checks import check_horizon, check_outcome
from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import ratio
from mmdls.metrics._times import snap_times

__all__ = [
    "NO_SPAN",
    "beyond_follow_up",
    "check_times",
    "horizon_weights",
    "integrated_loss",
    "integrated_loss_reduction",
    "loss_reduction",
    "mean_loss",
    "per_time",
    "usable_times",
    "weights_over_time",
]

NO_SPAN = "fewer than two times have censoring weights."

Statistic = Callable[[np.ndarray], np.ndarray]


def horizon_weights(
    survival_train: np.ndarray, survival_test: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-probability-of-censoring weights of cases and controls at a horizon.

    Parameters
    ----------
    survival_train, survival_test : structured array of shape (n_train,) and (n,)
        Event and time. The censoring distribution is estimated on the first: give the scored rows there too, unless
        the training rows are censored in the same way.
    horizon : float
        Months.

    Returns
    -------
    case, control : ndarray of shape (n,)
        ``1 / G(t-)`` for patients with the event by the horizon, ``1 / G(horizon)`` for those event-free
        beyond it, 0 for all others. Controls are NaN beyond the follow-up, where there are no weights.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> case, control = horizon_weights(y, y, 3.0)
    >>> case.round(3), control.round(3)
    (array([1. , 0. , 1.5, 0. ]), array([0. , 0. , 0. , 1.5]))
    """
    case, control = weights_over_time(survival_train, survival_test, [check_horizon(horizon)])
    return case[:, 0], control[:, 0]


def weights_over_time(
    survival_train: np.ndarray, survival_test: np.ndarray, times: Any
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`horizon_weights` at several horizons, (n, n_times) each; the censoring distribution is estimated once."""
    censoring, (event, time) = CensoringDistribution(survival_train), check_outcome(survival_test)
    case, control = np.empty((2, len(time), len(times)))
    always = censoring.event_weight(event, time)
    for k, horizon in enumerate(times):
        snapped = snap_times(time, [horizon])
        by_then, free = event & (snapped <= horizon), snapped > horizon
        same = (snapped == time).all()
        case[:, k] = np.where(by_then, always, 0.0) if same else censoring.event_weight(by_then, snapped)
        control[:, k] = np.where(free, censoring.horizon_weight(horizon), 0.0) if free.any() else np.nan
    return case, control


def check_times(times: Any) -> np.ndarray:
    """Horizons (n_times,) in months, from one number or several: finite, above 0, ascending."""
    grid = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if grid.ndim != 1 or not np.isfinite(grid).all() or (grid <= 0).any() or (np.diff(grid) <= 0).any():
        raise ValueError(f"times must be finite months above 0, ascending; got {times}.")
    return grid


def per_time(values: np.ndarray, times: Any) -> np.ndarray:
    """Values (R, n_times), without the axis of times if ``times`` is a single number."""
    return values[:, 0] if np.ndim(times) == 0 else values


def beyond_follow_up(times: Any) -> str:
    """Why a metric is undefined at some of these times."""
    return (
        f"no patient is known to be event-free at {', '.join(f'{t:g}' for t in check_times(times))} months, or "
        "follow-up ends before: there are no censoring weights."
    )


def usable_times(loss: np.ndarray, times: Any) -> tuple[np.ndarray, np.ndarray]:
    """Losses (n, n_times) and times where censoring weights exist; warn if that clips the span."""
    grid, known = check_times(times), ~np.isnan(loss).any(axis=0)
    if not known.all():
        end = f"at {grid[known][-1]:g} months" if known.any() else "at its start"
        warn(f"the span {grid[0]:g} to {grid[-1]:g} months is clipped {end}: no weights beyond.", stacklevel=3)
    return loss[:, known], grid[known]


def mean_loss(loss: np.ndarray, times: Any) -> Statistic:
    """Mean over patients of losses (n, n_times), as a function of patient weights (R, n)."""
    total = _total(loss)
    return lambda block: per_time(ratio(total(block), block.sum(axis=1)[:, None]), times)


def integrated_loss(loss: np.ndarray, grid: np.ndarray) -> Statistic:
    """Mean over patients and the span of time, by the trapezoidal rule."""
    total = _total(loss)
    return lambda block: _mean_over_time(ratio(total(block), block.sum(axis=1)[:, None]), grid)


def loss_reduction(loss: np.ndarray, reference: np.ndarray, times: Any) -> Statistic:
    """One minus the loss relative to that of a reference, both (n, n_times)."""
    own, other = _total(loss), _total(reference)
    return lambda block: per_time(1 - ratio(own(block), other(block)), times)


def integrated_loss_reduction(loss: np.ndarray, reference: np.ndarray, grid: np.ndarray) -> Statistic:
    """One minus the integrated loss relative to that of a reference."""
    own, other = _total(loss), _total(reference)
    return lambda block: 1 - ratio(_mean_over_time(own(block), grid), _mean_over_time(other(block), grid))


def _total(loss: np.ndarray) -> Statistic:
    """``block @ loss``; columns of ``loss`` with a NaN give NaN, all others are not affected."""
    undefined, known = np.isnan(loss).any(axis=0), np.nan_to_num(loss)
    return lambda block: np.where(undefined, np.nan, block @ known)


def _mean_over_time(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    if len(grid) < 2:
        return np.full(len(values), np.nan)
    return np.trapezoid(values, grid, axis=1) / (grid[-1] - grid[0])
