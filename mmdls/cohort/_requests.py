"""What the caller of the reader asks for, in the forms in which names and mappings may be given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._columns import key_of

__all__ = ["as_levels", "as_mapping", "as_names", "by_name", "is_name", "name_key", "spellings", "task_name"]


def is_name(value: Any) -> bool:
    """Whether a value can be a column's name: text, or a number in a table without a header."""
    return isinstance(value, str | int | np.integer)


def task_name(task: Any, asked: str) -> str:
    """The name of a task, which is a text; ``asked`` is the argument that gives it."""
    if not isinstance(task, str) or not task.strip():
        raise ValueError(f"{asked} must give every task a name of text; got {task!r}.")
    return task


def as_names(value: Any, asked: str) -> list[str]:
    """One name or several as a list."""
    names = [value] if is_name(value) else value
    if not isinstance(names, Sequence | np.ndarray | pd.Index) or not all(map(is_name, names)):
        raise TypeError(f"{asked} must name columns; got {value!r}.")
    return [str(name) for name in names]


def by_name(value: Any, asked: str) -> dict[str, Any]:
    """A mapping; names alone are mapped to themselves."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    return {name: name for name in as_names(value, asked)}


def as_mapping(value: Any, asked: str, form: str) -> dict[Any, Any]:
    """A mapping of the form that the message names."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{asked} must be a mapping, {form}; got {value!r}.")
    return dict(value)


def as_levels(name: str, levels: Any) -> list[Any]:
    """Levels in their order, each once."""
    if isinstance(levels, str) or not isinstance(levels, Sequence | np.ndarray | pd.Index):
        raise TypeError(f"the levels of {name!r} must be a list in their order; got {levels!r}.")
    keys = [key_of(level) for level in levels]
    if not keys or "" in keys or len(set(keys)) < len(keys):
        raise ValueError(f"the levels of {name!r} must be different labels, none of them missing; got {list(levels)}.")
    return list(levels)


def spellings(name: str, names: Iterable[str]) -> list[str]:
    """The names that a name may mean: itself, or else those that differ in case and outer spaces alone."""
    names = list(names)
    return [name] if name in names else [each for each in names if name_key(each) == name_key(name)]


def name_key(name: str) -> str:
    """A name in lower case, without outer and repeated spaces."""
    return " ".join(str(name).split()).casefold()
