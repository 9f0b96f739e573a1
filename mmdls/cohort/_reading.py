"""A hospital's own table becomes X and y, and every column is accounted for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._checks import check_cohort
from mmdls.cohort._columns import Column, read_labels, read_numbers
from mmdls.cohort._endpoints import DAYS_A_MONTH, shortened
from mmdls.cohort._files import read_table
from mmdls.cohort._outcomes import (
    looks_like_durations,
    read_dates,
    read_months,
    read_status,
    truncate_late,
)
from mmdls.cohort._roles import Outcome, Roles, name_key
from mmdls.cohort._schema import modalities
from mmdls.cohort._stages import read_classes, read_ordered

__all__ = ["Cohort", "read_cohort"]

# By the column's name; None for columns of categories
_Numbers = Mapping[str, np.ndarray | None]
# Endpoints that death ends at the latest
_BEFORE_DEATH = ("dfs", "pfs", "rfs", "efs")


@dataclass(frozen=True)
class Cohort:
    """What :func:`read_cohort` made of a table; ``X, y = cohort`` unpacks it.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_features)
        ``<block>_<feature>`` columns, images, and what is carried along.
    y : pandas.DataFrame of shape (n_patients, n_outcomes)
        ``<endpoint>_time`` (months), ``<endpoint>_event``, class and ordinal tasks.
    groups : pandas.Series or None
        What the patients are grouped by, as text: for ``clusters=`` of :func:`mmdls.evaluate` or ``groups=`` of a
        splitter's ``split``. It is no column of ``X``.
    report : pandas.DataFrame
        One row a column of the table: its ``role``, what it ``became``, its ``changes``, how many cells are missing
        (``n_missing``) and how many were set to NaN because they could not be read (``n_set_to_nan``).
    unused : pandas.DataFrame of shape (n_patients, n_unused)
        The columns that went nowhere.
    notes : tuple of str
        What concerns the table as a whole.
    """

    X: pd.DataFrame
    y: pd.DataFrame
    groups: pd.Series | None
    report: pd.DataFrame
    unused: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[pd.DataFrame]:
        yield self.X
        yield self.y

    def __repr__(self) -> str:
        lines = [f"{len(self.X)} patients, {len(self.report)} columns"]
        for role, part in self.report.groupby("role", sort=False):
            lines.append(f"{role}:")
            shown = part if len(part) <= 12 else part[part["n_set_to_nan"] > 0].head(12)
            if len(part) > len(shown):
                lines.append(f"  {len(part)} columns, {part.index[0]!r} to {part.index[-1]!r}")
            for name, row in shown.iterrows():
                became = f" -> {row['became']}" if row["became"] not in ("", name) else ""
                missing = f"{row['n_missing']} missing" if row["n_missing"] else ""
                lines.append("; ".join(filter(None, (f"  {name}{became}", row["changes"], missing))))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table = self.report.to_html(max_rows=100, escape=True)
        return f"<p>{len(self.X)} patients, {len(self.report)} columns</p><ul>{notes}</ul>{table}"


def read_cohort(
    table: str | PathLike | pd.DataFrame | Any,
    *,
    id: str | None = None,
    endpoints: Mapping[str, Any] | Sequence[str] | str | None = None,
    classes: Mapping[str, Any] | Sequence[str] | str | None = None,
    ordinal: Mapping[str, Any] | Sequence[str] | str | None = None,
    blocks: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | str | None = None,
    codes: Mapping[str, Mapping[Any, Any]] | None = None,
    categories: Sequence[str] | str = (),
    groups: str | None = None,
    carry: Mapping[str, str] | Sequence[str] | str = (),
    missing: Mapping[str, Sequence[Any]] | Sequence[Any] = (),
    coerce: bool = False,
    decimal: Mapping[str, str] | str | None = None,
    date_format: Mapping[str, str] | str | None = None,
    relapse_after_death: str = "refuse",
    sep: str | None = None,
    encoding: str | None = None,
    sheet: str | int | None = None,
) -> Cohort:
    """Read a hospital's own table: any names of columns, units and codings.

    Nothing is guessed: what can be read in two ways is refused, with the way to say which. Names are matched without
    regard to case and outer spaces. The result says what became of every column.

    Parameters
    ----------
    table : path-like or DataFrame (pandas, polars, pyarrow)
        A CSV file of any separator, an Excel file, or a data frame; one row a patient.
    id : str, default=None
        The column with the patients' ids, which stay text ("007" too). None takes the index of a pandas DataFrame,
        unless that only numbers the rows.
    endpoints : mapping, sequence of str, str or None, default=None
        ``{"os": (time, event)}`` with the names of two columns, or ``{"os": {...}}`` with ``time`` and ``event``;
        with dates as ``start``, ``end`` and ``event``; or as ``start``, ``event_date`` (empty if no event was seen) and
        ``end`` (last contact). ``unit`` may stand there too. Names alone mean the columns ``<name>_time`` and
        ``<name>_event``. None takes every such pair, and every pair ``<name>_months`` and ``<name>_status``.
    classes, ordinal : mapping, sequence of str, str or None, default=None
        ``{"subtype": column}``, ``{"subtype": (column, levels)}``, or ``{"subtype": levels}`` of the column of that
        name; names alone are columns. Levels of an ordinal task
        go from lowest to highest and may be groups of stages: ``{"stage": ("TNM", ["I-II", "III", "IV"])}`` takes
        "IIIA", "3b" and "Stage IB". Without levels the order must be plain: numbers, stages, T, N, M, or an ordered
        categorical.
    blocks : mapping of str to sequence of str, mapping or str, default=None
        The features: ``{"clinical": ["Age", "Sex"], "pet": "SUV*"}`` (``*`` stands for anything), or
        ``{"clinical": {"age": "Age at diagnosis"}}`` with new names. Columns become ``<block>_<name>`` in small
        letters. Blocks that are not named here are found by their columns: ``clinical_*``, ``pet_*``, ``radiomics_*``,
        the names that PyRadiomics gives (``original_*``, ``wavelet-*``, ``log-sigma-*``: block ``radiomics``, spelt as
        they are; ``diagnostics_*`` is dropped), and images (``*_image``, ``*_mask``).
    units : mapping of str to str or str, default=None
        "days", "weeks", "months" or "years", for endpoints or columns. Needed where neither the column's name
        ("OS_MONTHS", "days_to_death") nor its cells (durations) say it. A month has 30.4375 days.
    codes : mapping of str to mapping, default=None
        The meaning of every value of a column, None for a missing one: ``{"status": {1: 0, 2: 1}}``,
        ``{"sex": {1: "male", 2: "female"}}``. Where an ordinal task has levels, the values that already name a level
        may be left out: ``{"TNM": {0: "I-II"}}``. What a column becomes ("os_event", "clinical_sex") names it too.
    categories : sequence of str or str, default=()
        Features that are categories although they look like numbers.
    groups : str, default=None
        The column by which patients are grouped, for example the hospital; it becomes ``cohort.groups``. What a
        splitter is to find in ``X``, such as :class:`~mmdls.model_selection.CohortKFold`, goes into ``carry``.
    carry : mapping of str to str, sequence of str or str, default=()
        Columns carried along in ``X`` without being features, ``{name in X: column}``; their names
        in ``X`` have no underscore.
    missing : sequence or mapping of str to sequence, default=()
        Words or numbers that mean a missing cell, in all columns or by column, besides empty cells and what software
        writes (NA, NaN, NULL, #N/A).
    coerce : bool, default=False
        Set what cannot be read (words among numbers, unknown labels, impossible or half-known outcomes) to NaN and
        count it in the report, where otherwise it is refused with the patients.
    decimal : {".", ","} or mapping of str to str, default=None
        The decimal mark; needed only where "1,234" may be either.
    date_format : str or mapping of str to str, default=None
        ``strptime``'s pattern for dates, needed where day and month cannot be told apart; "excel" for Excel's numbers.
    relapse_after_death : {"refuse", "truncate", "unknown"}, default="refuse"
        What to do where disease-free (or progression-, relapse-, event-free) survival ends after ``os``; see
        :func:`reconcile_endpoints`. The report counts the patients.
    sep, encoding : str, default=None
        Of a text file, where they cannot be found out.
    sheet : str or int, default=None
        Of an Excel file with more than one.

    Returns
    -------
    Cohort
        ``X, y = read_cohort(...)`` unpacks it; printed, it is the account of all columns.

    Raises
    ------
    FileNotFoundError, KeyError, TypeError, ValueError
        With the column, the cells and patients concerned, and what to do.

    See Also
    --------
    mmdls.datasets.load_cohort : Reads a folder of tables, arrays and slices.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "Patient": ["007", "012", "013"], "AGE": ["61,5", "70", "58,25"], "Sex": ["M", "f", "F"],
    ...     "Stage": ["IIIA", "IB", "Stage IV"], "OS_MONTHS": [12.5, 30.0, 4.0],
    ...     "OS_STATUS": ["1:DECEASED", "0:LIVING", "1:DECEASED"], "remark": ["", "", "moved"]})
    >>> cohort = read_cohort(table, id="Patient", blocks={"clinical": ["age", "sex"]},
    ...                      ordinal={"stage": ("Stage", ["I-II", "III", "IV"])})
    >>> cohort.X
             clinical_age clinical_sex
    Patient
    007             61.50         male
    012             70.00       female
    013             58.25       female
    >>> cohort.y
            stage  os_time  os_event
    Patient
    007       III     12.5      True
    012      I-II     30.0     False
    013        IV      4.0      True
    >>> cohort.report.loc["remark", "role"]
    'unused'
    """
    if relapse_after_death not in ("refuse", "truncate", "unknown"):
        raise ValueError(f"relapse_after_death must be 'refuse', 'truncate' or 'unknown'; got {relapse_after_death!r}.")
    raw = read_table(table, sep=sep, encoding=encoding, sheet=sheet)
    roles = Roles(raw, id, coerce)
    outcomes = roles.claim_outcomes(endpoints, classes, ordinal, units)
    carried = roles.claim_carried(groups, carry)
    features = roles.claim_features(blocks or {})
    roles.prepare(codes or {}, missing, decimal, date_format, categories)
    numbers = _read_numbers(outcomes, features, carried)
    y = _read_outcomes(roles, outcomes, numbers, relapse_after_death)
    X = _read_features(roles, features, carried, numbers)
    check_cohort(X, y, fitting=False)
    grouped = None
    if groups is not None:
        column = roles.columns[roles.find(groups, "groups")]
        grouped = pd.Series(read_labels(column), index=roles.ids, name=column.name)
    notes = [*raw.notes]
    if not modalities(X):
        notes.append("no column became a feature, so no model can be fitted; name the features in blocks={...}")
    return Cohort(X, y, grouped, _account(roles), _leftovers(roles), tuple(notes))


def _read_numbers(
    outcomes: Sequence[Outcome], features: Mapping[str, Column], carried: Mapping[str, Column]
) -> _Numbers:
    """Numbers of all columns that may hold some, by the column's name."""
    for column in features.values():
        if column.codes is None and (column.holds_dates or column.is_dated):
            if not column.found:
                raise ValueError(
                    f"column {column.name!r} holds dates or durations, which are no feature; give the number that is "
                    "meant "
                    "(an age, months since diagnosis), or name the column in endpoints."
                )
            column.leave_out("dates or durations, which are no feature")
    wanted = [column for column in (*features.values(), *carried.values()) if column.roles != ["unused"]]
    for outcome in outcomes:
        if (time := outcome.columns.get("time")) is not None and not looks_like_durations(time):
            if time.holds_dates:
                raise ValueError(
                    f"column {time.name!r} holds dates, not follow-up; give {{'start': ..., 'end': {time.name!r}, "
                    "'event': "
                    "...}, with the date of time zero as start."
                )
            wanted.append(time)
    return read_numbers({column.name: column for column in wanted}.values())


