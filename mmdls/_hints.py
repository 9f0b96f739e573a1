"""What a misspelt name may mean."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["did_you_mean"]


def did_you_mean(name: object, known: Iterable[Any], n: int = 1, cutoff: float = 0.6) -> str:
    """A question that names the closest known names, with a space before it; nothing if none is close.

    Parameters
    ----------
    name : object
    known : iterable
    n : int, default=1
        Names at most.
    cutoff : float, default=0.6
        Similarity that counts as close, from 0 to 1.

    Returns
    -------
    str

    Examples
    --------
    >>> did_you_mean("concta", ["concat", "gated"])
    " Did you mean 'concat'?"
    >>> did_you_mean("tiny", ["concat", "gated"])
    ''
    """
    close = get_close_matches(str(name), [*map(str, known)], n=n, cutoff=cutoff)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
