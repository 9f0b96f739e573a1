"""Dates in many spellings as whole days."""

import datetime
import re
from typing import Any

import numpy as np

from mmdls.cohort._columns import Column

__all__ = ["read_dates"]


def read_dates(column: Column, date_format: str | None) -> np.ndarray:
    """Read dates as whole days.

    Parameters
    ----------
    column : Column
        Dates, or texts: 2019-03-28, 20190328, 28.03.2019, 28-Mar-2019, March 28, 2019, and 28/03/2019 or 03/28/2019
        if only one of these two orders fits the whole column.
    date_format : str or None
        ``strptime``'s pattern of the texts, or ``"excel"`` for serial numbers of days.

    Returns
    -------
    ndarray of shape (n_patients,)
        Days since 0001-01-01 (``date.toordinal``), NaN for missing cells.

    Raises
    ------
    ValueError
        If texts are no dates, or days and months cannot be told apart.
    """
    days = np.full((2, len(column.texts)), np.nan)
    for place, text in enumerate(column.texts):
        if text is not None:
            days[:, place] = _days_of(text, date_format)
    either = ~np.isnan(days).all(axis=0)
    ambiguous = ~np.isnan(days).any(axis=0) & (days[0] != days[1])
    choice = 0
    if ambiguous.any():
        only = [either & np.isnan(days[1 - side]) for side in (0, 1)]
        certain = [bool(side.any()) for side in only]
        if certain[0] == certain[1]:
            raise ValueError(
                f"column {column.name!r} holds dates such as {column.texts[ambiguous][0]!r}, where day and month "
                "cannot be "
                "told apart; say which with date_format='%d/%m/%Y' or '%m/%d/%Y'."
            )
        choice = 0 if certain[0] else 1
    values = np.where(np.isnan(days[choice]), days[1 - choice], days[choice])
    if ambiguous.any():
        values = days[choice]
        column.note("dates with the day first" if choice == 0 else "dates with the month first")
    expected = "dates, such as 2019-03-28" if date_format is None else f"dates of the form {date_format!r}"
    hint = (
        "Give date_format (as '%d.%m.%y', or 'excel' for Excel's day numbers) if they have another form, correct them"
    )
    column.lose(column.known & np.isnan(values), expected, hint)
    return values


_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[t ].*)?")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4})(?: \d\d?:\d\d.*)?")
_DAY_NAME = re.compile(r"(\d{1,2})[-. ]+([a-z]{3,9})[-. ,]+(\d{4})")
_NAME_DAY = re.compile(r"([a-z]{3,9})[. ]+(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})")
_MONTH_NAMES = "january february march april may june july august september october november december".split()


def _days_of(text: str, date_format: str | None) -> tuple[float, float]:
    """A text read with the day first and with the month first, as days; NaN where it is no date."""
    if date_format == "excel":
        number = float(text) if re.fullmatch(r"\d{1,6}(\.\d+)?", text) else 0.0
        days = float(int(number) + datetime.date(1899, 12, 30).toordinal()) if number > 60 else np.nan
        return days, days
    if date_format is not None:
        try:
            days = float(datetime.datetime.strptime(text, date_format).toordinal())
        except ValueError:
            days = float(_days_of(text, None)[0]) if _YEAR_FIRST.fullmatch(text.lower()) else np.nan
        return days, days
    text = text.lower()
    if match := (_YEAR_FIRST.fullmatch(text) or _COMPACT.fullmatch(text)):
        days = _ordinal(match[1], match[2], match[3])
        return days, days
    if match := _YEAR_LAST.fullmatch(text):
        day_first = _ordinal(match[4], match[3], match[1])
        return day_first, day_first if match[2] == "." else _ordinal(match[4], match[1], match[3])
    if match := _DAY_NAME.fullmatch(text):
        days = _ordinal(match[3], _month(match[2]), match[1])
        return days, days
    if match := _NAME_DAY.fullmatch(text):
        days = _ordinal(match[3], _month(match[1]), match[2])
        return days, days
    return np.nan, np.nan


def _month(name: str) -> int:
    return next((number for number, month in enumerate(_MONTH_NAMES, 1) if month.startswith(name)), 0)


def _ordinal(year: Any, month: Any, day: Any) -> float:
    try:
        return float(datetime.date(int(year), int(month), int(day)).toordinal())
    except ValueError:
        return np.nan
