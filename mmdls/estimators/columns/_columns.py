"""What the cells of a column mean: numbers or categories, in whatever dtype they come."""

import datetime
import decimal
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from mmdls.cohort import is_date, is_free_text
from mmdls.cohort._cells import plain_columns

__all__ = ["MISSING", "UNSEEN", "Cells", "number_table", "numbers_of", "plain_numbers"]

MISSING, UNSEEN = -1, -2

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
# "007" is a number in a column of numbers, and not the same category as "7".
_PADDED = re.compile(r"[+-]?0\d+")
# "61,5", "< 0.1", "40 %": meant as a number, and not readable as one.
_NEARLY_NUMBER = re.compile(r"[<>≤≥~]?\s*[+-]?\d+([.,' ]\d+)*\s*%?")
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)
# What pandas writes where nothing is known, once it is made text.
_LOST = ("nan", "none", "<na>", "nat", "null")
# So many texts that are nearly all different are ids or free text; so many categories should have patients in common.
_MANY_TEXTS = 20
# From so many different numbers on, a column with words in between was meant as numbers.
_MANY_NUMBERS = 10


def plain_numbers(column: pd.Series) -> np.ndarray | None:
    """The numbers of a column whose dtype says that it holds numbers or booleans, NaN where missing; otherwise None."""
    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return plain_numbers(column.sparse.to_dense())
    if pd.api.types.is_complex_dtype(dtype) or not (
        pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    ):
        return None
    if isinstance(dtype, pd.CategoricalDtype):
        return None
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def numbers_of(column: pd.Series) -> np.ndarray:
    """The numbers of a column of any dtype, texts of numbers too, NaN where missing."""
    numbers = plain_numbers(column)
    return Cells.of(column).to_numbers() if numbers is None else numbers


def number_table(table: pd.DataFrame) -> np.ndarray:
    """:func:`numbers_of` every column, (n, n_columns); those of numpy's own dtypes are read at once."""
    plain = plain_columns(table)
    if plain.all():
        return table.to_numpy(dtype=np.float64)
    numbers = np.empty(table.shape)
    numbers[:, plain] = table.loc[:, plain].to_numpy(dtype=np.float64)
    for place in np.flatnonzero(~plain):
        numbers[:, place] = numbers_of(table.iloc[:, place])
    return numbers


