"""What evaluation reads from models, tables and arguments: nothing is paired by place or dropped in silence."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sksurv.linear_model import CoxPHSurvivalAnalysis, IPCRidge
from sksurv.metrics import as_concordance_index_ipcw_scorer, concordance_index_ipcw
from sksurv.svm import FastSurvivalSVM, NaiveSurvivalSVM

from mmdls import ClinicalCox, MultimodalClassifier, MultimodalSurvival, Trainer, compare_models, metrics
from mmdls.cohort import survival_target
from mmdls.evaluation import (
    compare,
    compare_predictions,
    evaluate,
    evaluate_predictions,
    evaluate_repeats,
    make_scorers,
    predict_tasks,
    resample_predictions,
)
from mmdls.report import report

GRADES = ["I-II", "III", "IV"]


def survivors(n=200, seed=0, censor=lambda rng, n: rng.uniform(10, 90, n), tag="p"):
    """X, y with one endpoint, and the times that nobody would be censored at."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    death, leaving = rng.exponential(30 * np.exp(-z)), censor(rng, n)
    index = [f"{tag}{i:04d}" for i in range(n)]
    X = pd.DataFrame({"clinical_z": z, "clinical_w": rng.normal(size=n)}, index=index)
    y = pd.DataFrame({"os_time": np.minimum(death, leaving), "os_event": death <= leaving}, index=index)
    return X, y, pd.DataFrame({"os_time": death, "os_event": True}, index=index)


def graded(n=150, seed=0):
    rng = np.random.default_rng(seed)
    index = [f"p{i:04d}" for i in range(n)]
    y = pd.DataFrame({"stage": pd.Categorical(rng.choice(GRADES, n), GRADES, ordered=True)}, index=index)
    return y, pd.DataFrame(rng.dirichlet([1, 1, 1], n), columns=GRADES, index=index)


@pytest.fixture(scope="module")
def cox():
    X, y, _ = survivors()
    return ClinicalCox().fit(X, y), X, y


# -- models ---------------------------------------------------------------------------------------------------------


def test_a_survival_estimator_of_one_endpoint_is_evaluated_from_its_curves():
    X, y, _ = survivors(80)
    model = MultimodalSurvival(trainer=Trainer(max_epochs=3), random_state=0).fit(X, y)
    table = predict_tasks(model, X, y, horizons=(12,))["os"]
    np.testing.assert_allclose(table["risk"], model.predict(X))
    np.testing.assert_allclose(table[12.0], [f(12.0) for f in model.predict_survival_function(X)])
    assert evaluate(model, X, y, horizons=(12,), n_resamples=0)["value"].notna().any()
    scores = {name: scorer(model, X, y) for name, scorer in make_scorers(y, horizons=[12.0]).items()}
    assert np.isfinite(list(scores.values())).all()
    # Fitted on an array, a model knows no name of its endpoint.
    unnamed = MultimodalSurvival(trainer=Trainer(max_epochs=3), random_state=0).fit(X.to_numpy(), survival_target(y))
    assert list(predict_tasks(unnamed, X.to_numpy(), y)) == ["os"]


@pytest.mark.parametrize("labels", [[False, True], [0, 1], ["no", "yes"]], ids=["boolean", "integer", "text"])
def test_labels_of_any_kind_give_the_same_numbers(labels):
    X, _, _ = survivors(90)
    positive = X["clinical_z"].to_numpy() + np.random.default_rng(1).normal(size=90) > 0
    y = pd.DataFrame({"relapse": np.array(labels, dtype=object)[positive.astype(int)]}, index=X.index).infer_objects()
    expected = metrics.auc_score(positive.astype(int), LogisticRegression().fit(X, positive).predict_proba(X))
    for model in (
        LogisticRegression().fit(X, y["relapse"]),
        make_pipeline(StandardScaler(with_mean=False, with_std=False), LogisticRegression()).fit(X, y["relapse"]),
        FrozenEstimator(LogisticRegression().fit(X, y["relapse"])),
    ):
        assert evaluate(model, X, y, n_resamples=0)["value"][0] == pytest.approx(expected)
        assert make_scorers(y)["relapse_auc"](model, X, y) == pytest.approx(expected)
    own = MultimodalClassifier(trainer=Trainer(max_epochs=2), random_state=0).fit(X, y["relapse"])
    assert compare(own, own, X, y, n_resamples=0)["difference"].eq(0).all()


