"""Rows joined by patient id."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._endpoints import shortened

__all__ = ["align_rows", "check_columns_once", "check_unique", "id_places", "refuse_other_tables", "require_patients"]


def align_rows(values: Any, index: pd.Index, name: str, *, exact: bool = False) -> Any:
    """Bring one value a patient into the order of a table: by id where the values carry ids, by place otherwise.

    Parameters
    ----------
    values : pandas.Series, pandas.DataFrame, array of shape (n_patients, ...) or None
        A Series or a DataFrame may hold more patients, in any order; an array has one row a patient of the table.
    index : pandas.Index
        Ids of the patients in the order that is wanted.
    name : str
        The name of the values in messages.
    exact : bool, default=False
        Also refuse patients that are not in the table.

    Returns
    -------
    pandas.Series, pandas.DataFrame, ndarray or None
        The same kind, one row a patient of ``index``.

    Raises
    ------
    TypeError
        If ``values`` is a single value.
    ValueError
        If patients are missing or repeated, or the number of rows of an array differs.

    Examples
    --------
    >>> centre = pd.Series(["A", "B", "C"], index=["P1", "P2", "P3"])
    >>> align_rows(centre, pd.Index(["P3", "P1"]), "centre").tolist()
    ['C', 'A']
    """
    if values is None:
        return None
    refuse_other_tables(values, name)
    if isinstance(values, pd.Series | pd.DataFrame):
        if values.index.equals(index):
            return values
        check_unique(index, "X")
        check_unique(values.index, name)
        place = id_places(index, values.index)
        missing = index[place < 0]
        numbered = len(values) == len(index) and values.index.equals(pd.RangeIndex(len(index)))
        if exact and (len(missing) or len(values) > len(index)):
            beyond = values.index[id_places(values.index, index) < 0]
            raise ValueError(
                f"X has {len(index)} patients and {name} has {len(values)}, and their ids differ: only in X "
                f"{shortened(missing)}, only in {name} {shortened(beyond)}. Both need one row a patient with the same "
                "ids as index"
                + (f", or pass {name}.to_numpy() if its rows stand in the order of X." if numbered else ".")
            )
        if len(missing):
            raise ValueError(
                f"{name} lacks {len(missing)} of the {len(index)} patients, such as {shortened(missing)}; its index "
                f"holds {shortened(values.index)}. Rows are joined by patient id: give {name} the ids of X as its index"
                + (f", or pass {name}.to_numpy() if its rows stand in the order of X." if numbered else ".")
            )
        return values.iloc[place].set_axis(index, axis=0)
    if isinstance(values, str | bytes) or np.ndim(values) == 0:
        raise TypeError(f"{name} must hold one value a patient; got the single value {values!r}.")
    values = np.asarray(values)
    if len(values) != len(index):
        raise ValueError(f"{name} has {len(values)} rows and there are {len(index)} patients; give one row a patient.")
    return values


def refuse_other_tables(values: Any, name: str) -> None:
    """Refuse tables of other libraries, whose rows carry no ids and whose columns would lose their names.

    Parameters
    ----------
    values : object
        What a user gave.
    name : str
        What it is, for the message.

    Raises
    ------
    TypeError
        With the conversion.

    Examples
    --------
    >>> refuse_other_tables({"clinical_age": [60, 70]}, "X")
    Traceback (most recent call last):
    ...
    TypeError: X must be a pandas DataFrame with a row for each patient; got dict. Make it one.
    """
    # A sparse matrix may be a mapping; scikit-learn's own check refuses it.
    mapping = isinstance(values, Mapping) and not hasattr(values, "dtype")
    if name == "X" and (mapping or isinstance(values, pd.Series)):
        raise TypeError(
            f"X must be a pandas DataFrame with a row for each patient; got {type(values).__name__}. "
            + (
                "A column is X[[name]], one patient is X.loc[[id]]."
                if isinstance(values, pd.Series)
                else "Make it one."
            )
        )
    if isinstance(values, pd.Series | pd.DataFrame) or not hasattr(values, "to_pandas"):
        return
    of = f"{type(values).__module__.partition('.')[0]} {type(values).__name__}"
    columns = f"{name}.to_pandas()" + (".set_index('<the column of patient ids>')" if np.ndim(values) != 1 else "")
    raise TypeError(f"{name} must be pandas; got a {of}, whose rows carry no patient ids. Convert it: {columns}.")


def require_patients(X: Any) -> None:
    """Refuse what is no pandas DataFrame of patients.

    Parameters
    ----------
    X : object
        What a user gave.

    Raises
    ------
    TypeError
        With the conversion, where there is one.

    Examples
    --------
    >>> require_patients([[60.0], [70.0]])
    Traceback (most recent call last):
    ...
    TypeError: X must be a pandas DataFrame, one row a patient; got list.
    """
    refuse_other_tables(X, "X")
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a pandas DataFrame, one row a patient; got {type(X).__name__}.")


def id_places(ids: pd.Index, patients: pd.Index) -> np.ndarray:
    """The position of each id among the patients, whatever the dtypes of both; -1 if it is not among them.

    Parameters
    ----------
    ids, patients : pandas.Index
        Each id once.

    Returns
    -------
    ndarray of int, shape (n_ids,)

    Examples
    --------
    >>> id_places(pd.CategoricalIndex(["P2", "P9"]), pd.Index(["P1", "P2"], dtype="string")).tolist()
    [1, -1]
    """
    return _plain_ids(patients).get_indexer(_plain_ids(ids))


def _plain_ids(index: pd.Index) -> pd.Index:
    return pd.Index(index.to_numpy(dtype=object), dtype=object, tupleize_cols=False)


def check_columns_once(table: pd.DataFrame, name: str) -> None:
    """Refuse columns that stand more than once, with their names.

    Raises
    ------
    ValueError
    """
    again = table.columns.duplicated()
    if again.any():
        repeated = shortened(table.columns[again].unique())
        raise ValueError(f"{name} has the columns {repeated} more than once; give every column its own name.")


def check_unique(index: pd.Index, table: str) -> None:
    """Refuse rows without a patient id, and ids that stand more than once.

    Parameters
    ----------
    index : pandas.Index
        The patient ids.
    table : str
        The name of the table in messages.

    Raises
    ------
    ValueError
        With the ids.
    """
    levels = [index.get_level_values(level) for level in range(index.nlevels)]
    unnamed = np.any([level.isna() for level in levels], axis=0)
    if unnamed.any():
        raise ValueError(
            f"{table} has {int(unnamed.sum())} rows without a patient id (a missing value in the index); give "
            "every patient an id."
        )
    again = index.duplicated()
    if again.any():
        repeated = index[again].unique()
        raise ValueError(
            f"{table} has more than one row for the patients {shortened(repeated)}; the index is the patient id and "
            "each patient has one row. Merge or drop the repeated rows, or reset the index if it is no id."
        )
