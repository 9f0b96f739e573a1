"""scikit-learn's and scikit-survival's own tools on a cohort of image paths, two endpoints and missing cells."""

import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.metrics import (
    as_concordance_index_ipcw_scorer,
    as_cumulative_dynamic_auc_scorer,
    as_integrated_brier_score_scorer,
    concordance_index_censored,
)

from mmdls import Trainer
from mmdls.cohort import survival_target
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import (
    MMDLS,
    ClinicalCox,
    MultimodalClassifier,
    MultimodalSurvival,
    SliceEncoder,
    TabularEncoder,
)
from mmdls.estimators.columns._screening import CorrelationFilter, VarianceFilter
from mmdls.evaluation import make_scorers
from mmdls.model_selection import CohortKFold
from mmdls.registry import backbones, fusions

TASKS = ["dfs_time", "dfs_event", "os_time", "os_event"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Paths to folders of PNG slices, missing modalities, missing clinical and PET cells, two endpoints."""
    cohort = make_nsclc_cohort(
        60,
        n_slices=(1, 3),
        image_size=16,
        n_radiomics=6,
        missing=0.1,
        missing_values=0.1,
        folder=tmp_path_factory.mktemp("cohort"),
        random_state=1,
    )
    X, y = cohort.data, cohort.target
    assert X["lesion_image"].dropna().map(lambda cell: Path(cell).is_dir()).all()
    assert X["lesion_image"].isna().any() and X.filter(like="clinical_").isna().any(axis=None)
    return X, y


@pytest.fixture(scope="module")
def folds(cohort):
    X, y = cohort
    return list(CohortKFold(3, on=("os", "stage"), random_state=0).split(X, y))


def quick(kind, **params):
    """A model small enough for tests."""
    quiet = {
        "n_members": 2,
        "hidden_features": 8,
        "trainer": Trainer(max_epochs=2, validation_fraction=0.0),
        "random_state": 0,
    }
    if "modalities" not in params:
        quiet["image_encoder"] = small_encoder()
    return kind(**(quiet | params))


def small_encoder(**params):
    quiet = {"embedding_dim": 4, "trainer": Trainer(max_epochs=2, validation_fraction=0), "random_state": 0}
    return SliceEncoder(**(quiet | params))


def modalities():
    return [
        ("lesion", small_encoder(), ["lesion_image"]),
        ("clinical", TabularEncoder(), "clinical"),
        ("pet", TabularEncoder(), "pet"),
    ]


def test_cross_validate_with_a_scorer_for_every_task_and_metric(cohort, folds):
    X, y = cohort
    scorers = make_scorers(y, horizons=(12, 36))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small folds: some metrics say that they cannot be known
        found = cross_validate(quick(MMDLS), X, y, cv=folds, scoring=scorers, error_score="raise")
    assert {f"test_{name}" for name in scorers} < set(found)
    for endpoint in ("dfs", "os"):
        assert np.isfinite(found[f"test_{endpoint}_concordance_index"]).all()
        assert (
            (found[f"test_{endpoint}_concordance_index"] >= 0) & (found[f"test_{endpoint}_concordance_index"] <= 1)
        ).all()
    assert (found["test_stage_log_loss"] < 0).all()
    fitted = quick(MMDLS).fit(X.iloc[folds[0][0]], y.iloc[folds[0][0]])
    test = folds[0][1]
    outcome = survival_target(y.iloc[test], "os")
    expected = concordance_index_censored(outcome["event"], outcome["time"], fitted.predict(X.iloc[test])["os"])[0]
    assert found["test_os_concordance_index"][0] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [MMDLS, MultimodalSurvival])
@pytest.mark.parametrize("parameter", ["lesion__backbone", "image_encoder__backbone"])
def test_a_backbone_is_searched_by_its_name(cohort, folds, kind, parameter):
    X, y = cohort
    model = quick(kind, **({"modalities": modalities()} if parameter.startswith("lesion") else {}))
    if kind is MultimodalSurvival:
        model.set_params(endpoint="os")
    search = GridSearchCV(
        model,
        {parameter: ["conv", "resnet10"]},
        scoring=make_scorers(y)["os_concordance_index"],
        cv=folds[:2],
        error_score="raise",
    ).fit(X, y[TASKS])
    best = search.best_estimator_
    assert best.get_params()[parameter] == search.best_params_[parameter]
    networks = [encoder.network_.backbone for name, encoder, _ in best.modalities_ if name in ("lesion", "lung")]
    assert {type(network) for network in networks} == {backbones[search.best_params_[parameter]]}
    assert len(search.predict(X)) == len(X)


def test_a_pipeline_of_tables_ends_in_a_model(cohort, folds):
    X, y = cohort
    fill = ColumnTransformer(
        [("pet", SimpleImputer(), make_column_selector("^pet_"))],
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    model = make_pipeline(fill.set_output(transform="pandas"), quick(MMDLS))
    train, test = folds[0]
    model.fit(X.iloc[train], y.iloc[train])
    answer = model.predict(X.iloc[test])
    assert answer.index.equals(X.index[test])
    by_hand = quick(MMDLS)
    filled = X.copy()
    pet = [c for c in X.columns if c.startswith("pet_")]
    filled[pet] = X[pet].fillna(X.iloc[train][pet].mean())
    filled = filled[pet + [c for c in X.columns if c not in pet]]
    expected = by_hand.fit(filled.iloc[train], y.iloc[train]).predict(filled.iloc[test])
    pd.testing.assert_frame_equal(answer, expected)


@pytest.mark.parametrize(
    "last",
    [CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[0.05]), CoxPHSurvivalAnalysis(alpha=1.0)],
    ids=["net", "ridge"],
)
def test_encoders_in_a_column_transformer_feed_scikit_survival(cohort, folds, last):
    X, y = cohort
    outcome = survival_target(y, "os")
    embed = ColumnTransformer(
        [
            ("lesion", small_encoder(), ["lesion_image"]),
            ("lung", small_encoder(), ["lung_image"]),
            ("clinical", TabularEncoder(), make_column_selector("^clinical_")),
            ("pet", TabularEncoder(), make_column_selector("^pet_")),
        ]
    )
    model = Pipeline([("embed", embed), ("impute", SimpleImputer()), ("cox", last)])
    train, test = folds[0]
    risk = clone(model).fit(X.iloc[train], outcome[train]).predict(X.iloc[test])
    assert risk.shape == test.shape and np.isfinite(risk).all() and risk.std() > 0
    fitted = clone(model).fit(X.iloc[train], outcome[train])
    np.testing.assert_array_equal(fitted.predict(X.iloc[test]), risk)
    names = fitted[:-2].get_feature_names_out()
    assert {"lesion__lesion_embedding_000", "lung__lung_embedding_003", "clinical__clinical_age"} <= set(names)
    scores = cross_validate(model, X, outcome, cv=folds, error_score="raise")["test_score"]
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    ("transformer", "block"),
    [
        (TabularEncoder(), "clinical_"),
        (small_encoder(), "lesion_"),
        (quick(MMDLS), ""),
        (VarianceFilter(), "radiomics_"),
        (CorrelationFilter(), "radiomics_"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_set_output_pandas(cohort, transformer, block):
    X, y = cohort
    X = X[[c for c in X.columns if c.startswith(block)]]
    if block == "radiomics_":
        X = X.fillna(X.median())
    transformer = clone(transformer)
    plain = transformer.fit(X, y).transform(X)
    table = transformer.set_output(transform="pandas").transform(X)
    assert isinstance(plain, np.ndarray) and isinstance(table, pd.DataFrame)
    assert table.index.equals(X.index)
    assert list(table.columns) == list(transformer.get_feature_names_out())
    np.testing.assert_array_equal(table.to_numpy(), plain)
    fresh = clone(transformer).fit_transform(X, y)
    assert isinstance(fresh, pd.DataFrame) and list(fresh.columns) == list(table.columns)


class Recorded(ClinicalCox):
    """A Cox regression that keeps the patients it was fitted on."""

    def fit(self, X, y, groups=None):
        self.seen_ = set(X.index)
        return super().fit(X, y, groups=groups)


def test_groups_reach_the_splitter(cohort):
    X, y = cohort
    person = pd.Series(np.arange(len(X)) // 3, index=X.index)
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_validate(
            Recorded(endpoint="os"),
            X,
            y,
            cv=CohortKFold(3, on=("os",), random_state=0),
            params={"groups": person},
            return_estimator=True,
            return_indices=True,
            error_score="raise",
        )
        search = GridSearchCV(
            Recorded(endpoint="os"), {"alpha": [0.1, 1.0]}, cv=CohortKFold(3, random_state=0), error_score="raise"
        ).fit(X, y, groups=person)
    for model, test in zip(found["estimator"], found["indices"]["test"], strict=True):
        assert not set(person[list(model.seen_)]) & set(person.iloc[test])
    assert search.best_params_["alpha"] in (0.1, 1.0)


def test_without_routing_groups_are_an_argument_as_ever(cohort):
    X, y = cohort
    person = np.arange(len(X)) // 3
    found = cross_validate(
        Recorded(endpoint="os"), X, y, cv=CohortKFold(3, random_state=0), groups=person, return_indices=True
    )
    for test in found["indices"]["test"]:
        inside = np.isin(person, person[test])
        assert inside.sum() == len(test)


@pytest.mark.parametrize("kind", [MMDLS, MultimodalSurvival])
def test_sample_weight_is_routed_to_fit(cohort, folds, kind):
    X, y = cohort
    y = y[["os_time", "os_event"]]
    weight = np.linspace(0.1, 3.0, len(X))
    scorer = make_scorers(y)["os_concordance_index"]
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(kind).set_fit_request(sample_weight=True)
        routed = cross_validate(
            model,
            X,
            y,
            cv=folds[:1],
            scoring={"c": scorer},
            params={"sample_weight": weight},
            return_estimator=True,
            error_score="raise",
        )["estimator"][0]
        piped = make_pipeline(FrozenEstimator(Passed()), model).fit(X, y, sample_weight=weight)
    train, test = folds[0]
    by_hand = quick(kind).fit(X.iloc[train], y.iloc[train], sample_weight=weight[train])
    unweighted = quick(kind).fit(X.iloc[train], y.iloc[train])
    answers = [np.asarray(m.predict(X.iloc[test]), dtype=float).ravel() for m in (routed, by_hand, unweighted)]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-6
    whole = quick(kind).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(np.asarray(piped.predict(X), dtype=float), np.asarray(whole.predict(X), dtype=float))


class Passed(SimpleImputer):
    """A step that changes nothing."""

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("kind", [MMDLS, MultimodalSurvival])
def test_clone_copies_parameters_and_nothing_fitted(cohort, kind):
    X, y = cohort
    model = quick(kind, modalities=modalities())
    if kind is MultimodalSurvival:
        model.set_params(endpoint="os")
    model.set_params(lesion__pooling="gated_attention", pet__scale="standard").fit(X, y)
    copy = clone(model)
    assert repr(copy.get_params()) == repr(model.get_params())
    assert copy.get_params()["lesion__pooling"] == "gated_attention"
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert copy.get_params()["lesion"] is not model.get_params()["lesion"]
    assert not hasattr(model.get_params()["lesion"], "network_"), "fit must not fit the encoders it was given"
    with pytest.raises(NotFittedError):
        copy.predict(X)


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_stored_model_answers_the_same(cohort, tmp_path, way):
    X, y = cohort
    model = quick(MMDLS, modalities=modalities()).fit(X, y)
    path = tmp_path / "model"
    if way == "pickle":
        path.write_bytes(pickle.dumps(model))
        copy = pickle.loads(path.read_bytes())
    else:
        joblib.dump(model, path)
        copy = joblib.load(path)
    pd.testing.assert_frame_equal(copy.predict(X), model.predict(X))
    np.testing.assert_array_equal(copy.transform(X), model.transform(X))
    for endpoint in ("dfs", "os"):
        np.testing.assert_array_equal(
            copy.predict_survival_function(X, endpoint, return_array=True),
            model.predict_survival_function(X, endpoint, return_array=True),
        )
    pd.testing.assert_frame_equal(clone(copy).fit(X, y).predict(X), model.predict(X))


def test_two_processes_answer_like_one(cohort, folds):
    X, y = cohort
    scoring = {name: scorer for name, scorer in make_scorers(y).items() if name.endswith("_concordance_index")}
    runs = [
        cross_validate(
            quick(MMDLS, modalities=modalities()), X, y, cv=folds[:2], scoring=scoring, n_jobs=n, error_score="raise"
        )
        for n in (1, 2)
    ]
    for name in scoring:
        np.testing.assert_allclose(runs[0][f"test_{name}"], runs[1][f"test_{name}"], atol=1e-12)


def test_out_of_fold_predictions_of_a_classifier(cohort):
    X, y = cohort
    model = quick(MultimodalClassifier)
    out_of_fold = cross_val_predict(model, X, y["subtype"].astype(str), cv=3, method="predict_proba")
    assert out_of_fold.shape == (len(X), 2)
    np.testing.assert_allclose(out_of_fold.sum(axis=1), 1, atol=1e-6)


WRAPPERS = {
    "ipcw": as_concordance_index_ipcw_scorer,
    "auc": as_cumulative_dynamic_auc_scorer,
    "brier": as_integrated_brier_score_scorer,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_scikit_survival_wraps_and_scores(cohort, folds, wrapper):
    X, y = cohort
    outcome = survival_target(y, "os")
    # Grid points that every fold has seen in training and in test.
    times = np.percentile(outcome["time"][outcome["event"]], [25, 40, 55])
    settings = {"tau": times[-1]} if wrapper == "ipcw" else {"times": times}
    wrapped = WRAPPERS[wrapper](quick(MultimodalSurvival, modalities=modalities()), **settings)
    search = GridSearchCV(
        wrapped,
        {"estimator__lesion__backbone": ["conv"], "estimator__dropout": [0.0, 0.3]},
        cv=folds[:2],
        error_score="raise",
    ).fit(X, outcome)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    if wrapper == "brier":
        assert ((scores <= 0) & (scores > -0.6)).all()
    else:
        assert ((scores >= 0) & (scores <= 1)).all()
    assert search.predict(X).shape == (len(X),)


def test_permutation_importance_by_column_of_the_table(cohort):
    X, y = cohort
    model = quick(MMDLS, modalities=[("clinical", TabularEncoder(), "clinical")])
    model.set_params(trainer__max_epochs=40, trainer__learning_rate=0.01)
    columns = ["clinical_age", "clinical_diameter", "centre", "lesion_image"]
    model.fit(X, y)
    shown = X[[*[c for c in X.columns if c.startswith("clinical_")], "centre", "lesion_image"]]
    found = permutation_importance(model, shown, y, n_repeats=3, random_state=0)
    importance = dict(zip(shown.columns, found.importances_mean, strict=True))
    assert importance["centre"] == 0 and importance["lesion_image"] == 0
    assert max(importance.values()) > 0.01
    assert set(columns) <= set(importance)


def test_a_frozen_encoder_stays_as_it_is_inside_a_model(cohort, folds):
    X, y = cohort
    train, test = folds[0]
    slices = small_encoder().fit(X.iloc[train][["lesion_image"]], y.iloc[train])
    table = TabularEncoder().fit(X.iloc[train].filter(like="clinical_"))
    before = slices.transform(X.iloc[test][["lesion_image"]])
    fill = table.fill_.copy()
    model = quick(
        MMDLS,
        modalities=[
            ("lesion", FrozenEstimator(slices), ["lesion_image"]),
            ("clinical", FrozenEstimator(table), "clinical"),
        ],
    ).fit(X.iloc[test], y.iloc[test])
    assert np.isfinite(model.predict(X)[["dfs", "os"]].to_numpy()).all()
    np.testing.assert_array_equal(slices.transform(X.iloc[test][["lesion_image"]]), before)
    inside = {name: encoder for name, encoder, _ in model.modalities_}
    np.testing.assert_array_equal(inside["clinical"].fill_, fill)
    np.testing.assert_array_equal(inside["lesion"].transform(X.iloc[test][["lesion_image"]]), before)
    without = X.assign(lesion_image=None)
    lost = X["lesion_image"].isna().to_numpy()
    now, then = model.predict(without)["os"].to_numpy(), model.predict(X)["os"].to_numpy()
    np.testing.assert_allclose(now[lost], then[lost], atol=1e-6)
    assert (now[~lost] != then[~lost]).any()


def test_a_class_that_no_training_patient_had_is_left_out_of_the_score(cohort):
    X, y = cohort[0].filter(regex="clinical_|pet_"), cohort[1][["stage", "subtype"]].astype(str)
    early = (y["stage"] != "IV").to_numpy()
    model = MMDLS(trainer=Trainer(max_epochs=2), random_state=0).fit(X[early], y[early])
    with pytest.warns(UserWarning, match=r"\d+ patients have a stage that no training patient had, \['IV'\]"):
        found = model.score(X, y)
    alone = [model.score(X, y[["subtype"]].assign(stage=None)), model.score(X[early], y[early].assign(subtype=None))]
    assert found == pytest.approx(np.mean(alone))


def test_blocks_and_tasks_may_be_called_what_modules_are_called():
    """Names are the user's: those of PyTorch's own methods, and names with a point, are names like others."""
    X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, n_radiomics=2, return_X_y=True, random_state=0)
    X = X.rename(columns={"clinical_age": "type_age", "pet_suvmax": "half_suv", "lesion_image": "T.1_image"})
    X = X[["type_age", "half_suv", "T.1_image"]]
    y = y.rename(columns={"subtype": "type", "stage": "T.stage"})
    for fusion in fusions:
        model = MMDLS(fusion=fusion, trainer=Trainer(max_epochs=1), random_state=0).fit(X, y)
        assert model.predict_proba(X, "T.stage").shape == (40, 3)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict_proba(X, "type"), model.predict_proba(X, "type"))


def test_predictions_are_arrays_that_the_caller_may_change(cohort):
    X, y = cohort
    X = X.filter(like="clinical_")
    model = quick(MMDLS).fit(X, y)
    label = quick(MultimodalClassifier).fit(X, y["subtype"])
    death = quick(MultimodalSurvival, endpoint="os").fit(X, y)
    for answer in (
        model.predict_proba(X, "stage"),
        model.predict_survival_function(X, "os", return_array=True),
        model.transform(X),
        label.predict_proba(X),
        death.predict(X),
        death.predict_cumulative_hazard_function(X, return_array=True),
    ):
        assert answer.flags.writeable
