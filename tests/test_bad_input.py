"""Bad input never yields a number: what a user meets when a table, a folder or a file is wrong.

The validation functions have tests of their own; here the same faults go through whole estimators.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmdls import Trainer
from mmdls.cohort import check_target
from mmdls.estimators import MMDLS, ClinicalCox, MultimodalSurvival, SliceEncoder

QUICK = {"trainer": Trainer(max_epochs=1, validation_fraction=0.0), "random_state": 0}


@pytest.fixture
def on_disk(cohort_on_disk, tmp_path):
    """Twelve patients with both images, whose lesion slices may be damaged."""
    X = cohort_on_disk.data[["lesion_image", "lung_image", "clinical_age", "clinical_sex", "pet_suvmax"]]
    X = X[X["lesion_image"].notna() & X["lung_image"].notna()].head(12).copy()
    for patient, folder in X["lesion_image"].items():
        copy = tmp_path / str(patient)
        shutil.copytree(folder, copy)
        X.loc[patient, "lesion_image"] = str(copy)
    y = pd.DataFrame(
        {
            "dfs_time": np.arange(1.0, 13),
            "dfs_event": [1, 0] * 6,
            "os_time": np.arange(2.0, 14),
            "os_event": [0, 1] * 6,
        },
        index=X.index,
    ).assign(subtype=["LUAD", "LUSC"] * 6)
    return X, y


@pytest.fixture(scope="module")
def fitted(cohort_on_disk):
    return MMDLS(**QUICK).fit(cohort_on_disk.data, cohort_on_disk.target)


def spoil(X, patient, damage):
    """Damage one patient's folder of lesion slices; gives the folder."""
    folder = Path(X.loc[patient, "lesion_image"])
    damage(folder)
    return folder


def missing_folder(folder):
    shutil.rmtree(folder)


def empty_folder(folder):
    for file in folder.iterdir():
        file.unlink()


def corrupt_slice(folder):
    file = sorted(folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:60])


def no_image(folder):
    sorted(folder.iterdir())[0].write_text("not an image")


FILES = [
    (missing_folder, FileNotFoundError, "no image at .* of patient {patient}; correct the path, or use None"),
    (
        empty_folder,
        ValueError,
        "of patient {patient} has no PNG slice; it holds nothing. Name the folder",
    ),
    (corrupt_slice, ValueError, "of patient {patient} is damaged .*; replace it"),
    (no_image, ValueError, "of patient {patient} is no image; remove it or replace it"),
]


@pytest.mark.parametrize(("damage", "error", "message"), FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_cannot_be_read_stops_fit_and_predict(on_disk, damage, error, message):
    X, y = on_disk
    model = MMDLS(**QUICK).fit(X, y)
    patient = X.index[3]
    spoil(X, patient, damage)
    for call in (lambda: MMDLS(**QUICK).fit(X, y), lambda: model.predict(X)):
        with pytest.raises(error, match=message.format(patient=repr(patient))):
            call()


def test_a_mask_of_another_size_is_refused(on_disk):
    X, y = on_disk
    image = np.zeros((2, 16, 16), dtype=np.uint8)
    X["lesion_image"], X["lesion_mask"] = [image] * len(X), [np.ones((2, 16, 8), dtype=bool)] * len(X)
    model = MMDLS([("lesion", SliceEncoder(image_size=16), ["lesion_image", "lesion_mask"])], **QUICK)
    with pytest.raises(ValueError, match=r"has shape \(2, 16, 8\) and its image \(2, 16, 16\); both need the same"):
        model.fit(X, y)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("os_time", -1.0, "'os_time' is negative in rows {patient}.*correct the dates"),
        ("os_time", np.inf, "'os_time' is infinite in rows {patient}.*NaN if unknown"),
        ("os_event", 2, "'os_event' is neither 0 nor 1 in rows {patient}.*Code 1 or True"),
        ("os_event", np.nan, "only one of 'os_time' and 'os_event' is known in rows {patient}.*Give both"),
        ("dfs_time", 99.0, "disease-free survival ends after overall survival in rows {patient}.*Correct these rows"),
    ],
)
@pytest.mark.parametrize(
    "model", [MMDLS(**QUICK), MultimodalSurvival(endpoint="os", **QUICK), ClinicalCox(endpoint="os")]
)
def test_impossible_outcomes_stop_fit(on_disk, model, column, value, message):
    X, y = on_disk
    y[column] = y[column].astype(float)
    y.loc[y.index[4], column] = value
    with pytest.raises(ValueError, match=message.format(patient=rf"\[{y.index[4]!r}\]")):
        model.fit(X, y)


@pytest.mark.parametrize(
    "model", [MMDLS(**QUICK), MultimodalSurvival(endpoint="os", **QUICK), ClinicalCox(endpoint="os")]
)
def test_tables_that_do_not_belong_together_stop_fit(on_disk, model):
    X, y = on_disk
    with pytest.raises(ValueError, match="X has more than one row for the patients"):
        model.fit(pd.concat([X, X.head(1)]), y)
    with pytest.raises(ValueError, match="endpoint 'os' has no event among 12 patients"):
        model.fit(X, y.assign(os_event=0))


