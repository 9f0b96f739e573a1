"""Hashes of the images that the cells of a table name."""

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images._files import find_image, of_patient, slice_files
from mmdls.images._reading import is_missing

__all__ = ["fingerprint", "fingerprint_columns"]


def fingerprint(cell: Any, patient: Any = None) -> str:
    """A hash of an image's contents, independent of the place and time of its files.

    Files are read without decoding, which takes about a second per gigabyte. The slices of a folder count in their
    order; their names, hidden files and notes do not.

    Parameters
    ----------
    cell : path, sequence of paths or ndarray
        See :func:`read_image`; None or NaN = missing.
    patient : default=None
        Id for messages.

    Returns
    -------
    str
        32 hexadecimal digits. An array and a file with the same pixels differ.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_image`, except for errors that only decoding finds.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.zeros((2, 4, 4), dtype=np.uint8)
    >>> fingerprint(image) == fingerprint(image.copy()), fingerprint(image) == fingerprint(image + 1)
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(cell, np.ndarray):
        if cell.dtype.hasobject:
            raise ValueError(f"the array{of_patient(patient)} must hold numbers; got {cell.dtype}.")
        digest.update(repr(("array", cell.shape, cell.dtype.str)).encode())
        digest.update(np.ascontiguousarray(cell).tobytes())
    elif is_missing(cell):
        digest.update(b"missing")
    else:
        kind, files = _files_of(cell, patient)
        digest.update(kind.encode())
        for file in files:
            content = file.read_bytes()
            # With the length of each file, so that the boundary between two files counts.
            digest.update(f" {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def fingerprint_columns(X: Any, columns: Sequence[str]) -> dict[str, str]:
    """One hash for each of some columns of images, masks or vectors of a table, from the contents of its files.

    Parameters
    ----------
    X : pandas.DataFrame
    columns : sequence of str
        Those that are hashed.

    Returns
    -------
    dict of str to str
        By column. A cell that cannot be read counts by the type of its error, which reading the image will raise.
    """
    found = {}
    for column in columns:
        digest = hashlib.blake2b(digest_size=16)
        for patient, cell in X[column].items():
            try:
                digest.update(fingerprint(cell, patient).encode())
            except (OSError, TypeError, ValueError) as error:
                digest.update(type(error).__name__.encode())
        found[str(column)] = digest.hexdigest()
    return found


def _files_of(cell: Any, patient: Any) -> tuple[str, Sequence[Path]]:
    if isinstance(cell, (list, tuple)):
        return "folder", [find_image(part, patient)[0] for part in cell]
    if not isinstance(cell, (str, PathLike)):
        raise TypeError(f"an image{of_patient(patient)} is a path or an array; got {type(cell).__name__}.")
    path, kind, source = find_image(cell, patient)
    return kind, slice_files(path, source) if kind == "folder" else [path]
