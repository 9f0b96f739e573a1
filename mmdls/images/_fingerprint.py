"""Hashes of the images that the cells of a table name."""

import hashlib
import re
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from mmdls.images._files import KINDS, NOTES, find_image, folder_entries, of_patient, slice_files
from mmdls.images._reading import is_missing

__all__ = ["fingerprint", "fingerprint_columns"]


def fingerprint(cell: Any, patient: Any = None) -> str:
    """A hash of an image's contents, independent of the place and time of its files.

    Files are read without decoding, which takes about a second per gigabyte. PNG slices of a folder count in their
    order, other files, such as DICOM, in any; their names, hidden files and notes do not count.

    Parameters
    ----------
    cell : path, sequence of paths, ndarray, or volume in memory
        See :func:`read_image` and :func:`mmdls.scans.read_scan`; None or NaN = missing.
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
    elif hasattr(cell, "affine") or (isinstance(cell, (tuple, list)) and len(cell) and isinstance(cell[0], np.ndarray)):
        # A volume, or an array with the sides of its voxels.
        array, *facts = (cell.array, cell.affine, cell.unit, cell.modality) if hasattr(cell, "affine") else cell
        digest.update(f"{fingerprint(array, patient)} {[np.asarray(fact).tolist() for fact in facts]}".encode())
    else:
        kind, files = _files_of(cell, patient)
        digest.update(kind.encode())
        contents = (file.read_bytes() for file in files)
        # With the length of each file, so that the boundary between two files counts.
        if kind != "scan":
            for content in contents:
                digest.update(f" {len(content)} ".encode())
                digest.update(content)
        else:
            for mark in sorted(hashlib.blake2b(content, digest_size=16).digest() for content in contents):
                digest.update(mark)
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

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> X = pd.DataFrame({"ct_image": [np.zeros((2, 4, 4)), None], "clinical_age": [60, 70]}, index=["P1", "P2"])
    >>> found = fingerprint_columns(X, ["ct_image"])
    >>> list(found), len(found["ct_image"])
    (['ct_image'], 32)
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
    path = Path(fspath(cell))
    if str(cell).strip() and path.is_dir():
        entries = [entry for entry in folder_entries(path) if entry.is_file() and entry.suffix.lower() not in NOTES]
        if entries and not any(entry.suffix.lower() == ".png" for entry in entries):
            return "scan", entries
    elif path.is_file() and path.suffix.lower() not in KINDS:
        return "scan", [path, *_beside(path)]
    path, kind, source = find_image(cell, patient)
    return kind, slice_files(path, source) if kind == "folder" else [path]


def _beside(path: Path) -> list[Path]:
    """The file that holds the voxels of a header in a file of its own."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return []
    with path.open("rb") as file:
        header = file.read(2**18).decode("latin-1")
    names = re.findall(r"(?mi)^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", header)
    return [path.parent / name for name in names if (path.parent / name).is_file()]
