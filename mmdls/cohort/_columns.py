"""Cells of a table: what is missing, what is a number and what a category, and what cannot be read."""

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._endpoints import shortened

__all__ = ["Column", "is_date", "key_of", "read_labels", "read_numbers"]

# What software writes for a missing cell: nothing, R, NumPy and pandas, SQL, Excel
_MISSING = frozenset(("", "NA", "NaN", "nan", "NAN", "<NA>", "NaT", "NULL", "null", "#N/A"))
# What people write for one; never taken for a missing cell without being asked
_UNKNOWN = frozenset(
    "unknown unk unk. n/a n.a. n.a missing ? ?? - -- . .. nd n.d. nk n.k. k.a. unbekannt inconnu desconocido".split()
    + ["not available", "not applicable", "not collected", "not reported", "not recorded", "not known", "not done"]
    + ["[not available]", "[not applicable]", "[unknown]", "[not evaluated]", "no data"]
)
_SEXES = dict.fromkeys(("m", "male", "man", "männlich"), "male") | dict.fromkeys(
    ("f", "female", "woman", "w", "weiblich"), "female"
)

_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?"
    r"|(?:\d{1,2}[-/. ]*)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/., ]+(?:\d{1,2}, *)?\d{4}",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"^([+-]?\d+)\.0+$")
_POINT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d+)?")
_GROUPED_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_GROUPED_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_AMBIGUOUS_COMMA = re.compile(r" *[+-]?[1-9]\d{0,2},\d{3} *")
_GROUPED_SPACE = re.compile(r"[+-]?[1-9]\d{0,2}(?:[ '’]\d{3})+(?:[.,]\d*)?")
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)
_CELLS = (str, Real, Decimal, np.bool_, *_DATES, pd.Interval, PathLike, type(None), type(pd.NA))
_NUMERIC_CHARACTERS = frozenset("0123456789.,+-eE ")


@dataclass
class Column:
    """One column of a table on its way in, and what became of it.

    Parameters
    ----------
    name : str
        As the table spells it.
    cells : pandas.Series of shape (n_patients,)
        Indexed by patient.
    coerce : bool
        Set to NaN, and count, what cannot be read.
    missing : frozenset of str
        Words that mean a missing cell, besides those that software writes; as :func:`key_of` gives them.
    decimal : {".", ",", None}
        The decimal mark; None finds it or refuses.
    codes : dict of str to object or None
        A meaning for each value, by :func:`key_of`; None as meaning is a missing cell.
    numbers_only : bool
        Words are never categories here.
    is_category : bool
        Numbers are categories here.
    found : bool
        Taken because of its name or a pattern, not named by the caller.
    roles, became, changes : list of str
        What the column is, the names of what it became, and what was done to its cells.
    set_to_nan : ndarray of bool, shape (n_patients,), or None
        Cells that could not be read.
    """

    name: str
    cells: pd.Series
    coerce: bool = False
    missing: frozenset[str] = frozenset()
    decimal: str | None = None
    codes: Mapping[str, Any] | None = None
    numbers_only: bool = False
    is_category: bool = False
    found: bool = False
    roles: list[str] = field(default_factory=list)
    became: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    set_to_nan: np.ndarray | None = None

    @cached_property
    def texts(self) -> np.ndarray:
        """Every cell as text without outer spaces, None where it is missing; shape (n_patients,)."""
        cells = self.cells.to_numpy(dtype=object)
        strange = np.array([not isinstance(cell, _CELLS) for cell in cells], dtype=bool)
        if strange.any():
            raise ValueError(
                f"column {self.name!r} holds a {type(cells[strange][0]).__name__}, {cells[strange][0]!r:.80}, patients "
                f"{shortened(self.cells.index[strange])}; a cell holds a number, a text, a boolean, a date or nothing."
            )
        texts = np.array([*map(_text, cells), None], dtype=object)[:-1]
        if self.missing:
            gone = [text is not None and key_of(text) in self.missing for text in texts]
            if any(gone):
                self.note(f"{_counts(texts[gone])} read as missing, as asked for")
                texts[gone] = None
        return texts

    @property
    def known(self) -> np.ndarray:
        return np.array([text is not None for text in self.texts], dtype=bool)

    @cached_property
    def empty(self) -> np.ndarray:
        """Which cells are missing; shape (n_patients,)."""
        if "texts" in self.__dict__:
            return ~self.known
        missing = self.cells.isna().to_numpy(dtype=bool, copy=True)
        if self.kind == "O":
            missing |= [isinstance(cell, str) and cell.strip() in _MISSING for cell in self.cells]
        return missing

    @property
    def kind(self) -> str:
        """NumPy's letter for the kind of the cells; "O" for text and mixed cells."""
        kind = getattr(self.cells.dtype, "kind", "O")
        return kind if kind in "iufbcmM" else "O"

    @property
    def holds_dates(self) -> bool:
        """Whether the cells are dates or durations; of mixed cells, whether the first known one is a date."""
        if self.kind != "O" or self.codes is not None:
            return self.kind in "mM"
        first = next((cell for cell in self.cells.array if _text(cell) is not None), None)
        if isinstance(first, _DATES) and not isinstance(first, datetime.timedelta | np.timedelta64):
            return True
        return isinstance(first, str) and is_date(first)

    @property
    def is_dated(self) -> bool:
        """Whether any of the cells is a date, a time or a duration by its type."""
        return self.kind in "mM" or (
            self.kind == "O" and any(isinstance(cell, _DATES) and cell is not pd.NaT for cell in self.cells)
        )

    def leave_out(self, why: str) -> None:
        """Take the column back out of the features."""
        self.roles, self.became = ["unused"], []
        self.note(f"not taken: {why}")

    def note(self, change: str) -> None:
        """Say in the report what was done."""
        if change not in self.changes:
            self.changes.append(change)

    def recoded(self) -> np.ndarray:
        """The meaning that ``codes`` gives every cell, None where it is missing; shape (n_patients,)."""
        assert self.codes is not None
        keys = [None if text is None else key_of(text) for text in self.texts]
        unknown = np.array([key is not None and key not in self.codes for key in keys], dtype=bool)
        subject = f"unknown labels in {self.name!r}: the column"
        self.lose(unknown, f"one of {list(self.codes)}", "Give their meaning in codes", subject=subject)
        meanings: list[Any] = [None if key is None else self.codes.get(key) for key in keys]
        pairs = Counter((text, meaning) for text, meaning in zip(self.texts, meanings, strict=True) if text is not None)
        changed = [f"{text!r} -> {meaning!r} ({n})" for (text, meaning), n in pairs.items() if meaning != text]
        if changed:
            self.note("recoded: " + ", ".join(changed))
        return np.array([*meanings, None], dtype=object)[:-1]

    def lose(self, bad: np.ndarray, expected: str, cure: str, *, subject: str | None = None) -> None:
        """Refuse the cells that are ``bad``, or count them as set to NaN where the caller asked for it."""
        if not bad.any():
            return
        words = _counts(self.texts[bad])
        if not self.coerce:
            raise ValueError(
                f"{subject or f'column {self.name!r}'} must hold {expected}; {int(bad.sum())} of "
                f"{int(self.known.sum())} cells do not: {words}, patients {shortened(self.cells.index[bad])}. {cure}, "
                "name the words that mean a missing cell in missing=[...], or set these cells to NaN with coerce=True."
            )
        self.set_to_nan = bad if self.set_to_nan is None else self.set_to_nan | bad
        self.note(f"{words} set to NaN")


