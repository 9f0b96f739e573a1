"""How somebody outside looks into a training: a score of the patients held out, after every epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["watched", "watcher"]

_WATCHER: ContextVar[Callable[[int, float], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(callback: Callable[[int, float], None] | None) -> Iterator[None]:
    """Call back after every epoch of the networks that are trained in here, with the epoch, from 1, and the score.

    The score is the mean over tasks of ROC AUC and Harrell's C of the validation rows: whatever is searched, losses and
    their weights too, it has one scale. What the callback raises ends the training. Networks that hold nobody out, or
    are trained by several processes or in another thread, say nothing.

    Parameters
    ----------
    callback : callable
        Takes epoch and score; None watches nothing.

    Examples
    --------
    >>> from mmdls import MMDLS
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> epochs = []
    >>> with watched(lambda epoch, score: epochs.append(epoch)):
    ...     model = MMDLS(max_epochs=2, random_state=0).fit(X, y)
    >>> epochs
    [1, 2]
    """
    token = _WATCHER.set(callback)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def watcher() -> Callable[[int, float], None] | None:
    """Who is to be told, if somebody is."""
    return _WATCHER.get()
