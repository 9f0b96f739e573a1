"""The benchmark of more modalities: what is added, and when a law holds."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.more_modalities import inputs_of, summarise
from mmdls.cohort import modalities
from mmdls.datasets import make_nsclc_cohort


def test_images_of_others_are_those_of_the_same_half():
    X, _ = make_nsclc_cohort(30, n_slices=1, image_size=8, n_radiomics=2, return_X_y=True, random_state=0)
    inputs = inputs_of(X, 20, np.random.default_rng(0))
    assert set(modalities(inputs["clinical, PET, noise"])) == {"clinical", "pet", "radiomics"}
    assert sum("noise" in name for name in inputs["clinical, PET, noise"]) == 500
    own, others = inputs["tables, images"], inputs["tables, others' images"]
    assert list(own) == list(others) and len(modalities(others)) == 5
    for column in ("lesion_image", "lung_image"):
        for half in (slice(None, 20), slice(20, None)):
            places = [
                next(i for i, one in enumerate(X[column][half]) if one is image) for image in others[column][half]
            ]
            assert sorted(places) == list(range(len(places))) and places != sorted(places)
    moved = [[next(i for i, one in enumerate(X[column]) if one is image) for image in others[column]]
             for column in ("lesion_image", "lung_image")]  # fmt: skip
    assert moved[0] == moved[1], "both images of a patient stay together"


def test_a_law_holds_down_to_a_small_loss():
    sets = ("clinical, PET", "clinical, PET, noise", "tables", "tables, others' images", "tables, images")
    losses = [0.0, -0.004, -0.006]
    rows = [
        (seed, name, task, 0.7 + (loss if name == "clinical, PET, noise" and task == "os" else 0))
        for seed, loss in enumerate(losses)
        for name in sets
        for task in ("os", "stage")
    ]
    table = summarise(pd.DataFrame(rows, columns=["seed", "inputs", "task", "value"])).set_index(["added", "task"])
    row = table.loc[("500 noise radiomics", "os")]
    assert (row["holds"], row["cohorts"]) == (2, 3)
    assert row["difference"] == pytest.approx(np.mean(losses)) and row["worst"] == pytest.approx(-0.006)
    assert table.loc[("500 noise radiomics", "mean of tasks"), "difference"] == pytest.approx(np.mean(losses) / 2)
    assert table.loc[("own images", "os"), "holds"] == 3
