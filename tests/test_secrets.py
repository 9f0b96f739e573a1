"""What leaves the machine: no passwords, no ids of patients, no formulas, no markup."""

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from mmdls import OptunaSearch
from mmdls._secrets import with_formulas, without_formulas, without_ids, without_secrets
from mmdls.report import report


class Refusing(ClassifierMixin, BaseEstimator):
    """Names a patient in its error."""

    def __init__(self, strength=1.0):
        self.strength = strength

    def fit(self, X, y):
        if self.strength > 0.5:
            raise ValueError(f"the image of patient {X.index[0]!r} is empty, see also {list(X.index[:2])}")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.resize(self.classes_, len(X))


def test_a_shared_study_learns_nothing_of_patients(tmp_path):
    X = pd.DataFrame({"a": np.arange(20.0)}, index=[f"MR-08{i:02d}" for i in range(20)])
    space = {"strength": optuna.distributions.FloatDistribution(0, 1)}
    storage = f"sqlite:///{tmp_path}/study.db"
    search = OptunaSearch(
        Refusing(), space, n_trials=6, cv=2, random_state=0, storage=storage, refit=False, catch=(ValueError,)
    )
    search.fit(X, np.arange(20) % 2)
    errors = [error for error in search.cv_results_["error"] if error]
    assert errors and all("the image of patient '***' is empty, see also ['***', '***']" in error for error in errors)
    assert b"MR-08" not in (tmp_path / "study.db").read_bytes()


@pytest.mark.parametrize(
    "text, ids, expected",
    [
        ("patient 'A.1' of 12", ["A.1", "12"], "patient '***' of 12"),
        ("P1, P10, P100", ["P1", "P10"], "***, ***, P100"),
        ("row 4711", [4711, 3], "row ***"),
        ("3 folds", [3, 4], "3 folds"),
        ("nothing", [], "nothing"),
        ("a (b) c", ["(b)"], "a *** c"),
        ("/scans/A.1_2.png is empty", ["A.1"], "/scans/***_2.png is empty"),
    ],
)
def test_ids_are_replaced_and_the_rest_is_kept(text, ids, expected):
    assert without_ids(text, ids) == expected


def test_small_numbers_are_ids_where_nobody_may_be_named():
    assert (
        without_ids("First: [7, 12], 5 of 70 patients", [7, 12, 40], small=True)
        == "First: [***, ***], 5 of 70 patients"
    )
    assert without_ids("nothing", [""], small=True) == "nothing"


def test_no_text_of_a_table_is_a_formula():
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "plain", "-1.5", "+2e-3", "", None]
    table = pd.DataFrame(
        {"=x": texts, "number": -1.0, "group": pd.Categorical(["=a"] * 11)}, index=[f"={i}" for i in range(11)]
    )
    safe = without_formulas(table)
    assert safe.columns.tolist() == ["'=x", "number", "group"] and safe.index[0] == "'=0"
    assert (
        safe["'=x"].tolist()[:-1] == [*(f"'{text}" for text in texts[:6]), *texts[6:-1]] and safe["'=x"].isna().iloc[-1]
    )
    assert set(safe["group"]) == {"'=a"} and (safe["number"] == -1).all()
    assert table.columns[0] == "=x" and table["=x"].tolist()[0] == "=1+1"


def test_texts_that_are_kept_from_being_formulas_come_back():
    texts = ["=1+1", "'=1+1", "''@x", "'-5", "-5", "'s-Gravenhage", "'", "plain", "\t=1", "-", "'-"]
    table = pd.DataFrame({"=x": texts, "'=x": texts}, index=texts)
    safe = without_formulas(table)
    assert safe["'=x"].is_unique and not safe.index.str.match(r"[=@\t]|-$").any()
    pd.testing.assert_frame_equal(with_formulas(safe), table)


def test_a_report_names_no_patient_and_holds_no_markup_of_the_table():
    rng = np.random.default_rng(0)
    ids = [f"Zzyzx-{i}" for i in range(60)]
    evil = "<script>alert(1)</script>"
    X = pd.DataFrame({"clinical_age": rng.normal(size=60), "centre": np.resize([evil, "B"], 60)}, index=ids)
    y = pd.DataFrame({"os_time": rng.exponential(30, 60), "os_event": np.arange(60) % 3 == 0}, index=ids)
    y["stage"] = np.resize([evil, "II"], 60)
    stage = pd.DataFrame({evil: np.linspace(0, 1, 60), "II": np.linspace(1, 0, 60)}, index=ids)
    models = {evil: {"os": X["clinical_age"]}, "b": {"os": -X["clinical_age"], "stage": stage}}
    text = report(
        models, X, y, horizons=(12,), n_resamples=20, title=evil, settings={evil: evil}, card={"intended use": evil}
    )
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "Zzyzx" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:pa:s@s/w0rd@host/db",
        "mysql+pymysql://u:pa@s@h:3306/x",
        "sqlite:///a.db?password=pas",
        "redis://:pas@h",
    ],
)
def test_passwords_of_urls_are_not_shown(url):
    assert "pa" not in without_secrets(f"kept in {url}, yes").replace("password", "")
