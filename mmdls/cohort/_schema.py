"""What the columns of a cohort mean: blocks of features, images, endpoints, class tasks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmdls.cohort._classes import class_labels
from mmdls.cohort._identifiers import is_identifier

__all__ = ["Task", "find_tasks", "modalities", "warn_unused"]


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    Parameters
    ----------
    name : str
        ``"os"`` for the columns ``os_time`` and ``os_event``, otherwise the column's name.
    kind : {"survival", "ordinal", "classification"}
        A right-censored endpoint, an ordered categorical, or any other column.
    columns : tuple of str
        The columns of ``y`` that hold it.
    classes : tuple, default=()
        The classes in order, those of an ordinal task with and without patients; empty for an endpoint.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    classes: tuple[Any, ...] = ()


def modalities(X: pd.DataFrame) -> dict[str, list[str]]:
    """Find the modalities of a table of patients by the names of its columns.

    ``<name>_image`` is an image modality called ``<name>``; columns ``<block>_*`` are one tabular modality called
    ``<block>``; ``*_mask`` columns, columns without an underscore and identifiers are carried along, never features.
    An identifier has the name of one (``*_id``, ``*_mrn``), or a value of its own for each patient: text, or whole
    numbers that count the rows.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_columns)

    Returns
    -------
    dict of str to list of str
        Columns of each modality, image modalities first, both in the order of the table.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame(columns=["lesion_image", "lesion_mask", "clinical_age", "clinical_sex", "centre"])
    >>> modalities(X)
    {'lesion': ['lesion_image'], 'clinical': ['clinical_age', 'clinical_sex']}
    """
    images: dict[str, list[str]] = {}
    blocks: dict[str, list[str]] = {}
    for column in X.columns:
        if not isinstance(column, str) or column.endswith("_mask"):
            continue
        if column.endswith("_image"):
            images[column.removesuffix("_image")] = [column]
        elif "_" in column.strip("_") and not is_identifier(X[column]):
            blocks.setdefault(column.partition("_")[0], []).append(column)
    both = sorted(images.keys() & blocks.keys())
    if both:
        raise ValueError(
            f"X has both an image and a block of numbers called {both}: columns {[blocks[name] for name in both]}. "
            "Rename one of the two, for example 'lesion_volume' to 'lesionshape_volume'."
        )
    return images | blocks


def warn_unused(X: pd.DataFrame, unused: Sequence[Any], cure: str, stacklevel: int = 3) -> None:
    """Say which columns of X are no features of a model, and how they would be.

    Parameters
    ----------
    X : pandas.DataFrame
    unused : sequence
        Columns of X; none, and nothing is said.
    cure : str
        How to use them.
    stacklevel : int, default=3
        As in :func:`warnings.warn`.
    """
    identifiers = [c for c in unused if is_identifier(X[c])]
    others = [c for c in unused if c not in identifiers]
    told = []
    if others:
        told.append(
            f"The columns {others} of X are not used, since a feature is called '<block>_<name>' and an image "
            "'<name>_image'."
        )
    if identifiers:
        told.append(f"The columns {identifiers} of X are not used, since they identify patients.")
    if told:
        warnings.warn(f"{' '.join(told)} {cure}", stacklevel=stacklevel)


def find_tasks(y: pd.DataFrame) -> dict[str, Task]:
    """Find what is to be predicted by the columns of ``y``.

    A pair ``<name>_time``, ``<name>_event`` is a right-censored endpoint; an ordered categorical is an ordinal task;
    any other column is a classification task.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)

    Returns
    -------
    dict of str to Task
        In the order of the columns.

    Raises
    ------
    TypeError
        If a column has no name of text.
    ValueError
        If one half of a pair is missing, a column stands twice, or labels are of different kinds.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> [(task.name, task.kind) for task in find_tasks(y).values()]
    [('subtype', 'classification'), ('os', 'survival')]
    """
    tasks: dict[str, Task] = {}
    unnamed = [column for column in y.columns if not isinstance(column, str)]
    if unnamed:
        raise TypeError(
            f"the columns of y need names of text, since the names say what is to be predicted; got {unnamed[:5]}. For "
            "example: y.columns = ['subtype', 'os_time', 'os_event']; labels alone can be given as a Series."
        )
    repeated = list(y.columns[y.columns.duplicated()].unique())
    if repeated:
        raise ValueError(f"y has the columns {repeated[:5]} more than once; give every column its own name.")
    for column in y.columns:
        name, _, part = column.rpartition("_")
        if name and part in ("time", "event"):
            partner = f"{name}_{'event' if part == 'time' else 'time'}"
            if partner not in y.columns:
                raise ValueError(
                    f"y has {column!r} without {partner!r}; a right-censored endpoint is the pair of both. "
                    f"Columns: {list(y.columns)}."
                )
            tasks[name] = Task(name, "survival", (f"{name}_time", f"{name}_event"))
        else:
            ordered = isinstance(y[column].dtype, pd.CategoricalDtype) and y[column].dtype.ordered
            kind = "ordinal" if ordered else "classification"
            tasks[column] = Task(column, kind, (column,), class_labels(y[column]))
    return tasks
