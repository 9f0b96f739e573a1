"""Leak detector: what lets a model know more than it may, found in tables, in folds, and by trying a procedure out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mmdls.cohort import align_rows, check_target, find_tasks, modalities

__all__ = ["audit_folds", "audit_procedure", "audit_tables"]

_COLUMNS = ["check", "passed", "detail"]


def audit_tables(X: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
    """Look for leaks in a cohort before anything is fitted.

    Checked are features that tell an outcome all by themselves, blocks of numbers that somebody has standardised over
    all patients, and patients who are in the table twice under two ids.

    Parameters
    ----------
    X, y : pandas.DataFrame
        A cohort; y is joined to X by patient id.

    Returns
    -------
    pandas.DataFrame
        One row a check: check, passed, detail.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [50.0, 60, 70, 80], "clinical_followup": [5.0, 9, 12, 30]})
    >>> y = pd.DataFrame({"os_time": [5.0, 9, 12, 30], "os_event": [1, 0, 1, 1]})
    >>> audit_tables(X, y)["passed"].tolist()
    [False, True, True]
    """
    y = align_rows(y, X.index, "y")
    check_target(y)
    features = [c for columns in modalities(X).values() for c in columns if not c.endswith("_image")]
    rows = [
        _row("a feature that is an outcome", [f"{c} tells {task}" for c, task in _telling(X[features], y)]),
        _row("numbers standardised over all patients", list(_standardised(X))),
        _row("one patient under two ids", [f"{a} and {b}: {why}" for a, b, why in _twins(X)]),
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def audit_folds(folds: Iterable[tuple[Any, Any]], X: pd.DataFrame | None = None, groups: Any = None) -> pd.DataFrame:
    """Look for patients on both sides of a split.

    Parameters
    ----------
    folds : iterable of (train, test)
        Row numbers.
    X : pandas.DataFrame, default=None
        A cohort: patients who look the same but for their ids must not be divided either.
    groups : Series or array of shape (n_patients,), default=None
        Rows of one value belong together, for example scans of one patient. A Series is joined to X by patient id.

    Returns
    -------
    pandas.DataFrame
        One row a check: check, passed, detail.

    Examples
    --------
    >>> audit_folds([([0, 1, 2], [2, 3])])["detail"][0]
    'split 0: row 2'
    """
    folds = [(np.asarray(train), np.asarray(test)) for train, test in folds]
    both = [f"split {k}: row {row}" for k, (train, test) in enumerate(folds) for row in np.intersect1d(train, test)]
    rows = [_row("a row in training and test", both)]
    if groups is not None:
        groups = np.asarray(groups if X is None else align_rows(groups, X.index, "groups"))
        divided = [
            f"split {k}: group {group!r}"
            for k, (train, test) in enumerate(folds)
            for group in np.intersect1d(groups[train], groups[test]).tolist()
        ]
        rows.append(_row("a group in training and test", divided))
    if X is not None:
        place = {patient: row for row, patient in enumerate(X.index)}
        found = [
            f"split {k}: {a} and {b}: {why}"
            for a, b, why in _twins(X)
            for k, (train, test) in enumerate(folds)
            if len(np.intersect1d(train, [place[a], place[b]])) and len(np.intersect1d(test, [place[a], place[b]]))
        ]
        rows.append(_row("one patient under two ids in training and test", found))
    return pd.DataFrame(rows, columns=_COLUMNS)


def audit_procedure(
    procedure: Callable[[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray], Any],
    X: pd.DataFrame,
    y: pd.DataFrame,
    train: Any,
    test: Any,
    *,
    n_exchanges: int = 16,
    n_halves: int = 10,
    tolerance: float = 1e-5,
    random_state: int = 0,
) -> pd.DataFrame:
    """Try a whole procedure out: nothing of the test rows may change its predictions for others.

    The procedure is run again and again: with the outcomes of the test rows exchanged (training must not notice), and
    with half of the test rows taken out of both tables (scaling, risk cut-points or ranks from the test set, or from
    all patients, would change the predictions for the other half). One exchange of outcomes finds a choice between two
    candidates half of the time only, so there are several; the first ones turn the order of the outcomes round, which
    makes the best of all candidates the worst. A check ends with its first finding.

    Parameters
    ----------
    procedure : callable
        ``(X, y, train, test) -> predictions`` of the test rows in their order: an array, a Series, a DataFrame, or a
        dict of these. Everything that learns belongs inside; ``train`` and ``test`` are rows of the given tables.
    X, y : pandas.DataFrame
    train, test : array of int
        Row numbers.
    n_exchanges : int, default=16
        How often the outcomes of the test rows are exchanged: turned round once a task, then permuted.
    n_halves : int, default=10
        How many halves of the test rows are tried.
    tolerance : float, default=1e-5
        Largest change that counts as none, relative to the spread of a prediction.
    random_state : int, default=0

    Returns
    -------
    pandas.DataFrame
        One row a check: check, passed, detail.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> def honest(X, y, train, test):
    ...     return ClinicalCox(endpoint="os").fit(X.iloc[train], y.iloc[train]).predict(X.iloc[test])
    >>> audit_procedure(honest, X, y, range(60), range(60, 80))["passed"].all()
    np.True_
    """
    y = align_rows(y, X.index, "y")
    check_target(y)
    train, test = np.asarray(train), np.asarray(test)
    rng = np.random.default_rng(random_state)
    first = _as_columns(procedure(X, y, train, test))

    def exchanged(order: np.ndarray) -> list[str]:
        rows = np.arange(len(y))
        rows[test] = test[order]
        answers = _as_columns(procedure(X, y.iloc[rows].set_axis(y.index), train, test))
        return _changes(first, answers, tolerance)

    def halved(half: np.ndarray) -> list[str]:
        stays = np.setdiff1d(np.arange(len(X)), np.setdiff1d(test, test[half]))
        fewer = X.iloc[stays], y.iloc[stays], np.searchsorted(stays, train), np.searchsorted(stays, test[half])
        own = {name: values[half] for name, values in first.items()}
        return _changes(own, _as_columns(procedure(*fewer)), tolerance)

    orders = [*_turned_round(y.iloc[test], rng)][:n_exchanges]
    orders += [rng.permutation(len(test)) for _ in range(n_exchanges - len(orders))]
    halves = (np.sort(rng.permutation(len(test))[: max(len(test) // 2, 1)]) for _ in range(n_halves))
    again = _changes(first, _as_columns(procedure(X, y, train, test)), tolerance)
    rows = [
        _row("the same input gives the same answer", again),
        _row("outcomes of test rows change nothing", _first_finding(exchanged, orders)),
        _row("a test row's answer does not depend on the others", _first_finding(halved, halves)),
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _turned_round(y: pd.DataFrame, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each task an order of the rows in which the patient of the smallest outcome gets the largest, and so on."""
    for task in find_tasks(y).values():
        ascending = np.lexsort((rng.random(len(y)), *task.sort_keys(task.outcome(y))))
        order = np.empty(len(y), dtype=np.intp)
        order[ascending] = ascending[::-1]
        yield order


