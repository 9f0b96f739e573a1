"""The report is one file that needs nothing else, says what is undefined or open, and never fails on a thin cohort."""

import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mmdls import OptunaSearch, cross_predict, metrics
from mmdls.estimators import ClinicalCox
from mmdls.metrics._censoring import median_text
from mmdls.report import data_hash, image_hash, report
from mmdls.report._notes import grouped_notes
from mmdls.report._tripod import ITEMS
from mmdls.tasks import Figure, RegressionTask

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
        "Age, median [quartiles]",
        "median follow-up, months",
        "Index of prediction accuracy",
        "DeLong",
        "Added value of each model",
        "random-effects mean",
        "Net benefit at 36 months",
        "Calibration at 12 months",
        "Overall survival by risk groups of all",
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
    assert "ClinicalCox" in text and "3.25" in text and "Overall survival by risk groups of Cox" in text
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
    assert "not defined" in text and "suppressed" in text and "no pair of patients is comparable" in text
    X["centre"] = [f"centre {k % 9}" for k in range(30)]
    text = report({"all": models["all"]}, X, y, n_resamples=5, horizons=(), groups=X[["clinical_age"]])
    assert "Overall survival: suppressed (n &lt; 20) in all centres." in text and "diamond" not in text


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
    assert "1.000 [1.000,&nbsp;1.000]" in inside and "1.000 [1.000,&nbsp;1.000]" not in pooled


def test_texts_of_patients_are_texts():
    """Names and categories come from other people's tables."""
    models, X, y = make_study()
    bad = "<script>alert(1)</script> $5 & $x^{$"
    X = X.assign(centre=np.where(X["centre"] == "A", bad, "B"), clinical_sex=X["clinical_sex"] + "<em>")
    y = y.assign(**{"la<u>bel": np.where(X["clinical_age"] > 65, "<u>old", "young")})
    label = pd.DataFrame({"<u>old": 0.5, "young": 0.5}, index=X.index)
    answers = {bad: models["all"], "<i>": {"os": models["clinical"]["os"], "la<u>bel": label}}
    flow, texts = {bad: len(X) + 1, f"{bad}!": -1}, {bad: bad, "Intended use": bad}
    text = report(answers, X, y, flow=flow, settings={bad: bad}, card=texts, title=bad, n_resamples=5, horizons=(12,))
    Page(text)
    shown = re.sub('src="data:[^"]*"', "", text)
    assert not re.search("<script|<em>|<u>|<i>", shown.partition("<nav>")[2])
    assert shown.count("&lt;script&gt;") > 10


def test_rows_are_joined_by_id():
    models, X, y = make_study()
    model = ClinicalCox(endpoint="os").fit(X[["clinical_age"]], y[["os_time", "os_event"]])
    y = y[["os_time", "os_event"]]
    X.index = y.index = [f"P{i}" for i in range(len(X))]
    options = {"n_resamples": 5, "horizons": (12,)}
    given = {"by": X["centre"], "treatment": X["treatment"], "groups": X[["clinical_sex"]]}
    given |= {"folds": pd.Series(np.arange(len(X)) % 2, X.index), "split": X["centre"].rename("part")}
    mixed = {name: values.sample(frac=1, random_state=k) for k, (name, values) in enumerate(given.items())}
    arrays = given | {"folds": np.arange(len(X)) % 2}
    expected = report({"cox": model}, X, y, **given, **options)
    assert report({"cox": model}, X, y.sample(frac=1, random_state=9), **mixed, **options) == expected
    assert report({"cox": model}, X, y, **arrays, **options) == expected
    with pytest.raises(ValueError, match="y lacks 1 of the 160 patients"):
        report({"cox": model}, X, y.drop(index="P3"), **options)
    with pytest.raises(ValueError, match="by lacks 1 of the 160 patients"):
        report({"cox": model}, X, y, by=X["centre"].drop("P3"), **options)


