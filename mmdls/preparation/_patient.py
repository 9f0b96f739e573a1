"""One patient: from the files of the scans to slices, measurements, a picture, and the record of what was done."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mmdls._files import whole_file
from mmdls.estimators.measurements._radiomics import radiomics
from mmdls.estimators.measurements._uptake import uptake
from mmdls.images._hounsfield import check_chest
from mmdls.images._settings import MaskArguments
from mmdls.preparation._cutting import at_levels, cut, largest_part
from mmdls.preparation._folder import PART_FILES, Folder, versions
from mmdls.preparation._identity import check_together, without_identity
from mmdls.preparation._inputs import describe
from mmdls.preparation._sheet import draw_sheet, planes_of, with_mask
from mmdls.scans import Volume, read_scan, resample, write_nifti
from mmdls.scans._headers import NoSuchStructure, check_frames
from mmdls.scans._masks import read_structure
from mmdls.scans._views import box_of

__all__ = ["Patient", "failed_record", "prepare_patient"]

# What a damaged file, an odd mask or an engine may raise for one patient.
_OF_ONE_PATIENT = (ValueError, TypeError, OSError, ArithmeticError, LookupError, RuntimeError, MemoryError, EOFError)


@dataclass(frozen=True)
class Patient:
    """A patient of the table.

    Parameters
    ----------
    id : str
    name : str
        Of the patient's files; unique, whatever the letter case.
    paths : dict of str to str
        Of the scans and masks that the table names, by ``ct``, ``pet``, ``lesion`` and ``lung``.
    """

    id: str
    name: str
    paths: dict[str, str]


@dataclass
class _Found:
    """What has been made of a patient so far."""

    measures: dict[str, Any] = field(default_factory=dict)
    pet: dict[str, float] = field(default_factory=dict)
    radiomics: dict[str, float] = field(default_factory=dict)
    files: dict[str, Volume] = field(default_factory=dict)
    sheet: Any = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # each reason, and the first step that it prevented

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Part of the work; what prevents it is written down, and the rest goes on."""
        try:
            yield
        except _OF_ONE_PATIENT as error:
            why = str(error) or type(error).__name__
            same = self.reasons.get(why)
            self.reasons.setdefault(why, name)
            self.problems.append(f"{name}: {why if same is None else f'for the same reason as {same}'}")


def prepare_patient(patient: Patient, settings: Mapping[str, Any], segmentor: Any, folder: Folder) -> None:
    """Do all of one patient, and write its record last; nothing, if the run has ended and another one has the folder.

    Parameters
    ----------
    patient : Patient
    settings : mapping
        Of :func:`prepare_cohort`; ``pet_features`` and ``radiomics`` have all parameters.
    segmentor : estimator or None
    folder : Folder

    Raises
    ------
    OSError
        If results cannot be written.
    """
    with folder.at_work() as goes_on:
        if goes_on:
            _prepare(patient, settings, segmentor, folder)


def _prepare(patient: Patient, settings: Mapping[str, Any], segmentor: Any, folder: Folder) -> None:
    folder.forget(patient.name)
    found, inputs = _Found(), {}
    # One thread: the sums of several depend on their number.
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always")
        with found.step("files"):
            inputs = {scan: describe(path) for scan, path in patient.paths.items()}
        if patient.paths.keys() & {"ct", "pet"}:
            with found.step("files"):
                check_together(patient.paths)
                _read_all(patient, settings, segmentor, found)
        elif patient.paths:
            found.problems.append("files: there are masks and no scan")
    if "pet" in patient.paths and "ct" not in patient.paths:
        found.notes.append("there is no CT, and so there are no slices and no radiomics")
    found.notes += [str(warning.message) for warning in caught]
    _write_files(patient, folder, found)
    clean = without_identity(patient.paths) if found.problems or found.notes else str
    made = bool(found.files or found.pet or found.sheet)
    status = "no scans" if not patient.paths else "done" if not found.problems else "partly" if made else "failed"
    folder.write_record(
        failed_record(patient, settings, *map(clean, found.problems))
        | {
            "status": status,
            "notes": list(dict.fromkeys(map(clean, found.notes))),
            "measures": found.measures,
            "pet": found.pet,
            "radiomics": found.radiomics,
            "sheet": found.sheet is not None,
            "inputs": inputs,
        }
    )


def failed_record(patient: Patient, settings: Mapping[str, Any], *problems: str) -> dict[str, Any]:
    """The record of a patient of whom nothing was made."""
    return {
        "patient_id": patient.id,
        "name": patient.name,
        "status": "failed",
        "problems": list(problems),
        "notes": [],
        "measures": {},
        "pet": {},
        "radiomics": {},
        "sheet": False,
        "inputs": {},
        "versions": versions(settings),
    }