class Guessing(BaseEstimator):
    """It predicts a number, and nothing says what the number is."""

    def predict(self, X):
        return np.zeros(len(X))


def test_models_whose_predictions_are_no_answers_are_refused_by_their_tags(cox):
    _, X, y = cox
    labels = pd.DataFrame({"high": (X["clinical_z"] > 0).astype(int)})
    with pytest.raises(TypeError, match="without predict_proba"):
        evaluate(LinearSVC().fit(X, labels["high"]), X, labels)
    with pytest.raises(TypeError, match="predicts nothing"):
        evaluate(StandardScaler().fit(X), X, y)
    for model in (Guessing(), IsolationForest(n_estimators=5).fit(X), object()):
        with pytest.raises(TypeError, match=f"SurvivalAnalysisMixin.*got {type(model).__name__}"):
            evaluate(model, X, y)


@pytest.mark.parametrize(
    "model",
    [
        NaiveSurvivalSVM(random_state=0),  # by its tag a classifier
        IPCRidge(),  # by its tag a regressor
        FastSurvivalSVM(rank_ratio=0.0, fit_intercept=True, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_base_class_of_scikit_survival_says_that_a_model_answers_an_endpoint(cox, model):
    _, X, y = cox
    outcome = survival_target(y)
    plain = clone(model).fit(X, outcome)
    expected = concordance_index_ipcw(outcome, outcome, predict_tasks(plain, X, y)["os"]["risk"].to_numpy())[0]
    assert expected > 0.6 and plain.score(X, outcome) > 0.6
    for wrapped in (as_concordance_index_ipcw_scorer(clone(model)), RFE(clone(model), n_features_to_select=2)):
        pd.testing.assert_frame_equal(
            predict_tasks(wrapped.fit(X, outcome), X, y)["os"], predict_tasks(plain, X, y)["os"]
        )


def test_features_are_selected_before_a_model_is_asked(cox):
    _, X, y = cox
    selected = RFE(CoxPHSurvivalAnalysis(), n_features_to_select=1).fit(X, survival_target(y))
    alone = CoxPHSurvivalAnalysis().fit(X[["clinical_z"]], survival_target(y))
    expected = predict_tasks(alone, X[["clinical_z"]], y)["os"]
    pd.testing.assert_frame_equal(predict_tasks(selected, X, y)["os"], expected)


# -- censoring ------------------------------------------------------------------------------------------------------


def external(seed=0, n=800):
    X, y, _ = survivors(800, 1, lambda rng, n: rng.uniform(36, 96, n))
    model = ClinicalCox().fit(X, y)
    return model, survivors(n, seed, lambda rng, n: rng.exponential(25, n), "q")


def test_an_external_cohort_is_weighted_by_its_own_censoring():
    model, (X, y, full) = external(n=4000)
    options = {"horizons": (24.0,), "thresholds": (0.3,), "n_resamples": 0}
    found, truth = (evaluate(model, X, table, **options).set_index("metric") for table in (y, full))
    for metric in ("brier_score", "integrated_brier_score", "concordance_index_ipcw", "cumulative_dynamic_auc"):
        assert found.loc[metric, "value"] == pytest.approx(truth.loc[metric, "value"], rel=0.04), metric
    assert found.loc["brier_score", "note"].startswith("the censoring of the scored patients differs from")
    assert "differs from" not in found.loc["concordance_index", "note"]
    # The training rows decide the reference of the index of prediction accuracy, and nothing else.
    other = evaluate(model, X, y, **options, training_outcomes={"os": survival_target(full)}).set_index("metric")[
        "value"
    ]
    changed = (other != found["value"]) & other.notna()
    assert set(other.index[changed]) == {"index_of_prediction_accuracy", "integrated_ipa"}


@pytest.mark.slow
def test_external_censoring_leaves_no_bias_over_200_draws():
    draws = []
    for seed in range(200):
        model, (X, y, full) = external(seed)
        options = {"horizons": (24.0,), "thresholds": (0.3,), "n_resamples": 0}
        tables = [evaluate(model, X, table, **options).set_index("metric")["value"] for table in (y, full)]
        draws.append(pd.concat(tables, axis=1, keys=["found", "truth"]))
    mean = pd.concat(draws).groupby(level=0).mean()
    bias = mean["found"] / mean["truth"] - 1
    assert bias[["brier_score", "integrated_brier_score", "net_benefit_0.3"]].abs().max() < 0.02


def test_scikit_survival_models_and_scorers_are_weighted_by_the_scored_rows():
    _, (X, y, _) = external(n=120)
    target = survival_target(y)
    model = CoxPHSurvivalAnalysis().fit(X, target)
    end = np.nextafter(target["time"].max(), np.inf)
    expected = concordance_index_ipcw(target, target, model.predict(X), tau=end)[0]
    assert make_scorers(y)["os_concordance_index_ipcw"](model, X, y) == pytest.approx(expected)
    few = X.index[:30]  # fewer than 50: all patients of y say how they are censored
    expected = concordance_index_ipcw(target, target[:30], model.predict(X.loc[few]), tau=end)[0]
    assert make_scorers(y)["os_concordance_index_ipcw"](model, X.loc[few], y.loc[few]) == pytest.approx(expected)


def test_a_model_fitted_on_an_array_is_scored_as_one_fitted_on_a_table():
    _, (X, y, _) = external(n=120)
    train, test = X.index[:70], X.index[70:]
    models = [ClinicalCox().fit(X.loc[train], outcome) for outcome in (y.loc[train], survival_target(y.loc[train]))]
    assert models[0].score(X.loc[test], y.loc[test]) == models[1].score(X.loc[test], y.loc[test])
    tables = [evaluate(model, X.loc[test], y.loc[test], horizons=(24.0,), n_resamples=0) for model in models]
    pd.testing.assert_frame_equal(*tables)  # the training rows are the reference of the index of prediction accuracy
    for scorer in make_scorers(y, horizons=(24.0,)).values():
        values = [scorer(model, X.loc[test], y.loc[test]) for model in models]
        assert values[0] == values[1] and np.isfinite(values[0])


def test_a_scorer_knows_its_patients_in_any_dtype():
    _, (X, y, _) = external(n=120)
    model = CoxPHSurvivalAnalysis().fit(X, survival_target(y))
    few = y.iloc[:30]
    expected = make_scorers(y)["os_concordance_index_ipcw"](model, X.loc[few.index], few)
    as_objects = y.astype({"os_event": float}).astype(object)
    for other, scored in ((as_objects, few), (y, as_objects.iloc[:30]), (y, few.astype({"os_event": "Int8"}))):
        assert make_scorers(other)["os_concordance_index_ipcw"](model, X.loc[few.index], scored) == expected


def test_tau_limits_the_events_of_unos_c(cox):
    model, X, y = cox
    target = survival_target(y)
    value = evaluate(model, X, y, horizons=(), n_resamples=0, tau=20.0).set_index("metric")["value"]
    expected = concordance_index_ipcw(target, target, model.predict(X), tau=20.0)[0]
    assert value["concordance_index_ipcw"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="tau must be months above 0"):
        evaluate(model, X, y, tau=-1.0)


# -- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [(), ("I-II",), ("III",), ("IV",), ("I-II", "III")])
def test_a_class_that_nobody_has_keeps_its_place_in_the_order(gone):
    y, probability = graded()
    y = y[~y["stage"].isin(gone)]
    predicted = np.array(GRADES)[probability.loc[y.index].to_numpy().argmax(axis=1)]
    expected = cohen_kappa_score(y["stage"].astype(str), predicted, weights="quadratic", labels=GRADES)
    for labels in (y, y.assign(stage=y["stage"].cat.remove_unused_categories().cat.set_categories(GRADES))):
        table = evaluate_predictions({"stage": probability.loc[y.index]}, labels, n_resamples=0)
        assert table.set_index("metric")["value"]["quadratic_weighted_kappa"] == pytest.approx(expected)


def test_the_order_of_classes_is_the_models_where_y_has_none():
    X, _, _ = survivors(120)
    grade = pd.cut(X["clinical_z"], [-9, -0.5, 0.5, 9], labels=["low", "middle", "high"]).astype(
        pd.CategoricalDtype(["low", "middle", "high"], ordered=True)
    )
    from mmdls import MMDLS

    model = MMDLS(trainer=Trainer(max_epochs=5), random_state=0).fit(X, grade.to_frame("grade"))
    ordered = evaluate(model, X, grade.to_frame("grade"), n_resamples=0)
    text = evaluate(model, X, grade.astype(str).to_frame("grade"), n_resamples=0)
    pd.testing.assert_frame_equal(ordered, text)
    assert "quadratic_weighted_kappa" in set(text["metric"])


def test_the_order_of_classes_is_that_of_y_where_the_model_has_none():
    from mmdls import MMDLS

    y, _ = graded()
    place = y["stage"].cat.codes
    X = pd.DataFrame({"clinical_place": place + np.random.default_rng(0).normal(size=150)}, y.index)
    order = ["IV", "I-II", "III"]  # no order of the alphabet
    y["stage"] = y["stage"].cat.reorder_categories(order)
    model = MMDLS(trainer=Trainer(max_epochs=5), random_state=0).fit(X, y["stage"].astype(str).to_numpy())
    table = predict_tasks(model, X, y)["stage"]
    expected = cohen_kappa_score(y["stage"].astype(str), table.idxmax(axis=1), labels=order, weights="quadratic")
    found = evaluate(model, X, y, n_resamples=0).set_index("metric")["value"]["quadratic_weighted_kappa"]
    assert found == pytest.approx(expected)


def test_only_late_patients_give_a_sensitivity_and_no_specificity():
    y = pd.DataFrame({"stage": pd.Categorical(["late"] * 4, ["early", "late"], ordered=True)})
    p = pd.DataFrame({"early": [0.1, 0.2, 0.9, 0.3], "late": [0.9, 0.8, 0.1, 0.7]})
    table = evaluate_predictions({"stage": p}, y, n_resamples=0).set_index("metric")
    assert table["value"]["sensitivity"] == 0.75 and np.isnan(table["value"]["specificity"])
    assert table["n_events"].iloc[0] == 4


def test_columns_of_probabilities_are_matched_by_name():
    rng = np.random.default_rng(0)
    p = rng.random(60)
    y = pd.DataFrame({"subtype": np.where(rng.random(60) < p, "LUSC", "LUAD")})
    one = pd.DataFrame({"LUAD": 1 - p, "LUSC": p})
    two = one[["LUSC", "LUAD"]]
    options = {"n_resamples": 30}
    expected = evaluate_predictions({"subtype": one}, y, **options)
    pd.testing.assert_frame_equal(expected, evaluate_predictions({"subtype": two}, y, **options))
    assert compare_predictions({"subtype": one}, {"subtype": two}, y, n_resamples=0)["difference"].eq(0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p * 2, "must lie between 0 and 1|must sum to 1"),
        (lambda p: p - 0.5, "must lie between 0 and 1"),
        (lambda p: p * 0.5, "must sum to 1"),
        (lambda p: p.mask(p == p.iloc[3, 0]), "NaN or infinite"),
    ],
)
def test_what_is_no_probability_is_refused_with_the_patients(change, words):
    y, probability = graded(20)
    with pytest.raises(ValueError, match=words) as error:
        evaluate_predictions({"stage": change(probability)}, y, n_resamples=0)
    assert "p00" in str(error.value)


# -- rows -----------------------------------------------------------------------------------------------------------


def test_folds_clusters_and_outcomes_are_joined_by_id(cox):
    model, X, y = cox
    predictions = predict_tasks(model, X, y)
    centre = pd.Series(np.resize(list("ABCD"), len(y)), index=y.index)
    order = np.random.default_rng(0).permutation(len(y))
    options = {"horizons": (12,), "n_resamples": 20}
    for name in ("folds", "clusters"):
        tables = [
            evaluate_predictions(predictions, y.iloc[rows], **options, **{name: values})
            for rows, values in ((slice(None), centre), (slice(None), centre.iloc[order]), (order, centre))
        ]
        tables.append(evaluate_predictions(predictions, y, **options, **{name: centre.to_numpy()}))
        for table in tables[1:]:
            pd.testing.assert_frame_equal(tables[0], table)
    with pytest.raises(ValueError, match="folds lacks"):
        evaluate_predictions(predictions, y, folds=centre.iloc[:50])
    with pytest.raises(ValueError, match="folds has 3 rows"):
        evaluate_predictions(predictions, y, folds=[1, 2, 3])
    pd.testing.assert_frame_equal(evaluate(model, X, y, **options), evaluate(model, X, y.iloc[order], **options))


def test_folds_count_the_patients_that_a_metric_used_and_name_those_it_could_not():
    y = pd.DataFrame({"os_time": np.arange(1.0, 13.0), "os_event": [1] * 8 + [0] * 4})
    risk, folds = pd.Series(-np.arange(12.0)), np.repeat(["a", "b", "c"], 4)
    table = evaluate_predictions({"os": risk}, y, folds=folds, horizons=(), n_resamples=0).set_index("metric")
    row = table.loc["concordance_index"]
    assert (row["value"], row["n"], row["n_events"]) == (1.0, 8, 8)
    assert "undefined in 1 of 3 folds (c)" in row["note"]
    with pytest.raises(ValueError, match="folds is missing for 1 patients, such as \\[4\\]"):
        evaluate_predictions({"os": risk}, y, folds=pd.Series(folds).mask(np.arange(12) == 4))


def test_a_patient_who_stands_twice_is_refused_in_every_task():
    y, probability = graded(20)
    with pytest.raises(ValueError, match="more than one row for 1 patients"):
        evaluate_predictions({"stage": pd.concat([probability, probability.iloc[:1]])}, y)
    risk = pd.Series([1.0, 2.0, 2.0], index=["p1", "p2", "p2"])
    y = pd.DataFrame({"os_time": [1.0, 2.0], "os_event": [1, 1]}, index=["p1", "p2"])
    with pytest.raises(ValueError, match=r"more than one row for 1 patients, such as \['p2'\]"):
        evaluate_predictions({"os": risk}, y)


def test_predictions_keep_their_horizons_through_a_csv_file(cox):
    model, X, y = cox
    predictions = predict_tasks(model, X, y)
    read = pd.read_csv(io.StringIO(predictions["os"].to_csv()), index_col=0)
    assert all(isinstance(column, str) for column in read)
    expected = evaluate_predictions(predictions, y, n_resamples=0)
    table = evaluate_predictions({"os": read}, y, n_resamples=0)
    pd.testing.assert_frame_equal(table, expected)
    with pytest.raises(ValueError, match="the survival at 12 months twice"):
        evaluate_predictions({"os": predictions["os"].assign(**{"12": 0.5})}, y)
    with pytest.raises(ValueError, match="A column whose name is a number is read as survival"):
        evaluate_predictions({"os": predictions["os"].assign(**{"25": 7.0})}, y)


def test_a_task_that_the_cohort_does_not_know_is_left_out(cox):
    model, X, y = cox
    from mmdls import MMDLS

    both = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(
        X, y.assign(grade=np.where(X["clinical_z"] > 0, "G2", "G1"))
    )
    expected = evaluate(both, X, y, n_resamples=0)
    unknown = y.assign(grade=None, dfs_time=np.nan, dfs_event=np.nan)
    pd.testing.assert_frame_equal(expected, evaluate(both, X, unknown, n_resamples=0))
    predictions = predict_tasks(model, X, y) | {"dfs": pd.Series(0.0, index=X.index)}
    with pytest.warns(UserWarning, match="no outcome of 'dfs' is known"):
        table = evaluate_predictions(predictions, unknown, n_resamples=0)
    assert set(table["task"]) == {"os"}


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"horizons": 12}, TypeError, "horizons must be a sequence"),
        ({"horizons": "12"}, TypeError, "horizons must be a sequence"),
        ({"horizons": (0, 12)}, ValueError, "horizons must be finite months above 0"),
        ({"horizons": (-3,)}, ValueError, "horizons must be finite months above 0"),
        ({"horizons": (float("nan"),)}, ValueError, "horizons must be finite months above 0"),
        ({"thresholds": 0.3}, TypeError, "thresholds must be a sequence"),
        ({"thresholds": (1.0,)}, ValueError, "thresholds must be risks above 0 and below 1"),
        ({"n_resamples": -1}, ValueError, "n_resamples must be a whole number"),
        ({"n_resamples": 2.5}, ValueError, "n_resamples must be a whole number"),
        ({"confidence_level": 95}, ValueError, "confidence_level must lie above 0 and below 1"),
        ({"stratify": True, "clusters": np.zeros(200)}, ValueError, "Choose one"),
        ({"clusters": "centre"}, TypeError, "clusters must hold one value a patient"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_by_name(cox, options, error, words):
    model, X, y = cox
    with pytest.raises(error, match=words):
        evaluate(model, X, y, **options)


def test_compare_takes_models_in_the_order_of_everything_else(cox):
    model, X, y = cox
    other = CoxPHSurvivalAnalysis(alpha=100.0).fit(X[["clinical_w"]], survival_target(y))
    weak = make_pipeline("passthrough", other)
    table = compare(model, {"os": pd.Series(other.predict(X[["clinical_w"]]), X.index)}, X, y, n_resamples=100)
    assert table.set_index("metric")["difference"]["concordance_index"] > 0.1
    assert compare(weak, weak, X[["clinical_w"]], y, n_resamples=0)["difference"].eq(0).any()
    with pytest.raises(TypeError, match="compare_predictions"):
        compare(predict_tasks(model, X, y), predict_tasks(model, X, y), y)
    with pytest.raises(ValueError, match=r"metrics names \['c_index'\]"):
        compare(model, model, X, y, metrics=["c_index"])
    with pytest.raises(TypeError, match="sequence of names"):
        compare(model, model, X, y, metrics="concordance_index")
    with pytest.raises(ValueError, match="no patient in common"):
        compare_predictions({"os": pd.Series([1.0], ["a"])}, {"os": pd.Series([1.0], ["b"])}, y)


def test_notes_are_those_of_the_own_table_in_every_thread(cox):
    model, X, y = cox
    jobs = [(12.0,), (600.0,), (24.0,), (900.0,)] * 3
    alone = [evaluate(model, X, y, horizons=h, n_resamples=10) for h in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda h: evaluate(model, X, y, horizons=h, n_resamples=10), jobs))
    for one, two in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, two)


