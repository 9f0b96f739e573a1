"""Ordered groups: stages and T, N, M categories in their many spellings, and other ordered labels."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort._columns import Column, is_unknown_word, key_of, read_labels

__all__ = ["are_stages", "read_classes", "read_ordered"]

_ROMAN = {"0": 0, "i": 1, "ii": 2, "iii": 3, "iv": 4}
_STAGE = re.compile(r"(?:(?P<roman>iv|iii|ii|i)|(?P<digit>[0-4])) ?(?P<part>[abc]?[1-4]?)")
_TNM = re.compile(r"(?:[cpayr]{0,3})(?P<kind>[tnm]) ?(?:(?P<situ>is)|(?P<digit>[0-4]) ?(?P<part>[a-d]?[1-4]?))")
_PREFIX = re.compile(r"^(?:clinical|pathologic(?:al)?|path\.?|tnm|ajcc|uicc|overall|\s)*\b(?:stage|stadium|st\.)[ :]*")
_SUFFIX = re.compile(r" *(?:\(.*\)|nos)$")
_RANGE = re.compile(r" *(?:-|–|/| to ) *")
_GROUPS = {
    "": ("I", "II", "III", "IV"),
    "t": ("T1", "T2", "T3", "T4"),
    "n": ("N0", "N1", "N2", "N3"),
    "m": ("M0", "M1"),
}

# (kind, from, to): kind "" for stages or "t", "n", "m"; both ends are (number, part), a part "~" is every part
_Span = tuple[str, tuple[int, str], tuple[int, str]]


def read_ordered(column: Column, task: str, levels: Sequence[Any] | None, argument: str = "ordinal") -> pd.Series:
    """Read an ordered label: an ordered categorical, numbers, stages, or labels whose order the caller gives.

    Parameters
    ----------
    column : Column
    task : str
        What the label is called in ``y``.
    levels : sequence or None
        Labels from lowest to highest. A level may be a group of stages: "I-II" holds "IA3" and "Stage IIB".
    argument : {"ordinal", "ordered"}, default="ordinal"
        The caller's argument that gives the levels.

    Returns
    -------
    Series of shape (n_patients,)
        Ordered categorical; its categories are text.

    Raises
    ------
    ValueError
        If labels are unknown, lie in no level, or have no order.
    """
    if levels is None and column.codes is None and isinstance(column.cells.dtype, pd.CategoricalDtype):
        if column.cells.dtype.ordered:
            levels = list(column.cells.cat.categories)
    if levels is None and column.codes is None:
        _refuse_no_labels(column, task, argument)
    if levels is not None and column.codes is not None:
        # Codes may name only the labels that are not levels; all other labels are compared with the levels below.
        column.codes = {key_of(text): text for text in column.texts if text is not None} | dict(column.codes)
    labels = read_labels(column)
    known = sorted({label for label in labels if label is not None and not is_unknown_word(label)})
    if levels is None:
        levels = _natural_levels(column, task, known, argument)
    order = [str(level) for level in levels]
    spans = {level: span for level in order if (span := _span(level)) is not None}
    by_key = {key_of(level): level for level in order}
    # Beside "3a", "4" is stage IV; in a column that holds only digits it may also be the code of a group.
    arabic = any(re.fullmatch(r"[1-4] ?[abc][1-4]?", label.lower()) for label in known)
    found: dict[str, str | None] = {}
    digits = []
    for label in {label for label in labels if label is not None}:
        level = by_key.get(key_of(label))
        if level is None and spans and (span := _span(label)) is not None:
            if re.fullmatch(r"[0-4]", label) and not arabic:
                digits.append(label)
            else:
                homes = [name for name, home in spans.items() if _lies_in(span, home)]
                level = homes[0] if len(homes) == 1 else None
        found[label] = level
    bad = np.array([label is not None and found[label] is None for label in labels], dtype=bool)
    hint = "Recode them with codes, or change the levels"
    if digits:
        hint = (
            f"{sorted(digits)} may be stages or codes of groups; say which, for example "
            f"codes={{{column.name!r}: {{{', '.join(f'{d}: ...' for d in sorted(digits))}}}}} with one of {order} for "
            "each"
        )
    column.lose(bad, f"one of {order}", hint, subject=f"unknown labels in {task!r}: column {column.name!r}")
    groups = [None if label is None else found[label] for label in labels]
    _note_groups(column, labels, groups)
    return pd.Series(pd.Categorical(groups, order, ordered=True), index=column.cells.index, name=task)


def read_classes(column: Column, task: str, levels: Sequence[Any] | None) -> pd.Series:
    """Read an unordered label.

    Parameters
    ----------
    column : Column
    task : str
        What the label is called in ``y``.
    levels : sequence or None
        The classes; None takes what the column holds.

    Returns
    -------
    Series of shape (n_patients,)
        Text, or a categorical of ``levels``.

    Raises
    ------
    ValueError
        If labels are unknown, or the column holds measurements or as many labels as patients.
    """
    if levels is None and column.codes is None:
        _refuse_no_labels(column, task, "classes")
    labels = read_labels(column)
    known = [label for label in labels if label is not None]
    if levels is not None:
        by_key = {key_of(level): str(level) for level in levels}
        classes = [None if label is None else by_key.get(key_of(label)) for label in labels]
        bad = np.array([a is not None and b is None for a, b in zip(labels, classes, strict=True)], dtype=bool)
        expected, hint = f"one of {list(by_key.values())}", "Recode them with codes"
        column.lose(bad, expected, hint, subject=f"unknown labels in {task!r}: column {column.name!r}")
        _note_groups(column, labels, classes)
        return pd.Series(pd.Categorical(classes, list(by_key.values())), index=column.cells.index, name=task)
    bad = np.array([label is not None and is_unknown_word(label) for label in labels], dtype=bool)
    column.lose(
        bad, "classes", "If it is a class, recode it with codes", subject=f"task {task!r}: column {column.name!r}"
    )
    return pd.Series(
        [np.nan if label is None or lost else label for label, lost in zip(labels, bad, strict=True)],
        index=column.cells.index,
        name=task,
        dtype=None if known else object,
    )


def _refuse_no_labels(column: Column, task: str, argument: str) -> None:
    """Refuse dates, measurements, and as many values as patients, where nothing says what their groups are."""
    labels = read_labels(column)
    known = [label for label in labels if label is not None]
    different = set(known)
    if column.holds_dates:
        what = "holds dates or durations"
    elif any(re.fullmatch(r"-?\d*[.,]\d+(e[+-]?\d+)?", label.lower()) for label in different) or (
        len(different) > 20 and 2 * len(different) > len(known)
    ):
        what = f"has {len(different)} different values among {len(known)} known ones"
    else:
        return
    raise ValueError(
        f"column {column.name!r} {what}, such as {sorted(different)[:3]}: it is no class. Group it first, name the "
        f"classes ({_asked(column, task, argument)}), or give it as a feature or an endpoint."
    )


def _asked(column: Column, task: str, argument: str) -> str:
    """How the caller gives the levels."""
    return (
        f"{argument}={{{column.name!r}: [...]}}"
        if argument == "ordered"
        else (f"{argument}={{{task!r}: ({column.name!r}, [...])}}")
    )


def are_stages(labels: Sequence[str]) -> bool:
    """Whether labels are three or more different stages, or T, N or M categories, written as texts."""
    kinds = {span[0] if (span := _span(label)) is not None else None for label in labels}
    return len(labels) > 2 and len(kinds) == 1 and None not in kinds and not all(label.isdigit() for label in labels)


def _natural_levels(column: Column, task: str, known: Sequence[str], argument: str) -> Sequence[str]:
    """The order that the labels have by themselves: numbers, stages, T, N, M."""
    try:
        return sorted(known, key=float)
    except ValueError:
        pass
    kinds = {span[0] if (span := _span(label)) is not None else None for label in known}
    if len(kinds) == 1 and (kind := kinds.pop()) is not None:
        groups = list(_GROUPS[kind])
        lowest = f"{kind.upper()}0"
        if lowest not in groups and any(_span(label)[1][0] == 0 for label in known):  # type: ignore[index]
            groups.insert(0, lowest)
        return groups
    raise ValueError(
        f"column {column.name!r} has the labels {list(known)[:6]}, whose order is not known; give it from lowest to "
        f"highest: {_asked(column, task, argument)}."
    )


def _span(text: str) -> _Span | None:
    """The stages that a text names; None if it names none."""
    text = _SUFFIX.sub("", _PREFIX.sub("", " ".join(text.lower().split())))
    ends = [_point(part) for part in _RANGE.split(text)]
    if len(ends) > 2 or any(end is None for end in ends):
        return None
    first, last = ends[0], ends[-1]
    assert first is not None and last is not None
    if first[0] != last[0] or first[1] > last[1]:
        return None
    return first[0], first[1], (last[1][0], last[1][1] + "~")


def _point(text: str) -> tuple[str, tuple[int, str]] | None:
    if match := _STAGE.fullmatch(text):
        return "", (_ROMAN[match["roman"]] if match["roman"] else int(match["digit"]), match["part"])
    if match := _TNM.fullmatch(text):
        return match["kind"], (0, "is") if match["situ"] else (int(match["digit"]), match["part"])
    return None


def _lies_in(span: _Span, home: _Span) -> bool:
    return span[0] == home[0] and home[1] <= span[1] and span[2] <= home[2]


def _note_groups(column: Column, labels: np.ndarray, groups: Sequence[str | None]) -> None:
    changed = Counter((a, b) for a, b in zip(labels, groups, strict=True) if a is not None and b is not None and a != b)
    if changed:
        shown = [f"{old!r} -> {new!r} ({n})" for (old, new), n in sorted(changed.items())]
        column.note("grouped: " + ", ".join(shown))
