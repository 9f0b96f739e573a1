"""Predictions of fitted models by task: the only place where models of this and other libraries are read.

A model of this library has the method ``predict_tasks(X, times)``, which returns one table a task, and the attribute
``training_outcomes_``, the training outcomes of its endpoints. Models of scikit-learn and scikit-survival predict
one task without a name and are adapted here. Pipelines, searches and frozen models are opened to find the model inside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sksurv.base import SurvivalAnalysisMixin

from mmdls import metrics
from mmdls.cohort import Task, find_tasks, survival_target
from mmdls.cohort._classes import plain_value

__all__ = [
    "HORIZONS",
    "check_horizons",
    "outcome_of",
    "predict_task",
    "predict_tasks",
    "risk_cutpoints",
    "training_outcomes",
]

HORIZONS = (12, 36, 60)
_GRID_POINTS = 30
_ANSWERS = {"survival": "an endpoint", "regressor": "a number '<name>_value'"}


def predict_tasks(
    model: Any, X: pd.DataFrame, y: pd.DataFrame, *, horizons: Sequence[float] = HORIZONS
) -> dict[str, pd.DataFrame]:
    """Predictions of a fitted model in the form that :func:`evaluate_predictions` reads.

    Parameters
    ----------
    model : fitted estimator
        One of this library, of scikit-learn (a classifier) or of scikit-survival; may be frozen, the last step of a
        ``Pipeline`` or inside a search. A model of another package needs an attribute ``tasks_`` and a method
        ``predict_tasks(X, times)`` with the same result as this function.
    X : pandas.DataFrame of shape (n_patients, n_columns)
    y : pandas.DataFrame
        Its columns name the task of a model that predicts one task without a name.
    horizons : sequence of float, default=(12, 36, 60)
        Months. Survival is evaluated at them and at 30 times up to the last.

    Returns
    -------
    dict of str to pandas.DataFrame
        By task, one row a patient. A class task: probabilities, one column a class. An endpoint: ``risk`` (higher =
        earlier event), and one column of survival probabilities per time (months), NaN beyond the training follow-up.

    Raises
    ------
    ValueError
        If it is not clear which task of ``y`` a model without names of tasks was fitted for.
    """
    known = find_tasks(y)
    return {task.name: table for task, table in answers(model, X, known, time_grid(check_horizons(horizons)))}


def training_outcomes(model: Any, tasks: Iterable[Task] = ()) -> dict[str, np.ndarray]:
    """Outcomes of the training rows by endpoint, from the fitted estimator inside pipelines and searches.

    Parameters
    ----------
    model : fitted estimator
    tasks : iterable of Task, default=()
        Tasks that the model predicts. They give the endpoint its name if the model was fitted on an array.

    Returns
    -------
    dict of str to structured ndarray
        Empty for a model that does not keep them, such as those of scikit-survival.
    """
    final, _ = _final(model, None)
    outcomes = dict(getattr(final, "training_outcomes_", {}))
    names = [task.name for task in tasks if task.is_censored]
    if len(outcomes) == len(names) == 1:
        return dict(zip(names, outcomes.values(), strict=True))
    return outcomes


def risk_cutpoints(model: Any) -> dict[str, np.ndarray]:
    """Cut-points of the risk groups by endpoint, from the fitted estimator inside pipelines and searches.

    Parameters
    ----------
    model : fitted estimator

    Returns
    -------
    dict of str to ndarray of shape (n_groups - 1,)
        Empty for a model without risk groups.
    """
    final, _ = _final(model, None)
    return dict(getattr(final, "risk_cutpoints_", {}))


def answers(model: Any, X: Any, tasks: Mapping[str, Task], times: np.ndarray) -> list[tuple[Task, pd.DataFrame]]:
    """The tasks that a model predicts among the given ones, with the classes of the model, and its tables."""
    index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(X))
    final, X = _final(model, X)
    # A classifier knows its classes, but not under which name y holds them.
    if isinstance(getattr(final, "tasks_", None), Mapping) and not is_classifier(final):
        return [(task, table.set_axis(index)) for task, table in _own_answers(final, X, tasks, times)]
    answered_by = _estimator_type(final)
    if answered_by == "classifier":
        classes = [plain_value(value) for value in np.ravel(final.classes_)]
        columns = pd.Index(classes, dtype=object)
        task = _task_of(final, tasks, answered_by, classes)
        return [(task, pd.DataFrame(final.predict_proba(X), index=index, columns=columns))]
    task = _task_of(final, tasks, answered_by)
    if answered_by == "regressor":
        return [(task, pd.DataFrame({"value": np.ravel(final.predict(X))}, index=index))]
    return [(task, _survival_table(final, X, times, training_outcomes(final, [task]).get(task.name)).set_axis(index))]


def _estimator_type(model: Any) -> str:
    """Kind of estimator: "classifier", "regressor" or "survival".

    Raises
    ------
    TypeError
        If the model predicts nothing that can be evaluated.
    """
    if is_classifier(model) and hasattr(model, "predict_proba"):
        return "classifier"
    if hasattr(model, "classes_"):
        raise TypeError(
            f"{type(model).__name__} is a classifier without predict_proba; evaluation needs probabilities. Choose one "
            "that gives them, for example by wrapping it in sklearn.calibration.CalibratedClassifierCV."
        )
    if hasattr(model, "transform") and not hasattr(model, "predict"):
        raise TypeError(
            f"{type(model).__name__} transforms X and predicts nothing; evaluate the model that reads its columns."
        )
    # IPCRidge of scikit-survival is a regressor of the time too.
    return "regressor" if is_regressor(model) and not isinstance(model, SurvivalAnalysisMixin) else "survival"


def predict_task(model: Any, X: Any, task: Task, times: np.ndarray) -> tuple[Task, pd.DataFrame]:
    """One task of a model, with the classes of the model, and its table."""
    ((task, table),) = answers(model, X, {task.name: task}, times)
    return task, table


def check_horizons(horizons: Any, name: str = "horizons") -> tuple[float, ...]:
    """Months above 0, as floats, each once.

    Raises
    ------
    TypeError
        If it is no sequence.
    ValueError
        If a value is not finite, or 0 or less.
    """
    if isinstance(horizons, str | bytes) or np.ndim(horizons) != 1:
        raise TypeError(f"{name} must be a sequence of months, such as {name}=(12, 36); got {horizons!r}.")
    values = tuple(dict.fromkeys(float(h) for h in horizons))
    if not all(np.isfinite(h) and h > 0 for h in values):
        raise ValueError(f"{name} must be finite months above 0; got {list(horizons)}.")
    return values


def time_grid(horizons: Sequence[float]) -> np.ndarray:
    """The horizons and 30 times up to the last of them, for metrics of whole curves."""
    if not len(horizons):
        return np.array([])
    return np.union1d(np.linspace(0, max(horizons), _GRID_POINTS + 1)[1:], np.asarray(horizons, dtype=np.float64))


def outcome_of(y: Any, task: Task, index: pd.Index) -> pd.DataFrame:
    """Outcomes of one task as a table, from a table, a structured array or labels without ids."""
    if isinstance(y, pd.DataFrame):
        return y[list(task.columns)]
    if isinstance(y, pd.Series):
        return y.to_frame(task.columns[0])
    if task.estimator_type == "survival":
        outcome = survival_target(y)
        return pd.DataFrame({task.columns[0]: outcome["time"], task.columns[1]: outcome["event"]}, index=index)
    return pd.DataFrame({task.columns[0]: np.asarray(y)}, index=index)


def _final(model: Any, X: Any) -> tuple[Any, Any]:
    """The estimator inside searches, pipelines and frozen models, and X after the transformers (None stays None)."""
    if isinstance(model, FrozenEstimator):
        return _final(model.estimator, X)
    if hasattr(model, "best_estimator_"):
        return _final(model.best_estimator_, X)
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            if X is not None and step is not None and step != "passthrough":
                X = step.transform(X)
        return _final(model.steps[-1][1], X)
    return model, X


def _own_answers(model: Any, X: Any, tasks: Mapping[str, Task], times: np.ndarray) -> list[tuple[Task, pd.DataFrame]]:
    """Predictions of a model with ``predict_tasks`` for these tasks."""
    tables = model.predict_tasks(X, times)
    own = {name: task for name, task in model.tasks_.items() if name in tables}
    shared = [name for name in own if name in tasks]
    if shared:
        return [(own[name], tables[name]) for name in shared]
    if len(own) != 1:
        raise ValueError(f"the model predicts {list(own)}, and y has {list(tasks)}; no task is in both.")
    # One task without its name, for example because y was an array in fit.
    ((name, task),) = own.items()
    found = _task_of(model, tasks, task.estimator_type, task.classes)
    return [(replace(found, classes=task.classes), tables[name])]


def _survival_table(model: Any, X: Any, times: np.ndarray, outcome: np.ndarray | None) -> pd.DataFrame:
    """A model of one endpoint with the methods of scikit-survival."""
    risk = np.asarray(model.predict(X), dtype=np.float64)
    if not getattr(model, "_predict_risk_score", True):
        risk = -risk  # so scikit-survival marks models that predict a time
    curves = len(times) and hasattr(model, "predict_survival_function")
    return _risk_and_curves(risk, model.predict_survival_function(X) if curves else None, times, outcome)


def _risk_and_curves(risk: np.ndarray, functions: Any, times: np.ndarray, outcome: np.ndarray | None) -> pd.DataFrame:
    table = pd.DataFrame({"risk": risk})
    if functions is None:
        return table
    end = -np.inf if outcome is None else np.nanmax(outcome["time"])
    survival = np.stack([_values(function, times, end) for function in functions])
    return pd.concat([table, pd.DataFrame(survival, columns=times)], axis=1)


def _values(function: Any, times: np.ndarray, end: float) -> np.ndarray:
    """A step function at times: 1 before its first step, NaN beyond the follow-up it was learned from."""
    values = metrics.step_values(function.x, function(function.x), times)
    return np.where(times <= max(function.x[-1], end), values, np.nan)


def _task_of(model: Any, tasks: Mapping[str, Task], kind: str | None, classes: Sequence[Any] = ()) -> Task:
    """The task that a model of one task was fitted for: the only one of y of such a kind, and with such classes."""
    fitting = [name for name, task in tasks.items() if task.estimator_type == kind]
    if classes:
        labels = set(classes)
        fitting = [n for n in fitting if labels >= set(tasks[n].classes) or labels <= set(tasks[n].classes)]
    fitting = [name for name in training_outcomes(model) if name in fitting] or fitting
    if len(fitting) != 1:
        what = f"a label with the classes {list(classes)}" if classes else _ANSWERS.get(str(kind), "one value")
        raise ValueError(
            f"{type(model).__name__} predicts one task, {what}, and y offers {fitting or list(tasks)}; give y only the "
            "columns of the task that the model was fitted for."
        )
    return tasks[fitting[0]]
