"""The outcomes of a table: class labels, ordered labels, endpoints, competing risks and numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._causes import read_causes
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


def read_outcomes(roles: Roles, numbers: _Numbers, relapse_after_death: str) -> pd.DataFrame:
    """Read all outcomes of a table, in the order in which they were claimed.

    Parameters
    ----------
    roles : Roles
    numbers : mapping of str to ndarray or None
        The columns read as numbers, by name.
    relapse_after_death : {"refuse", "truncate", "unknown"}
        See :func:`mmdls.cohort.read_cohort`.

    Returns
    -------
    pandas.DataFrame
        ``y``: ``<endpoint>_time`` with ``<endpoint>_event`` or ``<endpoint>_cause``, ``<number>_value``, and a column
        for each label.

    Raises
    ------
    ValueError
        With the column, the cells and the patients concerned.
    """
    columns: dict[str, Any] = {}
    for outcome in roles.taken:
        columns |= _READERS[outcome.role](outcome, numbers, roles)
    y = pd.DataFrame(columns, index=roles.ids)
    for outcome in roles.taken:
        if outcome.name in _BEFORE_DEATH and {f"{outcome.name}_time", "os_time"} <= set(y):
            y = _reconcile(y, outcome, relapse_after_death)
    return y


def _class_column(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    return {outcome.name: read_classes(outcome.columns["label"], outcome.name, outcome.levels)}


def _ordinal_column(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    return {outcome.name: read_ordered(outcome.columns["label"], outcome.name, outcome.levels)}


def _endpoint_columns(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    time, status = _read_endpoint(outcome, numbers, roles)
    known, seen = int((~np.isnan(status)).sum()), int((status > 0).sum())
    if known:  # so that a reader sees exchanged codes
        told = next(outcome.columns[part] for part in ("event", "cause", "event_date") if part in outcome.columns)
        told.note(f"{seen} of {known} patients ({seen / known:.0%}) had an event of {outcome.name!r}")
    kind, dtype = ("cause", np.int64) if "cause" in outcome.columns else ("event", np.bool_)
    status = status if np.isnan(status).any() else status.astype(dtype)
    return {f"{outcome.name}_time": time, f"{outcome.name}_{kind}": status}


def _number_column(outcome: Outcome, numbers: _Numbers, roles: Roles) -> dict[str, Any]:
    ((suffix, column),) = outcome.columns.items()
    values = numbers[column.name]
    if values is None:
        raise ValueError(
            f"column {column.name!r} is a number to predict, and codes or categories make labels of it; give a number "
            "for every value, or name it in classes or ordinal."
        )
    if column.codes is None and {text.lower() for text in column.texts[column.known]} & {"true", "false"}:
        raise ValueError(f"column {column.name!r} holds True and False, which are labels; name it in classes.")
    return {f"{outcome.name}_{suffix}": values}


# By the role of an outcome: its columns of y
_READERS = {
    "class": _class_column,
    "ordinal": _ordinal_column,
    "endpoint": _endpoint_columns,
    "number": _number_column,
}


def _read_endpoint(outcome: Outcome, numbers: _Numbers, roles: Roles) -> tuple[np.ndarray, np.ndarray]:
    """Months and status, or cause, of one endpoint; both known or neither."""
    columns, name = outcome.columns, outcome.name
    event = read_status(columns["event"]) if "event" in columns else None
    if "time" in columns:
        last = columns["time"]
        time = read_months(last, outcome.unit, numbers.get(last.name), name)
    else:
        last = columns["end"]
        time, event = _read_dates_of(outcome, event, roles)
    status, which, hint = event, "status", ""
    if "cause" in columns:
        status, which = _read_cause(columns["cause"], event), "cause"
        hint = "An empty cause is unknown, not censored, unless 'event' or 'event_date' says that no event was seen. "
    assert status is not None
    half = np.isnan(time) != np.isnan(status)
    _impossible(half, f"only one of time and {which} of endpoint {name!r} is known", last, hint)
    return np.where(half, np.nan, time), np.where(half, np.nan, status)


def _read_dates_of(outcome: Outcome, event: np.ndarray | None, roles: Roles) -> tuple[np.ndarray, np.ndarray | None]:
    """Months between the dates of one endpoint, and its status; where there are dates of events, as they show it."""
    columns = outcome.columns
    days = {
        part: read_dates(columns[part], roles.date_formats.get(columns[part].name))
        for part in ("start", "end", "event_date")
        if part in columns
    }
    end = days["end"]
    if "event_date" in days:
        seen = ~np.isnan(days["event_date"])
        end = np.where(seen, days["event_date"], end)
        if event is not None:
            columns["event"].lose(
                ~np.isnan(event) & (event != seen),
                f"the status that {columns['event_date'].name!r} shows (1 where it has a date)",
                "Correct one of the two",
            )
    time = (end - days["start"]) / DAYS_A_MONTH
    columns["end"].note("dates became months (30.4375 days a month)")
    for bad, what in ((time < 0, "ends before it starts"), (time > 1200, "is longer than 100 years")):
        _impossible(bad, f"the follow-up of endpoint {outcome.name!r} {what}", columns["end"])
        time = np.where(bad, np.nan, time)
    if "event_date" in days:
        event = np.where(np.isnan(time), np.nan, seen)
    return np.round(time, 9), event


def _read_cause(column: Column, event: np.ndarray | None) -> np.ndarray:
    """The cause of every patient, (n_patients,); where ``event`` is given, it tells who is censored."""
    cause = read_causes(column, alone=event is None)
    if event is None:
        return cause
    clash = ~np.isnan(event) & ~np.isnan(cause) & (event != (cause > 0))
    column.lose(clash, "a cause where an event was seen, and 0 or nothing elsewhere", "Correct the cause or the event")
    empty = (event == 0) & np.isnan(cause)
    if empty.any():
        column.note(f"empty where no event was seen: 0 ({int(empty.sum())})")
    return np.where(clash | np.isnan(event), np.nan, np.where(empty, 0.0, cause))


def _impossible(bad: np.ndarray, what: str, column: Column, hint: str = "") -> None:
    if not bad.any():
        return
    patients = list(column.cells.index[bad])
    shown, n_patients = shortened(patients), f"{len(patients)} patient{'s' * (len(patients) > 1)}"
    if not column.coerce:
        raise ValueError(
            f"{what} in {n_patients}, {shown}. {hint}Correct them, or set both time and status to NaN (unknown) "
            "with coerce=True."
        )
    column.set_to_nan = bad if column.set_to_nan is None else column.set_to_nan | bad
    column.note(f"{what} in {n_patients} {shown}: both set to NaN")


def _reconcile(y: pd.DataFrame, outcome: Outcome, rule: str) -> pd.DataFrame:
    first = outcome.name
    mended, late = truncate_late(y, "unknown" if rule == "refuse" else rule, first, "os")
    if not late.any():
        return y
    patients = list(y.index[late])
    shown = shortened(patients)
    if rule == "refuse":
        full = "disease-free survival" if first == "dfs" else f"endpoint {first!r}"
        raise ValueError(
            f"{full} ends after overall survival in {len(patients)} of {len(y)} patients: {shown}. {first}_time must "
            "not exceed os_time, since death ends both. Correct these rows, or choose a rule that is counted: "
            "relapse_after_death='truncate' (ends with os, with the event of os) or 'unknown' (set to NaN)."
        )
    done = "ends with 'os' now" if rule == "truncate" else "set to NaN"
    for column in outcome.columns.values():
        column.note(f"{len(patients)} of {len(y)} patients with {first!r} after 'os' {shown}: {done}")
    return mended
