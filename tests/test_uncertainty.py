"""Conformal sets and bounds hold as often as they say, for any model, and say so where they cannot."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.svm import FastSurvivalSVM

from mmdls import MMDLS, ClinicalCox, Trainer, evaluate
from mmdls.datasets import make_nsclc_cohort
from mmdls.uncertainty import ConformalPredictor, coverage_table
from mmdls.uncertainty._censoring import KaplanMeierCensoring
from mmdls.uncertainty._scores import SCORES, class_scores, uniform_by_id
from tests.pages import code_of


def patients(n, seed=0):
    """Numbers, stage-like classes, and exponential times with exponential censoring that depends on the centre."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    centre = rng.choice(["A", "B"], n)
    X = pd.DataFrame(x, columns=["clinical_a", "clinical_b"], index=[f"P{i}" for i in range(n)]).assign(centre=centre)
    latent = x[:, 0] + rng.logistic(size=n)
    stage = pd.Categorical.from_codes(np.digitize(latent, [-0.5, 1]), ["I", "II", "III"], ordered=True)
    time = rng.exponential(20 * np.exp(-x[:, 1]))
    lost = rng.exponential(np.where(centre == "A", 60, 15))
    y = pd.DataFrame({"stage": stage, "os_time": np.minimum(time, lost), "os_event": time <= lost}, index=X.index)
    return X, y, time


FEATURES = ["clinical_a", "clinical_b"]


def logistic(**options):
    return ConformalPredictor(LogisticRegression(), random_state=0, **options)


def cox(**options):
    return ConformalPredictor(CoxPHSurvivalAnalysis(ties="efron"), random_state=0, **options)


# -- scores of classes -------------------------------------------------------------------------------------------------


def test_sets_by_all_scores_are_nested_and_grow_with_less_likely_classes():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(5), 200)
    for score in SCORES:
        own = class_scores(probability, score, uniform=np.full(200, 0.5))
        order = np.argsort(-probability, axis=1)
        assert (np.diff(np.take_along_axis(own, order, axis=1), axis=1) >= 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_contiguous_sets_have_no_gap_at_any_threshold(score):
    rng = np.random.default_rng(1)
    probability = rng.dirichlet(np.full(6, 0.5), 300)
    own = class_scores(probability, score, contiguous=True, uniform=rng.random(300))
    for threshold in np.linspace(0, 1, 21):
        inside = (own <= threshold).astype(int)
        assert (np.abs(np.diff(np.pad(inside, ((0, 0), (1, 1))), axis=1)).sum(axis=1) <= 2).all()
    assert (own.argmin(axis=1) == probability.argmax(axis=1)).all()


def test_contiguous_least_ambiguous_sets_are_those_of_the_definition():
    probability = np.array([[0.35, 0.05, 0.6]])
    assert class_scores(probability, "lac", contiguous=True).tolist() == [[0.95, 0.95, 0.4]]
    assert class_scores(probability, "lac").tolist() == [[0.65, 0.95, 0.4]]


class _Favourite(LogisticRegression):
    """Prefers the lowest class or the highest, by whether the first patient was there in training."""

    def fit(self, X, y):
        self.favours_lowest = "P0" in X.index
        return super().fit(X, y)

    def predict_proba(self, X):
        row = [0.6, 0.3, 0.1]
        return np.tile(row if self.favours_lowest else row[::-1], (len(X), 1))


def test_sets_of_ordered_classes_have_no_gap_where_the_models_of_folds_disagree():
    X, y, _ = patients(60)
    X, y = X[FEATURES], y[["stage"]]
    rare = (y["stage"] != "II") | (np.arange(60) < 12)
    options = {"random_state": 0, "cv": 2, "confidence_level": 0.35}
    held = {
        contiguous: ConformalPredictor(_Favourite(), contiguous=contiguous, **options)
        .fit(X[rare], y[rare])
        .predict_sets(X)["stage"]
        for contiguous in (False, True)
    }
    assert (held[False] == [True, False, True]).all(axis=None)
    assert held[True].all(axis=None)


def test_the_random_share_depends_on_the_patient_alone():
    index = pd.Index([f"P{i}" for i in range(2000)])
    share = uniform_by_id(index, 3, "stage")
    assert (share[5:6] == uniform_by_id(index[5:6], 3, "stage")).all()
    assert abs(share.mean() - 0.5) < 0.03 and abs(np.quantile(share, 0.1) - 0.1) < 0.03
    assert (share != uniform_by_id(index, 4, "stage")).all() and (share != uniform_by_id(index, 3, "subtype")).all()


# -- coverage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "score"), [("split", "lac"), ("split", "randomised_aps"), ("cross", "aps"), ("cross", "lac")]
)
def test_sets_hold_as_often_as_they_say(method, score):
    held = []
    for seed in range(8):
        X, y, _ = patients(1200, seed)
        model = logistic(method=method, score=score, cv=2).fit(X[FEATURES][:700], y[["stage"]][:700])
        table = model.predict_sets(X[FEATURES][700:])["stage"].to_numpy()
        held.append(table[np.arange(500), y["stage"].cat.codes[700:]].mean())
    assert abs(np.mean(held) - 0.9) < 0.015