def test_risk_groups_are_those_of_the_model_inside_a_pipeline_or_a_search():
    _, X, y = make_study()
    X, y = X[["clinical_age", "clinical_sex"]], y[["os_time", "os_event"]]
    cox = ClinicalCox(endpoint="os")
    models = {
        "pipeline": make_pipeline(FunctionTransformer(), cox).fit(X, y),
        "search": GridSearchCV(cox, {"alpha": [0.1, 1.0]}, cv=2).fit(X, y),
        "frozen": FrozenEstimator(cox.fit(X, y)),
        "model": cox.fit(X, y),
    }
    text = report(models, X, y, n_resamples=5, horizons=(12,))
    assert all(f"Overall survival by risk groups of {name}; cut-points learned in training." in text for name in models)


def test_boolean_labels_are_labels():
    _, X, y = make_study()
    y = pd.DataFrame({"relapse": y["os_event"].astype(bool)})
    model = LogisticRegression().fit(X[["clinical_age"]], y["relapse"])
    text = report({"logistic": model}, X[["clinical_age"]], y, n_resamples=5)
    assert "relapse: True against the rest, ROC." in text


def other_kinds(n=160):
    """A number and an endpoint with two causes, predicted by two models."""
    _, X, y = make_study(n)
    rng, fev = np.random.default_rng(3), 2 + X["clinical_age"] / 50
    y = pd.DataFrame({"fev_value": fev, "death_time": y["os_time"], "death_cause": y["os_event"]})
    y.loc[::3, "death_cause"] *= 2
    y.loc[:4] = np.nan
    models = {}
    for name, noise in (("poor", 1.0), ("good", 0.1)):
        table = pd.DataFrame({"risk_1": -y["death_time"].fillna(0), "risk_2": rng.normal(size=n)})
        for months in (12, 36):
            table[f"incidence_1_{months}"], table[f"incidence_2_{months}"] = months / 100, months / 200
        models[name] = {"fev": pd.DataFrame({"value": fev + noise * rng.normal(size=n)}), "death": table}
    return models, X, y


def test_numbers_and_competing_risks_are_reported():
    models, X, y = other_kinds()
    text = report(models, X, y, n_resamples=20, horizons=(12, 36))
    page = Page(text)
    # Rows of performance and comparison, and two of the added value: one a model
    names = {
        "Mean absolute error": 2,
        "Integrated Brier score, cause 2": 4,
        "Integrated prediction accuracy, cause 1": 3,
    }
    for words, n in names.items():
        assert page.cells.count(words) == n, words
    assert "Wolbers' C, cause 2" in page.cells and "R²" in page.cells
    by_centre = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert "R², fev: centres." in by_centre  # it may be negative: no mean of log odds
    assert any(caption.startswith("Wolbers&#x27; C, cause 1, death: centres, random-eff") for caption in by_centre)


def test_a_kind_of_task_says_which_figures_it_has(monkeypatch):
    models, X, y = other_kinds(60)
    models = {name: {"fev": answers["fev"]} for name, answers in models.items()}
    seen = {}

    def figures(task, outcome, predictions, settings):
        seen.update(outcome=outcome, predictions=predictions, settings=settings)
        yield Figure("calibration", (outcome > 3, {"good": outcome / 9}), "Large & small.", {"n_bins": 2}, (3, 3))

    monkeypatch.setattr(RegressionTask, "figures", figures)
    text = report(models, X, y[["fev_value"]], n_resamples=20, horizons=(12,), by=None)
    assert text.count("<figcaption>Large &amp; small.</figcaption>") == 1
    assert len(seen["outcome"]) == 55 and seen["settings"].horizons == (12,) and seen["settings"].n_resamples == 20
    pd.testing.assert_frame_equal(seen["predictions"]["good"], models["good"]["fev"].loc[5:])


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    models, X, y = make_study()
    path = tmp_path / "report.html"
    path.write_text("last week's report")

    def full(file, text, encoding):
        file.write_bytes(text[:1000].encode())
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="no space left"):
        report(models, X, y, path, n_resamples=5, horizons=())
    assert path.read_bytes() == b"last week's report" and list(tmp_path.iterdir()) == [path]