@dataclass
class Cells:
    """The cells of a column of any dtype, by their different values.

    Parameters
    ----------
    name : str
    index : pandas.Index of shape (n,)
    codes : ndarray of int, shape (n,)
        Which value each cell holds; -1 = missing. A blank text is missing.
    labels : list of str
        The values as texts.
    keys : list of str
        The same for the same category: text "1", 1, 1.0 and True are one.
    numbers : ndarray of float, shape (n_values,)
        NaN where a value is no number.
    written, boolean : ndarray of bool, shape (n_values,)
        True where the value is a text, a boolean or the text of a boolean.
    is_category, is_ordered : bool
        True if the dtype says so.
    """

    name: str
    index: pd.Index
    codes: np.ndarray
    labels: list[str]
    keys: list[str]
    numbers: np.ndarray
    written: np.ndarray
    boolean: np.ndarray
    is_category: bool
    is_ordered: bool = False

    @classmethod
    def of(cls, column: pd.Series) -> "Cells":
        """Read a column.

        Raises
        ------
        ValueError
            If it holds dates, or what is no number, no text and no boolean.
        """
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind.startswith(("date", "time", "period")):
            _refuse_dates(column, kind)
        is_category = isinstance(column.dtype, pd.CategoricalDtype)
        if is_category:
            codes, values = np.asarray(column.cat.codes, dtype=np.int64), column.cat.categories.astype(object)
        else:
            try:
                codes, values = pd.factorize(column.to_numpy(dtype=object))
            except TypeError:  # a list in a cell has no hash
                values = [value for value in column if not _is_missing(value)]
                codes = np.arange(0)
        labels, keys, numbers, written, boolean = [], [], [], [], []
        for value in values:
            label, number = _read(value, column)
            truth = isinstance(value, bool | np.bool_) or label.lower() in _BOOLEANS
            labels.append(label)
            exact = np.isnan(number) or (isinstance(value, str) and _PADDED.fullmatch(label) is not None)
            keys.append(label if exact else _text(number))
            numbers.append(number)
            written.append(isinstance(value, str))
            boolean.append(truth)
        blank = np.array([not label for label in labels], dtype=bool)
        if blank.any():
            codes = np.where((codes >= 0) & blank[codes], -1, codes)
        return cls(
            str(column.name),
            column.index,
            codes,
            labels,
            keys,
            np.array(numbers, dtype=np.float64),
            np.array(written, dtype=bool),
            np.array(boolean, dtype=bool),
            is_category,
            is_category and bool(column.dtype.ordered),
        )

    @property
    def present(self) -> np.ndarray:
        """Numbers of the values that a cell holds."""
        return np.unique(self.codes[self.codes >= 0])

    @property
    def words(self) -> np.ndarray:
        """Numbers of the values that are no number; the text of a boolean is one only among nothing but booleans."""
        present = self.present
        if self.boolean[present].all():
            return present[:0]
        return present[np.isnan(self.numbers[present]) | (self.boolean & self.written)[present]]

    def holds_numbers(self) -> bool:
        """Decide between numbers and categories.

        Raises
        ------
        ValueError
            If the column was meant as numbers and holds words, or holds dates as texts.
        """
        if self.is_category:
            return False
        words, counts = self.words, np.bincount(self.codes[self.codes >= 0], minlength=len(self.labels))
        dates = [w for w in words if is_date(self.labels[w])]
        if counts[dates].sum() > counts.sum() / 2:
            raise ValueError(
                f"column {self.name!r} holds dates written as text, such as {self.labels[dates[0]]!r}; give a number "
                "instead, such as months since diagnosis, or drop it."
            )
        nearly = [w for w in words if _NEARLY_NUMBER.fullmatch(self.labels[w])]
        numeric = np.setdiff1d(self.present, words)
        if self.boolean[numeric].all():
            numeric = numeric[:0]
        n_numbers = counts[numeric].sum() + counts[nearly].sum()
        if not len(words):
            return True
        if n_numbers and (n_numbers >= counts.sum() / 2 or len(numeric) + len(nearly) >= _MANY_NUMBERS):
            raise ValueError(
                f"column {self.name!r} holds {n_numbers} numbers and the words {self.describe(words)}. If it is a "
                "column of numbers, set what is no number to NaN and write decimals with a point "
                f"(pd.to_numeric(X[{self.name!r}], errors='coerce') does the first); if these are codes of categories, "
                f"say so with X[{self.name!r}].astype('category')."
            )
        return False

    def to_numbers(self) -> np.ndarray:
        """The cells of a column that held numbers in ``fit`` as numbers, NaN where missing.

        Raises
        ------
        ValueError
            If a cell holds a word.
        """
        words = self.words
        if len(words):
            raise ValueError(
                f"column {self.name!r} held numbers in fit and holds the words {self.describe(words)}; convert it to "
                "numbers, with NaN where unknown, or, if these are codes of categories, make it "
                "astype('category') in fit."
            )
        return np.where(self.codes >= 0, np.r_[self.numbers, np.nan][self.codes], np.nan)

    def categories(self) -> tuple[list[str], np.ndarray]:
        """The categories that cells hold: keys and labels, numbers in their order and then the others.

        Raises
        ------
        ValueError
            If the cells hold free text, or nearly all of them another text, as ids do.
        """
        by_key: dict[str, list[int]] = {}
        for value in self.present:
            by_key.setdefault(self.keys[value], []).append(value)
        n = (self.codes >= 0).sum()
        texts = pd.Series([self.labels[code] for code in self.codes if code >= 0], dtype=object)
        if not self.is_category and is_free_text(texts):
            raise ValueError(
                f"column {self.name!r} holds free text, such as {texts.iloc[0]!r:.80}, which is no category. Embed the "
                "text with a language model of your choice, one vector a text or a sentence, and give the vectors as a "
                f"column {f'{self.name}_vectors'!r} with arrays of shape (K, D); or drop the column. "
                f"X[{self.name!r}].astype('category') uses it as it is."
            )
        if not self.is_category and len(by_key) >= max(_MANY_TEXTS, 0.9 * n):
            raise ValueError(
                f"column {self.name!r} holds {len(by_key)} different texts in {n} rows, such as "
                f"{self.describe(self.present, 3)}: an id or free text, of which nothing can be learned. Drop it, or "
                f"turn it into few categories (X[{self.name!r}].astype('category') uses it as it is)."
            )
        labels = {key: min(self.labels[value] for value in values) for key, values in by_key.items()}
        order = {key: self.numbers[values[0]] for key, values in by_key.items()}
        keys = sorted(by_key, key=lambda key: (np.isnan(order[key]), np.nan_to_num(order[key]), labels[key]))
        return keys, np.array([labels[key] for key in keys], dtype=object)

    def doubts(self, labels: np.ndarray) -> list[str]:
        """What a reader of the categories, with the labels of :meth:`categories`, should know."""
        n, doubts = (self.codes >= 0).sum(), []
        if len(labels) > max(_MANY_TEXTS, n / 2) or (len(labels) == n and n >= _MANY_TEXTS / 2):
            doubts.append(
                f"column {self.name!r} has {len(labels)} categories in {n} rows; few patients share one, so little can "
                "be learned of it. Join rare categories, or drop it if it is an id or free text"
            )
        folded: dict[str, list[str]] = {}
        for label in labels:
            folded.setdefault(label.casefold(), []).append(label)
        if alike := [folded[name] for name in sorted(folded) if len(folded[name]) > 1]:
            doubts.append(f"column {self.name!r} has categories that differ by case only: {alike[:5]}; join them")
        lost = [value for value in self.present if self.labels[value].lower() in _LOST and self.written[value]]
        if lost:
            doubts.append(
                f"column {self.name!r} holds the text {self.describe(lost)}, read as a category; if it means that "
                "nothing is known, set it to NaN"
            )
        return doubts

    def places(self, keys: list[str]) -> np.ndarray:
        """Which of the categories each cell holds: its place in ``keys``, ``MISSING`` or ``UNSEEN``, (n,)."""
        place = {key: i for i, key in enumerate(keys)}
        return np.array([*(place.get(key, UNSEEN) for key in self.keys), MISSING])[self.codes]

    def describe(self, values: Iterable[int] | None = None, most: int = 5) -> str:
        """Values (default: all) and the rows that hold them, for a message."""
        values = list(self.present if values is None else values)
        told = [f"{self.labels[v]!r} (rows {list(self.index[self.codes == v][:most])})" for v in values[:most]]
        return ", ".join(told) + (f", and {len(values) - most} more" if len(values) > most else "")


