"""Columns that would be mistaken for labels: endpoints under other names, measurements, dates, identifiers."""

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from mmdls.cohort._classes import class_labels
from mmdls.cohort._endpoints import DAYS_A_MONTH, shortened
from mmdls.cohort._identifiers import is_identifier_name

__all__ = ["as_numbers", "check_labels", "endpoints_under_other_names", "is_outcome_name", "refuse_measurements"]

_ENDPOINTS = {
    *("os", "dfs", "pfs", "rfs", "efs", "dss", "css", "lrfs", "dmfs", "mfs", "ttp"),
    *("survival", "surv", "vital", "dead", "deadstatus", "followup"),
}
_TIMES = {"time", "times", "month", "months", "mo", "week", "weeks", "day", "days", "year", "years", "yrs", "duration"}
_STATUSES = {"event", "events", "status", "censor", "censored", "censoring", "cens", "indicator"}
_STATUS_ALONE = {"event", "status", "dead", "alive", "deceased", "censored", "deadstatus", "vitalstatus"}
_STATUS_WORDS = re.compile(r"(no )?event|alive|living|dead|died|deceased|censored|\d\s*[:=]\s*[a-z].*")
_JOINED = re.compile(
    r"(os|dfs|pfs|rfs|efs|dss|css|surv|survival|death|dead|vital|followup)"
    r"(time|months?|days?|weeks?|years?|status|event|censor\w*|cens|date)"
)
# As Python and pandas write what is missing.
_MISSING_AS_TEXT = {"nan", "NaN", "<NA>", "NaT"}
_FEW_PER_CLASS = 10
_MANY_CLASSES = 20
# Of groups of patients.
_FEW_VALUES = 5
_FEW_PER_GROUP = 5


