"""Cohorts as folders: a CSV of patients, arrays of features, and PNG slices by patient."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from mmdls._files import check_npy
from mmdls._secrets import with_formulas
from mmdls.cohort import Cohort, check_cohort, read_cohort
from mmdls.cohort._files import RawTable, read_ids, read_table
from mmdls.datasets._slices import find_slices
from mmdls.images._files import SLICE_FOLDERS
from mmdls.images._png import pillow

CLINICAL = ("age", "sex", "smoking_status", "smoking_duration", "smoking_cessation", "diameter")
PET_COLUMNS = ("pet_suvmax", "pet_suvmean", "pet_suvpeak", "pet_tlg", "pet_mtv")
OUTCOMES = ("dfs_time", "dfs_event", "os_time", "os_event")

_SUBTYPES = ("LUAD", "LUSC")
_STAGES = ("I-II", "III", "IV")
_TREATMENTS = ("immunotherapy", "chemotherapy")


def load_cohort(
    folder: str | PathLike,
    *,
    codes: Mapping[str, Mapping[Any, Any]] | None = None,
    ordered: Mapping[str, Sequence[Any]] | Sequence[str] | str = (),
    relapse_after_death: str = "refuse",
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, pd.DataFrame]:
    """Load a cohort from a folder in the published layout.

    ``clinical.csv`` has a row a patient: ``patient_id`` (or ``pid``), the clinical variables (``age``,
    ``sex``, ``smoking_status``, ``smoking_duration``, ``smoking_cessation``, ``diameter``, and any
    ``clinical_*``), ``centre``, ``treatment`` (0 immunotherapy, 1 chemotherapy), and the outcomes that are
    known: ``subtype`` (LUAD or 0, LUSC or 1), ``tnm_stage`` (a TNM stage such as IIIA, or its group I-II, III or
    IV), endpoints of any name, ``<name>_time`` (months) with ``<name>_event``, or ``<name>_months`` with
    ``<name>_status``, competing risks, ``<name>_time`` with ``<name>_cause``, and numbers, ``<name>_value``.
    Names count without regard to case and outer spaces; columns that are left over are named in a warning.
    :func:`mmdls.cohort.read_cohort` reads the CSV. An apostrophe before ``=``, ``+``, ``-`` or ``@``, as
    :func:`mmdls.prepare_cohort` writes it so that no spreadsheet takes a text for a formula, is no part of the text.
    ``radiomics.npy`` (n, any) and ``pet.npy`` (n, 5), both optional, have their rows in the order of the CSV;
    ``radiomics.csv`` and ``pet.csv`` instead have a column ``patient_id`` and names.

    The slices of a patient are PNG files in ``<patient>/lesion`` and ``<patient>/space`` (the lung around
    it), next to the CSV or below ``images``, or NIfTI files ``<patient>/lesion.nii.gz`` in HU; ``ct``, ``lung_mask``
    and ``lesion_mask`` are read as well. They
    are joined by the patient's id (or the column ``image_folder``), may differ in number, and are opened only when a
    model asks for them: a cell holds the path, or None for a patient without it. In the older layout, ``images``,
    ``lung_masks`` and ``lesion_masks`` hold files named ``<patient>_<slice>.png``; these are read at once, as
    arrays.

    Parameters
    ----------
    folder : path-like
    codes : mapping of str to mapping, default=None
        The meaning of codes in a column. Stages as bare digits need it: they may be stages or groups, and
        ``{"tnm_stage": {0: "I-II", 1: "III", 2: "IV"}}`` reads those of the published cohort.
    ordered : mapping of str to sequence, sequence of str or str, default=()
        Clinical variables whose categories have an order, ``{"clinical_t": ["T1", "T2", "T3", "T4"]}``; see
        :func:`mmdls.cohort.read_cohort`.
    relapse_after_death : {"refuse", "truncate", "unknown"}, default="refuse"
        What to do where disease-free survival ends after overall survival; see
        :func:`mmdls.cohort.reconcile_endpoints`.
    return_X_y : bool, default=False
        Return ``(data, target)`` only.

    Returns
    -------
    Bunch or (X, y)
        data : DataFrame
            ``clinical_*``, ``pet_*``, ``radiomics_*``, ``lesion_image``, ``lung_image``, ... as far as they
            are there.
        target : DataFrame
            ``subtype``, ``stage``, endpoints, competing risks and numbers, as far as they are there.
        groups : Series or None
            The column ``centre``.
        other : DataFrame
            Columns of the CSV that are neither; never features, since they may depend on the outcome.
        report : DataFrame
            How every column of the CSV was used.
        DESCR : str
            What the tables hold.

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
    mmdls.prepare_cohort : Makes one of scans.

    Examples
    --------
    >>> from mmdls.datasets import load_cohort
    >>> X, y = load_cohort("cohort", return_X_y=True)  # doctest: +SKIP
    """
    root = Path(folder)
    if not str(folder) or not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; give the one that holds clinical.csv.")
    cohort, folders = _read_clinical(root / "clinical.csv", codes or {}, ordered, relapse_after_death)
    data, target = (table.rename_axis("patient_id") for table in cohort)
    for name, names in (("pet", PET_COLUMNS), ("radiomics", None)):
        blocks = {
            f"{name}.npy": _read_block(root / f"{name}.npy", data.index, names),
            f"{name}.csv": _read_named_block(root / f"{name}.csv", data.index),
            "clinical.csv": data[[column for column in data if column.startswith(f"{name}_")]],
        }
        held = {file: block for file, block in blocks.items() if block is not None and len(block.columns)}
        if len(held) > 1:
            raise ValueError(f"{' and '.join(held)} both hold {name} features; keep one.")
        if "clinical.csv" not in held:
            data = data.join(list(held.values()))
    carried = [column for column in ("centre", "treatment") if column in data]
    images = find_slices(root, folders).set_axis(data.index, axis=0)
    data = pd.concat([data.drop(columns=carried), images, data[carried]], axis=1)
    check_cohort(data, target, fitting=False)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        groups=data.get("centre"),
        other=cohort.unused.rename_axis("patient_id"),
        report=cohort.report,
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
    image = pillow()
    root.mkdir(parents=True, exist_ok=True)
    for part, column in SLICE_FOLDERS.items():
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


def _read_clinical(
    path: Path, codes: Mapping[str, Mapping[Any, Any]], ordered: Any, relapse_after_death: str
) -> tuple[Cohort, pd.Index]:
    """The CSV, indexed by patient id as text; its columns are those of the published layout, in any case.

    Beside it, the names of the patients' folders of slices, which are their ids unless a column says otherwise.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path.name} in {str(path.parent)!r}; a cohort needs one row a patient in it."
        )
    table = _read_csv(path)
    folders = table.frame.get("image_folder")
    table = replace(table, frame=table.frame.drop(columns="image_folder", errors="ignore"))
    names = {str(name).casefold(): name for name in table.frame.columns}
    if not names.keys() & {"patient_id", "pid"}:
        raise ValueError(f"{path.name} lacks the column 'patient_id' (or 'pid'). Columns: {list(names.values())}.")
    for name, other in (("stage", "tnm_stage"), ("centre", "center")):
        if {name, other} <= names.keys():
            raise ValueError(f"{path.name} gives {[name]} twice under different names; keep one column of each.")
    for endpoint in ("dfs", "os"):
        halves = [f"{endpoint}_{half}" for half in ("time", "event", "cause") if f"{endpoint}_{half}" in names]
        if len(halves) == 1:
            raise ValueError(
                f"{path.name} has {halves[0]!r} alone; an endpoint is the pair of its time and its event or cause."
            )
    known: dict[str, dict[Any, Any]] = {
        "subtype": {0: "LUAD", 1: "LUSC"} | {name: name for name in _SUBTYPES},
        "treatment": dict(enumerate(_TREATMENTS)) | {name: name for name in _TREATMENTS},
    }
    meanings: dict[str, Mapping[Any, Any]] = {names[name]: known[name] for name in known if name in names}
    for name, given in codes.items():
        column = names.get(name.casefold(), name)
        meanings[column] = {**meanings.get(column, {}), **given}
    clinical = [name for name in CLINICAL if name in names]
    if any(name.startswith("clinical_") for name in names):
        clinical.append("clinical_*")
    stage = next((name for name in ("tnm_stage", "stage") if name in names), None)
    centre = next((name for name in ("centre", "center") if name in names), None)
    carried = {"centre": centre, "treatment": "treatment" if "treatment" in names else None}
    cohort = read_cohort(
        table,
        id="patient_id" if "patient_id" in names else "pid",
        blocks={"clinical": clinical},
        classes={"subtype": ("subtype", _SUBTYPES)} if "subtype" in names else None,
        ordinal={"stage": (stage, _STAGES)} if stage else None,
        groups=centre,
        carry={name: column for name, column in carried.items() if column},
        codes=meanings,
        ordered=ordered,
        relapse_after_death=relapse_after_death,
    )
    left = list(cohort.unused)
    if left:
        warnings.warn(
            f"{path.name}: the columns {left[:10]} ({len(left)} in all) are neither features nor outcomes here "
            "and are left out; they stand in 'other' of the result. mmdls.cohort.read_cohort reads any column.",
            stacklevel=3,
        )
    return cohort, cohort.X.index if folders is None else pd.Index(folders)


