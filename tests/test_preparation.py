"""Preparing cohorts: what is written, what goes on after a stop, who fails, and what never leaves the headers."""

import errno
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from mmdls import PETFeatures, RadiomicsExtractor, prepare_cohort
from mmdls.datasets import load_cohort, make_scans
from mmdls.images import read_image
from mmdls.preparation import _folder, _patient, _prepare
from mmdls.preparation._folder import Folder
from mmdls.preparation._identity import identifiers, is_identifying, without_identity
from mmdls.preparation._patient import Patient
from mmdls.scans import Volume, read_mask, read_scan, write_nifti
from tests import scanner
from tests.pages import code_of, page

pytest.importorskip("nibabel", reason='needs pip install "mmdls[scans]"')
dcmread = pytest.importorskip("pydicom", reason='needs pip install "mmdls[scans]"').dcmread

UPRIGHT = np.eye(4)[:, [2, 1, 0, 3]]
SMALL = {"lesion_size": 24.0, "lung_size": 48.0, "lung_spacing": 2.0, "radiomics": False}


def grid(spacing, shape=(12, 30, 32), shift=0.0):
    affine = UPRIGHT @ np.diag([*spacing, 1.0])
    affine[:3, 3] = shift
    return np.zeros(shape), affine


def write_patient(folder, *, lesions=((20.0, 30.0, 16.0),), pet=True, seed=0):
    """CT, PET in SUV, and masks of a body in millimetres; the lesion is a ball with a radius of 7 mm."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ct, affine = grid((3.0, 2.0, 2.0))
    place = np.stack(np.meshgrid(*[np.arange(n) * side for n, side in zip(ct.shape, (3, 2, 2), strict=True)],
                                 indexing="ij"), -1)  # fmt: skip
    lesion = np.any([((place - centre) ** 2).sum(-1) <= 49 for centre in lesions], axis=0)
    lung = (abs(place[..., 1] - 30) < 22) & (abs(place[..., 2] - 20) < 16)
    hu = np.where(lesion, 40, np.where(lung, -800, 0)) + rng.integers(-20, 20, ct.shape)
    hu[:, :3] = -1000
    for name, array in (("ct", hu.astype(np.int16)), ("lesion", lesion), ("lung", lung)):
        write_nifti(Volume(array, affine), folder / f"{name}.nii.gz")
    if pet:
        suv, pet_affine = grid((3.0, 4.0, 4.0), (12, 15, 16))
        suv = lesion[:, ::2, ::2] * 5.0 + 1
        write_nifti(Volume(suv.astype(np.float32), pet_affine), folder / "pet.nii.gz")
    return {name: str(folder / f"{name}.nii.gz") for name in ("ct", "lesion", "lung", *["pet"] * pet)}


@pytest.fixture
def scans(tmp_path):
    """Three patients; the third has no PET."""
    rows = {f"P{i}": write_patient(tmp_path / "scans" / f"P{i}", pet=i < 3, seed=i) for i in (1, 2, 3)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient_id")
    return table.assign(clinical_age=[61, 72, 55], os_time=[10.5, 3.25, 30.0], os_event=[1, 0, 1])


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def everything(folder):
    """All bytes of a folder, names included, compressed files also unpacked."""
    parts = []
    for name, content in contents(folder).items():
        parts += [name.encode(), content, gzip.decompress(content) if name.endswith(".gz") else b""]
    return b"\n".join(parts)


# -- what is written ---------------------------------------------------------------------------------------------------


def test_a_cohort_has_slices_in_hounsfield_units_masks_and_measurements(scans, tmp_path):
    pytest.importorskip("fastrad", reason='needs pip install "mmdls[radiomics]"')
    radiomics = {"classes": ["firstorder", "glcm"], "bin_width": 10.0}
    log = prepare_cohort(scans, tmp_path / "cohort", **SMALL | {"radiomics": radiomics})
    assert log["status"].tolist() == ["done"] * 3 and (log["reason"] == "").all()
    X, y = load_cohort(tmp_path / "cohort", return_X_y=True)
    assert list(X.index) == ["P1", "P2", "P3"] and y["os_time"].tolist() == [10.5, 3.25, 30.0]
    assert X["clinical_age"].tolist() == [61, 72, 55]
    ct, lesion = read_scan(scans["ct"].iloc[0], unit="HU"), read_mask(scans["lesion"].iloc[0])
    assert log["lesion_ml"].iloc[0] == pytest.approx(lesion.array.sum() * lesion.voxel_ml)
    image, mask = (read_image(X[f"lesion_{what}"].iloc[0]) for what in ("image", "mask"))
    assert image.shape == mask.shape == (5, 24, 24) and image.dtype == np.int16
    written = read_scan(X["lesion_image"].iloc[0])
    assert written.spacing == pytest.approx((3, 1, 1))
    assert np.median(image[mask != 0]) == pytest.approx(np.median(ct.array[lesion.array]), abs=10)
    assert image[mask == 0].min() < -800
    assert read_image(X["lung_image"].iloc[0]).shape[1:] == (24, 24)
    # The numbers are those of the transformers, to the last digit.
    cells = pd.DataFrame({"ct_image": scans["ct"], "ct_mask": scans["lesion"]})
    expected = RadiomicsExtractor(**radiomics).set_output(transform="pandas").fit_transform(cells)
    pd.testing.assert_frame_equal(X[expected.columns], expected, check_exact=True, check_names=False)
    cells = pd.DataFrame({"pet_image": scans["pet"], "pet_mask": scans["lesion"]})
    expected = PETFeatures(resample_mask=True).set_output(transform="pandas").fit_transform(cells)
    pd.testing.assert_frame_equal(X[expected.columns], expected, check_exact=True, check_names=False)
    assert expected["pet_suvmax"].iloc[0] == 6 and X["pet_suvmax"].isna().tolist() == [False, False, True]


def test_two_volumes_of_memory_are_enough(tmp_path):
    pytest.importorskip("fastrad", reason='needs pip install "mmdls[radiomics]"')
    shape = (60, 256, 256)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    lung = ((abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 + z**2 <= 1
    lesion = (z / 0.2) ** 2 + (y / 0.1) ** 2 + ((x - 0.4) / 0.1) ** 2 <= 1
    affine = UPRIGHT @ np.diag([5.0, 1.5, 1.5, 1.0])
    for name, array in (("ct", np.where(lesion, 40, np.where(lung, -800, 0)).astype(np.int16)),
                        ("lesion", lesion), ("lung", lung)):  # fmt: skip
        write_nifti(Volume(array, affine), tmp_path / f"{name}.nii.gz")
    table = pd.DataFrame({name: str(tmp_path / f"{name}.nii.gz") for name in ("ct", "lesion", "lung")}, index=["P1"])
    settings = SMALL | {"radiomics": {"classes": ["firstorder"], "spacing": 2.0}}
    prepare_cohort(table, tmp_path / "first", **settings)  # which imports
    tracemalloc.start()
    try:
        log = prepare_cohort(table, tmp_path / "second", **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert log["status"].tolist() == ["done"]
    assert peak < 2.1 * 2 * np.prod(shape)


def test_numbers_of_masks_without_names_are_named_beside_contours(tmp_path):
    found = make_scans(tmp_path / "scans", n_patients=2, random_state=0).scans
    first = found.iloc[0]
    ct = read_scan(first["ct"])
    numbers = np.zeros(ct.shape, dtype=np.uint8)
    for number, name in enumerate(("lung-left", "lung-right", "lesion"), start=1):
        numbers[read_mask(first["structures"], ct, label=name).array] = number
    write_nifti(Volume(numbers, ct.affine, "label"), tmp_path / "numbers.nii.gz")
    masks = [str(tmp_path / "numbers.nii.gz"), found["structures"].iloc[1]]
    table = pd.DataFrame({"ct": found["ct"], "lesion": masks, "lung": masks})
    how = SMALL | {"lesion_label": "lesion", "lung_label": ["lung-left", "lung-right"], "ids": "keep"}
    with pytest.warns(UserWarning, match="1 of 1 patients are not complete"):
        log = prepare_cohort(table[:1], tmp_path / "unnamed", **how)
    assert "by lesion_label=, or pass label_names={name: number}" in log["reason"].iloc[0]
    log = prepare_cohort(table, tmp_path / "named", label_names={"lung-left": 1, "lung-right": 2, "lesion": 3}, **how)
    assert log["status"].tolist() == ["done", "done"]
    assert log["lesion_ml"].iloc[0] == pytest.approx(np.count_nonzero(numbers == 3) * ct.voxel_ml)
    assert log["lung_lung-right_ml"].iloc[0] == pytest.approx(np.count_nonzero(numbers == 2) * ct.voxel_ml)
    table = table.assign(lung=found["structures"])[1:]
    log = prepare_cohort(table, tmp_path / "part", **how | {"lung_label": ["lung-left", "lunge-right"]})
    assert log["status"].tolist() == ["done"] and "lung: nothing has the label 'lunge-right'" in log["notes"].iloc[0]
    assert log["lung_lunge-right_ml"].iloc[0] == 0 < log["lung_lung-left_ml"].iloc[0] == log["lung_ml"].iloc[0]
    with pytest.warns(UserWarning, match="1 of 1 patients are not complete"):
        log = prepare_cohort(table, tmp_path / "none", **how | {"lung_label": ["lunge-left", "lunge-right"]})
    assert "has no structures called 'lunge-right'; choose one by lung_label=, of" in log["reason"].iloc[0]
    with pytest.raises(TypeError, match=r"numbers by name.*\{'lesion': '3'\}"):
        prepare_cohort(table, tmp_path / "no", label_names={"lesion": "3"}, **how)


def test_slices_keep_their_places(scans, tmp_path):
    prepare_cohort(scans[:1], tmp_path / "cohort", **SMALL)
    lesion = read_mask(scans["lesion"].iloc[0])
    for part in ("lesion", "lung"):
        written = read_mask(tmp_path / "cohort" / "images" / "P1" / f"{part}_mask.nii.gz")
        found = written.places(np.argwhere(written.array)).mean(axis=0)
        true = read_mask(scans[part].iloc[0])
        where = np.argwhere(true.array & lesion.array.any(axis=(1, 2))[:, None, None])
        assert np.abs(found - true.places(where).mean(axis=0)).max() < 0.5


def test_a_picture_and_a_page_show_every_patient(scans, tmp_path):
    from PIL import Image

    prepare_cohort(scans.rename(index={"P2": "<b>&"}), tmp_path / "cohort", **SMALL)
    page = (tmp_path / "cohort" / "overview.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page
    pictures = sorted((tmp_path / "cohort" / "sheets").iterdir())
    assert len(pictures) == 3 and all(f'src="sheets/{path.name}"' in page for path in pictures)
    with Image.open(next(path for path in pictures if path.name == "P1.png")) as picture:
        colours = np.asarray(picture).reshape(-1, 3)
    assert all((colours == colour).all(axis=1).any() for colour in ((70, 170, 255), (255, 60, 50)))


def test_the_manifest_has_hashes_settings_and_versions(scans, tmp_path):
    import hashlib

    prepare_cohort(scans, tmp_path / "cohort", **SMALL)
    manifest = json.loads((tmp_path / "cohort" / "manifest.json").read_text())
    assert manifest["settings"]["lesion_size"] == 24 and manifest["versions"][0]["mmdls"]
    inputs = manifest["patients"]["P1"]["inputs"]
    content = hashlib.sha256(open(scans["ct"].iloc[0], "rb").read()).digest()
    assert inputs["ct"]["sha256"] == hashlib.sha256(content).hexdigest() and inputs["ct"]["n_files"] == 1
    assert inputs.keys() == {"ct", "pet", "lesion", "lung"}


def test_paths_in_a_file_are_relative_to_it_and_other_columns_are_named(scans, tmp_path, monkeypatch):
    table = (
        scans[:1]
        .drop(columns=["pet", "lung"])
        .map(lambda cell: os.path.relpath(cell, tmp_path) if str(cell).endswith(".gz") else cell)
    )
    table = table.reset_index().rename(columns={"patient_id": "case", "ct": "scan"}).assign(hobby="chess")
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path / "a folder")
    for name in ("table.csv", "table.xlsx"):
        if name.endswith("xlsx"):
            pytest.importorskip("openpyxl")
            table.to_excel(tmp_path / name, index=False)
        else:
            table.to_csv(tmp_path / name, index=False, sep=";")
        with pytest.warns(UserWarning, match="hobby.*clinical_<name>.*read_cohort.*carry="):
            log = prepare_cohort(tmp_path / name, f"of {name}", id="case", ct="scan", **SMALL)
        assert log["status"].tolist() == ["done"]
        assert "chess" not in everything(tmp_path / "a folder").decode("latin-1")
    with pytest.warns(UserWarning, match="not carried over: .'os_time', 'os_event'"):
        how = SMALL | {"carry": ["clinical_age", "hobby"]}
        prepare_cohort(tmp_path / "table.csv", tmp_path / "again", id="case", ct="scan", **how)
    with pytest.warns(UserWarning, match="hobby"):
        assert load_cohort(tmp_path / "again").other["hobby"].tolist() == ["chess"]


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(scans, tmp_path, monkeypatch):
    """A function that prepares the cohort, and gives the patients that it worked on."""
    worked = []

    def spy(patient, *rest):
        worked.append(patient.id)
        return _patient.prepare_patient(patient, *rest)

    monkeypatch.setattr(_prepare, "prepare_patient", spy)

    def prepare(table=scans, **how):
        worked.clear()
        prepare_cohort(table, tmp_path / "cohort", **SMALL | how)
        return list(worked)

    return prepare


def test_finished_patients_are_not_done_again(scans, tmp_path, prepared, monkeypatch):
    real = _patient.draw_sheet

    def stop(title, *rest):
        if title.startswith("P2"):
            raise KeyboardInterrupt
        return real(title, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(_patient, "draw_sheet", stop)
        with pytest.raises(KeyboardInterrupt):
            prepared()
    with pytest.raises(FileNotFoundError, match="clinical.csv"):
        load_cohort(tmp_path / "cohort")
    assert prepared() == ["P2", "P3"]
    assert prepared() == []
    whole = contents(tmp_path / "cohort")
    assert prepared(existing="replace") == ["P1", "P2", "P3"]
    assert contents(tmp_path / "cohort") == whole
    with monkeypatch.context() as patch:
        patch.setattr(_patient, "draw_sheet", stop)
        with pytest.raises(KeyboardInterrupt):
            prepared(existing="replace")
    with pytest.raises(FileNotFoundError, match="clinical.csv"):  # which a whole one had
        load_cohort(tmp_path / "cohort")


def test_changed_files_are_prepared_again_and_changed_settings_are_refused(scans, tmp_path, prepared):
    prepared()
    os.utime(scans["ct"].iloc[0])  # another time, the same content
    assert prepared() == []
    ct = read_scan(scans["ct"].iloc[1], unit="HU")
    write_nifti(Volume(ct.array + 1, ct.affine), scans["ct"].iloc[1])
    assert prepared() == ["P2"]
    assert prepared(scans.assign(lung=[scans["lung"].iloc[0], None, None])) == ["P2", "P3"]
    assert not (tmp_path / "cohort" / "images" / "P3" / "space.nii.gz").exists()
    with pytest.raises(ValueError, match="other settings: lesion_size was 24.0 and is 30.0.*existing='replace'"):
        prepared(lesion_size=30.0)
    load_cohort(tmp_path / "cohort")
    assert len(prepared(lesion_size=30.0, existing="replace")) == 3


def test_patients_are_added_and_not_lost(scans, tmp_path, prepared):
    assert prepared(scans[1:]) == ["P2", "P3"]
    assert prepared(scans) == ["P1"]
    with pytest.raises(ValueError, match="1 patients that the table lacks, such as .'P3'"):
        prepared(scans[:2])
    assert len(prepared(scans[:2], existing="replace")) == 2
    assert list(load_cohort(tmp_path / "cohort").data.index) == ["P1", "P2"]


def test_a_failed_patient_is_tried_again_and_loses_nobody(scans, tmp_path, prepared):
    whole = open(scans["ct"].iloc[1], "rb").read()
    open(scans["ct"].iloc[1], "wb").write(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="1 of 3 patients are not complete.*'P2'"):
        assert prepared() == ["P1", "P2", "P3"]
    log = pd.read_csv(tmp_path / "cohort" / "patients.csv", index_col=0)
    assert log["status"].tolist() == ["done", "partly", "done"]  # the PET was read
    X = load_cohort(tmp_path / "cohort").data
    assert X["lesion_image"].notna().tolist() == [True, False, True] and X["pet_suvmax"].notna()["P2"]
    open(scans["ct"].iloc[1], "wb").write(whole)
    assert prepared() == ["P2"]
    os.unlink(scans["ct"].iloc[2])
    with pytest.warns(UserWarning, match="'P3': ct: there is no scan"):
        assert prepared() == ["P3"]
    assert log_of(tmp_path)["status"].tolist() == ["done", "done", "failed"]
    with pytest.warns(UserWarning, match="'P3'"):
        assert prepared() == ["P3"]


def log_of(tmp_path):
    return pd.read_csv(tmp_path / "cohort" / "patients.csv", index_col=0, keep_default_na=False)


def test_a_folder_of_something_else_stays_as_it_is(scans, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for existing in ("continue", "replace"):
        with pytest.raises(FileExistsError, match="holds no cohort that was prepared here"):
            prepare_cohort(scans, tmp_path / "mine", existing=existing, **SMALL)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(FileExistsError, match="is a file"):
        prepare_cohort(scans, tmp_path / "mine" / "notes.txt", **SMALL)


def test_a_process_for_patients_loads_neither_torch_nor_scikit_learn_nor_pandas():
    code = """
