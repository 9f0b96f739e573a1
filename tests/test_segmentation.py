"""Segmentation: networks, losses, files, and the estimator from CT to masks."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional

from mmdls import Part, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.estimators import MMDLS, LungLesionSegmentor, SliceEncoder
from mmdls.images import box_around, read_image, read_mask, voxel_spacing, write_mask
from mmdls.metrics import dice_score
from mmdls.modules import (
    CrossAttentionUNet,
    PublishedSegmentationNet,
    SegmentationLoss,
)
from mmdls.modules.losses_segmentation import LOSSES, dice_loss, focal_loss, tversky_loss
from mmdls.modules.segmentation import make_segmentation_net
from mmdls.registry import segmentation_nets
from mmdls.training._masks import Augmentation, with_context_slices

# -- networks --------------------------------------------------------------------------------------------------------


def test_the_registry_holds_what_is_promised():
    assert {"published", "cross_attention_unet", "unet"} <= set(segmentation_nets)


@pytest.mark.parametrize("name", ["published", "cross_attention_unet", "unet"])
@pytest.mark.parametrize("size", [(7, 5), (33, 64), (50, 41)])
def test_any_size_is_padded_inside(name, size):
    net = make_segmentation_net(name, in_channels=3).eval()
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        logits = net(image)
    assert all(value.shape == (2, 1, *size) and torch.isfinite(value).all() for value in logits.values())


@pytest.mark.parametrize("backbone", ["conv", "resnet10", "resnet18"])
def test_the_default_network_stands_on_any_backbone(backbone):
    params = {"conv": {"width": 8, "strides": (1, 2)}}.get(backbone, {"width": 8})
    net = CrossAttentionUNet(backbone=backbone, backbone_params=params)
    sizes = [m.shape[-1] for m in net.pyramid(torch.rand(1, 1, 64, 64))]
    assert sizes[0] == 64 and sizes == sorted(sizes, reverse=True)


def test_lung_and_lesion_tokens_see_one_another():
    """The lung's tokens change when only the lesion's did, and the other way round."""
    net = CrossAttentionUNet()
    cross, features = net.cross_attention, torch.rand(1, 64, 3, 4)
    before = cross.tokens(features)
    for changed, other in (("lung", "lesion"), ("lesion", "lung")):
        with torch.no_grad():
            cross.split[changed].weight[0] += 1
        after = cross.tokens(features)
        assert not torch.allclose(after[other], before[other])
        before = after


def test_attention_equals_its_formula():
    attention = CrossAttentionUNet().cross_attention.attention["lung"]
    query, other = torch.rand(2, 6, 64), torch.rand(2, 9, 64)
    heads = [
        layer(tokens).reshape(2, -1, 4, 16)
        for layer, tokens in ((attention.query, query), (attention.key, other), (attention.value, other))
    ]
    weights = torch.einsum("nqhd,nkhd->nhqk", heads[0], heads[1]).div(16**0.5).softmax(-1)
    expected = attention.out(torch.einsum("nhqk,nkhd->nqhd", weights, heads[2]).reshape(2, 6, 64))
    assert torch.allclose(attention(query, other, other), expected, atol=1e-5)


def test_published_lesion_branch_alone_attends():
    net = PublishedSegmentationNet(width=8).eval()
    image = torch.rand(1, 1, 32, 32)
    before = net(image)
    with torch.no_grad():
        net.attention.out.bias += 1
    after = net(image)
    assert torch.equal(before["lung"], after["lung"])
    assert not torch.allclose(before["lesion"], after["lesion"])


# -- weights ---------------------------------------------------------------------------------------------------------


class ImageNetBlock(nn.Module):
    """A basic block with the usual names, as in every ImageNet ResNet."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


