"""Outcomes among the features: a model could read the answer from them."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmdls.cohort._cells import cell_kind, plain_columns
from mmdls.cohort._endpoints import shortened
from mmdls.cohort._identifiers import identifiers
from mmdls.cohort._mistaken import as_numbers
from mmdls.cohort._schema import Task

__all__ = ["refuse_copies", "refuse_outcome_names"]

# With 20 patients, two unrelated binary columns are equal by chance about once in a million.
_CERTAIN = 20


def refuse_outcome_names(X: pd.DataFrame, y: pd.DataFrame) -> None:
    """Refuse columns of X that are columns of y, whatever the case of their names.

    Parameters
    ----------
    X, y : pandas.DataFrame
        The same patients in the same order.

    Raises
    ------
    ValueError
        With their names.

    Warns
    -----
    UserWarning
        If a column of labels has the name of a feature but other values, such as labels computed from the feature.
    """
    names = {str(column).strip().casefold(): column for column in y.columns}
    same = {c: names[c.strip().casefold()] for c in X.columns if isinstance(c, str) and c.strip().casefold() in names}
    other = [c for c, outcome in same.items() if not _of_an_endpoint(outcome) and _agreement(X[c], y[outcome]) < 0.5]
    inside = [c for c in same if c not in other]
    if inside:
        raise ValueError(
            f"X holds outcomes: {shortened(inside)} are columns of y too. Drop them from X, otherwise the model reads "
            "the answer."
        )
    if other:
        warnings.warn(
            f"X and y both have columns called {shortened(other)}, with different values; the one of X stays a "
            "feature. If it contains the outcome, drop it from X.",
            stacklevel=4,
        )


def _of_an_endpoint(name: str) -> bool:
    return name.endswith(("_time", "_event", "_cause"))


def refuse_copies(X: pd.DataFrame, y: pd.DataFrame, tasks: dict[str, Task]) -> None:
    """Refuse columns of X that copy an outcome under another name; warn of those that determine every label.

    A copy has the same value for every patient. A copy of a time puts all patients in the same order, which also finds
    times in another unit.

    Parameters
    ----------
    X, y : pandas.DataFrame
        The same patients in the same order.
    tasks : dict of str to Task
        The tasks to be learned.

    Raises
    ------
    ValueError
        The message names the columns of X and of y.

    Warns
    -----
    UserWarning
        If a column determines the label of every patient, by other values.
    """
    columns = [c for c in X.columns if cell_kind(c) is None]
    carried = identifiers(X, columns)
    columns = [c for c in columns if c not in carried]
    if not columns:
        return
    values, numeric = _values(X, columns)
    for task in tasks.values():
        for outcome in task.columns:
            known = y[outcome].notna().to_numpy()
            if known.sum() < _CERTAIN:
                continue
            truth = np.unique(_codes(y.loc[known, outcome])[0], return_inverse=True)[1]
            is_time = outcome in task.measured_columns
            matches = numeric & _same_order(values[known], truth) if is_time else _one_to_one(values[known], truth)
            copies = [column for column, match in zip(columns, matches, strict=True) if match]
            if not copies:
                continue
            if is_time or any(_equal(X.loc[known, column], y.loc[known, outcome]) for column in copies):
                raise ValueError(
                    f"the columns {shortened(copies)} of X copy the outcome {outcome!r} of all {known.sum()} patients "
                    "under another name. Drop them from X, otherwise the model reads the answer."
                )
            warnings.warn(
                f"the columns {shortened(copies)} of X determine {outcome!r} of all {known.sum()} patients; if they "
                "were recorded with the outcome or after it, drop them from X.",
                stacklevel=5,
            )


def _values(X: pd.DataFrame, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n, p) in the order of each column's values, NaN where missing; and which columns are numbers, (p,)."""
    X = X[columns]
    plain = plain_columns(X)
    values, numeric = np.empty(X.shape), plain.copy()
    values[:, plain] = X.loc[:, plain].to_numpy(dtype=np.float64)
    for place in np.flatnonzero(~plain):
        codes, numeric[place] = _codes(X.iloc[:, place])
        values[:, place] = np.where(codes < 0, np.nan, codes)
    return values, numeric


def _codes(column: pd.Series) -> tuple[np.ndarray, bool]:
    """The rank of each value, (n,), -1 where missing; and whether they are numbers, also as text."""
    if pd.api.types.is_complex_dtype(column.dtype):
        return np.full(len(column), -1), False
    if pd.api.types.is_numeric_dtype(column.dtype):
        return pd.factorize(as_numbers(column).to_numpy(), sort=True)[0], True
    try:
        codes, different = pd.factorize(column.to_numpy(dtype=object))
        values = as_numbers(pd.Series(different, dtype=object))
        numeric = bool(values.notna().all())
        rank = pd.factorize(values.to_numpy() if numeric else different, sort=True)[0]
    except TypeError:  # arrays, or values without an order
        return np.full(len(column), -1), False
    return np.append(rank, -1)[codes], numeric


def _same_order(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Columns (n, p) that put the patients in the order of the truth (n,), or in the opposite one, (p,)."""
    if truth.max() + 1 < _CERTAIN / 2:
        return np.zeros(values.shape[1], dtype=bool)
    order = np.argsort(truth, kind="stable")
    ranked, later = values[order], (np.diff(truth[order]) > 0)[:, None]
    rises, falls = ranked[1:] > ranked[:-1], ranked[1:] < ranked[:-1]
    same = [(steps == later).all(axis=0) & ~back.any(axis=0) for steps, back in ((rises, falls), (falls, rises))]
    return (same[0] | same[1]) & ~np.isnan(values).any(axis=0)


def _one_to_one(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Columns (n, p) that have one value for each label (n,), and another for every other label, (p,)."""
    groups = [values[truth == label] for label in range(truth.max() + 1)]
    constant = np.all([group.min(axis=0) == group.max(axis=0) for group in groups], axis=0)
    ranked = np.sort([group[0] for group in groups], axis=0)
    different = (ranked[1:] > ranked[:-1]).all(axis=0)
    return constant & different & ~np.isnan(values).any(axis=0) & (len(groups) > 1)


def _equal(feature: pd.Series, outcome: pd.Series) -> bool:
    return _agreement(feature, outcome) == 1


def _agreement(feature: pd.Series, outcome: pd.Series) -> float:
    """The fraction of patients with equal values, stored as numbers, booleans or text, where both are known."""
    known = (feature.notna() & outcome.notna()).to_numpy()
    if not known.any():
        return 0.0
    numbers = [pd.to_numeric(column[known].astype(object), errors="coerce") for column in (feature, outcome)]
    if all(column.notna().all() for column in numbers):
        return float((numbers[0].to_numpy(float) == numbers[1].to_numpy(float)).mean())
    text = [
        column[known].astype(object).map(lambda value: str(value).strip().casefold()) for column in (feature, outcome)
    ]
    return float((text[0].to_numpy() == text[1].to_numpy()).mean())
