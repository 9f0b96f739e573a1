"""Augmentation: every change by itself, and in training only."""

import numpy as np
import pytest
import torch

from mmdls import MMDLS, Part, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import MeanPooling, SliceNet, StandardAugmentation
from mmdls.modules.backbones import ConvBackbone
from mmdls.search import search_space_of

NOTHING = {"flip": 0, "shift": 0, "rotation": 0, "scale": 0, "intensity": 0, "slice_dropout": 0}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def only(**change):
    return StandardAugmentation(**(NOTHING | change))


def spot(height=33, width=65, at=(8, 40)):
    """A round spot of intensity 1 on a black image that is not square."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8.0)[None, None].repeat(200, 1, 1, 1)


def centre(images):
    """Centre of mass of each image, (k, 2): rows and columns from the middle."""
    mass = images.sum(dim=(1, 2, 3))
    y = torch.arange(images.shape[2]) - (images.shape[2] - 1) / 2
    x = torch.arange(images.shape[3]) - (images.shape[3] - 1) / 2
    return torch.stack([(images.sum(3)[:, 0] @ y) / mass, (images.sum(2)[:, 0] @ x) / mass], dim=1)


def test_without_changes_images_stay():
    images = torch.rand(3, 2, 9, 14)
    torch.testing.assert_close(only()(images), images, atol=1e-5, rtol=0)


def test_every_change_is_what_it_says():
    images = spot()
    start = centre(images)[0]
    mirrored = only(flip=1)(images)
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-5, rtol=0)
    half = torch.isclose(only(flip=0.5)(images)[:, 0, 8, 40], images[:, 0, 8, 40]).float().mean()
    assert 0.35 < half < 0.65

    moved = centre(only(shift=0.1)(images)) - start
    assert (moved.abs() <= torch.tensor([3.4, 6.6])).all() and (moved.abs().amax(0) > torch.tensor([2.5, 5.0])).all()

    turned = centre(only(rotation=10)(images))
    torch.testing.assert_close(turned.norm(dim=1), start.norm().expand(200), atol=0.15, rtol=0)
    angles = torch.rad2deg(torch.atan2(turned[:, 0], turned[:, 1]) - torch.atan2(start[0], start[1]))
    assert angles.abs().max() <= 10.3 and angles.max() > 8 and angles.min() < -8

    scaled = centre(only(scale=0.2)(images)).norm(dim=1) / start.norm()
    assert 1 / 1.21 <= scaled.min() < 0.87 and 1.15 < scaled.max() <= 1.21

    flat = only(intensity=0.1)(torch.full((200, 1, 4, 4), 0.5))
    assert (flat.amax((1, 2, 3)) - flat.amin((1, 2, 3))).max() < 1e-6
    assert 0.35 <= flat.min() < 0.4 and 0.6 < flat.max() <= 0.65


def test_slices_are_left_out_in_training_but_never_all():
    net = SliceNet(ConvBackbone(width=4), MeanPooling(1), 1, augmentation=only(slice_dropout=0.7))
    packed, counts = torch.arange(1.0, 601)[:, None], torch.tensor([3] * 200)
    whole = packed.reshape(200, 3).mean(dim=1, keepdim=True)
    torch.testing.assert_close(net.eval().pool(packed, counts), whole)
    pooled = net.train().pool(packed, counts)
    alone = torch.ones(50, dtype=torch.long)
    torch.testing.assert_close(net.pool(packed[:50], alone), packed[:50])  # the only slice of a patient stays
    assert (pooled > 0).all() and 0.3 < (pooled != whole).float().mean() < 0.95
    with pytest.raises(ValueError, match=r"'slice_dropout' parameter of StandardAugmentation .* \[0.0, 1.0\). Got 1"):
        StandardAugmentation(slice_dropout=1)
    with pytest.raises(ValueError, match=r"'rotation' parameter of StandardAugmentation .* \[0.0, inf\). Got -1"):
        StandardAugmentation(rotation=-1)


def test_a_model_learns_from_changed_slices_and_predicts_from_slices_as_they_are():
    X, y = make_nsclc_cohort(24, n_slices=3, image_size=16, return_X_y=True, random_state=0)
    X, y = X[["lesion_image"]], y[["subtype"]]

    def model(augmentation, micro_batch_size="auto"):
        trainer = Trainer(max_epochs=2, validation_fraction=0, micro_batch_size=micro_batch_size)
        model = MMDLS(trainer=trainer, n_members=1, random_state=0)
        return model.set_params(image_encoder__augmentation=augmentation).fit(X, y)

    plain, changed, again = model(None), model("standard"), model(Part("standard"), micro_batch_size=5)
    assert not np.allclose(plain.transform(X), changed.transform(X))
    np.testing.assert_array_equal(changed.transform(X), changed.transform(X))
    np.testing.assert_allclose(changed.transform(X), again.transform(X), atol=1e-4)
    assert not [name for name in search_space_of(MMDLS()) if "augmentation" in name], "off until it is asked for"
    assert MMDLS().set_params(image_encoder__augmentation="standard").get_params()["image_encoder__augmentation__flip"]