def imagenet_weights(depth=2):
    net = nn.Module()
    net.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    net.bn1 = nn.BatchNorm2d(64)
    before = 64
    for stage in range(4):
        after = 64 * 2**stage
        blocks = [ImageNetBlock(before if i == 0 else after, after, 2 if stage and i == 0 else 1) for i in range(depth)]
        setattr(net, f"layer{stage + 1}", nn.Sequential(*blocks))
        before = after
    net.fc = nn.Linear(512, 1000)
    for name, value in net.named_parameters():
        value.data.normal_(0.05 if "bn" in name else 0.0, 0.05)
    return net.state_dict()


# -- losses ----------------------------------------------------------------------------------------------------------


def masks(seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(3, 10, 8, generator=generator) < 0.3).float()
    return torch.randn(3, 10, 8, generator=generator), mask


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_falls_from_wrong_to_right(name):
    _, mask = masks()
    signed = 2 * mask - 1
    losses = [LOSSES[name](scale * signed, mask).item() for scale in (-20, -1, 0, 1, 20)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-3


def test_losses_equal_their_formulas():
    logits, mask = masks()
    found = logits.sigmoid()
    dice = 1 - (2 * (found * mask).sum() + 1) / (found.sum() + mask.sum() + 1)
    assert torch.isclose(dice_loss(logits, mask), dice)
    hit, extra, missed = (found * mask).sum(), (found * (1 - mask)).sum(), ((1 - found) * mask).sum()
    tversky = 1 - hit / (hit + 0.3 * extra + 0.7 * missed)
    assert torch.isclose(tversky_loss(logits, mask, smooth=0), tversky)
    assert torch.isclose(focal_loss(logits, mask, gamma=0), LOSSES["cross_entropy"](logits, mask))
    right = torch.where(mask > 0, found, 1 - found)
    assert torch.isclose(focal_loss(logits, mask), (-((1 - right) ** 2) * right.log()).mean(), rtol=1e-4)


@pytest.mark.parametrize("names", ["dice+cross_entropy", "focal", "tversky + focal"])
def test_an_unknown_mask_teaches_nothing(names):
    logits = torch.randn(3, 2, 16, 16, requires_grad=True)
    mask, known = torch.ones(3, 2, 16, 16), torch.tensor([[True, True], [True, False], [True, False]])
    SegmentationLoss(names)([logits, functional.avg_pool2d(logits, 4)], mask, known).backward()
    assert (logits.grad[1:, 1] == 0).all() and (logits.grad[:, 0] != 0).any() and (logits.grad[0, 1] != 0).any()
    other = torch.where(known[..., None, None], mask, 0.0)
    loss = SegmentationLoss(names)
    assert torch.equal(loss([logits], mask, known), loss([logits], other, known))


def test_a_batch_without_known_masks_has_a_connected_loss_of_zero():
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    loss = SegmentationLoss()([logits], torch.zeros(2, 2, 8, 8), torch.zeros(2, 2, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and np.all(logits.grad.numpy() == 0)


def test_a_misspelt_loss_is_refused():
    with pytest.raises(ValueError, match="must join names of"):
        SegmentationLoss("dice+crossentropy")


def test_a_monai_network_by_name():
    pytest.importorskip("monai")
    net = make_segmentation_net("monai:UNet", in_channels=2, channels=(4, 8), strides=(2,)).eval()
    assert net(torch.rand(1, 2, 37, 40))["lesion"].shape == (1, 1, 37, 40)
    with pytest.raises(KeyError, match="has no 'UNett'"):
        make_segmentation_net("monai:UNett")


# -- NIfTI -----------------------------------------------------------------------------------------------------------


def nifti(path, codes="LPS", spacing=(0.7, 0.8, 3.0)):
    """A volume whose value tells the place of its voxel in the patient, stored in some orientation."""
    nibabel = pytest.importorskip("nibabel")
    left, back, up = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 10, 20, -300
    volume = nibabel.Nifti1Image((left + 10 * back + 100 * up - 1000).astype(np.int16), affine)
    orientations = nibabel.orientations
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes)))
    nibabel.save(volume.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "IRA"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_reads_the_same_however_it_is_stored(tmp_path, codes, suffix):
    path = nifti(tmp_path / f"ct{suffix}", codes)
    image = read_image(path)
    up, back, left = np.indices((6, 5, 4))
    assert image.dtype == np.int16 and np.array_equal(image, left + 10 * back + 100 * up - 1000)
    assert voxel_spacing(path) == pytest.approx((3.0, 0.8, 0.7))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "PSL", "IRA"])
