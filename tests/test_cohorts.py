"""The real cohort of the benchmarks, as tables."""

import os
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.cohorts import LEFT_OUT, load_r01
from mmdls import MMDLS, Trainer
from mmdls.cohort import check_cohort, find_tasks, modalities
from mmdls.training import _build

needs_data = pytest.mark.skipif("MMDLS_DATA" not in os.environ, reason="MMDLS_DATA is not set: no real data here")


@needs_data
def test_negative_follow_up_is_refused_unless_dropped():
    with pytest.raises(ValueError, match=r"\['AMC-044', 'R01-106'\] have a negative follow-up time.*invalid='drop'"):
        load_r01()
    cohort = load_r01(invalid="drop")
    assert list(cohort.dropped.index) == ["AMC-044", "R01-106"]
    assert len(cohort.data) == 209
    check_cohort(cohort.data, cohort.target)


@needs_data
def test_patients_without_valid_times_are_kept_for_their_other_outcomes():
    whole, left = load_r01(invalid="missing"), load_r01(invalid="drop")
    unknown = whole.target.isna()
    assert len(whole.data) == 211 and len(whole.dropped) == 0
    kept = left.target.index
    pd.testing.assert_frame_equal(whole.target.loc[kept], left.target, check_dtype=False)
    assert unknown.loc["R01-106", ["dfs_time", "dfs_event"]].all()
    assert unknown[["os_time", "os_event"]].sum().tolist() == [1, 1]
    assert whole.target["subtype"].notna().sum() > left.target["subtype"].notna().sum()
    model = MMDLS({"clinical": ["clinical"]}, n_members=2, trainer=Trainer(max_epochs=1), random_state=0)
    answers = model.fit(whole.data, whole.target).predict_tasks(whole.data)
    assert all(len(table) == 211 and table.notna().all(axis=None) for table in answers.values())
    with pytest.raises(ValueError, match="'raise', 'missing' or 'drop'; got 'keep'"):
        load_r01(invalid="keep")


@needs_data
def test_every_column_is_a_feature_an_outcome_or_left_out_for_a_reason():
    cohort = load_r01(invalid="drop")
    read = {
        "age",
        "sex",
        "smoking_status",
        "pack_years",
        "years_since_quit_at_ct",
        "subtype",
        "stage_ajcc7",
        "os_days_from_surgery",
        "os_event",
        "dfs_days_from_surgery",
        "dfs_event",
    }
    assert set(cohort.dropped.columns) == read | LEFT_OUT.keys()
    assert list(modalities(cohort.data)) == ["ct", "clinical"]
    assert list(find_tasks(cohort.target)) == ["subtype", "stage", "dfs", "os"]


@needs_data
def test_values_are_those_of_the_clinical_table():
    cohort = load_r01(invalid="drop")
    raw = pd.read_csv(Path(os.environ["MMDLS_DATA"]) / "r01" / "clinical.csv", index_col="case_id").loc[
        cohort.data.index
    ]
    assert ((cohort.target["os_time"] * 365.25 / 12 - raw["os_days_from_surgery"]).abs() < 1e-6).all()
    assert cohort.target["os_event"].sum() == 62
    assert cohort.target["subtype"].isna().equals(raw["histology"].str.startswith("NSCLC NOS"))
    assert cohort.target["stage"].value_counts().to_dict() == {"I-II": 126, "III": 24, "IV": 5}
    never = raw["smoking_status"] == "Nonsmoker"
    assert (cohort.data.loc[never, ["clinical_pack_years", "clinical_smoking_cessation"]] == 0).all().all()
    assert (cohort.data["clinical_smoking_cessation"].dropna() >= 0).all()


@needs_data
def test_images_are_folders_of_slices_with_masks_or_none():
    cohort = load_r01(invalid="drop")
    there = cohort.data["ct_image"].notna()
    assert there.sum() == 101
    assert there.equals(cohort.data["lung_mask"].notna())
    assert cohort.data["ct_image"][~there].map(lambda cell: cell is None).all()
    for ct, mask in cohort.data.loc[there, ["ct_image", "lung_mask"]].itertuples(index=False):
        assert {file.name for file in Path(ct).iterdir()} == {file.name for file in Path(mask).iterdir()}
    assert set(cohort.groups[there]) == {"R01"}


def test_absent_data_are_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no 'r01/clinical\.csv'"):
        load_r01(tmp_path)
    monkeypatch.delenv("MMDLS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MMDLS_DATA"):
        load_r01()


@needs_data
@pytest.mark.slow
def test_patients_without_images_are_learned_from_too(monkeypatch):
    """Images of half of the patients: a model learns from all of them, and answers all."""
    cohort = load_r01(invalid="drop")
    learned = []

    def spied(ensemble, members, targets, rows, *args, **settings):
        learned.append((len(rows), members[0].inputs.present[rows].sum(dim=0).tolist()))
        return train(ensemble, members, targets, rows, *args, **settings)

    train = _build.train
    monkeypatch.setattr(_build, "train", spied)
    model = MMDLS(n_members=1, trainer=Trainer(max_epochs=1, validation_fraction=0), random_state=0)
    model.set_params(image_encoder__image_size=16, image_encoder__max_slices=2).fit(cohort.data, cohort.target)
    n_images = int(cohort.data["ct_image"].notna().sum())
    assert learned == [(209, [n_images, 209])] and n_images == 101
    assert model.predict(cohort.data)[["subtype", "os"]].notna().all(axis=None)
