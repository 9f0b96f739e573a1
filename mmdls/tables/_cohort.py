"""Table 1: characteristics of the patients, missing values, follow-up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import align_rows, cell_kind, find_tasks

__all__ = ["describe_cohort", "levels"]


def describe_cohort(
    X: pd.DataFrame, y: pd.DataFrame, by: Any = None, columns: Sequence[str] | None = None
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

    Returns
    -------
    pandas.DataFrame
        Text, indexed by variable and level: median [quartiles] of numbers, count (%) of categories and classes, count
        (%) of missing values, events and median follow-up (reverse Kaplan-Meier) of endpoints.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70, 80], "clinical_sex": ["f", "m", None]})
    >>> y = pd.DataFrame({"os_time": [9.0, 20.0, 30.0], "os_event": [1, 0, 0]})
    >>> describe_cohort(X, y)["all"].to_dict()[("clinical_age", "median [quartiles]")]
    '70 [65, 75]'
    """
    if columns is None:
        columns = [c for c in X.columns if cell_kind(c) is None and not str(c).startswith("radiomics_")]
    parts: dict[str, Any] = {"all": np.ones(len(X), dtype=bool)}
    y = align_rows(y, X.index, "y")
    by = align_rows(by, X.index, "by")
    if by is not None:
        by = by if isinstance(by, pd.Series) else pd.Series(by, index=X.index)
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
    return pd.DataFrame({name: _description(X[list(columns)], y, rows) for name, rows in parts.items()}).fillna(
        "0 (0%)"
    )


def _description(X: pd.DataFrame, y: pd.DataFrame, rows: np.ndarray) -> pd.Series:
    cells = {("patients", ""): f"{rows.sum()}"}
    for name in X.columns:
        whole, values = X[name], X.loc[rows, name]
        if pd.api.types.is_numeric_dtype(whole) and whole.nunique() > 2:
            low, middle, high = (
                np.nanquantile(values.astype(float), [0.25, 0.5, 0.75]) if values.notna().any() else [np.nan] * 3
            )
            cells[name, "median [quartiles]"] = f"{middle:.3g} [{low:.3g}, {high:.3g}]"
        else:
            for level in levels(whole):
                cells[name, str(level)] = _count((values == level).sum(), values.notna().sum())
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


def _count(n: int, of: int) -> str:
    return f"{n} ({n / of:.0%})" if of else "0"
