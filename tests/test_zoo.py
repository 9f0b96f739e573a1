"""Registered models, and comparisons of models out of fold: the same folds for all, nothing learned from test rows."""

import html
import inspect
import warnings
from importlib.metadata import EntryPoint

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis

import mmdls
from mmdls import MMDLS, ClinicalCox, TabularEncoder, Trainer, compare_models, create, list_models
from mmdls.cohort import find_tasks, survival_target
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators.survival._risk_groups import risk_group
from mmdls.evaluation import evaluate_predictions
from mmdls.model_selection import CohortKFold
from mmdls.registry import Registry, models, tasks
from mmdls.report import report
from mmdls.zoo import EmbeddingSearch, LateFusion, OneModelPerTask, SelectInputs
from mmdls.zoo._embedding_search import FirstFold
from mmdls.zoo._folds import splits_of
from mmdls.zoo._inputs import columns_of, missing_inputs
from mmdls.zoo._tables import mean_auc


@pytest.fixture(scope="module")
def small():
    cohort = make_nsclc_cohort(90, n_slices=1, image_size=8, n_radiomics=6, random_state=0)
    return cohort.data, cohort.target


@pytest.fixture(scope="module")
def tables(small):
    X, y = small
    return X[[c for c in X.columns if c.startswith(("clinical_", "pet_", "radiomics_"))]], y


