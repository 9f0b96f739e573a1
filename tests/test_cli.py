"""The command line: what it prints, writes and refuses, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

import mmdls
from mmdls.cli import main
from mmdls.cli._roles import parse_value, roles_of
from mmdls.datasets import make_nsclc_cohort

ROOT = Path(__file__).parents[1]


def run(*arguments, code=0):
    """What a command prints, of which the exit code is the expected one."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, f"{done.exit_code}: {done.output}"
    return done.output


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A hospital's own table: days, codes 1 and 2, stages as text, and notes."""
    X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    table = pd.DataFrame(
        {
            "Patient": [f"{i:03d}" for i in range(60)],
            "Age": X["clinical_age"].to_numpy(),
            "Sex": X["clinical_sex"].to_numpy(),
            "Stage": y["stage"].astype(str).replace({"I-II": "IIB", "III": "IIIA", "IV": "IVA"}).to_numpy(),
            "OS days": (y["os_time"] * 30.4375).round().to_numpy(),
            "Status": y["os_event"].map({False: 1, True: 2}).to_numpy(),
            "SUVmax": X["pet_suvmax"].to_numpy(),
        }
    )
    path = tmp_path_factory.mktemp("hospital") / "patients.csv"
    table.to_csv(path, index=False)
    return path


ROLES = [
    "--id", "Patient", "--endpoints", "os=OS days,Status", "--units", "os=days", "--codes", "Status=1:0,2:1",
    "--ordinal", "stage=Stage:I-II<III<IV", "--blocks", "clinical=Age,Sex", "--blocks", "pet=SUV*",
]  # fmt: skip


# -- the command itself ----------------------------------------------------------------------------------------------


