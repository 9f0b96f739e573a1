"""Assignment of the slices in a cohort's folder to the patients."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mmdls.images import read_image, read_mask
from mmdls.images._files import SLICE_FOLDERS, folder_entries, natural_order, slice_files

__all__ = ["find_slices"]

_FLAT_FOLDERS = {"images": "ct_image", "lung_masks": "lung_mask", "lesion_masks": "lesion_mask"}


def find_slices(root: Path, patients: pd.Index) -> pd.DataFrame:
    """The slices of all patients.

    Parameters
    ----------
    root : Path
        The cohort's folder.
    patients : pandas.Index
        The names of their folders, text.

    Returns
    -------
    pandas.DataFrame
        A column for each kind of slices that is there; None where a patient has none. Paths of folders or NIfTI files,
        which are not opened, or arrays (S, H, W) of the older, flat layout.

    Raises
    ------
    ValueError
        If slices cannot be told apart, belong to no patient at all, or lack their masks.

    Warns
    -----
    UserWarning
        If some are left out.
    """
    is_flat = any(path.suffix.lower() == ".png" for part in _FLAT_FOLDERS for path in folder_entries(root / part))
    cells = _of_files(root, set(patients)) if is_flat else _of_folders(root, set(patients))
    columns = {
        column: pd.Series([found.get(patient) for patient in patients], index=patients, dtype=object)
        for column, found in cells.items()
    }
    return pd.DataFrame(columns, index=patients)


def _of_folders(root: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    """Paths of the folders of slices, by column and patient."""
    below, beside = _patient_folders(root / "images"), _patient_folders(root)
    both = sorted(known & below.keys())[:3], sorted(known & beside.keys())[:3]
    if all(both):
        raise ValueError(
            f"folders of slices lie both below 'images' ({both[0]}) and beside it ({both[1]}); put all in one place."
        )
    found = beside if both[1] or not (root / "images").is_dir() else below
    strangers = [name for name, path in found.items() if name not in known and _parts(path)]
    if strangers:
        message = f"folders of slices without a row in clinical.csv: {strangers[:5]} ({len(strangers)} in all)"
        if not known & found.keys():
            raise ValueError(f"{message}, and no patient of clinical.csv has one; the ids must be the same.")
        warnings.warn(f"{message}; they are left out.", stacklevel=4)
    cells: dict[str, dict[str, Any]] = {column: {} for column in SLICE_FOLDERS.values()}
    unused: list[str] = []
    for patient in sorted(known & found.keys()):
        parts = _parts(found[patient])
        if not parts:
            raise ValueError(
                f"patient {patient!r}: the folder {str(found[patient])!r} holds none of "
                f"{list(SLICE_FOLDERS)}; slices belong into such a sub-folder."
            )
        for part, path in parts.items():
            if path.is_file():
                cells[SLICE_FOLDERS[part]][patient] = str(path)
                continue
            if not any(file.suffix.lower() == ".png" for file in folder_entries(path)):
                raise ValueError(
                    f"patient {patient!r}: the folder {str(path)!r} holds no PNG slices; put them there, or "
                    "remove the folder if the patient has no such images."
                )
            slice_files(path, f"{str(path)!r} of patient {patient!r}")
            cells[SLICE_FOLDERS[part]][patient] = str(path)
        used = set(parts.values())
        unused += [f"{patient}/{path.name}" for path in folder_entries(found[patient]) if path not in used]
    if unused:
        warnings.warn(
            f"the folders of patients hold more than {list(SLICE_FOLDERS)}: {_brief(unused)}; the rest is left out.",
            stacklevel=4,
        )
    return {column: paths for column, paths in cells.items() if paths}


def _patient_folders(home: Path) -> dict[str, Path]:
    return {path.name: path for path in folder_entries(home) if path.is_dir()}


def _parts(patient_folder: Path) -> dict[str, Path]:
    """The folders of slices, or NIfTI files, of a patient, by the name of their kind; letter case does not count."""
    parts: dict[str, Path] = {}
    for path in folder_entries(patient_folder):
        name = path.name.lower()
        part = name if path.is_dir() else name.removesuffix(".gz").removesuffix(".nii")
        if path.is_file() and part == name:
            continue
        if part in parts:
            raise ValueError(f"{str(parts[part])!r} and {path.name!r} are both {part!r} of a patient; keep one.")
        if part in SLICE_FOLDERS:
            parts[part] = path
    return {part: parts[part] for part in SLICE_FOLDERS if part in parts}


def _of_files(root: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    """Slices of the older layout, as arrays (S, H, W), by column and patient."""
    files = {
        part: _by_patient(slice_files(root / part, repr(part)), known)
        for part in _FLAT_FOLDERS
        if (root / part).is_dir()
    }
    images = files.get("images", {})
    named = sorted(known & images.keys())
    if not named:
        raise ValueError(
            f"images holds slices of {list(images)[:5]}, and none of a patient of clinical.csv; files are "
            "named <patient>_<slice>.png."
        )
    strangers = sorted({path.name for found in files.values() for name in found.keys() - known for path in found[name]})
    if strangers:
        warnings.warn(f"slices of no patient in clinical.csv: {_brief(strangers)}; they are left out.", stacklevel=4)
    cells: dict[str, dict[str, Any]] = {_FLAT_FOLDERS[part]: {} for part in files}
    for patient in sorted(known & set().union(*files.values())):
        order = natural_order(images.get(patient, []), f"'images' of patient {patient!r}")
        for part, found in files.items():
            own = {path.name for path in found.get(patient, [])}
            for one, other, lacking in (
                (part, "images", {path.name for path in order} - own),
                ("images", part, own - {path.name for path in order}),
            ):
                if lacking:
                    raise ValueError(f"patient {patient!r}: {one} lacks {sorted(lacking)[:5]}, which {other} holds.")
        image = read_image(order, patient)
        for part in files:
            column, paths = _FLAT_FOLDERS[part], [root / part / path.name for path in order]
            if column.endswith("_mask"):
                cells[column][patient] = read_mask(paths, patient, image.shape, image=order, allow_empty=True)
            else:
                cells[column][patient] = image
    return cells


def _by_patient(files: Iterable[Path], known: set[str]) -> dict[str, list[Path]]:
    """Files ``<patient>_<slice>.png``; the slice may be written ``slice_<number>``, as in folders of patients."""
    found: dict[str, list[Path]] = {}
    for path in files:
        patient = path.stem.rpartition("_")[0]
        if patient not in known and patient.endswith("_slice"):
            patient = patient.removesuffix("_slice")
        found.setdefault(patient, []).append(path)
    return found


def _brief(names: list[str]) -> str:
    return f"{names[:5]}" + (f" ({len(names)} in all)" if len(names) > 5 else "")
