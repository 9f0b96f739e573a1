"""The status of an endpoint in any coding as 1 (event) or 0 (censored)."""

import re
from collections import Counter

import numpy as np

from mmdls.cohort._columns import Column, is_unknown_word, key_of

__all__ = ["read_status"]

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
_CODED = re.compile(r"([01])\s*[:=]\s*(.*)")


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
        wrong = {key: m for key, m in column.codes.items() if m is not None and m not in (0, 1)}
        if wrong:
            raise ValueError(
                f"codes[{column.name!r}] must give 1 (event), 0 (censored) or None (unknown) for each value; got "
                f"{wrong}."
            )
        return np.array([np.nan if meaning is None else float(meaning) for meaning in column.recoded()])
    meanings: dict[str, float | None] = {text: _status_of(text) for text in set(column.texts[column.known])}
    keys = {key_of(text) for text in meanings}
    contrary = sorted(text for text in meanings if _contradicts_itself(text))
    example = ", ".join(f"{text!r}: ..." for text in (contrary or sorted(meanings))[:3])
    hint = f"Give the meaning of every value: codes={{{column.name!r}: {{{example}}}}}, with 1 (event) or 0 (censored)"
    if contrary:
        raise ValueError(
            f"the codes and the words of status column {column.name!r} contradict each other: {contrary}. {hint}."
        )
    codes = keys & {"0", "1", "true", "false", "yes", "no", "y", "n"}
    name = _ABSENCE.sub("free", column.name.lower())
    if codes and _OPPOSITE.search(name) and not re.search(r"event|dead|death", name):
        raise ValueError(
            f"column {column.name!r} holds {sorted(codes)}, and 1 may mean that no event was seen. {hint}."
        )
    if keys == {"1"} and not _NAMES_EVENT.search(name):
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
    values = np.array([np.nan if text is None or text in strange else meanings[text] for text in column.texts], float)
    counts = Counter((text, meanings[text]) for text in column.texts if text is not None and text not in strange)
    if any(key_of(text) not in ("0", "1") for text, _ in counts):
        shown = [f"{text!r} -> {meaning:.0f} ({n})" for (text, meaning), n in sorted(counts.items())]
        column.note("recoded: " + ", ".join(shown))
    return values


def _status_of(text: str) -> float | None:
    word = key_of(text)
    coded = _CODED.fullmatch(word)
    if coded:
        return float(coded[1])
    if word in ("0", "1"):
        return float(word)
    return _status_of_word(word)


def _contradicts_itself(text: str) -> bool:
    """Whether a code and its word mean different things, as in "1:LIVING"."""
    coded = _CODED.fullmatch(key_of(text))
    return coded is not None and _status_of_word(coded[2]) not in (None, float(coded[1]))


def _status_of_word(word: str) -> float | None:
    return 1.0 if word in _EVENT else 0.0 if word in _NO_EVENT else None
