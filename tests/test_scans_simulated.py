"""The whole way of simulated patients: what was drawn is what the files give back."""

import re

import numpy as np
import pytest

from mmdls.datasets import make_scans
from mmdls.scans import crop_mm, read_mask, read_scan, resample, slices_around_largest_area
from tests.pages import code_of, page

pytest.importorskip("pydicom")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_scans(tmp_path_factory.mktemp("scans"), 3, random_state=4)


def test_files_give_back_what_was_drawn(cohort):
    for patient, paths in cohort.scans.iterrows():
        truth = cohort.truth.loc[patient]
        ct, pet = read_scan(paths["ct"], unit="HU"), read_scan(paths["pet"], unit="SUV")
        lesion = read_mask(paths["structures"], ct, label="lesion")
        lungs = [read_mask(paths["structures"], ct, label=f"lung-{side}").array for side in ("left", "right")]
        assert set(np.unique(ct.array)) == {-1000, -800, 30, 40}
        assert (ct.array[lesion.array] == 30).mean() > 0.99
        assert lesion.array.sum() * lesion.voxel_ml == pytest.approx(truth["lesion_ml"], rel=0.08)
        assert (lungs[0] | lungs[1]).sum() * ct.voxel_ml == pytest.approx(
            truth["lung_ml"] + truth["lesion_ml"], rel=0.03
        )
        inside = resample(lesion, like=pet)
        assert np.median(pet.array[inside.array]) == pytest.approx(truth["lesion_suv"], rel=1e-3)
        assert pet.array.max() == pytest.approx(truth["lesion_suv"], rel=1e-3)
        box = crop_mm(ct, lesion, 60)
        assert box.array.shape == (12, 20, 20)
        assert (box.array == 30).sum() > 0
        assert len(slices_around_largest_area(lesion, 5)) == 5


def test_the_same_seed_gives_the_same_files(cohort, tmp_path):
    again = make_scans(tmp_path, 3, random_state=4)
    assert again.data.equals(cohort.data) and again.truth.equals(cohort.truth)
    assert (read_scan(again.scans["ct"].iloc[0]).array == read_scan(cohort.scans["ct"].iloc[0]).array).all()
    assert set(cohort.target.columns) >= {"subtype", "stage", "os_time", "os_event"}
    assert not [name for name in cohort.data.columns if name.endswith("_image") or name.startswith("pet_")]
    with pytest.raises(ValueError, match="noise"):
        make_scans(tmp_path, noise=-1)


@pytest.mark.slow
def test_the_page_about_scans_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of("docs/scans.md"), "scans.md", "exec"), {})
    assert capsys.readouterr().out.strip() == re.search(r"```\n(\d.* mL)\n```", page("docs/scans.md"))[1]
