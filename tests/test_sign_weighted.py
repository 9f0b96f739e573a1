"""Sign-weighted bagging: signs, members, scores out of bag, and curves that follow from these."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored

from mmdls import SignWeightedBagging, SignWeightedClassifier, TabularEncoder, create
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators.survival._sign_weighted import _SignWeightedCox


def simulated(n=400, effects=(1.0, -1.0, 0.5, -0.5), noise=0, seed=0):
    """Columns with known effects on the hazard, then columns without."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(effects) + noise))
    time = rng.exponential(20 * np.exp(-X[:, : len(effects)] @ effects))
    censored = rng.exponential(60, size=n)
    y = np.array(list(zip(time < censored, np.minimum(time, censored), strict=True)), dtype="?,f8")
    y.dtype.names = ("event", "time")
    return X, y


def table(X, y, block="clinical"):
    index = [f"P{i}" for i in range(len(X))]
    outcome = pd.DataFrame({"os_time": y["time"], "os_event": y["event"]}, index)
    return pd.DataFrame(X, index, [f"{block}_{i}" for i in range(X.shape[1])]), outcome


def test_one_member_is_the_mean_of_standardised_columns_with_the_signs_of_their_concordance():
    X, y = simulated(noise=2)
    model = _SignWeightedCox(n_estimators=1, max_features=1.0, max_correlation=1.0, random_state=3).fit(X, y)
    drawn = np.random.RandomState(3).multinomial(400, np.full(400, 1 / 400))
    rows = np.arange(400).repeat(drawn)
    signs = [np.sign(concordance_index_censored(y["event"][rows], y["time"][rows], x)[0] - 0.5) for x in X[rows].T]
    np.testing.assert_allclose(model.coef_, np.array(signs) / 6)
    score = ((X - X.mean(axis=0)) / X.std(axis=0)) @ signs / 6
    np.testing.assert_allclose(model.predict(X), model.slope_ * score)
    np.testing.assert_array_equal(np.isnan(model.out_of_bag_), drawn > 0)
    np.testing.assert_allclose(model.out_of_bag_[drawn == 0], score[drawn == 0])


def test_signs_of_simulated_effects_are_recovered_and_noise_weighs_less():
    X, y = simulated(noise=12)
    coef = _SignWeightedCox(random_state=0).fit(X, y).coef_
    assert (np.sign(coef[:4]) == [1, -1, 1, -1]).all()
    # A column of noise has either sign in some members.
    assert np.abs(coef[:4]).min() > 1.5 * np.abs(coef[4:]).mean()