@pytest.mark.parametrize(("method", "level"), [("split", 0.9), ("cross", 0.6)])
def test_bounds_are_outlived_as_often_as_they_say(method, level):
    """Judged by the true distribution of the times; until late bounds many are lost, so that weights matter."""
    held = []
    for seed in range(8):
        X, y, _ = patients(800, seed)
        model = cox(method=method, cv=2, confidence_level=level).fit(
            X[FEATURES][:500], y[["os_time", "os_event"]][:500]
        )
        bound = model.predict_lower_bounds(X[FEATURES][500:])["os"]
        held.append(np.exp(-bound / (20 * np.exp(-X["clinical_b"][500:]))).mean())
    assert abs(np.mean(held) - level) < 0.02


def test_within_groups_the_level_holds_in_each():
    """In one group the outcome is drawn anew, so that one threshold for all cannot fit both."""
    held = []
    for seed in range(5):
        X, y, _ = patients(900, seed)
        rng = np.random.default_rng(100 + seed)
        noisy = (X["centre"] == "B").to_numpy()
        codes = np.where(noisy, rng.integers(0, 3, 900), y["stage"].cat.codes)
        y["stage"] = pd.Categorical.from_codes(codes, y["stage"].cat.categories, ordered=True)
        for by in (None, "centre"):
            model = ConformalPredictor(_OnNumbers(), by=by, cv=2, random_state=0).fit(X[:500], y[["stage"]][:500])
            sets = model.predict_sets(X[500:])["stage"].to_numpy()
            inside = sets[np.arange(400), codes[500:]]
            held.append((by, inside[noisy[500:]].mean(), inside[~noisy[500:]].mean()))
    table = pd.DataFrame(held, columns=["by", "B", "A"])
    within, pooled = (table[table["by"].isna() == alone][["B", "A"]].mean() for alone in (False, True))
    assert (abs(within - 0.9) < 0.025).all()
    assert pooled["A"] - pooled["B"] > 0.05


class _OnNumbers(LogisticRegression):
    """Leaves the column of centres aside."""

    def fit(self, X, y):
        return super().fit(X[FEATURES], y)

    def predict_proba(self, X):
        return super().predict_proba(X[FEATURES])


def test_a_model_of_censoring_mends_what_one_curve_for_all_gets_wrong():
    """Those at high risk are lost early: one curve weighs their deaths too little, and bounds are too long."""
    held = {"one curve": [], "model": []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"clinical_a": rng.normal(size=900)})
        time = rng.exponential(20 * np.exp(-1.5 * X["clinical_a"]))
        lost = rng.exponential(4 * np.exp(-1.5 * X["clinical_a"]))
        y = pd.DataFrame({"os_time": np.minimum(time, lost), "os_event": time <= lost})
        for name, censoring in (("one curve", None), ("model", CoxPHSurvivalAnalysis(ties="efron"))):
            # A model that knows nothing has one bound for all, and only the weights can be right.
            model = cox(method="split", cv=2, censoring=censoring).fit(X[:500], y[:500])
            held[name].append((time[500:] >= model.predict_lower_bounds(X[500:])["os"]).mean())
    assert abs(np.mean(held["model"]) - 0.9) < 0.03
    assert abs(np.mean(held["model"]) - 0.9) < abs(np.mean(held["one curve"]) - 0.9)