import sys
import mmdls.preparation._patient
slow = {"torch", "sklearn", "pandas", "scipy.stats", "scipy.signal", "matplotlib"} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_runs_do_not_share_a_folder(scans, tmp_path, prepared, monkeypatch):
    pytest.importorskip("fcntl", reason="Windows has no such lock")
    begun = []

    def second(patient, settings, segmentor, folder):
        if not begun:
            begun.append(patient)
            with pytest.raises(FileExistsError, match="another run is preparing"):
                prepare_cohort(scans, tmp_path / "cohort", **SMALL)
        _patient.prepare_patient(patient, settings, segmentor, folder)

    monkeypatch.setattr(_prepare, "prepare_patient", second)
    log = prepare_cohort(scans, tmp_path / "cohort", **SMALL)
    assert begun and log["status"].tolist() == ["done"] * 3
    prepare_cohort(scans, tmp_path / "cohort", **SMALL)


def test_a_new_run_waits_for_the_last_patient_of_a_killed_one(scans, tmp_path):
    pytest.importorskip("fcntl", reason="Windows has no such lock")
    place = tmp_path / "cohort"
    killed, new = Folder(place), Folder(place)
    killed.open({}, ["P1"], replace=False)
    done = []

    def begin():
        new.open({}, ["P1"], replace=False)
        done.append("begun")

    waiting = Thread(target=begin, daemon=True)
    with killed.at_work() as goes_on:
        assert goes_on
        waiting.start()
        time.sleep(0.2)
        done.append("finished")
    waiting.join(timeout=600)
    assert done == ["finished", "begun"]
    with killed.at_work() as is_old, new.at_work() as is_new:
        assert (is_old, is_new) == (False, True)
    before = contents(place)
    _patient.prepare_patient(Patient("P1", "P1", {"ct": scans["ct"].iloc[0]}), {}, None, killed)
    assert contents(place) == before


