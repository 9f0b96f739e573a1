"""Segmentation: networks, losses, files, and the estimator from CT to masks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mmdls.images import read_image, read_mask, voxel_spacing, write_mask
from mmdls.modules import (
    CrossAttentionUNet,
    PublishedSegmentationNet,
    ResNet10Backbone,
    ResNet18Backbone,
    SegmentationLoss,
)
from mmdls.modules.losses_segmentation import LOSSES, dice_loss, focal_loss, tversky_loss
from mmdls.modules.segmentation import load_imagenet_weights, make_segmentation_net
from mmdls.registry import segmentation_nets

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
    params = {"conv": {"channels": (8, 16), "strides": (1, 2)}}.get(backbone, {"width": 8})
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


def test_imagenet_weights_reach_every_layer():
    weights = imagenet_weights()
    backbone = ResNet18Backbone(in_channels=3)
    load_imagenet_weights(backbone, weights)
    own = backbone.state_dict()
    assert torch.equal(own["stem.0.weight"], weights["conv1.weight"])
    assert torch.equal(own["stem.1.bias"], weights["bn1.bias"])
    assert torch.equal(own["stages.2.1.conv2.weight"], weights["layer3.1.conv2.weight"])
    assert torch.equal(own["stages.3.0.norm1.weight"], weights["layer4.0.bn1.weight"])
    assert torch.equal(own["stages.1.0.shortcut.1.bias"], weights["layer2.0.downsample.1.bias"])
    # Nothing was left as it was drawn: every tensor is found among the given ones.
    given = {value.sum().item() for value in weights.values()}
    assert {value.sum().item() for value in own.values()} <= given


@pytest.mark.parametrize("in_channels", [1, 5])
def test_the_first_convolution_answers_equal_channels_as_on_imagenet(in_channels):
    weights, backbone = imagenet_weights(), ResNet18Backbone(in_channels=in_channels)
    load_imagenet_weights(backbone, weights)
    grey = torch.rand(1, 1, 20, 20)
    expected = functional.conv2d(grey.repeat(1, 3, 1, 1), weights["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(backbone.stem[0](grey.repeat(1, in_channels, 1, 1)), expected, atol=1e-5)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width=64"):
        load_imagenet_weights(ResNet18Backbone(width=16), imagenet_weights())
    with pytest.raises(ValueError, match="lack 'layer1.1"):
        load_imagenet_weights(ResNet18Backbone(), imagenet_weights(depth=1))
    with pytest.raises(ValueError, match="ResNet backbone"):
        load_imagenet_weights(nn.Conv2d(1, 1, 1), imagenet_weights())
    load_imagenet_weights(ResNet10Backbone(), imagenet_weights(depth=1))


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


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "IAR"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_reads_the_same_however_it_is_stored(tmp_path, codes, suffix):
    path = nifti(tmp_path / f"ct{suffix}", codes)
    image = read_image(path)
    up, back, left = np.indices((6, 5, 4))
    assert image.dtype == np.int16 and np.array_equal(image, left + 10 * back + 100 * up - 1000)
    assert voxel_spacing(path) == pytest.approx((3.0, 0.8, 0.7))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL"])
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
