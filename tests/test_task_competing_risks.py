"""Competing risks as a task: found by name, learned, incidences sum to at most 1, metrics per cause."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest

from mmdls import MMDLS, ClinicalCox, MultimodalSurvival, Trainer, evaluate, metrics
from mmdls.cohort import check_cohort, check_target, find_tasks
from mmdls.evaluation import compare, evaluate_predictions, make_scorers
from mmdls.model_selection import CohortKFold, stratified_holdout
from mmdls.plotting import cumulative_incidence
from mmdls.report import report
from mmdls.tasks import CompetingRisksTask
from tests.simulated_outcomes import cause_specific_rates, draw_competing_risks, true_incidence

HORIZONS = (12.0, 24.0)


def cohort(n=200, seed=0, **options):
    """Two causes whose hazards rise and fall with one feature; some outcomes are unknown."""
    signal, causes, time = draw_competing_risks(n, seed, **options)
    ids = [f"P{seed}-{k}" for k in range(n)]
    X = pd.DataFrame({"clinical_x": signal, "clinical_noise": np.random.default_rng(9).normal(size=n)}, index=ids)
    y = pd.DataFrame({"death_time": time, "death_cause": causes.astype(float)}, index=ids)
    y.iloc[::9] = np.nan
    return X, y


def fitted(X, y, max_epochs=40, **options):
    trainer = Trainer(max_epochs=max_epochs, learning_rate=0.02, validation_fraction=0)
    return MMDLS(trainer=trainer, random_state=0, dropout=0.0, **options).fit(X, y)


@pytest.fixture(scope="module")
def trained():
    X, y = cohort(600)
    return fitted(X, y), X, y


def test_predicted_incidences_are_near_the_truth(trained):
    X, _ = cohort(300, 1)
    table = trained[0].predict_tasks(X, HORIZONS)["death"]
    assert list(table) == ["risk_1", "risk_2"] + [f"incidence_{k}_{h:g}" for k in (1, 2) for h in HORIZONS]
    truth = true_incidence(cause_specific_rates(X["clinical_x"].to_numpy()), HORIZONS)
    found = table.iloc[:, 2:].to_numpy().reshape(300, 2, 2)
    assert np.abs(found - truth).mean() < 0.06
    assert (found.sum(axis=1) <= 1 + 1e-9).all() and (np.diff(found, axis=2) >= 0).all()
    pd.testing.assert_series_equal(trained[0].predict(X)["death"], table["risk_1"], check_names=False)
    assert trained[0].predict_tasks(X, [1e4])["death"][["incidence_1_10000", "incidence_2_10000"]].isna().all(axis=None)


def test_incidences_are_predicted_as_the_figure_takes_them(trained):
    model, (X, y) = trained[0], cohort(80, 1)
    found = model.predict_cumulative_incidence(X, "death", HORIZONS[::-1])
    tables = model.predict_tasks(X, HORIZONS)["death"]
    assert list(found) == [1, 2]
    for cause, table in found.items():
        assert list(table.columns) == sorted(HORIZONS) and list(table.index) == list(X.index)
        np.testing.assert_array_equal(table, tables[[f"incidence_{cause}_{h:g}" for h in sorted(HORIZONS)]])
    curves = model.predict_cumulative_incidence(X, "death")
    learned = model.training_outcomes_["death"]
    np.testing.assert_allclose(curves[2].columns, np.unique(learned["time"][learned["cause"] > 0]), rtol=1e-9)
    assert sum(curves.values()).le(1 + 1e-9).all(axis=None) and curves[1].notna().all(axis=None)
    y = y.dropna()
    ax = cumulative_incidence(y["death_cause"], y["death_time"], {k: t.loc[y.index] for k, t in curves.items()})
    assert len(ax.get_legend().get_texts()) >= 2
    with pytest.raises(KeyError, match=r"this answers for: \[\]. It is answered by predict_cumulative_incidence"):
        model.predict_survival_function(X, "death")
    with pytest.raises(KeyError, match=r"'os' is none of the tasks this answers for: \['death'\]\.\"$"):
        model.predict_cumulative_incidence(X, "os")


@pytest.mark.parametrize("endpoint", [None, "death"])
@pytest.mark.parametrize("model", [ClinicalCox, MultimodalSurvival])
def test_a_model_of_one_endpoint_says_how_to_make_one_of_a_cause(model, endpoint):
    X, y = cohort(80, 1)
    with pytest.raises(
        (ValueError, KeyError), match="'death' has competing risks; MMDLS predicts .* as censoring: "
    ) as error:
        model(endpoint=endpoint).fit(X, y)
    one = eval(re.search(r"as censoring: (.*)\.", str(error.value))[1])
    assert list(one) == ["death_time", "death_event"] and one["death_event"].isna().equals(y["death_cause"].isna())
    assert one["death_event"].sum() == (y["death_cause"] == 1).sum()
    ClinicalCox(endpoint=endpoint).fit(X, one)


def test_every_cause_is_evaluated_with_intervals(trained):
    X, y = cohort(300, 1)
    table = evaluate(trained[0], X, y, horizons=HORIZONS, n_resamples=50, random_state=0)
    assert set(table["metric"]) < set(CompetingRisksTask.metrics)
    known = y.dropna()
    for cause in (1, 2):
        rows = table[table["metric"].str.endswith(f"_cause{cause}")]
        assert len(rows) == 2 + 4 * len(HORIZONS) + 2
        assert (rows["low"] < rows["value"]).all() and (rows["value"] < rows["high"]).all()
        assert (rows["n_events"] == (known["death_cause"] == cause).sum()).all()
        values = rows.set_index(["metric", "horizon"])["value"]
        predicted = trained[0].predict_tasks(X, HORIZONS)["death"].loc[known.index]
        outcome = trained[0].tasks_["death"].outcome(known)
        expected = metrics.brier_score_cause(
            outcome, outcome, predicted[f"incidence_{cause}_24"].to_numpy(), 24.0, cause=cause
        )
        assert values[f"brier_score_cause{cause}", 24.0] == pytest.approx(expected)
        expected = metrics.concordance_index_cause(
            outcome["cause"], outcome["time"], predicted[f"risk_{cause}"], cause=cause
        )
        assert values[f"concordance_index_cause{cause}"].item() == pytest.approx(expected)
        assert values[f"index_of_prediction_accuracy_cause{cause}", 24.0] > 0.05
    assert trained[0].score(X, y) > 0.65


def test_models_are_compared_scored_and_pickled(trained):
    model, X, y = trained
    test, truth = cohort(150, 2)
    other = fitted(X * [0.0, 1.0], y, max_epochs=2)
    table = compare(model, other, test, truth, metrics=["brier_score_cause2"], horizons=(24,), n_resamples=50)
    assert table["difference"].lt(0).all() and table["n_events"].lt(len(truth)).all()
    scorers = make_scorers(truth, horizons=HORIZONS)
    assert set(scorers) == {f"death_{name}" for name in CompetingRisksTask.scores}
    for name, scorer in scorers.items():
        value = scorer(model, test, truth)
        assert np.isfinite(value) and (value < 0) == ("brier" in name)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.predict(test), model.predict(test))


def test_the_reference_of_its_skill_is_the_training_cohort(trained):
    model, X, y = trained
    test, truth = cohort(150, 2)
    task = model.tasks_["death"]
    times, incidence = metrics.cumulative_incidence(task.outcome(y.dropna()))
    flat = 1 - metrics.step_values(times, 1 - incidence[0], [12.0])
    given = pd.DataFrame({"risk_1": 0.0, "incidence_1_12": flat[0]}, index=test.index)
    table = evaluate_predictions(
        {"death": given}, truth, horizons=(12,), n_resamples=0, training_outcomes=model.training_outcomes_
    ).set_index("metric")["value"]
    assert table["index_of_prediction_accuracy_cause1"] == pytest.approx(0, abs=1e-12)


def test_with_one_cause_it_is_the_survival_task():
    X, y = cohort(120, rates=(0.05,), effects=(1.0,))
    survival = y.rename(columns={"death_cause": "death_event"})
    models = fitted(X, y, max_epochs=5), fitted(X, survival, max_epochs=5)
    found, expected = (model.predict_tasks(X, HORIZONS)["death"] for model in models)
    np.testing.assert_allclose(found[["incidence_1_12", "incidence_1_24"]], 1 - expected[list(HORIZONS)], atol=1e-5)
    tables = [
        evaluate(model, X, target, horizons=HORIZONS, n_resamples=0).set_index(["metric", "horizon"])["value"]
        for model, target in zip(models, (y, survival), strict=True)
    ]
    for (metric, horizon), value in tables[0].items():
        assert value == pytest.approx(tables[1][metric.removesuffix("_cause1"), horizon], abs=1e-4), metric


def test_splits_hold_events_of_every_cause():
    _, y = cohort(80)
    y = y.dropna()
    y["death_cause"] = np.where(np.arange(len(y)) < 3, 2.0, y["death_cause"].clip(upper=1))
    for seed in range(5):
        for rows in stratified_holdout(y, 0.1, random_state=seed):
            assert set(y["death_cause"].iloc[rows]) >= {1.0, 2.0}
    folds = [y["death_cause"].iloc[test].eq(2).sum() for _, test in CohortKFold(3, random_state=0).split(y, y)]
    assert max(folds) - min(folds) <= 1


def test_the_columns_are_found_by_their_names_and_hold_codes():
    _, y = cohort(30)
    (task,) = find_tasks(y).values()
    assert task == CompetingRisksTask("death", ("death_time", "death_cause"))
    (learned,) = check_target(y, fitting=True).values()
    assert learned.classes == (1, 2) and learned.head_arguments() == (2,)
    outcome = task.outcome(y)
    assert outcome["cause"][1] == y["death_cause"].iloc[1] and np.isnan(outcome["time"][0])
    check_target(y.astype({"death_cause": "Int64"}))

    def with_causes(values):
        return y.assign(death_cause=values)

    for wrong, error, said in (
        (with_causes(np.where(y["death_cause"] == 2, "cancer", "other")), TypeError, "Give every label a code"),
        (with_causes(y["death_cause"] / 2), ValueError, r"whole numbers.*got \[0.5\]"),
        (with_causes(y["death_cause"] - 1), ValueError, r"got \[-1.0\] in rows"),
        (with_causes(y["death_cause"].replace(2, 99)), ValueError, "At most 5 causes are possible; merge rare ones"),
        (
            with_causes(y["death_cause"].mask(y["death_cause"] == 2)),
            ValueError,
            "only one of 'death_time' and 'death_c",
        ),
        (y.assign(death_time=-y["death_time"]), ValueError, "'death_time' is negative"),
        (y[["death_time"]], ValueError, r"without 'death_cause' \(competing_risks\) or 'death_event' \(survival\)"),
        (y.assign(death_event=1.0), ValueError, "belongs to two tasks"),
    ):
        with pytest.raises(error, match=said):
            check_target(wrong)
    with pytest.raises(ValueError, match="'death' has no event among 26 patients"):
        check_target(with_causes(y["death_cause"] * 0), fitting=True)
    with pytest.warns(UserWarning, match=r"no patient has an event of the causes \[2\]"):
        check_target(with_causes(y["death_cause"].replace(2, 3)), fitting=True)
    with pytest.warns(UserWarning, match="are taken as months"):
        check_target(y.assign(death_time=y["death_time"] * 1000))


def test_labels_of_a_category_need_codes():
    _, y = cohort(30)
    labels = y["death_cause"].map({0: "alive", 1: "cancer", 2: "other"}).astype("category")
    with pytest.raises(TypeError, match="Give every label a code"):
        check_target(y.assign(death_cause=labels))
    codes = y["death_cause"].astype("category")
    found, expected = (find_tasks(y)["death"].outcome(table)["cause"] for table in (y.assign(death_cause=codes), y))
    np.testing.assert_array_equal(found, expected)


def test_a_report_draws_the_incidence_with_the_mean_prediction():
    X, y = cohort(60)
    incidence = true_incidence(cause_specific_rates(X["clinical_x"].to_numpy()), [12.0])
    given = pd.DataFrame({"risk_1": incidence[:, 0, 0], "incidence_1_12": incidence[:, 0, 0]}, index=X.index)
    options = {"horizons": (12,), "n_resamples": 10, "by": None}
    caption = "<figcaption>death, cumulative incidence (Aalen-Johansen)"
    text = report({"a": {"death": given}, "b": {"death": given}}, X, y, **options)
    assert all(f"{caption}, and mean prediction of {model}.</figcaption>" in text for model in "ab")
    text = report({"a": {"death": given[["risk_1"]]}, "b": {"death": given[["risk_1"]]}}, X, y, **options)
    assert text.count(f"{caption}.</figcaption>") == 1


def test_it_describes_patients():
    X, y = cohort(30)
    task = find_tasks(y)["death"]
    sizes = y["death_cause"].value_counts()
    rows = task.describe(y)
    assert rows["events of cause 2"] == f"{sizes[2]} ({sizes[2] / 30:.0%})" and "median follow-up, months" in rows
    assert f"{sizes[1]} events of cause 1" in task.count(task.outcome(y))
    assert task.effective_size(task.outcome(y)) == min(sizes[1], sizes[2])


def test_predictions_at_hand_are_read_by_name():
    X, y = cohort(100)
    incidence = true_incidence(cause_specific_rates(X["clinical_x"].to_numpy()), [12.0, 24.0])
    given = pd.DataFrame(
        {f"incidence_{k + 1}_{h}": incidence[:, k, j] for k in (1, 0) for j, h in ((1, "24.0"), (0, "12"))},
        index=X.index,
    ).assign(risk_2=incidence[:, 1, 1], risk_1=incidence[:, 0, 1], note="x")
    table = evaluate_predictions({"death": given}, y, horizons=HORIZONS, n_resamples=0).set_index(["metric", "horizon"])
    outcome = find_tasks(y)["death"].outcome(y.dropna())
    known = y["death_cause"].notna().to_numpy()
    expected = metrics.brier_score_cause(outcome, outcome, incidence[known, 1, 0], 12.0, cause=2)
    assert table.loc[("brier_score_cause2", 12.0), "value"] == pytest.approx(expected)
    alone = evaluate_predictions({"death": given[["risk_1"]]}, y, n_resamples=0)["metric"]
    assert list(alone) == ["concordance_index_cause1", "concordance_index_ipcw_cause1"]
    short = given.assign(incidence_1_12=np.where(X.index == "P0-1", np.nan, given["incidence_1_12"]))
    table = evaluate_predictions({"death": short}, y, horizons=(12,), n_resamples=0).set_index("metric")
    row = table.loc["brier_score_cause1"]
    assert np.isnan(row["value"]) and "end before 12" in row["note"]
    for wrong, said in (
        (given.drop(columns="risk_1"), "need a column 'risk_<cause>' for every cause from 1"),
        (given.assign(risk_1=np.nan), "risks of 'death' are NaN or infinite"),
        (given.assign(incidence_1_12=1.5), "cumulative incidences between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate_predictions({"death": wrong}, y, n_resamples=0)


def test_the_cause_among_the_features_is_refused_even_with_other_values():
    X, y = cohort(30)
    with pytest.raises(ValueError, match=r"X holds outcomes: \['death_cause'\]"):
        check_cohort(X.assign(death_cause=0.5), y)