def key_of(value: Any) -> str:
    """One key for all spellings of a value: 1, 1.0, "1" and " 1.00 " are one; letters count without their case."""
    text = _text(value)
    if text is None:
        return ""
    if _POINT.fullmatch(text):
        number = float(text)
        return str(int(number)) if number.is_integer() else repr(number)
    return text.casefold()


def is_date(text: str) -> bool:
    """Whether a text has the form of a date, whichever of its numbers is the day.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> [is_date(text) for text in ("2019-03-28", "28.03.2019", "28-Mar-2019", "March 28, 2019", "0.28", "T1-2")]
    [True, True, True, True, False, False]
    """
    return _DATE.fullmatch(text.strip()) is not None


def is_unknown_word(text: str) -> bool:
    """Whether people write this for a missing cell."""
    return text.casefold() in _UNKNOWN


def read_numbers(columns: Iterable[Column]) -> dict[str, np.ndarray | None]:
    """Read the columns that hold numbers; one table has one decimal mark, so all of them are read together.

    Parameters
    ----------
    columns : iterable of Column

    Returns
    -------
    dict of str to ndarray of shape (n_patients,) or None
        Numbers with NaN for missing cells, by the column's name; None for a column of categories.

    Raises
    ------
    ValueError
        If a column is mostly numbers and holds other words, or a number can be read in two ways.
    """
    results: dict[str, np.ndarray | None] = {}
    slow: list[tuple[Column, _Readings]] = []
    pointed: list[Column] = []
    marks = {".": 0, ",": 0}
    for column in columns:
        done, values, mark = _quick(column)
        if done:
            results[column.name] = values
            if mark is not None:
                marks[mark] += 1
            if mark == ".":
                pointed.append(column)
            continue
        readings = _Readings(column)
        slow.append((column, readings))
        if readings.is_numeric:
            marks["."] += readings.marks["."]
            marks[","] += readings.marks[","]
    if marks[","]:  # a point may then separate thousands
        slow += [(column, _Readings(column)) for column in pointed]
    for column, readings in slow:
        results[column.name] = readings.numbers(marks) if readings.is_numeric else None
    return results


