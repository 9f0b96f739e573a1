"""Files that are never seen half written."""

import glob
import hashlib
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "SEAL",
    "check_npy",
    "is_sealed",
    "new_folder",
    "partial_path",
    "process_exists",
    "seal",
    "to_disk",
    "unsealed",
    "whole_file",
]

SEAL = 32  # bytes of a hash
_UNFINISHED = ".unfinished-"


@contextmanager
def whole_file(path: str | PathLike) -> Iterator[Path]:
    """A path beside another one to write to; what was written takes the other's name at once, and only when whole.

    A full disk, an error or a killed process leaves the file that was there before as it was.

    Parameters
    ----------
    path : str or Path
        A link stays a link to the file that it points to.

    Yields
    ------
    Path
        In the same folder and with the same suffixes.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder) / "table.csv") as partial:
    ...         _ = partial.write_text("a,b")
    ...     [file.name for file in Path(folder).iterdir()]
    ['table.csv']
    """
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r} cannot be written: there is no folder {str(place.parent)!r}.")
    partial = partial_path(place)
    _remove_left(place.parent, place.name)
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, place)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """A hidden name beside a path that no other process takes, on this machine or another.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Path
    """
    return path.with_name(f"{_mark()}{os.getpid()}-{path.name}")


def new_folder(parent: Path) -> Path:
    """A hidden new folder to fill and rename; what processes of this machine have left when they died is removed.

    Parameters
    ----------
    parent : Path

    Returns
    -------
    Path
    """
    _remove_left(parent, "folder")
    return Path(tempfile.mkdtemp(prefix=f"{_mark()}{os.getpid()}-folder", dir=parent))


def _mark() -> str:
    return f"{_UNFINISHED}{socket.gethostname()}-"


def _remove_left(parent: Path, name: str) -> None:
    """Remove what processes of this machine have left under a name when they died."""
    for left in parent.glob(f"{glob.escape(_mark())}*-{glob.escape(name)}*"):
        number = left.name.removeprefix(_mark()).partition("-")[0]
        if number.isdecimal() and not process_exists(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def process_exists(pid: int) -> bool:
    """Whether a process of this machine is running.

    Parameters
    ----------
    pid : int
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def to_disk(path: Path) -> None:
    """See to it that a power cut does not leave a file with its name only.

    Parameters
    ----------
    path : Path
        A file.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def seal(path: Path) -> None:
    """Append a hash of a file's contents, by which :func:`is_sealed` knows that no bit of it has changed.

    numpy, also when it maps a file into memory, does not read what stands behind an array.

    Parameters
    ----------
    path : Path
    """
    with path.open("rb+") as file:
        digest = _digest(file, path.stat().st_size)
        file.write(digest)


def is_sealed(path: Path) -> bool:
    """Whether a file ends with the hash of the rest of it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
        About a second per gigabyte.
    """
    with path.open("rb") as file:
        size = path.stat().st_size - SEAL
        return size >= 0 and _digest(file, size) == file.read()


def unsealed(path: Path) -> bytes | None:
    """The contents of a sealed file without its hash; None if a bit of it has changed.

    Parameters
    ----------
    path : Path
    """
    return path.read_bytes()[:-SEAL] if is_sealed(path) else None


def check_npy(path: str | PathLike) -> None:
    """Refuse a ``.npy`` file with fewer or more bytes than its header states.

    numpy passes over what stands behind an array, and says of a file that was cut off neither size.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ValueError
        If the length differs, or there is no header.
    """
    import numpy.lib.format as npy  # here: the command line shows its help without numpy

    # The third version has names of fields, which no array of numbers has.
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with Path(path).open("rb") as file:
        version = npy.read_magic(file)
        if version not in headers:
            return
        shape, _, dtype = headers[version](file)
        expected, found = file.tell() + math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
    # Objects are pickled, in any number of bytes, and refused by those who read numbers.
    if found != expected and not dtype.hasobject:
        raise ValueError(f"expected {expected} bytes for shape {shape} and dtype {dtype}, found {found}")


def _digest(file: BinaryIO, size: int) -> bytes:
    """The hash of the first bytes of a file, which is read up to them."""
    digest = hashlib.blake2b(digest_size=SEAL)
    while size > 0 and (part := file.read(min(size, 2**20))):
        digest.update(part)
        size -= len(part)
    return digest.digest()