def test_a_mask_written_back_lies_where_it_was_found(tmp_path, codes):
    nibabel = pytest.importorskip("nibabel")
    path = nifti(tmp_path / "ct.nii.gz", codes)
    mask = read_image(path) % 10 == 2
    write_mask(mask, tmp_path / "mask.nii.gz", like=path)
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz"), mask)
    image, written = nibabel.load(path), nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(image.affine, written.affine) and written.get_data_dtype() == np.uint8
    # Voxel by voxel in the file as well, which says nothing of how either is turned.
    assert np.array_equal(np.asarray(written.dataobj) == 1, np.asarray(image.dataobj) % 10 == 2)


def test_files_that_are_no_volume_are_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    (tmp_path / "damaged.nii.gz").write_bytes(nifti(tmp_path / "ct.nii.gz").read_bytes()[:200])
    (tmp_path / "text.nii").write_text("no volume")
    (tmp_path / "archive.tar.gz").write_text("no volume")
    for name in ("damaged.nii.gz", "text.nii", "archive.tar.gz"):
        with pytest.raises(ValueError, match="cannot be read as NIfTI"):
            read_image(tmp_path / name)
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)), tmp_path / "film.nii")
    with pytest.raises(ValueError, match="three axes; got shape"):
        read_image(tmp_path / "film.nii")
    with pytest.raises(ValueError, match="is none"):
        write_mask(np.ones((6, 5, 4)), tmp_path / "mask.png", like=tmp_path / "ct.nii.gz")
    with pytest.raises(ValueError, match="same voxels"):
        write_mask(np.ones((6, 5, 3)), tmp_path / "mask.nii", like=tmp_path / "ct.nii.gz")


def test_real_lungs_lie_where_lungs_lie(data_dir):
    """Both lungs of a real patient: the right one on the left of a slice, and air inside."""
    folder = data_dir / "lung1_001"
    image = read_image(folder / "LUNG1-001_ct_hu.nii.gz")
    labels = read_image(folder / "LUNG1-001_lungs_label.nii.gz")
    assert image.shape == labels.shape == (134, 512, 512)
    assert np.mean(np.nonzero(labels == 1)[2]) < 256 < np.mean(np.nonzero(labels == 2)[2])
    assert np.median(image[labels > 0]) < -700
    with pytest.raises(ValueError, match="Choose one label"):
        read_mask(labels)


# -- the estimator ---------------------------------------------------------------------------------------------------


def ct_cohort(n_patients=16, image_size=32, n_slices=3, seed=0):
    X, y = make_nsclc_cohort(
        n_patients, n_slices=n_slices, image_size=image_size, masks=True, return_X_y=True, random_state=seed
    )
    return X.drop(columns="lesion_image").rename(columns={"lung_image": "ct_image"}), y


@pytest.fixture(scope="module")
def X():
    return ct_cohort()[0]


@pytest.fixture(scope="module")
def segmentor(X):
    return LungLesionSegmentor(image_size=32, max_epochs=30, batch_size=8, random_state=0).fit(X)


def test_it_learns_lungs_and_lesions_of_patients_never_seen(segmentor):
    new, _ = ct_cohort(20, seed=1)
    masks = segmentor.predict(new[["ct_image"]])
    lungs = [dice_score(a, b) for a, b in zip(new["lung_mask"], masks["lung_mask"], strict=True)]
    lesions = [dice_score(a, b) for a, b in zip(new["lesion_mask"], masks["lesion_mask"], strict=True)]
    assert np.mean(lungs) > 0.95 and np.median(lesions) > 0.5
    assert segmentor.score(new) == pytest.approx(np.mean([lungs, lesions]))


