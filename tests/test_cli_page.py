"""Every command on the page of the command line does what the page says, in one folder, from the first to the last."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mmdls.cli import main
from mmdls.datasets import load_cohort, make_nsclc_cohort
from tests.pages import ROOT, page
from tests.test_cli import run

TEXT = page("docs/command_line.md")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
# Blocks that take longer than a few seconds: the report and the comparison, and the way from scans.
SLOW = [1, 2]
# What reads the published checkpoint, and what ends with a report of several models, have tests of their own.
ELSEWHERE = {"convert", "demo"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a hospital's tables, as the page takes them for granted."""
    monkeypatch.chdir(tmp_path)
    X, y = make_nsclc_cohort(50, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    table = pd.DataFrame({"Age": X["clinical_age"], "Sex": X["clinical_sex"]}).rename_axis("Patient")
    table[40:].to_csv("new.csv")
    days, status = (y["os_time"] * 30.4375).round(), np.where(y["os_event"], 2, 1)
    table.assign(OS_days=days, OS_status=status)[:40].to_csv("patients.csv")
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_the_quick_commands_of_the_page(folder):
    for block in (block for number, block in enumerate(BLOCKS) if number not in SLOW):
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            assert program == "mmdls" and run(*arguments).strip(), line
    metrics = pd.read_csv("metrics.csv")
    assert metrics["low"].notna().any() and {40} == set(metrics["n"])
    columns = ["os_risk", "os_survival_12", "os_survival_24"]
    assert list(pd.read_csv("predictions.csv", index_col="patient_id")) == columns
    assert pd.read_csv("of_new.csv", index_col="Patient")["os_risk"].shape == (10,)


@pytest.mark.slow
def test_all_commands_of_the_page(folder):
    command = f'mmdls() {{ {shlex.quote(sys.executable)} -m mmdls "$@"; }}\nset -e\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command + "\n".join(BLOCKS)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "others.html").exists() and (folder / "results" / "report.html").exists()
    assert list(pd.read_csv("prepared/patients.csv")["status"]) == ["done"] * 12
    X, _ = load_cohort("prepared", return_X_y=True)
    features = X.filter(regex="^(pet|radiomics)_")
    assert features.shape == (12, 5 + 107) and features.notna().all(axis=None)
    assert len(pd.read_csv("of_training.csv")) == 12
    said = (folder / "report.html").read_text()
    assert "out of fold" in said and "evaluated (n = 12)" in said


def test_every_command_is_on_the_page():
    shown = set(re.findall(r"^mmdls (\S+)", "\n".join(BLOCKS), re.MULTILINE))
    assert shown == set(main.commands) - ELSEWHERE
    assert all(f"`{command}`" in TEXT for command in main.commands)
