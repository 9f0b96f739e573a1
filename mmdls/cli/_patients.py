"""The patients that a command is about: a cohort folder, or a table with the roles of its columns."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmdls
from mmdls.cli._commands import Failed
from mmdls.cli._roles import OUTCOMES

if TYPE_CHECKING:
    from mmdls.cohort import Cohort

__all__ = ["read_patients"]

_OF_FOLDERS = ("codes", "ordered", "relapse_after_death", "groups")
_BY_COLUMN = ("codes", "missing", "decimal", "date_format")


def read_patients(path: Path, roles: dict[str, Any], *, outcomes: bool = True) -> "Cohort":
    """Patients of a cohort folder, or of a table (CSV, Excel); ``X, y = read_patients(...)`` unpacks them.

    Parameters
    ----------
    path : Path
    roles : dict
        Arguments of ``read_cohort``, from :func:`roles_of`.
    outcomes : bool, default=True
        Whether they are read. If not, ``y`` has no columns, and the roles may name columns of outcomes that the table
        does not have.

    Returns
    -------
    Cohort
        Of ``X``, ``y``, ``groups`` (``--groups``, or None), ``report`` and ``unused``.

    Raises
    ------
    Failed
        If a folder is given roles that its layout decides.
    """
    cohort = _read_folder(path, roles) if path.is_dir() else _read_table(path, roles, outcomes)
    return (
        cohort
        if outcomes
        else mmdls.cohort.Cohort(cohort.X, cohort.y[[]], cohort.groups, cohort.report, cohort.unused, cohort.notes)
    )


def _read_folder(path: Path, roles: dict[str, Any]) -> "Cohort":
    if strange := sorted(roles.keys() - set(_OF_FOLDERS)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        raise Failed(f"{names}: for tables only; the columns of a cohort folder are known by their names.")
    groups = roles.get("groups")
    read: Any = mmdls.datasets.load_cohort(path, **{name: value for name, value in roles.items() if name != "groups"})
    if groups is not None and groups not in read.data:
        raise Failed(f"--groups {groups}: the cohort has no such column; it has {list(read.data.columns)[:30]}.")
    return mmdls.cohort.Cohort(
        read.data, read.target, None if groups is None else read.data[groups], read.report, read.other
    )


def _read_table(path: Path, roles: dict[str, Any], outcomes: bool) -> "Cohort":
    return mmdls.cohort.read_cohort(path, **(roles if outcomes else _without_outcomes(path, roles)))


def _without_outcomes(path: Path, roles: dict[str, Any]) -> dict[str, Any]:
    """Roles of features alone; those of columns that are not in the table, such as its outcomes, are left out."""
    from mmdls.cohort._files import read_table
    from mmdls.cohort._requests import name_key

    form = {name: roles[name] for name in ("sep", "encoding", "sheet", "header") if name in roles}
    columns = {name_key(column) for column in read_table(path, **form).frame}
    renamed = tuple(f"{name_key(block)}_" for block in roles.get("blocks", ()))

    def known(roles_by_column: Any) -> Any:
        if not isinstance(roles_by_column, dict):
            return roles_by_column
        return {
            name: value
            for name, value in roles_by_column.items()
            if name_key(name) in columns or name_key(name).startswith(renamed)
        }

    kept = {name: value for name, value in roles.items() if name not in (*OUTCOMES, "units", "groups")}
    kept |= {name: known(kept[name]) for name in _BY_COLUMN if name in kept}
    # Outcomes that are found by their names are no features either.
    return kept | {"endpoints": [], "numbers": []}
