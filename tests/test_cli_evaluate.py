"""The commands that judge models: what they write, and that nobody is judged by a model that knows them."""

import json

import pandas as pd
import pytest

import mmdls
from mmdls.datasets import make_nsclc_cohort
from tests.test_cli import run

ROLES = ["--id", "Patient", "--endpoints", "os=months,dead", "--units", "os=months", "--blocks", "clinical=Age,Sex",
         "--resamples", 10, "--horizons", 24]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of 40 patients of the training and 30 others; a model saved with its data, and one without."""
    path = tmp_path_factory.mktemp("models")
    X, y = make_nsclc_cohort(70, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    table = pd.DataFrame(
        {"Age": X["clinical_age"], "Sex": X["clinical_sex"], "months": y["os_time"], "dead": y["os_event"]}
    )
    table.index.name = "Patient"
    table[:40].to_csv(path / "training.csv")
    table[40:].to_csv(path / "others.csv")
    read = mmdls.cohort.read_cohort(
        path / "training.csv", id="Patient", endpoints={"os": ["months", "dead"]}, units={"os": "months"},
        blocks={"clinical": ["Age", "Sex"]},
    )  # fmt: skip
    model = mmdls.ClinicalCox(endpoint="os").fit(read.X, read.y)
    mmdls.save(model, path / "cox.mmdls", data=(read.X, read.y))
    mmdls.save(model, path / "silent.mmdls")
    return path


def test_metrics_of_other_patients_have_intervals(folder, tmp_path):
    out = tmp_path / "metrics.csv"
    said = run("evaluate", folder / "cox.mmdls", folder / "others.csv", *ROLES, "-o", out)
    table = pd.read_csv(out).set_index("metric")
    assert "concordance_index" in said and table.loc["concordance_index", "n"] == 30
    assert table.loc["concordance_index", "low"] < table.loc["concordance_index", "value"]
    manifest = json.loads((tmp_path / "metrics.csv.run.json").read_text())
    assert manifest["command"] == "evaluate" and set(manifest["inputs"]) == {"model", "X", "y"}
    assert "--force" in run("evaluate", folder / "cox.mmdls", folder / "others.csv", *ROLES, "-o", out, code=1)


def test_patients_of_the_training_are_not_evaluated(folder):
    assert "would flatter it" in run("evaluate", folder / "cox.mmdls", folder / "training.csv", *ROLES, code=1)
    roles = [*ROLES[:2], *ROLES[6:]]
    (folder / "new.csv").write_text("Patient,Age,Sex\na,60,male\nb,70,female\n")
    assert "no outcomes" in run("evaluate", folder / "cox.mmdls", folder / "new.csv", *roles, code=1)


def test_a_report_of_the_training_is_out_of_fold(folder, tmp_path):
    out = tmp_path / "report.html"
    said = run("report", folder / "cox.mmdls", folder / "training.csv", out, *ROLES)
    assert "fitted without them, in 5 folds" in said
    text = out.read_text()
    assert "fitted without them, in 5 folds" in text and "CohortKFold(n_splits=5" in text
    assert json.loads((tmp_path / "report.html.run.json").read_text())["patients"].startswith(
        "patients of the training"
    )
    external = ["report", folder / "cox.mmdls", folder / "training.csv", tmp_path / "x.html", *ROLES, "--external"]
    assert "was fitted on these patients" in run(*external, code=1)
    assert "give one" in run(*external, "--cv", 3, code=2)


def test_a_report_of_others_uses_the_model_as_it_is(folder, tmp_path):
    out = tmp_path / "report.html"
    names = tmp_path / "names.json"
    names.write_text('{"clinical_age": "Years of age"}')
    options = ["--title", "Other patients", "--labels", names, "--tests"]
    run("report", folder / "cox.mmdls", folder / "others.csv", out, *ROLES, *options)
    assert "Years of age" in out.read_text()
    names.write_text('["clinical_age"]')
    said = run("report", folder / "cox.mmdls", folder / "others.csv", tmp_path / "x.html", *ROLES, *options, code=1)
    assert "must hold texts by name" in said
    text = out.read_text()
    assert "not the cohort of the training: its outcomes are others" in text and "CohortKFold(" not in text
    assert "<title>Other patients" in text


def test_a_model_that_does_not_say_its_patients_is_asked_about(folder, tmp_path):
    silent = ["report", folder / "silent.mmdls", folder / "training.csv", tmp_path / "r.html", *ROLES]
    assert "give --cv 5 if on these patients, else --external" in run(*silent, code=1)
    assert "in 2 folds" in run(*silent, "--cv", 2)


def test_models_are_compared_on_the_same_folds(folder, tmp_path):
    out = tmp_path / "results"
    asked = ["--model", "clinical_cox", "--model", folder / "cox.mmdls", "--cv", 2]
    said = run("compare", folder / "training.csv", out, *ROLES, *asked)
    assert "Differences are to the reference model, clinical_cox" in said
    assert set(pd.read_csv(out / "scores.csv")["model"]) == {"clinical_cox", "cox"}
    assert list(pd.read_csv(out / "differences.csv")["model"]) == ["cox"]
    groups = pd.read_csv(out / "risk_groups.csv", index_col="patient_id")
    assert len(groups) == 40 and {"cox os", "fold"} <= set(groups)
    assert "Comparison of models" in (out / "report.html").read_text()
    assert json.loads((tmp_path / "results.run.json").read_text())["command"] == "compare"
    assert "--force" in run("compare", folder / "training.csv", out, *ROLES, *asked, code=1)
    assert "neither a saved model nor registered" in run(
        "compare", folder / "training.csv", tmp_path / "no", *ROLES, "--model", "clinical_cocks", code=1
    )
    twice = ["--model", "clinical_cox", "--model", "clinical_cox"]
    assert "a name of its own" in run("compare", folder / "training.csv", tmp_path / "no", *ROLES, *twice, code=1)


def test_no_file_names_a_patient_if_asked(folder, tmp_path):
    table = pd.read_csv(folder / "training.csv").assign(Patient=[f"Zzyzx-{i}" for i in range(40)])
    table.loc[[3, 30], ["Age", "Sex"]] = None  # of whom the fits warn, by name
    table.to_csv(tmp_path / "table.csv", index=False)
    model = ["--model", "tables_linear", "--cv", 2]
    for out, options in (("named", []), ("nobody", ["--anonymous"])):
        run("compare", tmp_path / "table.csv", tmp_path / out, *ROLES, *model, *options)
        run("predict", folder / "cox.mmdls", tmp_path / "table.csv", tmp_path / out / "said.csv", *ROLES[:8], *options)
    naming = {path.name for path in (tmp_path / "named").iterdir() if "Zzyzx" in path.read_text()}
    assert naming == {"risk_groups.csv", "warnings.csv", "said.csv"}
    assert not [path for path in (tmp_path / "nobody").iterdir() if "Zzyzx" in path.read_text()]
    assert "***" in (tmp_path / "nobody" / "warnings.csv").read_text()
    for file in ("risk_groups.csv", "said.csv"):
        named, nobody = (pd.read_csv(tmp_path / out / file, index_col=0) for out in ("named", "nobody"))
        assert list(nobody.index) == list(range(1, 41)) and named.reset_index(drop=True).equals(
            nobody.reset_index(drop=True)
        )


@pytest.mark.slow
def test_a_network_of_a_cohort_folder_is_fitted_anew(tmp_path):
    run("simulate", tmp_path / "cohort", "--patients", 20, "--slices", 1, "--image-size", 8)
    X, y = mmdls.datasets.load_cohort(tmp_path / "cohort", return_X_y=True)
    model = mmdls.MMDLS(n_members=1, trainer=mmdls.Trainer(max_epochs=1, verbose=0))
    mmdls.save(model.fit(X[["clinical_age", "clinical_sex"]], y), tmp_path / "net.mmdls", data=(X, y))
    options = ["--resamples", 5, "--horizons", 24]
    said = run("report", tmp_path / "net.mmdls", tmp_path / "cohort", tmp_path / "net.html", *options, "--cv", 2)
    assert "in 2 folds" in said and "CohortKFold(n_splits=2" in (tmp_path / "net.html").read_text()