def _read_features(
    roles: Roles,
    features: Mapping[str, Column],
    carried: Mapping[str, Column],
    numbers: _Numbers,
) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name, column in features.items():
        if column.roles == ["unused"]:
            continue
        if (values := numbers[column.name]) is not None:
            columns[name] = values
            continue
        labels = read_labels(column)
        known = [label for label in labels if label is not None]
        if column.found and column.roles == ["block radiomics"]:
            column.leave_out("text, where radiomics are numbers")
        elif column.found and len(known) > 10 and len(set(known)) == len(known):
            column.leave_out("a different text for every patient, as an id has")
        else:
            text = _as_text(labels, roles.ids)
            # As text, labels such as "1" would be read as numbers by the models.
            asked = bool(known) and (column.is_category or column.codes is not None)
            columns[name] = text.astype("category") if asked else text
    for column in roles.columns.values():
        if column.roles == ["image"]:
            cells = pd.Series(index=roles.ids, dtype=object)
            cells[:] = [None if missing else cell for missing, cell in zip(column.empty, column.cells, strict=True)]
            columns[column.became[0]] = cells
    for name, column in carried.items():
        values = numbers[column.name]
        columns[name] = _as_text(read_labels(column), roles.ids) if values is None else values
    return pd.DataFrame(columns, index=roles.ids)


