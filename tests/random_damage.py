"""Random damage to a clean cohort, and what must become of it, for tests/test_random_tables.py.

Each damage changes a :class:`Study` and gives what is expected: :class:`Refused`, :class:`Told`, :class:`Like` or None
(refused or finite numbers).
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
from random_tables import FEATURES, Draw

LABELS = ("subtype", "relapse", "grade", "stage")
NUMBERS = [name for name, kind in FEATURES.items() if kind in ("whole", "real")]
CATEGORIES = [name for name, kind in FEATURES.items() if kind in ("text", "code")]
MANY = ["clinical_age", "clinical_marker", "radiomics_mean"]


@dataclass
class Study:
    """The tables of one use of a model: to fit, and to predict and score."""

    X: Any
    y: Any
    X_new: Any
    y_new: Any
    sample_weight: Any = None
    horizons: Any = ()

    @property
    def outcome(self) -> Any:
        return self.y.columns[-1]


@dataclass
class Refused:
    """With one of these names in the message."""

    names: tuple[str, ...] = ()


@dataclass
class Told:
    """Refused, or a warning that holds one of these names."""

    names: tuple[str, ...]


@dataclass
class Like:
    """The same numbers as these tables, which are clean."""

    tables: dict[str, Any] = field(default_factory=dict)


Damage = Callable[[Study, Draw, np.random.Generator], Refused | Told | Like | None]
DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


def put(table: pd.DataFrame, column: str, row: int, value: Any) -> None:
    """Any object as a cell."""
    cells = np.empty(len(table), dtype=object)
    for place, cell in enumerate(table[column].astype(object)):
        cells[place] = value if place == row else cell
    table[column] = pd.Series(cells, index=table.index, dtype=object)


def features(study: Study, draw: Draw) -> tuple[str, pd.DataFrame]:
    part = draw(["X", "X_new"])
    return part, getattr(study, part)


def outcomes(study: Study, draw: Draw) -> tuple[str, pd.DataFrame]:
    part = draw(["y", "y_new"])
    return part, getattr(study, part)


# -- cells -------------------------------------------------------------------------------------------------------------


@damage
def a_word_among_numbers(study, draw, rng):
    _, X = features(study, draw)
    column = draw(MANY)
    word = draw(["unknown", "n/a", "-", "?", "61,5", ">90", "12 mm", "1_000", "inf", "1e5000", "²", "0x1F", "1.2.3"])
    put(X, column, rng.integers(len(X)), word)
    return Refused((column,))


@damage
def an_infinite_number(study, draw, rng):
    _, X = features(study, draw)
    column = draw(NUMBERS)
    value = draw([np.inf, -np.inf, np.float32("inf"), Decimal("Infinity"), 10**400])
    put(X, column, rng.integers(len(X)), value)
    if isinstance(value, float) and draw([False, True]):
        X[column] = X[column].astype("float64")
    return Refused((column,))


OBJECTS: list[Any] = [
    *([1, 2], {"a": 1}, {1}, (1,), frozenset(), range(3), slice(1), Ellipsis, len, float, object()),
    *(np.array([1.0, 2.0]), np.array([]), pd.Series([1, 2]), pd.DataFrame({"a": [1]})),
    *(b"x", bytearray(b"x"), complex(1, 2)),
    *(datetime.date(2001, 1, 1), datetime.time(3), datetime.timedelta(3), pd.Timestamp("2001"), pd.Period("2001")),
    *(pd.Timedelta("1D"), np.datetime64("2001"), np.timedelta64(3, "D"), pd.offsets.Day()),
]


@damage
def an_object_in_a_cell(study, draw, rng):
    _, X = features(study, draw)
    column = draw(list(FEATURES))
    put(X, column, rng.integers(len(X)), draw(OBJECTS))
    return Refused((column,))


@damage
def a_column_of_objects(study, draw, rng):
    _, X = features(study, draw)
    column, n = draw(list(FEATURES)), len(X)
    make: Callable[[], Any] = draw(
        [
            lambda: [[1, 2]] * n,
            lambda: [b"x"] * n,
            lambda: [1j] * n,
            lambda: np.arange(n, dtype=complex),
            lambda: [{}] * n,
            lambda: [object()] * n,
            lambda: pd.array([[1.0]] * n, dtype=pd.ArrowDtype(pa.list_(pa.float64()))),
            lambda: pd.array([b"a"] * n, dtype=pd.ArrowDtype(pa.binary())),
        ]
    )
    X[column] = make()
    return Refused((column,))


@damage
def a_column_of_dates(study, draw, rng):
    _, X = features(study, draw)
    column = draw(list(FEATURES))
    dates = pd.Series(pd.Timestamp("2001-01-01") + pd.to_timedelta(rng.integers(0, 999, len(X)), unit="D"), X.index)
    make: Callable[[], Any] = draw(
        [
            lambda: dates,
            lambda: dates - dates.min(),
            lambda: dates.dt.to_period("D"),
            lambda: dates.dt.date,
            lambda: dates.dt.time,
            lambda: dates.dt.tz_localize("UTC"),
            lambda: dates.astype("category"),
            lambda: dates.astype(pd.ArrowDtype(pa.timestamp("us"))),
            lambda: dates.astype(pd.ArrowDtype(pa.date32())),
            lambda: (dates - dates.min()).astype(pd.ArrowDtype(pa.duration("us"))),
            lambda: dates.astype(str),
            lambda: dates.dt.strftime("%d.%m.%Y"),
        ]
    )
    X[column] = make()
    return Told((column,))


@damage
def a_column_of_another_kind(study, draw, rng):
    """Numbers become words, categories become numbers: at prediction that must be told."""
    part, X = features(study, draw)
    column, n = draw(list(FEATURES)), len(X)
    words: list[Callable[[], Any]] = [
        lambda: X[column].astype(str),
        lambda: [1, "x"] * (n // 2),
        lambda: [True, "x"] * (n // 2),
        lambda: ["1", "x"] * (n // 2),
        lambda: [f"c{k}" for k in range(n)],
        lambda: pd.Categorical([1, "x"] * (n // 2)),
        lambda: pd.cut(rng.normal(size=n), 3),
    ]
    numbers: list[Callable[[], Any]] = [
        lambda: [True, 7.5] * (n // 2),
        lambda: [10**30 + k for k in range(n)],
        lambda: rng.normal(size=n),
    ]
    make = draw(words + numbers)
    X[column] = make()
    return Told((column,)) if part == "X_new" and (make in words or column in CATEGORIES) else None


@damage
def a_number_of_another_size(study, draw, rng):
    _, X = features(study, draw)
    column = draw(NUMBERS)
    X[column] = X[column].astype("float64")
    rows = rng.choice(len(X), draw([1, 2, 5]), replace=False)
    X.iloc[rows, X.columns.get_loc(column)] = draw([1e300, -1.7e308, 1e-320, 5e-324, 1e20, -1e16, 2.0**63, 7e38])


@damage
def another_unit(study, draw, rng):
    column, factor, offset = draw(NUMBERS), draw([1e300, 1e-300, 1e-8, 1e8, 1e150]), draw([0, 1e6, 1e12])
    for X in (study.X, study.X_new):
        X[column] = X[column].astype("float64") * factor + offset


@damage
def a_blank_text(study, draw, rng):
    part, X = features(study, draw)
    column, row, blank = draw(list(FEATURES)), int(rng.integers(len(X))), draw(["", " ", "\t\n"])
    empty = X.copy()
    put(X, column, row, blank)
    put(empty, column, row, None)
    for table in (X, empty):
        if FEATURES[column] == "code":
            table[column] = table[column].astype("category")
    return Like({part: empty})


@damage
def a_category_that_fit_did_not_see(study, draw, rng):
    X, column = study.X_new, draw(CATEGORIES)
    row, empty = int(rng.integers(len(X))), study.X_new.copy()
    put(X, column, row, draw(["new", "NaN", "7", 7, "a,b", -1.5]))
    put(empty, column, row, None)
    if study.X[column].isna().any():  # a missing cell then has an indicator of its own
        return Told((column,))
    return Like({"X_new": empty})


# -- columns -----------------------------------------------------------------------------------------------------------


@damage
def a_column_that_does_not_vary(study, draw, rng):
    clean = {"X": study.X.copy(), "X_new": study.X_new.copy()}
    name, value = draw(["clinical_new", "radiomics_new"]), draw([np.nan, None, pd.NA, 1.0, 0, True, "x", ""])
    for X in (study.X, study.X_new):
        X[name] = value
    return Like(clean)


@damage
def a_column_that_is_gone(study, draw, rng):
    column = draw(list(FEATURES))
    study.X_new = study.X_new.drop(columns=column)
    return Refused((column,))


@damage
def a_column_that_stands_twice(study, draw, rng):
    part, X = features(study, draw)
    column = draw(list(FEATURES))
    setattr(study, part, pd.concat([X, X[[column]]], axis=1))
    return Refused((column,))


@damage
def a_column_without_a_name(study, draw, rng):
    part, X = features(study, draw)
    column, name = draw(list(FEATURES)), draw([np.nan, 3, ("a", "b"), "", True, b"clinical_x", "age", " "])
    setattr(study, part, X.set_axis([name if c == column else c for c in X], axis=1))
    return Told((column, repr(name)))


@damage
def columns_without_names(study, draw, rng):
    part, X = features(study, draw)
    names = draw([range(X.shape[1]), pd.MultiIndex.from_tuples([c.split("_") for c in X])])
    setattr(study, part, X.set_axis(names, axis=1))
    return Refused()


@damage
def columns_of_other_uses(study, draw, rng):
    """Paths, masks, ids: never a number."""
    part, X = features(study, draw)
    new = draw(
        [
            {"lung_image": "nowhere.png"},
            {"lung_image": 3.0},
            {"lung_mask": 1.0},
            {"clinical_image": "x"},
            {"clinical_patient_id": range(len(X)), "pid": range(len(X))},
            {"clinical_new": rng.normal(size=len(X))},
        ]
    )
    setattr(study, part, X.assign(**new))


@damage
def the_outcome_among_the_features(study, draw, rng):
    outcome = draw(list(study.y.columns))
    is_time, values = outcome.endswith("_time"), study.y[outcome]
    forms: list[Callable[[], Any]] = [lambda: values, lambda: values.astype(object)]
    if is_time:
        forms += [lambda: values * 30.4375, lambda: 2 * values + 1, lambda: values.map(str, na_action="ignore")]
        forms += [lambda: values.map(Decimal, na_action="ignore"), lambda: values.rank(), lambda: -values]
    elif values.dtype.kind == "f":
        forms += [lambda: values.astype("Int64"), lambda: values.map({0.0: "no", 1.0: "yes", 2.0: "b", 3.0: "c"})]
    name, copy = draw(["clinical_copy", "radiomics_z", f"clinical_{outcome}"]), draw(forms)()
    for X in (study.X, study.X_new):
        X[name] = copy
    return Refused((name,)) if is_time else Told((name,))


# -- rows --------------------------------------------------------------------------------------------------------------


@damage
def other_patients(study, draw, rng):
    part = draw(["X", "y", "y_new"])
    table = getattr(study, part)
    ids = table.index.to_list()
    first, second = rng.choice(len(ids), 2, replace=False)
    way = draw(["twice", "none", "other", "lost", "extra", "numbers", "places"])
    if way == "lost":
        changed, names = table.drop(index=ids[first]), (ids[first],)
    elif way == "extra":
        changed, names = pd.concat([table, table.iloc[[first]].set_axis(["nobody"])]), ("nobody",)
    elif way in ("numbers", "places"):
        new = [int(id[1:]) for id in ids] if way == "numbers" else range(len(ids))
        changed, names = table.set_axis(pd.Index(new), axis=0), ("ids", "lacks")
    else:
        known = ids[first]
        ids[first] = {"twice": ids[second], "none": draw([None, np.nan, pd.NA, pd.NaT]), "other": "nobody"}[way]
        changed = table.set_axis(pd.Index(ids, dtype=object), axis=0)
        names = {"twice": (ids[second],), "none": ("without a patient id",), "other": ("nobody", known)}[way]
    setattr(study, part, changed)
    return None if way == "extra" and part == "y_new" else Refused(names)


@damage
def few_rows(study, draw, rng):
    parts, n = draw([["X", "y", "X_new", "y_new"], ["X", "y"], ["X_new", "y_new"]]), draw([0, 1, 2, 3, 5])
    for part in parts:
        setattr(study, part, getattr(study, part).iloc[:n])
    return None if n else Refused()


@damage
def tables_of_other_kinds(study, draw, rng):
    part = draw(["X", "y", "X_new", "y_new"])
    table = getattr(study, part)
    make: Callable[[], Any] = draw(
        [
            lambda: None,
            lambda: "x",
            lambda: 3,
            lambda: [],
            lambda: table.to_dict(),
            lambda: table.T,
            lambda: table.index,
            lambda: table.iloc[:, :0],
            lambda: table.iloc[:, 0],
            lambda: table.to_numpy(dtype=object),
            lambda: table.to_numpy(dtype=object).ravel(),
            lambda: table.to_numpy(dtype=object).tolist(),
            lambda: table.to_records(),
            lambda: np.zeros((len(table), 2, 2)),
            lambda: pd.DataFrame(),
            lambda: polars.DataFrame({c: table[c].astype(object).tolist() for c in table}, strict=False),
            lambda: polars.Series([1, 2]),
            lambda: pa.table({"a": [1, 2]}),
        ]
    )
    setattr(study, part, make())


@damage
def weights_that_are_none(study, draw, rng):
    ids = study.X.index
    one = pd.Series(1.0, ids)
    first = ids == ids[0]
    make: Callable[[], Any] = draw(
        [
            lambda: one.mask(first, -1.0),
            lambda: one.mask(first),
            lambda: one.mask(first, np.inf),
            lambda: one.mask(first).astype("Float64"),
            lambda: 0 * one,
            lambda: one.iloc[1:],
            lambda: one.set_axis([f"z{id}" for id in ids]),
            lambda: pd.concat([one, one.iloc[:1]]),
            lambda: one.to_numpy()[1:],
            lambda: np.ones((len(one), 2)),
            lambda: one.astype(str),
            lambda: pd.Series([[1]] * len(one), ids),
            lambda: [None] * len(one),
            lambda: "balanced",
        ]
    )
    study.sample_weight = make()
    return Refused()


# -- outcomes ----------------------------------------------------------------------------------------------------------


@damage
def an_endpoint_that_cannot_be(study, draw, rng):
    part, y = outcomes(study, draw)
    if "os_time" not in y:
        return Like()
    time, event = y["os_time"], y["os_event"]
    patient = draw(list(y.index[time.notna()]))
    changed, expected = draw(
        [
            ({"os_time": time.where(y.index != patient, -3.0)}, Refused((patient,))),
            ({"os_time": time.where(y.index != patient, np.inf)}, Refused((patient,))),
            ({"os_time": time.where(y.index != patient)}, Refused((patient,))),
            ({"os_event": event.where(y.index != patient)}, Refused((patient,))),
            ({"os_time": event, "os_event": time}, Refused(("os_event",))),
            ({"os_event": event + 1}, Refused(("os_event",))),
            ({"os_event": event.map({0.0: "alive", 1.0: "dead"})}, Refused(("os_event",))),
            ({"os_time": time.map(str, na_action="ignore")}, Refused(("os_time",))),
            ({"os_time": time.map(lambda t: f"{t} months", na_action="ignore")}, Refused(("os_time",))),
            ({"os_time": pd.to_timedelta(time, unit="D")}, Refused(("os_time",))),
            ({"os_time": pd.Timestamp("2001") + pd.to_timedelta(time, unit="D")}, Refused(("os_time",))),
            ({"os_time": time.astype(complex)}, Refused(("os_time",))),
            ({"os_time": time.map(lambda t: [t], na_action="ignore")}, Refused(("os_time",))),
            ({"os_time": time * 304.375}, Told(("os_time",))),
            ({"os_time": time / 365.25}, Told(("os_time",))),
            ({"os_time": np.nan, "os_event": np.nan}, Told(("os",)) if part == "y" or y.shape[1] == 2 else None),
            ({"os_event": 0 * event}, Refused(("os",)) if part == "y" else None),
        ]
    )
    setattr(study, part, y.assign(**changed))
    return expected


@damage
def columns_of_y_that_cannot_be(study, draw, rng):
    part, y = outcomes(study, draw)
    first, last = y.columns[0], y.columns[-1]
    way = draw(["lost", "twice", "numbers", "levels", "half"])
    if way == "lost":
        changed, names = y.drop(columns=list(y.columns)), ()
    elif way == "twice":
        changed, names = pd.concat([y, y[[last]]], axis=1), (last,)
    elif way == "half":
        if "os_time" not in y:
            return Like()
        changed, names = y.drop(columns="os_event"), ("os_event",)
    else:
        new = range(y.shape[1]) if way == "numbers" else pd.MultiIndex.from_product([["a"], y.columns])
        changed, names = y.set_axis(new, axis=1), ("0", first)
    setattr(study, part, changed)
    return Refused(names) if way != "numbers" else None


@damage
def labels_that_are_none(study, draw, rng):
    part, y = outcomes(study, draw)
    labels = [column for column in y if column in LABELS]
    if not labels:
        return Like()
    column, n = draw(labels), len(y)
    row = int(rng.integers(n))
    way = draw(["mixed", "continuous", "ids", "dates", "objects", "blank", "two kinds", "text and truth"])
    if way in ("objects", "blank"):
        y[column] = y[column].astype(object)
        put(y, column, row, draw([[1, 2], {"a": 1}, np.array([1, 2]), {1}]) if way == "objects" else " ")
    else:
        y[column] = {
            "mixed": lambda: ["1" if k == row else 1 for k in range(n)],
            "continuous": lambda: rng.normal(size=n),
            "ids": lambda: [f"p{k}" for k in range(n)],
            "dates": lambda: pd.Timestamp("2001") + pd.to_timedelta(rng.integers(0, 3, n), unit="D"),
            "two kinds": lambda: [k % 2 if k % 3 else str(k % 2) for k in range(n)],
            "text and truth": lambda: [bool(k % 2) if k % 3 else "yes" for k in range(n)],
        }[way]()
    return Refused((column,))