# -- repeated cross-validation --------------------------------------------------------------------------------------


def test_repeats_have_the_corrected_variance_of_nadeau_and_bengio():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"os_time": rng.exponential(20, 90), "os_event": rng.random(90) < 0.8})
    folds = [rng.permutation(np.resize([0, 1, 2], 90)) for _ in range(3)]
    good, weak = ([{"os": -y["os_time"] + rng.normal(0, s, 90)} for _ in folds] for s in (15, 60))
    options = {"horizons": (), "metrics": ["concordance_index"]}

    def scores(repeats):
        values = []
        for predicted, fold in zip(repeats, folds, strict=True):
            for k in range(3):
                part = evaluate_predictions({"os": predicted["os"][fold == k]}, y, n_resamples=0, horizons=())
                values.append(part["value"][0])
        return np.array(values)

    one, two = scores(good), scores(weak)
    row = evaluate_repeats(good, y, folds, **options).iloc[0]
    error = np.sqrt((1 / 9 + 1 / 2) * one.var(ddof=1))
    half = 2.306004 * error  # t quantile, 8 degrees of freedom
    np.testing.assert_allclose(row[["value", "low", "high"]].astype(float), one.mean() + half * np.array([0, -1, 1]))
    assert row["n_scores"] == 9
    difference = evaluate_repeats(good, y, folds, second=weak, **options).iloc[0]
    assert difference["value"] == pytest.approx((one - two).mean())
    assert 0 < difference["p"] < 0.2 and difference["low"] < difference["value"] < difference["high"]
    assert evaluate_repeats(good, y, folds, second=good, **options)["p"].item() == 1.0
    with pytest.raises(ValueError, match="one entry a repeat"):
        evaluate_repeats(good[:2], y, folds)
    with pytest.raises(ValueError, match="are all in one fold"):
        evaluate_repeats(good[:1], y, [np.zeros(90)])


