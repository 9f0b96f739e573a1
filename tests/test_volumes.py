"""Scans as volumes: networks that follow the sides of voxels, files of weights, cells of every kind."""

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from mmdls import MMDLS, FrozenFeatures, Trainer, VolumeEncoder, load, save
from mmdls.datasets import make_nsclc_cohort
from mmdls.explain import explain_image
from mmdls.modules.pretrained import load_weights
from mmdls.registry import volume_backbones
from mmdls.scans import ScanView, Volume
from mmdls.scans._resampling import upright

QUICK = Trainer(max_epochs=2)


def sizes(net, shape):
    return [tuple(m.shape[2:]) for m in net(torch.zeros(1, 1, *shape))]


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1, 1, 1), (64, 64, 64), [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]),
        ((4, 1, 1), (16, 64, 64), [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]),
        ((2.5, 0.7, 0.7), (24, 64, 64), [(12, 16, 16), (6, 8, 8), (3, 4, 4), (2, 2, 2)]),
        ((50, 1, 1), (3, 64, 64), [(3, 16, 16), (3, 8, 8), (3, 4, 4), (3, 2, 2)]),
        ((1, 1, 4), (64, 64, 16), [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]),
    ],
)
def test_axes_are_halved_until_voxels_are_as_long(spacing, shape, expected):
    assert sizes(volume_backbones["small"](spacing=spacing, width=4), shape) == expected


