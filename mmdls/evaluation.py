"""How good a model is, with intervals; whether one is better than another; and scorers for scikit-learn."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from mmdls import metrics
from mmdls.cohort import Task, check_target, class_labels, find_tasks, survival_target
from mmdls.metrics import holm_correction

__all__ = [
    "compare",
    "evaluate",
    "evaluate_predictions",
    "make_scorers",
    "predict_tasks",
    "resample_predictions",
    "training_outcomes",
]

_HORIZONS = (12, 36, 60)
_GRID_POINTS = 30
_EXTRAPOLATED = "the predicted curves of {n} patients end before {horizon:g} months."


def evaluate(
    model: Any,
    X: pd.DataFrame,
    y: pd.DataFrame,
    *,
    horizons: Sequence[float] = _HORIZONS,
    thresholds: Sequence[float] = (),
    n_resamples: int = 1000,
    level: float = 0.95,
    method: str = "percentile",
    stratify: bool = False,
    clusters: Any = None,
    outcomes: Mapping[str, np.ndarray] | None = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Evaluate a fitted model on a cohort: every metric of every task it answers, with intervals.

    Parameters
    ----------
    model : fitted estimator
        One of this library, of scikit-learn or of scikit-survival; may be the last step of a ``Pipeline`` or
        inside a search.
    X, y : pandas.DataFrame
        A cohort; patients of unknown outcome are left out task by task.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    thresholds, n_resamples, level, method, stratify, clusters, random_state
        As in :func:`evaluate_predictions`.
    outcomes : dict of str to structured array, default=None
        Training outcomes by endpoint, for the censoring distribution; None takes them from the model.

    Returns
    -------
    pandas.DataFrame
        Columns task, metric, horizon, value, low, high, n, n_events, note.

    Examples
    --------
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
    predictions = predict_tasks(model, X, y, horizons=horizons)
    known = {**training_outcomes(model), **(outcomes or {})}
    return evaluate_predictions(
        predictions,
        y,
        outcomes=known,
        horizons=horizons,
        thresholds=thresholds,
        n_resamples=n_resamples,
        level=level,
        method=method,
        stratify=stratify,
        clusters=clusters,
        random_state=random_state,
    )


def evaluate_predictions(
    predictions: Mapping[str, pd.DataFrame | pd.Series],
    y: pd.DataFrame,
    *,
    outcomes: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = _HORIZONS,
    thresholds: Sequence[float] = (),
    n_resamples: int = 1000,
    level: float = 0.95,
    method: str = "percentile",
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Evaluate predictions that are at hand, for example those of patients left out in cross-validation.

    Parameters
    ----------
    predictions : dict of str to DataFrame or Series
        By task, with the patients as index. A class task: a DataFrame of probabilities, one column a class.
        An endpoint: a Series of risks (higher = earlier event), or a DataFrame with a column ``risk`` and,
        for horizon metrics, one column of survival probabilities per time, whose name is the months (a
        number).
    y : pandas.DataFrame
        Outcomes of at least these patients.
    outcomes : dict of str to structured array, default=None
        Training outcomes by endpoint, for the censoring distribution and the Kaplan-Meier reference. An
        endpoint that is not given uses ``y`` itself, which suits out-of-fold predictions.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    thresholds : sequence of float, default=()
        Risks at which the net benefit of acting on the prediction, and of acting on all patients, is reported.
    n_resamples : int, default=1000
        Bootstrap resamples of patients; 0 gives no intervals.
    level : float, default=0.95
    method : {"percentile", "bca"}, default="percentile"
    stratify : bool, default=False
        Keep the number of events (of each class) in every resample.
    clusters : Series or array of shape (n_patients,), default=None
        Draw whole clusters, for example centres; rows as in ``y``.
    folds : Series or array of shape (n_patients,), default=None
        Which fold each patient was left out in; rows as in ``y``. Risks of different models have no common
        scale, so each metric is then computed inside every fold, and averaged by its number of patients.
    random_state : int or None, default=0

    Returns
    -------
    pandas.DataFrame
        One row a metric: task, metric, horizon (months or NaN), value, low, high, n, n_events (patients
        outside the first class for a class task), note. An undefined value is NaN and the note says why.

    Raises
    ------
    KeyError
        If ``y`` lacks a predicted task or patient.
    ValueError
        If predictions lack a class, or are not finite.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0, 8.0], "os_event": [1, 0, 1, 1]})
    >>> table = evaluate_predictions({"os": pd.Series([4.0, 3.0, 1.0, 2.0])}, y, horizons=(), n_resamples=0)
    >>> table[["task", "metric", "value"]].round(3)
      task                  metric  value
    0   os       concordance_index  0.750
    1   os  concordance_index_ipcw  0.571
    """
    rows = []
    for case in _cases(predictions, y, outcomes, clusters, folds):
        weights = case.weights(n_resamples, stratify, random_state)
        for statistic in case.statistics(horizons, thresholds):
            (value, low, high, draws), note = _noted(
                lambda s=statistic, w=weights, c=case: _interval(s, w, level, method, c)
            )
            n_lost = int(np.isnan(draws).sum())
            if n_lost and not np.isnan(value):
                note = "; ".join(filter(None, [note, f"undefined in {n_lost} of {len(draws)} resamples"]))
            rows.append(
                (
                    case.name,
                    statistic.metric,
                    statistic.horizon,
                    value,
                    low,
                    high,
                    case.n,
                    case.n_events,
                    note,
                )
            )
    columns = ["task", "metric", "horizon", "value", "low", "high", "n", "n_events", "note"]
    return pd.DataFrame(rows, columns=columns)


