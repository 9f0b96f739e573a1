"""From the columns of a table to the modalities of a model, each with its encoder."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from mmdls.cohort import cell_kind, modalities
from mmdls.estimators.columns._selection import select_columns
from mmdls.estimators.encoders._vector_data import open_array
from mmdls.parts import Slot
from mmdls.registry import encoders
from mmdls.scans._cells import has_geometry

__all__ = ["check_names", "find_modalities", "resolve_modalities"]


def resolve_modalities(
    X: pd.DataFrame,
    choice: Any,
    image_encoder: Any = "slices",
    table_encoder: Any = "table",
    *,
    blocks: Mapping[str, list[str]] | None = None,
) -> list[tuple[str, Any, list[str]]]:
    """The modalities that a model reads.

    Parameters
    ----------
    X : pandas.DataFrame
    choice : "auto", dict of columns, or list of (name, encoder, columns)
        See :class:`MMDLS`.
    image_encoder, table_encoder : str or estimator, default="slices" and "table"
        The encoders where ``choice`` names none.
    blocks : dict of str to list of str, default=None
        What ``"auto"`` means; None finds blocks by the names of the columns.

    Returns
    -------
    list of (name, encoder, columns)
        The encoders are clones.

    Raises
    ------
    ValueError
        If a column is not there, or there are no features at all.
    """

    listed = choice if isinstance(choice, list | tuple) else ()
    if listed and all(isinstance(part, list | tuple) and len(part) == 3 for part in listed):
        return [
            (name, _new(encoder), select_columns(X, columns, f"modality {name!r}")) for name, encoder, columns in listed
        ]
    chosen = {"images": image_encoder, "table": table_encoder}
    found = find_modalities(X, choice, blocks=blocks)
    return [(name, _new(chosen.get(kind, kind)), columns) for name, (kind, columns) in found.items()]


def check_names(choice: Any) -> None:
    """Refuse names of modalities that are no text, ValueError."""
    listed = (
        [part[0] for part in choice if isinstance(part, tuple | list) and part]
        if isinstance(choice, list | tuple)
        else []
    )
    wrong = [name for name in (choice if isinstance(choice, Mapping) else listed) if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"names of modalities must be texts such as 'clinical' or 'ct'; got {wrong[:5]}.")


def find_modalities(
    X: pd.DataFrame, choice: Any, *, blocks: Mapping[str, list[str]] | None = None
) -> dict[str, tuple[str, list[str]]]:
    """What the modalities hold that a model reads with the encoders for such contents.

    Parameters
    ----------
    X : pandas.DataFrame
    choice : "auto" or dict of columns
    blocks : dict of str to list of str, default=None
        As in :func:`resolve_modalities`.

    Returns
    -------
    dict of str to (str, list of str)
        By modality ``"images"``, ``"table"``, or the name of the encoder that reads it; and its columns.

    Raises
    ------
    ValueError
        As :func:`resolve_modalities`.
    """
    if isinstance(choice, Mapping) and choice:
        found = {name: select_columns(X, columns, f"modality {name!r}") for name, columns in choice.items()}
    elif isinstance(choice, str) and choice == "auto":
        found = dict(modalities(X) if blocks is None else blocks)
    else:
        raise ValueError(
            "modalities must be 'auto', a dict of columns such as {'clinical': ['age', 'sex']}, or a list of "
            f"(name, encoder, columns); got {choice!r}."
        )
    if not found:
        raise ValueError(
            "X has no feature columns: a feature is called '<block>_<name>', such as 'clinical_age', an image "
            "'<name>_image'; columns under any name are named in modalities={'clinical': ['age', 'sex']}. "
            f"Columns: {list(X.columns)}."
        )
    return {name: (_content(X[columns[0]]), columns) for name, columns in found.items()}


def _new(encoder: Any) -> Any:
    return clone(Slot(encoders).resolve(encoder))


def _content(column: pd.Series) -> str:
    """What a column holds, by its name; under another name, an array of slices or a file is an image.

    Parameters
    ----------
    column : pandas.Series of shape (n_patients,)

    Returns
    -------
    str
        ``"images"``, ``"table"``, or the name of the encoder that reads it.

    Raises
    ------
    ValueError
        If its cells are lists, or arrays of two axes: slices or vectors.
    """
    kind = cell_kind(column.name)
    if kind not in (None, "masks"):
        return kind
    known = column.dropna()
    first: Any = known.iloc[0] if len(known) else None
    if not isinstance(first, str | PathLike) and has_geometry(first):
        return "images"
    is_file = isinstance(first, str | PathLike) and Path(first).exists()
    is_array = is_file and Path(first).suffix.lower() == ".npy"
    array = open_array(first, f"column {column.name!r}, row {known.index[0]!r}") if is_array else first
    if isinstance(array, list) or np.ndim(array) == 2:
        found = "a list" if isinstance(array, list) else f"an array of shape {np.shape(array)}"
        raise ValueError(
            f"column {column.name!r} of X holds {found} (row {known.index[0]!r}), which may be an image or vectors of "
            "another model. Slices are read from a column '<name>_image', vectors from '<name>_vectors'; under another "
            f"name say which encoder reads it: modalities=[('<name>', 'slices' or 'vectors', {column.name!r}), ...]."
        )
    return "images" if is_file or np.ndim(array) >= 3 else "table"
