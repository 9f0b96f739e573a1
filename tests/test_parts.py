"""Parts with parameters, and estimators made of them: one path to every parameter."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival, Part, SliceEncoder, TabularEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators.encoders._slices import _check_maps
from mmdls.modules import GatedFusion
from mmdls.parts import build
from mmdls.registry import backbones, encoders, fusions, ordinal_heads, poolings, survival_heads
from mmdls.search import search_space_of

# Where the parts of a registry stand, as a path from MMDLS.
SLOTS = {
    "fusion": fusions,
    "survival_head": survival_heads,
    "ordinal_head": ordinal_heads,
    "image_encoder__backbone": backbones,
    "image_encoder__pooling": poolings,
    "image_encoder": {"slices": encoders["slices"]},
    "table_encoder": {"table": encoders["table"]},
}


def listed():
    return MMDLS([("lesion", "slices", "lesion_image"), ("clinical", "table", "clinical")])


# -- a part ------------------------------------------------------------------------------------------------------------


def test_a_part_is_what_it_was_given():
    part = Part("gated", dropout=0.3)
    assert part == Part("gated", dropout=0.3) != Part("gated") and Part("gated") != "gated"
    assert repr(part) == "Part('gated', dropout=0.3)" and repr(Part(GatedFusion)) == "Part(GatedFusion)"
    assert part.get_params() == {"name": "gated", "dropout": 0.3}
    for same in (clone(part), pickle.loads(pickle.dumps(part)), copy.deepcopy(part)):
        assert same == part and same is not part
    changed = clone(part).set_params(dropout=0.4)
    assert changed.get_params()["dropout"] == 0.4 and part.get_params()["dropout"] == 0.3
    assert "gated" in part._repr_html_() and "dropout" in part._repr_html_()


def test_a_part_is_built_by_name_as_a_class_or_with_parameters():
    for choice in ("gated", GatedFusion, Part("gated"), Part(GatedFusion)):
        assert build(fusions, choice, {"a": 3}, out_features=8).out_features == 8
    assert build(fusions, Part("gated", dropout=0.7), {"a": 3}).dropout.p == 0.7
    with pytest.raises(KeyError, match="fusions has no 'gatd'. Did you mean 'gated'"):
        build(fusions, Part("gatd", dropout=0.7), {"a": 3})
    with pytest.raises(ValueError, match=r"has no parameter 'dropuot'; it has 'dropout'"):
        build(fusions, Part("gated", dropuot=0.7), {"a": 3})
    with pytest.raises(ValueError, match="has no parameter 'out_features'"):
        build(fusions, Part("gated", out_features=4), {"a": 3}, out_features=8)


# -- every registered part, in its place -------------------------------------------------------------------------------


@pytest.mark.parametrize(("slot", "name"), [(slot, name) for slot, registry in SLOTS.items() for name in registry])
def test_parameters_of_every_part_are_listed_set_and_kept(slot, name):
    model = MMDLS().set_params(**{slot: name})
    inside = {k: v for k, v in model.get_params().items() if k.startswith(f"{slot}__")}
    assert model.get_params()[slot] == name, "listing parameters makes no part"
    owned = {"image_encoder__backbone__in_channels", "fusion__out_features"}
    assert not owned & set(inside)
    for path, value in inside.items():
        once = clone(model).set_params(**{path: value})
        assert repr(once.get_params()[path]) == repr(value)
        assert repr(clone(once).get_params()[path]) == repr(value)
    with pytest.raises(ValueError, match="has no parameter 'no_such'"):
        model.set_params(**{f"{slot}__no_such": 1})
    prefix = f"{slot}__" if len(SLOTS[slot]) == 1 else f"{slot}[{name}]__"
    for path, distribution in search_space_of(model).items():
        if path.startswith(prefix) and "[" not in path[len(prefix) :]:
            assert path.replace(f"[{name}]", "") in inside, f"search_space() of {name} names what it does not have"
            assert distribution is not None


def test_an_estimator_alone_lists_its_parts():
    encoder = SliceEncoder(backbone="resnet10")
    assert encoder.get_params()["backbone__width"] == 64
    assert encoder.set_params(backbone__width=16).backbone == Part("resnet10", width=16)
    assert encoder.get_params(deep=False).keys() < encoder.get_params().keys()


# -- setting -----------------------------------------------------------------------------------------------------------


def test_parameters_reach_every_depth():
    model = listed().set_params(lesion__backbone="resnet10", lesion__backbone__width=16)
    model.set_params(
        fusion__dropout=0.3, trainer__learning_rate=1e-3, clinical__scale=None, survival_head__ties="breslow"
    )
    assert model.fusion == Part("gated", dropout=0.3) and model.survival_head == Part("cox", ties="breslow")
    assert model.trainer.learning_rate == 1e-3 and model.trainer.max_epochs == Trainer().max_epochs
    (_, lesion, _), (_, clinical, _) = model.modalities
    assert lesion.backbone == Part("resnet10", width=16) and clinical.scale is None
    again = clone(model)
    assert repr(again.get_params()) == repr(model.get_params()) and again.modalities[0][1] is not lesion
    assert clone(listed()).modalities[0][1] == "slices"


def test_the_order_does_not_matter():
    values = {"fusion": "concat", "fusion__hidden_features": 8, "modalities": listed().modalities}
    values |= {"lesion": SliceEncoder(), "lesion__pooling": "gated_attention", "lesion__pooling__hidden_features": 4}
    models = [MMDLS().set_params(**dict(order)) for order in (values.items(), reversed(values.items()))]
    for model in models:
        assert model.fusion == Part("concat", hidden_features=8)
        assert model.modalities[0][1].pooling == Part("gated_attention", hidden_features=4)


def test_another_part_forgets_the_parameters_of_the_one_before():
    model = MMDLS(fusion=Part("gated", n_heads=8)).set_params(fusion="gated")
    assert model.get_params()["fusion__n_heads"] == 4


def test_parts_are_not_shared_between_models():
    part = Part("gated", dropout=0.3)
    one, other = MMDLS(fusion=part), MMDLS(fusion=part)
    one.set_params(fusion__dropout=0.5)
    assert other.fusion.get_params()["dropout"] == part.get_params()["dropout"] == 0.3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fusoin", "MMDLS has no parameter 'fusoin'; it has 'fusion',"),
        ("lesions__backbone", "MMDLS has no parameter 'lesions__backbone'; it has"),
        ("fusion__droput", r"fusion='gated' has no parameter 'droput'; it has 'dropout', 'input_scale', 'n_heads'\."),
        ("lesion__backbon", r"lesion \(SliceEncoder\) has no parameter 'backbon'; it has 'backbone',"),
        ("lesion__backbone__wdth", "backbone='antialiased' has no parameter 'wdth'; it has 'width', 'depth'"),
        ("trainer__lr", r"trainer \(Trainer\) has no parameter 'lr'; it has"),
        ("dropout__rate", "MMDLS has no parameter 'dropout__rate'"),
        ("fusion__out_features", "fusion='gated' has no parameter 'out_features'"),
    ],
)
def test_a_misspelt_parameter_names_the_known_ones_closest_first(name, message):
    with pytest.raises(ValueError, match=message):
        listed().set_params(**{name: 1})


def test_what_a_model_does_not_use_is_no_parameter_of_it():
    assert not {"survival_head", "ordinal_head", "class_embedding"} & set(MultimodalClassifier().get_params())
    assert not {"ordinal_head", "ordinal_head__bias"} & set(MultimodalSurvival().get_params())
    with pytest.raises(ValueError, match="has no parameter 'ordinal_head'"):
        MultimodalSurvival().set_params(ordinal_head="softmax")


def test_any_transformer_is_an_encoder_with_its_own_parameters():
    model = MMDLS([("clinical", make_pipeline(StandardScaler()), "clinical")])
    model.set_params(clinical__standardscaler__with_mean=False)
    assert model.modalities[0][1][0].with_mean is False


def test_a_part_without_a_fixed_signature_takes_any_parameter():
    class Open(BaseEstimator):
        pass

    def factory(widths, out_features=8, **options):
        return options

    assert MMDLS(fusion=factory).set_params(fusion__anything=3).fusion == Part(factory, anything=3)
    with pytest.raises(ValueError, match="has no parameter 'x'"):
        MMDLS(table_encoder=Open()).set_params(table_encoder__x=1)


# -- fitting -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(40, n_slices=1, image_size=16, return_X_y=True, random_state=0)
    return X[["clinical_age", "clinical_diameter", "lesion_image"]], y[["os_time", "os_event"]]


def test_parameters_arrive_in_the_network(cohort):
    X, y = cohort
    model = MMDLS(image_encoder=SliceEncoder(backbone="resnet10"), trainer=Trainer(max_epochs=1), random_state=0)
    model.set_params(fusion__dropout=0.45, image_encoder__backbone__width=8, survival_head__bias=True).fit(X, y)
    network = model.net_.module_.first
    assert network.fusion.dropout.p == 0.45
    assert network.encoders["lesion"].backbone.out_channels == [8, 16, 32, 64]
    assert network.head("os").linear.bias is not None


class TwoMaps(nn.Module):
    def __init__(self, in_channels=1, width=4):
        super().__init__()
        self.out_channels = [width, 2 * width]
        self.fine = nn.Conv2d(in_channels, width, 3, 2, 1)
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.Dropout())

    def forward(self, image):
        fine = self.fine(image)
        return [fine, self.coarse(fine)]


class OneTensor(TwoMaps):
    def forward(self, image):
        return self.fine(image)


class OtherWidths(TwoMaps):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        self.out_channels = [4, 4]


class NoWidths(TwoMaps):
    def __init__(self, in_channels=1):
        super().__init__(in_channels)
        del self.out_channels


class NoChannels(TwoMaps):
    def __init__(self, width=4):
        super().__init__(1, width)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (TwoMaps(), r"got an object of class TwoMaps. Give the class TwoMaps, or Part\(TwoMaps, ...\)"),
        (Part(TwoMaps()), "got an object of class TwoMaps"),
        (OneTensor, r"must give a list of maps, \(B, C, H, W\).*got a Tensor and.*check_backbone\(OneTensor\)"),
        (OtherWidths, r"got maps of shapes \[\(1, 4, 8, 8\), \(1, 8, 4, 4\)\] and out_channels=\[4, 4\]"),
        (NoWidths, r"and out_channels=\[\]"),
        (NoChannels, "NoChannels must take in_channels; it takes width"),
    ],
)
def test_a_backbone_that_breaks_its_contract_is_refused_before_training(cohort, backbone, said):
    with pytest.raises(TypeError, match=said):
        SliceEncoder(backbone=backbone).fit(cohort[0][["lesion_image"]], cohort[1])


def test_the_check_of_a_backbone_leaves_it_and_the_random_state_alone(cohort):
    encoder = SliceEncoder(backbone=TwoMaps)
    data = encoder.prepare(cohort[0][["lesion_image"]])
    torch.manual_seed(0)
    net = encoder.build(data)
    assert all(module.training for module in net.modules())
    torch.manual_seed(0)
    TwoMaps()
    plain = torch.get_rng_state()
    torch.manual_seed(0)
    _check_maps(TwoMaps(), data.item_shape)
    assert torch.equal(torch.get_rng_state(), plain)


def test_heads_of_single_tasks_and_kinds(cohort):
    X, y = cohort
    small = {"trainer": Trainer(max_epochs=1), "random_state": 0}
    for heads in ({"os": "logistic_hazard"}, {"survival": "logistic_hazard"}):
        head = MMDLS(heads=heads, **small).fit(X[["clinical_age"]], y).net_.module_.head("os")
        assert type(head) is survival_heads["logistic_hazard"]


def test_names_of_encoders_are_encoders(cohort):
    X, y = cohort
    small = {"trainer": Trainer(max_epochs=1), "random_state": 0}
    columns = ["clinical_age", "clinical_diameter"]
    named = MMDLS([("c", "table", columns)], **small).fit(X, y)
    given = MMDLS([("c", TabularEncoder(), columns)], **small).fit(X, y)
    np.testing.assert_array_equal(named.predict(X), given.predict(X))
    with pytest.raises(KeyError, match="encoders has no 'tabel'. Did you mean 'table'"):
        MMDLS([("c", "tabel", columns)], **small).fit(X, y)


def test_scikit_learn_searches_parts_and_their_parameters(cohort):
    X, y = cohort
    model = MMDLS(trainer=Trainer(max_epochs=1, validation_fraction=0.0), random_state=0)
    grid = {"fusion": ["gated", Part("concat", hidden_features=8)], "fusion__dropout": [0.0, 0.2]}
    grid |= {"trainer__learning_rate": [1e-3]}
    found = GridSearchCV(model, grid, cv=2).fit(X[["clinical_age"]], y)
    assert len(found.cv_results_["params"]) == 4
    assert found.best_estimator_.fusion.get_params()["dropout"] == found.best_params_["fusion__dropout"]


def test_the_picture_of_a_model_shows_its_modalities(cohort):
    X, y = cohort
    html = listed()._repr_html_()
    assert "lesion" in html and "SliceEncoder" in html and "TabularEncoder" in html and "lesion_image" in html
    assert "auto" in MMDLS()._repr_html_() and "SliceEncoder" in MMDLS()._repr_html_()
    assert "scan" in MMDLS({"ct": "scan"})._repr_html_()
    fitted = MMDLS(trainer=Trainer(max_epochs=1), random_state=0).fit(X[["clinical_age"]], y)
    assert "clinical_age" in fitted._repr_html_()
    assert MMDLS(modalities=3)._repr_html_(), "what fit will refuse has a picture too"


def test_listing_does_not_touch_the_random_state():
    state = torch.get_rng_state()
    listed().get_params()
    assert torch.equal(state, torch.get_rng_state())
