"""Which columns of a table are outcomes: asked for by the caller, or found by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmdls.cohort._columns import Column
from mmdls.cohort._requests import as_levels, as_mapping, by_name, name_key, task_name
from mmdls.cohort._roles import Outcome, Roles
from mmdls.registry import tasks

__all__ = ["claim_found_numbers", "claim_outcomes", "refuse_equal_names"]

_TIMES = ({"time"}, {"start", "end"}, {"start", "end", "event_date"})
_STATUSES = {"event", "cause"}
_UNITS = ("days", "weeks", "months", "years")


def claim_outcomes(roles: Roles, endpoints: Any, classes: Any, ordinal: Any, numbers: Any, units: Any) -> None:
    """Claim the columns of the outcomes that are asked for, in the order class, ordinal, endpoint, number.

    Parameters
    ----------
    roles : Roles
    endpoints, classes, ordinal, numbers, units : object
        See :func:`mmdls.cohort.read_cohort`; without ``endpoints`` those are claimed that the names of columns show.

    Raises
    ------
    KeyError, TypeError, ValueError
        If an argument has another form, or columns are not there or asked for twice.
    """
    for role, parameter, asked in (("class", "classes", classes), ("ordinal", "ordinal", ordinal)):
        for task, spec in by_name(asked, parameter).items():
            name, levels = _column_and_levels(task_name(task, parameter), spec)
            column = roles.columns[roles.find(name, parameter)]
            roles.take(column, f"{role} {task}")
            column.became.append(task)
            roles.taken.append(Outcome(task, role, {"label": column}, levels=levels))
    _claim_endpoints(roles, endpoints, units)
    suffixes = _number_suffixes()
    for name, wanted in by_name(numbers, "numbers").items():
        column = roles.columns[roles.find(wanted, "numbers")]
        _claim_number(roles, column, *(_number_of(task_name(name, "numbers"), suffixes) or (name, "value")))


def claim_found_numbers(roles: Roles) -> None:
    """Claim every column whose name is that of a number to predict, such as ``<name>_value``, and that nothing else is.

    Parameters
    ----------
    roles : Roles
    """
    suffixes = _number_suffixes()
    for name, column in roles.columns.items():
        if not column.roles and (found := _number_of(name_key(name), suffixes)) is not None:
            column.found = True
            column.note("a number to predict by its name; numbers=[...] says which columns are")
            _claim_number(roles, column, *found)


def refuse_equal_names(roles: Roles) -> None:
    """Refuse outcomes of one name.

    Raises
    ------
    ValueError
    """
    names = pd.Index([outcome.name for outcome in roles.taken])
    if names.has_duplicates:
        raise ValueError(
            f"the tasks {list(names[names.duplicated()])} are asked for twice, or also found; give each one name."
        )


# -- numbers -----------------------------------------------------------------------------------------------------------


def _number_suffixes() -> dict[str, str]:
    """The suffixes in ``y`` of the kinds of tasks with one column of numbers, by the suffix in lower case."""
    kinds = [kind for kind in tasks.available().values() if len(kind.suffixes) == 1]
    return {kind.suffixes[0].lower(): kind.suffixes[0] for kind in kinds if not (kind.has_classes or kind.is_censored)}


def _number_of(name: str, suffixes: Mapping[str, str]) -> tuple[str, str] | None:
    """The task and the suffix that a column's name states; None if it states none."""
    task, _, suffix = name.rpartition("_")
    return (task, suffixes[suffix.lower()]) if task and suffix.lower() in suffixes else None


def _claim_number(roles: Roles, column: Column, task: str, suffix: str) -> None:
    roles.take(column, f"number {task}")
    column.numbers_only = True
    column.became.append(f"{task}_{suffix}")
    roles.taken.append(Outcome(task, "number", {suffix: column}))


# -- endpoints ---------------------------------------------------------------------------------------------------------


