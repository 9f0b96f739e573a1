"""Cumulative incidences of competing risks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mmdls import metrics
from mmdls.metrics._cumulative_incidence import check_causes
from mmdls.plotting._axes import PALETTE, WIDTH, axes, finish, joined, legend_below, scale, visible
from mmdls.plotting._kaplan_meier import numbers_at_risk, time_ticks

__all__ = ["cumulative_incidence"]


def cumulative_incidence(
    causes: Any,
    time: Any,
    predicted: Mapping[int, Any] | None = None,
    *,
    labels: Mapping[int, str] | None = None,
    interval: bool = True,
    confidence_level: float = 0.95,
    at_risk: bool = True,
    ax: Any = None,
) -> Any:
    """Draw the Aalen-Johansen estimate of every cause, with intervals, and mean predicted incidences beside it.

    Parameters
    ----------
    causes : array of shape (n,), int
        0 = censored, 1, 2, ... = the cause of the event.
    time : array of shape (n,)
        Months. Joined to ``causes`` by patient id if both are Series.
    predicted : mapping of int to DataFrame of shape (n, n_times), default=None
        By cause, the predicted cumulative incidence of the same patients, columns = months. Their mean is drawn dashed:
        it should follow the estimate. Joined to ``causes`` by patient id if that is a Series.
    labels : mapping of int to str, default=None
        Name of each cause.
    interval : bool, default=True
        Shade pointwise intervals (log-log transformed, variance by the delta method).
    confidence_level : float, default=0.95
    at_risk : bool, default=True
        Table of the numbers at risk below the axis.
    ax : matplotlib.axes.Axes, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there is no patient.

    References
    ----------
    .. [1] Dinse GE, Larson MG. A note on semi-Markov models for partially censored data. Biometrika, 1986.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = cumulative_incidence([1, 2, 0, 1], [3.0, 9.0, 12.0, 30.0], labels={1: "cancer", 2: "other"})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['cancer', 'other']
    """
    tables = {cause: joined(table, causes, "predicted") for cause, table in (predicted or {}).items()}
    codes, months = check_causes(causes, joined(time, causes, "time"))
    if not len(months):
        raise ValueError("there is no patient to draw: causes and time are empty.")
    n_causes = max([int(codes.max()), *tables, 1])
    times, incidence = metrics.cumulative_incidence(codes, months, n_causes=n_causes)
    end = float(months.max())
    drawn = visible(times)
    steps = np.r_[0, times[drawn]]
    ax = axes(ax, (WIDTH, 4.2), n_causes + len(tables))
    for cause in range(1, n_causes + 1):
        colour, curve = PALETTE[(cause - 1) % len(PALETTE)], incidence[cause - 1]
        name = str((labels or {}).get(cause, f"cause {cause}"))
        ax.step(steps, np.r_[0, curve[drawn]], where="post", linewidth=1.8 * scale(), color=colour, label=name)
        if interval:
            limits = incidence_interval(codes, months, cause, confidence_level)
            low, high = (np.r_[0, limit[drawn]] for limit in limits)
            ax.fill_between(steps, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        if cause in tables:
            at, mean = _mean_curve(tables[cause], len(months), end)
            look = {"linestyle": "--", "linewidth": 1.8 * scale(), "color": colour}
            ax.plot(np.r_[0, at], np.r_[0, mean], label=f"{name}, mean predicted", **look)
    ax.set(xlim=(0, end * 1.02 or 1), ylim=(0, 1.03), xlabel="Months", ylabel="Cumulative incidence")
    ax.set_xticks(time_ticks(end))
    finish(ax)
    if at_risk:
        numbers_at_risk(ax, [("", months)])
    legend_below(ax, rows=1.5 * at_risk)
    return ax


def incidence_interval(
    causes: np.ndarray, time: np.ndarray, cause: int, confidence_level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variance by the delta method on the scale of log(-log F), which keeps the interval inside [0, 1], (n_times,)."""
    order = np.argsort(time, kind="stable")
    times, first = np.unique(time[order], return_index=True)
    at_risk = (len(time) - first).astype(np.float64)
    events = np.add.reduceat((causes > 0)[order].astype(np.float64), first)
    own = np.add.reduceat((causes == cause)[order].astype(np.float64), first)
    free = np.cumprod(1 - events / at_risk)
    before = np.r_[1.0, free[:-1]]
    curve = np.cumsum(before * own / at_risk)
    # Where all have an event the curve ends: the term is infinite, and its factor 0.
    left = at_risk - events
    a = np.divide(events, at_risk * left, out=np.zeros(len(times)), where=left > 0)
    b = before**2 * own * (at_risk - own) / at_risk**3
    c = before * own / at_risk**2
    variance = (
        curve**2 * a.cumsum()
        - 2 * curve * (curve * a).cumsum()
        + (curve**2 * a).cumsum()
        + b.cumsum()
        - 2 * (curve * c.cumsum() - (curve * c).cumsum())
    )
    inside = (curve > 0) & (curve < 1)
    log = np.log(np.where(inside, curve, 0.5))
    error = ndtri((1 + confidence_level) / 2) * np.sqrt(np.maximum(variance, 0)) / np.abs(curve * log + ~inside)
    low, high = np.exp(log * np.exp(error)), np.exp(log * np.exp(-error))
    return np.where(inside, low, curve), np.where(inside, high, curve)


def _mean_curve(table: Any, n: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Months up to the end of follow-up, and the mean predicted incidence at them."""
    if not isinstance(table, pd.DataFrame) or len(table) != n:
        raise ValueError(
            f"predicted must hold a DataFrame of {n} patients for each cause, columns = months; got "
            f"{type(table).__name__} of length {len(table)}."
        )
    months = table.columns.to_numpy(dtype=np.float64)
    order = np.argsort(months)
    order = order[months[order] <= end]
    return months[order], table.to_numpy(dtype=np.float64)[:, order].mean(axis=0)
