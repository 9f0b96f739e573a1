"""Uptake of lesions: closed forms, an independent computation, thresholds, and what is refused."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mmdls import PETFeatures
from mmdls.estimators.measurements._uptake import _sphere
from mmdls.scans import Volume

NAMES = ["pet_suvmax", "pet_suvmean", "pet_suvpeak", "pet_mtv", "pet_tlg"]


def measured(suv, mask, spacing=(2.0, 2.0, 2.0), **params):
    X = pd.DataFrame({"pet_image": [(suv, spacing)], "pet_mask": [mask]}, index=["P1"])
    return PETFeatures(**params).set_output(transform="pandas").fit_transform(X).iloc[0]


def ball(shape, spacing, radius, centre=None):
    """Distances from a place in mm, and whether a voxel's centre is in a ball."""
    axes = [(np.arange(n) - (n - 1) / 2) * side for n, side in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip((z, y, x), centre or (0, 0, 0), strict=True)))
    return distance, distance <= radius


def test_a_cube_of_constant_uptake():
    suv, mask = np.full((20, 20, 20), 1.0), np.zeros((20, 20, 20), dtype=bool)
    mask[4:16, 4:16, 4:16] = True
    suv[mask] = 6.0
    found = measured(suv, mask, (2.0, 1.5, 3.0))
    mtv = 12**3 * 9 / 1000
    np.testing.assert_allclose(found, [6, 6, 6, mtv, 6 * mtv])
    assert list(found.index) == NAMES


def test_a_ball_that_falls_off_from_its_middle():
    spacing = (1.0, 1.0, 1.0)
    distance, mask = ball((41, 41, 41), spacing, 15)
    suv = np.maximum(10 - 0.5 * distance, 0)
    found = measured(suv, mask, spacing)
    assert found["pet_suvmax"] == 10
    # Means of 10 - r / 2 over balls of radius R are 10 - 3 R / 8.
    assert found["pet_suvmean"] == pytest.approx(10 - 3 * 15 / 8, rel=2e-3)
    assert found["pet_suvpeak"] == pytest.approx(10 - 3 * 6.2035 / 8, rel=2e-3)
    assert found["pet_mtv"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=1e-2)
    # The isocontours of 4.0 and of half the maximum are balls of radius 12 and 10.
    fixed, share = (measured(suv, mask, spacing, threshold=t) for t in (4.0, "50%"))
    assert fixed["pet_mtv"] == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=2e-2)
    assert share["pet_mtv"] == pytest.approx(4 / 3 * np.pi * 10**3 / 1000, rel=2e-2)


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (3.27, 5.47, 5.47), (4.0, 1.0, 1.0), (20.0, 4.0, 4.0)])
def test_the_sphere_has_a_millilitre(spacing):
    kernel = _sphere(spacing, fractional=True)
    assert kernel.sum() * np.prod(spacing) == pytest.approx(1000, rel=0.01)
    assert (kernel == kernel[::-1, ::-1, ::-1]).all()


@pytest.mark.parametrize("peak", ["highest", "suvmax"])
@pytest.mark.parametrize("fractional", [True, False])
def test_the_peak_equals_one_computed_point_by_point(peak, fractional):
    rng = np.random.default_rng(0)
    spacing = np.array([4.0, 3.0, 2.5])
    suv = rng.gamma(2.0, 2.0, size=(6, 8, 9))
    mask = np.zeros(suv.shape, dtype=bool)
    mask[0:2, 2:5, 6:9] = True  # at the border of the scan
    n, radius = (12 if fractional else 1), (3 * 1000 / 4 / np.pi) ** (1 / 3)
    points = list(product((np.arange(n) + 0.5) / n - 0.5, repeat=3))
    means = {}
    for centre in np.argwhere(mask):
        total = weight = 0.0
        for voxel in np.argwhere(np.ones_like(mask)):
            if np.abs((voxel - centre) * spacing).max() > radius + 4:
                continue
            away = (voxel - centre + points) * spacing
            part = np.mean((away**2).sum(axis=1) <= radius**2)
            total, weight = total + part * suv[tuple(voxel)], weight + part
        means[tuple(centre)] = total / weight
    top = max(means, key=lambda place: suv[place])
    expected = max(means.values()) if peak == "highest" else means[top]
    found = measured(suv, mask, tuple(spacing), peak=peak, fractional_edges=fractional)
    assert found["pet_suvpeak"] == pytest.approx(expected, rel=1e-9)


