"""Parts say what their parameters may be, and refuse everything else by name before they are made."""

import re
from functools import partial
from inspect import Parameter, signature

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints
from torch import nn

from mmdls import MMDLS, Part, SliceEncoder, TabularEncoder, Trainer, VolumeEncoder, registry
from mmdls._parameters import Each, Finite, amount, count, one_of, positive, share
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import (
    AdditiveFusion,
    ConvBackbone,
    CoxHead,
    GatedAttentionPooling,
    GatedFusion,
    MonaiBackbone,
    MonaiVolumeBackbone,
)
from mmdls.registry import Registry
from mmdls.testing import all_parts
from mmdls.testing._parts import _CHECKS

HOSTILE = [0, -1, 1.5, float("nan"), float("inf"), True, "x", None]
# These are made of what data say, or checked by the fit of an estimator.
WITHOUT = ("estimators", "models", "tasks")
PARTS = {
    (kind, name): getattr(registry, kind)[name]
    for kind, name in all_parts()
    if kind not in WITHOUT and getattr(registry, kind)[name].__module__.startswith("mmdls.")
}
PARTS |= {("backbones", "monai"): MonaiBackbone, ("volume_backbones", "monai"): MonaiVolumeBackbone}
# What the owner of a part gives, which the contract checks give too.
OWNED = {"in_channels", "in_features", "n_classes", "n_causes", "n_tasks", "spacing", "widths", "out_features", "name"}


def parameters(part):
    return [name for name, p in signature(part).parameters.items() if p.kind is not Parameter.VAR_KEYWORD]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_parameter_of_every_part_has_constraints(kind, name):
    part = PARTS[kind, name]
    missing = set(parameters(part)) - set(part._parameter_constraints)
    assert not missing, f"say in {part.__name__}._parameter_constraints what {missing} may be"
    defaults = {n: p.default for n, p in signature(part).parameters.items() if p.default is not Parameter.empty}
    validate_parameter_constraints(part._parameter_constraints, defaults, name)


@pytest.mark.parametrize(("kind", "name"), [key for key in PARTS if key[0] != "encoders" and key[1] != "monai"])
def test_a_parameter_without_meaning_is_refused_and_any_other_keeps_the_contract(kind, name):
    part, refused = PARTS[kind, name], 0
    for parameter in parameters(part):
        for value in HOSTILE:
            said = f"^The '{parameter}' parameter of {part.__name__} must be .* Got {re.escape(repr(value))} instead"
            try:
                validate_parameter_constraints(part._parameter_constraints, {parameter: value}, name)
            except InvalidParameterError:
                refused += 1
                with pytest.raises(InvalidParameterError, match=said):
                    part(**{parameter: value})
                continue
            assert parameter not in OWNED, f"{parameter}={value!r} is accepted"
            if value == 1.5:
                continue
            if parameter == "backbone" and value == "x":  # a name, of which the registry knows what it may be
                with pytest.raises(KeyError, match="backbones has no 'x'"):
                    part(backbone=value)
                continue
            _CHECKS[kind](partial(part, **{parameter: value}))
    assert refused >= len(parameters(part)) * 3


@pytest.mark.filterwarnings("ignore:The columns", "ignore:the 12 patients")
@pytest.mark.parametrize(
    ("slot", "value", "said"),
    [
        ("image_encoder__pooling", Part("gated_attention", hidden_features=0), "GatedAttentionPooling .*Got 0"),
        ("image_encoder__pooling", Part("top_k", k=float("inf")), "TopKPooling .*Got inf"),
        ("image_encoder__pooling", Part("set_transformer", n_layers=-1), "SetTransformerPooling .*Got -1"),
        ("image_encoder__backbone", Part("conv", strides=2), "ConvBackbone must be a sequence .*Got 2"),
        ("image_encoder__backbone", Part("antialiased", depth=0), "AntialiasedBackbone .*Got 0"),
        ("image_encoder__augmentation", Part("standard", shift=float("inf")), "StandardAugmentation .*Got inf"),
        ("fusion", Part("low_rank", rank=0), "LowRankFusion .*Got 0"),
        ("fusion", Part("gated", input_scale=float("nan")), "GatedFusion .*Got nan"),
        ("fusion", Part("gated", n_heads="4"), "GatedFusion .*Got '4'"),
        ("survival_head", Part("cox", bias="yes"), "CoxHead .*Got 'yes'"),
    ],
)
def test_models_pass_on_what_a_part_refuses(slot, value, said):
    X, y = make_nsclc_cohort(12, n_slices=1, image_size=16, return_X_y=True, random_state=0)
    model = MMDLS(image_encoder="slices", trainer=Trainer(max_epochs=1)).set_params(**{slot: value})
    with pytest.raises(InvalidParameterError, match=said):
        model.fit(X, y)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (-1, 1, 1), (float("nan"), 1, 1), (1, 1), 2.0, "abc", ("1", "1", "1")])
