"""ROC and precision-recall curves."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mmdls import metrics
from mmdls.plotting._axes import WIDTH, axes, finish, interval_text, joined, legend_below, named, style

__all__ = ["check_classes", "precision_recall", "roc"]


def roc(
    y_true: Any,
    y_proba: Any,
    *,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Draw ROC curves of one or several models, with the AUC and its bootstrap interval in the legend.

    Parameters
    ----------
    y_true : array of shape (n,)
        0 or 1.
    y_proba : array of shape (n,), or dict of str to such arrays
        Scores of class 1, by name of the model.
    n_resamples : int, default=500
        0 leaves the interval out.
    confidence_level : float, default=0.95
    random_state : int or None, default=0
    ax : matplotlib.axes.Axes, default=None
        None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> roc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]).get_ylabel()
    'Sensitivity'
    """
    y_true, models = check_classes(y_true, y_proba)
    ax = axes(ax, (WIDTH, WIDTH), len(models))
    weights = metrics.bootstrap_weights(len(y_true), n_resamples, random_state=random_state)
    for (name, score), look in zip(models, style(), strict=False):
        false, true, _ = roc_curve(y_true, score)
        text = _with_interval(partial(metrics.auc_score, y_true, score), weights, confidence_level)
        ax.plot(false, true, label=f"{name} AUC {text}".strip(), **look)
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    ax.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    legend_below(ax)
    return finish(ax)


def precision_recall(
    y_true: Any,
    y_proba: Any,
    *,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Draw precision-recall curves, with the average precision in the legend and the prevalence as reference.

    Parameters
    ----------
    y_true, y_proba, n_resamples, confidence_level, random_state, ax
        As in :func:`roc`.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> precision_recall([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]).get_ylabel()
    'Positive predictive value'
    """
    y_true, models = check_classes(y_true, y_proba)
    ax = axes(ax, (WIDTH, WIDTH), len(models) + 1)
    weights = metrics.bootstrap_weights(len(y_true), n_resamples, random_state=random_state)
    for (name, score), look in zip(models, style(), strict=False):
        precision, recall, _ = precision_recall_curve(y_true, score)
        text = _with_interval(partial(metrics.average_precision_score, y_true, score), weights, confidence_level)
        ax.step(recall, precision, where="post", label=f"{name} AP {text}".strip(), **look)
    prevalence = float(y_true.mean())
    ax.axhline(prevalence, color="0.6", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.2f}")
    ax.set(xlabel="Sensitivity", ylabel="Positive predictive value")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), aspect="equal")
    legend_below(ax)
    return finish(ax)


def check_classes(y_true: Any, y_proba: Any) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Labels as integers, and scores by name of the model."""
    models = [
        (name, np.asarray(joined(values, y_true, name or "y_proba"), dtype=np.float64))
        for name, values in named(y_proba)
    ]
    y_true = np.asarray(y_true)
    if (unknown := pd.isna(y_true) | np.any([np.isnan(v) for _, v in models if v.shape == y_true.shape], axis=0)).any():
        raise ValueError(
            f"{int(unknown.sum())} patients have no label, or no prediction of a model, such as row "
            f"{int(np.flatnonzero(unknown)[0])}; leave them out."
        )
    if not np.isin(y_true, (0, 1)).all() or any(values.shape != y_true.shape for _, values in models):
        raise ValueError(
            f"y_true must be 0 or 1, with one probability of class 1 each; got {np.unique(y_true)[:5]} of shape "
            f"{y_true.shape} and {[values.shape for _, values in models]}. Draw one class against the rest."
        )
    return y_true.astype(np.int64), models


def _with_interval(metric: Callable[[Any], Any], weights: np.ndarray, confidence_level: float) -> str:
    if not len(weights):
        return interval_text(metric(None))
    return interval_text(*metrics.bootstrap_interval(metric, weights, confidence_level=confidence_level)[:3])
