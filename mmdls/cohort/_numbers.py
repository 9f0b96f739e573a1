"""Columns of text, numbers and codes as numbers, with one decimal mark for the whole table."""

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from mmdls.cohort._columns import MISSING_WORDS, POINT_NUMBER, Column, is_unknown_word
from mmdls.cohort._endpoints import shortened

__all__ = ["read_numbers"]

_COMMA = re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d+)?")
_GROUPED_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_GROUPED_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_AMBIGUOUS_COMMA = re.compile(r" *[+-]?[1-9]\d{0,2},\d{3} *")
_GROUPED_SPACE = re.compile(r"[+-]?[1-9]\d{0,2}(?:[ '’]\d{3})+(?:[.,]\d*)?")
_NUMERIC_CHARACTERS = frozenset("0123456789.,+-eE ")


def read_numbers(columns: Iterable[Column]) -> dict[str, np.ndarray | None]:
    """Read the columns that hold numbers, all together, since one table has one decimal mark.

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
        If a column of numbers also holds other words, or a number can be read in two ways.
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


def _quick(column: Column) -> tuple[bool, np.ndarray | None, str | None]:
    """Read a column as a whole where possible, which is fast: (is done, numbers, decimal mark)."""
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
    raw = ["" if type(cell) is str and cell in MISSING_WORDS else cell for cell in cells.to_numpy(dtype=object)]
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
    """Numbers, if the meanings in ``codes`` are all numbers; else None."""
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
        if POINT_NUMBER.fullmatch(text):
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
        """The numbers of the column, given how often each decimal mark occurs unambiguously in the whole table."""
        column = self.column
        if self.booleans:
            column.note("'true' and 'false' became 1 and 0")
            return np.array([np.nan if text is None else float(text.lower() == "true") for text in column.texts])
        mark = column.decimal or self._decimal(marks)
        if mark is None:
            values = np.where(np.isnan(self.as_point), self.as_comma, self.as_point)
        else:
            values = self.as_point if mark == "." else self.as_comma
        hint = "Correct them"
        if not column.numbers_only:
            hint += f", name {column.name!r} in categories if it is no number"
        elif column.found:
            hint += ", say with numbers=[...] which columns are numbers to predict"
        column.lose(
            column.known & np.isnan(values),
            "numbers" + ("" if column.decimal is None else f" with the decimal mark {column.decimal!r}"),
            hint,
        )
        if any(isinstance(cell, str) for cell in column.cells):
            comma = mark == "," or (mark is None and self.marks[","] > 0)
            column.note("text parsed as numbers" + (" with decimal commas" if comma else ""))
        return values

    def _decimal(self, marks: Mapping[str, int]) -> str | None:
        """The decimal mark for the cells that can be read in two ways; None if there are no such cells."""
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