def test_thick_slices_are_not_mixed_before_pixels_are_as_large():
    net = volume_backbones["resnet18"](spacing=(8, 1, 1), width=4)
    kernels = [net.conv1.kernel_size, *(net.get_submodule(f"layer{i}")[0].conv1.kernel_size for i in (1, 2, 3, 4))]
    assert kernels == [(1, 7, 7), (1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]
    with pytest.raises(ValueError, match="must be a sequence of 3 items, each a float in the range"):
        volume_backbones["small"](spacing=(1, 0, 1))


# -- files of weights --------------------------------------------------------------------------------------------------


def medicalnet(depths, width=8, plain=False):
    """Weights under the names of MedicalNet's files; ``plain`` without weights of shortcuts, as of 18 and 34 layers."""
    torch.manual_seed(0)
    weights = {"conv1.weight": torch.randn(width, 1, 7, 7, 7) / 18}

    def norm(name, channels):
        kinds = {"weight": 0.5, "bias": -0.5, "running_mean": -0.5, "running_var": 0.5}
        weights.update({f"{name}.{kind}": torch.rand(channels) + low for kind, low in kinds.items()})

    norm("bn1", width)
    before = width
    for stage, depth in enumerate(depths):
        after = width * 2**stage
        for i in range(depth):
            name = f"layer{stage + 1}.{i}"
            for k, channels in ((1, before), (2, after)):
                weights[f"{name}.conv{k}.weight"] = torch.randn(after, channels, 3, 3, 3) / (27 * channels) ** 0.5
                norm(f"{name}.bn{k}", after)
            if before != after and not plain:
                weights[f"{name}.downsample.0.weight"] = torch.randn(after, before, 1, 1, 1) / before**0.5
                norm(f"{name}.downsample.1", after)
            before = after
    weights["conv_seg.0.weight"] = torch.randn(4, 4, 1, 1, 1)
    return weights


def plain_features(weights, volume, depths, plain):
    """The network by its formulas."""

    def norm(name, x):
        parts = [weights[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts)

    x = torch.relu(norm("bn1", functional.conv3d(volume, weights["conv1.weight"], stride=2, padding=3)))
    x = functional.max_pool3d(x, 3, 2, 1)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            inner = functional.conv3d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = functional.conv3d(
                torch.relu(norm(f"{name}.bn1", inner)), weights[f"{name}.conv2.weight"], padding=1
            )
            if stride == 2 and plain:
                x = functional.avg_pool3d(x, 1, 2)
                x = torch.cat([x, torch.zeros_like(x)], dim=1)
            elif stride == 2:
                x = norm(f"{name}.downsample.1", functional.conv3d(x, weights[f"{name}.downsample.0.weight"], stride=2))
            x = torch.relu(norm(f"{name}.bn2", inner) + x)
    return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize(
    ("name", "depths", "plain"), [("resnet10", (1, 1, 1, 1), False), ("resnet18", (2, 2, 2, 2), True)]
)
def test_files_of_medicalnet_give_the_features_of_a_plain_network(name, depths, plain):
    weights = medicalnet(depths, plain=plain)
    net = volume_backbones[name](width=8)
    used, unused = load_weights(net, {"state_dict": {f"module.{key}": value for key, value in weights.items()}})
    assert unused == ["module.conv_seg.0.weight"] and len(used) == len(weights) - 1
    volume = torch.rand(2, 1, 24, 40, 40)
    with torch.no_grad():
        for mode in (True, False):  # statistics stay as they are in training too
            found = net.train(mode)(volume)[-1].mean(dim=(2, 3, 4))
            torch.testing.assert_close(found, plain_features(weights, volume, depths, plain), rtol=1e-4, atol=1e-5)


def test_flat_kernels_answer_what_does_not_vary_along_slices_as_whole_ones():
    weights = medicalnet((1, 1, 1, 1))
    flat, whole = volume_backbones["resnet10"](spacing=(9, 1, 1), width=8), volume_backbones["resnet10"](width=8)
    load_weights(flat, weights)
    load_weights(whole, weights)
    assert flat.conv1.kernel_size == (1, 7, 7)
    slices = torch.rand(1, 1, 1, 32, 32)
    middle = whole.conv1(slices.expand(-1, -1, 15, -1, -1))[:, :, 4]
    torch.testing.assert_close(flat.conv1(slices)[:, :, 0], middle, rtol=1e-4, atol=1e-5)


# -- through the encoder -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    X, y = make_nsclc_cohort(24, n_slices=(3, 7), image_size=16, missing=0.2, return_X_y=True, random_state=0)
    return X[["lesion_image", "clinical_age"]], y[["subtype"]]


def encoder(**settings):
    return VolumeEncoder(
        **{"volume_size": (4, 16, 16), "embedding_dim": 8, "random_state": 0, "trainer": QUICK, **settings}
    )


def test_slices_are_resampled_evenly_and_kept_where_there_are_as_many():
    ramp = [np.repeat(np.linspace(0, 1, n, dtype=np.float32), 64).reshape(n, 8, 8) for n in (4, 8, 2)]
    X = pd.DataFrame({"ct_image": [ramp[0], None, *ramp[1:]]})
    data = encoder(volume_size=(4, 8, 8)).prepare(X)
    assert data.present.tolist() == [True, False, True, True] and data.item_shape == (1, 4, 8, 8)
    volumes = data.read(np.array([2, 0, 1]))
    np.testing.assert_allclose(volumes[1, 0], ramp[0], atol=1e-3)
    for volume in volumes:
        line = volume[0, :, 3, 3]
        assert (line.diff() >= 0).all() and float(line.mean()) == pytest.approx(0.5, abs=1e-3)
        assert float(volume.std(dim=(2, 3)).max()) < 1e-3
    np.testing.assert_allclose(volumes[2, 0, :, 0, 0], ramp[1].reshape(4, 2, 64).mean(axis=(1, 2)), atol=0.05)


@pytest.mark.parametrize("form", ["array", "npy", "nifti", "volume", "pair", "view", "mask"])
def test_cells_of_every_form_are_read_and_their_voxels_measured(form, tmp_path):
    rng = np.random.default_rng(0)
    columns, settings, expected = {"ct_image": []}, {"intensity_range": (-1000, 400)}, (5.0 * 6 / 4, 0.8, 0.8)
    for i in range(3):
        array = rng.integers(-900, 300, (6, 16, 16)).astype(np.int16)
        if form in ("array", "npy"):
            cell, expected = array, (1.0, 1.0, 1.0)
        elif form == "pair":
            cell = array, (5.0, 0.8, 0.8)
        else:
            cell = Volume(array, upright((5.0, 0.8, 0.8)), unit="HU")
        if form == "npy":
            np.save(tmp_path / f"{i}.npy", array)
            cell = tmp_path / f"{i}.npy"
        if form == "nifti":
            nibabel.save(
                nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([0.8, 0.8, 5, 1])), tmp_path / f"{i}.nii.gz"
            )
            cell = tmp_path / f"{i}.nii.gz"
        columns["ct_image"].append(cell)
    if form == "view":
        settings, expected = {"scan": ScanView(spacing=(5, 1.6, 1.6))}, (5.0 * 6 / 4, 0.8, 0.8)
    if form == "mask":
        columns["ct_mask"] = [np.zeros((6, 16, 16), bool) for _ in range(3)]
        for mask in columns["ct_mask"]:
            mask[2:4, 4:12, 4:8] = True
        side = 9  # the longer side with a margin of 5 % on each, in whole voxels
        expected = (5.0 * 6 / 4, 0.8 * side / 16, 0.8 * side / 16)
    X = pd.DataFrame(columns, index=["a", "b", "c"])
    model = encoder(**settings)
    model.fit(X, np.array([0, 1, 0]))
    assert model.spacing_ == pytest.approx(expected)
    assert model.transform(X).shape == (3, 8)


def test_absent_patients_and_a_model_around_it(study, tmp_path):
    X, y = study
    alone = encoder().fit(X[["lesion_image"]], y).transform(X[["lesion_image"]])
    np.testing.assert_array_equal(np.isnan(alone).any(axis=1), X["lesion_image"].isna())
    model = MMDLS(image_encoder=encoder(augmentation="standard", spacing=(3, 1, 1)), n_members=2, random_state=0)
    model.set_params(trainer=QUICK, image_encoder__backbone__width=8).fit(X, y)
    assert model._network.first.encoders["lesion"].backbone.conv1.kernel_size == (1, 7, 7)
    answer = model.predict_proba(X, "subtype")
    np.testing.assert_allclose(model.predict_proba(X[3:4], "subtype"), answer[3:4], atol=1e-6)
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X, "subtype"), answer)