def test_exchanged_files_of_the_same_name_size_and_time_are_seen(tmp_path):
    rows = {}
    for name, hu in (("A", 1024), ("B", 1000)):
        ct = np.full((8, 24, 24), hu, dtype=np.int16)
        ct[:, :6] = 24
        rows[name] = write_dicom(tmp_path / name, ct)
    for file in tmp_path.rglob("*"):
        os.utime(file, (1e9, 1e9))
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("patient_id")
    table["lesion"] = table["lesion"].iloc[0]
    prepare_cohort(table, tmp_path / "cohort", **SMALL)
    table["ct"] = table["ct"].to_numpy()[::-1]
    prepare_cohort(table, tmp_path / "cohort", **SMALL)
    means = [read_image(tmp_path / "cohort" / "images" / name / "lesion.nii.gz")[:, 6:18, 6:18].mean() for name in "AB"]
    assert means == [-24, 0]


def test_scans_of_several_patients_are_not_one(tmp_path):
    simulated = make_scans(tmp_path / "scans", n_patients=2, random_state=0).scans.rename(
        columns={"structures": "lesion"}
    )
    table = simulated.assign(ct=simulated["ct"].to_numpy()[::-1])
    with pytest.warns(UserWarning, match="different PatientID, so that files of several patients are mixed"):
        log = prepare_cohort(table, tmp_path / "mixed", id=table.index.name, lesion_label="lesion", **SMALL)
    assert log["status"].tolist() == ["failed"] * 2 and not list((tmp_path / "mixed" / "images").iterdir())
    for file in (tmp_path / "scans").rglob("*.dcm"):
        dataset = dcmread(file)
        dataset.PatientID = ""
        dataset.save_as(file)
    how = {"id": table.index.name, "lesion_label": "lesion", **SMALL}
    with pytest.warns(UserWarning, match="2 of 2 patients are not complete"):
        log = prepare_cohort(table.drop(columns="pet"), tmp_path / "unnamed", **how)
    assert log["status"].tolist() == ["partly"] * 2 and not list((tmp_path / "unnamed" / "images").iterdir())
    assert log["reason"].str.contains("^lesion: lesion of patient .* has another frame of reference").all()
    own = simulated.assign(pet=simulated["pet"].to_numpy()[::-1])
    with pytest.warns(UserWarning, match="2 of 2 patients are not complete"):
        log = prepare_cohort(own, tmp_path / "frames", **how)
    assert log["status"].tolist() == ["partly"] * 2
    assert log["reason"].str.contains("^pet: the PET has another frame of reference").all()
    assert len(list((tmp_path / "frames" / "sheets").iterdir())) == 2


