"""Masks: on the voxels of their image or refused, one structure of several, never cut by a crop; and units of a CT."""

import struct
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mmdls import Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, LungLesionSegmentor, SliceEncoder
from mmdls.images import SliceStore, read_image, read_mask
from mmdls.images._cutting import cut_out
from mmdls.images._masks import choose

nibabel = pytest.importorskip("nibabel")

AFFINE = np.diag([-0.8, -0.7, 5.0, 1.0])
AFFINE[:3, 3] = 100, 120, -300
SHAPE = (20, 24, 6)


def write(path, voxels, affine=AFFINE, codes=None):
    """A volume, stored in the order of axes that ``codes`` name."""
    volume = nibabel.Nifti1Image(voxels, affine)
    if codes is not None:
        orientations = nibabel.orientations
        turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes)))
        volume = volume.as_reoriented(turn)
    nibabel.save(volume, path)
    return path


@pytest.fixture
def image(tmp_path):
    voxels = np.random.default_rng(0).integers(-1000, 400, SHAPE).astype(np.int16)
    return write(tmp_path / "ct.nii.gz", voxels)


@pytest.fixture
def voxels():
    inside = np.zeros(SHAPE, np.uint8)
    inside[5:10, 6:12, 2:4] = 1
    inside[5, 6, 2] = 0  # no symmetry: every flip shows
    return inside


def moved(*millimetres):
    affine = AFFINE.copy()
    affine[:3, 3] += millimetres
    return affine


# -- where a mask lies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "IRA", "PSR"])
def test_a_mask_in_another_order_of_axes_lies_where_it_lies(tmp_path, image, voxels, codes):
    plain = read_mask(write(tmp_path / "m.nii", voxels), image=image)
    turned = read_mask(write(tmp_path / "turned.nii", voxels, codes=codes), image=image)
    assert plain.sum() == 59 and np.array_equal(plain, turned)
    assert np.array_equal(plain, voxels.transpose(2, 1, 0) > 0), "the image's own order is L, P, S"


@pytest.mark.parametrize(
    "affine",
    [
        moved(40, 0, -60),
        moved(0, 0, 5),
        moved(0.4, 0, 0),
        AFFINE @ np.diag([2, 2, 1, 1.0]),
        AFFINE @ np.diag([-1, 1, 1, 1.0]),
    ],
    ids=["far", "one slice", "half a voxel", "spacing", "mirrored about the origin"],
)
def test_a_mask_that_lies_elsewhere_is_refused(tmp_path, image, voxels, affine):
    mask = write(tmp_path / "m.nii", voxels, affine)
    with pytest.raises(ValueError, match="mask of patient 'P7' lies elsewhere than its image.*mm apart.*resample_mask"):
        read_mask(mask, "P7", image=image)
    with pytest.raises(ValueError, match="patient 'P7' lies elsewhere"):
        SliceStore.build([image], masks=[mask], patients=["P7"], intensity_range=(-1000, 400))
    table = pd.DataFrame({"ct_image": [image], "lung_mask": [mask]}, index=["P7"])
    with pytest.raises(ValueError, match="patient 'P7' lies elsewhere"):
        LungLesionSegmentor(image_size=32, max_epochs=1).fit(table)


def test_rounding_of_the_geometry_is_no_other_place(tmp_path, image, voxels):
    rounded = moved(0.004, -0.004, 0.05)
    rounded[:3, :3] *= 1 + 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_mask(write(tmp_path / "m.nii", voxels, rounded), image=image)


