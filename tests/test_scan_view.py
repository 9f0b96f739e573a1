"""What a model sees of a scan: the right voxels at the right places, whatever the format and the orientation."""

import nibabel
import numpy as np
import pytest
from sklearn.base import clone

from mmdls.scans import (
    ScanView,
    Volume,
    apply_window,
    crop_mm,
    read_mask,
    read_scan,
    resample,
    same_geometry,
    slices_around_largest_area,
    write_nifti,
)

VIEW = np.eye(4)[:, [2, 1, 0, 3]]


def make(shape=(12, 40, 36), spacing=(5.0, 1.0, 1.0), turn=None, first=(-20, 30, 100)):
    """A CT whose values are a linear function of the place, with a structure in it."""
    affine = VIEW @ np.diag([*spacing, 1.0])
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ affine[:3, :3]
    affine[:3, 3] = first
    places = Volume(np.zeros(shape), affine).places(np.moveaxis(np.indices(shape), 0, -1))
    ct = Volume((places @ [2.0, 3.0, 1.0] - 800).astype(np.float32), affine, "HU", "CT")
    inside = np.zeros(shape, bool)
    inside[4:8, 10:20, 12:18] = True
    inside[6, 8:22, 10:20] = True
    return ct, Volume(inside, affine, "label")


def value_at(part):
    places = part.places(np.moveaxis(np.indices(part.shape), 0, -1))
    return places @ [2.0, 3.0, 1.0] - 800


TILTED = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1.0]])


def test_the_defaults_show_the_whole_scan_under_the_lung_window():
    ct, mask = make()
    part, inside = ScanView().cut(ct, mask)
    assert same_geometry(part, ct) and np.array_equal(part.array, ct.array) and np.array_equal(inside.array, mask.array)
    assert np.array_equal(ScanView().intensities(part), apply_window(ct, "lung"))
    assert ScanView().cut(ct)[1] is None and ScanView().needs_mask == []


def test_without_spacing_voxels_are_those_of_the_scan():
    ct, mask = make()
    for size in ((20.0, 24.0, 16.0), (15.0, 23.0, 15.0)):
        part, inside = ScanView(crop=size).cut(ct, mask)
        box = crop_mm(ct, mask, size)
        assert same_geometry(part, box) and np.array_equal(part.array, box.array)
        assert np.array_equal(inside.array, crop_mm(mask, mask, size).array)
    several = ScanView(crop=(None, 24, 16), n_slices=5).cut(ct, mask)[0]
    chosen = slices_around_largest_area(mask, 5)
    assert np.array_equal(several.array, crop_mm(ct, mask, (1000, 24, 16)).array[chosen + 94])


@pytest.mark.parametrize("turn", [None, TILTED], ids=["straight", "oblique"])
@pytest.mark.parametrize("spacing", [2.0, (2.5, 2, 2), (None, 1.5, 1.5), (2.0, None, None)], ids=str)
@pytest.mark.parametrize("box", [{}, {"crop": (30, 20, 20)}, {"margin": 2}, {"crop": (None, 20, 20), "n_slices": 3}])
def test_resampled_voxels_lie_where_they_say(turn, spacing, box):
    ct, mask = make(turn=turn)
    part, inside = ScanView(spacing=spacing, **box).cut(ct, mask)
    sides = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    assert part.spacing == pytest.approx(
        [own if side is None else side for side, own in zip(sides, ct.spacing, strict=True)]
    )
    assert same_geometry(part, inside)
    # Within half a voxel of the border values are those of the border.
    index = ct.indices(part.places(np.moveaxis(np.indices(part.shape), 0, -1)))
    within = ((index >= 0) & (index <= np.array(ct.shape) - 1)).all(axis=-1)
    np.testing.assert_allclose(part.array[within], value_at(part)[within], atol=0.01)
    assert np.array_equal(inside.array, resample(mask, like=part).array)
    if "crop" in box:
        wanted = [side for side in (part.spacing[1] * part.shape[1], part.spacing[2] * part.shape[2])]
        assert wanted == pytest.approx([20, 20], abs=part.spacing[1])


