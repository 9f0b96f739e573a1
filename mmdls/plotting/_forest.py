"""Forest plots of models, centres or subgroups."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls.plotting._axes import PALETTE, axes, finish, interval_text, scale

__all__ = ["forest"]


def forest(
    table: pd.DataFrame,
    *,
    label: str = "label",
    counts: bool = True,
    pooled: Mapping[str, float] | None = None,
    reference: float | None = None,
    log: bool = False,
    xlabel: str = "",
    ax: Any = None,
) -> Any:
    """Draw a forest plot: values with intervals, one row a model, centre, subgroup or covariate.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``value`` (or ``hazard_ratio``, or ``difference``), ``low``, ``high``, a column of labels, and
        optionally n and n_events. A row with a value of NaN shows its ``note`` instead, if there is one, up to a colon.
    label : str, default="label"
        The column of labels.
    counts : bool, default=True
        Show n and n_events beside the labels.
    pooled : dict, default=None
        From :func:`mmdls.tables.random_effects_summary`: a diamond for the mean over centres, a line for the prediction
        interval of a new centre.
    reference : float, default=None
        Draws a vertical line, for example at 1 for hazard ratios.
    log : bool, default=False
        Logarithmic axis, for hazard ratios.
    xlabel : str
    ax : matplotlib.axes.Axes, default=None

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the table has no rows, or lacks a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> table = pd.DataFrame({"centre": ["A", "B"], "value": [0.7, 0.6], "low": [0.6, 0.5], "high": [0.8, 0.7]})
    >>> ax = forest(table, label="centre", xlabel="C-index")
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['A', 'B']
    """
    column = next((c for c in ("value", "hazard_ratio", "difference") if c in table.columns), None)
    lacking = [c for c in (label, "low", "high") if c not in table.columns]
    if column is None or lacking or not len(table):
        raise ValueError(
            f"table must have rows and the columns value (or hazard_ratio, difference), low, high and {label!r}; it "
            f"has {len(table)} rows and {list(table.columns)}."
        )
    if pooled is not None and np.isnan(pooled["value"]):
        pooled = None  # all rows are suppressed
    n_rows = len(table) + (pooled is not None)
    ax = axes(ax, (6.6, 1.0 + 0.3 * n_rows))
    for k, row in enumerate(table.to_dict("records")):
        value, low, high = (float(row[c]) if pd.notna(row[c]) else np.nan for c in (column, "low", "high"))
        if not np.isnan(value):
            ax.plot([low, high], [k, k], color=PALETTE[0], linewidth=1.6 * scale(), solid_capstyle="butt")
            ax.plot(value, k, "s", color=PALETTE[0], markersize=6 * scale())
        missing = str(row.get("note") or "not defined").partition(":")[0]
        _beside(ax, k, missing if np.isnan(value) else interval_text(value, low, high))
    labels = [_label(row, label, counts) for row in table.to_dict("records")]
    if pooled is not None:
        k = len(table)
        ax.plot([pooled["predicted_low"], pooled["predicted_high"]], [k, k], color=PALETTE[2], linewidth=1.2 * scale())
        x = [pooled["low"], pooled["value"], pooled["high"], pooled["value"]]
        ax.fill(x, [k, k - 0.22, k, k + 0.22], color=PALETTE[2])
        _beside(ax, k, interval_text(pooled["value"], pooled["low"], pooled["high"]))
        new = interval_text(np.nan) if np.isnan(pooled["predicted_low"]) else ""
        new = new or f"[{pooled['predicted_low']:.2f}, {pooled['predicted_high']:.2f}]"
        labels.append(f"All (new centre: {new})")
    if reference is not None:
        ax.axvline(reference, color="0.5", linewidth=1, linestyle=":", zorder=0)
    if table[column].isna().all():  # no value that would give the axis a range
        middle = (1.0 if log else 0.0) if reference is None else reference
        ax.set_xlim((middle / 5, middle * 5) if log else (middle - 0.5, middle + 0.5))
    if log:
        from matplotlib.ticker import LogLocator, NullFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(n_rows), labels)
    ax.set(ylim=(n_rows - 0.4, -0.6), xlabel=xlabel)
    finish(ax).grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _beside(ax: Any, row: int, text: str) -> None:
    ax.annotate(
        text, (1.02, row), xycoords=ax.get_yaxis_transform(), va="center", fontsize="small", annotation_clip=False
    )


def _label(row: Mapping[str, Any], label: str, counts: bool) -> str:
    text = str(row[label])
    if counts and pd.notna(row.get("n", np.nan)):
        events = f", {int(row['n_events'])} events" if pd.notna(row.get("n_events", np.nan)) else ""
        text += f" (n = {int(row['n'])}{events})"
    return text
