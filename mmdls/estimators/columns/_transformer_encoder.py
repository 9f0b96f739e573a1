"""Any scikit-learn transformer of a table as an encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import has_fit_parameter

from mmdls.encoders import Encoder, TableData
from mmdls.modules import TabularNet
from mmdls.training._tables import rows_with_values

__all__ = ["TransformerEncoder", "as_encoder"]


class TransformerEncoder(Encoder):
    """A transformer whose output is the embedding, or is read by a small network.

    Parameters
    ----------
    transformer : transformer
        scikit-learn's ``FrozenEstimator`` keeps a fitted one as it is.
    hidden_sizes : sequence of int, default=()
        Widths of the network's layers; empty passes the output on unchanged.
    dropout : float, default=0.0
        Behind each layer.
    linear : bool, default=False
        Whether a linear part of the model reads the output too.
    """

    def __init__(self, transformer: Any, hidden_sizes: Sequence[int] = (), dropout: float = 0.0, linear: bool = False):
        self.transformer = transformer
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.linear = linear

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Fit the transformer, with weights if it takes any."""
        weighted = sample_weight is not None and has_fit_parameter(self.transformer, "sample_weight")
        self.transformer.fit(X, y, **({"sample_weight": sample_weight} if weighted else {}))

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> TableData:
        """Transform the table; a row without any value has no embedding.

        Raises
        ------
        ValueError
            If a row with values is not finite when transformed.
        """
        table = np.asarray(self.transformer.transform(X), dtype=np.float32)
        here = rows_with_values(X)
        bad = here & ~np.isfinite(table).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the columns {list(X.columns[:5])} have missing or infinite values in rows {list(X.index[bad][:5])}, "
                f"and their encoder {self.transformer!r} leaves them; use one that imputes, or complete the columns."
            )
        return TableData(table, here, self.linear)

    def build(self, data: TableData) -> TabularNet:
        """A multilayer perceptron, or the output of the transformer itself."""
        return TabularNet(data.table.shape[1], self.hidden_sizes, self.dropout)


def as_encoder(encoder: Any) -> Encoder:
    """An encoder itself, or the encoder that a transformer makes."""
    return encoder if isinstance(encoder, Encoder) else TransformerEncoder(encoder)
