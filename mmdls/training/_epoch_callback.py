"""A callback for the networks trained in a block of code: it gets the validation score after every epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_epoch_callback", "epoch_callback"]

_CALLBACK: ContextVar[Callable[[int, float], None] | None] = ContextVar("epoch_callback", default=None)


@contextmanager
def epoch_callback(callback: Callable[[int, float], None] | None) -> Iterator[None]:
    """Call a function after every epoch of the networks that are trained inside this context.

    The score is the mean over tasks of their scores on the validation rows, such as ROC AUC and Harrell's C. Unlike a
    loss, it keeps its scale when losses and their weights are searched. An exception raised by the callback ends the
    training. The callback is not called for networks without validation rows, nor for those trained by several
    processes or in another thread.

    Parameters
    ----------
    callback : callable or None
        Takes the epoch, from 1, and the score; None calls nothing.

    Examples
    --------
    >>> from mmdls import MMDLS, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> epochs = []
    >>> with epoch_callback(lambda epoch, score: epochs.append(epoch)):
    ...     model = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    >>> epochs
    [1, 2]
    """
    token = _CALLBACK.set(callback)
    try:
        yield
    finally:
        _CALLBACK.reset(token)


def current_epoch_callback() -> Callable[[int, float], None] | None:
    """The callback of the surrounding :func:`epoch_callback`; None outside of one."""
    return _CALLBACK.get()