def test_a_resampled_mask_has_the_nearest_value_at_each_voxel_of_its_image(tmp_path, image):
    """Against the definition: every voxel's centre in millimetres, the nearest voxel of the mask there."""
    rng = np.random.default_rng(1)
    shape = (11, 9, 14)
    for k in range(6):
        angle = rng.uniform(-0.5, 0.5)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag(rng.uniform(1.0, 3.0, 3) * rng.choice([-1, 1], 3))
        affine[:3, 3] = AFFINE[:3] @ [9.5, 11.5, 2.5, 1] - affine[:3, :3] @ np.array([5, 4, 6.5])
        values = (rng.random(shape) < 0.5).astype(np.uint8)
        path = write(tmp_path / f"m{k}.nii", values, affine)
        with pytest.raises(ValueError, match=r"has shape .*resample_mask=True"):
            read_mask(path, image=image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read_mask(path, image=image, resample_mask=True)
        expected = np.zeros(SHAPE, bool)
        unclear = np.zeros(SHAPE, bool)
        back = np.linalg.inv(nibabel.load(path).affine)
        for place in np.ndindex(*SHAPE):
            at = back[:3] @ AFFINE @ [*place, 1]
            index = np.floor(at + 0.5).astype(int)
            unclear[place] = (np.abs(at - np.floor(at) - 0.5) < 1e-5).any()
            if (index >= 0).all() and (index < shape).all():
                expected[place] = values[tuple(index)]
        same = found == expected.transpose(2, 1, 0)
        assert (same | unclear.transpose(2, 1, 0)).all() and found.any()


def test_what_a_resampled_mask_loses_is_said(tmp_path, image, voxels):
    with pytest.warns(UserWarning, match=r"30 of 59 voxels of the mask of patient 'P' lie beyond its image"):
        found = read_mask(write(tmp_path / "m.nii", voxels, moved(0, 0, 15)), "P", image=image, resample_mask=True)
    assert found.sum() == 29
    with pytest.raises(ValueError, match="nothing inside on the voxels of its image, 59 of its 59 voxels lie beyond"):
        read_mask(write(tmp_path / "m.nii", voxels, moved(400, 0, 0)), image=image, resample_mask=True)


def test_estimators_resample_when_told(tmp_path, image, voxels):
    mask = write(tmp_path / "m.nii", voxels, moved(0.8, 0, 0))
    store = SliceStore.build([image], masks=[mask], intensity_range=(-1000, 400), resample_mask=True)
    shifted = np.roll(voxels, -1, axis=0).transpose(2, 1, 0) > 0
    expected = SliceStore.build([read_image(image)], masks=[shifted], intensity_range=(-1000, 400))
    assert np.array_equal(store.data, expected.data)
    table = pd.DataFrame({"ct_image": [image] * 4, "lesion_mask": [mask] * 4}, index=list("abcd"))
    encoder = SliceEncoder(embedding_dim=4, image_size=8, intensity_range=(-1000, 400), resample_mask=True)
    encoder.set_params(trainer__max_epochs=1, random_state=0)
    assert encoder.fit(table, np.array([0, 1, 0, 1])).transform(table).shape == (4, 4)
    model = LungLesionSegmentor(image_size=32, max_epochs=1, resample_mask=True, random_state=0)
    assert 0 <= model.fit(table).score(table) <= 1


def test_a_file_without_orientation_codes_is_warned_about(tmp_path, image, voxels):
    def uncoded(name, values):
        volume = nibabel.Nifti1Image(values, None)
        volume.header["sform_code"] = volume.header["qform_code"] = 0
        nibabel.save(volume, tmp_path / name)
        return tmp_path / name

    plain = uncoded("plain.nii", np.asarray(nibabel.load(image).dataobj))
    mask = uncoded("mask.nii", voxels)
    with pytest.warns(UserWarning, match="plain.nii' of patient 'P' has no orientation codes"):
        read_image(plain, "P")
    with pytest.warns(UserWarning, match="no orientation codes"):
        assert read_mask(mask, image=plain).sum() == 59
    for pair in ((mask, image), (write(tmp_path / "coded.nii", voxels), plain)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="of patient 'P' has no orientation codes.*write both with one affine"):
                read_mask(pair[0], "P", image=pair[1])


@pytest.mark.parametrize("row", ["srow_x", "srow_z"])
@pytest.mark.parametrize("value", [0, np.nan, [1, 1, 0, 0]])
def test_an_affine_that_places_nothing_is_refused(tmp_path, row, value):
    volume = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16), AFFINE)
    volume.header["srow_y"] = [1, 1, 0, 0]
    volume.header[row] = value
    volume.header["qform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(volume.dataobj, None, volume.header), tmp_path / "flat.nii")
    with pytest.raises(ValueError, match="flat.nii' of patient 'P' has an affine that places no volume"):
        read_image(tmp_path / "flat.nii", "P")


def test_a_single_volume_with_a_fourth_axis_is_a_volume(tmp_path, voxels, image):
    write(tmp_path / "four.nii", voxels[..., None])
    assert np.array_equal(read_mask(tmp_path / "four.nii", image=image), voxels.transpose(2, 1, 0) > 0)


def test_slices_of_mask_and_image_with_other_numbers_are_warned_about(tmp_path):
    from PIL import Image

    for name, first in (("ct", 1), ("same", 1), ("late", 2)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / name / f"{name}_{first + i:03d}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_mask(tmp_path / "same", "P", image=tmp_path / "ct")
    with pytest.warns(UserWarning, match=r"mask of patient 'P' are numbered 2, 3, 4 and those of its image 1, 2, 3"):
        read_mask(tmp_path / "late", "P", image=tmp_path / "ct")


def test_the_real_lungs_and_tumour_lie_where_their_ct_lies(data_dir):
    folder = data_dir / "lung1_001"
    ct = folder / "LUNG1-001_ct_hu.nii.gz"
    lungs = read_mask(folder / "LUNG1-001_lungs_label.nii.gz", image=ct, label=[1, 2])
    right = read_mask(folder / "LUNG1-001_lungs_label.nii.gz", image=ct, label=1)
    assert 0 < right.sum() < lungs.sum()
    assert read_mask(folder / "LUNG1-001_gtv1_mask.nii.gz", image=ct).any()


# -- labels ----------------------------------------------------------------------------------------------------------


def test_one_structure_of_several_is_chosen_or_all_are_named():
    labels = np.zeros((2, 4, 6), np.int16)
    labels[0, 1, :] = [0, 1, 1, 2, 3, 7]
    for label, count in ((1, 2), ([1, 2], 3), ((3, 7), 2), (np.array([2]), 1), (np.int64(7), 1)):
        assert read_mask(labels, label=label).sum() == count
        assert read_mask(labels.astype(np.float32), label=label).sum() == count
    with pytest.raises(ValueError, match=r"mask of patient 'P' holds the values \[0, 1, 2, 3, 7\].*label=1"):
        read_mask(labels, "P")
    with pytest.raises(ValueError, match=r"is empty: no pixel is inside of label 5; it holds \[0, 1, 2, 3, 7\]"):
        read_mask(labels, label=5)
    assert not read_mask(labels, label=5, allow_empty=True).any()
    for wrong in (0, -1, 1.5, True, "1", [], [1, None]):
        with pytest.raises(ValueError, match="label must be a whole number above 0"):
            read_mask(labels, label=wrong)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0.0, 1.0), (False, True), (0, 7)])
