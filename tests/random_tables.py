"""Small clean cohorts and the same cohorts in other forms, for tests/test_random_tables.py.

Numbers are multiples of 1/16, so that every dtype and every text holds them exactly.
"""

import io
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa

from mmdls.cohort import read_cohort

# What the cells of a column are, by its name.
FEATURES = {
    "clinical_age": "whole",
    "clinical_nodes": "whole",
    "clinical_marker": "real",
    "clinical_smoker": "truth",
    "clinical_sex": "text",
    "clinical_histology": "text",
    "clinical_ecog": "code",
    "radiomics_mean": "real",
    "radiomics_skew": "real",
}
OUTCOMES = {
    "os_time": "real",
    "os_event": "truth",
    "subtype": "text",
    "relapse": "truth",
    "grade": "whole",
    "stage": "code",
}
Draw = Callable[[Any], Any]


def clean_cohort(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features and outcomes of 32 to 48 patients, some cells missing, in plain dtypes."""
    rng = np.random.default_rng(seed)
    n = 32 + 4 * (seed % 5)
    real = lambda scale: (rng.normal(size=n) * scale * 16).round() / 16  # noqa: E731
    sex, risk = rng.choice(["F", "M"], n), real(1.0)
    X = pd.DataFrame(
        {
            "clinical_age": rng.integers(41, 89, n).astype(float),
            "clinical_nodes": rng.integers(0, 6, n).astype(float),
            "clinical_marker": 20 + real(4),
            "clinical_smoker": rng.random(n) < 0.5,
            "clinical_sex": sex,
            "clinical_histology": rng.choice(["adeno", "squamous", "large cell, other"], n),
            "clinical_ecog": pd.Categorical(rng.choice(["0", "1", "2"], n)),
            "radiomics_mean": risk,
            "radiomics_skew": real(3),
        },
        index=[f"P{k:03d}" for k in rng.permutation(999)[:n]],
    ).astype({"clinical_sex": object, "clinical_histology": object})
    true = rng.exponential(30 * np.exp(-0.5 * risk - 0.3 * (sex == "M")))
    left = rng.uniform(6, 80, n)
    y = pd.DataFrame(
        {
            "os_time": np.ceil(np.minimum(true, left) * 8) / 8,
            "os_event": (true <= left).astype(float),
            "subtype": np.where(rng.random(n) < 1 / (1 + np.exp(-risk)), "LUSC", "LUAD"),
            "relapse": np.where(rng.random(n) < 0.4, 1.0, 0.0),
            "grade": rng.integers(1, 4, n).astype(float),
            "stage": pd.Categorical(rng.choice(["I-II", "III", "IV"], n), ["I-II", "III", "IV"], ordered=True),
        },
        index=X.index,
    ).astype({"subtype": object})
    for column in ("clinical_nodes", "clinical_marker", "clinical_histology", "clinical_ecog", "radiomics_skew"):
        X.loc[rng.random(n) < 0.15, column] = None if X[column].dtype == object else np.nan
    y.loc[rng.random(n) < 0.1, ["os_time", "os_event"]] = np.nan
    return X, y


# -- one column in another form ----------------------------------------------------------------------------------------


def _objects(column: pd.Series, make: Callable[[Any], Any], missing: Any) -> pd.Series:
    cells = pd.Series(index=column.index, name=column.name, dtype=object)
    cells[:] = [missing if pd.isna(value) else make(value) for value in column]
    return cells


def _as_numbers(column: pd.Series) -> pd.Series:
    return column.astype("float64")


_DTYPES = {
    "whole": ["int64", "int32", "int16", "uint8", "float64", "float32", "Int64", "UInt8", "Float64", "Float32"]
    + [pd.ArrowDtype(pa.int64()), pd.ArrowDtype(pa.float32()), pd.ArrowDtype(pa.decimal128(9, 4)), "Sparse[float]"],
    "real": ["float64", "float32", "Float64", "Float32", "Sparse[float]", "longdouble"]
    + [pd.ArrowDtype(pa.float64()), pd.ArrowDtype(pa.decimal128(9, 4))],
    "truth": ["bool", "boolean", pd.ArrowDtype(pa.bool_()), "int64", "uint8", "float64", "Int8", "Float32"]
    + [pd.ArrowDtype(pa.int8())],
    "text": [object, "string", "str", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string()), "category"]
    + [pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))],
}
_CELLS: dict[str, list[Callable[[Any], Any]]] = {
    "whole": [int, float, np.int16, np.float32, Decimal, Fraction],
    "real": [float, np.float32, np.float64, Decimal, Fraction],
    "truth": [bool, int, float, np.bool_, Decimal],
    "text": [str, np.str_],
}
_TEXTS: dict[str, list[Callable[[Any], Any]]] = {
    "whole": [lambda v: str(int(v)), lambda v: str(float(v)), lambda v: f" {int(v)}", lambda v: f"{v:.4e}"],
    "real": [lambda v: repr(float(v)), lambda v: f"{v:.6f}", lambda v: f"{v:+.4f} ", lambda v: f"{v:.8E}"],
    "truth": [
        lambda v: str(bool(v)),
        lambda v: str(bool(v)).lower(),
        lambda v: str(int(v)),
        lambda v: str(bool(v)).upper(),
    ],
    "text": [lambda v: f" {v}", lambda v: f"{v} \n"],
}
_MISSING = [None, np.nan, pd.NA, float("nan")]


def other_form(column: pd.Series, kind: str, draw: Draw, *, feature: bool = True) -> pd.Series:
    """The same cells in another dtype or spelling; numbers as text only where they are features."""
    if kind == "code":
        return _other_categories(column, draw, feature=feature)
    lost = column.isna().any()
    way = draw(["dtype", "cells", *(["text", "text dtype"] if feature else [])])
    if way == "cells":
        return _objects(column, draw(_CELLS[kind]), draw(_MISSING))
    if way.startswith("text"):
        cells = _objects(column, draw(_TEXTS[kind]), draw([*_MISSING, "", " "]))
        return cells if way == "text" else cells.astype(draw(["string", "str", pd.ArrowDtype(pa.string())]))
    dtype = draw(_DTYPES[kind])
    if kind == "text":
        known = column.where(column.notna(), None)
        if isinstance(dtype, pd.ArrowDtype):
            return pd.Series(pd.array(known.tolist(), dtype=dtype), index=column.index, name=column.name)
        if dtype == "category":
            order = draw([1, -1])
            seen = sorted(known.dropna().unique())[::order]
            extra = ["never seen"] if feature and draw([False, True]) else []
            return column.astype(pd.CategoricalDtype(seen + extra))
        return known.astype(dtype)
    if lost and str(dtype) in ("bool", "int64", "int32", "int16", "uint8"):
        dtype = "float64"
    numbers = column.astype("float64") if kind != "truth" else column.astype("boolean")
    if kind == "truth" and str(dtype) not in ("bool", "boolean", "bool[pyarrow]"):
        numbers = column.astype("float64")
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_decimal(dtype.pyarrow_dtype):
        cells = [None if pd.isna(value) else Decimal(value) for value in column]
        return pd.Series(pd.array(cells, dtype=dtype), index=column.index, name=column.name)
    return numbers.astype(dtype)


def _other_categories(column: pd.Series, draw: Draw, *, feature: bool) -> pd.Series:
    if not feature:  # ordered: the order is what it says
        kept = column.cat.categories.astype(draw([object, "string", "str"]))
        return column.astype(pd.CategoricalDtype(kept, ordered=True)) if draw([False, True]) else column
    make = draw([str, int, float, np.int8])
    kept = [make(category) for category in column.cat.categories]
    changed = column.cat.rename_categories(kept)
    return changed.cat.reorder_categories(kept[:: draw([1, -1])])


def other_forms(table: pd.DataFrame, kinds: dict[str, str], draw: Draw, *, feature: bool = True) -> pd.DataFrame:
    """Each column, or not, in another form."""
    columns = {
        name: other_form(table[name], kinds[name], draw, feature=feature) if draw([True, True, False]) else table[name]
        for name in table
    }
    return pd.DataFrame(columns, index=table.index)


# -- one table in another form -----------------------------------------------------------------------------------------

_IDS: list[Callable[[int], Any]] = [
    lambda k: f"P{k:03d}",
    lambda k: f"{k:04d}",
    lambda k: k,
    lambda k: 10_000_000_000 + 7 * k,
    lambda k: -k,
    lambda k: k + 0.5,
    lambda k: f"é {k}\t%s{{}}",
    lambda k: pd.Timestamp("2001-01-01") + pd.Timedelta(days=k),
    lambda k: ("Rome", k),
    lambda k: bool(k) if k < 2 else f"x{k}",
]
_INDEX_DTYPES: dict[str, list[Any]] = {
    "integer": ["int64", "Int64", "float64", object, pd.ArrowDtype(pa.int64())],
    "string": [object, "string", "str", pd.ArrowDtype(pa.string()), "category"],
}
ODD_NAMES = [
    "{}",
    "%s",
    "a.b",
    "ü β",
    "100 %",
    "<0.5]",
    "it's",
    'say "x"',
    "_a_",
    "a  b",
    "\t",
    "né\u0301e",
    "x\ny",
    "0",
    "-",
]


def other_ids(ids: pd.Index, draw: Draw) -> pd.Index:
    """An id of another kind for each patient."""
    make = draw(_IDS)
    return pd.Index([make(k) for k in range(len(ids))])


def other_index(table: Any, draw: Draw) -> Any:
    """The same ids in an index of another dtype."""
    dtypes = _INDEX_DTYPES.get(pd.api.types.infer_dtype(table.index), [table.index.dtype])
    if table.index.nlevels > 1:
        return table
    return table.set_axis(table.index.astype(draw(dtypes)), axis=0)


def odd_names(columns: Any, draw: Draw) -> dict[str, str]:
    """Other names for features: the block stays, the rest becomes odd."""
    names: dict[str, str] = {}
    for column in columns:
        name = f"{column.partition('_')[0]}_{draw(ODD_NAMES)}"
        names[column] = column if name in names.values() else name
    return names


def through_csv(table: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """Written to a file and read back, by pandas or by polars; what a file cannot say is said again."""
    coded = {name: table[name].dtype for name, kind in kinds.items() if kind == "code" and name in table}
    text = io.StringIO(table.to_csv())
    read = pd.read_csv(text, index_col=0, dtype=dict.fromkeys(coded, str))
    return read.set_axis(table.index, axis=0).astype(coded)


def through_polars(table: pd.DataFrame, draw: Draw) -> pd.DataFrame:
    """A table of polars or pyarrow, converted as the refusal of one says."""
    frame = _polars(table)
    converted = frame.to_pandas(use_pyarrow_extension_array=draw([False, True]))
    if draw([False, True]):
        converted = frame.to_arrow().to_pandas(types_mapper=draw([None, pd.ArrowDtype]))
    return converted.set_axis(table.index, axis=0)


def _polars(table: pd.DataFrame) -> polars.DataFrame:
    return polars.DataFrame(_plain(table).to_dict("list"), strict=False)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Cells that files and other libraries know."""
    cells = {
        name: [None if pd.isna(v) else float(v) if isinstance(v, np.longdouble | Fraction) else v for v in column]
        for name, column in table.astype(object).items()
    }
    return pd.DataFrame(cells, index=table.index, dtype=object)


def through_the_reader(X: pd.DataFrame, y: pd.DataFrame, draw: Draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One table as a hospital may have it, with columns of any case and dtype, read by :func:`read_cohort`."""
    raw = pd.concat([other_forms(X, FEATURES, draw), other_forms(y, OUTCOMES, draw, feature=False)], axis=1)
    blocks: dict[str, dict[str, str]] = {}
    for name in X:
        blocks.setdefault(name.partition("_")[0], {})[name.partition("_")[2]] = name.upper()
    words: dict[str, Any] = {"blocks": blocks, "endpoints": {}, "categories": "clinical_ecog"}
    words["classes"] = {name: name for name in y if name in ("subtype", "grade")}
    if "os_time" in y:
        words |= {"endpoints": {"os": ("os_time", "os_event")}, "units": "months"}
    if "relapse" in y:  # a truth has several spellings
        words["classes"]["relapse"] = ("relapse", ["no", "yes"])
        words["codes"] = {"relapse": {0: "no", 1: "yes", "false": "no", "true": "yes"}}
    if "stage" in y:
        words["ordinal"] = {"stage": ("stage", ["I-II", "III", "IV"])}
    rename = draw([str.upper, str.title, lambda name: f" {name} "])
    raw = raw.rename(columns=rename).rename_axis("patient").reset_index()
    way = draw(["pandas", "objects", "csv", "polars"])
    if way == "objects":
        raw = raw.astype(object)
    elif way == "csv":
        raw = pd.read_csv(io.StringIO(_plain(raw).to_csv(index=False)), dtype=str, keep_default_na=False)
    elif way == "polars":
        raw = _polars(raw)
    read = read_cohort(raw, id="patient", **words)
    return read.X, read.y[list(y)]  # in the order of the tasks, in which first weights are drawn
