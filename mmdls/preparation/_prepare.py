"""Preparing a cohort: all patients, one after the other or side by side, and the tables of the whole."""

import errno
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from mmdls._files import whole_file
from mmdls.estimators import PETFeatures, RadiomicsExtractor
from mmdls.estimators.measurements._scan_features import ScanFeatures, first_reasons
from mmdls.images._png import pillow
from mmdls.preparation._folder import FORMAT, Folder
from mmdls.preparation._identity import identifiers, is_identifying
from mmdls.preparation._inputs import same_inputs
from mmdls.preparation._overview import overview
from mmdls.preparation._patient import Patient, failed_record, prepare_patient
from mmdls.preparation._patients import SCANS, read_patients
from mmdls.scans._resampling import lengths
from mmdls.scans._views import check_count

__all__ = ["prepare_cohort"]


def prepare_cohort(
    table: Any,
    folder: str | PathLike,
    *,
    id: str = "patient_id",
    ct: str | None = "ct",
    pet: str = "pet",
    lesion: str = "lesion",
    lung: str = "lung",
    lesion_label: str | int | Sequence[str | int] | None = None,
    lung_label: str | int | Sequence[str | int] | None = None,
    label_names: Mapping[str, int] | None = None,
    resample_masks: bool = False,
    segmentor: Any = None,
    n_slices: int = 16,
    slice_spacing: float = 3.0,
    lesion_size: float = 128.0,
    lesion_spacing: float = 1.0,
    lung_size: float = 384.0,
    lung_spacing: float = 1.5,
    radiomics: bool | Mapping[str, Any] = True,
    pet_features: Mapping[str, Any] | None = None,
    carry: Sequence[str] | None = None,
    header: int | None = None,
    encoding: str | None = None,
    ids: str = "check",
    existing: str = "continue",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Prepare the scans of patients for models: the folder that :func:`mmdls.datasets.load_cohort` reads.

    Every patient gets slices of the lesion and of the lung in HU with their masks, PET features and radiomics, a
    picture to check, and a record. A patient who fails loses nobody else, and a run that was stopped goes on where it
    was.

    Parameters
    ----------
    table : path-like or DataFrame
        A row a patient, as CSV, Excel or data frame: the id, paths of scans and masks (see
        :func:`mmdls.scans.read_scan` and :func:`mmdls.scans.read_mask`), and clinical variables and outcomes as for
        ``load_cohort``. A path in a file is relative to the file's folder; an empty cell is a scan that the patient
        does not have.
    folder : path-like
        New, empty, or prepared before with the same settings.
    id : str, default="patient_id"
        Column of the ids, or the name of the index. A data frame without ``"patient_id"`` has them in its index, as
        ``X.join(y)`` of :func:`mmdls.cohort.read_cohort`. Names of columns count without regard to case and outer
        spaces.
    ct, pet : str, default="ct" and "pet"
        Columns of the scans. DICOM is converted to HU and SUV; other formats must hold them. ``ct=None`` is for
        patients with a PET alone, who get no slices.
    lesion, lung : str, default="lesion" and "lung"
        Columns of the masks on the voxels of the CT; one file may hold both.
    lesion_label, lung_label : str, int or list of them, default=None
        The structure in masks with several, by name or number; a list is the parts of one structure.
    label_names : dict of str to int, default=None
        The numbers of structures by their names, in files without names such as NIfTI, so that ``lesion_label`` and
        ``lung_label`` name those of all patients.
    resample_masks : bool, default=False
        Bring masks with other voxels than their CT to those of the CT (nearest neighbour), or refuse them. A PET always
        gets the mask by nearest neighbour.
    segmentor : LungLesionSegmentor, default=None
        Fitted; makes the masks that the table does not name.
    n_slices : int, default=16
        The most slices of a structure: those that show it, or the neighbours of the one where it is largest. Slices of
        the lung are at the height of the lesion.
    slice_spacing : float, default=3.0
        Millimetres from slice to slice.
    lesion_size, lung_size : float, default=128.0 and 384.0
        Sides of the slices in mm.
    lesion_spacing, lung_spacing : float, default=1.0 and 1.5
        Millimetres from pixel to pixel.
    radiomics : bool or dict, default=True
        Parameters of :class:`mmdls.RadiomicsExtractor`; True takes its defaults, False computes none.
    pet_features : dict, default=None
        Parameters of :class:`mmdls.PETFeatures`.
    carry : sequence of str, default=None
        Columns of the table to write into ``clinical.csv``; None takes those that ``load_cohort`` reads, and names the
        others in a warning.
    header : int, default=None
        The row of a file that holds the names of the columns, from 0, where a title stands above; empty rows count.
    encoding : str, default=None
        Of a text file, where it cannot be detected.
    ids : {"check", "keep", "number"}, default="check"
        ``"check"`` refuses ids and carried cells that identify a patient in the headers of the scans; ``"keep"`` writes
        them, for ids that are pseudonyms in the headers too; ``"number"`` writes ``patient-0001`` and so on instead.
    existing : {"continue", "replace"}, default="continue"
        In a folder that was prepared before: do what is new, has failed, or whose files have changed; or do all again.
    n_jobs : int, default=None
        Processes over patients. Results do not depend on it.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    DataFrame
        The log, as in ``patients.csv``: ``status``, ``reason``, ``notes``, volumes in mL. ``"done"`` is a patient whose
        scans all became what they can become; a scan that the patient does not have is no failure, and leaves its
        columns empty (a PET without a CT is noted). ``"partly"``: something failed, as ``reason`` says. ``"failed"``:
        nothing was made. ``"no scans"``: all cells were empty. With ``ids="number"`` also ``source_id``, which no file
        holds.

    Raises
    ------
    FileExistsError
        If the folder holds anything else, or another run is at work in it.
    ValueError, TypeError
        If the table or the settings cannot be used, or the folder was prepared with other settings or patients.
    OSError
        If the disk is full; finished patients stay.

    Warns
    -----
    UserWarning
        If patients failed, or columns are left out.

    See Also
    --------
    mmdls.datasets.load_cohort : Reads the folder.

    Examples
    --------
    >>> import tempfile
    >>> from mmdls.datasets import load_cohort, make_scans
    >>> with tempfile.TemporaryDirectory() as place:
    ...     scans = make_scans(f"{place}/scans", n_patients=1, random_state=0)
    ...     table = scans.scans.assign(lung=scans.scans["structures"]).join(scans.data).join(scans.target)
    ...     log = prepare_cohort(
    ...         table, f"{place}/cohort", lesion="structures", lesion_label="lesion",
    ...         lung_label=["lung-left", "lung-right"], radiomics=False,
    ...     )
    ...     X, y = load_cohort(f"{place}/cohort", return_X_y=True)
    >>> log["status"].tolist(), [name for name in X if name.endswith("_image")]
    (['done'], ['lesion_image', 'lung_image'])
    """
    settings = _settings(
        lesion_label=lesion_label,
        lung_label=lung_label,
        label_names=label_names,
        resample_masks=resample_masks,
        segmentor=segmentor,
        n_slices=n_slices,
        slice_spacing=slice_spacing,
        lesion_size=lesion_size,
        lesion_spacing=lesion_spacing,
        lung_size=lung_size,
        lung_spacing=lung_spacing,
        radiomics=radiomics,
        pet_features=pet_features,
    )
    for name, value, choices in (
        ("ids", ids, ("check", "keep", "number")),
        ("existing", existing, ("continue", "replace")),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}; got {value!r}.")
    pillow()
    columns = dict(zip(SCANS, (ct, pet, lesion, lung), strict=True))
    patients, tables = read_patients(table, id, columns, carry, ids == "number", header, encoding)
    if ids != "keep":
        _check_identity(patients, tables.carried, ids == "check")
    place = Folder(Path(folder).resolve())
    with place.alone():
        place.open(settings, [patient.name for patient in patients], existing == "replace")
        _prepare_all(place, patients, settings, segmentor, n_jobs, verbose)
        log = _finish(place, patients, tables.carried, settings)
    if ids == "number":
        log["source_id"] = tables.source_ids
    if tables.n_empty:
        warnings.warn(f"{tables.n_empty} empty rows of the table are dropped.", stacklevel=2)
    if tables.left:
        warnings.warn(
            f"columns of the table that are not carried over: {tables.left[:10]} ({len(tables.left)} in all). "
            "Call clinical variables clinical_<name> and outcomes <endpoint>_time and <endpoint>_event, or let "
            "read_cohort do so; carry= keeps columns under their own names, which load_cohort gives as other.",
            stacklevel=2,
        )
    is_lost = log["status"].isin(["partly", "failed"]).to_numpy()
    if is_lost.any():
        lost = log[is_lost]
        warnings.warn(
            f"{len(lost)} of {len(log)} patients are not complete; patients.csv has the reasons. "
            f"{first_reasons(lost['reason'])}{_looked_for(patients, tables.home)}",
            stacklevel=2,
        )
    return log


def _looked_for(patients: list[Patient], home: Path) -> str:
    """Of paths that lead nowhere, where they lead from the table's folder; for the screen, since files hold no path."""
    gone = [path for one in patients for path in map(Path, one.paths.values()) if not path.exists()]
    if not gone:
        return ""
    shown = [str(path.relative_to(home)) if path.is_relative_to(home) else f".../{path.name}" for path in gone[:3]]
    more = f" and {len(gone) - 3} more places" if len(gone) > 3 else ""
    start = "the working directory" if home == Path.cwd() else "the folder of the table"
    return f" There is nothing at {', '.join(map(repr, shown))}{more}, seen from {start}."


_MEASUREMENTS: dict[str, type[ScanFeatures]] = {"radiomics": RadiomicsExtractor, "pet_features": PETFeatures}
# Of measurements, what is decided here.
_OWN = {"image_column", "mask_column", "label", "resample_mask", "prefix", "unit", "memory", "n_jobs", "verbose"}


def _settings(**given: Any) -> dict[str, Any]:
    """All that decides what is written, checked and in types of JSON."""
    settings = dict(given)
    for name in ("lesion_label", "lung_label"):
        if isinstance(given[name], Sequence) and not isinstance(given[name], str):
            settings[name] = list(given[name])
            if not settings[name]:
                raise ValueError(f"{name} is an empty list; name one label or more, or None.")
    names = given["label_names"]
    if names is not None and not (
        isinstance(names, Mapping)
        and all(isinstance(key, str) and type(number) is int for key, number in names.items())
    ):
        raise TypeError(f"label_names are numbers by name, for example {{'lesion': 3}}; got {names!r}.")
    settings["label_names"] = dict(names or {})
    for name in ("slice_spacing", "lesion_size", "lesion_spacing", "lung_size", "lung_spacing"):
        lengths(given[name], name)
        settings[name] = float(given[name])
    check_count(given["n_slices"])
    radiomics = {} if given["radiomics"] is True else given["radiomics"] or None
    settings["radiomics"] = None if given["radiomics"] is False else dict(radiomics or {})
    settings["pet_features"] = dict(given["pet_features"] or {})
    for name, maker in _MEASUREMENTS.items():
        if settings[name] is not None:
            if owned := sorted(_OWN & settings[name].keys()):
                raise ValueError(f"{name} sets {owned}, which prepare_cohort decides itself; leave them out.")
            features = maker(**settings[name])
            features._validate_params()
            features._check_parameters()
    if given["segmentor"] is not None:
        if not hasattr(given["segmentor"], "image_column"):
            raise TypeError(f"segmentor must be a fitted LungLesionSegmentor; got {type(given['segmentor']).__name__}.")
        check_is_fitted(given["segmentor"])
        settings["segmentor"] = joblib.hash(given["segmentor"])
    return settings


def _check_identity(patients: list[Patient], carried: pd.DataFrame, check_ids: bool) -> None:
    """Refuse ids and cells that the headers of the scans hold as what identifies a patient."""
    rows, columns = [], set()
    for number, (patient, (_, cells)) in enumerate(zip(patients, carried.iterrows(), strict=True), start=1):
        known = identifiers(patient.paths.values(), every_file=False)
        if known and check_ids and is_identifying(patient.id, known):
            rows.append(number)
        columns |= {name for name, cell in cells.items() if known and is_identifying(str(cell), known)}
    if rows:
        raise ValueError(
            f"the ids of {len(rows)} patients (rows {rows[:5]}) stand in the headers of their scans, as PatientID or "
            "another value that identifies a person. Pass ids='keep' if they are pseudonyms there too, or ids='number' "
            "to write numbers instead."
        )
    if columns:
        raise ValueError(
            f"the columns {sorted(columns)} hold values that identify a person in the headers of the scans; leave them "
            "out by carry=, or pass ids='keep' to write them."
        )


def _prepare_all(
    place: Folder,
    patients: list[Patient],
    settings: Mapping[str, Any],
    segmentor: Any,
    n_jobs: int | None,
    verbose: int,
) -> None:
    """Prepare those patients who are not finished."""
    # With defaults, so that other processes need not load the transformers.
    chosen = {
        name: maker(**settings[name])._how() for name, maker in _MEASUREMENTS.items() if settings[name] is not None
    }
    settings = {**settings, **chosen}
    records, todo = place.records(), []
    for patient in patients:
        record = records.get(patient.name)
        is_same = record and record["patient_id"] == patient.id and record["status"] != "failed"
        if record is None or not (is_same and same_inputs(patient.paths, record["inputs"])):
            todo.append(patient)
            place.forget(patient.name)
    with tqdm(total=len(patients), initial=len(patients) - len(todo), desc="preparing", unit="patient",
              disable=not verbose) as bar:  # fmt: skip
        try:
            jobs = (joblib.delayed(prepare_patient)(patient, settings, segmentor, place) for patient in todo)
            for _ in joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
                bar.update()
        except TerminatedWorkerError:
            _prepare_alone([one for one in todo if not place.record(one.name).exists()], settings, segmentor, place)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                error.errno,
                f"the disk of {str(place.root)!r} is full; {len(place.records())} of {len(patients)} patients are "
                "finished and stay. Make room and run the same again",
            ) from error


