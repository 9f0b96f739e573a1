"""Follow-up in any unit as months."""

import re
import warnings

import numpy as np
import pandas as pd

from mmdls.cohort._columns import Column, is_unknown_word
from mmdls.cohort._endpoints import DAYS_A_MONTH

__all__ = ["looks_like_durations", "read_months", "unit_in_name"]

_MONTHS_PER = {"days": 1 / DAYS_A_MONTH, "weeks": 7 / DAYS_A_MONTH, "months": 1.0, "years": 12.0}
_UNITS = (
    dict.fromkeys(("d", "day", "days", "dys"), "days")
    | dict.fromkeys(("w", "wk", "wks", "week", "weeks"), "weeks")
    | dict.fromkeys(("mo", "mos", "mon", "mth", "mths", "month", "months"), "months")
    | dict.fromkeys(("y", "yr", "yrs", "year", "years"), "years")
)
# A single letter is a unit only behind a number, not in a column's name.
_UNITS_IN_NAMES = {word: unit for word, unit in _UNITS.items() if len(word) > 1}
_DURATION = re.compile(
    r"(?P<number>[+-]?\d+(?:[.,]\d+)?) ?(?P<unit>[a-z]+)\.?(?:,? [+-]?(?P<clock>\d+:\d\d:\d\d(?:\.\d+)?))?"
)
_MOST_MONTHS = 1200.0


def unit_in_name(name: str) -> str | None:
    """The unit of time that a column's name states, such as "OS_MONTHS" or "daysToDeath"; None if it states none."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    units = {_UNITS_IN_NAMES[word.lower()] for word in words if word.lower() in _UNITS_IN_NAMES}
    return units.pop() if len(units) == 1 else None


def read_months(column: Column, unit: str | None, numbers: np.ndarray | None, endpoint: str) -> np.ndarray:
    """Read follow-up as months.

    Parameters
    ----------
    column : Column
        Numbers, durations (timedelta), or texts such as "12 months".
    unit : {"days", "weeks", "months", "years", None}
        The unit of numbers; None takes the unit in the column's name, and months for ``<endpoint>_time``.
    numbers : ndarray of shape (n_patients,) or None
        The column as numbers, None where it holds durations.
    endpoint : str
        For the messages.

    Returns
    -------
    ndarray of shape (n_patients,)
        Months (30.4375 days, 12 to a year), rounded to 1e-9 so that ties stay ties whatever the unit.

    Raises
    ------
    ValueError
        If the unit is not known.
    """
    if numbers is None:
        return _durations(column, unit, endpoint)
    if {text.lower() for text in column.texts[column.known]} in ({"true"}, {"false"}, {"true", "false"}):
        raise ValueError(
            f"column {column.name!r} holds True and False, which are no follow-up. Are the columns of the time and of "
            f"the event of {endpoint!r} exchanged?"
        )
    stated = unit_in_name(column.name)
    if unit is None:
        unit = stated
    elif stated is not None and stated != unit:
        warnings.warn(
            f"column {column.name!r} is read in {unit}, as asked for, although its name says {stated}.", stacklevel=4
        )
    if unit is None and re.fullmatch(r".+_time", column.name, re.IGNORECASE):
        unit = "months"
        column.note("taken as months, the unit of <name>_time")
    if unit is None:
        raise ValueError(
            f"the unit of column {column.name!r} is not known; give units={{{endpoint!r}: 'days'}} (or 'weeks', "
            "'months', "
            "'years'). Months are what y holds; a month has 30.4375 days."
        )
    if unit != "months":
        column.note(f"{unit} became months (30.4375 days a month)")
    return _checked(column, numbers * _MONTHS_PER[unit], f"{unit} of follow-up up to 100 years", unit)


def _durations(column: Column, unit: str | None, endpoint: str) -> np.ndarray:
    """Months from timedeltas, or from numbers followed by a unit."""
    cells = column.cells
    if getattr(cells.dtype, "kind", "O") == "m":
        column.note("durations became months (30.4375 days a month)")
        days = (cells / pd.Timedelta(days=1)).to_numpy(dtype=np.float64, na_value=np.nan)
        return _checked(column, days / DAYS_A_MONTH, "durations up to 100 years", "days")
    months = np.full(len(column.texts), np.nan)
    for place, text in enumerate(column.texts):
        if text is not None and (match := _DURATION.fullmatch(text.lower())) and match["unit"] in _UNITS:
            months[place] = float(match["number"].replace(",", ".")) * _MONTHS_PER[_UNITS[match["unit"]]]
            if match["clock"]:
                months[place] += pd.Timedelta(match["clock"]) / pd.Timedelta(days=1) / DAYS_A_MONTH
    column.lose(
        column.known & np.isnan(months),
        f"the follow-up of {endpoint!r}: numbers, durations, or numbers with a unit",
        "Give dates as {'start': ..., 'end': ..., 'event': ...}",
    )
    column.note("durations became months (30.4375 days a month)")
    return _checked(column, months, "durations up to 100 years", unit or "days")


def looks_like_durations(column: Column) -> bool:
    """Whether a column holds timedeltas or numbers with units.

    Parameters
    ----------
    column : Column

    Returns
    -------
    bool
    """
    if getattr(column.cells.dtype, "kind", "O") == "m":
        return True
    first = next((text for text in column.texts if text is not None and not is_unknown_word(text)), None)
    match = None if first is None else _DURATION.fullmatch(first.lower())
    return match is not None and match["unit"] in _UNITS


def _checked(column: Column, months: np.ndarray, expected: str, unit: str) -> np.ndarray:
    """Refuse negative follow-up and follow-up longer than a lifetime; round so that ties stay ties."""
    with np.errstate(invalid="ignore"):
        negative, endless = months < 0, months > _MOST_MONTHS
    column.lose(
        negative, f"{expected} and no negative follow-up", "Correct the date from which these patients are followed"
    )
    column.lose(endless, expected, "Say units={...} if the unit is another one, correct them")
    return np.round(np.where(negative | endless, np.nan, months), 9)
