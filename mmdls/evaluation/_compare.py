"""Paired comparison of two models on the same patients."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task
from mmdls.evaluation._cases import cases, known_tasks
from mmdls.evaluation._checks import check_found, check_names, check_resampling, paired, settings_of
from mmdls.evaluation._out_of_fold import own_folds
from mmdls.evaluation._predict import HORIZONS, answers, check_horizons, time_grid
from mmdls.evaluation._resample import lost_resamples
from mmdls.metrics import bootstrap_p_value, delong_test, holm_correction, percentile_interval
from mmdls.tasks import Settings, Statistic
from mmdls.tasks._case import noted

__all__ = ["compare", "compare_predictions"]

_COLUMNS = [
    "task",
    "metric",
    "horizon",
    "first",
    "second",
    "difference",
    "low",
    "high",
    "p",
    "test",
    "n",
    "n_events",
    "note",
]


def compare(
    first: Any,
    second: Any,
    X: pd.DataFrame,
    y: pd.DataFrame | None = None,
    *,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    stratify: bool = False,
    clusters: Any = None,
    tau: float | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compare two fitted models on the same patients: differences, intervals, p-values.

    Both models are scored on the same resamples. The p-value of a binary AUC is that of DeLong's test (without
    ``folds``), all others are those of the paired bootstrap. ``p_holm`` corrects for all rows of the table, so ask for
    the planned metrics only.

    Parameters
    ----------
    first, second : fitted estimator
        As in :func:`evaluate`; only tasks that both predict are compared. One of them may be a dict of predictions, as
        in :func:`compare_predictions`.
    X, y : pandas.DataFrame
        A cohort; rows are joined by patient id.
    training_outcomes : dict of str to structured array of shape (n_rows,), default=None
        By endpoint; their Kaplan-Meier curve is the reference of the index of prediction accuracy of both models.
        None takes those of the first model that has them.
    metrics : sequence of str, default=None
        Names as in the table of :func:`evaluate`; None means all.
    censoring, horizons, thresholds, n_resamples, confidence_level, stratify, clusters, tau, random_state
        As in :func:`evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`compare_predictions`.

    Raises
    ------
    TypeError
        If ``X`` or ``y`` is missing.

    Examples
    --------
    >>> from mmdls.cohort import survival_target
    >>> from sksurv.linear_model import CoxPHSurvivalAnalysis
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"clinical_age": rng.normal(size=90)})
    >>> y = pd.DataFrame({"os_time": rng.exponential(30 * np.exp(-X["clinical_age"])), "os_event": 1})
    >>> weak, strong = (CoxPHSurvivalAnalysis(alpha=a).fit(X, survival_target(y)) for a in (1e4, 0.0))
    >>> compare(strong, weak, X, y, metrics=["concordance_index"], n_resamples=0)["difference"]
    0    0.0
    Name: difference, dtype: float64
    """
    if y is None:
        raise TypeError(
            "compare(first, second, X, y) needs X and y; to compare predictions use "
            "compare_predictions(first, second, y)."
        )
    grid, offered = time_grid(check_horizons(horizons)), known_tasks(y)
    pair: list[Any] = []
    known: dict[str, Task] = {}
    learned: dict[str, np.ndarray] = {}
    for model in (first, second):
        if isinstance(model, Mapping):
            pair.append(model)
            continue
        predicted = answers(model, X, offered, grid)
        known = predicted.tasks | known
        learned = predicted.training_outcomes | learned
        pair.append(predicted.tables)
    return _compared(
        pair[0],
        pair[1],
        y,
        settings_of(horizons, thresholds, tau),
        known,
        training_outcomes={**learned, **(training_outcomes or {})},
        censoring=censoring,
        metrics=metrics,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        stratify=stratify,
        clusters=clusters,
        random_state=random_state,
    )