def test_masks_have_the_size_of_their_image_and_follow_the_probabilities(segmentor, X):
    image = X["ct_image"].iloc[0]
    tall = np.pad(image, ((0, 0), (0, 9), (0, 3)), mode="edge")
    table = pd.DataFrame({"ct_image": [image, tall, None, image[0]]}, index=list("abcd"))
    masks, probabilities = segmentor.predict(table), segmentor.predict_proba(table)
    for name in ("lung", "lesion"):
        found, probability = masks[f"{name}_mask"], probabilities[f"{name}_probability"]
        assert found["c"] is None and probability["c"] is None
        assert found["d"].shape == (1, 32, 32) and found["b"].shape == tall.shape
        for patient in "abd":
            assert found[patient].dtype == bool
            assert np.array_equal(found[patient], probability[patient] > 0.5)


def test_a_missing_mask_is_masked(X):
    """What stands where a mask is unknown never matters; a structure nobody has is never predicted."""
    X = X.assign(lesion_mask=None)
    model = LungLesionSegmentor(image_size=32, max_epochs=1, random_state=0).fit(X)
    assert model.structures_ == ["lung"] and list(model.predict(X)) == ["lung_mask"]
    without = LungLesionSegmentor(image_size=32, max_epochs=1, random_state=0).fit(X.drop(columns="lesion_mask"))
    assert all(map(np.array_equal, model.predict(X)["lung_mask"], without.predict(X)["lung_mask"]))
    assert 0 < model.score(X) < 1


def test_hounsfield_units_and_greys_of_one_range_give_equal_masks(segmentor, X):
    """Greys 0 to 255 stand for -1350 to 150 HU by default."""
    hounsfield = X["ct_image"].map(lambda grey: grey / 255 * 1500 - 1350)
    one, other = segmentor.predict(X), segmentor.predict(X.assign(ct_image=hounsfield))
    for name in one:
        assert all(map(np.array_equal, one[name], other[name]))
    wide = clone(segmentor).set_params(grey_range=(-1500.0, 300.0))
    assert np.allclose(wide._hounsfield(np.array([0, 255], dtype=np.uint8)), (-1500, 300))


@pytest.mark.parametrize(
    "change",
    [
        {"context_slices": 1},
        {"patch_size": 16},
        {"precision": "bf16"},
        {"loss": "tversky+focal"},
        {"net": "unet", "net_params": {"width": 4}},
        {"net": "published", "net_params": {"width": 8}},
        {"validation_fraction": 0.0},
        {"augment": False, "patience": None},
        {"image_size": (32, 24)},
        {"n_jobs": 2},
    ],
    ids=repr,
)
def test_every_way_to_train_learns_and_can_be_repeated(X, change):
    model = LungLesionSegmentor(image_size=32, max_epochs=3, batch_size=8, random_state=0).set_params(**change)
    one, again = clone(model).fit(X), clone(model).fit(X)
    assert one.history_["train_loss"].iloc[-1] < one.history_["train_loss"].iloc[0]
    assert one.history_["train_loss"].equals(again.history_["train_loss"])
    assert all(map(np.array_equal, one.predict(X)["lung_mask"], again.predict(X)["lung_mask"]))


def test_mirrored_slices_give_mirrored_masks_with_flips(segmentor, X):
    model = copy.copy(segmentor).set_params(test_time_augmentation=True)
    mirrored = X.assign(ct_image=X["ct_image"].map(lambda image: image[..., ::-1].copy()))
    one, other = model.predict_proba(X), model.predict_proba(mirrored)
    assert all(np.allclose(a, b[..., ::-1], atol=1e-4) for a, b in zip(one.iloc[:, 0], other.iloc[:, 0], strict=True))


def test_neighbours_repeat_at_both_ends_and_stay_with_their_patient():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None]
    taken = with_context_slices(images, torch.tensor([0, 0, 0, 1, 1]), torch.arange(5), 1)[..., 0, 0]
    assert taken.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 4], [3, 4, 4]]


