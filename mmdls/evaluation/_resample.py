"""Metrics in bootstrap resamples of the patients."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmdls.evaluation._cases import cases
from mmdls.evaluation._checks import check_found, check_names, check_resampling, settings_of
from mmdls.evaluation._out_of_fold import own_folds
from mmdls.tasks import Statistic
from mmdls.tasks._case import noted

__all__ = ["lost_resamples", "resample_predictions"]


def resample_predictions(
    predictions: Mapping[str, pd.DataFrame | pd.Series],
    y: pd.DataFrame,
    *,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = (),
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    tau: float | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compute metrics in bootstrap resamples of the patients, as a basis for other statistics.

    Predictions for the same patients are scored on the same resamples. So a function of the values of several models,
    such as a ratio of gains, has a paired interval: :func:`mmdls.metrics.percentile_interval` of that function.

    Parameters
    ----------
    predictions, y, training_outcomes, censoring, horizons, thresholds, n_resamples, stratify, clusters, folds
        As in :func:`evaluate_predictions`.
    tau, random_state
        As in :func:`evaluate_predictions`.
    metrics : sequence of str, default=None
        Names as in the table of :func:`evaluate`; None means all.

    Returns
    -------
    pandas.DataFrame
        One row a metric, with the index task, metric, horizon; the column "value", then one column a resample, 0 to
        ``n_resamples - 1``. Undefined values are NaN.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0, 8.0], "os_event": [1, 0, 1, 1]})
    >>> draws = resample_predictions({"os": pd.Series([4.0, 3.0, 1.0, 2.0])}, y, n_resamples=100)
    >>> draws.shape, float(draws.loc[("os", "concordance_index"), "value"].iloc[0])
    ((2, 101), 0.75)
    """
    settings = settings_of(horizons, thresholds, tau)
    folds, clusters = own_folds([predictions], folds, clusters)
    check_resampling(n_resamples, 0.95, stratify, clusters)
    check_names(metrics)
    rows: dict[tuple[str, str, float], list[float]] = {}
    found: list[str] = []
    for case in cases(predictions, y, reference=training_outcomes, censoring=censoring, clusters=clusters, folds=folds):
        weights = case.weights(n_resamples, stratify, random_state)
        for statistic in case.statistics(settings):
            found += [statistic.metric] * statistic.resampled
            if statistic.resampled and (metrics is None or statistic.metric in metrics):
                key = (case.task.name, statistic.metric, statistic.horizon)
                rows[key], _ = noted(partial(_draws, statistic, weights))
    check_found(metrics, found)
    index = pd.MultiIndex.from_tuples(rows, names=["task", "metric", "horizon"])
    return pd.DataFrame(np.array(list(rows.values())), index=index, columns=["value", *range(n_resamples)])


def _draws(statistic: Statistic, weights: np.ndarray) -> list[float]:
    """The value on all patients, then the values in the resamples."""
    return [float(statistic.compute(None)), *(np.asarray(statistic.compute(weights)) if len(weights) else ())]


def lost_resamples(draws: np.ndarray) -> str:
    """A note that counts the resamples in which a metric is undefined; empty if there are none."""
    n_lost = int(np.isnan(draws).sum())
    return f"undefined in {n_lost} of {len(draws)} resamples" if n_lost else ""
