"""Cohorts as folders: a CSV of patients, arrays of features, and PNG slices by patient."""

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from mmdls.cohort import check_cohort

CLINICAL = ("age", "sex", "smoking_status", "smoking_duration", "smoking_cessation", "diameter")
PET_COLUMNS = ("pet_suvmax", "pet_suvmean", "pet_suvpeak", "pet_tlg", "pet_mtv")
OUTCOMES = ("dfs_time", "dfs_event", "os_time", "os_event")

_SUBTYPE_CODES = {"0": "LUAD", "1": "LUSC", "luad": "LUAD", "lusc": "LUSC"}
_STAGE_CODES = {"0": "I-II", "1": "III", "2": "IV", "i-ii": "I-II"} | {
    f"{number}{letter}{digit}": group
    for number, group in (("i", "I-II"), ("ii", "I-II"), ("iii", "III"), ("iv", "IV"))
    for letter in ("", "a", "b", "c")
    for digit in ("", "1", "2", "3")
    if letter or not digit
}
_TREATMENT_CODES = {"0": "immunotherapy", "1": "chemotherapy"} | {t: t for t in ("immunotherapy", "chemotherapy")}
_SLICE_FOLDERS = {
    "lesion": "lesion_image",
    "space": "lung_image",
    "ct": "ct_image",
    "lung_mask": "lung_mask",
    "lesion_mask": "lesion_mask",
}
_FLAT_FOLDERS = {"images": "ct_image", "lung_masks": "lung_mask", "lesion_masks": "lesion_mask"}


def load_cohort(folder: str | PathLike, *, return_X_y: bool = False) -> Bunch | tuple[pd.DataFrame, pd.DataFrame]:
    """Load a cohort from a folder in the published layout.

    ``clinical.csv`` has a row a patient: ``patient_id`` (or ``pid``), the clinical variables (``age``,
    ``sex``, ``smoking_status``, ``smoking_duration``, ``smoking_cessation``, ``diameter``, and any
    ``clinical_*``), ``centre``, ``treatment`` (0 immunotherapy, 1 chemotherapy), and the outcomes that are
    known: ``subtype`` (LUAD or 0, LUSC or 1), ``tnm_stage`` (a TNM stage such as IIIA, its group I-II, III or
    IV, or the group's code 0, 1, 2), ``dfs_time``, ``dfs_event``, ``os_time``, ``os_event`` (months).
    ``radiomics.npy`` (n, any) and ``pet.npy`` (n, 5), both optional, have their rows in the order of the CSV.

    The slices of a patient are PNG files in ``<patient>/lesion`` and ``<patient>/space`` (the lung around
    it), next to the CSV or below ``images``; ``ct``, ``lung_mask`` and ``lesion_mask`` are read as well. They
    are joined by the patient's id, may differ in number, and are opened only when a model asks for them: a
    cell holds the folder's path, or None for a patient without it. In the older layout, ``images``,
    ``lung_masks`` and ``lesion_masks`` hold files named ``<patient>_<slice>.png``; these are read at once, as
    arrays.

    Parameters
    ----------
    folder : path-like
    return_X_y : bool, default=False
        Return ``(data, target)`` only.

    Returns
    -------
    Bunch or (X, y)
        data : DataFrame
            ``clinical_*``, ``pet_*``, ``radiomics_*``, ``lesion_image``, ``lung_image``, ... as far as they
            are there.
        target : DataFrame
            ``subtype``, ``stage``, ``dfs_*``, ``os_*`` as far as they are there.
        groups : Series or None
            The column ``centre``.
        other : DataFrame
            Columns of the CSV that are neither: never features, since they may tell the outcome.
        DESCR : str

    Raises
    ------
    FileNotFoundError
        If the folder or its CSV is not there.
    ValueError, TypeError
        If ids repeat, rows do not match, labels are unknown, a folder of slices is empty, or outcomes are
        impossible; the message names the patients.

    See Also
    --------
    make_nsclc_cohort : Writes such a folder.

    Examples
    --------
    >>> from mmdls.datasets import load_cohort
    >>> X, y = load_cohort("cohort", return_X_y=True)  # doctest: +SKIP
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; give the one that holds clinical.csv.")
    table = _read_clinical(root / "clinical.csv")
    data, target, other = _sort_columns(table)
    for name, names in (("pet", PET_COLUMNS), ("radiomics", None)):
        block = _read_block(root / f"{name}.npy", table.index, names)
        if block is not None:
            given = [column for column in data if column.startswith(f"{name}_")]
            if given:
                raise ValueError(f"{name}.npy and clinical.csv both hold {name} features ({given[:3]}); keep one.")
            data = data.join(block)
    carried = [column for column in ("centre", "treatment") if column in data]
    images = _read_flat(root, data.index) if _is_flat(root) else _find_slices(root, data.index)
    data = pd.concat([data.drop(columns=carried), images, data[carried]], axis=1)
    check_cohort(data, target, fitting=False)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        groups=data.get("centre"),
        other=other,
        DESCR=f"{len(data)} patients, read from the folder {root.name!r}.",
    )


def write_cohort(folder: str | PathLike, data: pd.DataFrame, target: pd.DataFrame) -> None:
    """Write a cohort with images in memory in the published layout, for :func:`load_cohort`.

    Raises
    ------
    FileExistsError
        If the folder holds anything already.
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{str(root)!r} exists and is not empty; choose a new folder, nothing is overwritten.")
    image = _pillow()
    root.mkdir(parents=True, exist_ok=True)
    for part, column in _SLICE_FOLDERS.items():
        if column in data:
            for patient, bag in data[column].dropna().items():
                path = root / str(patient) / part
                path.mkdir(parents=True)
                for number, pixels in enumerate(bag, start=1):
                    pixels = pixels * np.uint8(255) if pixels.dtype == bool else pixels
                    image.fromarray(pixels).save(path / f"slice_{number:02d}.png", compress_level=1)
    for name in ("pet", "radiomics"):
        columns = [column for column in data if column.startswith(f"{name}_")]
        if columns:
            np.save(root / f"{name}.npy", data[columns].to_numpy(np.float64))
    carried = data.filter(regex="^(clinical_.*|centre|treatment)$").rename(
        columns=lambda c: c.removeprefix("clinical_")
    )
    carried["treatment"] = carried["treatment"].map({"immunotherapy": 0, "chemotherapy": 1})
    events = {column: target[column].astype(int) for column in OUTCOMES if column.endswith("_event")}
    outcomes = target.assign(**events).rename(columns={"stage": "tnm_stage"})
    carried.join(outcomes).to_csv(root / "clinical.csv", index_label="patient_id")


