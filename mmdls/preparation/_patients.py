"""The patients of a table: ids, paths of scans, names of their own files, and the columns that are carried over."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._files import read_ids, read_table
from mmdls.datasets._folders import CLINICAL
from mmdls.images import is_missing

__all__ = ["SCANS", "Patient", "Tables", "read_patients"]

# What a table may name for a patient.
SCANS = ("ct", "pet", "lesion", "lung")
# Columns that load_cohort reads.
_READ = re.compile(
    rf"(clinical_.+|{'|'.join(CLINICAL)}|centre|center|treatment|subtype|stage|tnm_stage"
    r"|.+_(time|event|months|status|cause|value))",
    re.IGNORECASE,
)
# Names that Windows keeps for devices.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST = 60


@dataclass(frozen=True)
class Patient:
    """A patient of the table.

    Parameters
    ----------
    id : str
    name : str
        Of the patient's files; unique, whatever the letter case.
    paths : dict of str to str
        Of the scans and masks that the table names, by :data:`SCANS`.
    """

    id: str
    name: str
    paths: dict[str, str]


@dataclass(frozen=True)
class Tables:
    """What else a table of patients holds.

    Parameters
    ----------
    carried : DataFrame
        Columns that are carried over, one row a patient, indexed by id.
    source_ids : list of str
        The ids of the table, even if patients get numbers.
    left : list of str
        Columns that are not carried over.
    """

    carried: pd.DataFrame
    source_ids: list[str]
    left: list[str]


def read_patients(
    table: Any, id: str, columns: Mapping[str, str], carry: Sequence[str] | None, numbered: bool
) -> tuple[list[Patient], Tables]:
    """The patients of a table.

    Parameters
    ----------
    table : path-like or DataFrame
        Paths in a file are relative to its folder.
    id : str
        Column of the ids, or the name of the index.
    columns : mapping of str to str
        Columns of the scans, by :data:`SCANS`. One with the name of its scan may be absent.
    carry : sequence of str, default=None
        Columns to carry over; None means those that :func:`mmdls.datasets.load_cohort` reads.
    numbered : bool
        Whether patients get numbers instead of their ids.

    Returns
    -------
    list of Patient, Tables

    Raises
    ------
    ValueError, TypeError
        If columns are not there, or ids are missing or repeated.
    """
    if isinstance(table, pd.DataFrame) and id not in table.columns and table.index.name == id:
        table = table.reset_index()
    raw = read_table(table)
    frame = raw.frame
    home = Path(table).resolve().parent if isinstance(table, str | PathLike) else Path.cwd()
    named = [id, *(column for scan, column in columns.items() if column != scan), *(carry or ())]
    if absent := [name for name in named if name not in frame.columns]:
        raise ValueError(f"{raw.source} lacks the columns {absent}. Columns: {list(frame.columns)[:30]}.")
    scans = {scan: column for scan, column in columns.items() if column in frame.columns}
    if not {"ct", "pet"} & scans.keys():
        raise ValueError(
            f"{raw.source} has neither a column {columns['ct']!r} nor {columns['pet']!r} with the paths of scans; name "
            f"yours by ct= and pet=. Columns: {list(frame.columns)[:30]}."
        )
    ids = source = read_ids(frame[id], raw, id)
    if numbered:
        width = max(4, len(str(len(ids))))
        ids = pd.Index([f"patient-{i:0{width}d}" for i in range(1, len(ids) + 1)], dtype=object)
    names = _names(list(ids))
    cells = {scan: [_path(cell, home) for cell in frame[column]] for scan, column in scans.items()}
    patients = [
        Patient(str(one), names[one], {scan: path for scan, found in cells.items() if (path := found[i]) is not None})
        for i, one in enumerate(ids)
    ]
    others = [name for name in frame.columns if name not in {id, *scans.values()}]
    kept = list(carry) if carry is not None else [name for name in others if _READ.fullmatch(str(name))]
    carried = frame[kept].set_axis(ids, axis=0).rename_axis("patient_id")
    left = [name for name in others if name not in kept]
    return patients, Tables(carried, [str(one) for one in source], left)


def _path(cell: Any, home: Path) -> str | None:
    """A cell as an absolute path."""
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return None
    if not isinstance(cell, str | PathLike):
        raise TypeError(f"the scans of a table are paths; got {type(cell).__name__}. Write arrays to files first.")
    return str(home / fspath(cell).strip())


def _names(ids: Sequence[str]) -> dict[str, str]:
    """Names of files for ids: plain letters, unique in any letter case, the same whatever other patients there are."""
    names = {}
    for one in ids:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", one).strip("._- ")[:_LONGEST]
        names[one] = plain if plain == one and not _DEVICES.fullmatch(one) else f"{plain or 'patient'}-{_digest(one)}"
    folded, counts = np.unique([name.casefold() for name in names.values()], return_counts=True)
    twice = set(folded[counts > 1])
    return {one: f"{name}-{_digest(one)}" if name.casefold() in twice else name for one, name in names.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
