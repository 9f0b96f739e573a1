"""scikit-learn's own checks of every estimator.

The checks know plain labels and plain arrays only. Estimators that need more are checked in a shell that changes the
input and nothing else: labels become a structured survival array, a row of numbers becomes a slice, and the task of
``MMDLS.predict_proba`` is named. What cannot hold is listed with its reason and must fail.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks
from sklearn.utils.validation import _num_samples, check_array, check_is_fitted, validate_data
from sksurv.util import Surv

import mmdls.estimators as shelf
from mmdls import Part, Trainer
from mmdls.estimators.encoders._bag_encoder import BagEncoder
from mmdls.kernels import info
from mmdls.registry import estimators


def survival_of(y):
    """Labels as times, in their order, all with an event; anything else as it is."""
    labels = None if y is None else np.asarray(y)
    if labels is None or labels.dtype.names or labels.dtype.kind in "US":
        return y
    labels = labels.astype(float)
    return Surv.from_arrays(np.ones(len(labels), dtype=bool), 1.0 + labels.ravel() - labels.min())


class OfLabels:
    """A survival estimator that takes labels."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X, survival_of(y), sample_weight)

    def score(self, X, y):
        return super().score(X, survival_of(y))


class ClinicalCox(OfLabels, shelf.ClinicalCox):
    pass


class RadiomicsCox(OfLabels, shelf.RadiomicsCox):
    pass


class Unweighted(OfLabels):
    """One that refuses weights, so that none are checked."""

    def fit(self, X, y):
        return shelf_fit(self, X, survival_of(y))


