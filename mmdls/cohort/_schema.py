"""The meaning of a cohort's columns by their names: blocks of features, images, tasks."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from mmdls.cohort._alignment import check_columns_once
from mmdls.cohort._cells import cell_kind, modality_name
from mmdls.cohort._identifiers import identifiers
from mmdls.cohort._task import Task
from mmdls.registry import tasks

__all__ = ["find_tasks", "modalities", "warn_unused"]


def modalities(X: pd.DataFrame) -> dict[str, list[str]]:
    """Find the modalities of a table of patients by the names of its columns.

    ``<name>_image`` is an image modality called ``<name>``, and ``<name>_vectors`` one of bags of vectors (so is
    ``<name>_<encoder>`` for an installed encoder that reads such columns); columns ``<block>_*`` are one tabular
    modality called ``<block>``; ``*_mask`` columns, columns without an underscore and identifiers are carried along,
    never features. An identifier has the name of one (``*_id``, ``*_mrn``), or a value of its own for each patient:
    text, or whole numbers that count the rows.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_columns)

    Returns
    -------
    dict of str to list of str
        Columns of each modality, those of a single column first, both in the order of the table.

    Raises
    ------
    ValueError
        If two columns would be one modality; the message names them.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame(columns=["lesion_image", "lesion_mask", "clinical_age", "clinical_sex", "centre"])
    >>> modalities(X)
    {'lesion': ['lesion_image'], 'clinical': ['clinical_age', 'clinical_sex']}
    """
    single: dict[str, list[str]] = {}
    blocks: dict[str, list[str]] = {}
    carried = identifiers(X, [c for c in X.columns if isinstance(c, str) and cell_kind(c) is None])
    for column in X.columns:
        kind = cell_kind(column)
        if not isinstance(column, str) or kind == "masks":
            continue
        if kind is not None:
            other = single.setdefault(modality_name(column), [column])
            if other != [column]:
                raise ValueError(
                    f"the columns {other[0]!r} and {column!r} of X would both be the modality "
                    f"{modality_name(column)!r}. Rename one of the two."
                )
        elif "_" in column.strip("_") and column not in carried:
            blocks.setdefault(column.partition("_")[0], []).append(column)
    both = sorted(single.keys() & blocks.keys())
    if both:
        raise ValueError(
            f"X has both images or vectors and a block of numbers called {both}: columns "
            f"{[blocks[name] for name in both]}. Rename one of the two, for example 'lesion_volume' to "
            "'lesionshape_volume'."
        )
    return single | blocks


def warn_unused(X: pd.DataFrame, unused: Sequence[Any], hint: str, stacklevel: int = 3) -> None:
    """Warn of columns of X that a model does not use, and say how to use them.

    Parameters
    ----------
    X : pandas.DataFrame
    unused : sequence
        Columns of X; no warning if it is empty.
    hint : str
        How to use them.
    stacklevel : int, default=3
        As in :func:`warnings.warn`.

    Examples
    --------
    >>> import warnings
    >>> X = pd.DataFrame({"clinical_age": [60, 70], "centre": ["A", "B"]})
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_unused(X, ["centre"], "Rename them.")
    >>> str(caught[0].message)
    "The columns ['centre'] of X are not used, since ... Rename them."
    """
    masks = [c for c in unused if cell_kind(c) == "masks"]
    names = [c for c in unused if c not in masks]
    identifying = identifiers(X, names)
    others = [c for c in names if c not in identifying]
    sentences = []
    if others:
        sentences.append(
            f"The columns {_listed(others)} of X are not used, since a feature is called '<block>_<name>' and an image "
            "'<name>_image'."
        )
    if masks:
        sentences.append(
            f"The masks {_listed(masks)} of X are not used, since a mask is read only beside its image, if both are "
            "named: modalities={'ct': ['ct_image', 'ct_mask'], ...}."
        )
    if identifying:
        listed = _listed([c for c in names if c in identifying])
        sentences.append(f"The columns {listed} of X are not used, since they identify patients.")
    if sentences:
        warnings.warn(f"{' '.join(sentences)} {hint}", stacklevel=stacklevel)


def _listed(names: Sequence[Any]) -> str:
    """Names, at most ten of them and the number of the rest."""
    return str(list(names)) if len(names) <= 10 else f"{str(list(names[:10]))[:-1]}, and {len(names) - 10} more]"


def find_tasks(y: pd.DataFrame) -> dict[str, Task]:
    """Find what is to be predicted by the columns of ``y``.

    Every registered kind of task (:data:`mmdls.registry.tasks`) is asked for its columns: a pair ``<name>_time``,
    ``<name>_event`` is a right-censored endpoint, an ordered categorical an ordinal task. A column that no kind claims
    is a task of classes without an order.

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
        If one half of a pair is missing, two kinds of tasks claim one column or one name, a column stands twice, or
        labels are of different kinds.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> [(task.name, task.kind) for task in find_tasks(y).values()]
    [('subtype', 'nominal'), ('os', 'survival')]
    """
    unnamed = [column for column in y.columns if not isinstance(column, str)]
    if unnamed:
        raise TypeError(
            f"the columns of y need names of text, since the names say what is to be predicted; got {unnamed[:5]}. For "
            "example: y.columns = ['subtype', 'os_time', 'os_event']; labels alone can be given as a Series."
        )
    check_columns_once(y, "y")
    claimed: dict[str, Task] = {}
    kinds: dict[str, type[Task]] = tasks.available()
    for kind in (kinds[name] for name in kinds if name != "nominal"):
        for task in kind.find(y):
            for column in task.columns:
                other = claimed.setdefault(column, task)
                if other is not task:
                    raise ValueError(
                        f"the column {column!r} of y belongs to two tasks: {other.kind} {list(other.columns)} and "
                        f"{task.kind} {list(task.columns)}. Drop or rename the columns of one of them."
                    )
    left = [column for column in y.columns if column not in claimed]
    _refuse_halves(left, y, kinds.values())
    claimed |= {task.columns[0]: task for task in kinds["nominal"].find(y[left])}
    found: dict[str, Task] = {}
    for task in (claimed[column] for column in y.columns):
        other = found.setdefault(task.name, task)
        if other is not task:
            raise ValueError(
                f"two tasks of y are called {task.name!r}: {other.kind} {list(other.columns)} and {task.kind} "
                f"{list(task.columns)}. Rename the columns of one of them."
            )
    return found


def _refuse_halves(left: Sequence[str], y: pd.DataFrame, kinds: Iterable[type[Task]]) -> None:
    """Refuse columns with the suffix of a kind of task of several columns that lack the others."""
    pairs = [kind for kind in kinds if len(kind.suffixes) > 1]
    for column in left:
        name, _, suffix = column.rpartition("_")
        lacking = [
            f"{' and '.join(repr(f'{name}_{each}') for each in kind.suffixes if f'{name}_{each}' not in y.columns)} "
            f"({kind.kind})"
            for kind in pairs
            if name and suffix in kind.suffixes
        ]
        if lacking:
            raise ValueError(
                f"y has {column!r} without {' or '.join(lacking)}; such a task is read from all of its columns. "
                f"Columns: {list(y.columns)}."
            )
