"""Sums of what the modalities say, plain or gated."""

from collections.abc import Mapping
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, positive, share
from mmdls.modules.containers import NamedModules
from mmdls.registry import fusions

__all__ = ["AdditiveFusion", "GatedFusion"]


@fusions.register("additive")
class AdditiveFusion(nn.Module):
    """A sum: each modality that is present adds a linear map of its embedding, and stands in for those that are absent.

    What modalities know of an outcome mostly adds up, as in a regression; an average over modalities would dilute it.
    Adam moves every weight by about the same step, so what a modality of many columns adds would run far ahead of the
    others, and with it its noise. Embeddings are therefore divided by their width.

    Modalities know of one another, so the best weights of one depend on which others there are. For each absent
    modality a present one adds a linear map of its summand. These maps start at zero, a plain sum, and learn from
    patients without a modality, or from whom ``modality_dropout`` hides one.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
    dropout : float, default=0.1
        On the sum.
    input_scale : float, default=3.0
        Each embedding is multiplied by ``input_scale`` and divided by its width; less of it trusts modalities less.

    Examples
    --------
    >>> import torch
    >>> fusion = AdditiveFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> embeddings = {"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion(embeddings, present).shape
    torch.Size([2, 4])
    >>> fusion.attention(embeddings, present)[1].tolist()
    [0.0, 1.0]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "dropout": [share()],
        "input_scale": [positive()],
    }

    def __init__(
        self, widths: Mapping[str, int], out_features: int = 64, dropout: float = 0.1, input_scale: float = 3.0
    ):
        super().__init__()
        self.names = tuple(widths)
        self.scales = {name: input_scale / width for name, width in widths.items()}
        self.maps = NamedModules({name: nn.Linear(width, out_features) for name, width in widths.items()})
        maps = {name: nn.Linear(out_features, len(widths) * out_features) for name in widths}
        self.imputation_maps = NamedModules(maps)
        for each in self.imputation_maps.values():
            nn.init.zeros_(each.weight)
            nn.init.zeros_(each.bias)
        self.dropout = nn.Dropout(dropout)
        self.out_features = out_features

    def summands(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> what each modality adds (B, M, out_features)."""
        shown = [embeddings[name].masked_fill(~present[:, [i]], 0.0) for i, name in enumerate(self.names)]
        own = [self.maps[name](shown[i] * self.scales[name]) for i, name in enumerate(self.names)]
        maps = [self.imputation_maps[name] for name in self.names]
        imputed = [one(summand).unflatten(1, (len(maps), -1)) for one, summand in zip(maps, own, strict=True)]
        absent = (~present).to(own[0])
        summands = torch.stack(own, dim=1) + torch.einsum("bmad,ba->bmd", torch.stack(imputed, dim=1), absent)
        return summands * present[:, :, None]

    def attention(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> each modality's share of the lengths of summands (B, M)."""
        length = self.summands(embeddings, present).norm(dim=2)
        return length / length.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features); zeros without any modality."""
        return self.dropout(self.summands(embeddings, present).sum(dim=1))

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
            "input_scale": optuna.distributions.FloatDistribution(1.0, 10.0, log=True),
        }


@fusions.register("gated")
class GatedFusion(AdditiveFusion):
    """A gated sum: what a modality adds is turned up or down, patient by patient, by what it says itself.

    Each head of a modality's summand has a gate between 0 and 2, computed as in gated attention; unlike attention,
    modalities do not compete for a share of one.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
        A multiple of ``n_heads``.
    n_heads : int, default=4
    dropout : float, default=0.1
        On the sum.
    input_scale : float, default=3.0
        See :class:`AdditiveFusion`.

    Raises
    ------
    ValueError
        If ``out_features`` is no multiple of ``n_heads``.

    References
    ----------
    .. [1] Arevalo J, Solorio T, Montes-y-Gomez M, Gonzalez FA. Gated multimodal units for information fusion. ICLR
       workshop, 2017.
    .. [2] Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. ICML, 2018.

    Examples
    --------
    >>> import torch
    >>> fusion = GatedFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion({"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, present).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AdditiveFusion._parameter_constraints,
        "n_heads": [count(1)],
    }

    def __init__(
        self,
        widths: Mapping[str, int],
        out_features: int = 64,
        n_heads: int = 4,
        dropout: float = 0.1,
        input_scale: float = 3.0,
    ):
        super().__init__(widths, out_features, dropout, input_scale)
        if out_features % n_heads:
            raise ValueError(f"out_features must be a multiple of n_heads; got {out_features} and {n_heads}.")
        self.n_heads = n_heads
        self.signal = nn.Linear(out_features, out_features)
        self.gate = nn.Linear(out_features, out_features)
        self.score = nn.Linear(out_features, n_heads)

    def summands(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> what each modality adds (B, M, out_features)."""
        summands = super().summands(embeddings, present)
        score = self.score(torch.tanh(self.signal(summands)) * torch.sigmoid(self.gate(summands)))
        gates = 2 * torch.sigmoid(score)
        return (summands.unflatten(-1, (self.n_heads, -1)) * gates[..., None]).flatten(2)