def test_a_margin_follows_the_structure_and_holds_all_of_it():
    ct, mask = make()
    part, inside = ScanView(margin=(5, 3, 3)).cut(ct, mask)
    assert part.shape == (6, 20, 20) and inside.array.sum() == mask.array.sum()
    assert ScanView(margin=0).cut(ct, mask)[0].shape == (4, 14, 14)


def test_slices_beyond_the_scan_are_left_out_and_pixels_are_air():
    ct, mask = make()
    mask.array[:] = False
    mask.array[0, :3, :3] = True
    for spacing in (None, (5, 0.5, 0.5), (2.5, 1, 1)):
        view = ScanView(crop=(30, 12, 12), spacing=spacing)
        part, _ = view.cut(ct, mask)
        index = ct.indices(part.places([[0, 0, 0], np.array(part.shape) - 1]))
        assert -0.5 - 1e-6 <= index[0, 0] and len(part.array) * part.spacing[0] == pytest.approx(17.5, abs=2.6)
        assert (part.array[:, :3, :3] == -1024).all()


def test_slices_lie_around_the_largest_area_on_new_voxels_too():
    ct, mask = make()
    part, _ = ScanView(spacing=(2.5, 1, 1), n_slices=3).cut(ct, mask)
    middle = ct.indices(part.places((1, 0, 0)))[0]
    assert len(part.array) == 3 and abs(middle - 6) <= 0.25 + 1e-9
    assert len(ScanView(n_slices=99).cut(ct, mask)[0].array) == 12
    mask.array[11] = True
    assert np.array_equal(ScanView(n_slices=3).cut(ct, mask)[0].array, ct.array[9:])


def test_windows_are_channels_and_what_is_outside_of_the_mask_is_zero():
    ct, mask = make()
    view = ScanView(["lung", (-160, 240)], masked=True)
    shown = view.intensities(*view.cut(ct, mask))
    assert shown.shape == (12, 2, 40, 36) and view.n_channels == 2 and ScanView((-5, 5)).n_channels == 1
    assert not shown[:, :, 0, 0].any()
    assert np.array_equal(shown[:, 1][mask.array], apply_window(ct, "mediastinum")[mask.array])
    far, vanished = ScanView(masked=True).cut(ct, Volume(mask.array & False, mask.affine))
    with pytest.raises(ValueError, match="nothing of the mask is left"):
        ScanView(masked=True).intensities(far, vanished)


@pytest.mark.parametrize("turn", [None, TILTED], ids=["straight", "oblique"])
def test_every_form_of_a_cell_is_the_same_scan(tmp_path, turn):
    ct, mask = make(turn=turn)
    write_nifti(ct, tmp_path / "ct.nii.gz")
    write_nifti(mask, tmp_path / "mask.nii.gz")
    stored = nibabel.load(tmp_path / "ct.nii.gz")
    nibabel.save(stored.as_reoriented([[1, -1], [0, 1], [2, -1]]), tmp_path / "flipped.nii.gz")
    backwards = ct.affine.copy()
    backwards[:3, 3], backwards[:3, 0] = ct.places((11, 0, 0)), -backwards[:3, 0]
    memory = Volume(ct.array[::-1], backwards, "HU", "CT")
    view = ScanView(spacing=(None, 2, 2), crop=(None, 30, 30), n_slices=3)
    expected = view.intensities(*view.cut(ct, mask))
    for image in (ct, str(tmp_path / "ct.nii.gz"), tmp_path / "flipped.nii.gz", memory):
        for structure in (mask, str(tmp_path / "mask.nii.gz")):
            scan, inside = view.read(image, structure)
            np.testing.assert_allclose(view.intensities(*view.cut(scan, inside)), expected, atol=2e-3)
    scan, inside = view.read((ct.array, ct.spacing), (mask.array, ct.spacing))
    np.testing.assert_allclose(view.intensities(*view.cut(scan, inside)), expected, atol=2e-3)