def test_a_monotone_change_of_a_column_keeps_its_signs_and_the_unit_of_a_column_means_nothing():
    X, y = simulated(noise=2)
    how = {"max_correlation": 1.0, "random_state": 0}  # correlations see more than order
    model = _SignWeightedCox(**how).fit(X, y)
    curved = np.column_stack([np.exp(2 * X[:, 0]), X[:, 1:]])
    np.testing.assert_array_equal(_SignWeightedCox(**how).fit(curved, y).coef_, model.coef_)
    scaled = X * [2.0, 100.0, 1e-3, 1.0, 5.0, 1.0] + 7
    np.testing.assert_allclose(_SignWeightedCox(**how).fit(scaled, y).predict(scaled), model.predict(X))
    turned = X * [-1, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(_SignWeightedCox(**how).fit(turned, y).predict(turned), model.predict(X))


def test_of_columns_that_say_the_same_a_member_keeps_one_at_random():
    X, y = simulated()
    copies = np.column_stack([X, X[:, [0]], X[:, [0]] + 1e-3 * X[:, [1]]])
    model = _SignWeightedCox(n_estimators=300, max_features=1.0, random_state=0).fit(copies, y)
    each = model.coef_[[0, 4, 5]]
    np.testing.assert_allclose(each.sum(), 0.25)
    assert (each > 0.05).all()
    np.testing.assert_allclose(model.coef_[1:4], [-0.25, 0.25, -0.25], atol=0.005)


def test_weak_columns_may_be_left_out_and_what_does_not_vary_is():
    X, y = simulated(effects=(1.0, -1.0), noise=10)
    X = np.column_stack([X, np.full(len(X), 0.1)])
    coef = _SignWeightedCox(min_concordance=0.6, max_features=1.0, random_state=0).fit(X, y).coef_
    np.testing.assert_allclose(coef, [0.5, -0.5] + 11 * [0], atol=0.02)
    assert _SignWeightedCox(random_state=0).fit(X, y).coef_[-1] == 0


def test_a_row_is_scored_out_of_bag_without_its_outcome():
    X, y = simulated(n=80, noise=20)
    changed = y.copy()
    changed[7] = (~y["event"][7], 500.0)
    models = [_SignWeightedCox(n_estimators=60, random_state=0).fit(X, outcome) for outcome in (y, changed)]
    scores = np.array([model.out_of_bag_ for model in models])
    assert scores[0, 7] == scores[1, 7]
    assert (scores[0] != scores[1]).mean() > 0.5
    assert models[0].predict(X[[7]]) != models[1].predict(X[[7]])


def test_curves_are_those_of_a_cox_regression_on_the_scores_out_of_bag():
    X, y = simulated(n=150, noise=30)
    model = _SignWeightedCox(random_state=0).fit(X, y)
    oracle = CoxPHSurvivalAnalysis(ties="efron", alpha=0.01).fit(model.out_of_bag_[:, None], y)
    assert model.slope_ == pytest.approx(oracle.coef_[0], rel=1e-5)
    score = model.predict(X)[:, None] / model.slope_
    expected = np.vstack([f(oracle.unique_times_) for f in oracle.predict_survival_function(score)])
    np.testing.assert_allclose(model.predict_survival_function(X), expected, rtol=1e-4)
    # Scores of rows that the members drew would promise more than they keep.
    own = CoxPHSurvivalAnalysis().fit(score, y)
    assert own.coef_[0] > 1.3 * model.slope_


def test_new_patients_have_the_slope_that_is_promised():
    slopes = []
    for seed in range(8):
        X, y = simulated(n=400, effects=(0.5, -0.4, 0.3), noise=30, seed=seed)
        model = _SignWeightedCox(n_estimators=100, random_state=0).fit(X[:200], y[:200])
        slopes.append(CoxPHSurvivalAnalysis().fit(model.predict(X[200:])[:, None], y[200:]).coef_[0])
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.15)


def test_where_patients_out_of_bag_contradict_the_scores_all_curves_are_the_same():
    X, y = simulated(n=60, effects=(0.0,), noise=10, seed=5)
    model = _SignWeightedCox(random_state=0).fit(X, y)
    assert CoxPHSurvivalAnalysis().fit(model.out_of_bag_[:, None], y).coef_[0] < 0
    curves = model.predict_survival_function(X)
    assert np.ptp(curves, axis=0).max() < 1e-3
    # The order is kept, and told apart by other libraries too.
    expected = concordance_index_censored(y["event"], y["time"], model._scores(X))[:3]
    assert concordance_index_censored(y["event"], y["time"], model.predict(X))[:3] == expected


def test_rows_of_one_patient_are_drawn_together():
    X, y = simulated(n=60, noise=4)
    twice = np.arange(60).repeat(2)
    model = _SignWeightedCox(n_estimators=3, random_state=0).fit(X[twice], y[twice], groups=twice)
    unknown = np.isnan(model.out_of_bag_).reshape(60, 2)
    assert unknown.any() and (unknown[:, 0] == unknown[:, 1]).all()
    frame, outcome = table(X[twice], y[twice])
    fitted = SignWeightedBagging(columns="clinical", random_state=0, n_estimators=3).fit(frame, outcome, groups=twice)
    np.testing.assert_array_equal(np.isnan(fitted.pipeline_[-1].out_of_bag_), unknown.ravel())