def check_labels(y: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse columns that would be learned as classes although they are no labels.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)
    columns : sequence of str
        The columns of ``y`` that would be learned as classes.

    Raises
    ------
    ValueError
        If a column is the time or the status of an endpoint under another name, holds dates, continuous numbers, or
        nearly as many values as patients. The message says what to do.

    Warns
    -----
    UserWarning
        If a column holds more than 20 different whole numbers.
    """
    found, renaming = endpoints_under_other_names(y, columns)
    if found:
        raise ValueError(
            f"the columns {found} of y look like the time or the status of a right-censored endpoint and would be "
            "learned as classes. An endpoint is a pair of columns '<name>_time' "
            f"(months) and '<name>_event' (1 = seen, 0 = censored): {renaming} "
            "mmdls.cohort.read_cohort does this for a hospital's own table. If the column is a class after all, give "
            "it another name, and booleans or other texts as values."
        )
    for column in columns:
        _check_values(y[column])


def endpoints_under_other_names(y: pd.DataFrame, columns: Sequence[str]) -> tuple[list[str], str]:
    """The columns that look like the time or the status of an endpoint, and code that renames them.

    Parameters
    ----------
    y : pandas.DataFrame of shape (n_patients, n_columns)
    columns : sequence of str
        The columns of ``y`` that do not belong to an endpoint.

    Returns
    -------
    columns : list of str
    renaming : str
        Empty if there are no such columns.
    """
    times = [column for column in columns if _is_time(y[column])]
    statuses = [column for column in columns if column not in times and _is_status(y[column])]
    found = [column for column in columns if column in (*times, *statuses)]
    return found, _renaming(times, statuses) if found else ""


@lru_cache(2**16)  # a model that answers one patient after another asks for the same names again and again
def is_outcome_name(name: str) -> bool:
    """Whether a column's name is that of an endpoint's time or status.

    Examples
    --------
    >>> [is_outcome_name(name) for name in ("OS_MONTHS", "clinical_days_to_death", "clinical_smoking_status")]
    [True, True, False]
    """
    words = _words(name)
    if not words:
        return False
    until = re.search(
        r"\b(time|days|weeks|months|years) to (death|relapse|recurrence|progression|event)", " ".join(words)
    )
    return until is not None or (bool(_ENDPOINTS & set(words)) and words[-1] in _TIMES | _STATUSES | {"date"})


def _words(name: str) -> list[str]:
    """The words of a name, split at changes of case and at non-letters; joined forms such as "ostime" are split too."""
    words: list[str] = []
    for part in re.findall(r"[A-Za-z]+", name):
        whole = _JOINED.fullmatch(part.lower())
        parts = whole.groups() if whole else re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part)
        for word in map(str.lower, parts):
            joined = _JOINED.fullmatch(word)
            words += joined.groups() if joined else [word]
    pairs = zip(words, [*words[1:], ""], strict=False)
    # "follow up" is one word; its second half goes.
    merged = ["followup" if pair == ("follow", "up") else pair[0] for pair in pairs]
    return [word for word, before in zip(merged, ["", *merged], strict=False) if (before, word) != ("followup", "up")]


def _is_time(column: pd.Series) -> bool:
    """Numbers with more than two values, or durations, under the name of a time."""
    words = _words(str(column.name))
    named = bool(_TIMES & set(words)) or bool(words) and words[-1] in _ENDPOINTS
    if isinstance(column.dtype, pd.CategoricalDtype) or not named:
        return False
    if pd.api.types.infer_dtype(column, skipna=True).startswith("timedelta"):
        return True
    return not pd.api.types.is_bool_dtype(column.dtype) and len(as_numbers(column).dropna().unique()) > 2


def _is_status(column: pd.Series) -> bool:
    words = _words(str(column.name))
    known = column.dropna()
    if not words or not 1 <= known.nunique() <= 5:
        return False
    named = (
        words[-1] in {"event", "censored", "censoring", "cens"}
        or words[-1] in _STATUSES
        and (bool(_ENDPOINTS & set(words)) or bool({"death", "relapse", "recurrence", "progression"} & set(words[:-1])))
    )
    texts = [value for value in known.unique() if isinstance(value, str)]
    worded = bool(texts) and all(_STATUS_WORDS.fullmatch(text.strip().lower()) for text in texts)
    return named or worded or "".join(words) in _STATUS_ALONE


def _renaming(times: list[str], statuses: list[str]) -> str:
    """Code and advice that make endpoints of the columns found."""
    left, names, parts = list(statuses), {}, []
    for time in times:
        stem = _stem(time)
        status = next((s for s in left if _stem(s) == stem), left[0] if left else None)
        names[time] = f"{stem}_time"
        if status is None:
            parts.append(f"{time!r} also needs its event as '{stem}_event'.")
        else:
            left.remove(status)
            names[status] = f"{stem}_event"
        if {"day", "days"} & set(_words(time)):
            parts.append(f"Divide the days by {DAYS_A_MONTH}.")
    for status in left:
        names[status] = f"{_stem(status)}_event"
        parts.append(f"{status!r} also needs its time as '{_stem(status)}_time'.")
    return " ".join([f"y.rename(columns={names}), with 1 and 0 as events.", *parts])


def _stem(name: str) -> str:
    kept = [word for word in _words(name) if word not in _TIMES | _STATUSES and word != "to"]
    known = [word for word in kept if word in _ENDPOINTS]
    stem = known[0] if known else "_".join(kept)
    return "os" if stem in ("", "survival", "surv", "vital", "dead", "deadstatus", "death", "followup") else stem


def as_numbers(column: pd.Series) -> pd.Series:
    """Numbers, also those written as text with a decimal point or comma; NaN for other cells."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.astype("float64")
    text = column.astype("object").map(lambda value: str(value).strip().replace(",", "."), na_action="ignore")
    return pd.to_numeric(text, errors="coerce").astype("float64")