def test_weights_of_a_file_start_a_frozen_backbone(study, tmp_path):
    X, y = study
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in medicalnet((1, 1, 1, 1)).items()}}, tmp_path / "resnet_10.pth"
    )
    model = encoder(weights=tmp_path / "resnet_10.pth", trainable=False)
    model.set_params(backbone="resnet10", backbone__width=8).fit(X[["lesion_image"]], y)
    assert model.weights_origin_.used["layer1.0.conv1.weight"] == "module.layer1.0.conv1.weight"
    start = medicalnet((1, 1, 1, 1))["layer4.0.conv2.weight"]
    assert torch.equal(model.network_.backbone.layer4[0].conv2.weight, start)


def test_a_frozen_model_of_volumes_sees_each_once(study):
    X, y = study
    seen = []

    def network(volumes):
        seen.append(volumes.shape)
        return volumes.mean(dim=(1, 3, 4))

    features = FrozenFeatures(network, images=encoder())
    MMDLS(image_encoder=features, trainer=QUICK, random_state=0).fit(X, y).predict(X)
    assert seen == [(1, 1, 4, 16, 16)] * int(X["lesion_image"].notna().sum())


def test_what_is_no_size_is_refused(study):
    X, y = study
    for size in ((4, 16), (4, 16, 0), (4.5, 16, 16), 1.5):
        with pytest.raises(ValueError, match="number of slices, rows and columns"):
            encoder(volume_size=size).fit(X[["lesion_image"]], y)


def test_the_heat_of_a_volume_is_on_its_slices(study):
    X, y = study
    shown = X.dropna()[:12]
    model = MMDLS(image_encoder=encoder(), trainer=QUICK, n_members=1, random_state=0).fit(shown, y.loc[shown.index])
    for method in ("grad_cam", "hires_cam"):
        explained = explain_image(model, shown[:1], "subtype", method=method)
        assert explained.heat.shape == explained.slices.shape == (4, 16, 16)
        assert explained.heat.min() >= 0 and explained.heat.max() > 0