def test_help_shows_every_command_without_loading_the_library():
    code = """
import sys
from click.testing import CliRunner
from mmdls.cli import main
texts = {name: CliRunner().invoke(main, [name, "--help"]) for name in main.commands}
assert all(done.exit_code == 0 and "Examples" in done.output for done in texts.values()), texts
overview = CliRunner().invoke(main, ["--help"]).output
assert all(name in overview for name in main.commands)
heavy = {"torch", "sklearn", "pandas", "numpy", "optuna"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mmdls", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"mmdls, version {mmdls.__version__}")


def test_the_entry_point_names_the_command():
    assert 'mmdls = "mmdls.cli:main"' in (ROOT / "pyproject.toml").read_text()


def test_errors_of_the_input_are_one_line_and_show_where_they_were_raised_when_asked(tmp_path):
    (tmp_path / "table.csv").write_text("id,age\n1,60\n2,70\n")
    said = run("check", tmp_path / "table.csv", "--id", "Patient", code=1)
    assert said.startswith("Error: ") and "Traceback" not in said and "'Patient'" in said
    for arguments in (["--debug", "check"], ["check", "--debug"]):
        assert "Traceback" in run(*arguments, tmp_path / "table.csv", "--id", "Patient", code=1)
    assert "nothing.csv" in run("check", tmp_path / "nothing.csv", code=1)


def test_wrong_usage_has_a_code_of_its_own():
    assert "No such command" in run("chek", code=2)
    assert "No such option" in run("check", "x.csv", "--idd", "Patient", code=2)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ZeroDivisionError("in a loop"), 4, "ZeroDivisionError: in a loop\nThis is a fault of mmdls"),
        (KeyboardInterrupt(), 130, "stopped"),
        (KeyError("y lacks 'os_time'"), 1, "Error: y lacks 'os_time'\n"),
        (ValueError("no postgresql://anna:s3cret@host"), 1, "anna:***@host"),
    ],
)
def test_each_kind_of_error_has_its_code(monkeypatch, error, code, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(mmdls.cohort, "read_cohort", fail)
    assert says in run("check", "table.csv", code=code)


def test_warnings_are_plain_lines_each_once(monkeypatch, tmp_path):
    import warnings

    def warn(*_, **__):
        for _ in range(2):
            warnings.warn("mind the gap", stacklevel=1)
        raise ValueError("the end")

    monkeypatch.setattr(mmdls.cohort, "read_cohort", warn)
    assert run("check", "table.csv", code=1) == "Warning: mind the gap\nError: the end\n"


def test_modules_that_register_parts_are_imported_first(monkeypatch, tmp_path):
    (tmp_path / "own_parts.py").write_text(
        "from mmdls.modules import MeanPooling\nfrom mmdls.registry import poolings\n"
        "@poolings.register('own_mean')\nclass OwnMean(MeanPooling):\n    '''The mean.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "own_mean" not in mmdls.registry.poolings  # which loads the others
    monkeypatch.setattr(mmdls.registry.poolings, "_parts", {**mmdls.registry.poolings._parts})
    assert "poolings own_mean: keeps its contract" in run("--import", "own_parts", "check-plugin", "own_mean")
    assert "No module named 'no_parts'" in run("--import", "no_parts", "zoo", code=1)
    (tmp_path / "raising_parts.py").write_text("raise ValueError('half made')\n")
    shown = run("--import", "raising_parts", "zoo", code=1)
    assert shown.startswith("Error: --import raising_parts: the module raises ValueError: half made;")
    assert shown.count("\n") == 1
    assert "Traceback" in run("--debug", "--import", "raising_parts", "zoo", code=1)


# -- roles of columns --------------------------------------------------------------------------------------------------


def roles(*arguments, **file):
    given = dict.fromkeys(("roles", "id", "groups", "relapse_after_death", "sep", "encoding", "sheet", "header"))
    many = ("endpoints", "classes", "ordinal", "numbers", "blocks", "units", "codes", "categories", "ordered", "carry",
            "missing", "decimal", "date_format")  # fmt: skip
    return roles_of({**given, **dict.fromkeys(many, ()), "coerce": False, **file, **dict(arguments)})


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("endpoints", ("os=OS days,Status", "dfs"), {"os": ["OS days", "Status"], "dfs": "dfs"}),
        ("endpoints", ("os", "dfs"), ["os", "dfs"]),
        ("endpoints", ("os=start:Diagnosis,end:Last seen,event:Dead",),
         {"os": {"start": "Diagnosis", "end": "Last seen", "event": "Dead"}}),
        ("ordinal", ("stage=TNM:I-II<III<IV",), {"stage": ["TNM", ["I-II", "III", "IV"]]}),
        ("ordered", ("TNM=I<II<III<IV", "grade"), {"TNM": ["I", "II", "III", "IV"], "grade": "grade"}),
        ("classes", ("Histology",), "Histology"),
        ("blocks", ("clinical=Age,Sex", "pet=SUV*"), {"clinical": ["Age", "Sex"], "pet": "SUV*"}),
        ("blocks", ("clinical=age:Age at diagnosis",), {"clinical": {"age": "Age at diagnosis"}}),
        ("units", ("days",), "days"),
        ("units", ("os=days",), {"os": "days"}),
        ("codes", ("Sex=1:male,2:female,9:",), {"Sex": {"1": "male", "2": "female", "9": None}}),
        ("codes", ('{"Status": {"1": 0}}',), {"Status": {"1": 0}}),
        ("decimal", (",",), ","),
        ("missing", ("99", "unknown"), ["99", "unknown"]),
        ("missing", ("Age=99,999",), {"Age": ["99", "999"]}),
        ("carry", ("centre=Hospital, main",), {"centre": "Hospital, main"}),
        ("sheet", "2", 2),
    ],
)  # fmt: skip
def test_options_are_arguments_of_read_cohort(name, texts, value):
    assert roles((name, texts)) == {name: value}


def test_every_argument_of_read_cohort_is_an_option():
    import inspect

    asked = set(inspect.signature(mmdls.cohort.read_cohort).parameters) - {"table"}
    assert asked <= {option.name for option in main.commands["check"].params}


def test_forms_that_are_no_roles_are_refused():
    from mmdls.cli._commands import Failed

    with pytest.raises(Failed, match="begins like JSON"):
        parse_value("{os: x}")
    with pytest.raises(Failed, match="each name once"):
        roles(("units", ("os=days", "os=months")))
    with pytest.raises(Failed, match="all of them as NAME=VALUE, or none"):
        roles(("units", ("os=days", "months")))


def test_new_patients_are_read_by_the_roles_of_those_with_outcomes(hospital, tmp_path):
    from mmdls.cli._patients import read_patients

    said = {"id": "Patient", "endpoints": {"os": ["OS days", "Status"]}, "units": {"os": "days"},
            "codes": {"Status": {"1": 0, "2": 1}, "clinical_sex": {"male": "m", "female": "f"}}, "groups": "SUVmax",
            "ordinal": {"stage": ["Stage", ["I-II", "III", "IV"]]}, "blocks": {"clinical": ["Age", "Sex"]}}  # fmt: skip
    X, y = read_patients(hospital, said)
    assert set(y) == {"os_time", "os_event", "stage"} and set(X["clinical_sex"]) == {"m", "f"}
    pd.read_csv(hospital, dtype=str)[["Patient", "Sex", "Age"]].to_csv(tmp_path / "new.csv", index=False)
    for path in (hospital, tmp_path / "new.csv"):
        new = read_patients(path, said, outcomes=False)
        assert new.X.equals(X) and new.y.shape == (60, 0)


# -- commands ----------------------------------------------------------------------------------------------------------


def test_check_says_what_a_table_means(hospital, tmp_path):
    said = run("check", hospital, *ROLES, "--output", tmp_path / "account.csv")
    for line in ("Age -> clinical_age", "OS days -> os_time", "endpoint os", "os (survival): outcome known of 60"):
        assert line in said
    assert said.index("clinical  2        60") < said.index("a feature that is an outcome: no")
    assert pd.read_csv(tmp_path / "account.csv", index_col=0).loc["SUVmax", "became"] == "pet_suvmax"
    manifest = json.loads((tmp_path / "account.csv.run.json").read_text())
    assert manifest["command"] == "check" and manifest["versions"]["mmdls"] and len(manifest["inputs"]["X"]) == 64
    assert str(tmp_path) not in json.dumps(manifest) and "patients.csv" not in json.dumps(manifest)
    assert "--force" in run("check", hospital, *ROLES, "--output", tmp_path / "account.csv", code=1)
    again = run(
        "check", hospital, "--roles", tmp_path / "account.csv.run.json", "-o", tmp_path / "account.csv", "--force"
    )
    assert again == said


def test_check_finds_a_leak(hospital, tmp_path):
    table = pd.read_csv(hospital, dtype={"Patient": str})
    table.assign(followup=table["OS days"] * 2).to_csv(tmp_path / "leak.csv", index=False)
    said = run("check", tmp_path / "leak.csv", *ROLES, "--blocks", "other=followup", code=3)
    assert "other_followup determines os_time" in said


def test_a_folder_is_simulated_and_checked(tmp_path):
    assert "20 patients" in run("simulate", tmp_path / "cohort", "--patients", 20, "--slices", 1, "--image-size", 8)
    said = run("check", tmp_path / "cohort")
    assert "dfs (survival): outcome known of 20" in said and "lesion     1        20" in said
    assert "known by their names" in run("check", tmp_path / "cohort", "--id", "pid", code=1)
    assert "--force" in run("simulate", tmp_path / "cohort", code=1)
    run("simulate", tmp_path / "cohort", "--patients", 3, "--slices", 1, "--image-size", 8, "--force")
    assert len(pd.read_csv(tmp_path / "cohort" / "clinical.csv")) == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("irreplaceable")
    assert "remove it yourself" in run("simulate", tmp_path / "other", "--force", code=1)
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_scans_are_simulated_and_prepared(tmp_path):
    run("simulate", tmp_path / "scans", "--scans", "--patients", 1)
    arguments = ["prepare", tmp_path / "scans" / "table.csv", tmp_path / "cohort", "--lesion-label", "lesion",
                 "--lung-label", "lung-left", "--lung-label", "lung-right", "--no-radiomics"]  # fmt: skip
    said = run(*arguments)
    assert "done    1" in said and "overview.html" in said
    X, y = mmdls.datasets.load_cohort(tmp_path / "cohort", return_X_y=True)
    assert {"lesion_image", "lung_image", "pet_suvmax", "clinical_age"} <= set(X) and len(y) == 1
    assert (tmp_path / "cohort.run.json").exists()
    structures = next((tmp_path / "scans").glob("*/structures/*.dcm"))
    structures.write_bytes(b"no DICOM")
    assert "partly" in run(*arguments, code=3)


def test_the_zoo_lists_models_and_parts():
    assert "clinical_cox" in run("zoo", "--task", "survival", "--input", "clinical")
    poolings = run("zoo", "poolings", "--csv")
    assert poolings.startswith("name,source,about,kind\n") and "max,mmdls." in poolings
    assert "gated" in run("zoo", "fusions", "--pattern", "g*") and "concat" not in run(
        "zoo", "fusions", "--pattern", "g*"
    )
    assert "none of models, augmentations" in run("zoo", "nothing", code=2)


def test_a_part_that_breaks_its_contract_is_found(monkeypatch):
    from mmdls.registry import fusions

    assert "fusions concat: keeps its contract" in run("check-plugin", "concat")
    assert "Did you mean 'concat'" in run("check-plugin", "concta", code=1)
    assert "Did you mean" not in run("check-plugin", "tiny", code=1)  # letters of it stand in "uncertainty", in order
    monkeypatch.setitem(fusions._parts, "concat", type("Undocumented", (fusions["additive"],), {}))
    assert "fusions concat: broken" in run("check-plugin", "concat", "--kind", "fusions", code=3)
    fails = {"__doc__": "Needs what nobody gives.", "__init__": lambda self, widths, out_features, secret: None}
    monkeypatch.setitem(fusions._parts, "concat", type("Demanding", (fusions["additive"],), fails))
    said = run("check-plugin", "concat", "--kind", "fusions", code=3)
    assert said.startswith("fusions concat: being checked") and "broken. TypeError: " in said and "'secret'" in said
