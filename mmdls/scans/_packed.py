"""Compressed voxels are whole: their checksum stands at the end, which the libraries that read them do not reach."""

import zlib
from pathlib import Path

from mmdls.scans._headers import Refusal
from mmdls.scans._resampling import MOST_VOXELS

__all__ = ["GZIP", "ZLIB", "check_packed"]

# How zlib tells the two containers apart.
GZIP, ZLIB = 31, 15
_BLOCK = 2**20


def check_packed(path: Path, kind: int, start: int = 0) -> int:
    """Refuse a file whose compressed part is cut off, was changed, or unpacks to more than a scan can hold.

    Parameters
    ----------
    path : Path
    kind : int
        GZIP or ZLIB.
    start : int, default=0
        Where the compressed part begins.

    Returns
    -------
    int
        The bytes that it unpacks to.
    """
    size, unpacker = 0, zlib.decompressobj(kind)
    try:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(_BLOCK):
                while block and not unpacker.eof:
                    size += len(unpacker.decompress(block, _BLOCK))
                    block = unpacker.unconsumed_tail
                    if size > 8 * MOST_VOXELS:
                        raise Refusal("unpacks to more than can be read")
                    if unpacker.eof and kind == GZIP and unpacker.unused_data.startswith(b"\x1f\x8b"):
                        # A file may be made of several parts.
                        block, unpacker = unpacker.unused_data, zlib.decompressobj(kind)
    except zlib.error:
        raise Refusal("is damaged: its compressed voxels do not fit their checksum; replace it") from None
    if not unpacker.eof:
        raise Refusal("is cut off: its compressed voxels have no end; replace it")
    return size