def test_the_weights_of_events_are_those_of_kaplan_meier_within_groups():
    outcome = np.array(
        [(True, 1.0), (False, 2.0), (True, 3.0), (True, 5.0)], dtype=[("event", bool), ("time", np.float64)]
    )
    groups = np.array(["a", "a", "a", "b"], dtype=object)
    curve = KaplanMeierCensoring(outcome, groups)
    found = curve.inverse(
        pd.DataFrame(index=range(3)), np.array(["a", "b", "c"], dtype=object), np.array([2.0, 3.0, 9.0])
    )
    assert found.round(6).tolist() == [[1.0, 2.0, np.inf], [1.0, 1.0, np.inf], [1.0, 1.5, np.inf]]


def test_groups_of_coverage_may_come_in_any_form():
    X, y, _ = patients(300)
    model = logistic().fit(X.loc[X.index[:200], FEATURES], y.loc[X.index[:200], ["stage"]])
    centre, test, own = X["centre"][200:], X.loc[X.index[200:], FEATURES], y[200:]
    expected = coverage_table(model, test, own, by=centre)
    for by in (centre.to_numpy(), list(centre), X["centre"][::-1], centre.astype("category")):
        pd.testing.assert_frame_equal(coverage_table(model, test, own, by=by), expected)
    some = centre.where(np.arange(100) > 0).to_numpy()
    assert (
        coverage_table(model, test, own, by=some)["n"].tolist()[1:]
        == (expected["n"].iloc[1:] - (centre.iloc[0] == expected["group"].iloc[1:])).tolist()
    )
    with pytest.raises(ValueError, match="a group of by= is called 'all'"):
        coverage_table(model, test, own, by=centre.replace("A", "all"))
    with pytest.raises(ValueError, match=r"by='centre' is no column of X\..* Columns: "):
        coverage_table(model, test, own, by="centre")
    with pytest.raises(ValueError, match="confidence_level must lie above 0"):
        coverage_table(model, test, own, confidence_level=95)


# -- the meta-estimator ------------------------------------------------------------------------------------------------


def test_a_table_of_coverage_by_centre_with_intervals():
    X, y, time = patients(900)
    train, test = X.index[:500], X.index[500:]
    sets = logistic().fit(X.loc[train, FEATURES], y.loc[train, ["stage"]])
    table = coverage_table(sets, X.loc[test, FEATURES], y.loc[test], by=X["centre"])
    assert table["group"].tolist() == ["all", "A", "B"] and (table["n"].iloc[1:].sum() == table["n"].iloc[0])
    assert ((table["low"] < table["coverage"]) & (table["coverage"] < table["high"])).all()
    assert (table["nominal"] == 0.9).all() and table["mean_size"].between(1, 3).all()
    bounds = cox().fit(X.loc[train, FEATURES], y.loc[train, ["os_time", "os_event"]])
    (row,) = coverage_table(bounds, X.loc[test, FEATURES], y.loc[test]).to_dict("records")
    truth = (time[500:] >= bounds.predict_lower_bounds(X.loc[test, FEATURES])["os"]).mean()
    assert abs(row["coverage"] - truth) < 0.02 and row["low"] < truth < row["high"]


