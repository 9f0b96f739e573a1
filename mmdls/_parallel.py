"""Work that joblib gives to several processes."""

from collections.abc import Iterator
from contextlib import contextmanager

from joblib.externals.loky.process_executor import TerminatedWorkerError

__all__ = ["workers_may_die"]


@contextmanager
def workers_may_die(kept: str) -> Iterator[None]:
    """Say what to do if a worker process is ended from outside while the block waits for it.

    Parameters
    ----------
    kept : str
        A sentence about what is finished.

    Raises
    ------
    RuntimeError
        In place of joblib's error.
    """
    try:
        yield
    except TerminatedWorkerError as error:
        raise RuntimeError(
            f"a worker process was ended from outside, which mostly means that memory was short. {kept} Run the same "
            "again with a smaller n_jobs; n_jobs=1 needs the least memory."
        ) from error
