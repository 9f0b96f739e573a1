"""Notes of metrics, each text once, with the metrics and models that it is about."""

import re
from collections.abc import Iterable

__all__ = ["grouped_notes"]

_RESAMPLES = re.compile(r"(?:^|; )undefined in (\d+) of (\d+) resamples")


def grouped_notes(notes: Iterable[tuple[str, str, str, str]], models: list[str]) -> list[str]:
    """One line a text.

    Parameters
    ----------
    notes : iterable of (model, metric, months, text)
    models : list of str
        All models; where a text is about all of them none is named.

    Examples
    --------
    >>> rows = [(model, "Brier score", months, "no weights") for model in ("a", "b") for months in ("12", "36")]
    >>> grouped_notes(rows, ["a", "b"])
    ['Brier score at 12 and 36 months: no weights.']
    """
    texts: dict[str, dict[tuple[str, str], list[str]]] = {}
    lost: dict[tuple[str, str], list[str]] = {}
    worst: tuple[int, int] = 0, 0
    for model, metric, months, text in notes:
        found = _RESAMPLES.search(text)
        if found:
            worst = max(worst, (int(found[1]), int(found[2])))
            lost.setdefault((metric, months), []).append(model)
        rest = _RESAMPLES.sub("", text).removeprefix("; ")
        if rest:
            texts.setdefault(rest, {}).setdefault((metric, months), []).append(model)
    lines = [f"{_where(about, models)}: {text}." for text, about in texts.items()]
    if lost:
        lines.append(f"{_where(lost, models)}: undefined in at most {worst[0]} of {worst[1]} resamples.")
    return lines


def _where(about: dict[tuple[str, str], list[str]], models: list[str]) -> str:
    """The metrics with their months, and the models if they are not all."""
    months: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (metric, month), own in about.items():
        months.setdefault((metric, tuple(own)), []).append(month)
    parts: dict[tuple[str, ...], list[str]] = {}
    for (metric, whose), at in months.items():
        known = [month for month in at if month]
        parts.setdefault(whose, []).append(f"{metric} at {_listed(known)} months" if known else metric)
    shown = [
        "; ".join(texts) + ("" if len(whose) == len(models) else f" ({', '.join(whose)})")
        for whose, texts in parts.items()
    ]
    return "; ".join(shown)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
