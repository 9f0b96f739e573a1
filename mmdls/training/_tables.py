"""Checks of a cohort's tables before training: who has values, outcomes and weights by patient id; nothing of torch."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import _check_sample_weight

from mmdls.cohort import (
    align_rows,
    endpoint_name,
    refuse_other_tables,
    survival_target,
)
from mmdls.cohort._cells import plain_columns

__all__ = [
    "counted_rows",
    "endpoint_table",
    "outcome_table",
    "patient_weights",
    "refuse_no_numbers",
    "rows_with_values",
    "scored_outcome",
]


def rows_with_values(X: pd.DataFrame) -> np.ndarray:
    """True for each row that has a value in at least one column, (n_patients,); a blank text is none."""
    here = X.notna().to_numpy(copy=True)
    for i in np.flatnonzero(~plain_columns(X)):
        column = X.iloc[:, i]
        if not pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            here[:, i] &= [not isinstance(value, str) or bool(value.strip()) for value in column]
    return here.any(axis=1)


def refuse_no_numbers(X: Any) -> None:
    """Refuse input that cannot be read as an array of numbers: a single column, or text in columns without names.

    Raises
    ------
    TypeError
        If X is a single column.
    ValueError
        With the column and the cell.
    """
    if isinstance(X, pd.Series | pd.Index):
        raise TypeError(
            f"X must be a table of patients, or an array of shape (n_patients, n_features); got a {type(X).__name__} "
            f"of length {len(X)}. A single column as a table is X.to_frame()."
        )
    if not isinstance(X, pd.DataFrame):
        return
    for i, name in enumerate(X.columns):
        column = X.iloc[:, i]
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        wrong = [k for k, value in enumerate(column) if not _is_number(value)]
        if wrong:
            raise ValueError(
                f"column {name!r} of X holds {column.iloc[wrong[0]]!r:.80} (row {X.index[wrong[0]]!r}), and a table "
                "whose columns have no names of text is read as an array of numbers. Give its columns names, such as "
                "'clinical_sex'; of a column index with several levels: X.columns = X.columns.map('_'.join)."
            )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return pd.api.types.is_scalar(value) and bool(pd.isna(value))
    return not isinstance(value, np.timedelta64)


def outcome_table(y: Any, index: pd.Index, *, by_id: bool = True) -> pd.DataFrame:
    """A table of outcomes, in the order of the patients, from any target of scikit-learn or scikit-survival.

    Parameters
    ----------
    y : pandas.DataFrame, pandas.Series, structured array of shape (n,), or labels of shape (n,)
        A table or Series is joined by patient id; an array has its rows in the order of the patients.
    index : pandas.Index
        The patients.
    by_id : bool, default=True
        False if the patients have no ids because X is an array; rows are then matched by position.

    Returns
    -------
    pandas.DataFrame of shape (n_patients, n_columns)
        The columns of a table; a structured array as ``survival_time`` and ``survival_event``; a Series under its
        name, labels as ``label``.

    Raises
    ------
    TypeError, ValueError
        If ``y`` is None, belongs to another library or other patients, or has another length.
    """
    if y is None:
        raise ValueError(
            "fit requires y to be passed, but the target y is None; give a table of outcomes, a structured survival "
            "array, or labels."
        )
    refuse_other_tables(y, "y")
    if isinstance(y, pd.Series):
        y = y.to_frame(y.name if isinstance(y.name, str) else "label")
    if isinstance(y, pd.DataFrame) and by_id:
        return align_rows(y, index, "y", exact=True)
    if not isinstance(y, pd.DataFrame):
        y = np.asarray(y)
    if y.ndim == 0 or len(y) != len(index):
        raise ValueError(
            f"X has {len(index)} patients and y has {len(y) if y.ndim else 'a single value'}; both need one row a "
            "patient."
        )
    if isinstance(y, pd.DataFrame):
        return y.set_axis(index)
    if y.dtype.names is not None:
        target = survival_target(y)
        return pd.DataFrame(
            {"survival_time": target["time"], "survival_event": target["event"].astype(float)}, index=index
        )
    if y.ndim != 1:
        raise ValueError(f"y must be a table, a structured array or 1-d labels; got an array of shape {y.shape}.")
    return pd.DataFrame({"label": y}, index=index)


def endpoint_table(y: Any, index: pd.Index, endpoint: str | None, *, by_id: bool = True) -> tuple[pd.DataFrame, str]:
    """:func:`outcome_table` of one endpoint, and the name of the endpoint in it.

    Raises
    ------
    ValueError
        If ``y`` is neither a table nor a structured array, or has several endpoints and ``endpoint`` is None.
    """
    if y is not None and not isinstance(y, pd.DataFrame):
        refuse_other_tables(y, "y")
        survival_target(y)
        endpoint = None
    table = outcome_table(y, index, by_id=by_id)
    return table, endpoint_name(table, endpoint)


def scored_outcome(y: Any, index: pd.Index, endpoint: str, *, by_id: bool = True) -> np.ndarray:
    """The outcomes of one endpoint for scoring; a model fitted on an array uses the only endpoint of a table."""
    unnamed = isinstance(y, pd.DataFrame) and endpoint == "survival" and "survival_time" not in y
    return survival_target(*endpoint_table(y, index, None if unnamed else endpoint, by_id=by_id))


def counted_rows(
    table: pd.DataFrame, y: pd.DataFrame, sample_weight: np.ndarray | None
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray | None]:
    """The patients with a weight above 0, in the same order: weight 0 means that a patient is absent."""
    if sample_weight is None or (sample_weight > 0).all():
        return table, y, sample_weight
    counted = sample_weight > 0
    return table[counted], y[counted], sample_weight[counted]


def patient_weights(sample_weight: Any, index: pd.Index, *, by_id: bool = True) -> np.ndarray | None:
    """Weights of patients in their order, checked; see :func:`outcome_table` for ``index`` and ``by_id``.

    Raises
    ------
    ValueError
        If a weight is negative or missing, or belongs to another patient.
    """
    if sample_weight is None:
        return None
    refuse_other_tables(sample_weight, "sample_weight")
    if isinstance(sample_weight, pd.Series) and by_id:
        sample_weight = align_rows(sample_weight, index, "sample_weight")
    cells = np.asarray(sample_weight, dtype=object).ravel()
    if wrong := [value for value in cells if not _is_number(value) or isinstance(value, str)]:
        raise ValueError(f"sample_weight must hold one number a patient; got {wrong[0]!r:.80}.")
    return _check_sample_weight(sample_weight, np.empty((len(index), 1)), ensure_non_negative=True)