def test_two_values_are_outside_and_inside(values):
    mask = np.array([[values]])
    assert read_mask(mask).tolist() == [[[False, True]]]


@pytest.mark.parametrize("mask", [[[[0.2, 0.9]]], [[[1, 2]]], [[[-1, 0]]], [[[-1, -1]]], [[[0.0, 0.4, 1.0]]]])
def test_values_that_may_mean_anything_are_refused(mask):
    with pytest.raises(ValueError, match="expected 0 outside and one other value inside"):
        read_mask(np.array(mask))


def test_estimators_take_labels():
    X = make_nsclc_cohort(12, n_slices=2, image_size=32, masks=True, return_X_y=True, random_state=0)[0]
    X = X[["lung_image", "lung_mask", "lesion_mask"]].rename(columns={"lung_image": "ct_image"})
    both = [
        np.where(lesion, 3, np.where(lung, 1 + (np.arange(32) > 15), 0)).astype(np.uint8)
        for lung, lesion in zip(X["lung_mask"], X["lesion_mask"], strict=True)
    ]
    labelled = X.assign(lung_mask=both, lesion_mask=both)
    apart = X.assign(lung_mask=[(m == 1) | (m == 2) for m in both], lesion_mask=[m == 3 for m in both])
    settings = {"image_size": 32, "max_epochs": 1, "random_state": 0}
    first = LungLesionSegmentor(lung_label=(1, 2), lesion_label=3, **settings).fit(labelled)
    second = LungLesionSegmentor(**settings).fit(apart)
    assert all(
        torch.equal(a, b) for a, b in zip(first.network_.parameters(), second.network_.parameters(), strict=True)
    )
    assert first.score(labelled) == second.score(apart)
    with pytest.raises(ValueError, match="for example lung_label=1"):
        LungLesionSegmentor(**settings).fit(labelled)
    with pytest.warns(UserWarning, match="no lesion_mask has any pixel inside, with lesion_label=9"):
        LungLesionSegmentor(lung_label=(1, 2), lesion_label=9, **settings).fit(labelled)
    first = SliceEncoder(mask_label=3, image_size=16).prepare(labelled[["ct_image", "lesion_mask"]])
    second = SliceEncoder(image_size=16).prepare(apart[["ct_image", "lesion_mask"]])
    assert np.array_equal(first.store.data, second.store.data)