def read_labels(column: Column) -> np.ndarray:
    """Categories as text, one spelling for each whatever its case; None where missing; shape (n_patients,)."""
    if column.codes is not None:
        return np.array([None if m is None else _text(m) for m in column.recoded()] + [None], dtype=object)[:-1]
    # Whole numbers lose the ".0" that floating point gave them; leading zeros stay, since "01" may be a name.
    texts = [None if text is None else _WHOLE.sub(r"\1", text) for text in column.texts]
    keys = [None if text is None else text.casefold() for text in texts]
    known = {key for key in keys if key is not None}
    if re.search(r"(^|[^a-z])(sex|gender)([^a-z]|$)", column.name.lower()) and known - _UNKNOWN <= _SEXES.keys():
        labels = {key: _SEXES.get(key, key) for key in known}
    else:
        spellings: dict[str, Counter[str]] = {}
        for key, text in zip(keys, texts, strict=True):
            if key is not None and text is not None:
                spellings.setdefault(key, Counter())[text] += 1
        labels = {key: min(seen, key=lambda text: (-seen[text], text)) for key, seen in spellings.items()}
    changed = Counter(
        (text, labels[key]) for key, text in zip(keys, texts, strict=True) if key is not None and text != labels[key]
    )
    if changed:
        column.note("recoded: " + ", ".join(f"{old!r} -> {new!r} ({n})" for (old, new), n in changed.items()))
    kept = sorted(labels[key] for key in known & _UNKNOWN)
    if kept:
        column.note(f"{kept} kept as categories; missing={kept} makes them NaN")
    return np.array([None if key is None else labels[key] for key in keys] + [None], dtype=object)[:-1]


def _quick(column: Column) -> tuple[bool, np.ndarray | None, str | None]:
    """Columns that need no look at single cells: (is done, numbers, decimal mark)."""
    cells = column.cells
    if column.codes is not None:
        return True, _numbers_of_codes(column), None
    if column.is_category:
        return True, None, None
    kind = column.kind
    if kind in "iuf" and not column.missing:
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
        column.lose(np.isinf(values), "finite numbers", "Correct them")
        return True, np.where(np.isinf(values), np.nan, values), None
    if kind == "b" and not column.missing:
        column.note("True and False became 1 and 0")
        return True, cells.to_numpy(dtype=np.float64, na_value=np.nan), None
    if kind == "c":
        raise ValueError(f"column {column.name!r} holds complex numbers; give their real parts or absolute values.")
    if column.missing or column.decimal is not None or column.__dict__.get("texts") is not None:
        return False, None, None
    raw = ["" if type(cell) is str and cell in _MISSING else cell for cell in cells.to_numpy(dtype=object)]
    if not all(type(cell) is str for cell in raw):
        return False, None, None
    joined = "".join(raw)
    mark = "," if "," in joined else "." if "." in joined else None
    if not set(joined) <= _NUMERIC_CHARACTERS or (mark == "," and "." in joined):
        return False, None, None
    if mark == "," and any(map(_AMBIGUOUS_COMMA.fullmatch, raw)):
        return False, None, None
    try:
        values = np.array([float(cell.replace(",", ".")) if cell else np.nan for cell in raw])
    except ValueError:
        return False, None, None
    if np.isinf(values).any():
        return False, None, None
    column.note("text parsed as numbers" + (" with decimal commas" if mark == "," else ""))
    column.empty = np.isnan(values)
    return True, values, mark


def _numbers_of_codes(column: Column) -> np.ndarray | None:
    """Numbers, where codes gives nothing but numbers."""
    assert column.codes is not None
    meanings = [meaning for meaning in column.codes.values() if meaning is not None]
    if not all(isinstance(meaning, int | float | np.number) for meaning in meanings):
        return None
    return np.array([np.nan if meaning is None else float(meaning) for meaning in column.recoded()])


