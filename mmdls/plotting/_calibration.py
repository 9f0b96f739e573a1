"""Calibration of class probabilities and of predicted survival, one panel a model."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtri
from sklearn.linear_model import LogisticRegression

from mmdls import metrics
from mmdls.metrics._calibration import spline
from mmdls.metrics._censoring import log_log_interval
from mmdls.metrics._checks import check_outcome, check_predictions
from mmdls.metrics._times import snap_times
from mmdls.plotting._axes import PALETTE, finish, interval_text, joined, named, panels, scale
from mmdls.plotting._classification import check_classes

__all__ = ["calibration", "survival_calibration"]

_POINTS = 101  # of a curve at most, so that files of large cohorts stay small
_SPIKES = 0.09  # height of the row of spikes, as a fraction of the axis


def calibration(y_true: Any, y_proba: Any, *, n_bins: int = 5, confidence_level: float = 0.95, ax: Any = None) -> Any:
    """Draw observed frequency against predicted probability, one panel a model: a smooth curve with its band, groups.

    Spikes below show how predictions are distributed.

    Parameters
    ----------
    y_true : array of shape (n,)
        0 or 1.
    y_proba : array of shape (n,), or dict of str to such arrays
        Probability of class 1, by name of the model.
    n_bins : int, default=5
        Groups of predicted probability of equal size; bars are Wilson intervals. The curve is a logistic regression on
        a restricted cubic spline (3 knots) of the log odds; its band is pointwise, by the delta method.
    confidence_level : float, default=0.95
    ax : matplotlib.axes.Axes, default=None
        Several models share its place.

    Returns
    -------
    matplotlib.axes.Axes
        The panel of the first model; the others are in ``ax.figure.axes``.

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
    y_true, models = check_classes(y_true, y_proba)
    drawn = panels(ax, len(models))
    for panel, (name, predicted) in zip(drawn, models, strict=True):
        order = np.argsort(predicted, kind="stable")
        for group in np.array_split(order, min(n_bins, len(y_true))):
            share = float(y_true[group].mean())
            _group(panel, predicted[group].mean(), share, *_wilson(share, len(group), confidence_level))
        inner = _inner(predicted)
        smooth = (values[inner] for values in _smooth(y_true, predicted, confidence_level))
        _curve(panel, name, predicted, inner, *smooth)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
            slope = float(metrics.calibration_slope(y_true, predicted))
        _title(panel, name, f"calibration slope {interval_text(slope)}")
    return _labelled(drawn, "Predicted probability", "Observed frequency")


