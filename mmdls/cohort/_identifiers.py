"""Which columns are identifiers of patients rather than measurements."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["identifiers", "is_free_text", "is_identifier", "is_identifier_name"]

# "glcm_id" is a measurement of radiomics, the inverse difference.
_NAME = re.compile(r"(^|[^a-z0-9])(?<!glcm_)((patient|case|study|subject|person|hospital)?id|pid|mrn|uid|uuid)$")
_FEWEST = 10
_FEWEST_TEXTS = 5
_WORDS = 5


def is_identifier_name(name: str) -> bool:
    """Whether a name is that of an identifier.

    Examples
    --------
    >>> [is_identifier_name(name) for name in ("patient_id", "PatientID", "clinical_mrn", "clinical_grid")]
    [True, True, True, False]
    """
    return _NAME.search(name.strip().lower()) is not None


def identifiers(X: pd.DataFrame, columns: Iterable[Any] | None = None) -> set[Any]:
    """The columns of a table that are identifiers; see :func:`is_identifier`.

    A column of fractions is one by its name only, so that a wide table of measurements is not read at all.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_columns)
    columns : iterable, default=None
        Names of the columns to look at; None means all.

    Returns
    -------
    set

    Examples
    --------
    >>> identifiers(pd.DataFrame({"patient_id": ["a", "b"], "clinical_age": [60.0, 71.5]}))
    {'patient_id'}
    """
    dtypes = dict(zip(X.columns, X.dtypes, strict=True))
    asked = [
        name
        for name in (X.columns if columns is None else columns)
        if not pd.api.types.is_float_dtype(dtypes[name]) or (isinstance(name, str) and is_identifier_name(name))
    ]
    return {name for name in asked if is_identifier(X[name])}


def is_identifier(column: pd.Series) -> bool:
    """Whether a column identifies patients: by its name, or because every patient has a different value.

    Parameters
    ----------
    column : pandas.Series of shape (n_patients,)

    Returns
    -------
    bool
        True for the name of an identifier, unless the values have fractions; for texts that are not numbers and are all
        different, unless they are free text; for whole numbers that are consecutive and all different. With fewer than
        10 values only the name counts.

    Examples
    --------
    >>> is_identifier(pd.Series([f"ward {i}" for i in range(20)])), is_identifier(pd.Series([60, 71] * 10))
    (True, False)
    """
    if isinstance(column.name, str) and is_identifier_name(column.name):
        # PyRadiomics calls a measurement "Id" (inverse difference); no identifier has fractions.
        return not (pd.api.types.is_float_dtype(column.dtype) and bool((column.dropna() % 1 != 0).any()))
    dtype = column.dtype.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    if len(column) < _FEWEST or pd.api.types.is_float_dtype(dtype):
        return False
    known = column.dropna()
    if len(known) < _FEWEST:
        return False
    if pd.api.types.is_integer_dtype(dtype):
        values = np.unique(known.to_numpy(dtype=np.int64))
        return len(values) == len(known) and bool(values[-1] - values[0] == len(values) - 1)
    if pd.api.types.is_numeric_dtype(dtype):
        return False
    if not isinstance(dtype, pd.StringDtype) and pd.api.types.infer_dtype(known.astype(object)) != "string":
        return False
    if known.nunique() != len(known):
        return False
    # Numbers written as text are a measurement, which must be converted, unless they are consecutive row numbers.
    numbers = pd.to_numeric(known.astype(object).str.strip().str.replace(",", "."), errors="coerce").dropna()
    if len(numbers) > len(known) / 2:
        return len(numbers) == len(known) and bool((numbers % 1 == 0).all()) and is_identifier(numbers.astype(np.int64))
    return not is_free_text(column)


def is_free_text(column: pd.Series) -> bool:
    """Whether a column holds sentences: texts of which most are different, and most of at least five words.

    Labels of few words ("right upper lobe"), longer labels that patients share, and columns with a categorical dtype
    are categories. With fewer than 5 values, nothing is called free text.

    Parameters
    ----------
    column : pandas.Series of shape (n_patients,)

    Returns
    -------
    bool

    Examples
    --------
    >>> is_free_text(pd.Series([f"Mass of {i} mm in the right upper lobe." for i in range(20)]))
    True
    >>> is_free_text(pd.Series(["squamous cell carcinoma, not otherwise specified", "adenocarcinoma"] * 10))
    False
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(column.dtype):
        return False
    texts = [cell for cell in column if isinstance(cell, str) and cell.strip()]
    if len(texts) < _FEWEST_TEXTS:
        return False
    return len(set(texts)) > len(texts) / 2 and float(np.median([len(text.split()) for text in texts])) >= _WORDS
