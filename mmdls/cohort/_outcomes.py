"""Endpoints of a table: follow-up in any unit or as dates, status in any coding, relapse recorded after death."""

import datetime
import re
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._columns import Column, is_unknown_word, key_of
from mmdls.cohort._endpoints import DAYS_A_MONTH, shortened

__all__ = ["read_dates", "read_months", "read_status", "reconcile_endpoints", "unit_in_name"]

_MONTHS_PER = {"days": 1 / DAYS_A_MONTH, "weeks": 7 / DAYS_A_MONTH, "months": 1.0, "years": 12.0}
_UNITS = (
    dict.fromkeys(("d", "day", "days", "dys"), "days")
    | dict.fromkeys(("w", "wk", "wks", "week", "weeks"), "weeks")
    | dict.fromkeys(("mo", "mos", "mon", "mth", "mths", "month", "months"), "months")
    | dict.fromkeys(("y", "yr", "yrs", "year", "years"), "years")
)
# A letter alone is a unit behind a number only.
_UNITS_IN_NAMES = {word: unit for word, unit in _UNITS.items() if len(word) > 1}
_DURATION = re.compile(
    r"(?P<number>[+-]?\d+(?:[.,]\d+)?) ?(?P<unit>[a-z]+)\.?(?:,? [+-]?(?P<clock>\d+:\d\d:\d\d(?:\.\d+)?))?"
)
_MOST_MONTHS = 1200.0

_EVENT = frozenset(
    "dead deceased died death exitus yes y true event relapse relapsed recurrence recurred progression".split()
    + ["progressed", "recurred/progressed", "dead of disease", "dead of other causes", "expired"]
)
_NO_EVENT = frozenset(
    "alive living censored no n false diseasefree disease-free nonrecurrent lost".split()
    + [
        "no event",
        "disease free",
        "progression free",
        "event free",
        "not recurred",
        "lost to follow-up",
        "alive with disease",
    ]
    + ["alive without disease", "no recurrence", "no relapse", "no progression"]
)
_OPPOSITE = re.compile(r"alive|living|surviv|cens|vital|free")
# "event_free", "not_dead": the words of an event that name its absence
_ABSENCE = re.compile(
    r"(?:event|death|relapse|recurrence|progression)[\W_]*free"
    r"|(?<![a-z])(?:no|not|non|without)[\W_]+(?:event|dead|death|deceased|died|relapse|recur|progress)"
)
_NAMES_EVENT = re.compile(r"event|dead|death|deceased|died|relapse|recur|progress")


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
        The unit of numbers; None takes the one that the column's name states, months for ``<endpoint>_time``.
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