def _check_values(column: pd.Series) -> None:
    """Refuse dates, measurements and identifiers, and columns with too many different values for labels."""
    name, known = column.name, column.dropna()
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    kind = pd.api.types.infer_dtype(known.astype(object) if declared else known, skipna=True)
    if kind.startswith(("date", "time", "period")):
        raise ValueError(f"{name!r} holds {kind}, which is no class to learn; leave it out of y.")
    if is_identifier_name(str(name)):
        raise ValueError(f"{name!r} has the name of an identifier, which is no class to learn; leave it out of y.")
    labels = class_labels(known.astype(object))
    lost = known[[isinstance(label, str) and label in _MISSING_AS_TEXT for label in known]]
    if len(lost):
        raise ValueError(
            f"{name!r} holds {lost.iloc[0]!r} in rows {shortened(lost.index)}, which missing cells become where they "
            "are made texts; set them to NaN (unknown), or give the class another name."
        )
    blank = known.index[[isinstance(label, str) and not label.strip() for label in known]]
    if len(blank):
        raise ValueError(
            f"{name!r} holds blank texts in rows {shortened(blank)}, which are no class to learn; set them to NaN "
            "(unknown), or give them a name."
        )
    same: dict[str, Any] = {}
    for label in labels:
        if isinstance(label, str) and (other := same.setdefault(label.strip().casefold(), label)) != label:
            raise ValueError(
                f"the labels {other!r} and {label!r} of {name!r} differ by case or outer spaces only; make them one: "
                f"y[{name!r}].str.strip(), and .str.upper() if the case means nothing."
            )
    n, n_classes = len(known), len(labels)
    numbers = as_numbers(known).dropna() if kind != "boolean" else pd.Series(dtype=float)
    is_text = kind in ("string", "mixed")
    if len(numbers) > n / 2 and (numbers % 1 != 0).any() and (not is_text or n_classes > 2):
        raise ValueError(
            f"Unknown label type: {name!r} holds continuous numbers{' written as text' if is_text else ''}, such as "
            f"{shortened(known.unique(), 3)}, which are no classes. A time belongs to an endpoint "
            "('<name>_time', '<name>_event'), and a number to predict is called '<name>_value'. Or cut a measurement "
            "into groups first (pandas.cut), or leave it out of y."
        )
    whole = len(numbers) == n and not is_text and not declared
    if (
        (n_classes == n and n > 3)
        or n_classes > max(5, n / 3)
        or (whole and n_classes > _MANY_CLASSES and n < n_classes * _FEW_PER_CLASS)
    ):
        raise ValueError(
            f"{name!r} has {n_classes} different values among {n} patients, such as {shortened(known.unique(), 3)}: an "
            "identifier, a time or a measurement rather than a class. Leave it out of y, or merge rare classes."
        )
    if whole and n_classes > _MANY_CLASSES:
        warnings.warn(
            f"the {n_classes} different numbers of {name!r} are learned as {n_classes} classes without order; if it is "
            "a measurement or a time, leave it out of y.",
            stacklevel=6,
        )


def refuse_measurements(groups: Any, name: str) -> None:
    """Refuse measurements and dates where groups of patients are asked for.

    Parameters
    ----------
    groups : Series or array of shape (n_patients,)
    name : str
        The parameter, for the message.

    Raises
    ------
    ValueError
        If it holds dates, more than five numbers with fractions, or more than twenty whole numbers that fewer than five
        patients have each, on average.

    Examples
    --------
    >>> refuse_measurements([1, 2, 2, 1], "by")
    >>> refuse_measurements([3.1, 2.2, 5.7, 4.4, 8.0, 9.3], "by")
    Traceback (most recent call last):
    ...
    ValueError: by holds 6 different numbers, such as [3.1, 2.2, 5.7, ... 3 more]: a measurement, ...
    """
    known = pd.Series(groups).dropna()
    if isinstance(known.dtype, pd.CategoricalDtype):
        return  # of pandas.cut, for example
    kind = pd.api.types.infer_dtype(known, skipna=True)
    if kind.startswith(("date", "time", "period")):
        raise ValueError(f"{name} holds {kind}, and no groups. Make groups of it first, for example by year.")
    numbers, different = as_numbers(known) if kind != "boolean" else pd.Series(dtype=float), known.unique()
    if numbers.isna().any() or not len(numbers):
        return
    if (len(different) > _FEW_VALUES and (numbers % 1 != 0).any()) or (
        len(different) > _MANY_CLASSES and len(known) < _FEW_PER_GROUP * len(different)
    ):
        raise ValueError(
            f"{name} holds {len(different)} different numbers, such as {shortened(different, 3)}: a measurement, and "
            "no groups. Cut it into groups first: pandas.cut(values, [0, 5, 10])."
        )
