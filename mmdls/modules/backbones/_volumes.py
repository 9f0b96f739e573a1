"""Residual networks of volumes, whose kernels and strides follow the sides of the voxels."""

from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
from torch import Tensor, nn
from torch.nn import functional

from mmdls._parameters import Each, count, positive
from mmdls.modules.backbones._monai import MonaiBackbone
from mmdls.modules.backbones._normalisation import group_norm
from mmdls.modules.backbones._resnet import Block, Bottleneck, half
from mmdls.registry import volume_backbones

__all__ = [
    "MonaiVolumeBackbone",
    "SmallVolumeBackbone",
    "VolumeResNet10Backbone",
    "VolumeResNet18Backbone",
    "VolumeResNet34Backbone",
    "VolumeResNet50Backbone",
]


class _VolumeResNet(nn.Module):
    """The residual network of He et al. in three dimensions, with group normalisation; subclasses name the depth.

    Along an axis whose voxels are at least twice as long as the shortest side, kernels have size 1 and nothing is
    halved, until the other axes have been halved so often that their voxels are as long.
    """

    blocks: Sequence[int] = (1, 1, 1, 1)
    block: ClassVar[type[Block] | type[Bottleneck]] = Block

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_channels": [count(1)],
        "spacing": [Each(positive(), 3)],
        "width": [count(1)],
    }

    def __init__(self, in_channels: int = 1, spacing: Sequence[float] = (1.0, 1.0, 1.0), width: int = 64):
        super().__init__()
        voxel = tuple(map(float, spacing))

        def halved(size: int) -> tuple[Any, Any]:
            nonlocal voxel
            fine = [side < 1.99 * min(voxel) for side in voxel]  # sides measured in mm need not be exact multiples
            steps = tuple(2 if each else 1 for each in fine)
            voxel = tuple(side * step for side, step in zip(voxel, steps, strict=True))
            return tuple(size if each else 1 for each in fine), steps

        kernel, steps = halved(7)
        self.conv1 = nn.Conv3d(in_channels, width, kernel, stride=steps, padding=half(kernel), bias=False)
        self.bn1 = group_norm(width)
        self.pooled = halved(3)
        self.out_channels = [self.block.expansion * width * 2**stage for stage in range(len(self.blocks))]
        before = width
        for stage, depth in enumerate(self.blocks):
            kernel = tuple(3 if side < 1.99 * min(voxel) else 1 for side in voxel)
            first = 1, 1, 1
            if stage:
                kernel, first = halved(3)
            layers: list[nn.Module] = []
            for i in range(depth):
                steps = first if i == 0 else (1, 1, 1)
                layers.append(self.block(before, width * 2**stage, steps, kernel, nn.Conv3d))
                before = self.out_channels[stage]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Volume (N, C, S, H, W) -> four maps; the finest axis at 1/4, 1/8, 1/16 and 1/32 of its size."""
        volume = self.bn1(self.conv1(volume), relu=True)
        kernel, steps = self.pooled
        volume = functional.max_pool3d(volume, kernel, stride=steps, padding=half(kernel))
        maps = []
        for stage in range(len(self.blocks)):
            volume = self.get_submodule(f"layer{stage + 1}")(volume)
            maps.append(volume)
        return maps

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"width": optuna.distributions.CategoricalDistribution([8, 16, 32])}


@volume_backbones.register("small")
class SmallVolumeBackbone(_VolumeResNet):
    """Narrow three-dimensional ResNet of 10 layers; the default for volumes.

    Parameters
    ----------
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Sides of the voxels along slices, rows and columns; their ratios count.
    width : int, default=16
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.
    .. [3] Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
       learning-based biomedical image segmentation. Nature Methods, 2021.

    Examples
    --------
    >>> import torch
    >>> backbone = SmallVolumeBackbone(spacing=(3.0, 1.0, 1.0), width=4)  # slices, thick, are halved less often
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 16, 32, 32))]
    [(1, 4, 8, 8, 8), (1, 8, 4, 4, 4), (1, 16, 2, 2, 2), (1, 32, 1, 1, 1)]
    """

    def __init__(self, in_channels: int = 1, spacing: Sequence[float] = (1.0, 1.0, 1.0), width: int = 16):
        super().__init__(in_channels, spacing, width)


@volume_backbones.register("resnet10")
class VolumeResNet10Backbone(_VolumeResNet):
    """Three-dimensional ResNet of 10 layers, one block a stage; as wide as those of MedicalNet.

    Parameters
    ----------
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Sides of the voxels along slices, rows and columns; their ratios count.
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.
    .. [3] Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
       learning-based biomedical image segmentation. Nature Methods, 2021.

    Examples
    --------
    >>> import torch
    >>> backbone = VolumeResNet10Backbone(spacing=(3.0, 1.0, 1.0), width=4)  # slices, thick, are halved less often
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 16, 32, 32))]
    [(1, 4, 8, 8, 8), (1, 8, 4, 4, 4), (1, 16, 2, 2, 2), (1, 32, 1, 1, 1)]
    """

    blocks: Sequence[int] = (1, 1, 1, 1)
    searched = False  # takes long, and small cohorts rarely repay it


@volume_backbones.register("resnet18")
class VolumeResNet18Backbone(_VolumeResNet):
    """Three-dimensional ResNet of 18 layers, two blocks a stage; as wide as those of MedicalNet.

    Parameters
    ----------
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Sides of the voxels along slices, rows and columns; their ratios count.
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.
    .. [3] Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
       learning-based biomedical image segmentation. Nature Methods, 2021.

    Examples
    --------
    >>> import torch
    >>> backbone = VolumeResNet18Backbone(width=4)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 16, 32, 32))]
    [(1, 4, 4, 8, 8), (1, 8, 2, 4, 4), (1, 16, 1, 2, 2), (1, 32, 1, 1, 1)]
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    searched = False  # takes long, and small cohorts rarely repay it


