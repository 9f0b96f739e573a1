"""Products of what the modalities say."""

from collections.abc import Mapping
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, share
from mmdls.modules.fusions._projection import Projection
from mmdls.registry import fusions

__all__ = ["FilmFusion", "LowRankFusion"]


@fusions.register("low_rank")
class LowRankFusion(nn.Module):
    """Low-rank tensor fusion: products of linear maps of all modalities, weighed and summed over several ranks.

    The outer product of all embeddings, each with a 1 at its end, holds every interaction between them, and the 1 the
    effects of fewer modalities; its linear map is written as a sum of ``rank`` products. Each factor starts near 1, so
    that the fusion starts as a sum, and an absent modality's factor is 1.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
    rank : int, default=4
    dropout : float, default=0.1
        On the result.

    References
    ----------
    .. [1] Liu Z et al. Efficient low-rank multimodal fusion with modality-specific factors. ACL, 2018.

    Examples
    --------
    >>> import torch
    >>> fusion = LowRankFusion({"ct": 8, "clinical": 3}, out_features=4, rank=2)
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion({"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, present).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "rank": [count(1)],
        "dropout": [share()],
    }

    def __init__(self, widths: Mapping[str, int], out_features: int = 64, rank: int = 4, dropout: float = 0.1):
        super().__init__()
        self.factors = Projection(widths, rank * out_features)
        self.weight = nn.Parameter(torch.randn(rank, out_features) / rank)
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.dropout = nn.Dropout(dropout)
        self.out_features = out_features

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features)."""
        products = (1 + self.factors(embeddings, present)).prod(dim=1)
        return self.dropout((products.unflatten(1, self.weight.shape) * self.weight).sum(dim=1) + self.bias)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "rank": optuna.distributions.CategoricalDistribution([2, 4, 8]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        }


@fusions.register("film")
class FilmFusion(nn.Module):
    """Feature-wise linear modulation: the other modalities scale and shift what each adds to a sum.

    A modality's linear map is multiplied by 1 plus a scale, and a shift is added; both are linear in what the other
    present modalities say together. They start at zero, a plain sum, and are zero for a modality that stands alone.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
    dropout : float, default=0.1
        On the sum.

    References
    ----------
    .. [1] Perez E, Strub F, de Vries H, Dumoulin V, Courville A. FiLM: visual reasoning with a general conditioning
       layer. AAAI, 2018.

    Examples
    --------
    >>> import torch
    >>> fusion = FilmFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion({"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, present).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "dropout": [share()],
    }

    def __init__(self, widths: Mapping[str, int], out_features: int = 64, dropout: float = 0.1):
        super().__init__()
        self.projection = Projection(widths, out_features)
        self.modulation = nn.Parameter(torch.zeros(len(widths), out_features, 2 * out_features))
        self.dropout = nn.Dropout(dropout)
        self.out_features = out_features

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features); zeros without any modality."""
        own = self.projection(embeddings, present)
        others = torch.tanh(own.sum(dim=1, keepdim=True) - own)
        scale, shift = torch.einsum("bmd,mde->bme", others, self.modulation).chunk(2, dim=2)
        return self.dropout(((own * (1 + scale) + shift) * present[..., None]).sum(dim=1))

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}
