"""Cells that are scans, in SliceEncoder and MMDLS: what is seen is the same in every format, alone and in the batch."""

import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from sklearn.base import clone
from sklearn.model_selection import KFold

from mmdls import MMDLS, LungLesionSegmentor, OptunaSearch, SliceEncoder, Trainer
from mmdls.datasets import make_scans
from mmdls.images import fingerprint
from mmdls.scans import ScanView, Volume, read_mask, read_scan, write_nifti, write_segmentation
from tests.scanner import write_series

pydicom = pytest.importorskip("pydicom")
sitk = pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

VIEW = ScanView(["lung", "mediastinum"], spacing=(None, 4, 4), crop=(None, 64, 64), n_slices=3)
CT = ["ct_image", "ct_mask"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Simulated patients, and the first one's scan and mask in every form of a cell."""
    folder = tmp_path_factory.mktemp("scans")
    found = make_scans(folder, 4, random_state=0)
    paths = found.scans.iloc[0]
    ct = read_scan(paths["ct"])
    lesion = read_mask(paths["structures"], ct, label="lesion")
    write_nifti(ct, folder / "ct.nii.gz")
    write_nifti(lesion, folder / "lesion.nii.gz")
    for volume, names in ((ct, ("ct.nrrd", "ct.mha")), (lesion, ("lesion.nrrd",))):
        image = sitk.GetImageFromArray(volume.array.astype(np.int16))
        image.SetSpacing(volume.spacing[::-1])
        image.SetOrigin(volume.affine[:3, 3].tolist())
        for name in names:
            sitk.WriteImage(image, str(folder / name))
    images = [paths["ct"], Path(paths["ct"]), folder / "ct.nii.gz", str(folder / "ct.nrrd"), folder / "ct.mha", ct]
    masks = [paths["structures"], str(folder / "lesion.nii.gz"), folder / "lesion.nrrd", lesion]
    return found, images, masks


@pytest.fixture
def table(scans):
    """DICOM cells of all patients, one of whom has none."""
    found, _, _ = scans
    X = pd.DataFrame({"ct_image": found.scans["ct"], "ct_mask": found.scans["structures"]}, dtype=object)
    X.iloc[3] = None
    return X


def column(cells, name="ct_image"):
    return pd.DataFrame({name: pd.Series(list(cells), dtype=object)})


def prepared(X, **params):
    return SliceEncoder(**{"mask_label": "lesion", "scan": VIEW, **params}).prepare(X)


def test_every_form_of_a_cell_gives_the_same_slices(scans):
    _, images, masks = scans
    pairs = [(image, masks[0]) for image in images] + [(images[0], mask) for mask in masks[1:]]
    X = pd.DataFrame(pairs, columns=CT)
    data = prepared(X)
    assert data.item_shape == (2, 16, 16) and data.counts.tolist() == [3] * len(pairs)
    first = data.store.data[:3]
    assert first[:, 0].std() > 0.1 and not np.array_equal(first[:, 0], first[:, 1])
    for start in range(3, len(data.store.data), 3):
        np.testing.assert_allclose(data.store.data[start : start + 3].astype(float), first, atol=2e-3)
    scan, lesion = read_scan(images[0]), read_mask(masks[0], read_scan(images[0]), label="lesion")
    np.testing.assert_array_equal(first, VIEW.intensities(*VIEW.cut(scan, lesion)).astype(np.float16))


def test_without_a_view_a_scan_is_the_array_that_it_holds(scans):
    _, images, masks = scans
    ct, lesion = images[-1], masks[-1]
    dicom = pd.DataFrame({"ct_image": [images[0]], "ct_mask": [masks[0]]})
    array = pd.DataFrame({"ct_image": [ct.array], "ct_mask": [lesion.array]})
    for columns in (CT, CT[:1]):
        for window in ((-1350, 150), (-160, 240)):
            one, other = (prepared(X[columns], scan=None, intensity_range=window) for X in (dicom, array))
            assert np.array_equal(one.store.data, other.store.data) and one.counts.tolist() == [16]
    lung = prepared(array, scan=None, intensity_range=(-1350, 150)).store
    for image in (images[0], ct):
        X = pd.DataFrame({"ct_image": [image], "ct_mask": [masks[0]]})
        assert np.array_equal(prepared(X, scan=None).store.data, lung.data)
    with pytest.raises(ValueError, match=r"Pass intensity_range=\(low, high\)"):
        prepared(column([images[3]]), scan=None)


def test_one_patient_is_seen_as_in_the_batch(table):
    data = prepared(table[CT])
    assert data.present.tolist() == [True, True, True, False]
    for row in range(len(table)):
        alone = prepared(table[CT].iloc[[row]])
        assert alone.item_shape == (2, *alone.store.image_size)
        index, _ = data.index_of(np.array([row]))
        assert alone.counts[0] == data.counts[row]
        assert np.array_equal(alone.store.data.ravel(), data.store.data[index].ravel())
    several = prepared(table[CT], memory=None, image_size=12)
    assert several.item_shape == (2, 12, 12)


def test_cells_of_several_kinds_are_seen_alike_alone_and_together(scans):
    """Greys, whose window was chosen before, beside scans in HU and floats."""
    _, images, masks = scans
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 70, 90)).astype(np.uint8)
    cells = [grey, images[0], None, rng.uniform(size=(2, 70, 90)), images[-1]]
    X = column(cells)
    how = {"scan": None, "max_image_size": None}
    data = prepared(X, **how)
    assert data.counts.tolist() == [3, 16, 0, 2, 16]
    for row in (0, 1, 3, 4):
        alone = prepared(X.iloc[[row]], **how)
        index, _ = data.index_of(np.array([row]))
        assert torch.equal(alone.read(np.arange(len(index))), data.read(index))
    assert torch.equal(data.read(np.arange(3))[:, 0], torch.as_tensor(grey / np.float32(255)))
    with pytest.raises(ValueError, match="holds greys"):
        prepared(X, intensity_range=(-1350, 150), **how)