@volume_backbones.register("resnet34")
class VolumeResNet34Backbone(_VolumeResNet):
    """Three-dimensional ResNet of 34 layers, 3 to 6 blocks a stage; as wide as those of MedicalNet.

    Parameters
    ----------
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Sides of the voxels along slices, rows and columns; their ratios count.
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.
    .. [3] Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
       learning-based biomedical image segmentation. Nature Methods, 2021.

    Examples
    --------
    >>> import torch
    >>> backbone = VolumeResNet34Backbone(width=4)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 16, 32, 32))]
    [(1, 4, 4, 8, 8), (1, 8, 2, 4, 4), (1, 16, 1, 2, 2), (1, 32, 1, 1, 1)]
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    searched = False  # takes long, and small cohorts rarely repay it


@volume_backbones.register("resnet50")
class VolumeResNet50Backbone(_VolumeResNet):
    """Three-dimensional ResNet of 50 layers, 3 to 6 bottleneck blocks a stage; as wide as those of MedicalNet.

    Parameters
    ----------
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Sides of the voxels along slices, rows and columns; their ratios count.
    width : int, default=64
        Channels of the first stage; each later stage has twice as many as the one before.

    References
    ----------
    .. [1] He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR, 2016.
    .. [2] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.
    .. [3] Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
       learning-based biomedical image segmentation. Nature Methods, 2021.

    Examples
    --------
    >>> import torch
    >>> backbone = VolumeResNet50Backbone(width=4)
    >>> [tuple(each.shape) for each in backbone(torch.zeros(1, 1, 16, 32, 32))]
    [(1, 16, 4, 8, 8), (1, 32, 2, 4, 4), (1, 64, 1, 2, 2), (1, 128, 1, 1, 1)]
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    block = Bottleneck
    searched = False  # takes long, and small cohorts rarely repay it


@volume_backbones.family("monai")
class MonaiVolumeBackbone(MonaiBackbone):
    """A three-dimensional network of ``monai.networks.nets``, by the name ``"monai:<Name>"``; see MonaiBackbone.

    Parameters
    ----------
    name : str
    in_channels : int, default=1
    spacing : sequence of 3 floats, default=(1, 1, 1)
        Not read: kernels and strides are those of the network, which its own parameters may change.
    **params
        Arguments of the network.

    Examples
    --------
    >>> import torch
    >>> sizes = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]}
    >>> backbone = MonaiVolumeBackbone("ResNet", **sizes)  # doctest: +SKIP
    >>> [tuple(each.shape[2:]) for each in backbone(torch.zeros(1, 1, 32, 64, 64))]  # doctest: +SKIP
    [(32, 64, 64), (16, 32, 32), (8, 16, 16), (4, 8, 8), (2, 4, 4)]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MonaiBackbone._parameter_constraints,
        "spacing": [Each(positive(), 3)],
    }

    def __init__(self, name: str, in_channels: int = 1, spacing: Sequence[float] = (1.0, 1.0, 1.0), **params: Any):
        super().__init__(name, in_channels, **{"spatial_dims": 3, **params})
