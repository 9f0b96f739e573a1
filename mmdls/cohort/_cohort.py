"""The result of reading a table: features, outcomes, and a report on every column."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import pandas as pd

__all__ = ["Cohort"]


@dataclass(frozen=True)
class Cohort:
    """The result of :func:`read_cohort`; ``X, y = cohort`` unpacks it.

    Parameters
    ----------
    X : pandas.DataFrame of shape (n_patients, n_features)
        ``<block>_<feature>`` columns, images, and carried columns, which are no features.
    y : pandas.DataFrame of shape (n_patients, n_outcomes)
        Class and ordinal tasks, ``<endpoint>_time`` (months) with ``<endpoint>_event`` or ``<endpoint>_cause``, and
        ``<number>_value``.
    groups : pandas.Series or None
        The group of each patient, as text: for ``clusters=`` of :func:`mmdls.evaluate` or ``groups=`` of a splitter's
        ``split``. It is no column of ``X``.
    report : pandas.DataFrame
        One row a column of the table: its ``role``, what it ``became``, its ``changes``, how many cells are missing
        (``n_missing``) and how many were set to NaN because they could not be read (``n_set_to_nan``).
    unused : pandas.DataFrame of shape (n_patients, n_unused)
        The columns that are not used.
    notes : tuple of str
        Remarks on the table as a whole.

    Examples
    --------
    >>> from mmdls.cohort import read_cohort
    >>> table = pd.DataFrame({"Patient": ["a", "b", "c"], "Age": [61, 70, 58], "months": [12.5, 30.0, 4.0],
    ...                       "dead": [1, 0, 1], "remark": ["", "moved", ""]})
    >>> cohort = read_cohort(table, id="Patient", blocks={"clinical": ["Age"]}, endpoints={"os": ["months", "dead"]},
    ...                      units={"os": "months"})
    >>> X, y = cohort
    >>> list(X), list(y), list(cohort.unused)
    (['clinical_age'], ['os_time', 'os_event'], ['remark'])
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