def compare_predictions(
    first: Mapping[str, pd.DataFrame | pd.Series],
    second: Mapping[str, pd.DataFrame | pd.Series],
    y: pd.DataFrame,
    *,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    tau: float | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compare the predictions of two models for the same patients.

    Both models are scored on the same resamples. The p-value of a binary AUC is that of DeLong's test (without
    ``folds``), all others are those of the paired bootstrap. ``p_holm`` corrects for all rows of the table, so ask for
    the planned metrics only.

    Parameters
    ----------
    first, second : dict of str to DataFrame or Series
        As in :func:`evaluate_predictions`; only tasks and patients in both are compared. Results of
        :func:`mmdls.cross_predict` bring their folds, which must be the same.
    y : pandas.DataFrame
        Outcomes of at least these patients.
    metrics : sequence of str, default=None
        Names as in the table of :func:`evaluate`; None means all.
    training_outcomes, censoring, horizons, thresholds, n_resamples, confidence_level, stratify, clusters
        As in :func:`evaluate_predictions`.
    folds, tau, random_state
        As in :func:`evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns task, metric, horizon, first, second, difference (first minus second), low, high, p, p_holm,
        test, n, n_events, note.

    Raises
    ------
    ValueError
        If no task is in both, if they have no patient in common, or if ``metrics`` names no metric that is computed.

    Warns
    -----
    UserWarning
        If some of ``metrics`` are computed for no task.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0, 8.0], "os_event": [1, 0, 1, 1]})
    >>> good, bad = pd.Series([4.0, 3.0, 1.0, 2.0]), pd.Series([1.0, 3.0, 4.0, 2.0])
    >>> compare_predictions({"os": good}, {"os": bad}, y, metrics=["concordance_index"], n_resamples=0)["difference"]
    0    0.5
    Name: difference, dtype: float64
    """
    return _compared(
        first,
        second,
        y,
        settings_of(horizons, thresholds, tau),
        training_outcomes=training_outcomes,
        censoring=censoring,
        metrics=metrics,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        stratify=stratify,
        clusters=clusters,
        folds=folds,
        random_state=random_state,
    )


def _compared(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    y: pd.DataFrame,
    settings: Settings,
    known: Mapping[str, Task] | None = None,
    *,
    training_outcomes: Mapping[str, np.ndarray] | None,
    censoring: Mapping[str, np.ndarray] | None,
    metrics: Sequence[str] | None,
    n_resamples: int,
    confidence_level: float,
    stratify: bool,
    clusters: Any,
    random_state: Any,
    folds: Any = None,
) -> pd.DataFrame:
    folds, clusters = own_folds([first, second], folds, clusters)
    check_resampling(n_resamples, confidence_level, stratify, clusters)
    check_names(metrics)
    pair = paired(first, second, y)
    options: dict[str, Any] = {
        "reference": training_outcomes,
        "censoring": censoring,
        "clusters": clusters,
        "folds": folds,
    }
    ours, theirs = (list(cases(predictions, y, known=known, **options)) for predictions in pair)

    rows, found = [], set()
    for one, two in zip(ours, theirs, strict=True):
        weights = one.weights(n_resamples, stratify, random_state)
        others = {s.key: s for s in two.statistics(settings)}
        for statistic in one.statistics(settings):
            other = others.get(statistic.key)
            if other is None or not statistic.resampled:
                continue
            found.add(statistic.metric)
            if metrics is not None and statistic.metric not in metrics:
                continue
            (row, draws), note = noted(partial(_difference, statistic, other, weights, confidence_level))
            n, n_events = statistic.counted() if statistic.counted else (one.n, int(one.is_event.sum()))
            note = "; ".join(filter(None, [note, lost_resamples(draws), statistic.note]))
            rows.append((one.task.name, statistic.metric, statistic.horizon, *row, n, n_events, note))
    check_found(metrics, found, stacklevel=4)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    table.insert(9, "p_holm", holm_correction(table["p"]))
    return table


def _difference(
    one: Statistic, two: Statistic, weights: np.ndarray, confidence_level: float
) -> tuple[tuple, np.ndarray]:
    """The cells "first" to "test" of a row, and the differences in the resamples."""
    first, second = float(one.compute(None)), float(two.compute(None))
    low = high = p = float("nan")
    test, draws = "none", np.array([])
    if len(weights) and not np.isnan(first - second):
        draws = np.asarray(one.compute(weights)) - np.asarray(two.compute(weights))
        low, high = percentile_interval(draws, confidence_level)
        p, test = bootstrap_p_value(draws), "paired bootstrap"
    if one.binary is not None and two.binary is not None and not np.isnan(first - second):
        p, test = delong_test(*one.binary, two.binary[1])[2], "DeLong"
    return (first, second, first - second, low, high, p, test), draws