def test_predictions_without_a_task_are_refused():
    y = pd.DataFrame({"os_time": [2.0, 4.0, 6.0], "os_event": [1, 0, 1]})
    with pytest.raises(TypeError, match="a dict with a table for each task.*got Series"):
        evaluate_predictions(pd.Series([4.0, 3.0, 1.0]), y)


# -- siblings: signs, names, repeats, classes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"clinical_a": rng.normal(size=120)}, [f"p{i}" for i in range(120)])
    time, lost = rng.exponential(20 * np.exp(-X["clinical_a"])), rng.exponential(40, 120)
    y = pd.DataFrame({"os_time": np.minimum(time, lost) + 0.1, "os_event": (time <= lost).astype(int)}, X.index)
    return X, y


def test_a_model_that_predicts_times_is_read_as_one(plain):
    X, y = plain
    outcome = survival_target(y, "os")
    for model in (
        IPCRidge(),
        make_pipeline(StandardScaler(), IPCRidge()),
        FastSurvivalSVM(rank_ratio=0.0, fit_intercept=True, random_state=0),
        FastSurvivalSVM(random_state=0),
    ):
        model.fit(X, outcome)
        table = evaluate(model, X, y, n_resamples=0).set_index("metric")["value"]
        assert table["concordance_index"] == pytest.approx(model.score(X, outcome), abs=1e-9) and table.iloc[0] > 0.6
        assert make_scorers(y)["os_concordance_index"](model, X, y) == pytest.approx(table["concordance_index"])


