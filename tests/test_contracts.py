"""Every registered part keeps its contract, and the contract checks notice those that do not."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mmdls import encoders, registry, testing
from mmdls.estimators import ClinicalCox, MultimodalClassifier
from mmdls.modules import (
    BottleneckFusion,
    CauseSpecificCoxHead,
    ConcatFusion,
    ConvBackbone,
    CoxHead,
    CrossAttentionFusion,
    GatedAttentionPooling,
    LogisticHazardHead,
    MeanPooling,
    RegressionHead,
    TabularNet,
)
from mmdls.registry import Registry, estimators, models
from mmdls.testing import all_parts, check_part
from mmdls.testing._parts import _CHECKS
from mmdls.zoo._inputs import unavailable


def marked(kind, name):
    if name == "radiomics_extractor" and find_spec("fastrad") is None:
        return pytest.param(kind, name, marks=pytest.mark.skip('needs pip install "mmdls[radiomics]"'))
    if kind == "models" and (why := unavailable(models[name].build())):
        return pytest.param(kind, name, marks=pytest.mark.skip(why))
    slow = kind == "models" and name in ("late_fusion", "published_network")  # for seconds
    return pytest.param(kind, name, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("kind", "name"), [marked(*part) for part in all_parts()])
def test_contract(kind, name):
    check_part(kind, name)


def test_every_kind_of_part_has_a_check():
    kinds = {value.kind for value in vars(registry).values() if isinstance(value, Registry)}
    assert kinds == set(_CHECKS)
    assert set(all_parts()) == {(kind, name) for kind in kinds for name in getattr(registry, kind)}


def test_the_registries_hold_what_is_promised():
    assert {"mmdls", "multimodal_classifier", "multimodal_survival", "slice_encoder", "tabular_encoder"} <= set(
        estimators
    )
    assert {"clinical_cox", "radiomics_cox", "coxnet", "survival_forest", "survival_boosting"} <= set(estimators)


class AgeEncoder(encoders.Encoder, BaseEstimator):
    """The first number of a table, and a right encoder."""

    def prepare(self, X, *, n_jobs=None, verbose=0):
        ages = X.select_dtypes("number").iloc[:, :1]
        return encoders.TableData(ages.fillna(0).to_numpy() / 100, ages.notna().to_numpy()[:, 0])

    def build(self, data):
        return TabularNet(1, (4,))


# -- wrong parts, each with one defect that its check must name ---------------------------------------------------


class BatchNormBackbone(ConvBackbone):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        self.norm = nn.BatchNorm2d(64)

    def forward(self, image):
        *fine, coarse = super().forward(image)
        return [*fine, self.norm(coarse)]


class HomemadeBatchNormBackbone(ConvBackbone):
    def forward(self, image):
        maps = super().forward(image)
        return [m - m.mean(dim=(0, 2, 3), keepdim=True) if self.training else m for m in maps]


class CoarseToFineBackbone(ConvBackbone):
    def __init__(self, in_channels=1):
        super().__init__(in_channels, width=4, strides=(2, 2))
        self.out_channels.reverse()

    def forward(self, image):
        return super().forward(image)[::-1]


class MiscountingBackbone(ConvBackbone):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        self.out_channels = [1, 2]


class SecretiveBackbone(ConvBackbone):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        del self.out_channels


class SingleMapBackbone(ConvBackbone):
    def forward(self, image):
        return super().forward(image)[-1]


class IdleBackbone(ConvBackbone):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        self.unused = nn.Linear(2, 2)


class DropoutBackbone(ConvBackbone):
    """Nothing wrong with it: dropout is no batch statistic."""

    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        self.dropout = nn.Dropout2d(0.5)

    def forward(self, image):
        return [self.dropout(m) for m in super().forward(image)]


class PaddedPooling(MeanPooling):
    def forward(self, slices, mask):
        return slices.mean(dim=1)


class LeakyPooling(MeanPooling):
    """Multiplies by the mask: fine until what stands in the padding is not finite."""

    def forward(self, slices, mask):
        return (slices * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


class PaddingCountsPooling(MeanPooling):
    def forward(self, slices, mask):
        return super().forward(slices, mask) * mask.any(dim=1, keepdim=True) / slices.shape[1]


class BatchPooling(MeanPooling):
    def forward(self, slices, mask):
        pooled = super().forward(slices, mask)
        return (pooled - pooled.mean(dim=0)) * mask.any(dim=1, keepdim=True)


class FirstSlicePooling(MeanPooling):
    def forward(self, slices, mask):
        first = torch.zeros_like(mask)
        first[:, :1] = mask[:, :1]
        return super().forward(slices, first)


class GreedyAttentionPooling(GatedAttentionPooling):
    def attention(self, slices, mask):
        return super().attention(slices, mask) * 2


class NothingPooling(MeanPooling):
    """Invents a value for a patient without slices."""

    def forward(self, slices, mask):
        return torch.where(mask.any(dim=1, keepdim=True), super().forward(slices, mask), 1.0)


class PositionPooling(MeanPooling):
    """Later slices weigh more."""

    def forward(self, slices, mask):
        place = 1 + torch.arange(slices.shape[1]) / 10
        return super().forward(slices * place[:, None], mask)


class SeeingFusion(ConcatFusion):
    def forward(self, embeddings, present):
        return super().forward(embeddings, torch.ones_like(present))


class BlindFusion(ConcatFusion):
    def forward(self, embeddings, present):
        return super().forward(embeddings, present & torch.tensor([True, True, False]))


class BatchFusion(ConcatFusion):
    def forward(self, embeddings, present):
        fused = super().forward(embeddings, present)
        return fused - fused.mean(dim=0)


class BatchNormFusion(ConcatFusion):
    def __init__(self, widths, out_features=16):
        super().__init__(widths, out_features)
        self.layers.append(nn.BatchNorm1d(out_features))


class StubbornFusion(ConcatFusion):
    def __init__(self, widths, out_features=16):
        super().__init__(widths, 32)


class SilentFusion(ConcatFusion):
    def __init__(self, widths, out_features=16):
        super().__init__(widths, out_features)
        del self.out_features


class PaddedTokensFusion(CrossAttentionFusion):
    """Takes padding for items."""

    def forward(self, embeddings, present, tokens=None):
        full = {name: (items, torch.ones_like(mask)) for name, (items, mask) in (tokens or {}).items()}
        return super().forward(embeddings, present, full)


class TokenlessFusion(CrossAttentionFusion):
    def forward(self, embeddings, present, tokens=None):
        return super().forward(embeddings, present)


class GhostTokensFusion(BottleneckFusion):
    """Reads the items of an absent modality."""

    def forward(self, embeddings, present, tokens=None):
        heard = sum(items.nan_to_num().mean(dim=(1, 2)) for items, _ in (tokens or {}).values())
        return super().forward(embeddings, present, tokens) + heard[:, None]


class LonelyFusion(ConcatFusion):
    """Needs company."""

    def forward(self, embeddings, present):
        return super().forward(embeddings, present) / (present.shape[1] - 1)


class WrongSignHead(CoxHead):
    def risk(self, parameters):
        return -super().risk(parameters)


class WrongCurveHead(CoxHead):
    def survival_function(self, parameters, time):
        return super().survival_function(-parameters, time)


class RisingHead(CoxHead):
    def survival_function(self, parameters, time):
        return super().survival_function(parameters, time).flip(1)


class ConditionalHead(CoxHead):
    """Curves that do not start at 1."""

    def survival_function(self, parameters, time):
        return super().survival_function(parameters, time) * 0.9


class OrderedHead(CoxHead):
    def loss(self, parameters, event, time, sample_weight=None):
        place = torch.linspace(0, 1, len(parameters))
        return super().loss(parameters, event, time) + (parameters[:, 0] * place).mean() * 0.1


class DisconnectedHead(CoxHead):
    def loss(self, parameters, event, time, sample_weight=None):
        return super().loss(parameters, event, time) if event.any() else torch.tensor(0.0)


class TimelessHead(LogisticHazardHead):
    def fit_baseline(self, parameters, event, time):
        del self.times


class ReversedTimeHead(LogisticHazardHead):
    def fit_baseline(self, parameters, event, time):
        self.times = self.times.flip(0)


class SharelessHead(CauseSpecificCoxHead):
    """One minus the survival of each cause alone."""

    def cumulative_incidence(self, parameters, time):
        curves = [head.survival_function(parameters[:, [k]], time) for k, head in enumerate(self.causes)]
        return 1 - torch.stack(curves, dim=1)


class SwappedHead(CauseSpecificCoxHead):
    def risk(self, parameters):
        return super().risk(parameters)[:, [1, 0, 2]]


class FallingIncidenceHead(CauseSpecificCoxHead):
    def cumulative_incidence(self, parameters, time):
        found = super().cumulative_incidence(parameters, time)
        return torch.stack([found[:, 0] + 0.01 * (time > 5) * (time < 6), *found[:, 1:].unbind(1)], 1)

    def survival_function(self, parameters, time):
        return 1 - self.cumulative_incidence(parameters, time).sum(dim=1)


class DoubledHead(RegressionHead):
    def value(self, parameters):
        return 2 * super().value(parameters)


class UnweightedHead(RegressionHead):
    def loss(self, parameters, target, sample_weight=None):
        return super().loss(parameters, target)


class LungOnlyNet(nn.Module):
    def __init__(self, in_channels=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, 3, padding=1)

    def forward(self, image):
        return {"lung": self.conv(image)}


class SmallMaskNet(LungOnlyNet):
    def forward(self, image):
        logits = self.conv(image)[:, :, ::2, ::2]
        return {"lung": logits, "lesion": logits}


class SegmentationNet(LungOnlyNet):
    """Nothing wrong with it."""

    def forward(self, image):
        logits = self.conv(image)
        return {"lung": logits, "lesion": -logits}


class BatchSegmentationNet(SegmentationNet):
    def forward(self, image):
        return {name: logits - logits.mean() for name, logits in super().forward(image).items()}


class Encoder(TransformerMixin, BaseEstimator):
    """Column means and differences to them; nothing wrong with it, and the base of many wrongs."""

    def fit(self, X, y=None):
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        self.means_ = X.select_dtypes("number").mean()
        return self

    def transform(self, X):
        check_is_fitted(self)
        missing = set(self.feature_names_in_) - set(X.columns)
        if missing:
            raise ValueError(f"X lacks the columns {sorted(missing)}.")
        return (X[self.means_.index] - self.means_).fillna(0.0).to_numpy(dtype=float)


class TorchMovingEncoder(Encoder):
    def fit(self, X, y=None):
        torch.rand(1)
        return super().fit(X, y)


class NumPyMovingEncoder(Encoder):
    def transform(self, X):
        np.random.rand()  # noqa: NPY002
        return super().transform(X)


class MoodyEncoder(Encoder):
    def fit(self, X, y=None):
        self.mood_ = np.random.default_rng().normal()
        return super().fit(X, y)

    def transform(self, X):
        return super().transform(X) + self.mood_


class TableDependentEncoder(Encoder):
    def transform(self, X):
        found = super().transform(X)
        return found - found.mean(axis=0)


class PositionalEncoder(Encoder):
    def transform(self, X):
        return super().transform(X) + np.arange(len(X))[:, None]


class ForgetfulEncoder(Encoder):
    def __getstate__(self):
        return super().__getstate__() | {"means_": self.means_ * 0}


class OverwritingEncoder(Encoder):
    def fit(self, X, y=None):
        X["clinical_age"] = 0.0
        return super().fit(X, y)


class SelfChangingEncoder(Encoder):
    def __init__(self, scale=None):
        self.scale = scale

    def fit(self, X, y=None):
        self.scale = 1.0
        return super().fit(X, y)


class CarelessEncoder(Encoder):
    def transform(self, X):
        return X.reindex(columns=self.means_.index).fillna(0.0).to_numpy(dtype=float)


class UncountingEncoder(Encoder):
    def fit(self, X, y=None):
        super().fit(X, y)
        self.n_features_in_ = 1
        return self


class MutatingCox(ClinicalCox):
    def fit(self, X, y):
        y["os_event"] = 1.0
        return super().fit(X, y)


class HazardlessCox(ClinicalCox):
    predict_cumulative_hazard_function = property()


class FallingHazardCox(ClinicalCox):
    def predict_cumulative_hazard_function(self, X, return_array=False):
        return self.predict_survival_function(X, return_array)


class ShiftingClassifier(MultimodalClassifier):
    """Labels that depend on where a patient stands; probabilities that do not."""

    def predict(self, X):
        return self.classes_[np.arange(len(X)) % 2]


class CrowdEncoder(AgeEncoder):
    """Numbers less the mean of the batch."""

    def build(self, data):
        class Net(TabularNet):
            def forward(self, features):
                return super().forward(features - features.mean(dim=0))

        return Net(1, (4,))


class ConstantEncoder(AgeEncoder):
    """The same number for all."""

    def prepare(self, X, *, n_jobs=None, verbose=0):
        return encoders.TableData(np.ones((len(X), 1)), super().prepare(X).present)


class GapEncoder(AgeEncoder):
    """NaN where nothing is known."""

    def prepare(self, X, *, n_jobs=None, verbose=0):
        data = super().prepare(X)
        data.table[0] = torch.nan
        data.present[0] = False
        return data


class AbsentEncoder(AgeEncoder):
    """Finds nobody."""

    def prepare(self, X, *, n_jobs=None, verbose=0):
        return encoders.TableData(np.ones((len(X), 1)), np.zeros(len(X)))


class StrangeEncoder(BaseEstimator):
    """No encoder."""


class CoxModel:
    """A right model, of a block that the simulated patients lack."""

    tasks, inputs, estimator = ("survival",), ("slide",), ClinicalCox

    @classmethod
    def build(cls):
        return cls.estimator(columns=cls.inputs)


class ReversedCoxModel(CoxModel):
    class estimator(ClinicalCox):
        def predict(self, X):
            return -super().predict(X)


class GappyCoxModel(CoxModel):
    class estimator(ClinicalCox):
        def predict(self, X):
            return np.where(X["pet_suvmax"].isna(), np.nan, super().predict(X))


class RankingCoxModel(CoxModel):
    class estimator(ClinicalCox):
        def predict(self, X):
            return super().predict(X).argsort().argsort()


class EndlessCoxModel(CoxModel):
    """Its last survival probability holds for ever."""

    class estimator(ClinicalCox):
        def predict_tasks(self, X, times):
            return {name: table.ffill(axis=1) for name, table in super().predict_tasks(X, times).items()}


class NervousCoxModel(CoxModel):
    """Its risk grows with the months that it is asked for."""

    class estimator(ClinicalCox):
        def predict_tasks(self, X, times):
            tables = super().predict_tasks(X, times)
            return {name: table.assign(risk=table["risk"] + max(times)) for name, table in tables.items()}


class OverclaimingModel(CoxModel):
    tasks = ("survival", "regression")


class CrookedModel(CoxModel):
    tasks, inputs = ("nominal",), ()

    class estimator(MultimodalClassifier):
        def predict_tasks(self, X, times):
            return {name: table / 2 for name, table in super().predict_tasks(X, times).items()}

    @classmethod
    def build(cls):
        return cls.estimator()


WRONG = {
    "backbone": {
        BatchNormBackbone: "norm normalises over the batch",
        HomemadeBatchNormBackbone: "alone must equal itself",
        CoarseToFineBackbone: "from fine to coarse",
        MiscountingBackbone: "out_channels must tell",
        SecretiveBackbone: "must have out_channels",
        SingleMapBackbone: "a list of maps; got Tensor",
        IdleBackbone: "unused.weight gets no finite gradient",
    },
    "pooling": {
        PaddedPooling: "padding|without slices",
        LeakyPooling: "padding with nan changed",
        PaddingCountsPooling: "more padding changed",
        BatchPooling: "alone must equal itself",
        FirstSlicePooling: "every real slice must count",
        GreedyAttentionPooling: "weights must sum to 1",
        NothingPooling: "without slices must get zeros",
        PositionPooling: "order of slices",
    },
    "fusion": {
        SeeingFusion: "an absent modality changed",
        BlindFusion: "a present modality must count",
        BatchFusion: "alone must equal itself",
        BatchNormFusion: "normalises over the batch",
        StubbornFusion: "out_features must be kept",
        SilentFusion: "out_features must be kept",
        PaddedTokensFusion: "padding of a bag changed",
        TokenlessFusion: "items of a present modality must count",
        GhostTokensFusion: "items of an absent modality changed",
        LonelyFusion: "a single modality must be enough",
    },
    "survival_head": {
        WrongSignHead: "higher risk must mean earlier event",
        WrongCurveHead: "higher risk must mean lower survival",
        RisingHead: r"S\(0\) must be 1|never rise",
        ConditionalHead: r"S\(0\) must be 1",
        OrderedHead: "order of patients",
        DisconnectedHead: "finite, connected loss",
        ReversedTimeHead: "times must rise",
        TimelessHead: "fit_baseline must set times",
    },
    "competing_risks_head": {
        SharelessHead: "must sum to 1",
        SwappedHead: "more events of the cause",
        FallingIncidenceHead: "must never fall",
    },
    "regression_head": {
        DoubledHead: "in the unit of the target",
        UnweightedHead: "a weight must count as a repetition",
    },
    "encoder": {
        CrowdEncoder: "alone must equal itself",
        ConstantEncoder: "same embedding",
        GapEncoder: "must be finite",
        AbsentEncoder: "nobody has the modality",
        StrangeEncoder: "must derive from",
    },
    "segmentation_net": {
        LungOnlyNet: "expected logits of lung and lesion",
        SmallMaskNet: "lung must be",
        BatchSegmentationNet: "alone must equal itself",
    },
    "estimator": {
        TorchMovingEncoder: "torch's global random state",
        NumPyMovingEncoder: "NumPy's global random state",
        MoodyEncoder: "equal seeds",
        TableDependentEncoder: "alone differs",
        PositionalEncoder: "order of patients",
        ForgetfulEncoder: "pickled copy",
        OverwritingEncoder: "clinical_age",
        SelfChangingEncoder: "fit must not change parameters",
        CarelessEncoder: "went unnoticed",
        UncountingEncoder: "must count feature_names_in_",
        MutatingCox: "os_event",
        ShiftingClassifier: "order of patients",
        HazardlessCox: "predict_cumulative_hazard_function is missing",
        FallingHazardCox: "must never fall",
    },
    "model": {
        ReversedCoxModel: "a higher risk is an earlier event",
        GappyCoxModel: r"must be finite.*\['risk'\] are not",
        RankingCoxModel: "fewer patients in another order change",
        EndlessCoxModel: "must be NaN for all patients beyond the follow-up",
        NervousCoxModel: "other horizons change",
        OverclaimingModel: "OverclaimingModel does not answer 'regression' tasks as it claims",
        CrookedModel: "must sum to 1",
    },
}


@pytest.mark.parametrize(
    ("kind", "part", "message"), [(kind, part, text) for kind, parts in WRONG.items() for part, text in parts.items()]
)
def test_a_wrong_part_is_caught_and_told_why(kind, part, message):
    with pytest.raises(AssertionError, match=message):
        getattr(testing, f"check_{kind}")(part)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("backbone", DropoutBackbone),
        ("segmentation_net", SegmentationNet),
        ("estimator", Encoder),
        ("encoder", AgeEncoder),
        ("model", CoxModel),
    ],
)
def test_a_right_part_passes(kind, part):
    getattr(testing, f"check_{kind}")(part)
