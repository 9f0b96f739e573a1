"""The container of a saved model: a folder or one ``.mmdls`` file of members that are checked one by one."""

import hashlib
import io
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from mmdls._files import partial_path, to_disk, whole_file

__all__ = ["SUMS", "checksums", "is_model", "read_members", "verify", "write_members"]

SUMS = "SHA256SUMS"
SUFFIX = ".mmdls"
# Nothing else may stand in a saved model, so that no name of a member ever leads out of it.
_MEMBER = re.compile(
    r"(manifest\.json|model\.json|README\.md|arrays\.safetensors|tensors\.safetensors|SHA256SUMS|parts/\d{3,6}\.skops)"
)


def checksums(members: Mapping[str, bytes]) -> bytes:
    """What ``sha256sum`` writes of all members but its own file, by name."""
    lines = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members) if name != SUMS]
    return "".join(lines).encode()


def write_members(path: str | PathLike, members: Mapping[str, bytes]) -> None:
    """Write members aside, and give them their name when all are written; what was there before survives a failure.

    Parameters
    ----------
    path : str or Path
        A name that ends in ``.mmdls`` makes one file, any other a folder.
    members : mapping of str to bytes

    Raises
    ------
    FileNotFoundError
        If the folder around it does not exist.
    FileExistsError
        If there is something else than a saved model.
    """
    place = Path(path)
    members = {**members, SUMS: checksums(members)}
    if place.suffix == SUFFIX:
        if place.is_dir():
            raise FileExistsError(f"{str(path)!r} is a folder; a name that ends in {SUFFIX} is written as one file.")
        with whole_file(place) as partial:
            partial.write_bytes(_zipped(members))
        return
    place = Path(os.path.realpath(place))
    if place.exists() and not (place.is_dir() and (is_model(place) or not any(place.iterdir()))):
        raise FileExistsError(f"{str(path)!r} exists and is no saved model; choose another name or remove it.")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r} cannot be written: there is no folder {str(place.parent)!r}.")
    partial, old = partial_path(place), partial_path(place.with_name(f"old-{place.name}"))
    try:
        for name, content in members.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
            to_disk(partial / name)
        if place.exists():
            os.replace(place, old)
        try:
            os.replace(partial, place)
        except OSError:
            if old.exists():
                os.replace(old, place)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def is_model(folder: Path) -> bool:
    """Whether a folder looks like a saved model."""
    return (folder / SUMS).is_file() and (folder / "manifest.json").is_file()


def read_members(path: str | PathLike) -> dict[str, bytes]:
    """All members of a saved model; nothing is unpacked.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it holds anything but plain members of known names, each once.
    """
    place = Path(path)
    if place.is_dir():
        return _read_folder(place)
    if not place.exists():
        raise FileNotFoundError(f"there is no saved model at {str(path)!r}.")
    return _read_file(place)


def verify(members: Mapping[str, bytes], path: str | PathLike) -> None:
    """Refuse members that are not those whose checksums were written with them.

    Raises
    ------
    ValueError
        With the names of the changed, missing or added members.
    """
    if SUMS not in members:
        raise ValueError(f"{str(path)!r} has no {SUMS}: it is no saved model, or a part of it is missing.")
    if members[SUMS] == checksums(members):
        return
    lines = members[SUMS].decode("utf-8", "replace").splitlines()
    said = dict(line.partition("  ")[::-2] for line in lines if "  " in line)
    found = {name: hashlib.sha256(content).hexdigest() for name, content in members.items() if name != SUMS}
    missing, added = sorted(said.keys() - found), sorted(found.keys() - said)
    changed = sorted(name for name in said.keys() & found if said[name] != found[name])
    what = [
        f"{word}: {', '.join(names)}"
        for word, names in zip(("missing", "added", "changed"), (missing, added, changed), strict=True)
        if names
    ]
    raise ValueError(
        f"{str(path)!r} is not what was saved ({'; '.join(what) or SUMS + ' is changed'}). It is damaged or was "
        "tampered with; get it again from where it comes from."
    )


def _read_folder(folder: Path) -> dict[str, bytes]:
    members = {}
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                name = Path(entry.path).relative_to(folder).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if name == "parts" and stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                    continue
                if not stat.S_ISREG(mode) or not _MEMBER.fullmatch(name):
                    raise ValueError(
                        f"{str(folder)!r} holds {name!r}, which is no member of a saved model (links and "
                        "further folders are none); remove it, if you know what it is."
                    )
                with open(entry.path, "rb", opener=_open_no_link) as file:
                    members[name] = file.read()
    return members


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _read_file(place: Path) -> dict[str, bytes]:
    data = place.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            for info in infos:
                if not _MEMBER.fullmatch(info.filename):
                    raise ValueError(f"{str(place)!r} holds {info.filename!r}, which is no member of a saved model.")
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{str(place)!r} holds {info.filename!r} compressed; a saved model is not.")
            if sum(info.file_size for info in infos) > len(data):
                raise ValueError(f"{str(place)!r} says that it holds more than its own size.")
            members = {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise ValueError(f"{str(place)!r} is no saved model, or is damaged: {error}.") from error
    # There is one way to write these members: whatever else is in the file (a member twice, a comment, links, data
    # before, between and behind) makes it another file.
    if _zipped(members) != data:
        raise ValueError(f"{str(place)!r} is not what was saved: it holds more than its members, or other headers.")
    return members


def _zipped(members: Mapping[str, bytes]) -> bytes:
    """The one archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()