def test_the_dtype_of_an_event_does_not_change_a_score(plain):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    X, y = plain
    model, some = CoxPHSurvivalAnalysis().fit(X, survival_target(y, "os")), X.index[:30]
    boolean = y.astype({"os_event": bool})
    expected = [score(model, X.loc[some], y.loc[some]) for score in make_scorers(y).values()]
    for cohort, outcome in ((y, boolean.loc[some]), (boolean, y.loc[some]), (y, survival_target(y.loc[some], "os"))):
        assert [score(model, X.loc[some], outcome) for score in make_scorers(cohort).values()] == expected


def test_a_horizon_given_twice_counts_once(plain):
    X, y = plain
    table = pd.DataFrame(
        {"risk": X["clinical_a"], **{h: np.exp(-h * np.exp(X["clinical_a"]) / 20) for h in (6.0, 12.0)}}
    )
    folds = [np.random.default_rng(r).permutation(np.resize(range(4), 120)) for r in range(2)]
    once, twice = (
        evaluate_repeats([{"os": table}] * 2, y, folds, horizons=h, metrics=["brier_score"])
        for h in ((12,), (12, 12.0))
    )
    pd.testing.assert_frame_equal(once, twice)
    options = {"n_resamples": 0, "thresholds": (0.2, 0.2)}
    assert not evaluate_predictions({"os": table}, y, horizons=(12, 12), **options).duplicated().any()


