"""Fusions: the embeddings of several modalities to one.

The contract: built with the widths of the modalities, ``forward(embeddings {name: (B, D_name)}, present (B, M)) ->
(B, out_features)``; the columns of ``present`` follow the order of ``widths``, and what stands in an absent modality's
embedding never changes the result.
"""

from collections.abc import Mapping

import optuna
import torch
from torch import Tensor, nn

from mmdls.modules.poolings import masked_softmax
from mmdls.registry import fusions

__all__ = ["ConcatFusion", "GatedFusion"]


@fusions.register("concat")
class ConcatFusion(nn.Module):
    """Concatenation and a two-layer perceptron; absent modalities are zeros. The published MM-DLS.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=128
    hidden_features : int, default=256
    dropout : float, default=0.3

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.
    """

    def __init__(
        self, widths: Mapping[str, int], out_features: int = 128, hidden_features: int = 256, dropout: float = 0.3
    ):
        super().__init__()
        self.names = tuple(widths)
        self.layers = nn.Sequential(
            nn.Linear(sum(widths.values()), hidden_features),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, out_features),
            nn.ReLU(),
        )
        self.out_features = out_features

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features)."""
        shown = [embeddings[name].masked_fill(~present[:, [i]], 0.0) for i, name in enumerate(self.names)]
        return self.layers(torch.cat(shown, dim=1))

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "hidden_features": optuna.distributions.CategoricalDistribution([64, 128, 256]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        }


@fusions.register("gated")
class GatedFusion(nn.Module):
    """Gated attention over modality tokens; only the modalities that are present take part.

    Every modality becomes a token. Each head scores the tokens with a gate, shares its attention among the tokens that
    are present, and mixes its part of their features. A patient without any modality gets zeros.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
        Width of a token; a multiple of ``n_heads``.
    n_heads : int, default=4
    dropout : float, default=0.1
        On the tokens and on the result.

    References
    ----------
    .. [1] Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML, 2018.
    """

    def __init__(self, widths: Mapping[str, int], out_features: int = 64, n_heads: int = 4, dropout: float = 0.1):
        super().__init__()
        if out_features % n_heads:
            raise ValueError(f"out_features must be a multiple of n_heads; got {out_features} and {n_heads}.")
        self.names = tuple(widths)
        self.n_heads = n_heads
        self.tokens = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, out_features), nn.GELU(), nn.Dropout(dropout))
                for name, width in widths.items()
            }
        )
        self.kind = nn.Parameter(torch.zeros(len(widths), out_features))
        self.signal = nn.Linear(out_features, out_features)
        self.gate = nn.Linear(out_features, out_features)
        self.score = nn.Linear(out_features, n_heads)
        self.mix = nn.Sequential(nn.Linear(out_features, out_features), nn.GELU(), nn.Dropout(dropout))
        self.out_features = out_features

    def _tokens(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        tokens = torch.stack(
            [
                self.tokens[name](embeddings[name].masked_fill(~present[:, [i]], 0.0))
                for i, name in enumerate(self.names)
            ],
            dim=1,
        )
        return tokens + self.kind

    def _weights(self, tokens: Tensor, present: Tensor) -> Tensor:
        """(B, heads, M)."""
        score = self.score(torch.tanh(self.signal(tokens)) * torch.sigmoid(self.gate(tokens)))
        return masked_softmax(score.transpose(1, 2), present[:, None, :])

    def attention(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> weights (B, M), the mean over heads."""
        return self._weights(self._tokens(embeddings, present), present).mean(dim=1)

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features)."""
        tokens = self._tokens(embeddings, present)
        by_head = tokens.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        mixed = (self._weights(tokens, present)[:, :, None, :] @ by_head).flatten(1)
        return self.mix(mixed)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}