def test_a_scan_without_a_unit_is_in_hu_if_its_window_is():
    ct, mask = make()
    plain = Volume(ct.array, ct.affine)
    assert [ScanView(w).read(plain)[0].unit for w in ("lung", (-1350, 150), (0, 300))] == ["HU", "HU", ""]
    pet = Volume(np.abs(ct.array), ct.affine, "Bq/mL", "PT")
    with pytest.raises(ValueError, match=r"of patient 'P' is in 'Bq/mL', and 'HU' is needed"):
        ScanView().read(pet, patient="P")
    with pytest.raises(ValueError, match="window=.* holds greys"):
        ScanView().read(Volume(ct.array.astype(np.uint8), ct.affine))


def test_pictures_have_windows_and_no_millimetres():
    pixels = np.linspace(-1350, 150, 5 * 64).reshape(5, 8, 8)
    mask = np.zeros((5, 8, 8), bool)
    mask[3] = True
    view = ScanView(n_slices=1)
    assert np.array_equal(view.cut(*view.read(pixels, mask))[0].array, pixels[[3]])
    for name in ("spacing", "crop", "margin"):
        with pytest.raises(ValueError, match=rf"'P' has no voxel size, which \['{name}'\] .*\(array, spacing\)"):
            ScanView(**{name: 3.0}).read(pixels, mask, patient="P")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": "bone"}, "no window 'bone'"),
        ({"window": []}, "empty"),
        ({"window": ["lung", 3]}, "window must be"),
        ({"spacing": 0}, "spacing is one length"),
        ({"spacing": (1, 1)}, "spacing is one length in mm, or three"),
        ({"spacing": "fine"}, "spacing"),
        ({"crop": -3}, "crop"),
        ({"margin": -1}, "margin"),
        ({"margin": np.nan}, "margin"),
        ({"margin": 3, "crop": 3}, "give one of them"),
        ({"n_slices": 0}, "n_slices"),
        ({"n_slices": "5"}, "n_slices"),
        ({"masked": "yes"}, "masked"),
        ({"unit": 3}, "unit"),
    ],
    ids=str,
)
def test_parameters_that_say_nothing(params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ScanView(**params).check()


def test_what_needs_a_mask_says_so():
    ct, mask = make()
    for name, value in {"crop": 30, "margin": 3, "n_slices": 2, "masked": True}.items():
        view = ScanView(**{name: value})
        with pytest.raises(ValueError, match=rf"there is no mask of patient 'P', which \['{name}'\]"):
            view.read(ct, None, patient="P")
        with pytest.raises(ValueError, match="need a mask"):
            view.cut(ct)
    elsewhere = Volume(mask.array, mask.affine + 3 * np.eye(4, k=3))
    with pytest.raises(ValueError, match="other voxels"):
        ScanView(crop=30).cut(ct, elsewhere)
    with pytest.raises(ValueError, match="has other voxels than the image"):
        ScanView(crop=30).read(ct, elsewhere)
    with pytest.raises(ValueError, match="too|choose a smaller box"):
        ScanView(spacing=0.001).cut(ct)


def test_it_is_an_estimator():
    view = ScanView(["lung", "mediastinum"], spacing=(None, 1, 1))
    assert clone(view).get_params() == view.get_params()
    assert view.set_params(spacing=2.0).spacing == 2.0


def test_names_of_a_mask_file_reach_it(tmp_path):
    from mmdls.datasets import make_scans

    pytest.importorskip("pydicom")
    paths = make_scans(tmp_path, 1, random_state=0).scans.iloc[0]
    view = ScanView(crop=(None, 60, 60), n_slices=5)
    scan, inside = view.read(paths["ct"], paths["structures"], label="lesion")
    ct = read_scan(paths["ct"])
    assert np.array_equal(scan.array, ct.array)
    assert np.array_equal(inside.array, read_mask(paths["structures"], ct, label="lesion").array)
    assert view.intensities(*view.cut(scan, inside)).shape == (5, 20, 20)
