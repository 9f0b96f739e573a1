"""Detection of data leakage: in tables, in folds, and in a whole modelling procedure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mmdls.cohort import align_rows, cell_kind, check_target, find_tasks, modalities

__all__ = ["audit_folds", "audit_procedure", "audit_tables"]

_COLUMNS = ["check", "passed", "detail"]


def audit_tables(X: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
    """Look for data leakage in a cohort before a model is fitted.

    The checks: features that determine an outcome on their own, blocks of numbers that were standardised over all
    patients, and patients who are in the table twice under two ids.

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
    features = [c for columns in modalities(X).values() for c in columns if cell_kind(c) is None]
    rows = [
        _row(
            "a feature that is an outcome", [f"{c} determines {task}" for c, task in _outcome_features(X[features], y)]
        ),
        _row("numbers standardised over all patients", list(_standardised(X))),
        _row("one patient under two ids", [f"{a} and {b}: {why}" for a, b, why in _near_duplicates(X)]),
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def audit_folds(folds: Iterable[tuple[Any, Any]], X: pd.DataFrame | None = None, groups: Any = None) -> pd.DataFrame:
    """Look for patients on both sides of a split.

    Parameters
    ----------
    folds : iterable of (train, test)
        Row numbers.
    X : pandas.DataFrame, default=None
        A cohort: rows that are equal except for their ids must not be divided either.
    groups : Series or array of shape (n_patients,), default=None
        Rows with one value belong together, for example scans of one patient. A Series is joined to X by patient id.

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
            for a, b, why in _near_duplicates(X)
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
    n_permutations: int = 16,
    n_halves: int = 10,
    tolerance: float = 1e-5,
    random_state: int = 0,
) -> pd.DataFrame:
    """Test a whole procedure for leakage: test rows must not change the predictions of other rows.

    The procedure is run repeatedly: with the outcomes of the test rows permuted (predictions must stay the same), and
    with half of the test rows removed from both tables (scaling, risk cut-points or ranks from the test set, or from
    all patients, would change the predictions for the other half). One permutation detects a choice between two
    candidates only half of the time, so there are several; the first ones reverse the order of the outcomes, which
    makes the best of all candidates the worst. A check ends with its first finding.

    Parameters
    ----------
    procedure : callable
        ``(X, y, train, test) -> predictions`` of the test rows in their order: an array, a Series, a DataFrame, or a
        dict of these. All steps that learn from data belong inside; ``train`` and ``test`` are row numbers.
    X, y : pandas.DataFrame
    train, test : array of shape (n_rows,), int
        Row numbers.
    n_permutations : int, default=16
        Permutations of the outcomes of the test rows: reversed once a task, then random.
    n_halves : int, default=10
        Number of random halves of the test rows.
    tolerance : float, default=1e-5
        Largest change that is ignored, relative to the standard deviation of a prediction.
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

    def permuted(order: np.ndarray) -> list[str]:
        rows = np.arange(len(y))
        rows[test] = test[order]
        answers = _as_columns(procedure(X, y.iloc[rows].set_axis(y.index), train, test))
        return _changes(first, answers, tolerance)

    def halved(half: np.ndarray) -> list[str]:
        stays = np.setdiff1d(np.arange(len(X)), np.setdiff1d(test, test[half]))
        fewer = X.iloc[stays], y.iloc[stays], np.searchsorted(stays, train), np.searchsorted(stays, test[half])
        answers = _as_columns(procedure(*fewer))
        # A class that only the removed rows had has no column.
        own = {name: values[half] for name, values in first.items() if name in answers}
        return _changes(own, answers, tolerance)

    orders = [*_reversed_orders(y.iloc[test], rng)][:n_permutations]
    orders += [rng.permutation(len(test)) for _ in range(n_permutations - len(orders))]
    halves = (np.sort(rng.permutation(len(test))[: max(len(test) // 2, 1)]) for _ in range(n_halves))
    again = _changes(first, _as_columns(procedure(X, y, train, test)), tolerance)
    rows = [
        _row("the same input gives the same prediction", again),
        _row("outcomes of test rows change nothing", _first_finding(permuted, orders)),
        _row("a test row's prediction does not depend on the others", _first_finding(halved, halves)),
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _reversed_orders(y: pd.DataFrame, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each task, the order of rows that gives the smallest outcome to the patient with the largest, and so on."""
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


def _outcome_features(features: pd.DataFrame, y: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Features that order an outcome, or separate its classes, without error."""
    for task in find_tasks(y).values():
        for column, name in product(features, task.columns):
            known = (y[name].notna() & features[column].notna()).to_numpy()
            if known.sum() < 4 or y[name][known].nunique() < 2:
                continue
            values, outcome = features.loc[known, column], y.loc[known, name]
            numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
            if name not in task.measured_columns:
                found = _determines_class(values, outcome, numeric)
            else:
                found = numeric and values.nunique() > 3 and _orders(values, outcome)
            if found:
                yield str(column), name


def _orders(values: pd.Series, outcome: pd.Series) -> bool:
    """Whether values put the patients in the order of the outcome, or in the opposite one."""
    return abs(np.corrcoef(rankdata(values), rankdata(outcome.astype(np.float64)))[0, 1]) > 0.995


def _determines_class(values: pd.Series, labels: pd.Series, numeric: bool) -> bool:
    """Whether values determine the class of every patient."""
    codes = pd.factorize(labels, sort=True)[0]
    n_classes, n_values = codes.max() + 1, values.nunique()
    # Few patients may be separated by chance; six of each class hardly are.
    if n_classes < 2 or np.bincount(codes).min() < 6:
        return False
    if numeric and n_values > n_classes:
        order = codes[np.argsort(values.to_numpy(), kind="stable")]
        return bool(np.count_nonzero(np.diff(order)) == n_classes - 1)
    # A value of its own for each patient, such as a name, does not predict other patients.
    few = n_values <= max(n_classes, len(values) / 6)
    return bool(few and (pd.crosstab(values.astype(str), codes) > 0).sum(axis=1).max() == 1)


def _standardised(X: pd.DataFrame) -> Iterator[str]:
    """Blocks of numbers in which several columns have mean 0 and standard deviation 1."""
    for name, columns in modalities(X).items():
        numbers = X[columns].select_dtypes("number")
        numbers = numbers.loc[:, numbers.nunique() > 2]
        if numbers.shape[1] < 2 or len(numbers) < 10:
            continue
        deviation = np.minimum((numbers.std(ddof=0) - 1).abs(), (numbers.std(ddof=1) - 1).abs())
        n_scaled = int(((numbers.mean().abs() < 1e-4) & (deviation < 1e-4)).sum())
        if n_scaled >= 2:
            yield f"{name}: {n_scaled} columns have mean 0 and standard deviation 1; scale inside the pipeline"


def _near_duplicates(X: pd.DataFrame) -> Iterator[tuple[Any, Any, str]]:
    """Pairs of rows with the same image file, or with the same numbers in all columns."""
    for columns in modalities(X).values():
        if cell_kind(columns[0]) is not None:
            paths = X[columns[0]].map(
                lambda cell: str(cell) if isinstance(cell, str) or hasattr(cell, "__fspath__") else None
            )
            yield from _equal(paths.dropna().to_frame(), "the same image file")
    numbers = X[[c for columns in modalities(X).values() for c in columns if cell_kind(c) is None]]
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