class Memory(ClassifierMixin, BaseEstimator):
    """Knows every training row by heart, and nothing else."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = dict(zip(X.index, y, strict=True))
        return self

    def predict_proba(self, X):
        rng = np.random.default_rng(0)
        noise = rng.dirichlet(np.ones(len(self.classes_)), len(X))
        known = [np.eye(len(self.classes_))[self.seen_[i]] if i in self.seen_ else None for i in X.index]
        return np.array([row if row is not None else noise[k] for k, row in enumerate(known)])


def compared(*arguments, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* different warnings while they were fitted")
        return compare_models(*arguments, **{"cv": 2, "n_resamples": 20} | options)


@pytest.fixture(scope="module")
def found(tables):
    given = {"age": make_pipeline(SelectInputs(["clinical"]), ClinicalCox()), "all": ClinicalCox(columns="all")}
    return compared({**given, "memory": Memory()}, *tables, reference="age")


# -- the catalogue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(models))
def test_a_registered_model_is_documented_creatable_and_cloneable(name, small):
    X, _ = small
    recipe = models[name]
    about = inspect.getdoc(recipe).partition("\n")[0]
    assert about.endswith(".") and len(about) <= 70
    assert set(recipe.tasks) <= set(tasks) and recipe.tasks
    model = create(name)
    assert clone(model).get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")], "it is fitted"
    assert repr(model)
    assert not missing_inputs(model, X)
    for each in recipe.inputs:
        without = X.drop(columns=columns_of(X, each))
        if isinstance(getattr(model, "steps", [(0, 0)])[0][1], SelectInputs) and name != "late_fusion":
            assert each in missing_inputs(model, without)


def test_models_are_found_by_name_task_and_input():
    everything = list_models()
    assert list(everything.index) == list(models)
    assert list(list_models("*_linear").index) == [name for name in models if name.endswith("_linear")]
    assert "clinical_cox" in list_models(task="survival").index
    assert "clinical_cox" not in list_models(task="nominal").index
    pet = list_models(input="pet").index
    assert {"pet_linear", "tables_linear", "mmdls", "published_network"} <= set(pet)
    assert not {"clinical_linear", "imaging_network"} & set(pet)
    assert {"imaging_network", "published_network"} <= set(list_models(input="images").index)
    assert list_models("nothing_like_it").empty


def test_what_is_misspelt_is_answered_with_the_closest():
    with pytest.raises(KeyError, match="Did you mean 'clinical_linear'"):
        create("clinical_liner")
    with pytest.raises(KeyError, match="Did you mean 'survival'"):
        list_models(task="survivl")
    with pytest.raises(KeyError, match="Did you mean 'radiomics'"):
        list_models(input="radiomic")
    with pytest.raises(ValueError, match="Invalid parameter 'alhpa'"):
        create("clinical_cox", alhpa=1.0)
    assert create("clinical_linear", model__survival__n_trials=3).get_params()["model__survival__n_trials"] == 3


def test_a_model_of_another_package_is_listed_and_one_that_cannot_be_imported_is_named(monkeypatch):
    class Coin:
        """A coin."""

        tasks, inputs = ("nominal",), ()

        @staticmethod
        def build():
            return DummyClassifier()

    own = Registry("models", "mmdls.zoo", ["build"])
    own.register("coin")(Coin)
    monkeypatch.setattr("mmdls.zoo._catalogue.models", own)
    assert list_models().loc["coin"].tolist() == ["any", "nominal", "A coin."]
    entry = EntryPoint("broken", "no_such_package:Model", "mmdls.models")
    own.__dict__["_plugins"] = {"broken": [entry]}
    listed = list_models()
    assert listed.loc["coin", "about"] == "A coin." and "no_such_package" in listed.loc["broken", "about"]


def test_selected_inputs(small):
    X, _ = small
    kept = SelectInputs(["tables"]).fit_transform(X).columns
    assert {c.partition("_")[0] for c in kept} == {"clinical", "pet", "radiomics"}
    assert set(SelectInputs(["images"]).fit_transform(X)) == {"lesion_image", "lung_image"}
    with_vectors = X.assign(slide_vectors=None)
    assert SelectInputs(["tables"]).fit_transform(with_vectors).columns.equals(kept)
    assert set(SelectInputs(["slide"]).fit_transform(with_vectors)) == {"slide_vectors"}
    with pytest.raises(ValueError, match=r"reads the inputs \['pet'\]; X has no pet"):
        SelectInputs(["pet"]).fit(X[["clinical_age"]])


def test_all_blocks_of_a_comparator(tables):
    X, y = tables
    model = ClinicalCox(columns="all", endpoint="os").fit(X, y)
    assert list(model.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="reads all blocks of numbers or categories, and X has none"):
        ClinicalCox(columns="all", endpoint="os").fit(X[[]].assign(centre="A"), y)
    with pytest.raises(ValueError, match="or be 'all'"):
        ClinicalCox(columns=(), endpoint="os").fit(X, y)


# -- one model a task --------------------------------------------------------------------------------------------------


def test_one_model_per_task_is_each_model_alone(tables):
    X, y = tables
    y = y.astype({"os_event": object})
    y.loc[y.index[::7], ["os_time", "os_event"]] = np.nan
    both = OneModelPerTask([("survival", ClinicalCox()), ("nominal", RandomForestClassifier(5, random_state=0))])
    X = X[["clinical_age", "pet_suvmax"]]
    both.fit(X, y)
    alone = ClinicalCox(endpoint="os").fit(X, y)
    told = both.predict_tasks(X, [12.0, 36.0])
    np.testing.assert_allclose(told["os"]["risk"], alone.predict(X))
    np.testing.assert_array_equal(both.risk_cutpoints_["os"], alone.risk_cutpoints_["os"])
    assert list(told) == ["subtype", "dfs", "os"] and list(told["subtype"]) == ["LUAD", "LUSC"]
    assert set(both.predict(X)["subtype"]) == {"LUAD", "LUSC"}
    assert both.set_params(survival__alpha=9.0).models[0][1].alpha == 9.0
    with pytest.raises(TypeError, match="needs a classifier; got ClinicalCox"):
        OneModelPerTask([("nominal", ClinicalCox())]).fit(X, y)
    with pytest.raises(ValueError, match="the models answer tasks of the kinds"):
        OneModelPerTask([("nominal", DummyClassifier())]).fit(X, y[["os_time", "os_event"]])


def test_a_model_of_scikit_survival_gets_its_array_and_risk_groups(tables):
    X, y = tables
    X, y = X[["clinical_age", "clinical_diameter"]].fillna(0), y[["os_time", "os_event"]]
    model = OneModelPerTask([("survival", CoxPHSurvivalAnalysis())]).fit(X, y)
    alone = CoxPHSurvivalAnalysis().fit(X, survival_target(y, "os"))
    np.testing.assert_allclose(model.predict(X)["os"], alone.predict(X))
    sizes = np.bincount(risk_group(alone.predict(X), model.risk_cutpoints_["os"]))
    assert sizes.tolist() == [30, 30, 30]


def test_a_class_that_no_training_row_has_gets_probability_zero(tables):
    X, y = tables
    model = OneModelPerTask([("ordinal", DummyClassifier())]).fit(X, y[y["stage"] != "III"].reindex(y.index))
    told = model.predict_tasks(X, [])["stage"]
    assert list(told) == ["I-II", "III", "IV"] and told["III"].eq(0).all()


def test_numbers_are_predicted_as_numbers_and_by_linear_models(tables):
    X, y = tables
    y = pd.DataFrame({"dose_value": 3 * X["clinical_age"] + X["pet_suvmax"].fillna(0)})
    model = OneModelPerTask([("regression", make_pipeline(TabularEncoder(), Ridge()))]).fit(X, y)
    assert np.corrcoef(model.predict(X)["dose"], y["dose_value"])[0, 1] > 0.9
    linear = create("tables_linear", model__regression__n_trials=2)
    found = compared({"tables": linear, "cox": "clinical_cox"}, X, y)
    value = found.scores.set_index(["model", "metric"])["value"]
    assert value["tables", "r2"] > 0.8
    assert found.scores["note"][found.scores["model"] == "cox"].tolist() == ["does not answer regression tasks"]


# -- comparisons -------------------------------------------------------------------------------------------------------


def test_every_patient_is_left_out_once_and_all_models_meet_the_same_folds(found, tables):
    X, y = tables
    assert found.folds.value_counts().tolist() == [45, 45]
    for own in found.predictions.values():
        for table in own.values():
            assert list(table.index) == list(X.index)
    assert set(found.predictions["age"]) == {"dfs", "os"}
    assert set(found.predictions["memory"]) == {"subtype", "stage"}
    train = found.folds != 0
    by_hand = ClinicalCox(endpoint="os").fit(X[train], y[train])
    told = found.predictions["age"]["os"][~train]
    np.testing.assert_allclose(told["risk"], by_hand.predict(X[~train]))
    np.testing.assert_array_equal(told["group"].cat.codes, by_hand.predict_risk_group(X[~train]))
    assert found.risk_groups["age", "os"].cat.categories.tolist() == ["low", "middle", "high"]


def test_what_knows_its_training_rows_by_heart_is_at_chance(found):
    auc = found.scores.set_index(["model", "task", "metric"]).loc["memory"].loc[:, "auc", :]
    assert (auc["low"] < 0.5).all() and (auc["high"] > 0.5).all()


def test_scores_and_differences_are_those_of_the_evaluation(found, tables):
    _, y = tables
    own = evaluate_predictions(found.predictions["all"], y, folds=found.folds, n_resamples=20)
    scores = found.scores[(found.scores["model"] == "all") & (found.scores["metric"] != "")].reset_index(drop=True)
    np.testing.assert_allclose(scores["value"], own["value"])
    np.testing.assert_allclose(scores["low"], own["low"])
    values = found.scores[found.scores["horizon"].isna()].set_index(["model", "task", "metric"])["value"]
    for row in found.differences.itertuples():
        assert row.model == "all" and row.reference == "age" and row.metric == "concordance_index"
        difference = values["all", row.task, row.metric] - values["age", row.task, row.metric]
        assert row.difference == pytest.approx(difference)
    assert (found.differences["p_holm"] >= found.differences["p"]).all()


def test_what_a_model_cannot_answer_is_said_in_the_table(found, tables):
    X, y = tables
    said = found.scores[found.scores["metric"] == ""].set_index(["model", "task"])["note"]
    assert said["age", "subtype"] == "does not answer nominal tasks"
    assert said["memory", "os"] == "does not answer survival tasks"
    pattern = ["clinical_cox", "imaging_network", "pet_linear"]
    less = compared(pattern, X[[c for c in X if not c.startswith("pet_")]], y[["os_time", "os_event"]])
    said = less.scores[less.scores["metric"] == ""].set_index(["model", "task"])["note"].to_dict()
    assert said == {("imaging_network", "os"): "X has no images", ("pet_linear", "os"): "X has no pet"}
    assert "X has no images" in str(less) and less.differences.empty
    with pytest.raises(ValueError, match="no model can answer anything"):
        compared(["imaging_network"], X, y)


def test_a_model_of_ones_own_that_answers_no_kind_of_task_of_the_cohort_has_a_row_that_says_so(tables):
    X, y = tables
    y = pd.DataFrame(
        {
            "fev_value": X["clinical_age"] + X.index.str[-1].astype(int),
            "os_time": y["os_time"],
            "os_cause": y["os_event"],
        }
    )
    own = {"cox": ClinicalCox(), "piped": make_pipeline(SelectInputs(["clinical"]), ClinicalCox())}
    own["ridge"] = make_pipeline(TabularEncoder(), Ridge())
    found = compared(own, X, y)
    said = found.scores[found.scores["metric"] == ""].set_index(["model", "task"])["note"]
    assert said.loc[["cox", "piped"], "fev"].eq("does not answer regression tasks").all()
    assert said["ridge", "os"] == "does not answer competing_risks tasks"
    assert list(found.predictions) == ["ridge"] and "cox" in str(found)


def test_the_result_is_a_table_and_a_report(found, tables, tmp_path):
    shown = str(found)
    assert "+0." in shown and shown.count("memory") == len(find_tasks(tables[1]))
    assert all(len(line) <= 100 for line in shown.splitlines())
    text = report(found, *tables, tmp_path / "report.html", n_resamples=20, horizons=(12,))
    assert (tmp_path / "report.html").exists()
    assert "all against age" in text and "memory answers no task of age" in text
    for told in (
        "fitted without the patient's fold (2 in all)",
        "CohortKFold(n_splits=2",
        "seed of the folds",
        "all: columns",
    ):
        assert told in html.unescape(text), told
    rows = len(found.fits)
    assert text.partition("hyperparameters that they chose")[2].count("<tr>") >= rows
    assert "<td>Main model</td>\n      <td>memory</td>" in text and "Subgroups: memory" in text
    changed = report(found, *tables, main="all", n_resamples=20, horizons=(12,))
    assert "<td>Main model</td>\n      <td>all</td>" in changed and "Subgroups: all" in changed
    with pytest.raises(KeyError, match="main='none' is none of the models"):
        report(found, *tables, main="none", n_resamples=0)


def test_an_error_names_the_model_and_the_fold(tables):
    X, y = tables

    class Broken(DummyClassifier):
        def fit(self, X, y):
            raise ZeroDivisionError("no luck")

    with pytest.raises(RuntimeError, match="model 'broken' failed in fold 0: ZeroDivisionError: no luck"):
        compared({"coin": DummyClassifier(), "broken": Broken()}, X, y)


def test_splits_that_leak_are_refused(tables):
    X, y = tables
    half = np.arange(45), np.arange(45, 90)
    with pytest.raises(ValueError, match="fold 0 leaks: 1 rows are in training and test"):
        splits_of([(np.arange(46), np.arange(45, 90))], X, y, None)
    with pytest.raises(ValueError, match="45 rows are left out more than once"):
        splits_of([half, half], X, y, None)
    groups = pd.Series(np.r_[np.arange(45), 44, np.arange(46, 90)], X.index)
    with pytest.raises(ValueError, match=r"the groups \[44\] are in training and test"):
        splits_of([half], X, y, groups)
    with pytest.raises(KeyError, match="reference='none' is none of the models"):
        compared(["clinical_cox"], X, y, reference="none")
    with pytest.raises(KeyError, match="Did you mean 'clinical_cox'"):
        compared(["clinical_cax"], X, y)


def test_groups_stay_together_in_outer_and_inner_folds(tables):
    X, y = tables
    X, y = X[["clinical_age", "clinical_sex"]].assign(patient_id=np.arange(90) // 2), y[["subtype"]]
    met = []

    class Watched(CohortKFold):
        def split(self, X, y, groups=None):
            for train, test in super().split(X, y, groups):
                met.append(set(groups.iloc[train]) & set(groups.iloc[test]))
                yield train, test

    model = create("clinical_linear", model__nominal__n_trials=1, model__nominal__cv=Watched(2))
    found = compared({"linear": model}, X, y, groups="patient_id")
    assert found.folds.groupby(X["patient_id"]).nunique().eq(1).all()
    assert len(met) == 4 and not any(met)


def test_a_part_of_the_patients_may_be_left_out(tables):
    X, y = tables
    split = [(np.arange(60), np.arange(60, 90))]
    found = compared(["clinical_cox"], X, y[["os_time", "os_event"]], cv=split)
    assert list(found.predictions["clinical_cox"]["os"].index) == list(X.index[60:])
    assert found.folds.notna().sum() == 30 and found.fits[["n_train", "n_test"]].values.tolist() == [[60, 30]]


def test_a_cause_of_death_that_one_fold_never_met_has_incidence_0_there(tables):
    X, y = tables
    X = X[["clinical_age", "pet_suvmax"]]
    y = pd.DataFrame({"death_time": y["os_time"], "death_cause": y["os_event"].astype(int)})
    y.loc[y.index[60::4], "death_cause"] = 2
    network = MMDLS(trainer=Trainer(max_epochs=1), random_state=0)
    first, last = np.arange(60), np.arange(60, 90)
    found = compared({"network": network}, X, y, cv=[(first, last), (last, first)])
    told = found.predictions["network"]["death"]
    never = told.iloc[60:][["risk_2", "incidence_2_12"]]  # learned from the first 60, of whom nobody died of cause 2
    assert (never == 0).all(axis=None) and told["incidence_2_12"].iloc[:60].gt(0).all()
    assert set(found.scores["metric"]) >= {"concordance_index_cause1", "concordance_index_cause2"}


# -- models with parts -------------------------------------------------------------------------------------------------


def test_every_classical_model_answers_all_tasks(tables):
    X, y = tables
    model = create("tables_linear", **{f"model__{kind}__n_trials": 2 for kind in ("survival", "ordinal", "nominal")})
    found = compared({"tables": model}, X, y)
    assert set(found.predictions["tables"]) == set(find_tasks(y))
    assert {"os: alpha", "stage: logisticregression__C"} <= set(found.fits["chosen"][0])
    value = found.scores[found.scores["horizon"].isna()].set_index(["task", "metric"])["value"]
    assert value["os", "concordance_index"] > 0.5 and value["subtype", "auc"] > 0.6


def test_a_network_is_tuned_on_embeddings_and_fused_late(small):
    X, y = small
    y = y[["subtype", "os_time", "os_event"]]
    tiny = {"trainer__max_epochs": 1, "hidden_features": 4}
    network = create("multimodal_network")[-1].estimator.set_params(**tiny)
    space = {"dropout": mmdls.search.search_space_of(network)["dropout"]}
    network = EmbeddingSearch(network, space, n_trials=1)
    late = LateFusion(
        [
            ("imaging", make_pipeline(SelectInputs(["images"]), network)),
            ("clinical", make_pipeline(SelectInputs(["clinical"]), OneModelPerTask([("survival", ClinicalCox())]))),
            ("genes", make_pipeline(SelectInputs(["genes"]), ClinicalCox())),
        ]
    )
    found = compared({"network": network, "late": late}, X, y)
    assert set(found.predictions["late"]) == {"subtype", "os"}
    assert set(found.risk_groups.columns) == {("network", "os"), ("late", "os")}
    assert {"imaging: dropout"} <= set(found.fits.set_index("model").loc["late", "chosen"].iloc[0])


def test_late_fusion_joins_endpoints_and_labels_and_no_other_tasks(tables):
    X, y = tables
    y = y[["subtype"]].assign(fev_value=X["clinical_age"] - X["pet_suvmax"].fillna(0))
    late = LateFusion([("only", OneModelPerTask([("nominal", DummyClassifier()), ("regression", DummyRegressor())]))])
    found = compared({"late": late, "linear": make_pipeline(TabularEncoder(), Ridge())}, X, y)
    assert set(found.predictions["late"]) == {"subtype"} and set(found.predictions["linear"]) == {"fev"}
    with pytest.raises(ValueError, match="'nominal'.* can be joined, and y offers {'fev': 'regression'}"):
        late.fit(X, y[["fev_value"]])


def test_a_network_that_is_fused_late_may_lack_a_class_in_its_first_part(tables, monkeypatch):
    X, y = tables
    y = y[["stage"]].assign(stage=y["stage"].astype(str))
    kept, held = np.arange(60), np.arange(60, 90)
    monkeypatch.setattr(FirstFold, "split", lambda *arguments: iter([(kept, held)]))
    y.iloc[kept, 0] = np.where(np.arange(len(kept)) % 2, "I-II", "III")
    y.iloc[held, 0] = np.array(["I-II", "III", "IV"])[np.arange(len(held)) % 3]
    late = LateFusion([("only", OneModelPerTask([("nominal", DummyClassifier())]))])
    told = late.fit(X, y).predict_tasks(X, [])["stage"]
    np.testing.assert_allclose(told.sum(axis=1), 1)
    assert list(told) == ["I-II", "III", "IV"]


def test_a_class_that_a_part_lacks_does_not_end_the_search():
    class Model:
        classes_ = np.array(["I-II", "III", "IV"])

        def predict_proba(self, X):
            return X

    answers = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.65, 0.25, 0.1]])
    truth = pd.Series(["I-II", "I-II", "III", "III"])
    assert mean_auc(Model(), answers, truth) == 0.75
    truth.iloc[2] = "IV"
    assert mean_auc(Model(), answers, truth) == pytest.approx((3 / 4 + 1 / 3 + 1 / 2) / 3)