# -- crops -----------------------------------------------------------------------------------------------------------


def test_a_crop_never_cuts_a_mask():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = (rng.integers(1, 4), *rng.integers(3, 30, 2))
        mask = np.zeros(shape, bool)
        corners = [np.sort(rng.integers(0, size, 2)) for size in shape]
        mask[tuple(slice(low, high + 1) for low, high in corners)] = True
        image = rng.integers(1, 200, shape).astype(np.uint8)
        for kind, least in ((image, 0), (image.astype(np.int16) - 1000, -1000)):
            cut = cut_out(kind, mask, rng.uniform(0, 0.3))
            assert cut.shape[1] == cut.shape[2] and len(cut) == len(image) and cut.dtype == kind.dtype
            assert np.array_equal(np.sort(kind[mask]), np.sort(cut[cut > least])[-mask.sum() :])
            assert set(np.unique(cut)) - set(kind[mask]) <= {min(kind.min(), 0)}


def test_a_lung_wider_than_its_image_is_high_is_padded_not_cut():
    image, mask = np.full((1, 20, 30), 50, np.uint8), np.zeros((1, 20, 30), bool)
    mask[0, 2:18, 1:29] = True
    store = SliceStore.build([image], masks=[mask])
    assert store.image_size == (30, 30) and (store.data == 50).sum() == mask.sum()


def test_images_with_and_without_masks_are_said_to_be_mixed():
    image, mask = np.full((1, 8, 8), 50, np.uint8), np.ones((1, 8, 8), bool)
    with pytest.warns(UserWarning, match=r"1 of 2 patients with an image have no mask, such as \['b'\]"):
        SliceStore.build([image, image, None], masks=[mask, None, None], patients=list("abc"), image_size=8)


# -- units -----------------------------------------------------------------------------------------------------------