def _first_finding(attempt: Callable[[np.ndarray], list[str]], inputs: Iterable[np.ndarray]) -> list[str]:
    return next(filter(None, map(attempt, inputs)), [])


def _row(check: str, found: list[str]) -> tuple[str, bool, str]:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return check, not found, "; ".join(found[:5]) + more


def _telling(features: pd.DataFrame, y: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Features that order an outcome, or name it, without a mistake."""
    for task in find_tasks(y).values():
        for column, name in product(features, task.columns):
            known = (y[name].notna() & features[column].notna()).to_numpy()
            if known.sum() < 4 or y[name][known].nunique() < 2:
                continue
            values, outcome = features.loc[known, column], y.loc[known, name]
            numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
            if name not in task.measured_columns:
                found = _names(values, outcome, numeric)
            else:
                found = numeric and values.nunique() > 3 and _orders(values, outcome)
            if found:
                yield str(column), name


def _orders(values: pd.Series, outcome: pd.Series) -> bool:
    """Whether values put the patients in the order of the outcome, or in the opposite one."""
    return abs(np.corrcoef(rankdata(values), rankdata(outcome.astype(np.float64)))[0, 1]) > 0.995


def _names(values: pd.Series, labels: pd.Series, numeric: bool) -> bool:
    """Whether values give the class of every patient away."""
    codes = pd.factorize(labels, sort=True)[0]
    n_classes, n_values = codes.max() + 1, values.nunique()
    # Two patients of a class may look alike by chance; a dozen hardly do.
    if n_classes < 2 or np.bincount(codes).min() < 6:
        return False
    if numeric and n_values > n_classes:
        order = codes[np.argsort(values.to_numpy(), kind="stable")]
        return bool(np.count_nonzero(np.diff(order)) == n_classes - 1)
    # As many values as patients, such as names, give away nothing of the next patient.
    few = n_values <= max(n_classes, len(values) / 6)
    return bool(few and (pd.crosstab(values.astype(str), codes) > 0).sum(axis=1).max() == 1)


def _standardised(X: pd.DataFrame) -> Iterator[str]:
    """Blocks of numbers of which several columns have mean 0 and spread 1."""
    for name, columns in modalities(X).items():
        numbers = X[columns].select_dtypes("number")
        numbers = numbers.loc[:, numbers.nunique() > 2]
        if numbers.shape[1] < 2 or len(numbers) < 10:
            continue
        spread = np.minimum((numbers.std(ddof=0) - 1).abs(), (numbers.std(ddof=1) - 1).abs())
        n_scaled = int(((numbers.mean().abs() < 1e-4) & (spread < 1e-4)).sum())
        if n_scaled >= 2:
            yield f"{name}: {n_scaled} columns have mean 0 and spread 1; scale inside the pipeline"


def _twins(X: pd.DataFrame) -> Iterator[tuple[Any, Any, str]]:
    """Pairs of rows with one image file, or with equal numbers throughout."""
    for columns in modalities(X).values():
        if columns[0].endswith("_image"):
            paths = X[columns[0]].map(
                lambda cell: str(cell) if isinstance(cell, str) or hasattr(cell, "__fspath__") else None
            )
            yield from _equal(paths.dropna().to_frame(), "the same image file")
    numbers = X[[c for columns in modalities(X).values() for c in columns if not c.endswith("_image")]]
    numbers = numbers.select_dtypes("number")
    numbers = numbers.loc[:, numbers.nunique() > len(numbers) / 4]  # counts and codes are equal by chance
    if numbers.shape[1] >= 3:
        yield from _equal(numbers.dropna(), "the same numbers")


def _equal(table: pd.DataFrame, why: str) -> Iterator[tuple[Any, Any, str]]:
    for _, rows in table[table.duplicated(keep=False)].groupby(list(table.columns), sort=False):
        for other in rows.index[1:]:
            yield rows.index[0], other, why


def _as_columns(answer: Any, name: str = "prediction") -> dict[str, np.ndarray]:
    """Predictions as columns by name, each (n,) or (n, k)."""
    if isinstance(answer, Mapping):
        parts = (_as_columns(value, str(key)) for key, value in answer.items())
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(answer, pd.DataFrame):
        return {f"{name}: {column}": answer[column].to_numpy() for column in answer}
    return {name: np.asarray(answer)}


def _changes(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], tolerance: float) -> list[str]:
    return [
        f"{name} changed for {count} of {len(one[name])}"
        for name in one
        if (count := _n_changed(one[name], other[name], tolerance))
    ]


def _n_changed(one: np.ndarray, other: np.ndarray, tolerance: float) -> int:
    if len(one) != len(other):
        return len(one)
    if np.issubdtype(one.dtype, np.number) and not np.issubdtype(one.dtype, np.integer):
        scale = np.nanstd(one) or 1.0
        differs = ~np.isclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)
    else:
        differs = (one != other) & ~(pd.isna(one) & pd.isna(other))
    return int(differs.reshape(len(one), -1).any(axis=1).sum())
