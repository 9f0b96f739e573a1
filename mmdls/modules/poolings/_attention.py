"""Poolings that weigh the slices of a bag."""

import math
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, share
from mmdls.modules.masked import masked_mean, masked_softmax
from mmdls.registry import poolings

__all__ = ["GatedAttentionPooling", "SelfAttentionPooling"]


@poolings.register("gated_attention")
class GatedAttentionPooling(nn.Module):
    """Gated attention: each slice is weighed by ``softmax(w' (tanh(V h) * sigmoid(U h)))``.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding.
    hidden_features : int, default=64
        Width of the gate.

    References
    ----------
    .. [1] Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML, 2018.

    Examples
    --------
    >>> import torch
    >>> pooling = GatedAttentionPooling(8)
    >>> slices, mask = torch.ones(2, 5, 8), torch.tensor([[True] * 5, [True, True, False, False, False]])
    >>> pooling(slices, mask).shape
    torch.Size([2, 8])
    >>> pooling.attention(slices, mask)[1].tolist()  # equal slices weigh the same, padding nothing
    [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "hidden_features": [count(1)],
    }

    def __init__(self, in_features: int, hidden_features: int = 64):
        super().__init__()
        self.signal = nn.Linear(in_features, hidden_features)
        self.gate = nn.Linear(in_features, hidden_features)
        self.score = nn.Linear(hidden_features, 1)

    def attention(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> weights (B, S)."""
        score = self.score(torch.tanh(self.signal(slices)) * torch.sigmoid(self.gate(slices)))
        return masked_softmax(score.squeeze(-1), mask)

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        weights = self.attention(slices, mask)
        return (weights[..., None] * slices.masked_fill(~mask[..., None], 0.0)).sum(dim=1)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"hidden_features": optuna.distributions.CategoricalDistribution([32, 64, 128])}


@poolings.register("self_attention")
class SelfAttentionPooling(nn.Module):
    """Slices attend to one another, a residual is added, and the mean is taken; the published MM-DLS.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding; a multiple of ``n_heads``.
    n_heads : int, default=4
    dropout : float, default=0.1
        On the attention weights.

    Raises
    ------
    ValueError
        If ``in_features`` is no multiple of ``n_heads``.

    References
    ----------
    .. [1] Wang H et al. Multimodal multitask deep learning for grading management system in non-small cell lung
       cancer. Nature Communications, 2026.
    .. [2] Vaswani A et al. Attention is all you need. NeurIPS, 2017.

    Examples
    --------
    >>> import torch
    >>> pooling = SelfAttentionPooling(8, n_heads=2)
    >>> slices, mask = torch.ones(2, 5, 8), torch.tensor([[True] * 5, [True, True, False, False, False]])
    >>> pooling(slices, mask).shape, pooling.attention(slices, mask).shape
    (torch.Size([2, 8]), torch.Size([2, 5]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_heads": [count(1)],
        "dropout": [share()],
    }

    def __init__(self, in_features: int, n_heads: int = 4, dropout: float = 0.1):
        super().__init__()
        if in_features % n_heads:
            raise ValueError(f"in_features must be a multiple of n_heads; got {in_features} and {n_heads}.")
        self.n_heads = n_heads
        self.q_proj = nn.Linear(in_features, in_features)
        self.k_proj = nn.Linear(in_features, in_features)
        self.v_proj = nn.Linear(in_features, in_features)
        self.out_proj = nn.Linear(in_features, in_features)
        self.dropout = nn.Dropout(dropout)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _weights(self, slices: Tensor, mask: Tensor) -> Tensor:
        """(B, heads, S, S): how much each slice (row) listens to each slice (column)."""
        query, key = self._heads(self.q_proj(slices)), self._heads(self.k_proj(slices))
        score = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return masked_softmax(score, mask[:, None, None, :])

    def attention(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> weights (B, S): attention received, mean over heads and real slices."""
        weights = self._weights(slices.masked_fill(~mask[..., None], 0.0), mask).mean(dim=1)
        return masked_mean(weights, mask)

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        slices = slices.masked_fill(~mask[..., None], 0.0)
        mixed = self.dropout(self._weights(slices, mask)) @ self._heads(self.v_proj(slices))
        attended = self.out_proj(mixed.transpose(1, 2).flatten(2)) + slices
        return masked_mean(attended, mask)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}
