"""Which columns of a cohort a model reads, by the names of its inputs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import cell_kind, modalities

__all__ = ["SelectInputs", "columns_of", "lacking_inputs", "missing_inputs", "unavailable"]


class SelectInputs(TransformerMixin, BaseEstimator):
    """Keep the columns of some inputs: the first step of a model that shall see nothing else.

    Parameters
    ----------
    inputs : sequence of str
        Names of blocks (``"clinical"``, ``"pet"``, ``"lesion"``), ``"tables"`` for every block of numbers or
        categories, ``"images"`` for every image.

    Attributes
    ----------
    columns_ : list of str

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70], "pet_suvmax": [3.0, 8.0], "centre": ["A", "B"]})
    >>> SelectInputs(["clinical"]).fit_transform(X).columns.tolist()
    ['clinical_age']
    """

    def __init__(self, inputs: Sequence[str]):
        self.inputs = inputs

    def fit(self, X: pd.DataFrame, y: Any = None) -> "SelectInputs":
        """Find the columns.

        Raises
        ------
        ValueError
            If ``X`` lacks an input.
        """
        missing = missing_inputs(self, X)
        if missing:
            raise ValueError(f"the model reads the inputs {list(self.inputs)}; X has no {' and no '.join(missing)}.")
        self.columns_ = list(dict.fromkeys(c for name in self.inputs for c in columns_of(X, name)))
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Give the columns that were found in ``fit``; the model says what it needs of those that are gone."""
        check_is_fitted(self, "columns_")
        return X[[column for column in self.columns_ if column in X.columns]]


def columns_of(X: pd.DataFrame, name: str) -> list[str]:
    """The columns of one input.

    Parameters
    ----------
    X : pandas.DataFrame
    name : str
        A block, ``"tables"`` or ``"images"``.

    Returns
    -------
    list of str
        Empty if ``X`` lacks it.
    """
    blocks = modalities(X)
    if name not in ("tables", "images"):
        return list(blocks.get(name, ()))
    kind = "images" if name == "images" else None
    return [c for columns in blocks.values() for c in columns if cell_kind(c) == kind]


def missing_inputs(model: Any, X: pd.DataFrame) -> list[str]:
    """The inputs that a model reads and a cohort lacks.

    Parameters
    ----------
    model : estimator
        What a :class:`SelectInputs`, alone or as the first step of a ``Pipeline``, asks for.
    X : pandas.DataFrame

    Returns
    -------
    list of str
    """
    first = model.steps[0][1] if isinstance(model, Pipeline) else model
    return lacking_inputs(first.inputs, X) if isinstance(first, SelectInputs) else []


def lacking_inputs(inputs: Sequence[str], X: pd.DataFrame) -> list[str]:
    """Those of some inputs that a cohort lacks."""
    return [name for name in inputs if not columns_of(X, name)]


def unavailable(model: Any) -> str:
    """Why a model cannot be fitted on this machine, as the first of its parts that needs more than the library says.

    Parameters
    ----------
    model : estimator
        Such a part has a method ``unavailable()`` that says what is missing, or "".

    Returns
    -------
    str
        "" if it can be fitted.
    """
    parts = [model, *model.get_params(deep=True).values()]
    return next((why for part in parts if (why := getattr(part, "unavailable", str)())), "")
