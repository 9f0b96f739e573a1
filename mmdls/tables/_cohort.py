"""Table 1: characteristics of the patients, missing values, follow-up."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mmdls._hints import did_you_mean
from mmdls.cohort import align_rows, cell_kind, find_tasks, refuse_measurements
from mmdls.cohort._alignment import check_columns_once
from mmdls.cohort._task import decimals_of, quartiles_text
from mmdls.tables._group_tests import compare_groups, is_number

__all__ = ["describe_cohort", "levels"]


def describe_cohort(
    X: pd.DataFrame,
    y: pd.DataFrame,
    by: Any = None,
    columns: Sequence[str] | None = None,
    *,
    smd: bool = False,
    tests: bool = False,
) -> pd.DataFrame:
    """Table 1: characteristics of the patients, missing values, follow-up.

    Parameters
    ----------
    X, y : pandas.DataFrame
        A cohort; y is joined to X by patient id.
    by : Series or array of shape (n_patients,), default=None
        Grouping, for example the centre or the split; the table has one column for each of its values, after that of
        all patients. A Series is joined by patient id; patients without a value are in a column "missing".
    columns : sequence of str, default=None
        Of ``X``; None means all that are neither images, masks nor radiomics.
    smd : bool, default=False
        Add the standardised mean difference [1]_ of each column of ``X``, the largest between two groups of ``by``:
        of numbers in standard deviations, of categories by the distance of their shares [2]_; missing values left out.
    tests : bool, default=False
        Add columns ``p`` and ``test`` that compare the groups of ``by``, missing values left out: numbers by Mann and
        Whitney's test, or Kruskal and Wallis's of more than two groups; categories and classes by chi-squared, by
        Fisher's exact test of four cells of which one expects fewer than 5 patients, and by chi-squared over 9,999
        permutations of a larger table with such a cell; endpoints by the log-rank test. They are not corrected for
        their number, and say nothing of the size of a difference: see ``smd``.

    Returns
    -------
    pandas.DataFrame
        Text, indexed by variable and level: median [quartiles] of numbers, count (%) of categories, classes and
        missing values, of all patients of the column; events, median with its interval
        (:func:`mmdls.metrics.median_survival`) and median follow-up (reverse Kaplan-Meier) of endpoints.

    Raises
    ------
    ValueError
        If ``by`` has a value called "all" or "missing", or holds a measurement, or ``columns`` does not name columns of
        ``X``, each once.

    References
    ----------
    .. [1] Austin PC. Balance diagnostics for comparing the distribution of baseline covariates between treatment
       groups in propensity-score matched samples. Statistics in Medicine, 2009.
    .. [2] Yang D, Dalton JE. A unified approach to measuring the effect size between two groups using SAS. SAS
       Global Forum, 2012.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70, 80], "clinical_sex": ["f", "m", None]})
    >>> y = pd.DataFrame({"os_time": [9.0, 20.0, 30.0], "os_event": [1, 0, 0]})
    >>> describe_cohort(X, y)["all"].to_dict()[("clinical_age", "median [quartiles]")]
    '70 [65, 75]'
    """
    check_columns_once(X, "X")
    if columns is None:
        columns = [c for c in X.columns if cell_kind(c) is None and not str(c).startswith("radiomics_")]
    lost = [] if isinstance(columns, str) else [column for column in columns if column not in X.columns]
    if isinstance(columns, str) or lost or len(set(columns)) < len(columns):
        hint = did_you_mean(lost[0], X.columns) if lost else ""
        raise ValueError(f"columns must be a list of columns of X, each once; got {columns!r:.200}.{hint}")
    parts: dict[str, Any] = {"all": np.ones(len(X), dtype=bool)}
    y = align_rows(y, X.index, "y")
    by = align_rows(by, X.index, "by")
    if by is not None:
        by = by if isinstance(by, pd.Series) else pd.Series(by, index=X.index)
        refuse_measurements(by, "by")
        names = ["all", *(["missing"] if by.isna().any() else []), *map(str, levels(by))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"by has values with reserved names: {twice}. 'all' means all patients, 'missing' those without a "
                "value. Rename these values."
            )
        parts |= {str(value): (by == value).to_numpy(bool, na_value=False) for value in levels(by)}
        if by.isna().any():
            parts["missing"] = by.isna().to_numpy()
    table = pd.DataFrame({name: _description(X[list(columns)], y, rows) for name, rows in parts.items()})
    table = table.fillna("0 (0%)")
    groups = [rows for name, rows in parts.items() if name not in ("all", "missing")]
    first = {name: (name, level) for name, level in reversed(table.index)}
    if smd:
        table["SMD"] = ""
        for name in columns:
            table.loc[[first[name]], "SMD"] = _difference(X[name], groups)
    if tests:
        table[["p", "test"]] = ""
        outcomes = {task.name: task.outcome(y) for task in find_tasks(y).values()}
        for name, values in {**X[list(columns)], **outcomes}.items():
            table.loc[[first[name]], ["p", "test"]] = compare_groups(values, groups)
    return table


def _difference(values: pd.Series, groups: list[np.ndarray]) -> str:
    """The largest standardised mean difference between two groups, as text; empty where it is not defined."""
    number = is_number(values)
    columns = (
        values.astype(float).to_numpy()[:, None]
        if number
        else np.column_stack(
            [(values == level).to_numpy(bool, na_value=False) for level in levels(values)[1:]]
            or [np.zeros(len(values))]
        ).astype(float)
    )
    known = values.notna().to_numpy()
    parts = [columns[rows & known] for rows in groups]
    found = [np.nan]
    for one, other in combinations([part for part in parts if len(part) > number], 2):
        shift = one.mean(axis=0) - other.mean(axis=0)
        covariances = [np.atleast_2d(np.cov(part, rowvar=False, ddof=int(number))) for part in (one, other)]
        spread = np.mean(covariances, axis=0)
        found.append(float(np.sqrt(shift @ np.linalg.pinv(spread) @ shift)) if spread.any() else np.nan)
    return "" if np.isnan(found).all() else f"{np.nanmax(found):.2f}"


def _description(X: pd.DataFrame, y: pd.DataFrame, rows: np.ndarray) -> pd.Series:
    cells = {("patients", ""): f"{rows.sum()}"}
    for name in X.columns:
        whole, values = X[name], X.loc[rows, name]
        if is_number(whole):
            cells[name, "median [quartiles]"] = quartiles_text(
                values.dropna().to_numpy(dtype=np.float64),
                decimals_of(whole.to_numpy(dtype=np.float64, na_value=np.nan)),
            )
        else:
            for level in levels(whole):
                cells[name, _readable(level)] = _count((values == level).sum(), rows.sum())
        if whole.isna().any():
            cells[name, "missing"] = _count(values.isna().sum(), rows.sum())
    # Endpoints stand last.
    for task in sorted(find_tasks(y).values(), key=lambda task: task.is_censored):
        known = task.known(task.outcome(y))
        cells |= {(task.name, level): text for level, text in task.describe(y.loc[rows]).items()}
        if not known.all():
            cells[task.name, "missing"] = _count((~known[rows]).sum(), rows.sum())
    return pd.Series(cells)


def levels(values: pd.Series) -> list[Any]:
    """The values of a grouping: the categories of a categorical in their order, otherwise sorted.

    Parameters
    ----------
    values : Series of shape (n_patients,)

    Returns
    -------
    list

    Examples
    --------
    >>> levels(pd.Series(["b", "a", None, "b"]))
    ['a', 'b']
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return list(values.cat.categories)
    return sorted(values.dropna().unique(), key=None if pd.api.types.is_numeric_dtype(values) else str)


def _readable(level: Any) -> str:
    """Yes and no for booleans, whole numbers without a point."""
    if isinstance(level, bool | np.bool_):
        return "yes" if level else "no"
    return f"{level:g}" if isinstance(level, float) and level.is_integer() else str(level)


def _count(n: int, of: int) -> str:
    return f"{n} ({n / of:.0%})" if of else "0"
