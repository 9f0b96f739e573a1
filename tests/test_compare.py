"""The main job on tiny cohorts: what it stores, what it shows, and that no test row reaches training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import compare as job
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort

QUICK = job.Settings(folds=2, trials=1, epochs=2)


@pytest.fixture(scope="module")
def small(cohort):
    X = cohort.data[[c for c in cohort.data.columns if not c.endswith("_mask")]]
    return X[[c for c in X.columns if not c.startswith("radiomics_") or c <= "radiomics_010"]], cohort.target


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    X, y = small
    return job.run(X, y, None, QUICK, out, workers=1), out


def test_every_patient_is_predicted_once_by_every_arm(small, finished):
    X, y = small
    answers, out = finished
    assert list(job.arms(X, QUICK)) == ["clinical-only", "radiomics Cox", "imaging-only", "multimodal"]
    assert set(answers) == set(job.arms(X, QUICK))
    for tables in answers.values():
        assert set(tables) == set(find_tasks(y))
        for table in tables.values():
            assert sorted(table.index) == sorted(X.index)
            assert table.notna().all().all()
    assert len(list((out / "folds").glob("*.csv"))) == 4 * 2 * len(find_tasks(y))
    chosen = pd.read_csv(out / "chosen.csv")
    assert len(chosen) == 8 and chosen["seconds"].gt(0).all()


def test_the_table_fits_a_terminal_and_compares_with_clinical_only(small, finished):
    _, y = small
    answers, _ = finished
    table = job.tabulate(answers, y, n_resamples=50)
    assert len(table) == 4 * len(find_tasks(y))
    others = table[table["arm"] != job.BASELINE]
    baseline = table[table["arm"] == job.BASELINE].set_index("task")["value"]
    np.testing.assert_allclose(others["difference"], others["value"] - others["task"].map(baseline))
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    shown = job.show(table)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert shown.count("multimodal") == len(find_tasks(y))


def test_the_figure_is_drawn(small, finished, tmp_path):
    _, y = small
    job.draw(finished[0], y, "os", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("arm", ["clinical-only", "multimodal"])
def test_outcomes_of_left_out_patients_change_nothing(small, finished, arm):
    X, y = small
    train, test = next(job.CohortKFold(QUICK.folds, random_state=QUICK.seed).split(X, y))
    changed = y.copy()
    order = np.random.default_rng(0).permutation(test)
    changed.iloc[test] = y.iloc[order]
    assert not changed.equals(y)
    _, _, before, _, _ = job.run_fold(arm, 0, X, y, train, test, QUICK)
    _, _, after, _, _ = job.run_fold(arm, 0, X, changed, train, test, QUICK)
    for task, table in before.items():
        pd.testing.assert_frame_equal(table, after[task])


def test_an_interrupted_run_keeps_what_is_finished(small, tmp_path, monkeypatch, capsys):
    X, y = small
    real, calls = job.run_fold, []

    def interrupted(name, *arguments):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(name, *arguments)

    monkeypatch.setattr(job, "run_fold", interrupted)
    monkeypatch.setattr(job.Deep, "fit", lambda self, X, y: job.Classical.fit(self, X, y))
    monkeypatch.setattr(
        job,
        "arms",
        lambda X, settings: {
            name: job.Classical((block,), job.ClinicalCox, settings)
            for name, block in (("clinical-only", "clinical"), ("PET", "pet"))
        },
    )
    answers = job.run(X, y, None, QUICK, tmp_path, workers=1)
    assert "Interrupted. 2 of 4 fits are finished" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "chosen.csv")) == 2
    table = job.tabulate(answers, y, n_resamples=20)
    assert set(table["arm"]) == {"clinical-only", "PET"}
    assert (table["n"] < len(y)).all()


@pytest.mark.slow
def test_ctrl_c_leaves_tables_of_what_is_finished(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", "--patients", "60", "--epochs", "2", "--trials", "1"]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--folds", "3", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
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
def test_a_folder_of_patients_runs_to_the_end(tmp_path, capsys):
    make_nsclc_cohort(60, n_slices=(1, 3), image_size=24, missing=0.1, folder=tmp_path / "cohort", random_state=1)
    options = ["--epochs", "1", "--trials", "1", "--folds", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    job.main(["--cohort", str(tmp_path / "cohort"), *options])
    printed = capsys.readouterr().out
    assert "60 patients" in printed and "multimodal" in printed and "oracle" not in printed
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"folds", "chosen.csv", "metrics.csv", "predictions.csv", "kaplan_meier.png"}
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 60
