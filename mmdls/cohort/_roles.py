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
from mmdls.cohort._files import RawTable, read_ids, without_empty_rows
from mmdls.cohort._requests import as_levels, as_mapping, as_names, by_name, is_name, name_key, spellings

__all__ = ["Outcome", "Roles"]

_NAMED_BLOCKS = ("clinical", "pet", "radiomics")
_PYRADIOMICS = re.compile(
    r"(?:original_|wavelet[-_0-9]|log-sigma-"
    r"|(?:square|squareroot|logarithm|exponential|gradient|lbp-[23]d[-\w]*)_"
    r"(?:shape|shape2d|firstorder|glcm|glrlm|glszm|gldm|ngtdm)_).+",
    re.IGNORECASE,
)
_TIMES = ("time", "start", "end", "event_date")
_AS_FEATURE = (
    "A stage as a feature is in blocks and in ordered, and not in ordinal: blocks={'clinical': ['TNM']}, "
    "ordered={'TNM': ['I', 'II', 'III', 'IV']}."
)
_DIAGNOSTICS = re.compile(r"(?:radiomics_)?diagnostics_.+", re.IGNORECASE)


@dataclass
class Outcome:
    """One outcome that is asked for; its role is ``"class"``, ``"ordinal"``, ``"endpoint"`` or ``"number"``.

    Its columns stand by their part, such as ``"time"`` or ``"label"``; a number by its suffix in ``y``.
    """

    name: str
    role: str
    columns: dict[str, Column]
    unit: str | None = None
    levels: Sequence[Any] | None = None

    @property
    def coded(self) -> list[Column]:
        """The columns that may hold codes: all but times and dates."""
        return [column for part, column in self.columns.items() if part not in _TIMES]


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
                    f"row in range(len(table))]. Columns: {shortened(list(frame.columns), 30)}.{self.raw.header_hint}"
                )
            self.ids = read_ids(frame.index.to_series(), self.raw, "the index").rename(frame.index.name)
        else:
            name = self.find(self.id, "id")
            self.raw = without_empty_rows(self.raw, name)
            frame = self.raw.frame
            self.ids = read_ids(frame[name], self.raw, repr(name)).rename(name)
        by_id = frame.set_axis(self.ids, axis=0)
        for column in frame:
            self.columns[column] = Column(column, by_id[column], coerce=self.coerce)
        if self.id is not None:
            self.columns[name].roles.append("id")

    def find(self, wanted: str, asked: str) -> str:
        """The table's spelling of a name."""
        names = self.raw.frame.columns
        if not is_name(wanted):
            raise TypeError(f"{asked} must name a column of {self.raw.source}; got {wanted!r}.")
        found = spellings(wanted, names)
        # What a column becomes names it too, and an endpoint its status or cause.
        found = found or [name for name, column in self.columns.items() if wanted in column.became]
        found = found or [column.name for outcome in self.taken if wanted == outcome.name for column in outcome.coded]
        if len(found) > 1:
            raise ValueError(f"{asked} names {wanted!r}, which may be each of {found}; give the exact name.")
        if not found:
            close = difflib.get_close_matches(name_key(wanted), [name_key(name) for name in names], n=3)
            likely = [name for name in names if name_key(name) in close]
            raise KeyError(
                f"{self.raw.source} has no column {wanted!r}, which {asked} names"
                + (f"; did you mean {likely}?" if likely else f". Columns: {list(names)[:30]}.{self.raw.header_hint}")
            )
        return found[0]

    def prepare(
        self,
        codes: Mapping[str, Mapping[Any, Any]],
        missing: Mapping[str, Sequence[Any]] | Sequence[Any],
        decimal: Mapping[str, str] | str | None,
        date_format: Mapping[str, str] | str | None,
        categories: Sequence[str] | str,
        ordered: Any,
    ) -> None:
        """Store in every column what the caller has said about it."""
        for name, meanings in as_mapping(codes, "codes", "{column: {value: meaning}}").items():
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
        for name in as_names(categories, "categories"):
            self.columns[self.find(name, "categories")].is_category = True
        for name, levels in by_name({} if ordered is None else ordered, "ordered").items():
            self._order(self.columns[self.find(name, "ordered")], None if levels == name else levels)

    def _order(self, column: Column, levels: Any) -> None:
        """Give the categories of a feature an order."""
        if not any(role.startswith("block ") for role in column.roles):
            role = "not used" if not column.roles else f"used as {column.roles[0]}"
            raise ValueError(
                f"ordered names the column {column.name!r}, which is {role}, and no feature. {_AS_FEATURE}"
            )
        column.is_ordered, column.levels = True, None if levels is None else as_levels(column.name, levels)

    def _by_column(self, value: Any, asked: str) -> dict[str, Any]:
        """One value for every column, or the values of some."""
        if isinstance(value, Mapping):
            return {self.find(name, asked): one for name, one in value.items()}
        return {} if value is None or len(value) == 0 else dict.fromkeys(self.columns, value)

    # -- the use of columns --------------------------------------------------------------------------------------------

    def take(self, column: Column, role: str, *, shared: bool = False) -> None:
        """Record a use; a column may belong to several endpoints, but is either an outcome or a feature."""
        both = role.startswith("endpoint ")
        other = [given for given in column.roles if not (both and given.startswith("endpoint "))]
        if other and not shared:
            raise ValueError(
                f"column {column.name!r} is asked for twice, as {other[0]} and as {role}; what is predicted is never a "
                "feature, and a column is in one block."
                + (
                    f" {_AS_FEATURE}"
                    if {"ordinal", "block"} <= {use.partition(" ")[0] for use in (*other, role)}
                    else ""
                )
            )
        if role not in column.roles:
            column.roles.append(role)

    def claim_carried(self, groups: str | None, carry: Any) -> dict[str, Column]:
        """The carried columns, by their names in X."""
        if groups is not None:
            column = self.columns[self.find(groups, "groups")]
            self.take(column, "groups")
            column.is_category = True
        carried = {}
        for name, wanted in by_name(carry, "carry").items():
            if "_" in name.strip("_"):
                raise ValueError(
                    f"carry names {name!r}: a name with an underscore would be a feature of the block "
                    f"{name.partition('_')[0]!r} in X. Give it another name: carry={{{name.replace('_', '')!r}: "
                    f"{wanted!r}}}."
                )
            column = self.columns[self.find(wanted, "carry")]
            self.take(column, "carried", shared=column.roles == ["groups"])
            column.became.append(name)
            carried[name] = column
        return carried

    def claim_features(self, blocks: Mapping[str, Any]) -> dict[str, Column]:
        """The features by their names in X: first the columns named, then patterns, then blocks found by name."""
        features: dict[str, Column] = {}
        patterns = []
        for block, wanted in as_mapping(blocks, "blocks", "{block: columns}").items():
            if not isinstance(block, str) or not re.fullmatch(r"[^\W_]+", block):
                raise ValueError(f"a block's name is one word of letters and digits; got {block!r}.")
            listed = wanted if isinstance(wanted, Mapping) else {None: wanted}
            for new, names in listed.items():
                for name in as_names(names, f"blocks[{block!r}]"):
                    if "*" in name:
                        patterns.append((block, name))
                    else:
                        column = self.columns[self.find(name, f"blocks[{block!r}]")]
                        self.take(column, f"block {block}")
                        self._name(features, column, block, name if new is None else new, exact=new is not None)
        for block, pattern in patterns:
            if not any(fnmatchcase(name_key(name), name_key(pattern)) for name in self.columns):
                raise KeyError(f"{self.raw.source} has no column that fits {pattern!r}, which blocks[{block!r}] names.")
            for name, column in self.columns.items():
                if fnmatchcase(name_key(name), name_key(pattern)) and not column.roles:
                    self.take(column, f"block {block}")
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