def survival_calibration(
    event: Any,
    time: Any,
    survival: Any,
    horizon: float,
    *,
    n_groups: int = 5,
    n_resamples: int = 200,
    confidence_level: float = 0.95,
    random_state: Any = 0,
    ax: Any = None,
) -> Any:
    """Draw observed against predicted risk at a horizon, one panel a model: a smooth curve with its band, groups.

    Spikes below show how predictions are distributed.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    survival : array of shape (n,), or dict of str to such arrays
        Probability to be event-free at the horizon, by name of the model.
    horizon : float
        Months.
    n_groups : int, default=5
        Groups of predicted risk of equal size: Kaplan-Meier in each; bars are its intervals (log-log transformed). 0
        draws the curve alone. The curve is that of :func:`mmdls.metrics.survival_calibration_curve`.
    n_resamples : int, default=200
        Bootstrap resamples for the pointwise band of the curve; 0 leaves it out.
    confidence_level : float, default=0.95
    random_state : int or None, default=0
    ax : matplotlib.axes.Axes, default=None
        Several models share its place.

    Returns
    -------
    matplotlib.axes.Axes
        The panel of the first model; the others are in ``ax.figure.axes``.

    References
    ----------
    .. [1] Austin PC, Harrell FE, van Klaveren D. Graphical calibration curves and the integrated calibration
       index (ICI) for survival models. Statistics in Medicine, 2020.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> time = np.arange(1.0, 41.0)
    >>> survival_calibration(np.ones(40), time, time / 50, 24.0, n_groups=4).get_xlabel()
    'Predicted risk by 24 months'
    """
    first = event if isinstance(event, pd.Series) else time
    models = [(name, joined(values, first, name or "survival")) for name, values in named(survival)]
    event, time = check_outcome(event, joined(time, event, "time"))
    weights = metrics.bootstrap_weights(len(time), n_resamples, random_state=random_state)
    drawn = panels(ax, len(models))
    for panel, (name, values) in zip(drawn, models, strict=True):
        values = check_predictions(values, time.shape, "survival")
        for group in np.array_split(np.argsort(1 - values), n_groups) if n_groups else ():
            times, curve = metrics.kaplan_meier(event[group], time[group])
            at = np.searchsorted(times, float(snap_times(horizon, times)), side="right") - 1
            if at >= 0 and snap_times(horizon, times) <= times[-1]:
                low, high = log_log_interval(event[group], time[group], confidence_level)
                _group(panel, 1 - values[group].mean(), 1 - curve[at], 1 - high[at], 1 - low[at])
        inner = _inner(1 - values)
        band = np.full((2, len(inner)), np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            observed = metrics.survival_calibration_curve(event, time, values, horizon)
            if len(weights):
                draws = metrics.survival_calibration_curve(event, time, values, horizon, weights)
                tail = (1 - confidence_level) / 2
                band = np.nanquantile(draws[:, inner], [tail, 1 - tail], axis=0)
        _curve(panel, name, 1 - values, inner, observed[inner], *band)
        _title(panel, name, f"ICI {interval_text(float(np.abs(observed - (1 - values)).mean()))}")
    return _labelled(drawn, f"Predicted risk by {horizon:g} months", f"Observed risk by {horizon:g} months")


def _inner(predicted: np.ndarray) -> np.ndarray:
    """Patients at whose predictions the smooth curve is drawn: some of the inner 98 %, in order."""
    order = np.argsort(predicted, kind="stable")
    inner = order[int(0.01 * len(order)) : len(order) - int(0.01 * len(order))]
    return inner[np.unique(np.linspace(0, len(inner) - 1, _POINTS).astype(int))]


def _curve(
    ax: Any,
    name: str,
    predicted: np.ndarray,
    inner: np.ndarray,
    observed: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """A smooth curve with its band at the inner predictions, and spikes of all predictions (n,) below."""
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":")
    ax.fill_between(predicted[inner], low, high, color=PALETTE[0], alpha=0.18, linewidth=0)
    ax.plot(predicted[inner], observed, label=name, color=PALETTE[0], linewidth=1.8 * scale())
    counts, edges = np.histogram(predicted, bins=50, range=(0, 1))
    heights = counts / max(counts.max(), 1) * _SPIKES * 0.85
    ax.vlines((edges[:-1] + edges[1:]) / 2, -1.2 * _SPIKES, heights - 1.2 * _SPIKES, "0.35", linewidth=1.2 * scale())


def _group(ax: Any, predicted: float, observed: float, low: float, high: float) -> None:
    bars = [[max(observed - low, 0)], [max(high - observed, 0)]]
    ax.errorbar(predicted, observed, bars, fmt="o", ms=4 * scale(), color="black", elinewidth=scale(), zorder=3)


def _title(ax: Any, name: str, text: str) -> None:
    ax.set_title(f"{name}\n{text}".strip(), fontsize="medium", loc="left")


def _labelled(drawn: list[Any], xlabel: str, ylabel: str) -> Any:
    """Names of the axes at the outer panels only."""
    columns = 1 if len(drawn) == 1 else drawn[0].get_subplotspec().get_gridspec().ncols
    for k, ax in enumerate(finish(panel) for panel in drawn):
        ax.set(xlim=(-0.02, 1.02), ylim=(-1.4 * _SPIKES, 1.02), aspect="equal")
        ticks = np.linspace(0, 1, 6)
        ax.set(xticks=ticks, yticks=ticks)
        ax.set_xlabel(xlabel if k + columns >= len(drawn) else "")
        ax.set_ylabel(ylabel if k % columns == 0 else "")
    return drawn[0]


def _smooth(
    y_true: np.ndarray, predicted: np.ndarray, confidence_level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed frequency as a smooth function of predicted probability, and its limits; NaN with one class only."""
    if len(np.unique(y_true)) < 2:
        nothing = np.full(len(y_true), np.nan)
        return nothing, nothing, nothing
    basis = spline(logit(np.clip(predicted, 1e-6, 1 - 1e-6)))
    basis = (basis - basis.mean(axis=0)) / np.maximum(basis.std(axis=0), 1e-12)
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(basis, y_true)
    score = fit.decision_function(basis)
    design = np.column_stack([np.ones(len(basis)), basis])
    share = expit(score)
    covariance = np.linalg.pinv(design.T @ (design * (share * (1 - share))[:, None]))
    error = ndtri((1 + confidence_level) / 2) * np.sqrt(np.einsum("np,pq,nq->n", design, covariance, design))
    return share, expit(score - error), expit(score + error)


def _wilson(observed: float, n: int, confidence_level: float) -> tuple[float, float]:
    z = ndtri((1 + confidence_level) / 2)
    middle = (observed + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z * np.sqrt(observed * (1 - observed) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - margin, middle + margin
