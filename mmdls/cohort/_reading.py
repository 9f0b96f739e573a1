"""Reading a hospital's own table as X and y, with a report on every column."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._cells import cell_kind
from mmdls.cohort._checks import check_cohort
from mmdls.cohort._cohort import Cohort
from mmdls.cohort._columns import Column, read_labels
from mmdls.cohort._files import read_table
from mmdls.cohort._follow_up import looks_like_durations
from mmdls.cohort._identifiers import is_free_text
from mmdls.cohort._numbers import read_numbers
from mmdls.cohort._outcome_roles import claim_found_numbers, claim_outcomes, refuse_equal_names
from mmdls.cohort._reading_outcomes import read_outcomes
from mmdls.cohort._requests import name_key
from mmdls.cohort._roles import Outcome, Roles
from mmdls.cohort._schema import modalities
from mmdls.cohort._stages import are_stages, read_ordered

__all__ = ["read_cohort"]

# By the column's name; None for columns of categories
_Numbers = Mapping[str, np.ndarray | None]


def read_cohort(
    table: str | PathLike | pd.DataFrame | Any,
    *,
    id: str | None = None,
    endpoints: Mapping[str, Any] | Sequence[str] | str | None = None,
    classes: Mapping[str, Any] | Sequence[str] | str | None = None,
    ordinal: Mapping[str, Any] | Sequence[str] | str | None = None,
    numbers: Mapping[str, str] | Sequence[str] | str | None = None,
    blocks: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | str | None = None,
    codes: Mapping[str, Mapping[Any, Any]] | None = None,
    categories: Sequence[str] | str = (),
    ordered: Mapping[str, Sequence[Any]] | Sequence[str] | str = (),
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
    header: int | None = None,
) -> Cohort:
    """Read a hospital's own table, with any column names, units and codings.

    Nothing is guessed: a value that can be read in two ways is refused, and the message names the argument that helps.
    Column names are matched without regard to case and outer spaces. The report in the result shows how every column
    was used.

    Parameters
    ----------
    table : path-like or DataFrame (pandas, polars, pyarrow)
        A CSV file of any separator, an Excel file, or a data frame; one row a patient.
    id : str, default=None
        The column with the patients' ids, which stay text ("007" keeps its zeros). None takes the index of a pandas
        DataFrame, unless it only numbers the rows.
    endpoints : mapping, sequence of str, str or None, default=None
        ``{"os": (time, event)}`` with the names of two columns, or ``{"os": {...}}`` with ``time`` and ``event``;
        with dates as ``start``, ``end`` and ``event``; or as ``start``, ``event_date`` (empty if no event was seen) and
        ``end`` (last contact). The mapping may also give the ``unit``. Competing risks have ``cause`` (0 = censored, 1,
        2, ... = the cause) instead of ``event``, or beside an ``event`` or ``event_date``, which then tells who is
        censored; a cause in words needs ``codes``. A name alone means the columns ``<name>_time`` with ``<name>_event``
        or ``<name>_cause``. None takes every such pair, and every pair ``<name>_months`` and ``<name>_status``.
    classes, ordinal : mapping, sequence of str, str or None, default=None
        ``{"subtype": column}``, ``{"subtype": (column, levels)}``, or ``{"subtype": levels}`` for the column
        ``"subtype"``; a name alone is a column. Levels of an ordinal task go from lowest to highest and may be groups
        of stages: ``{"stage": ("TNM", ["I-II", "III", "IV"])}`` reads "IIIA", "3b" and "Stage IB". Without levels, the
        labels must have an order by themselves: numbers, stages, T, N, M, or an ordered categorical.
    numbers : mapping of str to str, sequence of str, str or None, default=None
        Numbers to predict, in any unit: ``{"fev1": column}``, or a name alone, which is a column. In ``y`` they are
        called ``<name>_value``. None takes every column ``<name>_value`` that is in no block and has no other use,
        ``[]`` none. The names in ``y`` of other kinds of tasks with one column of numbers count as well.
    blocks : mapping of str to sequence of str, mapping or str, default=None
        The features: ``{"clinical": ["Age", "Sex"], "pet": "SUV*"}`` (``*`` matches any text), or
        ``{"clinical": {"age": "Age at diagnosis"}}`` with new names. Columns become ``<block>_<name>`` in lower case.
        Other blocks are found by the names of their columns: ``clinical_*``, ``pet_*``, ``radiomics_*``, the names of
        PyRadiomics (``original_*``, ``wavelet-*``, ``log-sigma-*``: block ``radiomics``, spelling unchanged;
        ``diagnostics_*`` is dropped), images (``*_image``, ``*_mask``) and bags of vectors
        (``*_vectors``).
    units : mapping of str to str or str, default=None
        "days", "weeks", "months" or "years", by endpoint or column. Needed where neither the column's name
        ("OS_MONTHS", "days_to_death") nor its cells (durations) state the unit. A month has 30.4375 days.
    codes : mapping of str to mapping, default=None
        The meaning of every value of a column, None for a missing one: ``{"status": {1: 0, 2: 1}}``,
        ``{"sex": {1: "male", 2: "female"}}``. Where an ordinal task has levels, the values that already name a level
        may be left out: ``{"TNM": {0: "I-II"}}``. A column may also be given by its new name ("os_event",
        "clinical_sex").
    categories : sequence of str or str, default=()
        Features that are categories although they look like numbers.
    ordered : mapping of str to sequence, sequence of str or str, default=()
        Features whose categories have an order, from lowest to highest: ``{"TNM": ["I", "II", "III", "IV"]}`` reads
        "IIIA", "3b" and "Stage IB" as an ordinal task does, and makes an ordered categorical, which models read as one
        column of numbers. Missing stays missing. A name alone takes the order that the labels have by themselves.
    groups : str, default=None
        The column by which patients are grouped, for example the hospital; it becomes ``cohort.groups``. A group column
        that a splitter such as :class:`~mmdls.model_selection.CohortKFold` reads from ``X`` goes into ``carry``.
    carry : mapping of str to str, sequence of str or str, default=()
        Columns that ``X`` keeps without using them as features, ``{name in X: column}``; their names in ``X`` have no
        underscore.
    missing : sequence or mapping of str to sequence, default=()
        Words or numbers that mean a missing cell, in all columns or by column, besides empty cells and the words that
        software writes (NA, NaN, NULL, #N/A).
    coerce : bool, default=False
        Set cells that cannot be read (words among numbers, unknown labels, impossible or half-known outcomes) to NaN
        and count them in the report. False refuses them, and the message names the patients.
    decimal : {".", ","} or mapping of str to str, default=None
        The decimal mark; needed only where "1,234" may be either.
    date_format : str or mapping of str to str, default=None
        ``strptime``'s pattern for dates, needed where day and month cannot be told apart; "excel" for Excel's numbers.
    relapse_after_death : {"refuse", "truncate", "unknown"}, default="refuse"
        What to do where disease-free (or progression-, relapse-, event-free) survival ends after ``os``; see
        :func:`reconcile_endpoints`. The report counts the patients.
    sep, encoding : str, default=None
        Separator and encoding of a text file, where they cannot be detected.
    sheet : str or int, default=None
        The sheet of an Excel file with more than one.
    header : int, default=None
        The row of a file that holds the names of the columns, from 0, where a title stands above; empty rows count.
        None takes the first row that is not empty.

    Returns
    -------
    Cohort
        ``X, y = read_cohort(...)`` unpacks it; printing it shows the report on all columns.

    Raises
    ------
    FileNotFoundError, KeyError, TypeError, ValueError
        The message names the column, the cells, the patients and what to do.

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
    raw = read_table(table, sep=sep, encoding=encoding, sheet=sheet, header=header)
    roles = Roles(raw, id, coerce)
    claim_outcomes(roles, endpoints, classes, ordinal, numbers, units)
    carried = roles.claim_carried(groups, carry)
    features = roles.claim_features(blocks or {})
    if numbers is None:
        claim_found_numbers(roles)
    refuse_equal_names(roles)
    roles.prepare(codes or {}, missing, decimal, date_format, categories, ordered)
    values = _read_numbers(roles.taken, features, carried)
    y = read_outcomes(roles, values, relapse_after_death)
    X = _read_features(roles, features, carried, values)
    check_cohort(X, y, fitting=False)
    grouped = None
    if groups is not None:
        column = roles.columns[roles.find(groups, "groups")]
        grouped = pd.Series(read_labels(column), index=roles.ids, name=column.name)
    notes = [*roles.raw.notes]
    if not modalities(X):
        notes.append("no column became a feature, so no model can be fitted; name the features in blocks={...}")
    return Cohort(X, y, grouped, _account(roles), _leftovers(roles), tuple(notes))


def _read_numbers(
    outcomes: Sequence[Outcome], features: Mapping[str, Column], carried: Mapping[str, Column]
) -> _Numbers:
    """Read all columns that may hold numbers; by the column's name, None for a column of categories."""
    for column in features.values():
        if not column.is_ordered and column.codes is None and (column.holds_dates or column.is_dated):
            if not column.found:
                raise ValueError(
                    f"column {column.name!r} holds dates or durations, which are no feature; give the number that is "
                    "meant (an age, months since diagnosis), or name the column in endpoints."
                )
            column.leave_out("dates or durations, which are no feature")
    wanted = [
        column
        for column in (*features.values(), *carried.values())
        if column.roles != ["unused"] and not column.is_ordered
    ]
    for outcome in outcomes:
        if (time := outcome.columns.get("time")) is not None and not looks_like_durations(time):
            if time.holds_dates:
                raise ValueError(
                    f"column {time.name!r} holds dates, not follow-up; give {{'start': ..., 'end': {time.name!r}, "
                    "'event': ...}, with the date of time zero as start."
                )
            wanted.append(time)
        if outcome.role == "number":
            wanted += [_checked_number(column) for column in outcome.columns.values()]
    return read_numbers({column.name: column for column in wanted}.values())


def _checked_number(column: Column) -> Column:
    """A column of numbers to predict, unless it holds dates or durations."""
    if column.codes is None and (column.holds_dates or column.is_dated or looks_like_durations(column)):
        raise ValueError(
            f"column {column.name!r} holds dates or durations, which are no number to predict; give the follow-up of "
            "an endpoint in endpoints, or say with numbers=[...] which columns are numbers to predict."
        )
    return column


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
        if column.is_ordered:
            columns[name] = read_ordered(column, name, column.levels, "ordered")
            column.note(f"in the order {' < '.join(columns[name].cat.categories)}")
            continue
        if (values := numbers[column.name]) is not None:
            columns[name] = values
            continue
        labels = read_labels(column)
        known = pd.Series([label for label in labels if label is not None], dtype=object)
        if column.found and column.roles == ["block radiomics"]:
            column.leave_out("text, where radiomics are numbers")
        elif column.found and is_free_text(known):
            column.leave_out(f"free text; embed it, and give the vectors as {column.name}_vectors")
        elif column.found and len(known) > 10 and known.is_unique:
            column.leave_out("a different text for every patient, as an id has")
        else:
            text = _as_text(labels, roles.ids)
            # As text, labels such as "1" would be read as numbers by the models.
            asked = len(known) > 0 and (column.is_category or column.codes is not None)
            if not asked and is_free_text(known):
                column.note(
                    f"free text, which models of tables refuse; embed it, and give the vectors as {name}_vectors"
                )
            if are_stages(known.unique()):
                column.note(f"categories without an order; ordered={{{column.name!r}: [...]}} gives them one")
            columns[name] = text.astype("category") if asked else text
    for column in roles.columns.values():
        if column.became and cell_kind(column.became[0]) is not None:
            cells = pd.Series(index=roles.ids, dtype=object)
            cells[:] = [None if missing else cell for missing, cell in zip(column.empty, column.cells, strict=True)]
            columns[column.became[0]] = cells
    for name, column in carried.items():
        values = numbers[column.name]
        columns[name] = _as_text(read_labels(column), roles.ids) if values is None else values
    return pd.DataFrame(columns, index=roles.ids)


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
    """The columns that are not used; as numbers where all cells are numbers."""
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
