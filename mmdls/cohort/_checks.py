"""What a cohort must keep before anything is learned from it, scored or drawn."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._classes import class_codes
from mmdls.cohort._schema import Task, find_tasks

__all__ = ["align_rows", "check_cohort", "check_features", "check_target", "survival_target"]

_SURVIVAL_DTYPE = [("event", bool), ("time", np.float64)]


def align_rows(values: Any, index: pd.Index, name: str) -> Any:
    """Bring one value a patient into the order of a table: by id where the values carry ids, by place otherwise.

    Parameters
    ----------
    values : pandas.Series, pandas.DataFrame, array of shape (n_patients, ...) or None
        A Series or a DataFrame may hold more patients, in any order; an array has one row a patient of the table.
    index : pandas.Index
        Ids of the patients in the order that is wanted.
    name : str
        What the values are, for the messages.

    Returns
    -------
    pandas.Series, pandas.DataFrame, ndarray or None
        The same kind, one row a patient of ``index``.

    Raises
    ------
    TypeError
        If ``values`` is a single value.
    ValueError
        If patients are missing, stand twice, or the number of rows of an array differs.

    Examples
    --------
    >>> centre = pd.Series(["A", "B", "C"], index=["P1", "P2", "P3"])
    >>> align_rows(centre, pd.Index(["P3", "P1"]), "centre").tolist()
    ['C', 'A']
    """
    if values is None:
        return None
    if isinstance(values, pd.Series | pd.DataFrame):
        if values.index.equals(index):
            return values
        _check_unique(values.index, name)
        missing = index[~index.isin(values.index)]
        if len(missing):
            numbered = len(values) == len(index) and values.index.equals(pd.RangeIndex(len(index)))
            raise ValueError(
                f"{name} lacks {len(missing)} of the {len(index)} patients, such as {_some(missing)}; its index holds "
                f"{_some(values.index)}. Rows are joined by patient id: give {name} the ids of X as its index"
                + (f", or pass {name}.to_numpy() if its rows stand in the order of X." if numbered else ".")
            )
        return values.loc[index]
    if isinstance(values, str | bytes) or np.ndim(values) == 0:
        raise TypeError(f"{name} must hold one value a patient; got the single value {values!r}.")
    values = np.asarray(values)
    if len(values) != len(index):
        raise ValueError(f"{name} has {len(values)} rows and there are {len(index)} patients; give one row a patient.")
    return values


def check_features(X: pd.DataFrame) -> pd.DataFrame:
    """Refuse a table of patients that cannot be right: duplicate patients or columns, no rows, outcomes inside.

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
    """
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a pandas DataFrame with one row a patient; got {type(X).__name__}.")
    if len(X) == 0:
        raise ValueError("X has 0 patients; at least one row is needed.")
    _check_unique(X.index, "X")
    repeated = X.columns[X.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"X has the columns {_some(repeated)} more than once; give every column its own name.")
    columns = set(map(str, X.columns))
    outcomes = sorted(c for c in columns if c.endswith("_event") and f"{c.removesuffix('_event')}_time" in columns)
    if outcomes:
        raise ValueError(
            f"X holds outcomes: {outcomes} and their times. What is to be predicted belongs into y; drop these "
            "columns from X, otherwise the model reads the answer."
        )
    return X


def check_target(y: pd.DataFrame, endpoints: Iterable[str] | None = None, *, fitting: bool = False) -> dict[str, Task]:
    """Refuse outcomes that cannot be right, and say which patients they belong to.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)
        NaN means unknown. An endpoint is unknown when its time and its event are both NaN.
    endpoints : iterable of str, default=None
        The endpoints or tasks that are asked for; None means all.
    fitting : bool, default=False
        Also refuse what cannot be learned from: a task with a single class, an endpoint without an event.

    Returns
    -------
    dict of str to Task
        The tasks asked for. With ``fitting``, a class without patients is left out, with a warning.

    Raises
    ------
    TypeError, ValueError, KeyError
        With the rows concerned, what was expected and what to do.
    """
    if not isinstance(y, pd.DataFrame):
        raise TypeError(f"y must be a pandas DataFrame with one row a patient; got {type(y).__name__}.")
    _check_unique(y.index, "y")
    tasks = find_tasks(y)
    if endpoints is not None:
        for name in endpoints:
            if name not in tasks:
                raise KeyError(
                    f"y has no endpoint or task {name!r}: an endpoint needs the columns '{name}_time' and "
                    f"'{name}_event'. y offers {list(tasks)}; columns: {list(y.columns)}."
                )
    for task in tasks.values():
        if task.kind == "survival":
            _check_endpoint(y, task)
    if {"dfs", "os"} <= tasks.keys():
        later = (y["dfs_time"] > y["os_time"]).to_numpy()
        if later.any():
            raise ValueError(
                f"disease-free survival ends after overall survival in rows {_some(y.index[later])}: "
                "dfs_time must not exceed os_time, since death ends both. Correct these rows or set both "
                "dfs_time and dfs_event to NaN (unknown)."
            )
    chosen = tasks if endpoints is None else {name: tasks[name] for name in endpoints}
    return _learnable(y, chosen) if fitting else chosen


def check_cohort(
    X: pd.DataFrame, y: pd.DataFrame, endpoints: Iterable[str] | None = None, *, fitting: bool = True
) -> dict[str, Task]:
    """Pass a cohort through the gate: :func:`check_features`, :func:`check_target`, and the same patients in both.

    Parameters
    ----------
    X, y : pandas.DataFrame
        One row a patient, the same index in the same order.
    endpoints : iterable of str, default=None
        The tasks that are asked for; None means all of ``y``.
    fitting : bool, default=True
        Also refuse what cannot be learned from.

    Returns
    -------
    dict of str to Task
    """
    check_features(X)
    tasks = check_target(y, endpoints, fitting=fitting)
    if not X.index.equals(y.index):
        if len(X) == len(y) and set(X.index) == set(y.index):
            raise ValueError("X and y hold the same patients in different order; use y = y.loc[X.index].")
        only_x, only_y = X.index.difference(y.index), y.index.difference(X.index)
        raise ValueError(
            f"X has {len(X)} patients and y has {len(y)}, and their ids differ: only in X {_some(only_x)}, only in y "
            f"{_some(only_y)}. Both need one row a patient with the same index; join them by patient id first."
        )
    return tasks


def survival_target(y: Any, endpoint: str | None = None) -> np.ndarray:
    """Give one endpoint as a structured array, from a table or from a structured array.

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
        If the endpoint is not there, is ambiguous, or holds impossible values.
    """
    if isinstance(y, pd.DataFrame):
        if endpoint is None:
            names = [task.name for task in find_tasks(y).values() if task.kind == "survival"]
            if len(names) != 1:
                raise ValueError(
                    f"y holds {len(names)} endpoints ({', '.join(names) or 'none'}); say which one with "
                    "endpoint='...'. An endpoint is a pair of columns '<name>_time', '<name>_event'. "
                    f"Columns: {list(y.columns)}."
                )
            endpoint = names[0]
        check_target(y, [endpoint])
        time = y[f"{endpoint}_time"].to_numpy(dtype=np.float64, na_value=np.nan)
        event = y[f"{endpoint}_event"].to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        fields = getattr(getattr(y, "dtype", None), "names", None)
        if fields is None or len(fields) != 2:
            raise ValueError(
                "a survival target is a table with '<endpoint>_time' and '<endpoint>_event', or a structured array "
                f"with an event field and a time field (sksurv.util.Surv makes one); got {_describe(y)}."
            )
        table = pd.DataFrame({"survival_event": y[fields[0]], "survival_time": y[fields[1]]})
        _check_endpoint(table, Task("survival", "survival", ("survival_time", "survival_event")))
        event, time = table["survival_event"].to_numpy(np.float64), table["survival_time"].to_numpy(np.float64)
    target = np.empty(len(time), dtype=_SURVIVAL_DTYPE)
    target["time"] = time
    target["event"] = np.nan_to_num(event).astype(bool)
    return target


def _check_endpoint(y: pd.DataFrame, task: Task) -> None:
    """Times are non-negative and finite, events are 0 or 1, and both are known or neither."""
    columns = {}
    for column in task.columns:
        try:
            columns[column] = y[column].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{column!r} must hold numbers ({'months' if column.endswith('_time') else '0, 1 or booleans'}, NaN if "
                f"unknown); got {_describe(y[column])}."
            ) from error
    time, event = columns[task.columns[0]], columns[task.columns[1]]
    time_name, event_name = task.columns
    for bad, what, cure in (
        (np.isinf(time), f"{time_name!r} is infinite", "Give months of follow-up, or NaN if unknown"),
        (time < 0, f"{time_name!r} is negative", "A patient cannot be followed before time zero; correct the dates"),
        (
            ~np.isnan(event) & (event != 0) & (event != 1),
            f"{event_name!r} is neither 0 nor 1",
            "Code 1 or True if the event was seen, 0 or False if censored, NaN if unknown",
        ),
        (
            np.isnan(time) != np.isnan(event),
            f"only one of {time_name!r} and {event_name!r} is known",
            "Give both, or set both to NaN (unknown)",
        ),
    ):
        if bad.any():
            values = y.loc[bad, list(task.columns)].head(3).to_dict("list")
            raise ValueError(f"{what} in rows {_some(y.index[bad])}: {values}. {cure}.")


def _learnable(y: pd.DataFrame, tasks: dict[str, Task]) -> dict[str, Task]:
    """The tasks with the classes that can be learned; what cannot be learned at all is refused."""
    learnable = {}
    for task in tasks.values():
        if task.kind == "survival":
            known = y[task.columns[0]].notna()
            if not known.any() or not (y.loc[known, task.columns[1]].astype(float) == 1).any():
                raise ValueError(
                    f"endpoint {task.name!r} has no event among {int(known.sum())} patients with known outcome; "
                    "nothing can be learned about it. Leave it out of y, or fit on more patients."
                )
        else:
            counts = np.bincount(class_codes(y[task.name], task.classes) + 1, minlength=len(task.classes) + 1)[1:]
            absent = [label for label, count in zip(task.classes, counts, strict=True) if not count]
            task = replace(task, classes=tuple(label for label in task.classes if label not in absent))
            if len(task.classes) < 2:
                raise ValueError(
                    f"task {task.name!r} has {len(task.classes)} class(es): {list(task.classes)}; at least 2 classes "
                    "are needed to learn it. Leave it out of y, or fit on patients of every class."
                )
            if absent:
                warnings.warn(
                    f"no patient has the classes {absent} of {task.name!r}; the model learns {list(task.classes)} only "
                    "and can never predict the others.",
                    stacklevel=5,
                )
        learnable[task.name] = task
    return learnable


def _check_unique(index: pd.Index, table: str) -> None:
    repeated = index[index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{table} has more than one row for the patients {_some(repeated)}; the index is the patient id and each "
            "patient has one row. Merge or drop the repeated rows, or reset the index if it is no id."
        )


def _some(items: Sequence[Any] | pd.Index, most: int = 5) -> str:
    shown = ", ".join(map(repr, list(items[:most])))
    return f"[{shown}{f', ... {len(items) - most} more' if len(items) > most else ''}]"


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    return (
        f"{type(value).__name__}"
        + (f" of shape {shape}" if shape is not None else "")
        + (f" and dtype {dtype}" if dtype is not None else "")
    )
