"""Threads: all of them for items such as slices, one for everything else.

The networks behind the items are small. Several threads wait for one another longer than they compute, a fit of tables
takes several times as long, and the last digits depend on their number.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

__all__ = ["in_threads", "one_thread", "threads_of_torch"]

Result = TypeVar("Result")


@contextmanager
def threads_of_torch(n_threads: int) -> Iterator[None]:
    """Compute with some number of threads in this thread, and with the former number afterwards.

    Torch gives the number to other threads too, if they start to compute meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, in torch and in linear algebra of numpy and scipy."""
    with threads_of_torch(1), threadpool_limits(1):
        yield


def in_threads(work: Callable[..., Result], each: Iterable[tuple[Any, ...]], n_workers: int) -> list[Result]:
    """Results of ``work(*arguments)`` for several arguments, side by side, each with one thread of torch.

    Parameters
    ----------
    work : callable
        It shares nothing with that for other arguments, draws no random numbers, whose order would depend on chance,
        and sets its own gradient mode.
    each : iterable of tuple
        Arguments.
    n_workers : int

    Returns
    -------
    list
        In the order of the arguments.
    """
    with ThreadPoolExecutor(n_workers, "mmdls", torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(copy_context().run, work, *arguments) for arguments in each]
        return [future.result() for future in futures]
