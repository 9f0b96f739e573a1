"""Simulated cohorts and cohorts in folders: the laws they keep, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.nonparametric import kaplan_meier_estimator

from mmdls.cohort import check_cohort, find_tasks, modalities, survival_target
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.datasets._drawing import _grain
from mmdls.datasets._patients import draw_patients
from mmdls.datasets._survival import draw_times, linear_predictors, survival_curves

IMAGES = ["lesion_image", "lung_image"]


@pytest.fixture(scope="module")
def cohort():
    return make_nsclc_cohort(1200, n_slices=6, random_state=0)


def stack(column):
    return np.stack(column.to_numpy()).astype(float)


def recovered(features, factor, degree):
    """Cross-validated share of the variance of ``factor`` that a ridge recovers from ``features``."""
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(degree), StandardScaler(), RidgeCV(np.logspace(-2, 4, 7))
    )
    return cross_val_score(model, features, factor, cv=5, scoring="r2").mean()


def grain_energy(slices):
    """Mean absolute Laplacian of the bright part of each slice, then the mean over slices."""
    neighbours = sum(np.roll(slices, shift, axis) for axis in (-1, -2) for shift in (-1, 1))
    return np.log((np.abs(4 * slices - neighbours) * (slices > 70)).mean(axis=(2, 3)).mean(axis=1))[:, None]


def plain_features(X):
    """Mean, spread, and area of what is bright, of the slices of each patient."""
    columns = []
    for name in IMAGES:
        slices = stack(X[name])
        columns += [slices.mean(axis=(2, 3)), slices.std(axis=(2, 3)), (slices > 85).mean(axis=(2, 3))]
    return np.column_stack([values.mean(axis=1) for values in columns])


def test_tables_have_the_columns_of_the_project(cohort):
    assert list(modalities(cohort.data)) == ["lesion", "lung", "clinical", "pet", "radiomics"]
    assert modalities(cohort.data)["clinical"] == [
        "clinical_age",
        "clinical_sex",
        "clinical_smoking_status",
        "clinical_smoking_duration",
        "clinical_smoking_cessation",
        "clinical_diameter",
    ]
    assert {name: task.kind for name, task in find_tasks(cohort.target).items()} == {
        "subtype": "nominal",
        "stage": "ordinal",
        "dfs": "survival",
        "os": "survival",
    }
    assert list(cohort.target["stage"].cat.categories) == ["I-II", "III", "IV"]
    check_cohort(cohort.data, cohort.target)
    assert cohort.groups.equals(cohort.data["centre"])
    assert cohort.truth.index.equals(cohort.data.index)


def test_nobody_dies_before_disease_free_time_ends(cohort):
    for times in (cohort.target, cohort.truth):
        assert (times["dfs_time"] <= times["os_time"]).all()
    died_first = cohort.target["os_event"] & ~cohort.target["dfs_event"]
    assert not died_first.any()


def test_observed_outcomes_are_the_true_ones_cut_at_censoring(cohort):
    for name in ("dfs", "os"):
        seen, true = cohort.target[f"{name}_time"], cohort.truth[f"{name}_time"]
        event = cohort.target[f"{name}_event"]
        assert np.allclose(seen[event], np.ceil(true[event] * 10) / 10)
        assert (seen[~event] <= true[~event] + 0.1).all()
        assert (seen <= 96).all()
    lost = ~cohort.target["dfs_event"]
    assert (cohort.target["dfs_time"] == cohort.target["os_time"])[lost].all()


def test_without_censoring_every_event_is_seen():
    y = make_nsclc_cohort(100, n_slices=1, censoring=0, return_X_y=True, random_state=0)[1]
    assert y[["dfs_event", "os_event"]].all().all()
    heavy = make_nsclc_cohort(300, n_slices=1, censoring=3, return_X_y=True, random_state=0)[1]
    light = make_nsclc_cohort(300, n_slices=1, censoring=1, return_X_y=True, random_state=0)[1]
    assert heavy["os_event"].mean() < light["os_event"].mean() - 0.1


def test_tlg_is_mean_uptake_times_volume(cohort):
    assert np.allclose(cohort.data["pet_tlg"], cohort.data["pet_suvmean"] * cohort.data["pet_mtv"])
    assert (cohort.data["pet_suvmean"] < cohort.data["pet_suvpeak"]).all()
    assert (cohort.data["pet_suvpeak"] < cohort.data["pet_suvmax"]).all()


def test_numbers_are_those_reported_for_such_patients():
    rng = np.random.default_rng(0)
    patients = draw_patients(20_000, rng)
    assert patients["male"].mean() == pytest.approx(0.63, abs=0.02)
    assert patients["lusc"].mean() == pytest.approx(0.31, abs=0.03)
    assert patients["smoker"][patients["lusc"]].mean() == pytest.approx(0.84, abs=0.05)
    assert patients["smoker"][~patients["lusc"]].mean() == pytest.approx(0.35, abs=0.03)
    assert np.bincount(patients["stage"]) / 20_000 == pytest.approx([0.36, 0.29, 0.36], abs=0.02)
    adenocarcinoma = patients[~patients["lusc"]].groupby("stage").median(numeric_only=True)
    assert adenocarcinoma["diameter"].to_numpy() == pytest.approx([2.7, 4.4, 4.3], rel=0.05)
    assert adenocarcinoma["mtv"].to_numpy() == pytest.approx([8.5, 48, 76], rel=0.1)

    dfs, overall = survival_curves(linear_predictors(patients))
    five_years = pd.DataFrame({"dfs": dfs[:, 60], "os": overall[:, 60]}).groupby(patients["stage"]).mean()
    assert five_years["os"].to_numpy() == pytest.approx([0.68, 0.31, 0.14], abs=0.04)
    assert five_years["dfs"].to_numpy()[:2] == pytest.approx([0.52, 0.15], abs=0.03)


def test_true_curves_agree_with_the_drawn_times():
    rng = np.random.default_rng(1)
    patients = draw_patients(1, rng)
    predictors = {name: np.repeat(value, 20_000) for name, value in linear_predictors(patients).items()}
    times = draw_times(predictors, rng)
    curves = survival_curves({name: value[:1] for name, value in predictors.items()})
    for time, curve in zip(times, curves, strict=True):
        for month in (3, 12, 36, 60, 96):
            assert curve[0, month] == pytest.approx((time > month).mean(), abs=0.012)
        assert np.all(np.diff(curve) <= 0)


def test_no_score_ranks_better_than_the_oracle(cohort):
    truth, y = cohort.truth, cohort.target
    for name in ("dfs", "os"):
        outcome = survival_target(y, name)
        oracle = concordance_index_censored(outcome["event"], outcome["time"], truth[f"{name}_risk"])[0]
        assert 0.70 < oracle < 0.79
        for partial in ("image_factor", "progression", "burden"):
            other = concordance_index_censored(outcome["event"], outcome["time"], truth[partial])[0]
            assert other < oracle + 0.005


def test_image_factor_adds_to_tables(cohort):
    tables = np.log(cohort.data[["clinical_diameter", "pet_suvmax", "pet_mtv"]]).assign(age=cohort.data["clinical_age"])
    tables = (tables - tables.mean()) / tables.std()
    outcome = survival_target(cohort.target, "os")
    without = CoxPHSurvivalAnalysis().fit(tables, outcome).score(tables, outcome)
    both = tables.assign(factor=cohort.truth["image_factor"])
    assert CoxPHSurvivalAnalysis().fit(both, outcome).score(both, outcome) > without + 0.02


def test_bayes_probabilities_are_calibrated_and_rank_well(cohort):
    lusc = (cohort.target["subtype"] == "LUSC").to_numpy()
    assert cohort.truth["LUSC_probability"].mean() == pytest.approx(lusc.mean(), abs=0.04)
    assert roc_auc_score(lusc, cohort.truth["LUSC_probability"]) > 0.8
    stages = cohort.truth[["I-II_probability", "III_probability", "IV_probability"]]
    assert np.allclose(stages.sum(axis=1), 1)
    late = stages["IV_probability"] > 0.7
    assert (cohort.target["stage"][late] == "IV").mean() == pytest.approx(
        stages["IV_probability"][late].mean(), abs=0.08
    )


@pytest.mark.parametrize("degree", [1, 2])
def test_brightness_spread_and_area_do_not_tell_the_image_factor(cohort, degree):
    features = plain_features(cohort.data)
    assert recovered(features, cohort.truth["image_factor"], degree) < 0.2
    # the probe itself works: it does recover the diameter
    assert recovered(features, np.log(cohort.data["clinical_diameter"]), degree) > 0.6


def test_radiomics_tell_size_and_uptake_but_not_the_image_factor(cohort):
    radiomics = cohort.data.filter(like="radiomics_")
    assert recovered(radiomics, cohort.truth["image_factor"], 1) < 0.2
    for features in (
        radiomics.iloc[:, : len(cohort.radiomics_names)],
        radiomics.iloc[:, len(cohort.radiomics_names) :],
    ):
        for shown in ("clinical_diameter", "pet_suvmax"):
            assert recovered(features, np.log(cohort.data[shown]), 1) > 0.6


def test_grain_tells_the_image_factor(cohort):
    energy = grain_energy(stack(cohort.data["lesion_image"]))
    size = np.log(cohort.data[["clinical_diameter"]].to_numpy())
    assert recovered(np.hstack([energy, size]), cohort.truth["image_factor"], 3) > 0.6
    lung = grain_energy(stack(cohort.data["lung_image"]))
    assert recovered(np.hstack([lung, size]), cohort.truth["image_factor"], 3) < 0.05


def test_without_image_signal_grain_tells_nothing_and_survival_stays(cohort):
    silent = make_nsclc_cohort(1200, n_slices=6, image_signal=0.0, random_state=0)
    energy = grain_energy(stack(silent.data["lesion_image"]))
    size = np.log(silent.data[["clinical_diameter"]].to_numpy())
    assert recovered(np.hstack([energy, size]), silent.truth["image_factor"], 3) < 0.03
    pd.testing.assert_frame_equal(silent.target, cohort.target)
    pd.testing.assert_frame_equal(silent.truth, cohort.truth)
    # and the slices look the same on the whole
    assert energy.std() == pytest.approx(grain_energy(stack(cohort.data["lesion_image"])).std(), rel=0.1)


@pytest.mark.parametrize("size", [31, 32, 64])
def test_grain_has_unit_variance_whatever_its_kind(size):
    for fine in (0.0, 0.3, 1.0):
        grain = _grain(np.random.default_rng(0), 200, size, fine)
        assert grain.shape == (200, size, size)
        assert grain.var() == pytest.approx(1, abs=0.05)


def test_lung_shows_something_else_than_the_lesion(cohort):
    for lesion, lung in zip(cohort.data["lesion_image"][:20], cohort.data["lung_image"][:20], strict=True):
        assert lesion.dtype == lung.dtype == np.uint8
        assert np.corrcoef(lesion.ravel(), lung.ravel())[0, 1] < 0.3


def test_one_seed_gives_one_cohort_and_leaves_the_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (make_nsclc_cohort(20, random_state=7) for _ in range(2))
    other = make_nsclc_cohort(20, random_state=8)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    pd.testing.assert_frame_equal(first.data.drop(columns=IMAGES), second.data.drop(columns=IMAGES))
    pd.testing.assert_frame_equal(first.target, second.target)
    for name in IMAGES:
        for a, b in zip(first.data[name], second.data[name], strict=True):
            assert np.array_equal(a, b)
    assert not first.target.equals(other.target)


@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.RandomState])
def test_generators_are_accepted(kind):
    first, second = (make_nsclc_cohort(10, n_slices=1, random_state=kind(3)) for _ in range(2))
    pd.testing.assert_frame_equal(first.target, second.target)


def test_dials_of_the_images_change_neither_patients_nor_outcomes(cohort):
    other = make_nsclc_cohort(
        1200, n_slices=1, image_size=8, n_radiomics=0, missing={"lesion": 0.5}, masks=True, random_state=0
    )
    pd.testing.assert_frame_equal(other.target, cohort.target)
    tables = [c for c in cohort.data if c.startswith(("clinical_", "pet_"))]
    pd.testing.assert_frame_equal(other.data[tables], cohort.data[tables])


def test_numbers_of_slices_vary_within_bounds():
    X = make_nsclc_cohort(60, n_slices=(2, 5), random_state=0).data
    counts = X["lesion_image"].map(len)
    assert set(counts) == {2, 3, 4, 5}
    assert (counts == X["lung_image"].map(len)).all()


def test_masks_mark_lung_and_lesion_in_the_lung_image():
    X = make_nsclc_cohort(40, masks=True, random_state=0).data
    for image, lung, lesion in zip(X["lung_image"], X["lung_mask"], X["lesion_mask"], strict=True):
        assert lung.shape == lesion.shape == image.shape
        assert lung.dtype == lesion.dtype == bool
        assert not (lesion & ~lung).any()
        assert image[lesion].mean() > image[lung & ~lesion].mean()
    assert list(modalities(X)) == ["lesion", "lung", "clinical", "pet", "radiomics"]


def test_whole_modalities_are_missing_at_the_rates_asked_for():
    X = make_nsclc_cohort(1000, n_slices=1, missing={"lesion": 0.3, "pet": 0.6}, random_state=0).data
    assert X["lesion_image"].isna().mean() == pytest.approx(0.3, abs=0.05)
    assert X["lesion_image"][X["lesion_image"].isna()].map(lambda cell: cell is None).all()
    pet = X.filter(like="pet_").isna()
    assert pet.any(axis=1).equals(pet.all(axis=1))
    assert pet.all(axis=1).mean() == pytest.approx(0.6, abs=0.05)
    assert X["lung_image"].notna().all()


def test_single_values_are_missing_more_often_in_the_old():
    X = make_nsclc_cohort(2000, n_slices=1, missing_values=0.2, random_state=0).data
    values = X.drop(columns="clinical_age").filter(regex="^(clinical|pet)_").isna()
    assert values.to_numpy().mean() == pytest.approx(0.2, abs=0.02)
    old = X["clinical_age"] > X["clinical_age"].median()
    assert values[old].to_numpy().mean() > values[~old].to_numpy().mean() + 0.05
    assert X["clinical_age"].notna().all()


def test_centres_differ_as_far_as_asked():
    ratio, follow_up = [], []
    for shift in (0.0, 1.0):
        cohort = make_nsclc_cohort(2000, n_slices=1, centre_shift=shift, n_radiomics=0, random_state=0)
        scale = np.log(cohort.data["pet_suvmax"] / cohort.data["clinical_diameter"] ** 0.45)
        early = cohort.target["stage"] == "I-II"
        by_centre = scale[early].groupby(cohort.groups[early]).median()
        ratio.append(np.exp(by_centre["C"] - by_centre["B"]))
        censored = ~cohort.target["os_event"]
        time, survival = kaplan_meier_estimator(
            censored[cohort.groups == "B"], cohort.target["os_time"][cohort.groups == "B"]
        )
        follow_up.append(time[np.argmax(survival <= 0.5)])
    assert ratio[0] == pytest.approx(1, abs=0.15)
    assert ratio[1] == pytest.approx(1.2 / 0.85, abs=0.2)
    assert follow_up[1] < 0.75 * follow_up[0]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_patients": 0}, ValueError, "n_patients must be 1 or more"),
        ({"n_patients": 10.5}, TypeError, "n_patients must be a whole number"),
        ({"image_signal": 1.5}, ValueError, "image_signal must lie between 0 and 1"),
        ({"n_slices": (5, 2)}, ValueError, "n_slices must be"),
        ({"n_slices": 0}, ValueError, "n_slices must be"),
        ({"missing": {"ct": 0.5}}, KeyError, "which are no modalities"),
        ({"missing": 2.0}, ValueError, "between 0 and 1"),
        ({"censoring": -1}, ValueError, "censoring must be"),
        ({"centre_shift": np.nan}, ValueError, "centre_shift must be"),
    ],
)
def test_impossible_parameters_are_refused(parameters, error, message):
    with pytest.raises(error, match=message):
        make_nsclc_cohort(**({"n_patients": 10} | parameters))


@pytest.fixture
def folder(tmp_path):
    make_nsclc_cohort(6, n_slices=(2, 4), image_size=16, random_state=0, folder=tmp_path / "cohort")
    return tmp_path / "cohort"


def edit(folder, change):
    path = folder / "clinical.csv"
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


def test_a_written_cohort_reads_back_as_it_was(tmp_path):
    dials = {"missing": 0.3, "missing_values": 0.1, "masks": True, "image_size": 16, "random_state": 3}
    kept = make_nsclc_cohort(30, **dials)
    written = make_nsclc_cohort(30, **dials, folder=tmp_path / "cohort")
    again = load_cohort(tmp_path / "cohort")
    pictures = [*IMAGES, "lung_mask", "lesion_mask"]
    assert list(written.data) == list(again.data)
    assert set(written.data) == set(kept.data)
    for read in (written, again):
        pd.testing.assert_frame_equal(
            read.data.drop(columns=pictures), kept.data[read.data.columns].drop(columns=pictures)
        )
        pd.testing.assert_frame_equal(read.target, kept.target)
        pd.testing.assert_series_equal(read.groups, kept.groups)
    pd.testing.assert_frame_equal(written.truth, kept.truth)
    assert again.other.empty
    for name in pictures:
        for path, array in zip(again.data[name], kept.data[name], strict=True):
            if array is None:
                assert path is None
                continue
            files = sorted((tmp_path / "cohort" / path).iterdir())
            slices = np.stack([np.asarray(Image.open(file)) for file in files])
            assert np.array_equal(slices > 0 if array.dtype == bool else slices, array)


def test_writing_overwrites_nothing(folder):
    with pytest.raises(FileExistsError, match="not empty"):
        make_nsclc_cohort(5, folder=folder)


def test_slices_may_lie_below_images(folder):
    expected = load_cohort(folder).data["lesion_image"]
    (folder / "images").mkdir()
    for patient in expected.index:
        (folder / patient).rename(folder / "images" / patient)
    found = load_cohort(folder).data["lesion_image"]
    assert list(found) == [path.replace(str(folder), str(folder / "images")) for path in expected]


def test_slices_are_joined_by_id_and_not_opened(folder):
    (folder / "P00003" / "lesion" / "slice_01.png").write_bytes(b"no picture")
    edit(folder, lambda table: table.iloc[::-1])
    X, _ = load_cohort(folder, return_X_y=True)
    assert list(X.index) == [f"P0000{k}" for k in range(6, 0, -1)]
    assert all(patient in path for patient, path in X["lesion_image"].items())


def test_missing_folders_become_none(folder):
    for file in (folder / "P00002" / "space").iterdir():
        file.unlink()
    (folder / "P00002" / "space").rmdir()
    X = load_cohort(folder).data
    assert X.loc["P00002", "lung_image"] is None
    assert isinstance(X.loc["P00002", "lesion_image"], str)


def test_codes_and_spellings_of_labels_are_understood(folder):
    def code(table):
        table = table.rename(columns={"patient_id": "pid", "centre": "center"})
        table["subtype"] = [0, 1, 0, 1, None, 0]
        table["tnm_stage"] = ["IIIA", "iv", "I-II", "Stage 4", "IB", None]
        return table.assign(time_to_relapse=1.0)

    edit(folder, code)
    with pytest.warns(UserWarning, match=r"columns \['time_to_relapse'\].* are left out"):
        cohort = load_cohort(folder)
    assert list(cohort.target["subtype"].astype(object).fillna("?")) == [
        "LUAD",
        "LUSC",
        "LUAD",
        "LUSC",
        "?",
        "LUAD",
    ]
    assert list(cohort.target["stage"].astype(object).fillna("?")) == ["III", "IV", "I-II", "IV", "I-II", "?"]
    assert cohort.groups.name == "centre"
    assert list(cohort.other) == ["time_to_relapse"]


@pytest.mark.parametrize("digits", [[0, 1, 2, 1, 0, None], [1, 2, 1, 2, 2, None], [3, 4, 3, 4, 4, None]])
def test_stages_as_bare_digits_need_their_meaning(folder, digits):
    edit(folder, lambda table: table.assign(tnm_stage=digits))
    with pytest.raises(ValueError, match=r"unknown labels in 'stage'.*may be stages or codes of groups.*codes="):
        load_cohort(folder)
    groups = {0: "I-II", 1: "III", 2: "IV", 3: "III", 4: "IV"}
    stage = load_cohort(folder, codes={"TNM_stage": groups}).target["stage"]
    assert list(stage.dropna()) == [groups[digit] for digit in digits if digit is not None]
    assert stage.isna().sum() == 1


def test_names_count_without_case_and_spaces_and_a_trailing_comma_shifts_nothing(folder):
    expected = load_cohort(folder)
    path = folder / "clinical.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    header = ",".join(f" {name.upper()} " for name in lines[0].split(","))
    path.write_text("\ufeff" + "\n".join(f"{line}," for line in [header, *lines[1:]]), encoding="utf-8")
    read = load_cohort(folder)
    pd.testing.assert_frame_equal(read.data, expected.data)
    pd.testing.assert_frame_equal(read.target, expected.target)
    path.write_text("\n".join([header, *(f"{line}," for line in lines[1:])]), encoding="utf-8")
    pd.testing.assert_frame_equal(load_cohort(folder).data, expected.data)


def test_endpoints_keep_their_names(folder):
    edit(
        folder,
        lambda table: table.assign(PFS_MONTHS=[1.0, 2, 3, 4, 5, 6], PFS_STATUS=["0:CENSORED", "1:PROGRESSION"] * 3),
    )
    target = load_cohort(folder).target
    assert list(find_tasks(target)) == ["subtype", "stage", "dfs", "os", "pfs"]
    assert list(target["pfs_event"]) == [False, True] * 3


def test_half_an_endpoint_is_refused(folder):
    edit(folder, lambda table: table.drop(columns="os_event"))
    with pytest.raises(ValueError, match="'os_time' alone"):
        load_cohort(folder)


def test_a_cohort_without_outcomes_or_arrays_is_a_cohort(folder):
    for name in ("pet.npy", "radiomics.npy"):
        (folder / name).unlink()
    edit(folder, lambda table: table[["patient_id", "age", "sex"]])
    cohort = load_cohort(folder)
    assert list(cohort.data) == ["clinical_age", "clinical_sex", *IMAGES]
    assert cohort.target.shape == (6, 0)
    assert cohort.groups is None


def test_numbers_as_ids_stay_text(folder):
    for number in range(1, 7):
        (folder / f"P{number:05d}").rename(folder / f"{number:03d}")
    edit(folder, lambda table: table.assign(patient_id=[f"{number:03d}" for number in range(1, 7)]))
    X = load_cohort(folder).data
    assert list(X.index) == ["001", "002", "003", "004", "005", "006"]
    assert X["lesion_image"].notna().all()


def test_the_older_flat_layout_is_read(folder):
    pictures = {}
    for part in ("images", "lung_masks", "lesion_masks"):
        (folder / part).mkdir()
        for number in (1, 2):
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
            pixels = pixels if part == "images" else np.uint8(255) * (pixels > 99)
            pictures[part, number] = pixels
            Image.fromarray(pixels).save(folder / part / f"P00002_{number:02d}.png")
    X = load_cohort(folder).data
    assert X["ct_image"].notna().sum() == 1
    assert np.array_equal(X.loc["P00002", "ct_image"], [pictures["images", 1], pictures["images", 2]])
    assert np.array_equal(X.loc["P00002", "lesion_mask"][1], pictures["lesion_masks", 2] > 0)

    (folder / "lung_masks" / "P00002_02.png").unlink()
    with pytest.raises(ValueError, match=r"'P00002': lung_masks lacks .*P00002_02.png"):
        load_cohort(folder)


def test_missing_files_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_cohort(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder ''"):
        load_cohort("")
    (folder / "clinical.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no clinical\.csv"):
        load_cohort(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[:-1], r"radiomics\.npy has 6 rows and clinical\.csv has 5|pet\.npy has 6 rows"),
        (
            lambda t: t.assign(patient_id=["a", "b", "c", "d", "e", "a"]),
            r"more than one row for the patients \['a'\]",
        ),
        (
            lambda t: t.assign(patient_id=["a", "b", None, "d", "e", "f"]),
            r"without 'patient_id', in lines \[4\]",
        ),
        (lambda t: t.rename(columns={"patient_id": "name"}), "lacks the column 'patient_id'"),
        (lambda t: t.assign(subtype="SCLC"), "unknown labels in 'subtype': .*SCLC.*P00001"),
        (lambda t: t.assign(tnm_stage=3), "unknown labels in 'stage'"),
        (lambda t: t.assign(treatment=2), "unknown labels in 'treatment'"),
        (lambda t: t.assign(os_event=2), "neither 0 nor 1"),
        (lambda t: t.assign(os_time=-1.0), "negative"),
        (lambda t: t.assign(dfs_time=1000.0), "disease-free survival ends after overall survival"),
        (lambda t: t.assign(pet_suvmax=1.0), "both hold pet features"),
        (lambda t: t.assign(clinical_age=t["age"]), "twice under different names"),
        (lambda t: t.iloc[:0], "no patients"),
    ],
)
def test_bad_tables_are_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        load_cohort(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("radiomics", np.zeros((4, 3)), "radiomics.npy has 4 rows and clinical.csv has 6 patients"),
        ("pet", np.zeros((6, 4)), "pet.npy has 4 columns; expected 5: pet_suvmax"),
        ("pet", np.zeros(6), "must be a table of numbers"),
        ("radiomics", np.array([[None]] * 6, dtype=object), "no readable array"),
    ],
)
def test_bad_arrays_are_refused(folder, name, values, message):
    np.save(folder / f"{name}.npy", values)
    with pytest.raises(ValueError, match=message):
        load_cohort(folder)


def test_an_empty_folder_of_slices_names_its_patient(folder):
    for file in (folder / "P00004" / "lesion").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"patient 'P00004'.*holds no PNG slices"):
        load_cohort(folder)


def test_a_patient_folder_without_known_parts_is_refused(folder):
    for part in ("lesion", "space"):
        (folder / "P00005" / part).rename(folder / "P00005" / f"{part}s")
    with pytest.raises(ValueError, match=r"patient 'P00005'.*holds none of"):
        load_cohort(folder)


def test_folders_of_unknown_patients_are_told(folder):
    (folder / "P00006").rename(folder / "stranger")
    with pytest.warns(UserWarning, match=r"without a row in clinical\.csv: .*stranger"):
        X = load_cohort(folder).data
    assert X.loc["P00006", "lesion_image"] is None
    edit(folder, lambda table: table.assign(patient_id=list("abcdef")))
    with pytest.raises(ValueError, match="the ids must be the same"):
        load_cohort(folder)