def test_a_patient_alone_gets_the_same_answer_and_equal_seeds_agree():
    X, y, _ = patients(200)
    model = logistic(score="randomised_aps").fit(X[FEATURES], y[["stage"]])
    sets = model.predict_sets(X[FEATURES])["stage"]
    pd.testing.assert_frame_equal(sets[7:8], model.predict_sets(X[FEATURES][7:8])["stage"])
    again = clone(model).fit(X[FEATURES], y[["stage"]])
    pd.testing.assert_frame_equal(sets, again.predict_sets(X[FEATURES])["stage"])
    assert not hasattr(clone(model), "calibration_")
    with pytest.raises(NotFittedError):
        clone(model).predict_sets(X)


def test_abstaining_gives_a_label_only_where_one_is_left():
    X, y, _ = patients(300)
    model = logistic(abstain=True, confidence_level=0.8).fit(X[FEATURES], y[["stage"]])
    sets, label = model.predict_sets(X[FEATURES])["stage"], model.predict(X[FEATURES])["stage"]
    certain = sets.sum(axis=1) == 1
    assert 0 < certain.sum() < 300
    assert label[~certain].isna().all() and (label[certain] == sets[certain].idxmax(axis=1)).all()
    assert model.set_params(abstain=False).predict(X[FEATURES])["stage"].notna().all()


def test_a_fitted_model_is_calibrated_as_it_is():
    X, y, _ = patients(500)
    fitted = LogisticRegression().fit(X[FEATURES][:200], y["stage"][:200])
    model = ConformalPredictor(FrozenEstimator(fitted)).fit(X[FEATURES][200:400], y[["stage"]][200:400])
    assert len(model.models_) == 1 and len(model.calibration_["stage"]) == 200
    found = model.predict_tasks(X[FEATURES][400:])["stage"]
    np.testing.assert_allclose(found, fitted.predict_proba(X[FEATURES][400:]))


def test_rows_of_one_patient_are_never_divided_and_unknown_outcomes_do_not_calibrate():
    X, y, _ = patients(200)
    y.loc[X.index[:20], "stage"] = np.nan
    groups = np.repeat(np.arange(100), 2)
    model = logistic().fit(X[FEATURES], y[["stage"]], groups=groups)
    table = model.calibration_["stage"]
    assert len(table) == 180
    folds = table["fold"].groupby(groups[table.index])
    assert (folds.nunique() == 1).all()


def test_too_few_patients_give_everything_with_a_warning_that_says_how_many_are_needed():
    X, y, _ = patients(40)
    with pytest.warns(UserWarning, match="8 patients calibrate 'stage'.* needs at least 19"):
        model = logistic(method="split", confidence_level=0.95).fit(X[FEATURES], y[["stage"]])
    assert model.predict_sets(X[FEATURES])["stage"].all(axis=None)
    with pytest.warns(UserWarning, match="8 patients calibrate 'os'"):
        model = cox(method="split", confidence_level=0.95).fit(X[FEATURES], y[["os_time", "os_event"]])
    assert (model.predict_lower_bounds(X[FEATURES]) == 0).all(axis=None)


def test_a_new_centre_is_compared_with_all_patients_and_said():
    X, y, _ = patients(300)
    model = ConformalPredictor(_OnNumbers(), by="centre", random_state=0).fit(X, y[["stage"]])
    with pytest.warns(UserWarning, match=r"no patient of centre \['C'\] calibrated 'stage'"):
        model.predict_sets(X.assign(centre="C"))


