"""The status of an endpoint in any coding as 1 (event) or 0 (censored)."""

import re
from collections import Counter
from collections.abc import Container, Mapping

import numpy as np

from mmdls.cohort._columns import Column, is_unknown_word, key_of

__all__ = [
    "coded",
    "contradicts_itself",
    "meanings_of_cells",
    "names_absence",
    "numbers_of_codes",
    "read_status",
    "status_of_word",
]

_EVENT = frozenset(
    "dead deceased died death exitus yes y true event relapse relapsed recurrence recurred progression".split()
    + ["progressed", "recurred/progressed", "dead of disease", "dead of other causes", "expired"]
)
_NO_EVENT = frozenset(
    "alive living censored no n false diseasefree disease-free nonrecurrent lost".split()
    + [
        "no event",
        "disease free",
        "progression free",
        "event free",
        "not recurred",
        "lost to follow-up",
        "alive with disease",
    ]
    + ["alive without disease", "no recurrence", "no relapse", "no progression"]
)
_OPPOSITE = re.compile(r"alive|living|surviv|cens|vital|free")
# "event_free", "not_dead": the words of an event that name its absence
_ABSENCE = re.compile(
    r"(?:event|death|relapse|recurrence|progression)[\W_]*free"
    r"|(?<![a-z])(?:no|not|non|without)[\W_]+(?:event|dead|death|deceased|died|relapse|recur|progress)"
)
_NAMES_EVENT = re.compile(r"event|dead|death|deceased|died|relapse|recur|progress")
_CODED = re.compile(r"(\d+)\s*[:=]\s*(.*)")


def read_status(column: Column) -> np.ndarray:
    """Read a status as 1 (event), 0 (censored) or NaN (unknown); other codes, such as 1/2, need ``codes``.

    Parameters
    ----------
    column : Column

    Returns
    -------
    ndarray of shape (n_patients,)

    Raises
    ------
    ValueError
        If a code is neither 0 nor 1, or may mean the opposite.
    """
    if column.codes is not None:
        return numbers_of_codes(column, (0, 1), "1 (event), 0 (censored)")
    meanings: dict[str, float | None] = {text: _status_of(text) for text in set(column.texts[column.known])}
    keys = {key_of(text) for text in meanings}
    contrary = sorted(filter(contradicts_itself, meanings))
    example = ", ".join(f"{text!r}: ..." for text in (contrary or sorted(meanings))[:3])
    hint = f"Give the meaning of every value: codes={{{column.name!r}: {{{example}}}}}, with 1 (event) or 0 (censored)"
    if contrary:
        raise ValueError(
            f"the codes and the words of status column {column.name!r} contradict each other: {contrary}. {hint}."
        )
    codes = keys & {"0", "1", "true", "false", "yes", "no", "y", "n"}
    if codes and names_absence(column.name):
        raise ValueError(
            f"column {column.name!r} holds {sorted(codes)}, and 1 may mean that no event was seen. {hint}."
        )
    if keys == {"1"} and not _NAMES_EVENT.search(_ABSENCE.sub("free", column.name.lower())):
        raise ValueError(
            f"column {column.name!r} holds nothing but 1, which means an event in the coding 0/1 and none in 1/2. "
            f"{hint}."
        )
    strange = {text for text, meaning in meanings.items() if meaning is None}
    if any(not is_unknown_word(text) for text in strange) and any(key_of(text).isdigit() for text in strange):
        # A third code, or the coding 1/2: nothing that could be set to NaN and leave the others right.
        raise ValueError(f"status column {column.name!r} is neither 0 nor 1 throughout: {sorted(keys)}. {hint}.")
    bad = np.array([text in strange for text in column.texts], dtype=bool)
    column.lose(bad, "a status (0/1, Alive/Dead, True/False, '0:LIVING'/'1:DECEASED')", hint)
    return meanings_of_cells(column, meanings)


def numbers_of_codes(column: Column, allowed: Container[int], expected: str) -> np.ndarray:
    """The number that ``codes`` give each cell, NaN for None, (n_patients,).

    Raises
    ------
    ValueError
        If they give another number than those allowed, which the message calls ``expected``.
    """
    wrong = {key: m for key, m in (column.codes or {}).items() if m is not None and m not in allowed}
    if wrong:
        raise ValueError(f"codes[{column.name!r}] must give {expected} or None (unknown) for each value; got {wrong}.")
    return np.array([np.nan if meaning is None else float(meaning) for meaning in column.recoded()])


def meanings_of_cells(column: Column, meanings: Mapping[str, float | None]) -> np.ndarray:
    """The number that every cell means, NaN without one, (n_patients,); the report tells those of codes and words."""
    values = [None if text is None else meanings[text] for text in column.texts]
    counts = Counter((text, value) for text, value in zip(column.texts, values, strict=True) if value is not None)
    if any(key_of(text) != f"{value:.0f}" for text, value in counts):
        shown = [f"{text!r} -> {value:.0f} ({n})" for (text, value), n in sorted(counts.items())]
        column.note("recoded: " + ", ".join(shown))
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def names_absence(name: str) -> bool:
    """Whether a column's name may say that 1 means no event, as "alive" does."""
    name = _ABSENCE.sub("free", name.lower())
    return _OPPOSITE.search(name) is not None and not re.search(r"event|dead|death", name)


def coded(text: str) -> tuple[int, str] | None:
    """The code and the word of a text such as "1:DECEASED"; None for other texts."""
    match = _CODED.fullmatch(key_of(text))
    return None if match is None else (int(match[1]), match[2])


def contradicts_itself(text: str) -> bool:
    """Whether a code and its word mean different things, as in "1:LIVING"."""
    code = coded(text)
    return code is not None and status_of_word(code[1]) not in (None, float(code[0] > 0))


def status_of_word(word: str) -> float | None:
    """1 for words of an event, 0 for words of its absence, None for all others."""
    return 1.0 if word in _EVENT else 0.0 if word in _NO_EVENT else None


def _status_of(text: str) -> float | None:
    code = coded(text)
    number = key_of(text) if code is None else str(code[0])
    return float(number) if number in ("0", "1") else status_of_word(number)
