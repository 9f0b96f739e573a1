"""Embeddings of different widths to vectors of one width."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmdls.modules.containers import NamedModules

__all__ = ["Projection"]


class Projection(nn.Module):
    """A linear map of each modality to vectors of one width, with embeddings divided by their own width.

    See :class:`AdditiveFusion` for the reason of the division.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    features : int
        Width of the vectors.
    input_scale : float, default=3.0
        Embeddings are multiplied by it.
    """

    def __init__(self, widths: Mapping[str, int], features: int, input_scale: float = 3.0):
        super().__init__()
        self.names = tuple(widths)
        self.scales = {name: input_scale / width for name, width in widths.items()}
        self.maps = NamedModules({name: nn.Linear(width, features) for name, width in widths.items()})

    def map(self, name: str, values: Tensor, real: Tensor) -> Tensor:
        """Embeddings (..., D_name) of a modality and which are real (...) -> (..., features); zeros for the others."""
        mapped = self.maps[name](values.masked_fill(~real[..., None], 0.0) * self.scales[name])
        return mapped * real[..., None]

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, M, features); zeros for absent modalities."""
        mapped = [self.map(name, embeddings[name], present[:, i]) for i, name in enumerate(self.names)]
        return torch.stack(mapped, dim=1)