def test_augmentation_moves_image_and_mask_alike():
    torch.manual_seed(0)
    image = torch.zeros(6, 1, 40, 60)
    image[..., 10:20, 15:35] = 1
    moved, mask = Augmentation(contrast=0.0, brightness=0.0, noise=0.0)(image, image)
    assert torch.equal(moved, mask) and not torch.allclose(moved, image)
    turned, _ = Augmentation(rotation=60.0, zoom=0.0, shift=0.0, contrast=0.0, brightness=0.0, noise=0.0)(image, image)
    for picture in turned[:, 0]:
        # Turned and mirrored, an oblong keeps its area and its spread along and across: nothing is sheared.
        rows, columns = np.indices(picture.shape)
        spread = np.linalg.eigvalsh(np.cov(np.stack([rows.ravel(), columns.ravel()]), aweights=picture.numpy().ravel()))
        assert float(picture.sum()) == pytest.approx(200, rel=0.03)
        assert spread == pytest.approx([(10**2 - 1) / 12, (20**2 - 1) / 12], rel=0.12)


def test_rules_keep_the_largest_parts_and_the_lesion_in_the_body(segmentor):
    image = np.full((2, 20, 20), -1000.0)
    image[:, 4:16, 4:16] = 40
    image[:, 7:12, 7:12] = -800
    lesion = np.zeros((2, 20, 20), dtype=bool)
    lesion[:, 8:11, 8:11] = lesion[:, 0:2, 0:2] = lesion[:, 14, 14] = True
    model = copy.copy(segmentor).set_params(lesion_inside_body=True)
    model._probabilities = lambda *_: iter([{"lung": np.zeros(image.shape), "lesion": lesion.astype(float)}])
    inside = model._masks(image, "P1")["lesion"]
    assert inside[:, 8:11, 8:11].all() and inside[:, 14, 14].all() and not inside[:, 0:2, 0:2].any()
    largest = model.set_params(lesion_components=1)._masks(image, "P1")["lesion"]
    assert largest.sum() == 18 and largest[:, 8:11, 8:11].all()


def test_lungs_lie_in_the_body_if_wanted(segmentor):
    image = np.full((3, 20, 20), -1000, dtype=np.int16)
    image[:2, 4:16, 4:16] = 40
    image[:2, 7:12, 7:12] = -800
    model = copy.copy(segmentor)
    model._probabilities = lambda image, patient: iter(
        [dict.fromkeys(("lung", "lesion"), (image < -500).astype(float))]
    )
    for rules in ((False, False), (True, False), (False, True), (True, True)):
        model.set_params(lung_inside_body=rules[0], lesion_inside_body=rules[1])
        for mask, inside in zip(model._masks(image, "P1").values(), rules, strict=True):
            assert np.array_equal(mask[:2], image[:2] == -800 if inside else image[:2] < -500)
            assert mask[2].all()  # there is no body to be in


def chest(*parts):
    """Air of -800 HU in boxes of a body."""
    image = np.full((24, 20, 30), 40, dtype=np.int16)
    image[:, :2] = -1000
    for part in parts:
        image[part] = -800
    return image


RIGHT, LEFT, BRIDGE = np.s_[2:22, 5:15, 4:12], np.s_[2:22, 5:15, 18:26], np.s_[10:12, 9:11, 12:18]
COLLAPSED, SHOULDER, TRACHEA = np.s_[6:12, 10:14, 20:24], np.s_[22:24, 4:6, 1:3], np.s_[23:24, 9:10, 14:16]


def kept(segmentor, path, image, spacing=(1.0, 1.0, 5.0), **params):
    """What stays of all air, which a network takes for lung, of a file with this spacing (x, y, z)."""
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(
        nibabel.Nifti1Image(image.transpose(2, 1, 0), np.diag([-spacing[0], -spacing[1], spacing[2], 1])), path
    )
    model = copy.copy(segmentor).set_params(**params)
    model._probabilities = lambda image, patient: iter([{"lung": (image == -800).astype(float)}])
    return model.predict(pd.DataFrame({"ct_image": [str(path)]}))["lung_mask"].iloc[0]


