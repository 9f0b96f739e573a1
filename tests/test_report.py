"""The report is one file that needs nothing else, says what is undefined or open, and never fails on a thin cohort."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mmdls import metrics
from mmdls.estimators import ClinicalCox
from mmdls.report import data_hash, report
from mmdls.report._tripod import ITEMS

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects sections, tables and sources."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.ids, self.cells = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[k] for k in ("src", "href") if k in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "span"):
            self.cells.append(data)


def make_study(n=160, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"clinical_age": rng.normal(65, 9, n), "clinical_sex": rng.choice(["f", "m"], n)})
    X["centre"], X["treatment"] = rng.choice(["A", "B<script>"], n), rng.choice(["chemo", "immuno"], n)
    signal = rng.normal(size=n) + 0.05 * (X["clinical_age"] - 65)
    true, leaving = rng.exponential(40 * np.exp(-signal)), rng.uniform(6, 110, n)
    y = pd.DataFrame({"os_time": np.minimum(true, leaving), "os_event": (true <= leaving).astype(int)})
    y["subtype"] = np.where(signal + rng.normal(size=n) > 0, "LUSC", "LUAD")
    grid = np.union1d(np.linspace(2, 60, 30), [12, 36, 60])
    models = {}
    for name, score in (("clinical", 0.5 * signal + rng.normal(size=n)), ("all", signal)):
        survival = pd.DataFrame(np.exp(-np.exp(score).to_numpy()[:, None] * grid / 40), columns=grid)
        groups = pd.Categorical.from_codes(np.digitize(score, [-0.5, 0.5]), ["low", "middle", "high"], ordered=True)
        share = 1 / (1 + np.exp(-score))
        models[name] = {
            "os": survival.assign(risk=score, group=groups),
            "subtype": pd.DataFrame({"LUAD": 1 - share, "LUSC": share}),
        }
    return models, X, y


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    models, X, y = make_study()
    text = report(
        models,
        X,
        y,
        path,
        n_resamples=40,
        flow={"screened": 200, "no consent": -40},
        card={"Intended use": "Research & teaching"},
        settings={"seed": 7},
        title="Risk <of> death",
    )
    assert path.read_text(encoding="utf-8") == text
    return text


def test_it_is_well_formed_and_needs_nothing_else(text):
    page = Page(text)
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in page.sources)
    assert {source[1:] for source in page.sources if source.startswith("#")} == set(page.ids)
    assert "<script" not in text and "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)


def test_it_holds_what_a_reviewer_asks_for(text):
    page = Page(text)
    models, _, y = make_study()
    value = metrics.concordance_index(y["os_event"], y["os_time"], models["all"]["os"]["risk"])
    assert any(cell.startswith(f"{value:.3f} [") for cell in page.cells)
    for words in (
        "excluded: no consent (n = 40)",
        "evaluated (n = 160)",
        "clinical_age median [quartiles]",
        "median follow-up, months",
        "Index of prediction accuracy",
        "DeLong",
        "Added value of each model",
        "random-effects mean",
        "Net benefit at 36 months",
        "Calibration at 12 months",
        "os by risk groups of all",
        "Interaction",
        "SHA-256 of X",
        "scikit-survival",
        "Research &amp; teaching",
        "B&lt;script&gt;",
        "Risk &lt;of&gt; death",
    ):
        assert words in text, words


def test_every_item_of_the_checklist_is_there_and_what_only_the_author_knows_is_open(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text.split('<section id="tripod-ai-checklist">')[1], flags=re.S)
    cells = [re.findall(r"<td>(.*?)</td>", row, flags=re.S) for row in rows]
    assert [row[0] for row in cells] == [item[0] for item in ITEMS] and len(ITEMS) == 52
    answers = {row[0]: row[3] for row in cells}
    for number in ("2", "5b", "6b", "17", "18a", "25"):
        assert "OPEN" in answers[number]
    assert answers["3b"] == "Research &amp; teaching" and "OPEN" not in answers["23a"]


def test_a_fitted_estimator_brings_its_predictions_groups_and_settings():
    _, X, y = make_study()
    y = y[["os_time", "os_event"]]
    model = ClinicalCox(endpoint="os", alpha=3.25).fit(X.iloc[:80], y.iloc[:80])
    text = report({"Cox": model}, X.iloc[80:], y.iloc[80:], n_resamples=20, horizons=(24,), by=None, treatment=None)
    Page(text)
    assert "ClinicalCox" in text and "3.25" in text and "os by risk groups of Cox" in text
    assert "80 patients" in text


def test_table_one_by_split_and_open_items_filled_by_it():
    models, X, y = make_study(60)
    split = pd.Series(np.repeat(["development", "external"], [40, 20]), index=X.index)
    text = report({"all": models["all"]}, X, y, n_resamples=10, horizons=(24,), split=split)
    Page(text)
    assert "<th>development</th>" in text and "<th>external</th>" in text and "nothing to compare" in text
    assert "Characteristics by split" in text


@pytest.mark.filterwarnings("ignore")
def test_a_thin_cohort_is_reported_with_reasons():
    models, X, y = make_study(30)
    y["os_event"], y["subtype"] = 0, "LUAD"
    text = report(models, X, y, n_resamples=10, horizons=(12, 600))
    Page(text)
    assert "not defined" in text and "suppressed" in text and "no pair of patients can be compared" in text


def test_a_flow_that_does_not_add_up_is_refused():
    models, X, y = make_study(40)
    with pytest.raises(ValueError, match="flow must end at the 40 patients of X; .50 -5 is 45"):
        report(models, X, y, flow={"screened": 50, "late": -5}, n_resamples=0)
    with pytest.raises(ValueError, match="models is empty"):
        report({}, X, y)


def test_the_hash_sees_every_cell_and_not_the_process():
    table = pd.DataFrame({"a": [1.0, np.nan], "image": [np.zeros((2, 2)), None]}, index=["p", "q"])
    value = data_hash(table)
    assert value == data_hash(table.copy())
    for column, row, other in (("a", 0, 1.5), ("image", 0, np.zeros((4, 1))), ("image", 1, "path")):
        changed = table.copy()
        changed.at[table.index[row], column] = other
        assert data_hash(changed) != value
    assert data_hash(table.set_axis(["p", "r"])) != value
    code = (
        "import numpy as np, pandas as pd; from mmdls.report import data_hash; print(data_hash(pd.DataFrame("
        "{'a': [1.0, np.nan], 'image': [np.zeros((2, 2)), None]}, index=['p', 'q'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == value


def test_predictions_of_folds_are_compared_inside_folds():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_age": rng.normal(size=90)})
    y = pd.DataFrame({"os_time": rng.exponential(30, 90), "os_event": rng.integers(0, 2, 90)})
    folds = np.arange(90) % 3
    shifted = pd.Series(-y["os_time"] + 1000 * folds)
    inside = report({"a": {"os": shifted}}, X, y, horizons=(), n_resamples=20, folds=folds)
    pooled = report({"a": {"os": shifted}}, X, y, horizons=(), n_resamples=20)
    assert "1.000 [1.000, 1.000]" in inside and "1.000 [1.000, 1.000]" not in pooled