def _read_clinical(path: Path) -> pd.DataFrame:
    """The CSV, indexed by patient id as text."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path.name} in {str(path.parent)!r}; a cohort needs one row a patient in it."
        )
    names = ("patient_id", "pid")
    table = pd.read_csv(path, dtype=dict.fromkeys(names, "str"))
    name = next((name for name in names if name in table), None)
    if name is None:
        raise ValueError(f"{path.name} lacks the column 'patient_id' (or 'pid'). Columns: {list(table.columns)}.")
    if len(table) == 0:
        raise ValueError(f"{path.name} has no patients, only a header.")
    if table[name].isna().any():
        lines = [int(row) + 2 for row in np.flatnonzero(table[name].isna())[:5]]
        raise ValueError(f"{path.name} has rows without {name!r}, in lines {lines}; every patient needs an id.")
    repeated = table[name][table[name].duplicated()].unique().tolist()
    if repeated:
        raise ValueError(f"{path.name} has more than one row for the patients {repeated[:5]}; merge or drop them.")
    return table.set_index(name).rename_axis("patient_id")


def _sort_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Features and carried columns, outcomes, and the rest of the CSV."""
    table = table.rename(columns={name: f"clinical_{name}" for name in CLINICAL})
    table = table.rename(columns={"tnm_stage": "stage", "center": "centre"})
    repeated = table.columns[table.columns.duplicated()].tolist()
    if repeated:
        raise ValueError(f"clinical.csv gives {repeated} twice under different names; keep one column of each.")
    features = [c for c in table if c.startswith(("clinical_", "pet_", "radiomics_"))]
    data = table[features].copy()
    if "centre" in table:
        data["centre"] = table["centre"]
    if "treatment" in table:
        data["treatment"] = _decode(table["treatment"], _TREATMENT_CODES)
    target = pd.DataFrame(index=table.index)
    if "subtype" in table:
        target["subtype"] = pd.Categorical(_decode(table["subtype"], _SUBTYPE_CODES), ["LUAD", "LUSC"])
    if "stage" in table:
        stage = _decode(table["stage"], _STAGE_CODES)
        target["stage"] = pd.Categorical(stage, ["I-II", "III", "IV"], ordered=True)
    for column in OUTCOMES:
        if column in table:
            target[column] = table[column]
            if column.endswith("_event") and table[column].isin([0, 1]).all():
                target[column] = table[column].astype(bool)
    return data, target, table.drop(columns=[*data.columns, *target.columns])


def _decode(column: pd.Series, codes: Mapping[str, str]) -> pd.Series:
    """Labels for codes and spellings of them; unknown ones are refused, missing ones stay missing."""
    text = column.astype("str").str.strip().str.lower().str.removesuffix(".0")
    labels = text.map(codes)
    unknown = column.notna() & labels.isna()
    if unknown.any():
        raise ValueError(
            f"clinical.csv has unknown labels in {column.name!r}: {column[unknown].unique().tolist()[:5]}, "
            f"patients {column.index[unknown].tolist()[:5]}. Known are {list(codes)}; leave "
            "the cell empty if unknown."
        )
    return labels


