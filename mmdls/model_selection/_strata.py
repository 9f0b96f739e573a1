"""One stratum a patient, from several outcomes and columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task, find_tasks

__all__ = ["by_importance", "strata"]


def strata(y: Any, X: Any = None, on: Sequence[str] | None = None, *, smallest: int = 2) -> np.ndarray:
    """One stratum a patient from outcomes and columns, with enough patients in every stratum.

    Parameters
    ----------
    y : pandas.DataFrame, structured survival array, or labels of shape (n,)
    X : pandas.DataFrame, default=None
        For columns named in ``on``.
    on : sequence of str, default=None
        See :class:`CohortKFold`.
    smallest : int, default=2
        Strata with fewer patients are merged with others that differ in the last part only.

    Returns
    -------
    ndarray of shape (n,), int64

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"] * 4, "os_time": [3.0] * 8, "os_event": [1, 1, 0, 0] * 2})
    >>> strata(y).tolist()
    [0, 1, 2, 3, 0, 1, 2, 3]
    """
    parts = _parts(y, X, on)
    label = np.zeros(len(parts[0]), dtype=np.int64)
    for part in parts:
        finer = pd.factorize(pd.MultiIndex.from_arrays([label, part]))[0]
        rare = np.bincount(finer)[finer] < smallest
        for coarse in np.unique(label[rare]):
            lost = rare & (label == coarse)
            others = finer[~rare & (label == coarse)]
            # Rare combinations within a coarser stratum form one stratum, or join the largest one there.
            enough = lost.sum() >= smallest or not len(others)
            finer[lost] = -1 - coarse if enough else np.bincount(others).argmax()
        label = pd.factorize(finer)[0]
    return label


def _parts(y: Any, X: Any, on: Sequence[str] | None) -> list[np.ndarray]:
    if y is None:
        raise ValueError("patients are stratified by their outcomes, so y must be given; got None.")
    if not isinstance(y, pd.DataFrame):
        if on is not None:
            raise ValueError(f"on={list(on)} names columns, so y must be a table; got {type(y).__name__}.")
        y = np.asarray(y)
        return [y[y.dtype.names[0]] if y.dtype.names else y]
    tasks = find_tasks(y)
    if on is None:
        on = by_importance(tasks)
    parts = []
    for name in on:
        if name in tasks:
            parts.append(tasks[name].strata(tasks[name].outcome(y)))
        elif isinstance(X, pd.DataFrame) and name in X.columns:
            parts.append(pd.factorize(X[name])[0])
        else:
            known = list(tasks) + (list(X.columns) if isinstance(X, pd.DataFrame) else [])
            raise KeyError(f"on={name!r} is neither a task of y nor a column of X; known: {known[:20]}.")
    return parts


def by_importance(tasks: Mapping[str, Task]) -> list[str]:
    """The last endpoint, the other endpoints, the other tasks."""
    endpoints = [name for name, task in tasks.items() if task.is_censored]
    return endpoints[::-1] + [name for name in tasks if name not in endpoints]
