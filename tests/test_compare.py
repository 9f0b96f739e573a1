"""The main job on tiny cohorts: what it stores, what it shows, and that no test row reaches training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import compare as job
from benchmarks import runs
from benchmarks.designs import Split, folds_of_patients
from benchmarks.folds import left_out
from benchmarks.models import BASELINE
from benchmarks.tables import gain_over_chance, show_controls, show_oracle, tabulate
from mmdls import ClinicalCox
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort
from mmdls.metrics import concordance_index
from mmdls.zoo import OneModelPerTask
from tests.simulated_outcomes import draw_competing_risks

QUICK = job.Settings(trials=1, epochs=2)
NAMES = list(job.QUICK)


@pytest.fixture(scope="module")
def small(cohort):
    X = cohort.data[[c for c in cohort.data.columns if not c.endswith("_mask")]]
    return X[[c for c in X.columns if not c.startswith("radiomics_") or c <= "radiomics_010"]], cohort.target


@pytest.fixture(scope="module")
def splits(small):
    return list(folds_of_patients(*small, n_folds=2, n_repeats=1, seed=0))


@pytest.fixture(scope="module")
def finished(small, splits, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return runs.run(NAMES, *small, splits, QUICK, out, workers=1), out


def test_every_patient_is_predicted_once_by_every_model(small, finished):
    X, y = small
    answers, out = finished
    assert list(answers) == NAMES
    for tables in answers.values():
        assert set(tables) == set(find_tasks(y))
        for table in tables.values():
            assert sorted(table.index) == sorted(X.index)
            assert table.drop(columns=[c for c in table if c.startswith("survival_")]).notna().all().all()
    assert len(list((out / "folds").glob("*/*.csv"))) == 5 * 2 * len(find_tasks(y))
    chosen = pd.read_csv(out / "chosen.csv")
    assert len(chosen) == 10 and chosen["seconds"].gt(0).all()
    wide = job.per_patient(answers)
    assert len(wide) == len(X) and "mmdls/os/risk" in wide


def test_what_is_finished_is_read_and_not_run_again(small, splits, finished, monkeypatch):
    answers, out = finished
    monkeypatch.setattr(runs, "run_fold", lambda *arguments: pytest.fail("a finished fold ran again"))
    again = runs.run(NAMES, *small, splits, QUICK, out, workers=1)
    for name, tables in answers.items():
        for task, table in tables.items():
            pd.testing.assert_frame_equal(again[name][task], table, check_exact=True)


def test_the_table_fits_a_terminal_and_compares_with_the_baseline(small, finished):
    _, y = small
    answers, _ = finished
    table = job.tabulate(answers, y, n_resamples=50)
    assert len(table) == 5 * len(find_tasks(y))
    others = table[table["model"] != BASELINE]
    baseline = table[table["model"] == BASELINE].set_index("task")["value"]
    np.testing.assert_allclose(others["difference"], others["value"] - others["task"].map(baseline))
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    shown = job.show(table)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert shown.count("mmdls") == len(find_tasks(y)) and shown.endswith("A difference above 0 is better.")


def test_one_model_is_held_against_each_other_one(small, finished):
    _, y = small
    answers, _ = finished
    against = job.against_others(answers, y, "mmdls", n_resamples=50)
    assert len(against) == 4 * len(find_tasks(y)) and set(against["against"]) == set(NAMES) - {"mmdls"}
    np.testing.assert_allclose(against["difference"], against["first"] - against["second"])
    values = job.tabulate(answers, y, n_resamples=0).set_index(["task", "model"])["value"]
    np.testing.assert_allclose(
        against["second"], [values[task, model] for task, model in against[["task", "against"]].values]
    )
    assert (against["p_holm"] >= against["p"]).all()
    assert all(len(line) <= 100 for line in job.show_against(against).splitlines())


def test_many_comparisons_do_not_hide_what_differs_in_every_resample():
    """Thirty models that toss a coin against one that knows the truth."""
    cohort = make_nsclc_cohort(80, n_slices=1, image_size=8, random_state=0)
    y, rng = cohort.target[["os_time", "os_event"]], np.random.default_rng(0)

    def says(risk):
        return {"os": pd.DataFrame({"fold": "0.0", "risk": risk, "repeat": 0}, index=y.index)}

    answers = {"knows": says(-y["os_time"])} | {f"coin {i}": says(rng.normal(size=80)) for i in range(30)}
    against = job.against_others(answers, y, "knows")
    assert (against["p_holm"] < 0.05).all()
    assert (job.against_others(answers, y, "coin 0")["p_holm"].iloc[1:] > 0.05).all()


def test_the_figure_is_drawn(small, finished, tmp_path):
    _, y = small
    job.draw(finished[0], y, "os", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("model", ["clinical_linear", "mmdls"])
def test_outcomes_of_left_out_patients_change_nothing(small, splits, model):
    X, y = small
    test = splits[0].test
    changed = y.copy()
    order = np.random.default_rng(0).permutation(test)
    changed.iloc[test] = y.iloc[order]
    assert not changed.equals(y)
    _, _, before, _ = runs.run_fold(model, splits[0], X, y, QUICK)
    _, _, after, _ = runs.run_fold(model, splits[0], X, changed, QUICK)
    for task, table in before.items():
        pd.testing.assert_frame_equal(table, after[task])


class RanksItsTestSet(ClinicalCox):
    """A Cox model whose risks depend on who else is predicted."""

    def predict(self, X):
        return pd.Series(super().predict(X)).rank(pct=True).to_numpy()


def test_a_model_that_ranks_its_test_set_is_caught_by_the_audit(small, splits, monkeypatch):
    X, y = small
    real = job.controls.build
    leaks = OneModelPerTask([("survival", RanksItsTestSet())])
    monkeypatch.setattr(job.controls, "build", lambda name, *rest: leaks if name == "leaks" else real(name, *rest))
    y = y[["dfs_time", "dfs_event", "os_time", "os_event"]]
    few = {"n_permutations": 1, "n_halves": 1}
    found = job.controls.audit_models(["pet_linear", "leaks"], X, y, splits[0].train, splits[0].test, QUICK, **few)
    assert found["passed"].tolist() == [True, True, False]
    assert found["detail"].iloc[2].startswith("leaks: ") and "pet_linear" not in found["detail"].iloc[2]


@pytest.mark.slow
def test_every_model_passes_the_audit(small, splits):
    X, y = small
    names = [n for n in job.offered(X, y) if n != "published_network"]
    found = job.controls.audit_models(names, X, y, splits[0].train, splits[0].test, QUICK)
    assert found[~found["passed"]].empty, found.to_dict("records")


def known_cohort():
    """100 patients of two centres: the centre decides stage and the size decides death; a strip decides subtype."""
    rng = np.random.default_rng(0)
    centre, size, strip = (rng.random(100) < 0.5), rng.lognormal(0, 1, 100), rng.random(100) < 0.5
    images = rng.permuted(np.tile(np.arange(256, dtype=np.uint8), (100, 1)), axis=1).reshape(100, 1, 16, 16)
    for image, shown in zip(images, strip, strict=True):
        image[0] = np.sort(image[0].ravel()).reshape(16, 16) if shown else image[0]
    X = pd.DataFrame({"centre": np.where(centre, "A", "B"), "pet_mtv": size, "clinical_age": rng.normal(60, 9, 100)})
    X["lesion_image"] = pd.Series(list(images), X.index, object)
    y = pd.DataFrame({"stage": np.where(centre, "III", "I-II"), "subtype": np.where(strip, "LUAD", "LUSC")})
    return X, y.assign(os_time=rng.exponential(30 / size) + 0.1, os_event=True)


@pytest.mark.parametrize(
    ("control", "finds", "misses"),
    [
        ("centre-only", "stage", "subtype"),
        ("volume-only", "os", "stage"),
        ("permuted labels", None, "stage"),
        ("shuffled pixels", None, "subtype"),
        ("imaging_network", "subtype", "stage"),
    ],
)
def test_a_control_finds_its_own_shortcut_only(control, finds, misses):
    X, y = known_cohort()
    settings = job.Settings(trials=1, epochs=20)
    test = np.arange(60, 100)
    answers, _ = left_out(
        job.controls.build(control, settings, X, y), control, Split("0", 0, np.arange(60), test), X, y
    )

    def score(task):
        if task == "os":
            return concordance_index(y["os_event"][test], y["os_time"][test], answers["os"]["risk"])
        return roc_auc_score(y[task][test] == answers[task].columns[1], answers[task].iloc[:, 1])

    assert 0.3 < score(misses) < 0.7
    assert finds is None or score(finds) > 0.8 - 0.1 * (finds == "os")


def test_an_interrupted_run_keeps_what_is_finished(small, splits, tmp_path, monkeypatch, capsys):
    X, y = small
    real, calls = runs.run_fold, []

    def interrupted(name, *arguments):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(name, *arguments)

    monkeypatch.setattr(runs, "run_fold", interrupted)
    answers = runs.run(["clinical_linear", "pet_linear"], X, y, splits, QUICK, tmp_path, workers=1)
    assert "Interrupted. 2 of 4 fits are finished" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "chosen.csv")) == 2
    table = job.tabulate(answers, y, n_resamples=20)
    assert set(table["model"]) == {"clinical_linear", "pet_linear"}
    assert (table["n"] < len(y)).all()
    answers = runs.run(["clinical_linear", "pet_linear"], X, y, splits, QUICK, tmp_path, workers=1)
    assert "2 of 4 fits were finished before; 2 are left" in capsys.readouterr().out
    assert (job.tabulate(answers, y, n_resamples=20)["n"] > table["n"].max()).all()


def test_repeats_are_averaged(small, tmp_path):
    X, y = small
    splits = list(folds_of_patients(X, y, n_folds=2, n_repeats=2, seed=0))
    answers = runs.run(["clinical_linear", "pet_linear"], X, y, splits, QUICK, tmp_path, workers=1)
    one, two = (
        job.tabulate({n: {t: d[d["repeat"] == r] for t, d in a.items()} for n, a in answers.items()}, y, 20)
        for r in (0, 1)
    )
    both = job.tabulate(answers, y, 20)
    np.testing.assert_allclose(both["value"], (one["value"] + two["value"]) / 2)
    assert not np.allclose(one["value"], two["value"])
    assert len(job.per_patient(answers)) == 2 * len(X)
    each = [
        job.against_others(
            {n: {t: d[d["repeat"] == r] for t, d in a.items()} for n, a in answers.items()}, y, "pet_linear", 20
        )["p"]
        for r in (0, 1)
    ]
    both = job.against_others(answers, y, "pet_linear", 20)["p"]
    np.testing.assert_allclose(both, np.minimum(each[0] + each[1], 1))  # not their mean, which is no p-value


def test_every_model_and_control_answers(small, tmp_path):
    X, y = small
    train = np.arange(0, 40)
    split = Split("0.0", 0, train, np.setdiff1d(np.arange(len(X)), train))
    every = {*job.offered(X, y), *job.controls.offered(X)}
    assert {"clinical_elastic_net", "clinical_forest", "clinical_boosting", "pet_linear", "late_fusion"} <= every
    assert set(job.controls.NAMES) <= every
    for name in every - set(NAMES) - {"published_network"}:
        _, _, answers, note = runs.run_fold(name, split, X, y, QUICK)
        for task, table in answers.items():
            assert list(table.index) == list(X.index[split.test]), (name, task)
            column = "risk" if "risk" in table else table.columns[-1]
            assert np.isfinite(table[column]).all(), (name, task)
        assert note["seconds"] >= 0


def test_a_centre_name_may_hold_a_slash(small, tmp_path):
    X, y = small
    half = np.arange(len(X)) < len(X) // 2
    split = Split("Essen / Mitte", 0, np.flatnonzero(half), np.flatnonzero(~half))
    for _ in range(2):  # the second reads what the first has stored
        answers = runs.run(["pet_linear"], X, y, [split], QUICK, tmp_path, workers=1)
    assert set(answers["pet_linear"]["os"]["fold"]) == {"Essen / Mitte"}


def test_a_worker_that_outlived_its_run_does_not_end_the_next(small, splits, tmp_path):
    X, y = small
    folder = tmp_path / "pet_linear-0.0"
    first = runs.run_fold("pet_linear", splits[0], X, y, QUICK, folder)
    second = runs.run_fold("pet_linear", splits[0], X, y, QUICK, folder)
    assert first[2]["os"].equals(second[2]["os"]) and [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_a_centre_is_left_out_whole(cohort):
    splits = list(job.centres_left_out(cohort.groups))
    for split in splits:
        centres = set(cohort.groups.iloc[split.test])
        assert len(centres) == 1 and not centres & set(cohort.groups.iloc[split.train])
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(cohort.groups)))


def test_an_external_centre_is_never_trained_on(cohort):
    centre = cohort.groups.mode()[0]
    options = SimpleNamespace(cohort="simulated", external=centre, design="folds", known=[])
    X, _, splits = job.divide(options, cohort.data, cohort.target, cohort.groups)
    assert len(splits) == 1 and set(cohort.groups.iloc[splits[0].test]) == {centre}
    assert centre not in set(cohort.groups.iloc[splits[0].train]) and len(X) == len(cohort.data)
    options.external = "nowhere"
    with pytest.raises(SystemExit, match="neither a folder nor one of the centres"):
        job.divide(options, cohort.data, cohort.target, cohort.groups)


QUICKEST = ["--patients", "60", "--trials", "1", "--folds", "2", "--workers", "1", "--no-controls", "--no-report"]


def test_shares_are_together_the_whole_run(tmp_path, capsys):
    options = [*QUICKEST, "--models", "clinical_linear,pet_linear", "--reference", "pet_linear"]
    for share in ("1/2", "2/2"):
        job.main([*options, "--out", str(tmp_path / "shared"), "--share", share])
        stored = len(list((tmp_path / "shared").glob("folds/*/chosen.json")))
        assert f"{stored} of 4 fits are stored" in capsys.readouterr().out
        assert not (tmp_path / "shared" / "metrics.csv").exists()
        assert stored == {"1/2": 2, "2/2": 4}[share]
    job.main([*options, "--out", str(tmp_path / "shared")])
    assert "4 of 4 fits were finished before; 0 are left" in capsys.readouterr().out
    job.main([*options, "--out", str(tmp_path / "alone")])
    for name in ("metrics.csv", "predictions.csv", "against.csv", "efficiency.csv"):
        assert (tmp_path / "shared" / name).read_text() == (tmp_path / "alone" / name).read_text()
    assert not list((tmp_path / "shared").rglob("*.unfinished"))


def test_shares_take_each_fit_once_and_folds_of_every_model():
    nothing = np.arange(0)
    splits, names = [Split(f"0.{k}", 0, nothing, nothing) for k in range(5)], list("abcdefg")
    for n in (1, 2, 3, 5, 8):
        shares = [[(name, s.name) for name, s in runs._share(names, splits, i, n)] for i in range(1, n + 1)]
        assert sorted(sum(shares, [])) == [(name, s.name) for name in names for s in splits]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        if n <= 5:
            assert all({name for name, _ in share} == set(names) for share in shares)


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_share_that_is_none_is_refused(share, capsys):
    with pytest.raises(SystemExit):
        job.main(["--share", share])
    assert "it must look like 2/5, the second of five shares" in capsys.readouterr().err


def test_no_share_deletes_what_others_have_done(capsys):
    with pytest.raises(SystemExit):
        job.main(["--share", "1/2", "--fresh"])
    assert "would delete what other shares have done" in capsys.readouterr().err


@pytest.fixture(scope="module")
def known_risks():
    """Who knows the truth, who knows half of it, who knows nothing; two folds, and a repeat with two others."""
    cohort = make_nsclc_cohort(400, n_slices=1, image_size=8, n_radiomics=1, random_state=0)
    y, truth, rng = cohort.target[["os_time", "os_event"]], cohort.truth, np.random.default_rng(0)
    noise = rng.normal(size=400)

    def says(risk):
        tables = [pd.DataFrame({"fold": rng.integers(2, size=400).astype(str), "risk": risk}, y.index) for _ in "ab"]
        return {"os": pd.concat([table.assign(repeat=k) for k, table in enumerate(tables)])}

    risk = truth["os_risk"].to_numpy()
    answers = {BASELINE: says(noise), "half": says(risk / risk.std() + noise), "knows": says(10 * risk)}
    for own in answers.values():
        own["os"]["fold"] = answers[BASELINE]["os"]["fold"].to_numpy()
    return answers, y, truth


def test_the_share_of_the_oracles_gain_and_its_interval(known_risks):
    answers, y, truth = known_risks
    found = gain_over_chance(answers, y, truth, n_resamples=200).set_index("model")
    np.testing.assert_allclose(found.loc["knows", ["of_the_oracle", "of_the_gap_to_the_oracle", "low", "high"]], 1)
    np.testing.assert_allclose(found.loc[BASELINE, ["of_the_gap_to_the_oracle", "low", "high"]], 0)
    half = found.loc["half"]
    assert 0.2 < half["low"] < half["of_the_gap_to_the_oracle"] < half["high"] < 1
    values = tabulate(answers, y, n_resamples=0).set_index("model")["value"]
    np.testing.assert_allclose(found["concordance_index"], values[found.index])
    by_hand = []
    for k in (0, 1):
        one = {name: {"os": own["os"][own["os"]["repeat"] == k]} for name, own in answers.items()}
        value = tabulate(one, y, n_resamples=0).set_index("model")["value"]
        by_hand.append((value["half"] - value[BASELINE]) / (value["knows"] - value[BASELINE]))
    assert half["of_the_gap_to_the_oracle"] == pytest.approx(np.mean(by_hand)) and by_hand[0] != by_hand[1]
    shown = show_oracle(found.reset_index(), "half")
    assert f"half: {100 * np.mean(by_hand):.0f}% [" in shown and len(shown) <= 80


def test_a_share_without_bounds_has_no_interval(known_risks):
    answers, y, truth = known_risks
    one = {name: {"os": own["os"][own["os"]["repeat"] == 0]} for name, own in answers.items()}
    good = one["knows"]["os"].assign(risk=lambda t: t["risk"] + np.resize([0.5, -0.5], len(t)))
    found = gain_over_chance({BASELINE: {"os": good}, "half": one["half"]}, y, truth, n_resamples=200)
    assert found[["low", "high"]].isna().all(axis=None) and found["of_the_gap_to_the_oracle"].notna().all()
    assert gain_over_chance({"half": one["half"]}, y, truth, 20)["of_the_gap_to_the_oracle"].isna().all()


def test_controls_are_one_line_each_and_starred_where_they_find_something():
    rows = [("os", "permuted labels", 0.51, 0.47, 0.55), ("stage", "permuted labels", 0.53, 0.501, 0.56)]
    rows += [("os", "centre-only", 0.44, 0.40, 0.49), ("stage", "centre-only", 0.5, 0.5, 0.5)]
    rows += [("volume", "permuted labels", -0.30, -0.40, -0.20), ("volume", "centre-only", 0.30, 0.20, 0.40)]
    chance = {"os": 0.5, "stage": 0.5, "volume": 0.0}
    shown = show_controls(pd.DataFrame(rows, columns=["task", "model", "value", "low", "high"]), chance)
    assert [line.split() for line in shown.splitlines()[1:4]] == [
        # Alone the second would have a star: its interval excludes .500. The third is noise that was learned.
        ["permuted", "labels", "0.510", "0.530", "-0.300"],
        ["centre-only", "0.440*", "0.500", "0.300*"],
        ["chance", "0.500", "0.500", "0.000"],
    ]
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_another_folder_is_external(tmp_path):
    one, two = (
        make_nsclc_cohort(n, n_slices=1, image_size=16, n_radiomics=2, folder=tmp_path / str(n), random_state=n)
        for n in (12, 8)
    )
    options = SimpleNamespace(cohort=tmp_path / "12", external=tmp_path / "8", design="folds", known=[])
    with pytest.raises(SystemExit, match="share the ids"):
        job.divide(options, two.data, two.target, two.groups)
    X, y = one.data.add_prefix("", axis=1), one.target
    X.index = y.index = "A" + X.index
    X, y, (split,) = job.divide(options, X, y, one.groups)
    assert len(X) == len(y) == 20 and list(X.index[split.test]) == list(two.data.index)
    assert set(split.train) == set(range(12))


def test_folds_do_not_depend_on_what_a_model_may_know(small):
    """Strata of outcomes and a feature would repeat their chance association in every fold, for the model to find."""
    X, y = small
    rng = np.random.default_rng(0)
    options = SimpleNamespace(external=None, design="folds", folds=3, repeats=1, seed=0, known=["stage"])
    other_X = X.assign(centre=X["centre"].iloc[rng.permutation(len(X))].to_numpy())
    other_y = y.assign(stage=y["stage"].iloc[rng.permutation(len(y))].set_axis(y.index))
    for one, two in zip(
        job.divide(options, X, y, None)[2], job.divide(options, other_X, other_y, None)[2], strict=True
    ):
        np.testing.assert_array_equal(one.test, two.test)
    options.known = []
    assert any(
        not np.array_equal(one.test, two.test)
        for one, two in zip(job.divide(options, X, y, None)[2], job.divide(options, X, other_y, None)[2], strict=True)
    )


@pytest.mark.slow
def test_a_centre_that_means_nothing_predicts_nothing():
    """On average over cohorts; with folds stratified by centre and outcomes it was .516 (OS) and .535 (subtype)."""
    values = []
    for seed in range(20):
        cohort = make_nsclc_cohort(450, n_slices=1, image_size=8, n_radiomics=1, random_state=seed)
        X, y, found = cohort.data, cohort.target[["os_time", "os_event", "subtype"]], []
        for split in folds_of_patients(X, cohort.target, 3, 1, seed):
            model = job.controls.build("centre-only", job.Settings(trials=1, seed=seed), X, y)
            answers, _ = left_out(model, "centre-only", split, X, y)
            seen = y.iloc[split.test]
            area = roc_auc_score(seen["subtype"] == "LUSC", answers["subtype"]["LUSC"])
            found.append((concordance_index(seen["os_event"], seen["os_time"], answers["os"]["risk"]), area))
        values.append(np.mean(found, axis=0))
    np.testing.assert_allclose(np.mean(values, axis=0), 0.5, atol=0.02)


def test_what_is_known_becomes_a_feature_and_no_task(small):
    X, y = small
    X, y = job.count_as_known(["stage", "treatment"], X, y)
    assert "stage" not in find_tasks(y) and {"clinical_stage", "clinical_treatment"} <= set(X.columns)
    assert "treatment" not in X and set(X["clinical_stage"]) <= {"I-II", "III", "IV", None}
    with pytest.raises(SystemExit, match="--known shoe_size: there is no such column"):
        job.count_as_known(["shoe_size"], X, y)


def test_a_folder_belongs_to_one_run(small, splits, tmp_path):
    identity = runs.manifest(*small, splits, QUICK)
    runs.begin(tmp_path / "run", identity, fresh=False)
    runs.begin(tmp_path / "run", identity, fresh=False)  # goes on
    other = runs.manifest(*small, splits, job.Settings(trials=2, epochs=2))
    with pytest.raises(SystemExit, match="holds another run: settings differ. Choose another --out"):
        runs.begin(tmp_path / "run", other, fresh=False)
    runs.begin(tmp_path / "run", other, fresh=True)
    changed = runs.manifest(small[0], small[1][::-1].set_axis(small[1].index), splits, QUICK)
    assert changed["data"] != identity["data"] and changed["splits"] == identity["splits"]


def test_a_run_that_was_stopped_after_its_controls_has_their_table(small, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "load", lambda options: (*small, None, None, {}, QUICK))
    monkeypatch.setattr(job, "run", lambda *_: {"permuted labels": finished[0]["clinical_linear"]})
    monkeypatch.setattr(job, "finish", lambda *_: None)
    job.main(["--no-controls", "--models", "clinical_linear", "--folds", "2", "--out", str(tmp_path)])
    assert "\npermuted labels " in capsys.readouterr().out and (tmp_path / "metrics.csv").exists()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_tables_of_what_is_finished(tmp_path, workers):
    command = [sys.executable, "-m", "benchmarks.compare", "--patients", "60", "--epochs", "2", "--trials", "1"]
    command += ["--no-controls"]
    process = subprocess.Popen(
        [*command, "--workers", workers, "--folds", "3", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell has it ignored
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "chosen.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert "Interrupted." in printed and "value [95% interval]" in printed
    assert len(pd.read_csv(tmp_path / "metrics.csv"))
    assert len(pd.read_csv(tmp_path / "chosen.csv")) < 12


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", "--patients", "60", "--epochs", "2", "--trials", "2"]
    command += [
        "--workers",
        "1",
        "--folds",
        "2",
        "--models",
        "clinical_linear,pet_linear,imaging_network",
        "--no-controls",
        "--out",
    ]
    options = {"cwd": Path(__file__).parents[1], "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen([*command, str(tmp_path / "killed")], start_new_session=True, **options)
    deadline = time.monotonic() + 240
    while len(list((tmp_path / "killed").glob("folds/*/chosen.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, capture_output=True, **options)
    killed, whole = (pd.read_csv(tmp_path / folder / "metrics.csv") for folder in ("killed", "whole"))
    pd.testing.assert_frame_equal(killed, whole)


@pytest.mark.slow
def test_a_folder_of_patients_runs_to_the_end(tmp_path, capsys):
    make_nsclc_cohort(60, n_slices=(1, 3), image_size=24, missing=0.1, folder=tmp_path / "cohort", random_state=1)
    options = ["--epochs", "1", "--trials", "1", "--folds", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    job.main(["--cohort", str(tmp_path / "cohort"), "--no-report", *options])
    printed = capsys.readouterr().out
    assert "60 patients" in printed and "mmdls" in printed and "oracle" not in printed
    assert all(f"\n{control} " in printed for control in job.controls.NAMES)  # run with every benchmark
    assert all(len(line) <= 100 for line in printed.splitlines() if "results" not in line and "/" not in line)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        *(
            "against.csv",
            "audit.csv",
            "chosen.csv",
            "folds",
            "kaplan_meier.png",
            "manifest.json",
            "metrics.csv",
            "predictions.csv",
        ),
        "trials",
    }
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 60


def numbers_and_causes(n=60):
    """A number that falls with age, and deaths of two causes, the first one earlier in the old."""
    rng = np.random.default_rng(0)
    age = rng.normal(65, 9, n).round(1)
    _, cause, months = draw_competing_risks(n)
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "age": age, "diameter": rng.uniform(1, 7, n)})
    table["centre"] = rng.choice(["A", "B"], n)
    table["fev_value"] = (5 - 0.04 * age + rng.normal(0, 0.2, n)).round(2)
    table.loc[::9, "fev_value"] = np.nan
    return table.assign(death_time=months.round(1), death_cause=cause)


def test_a_cohort_of_numbers_and_competing_risks_runs_to_the_end(tmp_path, capsys):
    numbers_and_causes().to_csv(tmp_path / "clinical.csv", index=False)
    options = ["--cohort", str(tmp_path), "--epochs", "3", "--trials", "1", "--folds", "2", "--workers", "1"]
    options += ["--no-report"]
    job.main([*options, "--models", "clinical_network,tables_network", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Wolbers' C, cause 1" in printed and "R²" in printed and "against clinical_network" in printed
    for control in ("permuted labels", "centre-only", "volume-only"):
        assert f"\n{control} " in printed
    (chance,) = (line for line in printed.splitlines() if line.startswith("chance"))
    assert chance.split() == ["chance", "0.500", "0.000"]
    table = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["task", "model"])
    assert {task: set(own) for task, own in table.groupby("task")["metric"]} == {
        "fev": {"r2"},
        "death": {"concordance_index_cause1"},
    }
    assert len(table) == 2 * 5 and table["value"].notna().all()
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv", index_col="patient")
    assert len(predictions) == 60 and predictions["tables_network/death/incidence_2_12"].between(0, 1).all()
    assert not (tmp_path / "out" / "kaplan_meier.png").exists()


@pytest.mark.slow
def test_images_endpoints_numbers_and_competing_risks_run_to_the_end(tmp_path, capsys):
    make_nsclc_cohort(60, n_slices=(1, 3), image_size=24, missing=0.1, folder=tmp_path / "cohort", random_state=1)
    path = tmp_path / "cohort" / "clinical.csv"
    outcomes = numbers_and_causes()[["fev_value", "death_time", "death_cause"]]
    pd.read_csv(path).join(outcomes).to_csv(path, index=False)
    options = ["--epochs", "1", "--trials", "1", "--folds", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    job.main(["--cohort", str(tmp_path / "cohort"), *options])
    printed = capsys.readouterr().out
    assert "clinical_linear (clinical_network stands in)" in printed and "mmdls" in printed
    assert all(f"\n{control} " in printed for control in job.controls.NAMES)
    assert all(len(line) <= 100 for line in printed.splitlines() if "/" not in line)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"against.csv", "kaplan_meier.png", "metrics.csv", "report.html"} <= written
    against = pd.read_csv(tmp_path / "out" / "against.csv")
    assert set(against["task"]) == {"subtype", "stage", "dfs", "os", "fev", "death"} and len(against) == 4 * 6


def test_a_model_that_does_not_answer_every_task_is_refused_before_any_fit(small, tmp_path, monkeypatch):
    X, y = small
    y = y.assign(fev_value=np.arange(len(y), dtype=float))
    monkeypatch.setattr(job, "load", lambda options: (X, y, None, None, {}, QUICK))
    monkeypatch.setattr(job, "run", lambda *_: pytest.fail("a model was fitted"))
    options = ["--no-controls", "--folds", "2", "--out", str(tmp_path / "out")]
    message = (
        r"clinical_forest does not answer 'fev' \(number\), and models are compared on every task of the cohort. "
        r"Choose among \[.*'clinical_linear', .*\], or take \['fev_value'\] out of the cohort"
    )
    with pytest.raises(SystemExit, match=message):
        job.main([*options, "--models", "clinical_linear,clinical_forest"])
    with pytest.raises(SystemExit, match=r"--reference mmdls is none of the models \['clinical_linear'\]; add it"):
        job.main([*options, "--models", "clinical_linear", "--reference", "mmdls"])
    assert not (tmp_path / "out").exists()


def test_networks_stand_in_for_linear_models_where_these_do_not_answer(small, capsys):
    X, y = small
    assert job.chosen("quick", X, y) == NAMES and not capsys.readouterr().out
    number = y.assign(fev_value=1.0)
    swapped = {"radiomics_linear": "radiomics_network"}
    assert job.chosen("quick", X, number) == [swapped.get(name, name) for name in NAMES]
    assert "radiomics_linear (radiomics_network stands in)" in capsys.readouterr().out
    causes = y.assign(death_time=1.0, death_cause=1)
    networks = ["clinical", "radiomics", "tables", "imaging", "multimodal"]
    assert job.chosen("all", X, causes) == [*(f"{name}_network" for name in networks), "mmdls"]
    with pytest.raises(SystemExit, match="no model reads this cohort"):
        job.chosen("quick", X[[]], y)


def test_each_centre_is_left_out_and_the_report_is_written(tmp_path, capsys):
    options = [
        "--patients",
        "80",
        "--trials",
        "1",
        "--workers",
        "1",
        "--no-controls",
        "--models",
        "clinical_linear,pet_linear",
    ]
    job.main([*options, "--design", "centres", "--centre-shift", "1", "--out", str(tmp_path)])
    folds = pd.read_csv(tmp_path / "predictions.csv", index_col="patient")["fold"]
    assert len(folds) == 80 and set(folds) == {f"without-{centre}" for centre in "ABCDE"}
    report = (tmp_path / "report.html").read_text()
    assert "pet_linear" in report and "clinical_linear" in report
    assert report.count("<th>Age, years, median [quartiles]</th>") == 1  # readable names of the simulated cohort
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"Open in a browser: {tmp_path / 'report.html'}"
