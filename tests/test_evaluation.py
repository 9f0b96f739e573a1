"""Evaluation tables, paired comparisons and scorers, on small fake models and on scikit-survival's."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sksurv.base import SurvivalAnalysisMixin
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_ipcw

from mmdls import Trainer, metrics
from mmdls.cohort import find_tasks, survival_target
from mmdls.estimators import MultimodalClassifier
from mmdls.evaluation import (
    compare,
    compare_predictions,
    evaluate,
    evaluate_predictions,
    make_scorers,
    predict_tasks,
    resample_predictions,
    training_outcomes,
)


def make_cohort(n=240, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["clinical_a", "clinical_b", "clinical_c"])
    X.index = [f"p{i:04d}" for i in range(n)]
    death = rng.exponential(40 * np.exp(-X["clinical_a"]))
    relapse = np.minimum(rng.exponential(30 * np.exp(-X["clinical_b"])), death)
    leaving = rng.uniform(5, 120, size=n)
    y = pd.DataFrame(index=X.index)
    y["subtype"] = np.where(X["clinical_b"] + rng.normal(size=n) > 0, "LUSC", "LUAD")
    grade = pd.cut(X["clinical_c"] + rng.normal(size=n), [-9, -0.5, 0.7, 9], labels=["I-II", "III", "IV"])
    y["stage"] = pd.Categorical(grade, categories=["I-II", "III", "IV"], ordered=True)
    for name, time in (("dfs", relapse), ("os", death)):
        y[f"{name}_time"], y[f"{name}_event"] = np.minimum(time, leaving), (time <= leaving).astype(int)
    y.loc[y.index[:5], "subtype"] = None
    y.loc[y.index[5:9], ["os_time", "os_event"]] = np.nan
    return X, y


class Several(BaseEstimator):
    """A multi-task model of plain scikit-learn and scikit-survival parts."""

    def fit(self, X, y):
        self.tasks_ = find_tasks(y)
        self.classes_, self.training_outcomes_, self.models_ = {}, {}, {}
        for task in self.tasks_.values():
            if task.is_censored:
                outcome = survival_target(y, task.name)
                known = ~np.isnan(outcome["time"])
                self.training_outcomes_[task.name] = outcome[known]
                self.models_[task.name] = CoxPHSurvivalAnalysis(alpha=1.0).fit(X[known], outcome[known])
            else:
                known = y[task.name].notna()
                model = LogisticRegression().fit(X[known], np.asarray(y.loc[known, task.name]))
                self.models_[task.name], self.classes_[task.name] = model, model.classes_
        return self

    def predict_tasks(self, X, times=()):
        tables = {}
        for name, model in self.models_.items():
            if name in self.classes_:
                tables[name] = pd.DataFrame(model.predict_proba(X), index=X.index, columns=self.classes_[name])
                continue
            risk = pd.DataFrame({"risk": model.predict(X)}, index=X.index)
            end = self.training_outcomes_[name]["time"].max()
            curves = [metrics.step_values(f.x, f(f.x), np.asarray(times)) for f in model.predict_survival_function(X)]
            curves = np.where(np.asarray(times) <= end, curves, np.nan)
            tables[name] = risk.join(pd.DataFrame(curves, index=X.index, columns=times))
        return tables


class Single(SurvivalAnalysisMixin, BaseEstimator):
    """A model of one endpoint that takes the table and remembers its training outcomes."""

    def __init__(self, endpoint="os", alpha=1.0):
        self.endpoint = endpoint
        self.alpha = alpha

    def fit(self, X, y):
        outcome = survival_target(y, self.endpoint)
        known = ~np.isnan(outcome["time"])
        self.model_ = CoxPHSurvivalAnalysis(alpha=self.alpha).fit(np.asarray(X)[known], outcome[known])
        self.training_outcomes_ = {self.endpoint: outcome[known]}
        return self

    def predict(self, X):
        return self.model_.predict(np.asarray(X))

    def predict_survival_function(self, X):
        return self.model_.predict_survival_function(np.asarray(X))

    def score(self, X, y):
        return 0.0


@pytest.fixture(scope="module")
def cohort():
    return make_cohort()


@pytest.fixture(scope="module")
def fitted(cohort):
    X, y = cohort
    return Several().fit(X.iloc[:160], y.iloc[:160])


def test_evaluate_reports_every_task_with_intervals_around_the_value(cohort, fitted):
    X, y = cohort
    table = evaluate(fitted, X, y, n_resamples=200)
    assert list(table.columns) == [
        "task",
        "metric",
        "horizon",
        "value",
        "low",
        "high",
        "n",
        "n_events",
        "note",
    ]
    assert set(table["task"]) == {"subtype", "stage", "dfs", "os"}
    assert not table.duplicated(["task", "metric", "horizon"]).any()
    ranked = table[table["metric"].isin(["concordance_index", "auc", "brier_score", "integrated_brier_score"])]
    assert ((ranked["low"] <= ranked["value"]) & (ranked["value"] <= ranked["high"])).all()
    assert table.set_index("task")["n"].to_dict() == {"subtype": 235, "stage": 240, "dfs": 240, "os": 236}
    undefined = table[table["value"].isna()]
    assert (undefined["note"] != "").all()


def test_weights_describe_the_censoring_of_the_scored_patients(cohort, fitted):
    X, y = cohort
    X, y = X.iloc[160:], y.iloc[160:]
    table = evaluate(fitted, X, y, n_resamples=0)
    value = table.query("task == 'os' and metric == 'concordance_index_ipcw'")["value"].item()
    test = survival_target(y, "os")
    test = test[~np.isnan(test["time"])]
    risk = fitted.predict_tasks(X)["os"].loc[y["os_time"].notna(), "risk"].to_numpy()
    end = np.nextafter(test["time"].max(), np.inf)
    assert value == pytest.approx(concordance_index_ipcw(test, test, risk, tau=end)[0])
    other = {"os": fitted.training_outcomes_["os"]}
    table = evaluate(fitted, X, y, n_resamples=0, censoring=other)
    expected = concordance_index_ipcw(other["os"], test, risk, tau=np.nextafter(other["os"]["time"].max(), np.inf))[0]
    given = table.query("task == 'os' and metric == 'concordance_index_ipcw'")["value"].item()
    assert given == pytest.approx(expected)


def test_evaluate_predictions_equals_evaluate(cohort, fitted):
    X, y = cohort
    predictions = predict_tasks(fitted, X, y)
    table = evaluate_predictions(predictions, y, training_outcomes=training_outcomes(fitted), n_resamples=50)
    pd.testing.assert_frame_equal(table, evaluate(fitted, X, y, n_resamples=50))


def test_predictions_of_some_patients_in_any_order_are_enough(cohort, fitted):
    X, y = cohort
    predictions = predict_tasks(fitted, X, y)
    order = np.random.default_rng(0).permutation(240)[:150]
    some = {name: table.iloc[order] for name, table in predictions.items()}
    sorted_ = {name: table.iloc[np.sort(order)] for name, table in predictions.items()}
    a, b = (evaluate_predictions(p, y, n_resamples=0) for p in (some, sorted_))
    np.testing.assert_allclose(a["value"], b["value"])
    assert a["n"].max() == 150


def test_horizons_beyond_follow_up_are_undefined_and_say_so(cohort, fitted):
    X, y = cohort
    table = evaluate(fitted, X, y, horizons=(12, 600), n_resamples=20)
    late = table[table["horizon"] == 600]
    assert len(late) and late["value"].isna().all() and late["low"].isna().all()
    assert late["note"].str.contains("600 months").all()
    brier = table[(table["metric"] == "integrated_brier_score")]
    assert brier["value"].notna().all()


def test_a_fold_without_events_or_classes_is_undefined_not_an_error(cohort, fitted):
    X, y = cohort
    y = y.copy()
    y[["os_event", "dfs_event"]] *= 0
    y["subtype"] = "LUAD"
    table = evaluate(fitted, X, y, n_resamples=20).set_index(["task", "metric"])
    for key in (("os", "concordance_index"), ("subtype", "auc")):
        row = table.loc[[key]].iloc[0]
        assert np.isnan(row["value"]) and row["note"]


def test_compare_is_antisymmetric_and_finds_the_better_model(cohort, fitted):
    X, y = cohort
    predictions = predict_tasks(fitted, X, y)
    noise = {name: table.sample(frac=1, random_state=0).set_index(table.index) for name, table in predictions.items()}
    forth = compare_predictions(predictions, noise, y, n_resamples=200)
    back = compare_predictions(noise, predictions, y, n_resamples=200)
    np.testing.assert_allclose(forth["difference"], -back["difference"])
    np.testing.assert_allclose(forth["low"], -back["high"])
    np.testing.assert_allclose(forth["p"], back["p"])
    assert forth.query("task == 'os' and metric == 'concordance_index'")["p"].item() < 0.05
    assert (forth["p_holm"].dropna() >= forth["p"].dropna()).all()
    assert forth.query("task == 'subtype' and metric == 'auc'")["test"].item() == "DeLong"


def test_comparing_a_model_with_itself_finds_nothing(cohort, fitted):
    X, y = cohort
    table = compare(fitted, fitted, X, y, n_resamples=50)
    known = table.dropna(subset=["difference"])
    assert (known["difference"] == 0).all() and (known["p"].dropna() == 1).all()


def test_comparison_is_paired_by_patient_not_by_row(cohort, fitted):
    X, y = cohort
    predictions = predict_tasks(fitted, X, y)
    shuffled = {name: table.sample(frac=1, random_state=3) for name, table in predictions.items()}
    table = compare_predictions(predictions, shuffled, y, n_resamples=0)
    np.testing.assert_allclose(table["difference"].dropna(), 0, atol=1e-12)


def test_scorers_work_inside_cross_validation_and_survive_pickling(cohort):
    X, y = cohort
    scorers = make_scorers(y)
    assert {
        "subtype_auc",
        "stage_auc",
        "stage_quadratic_weighted_kappa",
        "os_concordance_index",
        "os_concordance_index_ipcw",
        "os_integrated_brier_score",
        "dfs_integrated_ipa",
    } <= scorers.keys()
    pickle.loads(pickle.dumps(scorers))
    results = cross_validate(Several(), X, y, scoring=scorers, cv=3, error_score="raise")
    for name in scorers:
        assert np.isfinite(results[f"test_{name}"]).all(), name
    assert (results["test_os_integrated_brier_score"] < 0).all() and (results["test_os_concordance_index"] > 0.5).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_scorers_reach_through_pipelines_and_searches(cohort):
    X, y = cohort
    y = y[["os_time", "os_event"]]
    scorers = make_scorers(y)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Single()),
        {"single__alpha": [0.1, 10.0]},
        scoring=scorers,
        refit="os_concordance_index",
        cv=3,
    ).fit(X, y)
    assert training_outcomes(search)["os"].shape == (236,)
    plain = Single().fit(StandardScaler().fit_transform(X), y)
    scaled = StandardScaler().fit_transform(X)
    search.best_estimator_[-1].set_params(alpha=1.0)
    refit = search.best_estimator_.fit(X, y)
    for scorer in scorers.values():
        assert scorer(refit, X, y) == pytest.approx(scorer(plain, scaled, y))


def test_scorers_take_scikit_survival_targets_and_plain_labels(cohort):
    X, y = cohort
    known = y["os_time"].notna() & y["subtype"].notna()
    X, y = X[known], y[known]
    scorers = make_scorers(y)
    outcome = survival_target(y, "os")
    cox = CoxPHSurvivalAnalysis(alpha=1.0).fit(X, outcome)
    assert scorers["os_concordance_index"](cox, X, outcome) == cox.score(X, outcome)
    labels = y["subtype"].to_numpy()
    logistic = LogisticRegression().fit(X, labels)
    expected = metrics.auc_score(pd.Categorical(labels).codes, logistic.predict_proba(X))
    assert scorers["subtype_auc"](logistic, X, labels) == expected


@pytest.mark.parametrize(
    ("predictions", "error", "words"),
    [
        ({"pfs": pd.Series([1.0], ["p0001"])}, KeyError, "pfs"),
        ({"os": pd.Series([1.0], ["nobody"])}, KeyError, "nobody"),
        ({"os": pd.DataFrame({12.0: [1.0]}, ["p0011"])}, ValueError, "'risk'"),
        (
            {"subtype": pd.DataFrame({"LUAD": [1.0]}, ["p0011"])},
            ValueError,
            "one column of probabilities a class",
        ),
        ({"os": pd.Series([np.nan, 1.0], ["p0011", "p0012"])}, ValueError, "NaN or infinite"),
    ],
)
def test_predictions_that_cannot_be_read_are_refused(cohort, predictions, error, words):
    with pytest.raises(error, match=words):
        evaluate_predictions(predictions, cohort[1], n_resamples=0)


def test_models_of_different_folds_are_never_ranked_against_each_other():
    _, y = make_cohort()
    y = y[["os_time", "os_event", "subtype"]]
    rng = np.random.default_rng(0)
    folds = rng.integers(0, 3, len(y))
    risk = pd.Series(-y["os_time"].fillna(0.0) + 1000.0 * folds, index=y.index)  # perfect, each fold on its own scale
    options = {"horizons": (), "n_resamples": 0, "folds": folds}
    perfect = evaluate_predictions({"os": risk}, y, **options).set_index("metric")["value"]
    assert perfect["concordance_index"] == 1.0
    assert evaluate_predictions({"os": risk}, y, horizons=(), n_resamples=0)["value"][0] < 0.9

    share = y.groupby(folds)["subtype"].transform(lambda column: -(column == "LUSC").mean())  # a fold's constant
    constant = pd.DataFrame({"LUAD": -share, "LUSC": 1 + share})
    table = evaluate_predictions({"subtype": constant}, y, n_resamples=0, folds=folds)
    assert table["value"][0] == 0.5
    assert evaluate_predictions({"subtype": constant}, y, n_resamples=0)["value"][0] < 0.5

    noisy = pd.Series(risk + rng.normal(scale=30, size=len(y)), index=y.index)
    known = y["os_time"].notna().to_numpy()
    by_hand, sizes = [], []
    for fold in range(3):
        rows = known & (folds == fold)
        outcome = survival_target(y[rows], "os")
        by_hand.append(metrics.concordance_index(outcome["event"], outcome["time"], noisy[rows].to_numpy()))
        sizes.append(rows.sum())
    table = evaluate_predictions({"os": noisy}, y, **{**options, "n_resamples": 200})
    assert table["value"][0] == pytest.approx(np.average(by_hand, weights=sizes))
    assert table["low"][0] < table["value"][0] < table["high"][0]
    difference = compare_predictions({"os": risk}, {"os": noisy}, y, **{**options, "n_resamples": 200})
    assert difference["difference"][0] == pytest.approx(1 - table["value"][0])
    assert difference["low"][0] > 0


def test_calibration_of_out_of_fold_probabilities_pools_the_folds():
    rng = np.random.default_rng(5)
    n, folds = 120, np.arange(120) % 4
    risk, h = rng.normal(size=120), 12.0
    y = pd.DataFrame({"os_time": np.minimum(rng.exponential(20 * np.exp(-risk)), 40), "os_event": True})
    y["os_event"] = y["os_time"] < 40
    said = np.exp(-np.exp(risk) * h / 20)
    table = evaluate_predictions(
        {"os": pd.DataFrame({"risk": risk, h: said})}, y, horizons=[h], folds=folds, n_resamples=50
    ).set_index("metric")
    outcome = survival_target(y, "os")
    ici = metrics.calibration_errors(outcome["event"], outcome["time"], said, h)[0]
    row = table.loc["calibration_ici"]
    assert row["value"] == pytest.approx(ici) and row["low"] <= ici <= row["high"] and row["n"] == n
    slope = metrics.survival_calibration_slope(outcome, outcome, said, h, strata=folds)
    row = table.loc["calibration_slope"]
    assert row["value"] == pytest.approx(slope) and row["low"] < slope < row["high"]
    assert slope != pytest.approx(metrics.survival_calibration_slope(outcome, outcome, said, h), abs=1e-6)


def test_evaluate_judges_the_whole_curve_and_its_calibration(cohort, fitted):
    X, y = cohort
    predictions = {"os": predict_tasks(fitted, X, y)["os"]}
    table = evaluate_predictions(predictions, y, training_outcomes=training_outcomes(fitted), n_resamples=60)
    rows = table.set_index(["metric", "horizon"])
    for h in (12.0, 36.0, 60.0):
        ici, e50, e90 = (rows.loc[(f"calibration_{k}", h)] for k in ("ici", "e50", "e90"))
        known = y["os_time"].notna()
        expected = metrics.calibration_errors(
            y["os_event"][known], y["os_time"][known], predictions["os"].loc[known, h], h
        )
        assert (ici["value"], e50["value"], e90["value"]) == pytest.approx(expected)
        assert ici["low"] < ici["high"] and not ici[["low", "high"]].isna().any()
    whole = table.set_index("metric")
    # A Cox model's curves do not cross.
    assert whole.loc["concordance_index_antolini", "value"] == pytest.approx(whole.loc["concordance_index", "value"])
    assert whole.loc["log_likelihood", "low"] < whole.loc["log_likelihood", "value"] < 0
    assert 0.001 < whole.loc["d_calibration_p", "value"] <= 1 and np.isnan(whole.loc["d_calibration_p", "low"])


def test_net_benefit_is_reported_at_the_thresholds_asked_for_and_compared(cohort, fitted):
    X, y = cohort
    options = {"horizons": (36,), "thresholds": (0.2, 0.5), "n_resamples": 60}
    table = evaluate(fitted, X, y[["os_time", "os_event"]], **options).set_index("metric")
    assert {"net_benefit_0.2", "net_benefit_treat_all_0.2", "net_benefit_0.5", "net_benefit_treat_all_0.5"} <= set(
        table.index
    )
    assert table.loc["net_benefit_0.5", "value"] > table.loc["net_benefit_treat_all_0.5", "value"]
    predictions = {"os": predict_tasks(fitted, X, y, horizons=(36,))["os"]}
    noise = {"os": predictions["os"].sample(frac=1, random_state=0).set_index(predictions["os"].index)}
    compared = compare_predictions(predictions, noise, y, **options)
    row = compared.set_index("metric").loc["net_benefit_0.5"]
    assert row["difference"] > 0 and row["p"] < 0.05
    assert "d_calibration_p" not in set(compared["metric"])


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_by_either_method_hold_their_value(cohort, fitted, method):
    X, y = cohort
    centres = np.resize(["A", "B", "C", "D", "E", "F"], len(X))
    for clusters in (None, centres):
        table = evaluate(fitted, X, y, n_resamples=100, method=method, clusters=clusters)
        ranked = table[table["metric"].isin(["concordance_index", "auc", "brier_score"])]
        assert ((ranked["low"] <= ranked["value"]) & (ranked["value"] <= ranked["high"])).all()


def test_equal_seeds_give_equal_tables_and_leave_the_global_state(cohort, fitted):
    X, y = cohort
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = (evaluate(fitted, X, y, n_resamples=50, random_state=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    other = evaluate(fitted, X, y, n_resamples=50, random_state=4)
    assert (one["low"].dropna() != other["low"].dropna()).any()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    n_train=st.integers(1, 6),
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    times=st.sampled_from(["spread", "one", "tied"]),
    constant=st.booleans(),
)
def test_thin_folds_are_undefined_with_a_reason_and_never_an_error(n, n_train, seed, rate, times, constant):
    rng = np.random.default_rng(seed)

    def months(size):
        return {
            "spread": rng.uniform(1, 80, size),
            "one": np.full(size, 24.0),
            "tied": rng.integers(1, 4, size) * 12.0,
        }[times]

    y = pd.DataFrame({"os_time": months(n), "os_event": rng.random(n) < rate})
    y["stage"] = pd.Categorical(rng.choice(["I", "II", "III"], n), categories=["I", "II", "III"], ordered=True)
    training = survival_target(pd.DataFrame({"os_time": months(n_train), "os_event": rng.random(n_train) < rate}))
    risk = np.zeros(n) if constant else rng.normal(size=n)
    grid = [6.0, 12.0, 36.0, 600.0]
    curves = pd.DataFrame(np.exp(-np.exp(risk)[:, None] * np.array(grid) / 40), columns=grid)
    proba = rng.dirichlet([1, 1, 1], size=n)
    predictions = {"os": curves.assign(risk=risk), "stage": pd.DataFrame(proba, columns=["I", "II", "III"])}
    options = {
        "training_outcomes": {"os": training},
        "horizons": (12, 36, 600),
        "thresholds": (0.3,),
        "n_resamples": 12,
    }
    table = evaluate_predictions(predictions, y, **options)
    assert (table.loc[table["value"].isna(), "note"] != "").all()
    assert not np.isinf(table[["value", "low", "high"]]).any(axis=None)
    assert len(compare_predictions(predictions, predictions, y, **options))


def test_draws_are_those_of_the_table_and_of_the_comparison():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"os_time": rng.exponential(20, 80), "os_event": rng.random(80) < 0.7})
    y["stage"] = rng.choice(["I", "II", "III"], 80)
    chances = pd.DataFrame(rng.dirichlet([1, 1, 1], 80), columns=["I", "II", "III"])
    one = {"os": pd.Series(rng.normal(size=80)), "stage": chances}
    two = {"os": -y["os_time"] + rng.normal(0, 20, 80), "stage": chances[::-1].set_axis(chances.index)}
    options = {"horizons": (), "n_resamples": 60, "folds": np.resize([0, 1], 80), "random_state": 3}
    first, second = (resample_predictions(p, y, metrics=["concordance_index", "auc"], **options) for p in (one, two))
    assert first.index.names == ["task", "metric", "horizon"] and list(first.columns) == ["value", *range(60)]
    table = evaluate_predictions(one, y, **options)
    some = evaluate_predictions(one, y, metrics=["auc", "concordance_index"], **options)
    chosen = table[table["metric"].isin(["auc", "concordance_index"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, chosen)
    table = table.set_index(["task", "metric"])
    difference = compare_predictions(one, two, y, metrics=["concordance_index", "auc"], **options)
    difference = difference.set_index(["task", "metric"])
    for key, draws in first.droplevel("horizon").iterrows():
        expected = [draws["value"], *metrics.percentile_interval(draws.iloc[1:])]
        np.testing.assert_allclose(table.loc[key, ["value", "low", "high"]].astype(float), expected)
        apart = draws - second.droplevel("horizon").loc[key]
        expected = [apart["value"], *metrics.percentile_interval(apart.iloc[1:])]
        np.testing.assert_allclose(difference.loc[key, ["difference", "low", "high"]].astype(float), expected)
    assert resample_predictions(one, y, metrics=["auc"], n_resamples=0).shape == (1, 1)


def test_a_classifier_answers_the_task_of_its_classes_and_no_other_of_the_name_label():
    X, y = make_cohort(60)
    X, y = X.iloc[9:], y[["subtype"]].iloc[9:].astype(str)
    y["label"] = np.where(X["clinical_c"] > 0, "yes", "no")
    model = MultimodalClassifier(trainer=Trainer(max_epochs=1), random_state=0).fit(X, y["subtype"])
    tables = predict_tasks(model, X, y)
    assert list(tables) == ["subtype"] and list(tables["subtype"].columns) == ["LUAD", "LUSC"]


def test_a_classifier_that_learned_ordered_classes_is_evaluated_in_their_order():
    X, y = make_cohort(60)
    X, y = X.iloc[9:], y[["stage"]].iloc[9:]
    model = MultimodalClassifier(trainer=Trainer(max_epochs=20), random_state=0).fit(X, y)
    table = evaluate(model, X, y, n_resamples=0).set_index("metric")["value"]
    expected = cohen_kappa_score(
        y["stage"].astype(str), model.predict(X), labels=list(y["stage"].cat.categories), weights="quadratic"
    )
    assert table["quadratic_weighted_kappa"] == pytest.approx(expected)


def test_compare_says_in_how_many_resamples_a_difference_is_undefined():
    y = pd.DataFrame({"label": ["no"] * 11 + ["yes"]})
    first, second = np.linspace(0.1, 0.9, 12), np.linspace(0.2, 0.6, 12) ** 2
    pair = [{"label": pd.DataFrame({"no": 1 - score, "yes": score})} for score in (first, second)]
    options = {"metrics": ["auc"], "n_resamples": 200, "random_state": 0}
    table = compare_predictions(*pair, y, **options)
    draws = resample_predictions(pair[0], y, **options).drop(columns="value")
    n_lost = int(draws.isna().sum(axis=1).iloc[0])  # the only case is not drawn: about 1 resample of e
    assert 40 < n_lost < 110
    assert table["note"].iloc[0] == f"undefined in {n_lost} of 200 resamples"
    assert (compare_predictions(*pair, y, metrics=["brier_score"], n_resamples=200)["note"] == "").all()


def test_probabilities_of_the_event_are_not_taken_for_survival():
    rng = np.random.default_rng(0)
    risk = pd.Series(rng.normal(size=80))
    y = pd.DataFrame({"os_time": rng.exponential(20 * np.exp(-risk)), "os_event": 1})
    survival = pd.DataFrame({t: np.exp(-t / 20 * np.exp(risk)) for t in (6.0, 12.0, 24.0)})
    survival.loc[3, 12.0] = survival.loc[3, 6.0] + 0.01  # one that is not monotone is no mistake of all
    options = {"horizons": (12,), "n_resamples": 0}
    assert len(evaluate_predictions({"os": survival.assign(risk=risk)}, y, **options))
    with pytest.raises(ValueError, match="event-free, which fall with time; they rise by 0.3.* from 6 to 24 months"):
        evaluate_predictions({"os": (1 - survival).assign(risk=risk)}, y, **options)
