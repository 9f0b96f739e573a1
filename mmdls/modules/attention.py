"""Attention of some tokens over others, of which some may be hidden."""

import math

from torch import Tensor, nn
from torch.nn import functional

from mmdls.modules.masked import masked_softmax

__all__ = ["Attention", "AttentionBlock"]


class Attention(nn.Module):
    """Multi-head attention of some tokens (N, T, D) over others (N, U, D), without the residual."""

    def __init__(self, channels: int, n_heads: int):
        super().__init__()
        if channels % n_heads:
            raise ValueError(f"the channels must be a multiple of n_heads; got {channels} channels, {n_heads} heads.")
        self.n_heads = n_heads
        self.query = nn.Linear(channels, channels)
        # No bias: a bias of the keys adds the same number to all scores of a query, and the softmax cancels it.
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Tokens (N, T, D), (N, U, D) and which may be seen (N, T or 1, U) -> weights (N, heads, T, U)."""
        queries, keys = self._split(self.query(query)), self._split(self.key(key))
        score = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        return masked_softmax(score, mask[:, None])

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (N, T, D), (N, U, D), (N, U, D), mask (N, T or 1, U) -> (N, T, D); without any to see, a constant."""
        values = self._split(self.value(value))
        if mask is None:
            queries, keys = self._split(self.query(query)), self._split(self.key(key))
            mixed = functional.scaled_dot_product_attention(queries, keys, values)
        else:
            mixed = self.weights(query, key, mask) @ values
        return self.out(mixed.transpose(1, 2).flatten(-2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class AttentionBlock(nn.Module):
    """Attention and a perceptron of two layers, each with a residual and layer normalisation behind it.

    Parameters
    ----------
    features : int
        Width of the tokens, a multiple of ``n_heads``.
    n_heads : int
    dropout : float, default=0.0
        On what attention and perceptron add.

    References
    ----------
    .. [1] Vaswani A et al. Attention is all you need. NeurIPS, 2017.

    Examples
    --------
    >>> import torch
    >>> block = AttentionBlock(8, n_heads=2)
    >>> tokens, mask = torch.zeros(2, 5, 8), torch.ones(2, 1, 5, dtype=torch.bool)
    >>> block(tokens, tokens, mask).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, features: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        self.attention = Attention(features, n_heads)
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(2))
        self.layers = nn.Sequential(nn.Linear(features, features), nn.GELU(), nn.Linear(features, features))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Tokens (N, T, D), what they attend to (N, U, D), which of it they see (N, T or 1, U) -> (N, T, D)."""
        heard = self.norms[0](query + self.dropout(self.attention(query, context, context, mask)))
        return self.norms[1](heard + self.dropout(self.layers(heard)))
