"""Tables as users have them: CSV files with any separator, Excel sheets, data frames of pandas, polars and pyarrow."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._endpoints import shortened

__all__ = ["RawTable", "read_ids", "read_table", "without_empty_rows"]

_SEPARATORS = {",": "','", ";": "';'", "\t": "'\\t' (tab)", "|": "'|'"}
_SAMPLE = 50


@dataclass
class RawTable:
    """A table with unchanged cells, in which every column has a name of its own.

    Parameters
    ----------
    frame : pandas.DataFrame
        Cells of a file are text as they stand there (CSV) or the sheet's own values (Excel); the index of a file holds
        its line numbers.
    source : str
        The name of the table in messages.
    rows : str
        What the index counts: ``"lines"`` of a file or ``"rows"``.
    dropped : dict of str to str
        Columns without values and name, and why they were dropped.
    notes : list of str
        What else was changed while reading.
    n_empty : int
        Rows without a value in any cell, which were dropped.
    """

    frame: pd.DataFrame
    source: str
    rows: str = "rows"
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    n_empty: int = 0

    @property
    def header_hint(self) -> str:
        """What a message about a column that is not there adds, where few columns of a file have a name; or nothing."""
        names = [*self.frame.columns, *self.dropped]
        unnamed = sum(str(name).startswith("Unnamed: ") for name in names)
        if 2 * unnamed < len(names):
            return ""
        return " Most columns have no name; if the names stand in a later row, name it: header=2 is the third."


def read_table(
    table: Any,
    *,
    sep: str | None = None,
    encoding: str | None = None,
    sheet: str | int | None = None,
    header: int | None = None,
) -> RawTable:
    """Read a file, or take a data frame, without interpreting a cell.

    Parameters
    ----------
    table : path-like, pandas.DataFrame, polars.DataFrame, pyarrow.Table or RawTable
        A path ends in ``.xlsx``, ``.xlsm``, ``.xls`` or ``.ods`` for a workbook; every other file is read as text.
    sep : str, default=None
        The separator of a text file; None detects it, and refuses a file where two separators are possible.
    encoding : str, default=None
        Of a text file; None reads UTF-8 (with or without byte order mark) and UTF-16 with one.
    sheet : str or int, default=None
        The sheet of a workbook; None takes the only sheet that is not empty.
    header : int, default=None
        The row of a file that holds the names, from 0; empty rows count. What stands above is skipped. None takes the
        first row that is not empty.

    Returns
    -------
    RawTable

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        If there is no such file, the table is of another type, column names are repeated, or rows have more or fewer
        cells than the header.
    """
    if header is not None and (not isinstance(header, Integral) or isinstance(header, bool) or header < 0):
        raise ValueError(f"header must be the number of the row with the names, 0 for the first; got {header!r}.")
    if isinstance(table, RawTable):
        return table
    if isinstance(table, str | PathLike):
        path = Path(table)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(table)!r}.")
        if path.suffix.lower() in (".xlsx", ".xlsm", ".xls", ".ods"):
            return _read_workbook(path, sheet, header)
        return _read_text(path, sep, encoding, header)
    if not isinstance(table, pd.DataFrame) and hasattr(table, "to_pandas"):
        table = table.to_pandas()
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            "table must be the path of a CSV or Excel file, or a DataFrame of pandas, polars or pyarrow; got "
            f"{type(table).__name__}."
        )
    if header is not None:
        raise ValueError("header= is the row of a file; give the columns of a data frame their names in table.columns.")
    if isinstance(table.columns, pd.MultiIndex):
        raise ValueError("table has more than one row of column names; join them to one name a column first.")
    frame = table.set_axis([_clean(name) for name in table.columns], axis=1)
    if len(frame) == 0:
        raise ValueError("table has no patients, only column names.")
    raw = RawTable(frame, "table")
    _check_names(frame.columns, raw.source)
    empty = [name for name in frame if name.startswith("Unnamed: ") and frame[name].isna().all()]
    raw.dropped = dict.fromkeys(empty, "no name and no values (a trailing separator)")
    raw.frame = frame.drop(columns=empty)
    return raw


def without_empty_rows(raw: RawTable, id: str) -> RawTable:
    """The table without rows that have no value in any cell, as spreadsheets leave them; files lose them when read.

    Parameters
    ----------
    raw : RawTable
    id : str
        The column with the patients' ids.

    Returns
    -------
    RawTable
    """
    places = np.flatnonzero(_are_empty(raw.frame[[id]]))
    places = places[_are_empty(raw.frame.iloc[places])]
    kept = np.setdiff1d(np.arange(len(raw.frame)), places)
    return _counted(replace(raw, frame=raw.frame.iloc[kept]), len(places)) if len(places) else raw


def _are_empty(frame: pd.DataFrame) -> np.ndarray:
    """Which rows have no value in any cell."""
    return np.array([all(map(_is_empty, row)) for row in frame.itertuples(index=False, name=None)], dtype=bool)


def _counted(raw: RawTable, n_empty: int) -> RawTable:
    """The table with the number of rows that were dropped, and a note of it."""
    if n_empty:
        raw.n_empty = n_empty
        raw.notes.append(f"{n_empty} empty row{'s' * (n_empty > 1)} dropped")
    return raw


def read_ids(cells: pd.Series, raw: RawTable, name: str) -> pd.Index:
    """Ids as text; refuses ids that are missing, repeated (also in another form of Unicode), or have lost digits."""
    values = cells.to_numpy(dtype=object)
    lines = np.asarray(cells.index)
    texts = [_id_text(value) for value in values]
    empty = [text is None for text in texts]
    if any(empty):
        where = lines[empty].tolist() if raw.rows == "lines" else np.flatnonzero(empty).tolist()
        raise ValueError(f"{raw.source} has rows without {name}, in {raw.rows} {where[:5]}; every patient needs an id.")
    broken = [text for text in texts if re.fullmatch(r"\d(\.\d+)?[eE]\+\d+", str(text))]
    broken += [str(v) for v in values if isinstance(v, float) and (not v.is_integer() or abs(v) >= 2**53)]
    if broken:
        raise ValueError(
            f"{raw.source}: the ids in {name} are no whole numbers or have lost digits, such as {broken[:3]}; format "
            "the "
            "column as text where the table was made."
        )
    if all(re.fullmatch(r"\d+\.0", str(text)) for text in texts):
        texts = [str(text).removesuffix(".0") for text in texts]
        raw.notes.append(f"ids in {name} were numbers with '.0'; it was cut off")
    ids = pd.Index(texts, dtype=object).infer_objects() if texts else pd.Index([])
    repeated = ids[ids.duplicated()].unique().tolist()
    if repeated:
        raise ValueError(
            f"{raw.source} has more than one row for the patients {repeated[:5]} ({len(repeated)} in all); merge or "
            "drop them, since every patient has one row. Rows that belong together, such as two scans of a patient, "
            "need an id of their own each; name the column of the patient in carry=... and in CohortKFold(groups=...)."
        )
    forms = pd.Index([unicodedata.normalize("NFC", str(text)) for text in ids])
    if forms.has_duplicates:
        alike = ", ".join(ascii(text) for text in ids[forms.duplicated(keep=False)][:4])
        raise ValueError(
            f"{raw.source} has ids in {name} that look the same and differ in how Unicode stores letters: {alike}. "
            "If they are one patient, merge the rows; if not, rename one."
        )
    return ids


def _id_text(value: Any) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return " ".join(str(value).split()) or None


def _read_text(path: Path, sep: str | None, encoding: str | None, header: int | None) -> RawTable:
    text, notes = _decode(path, encoding), []
    lines = text.splitlines(keepends=True)
    skipped = 0
    if header is not None:
        _check_header(path.name, header, [re.search(r"\w", line) is None for line in lines])
        skipped = header
    elif lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        sep, skipped = sep or lines[0].strip()[4], 1
    comments = 0
    while header is None and skipped + comments < len(lines) and lines[skipped + comments].startswith("#"):
        comments += 1
    skipped += comments
    body = "".join(lines[skipped:])
    if sep is None:
        sep = _find_separator(body, path)
    if comments:
        widths = [len(next(csv.reader([line], delimiter=sep))) for line in lines[skipped - 1 : skipped + 1]]
        if comments == 1 and len(set(widths)) == 1:
            raise ValueError(
                f"{path.name}: the first line starts with '#' and has {widths[0]} cells, as the lines below have: it "
                "may "
                "be the header or a comment. Remove the '#' or the line."
            )
        notes.append(f"{comments} lines that start with '#' skipped")
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=sep)
    records, numbers, n_read, n_rows = [], [], 0, 0
    for record in reader:
        if any(cell and not cell.isspace() for cell in record):
            records.append(record)
            numbers.append(reader.line_num + skipped)
            n_rows = n_read
        n_read += 1
    raw = _as_table(path.name, "lines", records, numbers, notes)
    return _counted(raw, n_rows + 1 - len(records))


def _decode(path: Path, encoding: str | None) -> str:
    content = path.read_bytes()
    if encoding is None:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(
            f"{path.name} is not readable as {encoding}: {error}. Save it as UTF-8, or give its encoding to what "
            "takes one, for example encoding='cp1252' (Western Windows)."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path.name} is no text file; save the table as CSV or .xlsx, or give its encoding.")
    return text


def _find_separator(text: str, path: Path) -> str:
    """The only separator for which every row has as many cells as the header."""
    fits, possible = [], []
    for sep in _SEPARATORS:
        sample = [row for row in islice(csv.reader(io.StringIO(text, newline=""), delimiter=sep), _SAMPLE) if row]
        width = len(sample[0]) if sample else 0
        if width > 1:
            possible.append(sep)
            if all(len(row) == width or (len(row) == width + 1 and not row[-1]) for row in sample):
                fits.append(sep)
    choice = fits or possible or [","]
    if len(choice) > 1:
        raise ValueError(
            f"{path.name} may be separated by {' or '.join(_SEPARATORS[sep] for sep in choice)}; say which with sep=..."
        )
    return choice[0]


def _read_workbook(path: Path, sheet: str | int | None, header: int | None) -> RawTable:
    try:
        with pd.ExcelFile(path) as book:
            names = list(book.sheet_names)
            if isinstance(sheet, int) and 0 <= sheet < len(names):
                sheet = names[sheet]
            if sheet is not None and sheet not in names:
                raise KeyError(f"{path.name} has no sheet {sheet!r}; it has {names}.")
            read = names if sheet is None else [sheet]
            # Without the filter, pandas keeps a text such as "n/a".
            sheets = {
                name: pd.read_excel(book, sheet_name=name, header=None, dtype=object, na_filter=False) for name in read
            }
    except ImportError as error:
        raise ImportError(
            f'{path.name} needs a reader of workbooks; install it with: pip install "mmdls[excel]", or save the table '
            "as CSV."
        ) from error
    filled = {name: cells for name, cells in sheets.items() if len(cells)}
    if sheet is None and len(filled) > 1:
        raise ValueError(f"{path.name} has the sheets {list(filled)}; say which one with sheet=...")
    name, cells = next(iter((filled or sheets).items()))
    rows = cells.to_numpy(dtype=object).tolist()
    empty = [all(map(_is_empty, row)) for row in rows]
    if header is not None:
        _check_header(path.name, header, empty)
    numbers = [place + 1 for place, gone in enumerate(empty) if not gone and place >= (header or 0)]
    raw = _as_table(path.name, "lines", [rows[number - 1] for number in numbers], numbers, [f"sheet {name!r}"])
    return _counted(raw, numbers[-1] - numbers[0] + 1 - len(numbers))


def _check_header(source: str, header: int, empty: Sequence[bool]) -> None:
    """Refuse a row of names that is not there, or empty."""
    if header >= len(empty) or empty[header]:
        filled = [place for place, gone in enumerate(empty) if not gone]
        raise ValueError(
            f"header={header} is no row of {source} with names; the first rows that are not empty are {filled[:5]}, "
            "from 0."
        )


def _as_table(source: str, rows: str, records: list[list[Any]], numbers: list[int], notes: list[str]) -> RawTable:
    """Name the columns by the first record, and refuse rows with another number of cells."""
    if not records:
        raise ValueError(f"{source} is empty; a table has a header and one row a patient.")
    header, records, numbers = [_clean(name) for name in records[0]], records[1:], numbers[1:]
    if not records:
        raise ValueError(f"{source} has no patients, only a header.")
    width = len(header)
    long = [n for n, record in zip(numbers, records, strict=True) if not all(map(_is_empty, record[width:]))]
    short = [n for n, record in zip(numbers, records, strict=True) if len(record) < width]
    if long:
        hint = (
            "If the first cell of each row is a row name (as R writes it), give it a column name too"
            if len(long) == len(records)
            else "A cell that holds the separator needs quotes"
        )
        raise ValueError(
            f"{source} has {width} column names, and more cells in the {rows} {shortened(long)}: the columns would be "
            f"shifted. {hint}."
        )
    if short:
        raise ValueError(
            f"{source} has {width} column names, and fewer cells in the {rows} {shortened(short)}; complete these rows."
        )
    if any(len(record) > width for record in records):
        notes = [*notes, "a trailing separator in the rows ignored"]
    cells = np.empty((len(records), width), dtype=object)
    cells[:] = [record[:width] for record in records]
    raw = RawTable(pd.DataFrame(), source, rows, notes=notes)
    kept = {}
    for place, name in enumerate(header):
        if not name:
            name = f"Unnamed: {place}"
            if all(map(_is_empty, cells[:, place])):
                raw.dropped[name] = "no name and no values (a trailing separator)"
                continue
        kept[place] = name
    _check_names(list(kept.values()), source)
    # object, so that pandas does not change a cell
    raw.frame = pd.DataFrame(cells[:, list(kept)], index=pd.Index(numbers), columns=list(kept.values()), dtype=object)
    return raw


def _check_names(names: Sequence[str] | pd.Index, source: str) -> None:
    index = pd.Index(names)
    repeated = index[index.duplicated()].unique().tolist()
    if repeated:
        raise ValueError(
            f"{source} has the columns {repeated[:5]} more than once; give every column its own name, since it cannot "
            "be known which one is meant."
        )


def _clean(name: Any) -> str:
    return " ".join(str(name).replace("\ufeff", "").split())


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and cell != cell)
