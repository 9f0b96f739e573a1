"""Rows held out, with equal fractions of events and classes."""

from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from mmdls.cohort import find_tasks
from mmdls.model_selection._strata import by_importance

__all__ = ["stratified_holdout"]


def stratified_holdout(y: Any, fraction: float, random_state: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two, with equal fractions of events and classes as far as possible.

    An event, class or quartile of numbers with two rows or more is in both parts; one with a single row is in the kept
    part. If this is not possible for all outcomes, the last endpoint has priority, then the other endpoints, then the
    other tasks.

    Parameters
    ----------
    y : pandas.DataFrame, structured survival array, or labels of shape (n,)
    fraction : float
        Fraction of rows held out, above 0 and below 1.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    kept, held : ndarray of shape (n_rows,), int
        Row numbers, ascending.

    Raises
    ------
    ValueError
        If ``fraction`` is not between 0 and 1.

    Examples
    --------
    >>> y = pd.DataFrame({"stage": ["I"] * 8 + ["IV"] * 4})
    >>> kept, held = stratified_holdout(y, 0.25, random_state=0)
    >>> len(kept), y.loc[held, "stage"].tolist()
    (9, ['I', 'I', 'IV'])
    """
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction!r}.")
    rng = check_random_state(random_state)
    n = len(y)
    wanted = min(max(round(n * fraction), 1), n - 1)
    outcomes = _outcomes(y)
    counters = [_HeldOut(labels, needed, wanted / n, rng) for labels, needed in outcomes]
    # A cell is a set of rows with equal labels in all outcomes.
    cells, cell_of = np.unique(np.stack([labels for labels, _ in outcomes], axis=1), axis=0, return_inverse=True)
    rows = rng.permutation(n)
    rows = np.split(rows[np.argsort(cell_of.ravel()[rows], kind="stable")], np.bincount(cell_of.ravel()).cumsum()[:-1])
    left = np.array([len(of_cell) for of_cell in rows])
    held = []
    for _ in range(wanted):
        best = np.flatnonzero(left)
        for counter, labels in zip(counters, cells.T, strict=True):
            urgency = counter.urgency()[labels[best]]
            best = best[urgency == urgency.max()]
        cell = rng.choice(best, p=left[best] / left[best].sum())
        left[cell] -= 1
        held.append(rows[cell][left[cell]])
        for counter, label in zip(counters, cells[cell], strict=True):
            counter.held[label] += 1
    return np.setdiff1d(np.arange(n), held), np.sort(held)


class _HeldOut:
    """Number of held-out rows of each label of an outcome, and how many are wanted.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        From 0.
    needed : ndarray of shape (n_labels,), bool
        Labels that both parts need: events and classes, but not "censored" or "unknown".
    fraction : float
        Fraction of rows held out.
    rng : RandomState
        For the rounding of fractional numbers of rows.
    """

    def __init__(self, labels: np.ndarray, needed: np.ndarray, fraction: float, rng: np.random.RandomState):
        self.sizes = np.bincount(labels, minlength=len(needed))
        self.needed = needed
        self.held = np.zeros(len(needed), dtype=int)
        steps = np.floor(np.r_[0.0, (self.sizes * fraction).cumsum()] + rng.uniform())
        self.wanted = np.where(needed, np.clip(np.diff(steps), 1, np.maximum(self.sizes - 1, 1)), np.diff(steps))

    def urgency(self) -> np.ndarray:
        """Priority of holding out one more row of each label, (n_labels,).

        3 if the label is needed and has none yet, 2 if it has fewer than wanted, 1 if it has enough, 0 if the other
        part would lose its last row.
        """
        last = self.needed & (self.held + 1 >= self.sizes)
        first = self.needed & (self.held == 0)
        return np.select([last, first, self.held < self.wanted], [0, 3, 2], 1)


def _outcomes(y: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each outcome as labels from 0, in order of priority, and which labels both parts need."""
    if not isinstance(y, pd.DataFrame) and np.asarray(y).dtype.names is None:
        return [_class_labels(np.asarray(y))]
    if not isinstance(y, pd.DataFrame):
        y = np.asarray(y)
        event = y[y.dtype.names[0]].astype(int)
        return [(event, np.array([False, True]))]
    tasks = find_tasks(y)
    outcomes = []
    for name in by_importance(tasks):
        outcome = tasks[name].outcome(y)
        outcomes.append(_labels(tasks[name].strata(outcome), tasks[name].needed_strata(outcome)))
    return outcomes


def _class_labels(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = pd.factorize(column)[0]
    return _labels(codes, np.unique(codes[codes >= 0]))


def _labels(groups: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strata as labels from 0: first those not needed, then the needed ones as they come, then unknown (-1)."""
    found = pd.unique(groups)
    is_needed = np.isin(found, needed)
    order = np.r_[np.sort(found[~is_needed & (found >= 0)]), found[is_needed], -1]
    return pd.Index(order).get_indexer(groups), np.isin(order, needed)