def _claim_endpoints(roles: Roles, endpoints: Any, units: Any) -> None:
    names = {name_key(name): name for name in roles.columns}
    asked = _found_endpoints(names) if endpoints is None else by_name(endpoints, "endpoints")
    if isinstance(units, str):
        units = dict.fromkeys(asked, units)
    unit_of = as_mapping({} if units is None else units, "units", "{endpoint: unit} or one unit for all")
    read: set[str] = set()
    for endpoint, spec in asked.items():
        task_name(endpoint, "endpoints")
        if isinstance(spec, str):
            status = _status_of(names, name_key(spec)) or "event"
            spec = {"time": f"{spec}_time", status: f"{spec}_{status}"}
        if not isinstance(spec, Mapping):
            if not isinstance(spec, Sequence) or len(spec) != 2:
                raise ValueError(f"endpoints[{endpoint!r}] must be (time column, event column); got {spec!r}.")
            spec = {"time": spec[0], "event": spec[1]}
        spec = dict(spec)
        unit = spec.pop("unit", None)
        keys = {name_key(name) for name in spec.values()}
        for name in unit_of:
            if name == endpoint or name_key(name) in keys:
                unit = unit_of[name]
                read.add(name)
        _claim_endpoint(roles, endpoint, spec, unit)
    if unread := [name for name in unit_of if name not in read]:
        raise KeyError(f"units names {unread}, which are no endpoints ({list(asked)}) and no columns of them.")


def _claim_endpoint(roles: Roles, endpoint: str, spec: Mapping[str, Any], unit: Any) -> None:
    statuses = spec.keys() & _STATUSES
    if spec.keys() - _STATUSES not in _TIMES or not (statuses or "event_date" in spec):
        raise ValueError(
            f"endpoints[{endpoint!r}] needs 'time' and 'event', or the dates 'start', 'end' and 'event', or 'start', "
            "'event_date' and 'end'; competing risks have 'cause' instead of 'event', or beside an 'event' or "
            f"'event_date' that tells who is censored. Got {list(spec)}."
        )
    if unit is not None and unit not in _UNITS:
        raise ValueError(f"the unit of endpoint {endpoint!r} must be one of {list(_UNITS)}; got {unit!r}.")
    status = "cause" if "cause" in statuses else "event"
    columns = {}
    for part, name in spec.items():
        column = roles.columns[roles.find(name, f"endpoints[{endpoint!r}]")]
        roles.take(column, f"endpoint {endpoint}")
        if part in _STATUSES | {"event_date"}:
            column.became.append(f"{endpoint}_{status}")
        if part not in _STATUSES:
            column.became.append(f"{endpoint}_time")
        columns[part] = column
    if "time" in columns:
        columns["time"].numbers_only = True
    roles.taken.append(Outcome(endpoint, "endpoint", columns, unit))


def _found_endpoints(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Pairs of columns that form an endpoint by their names; ``names`` are those of the table by their keys."""
    found = {}
    for key, name in names.items():
        stem = key.removesuffix("_time")
        if stem not in ("", key) and (status := _status_of(names, stem)) is not None:
            found[stem] = {"time": name, status: names[f"{stem}_{status}"]}
    for key, name in names.items():
        stem = key.removesuffix("_months")
        if stem not in ("", key) and f"{stem}_status" in names and stem not in found:
            found[stem] = {"time": name, "event": names[f"{stem}_status"]}
    return found


def _status_of(names: Mapping[str, str], stem: str) -> str | None:
    """Whether the columns ``<stem>_event`` or ``<stem>_cause`` are there; refuses both."""
    found = [status for status in ("event", "cause") if f"{stem}_{status}" in names]
    if len(found) == 2:
        event, cause = (names[f"{stem}_{status}"] for status in found)
        raise ValueError(
            f"{stem!r} is an endpoint with the event {event!r}, or competing risks with the cause {cause!r}; say which "
            f"with endpoints={{{stem!r}: {{'time': ..., 'event': {event!r}}}}}, with 'cause' instead, or with both: "
            "then the event tells who is censored."
        )
    return found[0] if found else None


# -- levels ------------------------------------------------------------------------------------------------------------


def _column_and_levels(task: str, spec: Any) -> tuple[str, Sequence[Any] | None]:
    """Read the value given for a task: a column, a column and its levels, or levels of the column of that name."""
    if isinstance(spec, str):
        return spec, None
    if not isinstance(spec, Sequence):
        raise TypeError(f"task {task!r} needs a column, (column, levels), or a list of levels; got {spec!r}.")
    column, levels = task, spec
    if len(spec) == 2 and isinstance(spec[0], str) and (spec[1] is None or not isinstance(spec[1], str)):
        column, levels = spec
    return column, None if levels is None else as_levels(task, levels)
