"""Backbones: images to feature maps, fine to coarse.

The contract: ``forward(image (N, C, H, W)) -> list of feature maps``, and ``out_channels``, their numbers of channels.
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

__all__ = [
    "AntialiasedBackbone",
    "ConvBackbone",
    "ConvNeXtTinyBackbone",
    "DenseNet121Backbone",
    "MonaiBackbone",
    "ResNet10Backbone",
    "ResNet18Backbone",
    "ResNet34Backbone",
    "ResNet50Backbone",
]
