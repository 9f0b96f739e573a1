"""Which columns an estimator reads, by the names of columns or of blocks."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from mmdls.cohort import cell_kind, identifiers

__all__ = ["select_columns"]


def select_columns(X: pd.DataFrame, names: str | Sequence[str], reader: str) -> list[str]:
    """The columns that are asked for.

    Parameters
    ----------
    X : pandas.DataFrame
    names : str or sequence of str
        Names of columns, or of blocks: a name that is no column means the columns ``<name>_*`` of numbers or
        categories, identifiers left out.
    reader : str
        Who asks, for the message.

    Returns
    -------
    list of str
        Each once, in the order in which they are asked for.

    Raises
    ------
    ValueError
        If a name is neither a column nor a block, or there is none.

    Examples
    --------
    >>> X = pd.DataFrame(columns=["clinical_age", "clinical_sex", "pet_suvmax", "pet_mtv"])
    >>> select_columns(X, ["pet_mtv", "clinical"], "the model")
    ['pet_mtv', 'clinical_age', 'clinical_sex']
    """
    listed = isinstance(names, str | Sequence | np.ndarray | pd.Index) and len(names)
    if not listed or not all(isinstance(name, Hashable) for name in names):
        raise ValueError(
            f"{reader} needs the names of columns or blocks, such as ['clinical', 'pet_suvmax']; got {names!r}."
        )
    found: dict[str, None] = {}
    missing = []
    for name in [names] if isinstance(names, str) else list(names):
        columns = [name] if name in X.columns else _block(X, name)
        found |= dict.fromkeys(columns)
        missing += [] if columns else [name]
    if missing:
        raise ValueError(
            f"{reader} asks for {missing}; X has neither such columns nor columns "
            f"{[f'{name}_*' for name in missing]} of numbers or categories. Columns: {list(X.columns)[:30]}."
        )
    return list(found)


def _block(X: pd.DataFrame, name: str) -> list[str]:
    columns = [c for c in X.columns if isinstance(c, str) and c.startswith(f"{name}_") and cell_kind(c) is None]
    carried = identifiers(X, columns)
    return [c for c in columns if c not in carried]
