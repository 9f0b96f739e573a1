"""Radiomics: published values, the IBSI phantom, closed forms, the engine alone, and patients who fail."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.ibsi import compare
from mmdls import RadiomicsExtractor
from mmdls.estimators.measurements import _radiomics
from mmdls.estimators.measurements._radiomics_engines import CLASSES
from mmdls.scans import Volume, read_scan

pytest.importorskip("fastrad", reason='needs pip install "mmdls[radiomics]"')

from mmdls.estimators.measurements._lesion_shape import shape_features  # noqa: E402


def measured(image, mask, sides=(1.0, 1.0, 1.0), **params):
    X = pd.DataFrame({"ct_image": [(image, sides)], "ct_mask": [mask]}, index=["P1"])
    found = RadiomicsExtractor(**params).set_output(transform="pandas").fit_transform(X).iloc[0]
    return found.rename(lambda name: name.removeprefix("radiomics_"))


@pytest.fixture
def lesion():
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (9, 12, 13)], indexing="ij")
    image = rng.normal(40, 60, size=z.shape).round()
    return image, z**2 / 9 + y**2 / 16 + x**2 / 25 < 1.1


# -- values ------------------------------------------------------------------------------------------------------------

# The published values are of a release with another triangulation of the surface. PyRadiomics 3.0.1 gives ours.
OTHER_SURFACE = {"mesh_volume", "sphericity", "surface_area", "surface_volume_ratio"}
RENAMED = {"10Percentile": "10th_percentile", "90Percentile": "90th_percentile"}
# Features that PyRadiomics itself leaves out by default, since others say the same.
LEFT_OUT = {"StandardDeviation", "Compactness2"}


@pytest.mark.slow
def test_published_values_of_a_lung_tumour(data_dir):
    folder = data_dir / "lung1_001"
    published = json.loads((folder / "golden_pyradiomics_LUNG1-001.json").read_text())
    scan = read_scan(folder / "LUNG1-001_ct_hu.nii.gz", unit="HU")
    mask = read_scan(folder / "LUNG1-001_gtv1_mask.nii.gz", unit="label")
    # As published: 1024 added, and voxels of 1 mm.
    found = measured(scan.array.astype(float) + 1024, mask.array)
    compared = 0
    plain = {name.replace("_", ""): name for name in found.index}
    for family in ("firstorder", "shape", "GLCM", "GLRLM"):
        for name, value in published[family].items():
            if name in LEFT_OUT:
                continue
            ours = plain[(family + RENAMED.get(name, name)).lower().replace("_", "")]
            tolerance = 5e-3 if ours.partition("_")[2] in OTHER_SURFACE else 1e-6
            assert found[ours] == pytest.approx(value, rel=tolerance), ours
            compared += 1
    assert compared == 72


@pytest.mark.slow
def test_contours_of_a_file_are_the_lesion_by_their_name(data_dir):
    folder = data_dir / "lung1_001"
    X = pd.DataFrame({"ct_image": [folder / "LUNG1-001_ct_hu.nii.gz"], "ct_mask": [folder / "LUNG1-001_rtstruct.dcm"]})
    model = RadiomicsExtractor(classes=("shape", "firstorder"))
    by_mask = model.fit_transform(X.assign(ct_mask=[folder / "LUNG1-001_gtv1_mask.nii.gz"]))
    np.testing.assert_allclose(model.set_params(label="GTV-1").fit_transform(X), by_mask, rtol=1e-2)


def test_the_ibsi_phantom(data_dir):
    table = compare(data_dir / "ibsi_digital_phantom")
    failed = set(table.index[table["result"] == "failed"])
    # Kurtosis is not reduced by 3, and lengths of axes are of the variance divided by n instead of n - 1.
    assert failed == {"firstorder_kurtosis", "shape_least_axis_length", "shape_minor_axis_length"}
    assert table.loc["firstorder_kurtosis", "value"] - 3 == pytest.approx(-0.355, abs=5e-4)
    for name in ("shape_least_axis_length", "shape_minor_axis_length"):
        unbiased = table.loc[name, "value"] * np.sqrt(74 / 73)
        assert abs(unbiased - table.loc[name, "reference"]) <= table.loc[name, "tolerance"]
    assert (table["result"] == "passed").sum() == 101


def test_the_ibsi_table_is_made_by_a_command(data_dir):
    done = subprocess.run([sys.executable, "-m", "benchmarks.ibsi"], capture_output=True, text=True, check=True)
    assert "firstorder_kurtosis" in done.stdout and "of IBSI, not offered" in done.stdout


def test_features_are_the_engine_s_own(lesion):
    import torch
    from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

    image, mask = lesion
    engine = FeatureExtractor(FeatureSettings(bin_width=20.0, device="cpu"))
    box = tuple(slice(part.min(), part.max() + 1) for part in np.nonzero(mask))
    scan, region = (torch.as_tensor(array[box].astype(float)) for array in (image, mask))
    alone = engine.extract(MedicalImage(scan, (2.0, 0.8, 0.8)), Mask(region, (2.0, 0.8, 0.8)))
    found = measured(image, mask, (2.0, 0.8, 0.8), bin_width=20.0)
    assert len(found) == 107 and found.notna().all()
    for name, value in found.items():
        family, _, feature = name.partition("_")
        if name == "firstorder_median":  # the engine's is a voxel's value
            assert value == np.median(image[mask])
            continue
        assert value == pytest.approx(alone[f"{family}:{feature}"], rel=1e-9), name


@pytest.mark.parametrize("seed", range(20))
def test_the_shape_equals_the_engine_s_on_ragged_masks(seed):
    import torch
    from fastrad import FeatureSettings
    from fastrad.features import compute_shape

    rng = np.random.default_rng(seed)
    mask, spacing = rng.random((5, 6, 7)) < rng.uniform(0.1, 0.9), tuple(rng.uniform(0.5, 3, 3))
    mask[0, 0, 0] = mask[-1, -1, -1] = True  # the engine's volume depends on where the array begins
    settings = FeatureSettings(device="cpu", spacing=spacing)
    alone = compute_shape(None, torch.as_tensor(mask).float(), settings)
    for name, value in shape_features(mask, spacing).items():
        assert value == pytest.approx(alone[f"shape:{name}"], rel=1e-9), name


def test_shapes_with_a_closed_form():
    z, y, x = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (51, 41, 31)], indexing="ij")
    ball = shape_features(z**2 + y**2 + x**2 <= 14**2, (1, 1, 1))
    assert ball["mesh_volume"] == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.01)
    assert ball["maximum_3d_diameter"] == pytest.approx(28, abs=1.1)
    assert ball["elongation"] == pytest.approx(1, abs=1e-9) and 0.85 < ball["sphericity"] < 1
    ellipsoid = shape_features(z**2 / 24**2 + y**2 / 18**2 + x**2 / 12**2 <= 1, (1, 1, 1))
    assert ellipsoid["elongation"] == pytest.approx(18 / 24, abs=0.01)
    assert ellipsoid["flatness"] == pytest.approx(12 / 24, abs=0.01)
    # The moments of a ball of radius R along each axis are R^2 / 5, so that 4 of their roots are 4 R / sqrt(5).
    assert ellipsoid["major_axis_length"] == pytest.approx(4 * 24 / np.sqrt(5), rel=0.01)
    box = shape_features(np.ones((3, 4, 5), dtype=bool), (2, 1, 1))
    assert box["voxel_volume"] == 3 * 4 * 5 * 2
    # The surface passes half a voxel outside of the outer centres, without the corners.
    assert box["maximum_2d_diameter_slice"] == pytest.approx(np.sqrt(5**2 + 3**2))
    moved = np.zeros((9, 9, 9), dtype=bool)
    moved[4:7, 3:7, 2:7] = True
    assert shape_features(moved, (2, 1, 1)) == pytest.approx(box)


# -- steps -------------------------------------------------------------------------------------------------------------


def test_first_order_is_that_of_the_voxels_left_after_resegmentation(lesion):
    image, mask = lesion
    found = measured(image, mask, resegment=(-20, 100), classes=["firstorder"])
    left = image[mask & (image >= -20) & (image <= 100)]
    assert found["firstorder_minimum"] == left.min() >= -20 and found["firstorder_maximum"] == left.max() <= 100
    assert found["firstorder_mean"] == pytest.approx(left.mean())
    assert found["firstorder_variance"] == pytest.approx(left.var())


def test_resampling_to_voxels_of_the_same_size_changes_nothing_and_to_others_does(lesion):
    image, mask = lesion
    plain = measured(image, mask, (2.0, 1.0, 1.0))
    same = measured(image, mask, (2.0, 1.0, 1.0), spacing=(2.0, 1.0, 1.0))
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    fine = measured(image, mask, (2.0, 1.0, 1.0), spacing=1.0)
    assert fine["shape_voxel_volume"] == pytest.approx(plain["shape_voxel_volume"], rel=0.1)
    assert fine["glcm_contrast"] < 0.9 * plain["glcm_contrast"]


def test_bins_and_spacing_reach_the_engine(lesion):
    image, mask = lesion
    narrow, wide = (measured(image, mask, bin_width=width) for width in (10.0, 40.0))
    assert narrow["firstorder_entropy"] > wide["firstorder_entropy"] + 1
    assert measured(image, mask, (3.0, 1.0, 1.0))["firstorder_total_energy"] == pytest.approx(
        3 * measured(image, mask)["firstorder_total_energy"]
    )


def test_the_place_in_the_scan_changes_nothing(lesion):
    image, mask = lesion
    wide, around = np.pad(image, 7, constant_values=-1024), np.pad(mask, 7)
    np.testing.assert_allclose(measured(wide, around), measured(image, mask), rtol=1e-12)


def test_names_of_columns(lesion):
    image, mask = lesion
    X = pd.DataFrame({"pet_image": [(image, 1.0)], "lesion_mask": [mask]})
    model = RadiomicsExtractor(
        image_column="pet_image", mask_column="lesion_mask", unit="SUV", prefix="petradiomics", classes=("ngtdm",)
    )
    names = list(model.fit(X).get_feature_names_out())
    assert names == [f"petradiomics_ngtdm_{name}" for name in CLASSES["ngtdm"]]
    assert model.transform(X).shape == (1, 5)


# -- many patients -----------------------------------------------------------------------------------------------------


def cohort(lesion):
    image, mask = lesion
    rows = {"good": ((image, 1.0), mask), "few": ((image, 1.0), mask & (np.cumsum(mask).reshape(mask.shape) < 9))}
    rows["suv"] = (Volume(image, np.eye(4), unit="SUV"), mask)
    rows["absent"] = (None, None)
    rows["also good"] = ((image + 10, 1.0), mask)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["ct_image", "ct_mask"])


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_one_patient_s_failure_does_not_lose_the_others(lesion, n_jobs):
    X = cohort(lesion)
    model = RadiomicsExtractor(n_jobs=n_jobs).fit(X)
    with pytest.warns(UserWarning, match="2 of 5 patients could not be measured"):
        found = model.transform(X)
    np.testing.assert_array_equal(found[0], measured(*lesion))
    assert np.isnan(found[1:4]).all() and np.isfinite(found[4]).all()
    assert list(model.failures_.index) == ["few", "suv"]
    assert "8 voxels are left in the mask, and min_voxels=64" in model.failures_.loc["few", "reason"]
    assert "the image of patient 'suv' is in 'SUV', and 'HU' is needed" in model.failures_.loc["suv", "reason"]


def test_what_was_computed_is_kept(lesion, tmp_path, monkeypatch):
    image, mask = lesion
    first = measured(image, mask, memory=str(tmp_path))
    calls = []
    load = _radiomics.load_engine

    def counted(name):
        calls.append(name)
        return load(name)

    monkeypatch.setattr(_radiomics, "load_engine", counted)
    np.testing.assert_array_equal(measured(image, mask, memory=str(tmp_path)), first)
    assert not calls
    changed = measured(image, mask, memory=str(tmp_path), bin_width=10.0)
    assert len(calls) == 1 and changed["glcm_contrast"] != first["glcm_contrast"]


def test_a_missing_engine_says_how_to_get_it(lesion, monkeypatch):
    image, mask = lesion
    monkeypatch.setitem(sys.modules, "fastrad", None)
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(ImportError, match=r'pip install "mmdls\[radiomics\]"'):
        measured(image, mask)
    with pytest.raises(ImportError, match="docs/radiomics.md"):
        measured(image, mask, engine="pyradiomics")


def test_both_engines_agree(lesion):
    pytest.importorskip("radiomics", reason="PyRadiomics must be built by hand")
    image, mask = lesion
    classes = [name for name in CLASSES if name != "shape"]
    ours, other = (measured(image, mask, classes=classes, engine=engine) for engine in ("fastrad", "pyradiomics"))
    np.testing.assert_allclose(ours, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"classes": ["wavelet"]}, "classes must be some of"),
        ({"classes": "glcm"}, "classes"),
        ({"resegment": (400, -1000)}, "resegment is the lowest"),
        ({"bin_width": 0.0}, "bin_width"),
        ({"spacing": (1, 1)}, "spacing is one length in mm, or three"),
        ({"engine": "mirp"}, "engine"),
    ],
)
def test_what_is_refused(lesion, params, message):
    with pytest.raises(ValueError, match=message):
        measured(*lesion, **params)