def read_dates(column: Column, date_format: str | None) -> np.ndarray:
    """Read dates as whole days.

    Parameters
    ----------
    column : Column
        Dates, or texts: 2019-03-28, 20190328, 28.03.2019, 28-Mar-2019, March 28, 2019, and 28/03/2019 or 03/28/2019
        where one of the two is possible throughout the column.
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
    cure = (
        "Give date_format (as '%d.%m.%y', or 'excel' for Excel's day numbers) if they have another form, correct them"
    )
    column.lose(column.known & np.isnan(values), expected, cure)
    return values


def read_status(column: Column) -> np.ndarray:
    """Read a status as 1 (event seen), 0 (censored) or NaN; codes such as 1/2 need their meaning.

    Parameters
    ----------
    column : Column

    Returns
    -------
    ndarray of shape (n_patients,)

    Raises
    ------
    ValueError
        If a code is neither 0 nor 1, or may mean the opposite.
    """
    if column.codes is not None:
        wrong = {key: m for key, m in column.codes.items() if m is not None and m not in (0, 1)}
        if wrong:
            raise ValueError(
                f"codes[{column.name!r}] must give 1 (event), 0 (censored) or None (unknown) for each value; got "
                f"{wrong}."
            )
        return np.array([np.nan if meaning is None else float(meaning) for meaning in column.recoded()])
    meanings: dict[str, float | None] = {text: _status_of(text) for text in set(column.texts[column.known])}
    keys = {key_of(text) for text in meanings}
    contrary = sorted(text for text in meanings if _contradicts_itself(text))
    example = ", ".join(f"{text!r}: ..." for text in (contrary or sorted(meanings))[:3])
    cure = f"Give the meaning of every value: codes={{{column.name!r}: {{{example}}}}}, with 1 (event) or 0 (censored)"
    if contrary:
        raise ValueError(
            f"the codes and the words of status column {column.name!r} contradict each other: {contrary}. {cure}."
        )
    codes = keys & {"0", "1", "true", "false", "yes", "no", "y", "n"}
    name = _ABSENCE.sub("free", column.name.lower())
    if codes and _OPPOSITE.search(name) and not re.search(r"event|dead|death", name):
        raise ValueError(
            f"column {column.name!r} holds {sorted(codes)}, and 1 may mean that no event was seen. {cure}."
        )
    if keys == {"1"} and not _NAMES_EVENT.search(name):
        raise ValueError(
            f"column {column.name!r} holds nothing but 1, which means an event in the coding 0/1 and none in 1/2. "
            f"{cure}."
        )
    strange = {text for text, meaning in meanings.items() if meaning is None}
    if any(not is_unknown_word(text) for text in strange) and any(key_of(text).isdigit() for text in strange):
        # A third code, or the coding 1/2: nothing that could be set to NaN and leave the others right.
        raise ValueError(f"status column {column.name!r} is neither 0 nor 1 throughout: {sorted(keys)}. {cure}.")
    bad = np.array([text in strange for text in column.texts], dtype=bool)
    column.lose(bad, "a status (0/1, Alive/Dead, True/False, '0:LIVING'/'1:DECEASED')", cure)
    values = np.array([np.nan if text is None or text in strange else meanings[text] for text in column.texts], float)
    counts = Counter((text, meanings[text]) for text in column.texts if text is not None and text not in strange)
    if any(key_of(text) not in ("0", "1") for text, _ in counts):
        shown = [f"{text!r} -> {meaning:.0f} ({n})" for (text, meaning), n in sorted(counts.items())]
        column.note("recoded: " + ", ".join(shown))
    return values


def reconcile_endpoints(y: pd.DataFrame, rule: str, *, first: str = "dfs", last: str = "os") -> pd.DataFrame:
    """Mend follow-up in which relapse is recorded after the end of overall follow-up, by a rule that you choose.

    A warning counts and names the patients that changed.

    Parameters
    ----------
    y : pandas.DataFrame
        Holds ``<first>_time``, ``<first>_event``, ``<last>_time`` and ``<last>_event``.
    rule : {"truncate", "unknown"}
        ``"truncate"`` ends the first endpoint where the last one ends, with the event of the last one: a patient who
        died then had the event of disease-free survival then, a patient who was lost then was free of relapse until
        then. ``"unknown"`` sets both halves of the first endpoint to NaN.
    first : str, default="dfs"
        The endpoint that cannot end later, such as disease-free or progression-free survival.
    last : str, default="os"
        The endpoint that death ends.

    Returns
    -------
    DataFrame
        A copy of ``y``; ``y`` itself where no patient is concerned.

    Raises
    ------
    ValueError
        If the rule is not known.
    KeyError
        If ``y`` lacks one of the endpoints.

    Examples
    --------
    >>> y = pd.DataFrame({"dfs_time": [9.0, 4.0], "dfs_event": [1, 1], "os_time": [8.0, 6.0], "os_event": [1, 0]})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     reconcile_endpoints(y, "truncate")["dfs_time"].tolist()
    [8.0, 4.0]
    """
    mended, late = truncate_late(y, rule, first, last)
    if late.any():
        done = f"ends with {last!r} now" if rule == "truncate" else "is unknown now"
        warnings.warn(
            f"{int(late.sum())} of {len(y)} patients ({late.mean():.1%}) have {first!r} later than {last!r}, which "
            "cannot be; "
            f"their {first!r} {done} (rule {rule!r}): {shortened(y.index[late])}.",
            stacklevel=2,
        )
    return mended


def truncate_late(y: pd.DataFrame, rule: str, first: str, last: str) -> tuple[pd.DataFrame, np.ndarray]:
    """:func:`reconcile_endpoints` without its warning: the table, and which patients changed."""
    if rule not in ("truncate", "unknown"):
        raise ValueError(f"rule must be 'truncate' or 'unknown'; got {rule!r}.")
    halves = [f"{name}_{half}" for half in ("time", "event") for name in (first, last)]
    lacking = [column for column in halves if column not in y]
    if lacking:
        raise KeyError(f"y lacks {lacking}, which rule={rule!r} needs. Columns: {list(y.columns)}.")
    values = {half: y[half].to_numpy(dtype=np.float64, na_value=np.nan) for half in halves}
    # Two subtractions of dates may differ by rounding.
    tolerance = 1e-8 * np.maximum(values[f"{last}_time"], 1.0)
    late = values[f"{first}_time"] - values[f"{last}_time"] > tolerance
    if not late.any():
        return y, late
    y = y.copy()
    for half in ("time", "event"):
        mended = np.where(late, values[f"{last}_{half}"] if rule == "truncate" else np.nan, values[f"{first}_{half}"])
        boolean = y[f"{first}_{half}"].dtype == bool and not np.isnan(mended).any()
        y[f"{first}_{half}"] = mended.astype(bool) if boolean else mended
    return y, late


def _durations(column: Column, unit: str | None, endpoint: str) -> np.ndarray:
    """Months of timedeltas, or of numbers with a unit behind them."""
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
    """Whether a column holds timedeltas or numbers with units."""
    if getattr(column.cells.dtype, "kind", "O") == "m":
        return True
    first = next((text for text in column.texts if text is not None and not is_unknown_word(text)), None)
    match = None if first is None else _DURATION.fullmatch(first.lower())
    return match is not None and match["unit"] in _UNITS


def _checked(column: Column, months: np.ndarray, expected: str, unit: str) -> np.ndarray:
    """Negative follow-up and more than a lifetime are refused."""
    with np.errstate(invalid="ignore"):
        negative, endless = months < 0, months > _MOST_MONTHS
    column.lose(
        negative, f"{expected} and no negative follow-up", "Correct the date from which these patients are followed"
    )
    column.lose(endless, expected, "Say units={...} if the unit is another one, correct them")
    return np.round(np.where(negative | endless, np.nan, months), 9)


_CODED = re.compile(r"([01])\s*[:=]\s*(.*)")


def _status_of(text: str) -> float | None:
    word = key_of(text)
    coded = _CODED.fullmatch(word)
    if coded:
        return float(coded[1])
    if word in ("0", "1"):
        return float(word)
    return _status_of_word(word)


def _contradicts_itself(text: str) -> bool:
    """Whether a code and its word mean different things, as in "1:LIVING"."""
    coded = _CODED.fullmatch(key_of(text))
    return coded is not None and _status_of_word(coded[2]) not in (None, float(coded[1]))


def _status_of_word(word: str) -> float | None:
    return 1.0 if word in _EVENT else 0.0 if word in _NO_EVENT else None


_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[t ].*)?")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4})(?: \d\d?:\d\d.*)?")
_DAY_NAME = re.compile(r"(\d{1,2})[-. ]+([a-z]{3,9})[-. ,]+(\d{4})")
_NAME_DAY = re.compile(r"([a-z]{3,9})[. ]+(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})")
_MONTH_NAMES = "january february march april may june july august september october november december".split()


def _days_of(text: str, date_format: str | None) -> tuple[float, float]:
    """A date with the day first and with the month first, as days; NaN where it is none."""
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
