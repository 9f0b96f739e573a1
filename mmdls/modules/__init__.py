"""Networks, heads and losses: tensors in, tensors out. Nothing here knows of patients, files, epochs or devices."""

from mmdls.modules.backbones import ConvBackbone, ResNet10Backbone, ResNet18Backbone
from mmdls.modules.encoders import SliceNet, TabularNet, pad_slices
from mmdls.modules.fusions import ConcatFusion, GatedFusion
from mmdls.modules.heads import ClassHead, CoxHead, LogisticHazardHead, OrdinalHead
from mmdls.modules.losses import cox_loss
from mmdls.modules.multimodal import MultimodalNet
from mmdls.modules.poolings import GatedAttentionPooling, MaxPooling, MeanPooling, SelfAttentionPooling

__all__ = [
    "ClassHead",
    "ConcatFusion",
    "ConvBackbone",
    "CoxHead",
    "GatedAttentionPooling",
    "GatedFusion",
    "LogisticHazardHead",
    "MaxPooling",
    "MeanPooling",
    "MultimodalNet",
    "OrdinalHead",
    "ResNet10Backbone",
    "ResNet18Backbone",
    "SelfAttentionPooling",
    "SliceNet",
    "TabularNet",
    "cox_loss",
    "pad_slices",
]
