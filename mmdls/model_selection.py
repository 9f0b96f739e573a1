"""Splits of a cohort, stratified by outcome and centre, grouped by patient."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_consistent_length, check_random_state

from mmdls.cohort import find_tasks

__all__ = ["CohortKFold", "strata", "stratified_holdout"]


class CohortKFold(GroupsConsumerMixin):
    """K folds with events, classes and centres spread evenly; rows of one group stay together.

    scikit-learn's stratified splitters take one label a row; a cohort has several outcomes. Here the label is the
    combination of them, and combinations too rare to be in every fold are merged, the least important part first, so
    that no cohort is refused for a rare stratum.

    Parameters
    ----------
    n_splits : int, default=5
    on : sequence of str, default=None
        What to stratify on, most important first: endpoints (their events) and class tasks of ``y``, columns of ``X``
        such as ``"centre"``. None means the last endpoint, then the other endpoints, then the class tasks. Outcomes
        together with a column of ``X`` repeat in every fold what the two have in common by chance: a model that sees
        the column then looks better than it is. Stratify on what no model sees.
    shuffle : bool, default=True
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> folds = CohortKFold(3, on=("os", "stage"), random_state=0)
    >>> [len(test) for _, test in folds.split(X, y)]
    [20, 20, 20]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        on: Sequence[str] | None = None,
        shuffle: bool = True,
        random_state: Any = None,
    ):
        self.n_splits = n_splits
        self.on = on
        self.shuffle = shuffle
        self.random_state = random_state

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give training and test rows of each fold.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n, ...)
        y : pandas.DataFrame, structured survival array, or labels of shape (n,)
        groups : array of shape (n,), default=None
            Rows with one value never stand on both sides, for example two scans of one patient.
        """
        label = strata(y, X, self.on, smallest=self.n_splits)
        check_consistent_length(X, label, groups)
        seed = check_random_state(self.random_state).randint(2**31 - 1) if self.shuffle else None
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = kind(self.n_splits, shuffle=self.shuffle, random_state=seed)
        yield from folds.split(np.zeros(len(label)), label, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.n_splits

    def __repr__(self) -> str:
        return (
            f"CohortKFold(n_splits={self.n_splits}, on={self.on}, shuffle={self.shuffle}, "
            f"random_state={self.random_state})"
        )


def strata(y: Any, X: Any = None, on: Sequence[str] | None = None, *, smallest: int = 2) -> np.ndarray:
    """One label a patient that combines outcomes and columns, every one of them held by enough patients.

    Parameters
    ----------
    y : pandas.DataFrame, structured survival array, or labels of shape (n,)
    X : pandas.DataFrame, default=None
        For columns named in ``on``.
    on : sequence of str, default=None
        See :class:`CohortKFold`.
    smallest : int, default=2
        Strata with fewer patients are put together with others that differ in the last part only.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    parts = _parts(y, X, on)
    label = np.zeros(len(parts[0]), dtype=np.int64)
    for part in parts:
        finer = pd.factorize(pd.MultiIndex.from_arrays([label, part]))[0]
        rare = np.bincount(finer)[finer] < smallest
        for coarse in np.unique(label[rare]):
            lost = rare & (label == coarse)
            others = finer[~rare & (label == coarse)]
            # Rare combinations of one coarser stratum stay together, or join the largest that came from it.
            enough = lost.sum() >= smallest or not len(others)
            finer[lost] = -1 - coarse if enough else np.bincount(others).argmax()
        label = pd.factorize(finer)[0]
    return label


def stratified_holdout(y: Any, fraction: float, random_state: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two, with the same share of events and classes in both as far as numbers allow.

    Parameters
    ----------
    y : pandas.DataFrame, structured survival array, or labels of shape (n,)
    fraction : float
        Share of rows held out, above 0 and below 1.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    kept, held : ndarray of int
        Row numbers, rising. A stratum held by one row stays in the kept part.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction}.")
    rng = check_random_state(random_state)
    n = len(y)
    wanted = min(max(round(n * fraction), 1), n - 1)
    label = strata(y, smallest=2)
    sizes = np.bincount(label)
    # Largest remainders share the wanted rows among the strata; no stratum is emptied.
    exact = sizes * wanted / n
    take = np.minimum(np.floor(exact).astype(int), np.maximum(sizes - 1, 0))
    for stratum in np.argsort(-(exact - take), kind="stable"):
        if take.sum() >= wanted:
            break
        if take[stratum] < sizes[stratum] - 1:
            take[stratum] += 1
    held = np.concatenate(
        [rng.permutation(np.flatnonzero(label == stratum))[:count] for stratum, count in enumerate(take)]
    )
    return np.setdiff1d(np.arange(n), held), np.sort(held)


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
        endpoints = [name for name, task in tasks.items() if task.kind == "survival"]
        on = endpoints[::-1] + [name for name in tasks if name not in endpoints]
    parts = []
    for name in on:
        if name in tasks:
            task = tasks[name]
            column = y[task.columns[-1]]
            parts.append(pd.factorize(column.astype(float) if task.kind == "survival" else column)[0])
        elif isinstance(X, pd.DataFrame) and name in X.columns:
            parts.append(pd.factorize(X[name])[0])
        else:
            known = list(tasks) + (list(X.columns) if isinstance(X, pd.DataFrame) else [])
            raise KeyError(f"on={name!r} is neither a task of y nor a column of X; known: {known[:20]}.")
    return parts