def _read_outcomes(
    roles: Roles, outcomes: Sequence[Outcome], numbers: _Numbers, relapse_after_death: str
) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for outcome in outcomes:
        if outcome.kind == "endpoint":
            time, event = _read_endpoint(outcome, numbers, roles)
            columns[f"{outcome.name}_time"] = time
            columns[f"{outcome.name}_event"] = event if np.isnan(event).any() else event.astype(bool)
        else:
            read = read_ordered if outcome.kind == "ordinal" else read_classes
            columns[outcome.name] = read(outcome.columns["label"], outcome.name, outcome.levels)
    y = pd.DataFrame(columns, index=roles.ids)
    for outcome in outcomes:
        if outcome.kind == "endpoint" and outcome.name in _BEFORE_DEATH and "os_time" in y:
            y = _reconcile(y, outcome, relapse_after_death)
    return y


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


def _account(roles: Roles) -> pd.DataFrame:
    """One row a column of the table."""
    rows = []
    for name, column in roles.columns.items():
        used = column.roles not in ([], ["unused"])
        changes = column.changes
        if used and column.became and name_key(column.became[0]) != name_key(name):
            changes = ["renamed", *changes]
        lost = 0 if column.set_to_nan is None else int(column.set_to_nan.sum())
        role = " and ".join(column.roles) or "unused"
        became = ", ".join(dict.fromkeys(column.became))
        rows.append((name, role, became, "; ".join(changes), int(column.empty.sum()), lost))
    rows += [(name, "dropped", "", why, len(roles.ids), 0) for name, why in roles.raw.dropped.items()]
    names = ["column", "role", "became", "changes", "n_missing", "n_set_to_nan"]
    return pd.DataFrame(rows, columns=names).set_index("column")


def _leftovers(roles: Roles) -> pd.DataFrame:
    """The columns that nobody took; numbers as numbers where all cells are."""
    left = {}
    for name, column in roles.columns.items():
        if column.roles in ([], ["unused"]):
            cells = column.cells.mask(column.empty)
            try:
                left[name] = pd.to_numeric(cells)
            except (TypeError, ValueError):
                left[name] = cells.infer_objects()
    return pd.DataFrame(left, index=roles.ids)


def _as_text(labels: np.ndarray, ids: pd.Index) -> pd.Series:
    known = any(label is not None for label in labels)
    return pd.Series([np.nan if label is None else label for label in labels], ids, dtype=None if known else object)
