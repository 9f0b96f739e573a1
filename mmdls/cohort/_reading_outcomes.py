"""The outcomes of a table: class labels, ordered labels and endpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._columns import Column
from mmdls.cohort._dates import read_dates
from mmdls.cohort._endpoints import DAYS_A_MONTH, shortened
from mmdls.cohort._follow_up import read_months
from mmdls.cohort._reconciling import truncate_late
from mmdls.cohort._roles import Outcome, Roles
from mmdls.cohort._stages import read_classes, read_ordered
from mmdls.cohort._status import read_status

__all__ = ["read_outcomes"]

# By the column's name; None for columns of categories
_Numbers = Mapping[str, np.ndarray | None]
# Endpoints that death ends at the latest
_BEFORE_DEATH = ("dfs", "pfs", "rfs", "efs")


def read_outcomes(
    roles: Roles, outcomes: Sequence[Outcome], numbers: _Numbers, relapse_after_death: str
) -> pd.DataFrame:
    """Read all outcomes of a table.

    Parameters
    ----------
    roles : Roles
    outcomes : sequence of Outcome
        In the order of the columns wanted.
    numbers : mapping of str to ndarray or None
        The columns read as numbers, by name.
    relapse_after_death : {"refuse", "truncate", "unknown"}
        See :func:`mmdls.cohort.read_cohort`.

    Returns
    -------
    pandas.DataFrame
        ``y``: ``<endpoint>_time``, ``<endpoint>_event``, and a column for each label.

    Raises
    ------
    ValueError
        With the column, the cells and the patients concerned.
    """
    columns: dict[str, Any] = {}
    for outcome in outcomes:
        columns |= _READERS[outcome.role](outcome, numbers, roles)
    y = pd.DataFrame(columns, index=roles.ids)
    for outcome in outcomes:
        if outcome.name in _BEFORE_DEATH and {f"{outcome.name}_time", "os_time"} <= set(y):
            y = _reconcile(y, outcome, relapse_after_death)
    return y


def _class_column(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    return {outcome.name: read_classes(outcome.columns["label"], outcome.name, outcome.levels)}


def _ordinal_column(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    return {outcome.name: read_ordered(outcome.columns["label"], outcome.name, outcome.levels)}


def _endpoint_columns(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    time, event = _read_endpoint(outcome, numbers, roles)
    status = event if np.isnan(event).any() else event.astype(bool)
    return {f"{outcome.name}_time": time, f"{outcome.name}_event": status}


# By the role of an outcome: its columns of y
_READERS = {"class": _class_column, "ordinal": _ordinal_column, "endpoint": _endpoint_columns}


def _read_endpoint(outcome: Outcome, numbers: _Numbers, roles: Roles) -> tuple[np.ndarray, np.ndarray]:
    """Months and status of one endpoint; both known or neither."""
    columns, name = outcome.columns, outcome.name
    if "time" in columns:
        time = read_months(columns["time"], outcome.unit, numbers.get(columns["time"].name), name)
        event = read_status(columns["event"])
        last = columns["time"]
    else:
        days = {
            part: read_dates(columns[part], roles.date_formats.get(columns[part].name))
            for part in ("start", "end", "event_date")
            if part in columns
        }
        last = columns["end"]
        end = days["end"]
        if "event_date" in days:
            seen = ~np.isnan(days["event_date"])
            end = np.where(seen, days["event_date"], end)
            event = seen.astype(float)
            if "event" in columns:
                status = read_status(columns["event"])
                columns["event"].lose(
                    ~np.isnan(status) & (status != event),
                    f"the status that {columns['event_date'].name!r} shows (1 where it has a date)",
                    "Correct one of the two",
                )
        else:
            event = read_status(columns["event"])
        time = (end - days["start"]) / DAYS_A_MONTH
        last.note("dates became months (30.4375 days a month)")
        for bad, what in ((time < 0, "ends before it starts"), (time > 1200, "is longer than 100 years")):
            _impossible(bad, f"the follow-up of endpoint {name!r} {what}", last)
            time = np.where(bad, np.nan, time)
        event = np.where(np.isnan(time), np.nan, event) if "event_date" in days else event
        time = np.round(time, 9)
    half = np.isnan(time) != np.isnan(event)
    _impossible(half, f"only one of time and status of endpoint {name!r} is known", last)
    return np.where(half, np.nan, time), np.where(half, np.nan, event)


def _impossible(bad: np.ndarray, what: str, column: Column) -> None:
    if not bad.any():
        return
    patients = list(column.cells.index[bad])
    shown, n_patients = shortened(patients), f"{len(patients)} patient{'s' * (len(patients) > 1)}"
    if not column.coerce:
        raise ValueError(
            f"{what} in {n_patients}, {shown}. Correct them, or set both time and status to NaN (unknown) "
            "with coerce=True."
        )
    column.set_to_nan = bad if column.set_to_nan is None else column.set_to_nan | bad
    column.note(f"{what} in {n_patients} {shown}: both set to NaN")


def _reconcile(y: pd.DataFrame, outcome: Outcome, rule: str) -> pd.DataFrame:
    first = outcome.name
    mended, late = truncate_late(y, "truncate" if rule == "refuse" else rule, first, "os")
    if not late.any():
        return y
    patients = list(y.index[late])
    shown = shortened(patients)
    if rule == "refuse":
        full = "disease-free survival" if first == "dfs" else f"endpoint {first!r}"
        raise ValueError(
            f"{full} ends after overall survival in {len(patients)} of {len(y)} patients: {shown}. {first}_time must "
            "not "
            "exceed os_time, since death ends both. Correct these rows, or choose a rule that is counted: "
            "relapse_after_death='truncate' (ends with os, with the event of os) or 'unknown' (set to NaN)."
        )
    done = "ends with 'os' now" if rule == "truncate" else "set to NaN"
    for column in outcome.columns.values():
        column.note(f"{len(patients)} of {len(y)} patients with {first!r} after 'os' {shown}: {done}")
    return mended