def test_more_members_are_asked_for_if_no_event_is_out_of_bag():
    X, y = simulated(n=30)
    y["event"] = np.arange(30) == 4
    with pytest.raises(ValueError, match="of the 1 patients with an event none was left out .* give more n_estimators"):
        for seed in range(10):
            _SignWeightedCox(n_estimators=1, random_state=seed).fit(X, y)
    labels = np.arange(30) == 4
    with pytest.raises(ValueError, match="some class has no row that was left out .* give more n_estimators"):
        for seed in range(10):
            SignWeightedClassifier(n_estimators=1, random_state=seed).fit(X, labels)


def test_a_table_with_categories_and_gaps():
    X, y = make_nsclc_cohort(90, n_slices=1, image_size=8, missing_values=0.1, return_X_y=True, random_state=0)
    model = SignWeightedBagging(columns="all", endpoint="os", random_state=0).fit(X, y)
    names = list(model.pipeline_[0].get_feature_names_out())
    assert len(names) == len(model.pipeline_[-1].coef_) and not [name for name in names if name.endswith("_missing")]
    assert model.score(X, y) > 0.6


# -- classes -----------------------------------------------------------------------------------------------------------


def test_classes_by_the_auc_of_the_second_or_of_each_against_the_rest():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6))
    three = X[:, :3].argmax(axis=1)
    model = SignWeightedClassifier(random_state=0).fit(X, three)
    assert model.coef_.shape == (6, 3) and model.out_of_bag_.shape == (300, 3)
    assert (np.sign(model.coef_[:3]) == 2 * np.eye(3) - 1).all()
    two = np.array(["low", "up"])[(X[:, 0] - X[:, 1] > 0).astype(int)]
    model = SignWeightedClassifier(random_state=0).fit(X, two)
    assert model.coef_.shape == (6, 1) and (np.sign(model.coef_[:2, 0]) == [1, -1]).all()
    assert model.classes_.tolist() == ["low", "up"]
    oracle = LogisticRegression(C=100).fit(model.out_of_bag_, two)
    score = ((X - X.mean(axis=0)) / X.std(axis=0)) @ model.coef_
    np.testing.assert_allclose(model.predict_proba(X), oracle.predict_proba(score), rtol=1e-4)


def test_a_label_does_not_reach_the_score_of_its_own_row():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 10)), rng.integers(0, 3, 60)
    changed = y.copy()
    changed[5] = (y[5] + 1) % 3
    scores = [SignWeightedClassifier(random_state=0).fit(X, labels).out_of_bag_ for labels in (y, changed)]
    np.testing.assert_array_equal(scores[0][5], scores[1][5])
    assert (scores[0] != scores[1]).any(axis=1).sum() > 30


def test_labels_of_noise_have_the_shares_of_the_classes():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(200, 40)), rng.random(200) < 0.3
    told = SignWeightedClassifier(random_state=0).fit(X, y).predict_proba(rng.normal(size=(500, 40)))[:, 1]
    assert told.mean() == pytest.approx(y.mean(), abs=0.05) and told.std() < 0.1


# -- the registered model ----------------------------------------------------------------------------------------------


def test_the_model_of_all_tables_is_one_bagging_a_task():
    X, y = make_nsclc_cohort(90, n_slices=1, image_size=8, n_radiomics=6, return_X_y=True, random_state=0)
    fitted = create("tables_sign_weighted").fit(X, y)
    told = fitted[-1].predict_tasks(fitted[0].transform(X), [12.0])
    tables = fitted[0].transform(X)
    alone = SignWeightedBagging(columns="all", endpoint="os", random_state=0).fit(tables, y)
    np.testing.assert_allclose(told["os"]["risk"], alone.predict(tables))
    classes = make_pipeline(TabularEncoder(add_indicator=False), SignWeightedClassifier(random_state=0))
    codes = pd.Categorical(y["subtype"], ["LUAD", "LUSC"]).codes
    np.testing.assert_allclose(told["subtype"], classes.fit(tables, codes).predict_proba(tables))
    assert set(told) == {"subtype", "stage", "dfs", "os"}