@pytest.mark.parametrize(
    "lungs",
    [(RIGHT, LEFT), (RIGHT, COLLAPSED), (RIGHT, LEFT, BRIDGE), (RIGHT,)],
    ids=["two", "collapsed", "merged", "one"],
)
def test_of_a_volume_the_two_largest_parts_are_kept_by_default(segmentor, tmp_path, lungs):
    image = chest(*lungs, SHOULDER, TRACHEA)
    found = kept(segmentor, tmp_path / "ct.nii.gz", image)
    assert found[chest(*lungs) == -800].all() and not found[TRACHEA].any()
    assert found[SHOULDER].any() == (len(lungs) != 2)  # one part leaves room for another
    assert np.array_equal(kept(segmentor, tmp_path / "ct.nii.gz", image, lung_components=None), image == -800)


@pytest.mark.parametrize("spacing", [(1, 1, 20), (1, 20, 5), (1, 1, 3)], ids=["far", "coronal", "few"])
def test_of_slices_that_are_no_volume_every_part_is_kept_by_default(segmentor, tmp_path, spacing):
    image = chest(RIGHT, LEFT, SHOULDER, TRACHEA)
    assert np.array_equal(kept(segmentor, tmp_path / "ct.nii", image, spacing), image == -800)
    assert not kept(segmentor, tmp_path / "ct.nii", image, spacing, lung_components=2)[TRACHEA].any()


def test_arrays_do_not_tell_whether_they_are_volumes(segmentor, tmp_path):
    image = chest(RIGHT, LEFT, SHOULDER, TRACHEA)
    np.save(tmp_path / "ct.npy", image)
    kept(segmentor, tmp_path / "ct.nii", image)
    model = copy.copy(segmentor)
    model._probabilities = lambda image, patient: iter([{"lung": (image == -800).astype(float)}])
    cells = [image, str(tmp_path / "ct.npy"), tmp_path / "ct.nii"]
    table = pd.DataFrame({"ct_image": pd.Series(cells, dtype=object)})
    parts = [n_parts(mask) for mask in model.predict(table)["lung_mask"]]
    assert parts == [4, 4, 2]
    # Every way to masks follows the same rule.
    model.structures_ = ["lung"]
    with_true = table.assign(lung_mask=[image == -800] * 3)
    assert model.score(with_true[:2]) == 1 > model.score(with_true[2:])
    assert [n_parts(mask) for mask in model.transform(table)["lung_mask"]] == parts


def n_parts(mask):
    return ndimage.label(mask)[1]


# -- transform and pipelines -----------------------------------------------------------------------------------------


def test_transform_adds_crops_and_masks_and_reports_what_is_not_found(segmentor, X):
    image = X["ct_image"].iloc[0]
    table = X.iloc[:3].assign(centre="A")
    table["ct_image"] = pd.Series([image, None, np.zeros_like(image)], index=table.index, dtype=object)
    with pytest.warns(UserWarning, match=f"no lesion was found in 1 of 2 patients with an image: '{table.index[2]}'"):
        found = segmentor.transform(table)
    assert "ct_image" not in found and found["centre"].eq("A").all() and found.index.equals(table.index)
    first = found.iloc[0]
    assert first["lesion_image"].dtype == np.uint8 and first["lesion_image"].shape[1:] == (64, 64)
    assert len(first["lesion_image"]) == first["lesion_mask"].any(axis=(1, 2)).sum()
    assert np.array_equal(first["lesion_mask"], segmentor.predict(table)["lesion_mask"].iloc[0])
    # The crop shows the lesion, which is brighter than its surroundings, in its middle.
    assert first["lesion_image"][:, 24:40, 24:40].mean() > first["lesion_image"].mean()
    assert found.iloc[1:][["lesion_image", "lesion_mask"]].isna().all(axis=None)
    assert "ct_image" in copy.copy(segmentor).set_params(keep_image=True).transform(X)
    with pytest.raises(ValueError, match="'lesion_image'. already"):
        segmentor.transform(X.assign(lesion_image=None))