def chest(seed=0, shape=(2, 40, 40)):
    """A slice in HU: air around a body of soft tissue with two lungs and some bone."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, -1000.0)
    image[:, 6:34, 4:36] = 40
    image[:, 10:30, 8:18] = image[:, 10:30, 22:32] = -800
    image[:, 28:30, 19:21] = 700
    return (image + rng.normal(0, 15, shape)).round().clip(-1024, 3071).astype(np.int16)


OFFSET = {
    "as stored": lambda hu: hu + 1024,
    "unsigned": lambda hu: (hu + 1024).clip(0).astype(np.uint16),
    "by 1000": lambda hu: hu + np.int16(1000),
    "float": lambda hu: (hu + 1024).astype(np.float32),
    "with padding": lambda hu: np.pad(hu + 1024, ((0, 0), (9, 9), (9, 9)), constant_values=-2000),
    "the body only": lambda hu: hu[:, 6:34, 4:36] + 1024,
    "a lesion only": lambda hu: hu[:, 10:30, 18:22] + 1024,
}


@pytest.mark.parametrize("kind", OFFSET)
@pytest.mark.parametrize("window", [(-1350, 150), (-160.0, 240.0)])
def test_hounsfield_units_with_1024_added_are_refused_by_every_image_estimator(kind, window):
    image = OFFSET[kind](chest())
    with pytest.raises(ValueError, match="patient 'P3' holds .*1024 was added.*Subtract it"):
        SliceStore.build([image], patients=["P3"], intensity_range=window)
    X = pd.DataFrame({"ct_image": [chest(1), chest(2), image, chest(4)]}, index=["P1", "P2", "P3", "P4"])
    y = pd.DataFrame({"subtype": ["a", "b", "a", "b"]}, index=X.index)
    encoder = SliceEncoder(image_size=16, intensity_range=window, embedding_dim=4, trainer=Trainer(max_epochs=1))
    for model in (encoder, MMDLS(image_encoder=encoder, trainer=Trainer(max_epochs=1, validation_fraction=0))):
        with pytest.raises(ValueError, match="patient 'P3' holds .*1024 was added"):
            model.fit(X, y)
    masks = X.assign(lung_mask=[np.ones(cell.shape, bool) for cell in X["ct_image"]])
    with pytest.raises(ValueError, match="patient 'P3' holds .*1024 was added"):
        LungLesionSegmentor(image_size=32, max_epochs=1).fit(masks)


@pytest.mark.parametrize(
    ("image", "window"),
    [
        (chest(), (-1350, 150)),
        (np.pad(chest(), ((0, 0), (9, 9), (9, 9)), constant_values=-3024), (-1350, 150)),
        (chest()[:, 6:9, 6:34], (-1350, 150)),  # soft tissue only
        (np.where(chest() > 0, chest(), 0)[:, 6:9], (-160, 240)),  # zero outside a mask
        (np.full((1, 8, 8), -1024, np.int16), (-1350, 150)),
        (np.zeros((1, 8, 8), np.int16), (-1350, 150)),
        (OFFSET["unsigned"](chest()), (0, 1500)),  # a window in stored values
        (np.random.default_rng(0).gamma(1.0, 3.0, (2, 8, 8)), (0, 20)),  # SUV
        (np.random.default_rng(0).normal(size=(2, 8, 8)), (-3, 3)),  # standardised
        (np.random.default_rng(0).random((2, 8, 8)), (-3, 3)),
        (np.random.default_rng(0).random((2, 8, 8)), None),
        (np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8), None),
        (np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8), (0, 255)),
    ],
)
def test_other_units_raise_no_alarm(image, window):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SliceStore.build([image], intensity_range=window)


@pytest.mark.parametrize("image", [(chest() > 0), chest().astype(np.uint8), (chest() > 0).astype(np.float32)])
def test_greys_under_a_window_of_hounsfield_units_are_refused(image):
    with pytest.raises(ValueError, match=r"the image of patient 'P' holds greys .*intensity_range=None"):
        SliceStore.build([image], patients=["P"], intensity_range=(-1350, 150))


@pytest.mark.parametrize("window", [(150, -1350), (0, float("nan")), (0,), "ab", (0, float("inf")), 5, (True, 2)])
def test_a_window_is_two_rising_numbers(window):
    with pytest.raises(ValueError, match=r"intensity_range must be \(low, high\) with low < high"):
        SliceStore.build([chest()], intensity_range=window)


@pytest.mark.parametrize("side", [0.0, -1.0, np.nan])
def test_sides_of_voxels_that_are_none_are_refused(tmp_path, side):
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    volume.set_qform(np.diag([1.0, 1, 2, 1]), 1)
    volume.set_sform(None, 0)
    nibabel.save(volume, tmp_path / "ct.nii")
    assert read_image(tmp_path / "ct.nii").shape == (6, 5, 4)
    content = bytearray((tmp_path / "ct.nii").read_bytes())
    struct.pack_into("<f", content, 80, side)
    (tmp_path / "ct.nii").write_bytes(content)
    with pytest.raises(ValueError, match="has voxels of"):
        read_image(tmp_path / "ct.nii")


def test_two_places_that_differ_are_refused(tmp_path):
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1, 2, 1]))
    for step, differs in ((2.0, False), (3.0, True)):
        volume.set_sform(np.diag([1.0, 1, 2, 1]), 1)
        volume.set_qform(np.diag([1.0, 1, step, 1]), 1)
        nibabel.save(volume, tmp_path / "ct.nii")
        if differs:
            with pytest.raises(ValueError, match="two places .*sform and qform"):
                read_image(tmp_path / "ct.nii")
        else:
            assert read_image(tmp_path / "ct.nii").shape == (6, 5, 4)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.float32, np.float64])
def test_a_structure_is_chosen_in_the_memory_of_a_mask_that_is_given_away(kind):
    values = np.random.default_rng(0).choice([0, 1, 3], (4, 5, 6))
    for label in (1, [1, 3], 7):
        mask = values.astype(kind)
        expected = np.isin(values, label)
        assert (choose(mask, label, "") == expected).all() and (mask == values).all()
        inside = choose(mask, label, "", own=True)
        assert inside.dtype == bool and (inside == expected).all()
        assert np.shares_memory(inside, mask) == (mask.itemsize == 1)
    plain = (values == 3).astype(kind) * kind(3)
    assert (choose(plain, None, "") == (values == 3)).all()
    assert not choose(np.zeros_like(plain), None, "").any() and choose(plain * 0 + kind(2), None, "").all()