def _write_files(patient: Patient, folder: Folder, found: _Found) -> None:
    if found.files:
        folder.images(patient.name).mkdir(parents=True, exist_ok=True)
    for part, volume in found.files.items():
        write_nifti(volume, folder.images(patient.name) / f"{part}.nii.gz")
    if found.sheet is not None:
        with whole_file(folder.sheet(patient.name)) as partial:
            found.sheet.save(partial, format="PNG", compress_level=3)


def _read_all(patient: Patient, settings: Mapping[str, Any], segmentor: Any, found: _Found) -> None:
    """CT first, of which only small parts stay when the PET is read."""
    planes: Any = None
    lesion: Volume | None = None
    if "ct" in patient.paths:
        with found.step("ct"):
            planes, lesion = _read_ct(patient, settings, segmentor, found)
    pet = on_pet = None
    if "pet" in patient.paths:
        with found.step("pet"):
            found_pet = read_scan(patient.paths["pet"], unit="SUV", modality="PT", patient=patient.id)
            if planes is not None:
                check_frames(found_pet.frame, planes[0].scan.frame, "the PET")
            pet = found_pet
            on_pet = _lesion_on_pet(patient, settings, pet, lesion)
            if on_pet is None:
                raise ValueError("there is a PET and no lesion mask")
            if not on_pet.array.any():
                raise ValueError("the mask is empty")
            values = uptake(pet, on_pet.array, **settings["pet_features"])
            found.pet = {f"pet_{name}": float(value) for name, value in values.items()}
    if planes is None and pet is not None:
        planes = planes_of(pet, "lesion", on_pet if on_pet is not None and on_pet.array.any() else None)
    with found.step("sheet"):
        if planes is not None:
            found.sheet = draw_sheet(_title(patient, found), planes, settings["lesion_size"], pet, on_pet)


def _read_ct(patient: Patient, settings: Mapping[str, Any], segmentor: Any, found: _Found) -> tuple[Any, Volume | None]:
    """Slices, radiomics and volumes; gives the planes of the picture, and the part of the CT with the lesion."""
    ct = read_scan(patient.paths["ct"], unit="HU", modality="CT", patient=patient.id)
    check_chest(ct.array[:, ::4, ::4], patient.id)  # a part, which takes less memory, shows air too
    lacking = [name for name in ("lesion", "lung") if name not in patient.paths]
    masks: dict[str, Volume] = {}
    if segmentor is not None and lacking:
        with found.step("segmentation"):
            masks = _segment(segmentor, ct, lacking, patient, found)
    elif len(lacking) == 2:
        found.problems.append("ct: there is neither a mask nor a segmentor, so that nothing is cut out")
    # One mask after the other, so that one is in memory.
    planes = part = shown = None
    lesion = _mask_of(patient, settings, "lesion", ct, masks, found)
    if lesion is not None:
        planes, shown = planes_of(ct, "lesion", lesion), np.flatnonzero(lesion.array.any(axis=(1, 2)))
        part = _cut_lesion(ct, lesion, settings, found)
        if settings["radiomics"] is not None:
            with found.step("radiomics"):
                values = radiomics(ct, lesion.array, **settings["radiomics"])
                found.radiomics = {f"radiomics_{name}": float(value) for name, value in values.items()}
    del lesion
    lung = _mask_of(patient, settings, "lung", ct, masks, found)
    if lung is not None:
        planes = planes_of(ct, "lung", lung) if planes is None else with_mask(planes, "lung", lung)
        n_slices, spacing = settings["n_slices"], (settings["slice_spacing"], settings["lung_spacing"])
        parts = (ct, lung, lung) if shown is None else at_levels(ct, lung, shown, n_slices * spacing[0])
        found.files |= _files("lung", cut(*parts, n_slices, settings["lung_size"], spacing))
    return planes_of(ct) if planes is None else planes, part


def _mask_of(
    patient: Patient, settings: Mapping[str, Any], name: str, ct: Volume, masks: dict[str, Volume], found: _Found
) -> Volume | None:
    """The mask of a structure, from its file or by the segmentor; None if there is none, or nothing is inside."""
    mask = masks.pop(name, None)
    if name in patient.paths:
        with found.step(name):
            mask, volumes = _read_structure(patient, settings, name, ct, settings["resample_masks"])
            found.measures |= volumes
    if mask is not None and not mask.array.any():
        found.problems.append(f"{name}: the mask is empty")
        return None
    return mask