class _Readings:
    """Each cell of a column as a number with decimal points and as one with decimal commas."""

    def __init__(self, column: Column) -> None:
        self.column = column
        n = len(column.texts)
        self.as_point, self.as_comma = np.full(n, np.nan), np.full(n, np.nan)
        self.grouped = {".": False, ",": False}
        for place, (cell, text) in enumerate(zip(column.cells, column.texts, strict=True)):
            if text is not None:
                is_number = isinstance(cell, Real) and not isinstance(cell, bool | np.bool_ | np.timedelta64)
                self.as_point[place], self.as_comma[place] = _finite(cell) if is_number else self._read(text)
        self.readable = ~(np.isnan(self.as_point) & np.isnan(self.as_comma))
        self.ambiguous = ~np.isnan(self.as_point) & ~np.isnan(self.as_comma) & (self.as_point != self.as_comma)
        self.marks = {
            ".": int((~np.isnan(self.as_point) & np.isnan(self.as_comma)).sum()),
            ",": int((~np.isnan(self.as_comma) & np.isnan(self.as_point)).sum()),
        }
        known = column.known
        self.booleans = bool(known.any()) and all(text.lower() in ("true", "false") for text in column.texts[known])
        words = [text for text in column.texts[known & ~self.readable]]
        n_read = int(self.readable.sum())
        self.is_numeric = not column.is_category and (
            self.booleans
            or column.numbers_only
            or not known.any()
            or n_read * 2 >= known.sum()
            or (n_read > 0 and all(map(is_unknown_word, words)))
        )
        if not self.is_numeric and n_read:
            column.note(f"categories, although {n_read} of {int(known.sum())} known cells are numbers")

    def _read(self, text: str) -> tuple[float, float]:
        text = text.strip("\"'=").strip().replace("−", "-")
        if _GROUPED_SPACE.fullmatch(text):
            text = re.sub(r"[ '’]", "", text)
        point = comma = np.nan
        if _POINT.fullmatch(text):
            point = float(text)
        elif _GROUPED_POINT.fullmatch(text):
            point = float(text.replace(",", ""))
        if _COMMA.fullmatch(text):
            comma = float(text.replace(",", "."))
        elif _GROUPED_COMMA.fullmatch(text):
            comma = float(text.replace(".", "").replace(",", "."))
        if np.isinf(point) or np.isinf(comma):
            return np.nan, np.nan
        if np.isnan(comma) and "," in text and not np.isnan(point):
            self.grouped["."] = True
        if np.isnan(point) and "." in text and not np.isnan(comma):
            self.grouped[","] = True
        return point, comma

    def numbers(self, marks: Mapping[str, int]) -> np.ndarray:
        """The numbers of the column, given how often each decimal mark is certain in the whole table."""
        column = self.column
        if self.booleans:
            column.note("'true' and 'false' became 1 and 0")
            return np.array([np.nan if text is None else float(text.lower() == "true") for text in column.texts])
        mark = column.decimal or self._decimal(marks)
        if mark is None:
            values = np.where(np.isnan(self.as_point), self.as_comma, self.as_point)
        else:
            values = self.as_point if mark == "." else self.as_comma
        column.lose(
            column.known & np.isnan(values),
            "numbers" + ("" if column.decimal is None else f" with the decimal mark {column.decimal!r}"),
            "Correct them"
            + ("" if column.numbers_only else f", name {column.name!r} in categories if it is no number"),
        )
        if any(isinstance(cell, str) for cell in column.cells):
            comma = mark == "," or (mark is None and self.marks[","] > 0)
            column.note("text parsed as numbers" + (" with decimal commas" if comma else ""))
        return values

    def _decimal(self, marks: Mapping[str, int]) -> str | None:
        """The decimal mark of the cells that can be read in two ways; None if there are none."""
        if not self.ambiguous.any():
            return None
        texts = self.column.texts[self.ambiguous]
        seen = {mark for mark in ".," if any(mark in text for text in texts)}
        if len(seen) == 1:
            mark = seen.pop()
            other = "," if mark == "." else "."
            own = self.marks
            if own[mark] and not own[other]:
                return mark
            if own[other] and not own[mark] and self.grouped[other]:
                return other
            if not own[mark] and not own[other] and not marks[other] and (mark == "." or marks[mark]):
                return mark
        name = self.column.name
        raise ValueError(
            f"column {name!r} holds {shortened(texts)}, where the point or comma may separate decimals or thousands; "
            f"say which with decimal='.' or decimal=',' (or decimal={{{name!r}: ...}} for one column)."
        )


def _finite(number: Any) -> tuple[float, float]:
    """A number, NaN if it is infinite, as both readings of a cell."""
    try:
        value = float(number)
    except OverflowError:
        return np.nan, np.nan
    return (np.nan, np.nan) if np.isinf(value) else (value, value)


def _text(cell: Any) -> str | None:
    if isinstance(cell, str):
        text = " ".join(cell.split())
        return None if text in _MISSING else text
    if cell is None or cell is pd.NaT or cell is pd.NA:
        return None
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, datetime.timedelta | np.timedelta64):  # NumPy's durations are integers
        return f"{pd.Timedelta(cell).total_seconds() / 86400!r} days"
    if isinstance(cell, int | np.integer):
        return str(int(cell))
    if isinstance(cell, Real):
        number = float(cell)
        if np.isnan(number):
            return None
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    if isinstance(cell, np.datetime64):
        cell = pd.Timestamp(cell)
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    return " ".join(str(cell).split())


def _counts(texts: Iterable[str], most: int = 6) -> str:
    """Words and how often each stands there."""
    counts = Counter(texts).most_common()
    shown = ", ".join(f"{word!r} ({n})" for word, n in counts[:most])
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")