def test_one_model_of_several_tasks_gets_sets_and_bounds_and_is_evaluated():
    X, y = make_nsclc_cohort(90, n_slices=1, image_size=8, n_radiomics=0, return_X_y=True, random_state=0)
    X = X[[c for c in X if not c.endswith("_image")]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ConformalPredictor(
            MMDLS(trainer=Trainer(max_epochs=1), random_state=0), cv=2, by="centre", confidence_level=0.7
        ).fit(X, y)
        assert set(model.predict_sets(X)) == {"subtype", "stage"}
        assert list(model.predict_lower_bounds(X)) == ["dfs", "os"]
        assert list(model.predict(X)) == ["subtype", "stage", "dfs", "os"]
        assert evaluate(model, X, y, n_resamples=0)["value"].notna().any()
    stage = model.predict_sets(X)["stage"].to_numpy().astype(int)
    assert (np.abs(np.diff(np.pad(stage, ((0, 0), (1, 1))), axis=1)).sum(axis=1) <= 2).all()


def test_a_single_endpoint_and_plain_targets_are_taken():
    X, y, _ = patients(120)
    labels = logistic().fit(X[FEATURES], y["stage"].astype(str).rename("grade"))
    assert list(labels.predict_sets(X[FEATURES])) == ["grade"]
    outcome = np.array(list(zip(y["os_event"], y["os_time"], strict=True)), dtype=[("event", bool), ("time", float)])
    assert list(cox().fit(X[FEATURES], outcome).predict_lower_bounds(X[FEATURES])) == ["survival"]
    own = ConformalPredictor(ClinicalCox(endpoint="os"), random_state=0).fit(X[FEATURES], y)
    assert list(own.predict_lower_bounds(X[FEATURES])) == ["os"]


def test_labels_may_be_true_and_false():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["clinical_a", "clinical_b"])
    y = (X["clinical_a"] > 0).rename("late")
    words = y.map({False: "no", True: "yes"})
    own, same = (ConformalPredictor(logistic(), random_state=0).fit(X, each) for each in (y, words))
    sets = own.predict_sets(X)["late"]
    assert sets.columns.tolist() == [False, True]
    np.testing.assert_array_equal(sets, same.predict_sets(X)["late"])
    with pytest.raises(TypeError, match="X must be a pandas DataFrame, one row a patient; got ndarray"):
        own.predict_sets(X.to_numpy())


def test_wrong_input_is_refused_with_a_cure():
    X, y, _ = patients(100)
    with pytest.raises(ValueError, match="no survival function of 'os'.*Leave the endpoint out of y"):
        ConformalPredictor(FastSurvivalSVM()).fit(X[FEATURES], y[["os_time", "os_event"]])
    with pytest.raises(KeyError, match="by='clinic' must name a column of X"):
        logistic(by="clinic").fit(X[FEATURES], y[["stage"]])
    with pytest.raises(ValueError, match="1 patients have no value in 'centre'"):
        logistic(by="centre").fit(X.assign(centre=X["centre"].where(np.arange(100) > 0)), y[["stage"]])
    with pytest.raises(ValueError, match="'score' parameter"):
        logistic(score="raps").fit(X[FEATURES], y[["stage"]])
    with pytest.raises(TypeError, match="X must be a pandas DataFrame"):
        logistic().fit(X[FEATURES].to_numpy(), y[["stage"]])


def test_the_page_runs():
    code = code_of("docs/uncertainty.md")
    names: dict = {}
    exec(compile(code, "docs/uncertainty.md", "exec"), names)
    assert names["stage"].predict(names["tables"])["stage"].isna().any()


