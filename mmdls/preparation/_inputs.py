"""Whether the files of a patient are those that were prepared."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdls.images._files import folder_entries

__all__ = ["describe", "same_inputs"]


def describe(path: str) -> dict[str, Any]:
    """Content and state of a file, or of the files of a folder.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict
        ``n_files``, ``n_bytes``, ``sha256`` of the contents in the order of the names, and ``stamp``, which changes
        with names, sizes, times and other files in their place. No name is in it.
    """
    content, n_bytes, n_files = hashlib.sha256(), 0, 0
    stamp = _stamp(path)
    for file in _files(path):
        with file.open("rb") as stream:
            content.update(hashlib.file_digest(stream, "sha256").digest())
            n_bytes += stream.tell()
        n_files += 1
    return {"n_files": n_files, "n_bytes": n_bytes, "sha256": content.hexdigest(), "stamp": stamp}


def same_inputs(paths: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether files are those that were described; contents are read only where names, sizes or times have changed.

    Parameters
    ----------
    paths : mapping of str to str
    known : mapping of str to dict
        As :func:`describe` gave them.

    Returns
    -------
    bool
    """
    return paths.keys() == known.keys() and all(
        _stamp(path) == known[scan]["stamp"] or describe(path)["sha256"] == known[scan]["sha256"]
        for scan, path in paths.items()
    )


def _stamp(path: str) -> str:
    # The last one tells files apart that copies or archives gave the same times.
    states = [(file.name, (state := file.stat()).st_size, state.st_mtime_ns, state.st_ino) for file in _files(path)]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _files(path: str) -> Iterator[Path]:
    place = Path(path)
    if place.is_file():
        yield place
    yield from (entry for entry in folder_entries(place) if entry.is_file())