def test_repeats_of_two_procedures_are_compared_on_the_patients_that_both_know(plain):
    X, y = plain
    risk = X["clinical_a"]
    folds = [np.random.default_rng(r).permutation(np.resize(range(4), 120)) for r in range(2)]
    options = {"horizons": (), "metrics": ["concordance_index"]}
    less = evaluate_repeats([{"os": risk}] * 2, y, folds, second=[{"os": -risk.iloc[1:]}] * 2, **options)
    same = evaluate_repeats([{"os": risk.iloc[1:]}] * 2, y, folds, second=[{"os": -risk.iloc[1:]}] * 2, **options)
    assert less["n_scores"].tolist() == [8]
    pd.testing.assert_frame_equal(less, same)


@pytest.mark.parametrize("name", ["auc_nonsense", "net_benefit_0.2", "brier_score"])
def test_metrics_that_nobody_can_compute_are_refused(plain, name):
    X, y = plain
    risk = {"os": X["clinical_a"]}
    with pytest.raises(ValueError, match=name):
        compare_predictions(risk, risk, y, metrics=[name], n_resamples=0)


def test_a_metric_that_no_task_gives_is_named_beside_those_that_are_computed():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"os_time": rng.exponential(9, 60), "os_cause": rng.integers(0, 3, 60)})
    y["fev_value"] = rng.normal(size=60)
    told = {"os": pd.DataFrame({"risk_1": rng.normal(size=60), "risk_2": rng.normal(size=60)})}
    told["fev"] = pd.DataFrame({"value": rng.normal(size=60)})
    asked = {"metrics": ["concordance_index", "r2"], "n_resamples": 0}
    for call in (
        lambda: compare_predictions(told, told, y, **asked),
        lambda: resample_predictions(told, y, **asked),
        lambda: evaluate_predictions(told, y, **asked),
    ):
        with pytest.warns(
            UserWarning, match=r"\['concordance_index'\], which .* Did you mean \['concordance_index_c"
        ) as w:
            table = call().reset_index()
        assert table["metric"].tolist() == ["r2"] and w[0].filename == __file__
    with pytest.raises(ValueError, match="Did you mean 'concordance_index'. Known: .*_cause<cause>") as error:
        compare_predictions(told, told, y, metrics=["concordance_indx"])
    assert "cause1" not in str(error.value)