def test_the_sides_of_voxels_are_three_numbers_above_0(spacing):
    X, y = make_nsclc_cohort(12, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    with pytest.raises(InvalidParameterError, match="'spacing' parameter of VolumeEncoder must be a sequence of 3"):
        VolumeEncoder(spacing=spacing).fit(X[["lesion_image"]], y)


def test_parameters_are_checked_by_place_and_before_a_class_is_made():
    with pytest.raises(InvalidParameterError, match="'n_heads' parameter of GatedFusion"):
        GatedFusion({"ct": 2}, 8, 0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        ConvBackbone(widht=3)
    assert ConvBackbone(1, np.int64(4), strides=np.array([2, 2])).out_channels == [4, 8]
    assert list(signature(GatedAttentionPooling).parameters) == ["in_features", "hidden_features"]


def test_plug_ins_may_say_what_their_parameters_are_or_not():
    parts = Registry("poolings", "mmdls.modules", ["forward"])

    class Plain(nn.Module):
        made = 0

        def __init__(self, in_features, k=1):
            super().__init__()
            Plain.made += 1

        def forward(self, slices, mask):
            return slices.sum(dim=1)

    class Strict(Plain):
        _parameter_constraints = {"k": [count(1)]}

        def __init__(self, in_features, k=1):
            super().__init__(in_features, k)

    parts.register("plain")(Plain)(3, k="anything")
    for _ in range(2):  # as when a cell of a notebook runs again
        parts.register("strict")(Strict)
    made = Plain.made
    with pytest.raises(InvalidParameterError, match="'k' parameter of Strict must be an int"):
        parts["strict"](3, k=0)
    assert Plain.made == made
    assert parts["strict"](3, k=2)(torch.ones(1, 2, 3), None).tolist() == [[2.0, 2.0, 2.0]]
    assert not hasattr(Strict.__init__.__wrapped__, "__wrapped__")


@pytest.mark.parametrize(
    ("constraint", "right", "wrong"),
    [
        (count(1), [1, np.int64(3)], [0, -1, 1.0, True, "1", None]),
        (count(1, 3), [1, 3], [0, 4]),
        (share(), [0, 0.5, np.float32(0.1)], [1, -0.1, float("nan"), False, "0"]),
        (amount(), [0, 7.5], [-1e-9, float("inf"), float("nan")]),
        (positive(), [1e-9, 3], [0, float("inf"), True]),
        (one_of("a", "b"), ["a"], ["c", None]),
        (Each(positive(), 3), [(1, 2, 3), [1.0, 1.0, 1.0], np.ones(3)], [(1, 1), (1, 1, 0), "abc", 3, np.array(3.0)]),
        (Each(count(1)), [(2,), [1, 2, 3]], [(), [1, [2]], np.ones((2, 2)), {1}, None]),
    ],
)
def test_constraints_mean_what_they_say(constraint, right, wrong):
    assert all(map(constraint.is_satisfied_by, right)) and not any(map(constraint.is_satisfied_by, wrong))
    assert isinstance(constraint, Finite) or str(constraint).startswith(("a str among", "a sequence of"))


def test_the_encoder_itself_checks_its_numbers():
    X, y = make_nsclc_cohort(12, n_slices=1, image_size=16, return_X_y=True, random_state=0)
    for name, value in (("embedding_dim", 0), ("backbone_learning_rate", float("nan")), ("max_slices", True)):
        with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of SliceEncoder"):
            SliceEncoder(**{name: value}).fit(X[["lesion_image"]], y)


class NoWidthFusion(AdditiveFusion):
    def __init__(self, widths, out_features=16):
        super().__init__(widths, out_features)
        del self.out_features


class NoRiskHead(nn.Module):
    def __init__(self, in_features):
        super().__init__()
        self.linear = nn.Linear(in_features, 1)

    def prepare(self, event, time, sample_weight=None): ...

    def loss(self, parameters, event, time, sample_weight=None): ...


class NoTimesHead(nn.Module):
    def __init__(self, in_features):
        super().__init__()
        self.head = CoxHead(in_features)
        for name in ("forward", "prepare", "loss", "risk", "fit_baseline", "survival_function"):
            setattr(self, name, getattr(self.head, name))

    prepare = loss = risk = fit_baseline = survival_function = None


class NoDropoutAugmentation(nn.Module):
    pass


class NoRateWeights(nn.Module):
    def __init__(self, n_tasks):
        super().__init__()


class NoWidthEncoder(TabularEncoder):
    def build(self, data):
        return nn.Sequential(nn.Linear(data.table.shape[1], 8))


ABSENT = {
    "'NoWidthFusion', one of the fusions, lacks out_features": {"fusion": NoWidthFusion},
    "'NoRiskHead', one of the survival_heads, lacks risk, fit_baseline, survival_function": {
        "survival_head": NoRiskHead
    },
    "the head of 'os', NoTimesHead, lacks times": {"survival_head": NoTimesHead},
    "'NoRateWeights', one of the task_weights, lacks learning_rate": {"trainer__task_weights": NoRateWeights},
    "the network that the encoder of 'clinical' builds lacks out_features": {
        "modalities": [("clinical", NoWidthEncoder(), ["clinical_x"])]
    },
    "'NoDropoutAugmentation', one of the augmentations, lacks slice_dropout": {
        "modalities": [("ct", SliceEncoder(augmentation=NoDropoutAugmentation), ["ct_image"])]
    },
}


@pytest.mark.parametrize("said", ABSENT)
def test_what_a_part_lacks_is_said(said):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (1, 16, 16)).astype(np.uint8) for _ in range(12)]
    X = pd.DataFrame({"clinical_x": rng.normal(size=12), "ct_image": images})
    y = pd.DataFrame({"os_time": np.arange(1.0, 13), "os_event": True, "subtype": ["a", "b"] * 6})
    y = y.drop(columns=[] if "task_weights" in said else "subtype")
    trainer = Trainer(max_epochs=1, validation_fraction=0)
    model = MMDLS(trainer=trainer, n_members=1, modalities={"clinical": ["clinical_x"]}, random_state=0)
    model.set_params(**ABSENT[said])
    with pytest.raises(TypeError, match=said):
        model.fit(X, y)


def test_encoders_beside_columns_in_a_dict_are_refused():
    X = pd.DataFrame({"clinical_x": np.arange(12.0)})
    with pytest.raises(ValueError, match="modality 'clinical' needs the names of columns or blocks"):
        MMDLS(modalities={"clinical": (TabularEncoder(), ["clinical_x"])}).fit(X, pd.DataFrame({"s": list("ab") * 6}))
