"""The benchmark on small cohorts, on two tiny ones: what is kept, what is run again, and what the tables say."""

import os

import joblib
import numpy as np
import pandas as pd
import pytest

from benchmarks import small_cohorts as small
from benchmarks.public_cohorts import COHORTS, TABLES, own_cohort
from mmdls.cohort import check_cohort
from mmdls.datasets import make_nsclc_cohort
from mmdls.metrics import concordance_index, kaplan_meier, step_values

DEFAULT = "quick=mmdls:n_members=1:trainer__max_epochs=2:hidden_features=8"


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Two cohorts in files, and what a first run on them left."""
    root = tmp_path_factory.mktemp("small")
    X, y = make_nsclc_cohort(90, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    X, y = X.filter(regex="clinical_|pet_"), y[["os_time", "os_event", "subtype"]]
    X.filter(like="clinical_").join(y[["os_time", "os_event"]].astype(float)).to_csv(root / "one.csv")
    pd.to_pickle((X, y), root / "two.pkl")
    out = root / "out"
    return X, y, out, ["--cohort", f"one={root}/one.csv", "--cohort", f"two={root}/two.pkl", "--out", str(out)]


def run(setting, *arguments):
    cohorts = ["--cohorts", "one,two", "--folds", "3", "--repeats", "2", "--seeds", "2"]
    small.main([*setting[3], *cohorts, "--default", DEFAULT, *arguments])


@pytest.fixture(scope="module")
def first_run(setting):
    run(setting, "--models", "clinical_cox", "coxnet")
    return setting


@pytest.fixture
def units_run(monkeypatch):
    """The units that are run, as cohort, label, repeat and seed."""
    done, original = [], small.run_unit

    def counted(unit, *rest):
        done.append((unit.cohort, unit.label, unit.repeat, unit.seed))
        return original(unit, *rest)

    monkeypatch.setattr(small, "run_unit", counted)
    return done


def test_the_metric_is_the_mean_over_all_folds_of_all_repeats(first_run):
    _, y, out, _ = first_run
    values = []
    for repeat in (0, 1):
        kept = joblib.load(out / "units" / "two" / f"coxnet-{repeat}.joblib")
        assert kept["predictions"]["os"].index.is_unique and len(kept["predictions"]["os"]) == len(y)
        for _, rows in kept["folds"].groupby(kept["folds"]):
            known, risk = y.loc[rows.index], kept["predictions"]["os"].loc[rows.index, "risk"]
            values.append(concordance_index(known["os_event"], known["os_time"], risk))
    table = pd.read_csv(out / "metrics.csv").set_index(["cohort", "task", "model"])
    assert table.loc[("two", "os", "coxnet"), "value"] == pytest.approx(np.mean(values))
    assert table.loc[("two", "os", "floor"), "value"] == 0.5 and table.loc[("two", "os", "floor"), "ipa"] == 0
    assert table.loc[("two", "os", "coxnet"), "ipa"] > 0
    assert ("two", "subtype", "coxnet") not in table.index
    slopes = table[["slope_low", "calibration_slope", "slope_high"]].xs("quick", level="model")
    assert (slopes.T.diff().iloc[1:] > 0).all(axis=None)  # the slope is inside its interval
    assert table["slope_low"].notna().tolist() == (table.index.get_level_values("model") == "quick").tolist()
    assert table["calibration_slope"].isna().tolist() == (table.index.get_level_values("model") == "floor").tolist()


def test_the_floor_knows_the_training_rows_alone(first_run):
    _, y, out, _ = first_run
    kept = joblib.load(out / "units" / "two" / "floor-0.joblib")
    for _, rows in kept["folds"].groupby(kept["folds"]):
        train, table = y.drop(rows.index), kept["predictions"]["os"].loc[rows.index].drop(columns="risk")
        expected = step_values(*kaplan_meier(train["os_event"], train["os_time"]), table.columns.to_numpy(dtype=float))
        inside = table.notna().all().to_numpy()
        np.testing.assert_allclose(table.loc[:, inside], np.tile(expected[inside], (len(table), 1)))
        share = kept["predictions"]["subtype"].loc[rows.index, "LUSC"]
        np.testing.assert_allclose(share, (train["subtype"] == "LUSC").mean())


def test_differences_are_paired_by_fold(first_run):
    out = first_run[2]
    scores = pd.read_csv(out / "scores.csv")
    wide = scores[(scores["cohort"] == "two") & (scores["task"] == "os")]
    wide = wide.pivot(index=["repeat", "fold"], columns="model", values="score")
    found = pd.read_csv(out / "differences.csv").set_index(["cohort", "task", "against"])
    row, simple = found.loc[("two", "os", "mean simple")], wide[["clinical_cox", "coxnet"]]
    assert row["difference"] == pytest.approx((wide["quick"] - simple.mean(axis=1)).mean())
    best = found.loc[("two", "os", "best simple")]
    assert best["difference"] == pytest.approx(wide["quick"].mean() - simple.mean().max())
    chosen = []  # in each fold, by the two other ones of its repeat
    for repeat, fold in wide.index:
        others = simple.loc[[(repeat, each) for each in range(3) if each != fold]].mean()
        chosen.append(wide["quick"][repeat, fold] - simple.loc[(repeat, fold), others.idxmax()])
    assert found.loc[("two", "os", "chosen simple"), "difference"] == pytest.approx(np.mean(chosen))
    difference = wide["quick"] - wide[best["which"]]
    # Six scores of three folds: a third of the variance is added for the training rows that they share, and more.
    error = np.sqrt((1 / 6 + 1 / 2) * difference.var())
    assert (best["high"] - best["low"]) / 2 == pytest.approx(2.5706 * error, rel=0.02)
    assert found["mark"].eq("LOSS").equals(found["high"] < 0)


def test_tables_fit_a_terminal_and_say_everything(first_run, capsys):
    others = [f"ridge_of_another_strength_{k}=clinical_cox:alpha={k}.0" for k in (2, 3, 4, 5)]
    run(first_run, "--models", "clinical_cox", "coxnet", *others)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    for title in ("(1) Main", "(2) quick minus", "(3a) Calib", "(3b) IPA", "(4) SD", "(5) Seconds"):
        assert title in shown and title in (first_run[2] / "tables.md").read_text()
    seeds = pd.read_csv(first_run[2] / "seeds.csv")
    assert set(seeds["cohort"]) == {"one", "two"} and (seeds["n"] == 2).all() and (seeds["sd"] > 0).any()


def test_what_is_kept_is_not_run_again(first_run, units_run):
    run(first_run, "--models", "clinical_cox", "coxnet")
    assert not units_run
    run(first_run, "--models", "clinical_cox", "coxnet", "clinical_cox_2=clinical_cox:alpha=10.0")
    assert units_run == [(cohort, "clinical_cox_2", r, 0) for cohort in ("one", "two") for r in (0, 1)]
    units_run.clear()
    run(first_run, "--models", "clinical_cox", "coxnet", "--rerun", "quick")
    assert units_run == [(c, "quick", *k) for c in ("one", "two") for k in ((0, 0), (1, 0), (0, 1))]


def test_kept_results_of_another_model_or_cohort_are_refused(first_run):
    with pytest.raises(SystemExit, match="coxnet:l1_ratio=0.5"):
        run(first_run, "--models", "coxnet:l1_ratio=0.5")
    with pytest.raises(SystemExit, match="another cohort, number of folds"):
        small.main([*first_run[3], "--cohorts", "one", "--folds", "2", "--repeats", "1", "--models", "coxnet"])


def test_a_model_that_fails_takes_no_other_with_it(first_run, capsys):
    run(first_run, "--models", "coxnet", "bad=clinical_cox:alpha=-1.0")
    shown = capsys.readouterr().out
    assert "FAILED one, repeat 0: model 'bad' failed in fold 0" in shown and "(5) Seconds" in shown
    assert not (first_run[2] / "units" / "one" / "bad-0.joblib").exists()


@pytest.mark.parametrize("n_finished", [0, 1, 3])
def test_what_is_finished_is_shown_after_ctrl_c(setting, monkeypatch, tmp_path, capsys, n_finished):
    done, original = [], small.run_unit

    def interrupted(*arguments):
        if len(done) == n_finished:
            raise KeyboardInterrupt
        done.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(small, "run_unit", interrupted)
    arguments = [*setting[3], "--cohorts", "one", "--folds", "3", "--models", "clinical_cox", "--out", str(tmp_path)]
    if n_finished:
        small.main([*arguments, "--default", DEFAULT])
        assert "Interrupted" in (shown := capsys.readouterr().out) and "(1) Main metric" in shown
    else:
        with pytest.raises(SystemExit, match="nothing is finished"):
            small.main([*arguments, "--default", DEFAULT])


def test_an_unknown_cohort_is_named(tmp_path):
    with pytest.raises(SystemExit, match="there is no lungs"):
        small.main(["--cohorts", "lungs", "--out", str(tmp_path)])


@pytest.mark.parametrize("name", [*TABLES, "simulated100"])
def test_public_cohorts_are_in_months_and_as_the_library_wants_them(name):
    if name not in ("whas500", "gbsg2", "gse7390", "aids", "simulated100") and "MMDLS_DATA" not in os.environ:
        pytest.skip("MMDLS_DATA names no folder of real data")
    X, y = COHORTS[name]()
    check_cohort(X, y)
    time = y.filter(like="_time").iloc[:, -1]
    assert 2 < time.median() < 150 and X.filter(regex="^clinical_").shape[1] >= 4
    again = COHORTS[name]()[1]
    assert again.equals(y)


def test_a_folder_is_read_too(tmp_path):
    make_nsclc_cohort(12, n_slices=1, image_size=8, folder=tmp_path / "cohort", random_state=0)
    X, y = own_cohort(tmp_path / "cohort")
    assert len(X) == len(y) == 12 and "lesion_image" in X
