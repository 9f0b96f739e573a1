"""The causes of competing risks in any coding as 0 (censored), 1, 2, ..."""

import re

import numpy as np

from mmdls.cohort._columns import Column, is_unknown_word, key_of
from mmdls.cohort._status import (
    coded,
    contradicts_itself,
    meanings_of_cells,
    names_absence,
    numbers_of_codes,
    status_of_word,
)

__all__ = ["MOST_CAUSES", "read_causes"]

MOST_CAUSES = 5
"""How many competing risks one task may have."""


def read_causes(column: Column, *, alone: bool) -> np.ndarray:
    """Read causes as 0 (censored), 1, 2, ... or NaN (unknown); the numbers of causes in words need ``codes``.

    Parameters
    ----------
    column : Column
    alone : bool
        Whether nothing else tells who is censored. If so, the column must say by a 0 that somebody is, or ``codes``
        must say that nobody is.

    Returns
    -------
    ndarray of shape (n_patients,)

    Raises
    ------
    ValueError
        If a value has no number, or may have another one.
    """
    expected = f"causes: 0 (censored), 1 to {MOST_CAUSES} (the cause)"
    if column.codes is not None:
        return numbers_of_codes(column, range(MOST_CAUSES + 1), expected)
    meanings = {text: _cause_of(text) for text in sorted(set(column.texts[column.known]))}
    shown = [f"{text!r}: {'...' if cause is None else f'{cause:.0f}'}" for text, cause in meanings.items()]
    hint = f"Give the number of every value: codes={{{column.name!r}: {{{', '.join(shown[:8])}}}}}"
    contrary = list(filter(contradicts_itself, meanings))
    if contrary:
        raise ValueError(
            f"the codes and the words of column {column.name!r} contradict each other: {contrary}. {hint}."
        )
    nameless = np.array([meanings.get(text, 0.0) is None for text in column.texts], dtype=bool)
    unknown = np.array([text is not None and is_unknown_word(text) for text in column.texts], dtype=bool)
    # Without the events of one cause the others would be read wrongly, so that coerce does not lose them.
    column.lose(nameless & ~unknown, expected, hint, always=True)
    column.lose(nameless, expected, hint)
    if alone and any(meanings.values()) and 0 not in meanings.values():
        raise ValueError(
            f"column {column.name!r} holds no 0, so that nobody would be censored, and {list(meanings)} may mean "
            f"something else. {hint}."
        )
    if alone and names_absence(column.name) and not re.fullmatch(r".+_cause", column.name, re.IGNORECASE):
        raise ValueError(f"column {column.name!r} holds {list(meanings)}, and 0 may mean an event. {hint}.")
    return meanings_of_cells(column, meanings)


def _cause_of(text: str) -> float | None:
    code = coded(text)
    number = key_of(text) if code is None else str(code[0])
    if number.isdecimal():
        return float(number) if int(number) <= MOST_CAUSES else None
    return 0.0 if status_of_word(number) == 0 else None