def resample_predictions(
    predictions: Mapping[str, pd.DataFrame | pd.Series],
    y: pd.DataFrame,
    *,
    outcomes: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = (),
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compute metrics in bootstrap resamples of the patients, for statistics of your own.

    Predictions for the same patients meet the same resamples, so a function of the draws of several models, such as a
    ratio of gains, has a paired interval: :func:`mmdls.metrics.percentile_interval` of that function of the draws.

    Parameters
    ----------
    predictions, y, outcomes, horizons, thresholds, n_resamples, stratify, clusters, folds, random_state
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
    rows = {}
    for case in _cases(predictions, y, outcomes, clusters, folds):
        weights = case.weights(n_resamples, stratify, random_state)
        for statistic in case.statistics(horizons, thresholds):
            if statistic.resampled and (metrics is None or statistic.metric in metrics):
                key = (case.name, statistic.metric, statistic.horizon)
                rows[key], _ = _noted(lambda s=statistic, w=weights: _draws(s, w))
    index = pd.MultiIndex.from_tuples(rows, names=["task", "metric", "horizon"])
    return pd.DataFrame(np.array(list(rows.values())), index=index, columns=["value", *range(n_resamples)])


def compare(
    first: Any,
    second: Any,
    y: pd.DataFrame,
    X: pd.DataFrame | None = None,
    *,
    outcomes: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = _HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    stratify: bool = False,
    clusters: Any = None,
    folds: Any = None,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compare two models on the same patients: differences, intervals, p-values.

    Both models meet the same resamples. The p-value of a binary AUC is DeLong's (without ``folds``), all others
    are those of the paired bootstrap; ``p_holm`` corrects for all rows of the table, so ask only for the
    metrics that were planned.

    Parameters
    ----------
    first, second : dict of predictions, or fitted estimators if X is given
        As in :func:`evaluate_predictions`; only tasks and patients that both know are compared.
    y : pandas.DataFrame
    X : pandas.DataFrame, default=None
    metrics : sequence of str, default=None
        Names as in the table of :func:`evaluate`; None means all.
    outcomes, horizons, thresholds, n_resamples, level, stratify, clusters, folds, random_state
        As in :func:`evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns task, metric, horizon, first, second, difference (first minus second), low, high, p, p_holm,
        test, n, n_events, note.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0, 8.0], "os_event": [1, 0, 1, 1]})
    >>> good, bad = pd.Series([4.0, 3.0, 1.0, 2.0]), pd.Series([1.0, 3.0, 4.0, 2.0])
    >>> compare({"os": good}, {"os": bad}, y, metrics=["concordance_index"], n_resamples=0)["difference"]
    0    0.5
    Name: difference, dtype: float64
    """
    if X is not None:
        outcomes = {**training_outcomes(first), **(outcomes or {})}
        first, second = (predict_tasks(model, X, y, horizons=horizons) for model in (first, second))
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError(f"no task is predicted by both: the first knows {list(first)}, the second {list(second)}.")
    pair = []
    for predictions, other in ((first, second), (second, first)):
        both = {name: predictions[name].loc[predictions[name].index.isin(other[name].index)] for name in shared}
        pair.append(both)
    pair[1] = {name: pair[1][name].loc[pair[0][name].index] for name in shared}
    rows = []
    for one, two in zip(*(_cases(both, y, outcomes, clusters, folds) for both in pair), strict=True):
        weights = one.weights(n_resamples, stratify, random_state)
        others = {s.key: s for s in two.statistics(horizons, thresholds)}
        for statistic in one.statistics(horizons, thresholds):
            other = others.get(statistic.key)
            if other is None or not statistic.resampled or (metrics is not None and statistic.metric not in metrics):
                continue
            row, note = _noted(lambda a=statistic, b=other, w=weights: _difference(a, b, w, level))
            rows.append((one.name, statistic.metric, statistic.horizon, *row, one.n, one.n_events, note))
    columns = [
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
    table = pd.DataFrame(rows, columns=columns)
    table.insert(9, "p_holm", holm_correction(table["p"]))
    return table


def predict_tasks(
    model: Any, X: pd.DataFrame, y: pd.DataFrame, *, horizons: Sequence[float] = _HORIZONS
) -> dict[str, pd.DataFrame]:
    """Predictions of a fitted model in the form that :func:`evaluate_predictions` reads.

    Parameters
    ----------
    model : fitted estimator
    X : pandas.DataFrame
    y : pandas.DataFrame
        Its columns say what a single-task model predicts.
    horizons : sequence of float, default=(12, 36, 60)
        Survival is read from the curves at these months and at 30 times up to the last of them.

    Returns
    -------
    dict of str to pandas.DataFrame
    """
    times = _grid(horizons)
    return {name: _predict_task(model, X, task, times) for name, task in _tasks_of(model, y).items()}


def training_outcomes(model: Any) -> dict[str, np.ndarray]:
    """Outcomes of the training rows by endpoint, from the fitted estimator inside pipelines and searches.

    Parameters
    ----------
    model : fitted estimator
    """
    final, _ = _final(model, None)
    return dict(getattr(final, "outcomes_", {}))


def make_scorers(
    y: pd.DataFrame, *, horizons: Sequence[float] = _HORIZONS
) -> dict[str, Callable[[Any, Any, Any], float]]:
    """Scorers for the tasks of ``y``, for ``scoring=`` of scikit-learn's ``cross_validate`` and searches.

    Higher is better for all: errors are negative, as in scikit-learn's ``neg_*`` scorers. An undefined score
    is NaN. The censoring distribution comes from the training outcomes that the fitted estimator carries
    (``outcomes_``), else from the rows that are scored.

    Parameters
    ----------
    y : pandas.DataFrame
        Outcomes, whose columns name the tasks.
    horizons : sequence of float, default=(12, 36, 60)
        Months of the time-dependent AUC; Brier scores are integrated up to the last.

    Returns
    -------
    dict of str to callable
        ``<task>_auc``, ``<task>_log_loss``, ``<task>_brier``, ``<task>_kappa`` (ordinal) for classes;
        ``<task>_cindex``, ``<task>_uno``, ``<task>_tauc`` (mean over horizons), ``<task>_ibs``,
        ``<task>_ipa`` for endpoints.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> sorted(make_scorers(y))
    ['os_cindex', 'os_ibs', 'os_ipa', 'os_tauc', 'os_uno', 'subtype_auc', 'subtype_brier', 'subtype_log_loss']
    """
    scorers: dict[str, Callable[[Any, Any, Any], float]] = {}
    for task in find_tasks(y).values():
        kinds = _SURVIVAL_SCORES if task.kind == "survival" else _CLASS_SCORES
        for name, (metric, sign) in kinds.items():
            if name != "kappa" or task.kind == "ordinal":
                scorers[f"{task.name}_{name}"] = Scorer(task, metric, sign, tuple(map(float, horizons)))
    return scorers


_CLASS_SCORES = {
    "auc": ("auc", 1),
    "log_loss": ("log_loss", -1),
    "brier": ("brier_score", -1),
    "kappa": ("quadratic_weighted_kappa", 1),
}
_SURVIVAL_SCORES = {
    "cindex": ("concordance_index", 1),
    "uno": ("concordance_index_ipcw", 1),
    "tauc": ("cumulative_dynamic_auc", 1),
    "ibs": ("integrated_brier_score", -1),
    "ipa": ("integrated_prediction_accuracy", 1),
}


@dataclass(frozen=True)
class Scorer:
    """One metric of one task as a callable ``(estimator, X, y) -> float``; see :func:`make_scorers`."""

    task: Task
    metric: str
    sign: int
    horizons: tuple[float, ...]

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score a fitted estimator; higher is better."""
        curves = self.metric not in ("concordance_index", "concordance_index_ipcw", "cumulative_dynamic_auc")
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(X))
        table = _predict_task(estimator, X, self.task, _grid(self.horizons) if curves else np.array([]))
        case = _case(
            self.task,
            table.set_axis(index),
            _as_table(y, self.task, index),
            training_outcomes(estimator),
            None,
        )
        values = [s.compute(None) for s in case.statistics(self.horizons) if s.metric == self.metric]
        return self.sign * float(np.mean(values)) if values else float("nan")


# -- what a model answers ---------------------------------------------------------------------------------------------


def _final(model: Any, X: Any) -> tuple[Any, Any]:
    """The estimator inside searches and pipelines, and X as it meets it (None stays None)."""
    if hasattr(model, "best_estimator_"):
        return _final(model.best_estimator_, X)
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            if X is not None and step is not None and step != "passthrough":
                X = step.transform(X)
        return _final(model.steps[-1][1], X)
    return model, X


def _tasks_of(model: Any, y: pd.DataFrame) -> dict[str, Task]:
    """The tasks of ``y`` that a model answers."""
    tasks = find_tasks(y)
    final, _ = _final(model, None)
    if isinstance(getattr(final, "tasks_", None), Mapping) and set(final.tasks_) & tasks.keys():
        return {name: task for name, task in final.tasks_.items() if name in tasks}
    endpoints = [name for name, task in tasks.items() if task.kind == "survival"]
    if hasattr(final, "classes_") and hasattr(final, "predict_proba"):
        fitting = [n for n, t in tasks.items() if t.classes and set(t.classes) <= set(np.ravel(final.classes_))]
    else:
        fitting = [name for name in getattr(final, "outcomes_", {}) if name in endpoints] or endpoints
    if len(fitting) != 1:
        raise ValueError(
            f"{type(final).__name__} predicts one task, and y offers {fitting or list(tasks)}; give y only the columns "
            "of the task that the model was fitted for."
        )
    return {fitting[0]: tasks[fitting[0]]}


def _predict_task(model: Any, X: Any, task: Task, times: np.ndarray) -> pd.DataFrame:
    """Class probabilities, or risk and survival at times."""
    index = X.index if isinstance(X, pd.DataFrame) else None
    final, X = _final(model, X)
    several = isinstance(getattr(final, "tasks_", None), Mapping) and task.name in final.tasks_
    several = several and isinstance(getattr(final, "classes_", None), Mapping | None)
    argument = (task.name,) if several else ()
    if task.kind != "survival":
        classes = final.classes_[task.name] if several else final.classes_
        return pd.DataFrame(final.predict_proba(X, *argument), index=index, columns=list(classes))
    risk = final.predict(X)
    if isinstance(risk, pd.DataFrame):
        risk = risk[task.name]
    table = pd.DataFrame({"risk": np.asarray(risk, dtype=np.float64)}, index=index)
    if not len(times) or not hasattr(final, "predict_survival_function"):
        return table
    functions = final.predict_survival_function(X, *argument)
    outcome = getattr(final, "outcomes_", {}).get(task.name)
    end = -np.inf if outcome is None else np.nanmax(outcome["time"])
    survival = np.stack([_values(function, times, end) for function in functions])
    return pd.concat([table, pd.DataFrame(survival, index=table.index, columns=times)], axis=1)


def _values(function: Any, times: np.ndarray, end: float) -> np.ndarray:
    """A step function at times: 1 before its first step, NaN beyond the follow-up it was learned from."""
    values = metrics.step_values(function.x, function(function.x), times)
    return np.where(times <= max(function.x[-1], end), values, np.nan)


def _grid(horizons: Sequence[float]) -> np.ndarray:
    if not len(horizons):
        return np.array([])
    return np.union1d(np.linspace(0, max(horizons), _GRID_POINTS + 1)[1:], np.asarray(horizons, dtype=np.float64))


def _as_table(y: Any, task: Task, index: pd.Index) -> pd.DataFrame:
    """Outcomes of one task as a table, from a table, a structured array or labels."""
    if isinstance(y, pd.DataFrame):
        return y[list(task.columns)].set_axis(index)
    if task.kind == "survival":
        outcome = survival_target(y)
        return pd.DataFrame({task.columns[0]: outcome["time"], task.columns[1]: outcome["event"]}, index=index)
    return pd.DataFrame({task.name: np.asarray(y)}, index=index)


# -- what is computed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statistic:
    """One metric of one task, as a function of patient weights; labels and scores if DeLong's test
    applies; not resampled if it is itself a p-value."""

    metric: str
    horizon: float
    compute: Callable[[Any], Any]
    binary: tuple[np.ndarray, np.ndarray] | None = None
    resampled: bool = True

    @property
    def key(self) -> tuple[str, str]:
        return self.metric, f"{self.horizon:g}"


@dataclass(frozen=True)
class _Endpoint:
    """The patients of known outcome of one endpoint, and what was predicted for them."""

    name: str
    outcome: np.ndarray
    training: np.ndarray
    risk: np.ndarray
    survival: pd.DataFrame
    clusters: np.ndarray | None

    @property
    def n(self) -> int:
        return len(self.outcome)

    @property
    def n_events(self) -> int:
        return int(self.outcome["event"].sum())

    def weights(self, n_resamples: int, stratify: bool, random_state: Any) -> np.ndarray:
        return _weights(self.n, n_resamples, self.outcome["event"] if stratify else None, self.clusters, random_state)

    def statistics(self, horizons: Sequence[float], thresholds: Sequence[float] = ()) -> Iterator[_Statistic]:
        event, time = self.outcome["event"], self.outcome["time"]
        train, test, risk = self.training, self.outcome, self.risk
        nowhere = float("nan")
        yield _Statistic("concordance_index", nowhere, lambda w: metrics.concordance_index(event, time, risk, w))
        yield _Statistic(
            "concordance_index_ipcw",
            nowhere,
            lambda w: metrics.concordance_index_ipcw(train, test, risk, None, w),
        )
        for h in map(float, horizons):
            yield _Statistic(
                "cumulative_dynamic_auc",
                h,
                lambda w, h=h: metrics.cumulative_dynamic_auc(train, test, risk, h, w),
            )
        for h in map(float, horizons):
            if h not in self.survival.columns:
                continue
            at = self.survival[h].to_numpy()
            errors = _Shared(lambda w, s=at, h=h: metrics.calibration_errors(event, time, s, h, w))
            for name, function in (
                ("brier_score", metrics.brier_score),
                ("index_of_prediction_accuracy", metrics.index_of_prediction_accuracy),
                ("calibration_slope", metrics.survival_calibration_slope),
            ):
                yield _Statistic(name, h, _guarded(at, h, lambda w, f=function, s=at, h=h: f(train, test, s, h, w)))
            yield _Statistic(
                "observed_expected_ratio",
                h,
                _guarded(at, h, lambda w, s=at, h=h: metrics.observed_expected_ratio(event, time, s, h, w)),
            )
            for k, name in enumerate(("calibration_ici", "calibration_e50", "calibration_e90")):
                yield _Statistic(name, h, _guarded(at, h, lambda w, e=errors, k=k: e(w)[k]))
            for threshold in thresholds:
                for name, predicted in (("net_benefit", at), ("net_benefit_of_all", np.zeros(self.n))):

                    def benefit(w: Any, s: np.ndarray = predicted, h: float = h, c: float = threshold) -> Any:
                        return metrics.net_benefit(train, test, s, h, c, w)

                    yield _Statistic(f"{name}_{threshold:g}", h, _guarded(at, h, benefit))
        whole = self.survival.loc[:, self.survival.notna().all()]
        if whole.shape[1] > 1:
            grid, values = whole.columns.to_numpy(dtype=np.float64), whole.to_numpy()
            yield _Statistic(
                "concordance_index_antolini",
                nowhere,
                lambda w: metrics.concordance_index_antolini(event, time, values, grid, w),
            )
            for name in ("integrated_brier_score", "integrated_prediction_accuracy"):
                function = getattr(metrics, name)

                def integrated(weights: Any, function: Any = function) -> Any:
                    if weights is None and whole.shape[1] < self.survival.shape[1]:
                        warnings.warn(f"integrated to {grid[-1]:g} months, where predicted curves end.", stacklevel=2)
                    return function(train, test, values, grid, weights)

                yield _Statistic(name, nowhere, integrated)
            yield _Statistic(
                "log_likelihood",
                nowhere,
                lambda w: metrics.censored_log_likelihood(event, time, values, grid, w),
            )
            yield _Statistic("d_calibration_p", nowhere, lambda w: self._d_calibration(grid, values), resampled=False)

    def _d_calibration(self, grid: np.ndarray, values: np.ndarray) -> float:
        """P-value of the test, with all outcomes beyond the last predicted time censored there."""
        time = np.minimum(self.outcome["time"], grid[-1])
        event = self.outcome["event"] & (self.outcome["time"] <= grid[-1])
        curves = np.column_stack([np.ones(self.n), values])
        own = np.array([np.interp(t, np.r_[0.0, grid], curve) for t, curve in zip(time, curves, strict=True)])
        return metrics.d_calibration(event, own)[1]


class _Shared:
    """A function of patient weights that several rows of a table share; keeps its latest answers and their warnings."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute, self.answers = compute, deque(maxlen=2)

    def __call__(self, weights: Any) -> Any:
        found = next((entry for entry in self.answers if entry[0] is weights), None)
        if found is None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = (weights, self.compute(weights), [w.message for w in caught])
            self.answers.append(found)
        for message in found[2]:
            warnings.warn(message, stacklevel=2)
        return found[1]


@dataclass(frozen=True)
class _Classes:
    """The patients of known label of one class task, and the probabilities that were predicted for them."""

    name: str
    ordinal: bool
    codes: np.ndarray
    probability: np.ndarray
    classes: tuple[Any, ...]
    clusters: np.ndarray | None

    @property
    def n(self) -> int:
        return len(self.codes)

    @property
    def n_events(self) -> int:
        return int((self.codes > 0).sum())

    def weights(self, n_resamples: int, stratify: bool, random_state: Any) -> np.ndarray:
        return _weights(self.n, n_resamples, self.codes if stratify else None, self.clusters, random_state)

    def statistics(self, horizons: Sequence[float], thresholds: Sequence[float] = ()) -> Iterator[_Statistic]:
        codes, probability = self.codes, self.probability
        two = len(self.classes) == 2
        binary = (codes, probability[:, 1]) if two else None

        def of(metric: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> _Statistic:
            return _Statistic(metric, float("nan"), lambda w: function(*arguments, weights=w), **options)

        yield of("auc", metrics.auc_score, codes, probability, binary=binary)
        if not two:
            for k, label in enumerate(self.classes):
                own = (codes == k).astype(np.int64), probability[:, k]
                yield of(f"auc_{label}", metrics.auc_score, *own, binary=own)
        yield of("average_precision", metrics.average_precision_score, codes, probability)
        yield of("accuracy", metrics.accuracy_score, codes, probability)
        if two:
            yield of("sensitivity", metrics.sensitivity, codes, probability, 0.5)
            yield of("specificity", metrics.specificity, codes, probability, 0.5)
            yield of("negative_predictive_value", metrics.negative_predictive_value, codes, probability, 0.5)
        if self.ordinal:
            predicted = probability.argmax(axis=1)
            yield of(
                "quadratic_weighted_kappa",
                metrics.quadratic_weighted_kappa,
                codes,
                predicted,
                len(self.classes),
            )
        yield of("brier_score", metrics.brier_score_classes, codes, probability)
        yield of("log_loss", metrics.log_loss, codes, probability)
        yield of("expected_calibration_error", metrics.expected_calibration_error, codes, probability, 10)
        if two:
            yield of("calibration_slope", metrics.calibration_slope, codes, probability)
            yield of("calibration_intercept", metrics.calibration_intercept, codes, probability)


@dataclass(frozen=True)
class _Folds:
    """Patients whom several models predicted, one model a fold: every metric is a mean over folds."""

    whole: Any
    parts: list[Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def statistics(self, horizons: Sequence[float], thresholds: Sequence[float] = ()) -> Iterator[_Statistic]:
        inside = [{s.key: s for s in part.statistics(horizons, thresholds)} for part in self.parts]
        for statistic in self.whole.statistics(horizons, thresholds):
            if statistic.resampled:
                found = [(part, known[statistic.key]) for part, known in zip(self.parts, inside, strict=True)]
                statistic = replace(statistic, compute=lambda w, f=found: self._mean(f, w), binary=None)
            yield statistic

    @staticmethod
    def _mean(found: list[tuple[Any, _Statistic]], weights: Any) -> Any:
        values, shares, start = [], [], 0
        for part, statistic in found:
            own = None if weights is None else weights[:, start : start + part.n]
            value = np.asarray(statistic.compute(own), dtype=np.float64)
            values.append(np.nan_to_num(value))
            shares.append(part.n * ~np.isnan(value))
            start += part.n
        total = np.sum(shares, axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.sum(np.multiply(values, shares), axis=0) / total
        return float(mean) if weights is None else mean


def _cases(predictions: Mapping[str, Any], y: pd.DataFrame, outcomes: Any, clusters: Any, folds: Any) -> Iterator[Any]:
    tasks = check_target(y, list(predictions))
    if clusters is not None:
        clusters = pd.Series(np.asarray(clusters), index=y.index)
    if folds is not None:
        folds = pd.Series(np.asarray(folds), index=y.index)
    for name, table in predictions.items():
        unknown = table.index.difference(y.index)
        if len(unknown):
            raise KeyError(
                f"y lacks {len(unknown)} of the patients predicted for {name!r}, such as {list(unknown[:3])}."
            )

        def case(table: Any, name: str = name) -> Any:
            return _case(tasks[name], table, y.loc[table.index], outcomes or {}, clusters, y)

        if folds is None:
            yield case(table)
        else:
            table = table.loc[folds.loc[table.index].sort_values(kind="stable").index]
            parts = [case(part) for _, part in table.groupby(folds.loc[table.index], sort=True)]
            yield _Folds(case(table), [part for part in parts if part.n])


def _case(task: Task, table: Any, y: pd.DataFrame, outcomes: Any, clusters: Any, cohort: Any = None) -> Any:
    chosen = None if clusters is None else clusters.loc[table.index].to_numpy()
    if task.kind != "survival":
        held = set(class_labels(y[task.name].astype(object)))
        # A class that neither the model knows nor a patient has leaves no gap in the order.
        classes = tuple(c for c in task.classes if c in table.columns or c in held) or tuple(table.columns)
        known = y[task.name].notna().to_numpy()
        columns = tuple(table.columns) if set(classes) <= set(table.columns) else None
        if columns is None:
            raise ValueError(
                f"predictions of {task.name!r} need one column of probabilities a class, {list(classes)}; they have "
                f"{list(table.columns)}."
            )
        # Classes that the model knows and y does not stay, in the model's order, unless y orders them.
        columns = (*classes, *[c for c in columns if c not in classes]) if task.kind == "ordinal" else columns
        codes = pd.Index(columns).get_indexer(np.asarray(y[task.name])[known])
        return _Classes(
            task.name,
            task.kind == "ordinal",
            codes,
            table.loc[known, list(columns)].to_numpy(np.float64),
            columns,
            None if chosen is None else chosen[known],
        )
    outcome = survival_target(y, task.name)
    known = ~np.isnan(outcome["time"])
    training = outcomes.get(task.name)
    if training is None:
        training = outcome if cohort is None else survival_target(cohort, task.name)
    if isinstance(table, pd.Series):
        table = table.to_frame("risk")
    if "risk" not in table.columns:
        raise ValueError(f"predictions of {task.name!r} need a column 'risk'; they have {list(table.columns)}.")
    numbers = sorted(c for c in table.columns if isinstance(c, int | float | np.number))
    return _Endpoint(
        task.name,
        outcome[known],
        training[~np.isnan(training["time"])],
        table.loc[known, "risk"].to_numpy(np.float64),
        table.loc[known, numbers].set_axis([float(c) for c in numbers], axis=1),
        None if chosen is None else chosen[known],
    )


def _weights(n: int, n_resamples: int, strata: Any, clusters: Any, random_state: Any) -> np.ndarray:
    return metrics.bootstrap_weights(
        n,
        n_resamples,
        strata=None if clusters is not None else strata,
        clusters=clusters,
        random_state=random_state,
    )


def _guarded(survival: np.ndarray, horizon: float, compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """NaN with a reason where a patient's curve ends before the horizon."""
    n_short = int(np.isnan(survival).sum())
    if not n_short:
        return compute

    def undefined(weights: Any) -> Any:
        if weights is not None:
            return np.full(len(weights), np.nan)
        warnings.warn(_EXTRAPOLATED.format(n=n_short, horizon=horizon), metrics.UndefinedMetricWarning, stacklevel=2)
        return float("nan")

    return undefined


def _interval(statistic: _Statistic, weights: np.ndarray, level: float, method: str, case: Any) -> tuple:
    if not len(weights) or not statistic.resampled:
        return float(statistic.compute(None)), float("nan"), float("nan"), np.array([])
    return metrics.bootstrap_interval(statistic.compute, weights, level=level, method=method, clusters=case.clusters)


def _draws(statistic: _Statistic, weights: np.ndarray) -> list[float]:
    """The value, and those of the resamples."""
    return [float(statistic.compute(None)), *(np.asarray(statistic.compute(weights)) if len(weights) else ())]


def _difference(one: _Statistic, two: _Statistic, weights: np.ndarray, level: float) -> tuple:
    first, second = float(one.compute(None)), float(two.compute(None))
    low = high = p = float("nan")
    test = "none"
    if len(weights) and not np.isnan(first - second):
        draws = np.asarray(one.compute(weights)) - np.asarray(two.compute(weights))
        low, high = metrics.percentile_interval(draws, level)
        p, test = metrics.bootstrap_p_value(draws), "paired bootstrap"
    if one.binary is not None and two.binary is not None and not np.isnan(first - second):
        p, test = metrics.delong_test(*one.binary, two.binary[1])[2], "DeLong"
    return first, second, first - second, low, high, p, test


def _noted(compute: Callable[[], Any]) -> tuple[Any, str]:
    """The result, and the warnings on the way to it as a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compute()
    return result, "; ".join(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))