TILTED = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1.0]])
TURNS = {
    "straight": np.eye(3),
    "oblique": TILTED,
    "from the feet": np.diag([-1.0, 1, -1]),
    "prone": np.diag([-1.0, -1, 1]),
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_the_same_body_is_seen_the_same_however_it_was_scanned(tmp_path, turn):
    """Each series samples one linear field; slices of the view hold that field at the places they claim."""
    stored = np.zeros((9, 40, 30), np.int16)
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * [3.0, 1.5, 1.5]
    affine[:3, 3] = [-20.0, 30.0, 100.0]
    scan = Volume(stored, affine)
    places = scan.places(np.moveaxis(np.indices(stored.shape), 0, -1))
    field = np.rint(places @ [4.0, 6.0, 5.0]).astype(np.int16)
    write_series(tmp_path / "ct", field + np.int16(1024), step=3.0, spacing=(1.5, 1.5), turn=turn)
    inside = np.zeros(stored.shape, bool)
    inside[3:6, 15:25, 12:20] = True
    inside[4, 12:28, 10:22] = True
    write_nifti(Volume(inside, affine, "label"), tmp_path / "mask.nii.gz")
    middle = scan.places((4, 19.5, 15.5))
    X = pd.DataFrame({"ct_image": [str(tmp_path / "ct")], "ct_mask": [tmp_path / "mask.nii.gz"]})
    view = ScanView((-500, 1500), spacing=(None, 1, 1), crop=(None, 20, 20), n_slices=1)
    seen = prepared(X, scan=view).store.data.astype(float) * 2000 - 500
    part, _ = view.cut(*view.read(*X.iloc[0]))
    np.testing.assert_allclose(part.places((0, 9.5, 9.5)), middle, atol=1e-4)
    expected = part.places(np.moveaxis(np.indices((1, 20, 20)), 0, -1)) @ [4.0, 6.0, 5.0]
    np.testing.assert_allclose(seen, expected, atol=2.1)
    assert part.affine[0, 2] > 0 and part.affine[1, 1] > 0, "columns run to the left, rows to the back"


def test_slices_without_a_structure_are_thinned_evenly(scans):
    _, images, _ = scans
    whole = prepared(column([images[0]]), scan=ScanView(), max_slices=None, max_image_size=None).store.data
    few = prepared(column([images[0]]), scan=ScanView(), max_slices=5, max_image_size=None).store.data
    assert np.array_equal(few, whole[np.linspace(0, len(whole) - 1, 5).round().astype(int)])


def test_pet_is_seen_in_suv(scans):
    found, _, _ = scans
    X = column(found.scans["pet"].iloc[:2], "pet_image")
    data = prepared(X, scan=ScanView((0, 20), unit="SUV"), max_slices=None)
    suv = read_scan(X.iloc[0, 0], unit="SUV").array
    assert data.store.data[: len(suv)].max() == np.float16((suv.max() / 20).clip(0, 1))
    with pytest.raises(ValueError, match=r"in 'pet_image': .*is in Bq/mL; scan=ScanView\(.*unit='SUV'"):
        prepared(X, scan=None, intensity_range=(0, 20))
    with pytest.raises(ValueError, match="in 'pet_image': .*HU"):
        prepared(X, scan=None, intensity_range=(-1350, 150))


def test_kept_slices_are_made_anew_if_files_or_parameters_change(scans, tmp_path):
    found, images, masks = scans
    place = tmp_path / "ct"
    shutil.copytree(images[0], place)
    X = pd.DataFrame({"ct_image": [str(place)], "ct_mask": [masks[0]]})
    memory = tmp_path / "memory"

    def kept(**params):
        return prepared(X, memory=memory, **params).store

    first = kept()
    assert kept().key == first.key
    assert np.array_equal(kept().data, prepared(X).store.data)
    other = kept(scan=clone(VIEW).set_params(spacing=(None, 2, 2)))
    assert other.key != first.key and other.image_size == (32, 32)
    assert len({kept(scan=s).key for s in (VIEW, ScanView(n_slices=3), ScanView(["lung"], n_slices=3), None)}) == 4
    files = sorted(place.iterdir())
    files[0].rename(place / "zz.dcm")
    assert kept().key == first.key, "the names of DICOM files do not count"
    for file in sorted(place.iterdir())[10:]:
        content = bytearray(file.read_bytes())
        content[-12000:] = bytes(12000)
        file.write_bytes(content)
    assert kept().key != first.key and not np.array_equal(kept().data, first.data)


def test_volumes_in_memory_and_headers_beside_their_voxels_have_fingerprints(scans, tmp_path):
    _, images, _ = scans
    ct = images[-1]
    moved = Volume(ct.array, ct.affine + np.eye(4, k=3), "HU")
    cells = [ct, moved, Volume(ct.array + 1, ct.affine, "HU"), (ct.array, 2.0), (ct.array, 3.0), ct.array, *images[2:5]]
    assert len({fingerprint(cell) for cell in cells}) == len(cells)
    assert fingerprint(ct) == fingerprint(Volume(ct.array.copy(), ct.affine.copy(), "HU", "CT"))
    image = sitk.ReadImage(str(images[3]))
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    before = fingerprint(tmp_path / "a.mhd")
    (voxels,) = (file for file in tmp_path.iterdir() if file.suffix != ".mhd")
    voxels.write_bytes(voxels.read_bytes()[::-1])
    assert fingerprint(tmp_path / "a.mhd") != before


def test_a_patient_who_cannot_be_read_is_named_with_column_and_path(scans, table, tmp_path):
    _, images, masks = scans
    broken = tmp_path / "ct"
    shutil.copytree(images[0], broken)
    sorted(broken.iterdir())[7].unlink()
    for file in broken.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID = "Weber^Anna", "471108"
        dataset.save_as(file)
    table.iloc[1, 0] = str(broken)
    patient = table.index[1]
    said = f"in 'ct_image' and 'ct_mask': '{broken}' of patient '{patient}'"
    for view in (VIEW, None):
        with pytest.raises(ValueError, match=said) as error:
            prepared(table[CT], scan=view)
        assert not {"Weber", "471108"} & set(re.findall(r"\w+", str(error.value)))
    table.iloc[1, 0] = str(tmp_path / "gone")
    for view in (VIEW, None):
        with pytest.raises(FileNotFoundError, match=f"gone' of patient '{patient}'"):
            prepared(table[CT], scan=view)
    with pytest.raises(ValueError, match="has no structure|'nodule'"):
        prepared(table[CT].iloc[:1], mask_label="nodule")


def test_what_a_view_needs_is_asked_for(scans, table, tmp_path):
    _, images, masks = scans
    pictures = tmp_path / "png"
    pictures.mkdir()
    (pictures / "1.png").write_bytes(b"never opened")
    with pytest.raises(ValueError, match=r"need the mask of 'ct_image'; give the encoder its column"):
        prepared(table[["ct_image"]])
    table.iloc[2, 1] = None
    with pytest.raises(ValueError, match=rf"1 patients have an image .* no mask in 'ct_mask'.*'{table.index[2]}'"):
        prepared(table[CT])
    with pytest.warns(UserWarning, match="'ct_mask' is not read"):
        prepared(table[CT].iloc[:1], scan=ScanView())
    with pytest.raises(ValueError, match="intensity_range and scan are both given"):
        prepared(table[CT].iloc[:1], intensity_range=(0, 1))
    pixels = np.zeros((3, 8, 8), np.float32) - 500
    with pytest.raises(ValueError, match=r"in 'ct_image': .*patient 0 has no voxel size, .*\(array, spacing\)"):
        prepared(column([pixels]), scan=ScanView(spacing=1.0))
    with pytest.raises(ValueError, match="in 'ct_image' of patient 0: spacing is one length"):
        prepared(column([(pixels, -1)]), scan=None)
    for mask, reason in ((pixels, "an array without a place"), (str(pictures), "no place in the patient")):
        with pytest.raises(ValueError, match=f"in 'ct_image' and 'ct_mask': .*{reason}"):
            prepared(pd.DataFrame({"ct_image": [images[0]], "ct_mask": [mask]}))
    for image in (pixels, np.zeros((3, 8, 8))):
        X = pd.DataFrame({"ct_image": [image], "ct_mask": [masks[0]]})
        with pytest.raises((TypeError, ValueError), match="in 'ct_image' and 'ct_mask': .*no voxel size"):
            prepared(X, scan=None, intensity_range=(-1350, 150))
    assert prepared(column([pixels]), scan=ScanView()).item_shape == (1, 8, 8)
    assert prepared(column([(pixels, 2.0)]), scan=ScanView(spacing=1.0)).item_shape == (1, 16, 16)


def outcomes(table):
    return pd.DataFrame({"os_time": [5.0, 9.0, 12.0, 20.0], "os_event": [1, 1, 1, 0]}, index=table.index)


def models():
    small = {"embedding_dim": 4, "image_size": 16}
    how = {"trainer": Trainer(max_epochs=1), "random_state": 0}
    encoder = SliceEncoder(scan=VIEW, mask_label="lesion", **small)
    return {
        "plain": MMDLS(image_encoder=SliceEncoder(**small), modalities={"ct": ["ct_image"]}, **how),
        "view": MMDLS(image_encoder=encoder, modalities={"ct": CT}, **how),
        "set": MMDLS(image_encoder=SliceEncoder(**small), modalities={"ct": CT}, **how),
    }


@pytest.mark.filterwarnings("ignore:.*have none of the modalities")
def test_mmdls_learns_and_predicts_from_dicom(table):
    y = outcomes(table)
    model = clone(models()["view"]).fit(table, y)
    together = model.predict(table)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.predict(table.iloc[[1]]), together.iloc[[1]], rtol=1e-5)
    assert np.isfinite(again.predict(table.assign(ct_image=None, ct_mask=None))).all(axis=None)


