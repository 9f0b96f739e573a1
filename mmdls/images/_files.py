"""The files that a cell of a table names: their paths, their formats, and the order of slices."""

import os
import re
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

__all__ = [
    "KINDS",
    "NOTES",
    "SLICE_FOLDERS",
    "check_places",
    "find_image",
    "folder_entries",
    "natural_order",
    "of_patient",
    "slice_files",
]

KINDS = {".png": "png", ".npy": "npy", ".nii": "nifti", ".gz": "nifti"}
# Files that systems and exporters leave beside slices. Any other file may be a slice, so it is never skipped silently.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
NOTES = {".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml", ".log"}
# Of a cohort's folder: what the files or folders of a patient hold, by their names.
SLICE_FOLDERS = {
    "lesion": "lesion_image",
    "space": "lung_image",
    "ct": "ct_image",
    "lung_mask": "lung_mask",
    "lesion_mask": "lesion_mask",
}


def of_patient(patient: Any) -> str:
    """`` of patient ...`` for messages; empty without an id."""
    return "" if patient is None else f" of patient {patient!r}"


def check_places(cells: Iterable[Any], patients: Iterable[Any], what: str = "image") -> None:
    """Refuse several paths that lead nowhere at once, since reading stops at the first one.

    Parameters
    ----------
    cells : iterable of object
        Those that are no paths are left to who reads them, and so is a single path that leads nowhere.
    patients : iterable of object
        Their ids.
    what : str, default="image"
        For the message.

    Raises
    ------
    FileNotFoundError
        With their number and the first three.
    """
    named = [(fspath(cell), one) for cell, one in zip(cells, patients, strict=True) if isinstance(cell, str | PathLike)]
    gone = [f"{path!r}{of_patient(one)}" for path, one in named if path.strip() and not os.path.exists(path)]
    if len(gone) > 1:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        raise FileNotFoundError(
            f"no {what} at {len(gone)} of {len(named)} paths: {', '.join(gone[:3])}{more}; correct the paths, or use "
            f"None for a missing {what}."
        )


def find_image(cell: str | PathLike, patient: Any = None) -> tuple[Path, str, str]:
    """The path of an image, its kind, and its name for messages.

    Parameters
    ----------
    cell : path-like
    patient : default=None
        Id for messages.

    Returns
    -------
    path : Path
    kind : {"folder", "png", "npy", "nifti"}
    source : str

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If the path is empty, or the file of an unknown kind.
    """
    text = fspath(cell)
    if text.strip() in ("", "."):
        raise ValueError(
            f"the path of an image{of_patient(patient)} is empty, which would be the working folder; give the path, or "
            "use None for a missing image."
        )
    path = Path(text)
    source = f"{text!r}{of_patient(patient)}"
    if not path.exists():
        raise FileNotFoundError(f"no image at {source}; correct the path, or use None for a missing image.")
    kind = "folder" if path.is_dir() else KINDS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{source} is no image that can be read: expected a folder of PNG slices, a .npy, .nii or .nii.gz file "
            f"or an array of shape (S, H, W), got {path.suffix or 'a file without suffix'!r}."
        )
    return path, kind, source


def slice_files(folder: Path, source: str, suffixes: Sequence[str] = (".png",)) -> list[Path]:
    """The PNG slices of a folder in natural order; hidden files and notes beside them are ignored.

    Parameters
    ----------
    folder : Path
    source : str
        Its name for messages.
    suffixes : sequence of str, default=(".png",)
        Of slices, in lower case.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        If there is no slice, or anything else that may belong to the image: a sub-folder, a slice in another format,
        two slices with the same number.
    """
    entries = folder_entries(folder)
    files = [path for path in entries if path.suffix.lower() in suffixes and path.is_file()]
    if not files:
        raise ValueError(
            f"the folder {source} has no PNG slice; it holds {[path.name for path in entries[:3]] or 'nothing'}. Name "
            "the folder with the slices of one image, or use None for a missing image."
        )
    strange = [path for path in entries if path.is_dir() or path.suffix.lower() not in (*suffixes, *NOTES)]
    others = [path.name for path in strange]
    if others:
        raise ValueError(
            f"the folder {source} holds {others[:5]} beside its {len(files)} PNG slices; one folder has the slices of "
            "one image, all as PNG. Convert or remove the rest."
        )
    return natural_order(files, source)


def natural_order(files: Sequence[Path], source: str) -> list[Path]:
    """Files sorted by their names, numbers in them by value: ``slice_2`` before ``slice_10``.

    Parameters
    ----------
    files : sequence of Path
    source : str
        Their name for messages.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        If two names differ in leading zeros or letter case only, or numbers have signs or decimals that order them
        otherwise, which leaves their order open. A hyphen after letters, as in ``slice-2``, is a sign only where other
        names have none or a plus in its place; one that begins all names, as in ``-2``, is a sign.
    """
    places: dict[tuple, Path] = {}
    for file in files:
        key = _natural_key(file.name)
        if key in places:
            raise ValueError(
                f"{places[key].name!r} and {file.name!r} in {source} have the same place in the order of slices; "
                "rename or remove one."
            )
        places[key] = file
    order = [places[key] for key in sorted(places)]
    texts = {key[::2] for key in places}
    decimals = [_DECIMAL.search(file.name) for file in order]
    values = [float(found[0]) for found in decimals if found]
    signed = [float(file.stem) for file in order if _SIGNED.fullmatch(file.stem)]
    if (
        len({tuple(text.rstrip("+-") for text in one) for one in texts}) < len(texts)
        or (len(signed) == len(order) and signed != sorted(signed))
        # With one number before all points, as of a series, the other one counts.
        or (len(values) == len(order) and len({int(value) for value in values}) > 1 and values != sorted(values))
    ):
        raise ValueError(
            f"names in {source}, such as {order[0].name!r} and {order[-1].name!r}, have signs or decimals, by which "
            "their order would be another; number the slices 1, 2, 3 and so on."
        )
    return order


def folder_entries(folder: Path) -> list[Path]:
    """The entries of a folder by name, without hidden files and those of operating systems; empty if it is no folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Path
    """
    if not folder.is_dir():
        return []
    names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in names if path.name.lower() not in _SYSTEM_FILES]


# Two numbers with a point between them, and not more, as in UIDs.
_DECIMAL = re.compile(r"(?<![\d.])\d+\.\d+(?!\d|\.\d)")

_SIGNED = re.compile(r"[+-]\d+(\.\d+)?")


def _natural_key(name: str) -> tuple:
    # With one group in the pattern, texts and numbers alternate, so that values of one type are compared.
    return tuple(int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", name)))