def _read_structure(
    patient: Patient, settings: Mapping[str, Any], name: str, like: Volume, resample_masks: bool
) -> tuple[Volume, dict[str, float]]:
    """The mask of a structure, and its volumes; several labels are its parts."""
    label = settings[f"{name}_label"]
    labels = label if isinstance(label, list) else [label]
    whole: Volume | None = None
    absent: NoSuchStructure | None = None
    parts = {}
    for one in labels:
        how: Any = {"label": one, "resample": resample_masks, "allow_empty": True, "patient": patient.id}
        called = MaskArguments(f"{name}_label", "resample_masks", "label_names")
        how |= {"names": settings["label_names"], "arguments": called}
        try:
            mask = read_structure(patient.paths[name], like, **how)
        except NoSuchStructure as error:
            mask, absent = None, error
        parts[f"{name}_{one}_ml"] = 0.0 if mask is None else _millilitres(mask)
        if len(labels) > 1 and not parts[f"{name}_{one}_ml"]:
            warnings.warn(f"{name}: nothing has the label {one!r}", stacklevel=2)
        if whole is None:
            whole = mask
        elif mask is not None:
            np.logical_or(whole.array, mask.array, out=whole.array)
    if whole is None:
        assert absent is not None
        raise absent
    return whole, {f"{name}_ml": _millilitres(whole), **(parts if len(labels) > 1 else {})}


def _millilitres(mask: Volume) -> float:
    return int(np.count_nonzero(mask.array)) * mask.voxel_ml


def _segment(segmentor: Any, ct: Volume, names: list[str], patient: Patient, found: _Found) -> dict[str, Volume]:
    """Masks by a fitted segmentor."""
    import pandas as pd  # which the segmentor has loaded; other processes start sooner without

    answers = segmentor.predict(pd.DataFrame({segmentor.image_column: [ct]}, index=[patient.id])).iloc[0]
    masks = {
        name: Volume(answers[f"{name}_mask"], ct.affine, "label", frame=ct.frame)
        for name in names
        if f"{name}_mask" in answers.index
    }
    found.measures |= {f"{name}_ml": _millilitres(mask) for name, mask in masks.items()}
    found.notes += [f"{name}: the mask is the segmentor's" for name in masks]
    return masks


def _cut_lesion(ct: Volume, lesion: Volume, settings: Mapping[str, Any], found: _Found) -> Volume:
    """The slices of the lesion; gives the part of the mask that holds all of it."""
    main, found.measures["n_lesions"] = largest_part(lesion)
    size, spacing = settings["lesion_size"], (settings["slice_spacing"], settings["lesion_spacing"])
    found.files |= _files("lesion", cut(ct, lesion, main, settings["n_slices"], size, spacing))
    first, last = box_of(lesion.array)
    if found.measures["n_lesions"] > 1:
        found.notes.append(
            f"the lesion has {found.measures['n_lesions']} parts; the slices are those of the largest one"
        )
    if ((last - first + 1) * lesion.spacing)[1:].max() > size and found.measures["n_lesions"] == 1:
        found.notes.append(f"the lesion is wider than its slices of {size:g} mm")
    affine = lesion.affine.copy()
    affine[:3, 3] = lesion.places(first)
    box = tuple(slice(start, stop + 1) for start, stop in zip(first, last, strict=True))
    return replace(lesion, array=lesion.array[box].copy(), affine=affine)


def _files(name: str, parts: tuple[Volume, Volume]) -> dict[str, Volume]:
    return {PART_FILES[f"{name}_image"]: parts[0], PART_FILES[f"{name}_mask"]: parts[1]}


def _lesion_on_pet(patient: Patient, settings: Mapping[str, Any], pet: Volume, lesion: Volume | None) -> Volume | None:
    """The lesion on the voxels of the PET: of the CT's by the nearest voxel, without a CT of the file's."""
    if lesion is not None:
        return resample(lesion, like=pet)
    if "lesion" in patient.paths:
        return _read_structure(patient, settings, "lesion", pet, resample_masks=True)[0]
    return None


def _title(patient: Patient, found: _Found) -> str:
    """What the picture is of; the name of the patient's files has plain letters."""
    volumes = []
    for name in ("lesion", "lung"):
        total, *parts = [f"{value:.1f}" for key, value in found.measures.items() if key.startswith(f"{name}_")] or [""]
        if total:
            volumes.append(f"{name} {total} mL" + (f" ({' + '.join(parts)})" if parts else ""))
    uptake = [f"SUVmax {found.pet['pet_suvmax']:.1f}"] if "pet_suvmax" in found.pet else []
    return ", ".join([patient.name, *volumes, *uptake])
