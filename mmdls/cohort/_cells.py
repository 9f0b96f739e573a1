"""What a cell of a column holds, by the name of the column: an image, vectors, or what a plug-in reads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.registry import encoders

__all__ = ["cell_columns", "cell_kind", "modality_name", "plain_columns", "take_columns"]

_ENDINGS = {"_image": "images", "_mask": "masks", "_vectors": "vectors"}


def cell_kind(column: Any) -> str | None:
    """What each cell of a column holds, if it is more than a number or a category.

    Columns end in ``_image``, ``_mask``, ``_vectors``, or in the name of an installed encoder that reads them.

    Parameters
    ----------
    column : object
        Name of a column.

    Returns
    -------
    {"images", "masks", "vectors"}, the name of an encoder, or None

    Examples
    --------
    >>> [cell_kind(name) for name in ("ct_image", "lung_mask", "slide_vectors", "clinical_age", 7)]
    ['images', 'masks', 'vectors', None, None]
    """
    if not isinstance(column, str):
        return None
    for ending, kind in _ENDINGS.items():
        if column.endswith(ending):
            return kind
    word = column.rpartition("_")[2]
    # A table is read by its block; and a plug-in is imported only for a column that ends with its name.
    if word != "table" and word in encoders.known() and getattr(encoders[word], "reads", None) == word:
        return word
    return None


def cell_columns(X: Any) -> list[str]:
    """The columns of a table whose cells hold more than a number or a category; none of another kind of table.

    Parameters
    ----------
    X : object

    Returns
    -------
    list of str

    Examples
    --------
    >>> cell_columns(pd.DataFrame(columns=["ct_image", "lesion_mask", "slide_vectors", "clinical_age"]))
    ['ct_image', 'lesion_mask', 'slide_vectors']
    """
    return [column for column in getattr(X, "columns", ()) if cell_kind(column) is not None]


def modality_name(column: str) -> str:
    """The modality of a column with an ending.

    Parameters
    ----------
    column : str

    Returns
    -------
    str

    Examples
    --------
    >>> modality_name("lung_lesion_image")
    'lung_lesion'
    """
    return column.rpartition("_")[0]


def take_columns(X: pd.DataFrame, names: Sequence[Any]) -> pd.DataFrame:
    """``X[names]`` by their places; of few rows, pandas' own search for the names takes several times as long.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_columns)
        Each column once.
    names : sequence of n_names columns

    Returns
    -------
    pandas.DataFrame of shape (n_patients, n_names)

    Examples
    --------
    >>> take_columns(pd.DataFrame({"clinical_age": [60], "clinical_sex": ["F"]}), ["clinical_sex"])
      clinical_sex
    0            F
    """
    place = {column: i for i, column in enumerate(X.columns.tolist())}
    return X.take([place[name] for name in names], axis=1)


def plain_columns(X: pd.DataFrame) -> np.ndarray:
    """Which columns hold numpy's own numbers or booleans, so that all of them can be read at once.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_columns)

    Returns
    -------
    ndarray of bool, shape (n_columns,)

    Examples
    --------
    >>> plain_columns(pd.DataFrame({"clinical_age": [60, 71], "clinical_sex": ["F", "M"]}))
    array([ True, False])
    """
    return np.array([isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in X.dtypes], dtype=bool)
