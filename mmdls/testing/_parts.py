"""The contract of each kind of network part, and the check of one registered part whatever its kind."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from mmdls import registry
from mmdls.testing._assertions import close, gradients_reach, no_batch_statistics, seeded, without_dropout
from mmdls.testing._encoders import check_encoder
from mmdls.testing._estimators import check_estimator
from mmdls.testing._heads import (
    check_class_head,
    check_competing_risks_head,
    check_regression_head,
    check_survival_head,
)
from mmdls.testing._models import check_model
from mmdls.testing._tasks import check_task

__all__ = [
    "all_parts",
    "check_augmentation",
    "check_backbone",
    "check_fusion",
    "check_part",
    "check_pooling",
    "check_segmentation_net",
    "check_task_weights",
    "check_volume_backbone",
]


def all_parts() -> Iterator[tuple[str, str]]:
    """Every registered part, as (kind, name).

    Examples
    --------
    >>> parts = list(all_parts())
    >>> ("poolings", "mean") in parts, ("estimators", "mmdls") in parts
    (True, True)
    """
    for kind in _CHECKS:
        for name in getattr(registry, kind):
            yield kind, name


def check_part(kind: str, name: str) -> None:
    """Run the contract checks of one registered part.

    Parameters
    ----------
    kind : str
        A registry's name, for example ``"poolings"``.
    name : str
        The part's name in it.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> check_part("poolings", "mean")
    """
    part = getattr(registry, kind)[name]
    assert (part.__doc__ or "").strip(), f"{part.__name__} has no docstring"
    if hasattr(part, "search_space"):
        space = part.search_space()
        assert space and all(isinstance(d, BaseDistribution) for d in space.values()), (
            f"{part.__name__}.search_space() must map parameters to optuna distributions; got {space}"
        )
    _CHECKS[kind](part)


def check_augmentation(augmentation: Callable[..., nn.Module]) -> None:
    """Images of the same size, changed in the same way under equal seeds and in micro-batches of any size.

    Parameters
    ----------
    augmentation : class or callable
        Called without arguments, returns the module.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import StandardAugmentation
    >>> check_augmentation(StandardAugmentation)
    """
    with seeded():
        net: Any = augmentation()
        assert 0 <= net.slice_dropout < 1, "slice_dropout must be a chance"
        images = torch.rand(6, 1, 24, 20)
        before = images.clone()
        state = torch.get_rng_state()
        changed = net(images)
        assert changed.shape == images.shape and torch.isfinite(changed).all(), "expected finite images of one size"
        assert torch.equal(images, before), "the images that were given must stay as they are"
        assert not torch.allclose(changed, images), "images must change"
        torch.set_rng_state(state)
        close(net(images), changed, "equal seeds must give equal images")
        torch.set_rng_state(state)
        close(torch.cat([net(images[:2]), net(images[2:])]), changed, "the size of micro-batches changed the images")


def check_backbone(backbone: Callable[..., nn.Module], size: tuple[int, ...] = (48, 40)) -> None:
    """Maps fine to coarse with ``out_channels``; an image's features do not depend on the images beside it.

    Parameters
    ----------
    backbone : class or callable
        Called with ``in_channels``, returns the network.
    size : tuple of int, default=(48, 40)
        Of the images.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import AntialiasedBackbone
    >>> check_backbone(AntialiasedBackbone)
    """
    with seeded():
        for in_channels in (1, 3):
            net: Any = backbone(in_channels=in_channels)
            no_batch_statistics(net)
            assert hasattr(net, "out_channels"), "a backbone must have out_channels, the channels of its maps"
            image = torch.randn(3, in_channels, *size)
            for mode in (False, True):
                without_dropout(net.train(mode))
                maps = net(image)
                assert isinstance(maps, list | tuple), f"forward must give a list of maps; got {type(maps).__name__}"
                assert [m.shape[1] for m in maps] == list(net.out_channels), "out_channels must tell the maps' channels"
                sizes = [m.shape[2:].numel() for m in maps]
                assert sizes == sorted(sizes, reverse=True), "feature maps must go from fine to coarse"
                for together, single in zip(maps, net(image[:1]), strict=True):
                    close(together[:1], single, "an image alone must equal itself in a batch", 1e-4)
        gradients_reach(net, lambda: net(image)[-1].square().sum())


def check_volume_backbone(backbone: Callable[..., nn.Module]) -> None:
    """The contract of backbones, for volumes with cubic voxels and with thick slices.

    Parameters
    ----------
    backbone : class or callable
        Called with ``in_channels`` and ``spacing``, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import SmallVolumeBackbone
    >>> check_volume_backbone(SmallVolumeBackbone)
    """
    for spacing in ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0)):
        check_backbone(partial(backbone, spacing=spacing), (8, 24, 20))


def check_pooling(pooling: Callable[..., nn.Module]) -> None:
    """Padding, the order of slices and the other patients never change the result; no slices give zeros.

    Parameters
    ----------
    pooling : class or callable
        Called with the width of a slice embedding, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    A sum over the real slices; padding does not count, even if it is NaN.

    >>> import torch
    >>> from torch import nn
    >>> class SumPooling(nn.Module):
    ...     def __init__(self, in_features):
    ...         super().__init__()
    ...
    ...     def forward(self, slices, mask):
    ...         return torch.where(mask[..., None], slices, 0.0).sum(dim=1)
    >>> check_pooling(SumPooling)
    """
    with seeded():
        net: Any = pooling(16).eval()
        no_batch_statistics(net)
        counts = torch.tensor([5, 1, 0, 3])
        mask = torch.arange(5) < counts[:, None]
        slices = torch.randn(4, 5, 16)
        pooled = net(slices, mask)
        assert pooled.shape == (4, 16), f"expected (4, 16), got {tuple(pooled.shape)}"
        assert torch.isfinite(pooled).all(), "the result must be finite"
        assert (pooled[2] == 0).all(), "a patient without slices must get zeros"
        for filler in (1e4, torch.nan, torch.inf):
            dirty = torch.where(mask[..., None], slices, filler)
            close(net(dirty, mask), pooled, f"padding with {filler} changed the result")
        wide = torch.cat([slices, torch.randn(4, 3, 16)], dim=1)
        wide_mask = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
        close(net(wide, wide_mask), pooled, "more padding changed the result")
        close(net(slices[3:, :3], mask[3:, :3]), pooled[3:], "a patient alone must equal itself in a batch")
        close(net(slices[:, :0], mask[:, :0]), torch.zeros(4, 16), "a batch without any slice must give zeros")
        for place in range(3):
            changed = slices.clone()
            changed[3, place] += 1
            assert not torch.allclose(net(changed, mask)[3], pooled[3]), "every real slice must count"
        order = torch.randperm(5)
        close(net(slices[:, order], mask[:, order]), pooled, "the order of slices changed the result")
        if hasattr(net, "attention"):
            weights = net.attention(slices, mask)
            assert weights.shape == mask.shape and (weights >= 0).all(), "weights must be (B, S) and non-negative"
            assert (weights[~mask] == 0).all(), "padded slices must have no weight"
            close(weights.sum(dim=1), (counts > 0).float(), "weights must sum to 1 over real slices")
        gradients_reach(net, lambda: net(slices, mask).square().sum())


def check_fusion(fusion: Callable[..., nn.Module]) -> None:
    """An absent modality never changes the result, a present one does; patients do not see one another.

    A fusion that reads tokens is also given those of two bags of different lengths, of which padding never counts.

    Parameters
    ----------
    fusion : class or callable
        Called with the modalities' widths and ``out_features``, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import GatedFusion
    >>> check_fusion(GatedFusion)
    """
    with seeded():
        widths = {"ct": 12, "pet": 5, "clinical": 1}
        net: Any = fusion(widths, out_features=16).eval()
        no_batch_statistics(net)
        assert getattr(net, "out_features", None) == 16, "out_features must be kept: the width it was built with"
        present = torch.cartesian_prod(*[torch.tensor([True, False])] * len(widths))
        n = len(present)
        embeddings = {name: torch.randn(n, width) for name, width in widths.items()}
        lengths = {"ct": 4, "pet": 2} if getattr(net, "reads_tokens", False) else {}
        items = {name: torch.randn(n, length, widths[name]) for name, length in lengths.items()}
        # A present bag has at least one item; what stands behind the last one is padding.
        real = {name: torch.arange(length) < 1 + torch.arange(n)[:, None] % length for name, length in lengths.items()}

        def fuse(shown: Any, items: Any = items, rows: slice = slice(None), present: Tensor = present) -> Tensor:
            tokens = {name: (values[rows], real[name][rows]) for name, values in items.items()}
            return net({name: x[rows] for name, x in shown.items()}, present[rows], *([tokens] if tokens else []))

        fused = fuse(embeddings)
        assert fused.shape == (n, 16) and torch.isfinite(fused).all(), "expected a finite (B, out_features)"
        for filler in (1e4, torch.nan):
            here = dict(zip(widths, present.T[..., None], strict=True))
            dirty = {name: torch.where(here[name], value, filler) for name, value in embeddings.items()}
            close(fuse(dirty), fused, "an absent modality changed the result")
            dirty = {name: torch.where(here[name][..., None], value, filler) for name, value in items.items()}
            close(fuse(embeddings, dirty), fused, "the items of an absent modality changed the result")
            dirty = {name: torch.where(real[name][..., None], value, filler) for name, value in items.items()}
            close(fuse(embeddings, dirty), fused, "the padding of a bag changed the result")
        close(fuse(embeddings, rows=slice(1, 2)), fused[1:2], "a patient alone must equal itself in a batch")
        for name, value in embeddings.items():
            changed = fuse(embeddings | {name: value + 1})
            assert not torch.allclose(changed[0], fused[0]), "a present modality must count"
        for name, value in items.items():
            changed = fuse(embeddings, items | {name: value + 1})
            assert not torch.allclose(changed[0], fused[0]), "the items of a present modality must count"
        if hasattr(net, "attention"):
            weights = net.attention(embeddings, present)
            assert weights.shape == present.shape and (weights[~present] == 0).all(), "absent modalities weigh nothing"
            close(weights.sum(dim=1), present.any(dim=1).float(), "weights must sum to 1")
        gradients_reach(net, lambda: fuse(embeddings).square().sum())
        single = fusion({"ct": 12}, out_features=16).eval()({"ct": embeddings["ct"]}, present[:, :1])
        assert torch.isfinite(single).all(), "a single modality must be enough"


def check_task_weights(weights: Callable[..., nn.Module]) -> None:
    """A finite scalar that never asks a loss to rise, whatever its size, and leaves an unknown task aside.

    Parameters
    ----------
    weights : class or callable
        Called with the number of tasks, returns the module.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import FamoWeights
    >>> check_task_weights(FamoWeights)
    """
    with seeded():
        net: Any = weights(3)
        assert net.learning_rate > 0, "learning_rate of the class must be above 0"
        for values in ([0.5, 2.0, 9.0], [1e-4, 1.0, 1e4], [0.0, 1.0, 1.0], [-0.5, 1.0, 1.0], [0.0, 0.0, 0.0]):
            losses = torch.tensor(values, requires_grad=True)
            total = net(losses)
            assert total.shape == () and torch.isfinite(total), f"losses {values} must give a finite scalar"
            (slope,) = torch.autograd.grad(total, losses)
            assert torch.isfinite(slope).all() and (slope >= 0).all(), f"losses {values} must not be asked to rise"


def check_segmentation_net(net: Callable[..., nn.Module]) -> None:
    """Logits of lung and lesion at the image's size; an image's logits do not depend on the images beside it.

    Parameters
    ----------
    net : class or callable
        Called with ``in_channels``, returns the network.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.modules import UNet
    >>> check_segmentation_net(UNet)
    """
    with seeded():
        model = net(in_channels=1)
        no_batch_statistics(model)
        image = torch.randn(2, 1, 64, 48)
        for mode in (False, True):
            without_dropout(model.train(mode))
            together, alone = model(image), model(image[:1])
            assert set(together) == {"lung", "lesion"}, f"expected logits of lung and lesion; got {sorted(together)}"
            for name, logits in together.items():
                assert logits.shape == image.shape, f"{name} must be {tuple(image.shape)}; got {tuple(logits.shape)}"
                close(logits[:1], alone[name], "an image alone must equal itself in a batch", 1e-4)
        gradients_reach(model, lambda: sum(logits.square().sum() for logits in model(image).values()))


_CHECKS: dict[str, Callable[[Any], None]] = {
    "augmentations": check_augmentation,
    "backbones": check_backbone,
    "volume_backbones": check_volume_backbone,
    "poolings": check_pooling,
    "fusions": check_fusion,
    "nominal_heads": check_class_head,
    "ordinal_heads": check_class_head,
    "survival_heads": check_survival_head,
    "competing_risks_heads": check_competing_risks_head,
    "regression_heads": check_regression_head,
    "segmentation_nets": check_segmentation_net,
    "task_weights": check_task_weights,
    "encoders": check_encoder,
    "estimators": check_estimator,
    "models": check_model,
    "tasks": check_task,
}