@pytest.mark.filterwarnings("ignore:no l")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_pipeline_from_ct_to_outcomes_is_fitted_cross_validated_and_predicts(frozen, segmentor):
    X, y = ct_cohort(24, n_slices=2, seed=2)
    first = FrozenEstimator(segmentor) if frozen else LungLesionSegmentor(image_size=32, max_epochs=2, random_state=0)
    image = SliceEncoder(backbone=Part("conv", width=4, strides=(2, 2)), embedding_dim=8)
    pipeline = make_pipeline(first, MMDLS(image_encoder=image, trainer=Trainer(max_epochs=2), random_state=0))
    scores = cross_val_score(pipeline, X, y, cv=2, error_score="raise")
    assert np.isfinite(scores).all()
    answer = pipeline.fit(X, y).predict(X.drop(columns=["lung_mask", "lesion_mask"]))
    assert len(answer) == 24 and answer["os"].notna().all()
    if frozen:
        assert {"lung", "lesion"} <= {name for name, *_ in pipeline[-1].modalities_}


def test_box_around_keeps_every_pixel_of_the_structure():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.zeros((6, 30, 41), dtype=bool)
        mask[tuple(rng.integers(0, mask.shape, (rng.integers(1, 5), 3)).T)] = True
        box = box_around(mask, margin=rng.uniform(0, 1))
        assert mask[box].sum() == mask.sum() and mask[box].any(axis=(1, 2))[[0, -1]].all()
        height, width = mask[box].shape[1:]
        assert height == width or 30 in (height, width)
    assert box_around(np.zeros((2, 3, 3), dtype=bool)) is None


# -- weights and bad inputs ------------------------------------------------------------------------------------------


def test_backbone_weights_from_a_file_start_the_encoder(tmp_path, X):
    weights = imagenet_weights()
    torch.save(weights, tmp_path / "resnet18.pt")
    model = LungLesionSegmentor(
        net_params={"backbone": "resnet18", "backbone_params": {"width": 64}},
        backbone_weights=tmp_path / "resnet18.pt",
        image_size=32,
        max_epochs=1,
        learning_rate=1e-9,
        context_slices=1,
        random_state=0,
    ).fit(X)
    assert torch.allclose(model.network_.encoder.conv1.weight, weights["conv1.weight"], atol=1e-5)
    inner = model.network_.encoder.layer4[1].conv2.weight
    assert torch.allclose(inner, weights["layer4.1.conv2.weight"], atol=1e-5)
    with pytest.raises(FileNotFoundError, match="backbone_weights"):
        clone(model).set_params(backbone_weights=tmp_path / "none.pt").fit(X)
    with pytest.raises(ValueError, match="has none; use"):
        clone(model).set_params(net="unet", net_params=None).fit(X)


def test_black_slices_and_slices_without_lungs_are_answered_and_can_be_learned(segmentor, X):
    """Empty masks say that a structure is absent, as in a belly or a black slice."""
    black, air = np.zeros((3, 32, 32), dtype=np.uint8), np.full((2, 40, 40), -1024, dtype=np.int16)
    masks = segmentor.predict(pd.DataFrame({"ct_image": [black, air]}))
    assert not any(mask.any() for mask in masks["lesion_mask"])
    assert [mask.shape for mask in masks["lung_mask"]] == [(3, 32, 32), (2, 40, 40)]
    rng = np.random.default_rng(0)
    walls = [rng.normal(120, 5, (3, 32, 32)).clip(0, 255).astype(np.uint8) for _ in range(8)]
    empty = pd.DataFrame({"ct_image": [*walls, black]}, index=[f"E{i}" for i in range(9)])
    empty["lung_mask"] = empty["lesion_mask"] = [np.zeros((3, 32, 32), dtype=bool)] * 9
    model = LungLesionSegmentor(image_size=32, max_epochs=15, batch_size=8, random_state=0)
    model.fit(pd.concat([X[empty.columns], empty[1:]]))
    assert not model.predict(empty[:1]).iloc[0].map(np.any).any()
    assert not model.predict(empty[-1:]).iloc[0].map(np.any).any()
    assert model.score(X) > 0.6


