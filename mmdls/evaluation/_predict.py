"""Predictions of fitted models by task.

A model of this library has the method ``predict_tasks(X, times)``, which returns one table a task, and the attributes
``tasks_`` and, of its endpoints, ``training_outcomes_`` and ``risk_cutpoints_``. What other libraries have instead is
read in :mod:`._adapters`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmdls.cohort import Task, find_tasks, survival_target
from mmdls.evaluation._adapters import inner_model, predict_one_task

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
        One of this library, of scikit-learn (a classifier or a regressor) or of scikit-survival; may be frozen, the
        last step of a ``Pipeline`` or inside a search. A model of another package needs an attribute ``tasks_`` and a
        method ``predict_tasks(X, times)`` with the same result as this function.
    X : pandas.DataFrame of shape (n_patients, n_columns)
    y : pandas.DataFrame
        Its columns name the task of a model that predicts one task and does not know the columns that hold it.
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

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> model = ClinicalCox(endpoint="os").fit(X[:60], y[:60])
    >>> predicted = predict_tasks(model, X[60:], y[60:], horizons=[12, 36])
    >>> predicted["os"][["risk", 12.0, 36.0]].shape
    (20, 3)
    """
    return answers(model, X, find_tasks(y), time_grid(check_horizons(horizons))).tables


def training_outcomes(model: Any, tasks: Iterable[Task] = ()) -> dict[str, np.ndarray]:
    """Outcomes of the training rows by endpoint, from the fitted estimator inside pipelines and searches.

    Parameters
    ----------
    model : fitted estimator
    tasks : iterable of Task, default=()
        Tasks that the model predicts. They give the endpoint its name if the model was fitted on an array.

    Returns
    -------
    dict of str to structured ndarray of shape (n_rows,)
        Empty for a model that does not keep them, such as those of scikit-survival.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> outcomes = training_outcomes(ClinicalCox(endpoint="os").fit(X, y))
    >>> outcomes["os"].shape, outcomes["os"].dtype.names
    ((80,), ('event', 'time'))
    """
    final, _ = inner_model(model)
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

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> risk_cutpoints(ClinicalCox(endpoint="os").fit(X, y))["os"].shape  # between three groups
    (2,)
    """
    final, _ = inner_model(model)
    return dict(getattr(final, "risk_cutpoints_", {}))


class Answers(NamedTuple):
    """What a model predicts, by task, and the outcomes of its training rows, by endpoint."""

    tasks: dict[str, Task]
    tables: dict[str, pd.DataFrame]
    training_outcomes: dict[str, np.ndarray]


def answers(model: Any, X: Any, tasks: Mapping[str, Task], times: np.ndarray) -> Answers:
    """What a model predicts of the given tasks."""
    index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(X))
    final, X = inner_model(model, X)
    if hasattr(final, "predict_tasks"):
        tables = final.predict_tasks(X, times)
        own = [(task, tables[name]) for name, task in final.tasks_.items() if name in tables]
    else:
        own = [predict_one_task(final, X, times)]
    found = [(task, table) for task, table in own if task.columns and task.name in tasks]
    if not found and len(own) == 1:
        ((task, table),) = own
        found = [(_task_in(tasks, task, type(final).__name__), table)]
    if not found:
        raise ValueError(
            f"the model predicts {[task.name for task, _ in own]}, and y has {list(tasks)}; no task is in both."
        )
    return Answers(
        {task.name: task for task, _ in found},
        {task.name: table.set_axis(index) for task, table in found},
        training_outcomes(final, [task for task, _ in found]),
    )


def predict_task(model: Any, X: Any, task: Task, times: np.ndarray) -> tuple[Task, pd.DataFrame]:
    """One task of a model, with the classes of the model, and its table."""
    found = answers(model, X, {task.name: task}, times)
    return found.tasks[task.name], found.tables[task.name]


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


def _task_in(tasks: Mapping[str, Task], own: Task, model: str) -> Task:
    """Which of some tasks the only task of a model is: the only one of its kind and, of classes, with its classes.

    The order of classes is that of the model, if it knows one.
    """
    fitting = [task for task in tasks.values() if task.estimator_type == own.estimator_type]
    if own.has_classes:
        classes = set(own.classes)
        fitting = [task for task in fitting if classes >= set(task.classes) or classes <= set(task.classes)]
    if len(fitting) != 1:
        what = _ANSWERS.get(str(own.estimator_type), "one value")
        what = f"a label with the classes {list(own.classes)}" if own.has_classes else what
        labels = {task.name: list(task.classes) for task in tasks.values() if task.has_classes}
        held = f", where the labels are {labels}" if own.has_classes and labels and not fitting else ""
        raise ValueError(
            f"{model} predicts one task, {what}, and y offers {[task.name for task in fitting] or list(tasks)}{held}; "
            "give y only the columns of the task that the model was fitted for, with its labels."
        )
    return replace(fitting[0], classes=own.classes) if own.is_ordered else fitting[0]