def _read(value: Any, column: pd.Series) -> tuple[str, float]:
    """A value as a text and as a number, NaN if it is none."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _BOOLEANS:
            return text, _BOOLEANS[text.lower()]
        return text, float(text) if _NUMBER.fullmatch(text) else np.nan
    if isinstance(value, bool | np.bool_):
        return str(bool(value)), float(value)
    if isinstance(value, _DATES):  # NumPy's durations are integers
        _refuse_dates(column, pd.api.types.infer_dtype([value]))
    if isinstance(value, Real | decimal.Decimal):
        try:
            number = float(value)
        except OverflowError:
            number = np.inf
        return _text(number), number
    if isinstance(value, pd.Interval):
        return str(value), np.nan
    raise ValueError(
        f"column {column.name!r} holds a {type(value).__name__}, {value!r:.80}; a cell holds a number, a text, a "
        "boolean or nothing (NaN). Slices are read from a column '<name>_image', vectors from '<name>_vectors'."
    )


def _refuse_dates(column: pd.Series, kind: str) -> NoReturn:
    raise ValueError(
        f"column {column.name!r} holds {kind}; give a number instead, such as months since diagnosis, or drop it."
    )


def _text(number: float) -> str:
    return str(int(number)) if np.isfinite(number) and number == int(number) else repr(float(number))


def _is_missing(value: Any) -> bool:
    missing = pd.isna(value)
    return isinstance(missing, bool | np.bool_) and bool(missing)
