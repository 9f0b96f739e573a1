"""One column of a table while it is read: which cells are missing, its labels, and what was changed."""

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._endpoints import shortened

__all__ = ["MISSING_WORDS", "POINT_NUMBER", "Column", "is_date", "is_unknown_word", "key_of", "read_labels"]

# What software writes into a missing cell: nothing, R, NumPy and pandas, SQL, Excel
MISSING_WORDS = frozenset(("", "NA", "NaN", "nan", "NAN", "<NA>", "NaT", "NULL", "null", "#N/A"))
# What people write into a missing cell; read as missing only if the caller lists it
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
POINT_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)
_CELLS = (str, Real, Decimal, np.bool_, *_DATES, pd.Interval, PathLike, type(None), type(pd.NA))


@dataclass
class Column:
    """One column of a table while it is read, with a record of its use and its changes.

    Parameters
    ----------
    name : str
        As the table spells it.
    cells : pandas.Series of shape (n_patients,)
        Indexed by patient.
    coerce : bool
        Set cells that cannot be read to NaN, and count them, instead of refusing them.
    missing : frozenset of str
        Words that mean a missing cell, besides those that software writes; in the form of :func:`key_of`.
    decimal : {".", ",", None}
        The decimal mark; None infers it, and refuses an ambiguous column.
    codes : dict of str to object or None
        A meaning for each value, by :func:`key_of`; None as meaning is a missing cell.
    numbers_only : bool
        Refuse words: the column must hold numbers.
    is_category : bool
        Read numbers as categories.
    is_ordered : bool
        A feature whose categories have an order.
    levels : sequence or None
        The categories from lowest to highest; None takes the order that they have by themselves.
    found : bool
        Used because of its name or a pattern, not named by the caller.
    roles, became, changes : list of str
        How the column is used, the names that it has in X and y, and what was changed in its cells.
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
    is_ordered: bool = False
    levels: Sequence[Any] | None = None
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
            missing |= [isinstance(cell, str) and cell.strip() in MISSING_WORDS for cell in self.cells]
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
        """Remove the column from the features, with the reason for the report."""
        self.roles, self.became = ["unused"], []
        self.note(f"not taken: {why}")

    def note(self, change: str) -> None:
        """Add a change to the report, once."""
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

    def lose(
        self, bad: np.ndarray, expected: str, hint: str, *, subject: str | None = None, always: bool = False
    ) -> None:
        """Refuse the cells that are ``bad``; with ``coerce``, unless ``always``, count them as set to NaN instead."""
        if not bad.any():
            return
        words = _counts(self.texts[bad])
        if always or not self.coerce:
            raise ValueError(
                f"{subject or f'column {self.name!r}'} must hold {expected}; {int(bad.sum())} of "
                f"{int(self.known.sum())} cells do not: {words}, patients {shortened(self.cells.index[bad])}. {hint}, "
                f"{'or ' if always else ''}name the words that mean a missing cell in missing=[...]"
                f"{'' if always else ', or set these cells to NaN with coerce=True'}."
            )
        self.set_to_nan = bad if self.set_to_nan is None else self.set_to_nan | bad
        self.note(f"{words} set to NaN")


def key_of(value: Any) -> str:
    """One key for all spellings of a value: 1, 1.0, "1" and " 1.00 " have the same key; case is ignored."""
    text = _text(value)
    if text is None:
        return ""
    if POINT_NUMBER.fullmatch(text):
        number = float(text)
        return str(int(number)) if number.is_integer() else repr(number)
    return text.casefold()


def is_date(text: str) -> bool:
    """Whether a text has the form of a date, whichever of its numbers is the day.

    Parameters
    ----------
    text : str

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_date(text) for text in ("2019-03-28", "28.03.2019", "28-Mar-2019", "March 28, 2019", "0.28", "T1-2")]
    [True, True, True, True, False, False]
    """
    return _DATE.fullmatch(text.strip()) is not None


def is_unknown_word(text: str) -> bool:
    """Whether people write this text into missing cells."""
    return text.casefold() in _UNKNOWN


def read_labels(column: Column) -> np.ndarray:
    """Categories as text, with one spelling each, ignoring case; None where missing; shape (n_patients,)."""
    if column.codes is not None:
        return np.array([None if m is None else _text(m) for m in column.recoded()] + [None], dtype=object)[:-1]
    # Whole numbers lose the ".0" of floating point; leading zeros stay, since "01" may be a name.
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


def _text(cell: Any) -> str | None:
    if isinstance(cell, str):
        text = " ".join(cell.split())
        return None if text in MISSING_WORDS else text
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
    """The most frequent words, with their counts."""
    counts = Counter(texts).most_common()
    shown = ", ".join(f"{word!r} ({n})" for word, n in counts[:most])
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")