@pytest.mark.parametrize(
    "model", [MMDLS(**QUICK), MultimodalSurvival(endpoint="os", **QUICK), ClinicalCox(endpoint="os")]
)
def test_rows_in_another_order_give_the_same_model_and_the_same_score(on_disk, model):
    X, y = on_disk
    risk = np.asarray(pd.DataFrame(model.fit(X, y).predict(X)).iloc[:, -1], dtype=object)
    score = model.score(X, y)
    assert (np.asarray(pd.DataFrame(model.fit(X, y[::-1]).predict(X)).iloc[:, -1], dtype=object) == risk).all()
    assert model.score(X, y[::-1]) == score


def test_a_task_with_one_class_and_an_unknown_endpoint_stop_fit(on_disk):
    X, y = on_disk
    with pytest.raises(ValueError, match=r"task 'subtype' has 1 class\(es\): \['LUAD'\]; at least 2 classes"):
        MMDLS(**QUICK).fit(X, y.assign(subtype="LUAD"))
    for model in (MultimodalSurvival(endpoint="pfs", **QUICK), ClinicalCox(endpoint="pfs")):
        with pytest.raises(KeyError, match="no endpoint or task 'pfs'.*'pfs_time'.*y offers"):
            model.fit(X, y)


def test_a_column_that_disappears_is_named_with_its_modality(cohort_on_disk, fitted):
    X = cohort_on_disk.data
    for column, modality in (("clinical_age", "clinical"), ("lesion_image", "lesion")):
        with pytest.raises(
            ValueError, match=rf"missing:\n- {column}\n.*modalities \['{modality}'\].*fill .* NaN or None"
        ):
            fitted.predict(X.drop(columns=column))


def test_a_column_that_appears_is_refused(cohort_on_disk, fitted):
    with pytest.raises(ValueError, match="unseen at fit time:\n- clinical_weight"):
        fitted.predict(cohort_on_disk.data.assign(clinical_weight=70.0))


def test_what_identified_patients_in_fit_is_no_feature_of_one_patient(on_disk):
    """Alone, no text tells patients apart: it would be a block that is called as the images are."""
    X, y = on_disk
    X = X.assign(lesion_label=[f"case {i} b" for i in range(len(X))])
    with pytest.warns(UserWarning, match="'lesion_label'.* are not used, since they identify patients"):
        model = MMDLS(n_members=1, image_encoder=SliceEncoder(image_size=16), **QUICK).fit(X, y)
    pd.testing.assert_frame_equal(model.predict(X[:1]), model.predict(X)[:1])
    with pytest.raises(ValueError, match="unseen at fit time:\n- clinical_weight"):
        model.predict(X[:1].assign(clinical_weight=70.0))


def test_an_unseen_category_counts_as_unknown(cohort_on_disk, fitted):
    X = cohort_on_disk.data.head(5)
    column = "clinical_smoking_status"
    unseen, unknown = X.copy(), X.copy()
    unseen[column] = "vaping"
    unknown[column] = None
    indicator = f"{column}_missing"
    encoder = dict((name, part) for name, part, _ in fitted.modalities_)["clinical"]
    assert indicator not in encoder.get_feature_names_out()  # else the two would differ by it
    pd.testing.assert_frame_equal(fitted.predict(unseen), fitted.predict(unknown))


def test_a_column_without_any_value_warns_and_tells_nothing(cohort_on_disk):
    X, y = cohort_on_disk.data, cohort_on_disk.target
    X = X.assign(clinical_marker=np.nan)
    with pytest.warns(UserWarning, match=r"columns \['clinical_marker'\] have no value in any of the 60 training rows"):
        model = MMDLS(**QUICK).fit(X, y)
    np.testing.assert_array_equal(
        model.predict(X)["os"], model.predict(X.assign(clinical_marker=np.arange(60.0)))["os"]
    )


def test_numbers_that_turn_into_text_are_refused(cohort_on_disk, fitted):
    X = cohort_on_disk.data
    with pytest.raises(ValueError, match="column 'clinical_age' held numbers in fit and holds .*convert it to numbers"):
        fitted.predict(X.assign(clinical_age="old"))
    with pytest.raises(ValueError, match="'pet_suvmax' is infinite"):
        fitted.predict(X.assign(pet_suvmax=np.inf))


def test_patients_without_anything_are_named_and_get_the_average_answer(cohort_on_disk, fitted):
    X = cohort_on_disk.data.copy().astype(object)
    X.loc[X.index[2], fitted.feature_names_in_] = None
    numbers = [c for c in X.columns if c in fitted.feature_names_in_ and not c.endswith("_image")]
    X[numbers] = X[numbers].infer_objects()
    with pytest.warns(UserWarning, match="1 of 60 patients have none .* the average of the training patients"):
        answer = fitted.predict_proba(X, "subtype")[2]
    assert answer[1] == pytest.approx(fitted.predict_proba(cohort_on_disk.data, "subtype")[:, 1].mean(), abs=0.02)
    with pytest.warns(UserWarning, match="none of the modalities"):
        risk = fitted.predict(X)["os"]
    assert risk.iloc[2] == pytest.approx(fitted.predict(cohort_on_disk.data)["os"].mean(), abs=1e-6)


@pytest.mark.parametrize("missing", [np.nan, pd.NA, pd.NaT])
def test_missing_labels_that_were_made_texts_are_no_class(missing):
    labels = pd.Series(["a", missing] * 6, dtype=object).map(str)
    with pytest.raises(
        ValueError, match="'l' holds '.*' in rows .*, which missing cells become where they are made texts"
    ):
        check_target(pd.DataFrame({"l": labels}), fitting=True)