def test_a_full_disk_ends_the_run_with_what_is_finished(scans, tmp_path, prepared, monkeypatch):
    real, written = _folder.whole_file, []

    def full(path):
        written.append(path)
        if path.name == "P2.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(_folder, "whole_file", full)
        with pytest.raises(OSError, match="is full; 1 of 3 patients are finished and stay"):
            prepared()
    assert prepared() == ["P2", "P3"]


class Deadly(BaseEstimator):
    """A segmentor that ends its process at one patient."""

    image_column = "ct_image"

    def fit(self, X, y=None):
        self.network_ = None
        return self

    def predict(self, X):
        if X.index[0] == "P2":
            os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"lung_mask": [X["ct_image"].iloc[0].array < -500]}, index=X.index)


@pytest.mark.slow
def test_a_killed_process_loses_its_patient_only(scans, tmp_path):
    with pytest.warns(UserWarning, match="'P2': its process was ended from outside"):
        log = prepare_cohort(
            scans.drop(columns="lung"), tmp_path / "cohort", segmentor=Deadly().fit(None), n_jobs=2, **SMALL
        )
    assert log["status"].tolist() == ["done", "failed", "done"]
    assert load_cohort(tmp_path / "cohort").data["lung_image"].notna().tolist() == [True, False, True]


@pytest.mark.slow
def test_processes_change_nothing(scans, tmp_path):
    pytest.importorskip("fastrad", reason='needs pip install "mmdls[radiomics]"')
    for n_jobs in (None, 2):
        prepare_cohort(scans, tmp_path / f"jobs-{n_jobs}", n_jobs=n_jobs, **SMALL | {"radiomics": True})
    assert contents(tmp_path / "jobs-None") == contents(tmp_path / "jobs-2")


@pytest.mark.slow
def test_a_segmentor_makes_the_masks_that_are_not_there(scans, tmp_path):
    from mmdls import LungLesionSegmentor

    training = pd.DataFrame({"ct_image": scans["ct"], "lung_mask": scans["lung"], "lesion_mask": scans["lesion"]})
    segmentor = LungLesionSegmentor(image_size=32, max_epochs=15, validation_fraction=0, random_state=0).fit(training)
    log = prepare_cohort(scans.drop(columns="lung"), tmp_path / "cohort", segmentor=segmentor, **SMALL)
    true = [read_mask(path).array.sum() * 0.012 for path in scans["lung"]]
    np.testing.assert_allclose(log["lung_ml"], true, rtol=0.2)
    assert log["notes"].str.contains("lung: the mask is the segmentor's").all()
    assert not log["notes"].str.contains("lesion").any()
    with pytest.raises(ValueError, match="other settings: segmentor"):
        other = LungLesionSegmentor(image_size=32, max_epochs=1, validation_fraction=0, random_state=1).fit(training)
        prepare_cohort(scans.drop(columns="lung"), tmp_path / "cohort", segmentor=other, **SMALL)


