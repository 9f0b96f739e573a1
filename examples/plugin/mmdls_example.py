"""A plug-in for mmdls: an image backbone, a kind of task (counts) and an encoder (short reports as text)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor, nn

from mmdls import metrics
from mmdls.encoders import Encoder, TableData
from mmdls.tasks import Case, Settings, Statistic, Task

__all__ = ["CountTask", "PoissonHead", "ReportEncoder", "TinyBackbone"]


class TinyBackbone(nn.Module):
    """Two strided convolutions with group normalisation.

    Parameters
    ----------
    in_channels : int, default=1
    width : int, default=8
        Channels of the first map; the second has twice as many.
    """

    def __init__(self, in_channels: int = 1, width: int = 8):
        super().__init__()
        self.out_channels = [width, 2 * width]
        layers = [nn.Conv2d(c, d, 3, 2, 1) for c, d in ((in_channels, width), (width, 2 * width))]
        self.fine, self.coarse = (nn.Sequential(one, nn.GroupNorm(1, one.out_channels), nn.ReLU()) for one in layers)

    @staticmethod
    def search_space() -> dict[str, BaseDistribution]:
        """Its widths."""
        return {"width": CategoricalDistribution([4, 8, 16])}

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, C, H, W) -> maps at 1/2 and 1/4 of its size."""
        fine = self.fine(image)
        return [fine, self.coarse(fine)]


class PoissonHead(nn.Linear):
    """The logarithm of the expected count, (B, D) -> (B, 1)."""

    def __init__(self, in_features: int):
        super().__init__(in_features, 1)

    def prepare(self, count: Tensor, sample_weight: Tensor | None = None) -> None:
        """Nothing to prepare."""

    def loss(self, parameters: Tensor, count: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of a Poisson distribution."""
        weight = torch.ones_like(parameters[:, 0]) if sample_weight is None else sample_weight
        nll = nn.functional.poisson_nll_loss(parameters[:, 0], count.to(parameters), reduction="none")
        return (weight * nll).sum() / weight.sum().clamp(min=1e-12)


@dataclass(frozen=True)
class CountTask(Task):
    """A number of lesions, metastases or nodes: a column ``<name>_count``, missing = unknown."""

    kind = "count"
    suffixes = ("count",)
    about = "expected count"
    heads = {"poisson": PoissonHead}
    default_head = "poisson"
    metrics = ("mean_absolute_error", "spearman_correlation")
    main_metric = "spearman_correlation"
    scores = {"mean_absolute_error": (-1, False), "spearman_correlation": (1, False)}

    def answer(self, head: nn.Module, parameters: Tensor) -> Tensor:
        """The expected count, (B, 1)."""
        return parameters.exp()

    def score(self, outcome: np.ndarray, predictions) -> float:
        """The share of pairs in the right order."""
        return float(metrics.concordance_index(np.ones(len(outcome), bool), outcome, -predictions["value"].to_numpy()))

    def statistics(self, case: Case, settings: Settings) -> Iterator[Statistic]:
        """Error and rank correlation."""
        truth, predicted = case.outcome, case.predicted["value"].to_numpy()
        for name in self.metrics:
            function = getattr(metrics, name)
            yield Statistic(name, float("nan"), lambda w, function=function: function(truth, predicted, w))


class ReportEncoder(Encoder, BaseEstimator):
    """The words of a short report, a column ``<name>_report``, as hashed frequencies.

    Parameters
    ----------
    n_words : int, default=64
        Numbers that words are hashed to.
    width : int, default=16
        Of the embedding.
    """

    reads = "report"

    def __init__(self, n_words: int = 64, width: int = 16):
        self.n_words = n_words
        self.width = width

    def prepare(self, X, *, n_jobs=None, verbose=0) -> TableData:
        """Frequencies of words, (n_patients, n_words)."""
        texts = X.iloc[:, 0]
        words = HashingVectorizer(n_features=self.n_words).transform(texts.fillna(""))
        return TableData(words.toarray(), texts.notna())

    def build(self, data: TableData) -> nn.Module:
        """One linear layer."""
        return nn.Linear(self.n_words, self.width)