def shelf_fit(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is fitted here; that it does not converge is no news
        return super(OfLabels, model).fit(X, y)


class CoxNet(Unweighted, shelf.CoxNet):
    pass


class SurvivalForest(OfLabels, shelf.SurvivalForest):
    pass


class SignWeightedBagging(OfLabels, shelf.SignWeightedBagging):
    pass


class SurvivalBoosting(Unweighted, shelf.SurvivalBoosting):
    pass


class MultimodalSurvival(OfLabels, shelf.MultimodalSurvival):
    def fit(self, X, y, sample_weight=None):
        return shelf.MultimodalSurvival.fit(self, X, survival_of(y), sample_weight)


class MMDLS(shelf.MMDLS):
    def predict_proba(self, X, task="label"):
        return super().predict_proba(X, task)


class OfRows:
    """An encoder of images that takes rows of numbers, as one small image each; subclasses say of which shape."""

    def _images(self, X, **how):
        X = validate_data(self, X, dtype=np.float32, **how)
        return pd.DataFrame({"row_image": [np.resize(row, self.shape) for row in np.arctan(X) / np.pi + 0.5]})

    def fit(self, X, y, sample_weight=None):
        self.encoder_ = self.kind(**self.get_params(deep=False))
        self.encoder_.fit(self._images(X), y, sample_weight)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return self.encoder_.transform(self._images(X, reset=False))

    def get_feature_names_out(self, input_features=None):
        return self.encoder_.get_feature_names_out()


class SliceEncoder(OfRows, shelf.SliceEncoder):
    kind, shape = shelf.SliceEncoder, (1, 8, 8)


class VolumeEncoder(OfRows, shelf.VolumeEncoder):
    kind, shape = shelf.VolumeEncoder, (4, 8, 8)


class VectorBagEncoder(shelf.VectorBagEncoder):
    """Rows of numbers as bags of one vector each."""

    def _bags(self, X, **how):
        return pd.DataFrame({"row_vectors": list(validate_data(self, X, dtype=np.float32, **how))})

    def fit(self, X, y, sample_weight=None):
        self.encoder_ = shelf.VectorBagEncoder(**self.get_params(deep=False))
        self.encoder_.fit(self._bags(X), y, sample_weight)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return self.encoder_.transform(self._bags(X, reset=False))

    def get_feature_names_out(self, input_features=None):
        return self.encoder_.get_feature_names_out()


class ComBat(shelf.ComBat):
    """All columns of rows whose centre follows from their place in ``fit``, and from their first number afterwards."""

    def _chosen(self, table):
        return list(table.columns)

    def fit(self, X, y=None):
        return super().fit(X, site=np.arange(_num_samples(X)) % 2)

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def transform(self, X):
        first = np.atleast_2d(np.asarray(X, dtype=float))[:, 0]
        return super().transform(X, site=np.nan_to_num(first) % 1 < 0.5)


class StabilityFilter(shelf.StabilityFilter):
    """Rows that are measured again with small errors."""

    def fit(self, X, y=None):
        values = check_array(X, dtype=float, ensure_all_finite="allow-nan", ensure_min_samples=2)
        again = values + 0.01 * np.random.default_rng(0).normal(size=values.shape)
        return super().fit(X, repeats=[pd.DataFrame(v, columns=getattr(X, "columns", None)) for v in (values, again)])


SMALL = {"min_patients": 2, "trainer__max_epochs": 2, "trainer__batch_size": 512, "n_estimators": 5, "random_state": 0}
SMALL["volume_size"] = (4, 8, 8)
LEARNED = {
    "trainer__max_epochs": 40,
    "trainer__learning_rate": 0.01,
    "trainer__validation_fraction": 0.0,
    "hidden_features": 16,
}


def shrunk(kind):
    model = kind()
    small = SMALL | (LEARNED if kind is shelf.MultimodalClassifier else {})
    known = model.get_params(deep=True)
    return model.set_params(**{name: value for name, value in small.items() if name in known})


SHELLS = {
    "clinical_cox": ClinicalCox,
    "radiomics_cox": RadiomicsCox,
    "coxnet": CoxNet,
    "survival_forest": SurvivalForest,
    "sign_weighted_bagging": SignWeightedBagging,
    "survival_boosting": SurvivalBoosting,
    "multimodal_survival": MultimodalSurvival,
    "mmdls": MMDLS,
    "slice_encoder": SliceEncoder,
    "volume_encoder": VolumeEncoder,
    "combat": ComBat,
    "stability_filter": StabilityFilter,
    "vector_bag_encoder": VectorBagEncoder,
}
# They read volumes and masks, never rows of numbers; mmdls.testing.check_estimator checks them.
VOLUMES_ONLY = {"lung_lesion_segmentor", "pet_features", "radiomics_extractor"}
MODELS = [shrunk(SHELLS.get(name, estimators[name])) for name in estimators if name not in VOLUMES_ONLY]
MODELS += [shelf.VarianceFilter(), shelf.CorrelationFilter(), shelf.SignWeightedClassifier(random_state=0)]


WEIGHTS = "TabularEncoder scales, and validation rows and dropout are drawn, by rows and not by weights; float32"
TIES = "Efron's correction counts tied deaths, not weights; with ties='breslow' a weight is a repetition (below)"
DRAWS = "each tree or member draws rows by their weights, and a repeated cohort draws others"
ROUNDING = "torch's float32 convolution rounds at 1e-6, depending on the slices beside it; the check asks for 1e-7"


def expected_failures(model):
    failures = {}
    if isinstance(model, shelf.MMDLS | shelf.MultimodalClassifier | shelf.MultimodalSurvival | BagEncoder):
        failures["check_sample_weight_equivalence_on_dense_data"] = WEIGHTS
    if isinstance(model, shelf.ClinicalCox | shelf.RadiomicsCox):
        failures["check_sample_weight_equivalence_on_dense_data"] = TIES
    if isinstance(model, shelf.SurvivalForest | shelf.SignWeightedBagging | shelf.SignWeightedClassifier):
        failures["check_sample_weight_equivalence_on_dense_data"] = DRAWS
    if isinstance(model, VolumeEncoder) or (isinstance(model, SliceEncoder) and info().way in ("plain", "nnpack")):
        failures["check_methods_subset_invariance"] = ROUNDING
    return failures


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(MODELS, expected_failed_checks=expected_failures, xfail_strict=True)
def test_check_estimator(estimator, check):
    check(estimator)


def test_every_estimator_is_checked():
    checked = {type(model).__name__ for model in MODELS}
    assert {estimators[name].__name__ for name in estimators if name not in VOLUMES_ONLY} <= checked


@pytest.mark.parametrize("name", [name for name, shell in SHELLS.items() if issubclass(shell, OfLabels)])
def test_without_its_shell_a_survival_estimator_refuses_labels(name):
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    with pytest.raises(ValueError, match="structured array"):
        shrunk(estimators[name]).fit(X, y)


def test_without_its_shell_a_slice_encoder_refuses_arrays():
    with pytest.raises(TypeError, match="X must be a pandas DataFrame with one row a patient; got ndarray"):
        shelf.SliceEncoder().fit(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)


@pytest.mark.parametrize("kind", [shelf.MultimodalClassifier, shelf.MultimodalSurvival, MMDLS])
def test_a_weight_is_a_repetition_where_nothing_is_drawn_by_rows(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, size=40)
    weight = rng.integers(0, 4, size=40)
    if kind is shelf.MultimodalSurvival:
        y = Surv.from_arrays(y == 1, rng.exponential(size=40))
    model = kind(
        table_encoder=shelf.TabularEncoder(scale=None, linear=False),
        n_members=1,
        dropout=0.0,
        fusion=Part("gated", dropout=0.0),
        modality_dropout=0.0,
        trainer=Trainer(validation_fraction=0.0, max_epochs=8, batch_size=512),
        # Repeated rows are tied, and Efron's correction counts ties, not weights.
        heads={"survival": Part("cox", ties="breslow")} if kind is shelf.MultimodalSurvival else None,
        random_state=0,
    )
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = clone(model).fit(X.repeat(weight, axis=0), y.repeat(weight))
    plain = clone(model).fit(X, y)

    def answer(model):
        if kind is shelf.MultimodalSurvival:  # a constant in all log hazards means nothing
            return model.predict(X) - model.predict(X).mean()
        return model.predict_proba(X)[:, 1]

    same = np.abs(answer(weighted) - answer(repeated)).max()
    other = np.abs(answer(weighted) - answer(plain)).max()
    assert same < 1e-3 and same < 0.02 * other


@pytest.mark.parametrize("kind", [shelf.MultimodalClassifier, shelf.MultimodalSurvival, shelf.MMDLS])
def test_a_table_may_follow_an_array_and_columns_go_by_place(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2)), rng.integers(0, 2, size=30)
    if kind is shelf.MultimodalSurvival:
        y = survival_of(y)
    model = shrunk(kind).fit(X, y)
    table = pd.DataFrame(X, columns=["clinical_age", "clinical_diameter"])
    with pytest.warns(UserWarning, match="X has feature names, but"):
        answer = model.predict(table)
    np.testing.assert_array_equal(np.asarray(answer), np.asarray(model.predict(X)))
    with pytest.raises(ValueError, match="features"):
        model.predict(X[:, :1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [ClinicalCox, RadiomicsCox])
def test_a_weight_is_a_repetition_with_ties_of_breslow(kind):
    check_sample_weight_equivalence_on_dense_data(kind.__name__, kind(ties="breslow"))
