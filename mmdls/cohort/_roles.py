"""How every column of a table is used: as id, outcome, feature of a block, carried column, or not at all."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._cells import cell_kind
from mmdls.cohort._columns import Column, key_of
from mmdls.cohort._endpoints import shortened
from mmdls.cohort._files import RawTable, read_ids

__all__ = ["Outcome", "Roles", "name_key"]

_NAMED_BLOCKS = ("clinical", "pet", "radiomics")
_PYRADIOMICS = re.compile(
    r"(?:original_|wavelet[-_0-9]|log-sigma-"
    r"|(?:square|squareroot|logarithm|exponential|gradient|lbp-[23]d[-\w]*)_"
    r"(?:shape|shape2d|firstorder|glcm|glrlm|glszm|gldm|ngtdm)_).+",
    re.IGNORECASE,
)
_DIAGNOSTICS = re.compile(r"(?:radiomics_)?diagnostics_.+", re.IGNORECASE)
_SPEC = ("time", "start", "end", "event", "event_date", "unit")
_UNITS = ("days", "weeks", "months", "years")


@dataclass
class Outcome:
    """One outcome that is asked for; its role is ``"class"``, ``"ordinal"`` or ``"endpoint"``.

    Its columns stand by their part, such as ``"time"`` or ``"label"``.
    """

    name: str
    role: str
    columns: dict[str, Column]
    unit: str | None = None
    levels: Sequence[Any] | None = None

    @property
    def status_of(self) -> tuple[str, ...]:
        """The name of the endpoint, if it has a status column."""
        return (self.name,) if "event" in self.columns else ()


@dataclass
class Roles:
    """The columns of one table, and the use of each."""

    raw: RawTable
    id: str | None
    coerce: bool
    columns: dict[str, Column] = field(default_factory=dict)
    taken: list[Outcome] = field(default_factory=list)
    date_formats: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame = self.raw.frame
        if self.id is None:
            if isinstance(frame.index, pd.RangeIndex) or self.raw.rows == "lines":
                raise ValueError(
                    f"{self.raw.source}: say which column holds the patients' ids with id=... If no column does, read "
                    "the table with pandas and give every row an id of its own: table.index = [f'patient {row}' for "
                    f"row in range(len(table))]. Columns: {shortened(list(frame.columns), 30)}."
                )
            self.ids = read_ids(frame.index.to_series(), self.raw, "the index").rename(frame.index.name)
        else:
            name = self.find(self.id, "id")
            self.ids = read_ids(frame[name], self.raw, repr(name)).rename(name)
        by_id = frame.set_axis(self.ids, axis=0)
        for column in frame:
            self.columns[column] = Column(column, by_id[column], coerce=self.coerce)
        if self.id is not None:
            self.columns[name].roles.append("id")

    def find(self, wanted: str, asked: str) -> str:
        """The table's spelling of a name."""
        names = self.raw.frame.columns
        if not _is_name(wanted):
            raise TypeError(f"{asked} must name a column of {self.raw.source}; got {wanted!r}.")
        if wanted in names:
            return wanted
        key = name_key(wanted)
        found = [name for name in names if name_key(name) == key]
        # What a column becomes names it too, and an endpoint its status.
        found = found or [name for name, column in self.columns.items() if wanted in column.became]
        found = found or [outcome.columns["event"].name for outcome in self.taken if wanted in outcome.status_of]
        if len(found) > 1:
            raise ValueError(f"{asked} names {wanted!r}, which may be each of {found}; give the exact name.")
        if not found:
            close = difflib.get_close_matches(key, [name_key(name) for name in names], n=3)
            likely = [name for name in names if name_key(name) in close]
            raise KeyError(
                f"{self.raw.source} has no column {wanted!r}, which {asked} names"
                + (f"; did you mean {likely}?" if likely else f". Columns: {list(names)[:30]}.")
            )
        return found[0]

    def prepare(
        self,
        codes: Mapping[str, Mapping[Any, Any]],
        missing: Mapping[str, Sequence[Any]] | Sequence[Any],
        decimal: Mapping[str, str] | str | None,
        date_format: Mapping[str, str] | str | None,
        categories: Sequence[str] | str,
    ) -> None:
        """Store in every column what the caller has said about it."""
        for name, meanings in _mapping(codes, "codes", "{column: {value: meaning}}").items():
            if not isinstance(meanings, Mapping):
                raise TypeError(
                    f"codes[{name!r}] must give a meaning for each value, {{value: meaning}}; got {meanings!r}."
                )
            by_key = {key_of(value): meaning for value, meaning in meanings.items()}
            self.columns[self.find(name, "codes")].codes = by_key
        if isinstance(missing, str) or not isinstance(missing, Mapping) and np.ndim(missing) == 0:
            missing = [missing]
        for name, words in self._by_column(missing, "missing").items():
            words = [words] if isinstance(words, str) or np.ndim(words) == 0 else words
            self.columns[name].missing = frozenset(map(key_of, words))
        for name, mark in self._by_column(decimal, "decimal").items():
            if mark not in (".", ","):
                raise ValueError(f"decimal must be '.' or ','; got {mark!r}.")
            self.columns[name].decimal = mark
        self.date_formats = self._by_column(date_format, "date_format")
        for name in _as_list(categories, "categories"):
            self.columns[self.find(name, "categories")].is_category = True

    def _by_column(self, value: Any, asked: str) -> dict[str, Any]:
        """One value for every column, or the values of some."""
        if isinstance(value, Mapping):
            return {self.find(name, asked): one for name, one in value.items()}
        return {} if value is None or len(value) == 0 else dict.fromkeys(self.columns, value)

    # -- the use of columns --------------------------------------------------------------------------------------------

    def claim_outcomes(self, endpoints: Any, classes: Any, ordinal: Any, units: Any) -> list[Outcome]:
        """Endpoints and tasks, in the order class, ordinal, endpoint."""
        for role, parameter, asked in (("class", "classes", classes), ("ordinal", "ordinal", ordinal)):
            for task, spec in _as_mapping(asked, parameter).items():
                name, levels = _column_and_levels(_named(task, parameter), spec)
                column = self.columns[self.find(name, parameter)]
                self._take(column, f"{role} {task}")
                column.became.append(task)
                self.taken.append(Outcome(task, role, {"label": column}, levels=levels))
        asked = self._found_endpoints() if endpoints is None else _as_mapping(endpoints, "endpoints")
        if isinstance(units, str):
            units = dict.fromkeys(asked, units)
        unit_of = _mapping({} if units is None else units, "units", "{endpoint: unit} or one unit for all")
        for endpoint, spec in asked.items():
            _named(endpoint, "endpoints")
            if isinstance(spec, str):
                spec = (f"{spec}_time", f"{spec}_event")
            if not isinstance(spec, Mapping):
                if not isinstance(spec, Sequence) or len(spec) != 2:
                    raise ValueError(f"endpoints[{endpoint!r}] must be (time column, event column); got {spec!r}.")
                spec = {"time": spec[0], "event": spec[1]}
            self._claim_endpoint(endpoint, dict(spec), unit_of)
        if unit_of:
            raise KeyError(
                f"units names {list(unit_of)}, which are no endpoints ({list(asked)}) and no columns of them."
            )
        doubled = pd.Index([outcome.name for outcome in self.taken])
        if doubled.has_duplicates:
            raise ValueError(
                f"the tasks {list(doubled[doubled.duplicated()])} are asked for twice; give each one name."
            )
        return self.taken

    def _claim_endpoint(self, endpoint: str, spec: dict[str, Any], unit_of: dict[str, str]) -> None:
        unknown = [key for key in spec if key not in _SPEC]
        ways = [{"time", "event"}, {"start", "end", "event"}, {"start", "event_date", "end"}]
        keys = set(spec) - {"unit"}
        if unknown or not (keys in ways or keys == ways[2] | {"event"}):
            raise ValueError(
                f"endpoints[{endpoint!r}] needs 'time' and 'event', or the dates 'start', 'end' and 'event', or "
                "'start', "
                f"'event_date' and 'end'; got {list(spec)}."
            )
        unit = spec.pop("unit", None)
        columns = {}
        for part, name in spec.items():
            column = self.columns[self.find(name, f"endpoints[{endpoint!r}]")]
            self._take(column, f"endpoint {endpoint}")
            column.became.append(f"{endpoint}_{'event' if part in ('event', 'event_date') else 'time'}")
            if part == "event_date":
                column.became.append(f"{endpoint}_time")
            columns[part] = column
        for name in [name for name in unit_of if name == endpoint or name_key(name) in map(name_key, spec.values())]:
            unit = unit_of.pop(name)
        if unit is not None and unit not in _UNITS:
            raise ValueError(f"the unit of endpoint {endpoint!r} must be one of {list(_UNITS)}; got {unit!r}.")
        if "time" in columns:
            columns["time"].numbers_only = True
        self.taken.append(Outcome(endpoint, "endpoint", columns, unit))

    def _found_endpoints(self) -> dict[str, tuple[str, str]]:
        """Pairs of columns that form an endpoint by their names."""
        names = {name_key(name): name for name in self.columns}
        found = {}
        for time, event in (("time", "event"), ("months", "status")):
            for key, name in names.items():
                stem = key.removesuffix(f"_{time}")
                if stem != key and stem and f"{stem}_{event}" in names and stem not in found:
                    found[stem] = (name, names[f"{stem}_{event}"])
        return found

    def _take(self, column: Column, role: str, *, shared: bool = False) -> None:
        """Record a use; a column may belong to several endpoints, but is either an outcome or a feature."""
        other = [given for given in column.roles if given.partition(" ")[0] != "endpoint" or "endpoint" not in role]
        if other and not shared:
            raise ValueError(
                f"column {column.name!r} is asked for twice, as {other[0]} and as {role}; what is predicted is never a "
                "feature, and a column is in one block."
            )
        if role not in column.roles:
            column.roles.append(role)

    def claim_carried(self, groups: str | None, carry: Any) -> dict[str, Column]:
        """The carried columns, by their names in X."""
        if groups is not None:
            column = self.columns[self.find(groups, "groups")]
            self._take(column, "groups")
            column.is_category = True
        carried = {}
        for name, wanted in _as_mapping(carry, "carry").items():
            if "_" in name.strip("_"):
                raise ValueError(
                    f"carry names {name!r}: a name with an underscore would be a feature of the block "
                    f"{name.partition('_')[0]!r} in X. Give it another name: carry={{{name.replace('_', '')!r}: "
                    f"{wanted!r}}}."
                )
            column = self.columns[self.find(wanted, "carry")]
            self._take(column, "carried", shared=column.roles == ["groups"])
            column.became.append(name)
            carried[name] = column
        return carried

    def claim_features(self, blocks: Mapping[str, Any]) -> dict[str, Column]:
        """The features by their names in X: first the columns named, then patterns, then blocks found by name."""
        features: dict[str, Column] = {}
        patterns = []
        for block, wanted in _mapping(blocks, "blocks", "{block: columns}").items():
            if not isinstance(block, str) or not re.fullmatch(r"[^\W_]+", block):
                raise ValueError(f"a block's name is one word of letters and digits; got {block!r}.")
            listed = wanted if isinstance(wanted, Mapping) else {None: wanted}
            for new, names in listed.items():
                for name in _as_list(names, f"blocks[{block!r}]"):
                    if "*" in name:
                        patterns.append((block, name))
                    else:
                        column = self.columns[self.find(name, f"blocks[{block!r}]")]
                        self._take(column, f"block {block}")
                        self._name(features, column, block, name if new is None else new, exact=new is not None)
        for block, pattern in patterns:
            if not any(fnmatchcase(name_key(name), name_key(pattern)) for name in self.columns):
                raise KeyError(f"{self.raw.source} has no column that fits {pattern!r}, which blocks[{block!r}] names.")
            for name, column in self.columns.items():
                if fnmatchcase(name_key(name), name_key(pattern)) and not column.roles:
                    self._take(column, f"block {block}")
                    column.found = True
                    self._name(features, column, block, name)
        for name, column in self.columns.items():
            key = name_key(name)
            if column.roles:
                continue
            if _DIAGNOSTICS.fullmatch(key):
                column.roles.append("dropped")
                column.note("diagnostics of PyRadiomics, no features")
            elif (kind := cell_kind(key)) is not None:
                column.roles.append("image" if kind in ("images", "masks") else kind)
                column.became.append(key)
            else:
                block = "radiomics" if _PYRADIOMICS.fullmatch(key) else key.partition("_")[0]
                if block in _NAMED_BLOCKS and block not in blocks and key != block:
                    column.roles.append(f"block {block}")
                    column.found = True
                    self._name(features, column, block, name)
        return features

    def _name(self, features: dict[str, Column], column: Column, block: str, name: str, exact: bool = False) -> None:
        pyradiomics = _PYRADIOMICS.fullmatch(name) is not None
        if not exact and not pyradiomics:
            name = re.sub(r"\W+", "_", name.casefold()).strip("_")
        new = f"{block}_{name.removeprefix(f'{block}_')}"
        if new in features:
            raise ValueError(
                f"{self.raw.source} gives {[new]} twice under different names ({features[new].name!r} and "
                f"{column.name!r}); keep one column of each."
            )
        if cell_kind(new) is not None:
            raise ValueError(
                f"column {column.name!r} would be {new!r} in X, which names images or vectors; give it another name."
            )
        features[new] = column
        column.became.append(new)