def test_models_of_different_classes_are_not_compared():
    rng = np.random.default_rng(0)
    y, u = pd.DataFrame({"lab": ["a", "b"] * 10}), rng.random(20)
    three, two = pd.DataFrame({"a": 0.9 * u, "b": 0.9 - 0.9 * u, "c": 0.1}), pd.DataFrame({"b": 1 - u, "a": u})
    with pytest.raises(ValueError, match="different classes"):
        compare_predictions({"lab": three}, {"lab": two}, y, n_resamples=0)


def test_accuracy_sensitivity_and_specificity_agree_on_the_class_of_a_tie():
    table = pd.DataFrame({"a": [0.5, 0.5, 0.5, 0.5, 0.2], "b": [0.5, 0.5, 0.5, 0.5, 0.8]})
    y = pd.DataFrame({"lab": ["a", "b", "b", "b", "b"]})
    found = evaluate_predictions({"lab": table}, y, n_resamples=0).set_index("metric")["value"]
    assert (
        found["accuracy"] == pytest.approx((4 * found["sensitivity"] + found["specificity"]) / 5) == pytest.approx(0.4)
    )
    assert found["negative_predictive_value"] == 0.25
    assert found[["accuracy", "sensitivity", "specificity"]].tolist() == [0.4, 0.25, 1.0]


