"""The classes of a column of labels, their order, and the number of each patient's class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["class_codes", "class_labels", "plain_value"]


def class_labels(column: pd.Series) -> tuple[Any, ...]:
    """The classes of a column of labels.

    Parameters
    ----------
    column : pandas.Series of shape (n_patients,)
        Booleans, numbers, text or categories of any dtype; missing values are unknown labels.

    Returns
    -------
    tuple
        All categories of an ordered categorical, in their order, including those without patients. For other columns
        the values that occur, sorted. Plain Python booleans, numbers and strings; whole numbers are ``int``, since a
        column of integers becomes one of floats when a value is missing.

    Raises
    ------
    ValueError
        If the labels are of different kinds, such as 1 and ``"1"``.

    Examples
    --------
    >>> class_labels(pd.Series([1.0, None, 0.0]))
    (0, 1)
    >>> class_labels(pd.Series(pd.Categorical(["IV"], ["I-II", "III", "IV"], ordered=True)))
    ('I-II', 'III', 'IV')
    """
    if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered:
        return tuple(map(plain_value, column.dtype.categories))
    values = [plain_value(value) for value in column.dropna().to_numpy(dtype=object)]
    kinds: dict[str, Any] = {}
    for value in values:
        kinds.setdefault(_kind(value), value)
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise ValueError(
            f"{column.name!r} holds labels of different kinds, for example {first!r} ({type(first).__name__}) and "
            f"{second!r} ({type(second).__name__}); give all of them as text or all as numbers, for example "
            f"y[{column.name!r}].map(str, na_action='ignore')."
        )
    try:
        return tuple(sorted(set(values)))
    except TypeError as error:
        example = next(iter(kinds.values()))
        raise ValueError(
            f"{column.name!r} holds {type(example).__name__} values such as {example!r}, which are no labels; give "
            "text, whole numbers, booleans or categories."
        ) from error


def class_codes(column: pd.Series, classes: Sequence[Any]) -> np.ndarray:
    """The position of each patient's label among the classes.

    Parameters
    ----------
    column : pandas.Series of shape (n_patients,)
    classes : sequence

    Returns
    -------
    ndarray of shape (n_patients,), int64
        -1 where the label is unknown or is not among the classes.

    Examples
    --------
    >>> class_codes(pd.Series(["IV", None, "I"]), ["I", "IV"]).tolist()
    [1, -1, 0]
    """
    place = {label: i for i, label in enumerate(classes)}
    known = column.notna().to_numpy()
    codes = np.full(len(column), -1, dtype=np.int64)
    codes[known] = [place.get(plain_value(value), -1) for value in column[known].to_numpy(dtype=object)]
    return codes


def plain_value(value: Any) -> Any:
    """A NumPy scalar as the Python scalar; a float with a whole value as an int, so that 1.0 and 1 are one class."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__
