"""All metrics of all tasks, with intervals."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task
from mmdls.evaluation._cases import cases, known_tasks
from mmdls.evaluation._checks import check_found, check_names, check_resampling, settings_of, warn_of_late_horizons
from mmdls.evaluation._out_of_fold import own_folds
from mmdls.evaluation._predict import HORIZONS, answers, check_horizons, time_grid
from mmdls.evaluation._resample import lost_resamples
from mmdls.metrics import bootstrap_interval
from mmdls.tasks import Settings, Statistic
from mmdls.tasks._case import noted

__all__ = ["evaluate", "evaluate_predictions"]


def evaluate(
    model: Any,
    X: pd.DataFrame,
    y: pd.DataFrame,
    *,
    horizons: Sequence[float] = HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    method: str = "percentile",
    stratify: bool = False,
    clusters: Any = None,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    tau: float | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Evaluate a fitted model on a cohort: all metrics of all tasks that it predicts, with intervals.

    Parameters
    ----------
    model : fitted estimator
        One of this library, of scikit-learn or of scikit-survival; may be the last step of a ``Pipeline`` or
        inside a search.
    X, y : pandas.DataFrame
        A cohort. Patients without a known outcome are left out task by task; a task without any known outcome is left
        out. Rows are joined by patient id.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    thresholds, metrics, n_resamples, confidence_level, method, stratify, clusters, censoring, tau, random_state
        As in :func:`evaluate_predictions`.
    training_outcomes : dict of str to structured array of shape (n_rows,), default=None
        By endpoint; their Kaplan-Meier curve is the reference of the index of prediction accuracy.
        None takes them from the model.

    Returns
    -------
    pandas.DataFrame
        Columns task, metric, horizon, value, low, high, n, n_events, note.

    Examples
    --------
    >>> from mmdls.cohort import survival_target
    >>> from sksurv.linear_model import CoxPHSurvivalAnalysis
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"clinical_age": rng.normal(size=90)})
    >>> y = pd.DataFrame({"os_time": rng.exponential(30 * np.exp(-X["clinical_age"])), "os_event": 1})
    >>> model = CoxPHSurvivalAnalysis(ties="efron").fit(X, survival_target(y))
    >>> evaluate(model, X, y, horizons=(12,), n_resamples=100)[["metric", "horizon"]].head(3)
                       metric  horizon
    0       concordance_index      NaN
    1  concordance_index_ipcw      NaN
    2  cumulative_dynamic_auc     12.0
    """
    predicted = answers(model, X, known_tasks(y), time_grid(check_horizons(horizons)))
    warn_of_late_horizons(horizons, y)
    return _evaluated(
        predicted.tables,
        y,
        settings_of(horizons, thresholds, tau),
        predicted.tasks,
        metrics=metrics,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        method=method,
        stratify=stratify,
        clusters=clusters,
        training_outcomes={**predicted.training_outcomes, **(training_outcomes or {})},
        censoring=censoring,
        random_state=random_state,
    )


