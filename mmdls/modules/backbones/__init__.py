"""Backbones: images or volumes to feature maps, fine to coarse.

The contract: ``forward(image (N, C, H, W)) -> list of feature maps``, and ``out_channels``, their numbers of channels.
Those of volumes (N, C, S, H, W) are built with the ``spacing`` of the voxels too.
No backbone normalises over the batch, so an image's features never depend on the images beside it.

Layers of ResNets, DenseNets and ConvNeXts are named as in the usual files of weights, so that these can be loaded; see
:mod:`mmdls.modules.pretrained`.
"""

from mmdls.modules.backbones._convnext import ConvNeXtTinyBackbone
from mmdls.modules.backbones._densenet import DenseNet121Backbone
from mmdls.modules.backbones._monai import MonaiBackbone
from mmdls.modules.backbones._resnet import (
    ResNet10Backbone,
    ResNet18Backbone,
    ResNet34Backbone,
    ResNet50Backbone,
)
from mmdls.modules.backbones._small import AntialiasedBackbone, ConvBackbone
from mmdls.modules.backbones._volumes import (
    MonaiVolumeBackbone,
    SmallVolumeBackbone,
    VolumeResNet10Backbone,
    VolumeResNet18Backbone,
    VolumeResNet34Backbone,
    VolumeResNet50Backbone,
)

__all__ = [
    "AntialiasedBackbone",
    "ConvBackbone",
    "ConvNeXtTinyBackbone",
    "DenseNet121Backbone",
    "MonaiBackbone",
    "MonaiVolumeBackbone",
    "ResNet10Backbone",
    "ResNet18Backbone",
    "ResNet34Backbone",
    "ResNet50Backbone",
    "SmallVolumeBackbone",
    "VolumeResNet10Backbone",
    "VolumeResNet18Backbone",
    "VolumeResNet34Backbone",
    "VolumeResNet50Backbone",
]