# -- odd patients ------------------------------------------------------------------------------------------------------


def prepare_one(tmp_path, **row):
    row = {"patient_id": "P1", "ct": None} | row
    settings = SMALL | row.pop("settings", {})
    log = prepare_cohort(pd.DataFrame([row]), tmp_path / "cohort", **settings)
    return log.iloc[0]


@pytest.mark.filterwarnings("ignore:1 of 1 patients")
@pytest.mark.parametrize(
    ("drop", "status", "reason", "images"),
    [
        (("ct",), "done", "", False),  # a PET and its lesion
        (("pet",), "done", "", True),
        (("lung", "lesion", "pet"), "partly", "neither a mask nor a segmentor", False),
        (("ct", "pet"), "failed", "masks and no scan", False),
        (("ct", "pet", "lesion", "lung"), "no scans", "", False),
        (("lesion",), "partly", "a PET and no lesion mask", True),
    ],
)
def test_scans_may_be_missing(tmp_path, drop, status, reason, images):
    row = write_patient(tmp_path / "scans")
    row = prepare_one(tmp_path, **{name: None if name in drop else path for name, path in row.items()})
    assert row["status"] == status and reason in row["reason"]
    assert (tmp_path / "cohort" / "images" / "P1").exists() == images
    X = load_cohort(tmp_path / "cohort").data
    assert list(X.index) == ["P1"]
    # A scan that the patient does not have is no failure; what is lacking is noted.
    assert row["notes"] == ("there is no CT, and so there are no slices and no radiomics" if drop == ("ct",) else "")
    if drop == ("ct",):
        assert X["pet_suvmax"].iloc[0] == 6


@pytest.mark.filterwarnings("ignore:1 of 1 patients")
def test_masks_with_other_voxels_are_refused_or_resampled(tmp_path):
    row = write_patient(tmp_path / "scans", pet=False)
    mask = read_mask(row["lesion"])
    affine = mask.affine @ np.diag([1, 2, 2, 1.0])
    write_nifti(Volume(mask.array[:, ::2, ::2], affine), row["lesion"])
    found = prepare_one(tmp_path, **row)
    assert found["status"] == "partly" and "lesion: lesion of patient 'P1' has other voxels" in found["reason"]
    assert (tmp_path / "cohort" / "images" / "P1" / "space.nii.gz").exists()
    found = prepare_one(tmp_path, settings={"resample_masks": True, "existing": "replace"}, **row)
    assert found["status"] == "done" and found["lesion_ml"] == pytest.approx(mask.array.sum() * 0.012, rel=0.2)


@pytest.mark.filterwarnings("ignore:1 of 1 patients")
def test_empty_masks_and_masks_of_the_wrong_kind(tmp_path):
    row = write_patient(tmp_path / "scans")
    mask = read_mask(row["lesion"])
    write_nifti(Volume(np.zeros_like(mask.array), mask.affine), row["lesion"])
    found = prepare_one(tmp_path, **row)
    assert found["status"] == "partly" and "lesion: the mask is empty" in found["reason"]
    write_nifti(Volume(mask.array.astype(np.uint8) * 3 + 2, mask.affine), row["lesion"])
    assert "lesion: " in prepare_one(tmp_path, **row)["reason"]
    found = prepare_one(tmp_path, settings={"lesion_label": 5, "existing": "replace"}, **row)
    assert found["status"] == "done"
    shifted = read_scan(row["ct"], unit="HU")
    write_nifti(Volume(shifted.array + 1024, shifted.affine), row["ct"])
    assert (
        "expected Hounsfield units"
        in prepare_one(tmp_path, settings={"lesion_label": 5, "existing": "replace"}, **row)["reason"]
    )


def test_a_label_that_a_mask_lacks_is_noted(tmp_path):
    table = pd.DataFrame([{"patient_id": "a", **write_patient(tmp_path / "a", pet=False)}])
    log = prepare_cohort(table, tmp_path / "cohort", lung_label=[1, 7], **SMALL)
    assert log["notes"].tolist() == ["lung: nothing has the label 7"] and log["lung_7_ml"].tolist() == [0]


def test_of_two_lesions_the_larger_is_cut_out_and_both_are_measured(tmp_path):
    row = write_patient(tmp_path / "scans", lesions=((20.0, 22.0, 16.0), (9.0, 44.0, 30.0)))
    mask = read_mask(row["lesion"])
    small = mask.array.copy()
    small[:, 18:] &= np.random.default_rng(0).random(small[:, 18:].shape) < 0.6
    write_nifti(Volume(small, mask.affine), row["lesion"])
    found = prepare_one(tmp_path, **row)
    assert found["n_lesions"] >= 2 and "the slices are those of the largest one" in found["notes"]
    assert found["lesion_ml"] == pytest.approx(small.sum() * 0.012)
    written = read_mask(tmp_path / "cohort" / "images" / "P1" / "lesion_mask.nii.gz")
    centre = written.places((np.array(written.shape) - 1) / 2)
    assert np.abs(centre[:2] - [16, 22]).max() <= 1.5


def test_names_of_files_are_plain_and_unique_and_ids_come_back(tmp_path):
    row = write_patient(tmp_path / "scans", pet=False)
    del row["lung"]
    ids = [
        "a/b",
        "a_b",
        "../x",
        "..",
        "P1",
        "p1",
        "Jürgen Ö",
        "日本",
        "con",
        "x" * 90,
        "007",
        "=1+1",
        "'=1+1",
        "'s-Gravenhage",
        "-5",
    ]
    log = prepare_cohort(
        pd.DataFrame([{"patient_id": one, **row} for one in ids]), tmp_path / "out" / "cohort", **SMALL
    )
    assert list(log.index) == ids
    folders = [path.name for path in (tmp_path / "out" / "cohort" / "images").iterdir()]
    assert len({name.casefold() for name in folders}) == len(ids) and {"a_b", "007"} <= set(folders)
    assert all(name.isascii() and len(name) < 80 and not set(name) & set("/\\ ") for name in folders)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cohort"]
    X = load_cohort(tmp_path / "out" / "cohort").data
    assert list(X.index) == ids and X["lesion_image"].notna().all()
    assert X["lesion_image"].nunique() == len(ids)