def _column_and_levels(task: str, spec: Any) -> tuple[str, Sequence[Any] | None]:
    """Read the value given for a task: a column, a column and its levels, or levels of the column of that name."""
    if isinstance(spec, str):
        return spec, None
    if not isinstance(spec, Sequence):
        raise TypeError(f"task {task!r} needs a column, (column, levels), or a list of levels; got {spec!r}.")
    column, levels = task, spec
    if len(spec) == 2 and isinstance(spec[0], str) and (spec[1] is None or not isinstance(spec[1], str)):
        column, levels = spec
    return column, None if levels is None else _levels(task, levels)


def _levels(task: str, levels: Any) -> list[Any]:
    """Levels in their order, each once."""
    if not isinstance(levels, Sequence | np.ndarray | pd.Index):
        raise TypeError(f"the levels of {task!r} must be a list in their order; got {levels!r}.")
    keys = [key_of(level) for level in levels]
    if not keys or "" in keys or len(set(keys)) < len(keys):
        raise ValueError(f"the levels of {task!r} must be different labels, none of them missing; got {list(levels)}.")
    return list(levels)


def _is_name(value: Any) -> bool:
    """Whether a value can be a column's name: text, or a number in a table without a header."""
    return isinstance(value, str | int | np.integer)


def _named(task: Any, asked: str) -> str:
    if not isinstance(task, str) or not task.strip():
        raise ValueError(f"{asked} must give every task a name of text; got {task!r}.")
    return task


def _as_list(value: Any, asked: str) -> list[str]:
    names = [value] if _is_name(value) else value
    if not isinstance(names, Sequence | np.ndarray | pd.Index) or not all(map(_is_name, names)):
        raise TypeError(f"{asked} must name columns; got {value!r}.")
    return [str(name) for name in names]


def _as_mapping(value: Any, asked: str) -> dict[str, Any]:
    """A mapping; names alone are mapped to themselves."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    return {name: name for name in _as_list(value, asked)}


def _mapping(value: Any, asked: str, form: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{asked} must be a mapping, {form}; got {value!r}.")
    return dict(value)


def name_key(name: str) -> str:
    """A name in lower case, without outer and repeated spaces."""
    return " ".join(str(name).split()).casefold()
