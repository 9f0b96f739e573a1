"""Networks, heads and losses: tensors in, tensors out. Nothing here knows of patients, files, epochs or devices."""

from mmdls.modules.attention import AttentionBlock
from mmdls.modules.augmentation import StandardAugmentation
from mmdls.modules.backbones import (
    AntialiasedBackbone,
    ConvBackbone,
    ConvNeXtTinyBackbone,
    DenseNet121Backbone,
    MonaiBackbone,
    MonaiVolumeBackbone,
    ResNet10Backbone,
    ResNet18Backbone,
    ResNet34Backbone,
    ResNet50Backbone,
    SmallVolumeBackbone,
    VolumeResNet10Backbone,
    VolumeResNet18Backbone,
    VolumeResNet34Backbone,
    VolumeResNet50Backbone,
)
from mmdls.modules.competing_risks import CauseSpecificCoxHead
from mmdls.modules.discrete_time import DeepHitCompetingRisksHead, DeepHitHead, LogisticHazardHead, MTLRHead
from mmdls.modules.encoders import BagNet, SliceNet, Standardize, TabularNet, pad_items
from mmdls.modules.ensemble import Combination, Ensemble, LinearPart, LinearPredictor
from mmdls.modules.fusions import (
    AdditiveFusion,
    BottleneckFusion,
    ConcatFusion,
    CrossAttentionFusion,
    FilmFusion,
    GatedFusion,
    LateFusion,
    LowRankFusion,
)
from mmdls.modules.heads import ClassHead, CoxHead, OrdinalHead
from mmdls.modules.illness_death import CoherentHead
from mmdls.modules.losses import cox_loss
from mmdls.modules.losses_segmentation import SegmentationLoss
from mmdls.modules.multimodal import AttentionWeights, LossName, MultimodalNet, Outputs
from mmdls.modules.piecewise import PCHazardHead
from mmdls.modules.poolings import (
    GatedAttentionPooling,
    MaxPooling,
    MeanPooling,
    SelfAttentionPooling,
    SetTransformerPooling,
    TopKPooling,
)
from mmdls.modules.regression import RegressionHead
from mmdls.modules.segmentation import CrossAttentionUNet, PublishedSegmentationNet, UNet
from mmdls.modules.task_weights import FamoWeights, UncertaintyWeights

__all__ = [
    "AdditiveFusion",
    "AntialiasedBackbone",
    "AttentionBlock",
    "AttentionWeights",
    "BagNet",
    "BottleneckFusion",
    "CauseSpecificCoxHead",
    "ClassHead",
    "CoherentHead",
    "Combination",
    "ConcatFusion",
    "ConvBackbone",
    "ConvNeXtTinyBackbone",
    "CoxHead",
    "CrossAttentionFusion",
    "CrossAttentionUNet",
    "DeepHitCompetingRisksHead",
    "DeepHitHead",
    "DenseNet121Backbone",
    "Ensemble",
    "FilmFusion",
    "FamoWeights",
    "GatedAttentionPooling",
    "GatedFusion",
    "LateFusion",
    "LinearPart",
    "LinearPredictor",
    "LogisticHazardHead",
    "LossName",
    "LowRankFusion",
    "MTLRHead",
    "MaxPooling",
    "MeanPooling",
    "MonaiBackbone",
    "MonaiVolumeBackbone",
    "SmallVolumeBackbone",
    "VolumeResNet10Backbone",
    "VolumeResNet18Backbone",
    "VolumeResNet34Backbone",
    "VolumeResNet50Backbone",
    "MultimodalNet",
    "OrdinalHead",
    "Outputs",
    "PCHazardHead",
    "PublishedSegmentationNet",
    "RegressionHead",
    "ResNet10Backbone",
    "ResNet18Backbone",
    "ResNet34Backbone",
    "ResNet50Backbone",
    "SegmentationLoss",
    "SelfAttentionPooling",
    "SetTransformerPooling",
    "SliceNet",
    "StandardAugmentation",
    "Standardize",
    "TabularNet",
    "TopKPooling",
    "UNet",
    "UncertaintyWeights",
    "cox_loss",
    "pad_items",
]
