"""The benchmark of missing modalities: what is imputed, and the intervals of gains."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.missing_modalities import imputed, summarise
from mmdls.datasets import make_nsclc_cohort


def test_what_is_missing_becomes_the_mean_and_the_rest_stays():
    X, _ = make_nsclc_cohort(40, n_slices=1, image_size=8, n_radiomics=2, missing=0.4, return_X_y=True, random_state=0)
    X = X.drop(columns=["centre", "treatment"])
    filled = imputed(X[20:], X[:20])
    assert filled.notna().all(axis=None) and X.isna().any(axis=None)
    for column in X:
        there = X[20:][column].notna()
        kept = zip(filled[column][there], X[20:][column][there], strict=True)
        assert all(np.array_equal(one, other) for one, other in kept)
    gone = X[20:]["pet_suvmax"].isna()
    assert filled["pet_suvmax"][gone].to_numpy() == pytest.approx(X[:20]["pet_suvmax"].mean())
    image = filled["lesion_image"][X[20:]["lesion_image"].isna()].iloc[0]
    assert image.shape == (1, 8, 8) and 0 < image.mean() < 255


def test_gains_are_those_within_a_cohort():
    rows = [
        (seed, way, 10, "os", seed + gain + 0.01 * (seed if way == "as they are" else 0))
        for seed in range(3)
        for way, gain in (("as they are", 0.1), ("complete cases", 0.0), ("mean imputed", 0.05))
    ]
    table = summarise(pd.DataFrame(rows, columns=["seed", "way", "n", "task", "value"])).set_index(["against", "task"])
    row = table.loc[("complete cases", "os")]
    assert row["gain"] == pytest.approx(0.11) and row["cohorts"] == 3
    assert row["high"] - row["gain"] == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-3)
    assert table.loc[("mean imputed", "mean of tasks"), "gain"] == pytest.approx(0.06)
