"""Volumes: places in millimetres, resampling, boxes, windows. SimpleITK is the oracle."""

from dataclasses import replace

import numpy as np
import pytest

from mmdls.scans import Volume, apply_window, crop_mm, read_scan, resample, same_geometry, slices_around_largest_area
from mmdls.scans._cells import as_volume
from mmdls.scans._resampling import finer

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is the oracle of geometry")


def rotation(*degrees):
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        first, second = [i for i in range(3) if i != axis]
        one[[first, first, second, second], [first, second, first, second]] = [
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        ]  # fmt: skip
        turn = turn @ one
    return turn


def make(shape=(7, 9, 11), spacing=(3.0, 0.8, 0.7), turn=None, first=(-20, 30, 100), flip=(1, 1, 1), **kwargs):
    """Random numbers in the radiological view, rotated and flipped."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn)[:, ::-1] * spacing * np.array(flip)
    affine[:3, 3] = first
    array = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    return Volume(array, affine, **{"unit": "HU", "modality": "CT", **kwargs})


def to_sitk(volume):
    image = sitk.GetImageFromArray(volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array)
    direction = volume.affine[:3, :3] / volume.spacing
    image.SetSpacing(volume.spacing[::-1])
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetDirection(direction[:, ::-1].ravel().tolist())
    return image


def from_sitk(image):
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


OBLIQUE = rotation(9, -14, 21)


@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(90, 0, 0), rotation(85, 100, 190)])
@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_places_and_turns_are_those_of_simpleitk(turn, flip):
    volume = make(turn=turn, flip=flip)
    image = to_sitk(volume)
    index = (2.25, 3, 5.5)
    assert volume.places(index) == pytest.approx(image.TransformContinuousIndexToPhysicalPoint(index[::-1]))
    assert volume.indices(volume.places(index)) == pytest.approx(index)
    turned = volume.turned()
    array, affine = from_sitk(sitk.DICOMOrient(image, "LPS"))
    assert turned.orientation == "SPL"
    assert (turned.array == array).all()
    assert turned.affine == pytest.approx(affine, abs=1e-9)
    assert volume.orientation[::-1] == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
        image.GetDirection()
    )


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("turn", [None, OBLIQUE])
def test_resampling_equals_simpleitk(order, turn):
    volume = make()
    like = make((9, 14, 10), (2.1, 1.3, 0.9), turn, (-22, 29.13, 99.1))
    done = resample(volume, like=like, order=order)
    method = sitk.sitkLinear if order else sitk.sitkNearestNeighbor
    expected = sitk.Resample(to_sitk(volume), to_sitk(like), sitk.Transform(), method, -1024.0)
    expected = sitk.GetArrayFromImage(expected)
    assert np.allclose(done.array, expected, atol=2e-2)
    assert ((done.array == -1024) == (expected == -1024)).all()
    assert same_geometry(done, like)
    assert (done.unit, done.modality) == ("HU", "CT")


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_a_part_is_resampled_as_the_whole_is(order):
    volume = make((90, 100, 110), (2.5, 0.8, 0.8))
    spacing = (1.0, 2.0, 0.8)  # in the middle between voxels, too
    whole = resample(volume, spacing=spacing, order=order)
    part = finer(volume, spacing, around=(np.array([40, 50, 60]), np.array([44, 57, 63])))
    start = np.rint(whole.indices(part.affine[:3, 3])).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
    done = resample(volume, like=part, order=order).array
    assert np.prod(part.shape) < 1000
    np.testing.assert_allclose(done, whole.array[box], rtol=0, atol=0 if order == 0 else 1e-3)
    covered = part.indices(volume.places([[39.5, 49.5, 59.5], [44.5, 57.5, 63.5]]))
    assert (covered[0] >= -1e-6).all() and (covered[1] <= np.array(part.shape) - 1 + 1e-6).all()


def test_of_two_nearest_voxels_rounding_chooses_none():
    volume = make((4, 30, 30), (2.0, 1.0, 1.0))
    halves = make((4, 29, 29), (2.0, 1.0, 1.0), first=(-19.5, 30.5, 100))
    expected = volume.array[:, 1:, 1:]
    for shift in (-1e-9, 0, 1e-9):
        moved = replace(halves, affine=halves.affine + shift * np.eye(4, k=3))
        assert (resample(volume, like=moved, order=0).array == expected).all()


def test_a_cubic_spline_keeps_a_polynomial():
    places = np.arange(40.0)
    volume = Volume((places**2)[:, None, None] * np.ones((40, 3, 3)), np.eye(4), unit="HU")
    finer = resample(volume, spacing=(0.5, 1, 1), order=3)
    assert finer.array[20:60, 1, 1] == pytest.approx(finer.places([[i, 1, 1] for i in range(20, 60)])[:, 0] ** 2, 1e-4)


@pytest.mark.parametrize("spacing", [1.0, (2.0, 0.5, 0.5), (3.0, 0.8, 0.7)])
def test_other_spacing_keeps_centre_axes_and_extent(spacing):
    volume = make(turn=OBLIQUE)
    finer = resample(volume, spacing=spacing)
    assert finer.spacing == pytest.approx((spacing,) * 3 if isinstance(spacing, float) else spacing)
    assert finer.orientation == volume.orientation
    for one in (volume, finer):
        assert one.places((np.array(one.shape) - 1) / 2) == pytest.approx(
            volume.places((np.array(volume.shape) - 1) / 2)
        )
    assert (np.array(finer.shape) * finer.spacing >= np.array(volume.shape) * volume.spacing - 1e-6).all()
    assert (np.array(finer.shape) * finer.spacing < np.array(volume.shape) * volume.spacing + finer.spacing).all()


def test_the_voxels_of_a_volume_are_not_changed_by_its_own_spacing():
    volume = make()
    same = resample(volume, spacing=volume.spacing)
    assert same_geometry(same, volume, 1e-9)
    assert same.array == pytest.approx(volume.array, abs=1e-3)


def test_labels_stay_labels():
    array = np.zeros((6, 6, 6), dtype=np.uint8)
    array[2:4, 2:4, 2:4] = 7
    for one in (Volume(array, np.eye(4), "label"), Volume(array > 0, np.eye(4))):
        finer = resample(one, spacing=0.5)
        assert finer.array.dtype == one.array.dtype
        assert np.count_nonzero(finer.array) == 8 * 8
        with pytest.raises(ValueError, match="no values between"):
            resample(one, spacing=0.5, order=1)


def test_what_lies_outside_is_not_guessed():
    volume, far = make(unit="mystery"), make(first=(-40, 30, 100))
    with pytest.raises(ValueError, match="pass fill"):
        resample(volume, like=far)
    assert resample(volume, like=far, fill=-5).array.min() < -5 + 1e-6
    assert resample(make(unit="SUV"), like=far).array[..., 0].max() == 0
    grey = Volume(np.ones((2, 2, 2), np.uint8), np.eye(4), "HU")
    with pytest.raises(ValueError, match="outside of the numbers of uint8"):
        resample(grey, like=far, order=0)
    with pytest.raises(ValueError, match="one of them"):
        resample(volume)
    with pytest.raises(ValueError, match="degree of a spline"):
        resample(volume, spacing=1, order=9)
    for spacing in (0, -1, (1, 1), (1, 1, np.inf), np.nan):
        with pytest.raises(ValueError, match="spacing is one length"):
            resample(volume, spacing=spacing)
    with pytest.raises(ValueError, match="the most are"):
        resample(volume, spacing=1e-4)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((2, 2)), np.eye(4), "axes slices, rows, columns"),
        (np.zeros((0, 2, 2)), np.eye(4), "none of them empty"),
        (np.full((2, 2, 2), np.nan), np.eye(4), "finite"),
        (np.full((2, 2, 2), "a"), np.eye(4), "array of numbers"),
        ([[[1]]], np.eye(4), "array of numbers"),
        (np.zeros((2, 2, 2)), np.eye(3), "4 x 4"),
        (np.zeros((2, 2, 2)), np.full((4, 4), np.nan), "4 x 4"),
        (np.zeros((2, 2, 2)), np.diag([1, 0, 1, 1]), "sides above 0"),
        (np.zeros((2, 2, 2)), np.eye(4) + 0.1 * np.eye(4, k=1) * (np.arange(4) < 2), "tilted gantry"),
    ],
)
def test_no_volume(array, affine, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Volume(array, affine)


def test_geometry_is_compared_in_millimetres():
    volume = make()
    for move, same in ((0.05, True), (0.5, False)):
        shift = np.zeros((4, 4))
        shift[1, 3] = move
        other = Volume(volume.array, volume.affine + shift)
        assert same_geometry(volume, other) is same
        assert same_geometry(volume, other, tolerance=1.0)
    assert not same_geometry(volume, make((7, 9, 10)), tolerance=1e9)
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 5


def test_a_box_in_millimetres_keeps_places():
    volume = make(turn=OBLIQUE)
    mask = np.zeros(volume.shape, dtype=bool)
    mask[3:5, 2:7, 4:7] = True
    box = crop_mm(volume, Volume(mask, volume.affine), size=(6, 4.0, 2.1))
    assert box.array.tolist() == volume.array[3:5, 2:7, 4:7].tolist()
    assert box.places((0, 0, 0)) == pytest.approx(volume.places((3, 2, 4)))
    centre = volume.places((0, 0, 0))
    wide = crop_mm(volume, centre, size=(9, 2.4, 2.1))
    assert (wide.array[0] == -1024).all() and (wide.array[:, 0] == -1024).all()
    assert wide.array[1, 1, 1] == volume.array[0, 0, 0]
    assert wide.places((1, 1, 1)) == pytest.approx(centre)
    with pytest.raises(ValueError, match="outside of the volume"):
        crop_mm(volume, (1e4, 0, 0), 10)
    with pytest.raises(ValueError, match="other voxels"):
        crop_mm(volume, make(), 10)
    with pytest.raises(ValueError, match="empty"):
        crop_mm(volume, Volume(np.zeros(volume.shape), volume.affine), 10)
    with pytest.raises(ValueError, match="size is one length"):
        crop_mm(volume, centre, (1, -1, 1))
    with pytest.raises(ValueError, match="smaller box"):
        crop_mm(volume, centre, 1e6)


def test_windows():
    volume = make()
    lung = apply_window(volume, "lung")
    assert lung.dtype == np.float32
    assert lung == pytest.approx(((volume.array + 1350) / 1500).clip(0, 1), abs=1e-6)
    both = apply_window(volume, ["lung", (-160, 240)])
    assert both.shape == (7, 2, 9, 11)
    assert (both[:, 0] == lung).all()
    assert (both[:, 1] == apply_window(volume, "mediastinum")).all()
    assert apply_window(make(unit="SUV"), (0, 10)).max() == 1
    for window, message in (("bone", "no window"), ((5, 1), "low < high"), ([], "empty list")):
        with pytest.raises(ValueError, match=message):
            apply_window(volume, window)
    with pytest.raises(ValueError, match="is one of HU"):
        apply_window(make(unit="SUV"), "lung")


@pytest.mark.parametrize(
    ("areas", "n_slices", "expected"),
    [
        ([0, 1, 5, 2, 0], 3, [1, 2, 3]),
        ([5, 1, 0, 0, 0], 3, [0, 1, 2]),
        ([0, 0, 0, 0, 9], 2, [3, 4]),
        ([1, 3, 3, 3, 1], 1, [2]),
        ([1, 2], 8, [0, 1]),
    ],
)
def test_slices_around_the_largest_area(areas, n_slices, expected):
    mask = np.arange(10)[None, None] < np.array(areas)[:, None, None]
    assert slices_around_largest_area(mask, n_slices).tolist() == expected


def test_no_slices_without_a_structure():
    with pytest.raises(ValueError, match="empty"):
        slices_around_largest_area(np.zeros((3, 2, 2)), 2)
    with pytest.raises(ValueError, match="1 or more"):
        slices_around_largest_area(np.ones((3, 2, 2)), 0)


@pytest.mark.parametrize("spacing", ["522", "5", ("5", "2", "2"), True, None, b"5"])
def test_a_text_is_no_length(spacing, tmp_path):
    np.save(tmp_path / "scan.npy", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="spacing is one length in mm, or three|has no geometry: pass spacing="):
        read_scan(tmp_path / "scan.npy", spacing=spacing)
    if spacing is not None:
        with pytest.raises(ValueError, match="spacing is one length in mm, or three"):
            as_volume((np.ones((2, 3, 4)), spacing))
