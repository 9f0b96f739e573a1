"""Kaplan-Meier curves of groups."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import refuse_measurements
from mmdls.metrics._censoring import log_log_interval, median_text
from mmdls.metrics._checks import check_outcome
from mmdls.metrics._comparison import p_text
from mmdls.plotting._axes import ROW, WIDTH, axes, finish, joined, legend_below, scale, style, visible

__all__ = ["kaplan_meier", "numbers_at_risk", "time_ticks"]


def kaplan_meier(
    event: Any,
    time: Any,
    group: Any = None,
    *,
    labels: Mapping[Any, str] | None = None,
    interval: bool = True,
    confidence_level: float = 0.95,
    at_risk: bool = True,
    ylabel: str = "Probability of being event-free",
    ax: Any = None,
) -> Any:
    """Draw Kaplan-Meier curves with censoring marks, intervals, numbers at risk, medians, log-rank test, hazard ratios.

    The legend gives the median of each group with its interval (:func:`mmdls.metrics.median_survival`).

    Parameters
    ----------
    event : array of shape (n,), bool
        If it is a Series, a Series of times or groups is joined to it by patient id; otherwise groups to times.
    time : array of shape (n,)
        Months.
    group : array of shape (n,), default=None
        For example risk groups with cut-points learned in training; None draws one curve. The first group,
        in the order of ``labels``, of the categories of a categorical or sorted, is the reference of the hazard ratios
        (Cox model with dummies, Efron ties, Wald intervals).
    labels : dict, default=None
        Name of each group; also sets their order.
    interval : bool, default=True
        Shade pointwise intervals (log-log transformed, Greenwood variance).
    confidence_level : float, default=0.95
    at_risk : bool, default=True
        Table of the numbers at risk below the axis.
    ylabel : str
        Such as the endpoint, "Overall survival".
    ax : matplotlib.axes.Axes, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there is no patient, lengths differ, a patient has no group, or the groups are a measurement.

    References
    ----------
    .. [1] Pocock SJ et al. Survival plots of time-to-event outcomes in clinical trials: good practice and
       pitfalls. Lancet, 2002.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = kaplan_meier([1, 1, 0, 1], [3.0, 9.0, 12.0, 30.0], ["low", "high", "high", "low"])
    >>> ax.get_xlabel()
    'Months'
    """
    first = event if isinstance(event, pd.Series) else time
    time, group = joined(time, event, "time"), joined(group, first, "group")
    if group is not None:
        refuse_measurements(group, "group")
    kind = getattr(group, "dtype", None)
    ordered = list(kind.categories) if isinstance(kind, pd.CategoricalDtype) else None
    group = np.zeros(len(time), dtype=int) if group is None else np.asarray(group)
    if not len(event) == len(time) == len(group) or not len(time):
        raise ValueError(
            f"event, time and group must have one length above 0; got {len(event)}, {len(time)}, {len(group)}."
        )
    event, time = check_outcome(event, time)
    unknown = pd.isna(group)
    if unknown.any():
        raise ValueError(f"group is missing for {unknown.sum()} of {len(group)} patients; leave these patients out.")
    present = set(group.tolist())
    order = [g for g in labels if g in present] if labels else []
    order += [g for g in (sorted(present) if ordered is None else ordered) if g in present - set(order)]
    names = [str((labels or {}).get(g, g)) for g in order]
    ax = axes(ax, (WIDTH, 4.2 + at_risk * 0.16 * len(order)), len(order) + 1)
    rows, medians = [], []
    for member, name, look in zip(order, names, style(), strict=False):
        own = event[group == member], time[group == member]
        _curve(ax, *own, look, name, interval, confidence_level)
        medians.append(median_text(*own, confidence_level))
        rows.append((name, own[1]))
    ax.set(
        xlim=(0, time.max() * 1.02 or 1),
        ylim=(0, 1.03),
        xlabel="Months",
        ylabel=ylabel,
    )
    ax.set_xticks(time_ticks(time.max()))
    finish(ax)
    handles, texts = ax.get_legend_handles_labels()
    title = None
    if len(order) > 1:
        title = (
            f"Median in months, hazard ratio [{100 * confidence_level:g} % intervals]; {_p_text(event, time, group)}"
        )
        ratios = _ratio_texts(event, time, group, order, confidence_level)
        texts = [
            f"{name}: {', '.join(filter(None, found))}" for name, *found in zip(texts, medians, ratios, strict=True)
        ]
    else:
        texts = [f"median in months {medians[0]}"]
    if at_risk:
        numbers_at_risk(ax, rows if len(order) > 1 else [("", rows[0][1])])
    rows_above = len(order) + (len(order) > 1) + 0.4 if at_risk else 0
    legend_below(ax, handles, texts, rows_above, indent=-3.5, title=title)
    return ax


def _curve(
    ax: Any,
    event: np.ndarray,
    time: np.ndarray,
    look: dict[str, Any],
    name: str,
    interval: bool,
    confidence_level: float,
) -> None:
    times, survival = metrics.kaplan_meier(event, time)
    colour = look["color"]
    drawn = visible(times)
    ax.step(np.r_[0, times[drawn]], np.r_[1, survival[drawn]], where="post", label=name, **look)
    censored = np.unique(time[~event])
    censored = censored[visible(censored)]
    ax.plot(censored, metrics.step_values(times, survival, censored), "|", color=colour, markersize=6 * scale())
    if interval:
        low, high = (np.r_[1, limit[drawn]] for limit in log_log_interval(event, time, confidence_level))
        ax.fill_between(np.r_[0, times[drawn]], low, high, step="post", color=colour, alpha=0.15, linewidth=0)


def time_ticks(longest: float) -> np.ndarray:
    """Ticks of an axis of months: at most about ten, months or years apart."""
    step = next((s for s in (1, 3, 6, 12, 24, 36, 60, 120) if longest / s <= 9), 240)
    return np.arange(0, longest + 1e-9, step)


def _p_text(event: np.ndarray, time: np.ndarray, group: np.ndarray) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        p = metrics.logrank_test(event, time, group)[1]
    return "log-rank p not defined" if np.isnan(p) else f"log-rank {p_text(p, 'p')}"


def _ratio_texts(
    event: np.ndarray, time: np.ndarray, group: np.ndarray, order: list[Any], confidence_level: float
) -> list[str]:
    dummies = np.column_stack([group == member for member in order[1:]]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        ratio, low, high, _ = metrics.hazard_ratios(event, time, dummies, confidence_level)
    if np.isnan(ratio).all():
        return [""] * len(order)
    texts = [
        "no finite HR" if np.isnan(r) else f"HR {r:.2f} [{a:.2f}, {b:.2f}]"
        for r, a, b in zip(ratio, low, high, strict=True)
    ]
    return ["reference", *texts]


def numbers_at_risk(ax: Any, rows: list[tuple[str, np.ndarray]]) -> None:
    """A table under the x axis, in points so that it neither overlaps the labels nor is cut off."""
    points = 10 * scale()
    line, top, left = ROW * points, 3.7 * points, 1.8 * points
    options = {
        "xycoords": ax.get_xaxis_transform(),
        "textcoords": "offset points",
        "fontsize": "small",
        "va": "top",
        "annotation_clip": False,
    }
    ax.annotate("At risk", (0, 0), (-left, -top), ha="right", fontweight="bold", **options)
    for k, (name, time) in enumerate(rows, start=bool(rows[0][0])):
        y = -top - k * line
        if name:
            ax.annotate(name, (0, 0), (-left, y), ha="right", **options)
        for tick in ax.get_xticks():
            ax.annotate(str(int((time >= tick).sum())), (tick, 0), (0, y), ha="center", **options)