def test_a_password_of_a_storage_is_not_shown(tmp_path):
    _, X, y = make_study()
    X, y = X[["clinical_age"]], y[["os_time", "os_event"]]
    url = f"sqlite:///{tmp_path / 'study.db'}?password=s3cretPW"
    space = {"alpha": FloatDistribution(0.1, 10)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = OptunaSearch(ClinicalCox(), space, n_trials=1, cv=2, random_state=0, storage=url).fit(X, y)
    settings = {"kept in": url, "server": {"url": "postgresql://anna:s3cretPW@host/study"}}
    text = report({"search": search}, X, y, horizons=(12,), n_resamples=5, settings=settings)
    assert "s3cret" not in text and text.count("***") == 3


def test_images_behind_paths_are_part_of_what_a_report_says(tmp_path):
    _, X, y = make_study(20)
    X = X.assign(ct_image=[str(tmp_path / f"{i}.npy") for i in range(20)])
    hashes = []
    for value in (0, 0, 1):
        for path in X["ct_image"]:
            np.save(path, np.full((1, 4, 4), value, dtype=np.uint8))
        hashes.append((data_hash(X), image_hash(X)))
    assert hashes[0] == hashes[1] and hashes[0][0] == hashes[2][0] and hashes[0][1] != hashes[2][1]
    assert image_hash(X[["centre"]]) == ""


def test_readable_names_and_vector_files(tmp_path):
    models, X, y = make_study(n=120)
    labels = {"clinical_sex": "Sex", "f": "Female", "subtype": "Histology", "LUSC": "Squamous"}
    folder = tmp_path / "figures"
    options = {"n_resamples": 10, "horizons": (36,), "labels": labels, "figures": folder}
    text = report({"all": models["all"]}, X, y, **options)
    for word in (
        "<th>Sex</th>",
        '<th class="level">Female</th>',
        "<td>Female</td>",
        "<td>Sex</td>",
        "Histology: Squamous against the rest, ROC.",
        "<h3>Overall survival</h3>",
    ):
        assert word in text, word
    drawn = sorted(folder.iterdir())
    assert len(drawn) == 2 * len(re.findall("<figure[ >]", text)) and {path.suffix for path in drawn} == {
        ".svg",
        ".pdf",
    }
    assert drawn[0].read_bytes().startswith(b"%PDF") and drawn[0].name.startswith("01-")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        report({"all": models["all"]}, X, y, **options)


def test_a_difference_says_which_model_is_better_and_small_groups_are_suppressed():
    models, X, y = make_study()
    X["centre"] = np.where(np.arange(len(X)) < 6, "small", "large")
    text = report(models, X, y, n_resamples=200, horizons=(36,))
    table = text.partition("all against clinical")[2].partition("</table>")[0]
    (auc,) = [row for row in table.split("<tr>") if "<td>AUC</td>" in row]
    assert "<td>all</td>" in auc
    assert "<td>suppressed (n &lt; 20)</td>" in text
    same = report({"a": models["all"], "b": models["all"]}, X, y, n_resamples=20, horizons=())
    assert "<td>neither</td>" in same and "<td>unclear</td>" in same and "<td>better</td>" not in same
    assert "<th>Months</th>" not in same  # without a horizon the column would be empty


def test_table_one_is_grouped_by_variable_with_tests_on_request_and_levels_have_names():
    models, X, y = make_study()
    labels = {"clinical_sex": "Sex", "clinical_sex=f": "Female", "centre=A": "Aachen", "clinical_age": "Age, years"}
    options = {"labels": labels, "n_resamples": 5, "horizons": ()}
    text = report({"all": models["all"]}, X, y, tests=True, **options)
    table = text.partition("Characteristics</h3>")[2].partition("</table>")[0]
    rows = re.findall("<tr>(.*?)</tr>", table, flags=re.S)
    cells = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.S) for row in rows[1:]]
    named = {row[0]: row[1:] for row in cells}
    assert "<th>Aachen</th>" in table and named["Age, years, median [quartiles]"][-1] == "Mann-Whitney"
    assert named["Sex"][:3] == ["", "", ""] and named["Sex"][-1] == "chi-squared" and named["Female"][-1] == ""
    assert named["Overall survival"][-1] == "log-rank" and '<th class="level">Female</th>' in table
    plain = report({"all": models["all"]}, X, y, **options)
    assert "Mann-Whitney" not in plain


