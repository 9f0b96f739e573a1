"""Hashes of tables and images."""

import hashlib

import numpy as np
import pandas as pd

from mmdls.cohort import cell_columns
from mmdls.images import fingerprint_columns


def data_hash(table: pd.DataFrame) -> str:
    """SHA-256 of a table of patients: names of columns and rows, and all cells (arrays by shape and content).

    Parameters
    ----------
    table : pandas.DataFrame
        Paths count as text; :func:`image_hash` reads the contents of the files.

    Returns
    -------
    str

    Examples
    --------
    >>> table = pd.DataFrame({"clinical_age": [60, 70]}, index=["P1", "P2"])
    >>> len(data_hash(table)), data_hash(table) == data_hash(table.copy()), data_hash(table) == data_hash(table + 1)
    (64, True, False)
    """
    digest = hashlib.sha256(repr([*map(str, table.columns), *map(str, table.index)]).encode())
    for column in table.columns:
        for cell in table[column]:
            if isinstance(cell, np.ndarray):
                content = f"{cell.dtype.str}{cell.shape}".encode() + np.ascontiguousarray(cell).tobytes()
            else:
                content = repr(cell.item() if isinstance(cell, np.generic) else cell).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def image_hash(X: pd.DataFrame) -> str:
    """SHA-256 of the images, masks and vectors of a table, files by their contents; "" without such columns.

    Parameters
    ----------
    X : pandas.DataFrame

    Returns
    -------
    str

    Examples
    --------
    >>> X = pd.DataFrame({"ct_image": [np.zeros((2, 4, 4)), None], "clinical_age": [60, 70]}, index=["P1", "P2"])
    >>> len(image_hash(X)), image_hash(X[["clinical_age"]])
    (64, '')
    """
    found = fingerprint_columns(X, cell_columns(X))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() if found else ""
