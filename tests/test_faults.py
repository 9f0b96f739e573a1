"""The known faults of published code for this task, one test each, so that none of them comes back.

Numbers are those of the list in ``docs/architecture.md``. Faults 7 and 8 also concern segmentation.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import LeaveOneGroupOut
from sksurv.util import Surv

import mmdls
from benchmarks.cohorts import load_r01
from mmdls import Trainer, metrics
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.estimators import MMDLS, MultimodalSurvival, SliceEncoder
from mmdls.evaluation import evaluate_predictions, make_scorers
from mmdls.model_selection import CohortKFold
from mmdls.modules.losses import cox_loss
from mmdls.registry import poolings

SOURCES = sorted(Path(mmdls.__file__).parent.rglob("*.py"))
QUICK = {"trainer": Trainer(max_epochs=2, validation_fraction=0.0), "random_state": 0}


@pytest.fixture(scope="module")
def model(cohort):
    return MMDLS(**QUICK).fit(cohort.data, cohort.target)


@pytest.mark.parametrize("block", ["clinical_", "pet_", "radiomics_", "lesion_image", "lung_image"])
def test_1_every_modality_counts(cohort, model, block):
    X = cohort.data.copy()
    columns = [c for c in X.columns if c.startswith(block)]
    order = np.random.default_rng(0).permutation(len(X))
    X[columns] = X[columns].iloc[order].set_axis(X.index)
    assert (model.predict(X)["os"] != model.predict(cohort.data)["os"]).mean() > 0.5


def test_2_censored_patients_are_no_events(cohort, model):
    assert np.isnan(metrics.horizon_labels([0, 0, 1], [10.0, 14.0, 14.0], 12)[0])
    large = make_nsclc_cohort(3000, n_slices=1, image_size=8, random_state=0)
    y, truth = large.target, large.truth
    labels = metrics.horizon_labels(y["os_event"].to_numpy(), y["os_time"].to_numpy(), 60)
    true_risk = (truth["os_time"] <= 60).mean()
    naive = (y["os_time"] <= 60).mean()
    times, surviving = metrics.kaplan_meier(y["os_event"].to_numpy(), y["os_time"].to_numpy())
    assert np.nanmax(labels) == 1 and abs(1 - surviving[times <= 60][-1] - true_risk) < 0.03 < naive - true_risk
    curves = model.predict_survival_function(cohort.data, "os", return_array=True)
    assert (np.diff(curves, axis=1) <= 0).all()  # one curve, so 1-, 3- and 5-year risks rise


def test_3_the_order_of_patients_is_nothing_to_a_cox_loss():
    rng = np.random.default_rng(0)
    log_hazard, time = torch.tensor(rng.normal(size=8)), torch.tensor([1.0, 2, 2, 3, 3, 3, 5, 8], dtype=torch.float64)
    event = torch.tensor([True, True, True, False, True, True, False, True])
    losses = {
        round(float(cox_loss(log_hazard[order], event[order], time[order])), 12)
        for order in (torch.as_tensor(rng.permutation(8)) for _ in range(20))
    }
    assert len(losses) == 1


def test_4_the_brier_score_is_one_of_probabilities_weighted_for_censoring():
    rng = np.random.default_rng(0)
    true, leaving = rng.exponential(30, 400), rng.uniform(10, 90, 400)
    y = Surv.from_arrays(true <= leaving, np.minimum(true, leaving))
    times, surviving = metrics.kaplan_meier(y["event"], y["time"])
    at = surviving[times <= 24][-1]
    gain = metrics.index_of_prediction_accuracy(y, y, np.full((400, 1), at), [24.0])
    assert abs(gain) < 1e-9  # the Kaplan-Meier curve gains nothing over itself
    with pytest.raises(ValueError, match="survival must hold probabilities"):
        metrics.brier_score(y, y, rng.normal(size=400), 24.0)  # a risk is no probability


def test_5_hazard_ratios_of_groups_come_from_dummies():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 900)
    time = rng.exponential(1 / np.array([1.0, 4.0, 1.5])[group])
    dummies = np.stack([group == 1, group == 2], axis=1).astype(float)
    ratio, low, high, p = metrics.hazard_ratios(np.ones(900), time, dummies)
    np.testing.assert_allclose(ratio, [4.0, 1.5], rtol=0.2)
    as_number = metrics.hazard_ratios(np.ones(900), time, group.astype(float))[0][0]
    assert not low[1] <= as_number**2 <= high[1] or not low[0] <= as_number <= high[0]  # what a code 0/1/2 would tell


def test_6_cut_points_are_learned_in_training(cohort, model):
    groups = model.predict_risk_group(cohort.data, "os")
    riskiest = np.argsort(model.predict(cohort.data)["os"].to_numpy())[-6:]
    np.testing.assert_array_equal(model.predict_risk_group(cohort.data.iloc[riskiest], "os"), groups[riskiest])
    assert set(groups[riskiest]) == {2}


@pytest.mark.parametrize("pooling", list(poolings))
def test_7_and_9_any_number_of_slices_and_padding_never_counts(cohort, pooling):
    X = cohort.data[["lesion_image", "lung_image"]]
    X = X[X.notna().all(axis=1)].copy()
    y = cohort.target.loc[X.index, ["os_time", "os_event"]]
    X["lung_image"] = [image[: 1 + i % len(image)] for i, image in enumerate(X["lung_image"])]
    assert (X["lesion_image"].map(len) != X["lung_image"].map(len)).any()
    model = MMDLS(image_encoder=SliceEncoder(pooling=pooling), **QUICK).fit(X, y)
    together = model.predict(X)["os"]
    shortest = X["lung_image"].map(len).idxmin()
    assert model.predict(X.loc[[shortest]])["os"].iloc[0] == pytest.approx(together[shortest], abs=1e-6)


def test_10_splits_have_seeds_groups_and_centres(cohort):
    X, y = cohort.data, cohort.target
    first, again, other = (list(CohortKFold(3, random_state=seed).split(X, y)) for seed in (0, 0, 1))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    patient = np.arange(len(X)) // 2
    for train, test in CohortKFold(3, random_state=0).split(X, y, groups=patient):
        assert not set(patient[train]) & set(patient[test])
    centre = cohort.groups.to_numpy()
    left_out = [set(centre[test]) for _, test in LeaveOneGroupOut().split(X, y, cohort.groups)]
    assert sorted(map(sorted, left_out)) == [[name] for name in sorted(set(centre))]


def test_11_tables_are_joined_by_patient_and_scaled_in_fit(tmp_path, cohort, model):
    make_nsclc_cohort(10, n_slices=1, image_size=8, folder=tmp_path, random_state=0)
    before = load_cohort(tmp_path)
    order = np.random.default_rng(0).permutation(10)  # of the CSV and of the arrays that follow it
    pd.read_csv(tmp_path / "clinical.csv", dtype=str).iloc[order].to_csv(tmp_path / "clinical.csv", index=False)
    for name in ("radiomics.npy", "pet.npy"):
        np.save(tmp_path / name, np.load(tmp_path / name)[order])
    after = load_cohort(tmp_path)
    pd.testing.assert_frame_equal(before.data, after.data.loc[before.data.index])
    joined, same = (MMDLS(**QUICK).fit(before.data, target) for target in (after.target, before.target))
    pd.testing.assert_frame_equal(joined.predict(before.data), same.predict(before.data))
    # A unit is no information: millimetres or centimetres, the answers are the same up to rounding.
    X = cohort.data.copy()
    unit = [c for c in X.columns if c.startswith(("pet_", "radiomics_"))]
    X[unit] = X[unit] * 10.0
    rescaled = MMDLS(**QUICK).fit(X, cohort.target).predict(X)["os"]
    np.testing.assert_allclose(rescaled, model.predict(cohort.data)["os"], rtol=1e-3, atol=1e-5)


def test_12_nothing_asks_for_a_device_or_a_place_of_one_machine():
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"cuda:\d|['\"](/home|/data|/mnt|/root|[A-Z]:\\\\)", text), source
    assert Trainer().device == "cpu"


def test_13_every_score_has_one_sign():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(30, 80), rng.random(80) < 0.7
    y, perfect = Surv.from_arrays(event, time), -time
    assert metrics.concordance_index(event, time, perfect) == 1.0
    assert metrics.concordance_index(event, time, -perfect) == 0.0
    assert metrics.concordance_index_ipcw(y, y, perfect) == pytest.approx(1.0)
    assert metrics.cumulative_dynamic_auc(y, y, perfect, 20.0) == pytest.approx(1.0)
    table = pd.DataFrame({"os_time": time, "os_event": event.astype(float)})
    scores = evaluate_predictions({"os": pd.Series(perfect)}, table, horizons=(), n_resamples=0)
    assert scores.set_index("metric").loc["concordance_index", "value"] == 1.0

    X = pd.DataFrame({"clinical_marker": time * rng.uniform(0.9, 1.1, 80)})
    model = MultimodalSurvival(endpoint="os", trainer=Trainer(max_epochs=60), random_state=0).fit(X, table)
    assert model.score(X, table) > 0.9
    assert make_scorers(table)["os_concordance_index"](model, X, table) == pytest.approx(model.score(X, table))


def test_14_what_is_absent_stays_absent(cohort, tmp_path):
    y = cohort.target[["os_time", "os_event"]] * np.nan
    risk = pd.Series(np.arange(60.0), index=y.index)
    with pytest.warns(UserWarning, match="no outcome of 'os' is known for any of the 60 patients; it is left out"):
        assert evaluate_predictions({"os": risk}, y, horizons=(), n_resamples=0).empty
    one = y.copy()
    one.iloc[0] = [12.0, 0.0]
    scores = evaluate_predictions({"os": risk}, one, horizons=(24,), n_resamples=0)
    assert scores["value"].isna().all() and (scores["note"] != "").all()
    with pytest.raises(FileNotFoundError):
        load_r01(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_cohort(tmp_path / "external")


def test_15_a_simulated_patient_is_drawn_once(cohort):
    X, y = cohort.data, cohort.target
    again = make_nsclc_cohort(60, n_slices=(1, 4), image_size=16, missing=0.1, random_state=1)
    for column in ("lesion_image", "lung_image"):
        for one, other in zip(X[column], again.data[column], strict=True):
            assert (one is None and other is None) or np.array_equal(one, other)
    assert (y["dfs_time"] <= y["os_time"]).all()
    both = X[X[["lesion_image", "lung_image"]].notna().all(axis=1)]
    for lesion, lung in zip(both["lesion_image"], both["lung_image"], strict=True):
        assert lesion.shape != lung.shape or not np.array_equal(lesion, lung)
