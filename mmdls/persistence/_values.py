"""Numbers, arrays and tables as JSON; the numbers of arrays are kept by name beside it."""

import base64
import datetime
import math
import pathlib
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats
from scipy.interpolate import BSpline
from scipy.stats.distributions import rv_frozen
from sklearn.utils import Bunch

__all__ = ["decode_value", "encode_value"]

Node = Callable[[Any, str], Any]
Value = Callable[[Any], Any]


def encode_value(value: Any, path: str, node: Node, arrays: MutableMapping[str, np.ndarray]) -> Any:
    """JSON of a value of Python, NumPy or pandas.

    Parameters
    ----------
    value : object
    path : str
        Where it stands in the model.
    node : callable
        ``(value, path) -> JSON`` of what is inside.
    arrays : mutable mapping of str to ndarray
        Gets the numbers of arrays.

    Returns
    -------
    object
        NotImplemented for a value of another kind.

    Raises
    ------
    TypeError
        If it cannot be written without loss.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [node(each, f"{path}[{i}]") for i, each in enumerate(value)]
    if kind in _SEQUENCES:
        items = sorted(value, key=repr) if kind in (set, frozenset) else value
        return {_SEQUENCES[kind]: [node(each, f"{path}[{i}]") for i, each in enumerate(items)]}
    if kind in _MAPPINGS:
        return {_MAPPINGS[kind]: [[node(key, path), node(each, f"{path}[{key!r}]")] for key, each in value.items()]}
    if kind is slice:
        return {"slice": [node(part, path) for part in (value.start, value.stop, value.step)]}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if kind is complex:
        return {"complex": [node(value.real, path), node(value.imag, path)]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, pathlib.PurePath):
        return {"path": str(value)}
    if value is pd.NA or value is pd.NaT:
        return {"missing": "NA" if value is pd.NA else "NaT"}
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        zone = None if getattr(value, "tz", None) is None else str(value.tz)
        return {kind.__name__.lower(): [int(value.asm8.astype(np.int64)), value.unit, zone]}
    if isinstance(value, pd.Period):
        return {"period": [value.ordinal, value.freqstr]}
    if isinstance(value, pd.Interval):
        return {"interval": [node(value.left, path), node(value.right, path), value.closed]}
    if kind in _DATES:
        if getattr(value, "tzinfo", None) is not None:
            raise TypeError(f"{path} is a time with a time zone; make it a pandas.Timestamp, which is saved.")
        return {_DATES[kind]: value.total_seconds() if kind is datetime.timedelta else value.isoformat()}
    if isinstance(value, np.dtype):
        return {"dtype": _dtype(value, path)}
    if isinstance(value, np.generic):
        return {"scalar": _encode_scalar(value, path, node)}
    if isinstance(value, np.ma.MaskedArray):
        parts = [value.data, np.ma.getmaskarray(value), np.asarray(value.fill_value)]
        return {"masked": [_encode_array(part, path, node, arrays) for part in parts]}
    if kind is np.ndarray:
        return {"array": _encode_array(value, path, node, arrays)}
    if isinstance(value, np.random.RandomState):
        name, keys, *rest = cast("tuple[Any, ...]", value.get_state(legacy=True))
        return {"random_state": [name, _encode_array(keys, path, node, arrays), *rest]}
    if isinstance(value, np.random.Generator):
        return {"generator": node(value.bit_generator.state, path)}
    if isinstance(value, BSpline):
        # By its public parts: what else it holds differs between versions of scipy.
        spline: list[Any] = [value.t, value.c, value.k, value.extrapolate, value.axis]
        return {"spline": [node(part, path) for part in spline]}
    if isinstance(value, rv_frozen):
        # What a randomised search draws from.
        if not isinstance(getattr(stats, value.dist.name, None), type(value.dist)):
            raise TypeError(f"{path} is a distribution that scipy.stats lacks; take one of scipy.stats.")
        return {"scipy_distribution": [value.dist.name, node(list(value.args), path), node(value.kwds, path)]}
    if isinstance(value, pd.api.extensions.ExtensionDtype):
        return {"pandas_dtype": str(value)}
    if kind is pd.DataFrame:
        columns = [_encode_column(value.iloc[:, i].array, f"{path}[{i}]", node) for i in range(value.shape[1])]
        return {"frame": [node(value.columns, path), node(value.index, path), columns, node(value.attrs, path)]}
    if kind is pd.Series:
        name = node(value.name, path)
        return {
            "series": [_encode_column(value.array, path, node), node(value.index, path), name, node(value.attrs, path)]
        }
    if isinstance(value, pd.Index):
        return {"index": _encode_index(value, path, node)}
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _encode_column(value, path, node)
    return NotImplemented


def decode_value(tag: str, content: Any, value: Value, arrays: MutableMapping[str, np.ndarray]) -> Any:
    """The value of JSON that :func:`encode_value` gave.

    Parameters
    ----------
    tag : str
    content : object
    value : callable
        ``JSON -> value`` of what is inside.
    arrays : mapping of str to ndarray

    Returns
    -------
    object
        NotImplemented for a tag of another kind.
    """
    if tag in _SEQUENCE_TAGS:
        return _SEQUENCE_TAGS[tag](value(each) for each in content)
    if tag in _MAPPING_TAGS:
        return _MAPPING_TAGS[tag]((value(key), value(each)) for key, each in content)
    return _DECODERS[tag](content, value, arrays) if tag in _DECODERS else NotImplemented


_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_SEQUENCE_TAGS: dict[str, Any] = {tag: kind for kind, tag in _SEQUENCES.items()}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Bunch: "bunch"}
_MAPPING_TAGS: dict[str, Any] = {"dict": dict, "ordered": OrderedDict, "bunch": lambda items: Bunch(**dict(items))}
_DATES: dict[type, str] = {
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.timedelta: "timedelta_seconds",
}


def _dtype(dtype: np.dtype, path: str) -> Any:
    if dtype.fields is not None:
        return [[name, _dtype(dtype.fields[name][0], path)] for name in dtype.names or ()]
    if dtype.kind not in "biufcOUMm" or dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, np.inf):
        raise TypeError(f"{path} holds an array of {dtype}, which cannot be saved; convert it to numbers or texts.")
    return dtype.str


def _as_dtype(text: Any) -> np.dtype:
    if isinstance(text, list):
        return np.dtype([(str(name), _as_dtype(each)) for name, each in text])
    if not isinstance(text, str) or text[:1] not in "<>|=" or text[1:2] not in "biufcOUMm":
        raise ValueError(f"the file has an array of type {str(text)[:100]!r}, which is unknown.")
    return np.dtype(text)


def _encode_array(array: np.ndarray, path: str, node: Node, arrays: MutableMapping[str, np.ndarray]) -> Any:
    """An array by reference; of objects and texts by its cells; of records by its fields."""
    dtype, shape = _dtype(array.dtype, path), list(array.shape)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if array.dtype.fields is not None:
        if array.dtype.isalignedstruct or array.dtype.itemsize != sum(
            f[0].itemsize for f in array.dtype.fields.values()
        ):
            raise TypeError(f"{path} holds an array of records with gaps between the fields; it cannot be saved.")
        fields = [
            _encode_array(np.ascontiguousarray(array[name]), path, node, arrays) for name in array.dtype.names or ()
        ]
        return {"dtype": dtype, "shape": shape, "fields": fields}
    if array.dtype.kind in "OU":
        return {
            "dtype": dtype,
            "shape": shape,
            "order": order,
            "cells": [node(cell, path) for cell in array.ravel().tolist()],
        }
    stored = array.T if order == "F" else array
    stored = np.ascontiguousarray(stored).reshape(stored.shape)
    if array.dtype.kind in "Mm":
        stored = stored.astype(stored.dtype.newbyteorder("=")).view(np.int64)
    if array.dtype.kind == "c":
        stored = stored.astype(stored.dtype.newbyteorder("=")).view(f"f{array.dtype.itemsize // 2}")
    name = f"a{len(arrays):04d}"
    arrays[name] = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return {"dtype": dtype, "shape": shape, "order": order, "numbers": name}


def _decode_array(content: Any, value: Value, arrays: MutableMapping[str, np.ndarray]) -> np.ndarray:
    dtype, shape = _as_dtype(content["dtype"]), tuple(map(int, content["shape"]))
    if any(length < 0 for length in shape):
        raise ValueError("the file has an array of negative length.")
    if "fields" in content:
        fields = [_decode_array(field, value, arrays) for field in content["fields"]]
        if any(field.shape != shape for field in fields) or len(fields) != len(dtype.names or ()):
            raise ValueError("the file has an array of records whose fields differ in shape.")
        records = np.empty(shape, dtype)
        for name, field in zip(dtype.names or (), fields, strict=True):
            records[name] = field
        return records
    order = content.get("order", "C")
    if "cells" in content:
        cells = content["cells"]
        if len(cells) != math.prod(shape):
            raise ValueError("the file has an array with another number of cells than its shape says.")
        flat = np.empty(len(cells), dtype=object)
        for i, cell in enumerate(cells):  # a list of arrays of one shape would be taken for an array of more axes
            flat[i] = value(cell)
        if dtype.itemsize > 4 * max([1024, *(len(cell) for cell in flat if isinstance(cell, str))]):
            raise ValueError("the file has an array of texts that are longer than any of its cells.")
        return np.asarray(flat.reshape(shape).astype(dtype, copy=False), order=order)
    stored = arrays[content["numbers"]]
    if dtype.kind in "Mmc":
        stored = stored.view(dtype.newbyteorder("="))
    if stored.dtype != dtype.newbyteorder("="):
        raise ValueError(f"the file has numbers of type {stored.dtype} where it says {dtype}.")
    stored = stored.astype(dtype, copy=False).reshape(shape[::-1] if order == "F" else shape)
    return stored.T if order == "F" else stored


def _encode_scalar(value: np.generic, path: str, node: Node) -> Any:
    dtype = _dtype(value.dtype, path)
    return [dtype, int(value.astype(np.int64)) if value.dtype.kind in "Mm" else node(value.item(), path)]


def _decode_scalar(content: Any, value: Value) -> Any:
    dtype, number = _as_dtype(content[0]), value(content[1])
    if dtype.kind in "Mm":
        return np.asarray(number, dtype=np.int64).astype(dtype)[()]
    return dtype.type(number)


def _decode_timestamp(content: Any) -> pd.Timestamp:
    number, unit, zone = content
    moment = pd.Timestamp(np.datetime64(number, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone)


def _encode_column(column: Any, path: str, node: Node) -> Any:
    """The values of a column, of any dtype that pandas makes again of them."""
    if isinstance(column, pd.arrays.NumpyExtensionArray):
        return node(column.to_numpy(), path)
    if isinstance(column, pd.Categorical):
        categories = node(column.categories, path)
        return {"categorical": [node(np.asarray(column.codes), path), categories, bool(column.ordered)]}
    dtype = str(column.dtype)
    if dtype.startswith("datetime64[") or dtype.startswith("timedelta64["):
        zone = getattr(column.dtype, "tz", None)
        kind = dtype.partition("[")[0]
        return {"times": [node(column.asi8, path), column.unit, kind, None if zone is None else str(zone)]}
    values = list(column)
    try:
        again = pd.array(values, dtype=dtype)
        same = again.dtype == column.dtype and again.equals(column)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise TypeError(f"{path} is a column of {column.dtype!r}, which cannot be saved; convert it to another dtype.")
    return {"values": [dtype, node(values, path)]}


def _decode_categorical(content: Any, value: Value) -> pd.Categorical:
    codes, categories, ordered = content
    return pd.Categorical.from_codes(value(codes), value(categories), ordered=ordered)


def _decode_times(content: Any, value: Value) -> Any:
    numbers, unit, kind, zone = content
    series = pd.Series(value(numbers).view(f"{'m8' if kind == 'timedelta64' else 'M8'}[{unit}]"))
    return (series if zone is None else series.dt.tz_localize("UTC").dt.tz_convert(zone)).array


def _series(content: Any, value: Value, index: pd.Index, name: Any = None) -> pd.Series:
    column = value(content)
    if not isinstance(column, np.ndarray | pd.api.extensions.ExtensionArray) or column.shape != index.shape:
        raise ValueError("the file has a table whose columns do not fit its rows.")
    return pd.Series(column, index=index, name=name, dtype=column.dtype)


def _encode_index(index: pd.Index, path: str, node: Node) -> Any:
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": node(index.name, path)}
    if isinstance(index, pd.MultiIndex):
        levels = [
            [node(level, path), node(np.asarray(codes), path)]
            for level, codes in zip(index.levels, index.codes, strict=True)
        ]
        return {"levels": levels, "name": node(list(index.names), path)}
    return {"values": _encode_column(index.array, path, node), "name": node(index.name, path)}


def _decode_index(content: Any, value: Value) -> pd.Index:
    name = value(content["name"])
    if "range" in content:
        return pd.RangeIndex(*content["range"], name=name)
    if "levels" in content:
        levels = [value(level) for level, _ in content["levels"]]
        return pd.MultiIndex(levels, [value(codes) for _, codes in content["levels"]], names=name)
    column = value(content["values"])
    return pd.Index(column, name=name, dtype=column.dtype)


def _decode_frame(content: Any, value: Value) -> pd.DataFrame:
    columns, index, data, attrs = content
    names, rows = value(columns), value(index)
    series = [_series(each, value, rows) for each in data]
    frame = pd.DataFrame(dict(enumerate(series)), index=rows).set_axis(names, axis=1)
    frame.attrs = value(attrs)
    return frame


def _decode_series(content: Any, value: Value) -> pd.Series:
    data, index, name, attrs = content
    series = _series(data, value, value(index), value(name))
    series.attrs = value(attrs)
    return series


def _decode_masked(content: Any, value: Value, arrays: MutableMapping[str, np.ndarray]) -> np.ma.MaskedArray:
    data, mask, fill = (_decode_array(part, value, arrays) for part in content)
    masked: Any = np.ma.MaskedArray
    return masked(data, mask, fill_value=fill[()])


def _decode_random_state(content: Any, value: Value, arrays: MutableMapping[str, np.ndarray]) -> np.random.RandomState:
    name, keys, *rest = content
    state = np.random.RandomState()
    state.set_state((name, _decode_array(keys, value, arrays), *rest))
    return state


def _decode_distribution(content: Any, value: Value) -> Any:
    name, args, named = content[0], value(content[1]), value(content[2])
    distribution = getattr(stats, str(name), None)
    if not isinstance(distribution, stats.rv_continuous | stats.rv_discrete) or not all(
        isinstance(each, int | float | np.number) for each in (*args, *named.values())
    ):
        raise ValueError(f"the file has a distribution {str(name)[:100]!r} that scipy.stats lacks, or of no numbers.")
    return distribution(*args, **named)


_BIT_GENERATORS = {name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")}


def _decode_generator(content: Any, value: Value) -> np.random.Generator:
    state = value(content)
    bits = _BIT_GENERATORS[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


_DECODERS: dict[str, Callable[[Any, Value, MutableMapping[str, np.ndarray]], Any]] = {
    "float": lambda c, v, a: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[c],
    "slice": lambda c, v, a: slice(*map(v, c)),
    "range": lambda c, v, a: range(*c),
    "complex": lambda c, v, a: complex(*map(v, c)),
    "bytes": lambda c, v, a: base64.b64decode(c, validate=True),
    "path": lambda c, v, a: pathlib.Path(c),
    "missing": lambda c, v, a: {"NA": pd.NA, "NaT": pd.NaT}[c],
    "timestamp": lambda c, v, a: _decode_timestamp(c),
    "timedelta": lambda c, v, a: pd.Timedelta(np.timedelta64(c[0], c[1])),
    "datetime": lambda c, v, a: datetime.datetime.fromisoformat(c),
    "date": lambda c, v, a: datetime.date.fromisoformat(c),
    "timedelta_seconds": lambda c, v, a: datetime.timedelta(seconds=c),
    "period": lambda c, v, a: pd.Period(ordinal=c[0], freq=c[1]),
    "interval": lambda c, v, a: pd.Interval(v(c[0]), v(c[1]), closed=c[2]),
    "dtype": lambda c, v, a: _as_dtype(c),
    "pandas_dtype": lambda c, v, a: pd.api.types.pandas_dtype(c),
    "scalar": lambda c, v, a: _decode_scalar(c, v),
    "masked": _decode_masked,
    "array": _decode_array,
    "random_state": _decode_random_state,
    "spline": lambda c, v, a: BSpline(*map(v, c)),
    "scipy_distribution": lambda c, v, a: _decode_distribution(c, v),
    "generator": lambda c, v, a: _decode_generator(c, v),
    "frame": lambda c, v, a: _decode_frame(c, v),
    "series": lambda c, v, a: _decode_series(c, v),
    "index": lambda c, v, a: _decode_index(c, v),
    "categorical": lambda c, v, a: _decode_categorical(c, v),
    "times": lambda c, v, a: _decode_times(c, v),
    "values": lambda c, v, a: pd.array(v(c[1]), dtype=c[0]),
}
