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

from mmdls.cohort._files import RawTable, read_ids, read_table, without_empty_rows
from mmdls.cohort._requests import name_key, spellings
from mmdls.datasets._folders import CLINICAL
from mmdls.images import is_missing
from mmdls.preparation._patient import Patient

__all__ = ["SCANS", "Tables", "read_patients"]

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
    n_empty : int
        Empty rows that were dropped.
    home : Path
        The folder that paths are relative to.
    """

    carried: pd.DataFrame
    source_ids: list[str]
    left: list[str]
    n_empty: int
    home: Path


def read_patients(
    table: Any,
    id: str,
    columns: Mapping[str, str | None],
    carry: Sequence[str] | None,
    numbered: bool,
    header: int | None = None,
    encoding: str | None = None,
) -> tuple[list[Patient], Tables]:
    """The patients of a table.

    Parameters
    ----------
    table : path-like or DataFrame
        Paths in a file are relative to its folder.
    id : str
        Column of the ids, or the name of the index; of a data frame without this column the index, unless it only
        numbers the rows.
    columns : mapping of str to str or None
        Columns of the scans, by :data:`SCANS`. One with the name of its scan may be absent, but for that of the CT;
        None means that there is none.
    carry : sequence of str, default=None
        Columns to carry over; None means those that :func:`mmdls.datasets.load_cohort` reads.
    numbered : bool
        Whether patients get numbers instead of their ids.
    header : int, default=None
        The row of a file that holds the names.
    encoding : str, default=None
        Of a text file.

    Returns
    -------
    list of Patient, Tables

    Raises
    ------
    ValueError, TypeError
        If columns are not there, or ids are missing or repeated.
    """
    table = _with_ids(table, id)
    raw = read_table(table, header=header, encoding=encoding)
    home = Path(table).resolve().parent if isinstance(table, str | PathLike) else Path.cwd()
    known = f"Columns: {list(raw.frame.columns)[:30]}.{raw.header_hint}"
    asked = {id, *filter(None, columns.values()), *(carry or ())}
    found = {name: spelt for name in asked if (spelt := _find(name, raw)) is not None}
    named = [id, *(column for scan, column in columns.items() if column not in (None, scan)), *(carry or ())]
    if absent := [name for name in named if name not in found]:
        raise ValueError(
            f"{raw.source} lacks the columns {absent}."
            + (" id= names the column of the patients' ids." if id in absent else "")
            + f" {known}"
        )
    id, carry = found[id], None if carry is None else [found[name] for name in carry]
    raw = without_empty_rows(raw, id)
    frame = raw.frame
    scans = {scan: found[column] for scan, column in columns.items() if column is not None and column in found}
    if not {"ct", "pet"} & scans.keys():
        raise ValueError(
            f"{raw.source} has neither a column {columns['ct']!r} nor {columns['pet']!r} with the paths of scans; name "
            f"yours by ct= and pet=. {known}"
        )
    if columns["ct"] is not None and "ct" not in scans:
        raise ValueError(
            f"{raw.source} has no column {columns['ct']!r} with the paths of the CTs, without which there are no "
            f"slices and no radiomics; name yours by ct=, or pass ct=None for patients with a PET alone. {known}"
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
    return patients, Tables(carried, [str(one) for one in source], left, raw.n_empty, home)


def _with_ids(table: Any, id: str) -> Any:
    """A data frame whose ids stand in its index gets them as a column."""
    if not isinstance(table, pd.DataFrame) or name_key(id) in map(name_key, table.columns):
        return table
    is_index = name_key(table.index.name or "") == name_key(id) or (
        id == "patient_id" and not isinstance(table.index, pd.RangeIndex)
    )
    return table.rename_axis(id).reset_index() if is_index else table


def _find(name: str, raw: RawTable) -> str | None:
    """The table's spelling of a name, whatever its case and outer spaces; None if it has none."""
    alike = spellings(name, map(str, raw.frame.columns))
    if len(alike) > 1:
        raise ValueError(f"{raw.source} has the columns {alike}, and each may be {name!r}; rename one of them.")
    return alike[0] if alike else None


def _path(cell: Any, home: Path) -> str | None:
    """A cell as an absolute path."""
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return None
    if not isinstance(cell, str | PathLike):
        raise TypeError(f"the scans of a table are paths; got {type(cell).__name__}. Write arrays to files first.")
    place = home / fspath(cell).strip()
    try:
        place.exists()
    except OSError as error:
        raise ValueError(f"the scans of a table are paths; got a text of {len(fspath(cell))} letters.") from error
    return str(place)


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
