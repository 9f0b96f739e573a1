"""Initial weights from a file for the encoder of a segmentation network."""

from pathlib import Path

import torch
from torch import nn

from mmdls.modules.pretrained import load_imagenet_weights

__all__ = ["start_encoder"]


def start_encoder(network: nn.Module, path: Path) -> None:
    """Load the state dict of an ImageNet ResNet into a network's encoder.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, the network has no encoder, or the weights do not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}; correct backbone_weights, or use None.")
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(
            f"backbone_weights start the encoder of a network, and {type(network).__name__} has none; use "
            "'cross_attention_unet' or 'published'."
        )
    load_imagenet_weights(encoder, torch.load(path, map_location="cpu", weights_only=True))