def test_the_peak_of_the_ibsi_phantom(data_dir):
    nib = pytest.importorskip("nibabel")
    folder = data_dir / "ibsi_digital_phantom"
    suv, mask = (np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj).T for name in ("phantom", "mask"))
    local, globally = (
        measured(suv.astype(float), mask > 0, (2, 2, 2), peak=peak, fractional_edges=False)["pet_suvpeak"]
        for peak in ("suvmax", "highest")
    )
    assert (round(local, 1), round(globally, 1)) == (2.6, 3.1)


def test_total_lesion_glycolysis_is_the_sum_over_the_metabolic_volume():
    rng = np.random.default_rng(1)
    suv, mask = rng.gamma(2.0, 2.0, size=(10, 12, 14)), rng.random((10, 12, 14)) < 0.4
    for threshold in (None, 2.5, "41%"):
        found = measured(suv, mask, threshold=threshold)
        assert found["pet_tlg"] == found["pet_suvmean"] * found["pet_mtv"]
        limit = {None: -1, 2.5: 2.5}.get(threshold, -1)
        if threshold != "41%":
            assert found["pet_tlg"] == pytest.approx((suv[mask & (suv >= limit)] * 0.008).sum())


def two_lesions():
    suv, mask = np.ones((10, 10, 30)), np.zeros((10, 10, 30), dtype=bool)
    mask[2:8, 2:8, 2:8] = True  # the primary, SUV 10 with a rim of 3
    suv[2:8, 2:8, 2:8], suv[3:7, 3:7, 3:7] = 3, 10
    mask[4:6, 4:6, 20:24] = True
    suv[4:6, 4:6, 20:24] = 4  # a node that is below 41 % of the primary's maximum
    return suv, mask


def test_several_lesions():
    suv, mask = two_lesions()
    ml = 0.008
    whole = measured(suv, mask)
    assert whole["pet_mtv"] == pytest.approx((216 + 16) * ml)
    primary = measured(suv, mask, lesions="primary")
    assert primary["pet_mtv"] == pytest.approx(216 * ml) and primary["pet_suvmax"] == 10
    # Each lesion by its own maximum.
    assert measured(suv, mask, threshold="41%")["pet_mtv"] == pytest.approx((64 + 16) * ml)
    assert measured(suv, mask, threshold=4.0)["pet_mtv"] == pytest.approx((64 + 16) * ml)
    assert measured(suv, mask, threshold="41%", lesions="primary")["pet_mtv"] == pytest.approx(64 * ml)
    nothing = measured(suv, mask, threshold=20.0)
    assert nothing["pet_mtv"] == nothing["pet_tlg"] == 0 and np.isnan(nothing["pet_suvmean"])
    assert nothing["pet_suvmax"] == 10
    labels = mask.astype(np.uint8)
    labels[..., 15:] *= 2
    assert measured(suv, labels, label=2)["pet_mtv"] == pytest.approx(16 * ml)
    assert measured(suv, labels, label=[1, 2])["pet_mtv"] == whole["pet_mtv"]


def test_every_form_of_a_cell_measures_the_same(tmp_path):
    nib = pytest.importorskip("nibabel")
    suv, mask = two_lesions()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    volumes = Volume(suv, affine, unit="SUV"), Volume(mask, affine, unit="label")
    files = [tmp_path / "suv.nii.gz", tmp_path / "mask.nii.gz"]
    for values, path in zip((suv, mask.astype(np.uint8)), files, strict=True):
        nib.save(nib.Nifti1Image(values.T, np.diag([-2.0, -2.0, 2.0, 1.0])), path)
    rows = [((suv, 2.0), mask), ((suv, 2.0), (mask, 2.0)), volumes, (str(files[0]), files[1]), (None, None)]
    X = pd.DataFrame(rows, columns=["pet_image", "pet_mask"], index=list("abcde"))
    found = PETFeatures(threshold="41%").fit(X).transform(X)
    np.testing.assert_allclose(found[1:4], np.repeat(found[:1], 3, axis=0), rtol=1e-6)
    assert np.isnan(found[4]).all()
    parallel = PETFeatures(threshold="41%", n_jobs=2).fit(X).transform(X)
    np.testing.assert_array_equal(parallel, found)