def test_tables_that_cannot_be_used(scans, tmp_path):
    twice = pd.concat([scans, scans[:1]])
    for table, how, message in (
        (twice, {}, "more than one row for the patients .'P1'"),
        (scans.drop(columns=["ct", "pet"]), {}, "neither a column 'ct' nor 'pet'"),
        (scans.drop(columns="ct"), {}, "no column 'ct' with the paths of the CTs.*ct=None"),
        (
            scans.assign(CT=scans["ct"], Ct=scans["ct"]).drop(columns="ct"),
            {},
            "columns .'CT', 'Ct'., and each may be 'ct'",
        ),
        (scans, {"lesion": "gtv"}, "lacks the columns .'gtv'"),
        (scans, {"id": "case"}, "lacks the columns .'case'.. id= names"),
        (scans, {"n_slices": 0}, "n_slices"),
        (scans, {"lesion_size": -1.0}, "lesion_size"),
        (scans, {"ids": "no"}, "ids must be one of"),
        (scans, {"radiomics": {"bin_widht": 2}}, "bin_widht"),
        (scans, {"radiomics": {"n_jobs": 2}}, "decides itself"),
        (scans, {"lung_label": []}, "empty list"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            prepare_cohort(table, tmp_path / "cohort", **SMALL | how)
    assert not (tmp_path / "cohort").exists()
    with pytest.raises(TypeError, match="are paths; got ndarray"):
        prepare_cohort(pd.DataFrame({"patient_id": ["a"], "ct": [np.zeros(3)]}), tmp_path / "cohort", **SMALL)


def test_names_of_columns_count_in_any_case_and_ids_may_be_the_index(scans, tmp_path):
    rows = scans[:1].drop(columns="pet")
    expected = prepare_cohort(rows, tmp_path / "plain", **SMALL)
    other = rows.rename(columns={"ct": "CT ", "lesion": "Lesion", "lung": "LUNG"}).rename_axis("Pat. No")
    assert prepare_cohort(other, tmp_path / "other", **SMALL).equals(expected)
    assert contents(tmp_path / "other" / "images") == contents(tmp_path / "plain" / "images")
    assert prepare_cohort(other, tmp_path / "named", id="pat. no", ct="ct", **SMALL).equals(expected)


def test_a_long_text_is_no_path(scans, tmp_path):
    with pytest.raises(ValueError, match="are paths; got a text of 300 letters"):
        prepare_cohort(scans.assign(lesion="x" * 300), tmp_path / "cohort", **SMALL)


def test_a_title_and_empty_rows_of_a_file(scans, tmp_path):
    rows = scans[:1].drop(columns="pet").reset_index()
    lines = [["Our cohort"] + [None] * (rows.shape[1] - 1), list(rows.columns), *rows.to_numpy(dtype=object).tolist()]
    lines.insert(2, [None] * rows.shape[1])
    pd.DataFrame(lines).to_csv(tmp_path / "table.csv", header=False, index=False)
    with pytest.raises(ValueError, match="Most columns have no name.*header=2"):
        prepare_cohort(tmp_path / "table.csv", tmp_path / "cohort", **SMALL)
    with pytest.warns(UserWarning, match="1 empty rows of the table are dropped"):
        log = prepare_cohort(tmp_path / "table.csv", tmp_path / "cohort", header=1, **SMALL)
    assert log["status"].to_dict() == {"P1": "done"}


def test_a_file_in_another_encoding_is_read_where_said(scans, tmp_path):
    rows = scans[:1].drop(columns="pet").reset_index(names="patient_id").assign(patient_id="J\u00f6rg")
    rows.to_csv(tmp_path / "table.csv", index=False, encoding="cp1252")
    with pytest.raises(ValueError, match="encoding='cp1252'"):
        prepare_cohort(tmp_path / "table.csv", tmp_path / "cohort", **SMALL)
    log = prepare_cohort(tmp_path / "table.csv", tmp_path / "cohort", encoding="cp1252", **SMALL)
    assert log.index.tolist() == ["J\u00f6rg"]


def test_patients_with_a_pet_alone_are_asked_for(scans, tmp_path):
    log = prepare_cohort(scans[:1].drop(columns="ct"), tmp_path / "cohort", ct=None, **SMALL)
    assert log["status"].item() == "done" and "there is no CT, and so there are no slices" in log["notes"].item()


def test_a_path_that_leads_nowhere_is_shown_and_not_written(scans, tmp_path):
    rows = scans[:1].drop(columns="pet").reset_index()
    rows["ct"] = "scans/Muster_Erika/11/ct"
    rows.to_csv(tmp_path / "table.csv", index=False)
    with pytest.warns(
        UserWarning, match="There is nothing at 'scans/Muster_Erika/11/ct', seen from the folder"
    ) as caught:
        prepare_cohort(tmp_path / "table.csv", tmp_path / "cohort", **SMALL)
    assert not any(str(tmp_path) in str(warning.message) for warning in caught)
    assert b"Muster" not in everything(tmp_path / "cohort")
    outside = rows.assign(ct="/data/Muster_Erika/ct")
    with pytest.warns(UserWarning, match="There is nothing at '.../ct'"):
        prepare_cohort(outside, tmp_path / "outside", **SMALL)
    many = pd.concat([rows] * 5).assign(patient_id=list("ABCDE"), ct=[f"ct/{i}" for i in range(5)])
    many[["patient_id", "ct"]].to_csv(tmp_path / "many.csv", index=False)
    said = "5 of 5 patients.*The first ones, 'A': .*'B': .*'C': .*nothing at 'ct/0', 'ct/1', 'ct/2' and 2 more places"
    with pytest.warns(UserWarning, match=said):
        prepare_cohort(tmp_path / "many.csv", tmp_path / "many", **SMALL)


def test_structures_are_named_by_their_argument_and_a_reason_stands_once(tmp_path):
    simulated = make_scans(tmp_path / "scans", n_patients=1, random_state=0).scans
    table = simulated[["ct", "pet"]].assign(lesion=simulated["structures"])
    for label, message in (
        (None, "has 3 structures; choose one by lesion_label="),
        ("GTV", "no structures called 'GTV'"),
    ):
        with pytest.warns(UserWarning, match=message):
            log = prepare_cohort(table, tmp_path / f"cohort {label}", lesion_label=label, ids="keep", **SMALL)
        assert log["reason"].item().count("choose one") == 1
        assert "; pet: for the same reason as lesion" in log["reason"].item() and ".;" not in log["reason"].item()


# -- identity ----------------------------------------------------------------------------------------------------------

HEADERS = {
    "PatientName": "Muster^Erika",
    "PatientID": "X-4711-Q",
    "PatientBirthDate": "19470229",
    "AccessionNumber": "ACC-998877",
    "InstitutionName": "Klinik Musterstadt",
    "StudyDate": "20200301",
    "ReferringPhysicianName": "Kurz^Anna",
    "StationName": "CTSTATION7",
    "StudyDescription": "Thorax fuer Muster",
}
SECRETS = ["Muster", "Erika", "4711", "19470229", "1947-02-29", "998877", "Klinik", "20200301", "Kurz", "CTSTATION7",
           "1.2.826.0.1.3680043.8.498"]  # fmt: skip


def write_dicom(folder, ct=None):
    """A CT of a person, whose name is also in the paths, and a lesion mask."""
    if ct is None:
        ct = np.zeros((8, 24, 24), dtype=np.int16) + 1024
        ct[:, :6] = 24
    place = folder / "Muster^Erika 4711"
    scanner.write_series(place / "ct", ct, spacing=(2.0, 2.0), **HEADERS)
    volume = read_scan(place / "ct")
    mask = np.zeros(volume.shape, dtype=bool)
    mask[2:6, 8:16, 8:16] = True
    write_nifti(Volume(mask, volume.affine), place / "lesion 4711.nii.gz")
    return {"ct": str(place / "ct"), "lesion": str(place / "lesion 4711.nii.gz")}


def revealed(folder):
    found = everything(folder).lower()
    return [secret for secret in SECRETS if secret.lower().encode() in found]


def test_nothing_of_a_header_reaches_a_file(tmp_path):
    row = write_dicom(tmp_path)
    log = prepare_cohort(pd.DataFrame([{"patient_id": "case-1", **row}]), tmp_path / "cohort", **SMALL)
    assert log["status"].tolist() == ["done"]
    assert revealed(tmp_path / "cohort") == []


@pytest.mark.filterwarnings("ignore:1 of 1 patients")
@pytest.mark.parametrize("damage", ["cut", "text", "stray", "second", "lost", "no mask", "geometry", "tilt", "label"])
def test_errors_reveal_nothing(tmp_path, damage):
    row = write_dicom(tmp_path)
    files = sorted((tmp_path / "Muster^Erika 4711" / "ct").iterdir())
    how = dict(SMALL)
    if damage == "cut":
        files[0].write_bytes(files[0].read_bytes()[:900])
    elif damage == "text":
        files[0].write_bytes(files[0].read_bytes()[:-20] + b"Muster^Erika")
        (files[0].parent / "Muster.dcm").write_bytes(b"Erika")
    elif damage == "stray":
        for file in files:
            file.unlink()
        (files[0].parent / "Muster_Erika.bmp").write_bytes(b"BM")
    elif damage == "second":
        scanner.write_series(files[0].parent / "b", np.zeros((4, 24, 24), np.int16), **HEADERS)
        for file in (files[0].parent / "b").iterdir():
            file.rename(files[0].parent / f"Erika-{file.name}")
        (files[0].parent / "b").rmdir()
    elif damage == "lost":
        row["ct"] = row["ct"] + "-Erika"
    elif damage == "no mask":
        row["lesion"] = row["lesion"] + "-Erika"
    elif damage == "geometry":
        write_nifti(Volume(np.ones((3, 4, 5), np.uint8), np.eye(4)), row["lesion"])
    elif damage == "tilt":
        files[0].unlink()
        files[-1].unlink()
        files[3].unlink()
    elif damage == "label":
        how["lesion_label"] = "GTV"
    log = prepare_cohort(pd.DataFrame([{"patient_id": "case-1", **row}]), tmp_path / "cohort", **how)
    assert log["status"].iloc[0] in ("failed", "partly") and len(log["reason"].iloc[0]) > 20
    assert revealed(tmp_path / "cohort") == []


def test_texts_are_cleaned_of_what_headers_and_paths_hold(tmp_path):
    row = write_dicom(tmp_path)
    clean = without_identity(row)
    file = next(iter(sorted(Path(row["ct"]).iterdir()))).name
    text = f"{row['ct']!r}, {file!r}: MUSTER, erika (X-4711-Q, 19470229), Klinik Musterstadt, 1.2.840.99.1.7, 5 slices"
    found = clean(text)
    assert found == "ct, a file of ct: ***, *** (***, ***), ***, ***, 5 slices"
    one_file = without_identity({**row, "lung": row["lesion"]})
    assert one_file(f"{row['lesion']!r} is empty") == "lesion and lung is empty"


@pytest.mark.parametrize("text", ["Müller", "Mu\u0308ller", "Jörg M.", "12345", "12345.0", "27.02.1947", "02/27/1947"])
def test_identifying_values_are_known_however_they_are_written(tmp_path, text):
    headers = {"PatientName": "Müller^Jörg", "PatientID": "0012345", "PatientBirthDate": "19470227"}
    scanner.write_series(tmp_path / "ct", SpecificCharacterSet="ISO_IR 192", **headers)
    known = identifiers([str(tmp_path / "ct")], every_file=False)
    assert is_identifying(text, known) and not is_identifying("123450", known) and not is_identifying("1947", known)
    if text[0] in "MJ":
        assert "ller" not in without_identity({"ct": str(tmp_path / "ct")})(f"contours of {text.split()[0]}: none")


def test_ids_that_are_in_the_headers_are_refused_kept_or_numbered(tmp_path):
    row = write_dicom(tmp_path)
    for one in ("X-4711-Q", "x4711q", "Erika_M", "study X-4711-Q", "1.2.826.0.1.3680043.8.498.17"):
        table = pd.DataFrame([{"patient_id": one, **row}])
        if one.startswith("1."):
            table["patient_id"] = str(scanner.series_uid(row["ct"]))
        with pytest.raises(ValueError, match="ids of 1 patients .rows .1.. stand in the headers"):
            prepare_cohort(table, tmp_path / "cohort", **SMALL)
        assert not (tmp_path / "cohort").exists()
    table = pd.DataFrame([{"patient_id": "X-4711-Q", "clinical_age": 72, **row}])
    log = prepare_cohort(table, tmp_path / "numbered", ids="number", **SMALL)
    assert log["source_id"].to_dict() == {"patient-0001": "X-4711-Q"} and revealed(tmp_path / "numbered") == []
    assert list(load_cohort(tmp_path / "numbered").data.index) == ["patient-0001"]
    prepare_cohort(table, tmp_path / "kept", ids="keep", **SMALL)
    assert revealed(tmp_path / "kept") == ["4711"]
    with pytest.raises(ValueError, match="columns .'clinical_born', 'centre'|'centre', 'clinical_born'"):
        carried = table.assign(clinical_born="1947-02-29", centre="Klinik Musterstadt")
        prepare_cohort(carried, tmp_path / "cohort", ids="number", **SMALL)


# -- real patient ------------------------------------------------------------------------------------------------------

PUBLISHED = "golden_pyradiomics_LUNG1-001.json"
# docs/radiomics.md: the published values come from another triangulation.
OTHER_SURFACE = {"mesh_volume", "sphericity", "surface_area", "surface_volume_ratio"}
# Published values count 1024 HU more.
SHIFTED = {"10th_percentile", "90th_percentile", "maximum", "mean", "median", "minimum"}


@pytest.mark.slow
def test_a_real_patient_has_the_published_volumes_and_radiomics(data_dir, tmp_path):
    place = data_dir / "lung1_001"
    row = {
        "patient_id": "LUNG1-001",
        "ct": str(place / "LUNG1-001_ct_hu.nii.gz"),
        "lesion": str(place / "LUNG1-001_rtstruct.dcm"),
        "lung": str(place / "LUNG1-001_lungs_label.nii.gz"),
    }
    how = {"lesion_label": "GTV-1", "lung_label": [1, 2], "radiomics": False}
    with pytest.raises(ValueError, match="ids='keep' if they are pseudonyms"):
        prepare_cohort(pd.DataFrame([row]), tmp_path / "contours", **how)
    log = prepare_cohort(pd.DataFrame([row]), tmp_path / "contours", ids="keep", **how).iloc[0]
    assert log["status"] == "done"
    for name, volume in (("lesion_ml", 156.3), ("lung_1_ml", 2966), ("lung_2_ml", 2277), ("lung_ml", 2966 + 2277)):
        assert log[name] == pytest.approx(volume, rel=0.01)
    # The published values were computed on voxels of 1 mm and HU + 1024. Bins begin at multiples of their width, so
    # that of HU - 1 has the same ones.
    for name, file in (("ct", "ct_hu"), ("lesion", "gtv1_mask")):
        volume = read_scan(place / f"LUNG1-001_{file}.nii.gz")
        array = volume.array - 1 if name == "ct" else volume.array
        write_nifti(Volume(array.astype(np.int16), UPRIGHT), tmp_path / f"{name}.nii.gz")
        row[name] = str(tmp_path / f"{name}.nii.gz")
    del row["lung"]
    prepare_cohort(pd.DataFrame([row]), tmp_path / "published")
    found = load_cohort(tmp_path / "published").data.iloc[0].filter(like="radiomics_")
    found.index = found.index.str.removeprefix("radiomics_")
    plain = {name.replace("_", ""): name for name in found.index}
    published, compared = json.loads((place / PUBLISHED).read_text()), 0
    for family in ("firstorder", "shape", "GLCM", "GLRLM"):
        for name, value in published[family].items():
            ours = plain.get((family + name.replace("0Percentile", "0thpercentile")).lower())
            if ours is None:
                continue  # two features that PyRadiomics itself leaves out, since others say the same
            feature = ours.partition("_")[2]
            number = found[ours] + 1025 * (family == "firstorder" and feature in SHIFTED)
            if feature in ("energy", "total_energy", "root_mean_squared"):
                mean, n = found["firstorder_mean"], found["shape_voxel_volume"]
                energy = found["firstorder_energy"] + n * (2 * 1025 * mean + 1025**2)
                number = np.sqrt(energy / n) if feature == "root_mean_squared" else energy
            assert number == pytest.approx(value, rel=5e-3 if feature in OTHER_SURFACE else 1e-6), ours
            compared += 1
    assert compared == 72


# -- the whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_simulated_scans_to_a_report(tmp_path):
    from mmdls import MMDLS, SliceEncoder, Trainer, evaluate
    from mmdls.report import report

    found = make_scans(tmp_path / "scans", n_patients=12, random_state=0)
    table = found.scans.assign(lung=found.scans["structures"]).join(found.data).join(found.target)
    log = prepare_cohort(
        table,
        tmp_path / "cohort",
        lesion="structures",
        lesion_label="lesion",
        lung_label=["lung-left", "lung-right"],
        radiomics={"spacing": 2.0},
    )
    assert (log["status"] == "done").all()
    assert (log["lesion_ml"] / found.truth["lesion_ml"] - 1).abs().max() < 0.08
    X, y = load_cohort(tmp_path / "cohort", return_X_y=True)
    assert (X["pet_suvmax"] / found.truth["lesion_suv"] - 1).abs().max() < 0.01
    pd.testing.assert_frame_equal(y, found.target, check_names=False)
    model = MMDLS(image_encoder=SliceEncoder(image_size=32), trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    report({"MMDLS": model}, X, y, tmp_path / "report.html", n_resamples=20)
    assert len(evaluate(model, X, y)) and (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_about_preparation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of("docs/preparation.md"), "preparation.md", "exec"), {})
    assert capsys.readouterr().out.strip() == re.search(r"```\n(\{.*\})\n```", page("docs/preparation.md"))[1]