def test_calibrated_curves_of_three_columns_are_not_rejected():
    rng, rejected = np.random.default_rng(0), []
    for _ in range(60):
        risk = rng.normal(0, 0.8, 300)
        time, lost = rng.exponential(30 * np.exp(-risk)), rng.uniform(5, 90, 300)
        y = pd.DataFrame({"os_time": np.minimum(time, lost), "os_event": time <= lost})
        table = pd.DataFrame({"risk": risk, **{h: np.exp(-h * np.exp(risk) / 30) for h in (12.0, 36.0, 60.0)}})
        found = evaluate_predictions({"os": table}, y, horizons=(), n_resamples=0).set_index("metric")["value"]
        rejected.append(found["d_calibration_p"] < 0.05)
    assert np.mean(rejected) < 0.13


def test_horizons_in_days_are_said_once(tmp_path, recwarn):
    X, y, _ = survivors(60)
    model = ClinicalCox().fit(X, y)

    def told():
        texts = [str(warning.message) for warning in recwarn]
        recwarn.clear()
        return [text for text in texts if "Horizons are months" in text]

    evaluate(model, X, y, horizons=[365, 730], n_resamples=0)
    (text,) = told()
    assert "[365.0, 730.0]" in text and f"{y['os_time'].max():.1f} months" in text
    evaluate(model, X, y, horizons=[12, 730], n_resamples=0)
    evaluate(model, X, y, horizons=(), n_resamples=0)
    assert not told()
    compare_models({"a": "clinical_cox", "b": ClinicalCox(alpha=2.0)}, X, y, cv=2, horizons=[365], n_resamples=0)
    assert len(told()) == 1
    report({"a": model}, X, y, tmp_path / "report.html", horizons=[365], n_resamples=0)
    assert len(told()) == 1


def test_predictions_that_are_no_numbers_or_unknown_are_refused_with_the_patients():
    y = pd.DataFrame({"os_time": np.arange(1.0, 13), "os_event": True})
    risk = pd.Series(np.arange(12.0))
    for wrong, dtype in ((pd.cut(risk, 3), "category"), (pd.to_timedelta(risk, unit="D"), "timedelta64")):
        with pytest.raises(TypeError, match=f"predictions of 'os' must be numbers; column 'risk' holds .*{dtype}"):
            evaluate_predictions({"os": wrong}, y, n_resamples=0)
    lacking = risk.mask(risk < 2)
    with pytest.raises(
        ValueError, match=r"risks of 'os' are NaN or infinite for 2 patients, such as \[0, 1\]; predict"
    ):
        evaluate_predictions({"os": lacking}, y, n_resamples=0)
    # Nothing is asked of a patient whose outcome is unknown.
    known = y.astype(float)
    known.loc[:1] = np.nan
    assert evaluate_predictions({"os": lacking}, known, n_resamples=0)["n"].iloc[0] == 10


def test_masked_numbers_are_refused():
    time = np.ma.masked_greater(np.arange(1.0, 13), 9)
    with pytest.raises(ValueError, match="time hold masked numbers; leave these patients out"):
        metrics.concordance_index(np.ones(12, bool), time, np.arange(12.0))
