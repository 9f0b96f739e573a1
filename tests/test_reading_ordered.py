"""Features whose categories have an order, such as a stage that predicts survival."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmdls import ClinicalCox, TabularEncoder
from mmdls.cli import main
from mmdls.cohort import read_cohort
from mmdls.datasets import load_cohort

STAGES = ["I", "II", "III", "IV"]
TABLE = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "TNM": ["IIIA", None, "Stage IB", "4a", "IIB"],
        "os_months": [5.0, 3.0, 8.0, 4.0, 6.0],
        "os_status": ["1:DECEASED", "0:LIVING", "1:DECEASED", "1:DECEASED", "0:LIVING"],
    }
)


def read(**words):
    return read_cohort(TABLE, **({"id": "id", "blocks": {"clinical": ["TNM"]}} | words))


@pytest.mark.parametrize("ordered", [{"tnm": STAGES}, {"clinical_tnm": STAGES}, ["TNM"], "TNM"])
def test_a_stage_becomes_an_ordered_feature_and_missing_stays_missing(ordered):
    cohort = read(ordered=ordered)
    stage = cohort.X["clinical_tnm"]
    assert stage.cat.ordered and list(stage.cat.categories) == STAGES
    assert stage.tolist() == ["III", np.nan, "I", "IV", "II"]
    assert "stage" not in cohort.y
    told = cohort.report.loc["TNM"]
    assert (
        told["role"] == "block clinical"
        and told["n_missing"] == 1
        and "in the order I < II < III < IV" in told["changes"]
    )


def test_an_order_of_words_and_of_codes():
    grades = {"low": 1, "high": 3, "middle": 2}
    table = pd.DataFrame({"id": list("abc"), "x": list(grades), "code": list(grades.values())})
    X = read_cohort(
        table,
        id="id",
        blocks={"clinical": ["x", "code"]},
        codes={"code": {number: word for word, number in grades.items()}},
        ordered={"x": ["low", "middle", "high"], "code": ["low", "middle", "high"]},
    ).X
    assert X["clinical_x"].cat.codes.tolist() == X["clinical_code"].cat.codes.tolist() == [0, 2, 1]


def test_models_read_places_in_the_order():
    X = read(ordered={"TNM": STAGES}).X
    encoder = TabularEncoder(scale=None, impute=None, add_indicator=False).fit(X)
    assert encoder.get_feature_names_out().tolist() == ["clinical_tnm"]
    np.testing.assert_array_equal(encoder.transform(X).ravel(), [2, np.nan, 0, 3, 1])
    # The order of fit holds for later tables of texts, and a stage that nobody had in fit has its place.
    few = TabularEncoder(scale=None, impute=None, add_indicator=False).fit(X[2:3])
    later = pd.DataFrame({"clinical_tnm": ["IV", "II"]})
    assert few.transform(later).ravel().tolist() == [3, 1]
    with pytest.warns(UserWarning, match="not seen in fit.*'V'"):
        assert np.isnan(few.transform(pd.DataFrame({"clinical_tnm": ["V"]}))).all()


def test_a_comparator_has_one_coefficient_for_the_order():
    rng = np.random.default_rng(0)
    places = rng.integers(0, 4, 200)
    time = rng.exponential(100 * np.exp(-0.8 * places))
    y = pd.DataFrame({"os_time": time, "os_event": np.ones(200, dtype=bool)})
    X = pd.DataFrame({"clinical_stage": pd.Categorical.from_codes(places, STAGES, ordered=True)})
    as_numbers = pd.DataFrame({"clinical_stage": places.astype(float)})
    np.testing.assert_allclose(ClinicalCox().fit(X, y).predict(X), ClinicalCox().fit(as_numbers, y).predict(as_numbers))


def test_unordered_stages_are_said():
    report = read().report
    assert "ordered={'TNM': [...]}" in report.loc["TNM", "changes"]
    for others in (["left", "right", "both", "left", None], ["M0", "M1", "M0", None, "M1"]):
        table = TABLE.assign(TNM=others)
        assert "ordered" not in read_cohort(table, id="id", blocks={"clinical": ["TNM"]}).report.loc["TNM", "changes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ordinal": {"stage": ("TNM", STAGES)}}, "as ordinal stage and as block clinical.*blocks=.*ordered="),
        (
            {"ordinal": {"stage": ("TNM", STAGES)}, "blocks": {}, "ordered": "TNM"},
            "'TNM', which is used as ordinal stage, and no feature.*not in ordinal: blocks=.*ordered=",
        ),
        ({"blocks": {}, "ordered": "TNM"}, "'TNM', which is not used, and no feature.*blocks="),
        ({"ordered": {"TNM": "I-IV"}}, "levels of 'TNM' must be a list"),
        ({"ordered": {"TNM": ["I", "I"]}}, "must be different labels"),
        ({"ordered": {"TNM": STAGES[:3]}}, "must hold one of .*'4a'"),
        ({"ordered": {"stage": STAGES}}, "no column 'stage', which ordered names"),
    ],
)
def test_what_is_no_ordered_feature_is_refused(words, message):
    with pytest.raises((ValueError, TypeError, KeyError), match=message):
        read(**words)


def test_labels_without_an_order_need_it():
    table = TABLE.assign(TNM=["f", "m", "f", "m", None])
    with pytest.raises(ValueError, match=re.escape("give it from lowest to highest: ordered={'TNM': [...]}.")):
        read_cohort(table, id="id", blocks={"clinical": ["TNM"]}, ordered="TNM")


def test_the_command_line_and_folders_read_the_order(tmp_path):
    TABLE.to_csv(tmp_path / "patients.csv", index=False)
    asked = ["--id", "id", "--blocks", "clinical=TNM", "--ordered", "TNM=I<II<III<IV"]
    told = CliRunner().invoke(
        main, ["check", str(tmp_path / "patients.csv"), *asked, "-o", str(tmp_path / "account.csv")]
    )
    assert told.exit_code == 0, told.output
    assert "in the order I < II < III < IV" in told.output
    manifest = json.loads((tmp_path / "account.csv.run.json").read_text())
    assert manifest["roles"]["ordered"] == {"TNM": STAGES}
    folder = TABLE.rename(columns={"id": "patient_id", "TNM": "clinical_t"})
    (tmp_path / "cohort").mkdir()
    folder.to_csv(tmp_path / "cohort" / "clinical.csv", index=False)
    X, _ = load_cohort(tmp_path / "cohort", ordered={"clinical_t": STAGES}, return_X_y=True)
    assert X["clinical_t"].cat.codes.tolist() == [2, -1, 0, 3, 1]