def _read_csv(path: Path) -> RawTable:
    """A table of a folder, with its texts as they were before an apostrophe kept them from being formulas."""
    table = read_table(path)
    return replace(table, frame=with_formulas(table.frame))


def _read_block(path: Path, patients: pd.Index, names: tuple[str, ...] | None) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        check_npy(path)
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


def _read_named_block(path: Path, patients: pd.Index) -> pd.DataFrame | None:
    """A table of numbers with the patients' ids, in the order of the patients."""
    if not path.exists():
        return None
    table = _read_csv(path)
    if "patient_id" not in table.frame.columns:
        raise ValueError(f"{path.name} lacks the column 'patient_id'. Columns: {list(table.frame.columns)[:10]}.")
    block = table.frame.drop(columns="patient_id").set_axis(read_ids(table.frame["patient_id"], table, "patient_id"))
    strangers, lacking = block.index.difference(patients).tolist(), patients.difference(block.index).tolist()
    if strangers or lacking:
        raise ValueError(
            f"{path.name} and clinical.csv need the same patients; it lacks {lacking[:5]}, and only it has "
            f"{strangers[:5]}."
        )
    strange = [name for name in block if not str(name).startswith(f"{path.stem}_")]
    if strange:
        raise ValueError(f"the columns of {path.name} are called '{path.stem}_...'; rename {strange[:5]}.")
    try:
        return block.replace("", np.nan).astype(np.float64).loc[patients]
    except ValueError as error:
        raise ValueError(f"{path.name} holds a cell that is no number: {error}.") from error
