"""The commands that fit, predict and show: what they write, and that it is what Python gives."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import mmdls
from mmdls.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")


def run(*arguments, code=0):
    """What a command prints, of which the exit code is the expected one."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, f"{done.exit_code}: {done.output}"
    return done.output


def test_a_folder_is_fitted_and_new_patients_predicted(tmp_path):
    run("simulate", tmp_path / "cohort", "--patients", 20, "--slices", 1, "--image-size", 8)
    said = run("fit", tmp_path / "cohort", tmp_path / "m.mmdls", "-q", "--seed", 3, "--set", "trainer__max_epochs=1",
               "--set", "n_members=1")  # fmt: skip
    assert "fitted on 20 patients" in said and "--force" in run("fit", "x", tmp_path / "m.mmdls", code=1)
    run("predict", tmp_path / "m.mmdls", tmp_path / "cohort", tmp_path / "new.csv", "--horizons", "24,6")
    table = pd.read_csv(tmp_path / "new.csv", index_col=0)

    model = mmdls.load(tmp_path / "m.mmdls")
    X, _ = mmdls.datasets.load_cohort(tmp_path / "cohort", return_X_y=True)
    expected = model.predict_tasks(X, [6, 24])
    assert list(table.index) == list(X.index) and model.random_state == 3 and model.trainer.verbose == 0
    for column in ("risk", "survival_6", "survival_24"):
        key = float(column[9:]) if column != "risk" else column
        np.testing.assert_allclose(table[f"os_{column}"], expected["os"][key], rtol=1e-6)
    np.testing.assert_allclose(table["stage_III"], expected["stage"]["III"], rtol=1e-6)
    assert (table["stage"] == expected["stage"].idxmax(axis=1)).all()
    manifest = json.loads((tmp_path / "new.csv.run.json").read_text())
    fitted = json.loads((tmp_path / "m.mmdls.run.json").read_text())
    assert manifest["inputs"]["X"] == fitted["inputs"]["X"] and str(tmp_path) not in json.dumps(manifest)
    assert "months above 0" in run("predict", "m", "x", tmp_path / "b.csv", "--horizons", "0", code=2)


def test_a_table_is_fitted_and_patients_without_outcomes_predicted(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"Patient": [f"{i:02d}" for i in range(20)], "Age": rng.integers(50, 80, 20),
                          "days": rng.integers(30, 900, 20), "Status": rng.integers(1, 3, 20)})  # fmt: skip
    table.to_csv(tmp_path / "all.csv", index=False)
    table[["Patient", "Age"]].iloc[:4].to_csv(tmp_path / "new.csv", index=False)
    run("fit", tmp_path / "all.csv", tmp_path / "cox", "--model", "clinical_cox", "--id", "Patient", "--endpoints",
        "os=days,Status", "--units", "os=days", "--codes", "Status=1:0,2:1", "--blocks", "clinical=Age",
        "--set", "alpha=10")  # fmt: skip
    assert mmdls.load(tmp_path / "cox").alpha == 10
    run("predict", tmp_path / "cox", tmp_path / "new.csv", tmp_path / "p.csv", "--roles", tmp_path / "cox.run.json",
        "--horizons", "6")  # fmt: skip
    found = pd.read_csv(tmp_path / "p.csv", dtype={"Patient": str}, index_col="Patient")
    assert list(found) == ["os_risk", "os_survival_6"] and list(found.index) == ["00", "01", "02", "03"]
    saved = json.loads((tmp_path / "cox" / "manifest.json").read_text())
    assert saved["data"]["patients"] == 20 and len(saved["data"]["X"]) == 64
    assert "no outcomes" in run("fit", tmp_path / "new.csv", tmp_path / "x", "--id", "Patient", "--blocks",
                                "clinical=Age", code=1)  # fmt: skip


def test_the_published_checkpoint_is_converted(data_dir, tmp_path):
    checkpoint = data_dir / "mm_dls_reference" / "best_model.pt"
    assert "published.mmdls" in run("convert", checkpoint, tmp_path / "published.mmdls", "--intended-use", "Research.")
    model = mmdls.load(tmp_path / "published.mmdls")
    assert set(model.tasks_) == {"subtype", "stage", "dfs", "os"}
    assert len(json.loads((tmp_path / "published.mmdls.run.json").read_text())["inputs"]["checkpoint"]) == 64
    assert "--force" in run("convert", checkpoint, tmp_path / "published.mmdls", code=1)
    assert "nothing.pt" in run("convert", tmp_path / "nothing.pt", tmp_path / "other", code=1)


@pytest.mark.slow
def test_the_demonstration_ends_with_the_path_of_a_report(tmp_path):
    said = run("demo", tmp_path / "demo.html", "-q", "--patients", 40, "--model", "clinical_cox")
    assert said.rstrip().endswith(str(tmp_path / "demo.html")) and "concordance_index" in said
    assert "clinical_cox" in (tmp_path / "demo.html").read_text()
