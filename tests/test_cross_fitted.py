"""Image embeddings beside the tables: no patient is embedded by a network that learned its outcomes."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from mmdls import ClinicalCox, TabularEncoder, compare_models, create
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort
from mmdls.zoo import CrossFittedEmbeddings, OneModelPerTask


class Memory(BaseEstimator):
    """A network that knows its training rows by heart and says something at random of others."""

    def __init__(self, certain=5.0):
        self.certain = certain

    def fit(self, X, y, groups=None):
        self.tasks_ = find_tasks(y)
        self.seen_, self.groups_ = y, groups
        return self

    def predict_tasks(self, X, times):
        rng = np.random.default_rng(len(self.seen_))
        tables = {}
        for name, task in self.tasks_.items():
            told = pd.Series(rng.normal(size=len(X)), X.index)
            known = self.seen_.index.intersection(X.index)
            if task.is_censored:
                told[known] = self.certain * self.seen_.loc[known, f"{name}_event"].astype(float)
                tables[name] = told.to_frame("risk")
                continue
            second = (self.seen_.loc[known, name] == task.classes[1]).astype(float)
            told[known] = self.certain * (2 * second - 1)
            share = 1 / (1 + np.exp(-told))
            tables[name] = pd.DataFrame({task.classes[0]: 1 - share, task.classes[1]: share})
        return tables


def cohort(n=200, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"clinical_a": rng.normal(size=n), "clinical_b": rng.normal(size=n)}, [f"P{i}" for i in range(n)])
    X["ct_image"] = pd.Series([np.zeros((1, 8, 8), np.uint8)] * n, X.index, dtype=object)
    hazard = np.exp(signal * X["clinical_a"])
    y = pd.DataFrame({"kind": np.where(signal * X["clinical_a"] + rng.normal(size=n) > 0, "b", "a")}, X.index)
    return X, y.assign(os_time=rng.exponential(20 / hazard) + 0.1, os_event=rng.random(n) < 0.7)


def linear():
    classifier = make_pipeline(TabularEncoder(), LogisticRegression())
    return OneModelPerTask([("survival", ClinicalCox(columns="all")), ("nominal", classifier)])


def test_a_training_row_is_embedded_by_the_network_that_did_not_learn_it():
    X, y = cohort()
    model = CrossFittedEmbeddings(Memory(certain=1e3), linear()).fit(X, y)
    learned = np.array([X.index.isin(network.seen_.index) for network in model.networks_])
    assert (learned.sum(axis=0) == 2).all()
    for network, (mean, deviation), known in zip(model.networks_, model.scales_, learned, strict=True):
        told = network.predict_tasks(X[~known][["ct_image"]], [])
        expected = np.column_stack([np.log(told["kind"]["b"]), told["os"]["risk"]])
        np.testing.assert_allclose(model.embeddings_[~known], (expected - mean.to_numpy()) / deviation.to_numpy())
        np.testing.assert_allclose(model.embeddings_[~known].mean(), 0, atol=1e-9)
        np.testing.assert_allclose(model.embeddings_[~known].std(ddof=0), 1)
    # By a network that knew it, an outcome could be read off.
    assert abs(roc_auc_score(y["kind"] == "b", model.embeddings_.iloc[:, 0]) - 0.5) < 0.15


def test_new_patients_are_embedded_by_the_mean_of_all_networks():
    X, y = cohort()
    new, _ = cohort(30, seed=1)
    new.index = [f"N{i}" for i in range(30)]
    model = CrossFittedEmbeddings(Memory(), linear(), n_splits=4).fit(X, y)
    each = []
    for network, (mean, deviation) in zip(model.networks_, model.scales_, strict=True):
        told = network.predict_tasks(new[["ct_image"]], [])
        each.append((np.column_stack([np.log(told["kind"]["b"]), told["os"]["risk"]]) - [mean]) / [deviation])
    embedded = pd.DataFrame(np.mean(each, axis=0), new.index, ["embedding_0", "embedding_1"])
    table = new.drop(columns="ct_image").join(embedded)
    expected = model.estimator_.predict_tasks(table, [12.0])
    for name, told in model.predict_tasks(new, [12.0]).items():
        pd.testing.assert_frame_equal(told, expected[name])
    np.testing.assert_allclose(model.predict(new)["os"], expected["os"]["risk"])
    np.testing.assert_array_equal(model.risk_cutpoints_["os"], model.estimator_.risk_cutpoints_["os"])


def test_a_network_that_remembers_takes_nothing_from_the_tables():
    X, y = cohort(300)
    train, test = np.arange(200), np.arange(200, 300)
    fitted = CrossFittedEmbeddings(Memory(), linear()).fit(X.iloc[train], y.iloc[train])
    alone = linear().fit(X.drop(columns="ct_image").iloc[train], y.iloc[train])
    truth = y["kind"].iloc[test] == "b"
    own = roc_auc_score(truth, fitted.predict_tasks(X.iloc[test], [])["kind"]["b"])
    tables = roc_auc_score(truth, alone.predict_tasks(X.drop(columns="ct_image").iloc[test], [])["kind"]["b"])
    assert own == pytest.approx(tables, abs=0.02) and tables > 0.7
    # Embedded by a network of all rows, the tables would count for nothing.
    network = Memory().fit(X.iloc[train], y.iloc[train])

    def leaking(rows):
        told = np.log(network.predict_tasks(X.iloc[rows], [])["kind"]["b"])
        return X.drop(columns="ct_image").iloc[rows].assign(embedding_0=told)

    leaked = linear().fit(leaking(train), y.iloc[train])
    assert roc_auc_score(truth, leaked.predict_tasks(leaking(test), [])["kind"]["b"]) < tables - 0.1


def test_rows_that_belong_together_are_in_one_fold_and_networks_are_told():
    X, y = cohort(90)
    groups = pd.Series(np.arange(90) // 3, X.index)
    model = CrossFittedEmbeddings(Memory(), linear()).fit(X, y, groups=groups)
    for network in model.networks_:
        inside = groups[network.seen_.index]
        assert not set(inside) & set(groups.drop(network.seen_.index))
        pd.testing.assert_series_equal(network.groups_, inside)


def test_what_cannot_be_embedded_is_refused():
    X, y = cohort(30)
    with pytest.raises(ValueError, match=r"X has no image to embed; its columns are \['clinical_a', 'clinical_b'\]"):
        CrossFittedEmbeddings(Memory(), linear()).fit(X.drop(columns="ct_image"), y)
    with pytest.raises(ValueError, match="embedding_0"):
        CrossFittedEmbeddings(Memory(), linear()).fit(X.assign(embedding_0=1.0), y)


def test_the_registered_model_answers_all_tasks_and_says_what_was_chosen():
    X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, n_radiomics=4, missing=0.2, return_X_y=True, random_state=0)
    kinds = ("survival", "ordinal", "nominal", "regression")
    halves = np.arange(40), np.arange(40, 60)
    quick = {f"model__estimator__{kind}__n_trials": 1 for kind in kinds}
    model = create("tables_images_linear", model__network__trainer__max_epochs=1, **quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare_models({"both": model}, X, y, cv=[halves], n_resamples=10)
    assert set(found.predictions["both"]) == set(find_tasks(y))
    assert {"os: alpha", "stage: logisticregression__C"} <= set(found.fits["chosen"][0])
    assert ("both", "os") in found.risk_groups
