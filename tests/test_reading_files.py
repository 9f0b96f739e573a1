"""Tables as spreadsheets leave them: a title above the names, and empty rows."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmdls.cli import main
from mmdls.cohort import read_cohort

NAMES = ["Pat. No", "Age", "os_months", "os_status"]
ROWS = [[11, 61, 5.5, "1:DECEASED"], [18, 70, 8.0, "0:LIVING"], [25, 58, 3.0, "1:DECEASED"]]
LINES = [["NSCLC cohort 2015-2024", None, None, None], [None] * 4, NAMES, ROWS[0], [None] * 4, *ROWS[1:], [None] * 4]
ROLES = {"id": "Pat. No", "blocks": {"clinical": ["Age"]}}


@pytest.fixture(params=["xlsx", "csv"])
def file(request, tmp_path):
    path = tmp_path / f"patients.{request.param}"
    lines = pd.DataFrame(LINES, dtype=object)
    if request.param == "xlsx":
        pytest.importorskip("openpyxl")
        lines.to_excel(path, header=False, index=False)
    else:
        lines.to_csv(path, header=False, index=False, sep=";")
    return path


def test_a_title_above_the_names_is_skipped(file):
    cohort = read_cohort(file, header=2, **ROLES)
    assert cohort.X["clinical_age"].to_dict() == {"11": 61, "18": 70, "25": 58}
    assert cohort.y["os_event"].tolist() == [True, False, True]
    assert "1 empty row dropped" in cohort.notes


def test_the_command_line_reads_it_too(file):
    asked = ["check", str(file), "--id", "Pat. No", "--blocks", "clinical=Age", "--header", "2"]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0 and "3 patients" in told.output, told.output


@pytest.mark.parametrize("words", [{"id": "Pat. No"}, {"id": None}])
def test_a_table_without_names_says_where_names_may_stand(file, words):
    with pytest.raises((KeyError, ValueError), match="Most columns have no name.*header=2 is the third"):
        read_cohort(file, **ROLES | words)


@pytest.mark.parametrize(
    ("header", "message"),
    [(1, r"header=1 is no row of patients.* not empty are \[0, 2, 3, 5, 6\]"), (99, "header=99 is no row"),
     (-1, "got -1"), (True, "got True"), ("2", "got '2'")],
)  # fmt: skip
def test_a_row_that_holds_no_names_is_refused(file, header, message):
    with pytest.raises(ValueError, match=message):
        read_cohort(file, header=header, **ROLES)


def test_names_in_a_data_frame_need_no_row():
    with pytest.raises(ValueError, match="give the columns of a data frame their names"):
        read_cohort(pd.DataFrame(ROWS, columns=NAMES), header=2, **ROLES)


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, "", " "])
def test_empty_rows_of_a_data_frame_are_dropped_and_said(nothing):
    table = pd.DataFrame([ROWS[0], [nothing] * 4, *ROWS[1:], [nothing] * 4], columns=NAMES, dtype=object)
    cohort = read_cohort(table, **ROLES)
    assert list(cohort.X.index) == ["11", "18", "25"]
    assert "2 empty rows dropped" in cohort.notes
    table.loc[1, "Age"] = 50
    with pytest.raises(ValueError, match=r"has rows without 'Pat. No', in rows \[1\]"):
        read_cohort(table, **ROLES)


def test_a_patient_without_values_stays():
    table = pd.DataFrame({"Age": [61.0, np.nan], "os_months": [3.0, np.nan], "os_status": ["1:DEAD", None]}, ["a", "b"])
    assert list(read_cohort(table, blocks={"clinical": ["Age"]}).X.index) == ["a", "b"]
