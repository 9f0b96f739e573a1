"""Initial weights from a file for the encoder of a segmentation network."""

from pathlib import Path

from torch import nn

from mmdls.training._weights_file import start_from_file

__all__ = ["start_encoder"]


def start_encoder(network: nn.Module, path: Path) -> None:
    """Load weights from a file into a network's encoder.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, the network has no encoder, or the weights do not fit.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(
            f"backbone_weights start the encoder of a network, and {type(network).__name__} has none; use "
            "'cross_attention_unet' or 'published'."
        )
    start_from_file(encoder, path, "backbone_weights")
