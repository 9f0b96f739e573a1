"""Warnings of metrics, which evaluation collects as notes of its tables.

``warnings.catch_warnings`` is not thread-safe: notes of one table would end up in the table of another thread.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["collected_warnings", "warn"]

_COLLECTOR: ContextVar[list[Warning] | None] = ContextVar("mmdls_collected_warnings", default=None)


def warn(message: str, category: type[Warning] = UserWarning, *, stacklevel: int = 2) -> None:
    """Warn as :func:`warnings.warn` does, or add the warning to those of :func:`collected_warnings`.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    stacklevel : int, default=2
        As in :func:`warnings.warn`, counted from the caller.
    """
    collector = _COLLECTOR.get()
    if collector is None:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    else:
        collector.append(category(message))


@contextmanager
def collected_warnings() -> Iterator[list[Warning]]:
    """Collect the warnings of metrics computed inside the block, in this thread only.

    Yields
    ------
    list of Warning

    Examples
    --------
    >>> with collected_warnings() as found:
    ...     warn("no events.")
    >>> [str(w) for w in found]
    ['no events.']
    """
    collector: list[Warning] = []
    token = _COLLECTOR.set(collector)
    try:
        yield collector
    finally:
        _COLLECTOR.reset(token)