def test_values_that_are_no_hounsfield_units_are_refused(segmentor, X):
    stored = X.assign(ct_image=X["ct_image"].map(lambda grey: (grey * 5.9).astype(np.int16)))
    for model in (clone(segmentor).fit, segmentor.predict, segmentor.transform):
        with pytest.raises(ValueError, match="patient 'P00001' holds int16 .* Hounsfield units .* 1024 was added"):
            model(stored)


def test_masks_with_several_labels_or_other_shapes_are_refused(X):
    model = LungLesionSegmentor(image_size=32, max_epochs=1)
    labels = X.assign(lung_mask=X["lung_mask"].map(lambda mask: mask * np.arange(1, 33)))
    with pytest.raises(ValueError, match="Choose one label"):
        model.fit(labels)
    with pytest.raises(ValueError, match="both need the same slices"):
        model.fit(X.assign(lung_mask=X["lung_mask"].map(lambda mask: mask[:, 1:])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "cross_atention_unet"}, "Did you mean 'cross_attention_unet'"),
        ({"patch_size": 64}, "patch_size must fit into image_size"),
        ({"intensity_range": (150.0, -1350.0)}, "low < high"),
        (
            {"threshold": 1.5},
            "'threshold' parameter of LungLesionSegmentor must be .* in the range .0.0, 1.0.. Got 1.5",
        ),
        ({"context_slices": -1}, "'context_slices' parameter .* must be an int in the range .0, inf.. Got -1"),
        ({"loss": "dise"}, "loss must join"),
        ({"lung_components": "two"}, "'lung_components' parameter .* must be an int .*'auto'.* or None. Got 'two'"),
        ({"lesion_components": "auto"}, "'lesion_components' parameter .* must be an int .* or None. Got 'auto'"),
        ({"threshold": float("nan")}, "'threshold' parameter"),
        ({"max_epochs": 0}, "'max_epochs' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"learning_rate": -1e-3}, "'learning_rate' parameter"),
        ({"crop_margin": -0.5}, "'crop_margin' parameter"),
        ({"test_time_augmentation": "no"}, "'test_time_augmentation' parameter"),
        ({"precision": "float16"}, "'precision' parameter"),
        ({"image_size": (32, 0)}, "image_size must be a whole number of 1 or more, or .height, width.; got .32, 0."),
        ({"grey_range": (0.0, float("inf"))}, "grey_range must be .low, high."),
        ({"lung_label": 0}, "'lung_label' parameter"),
        ({"lesion_label": [1, 0.5]}, "lesion_label must be a whole number above 0 or a name, or several; got"),
        ({"image_column": "scan"}, "lacks the column 'scan'"),
    ],
)
def test_bad_parameters_are_refused(X, change, message):
    with pytest.raises((ValueError, KeyError), match=message):
        LungLesionSegmentor(image_size=32, max_epochs=1).set_params(**change).fit(X)


def test_a_table_without_masks_or_images_is_refused(X):
    model = LungLesionSegmentor(image_size=32, max_epochs=1)
    with pytest.raises(ValueError, match="'lung_mask' or 'lesion_mask'"):
        model.fit(X[["ct_image"]])
    with pytest.raises(ValueError, match="nothing can be learned"):
        model.fit(X.assign(ct_image=None))
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_the_loss_is_the_mean_over_structures_and_the_weighted_mean_over_levels():
    levels, mask = [torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)], (torch.rand(2, 2, 8, 8) > 0.5).float()
    both, first = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[True, False]] * 2)
    loss = SegmentationLoss("dice")
    by_level = [torch.stack([loss([x], mask, only) for only in (first, ~first)]).mean() for x in levels]
    torch.testing.assert_close(loss(levels, mask, both), (by_level[0] + 0.5 * by_level[1]) / 1.5)
