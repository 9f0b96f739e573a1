"""Slices that attend to one another, read by a learned query."""

from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, share
from mmdls.modules.attention import AttentionBlock
from mmdls.registry import poolings

__all__ = ["SetTransformerPooling"]


@poolings.register("set_transformer")
class SetTransformerPooling(nn.Module):
    """Set transformer: slices attend to one another, then a learned query attends to the slices.

    Parameters
    ----------
    in_features : int
        Width D of a slice embedding; a multiple of ``n_heads``.
    n_heads : int, default=4
    n_layers : int, default=1
        How often slices attend to one another.
    dropout : float, default=0.1
        On what attention and perceptrons add.

    References
    ----------
    .. [1] Lee J et al. Set transformer: a framework for attention-based permutation-invariant neural networks. ICML,
       2019.

    Examples
    --------
    >>> import torch
    >>> pooling = SetTransformerPooling(8, n_heads=2)
    >>> slices, mask = torch.ones(2, 5, 8), torch.tensor([[True] * 5, [True, True, False, False, False]])
    >>> pooling(slices, mask).shape, pooling.attention(slices, mask).shape
    (torch.Size([2, 8]), torch.Size([2, 5]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "in_features": [count(1)],
        "n_heads": [count(1)],
        "n_layers": [count(1)],
        "dropout": [share()],
    }

    def __init__(self, in_features: int, n_heads: int = 4, n_layers: int = 1, dropout: float = 0.1):
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(in_features, n_heads, dropout) for _ in range(n_layers))
        self.seed = nn.Parameter(torch.randn(1, 1, in_features) * in_features**-0.5)
        self.reader = AttentionBlock(in_features, n_heads, dropout)

    def _encode(self, slices: Tensor, mask: Tensor) -> Tensor:
        slices = slices.masked_fill(~mask[..., None], 0.0)
        for block in self.blocks:
            slices = block(slices, slices, mask[:, None])
        return slices

    def attention(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> weights (B, S) of the learned query, mean over heads."""
        query = self.seed.expand(len(slices), -1, -1)
        return self.reader.attention.weights(query, self._encode(slices, mask), mask[:, None]).mean(dim=1)[:, 0]

    def forward(self, slices: Tensor, mask: Tensor) -> Tensor:
        """Slices (B, S, D), mask (B, S) -> (B, D)."""
        query = self.seed.expand(len(slices), -1, -1)
        read = self.reader(query, self._encode(slices, mask), mask[:, None])[:, 0]
        return read.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "n_layers": optuna.distributions.CategoricalDistribution([1, 2]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        }
