"""The storage of a study: a file, a database, a proxy, or memory."""

import json
import logging
import os
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import util
from os import PathLike, fspath
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file

from mmdls._secrets import without_secrets

_QUIET = threading.RLock()


class StorageURL(str):
    """The URL of a storage; printing it hides the password, ``plain`` is the full text."""

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        return without_secrets(self.plain)

    def __format__(self, form: str) -> str:
        return format(str(self), form)

    @property
    def plain(self) -> str:
        """The URL as it was given."""
        return str.__str__(self)


class Storage:
    """Descriptor of a parameter that may contain a password: a text is stored as :class:`StorageURL`."""

    def __get__(self, owner: Any, cls: Any = None) -> Any:
        if owner is None:
            return self
        return owner.__dict__["storage"]

    def __set__(self, owner: Any, value: Any) -> None:
        plain = isinstance(value, str) and not isinstance(value, StorageURL)
        owner.__dict__["storage"] = StorageURL(value) if plain else value


def opened(storage: Any) -> Any:
    """Open Optuna's storage for a path, a URL or a storage; None is memory.

    Raises
    ------
    ValueError
        If it is an empty text.
    ConnectionError
        If a storage cannot be opened and the driver's message contains a password, which is left out.
    """
    if storage == "":
        raise ValueError("storage='' names no file; give a path, a URL, a storage of optuna, or None for memory.")
    if isinstance(storage, PathLike) or (isinstance(storage, str) and "://" not in storage):
        return optuna.storages.JournalStorage(_Journal(fspath(storage)))
    if not isinstance(storage, str):
        return optuna.storages.get_storage(storage)
    url = StorageURL(storage)
    if storage.startswith("grpc://"):
        return _proxy(url)
    try:
        return optuna.storages.get_storage(url.plain)
    except Exception as error:
        if without_secrets(str(error)) == str(error):
            raise
        raise ConnectionError(f"storage={url!r} cannot be opened: {without_secrets(str(error))}") from None


class _Journal(JournalFileBackend):
    """A journal file that forgets the half line of a writer that died, and names itself where it is damaged."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:  # of JSON and of texts, too
            number = _damaged_line(self._file_path)
            raise ValueError(
                f"the journal {self._file_path!r} is damaged in line {number}. Stop the processes that use it and keep "
                f"the {number - 1} lines before, as with head -n {number - 1}: the search goes on from there. Or give "
                "storage= another path, to start anew."
            ) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if _half_line(self._file_path):
            # Who holds the lock writes whole lines; a half one is of a writer that died.
            with get_lock_file(self._lock), open(self._file_path, "rb+") as file:
                if half := _half_line(self._file_path):
                    file.truncate(os.path.getsize(self._file_path) - half)
        super().append_logs(logs)


def _half_line(path: str) -> int:
    """How many bytes stand behind the last end of a line."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(size - 1, 0))
        if file.read(1) in (b"\n", b""):
            return 0
        file.seek(0)
        return size - (file.read(size).rfind(b"\n") + 1)


def _damaged_line(path: str) -> int:
    """The number of the first line that is no JSON, from 1."""
    number = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                json.loads(line)
            except ValueError:
                return number
    return number


@contextmanager
def quiet(verbose: int) -> Iterator[None]:
    """Silence Optuna's log lines about studies, unless ``verbose`` is 2 or more."""
    logger = logging.getLogger("optuna")
    with _QUIET:  # another thread must not take the raised level for the one to restore
        level = logger.level
        if verbose < 2:
            logger.setLevel(max(level, logging.WARNING))
        try:
            yield
        finally:
            logger.setLevel(level)


def _proxy(address: StorageURL) -> Any:
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"storage={address!r} is not a proxy's address; expected 'grpc://host:port'.")
    if not util.find_spec("grpc"):
        raise ImportError(f'storage={address!r} needs grpcio: pip install "mmdls[scale]".')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
