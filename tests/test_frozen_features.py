"""Images seen by a model that does not train: computed once, known by contents and weights, refused where lost."""

from functools import partial

import joblib
import numpy as np
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from sklearn.base import clone
from torch import nn
from torch.nn.modules.module import _global_forward_pre_hooks

import mmdls
from mmdls import MMDLS, FrozenFeatures, OptunaSearch, SliceEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.registry import backbones
from mmdls.testing import check_encoder

QUICK = Trainer(max_epochs=2)


class CountingNet(nn.Module):
    """Mean of bands of rows; counts the images that it sees. Its dropout would show if it were training."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.5)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.dropout(images.unflatten(2, (4, -1)).mean(dim=(1, 3, 4)) * self.scale)


@pytest.fixture(scope="module")
def study():
    X, y = make_nsclc_cohort(45, n_slices=(1, 3), image_size=16, missing=0.15, return_X_y=True, random_state=0)
    return X[["lesion_image", "clinical_age"]], y[["subtype"]]


def n_slices(X):
    return sum(len(image) for image in X["lesion_image"].dropna())


def model(features, **settings):
    return MMDLS(image_encoder=features, trainer=QUICK, n_members=1, random_state=0, **settings)


def test_the_contract_of_encoders_holds():
    class Shown(FrozenFeatures):
        def __init__(self, *, model=torch.nn.Flatten(), trainer=None, embedding_dim=8, random_state=0):
            super().__init__(model, trainer=trainer, embedding_dim=embedding_dim, random_state=random_state)

    check_encoder(Shown)


def test_a_search_of_three_trials_and_three_folds_shows_each_image_once(study):
    X, y = study
    net = CountingNet()
    space = {"fusion": CategoricalDistribution(["concat", "gated", "late"])}
    search = OptunaSearch(model(FrozenFeatures(net)), space, n_trials=3, cv=3, random_state=0).fit(X, y)
    assert len(search.cv_results_["params"]) == 3
    assert net.seen == n_slices(X)
    assert net.training and net.dropout.training
    search.predict(X)
    assert net.seen == n_slices(X)


def test_another_process_finds_the_features_in_the_folder(study, tmp_path):
    X, y = study
    first = model(FrozenFeatures(CountingNet(), memory=tmp_path)).fit(X, y)
    later = CountingNet()
    assert first.predict_proba(X, "subtype").shape == (45, 2)
    second = model(FrozenFeatures(later, memory=joblib.Memory(tmp_path, verbose=0))).fit(X[::-1], y[::-1])
    assert later.seen == 0
    with torch.no_grad():
        later.scale *= 2
    second.predict(X)
    assert later.seen == n_slices(X), "other weights, other features"


@pytest.mark.parametrize(
    "change",
    [
        lambda features, X: features.set_params(images__image_size=8),
        lambda features, X: features.set_params(n_channels=3),
        lambda features, X: X.update({"lesion_image": X["lesion_image"].map(lambda image: image + 1)}),
    ],
    ids=["size", "channels", "contents"],
)
def test_what_is_seen_anew_is_computed_anew(study, change):
    X, _ = study
    X, net = X[["lesion_image"]].dropna().copy(), CountingNet()
    features = FrozenFeatures(net)
    before = features._column(X)
    change(features, X)
    after = features._column(X)
    assert net.seen == 2 * n_slices(X)
    assert len(before) == len(after) == len(X)


def test_vectors_are_those_of_the_model_in_evaluation_mode(study):
    X, _ = study
    found = FrozenFeatures(CountingNet(), micro_batch_size=1)._column(X[["lesion_image"]])
    for patient, image in X["lesion_image"].items():
        if image is None:
            assert found[patient] is None
        else:
            bands = image.reshape(len(image), 4, 4, 16).mean(axis=(2, 3)) / 255
            np.testing.assert_allclose(found[patient], bands, atol=1e-6)


def test_methods_functions_maps_and_arrays_are_models_too(study):
    images = study[0][["lesion_image"]].dropna()
    net = CountingNet()
    bands = FrozenFeatures(net)._column(images).iloc[0]
    same = [
        FrozenFeatures(net.forward),
        FrozenFeatures(lambda images: images.unflatten(2, (4, -1)).mean(dim=(1, 3, 4)).numpy()),
        FrozenFeatures(lambda images: [None, images.unflatten(2, (4, -1))[:, 0]]),
    ]
    for features in same:
        np.testing.assert_allclose(features._column(images).iloc[0], bands, atol=1e-6)
    assert net.training and net.dropout.training
    for wrong in (lambda images: images[:, 0], lambda images: {"features": images}, lambda images: images[:0]):
        with pytest.raises(ValueError, match="one vector an image"):
            FrozenFeatures(wrong)._column(images[:3])


def test_a_function_needs_a_name_in_a_folder(study, tmp_path):
    features = FrozenFeatures(lambda images: images.flatten(1), memory=tmp_path)
    with pytest.raises(ValueError, match="model_name='<name and version>'"):
        features.fit_preprocessing(study[0][["lesion_image"]])
    features.set_params(model_name="pixels 1").fit_preprocessing(study[0][["lesion_image"]])
    assert features.model_origin_ == {"name": "pixels 1", "digest": None}
    assert len(list(tmp_path.rglob("*.npy"))) == study[0]["lesion_image"].notna().sum()


class Holder:
    def __init__(self, net):
        self.parts = {"net": net}

    def __call__(self, images):
        return self.parts["net"](images)

    def see(self, images):
        return self.parts["net"](images)


SHARED = CountingNet()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: lambda images: net(images),
        lambda net: lambda images, net=net: net.forward(images),
        lambda net: partial(lambda network, images: network(images), net),
        lambda net: Holder(net),
        lambda net: Holder(net).see,
        lambda net: lambda images: SHARED(images),
    ],
    ids=["closure", "default", "partial", "object", "method", "global"],
)
def test_a_network_inside_of_a_function_is_in_evaluation_mode_and_known_by_its_weights(request, study, wrap):
    images = study[0][["lesion_image"]].dropna()[:5]
    net = SHARED if request.node.callspec.id == "global" else CountingNet()
    net.seen = 0
    features = FrozenFeatures(wrap(net))
    before = features._column(images)
    np.testing.assert_array_equal(before.iloc[0], FrozenFeatures(CountingNet())._column(images).iloc[0])
    assert net.training and net.dropout.training and net.seen == n_slices(images)
    features._column(images)
    assert net.seen == n_slices(images), "what is known is not computed again"
    with torch.no_grad():
        net.scale *= 2
    np.testing.assert_allclose(features._column(images).iloc[0], 2 * before.iloc[0], rtol=1e-6)
    with torch.no_grad():
        net.scale /= 2
    assert features._column(images).iloc[0] is before.iloc[0]


def test_a_function_that_hides_its_network_needs_a_name(study):
    images, made = study[0][["lesion_image"]].dropna()[:3], []

    def hidden(images):
        made.append(CountingNet())
        return made[-1](images)

    with pytest.raises(ValueError, match="calls the network CountingNet, which is in none of its variables"):
        FrozenFeatures(hidden)._column(images)
    found = FrozenFeatures(hidden, model_name="bands 1")._column(images)
    np.testing.assert_array_equal(found.iloc[0], FrozenFeatures(CountingNet())._column(images).iloc[0])
    assert made[-1].training and made[-1].dropout.training
    assert not _global_forward_pre_hooks


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vectors_that_are_no_numbers_are_refused_with_the_patient(study, tmp_path, bad):
    images = study[0][["lesion_image"]].dropna()[:3]
    net = CountingNet()
    with torch.no_grad():
        net.scale *= bad
    with pytest.raises(ValueError, match=f"NaN or infinite numbers for . of . images of patient '{images.index[0]}'"):
        FrozenFeatures(net, memory=tmp_path)._column(images)
    assert not list(tmp_path.rglob("*.npy")), "nothing of it is kept"


def test_copies_share_the_model_and_its_settings():
    net = CountingNet()
    features = FrozenFeatures(net, images=SliceEncoder(image_size=8), n_channels=3, pooling="mean")
    copied = clone(model(features)).image_encoder
    assert copied.model is net and features.model is net and copied is not features
    assert copied.images is not features.images and copied.images.image_size == 8
    assert (copied.n_channels, copied.pooling) == (3, "mean")


def test_a_registered_network_is_saved_and_any_other_code_refused(study, tmp_path):
    X, y = study
    backbones.register("counting")(CountingNet)
    try:
        fitted = model(FrozenFeatures(CountingNet(), memory=tmp_path / "cache")).fit(X, y)
        with pytest.warns(UserWarning, match="memory"):
            mmdls.save(fitted, tmp_path / "model")
        loaded = mmdls.load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict_proba(X, "subtype"), fitted.predict_proba(X, "subtype"))
        (encoder,) = (each for _, each, columns in loaded.modalities_ if columns == ["lesion_image"])
        assert encoder.model_origin_["name"].endswith(":CountingNet") and len(encoder.model_origin_["digest"]) == 32
    finally:
        del backbones._parts["counting"]
    with pytest.raises(TypeError, match="register it under a name of its own"):
        mmdls.save(fitted, tmp_path / "other")
    fitted = model(FrozenFeatures(lambda images: images.flatten(1))).fit(X, y)
    with pytest.raises(TypeError, match=r"holds no code.*nn\.Module"):
        mmdls.save(fitted, tmp_path / "other")