def test_one_patient_s_failure_does_not_lose_the_others(tmp_path):
    suv, mask = two_lesions()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    bad = {
        "no mask": ((suv, 2.0), None, "there is an image and no mask"),
        "empty": ((suv, 2.0), mask & False, "the mask is empty"),
        "shape": ((suv, 2.0), mask[:5], "has other voxels than the image"),
        "place": (Volume(suv, affine), Volume(mask, affine + np.eye(4, k=3)), "has other voxels than the image"),
        "unit": (Volume(suv, affine, unit="Bq/mL"), mask, "is in 'Bq/mL', and 'SUV' is needed"),
        "no spacing": (suv, mask, "which has no voxel size"),
        "no file": (str(tmp_path / "gone.nii.gz"), (mask, 2.0), "there is no scan at"),
        "labels": ((suv, 2.0), mask * np.arange(30), "Choose one label or several"),
        "no mask file": ((suv, 2.0), str(tmp_path / "gone.nii.gz"), "there is no mask at"),
    }
    X = pd.DataFrame({"good": ((suv, 2.0), mask), **{k: v[:2] for k, v in bad.items()}}, ["pet_image", "pet_mask"]).T
    model = PETFeatures().fit(X)
    with pytest.warns(UserWarning, match="9 of 10 patients.*The first ones, 'no mask': .*; 'empty': "):
        found = model.transform(X)
    np.testing.assert_array_equal(found[0], measured(suv, mask))
    assert np.isnan(found[1:]).all() and list(model.failures_.index) == list(bad)
    for patient, (_, _, reason) in bad.items():
        assert (
            reason in model.failures_.loc[patient, "reason"] and "Error:" not in model.failures_.loc[patient, "reason"]
        )
    model.transform(X.iloc[:1])
    assert model.failures_.empty


def test_a_mask_on_other_voxels_is_brought_to_the_image_on_request():
    suv, mask = two_lesions()
    fine = Volume(mask.repeat(2, 0).repeat(2, 1).repeat(2, 2), np.diag([1.0, 1, 1, 1]), unit="label")
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5
    X = pd.DataFrame({"pet_image": [Volume(suv, affine, unit="SUV")], "pet_mask": [fine]})
    with pytest.warns(UserWarning, match="other voxels"):
        assert np.isnan(PETFeatures().fit_transform(X)).all()
    np.testing.assert_allclose(PETFeatures(resample_mask=True).fit_transform(X)[0], measured(suv, mask))


def test_names_follow_the_columns_and_only_they_are_read():
    suv, mask = two_lesions()
    X = pd.DataFrame({"clinical_age": [60], "suv_image": [(suv, 2.0)], "lesion_mask": [mask]})
    model = PETFeatures(image_column="suv_image", mask_column="lesion_mask").fit(X)
    assert list(model.get_feature_names_out())[:2] == ["suv_suvmax", "suv_suvmean"]
    assert list(model.feature_names_in_) == ["suv_image", "lesion_mask"]
    np.testing.assert_array_equal(clone(model).fit_transform(X)[0], measured(suv, mask))


def test_a_name_is_a_label_of_files_only():
    suv, mask = two_lesions()
    with pytest.warns(UserWarning, match="label='GTV' names a structure of a file"):
        assert measured(suv, mask, label="GTV").isna().all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"threshold": "41"}, "threshold is a SUV"),
        ({"threshold": "141%"}, "threshold is a SUV"),
        ({"threshold": -1.0}, "threshold"),
        ({"peak": "middle"}, "peak"),
        ({"image_column": "suv_image"}, r"X lacks the columns \['suv_image', 'suv_mask'\]"),
    ],
)
def test_what_is_refused(params, message):
    suv, mask = two_lesions()
    with pytest.raises(ValueError, match=message):
        measured(suv, mask, **params)


def test_noise_around_zero_counts_and_other_units_are_refused():
    suv, mask = np.full((12, 12, 12), 4.0), np.zeros((12, 12, 12), dtype=bool)
    mask[4:8, 4:8, 4:8] = True
    suv[5, 5, 5] = -0.5
    found = measured(suv, mask)
    assert found["pet_suvmean"] == pytest.approx(4 - 4.5 / 64) and found["pet_suvmax"] == 4
    suv[3, 4, 4] = -800.0
    for values in (suv, np.zeros(suv.shape), np.full(suv.shape, -1.0), np.full(suv.shape, 25_000.0)):
        with pytest.warns(UserWarning, match="these are no SUV"):
            assert measured(values, mask).isna().all()
