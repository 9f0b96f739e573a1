"""Segmentation networks: images to logits of lung and lesion.

The contract: ``forward(image (N, C, H, W)) -> {"lung": logits (N, 1, H, W), "lesion": logits (N, 1, H, W)}`` for any
height and width. No network normalises over the batch, so an image's masks never depend on the images beside it.
"""

from mmdls.modules.segmentation._blocks import STRUCTURES
from mmdls.modules.segmentation._cross_attention import CrossAttentionUNet
from mmdls.modules.segmentation._monai import MonaiNet
from mmdls.modules.segmentation._nets import PublishedSegmentationNet, UNet, make_segmentation_net

__all__ = [
    "STRUCTURES",
    "CrossAttentionUNet",
    "MonaiNet",
    "PublishedSegmentationNet",
    "UNet",
    "make_segmentation_net",
]
