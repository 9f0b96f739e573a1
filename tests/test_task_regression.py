"""Numbers as a task: found by name, learned in standardised units, predicted in their own, scored with intervals."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from mmdls import MMDLS, Trainer, evaluate
from mmdls.cohort import check_target, find_tasks
from mmdls.evaluation import compare, evaluate_predictions, make_scorers
from mmdls.parts import Part
from mmdls.report import report
from mmdls.tasks import RegressionTask
from tests.simulated_outcomes import draw_values

METRICS = ["r2", "mean_absolute_error", "root_mean_squared_error", "spearman_correlation"]


def cohort(n=150, seed=0, mean=3000.0, slope=500.0, noise=250.0):
    """A number with R2 = 0.8, of which some are unknown."""
    signal, value = draw_values(n, seed, mean=mean, slope=slope, noise=noise)
    ids = [f"P{seed}-{k}" for k in range(n)]
    X = pd.DataFrame({"clinical_x": signal, "clinical_noise": np.random.default_rng(9).normal(size=n)}, index=ids)
    y = pd.DataFrame({"fev_value": value}, index=ids)
    y.iloc[::7] = np.nan
    return X, y


def fitted(X, y, loss="squared", max_epochs=60, **options):
    trainer = Trainer(max_epochs=max_epochs, learning_rate=0.02, validation_fraction=0)
    heads = {"regression": Part("regression", loss=loss)}
    return MMDLS(heads=heads, trainer=trainer, random_state=0, dropout=0.0).fit(X, y, **options)


@pytest.fixture(scope="module")
def trained():
    X, y = cohort()
    return fitted(X, y), X, y


def test_it_is_learned_and_evaluated_in_its_own_unit(trained):
    model, _, _ = trained
    X, y = cohort(300, 1)
    value = model.predict(X)["fev"]
    known = y["fev_value"].notna().to_numpy()
    truth = y["fev_value"][known]
    assert r2_score(truth, value[known]) > 0.65
    assert abs(value.mean() - 3000) < 150 and 300 < value.std() < 700
    table = evaluate(model, X, y, n_resamples=200, random_state=0).set_index("metric")
    assert list(table.index) == METRICS
    assert table.loc["r2", "value"] == pytest.approx(r2_score(truth, value[known]))
    assert table.loc["mean_absolute_error", "value"] == pytest.approx((truth - value[known]).abs().mean())
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert (table["n"] == known.sum()).all()
    assert 0.9 < model.score(X, y) < 1  # (1 + Spearman) / 2


def test_targets_are_standardised_on_the_training_rows_and_the_unit_does_not_matter(trained):
    model, X, y = trained
    task = model.tasks_["fev"]
    known = y["fev_value"].dropna().to_numpy()
    assert (task.mean, task.std) == (known.mean(), known.std())
    (target,) = task.targets(known)
    assert target.mean() == pytest.approx(0, abs=1e-12) and target.std() == pytest.approx(1)
    litres = fitted(X, y / 1000)
    pd.testing.assert_frame_equal(litres.predict(X) * 1000, model.predict(X), rtol=1e-4)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X))


def test_a_patient_of_weight_0_is_not_there(trained):
    X, y = trained[1:]
    weight = np.ones(len(X))
    weight[:40] = 0.0
    wild = y.copy()
    wild.iloc[:40] = 1e6
    model, expected = fitted(X, wild, max_epochs=3, sample_weight=weight), fitted(X[40:], y[40:], max_epochs=3)
    assert model.tasks_["fev"] == expected.tasks_["fev"]


def test_the_huber_loss_of_a_part_resists_extreme_values():
    X, y = cohort()
    wrong = np.flatnonzero(X["clinical_x"] > 1.5)
    y.iloc[wrong] = -20_000.0
    test, truth = cohort(300, 1)
    slopes = []
    for loss in ("squared", "huber"):
        value = fitted(X, y, loss).predict(test)["fev"]
        middle = test["clinical_x"].abs() < 1
        slopes.append(np.polyfit(test["clinical_x"][middle], value[middle], 1)[0])
    assert abs(slopes[1] - 500) < abs(slopes[0] - 500)


def test_models_of_scikit_learn_are_evaluated_and_compared(trained):
    model, X, y = trained
    known = y["fev_value"].notna()
    linear = LinearRegression().fit(X[known], y["fev_value"][known])
    test, truth = cohort(200, 2)
    table = evaluate(linear, test, truth, n_resamples=0)
    assert list(table["metric"]) == METRICS and table["task"].eq("fev").all()
    difference = compare(model, linear, test, truth, metrics=["r2"], n_resamples=50, random_state=0)
    assert difference["n"].eq(truth["fev_value"].notna().sum()).all()
    scorers = make_scorers(truth)
    assert set(scorers) == {f"fev_{name}" for name in METRICS}
    assert scorers["fev_mean_absolute_error"](model, test, truth) < 0 < scorers["fev_r2"](model, test, truth)


def test_predictions_at_hand_are_read_by_name():
    _, y = cohort(50)
    value = y["fev_value"].fillna(0.0) + 10.0
    for given in (value, value.to_frame("value"), value.to_frame("value").assign(other="x")):
        table = evaluate_predictions({"fev": given}, y, n_resamples=0).set_index("metric")["value"]
        assert table["mean_absolute_error"] == pytest.approx(10)
    for given, said in (
        (value.to_frame("fev"), "need a column 'value'"),
        (value.where(value > 3000).to_frame("value"), "NaN or infinite for the patients"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate_predictions({"fev": given}, y, n_resamples=0)


def test_the_likelihood_ratio_is_that_of_linear_regressions():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(80, 2))
    values = 3 + scores @ [1.0, 0.5] + rng.normal(size=80)
    task = RegressionTask("fev", ("fev_value",))
    statistic, coefficients = task.association(values, [pd.DataFrame({"value": column}) for column in scores.T])
    model = LinearRegression().fit(scores, values)
    errors = values - model.predict(scores), values - values.mean()
    fitted_one, constant = (norm.logpdf(error, scale=error.std()).sum() for error in errors)
    assert statistic == pytest.approx(2 * (fitted_one - constant))
    np.testing.assert_allclose(coefficients, model.coef_)
    for same in (values, scores[:, 0]):
        statistic, coefficients = task.association(values, [pd.DataFrame({"value": same})] * 2)
        assert np.isnan(statistic) and np.isnan(coefficients).all()


@pytest.mark.parametrize("models", [1, 2])
def test_a_report_draws_observed_against_predicted(models):
    X, y = cohort(60)
    value = (y["fev_value"] + 10.0).fillna(0.0).to_frame("value")
    text = report({f"model {k}": {"fev": value} for k in range(models)}, X, y, n_resamples=10, by=None)
    assert text.count("<figcaption>fev, observed against predicted, with R2.</figcaption>") == 1


def test_the_column_is_found_by_its_name_and_holds_numbers():
    _, y = cohort(20)
    (task,) = find_tasks(y).values()
    assert task == RegressionTask("fev", ("fev_value",)) and task.kind == "regression"
    for dtype in ("Float64", "float32", object):
        check_target(y.astype(dtype))
    check_target(y.round().astype("Int64"))
    for wrong, said in (
        (y.astype(object).fillna("unknown"), r"'fev_value' must hold numbers.* got mixed"),
        (y.astype(str), "must hold numbers.* got string"),
        (y > 3000, "got boolean such as"),
        (y.apply(pd.to_datetime), "got datetime64"),
    ):
        with pytest.raises(TypeError, match=said):
            check_target(wrong)
    with pytest.raises(ValueError, match=r"infinite in rows \['P0-1'\]"):
        check_target(y.assign(fev_value=np.where(y.index == "P0-1", np.inf, y["fev_value"])))
    with pytest.raises(ValueError, match="known values, all the same"):
        check_target(y * 0 + 5, fitting=True)


def test_a_number_under_another_name_is_refused_with_the_name_that_it_needs():
    _, y = cohort(30)
    with pytest.raises(ValueError, match="a number to predict is called '<name>_value'"):
        check_target(y.rename(columns={"fev_value": "fev"}), fitting=True)
