"""Segmentation results of a table's patients as columns of tables."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmdls.images import is_missing

__all__ = ["found_table", "replace_columns", "rows_with_image", "warn_of_lost"]


def rows_with_image(X: pd.DataFrame, column: str, verbose: int) -> Iterator[tuple[Any, pd.Series]]:
    """Patients with an image, with a progress bar."""
    with tqdm(total=len(X), desc="segmenting", unit="patient", disable=not verbose, leave=False) as bar:
        for patient, row in X.iterrows():
            if not is_missing(row[column]):
                yield patient, row
            bar.update()


def found_table(
    X: pd.DataFrame,
    column: str,
    structures: Sequence[str],
    what: str,
    read: Callable[..., tuple[np.ndarray, Any, bool]],
    find: Callable[[np.ndarray, Any, bool], Mapping[str, Any]],
    verbose: int,
) -> pd.DataFrame:
    """Arrays of all patients, in a column ``<structure>_<what>`` for each structure; None without an image.

    Parameters
    ----------
    X : pandas.DataFrame
    column : str
        The images.
    structures : sequence of str
    what : str
    read : callable
        ``(cell, {}, patient) -> (image, {}, whether it is a volume)``.
    find : callable
        ``(image, patient, whether it is a volume) -> {structure: array or None}``.
    verbose : int

    Returns
    -------
    pandas.DataFrame
    """
    columns: dict[str, dict[Any, Any]] = {name: dict.fromkeys(X.index) for name in structures}
    for patient, row in rows_with_image(X, column, verbose):
        image, _, contiguous = read(row[column], {}, patient)
        for name, array in find(image, patient, contiguous).items():
            columns[name][patient] = array
    return pd.DataFrame(
        {
            f"{name}_{what}": pd.Series(list(cells.values()), index=X.index, dtype=object)
            for name, cells in columns.items()
        },
        index=X.index,
    )


def warn_of_lost(masks: pd.DataFrame, has_image: pd.Series) -> None:
    """Warn of patients with an image in which a structure was not found."""
    for name in masks.columns:
        lost = masks.index[masks[name].isna() & has_image].tolist()
        if lost:
            warnings.warn(
                f"no {name.removesuffix('_mask')} was found in {len(lost)} of {int(has_image.sum())} patients with "
                f"an image: {', '.join(map(repr, lost[:10]))}{' ...' if len(lost) > 10 else ''}. Their mask and "
                "image are missing in the result.",
                stacklevel=3,
            )


def replace_columns(X: pd.DataFrame, dropped: set[str], new: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The table without some columns, and with new ones of arrays or None."""
    replaced = X[[column for column in X.columns if column not in dropped]].copy()
    for name, cells in new.items():
        replaced[name] = pd.Series(list(cells), index=X.index, dtype=object)
    return replaced