def evaluate_predictions(
    predictions: Mapping[str, pd.DataFrame | pd.Series],
    y: pd.DataFrame,
    *,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    method: str = "percentile",
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    tau: float | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Evaluate predictions, for example the out-of-fold predictions of a cross-validation.

    Parameters
    ----------
    predictions : dict of str to DataFrame or Series
        By task, with the patients as index, one row a patient. A class task: a DataFrame of probabilities, one column
        a class, in any order. An endpoint: a Series of risks (higher = earlier event), or a DataFrame with a column
        ``risk`` and, for horizon metrics, one column of survival probabilities per time, whose name is the months (a
        number, or its text as a CSV file has it). Competing risks: a column ``risk_<cause>`` for every cause from 1
        (higher = more likely or earlier event of this cause) and, for horizon metrics, columns
        ``incidence_<cause>_<months>`` of cumulative incidences, such as ``incidence_1_36``. A number: a Series, or a
        DataFrame with the column ``value``. The result of :func:`mmdls.cross_predict` is such a dict, and brings its
        folds, and its groups as clusters.
    y : pandas.DataFrame
        Outcomes of at least these patients.
    training_outcomes : dict of str to structured array of shape (n_rows,), default=None
        By endpoint; their Kaplan-Meier curve is the reference of the index of prediction accuracy.
        For an endpoint that is not given the reference is the curve of the scored patients, as suits out-of-fold
        predictions.
    censoring : dict of str to structured array of shape (n_rows,), default=None
        Outcomes of the patients, by endpoint, on whom the censoring weights are estimated. None means the scored
        patients; with ``folds`` those of the fold, or of all folds if a fold has fewer than 50 patients.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    thresholds : sequence of float, default=()
        Risk thresholds at which the net benefit of the model, and of treating all patients, is reported.
    metrics : sequence of str, default=None
        Names as in the table; only these are computed. None means all.
    n_resamples : int, default=1000
        Bootstrap resamples of patients; 0 gives no intervals.
    confidence_level : float, default=0.95
    method : {"percentile", "bca"}, default="percentile"
        Calibration errors have :func:`mmdls.metrics.distance_interval` with both.
    stratify : bool, default=False
        Keep the number of events (of each class) in every resample; not together with ``clusters``.
    clusters : Series or array of shape (n_patients,), default=None
        Draw whole clusters, for example centres. A Series is joined by patient id, an array has the rows of ``y``.
    folds : Series or array of shape (n_patients,), default=None
        The fold in which each patient was left out. A Series is joined by patient id, an array has the rows of ``y``.
        Risks of different models are not on one scale, so each metric is computed within folds and averaged over the
        folds in which it is defined, weighted by their number of patients. Calibration errors pool the folds, and the
        slope is one for all folds with an intercept for each: a fold is too small for either.
    tau : float, default=None
        Uno's C counts events before this time (months); None means up to the last time with censoring weights.
    random_state : int or None, default=0

    Returns
    -------
    pandas.DataFrame
        One row a metric: task, metric, horizon (months or NaN), value, low, high, n (patients in the value), n_events
        (events among them; for classes the patients outside the first class), note. An undefined value is NaN, and the
        note gives the reason.

    Raises
    ------
    KeyError
        If ``y`` lacks a predicted task or patient.
    ValueError
        If predictions lack a class, are not probabilities, or hold a patient twice, or if ``metrics`` names no metric
        that is computed.

    Warns
    -----
    UserWarning
        If some of ``metrics`` are computed for no task.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0, 8.0], "os_event": [1, 0, 1, 1]})
    >>> table = evaluate_predictions({"os": pd.Series([4.0, 3.0, 1.0, 2.0])}, y, horizons=(), n_resamples=0)
    >>> table[["task", "metric", "value"]].round(3)
      task                  metric  value
    0   os       concordance_index  0.750
    1   os  concordance_index_ipcw  0.571
    """
    folds, clusters = own_folds([predictions], folds, clusters)
    return _evaluated(
        predictions,
        y,
        settings_of(horizons, thresholds, tau),
        metrics=metrics,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        method=method,
        stratify=stratify,
        clusters=clusters,
        folds=folds,
        training_outcomes=training_outcomes,
        censoring=censoring,
        random_state=random_state,
    )


def _evaluated(
    predictions: Mapping[str, Any],
    y: pd.DataFrame,
    settings: Settings,
    known: Mapping[str, Task] | None = None,
    *,
    metrics: Sequence[str] | None,
    n_resamples: int,
    confidence_level: float,
    method: str,
    stratify: bool,
    clusters: Any,
    training_outcomes: Mapping[str, np.ndarray] | None,
    censoring: Mapping[str, np.ndarray] | None,
    random_state: Any,
    folds: Any = None,
) -> pd.DataFrame:
    check_resampling(n_resamples, confidence_level, stratify, clusters)
    check_names(metrics)
    rows, found = [], set()
    for case in cases(
        predictions, y, reference=training_outcomes, censoring=censoring, clusters=clusters, folds=folds, known=known
    ):
        weights = case.weights(n_resamples, stratify, random_state)
        for statistic in case.statistics(settings):
            found.add(statistic.metric)
            if metrics is not None and statistic.metric not in metrics:
                continue
            (value, low, high, draws), note = noted(
                partial(_interval, statistic, weights, confidence_level, method, case.clusters)
            )
            lost = "" if np.isnan(value) else lost_resamples(draws)
            note = "; ".join(filter(None, [note, lost, statistic.note]))
            n, n_events = statistic.counted() if statistic.counted else (case.n, int(case.is_event.sum()))
            rows.append((case.task.name, statistic.metric, statistic.horizon, value, low, high, n, n_events, note))
    check_found(metrics, found, stacklevel=4)
    columns = ["task", "metric", "horizon", "value", "low", "high", "n", "n_events", "note"]
    return pd.DataFrame(rows, columns=columns)


def _interval(statistic: Statistic, weights: np.ndarray, confidence_level: float, method: str, clusters: Any) -> tuple:
    if not len(weights) or not statistic.resampled:
        return float(statistic.compute(None)), float("nan"), float("nan"), np.array([])
    method = "distance" if statistic.is_distance else method
    return bootstrap_interval(
        statistic.compute, weights, confidence_level=confidence_level, method=method, clusters=clusters
    )