def _prepare_alone(patients: list[Patient], settings: Mapping[str, Any], segmentor: Any, place: Folder) -> None:
    """Prepare each patient in a process of its own, after one of several processes has died."""
    for patient in patients:
        try:
            joblib.Parallel(n_jobs=2)([joblib.delayed(prepare_patient)(patient, settings, segmentor, place)])
        except TerminatedWorkerError:
            place.forget(patient.name)
            place.write_record(
                failed_record(patient, settings, "its process was ended from outside, as when memory is short")
            )


def _joined(texts: Sequence[str]) -> str:
    return "; ".join([*(text.rstrip(".") for text in texts[:-1]), *texts[-1:]])


def _finish(place: Folder, patients: list[Patient], carried: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Write the tables, the manifest and the page of all patients; the table that load_cohort looks for comes last."""
    records = [place.records()[patient.name] for patient in patients]
    index = carried.index
    for name in ("pet", "radiomics"):
        block = pd.DataFrame([record[name] for record in records], index=index, dtype=float)
        if block.columns.empty:
            place.remove_table(name)
        else:
            place.write_table(name, block)
    log = pd.DataFrame(
        {
            "status": [record["status"] for record in records],
            "reason": [_joined(record["problems"]) for record in records],
            "notes": [_joined(record["notes"]) for record in records],
        },
        index=index,
    ).join(pd.DataFrame([record["measures"] for record in records], index=index))
    place.write_table("patients", log)
    used = [record["versions"] for record in records]
    manifest = {
        "format": FORMAT,
        "settings": settings,
        "versions": [one for i, one in enumerate(used) if one not in used[:i]],
        "patients": {
            record["patient_id"]: {"status": record["status"], "inputs": record["inputs"]} for record in records
        },
    }
    place.write_json(place.manifest, manifest)
    if len(manifest["versions"]) > 1:
        warnings.warn(
            "patients were prepared with different versions of packages, which manifest.json lists; "
            "existing='replace' prepares all again.",
            stacklevel=3,
        )
    pictures = {record["patient_id"]: record["name"] for record in records if record["sheet"]}
    with whole_file(place.root / "overview.html") as partial:
        partial.write_text(overview(log, pictures, settings), encoding="utf-8")
    names = [patient.name for patient in patients]
    if names != list(index):
        carried = carried.assign(image_folder=names)
    place.write_table("clinical", carried)
    return log
