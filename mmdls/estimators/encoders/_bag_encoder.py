"""What encoders of bags share: trained alone with heads of their own, or as a part of a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import cell_kind, check_cohort, check_features, modality_name
from mmdls.encoders import BagData, Encoder
from mmdls.modules import BagNet
from mmdls.parts import Composed, Part
from mmdls.training._build import fit_network
from mmdls.training._callbacks import history_table
from mmdls.training._inference import embed_patients
from mmdls.training._inputs import Inputs
from mmdls.training._tables import counted_rows, outcome_table, patient_weights
from mmdls.training._trainer import Trainer

__all__ = ["BagEncoder"]


class BagEncoder(Composed, Encoder, TransformerMixin, BaseEstimator):
    """A bag of items to one embedding; a subclass says what an item is, by ``prepare`` and ``build``.

    A subclass has the parameters ``embedding_dim``, ``trainer`` and ``random_state``.
    """

    embedding_dim: int
    trainer: Trainer | None
    random_state: Any

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> BagData:
        """Read the bags of all patients; see :meth:`mmdls.encoders.Encoder.prepare`."""
        raise NotImplementedError(f"{type(self).__name__} must define prepare(X, n_jobs, verbose).")

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Check the parameters; everything is learned by the network."""
        self._validate_params()

    def fit(self, X: pd.DataFrame, y: Any, sample_weight: Any = None) -> "BagEncoder":
        """Train with heads for the outcomes in y.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)
            The column of the bags, and what else the encoder reads.
        y : pandas.DataFrame, structured array, or array of shape (n_patients,)
            A table of outcomes, a survival target, or labels.
        sample_weight : array of shape (n_patients,), default=None

        Returns
        -------
        BagEncoder
            Itself.
        """
        self._validate_params()
        self._trainer.check()
        check_features(X)
        y = outcome_table(y, X.index)
        X, y, sample_weight = counted_rows(X, y, patient_weights(sample_weight, X.index))
        tasks = check_cohort(X, y)
        self.fit_preprocessing(X, y, sample_weight)
        data = self.prepare(X, n_jobs=self._trainer.n_jobs, verbose=self._trainer.verbose)
        if not data.present.any():
            raise ValueError(f"column {X.columns[0]!r} is empty in all rows; nothing can be learned from it.")
        net, _ = fit_network(
            {"bags": self},
            Inputs.of({"bags": data}),
            y,
            tasks,
            architecture={
                "fusion": Part("concat", hidden_features=64),
                "heads": {},
                "hidden_features": 64,
                "class_embedding": 0,
                "dropout": 0.1,
                "modality_dropout": 0.0,
                "unimodal_loss_weight": 0.0,
                "auxiliary_horizons": (),
            },
            trainer=self._trainer,
            seed=check_random_state(self.random_state).randint(2**31 - 1),
            sample_weight=sample_weight,
        )
        self.history_ = history_table(net)
        self.set_network(net.module_.first.encoders["bags"], X.columns)
        return self

    def set_network(self, network: BagNet, columns: Sequence[str]) -> None:
        """Become fitted with a network that was trained elsewhere.

        Parameters
        ----------
        network : mmdls.modules.BagNet
        columns : sequence of str
            The columns it reads.
        """
        self.network_ = network
        self.feature_names_in_ = np.asarray(columns, dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Embed patients.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, n_columns)

        Returns
        -------
        ndarray of shape (n_patients, embedding_dim)
            NaN for a patient without items.
        """
        check_is_fitted(self, "network_")
        check_features(X)
        missing = [c for c in self.feature_names_in_ if c not in X.columns]
        if missing:
            raise ValueError(f"X lacks the columns {missing}, which were there in fit. Columns: {list(X.columns)}.")
        columns = list(self.feature_names_in_)
        data = self.prepare(X[columns], n_jobs=self._trainer.n_jobs, verbose=self._trainer.verbose)
        embedding = embed_patients(self.network_, data, self._trainer.compute()).double().numpy()
        embedding[~data.present] = np.nan
        return embedding

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the embedding's columns."""
        check_is_fitted(self, "network_")
        column = str(self.feature_names_in_[0])
        name = column if cell_kind(column) is None else modality_name(column)
        return np.asarray([f"{name}_embedding_{i:03d}" for i in range(self.embedding_dim)], dtype=object)

    @property
    def _trainer(self) -> Trainer:
        return Trainer() if self.trainer is None else self.trainer
