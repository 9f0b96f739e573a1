"""Modalities that attend to tokens of one another, such as slices of a lesion to those of a lung and to tables."""

from collections.abc import Mapping
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, share
from mmdls.modules.attention import Attention, AttentionBlock
from mmdls.modules.containers import NamedModules
from mmdls.modules.fusions._projection import Projection
from mmdls.modules.masked import masked_mean
from mmdls.registry import fusions

__all__ = ["BottleneckFusion", "CrossAttentionFusion"]

Tokens = Mapping[str, tuple[Tensor, Tensor]]


class _TokenFusion(nn.Module):
    """What fusions of tokens share: a modality's tokens are its embedding and, of a bag, its items."""

    reads_tokens = True

    def __init__(self, widths: Mapping[str, int], out_features: int):
        super().__init__()
        self.names = tuple(widths)
        self.projection = Projection(widths, out_features)
        self.out_features = out_features

    def _tokens(self, embeddings: Mapping[str, Tensor], present: Tensor, tokens: Tokens) -> list[tuple[Tensor, Tensor]]:
        """Of each modality its tokens (B, 1 + S, D), the embedding first, and which are real (B, 1 + S)."""
        found = []
        for i, name in enumerate(self.names):
            values, real = embeddings[name][:, None], present[:, [i]]
            if name in tokens:
                items, mask = tokens[name]
                values = torch.cat([values, items.to(values)], dim=1)
                real = torch.cat([real, mask & real], dim=1)
            found.append((self.projection.map(name, values, real), real))
        return found

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}


@fusions.register("cross_attention")
class CrossAttentionFusion(_TokenFusion):
    """Cross-attention: each modality adds its embedding, and what it hears from the tokens of the others.

    The embedding of a modality attends to the tokens of all other modalities that are present: to every slice of an
    image, and to the embedding of each. Bags may have any lengths. A modality that stands alone hears nothing.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding, and of its items.
    out_features : int, default=64
        A multiple of ``n_heads``.
    n_heads : int, default=4
    dropout : float, default=0.1
        On the sum.

    References
    ----------
    .. [1] Tsai YHH et al. Multimodal transformer for unaligned multimodal language sequences. ACL, 2019.

    Examples
    --------
    The slices of a CT are tokens, padded, with a mask of those that are real:

    >>> import torch
    >>> fusion = CrossAttentionFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> embeddings, present = {"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, torch.ones(2, 2, dtype=torch.bool)
    >>> slices, mask = torch.ones(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    >>> fusion(embeddings, present, {"ct": (slices, mask)}).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "n_heads": [count(1)],
        "dropout": [share()],
    }

    def __init__(self, widths: Mapping[str, int], out_features: int = 64, n_heads: int = 4, dropout: float = 0.1):
        super().__init__(widths, out_features)
        self.norm = nn.LayerNorm(out_features)
        self.attention_layer = Attention(out_features, n_heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M), items of bags -> (B, out_features); zeros without any."""
        found = self._tokens(embeddings, present, tokens or {})
        own = torch.stack([values[:, 0] for values, _ in found], dim=1)
        everything = torch.cat([values for values, _ in found], dim=1)
        real = torch.cat([mask for _, mask in found], dim=1)
        owner = torch.repeat_interleave(
            torch.arange(len(found), device=real.device),
            torch.tensor([mask.shape[1] for _, mask in found], device=real.device),
        )
        of_others = owner != torch.arange(len(found), device=real.device)[:, None]
        normed = self.norm(everything)
        heard = self.attention_layer(self.norm(own), normed, normed, real[:, None] & of_others)
        return self.dropout(((own + heard) * present[..., None]).sum(dim=1))


@fusions.register("bottleneck")
class BottleneckFusion(_TokenFusion):
    """Attention bottlenecks: modalities speak to one another through a few shared tokens only.

    In each layer the tokens of every modality attend to themselves and to the bottleneck tokens; the next bottleneck is
    the mean of what the present modalities make of it. The result is the mean over present modalities of the embedding
    that heads their tokens.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding, and of its items.
    out_features : int, default=64
        A multiple of ``n_heads``.
    n_heads : int, default=4
    n_bottlenecks : int, default=4
    n_layers : int, default=2
        At least 2; what the first writes into the bottleneck, the second reads.
    dropout : float, default=0.1
        On what attention and perceptrons add.

    Raises
    ------
    ValueError
        If there are fewer than two layers or no bottleneck.

    References
    ----------
    .. [1] Nagrani A et al. Attention bottlenecks for multimodal fusion. NeurIPS, 2021.

    Examples
    --------
    The slices of a CT are tokens, padded, with a mask of those that are real:

    >>> import torch
    >>> fusion = BottleneckFusion({"ct": 8, "clinical": 3}, out_features=4, n_bottlenecks=2)
    >>> embeddings, present = {"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, torch.ones(2, 2, dtype=torch.bool)
    >>> slices, mask = torch.ones(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    >>> fusion(embeddings, present, {"ct": (slices, mask)}).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "n_heads": [count(1)],
        "n_bottlenecks": [count(1)],
        "n_layers": [count(2)],
        "dropout": [share()],
    }

    def __init__(
        self,
        widths: Mapping[str, int],
        out_features: int = 64,
        n_heads: int = 4,
        n_bottlenecks: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__(widths, out_features)
        self.bottleneck = nn.Parameter(torch.randn(n_bottlenecks, out_features) * out_features**-0.5)
        self.layers = nn.ModuleList(
            NamedModules({name: AttentionBlock(out_features, n_heads, dropout) for name in widths})
            for _ in range(n_layers)
        )

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M), items of bags -> (B, out_features); zeros without any."""
        found = self._tokens(embeddings, present, tokens or {})
        shared = self.bottleneck.expand(len(present), -1, -1)
        layer: Any
        for layer in self.layers:
            written, after = [], []
            for name, (values, real) in zip(self.names, found, strict=True):
                context = torch.cat([shared, values], dim=1)
                seen = torch.cat([real.new_ones(shared.shape[:2]), real], dim=1)
                answered = layer[name](context, context, seen[:, None])
                written.append(answered[:, : shared.shape[1]].flatten(1))
                after.append((answered[:, shared.shape[1] :], real))
            shared = masked_mean(torch.stack(written, dim=1), present).unflatten(1, shared.shape[1:])
            found = after
        return masked_mean(torch.stack([values[:, 0] for values, _ in found], dim=1), present)
