"""Figures of time-dependent AUC, Brier score and net benefit."""

import warnings
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from mmdls import metrics
from mmdls.metrics._checks import known_outcome
from mmdls.plotting._axes import axes, finish, legend_below, named, style

__all__ = ["auc_over_time", "brier_over_time", "decision_curve"]


def auc_over_time(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    risk: Any,
    times: Any,
    *,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Draw the time-dependent AUC (cumulative cases, dynamic controls) over months, with pointwise intervals.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
    risk : array of shape (n,) or (n, n_times), or dict of str to such arrays
        Higher = earlier event, by name of the model.
    times : array of shape (n_times,)
        Months, ascending; the curve has gaps where the AUC is undefined.
    n_resamples : int, default=500
        0 leaves the intervals out.
    confidence_level : float, default=0.95
    random_state : int or None, default=0
    ax : matplotlib.axes.Axes, default=None

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> auc_over_time(y, y, [4.0, 2.0, 1.0, 3.0], [1.5, 3.0], n_resamples=20).get_ylabel()
    'Time-dependent AUC'
    """
    models, times = named(risk), np.asarray(times, dtype=np.float64)
    ax = axes(ax, n_lines=len(models))
    weights = metrics.bootstrap_weights(len(survival_test), n_resamples, random_state=random_state)
    lowest = 0.45
    for (name, values), look in zip(models, style(), strict=False):

        def metric(w: Any, values: Any = values) -> Any:
            return metrics.cumulative_dynamic_auc(survival_train, survival_test, values, times, w)

        curve, low, _ = _band(ax, times, metric, weights, confidence_level, name, look)
        lowest = min(lowest, np.nanmin(np.r_[curve, low, lowest]) - 0.02)
    ax.axhline(0.5, color="0.6", linewidth=1, linestyle=":")
    ax.set(xlabel="Months", ylabel="Time-dependent AUC", ylim=(max(lowest, 0), 1.0), xlim=(0, times.max() * 1.02))
    legend_below(ax)
    return finish(ax)


def brier_over_time(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    *,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Draw the Brier score over months, with that of the Kaplan-Meier curve of the training rows as reference.

    Parameters
    ----------
    survival_train, survival_test, times, n_resamples, confidence_level, random_state, ax
        As in :func:`auc_over_time`.
    survival : array of shape (n, n_times), or dict of str to such arrays
        Probability to be event-free at each time, by name of the model.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> brier_over_time(y, y, [[0.9, 0.5]] * 4, [1.5, 3.0], n_resamples=20).get_ylabel()
    'Brier score'
    """
    models, times = named(survival), np.asarray(times, dtype=np.float64)
    ax = axes(ax, n_lines=len(models) + 1)
    weights = metrics.bootstrap_weights(len(survival_test), n_resamples, random_state=random_state)
    curve = metrics.step_values(*metrics.kaplan_meier(*known_outcome(survival_train)), times)
    null = np.tile(curve, (len(survival_test), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        reference = metrics.brier_score(survival_train, survival_test, null, times)
    ax.plot(times, reference, color="0.35", linewidth=1.5, linestyle=":", label="Kaplan-Meier (training rows)")
    for (name, values), look in zip(models, style(), strict=False):

        def metric(w: Any, values: Any = values) -> Any:
            return metrics.brier_score(survival_train, survival_test, values, times, w)

        _band(ax, times, metric, weights, confidence_level, name or "model", look)
    ax.set(xlabel="Months", ylabel="Brier score", xlim=(0, times.max() * 1.02))
    ax.set_ylim(0, max(0.27, ax.get_ylim()[1]))
    legend_below(ax)
    return finish(ax)


def decision_curve(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    horizon: float,
    *,
    thresholds: Any = None,
    ax: Any = None,
) -> Any:
    """Draw decision curves: net benefit by threshold of risk, with treat-all and treat-none as references.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
    survival_test : structured array of shape (n,)
    survival : array of shape (n,), or dict of str to such arrays
        Probability to be event-free at the horizon, by name of the model.
    horizon : float
        Months.
    thresholds : array of shape (n_thresholds,), default=None
        None means 0.01 to 0.9; for a paper choose the range of clinically relevant thresholds.
    ax : matplotlib.axes.Axes, default=None

    Returns
    -------
    matplotlib.axes.Axes

    References
    ----------
    .. [1] Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. Medical
       Decision Making, 2006.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> y = np.array([(True, 1.0), (False, 9.0)], dtype=[("event", bool), ("time", float)])
    >>> decision_curve(y, y, [0.1, 0.9], 5.0).get_ylabel()
    'Net benefit'
    """
    models = named(survival)
    ax = axes(ax, n_lines=len(models) + 2)
    grid = np.linspace(0.01, 0.9, 90) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    curves = [("treat all", np.zeros(len(survival_test)))] + [(name or "model", values) for name, values in models]
    looks = chain([{"color": "0.45", "linewidth": 1.3, "linestyle": "--"}], style())
    highest = 0.0
    for (name, values), look in zip(curves, looks, strict=False):
        benefit = metrics.net_benefit(survival_train, survival_test, values, horizon, grid)
        highest = max(highest, np.nanmax(np.r_[benefit, 0.0]))
        ax.plot(grid, benefit, label=name, **look)
    ax.axhline(0, color="0.45", linewidth=1.3, label="act on none")
    ax.set(xlabel=f"Threshold of risk by {horizon:g} months", ylabel="Net benefit")
    ax.set(xlim=(grid[0], grid[-1]), ylim=(-0.12 * (highest or 1), 1.08 * (highest or 1)))
    legend_below(ax)
    return finish(ax)


def _band(
    ax: Any,
    times: np.ndarray,
    metric: Callable[[Any], Any],
    weights: np.ndarray,
    confidence_level: float,
    name: str,
    look: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A curve with its pointwise interval."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        curve = np.asarray(metric(None))
    ax.plot(times, curve, label=name, **look)
    low = high = np.full(len(times), np.nan)
    if len(weights):
        draws = np.asarray(metric(weights))
        low, high = np.array([metrics.percentile_interval(column, confidence_level) for column in draws.T]).T
        ax.fill_between(times, low, high, color=look["color"], alpha=0.13, linewidth=0)
    return curve, low, high