@pytest.mark.slow
def test_a_view_is_set_through_the_model(table):
    table.iloc[3] = table.iloc[0]
    y = outcomes(table)
    views = {f"image_encoder__scan__{name}": value for name, value in VIEW.get_params().items()}
    chosen = models()
    chosen["set"].set_params(image_encoder__mask_label="lesion", **views)
    answers = {name: clone(model).fit(table, y).predict(table) for name, model in chosen.items()}
    assert answers["view"].equals(answers["set"]) and not answers["view"].equals(answers["plain"])
    space = {"image_encoder__scan__spacing": CategoricalDistribution([4.0, 5.0])}
    search = OptunaSearch(chosen["view"], search_space=space, n_trials=2, cv=KFold(2), random_state=0, scoring=length)
    assert search.fit(table, y).best_params_["image_encoder__scan__spacing"] in (4.0, 5.0)


def length(model, X, y):
    return len(model.predict(X))


def test_a_segmentor_learns_from_contours_and_finds_masks_in_every_form_of_a_scan(scans, table, tmp_path):
    _, images, _ = scans
    X = table.iloc[:2].set_axis(["ct_image", "lung_mask"], axis=1).assign(lesion_mask=table["ct_mask"])
    lungs = ["lung-left", "lung-right"]
    small = {"image_size": 32, "max_epochs": 1, "validation_fraction": 0, "augment": False, "random_state": 0}
    learned = LungLesionSegmentor(lung_label=lungs, lesion_label="lesion", **small).fit(X)
    arrays = X.copy()
    for patient, (ct_path, structures, _) in X.iterrows():
        ct = read_scan(ct_path)
        left, right, lesion = (read_mask(structures, ct, label=name).array for name in (*lungs, "lesion"))
        arrays.loc[patient] = [ct.array, left | right, lesion]
    found = learned.predict(X)
    again = LungLesionSegmentor(**small, lung_components=2).fit(arrays)
    assert again.history_["train_loss"].tolist() == learned.history_["train_loss"].tolist()
    assert again.score(arrays) == learned.score(X)
    for name, masks in again.predict(arrays[["ct_image"]]).items():
        assert all(map(np.array_equal, masks, found[name]))
    first = found["lung_mask"].iloc[0]
    for image in images[2:]:
        assert np.array_equal(learned.predict(column([image]))["lung_mask"].iloc[0], first)
    assert learned.predict(column([None, images[0]]))["lung_mask"].isna().tolist() == [True, False]
    assert {"lung_image", "lung_mask"} <= {*learned.transform(column([images[0]])).columns}

    lung = Volume(first, read_scan(images[0]).affine, "label")
    write_segmentation({"lung": lung}, tmp_path / "lung.dcm", scan=images[0])
    assert np.array_equal(read_mask(tmp_path / "lung.dcm", read_scan(images[0])).array, first)
    with pytest.raises(ValueError, match="heart"):
        LungLesionSegmentor(lung_label="heart", **small).fit(X)