def test_risk_groups_have_medians_and_figures_the_width_of_a_column(tmp_path):
    models, X, y = make_study()
    text = report(models, X, y, n_resamples=5, horizons=(36,), figures=tmp_path / "figures")
    hazards = text.partition("<h2>Hazard ratios and treatment</h2>")[2].partition("</table>")[0]
    low = (models["all"]["os"]["group"] == "low").to_numpy()
    shown = median_text(y["os_event"].to_numpy(bool)[low], y["os_time"].to_numpy()[low])
    assert "<th>Median, months</th>" in hazards and shown in hazards.replace("&nbsp;", " ")
    sizes = {path.name: re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", path.read_bytes()) for path in tmp_path.rglob("*.pdf")}
    widths = {name: float(found[1]) / 72 * 25.4 for name, found in sizes.items()}
    assert {round(width) for name, width in widths.items() if "calibration" not in name and "centres" not in name} == {
        85
    }
    assert max(widths.values()) < 175.5 and len(widths) > 8


def test_a_nested_cross_validation_is_named_and_its_choices_are_short():
    _, X, y = make_study(90)
    X, y = X[["clinical_age"]], y[["os_time", "os_event"]]
    space = {"alpha": FloatDistribution(0.1, 10)}
    search = OptunaSearch(ClinicalCox(), space, n_trials=2, cv=2, random_state=0)
    crossed = cross_predict(search, X, y, 2, horizons=(12,))
    text = report({"tuned": crossed}, X, y, horizons=(12,), n_resamples=5)
    said = "tuned by OptunaSearch (2 trials; 2 inner folds; searched: os: alpha), refitted in each of 2 outer folds"
    assert text.count(f"Nested cross-validation: {said}") == 2
    assert re.search(r"<td>os: alpha=[\d.]{1,6}</td>", text)
    assert "tuned: verbose" not in text and "tuned: catch" not in text and "tuned: n_trials" in text
    alone = report(
        {"plain": cross_predict(ClinicalCox(), X, y, 2, horizons=(12,))}, X, y, horizons=(12,), n_resamples=5
    )
    assert "Nested" not in alone


def test_each_note_is_written_once_with_what_it_is_about():
    rows = [(model, "Slope", months, "too few") for model in ("a", "b") for months in ("12", "36", "60")]
    rows += [
        ("a", "AUC", "", "no class; undefined in 3 of 9 resamples"),
        ("b", "AUC", "", "undefined in 4 of 9 resamples"),
    ]
    assert grouped_notes(rows, ["a", "b"]) == [
        "Slope at 12, 36 and 60 months: too few.",
        "AUC (a): no class.",
        "AUC: undefined in at most 4 of 9 resamples.",
    ]


def test_columns_without_a_label_are_named_without_their_block_unless_two_have_one_name():
    models, X, y = make_study()
    X = X.rename(columns={"clinical_sex": "clinical_body_side"}).assign(pet_age=X["clinical_age"])
    text = report({"all": models["all"]}, X, y, n_resamples=5, horizons=(24,), treatment=None, by=None)
    assert "<th>Body side</th>" in text
    assert "<th>clinical_age, median" in text and "<th>pet_age, median" in text


@pytest.mark.parametrize("name", ["by", "treatment"])
def test_a_misspelt_column_of_the_report_is_refused(name):
    X = pd.DataFrame({"clinical_age": np.arange(60.0), "centre": np.resize(["A", "B"], 60)})
    y = pd.DataFrame({"os_time": np.arange(1.0, 61.0), "os_event": 1})
    with pytest.raises(KeyError, match=f"{name}='center' is no column of X. Did you mean 'centre'"):
        report({"age": {"os": X["clinical_age"]}}, X, y, **{name: "center"}, n_resamples=0)
