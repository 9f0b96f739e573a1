"""Kaplan-Meier curves of groups."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mmdls import metrics
from mmdls.metrics._checks import check_outcome
from mmdls.plotting._axes import PALETTE, axes, finish, joined

__all__ = ["kaplan_meier", "log_log_interval", "numbers_at_risk", "time_ticks"]


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
    """Draw Kaplan-Meier curves with censoring marks, intervals, numbers at risk, log-rank test, hazard ratios.

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
        If there is no patient, lengths differ, or a patient has no group.

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
    ax = axes(ax, (6.0, 5.2))
    rows = []
    for k, (member, name) in enumerate(zip(order, names, strict=True)):
        # From the eighth group on the colours repeat with dashed lines.
        colour, dashes = PALETTE[k % len(PALETTE)], ("-", "--", ":", "-.")[k // len(PALETTE) % 4]
        chosen = group == member
        _curve(
            ax, event[chosen], time[chosen], {"color": colour, "linestyle": dashes}, name, interval, confidence_level
        )
        rows.append((name, colour, time[chosen]))
    ax.set(
        xlim=(0, time.max() * 1.02 or 1),
        ylim=(0, 1.03),
        xlabel="Months",
        ylabel=ylabel,
    )
    ax.set_xticks(time_ticks(time.max()))
    finish(ax)
    if len(order) > 1:
        title = _p_text(event, time, group)
        handles, texts = ax.get_legend_handles_labels()
        ratios = _ratio_texts(event, time, group, order, confidence_level)
        texts = [text + ratio for text, ratio in zip(texts, ratios, strict=True)]
        legend = ax.legend(handles, texts, title=title, loc="best", fontsize="small", title_fontsize="small")
        legend.get_frame().set(alpha=0.85, linewidth=0)
    if at_risk:
        numbers_at_risk(ax, rows if len(order) > 1 else [("", *rows[0][1:])])
    return ax


def _curve(
    ax: Any,
    event: np.ndarray,
    time: np.ndarray,
    look: dict[str, str],
    name: str,
    interval: bool,
    confidence_level: float,
) -> None:
    times, survival = metrics.kaplan_meier(event, time)
    colour = look["color"]
    ax.step(np.r_[0, times], np.r_[1, survival], where="post", linewidth=1.8, label=name, **look)
    censored = np.unique(time[~event])
    ax.plot(censored, metrics.step_values(times, survival, censored), "|", color=colour, markersize=6, alpha=0.7)
    if interval:
        low, high = log_log_interval(event, time, times, survival, confidence_level)
        ax.fill_between(
            np.r_[0, times], np.r_[1, low], np.r_[1, high], step="post", color=colour, alpha=0.15, linewidth=0
        )


def log_log_interval(
    event: np.ndarray, time: np.ndarray, times: np.ndarray, survival: np.ndarray, confidence_level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Greenwood's variance on the scale of log(-log S), which keeps the interval inside [0, 1]."""
    at_risk = (time[None, :] >= times[:, None]).sum(axis=1)
    deaths = (event[None, :] & (time[None, :] == times[:, None])).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (at_risk * (at_risk - deaths)))
        error = ndtri((1 + confidence_level) / 2) * np.sqrt(greenwood) / np.abs(np.log(survival))
        low, high = survival ** np.exp(error), survival ** np.exp(-error)
    # Not estimable before the first event and after the curve reached zero.
    flat = (survival == 1) | (survival == 0)
    return np.where(flat, survival, low), np.where(flat, survival, high)


def time_ticks(longest: float) -> np.ndarray:
    """Ticks of an axis of months: at most about ten, months or years apart."""
    step = next((s for s in (1, 3, 6, 12, 24, 36, 60, 120) if longest / s <= 9), 240)
    return np.arange(0, longest + 1e-9, step)


def _p_text(event: np.ndarray, time: np.ndarray, group: np.ndarray) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        p = metrics.logrank_test(event, time, group)[1]
    return "log-rank p not defined" if np.isnan(p) else f"log-rank p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


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
        ", no finite HR" if np.isnan(r) else f", HR {r:.2f} [{a:.2f}, {b:.2f}]"
        for r, a, b in zip(ratio, low, high, strict=True)
    ]
    return [" (reference)", *texts]


def numbers_at_risk(ax: Any, rows: list[tuple[str, str, np.ndarray]]) -> None:
    """A table under the x axis, in points so that it neither overlaps the labels nor is cut off."""
    ticks = ax.get_xticks()
    size, line, top = 8, 11, 38
    across = ax.get_xaxis_transform()
    options = {
        "xycoords": across,
        "textcoords": "offset points",
        "fontsize": size,
        "va": "top",
        "annotation_clip": False,
    }
    ax.annotate("At risk", (0, 0), (-20, -top), ha="right", fontweight="bold", **options)
    for k, (name, colour, time) in enumerate(rows, start=bool(rows[0][0])):
        y = -top - k * line
        if name:
            ax.annotate(name, (0, 0), (-20, y), ha="right", color=colour, **options)
        for tick in ticks:
            ax.annotate(str(int((time >= tick).sum())), (tick, 0), (0, y), ha="center", color=colour, **options)