def test_several_structures_are_read_as_one(scans):
    found, _, _ = scans
    paths = found.scans.iloc[0]
    ct = read_scan(paths["ct"])
    left, right = (read_mask(paths["structures"], ct, label=f"lung-{side}").array for side in ("left", "right"))
    both = read_mask(paths["structures"], ct, label=["lung-left", "lung-right"])
    assert np.array_equal(both.array, left | right) and left.any() and right.any()
    with pytest.raises(ValueError, match="heart"):
        read_mask(paths["structures"], ct, label=["lung-left", "heart"])


def test_messages_about_masks_name_the_parameter_that_the_user_has(scans, tmp_path):
    found, _, _ = scans
    paths = found.scans.iloc[0]
    X = pd.DataFrame({"ct_image": [paths["ct"]], "ct_mask": [paths["structures"]]}, index=["P1"])
    labels = pd.DataFrame({"ct_image": [np.zeros((1, 2, 3), np.uint8)], "ct_mask": [np.array([[[0, 1, 2]] * 2])]})
    seen = ScanView(masked=True)
    for view, table in ((None, X), (None, labels), (seen, X)):
        with pytest.raises(ValueError, match=r"(?i)choose one (by|label or several, for example) mask_label="):
            SliceEncoder(scan=view, image_size=8).prepare(table)
    with pytest.raises(ValueError, match=r"choose one by label="):
        seen.read(*X.iloc[0], patient="P1")
    segmentor = LungLesionSegmentor(image_size=32, max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match=r"choose one by lung_label="):
        segmentor.fit(X.rename(columns={"ct_mask": "lung_mask"}))
    ct = read_scan(paths["ct"])
    elsewhere = Volume(np.ones((2, 2, 2), bool), ct.affine + np.eye(4, k=3), "label")
    for name, part in (("mask.nii.gz", elsewhere), ("empty.nii.gz", replace(ct, array=ct.array < -9000))):
        write_nifti(replace(part, unit="label"), f"{tmp_path}/{name}")
    with pytest.raises(ValueError, match="or pass resample_mask=True"):
        SliceEncoder(scan=seen).prepare(X.assign(ct_mask=f"{tmp_path}/mask.nii.gz"))
    with pytest.raises(ValueError, match="or pass resample=True"):
        read_mask(f"{tmp_path}/mask.nii.gz", ct)
    with pytest.raises(ValueError, match=r"no voxel is inside. Use None if there is no mask"):
        SliceEncoder(scan=seen).prepare(X.assign(ct_mask=f"{tmp_path}/empty.nii.gz"))
    with pytest.raises(ValueError, match=r"Pass allow_empty=True"):
        read_mask(f"{tmp_path}/empty.nii.gz", ct)
