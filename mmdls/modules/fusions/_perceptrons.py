"""Perceptrons of all modalities together, or of each by itself."""

from collections.abc import Mapping
from typing import Any, ClassVar

import optuna
import torch
from torch import Tensor, nn

from mmdls._parameters import count, share
from mmdls.modules.containers import NamedModules
from mmdls.modules.masked import masked_softmax
from mmdls.registry import fusions

__all__ = ["ConcatFusion", "LateFusion"]


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

    Examples
    --------
    >>> import torch
    >>> fusion = ConcatFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion({"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}, present).shape
    torch.Size([2, 4])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "hidden_features": [count(1)],
        "dropout": [share()],
    }

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


@fusions.register("late")
class LateFusion(nn.Module):
    """Late fusion: a perceptron of each modality by itself, and a weighted mean of those that are present.

    Modalities meet in this mean only, so that a linear head of it averages the decisions of the modalities. The
    weights are learned, the same for all patients, and sum to 1 over the modalities that a patient has.

    Parameters
    ----------
    widths : mapping of str to int
        Width of each modality's embedding.
    out_features : int, default=64
    hidden_features : int, default=64
    dropout : float, default=0.1
        Behind the hidden layers.

    References
    ----------
    .. [1] Snoek CGM, Worring M, Smeulders AWM. Early versus late fusion in semantic video analysis. ACM Multimedia,
       2005.

    Examples
    --------
    >>> import torch
    >>> fusion = LateFusion({"ct": 8, "clinical": 3}, out_features=4)
    >>> embeddings = {"ct": torch.ones(2, 8), "clinical": torch.ones(2, 3)}
    >>> present = torch.tensor([[True, True], [False, True]])  # the second patient has no CT
    >>> fusion(embeddings, present).shape, fusion.attention(embeddings, present)[1].tolist()
    (torch.Size([2, 4]), [0.0, 1.0])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "widths": [Mapping],
        "out_features": [count(1)],
        "hidden_features": [count(1)],
        "dropout": [share()],
    }

    def __init__(
        self, widths: Mapping[str, int], out_features: int = 64, hidden_features: int = 64, dropout: float = 0.1
    ):
        super().__init__()
        self.names = tuple(widths)
        self.perceptrons = NamedModules(
            {
                name: nn.Sequential(
                    nn.Linear(width, hidden_features),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(hidden_features, out_features),
                )
                for name, width in widths.items()
            }
        )
        self.score = nn.Parameter(torch.zeros(len(widths)))
        self.out_features = out_features

    def attention(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> weight of each modality (B, M)."""
        return masked_softmax(self.score.expand(present.shape), present)

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings {name: (B, D_name)}, present (B, M) -> (B, out_features); zeros without any modality."""
        shown = [embeddings[name].masked_fill(~present[:, [i]], 0.0) for i, name in enumerate(self.names)]
        said = [self.perceptrons[name](values) for name, values in zip(self.names, shown, strict=True)]
        weights = self.attention(embeddings, present)
        return (torch.stack(said, dim=1) * weights[..., None]).sum(dim=1)

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "hidden_features": optuna.distributions.CategoricalDistribution([32, 64, 128]),
            "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        }
