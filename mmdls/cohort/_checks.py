"""Checks that every cohort passes before it is used for fitting, scoring or plotting."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._alignment import align_rows, check_columns_once, check_unique, refuse_other_tables
from mmdls.cohort._endpoints import shortened
from mmdls.cohort._leaks import refuse_copies, refuse_outcome_names
from mmdls.cohort._mistaken import check_labels, endpoints_under_other_names, is_outcome_name
from mmdls.cohort._schema import find_tasks
from mmdls.cohort._task import Task

__all__ = ["check_cohort", "check_features", "check_target", "survival_target"]


def check_features(X: pd.DataFrame) -> pd.DataFrame:
    """Refuse an invalid table of patients: duplicate patients or columns, no rows, outcomes among the features.

    Parameters
    ----------
    X : pandas.DataFrame
        One row a patient.

    Returns
    -------
    pandas.DataFrame
        ``X`` itself, unchanged.

    Raises
    ------
    TypeError
        If ``X`` is no DataFrame.
    ValueError
        Otherwise; the message names rows or columns.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70], "os_time": [3.0, 9.0]}, index=["P1", "P2"])
    >>> check_features(X)
    Traceback (most recent call last):
    ...
    ValueError: X holds outcomes: ...
    """
    refuse_other_tables(X, "X")
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a pandas DataFrame with one row a patient; got {type(X).__name__}.")
    if len(X) == 0:
        raise ValueError("X has 0 patients; at least one row is needed.")
    check_unique(X.index, "X")
    check_columns_once(X, "X")
    columns = set(map(str, X.columns))
    pairs = {c for c in columns if c.endswith("_event") and f"{c.removesuffix('_event')}_time" in columns}
    outcomes = sorted(pairs | set(filter(is_outcome_name, columns)))
    if outcomes:
        raise ValueError(
            f"X holds outcomes: {shortened(outcomes)}. What is to be predicted belongs into y; drop these columns from "
            "X, otherwise the model reads the answer. A feature that only looks like one needs another name."
        )
    return X


def check_target(y: pd.DataFrame, endpoints: Iterable[str] | None = None, *, fitting: bool = False) -> dict[str, Task]:
    """Refuse invalid outcomes; the message names the patients.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)
        NaN means unknown. An endpoint is unknown when its time and its event are both NaN.
    endpoints : iterable of str, default=None
        The endpoints or tasks to check; None means all.
    fitting : bool, default=False
        Also refuse outcomes that no model can learn: a task with a single class, an endpoint without an event, a column
        of labels that is an endpoint under another name, a measurement or an identifier.

    Returns
    -------
    dict of str to Task
        The tasks checked. With ``fitting``, a class without patients is left out, with a warning.

    Raises
    ------
    TypeError, ValueError, KeyError
        The message names the rows, what was expected and what to do.

    Warns
    -----
    UserWarning
        If the median time of an endpoint is implausible for months.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [3.0, -9.0], "os_event": [1, 0]}, index=["P1", "P2"])
    >>> check_target(y.abs())["os"].kind
    'survival'
    >>> check_target(y)
    Traceback (most recent call last):
    ...
    ValueError: ...P2...
    """
    chosen = _tasks_asked_for(y, endpoints)
    for task in chosen.values():
        task.check(y)
    if fitting and not chosen:
        raise ValueError("y has no columns, so there is nothing to learn; give labels or endpoints.")
    return _learnable(y, chosen) if fitting else chosen


def check_cohort(
    X: pd.DataFrame, y: pd.DataFrame, endpoints: Iterable[str] | None = None, *, fitting: bool = True
) -> dict[str, Task]:
    """Check a cohort: :func:`check_features`, :func:`check_target`, the same patients in both, no outcome in X.

    Parameters
    ----------
    X, y : pandas.DataFrame
        One row a patient, the same ids as index in any order; :func:`align_rows` brings ``y`` into the order of ``X``.
    endpoints : iterable of str, default=None
        The tasks to check; None means all of ``y``.
    fitting : bool, default=True
        As in :func:`check_target`.

    Returns
    -------
    dict of str to Task

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70, 65]}, index=["P1", "P2", "P3"])
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC", "LUAD"]}, index=["P3", "P2", "P1"])  # in another order
    >>> check_cohort(X, y)["subtype"].classes
    ('LUAD', 'LUSC')
    """
    check_features(X)
    tasks = check_target(y, endpoints, fitting=fitting)
    y = align_rows(y, X.index, "y", exact=True)
    refuse_outcome_names(X, y)
    if fitting:
        refuse_copies(X, y, tasks)
    return tasks


def endpoint_name(y: pd.DataFrame, endpoint: str | None = None) -> str:
    """The endpoint named by the caller, or else the only endpoint of a table.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)
    endpoint : str, default=None

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If ``endpoint`` is None and the table has no endpoint or several.
    KeyError
        If ``endpoint`` is a task of another kind.

    Examples
    --------
    >>> y = pd.DataFrame({"stage": ["I", "IV"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> endpoint_name(y)
    'os'
    """
    tasks = find_tasks(y)
    if endpoint is not None:
        task = tasks.get(endpoint)
        if task is not None and task.estimator_type != "survival":
            raise KeyError(
                f"{endpoint!r} is no right-censored endpoint; y holds it in the columns {list(task.columns)}."
                + _of_one_cause(task)
            )
        return endpoint
    names = [task.name for task in tasks.values() if task.estimator_type == "survival"]
    if len(names) > 1:
        raise ValueError(f"y holds {len(names)} endpoints ({', '.join(names)}); say which one with endpoint='...'.")
    if not names:
        renaming = _renaming(y, tasks)
        raise ValueError(
            "y holds no right-censored endpoint, which is a pair of columns '<name>_time' and '<name>_event'. "
            f"Columns: {list(y.columns)}."
            + (f" Its columns may be an endpoint under other names: {renaming}" if renaming else "")
            + "".join(_of_one_cause(task) for task in tasks.values())
        )
    return names[0]


def survival_target(y: Any, endpoint: str | None = None) -> np.ndarray:
    """One endpoint as a structured array, from a table or from a structured array.

    Parameters
    ----------
    y : pandas.DataFrame or structured ndarray of shape (n_patients,)
        A table with ``<endpoint>_time`` and ``<endpoint>_event``, or scikit-survival's array whose first field is the
        event and whose second is the time.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.

    Returns
    -------
    ndarray of shape (n_patients,), fields "event" (bool) and "time" (float64, months)
        Unknown outcomes of a table have time NaN and event False.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the endpoint is missing or ambiguous, or holds impossible values.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> target = survival_target(y, "os")
    >>> target["event"].tolist(), target["time"].tolist()
    ([True, False], [3.0, 9.0])
    """
    if isinstance(y, pd.DataFrame):
        endpoint = endpoint_name(y, endpoint)
        return _tasks_asked_for(y, [endpoint])[endpoint].outcome(y)
    fields = getattr(getattr(y, "dtype", None), "names", None)
    if fields is None or len(fields) != 2:
        raise ValueError(
            "a survival target is a table with '<endpoint>_time' and '<endpoint>_event', or a structured array "
            f"with an event field and a time field (sksurv.util.Surv makes one); got {_describe(y)}."
        )
    first, second = (np.dtype(y.dtype[field]).kind for field in fields)
    if second == "b" and first != "b":
        raise ValueError(
            f"the first field of a structured survival array is the event and the second the time; got {fields}, "
            f"the other way round. Give y[{[fields[1], fields[0]]}]."
        )
    return survival_target(pd.DataFrame({"survival_event": y[fields[0]], "survival_time": y[fields[1]]}), "survival")


def _tasks_asked_for(y: pd.DataFrame, endpoints: Iterable[str] | None) -> dict[str, Task]:
    """Check that the values of the outcomes are possible, and return the tasks wanted."""
    refuse_other_tables(y, "y")
    if not isinstance(y, pd.DataFrame):
        raise TypeError(f"y must be a pandas DataFrame with one row a patient; got {type(y).__name__}.")
    check_unique(y.index, "y")
    tasks = find_tasks(y)
    for name in endpoints or ():
        if name not in tasks:
            raise KeyError(
                f"y has no endpoint or task {name!r}: an endpoint needs the columns '{name}_time' and "
                f"'{name}_event'. y offers {list(tasks)}; columns: {list(y.columns)}."
                + (f" Perhaps under other names: {renaming}" if (renaming := _renaming(y, tasks)) else "")
            )
    if all(name in tasks and tasks[name].is_censored for name in ("dfs", "os")):
        time = {name: tasks[name].outcome(y)["time"] for name in ("dfs", "os")}
        # Two subtractions of dates may differ by rounding.
        later = time["dfs"] - time["os"] > 1e-8 * np.maximum(time["os"], 1.0)
        if later.any():
            raise ValueError(
                f"disease-free survival ends after overall survival in rows {shortened(y.index[later])}: "
                "dfs_time must not exceed os_time, since death ends both. Correct these rows or set both "
                f"{' and '.join(tasks['dfs'].columns)} to NaN (unknown); "
                "mmdls.cohort.reconcile_endpoints(y, 'truncate' or 'unknown') "
                "does it by a rule and counts them."
            )
    return tasks if endpoints is None else {name: tasks[name] for name in endpoints}


def _renaming(y: pd.DataFrame, tasks: dict[str, Task]) -> str:
    """How to rename columns that look like an endpoint under other names."""
    return endpoints_under_other_names(y, [name for name, task in tasks.items() if task.has_classes])[1]


def _of_one_cause(task: Task) -> str:
    """How to make an endpoint of one cause of a task with competing risks; empty for other tasks."""
    if task.answered_by != "predict_cumulative_incidence":
        return ""
    code = f"y[{task.columns[-1]!r}]"
    return (
        f" {task.name!r} has competing risks; MMDLS predicts the {task.about}. For one cause alone, with the others as "
        f"censoring: y.assign({task.name}_event={code}.eq(1).where({code}.notna())).drop(columns={task.columns[-1]!r})."
    )


def _learnable(y: pd.DataFrame, tasks: dict[str, Task]) -> dict[str, Task]:
    """The tasks with the classes that can be learned; refuses a task that cannot be learned."""
    check_labels(y, [task.name for task in tasks.values() if task.has_classes])
    return {name: task.learnable(y) for name, task in tasks.items()}


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    return (
        f"{type(value).__name__}"
        + (f" of shape {shape}" if shape is not None else "")
        + (f" and dtype {dtype}" if dtype is not None else "")
    )
