"""ROC and precision-recall curves, and calibration of class probabilities."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logit, ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_curve

from mmdls import metrics
from mmdls.metrics._calibration import spline
from mmdls.plotting._axes import axes, finish, interval_text, joined, named, style

__all__ = ["calibration", "precision_recall", "roc"]


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
    y_true, models = _check(y_true, y_proba)
    ax = axes(ax, (4.8, 4.8))
    weights = metrics.bootstrap_weights(len(y_true), n_resamples, random_state=random_state)
    for (name, score), look in zip(models, style(), strict=False):
        false, true, _ = roc_curve(y_true, score)
        text = _with_interval(partial(metrics.auc_score, y_true, score), weights, confidence_level)
        ax.plot(false, true, label=f"{name} AUC {text}".strip(), **look)
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    ax.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.legend(loc="lower right", fontsize="small", frameon=False)
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
    y_true, models = _check(y_true, y_proba)
    ax = axes(ax, (4.8, 4.8))
    weights = metrics.bootstrap_weights(len(y_true), n_resamples, random_state=random_state)
    for (name, score), look in zip(models, style(), strict=False):
        precision, recall, _ = precision_recall_curve(y_true, score)
        text = _with_interval(partial(metrics.average_precision_score, y_true, score), weights, confidence_level)
        ax.step(recall, precision, where="post", label=f"{name} AP {text}".strip(), **look)
    prevalence = float(y_true.mean())
    ax.axhline(prevalence, color="0.6", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.2f}")
    ax.set(xlabel="Sensitivity", ylabel="Positive predictive value")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), aspect="equal")
    ax.legend(loc="best", fontsize="small", framealpha=0.85, edgecolor="none")
    return finish(ax)


def calibration(y_true: Any, y_proba: Any, *, n_bins: int = 5, confidence_level: float = 0.95, ax: Any = None) -> Any:
    """Draw observed frequency against predicted probability: a smooth curve, and groups of equal size.

    Parameters
    ----------
    y_true : array of shape (n,)
        0 or 1.
    y_proba : array of shape (n,), or dict of str to such arrays
        Probability of class 1, by name of the model.
    n_bins : int, default=5
        Groups of predicted probability; bars are Wilson intervals. The curve is a logistic regression on a restricted
        cubic spline (3 knots) of the log odds.
    confidence_level : float, default=0.95
    ax : matplotlib.axes.Axes, default=None

    Returns
    -------
    matplotlib.axes.Axes

    References
    ----------
    .. [1] Van Calster B et al. Calibration: the Achilles heel of predictive analytics. BMC Medicine, 2019.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> calibration([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], n_bins=2).get_xlabel()
    'Predicted probability'
    """
    y_true, models = _check(y_true, y_proba)
    ax = axes(ax, (4.8, 4.8))
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    for (name, predicted), look in zip(models, style(), strict=False):
        groups = np.array_split(np.argsort(predicted, kind="stable"), min(n_bins, len(y_true)))
        centre = np.array([predicted[g].mean() for g in groups])
        observed = np.array([y_true[g].mean() for g in groups])
        low, high = _wilson(observed, np.array([len(g) for g in groups]), confidence_level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
            slope = float(metrics.calibration_slope(y_true, predicted))
        text = f"{name} slope {interval_text(slope)}".strip()
        bars = np.maximum([observed - low, high - observed], 0)
        ax.errorbar(centre, observed, bars, fmt="o", ms=4, color=look["color"], elinewidth=0.9)
        order = np.argsort(predicted)
        inner = order[int(0.01 * len(order)) : len(order) - int(0.01 * len(order))]
        ax.plot(predicted[inner], _smooth(y_true, predicted)[inner], label=text, **look)
    ax.set(xlabel="Predicted probability", ylabel="Observed frequency")
    ax.legend(loc="upper left", fontsize="small", frameon=False)
    return spikes(finish(ax), [(predicted, look) for (_, predicted), look in zip(models, style(), strict=False)])


def _smooth(y_true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Observed frequency as a smooth function of predicted probability; NaN if there is one class only."""
    if len(np.unique(y_true)) < 2:
        return np.full(len(y_true), np.nan)
    basis = spline(logit(np.clip(predicted, 1e-6, 1 - 1e-6)))
    basis = (basis - basis.mean(axis=0)) / np.maximum(basis.std(axis=0), 1e-12)
    return LogisticRegression(C=np.inf, max_iter=1000).fit(basis, y_true).predict_proba(basis)[:, 1]


def spikes(ax: Any, distributions: list[tuple[np.ndarray, dict[str, Any]]]) -> Any:
    """Histogram of predictions between 0 and 1, one row of spikes a model, below the curves."""
    height = 0.07
    for k, (values, look) in enumerate(distributions):
        counts, edges = np.histogram(values, bins=50, range=(0, 1))
        base = -height * (k + 1.2)
        ax.vlines(
            (edges[:-1] + edges[1:]) / 2, base, base + counts / max(counts.max(), 1) * height * 0.85, look["color"]
        )
    ax.set(xlim=(-0.02, 1.02), ylim=(-height * (len(distributions) + 0.4), 1.02), aspect="equal")
    ax.set_yticks(np.linspace(0, 1, 6))
    return ax


def _check(y_true: Any, y_proba: Any) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    models = [
        (name, np.asarray(joined(values, y_true, name or "y_proba"), dtype=np.float64))
        for name, values in named(y_proba)
    ]
    y_true = np.asarray(y_true)
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


def _wilson(observed: np.ndarray, n: np.ndarray, confidence_level: float) -> tuple[np.ndarray, np.ndarray]:
    z = ndtri((1 + confidence_level) / 2)
    middle = (observed + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z * np.sqrt(observed * (1 - observed) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - margin, middle + margin