def _read_block(path: Path, patients: pd.Index, names: tuple[str, ...] | None) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name} is no readable array of numbers: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise ValueError(
            f"{path.name} must be a table of numbers with a row a patient; got shape {values.shape} and "
            f"dtype {values.dtype}."
        )
    if len(values) != len(patients):
        raise ValueError(
            f"{path.name} has {len(values)} rows and clinical.csv has {len(patients)} patients; both need "
            "the same patients in the same order."
        )
    if names is None:
        names = tuple(f"{path.stem}_{k:03d}" for k in range(values.shape[1]))
    elif values.shape[1] != len(names):
        raise ValueError(f"{path.name} has {values.shape[1]} columns; expected {len(names)}: {', '.join(names)}.")
    return pd.DataFrame(values.astype(np.float64), index=patients, columns=list(names))


def _find_slices(root: Path, patients: pd.Index) -> pd.DataFrame:
    """Paths of the folders of slices, by patient and kind; nothing is opened."""
    home = root / "images" if (root / "images").is_dir() else root
    found = {path.name: path for path in sorted(home.iterdir()) if path.is_dir()}
    known = set(patients)
    strangers = [name for name, path in found.items() if name not in known and _parts(path)]
    if strangers:
        message = f"folders of slices without a row in clinical.csv: {strangers[:5]} ({len(strangers)} in all)"
        if not known & found.keys():
            raise ValueError(f"{message}, and no patient of clinical.csv has one; the ids must be the same.")
        warnings.warn(f"{message}; they are left out.", stacklevel=3)
    cells: dict[str, dict[str, str]] = {column: {} for column in _SLICE_FOLDERS.values()}
    for patient in sorted(known & found.keys()):
        parts = _parts(found[patient])
        if not parts:
            raise ValueError(
                f"patient {patient!r}: the folder {str(found[patient])!r} holds none of "
                f"{list(_SLICE_FOLDERS)}; slices belong into such a sub-folder."
            )
        for part in parts:
            path = found[patient] / part
            if not any(file.suffix.lower() == ".png" for file in path.iterdir()):
                raise ValueError(
                    f"patient {patient!r}: the folder {str(path)!r} holds no PNG slices; put them there, or "
                    "remove the folder if the patient has no such images."
                )
            cells[_SLICE_FOLDERS[part]][patient] = str(path)
    return _as_columns({column: paths for column, paths in cells.items() if paths}, patients)


def _parts(patient_folder: Path) -> list[str]:
    return [part for part in _SLICE_FOLDERS if (patient_folder / part).is_dir()]


def _is_flat(root: Path) -> bool:
    images = root / "images"
    return images.is_dir() and any(path.suffix.lower() == ".png" for path in images.iterdir())


def _read_flat(root: Path, patients: pd.Index) -> pd.DataFrame:
    """Slices of the older layout, as arrays (S, H, W) in the order of the file names, with their masks."""
    image = _pillow()
    names: dict[str, list[str]] = {}
    for path in sorted((root / "images").iterdir()):
        if path.suffix.lower() == ".png":
            names.setdefault(path.stem.rpartition("_")[0], []).append(path.name)
    named = sorted(names.keys() & set(patients))
    if not named:
        raise ValueError(
            f"images holds slices of {list(names)[:5]}, and none of a patient of clinical.csv; files are "
            "named <patient>_<slice>.png."
        )
    columns: dict[str, dict[str, np.ndarray]] = {}
    for part, column in _FLAT_FOLDERS.items():
        if (root / part).is_dir():
            columns[column] = {}
            for patient in named:
                lacking = [name for name in names[patient] if not (root / part / name).is_file()]
                if lacking:
                    raise ValueError(f"patient {patient!r}: {part} lacks {lacking[:5]}, which images holds.")
                slices = [np.asarray(image.open(root / part / name).convert("L")) for name in names[patient]]
                if len({pixels.shape for pixels in slices}) > 1:
                    raise ValueError(f"patient {patient!r}: the slices in {part} differ in size; resize them first.")
                columns[column][patient] = np.stack(slices) > 0 if column.endswith("_mask") else np.stack(slices)
    return _as_columns(columns, patients)


def _as_columns(cells: Mapping[str, Mapping[str, Any]], patients: pd.Index) -> pd.DataFrame:
    """Object columns with None where a patient has nothing."""
    columns = {}
    for column, by_patient in cells.items():
        columns[column] = pd.Series(index=patients, dtype=object)
        columns[column][:] = [by_patient.get(patient) for patient in patients]
    return pd.DataFrame(columns, index=patients)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('PNG slices need Pillow; install it with: pip install "mmdls[imaging]"') from error
    return Image
