"""Predicted against observed numbers."""

from itertools import cycle
from typing import Any

import numpy as np

from mmdls import metrics
from mmdls.metrics._notes import collected_warnings
from mmdls.plotting._axes import MANY, WIDTH, axes, finish, interval_text, joined, legend_below, named, scale, style

__all__ = ["predicted_observed"]


def predicted_observed(
    y_true: Any,
    y_pred: Any,
    *,
    unit: str = "",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Scatter of observed over predicted numbers, with the diagonal of perfect predictions and R2 with an interval.

    Points above the diagonal are patients whose number is underestimated.

    Parameters
    ----------
    y_true : array of shape (n,)
        Observed numbers.
    y_pred : array of shape (n,), or mapping of str to array
        Predicted numbers, by model. Joined to ``y_true`` by patient id if both are Series.
    unit : str, default=""
        Unit of the numbers, for the labels of the axes.
    n_resamples : int, default=1000
        Of the bootstrap of R2; 0 gives no interval.
    confidence_level : float, default=0.95
    random_state : int, numpy Generator or None, default=0
    ax : matplotlib.axes.Axes, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = predicted_observed([1.0, 2.0, 3.0], [1.0, 2.0, 4.0], unit="litres", n_resamples=0)
    >>> ax.get_xlabel(), ax.get_legend().get_texts()[0].get_text()
    ('Predicted (litres)', 'R2 0.50')
    """
    models = [(name, joined(values, y_true, name or "y_pred")) for name, values in named(y_pred)]
    weights = metrics.bootstrap_weights(len(y_true), n_resamples, random_state=random_state) if n_resamples else None
    observed = np.asarray(y_true, dtype=np.float64)
    ax = axes(ax, (WIDTH, WIDTH), len(models))
    shown = [observed]
    for (name, values), look, mark in zip(models, style(), cycle("os^Dv"), strict=False):

        def r2(w: Any, values: Any = np.asarray(values)) -> Any:
            return metrics.r2_score(observed, values, w)

        with collected_warnings():
            if weights is None:
                text = interval_text(float(r2(None)))
            else:
                text = interval_text(*metrics.bootstrap_interval(r2, weights, confidence_level=confidence_level)[:3])
        label = f"{name} R2 {text}".strip()
        many = len(observed) > MANY  # as pixels, since a mark of each patient would make a file of many megabytes
        options = {"ms": 3.5 * scale(), "alpha": 0.5, "mew": 0, "color": look["color"], "rasterized": many}
        ax.plot(values, observed, mark, label=label, **options)
        shown.append(np.asarray(values, dtype=np.float64))
    low, high = min(map(np.min, shown)), max(map(np.max, shown))
    margin = 0.04 * (high - low) or 1.0
    ax.axline((low, low), slope=1, color="0.6", linewidth=1, linestyle=":")
    suffix = f" ({unit})" if unit else ""
    limits = (low - margin, high + margin)
    ax.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"Predicted{suffix}", ylabel=f"Observed{suffix}")
    legend_below(ax)
    return finish(ax)