@pytest.mark.parametrize(
    ("censored", "said"),
    [
        (0, None),
        (12, "15 patients of centre 'B'.*needs at least 49. Lower"),
        (15, "follow-up ends before the first event"),
    ],
)
def test_a_group_whose_bounds_say_nothing_is_named_with_the_number_it_needs(censored, said):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"clinical_x": rng.normal(size=60), "centre": np.where(np.arange(60) < 15, "B", "A")})
    time, event = rng.exponential(30 * np.exp(-X["clinical_x"])) + 1, np.full(60, True)
    time[:censored], event[:censored] = 0.5, False
    y = pd.DataFrame({"os_time": time, "os_event": event})
    model = ConformalPredictor(FrozenEstimator(ClinicalCox().fit(X, y)), by="centre", random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bounds = model.fit(X, y).predict_lower_bounds(X)["os"]
    found = [str(one.message) for one in caught if "lower bounds are 0" in str(one.message)]
    # 15 in (15 - 12) are followed to the first event, so that a patient counts for 5, and (1 - 0.9) (49 + 1) = 5.
    assert (bounds[:15] == 0).all() == bool(censored) and (bounds[15:] > 0).any()
    assert len(found) == bool(said) and all(re.search(said, one) for one in found)


def test_a_model_of_all_columns_is_told_that_it_reads_the_groups():
    X, y, _ = patients(120)
    X = X.assign(centre=np.resize(["A", "B"], 120))[[*FEATURES, "centre"]]
    with pytest.raises(ValueError, match=r"LogisticRegression reads every column of X, the texts of by='centre' too"):
        ConformalPredictor(LogisticRegression(), by="centre").fit(X, y[["stage"]])
    chosen = make_pipeline(ColumnTransformer([("read", "passthrough", FEATURES)]), LogisticRegression())
    assert ConformalPredictor(chosen, by="centre", random_state=0).fit(X, y[["stage"]]).predict_sets(X)
    with pytest.raises(ValueError, match="^could not convert string to float: 'x'"):
        ConformalPredictor(LogisticRegression(), by="centre").fit(X.assign(**{FEATURES[0]: "x"}), y[["stage"]])


def test_a_measurement_is_no_group():
    X, y, _ = patients(120)
    with pytest.raises(ValueError, match=rf"by='{FEATURES[0]}' holds 120 different numbers.*pandas\.cut"):
        ConformalPredictor(_OnNumbers(), by=FEATURES[0]).fit(X, y[["stage"]])
    model = ConformalPredictor(_OnNumbers(), random_state=0).fit(X, y[["stage"]])
    with pytest.raises(ValueError, match="by holds 120 different numbers"):
        coverage_table(model, X, y[["stage"]], by=FEATURES[0])
    halves = pd.cut(X[FEATURES[0]], [-np.inf, 0, np.inf])
    assert len(coverage_table(model, X, y[["stage"]], by=halves)) == 3


def test_labels_that_the_model_does_not_know_are_left_out_with_a_warning():
    X, y, _ = patients(200)
    model = logistic().fit(X[FEATURES][:120], y[["stage"]][:120])
    test = y[["stage"]][120:].astype(object)
    known = test.where(test != "III")
    with pytest.warns(
        UserWarning, match=r"patients have a stage that no training patient had, \['iii'\].*its coverage"
    ):
        found = coverage_table(model, X[FEATURES][120:], test.replace("III", "iii"))
    pd.testing.assert_frame_equal(found, coverage_table(model, X[FEATURES][120:], known))
    with pytest.raises(KeyError, match=r"y lacks \['stage'\], which 'stage' needs"):
        coverage_table(model, X[FEATURES][120:], y[["os_time", "os_event"]][120:])
    with pytest.raises(TypeError, match="model must be a fitted ConformalPredictor; got LogisticRegression"):
        coverage_table(LogisticRegression(), X[FEATURES][120:], test)


def test_a_frozen_model_keeps_its_classes():
    X, y, _ = patients(400)
    X, stage = X[FEATURES], y["stage"].astype(object)
    frozen = FrozenEstimator(LogisticRegression().fit(X[:200], stage[:200]))
    lacking = (stage != "III").to_numpy() & (np.arange(400) >= 200)
    model = ConformalPredictor(frozen, confidence_level=0.6).fit(X[lacking], stage[lacking].to_frame())
    late = X.assign(clinical_a=9.0)
    sets = model.predict_sets(late)["stage"]
    assert list(sets) == ["I", "II", "III"]
    share = frozen.predict_proba(X[lacking])
    scores = 1 - share[np.arange(lacking.sum()), stage[lacking].map({"I": 0, "II": 1}).astype(int)]
    needed = np.sort(scores)[int(np.ceil(0.6 * (lacking.sum() + 1))) - 1]
    assert (sets.to_numpy() == (1 - frozen.predict_proba(late) <= needed)).all() and sets["III"].all()
    with pytest.raises(
        ValueError, match=r"y offers \['stage'\], where the labels are \{'stage': \['I', 'II', 'iii'\]\}"
    ):
        ConformalPredictor(frozen).fit(X[200:], stage[200:].replace("III", "iii").to_frame())
