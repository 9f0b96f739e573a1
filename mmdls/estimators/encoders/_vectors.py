"""Bags of vectors, such as embeddings of tiles, slices, lesions or sentences, to an embedding."""

from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import torch
from torch import nn

from mmdls._parameters import count
from mmdls.estimators.encoders._bag_encoder import BagEncoder
from mmdls.estimators.encoders._vector_data import VectorData
from mmdls.modules import BagNet, Standardize
from mmdls.parts import Part, Slot, build
from mmdls.registry import encoders, poolings
from mmdls.registry import estimators as estimator_registry
from mmdls.training._ranks import is_first_rank
from mmdls.training._trainer import Trainer

__all__ = ["VectorBagEncoder"]


@encoders.register("vectors")
@estimator_registry.register("vector_bag_encoder")
class VectorBagEncoder(BagEncoder):
    """A patient's bag of vectors to one embedding: standardised, projected, pooled.

    A vector is what another model made of a part of a patient: a tile of a histology slide, a slice of a scan, a
    lesion, a sentence of a report. A cell holds an array of shape (K, D), a list of K vectors, one vector (D,), which
    is a bag of one, or the path of a ``.npy`` file with such an array, which is memory-mapped. K may differ between
    patients, D may not. The order of the vectors does not count. None or NaN is a patient without vectors; an array
    without any is refused.

    As a part of :class:`MMDLS` it is trained end to end with everything else; ``modalities="auto"`` finds columns
    called ``<name>_vectors``. Alone, in a ``Pipeline`` or a ``ColumnTransformer``, ``fit`` trains it with heads of its
    own for the outcomes in ``y``, and ``transform`` gives the embeddings; patients without vectors come out as NaN, for
    an imputer to handle.

    Parameters
    ----------
    pooling : str, class or Part, default="gated_attention"
        A name in ``mmdls.registry.poolings``, a class that keeps the same contract, or ``Part(name, ...)``.
    embedding_dim : int, default=64
        Width of the projection of a vector, and of a patient's embedding.
    standardize : bool, default=True
        Bring each of the D numbers to mean 0 and standard deviation 1 over the training patients. All patients count
        alike, by their weights, however many vectors they have. A number that did not vary becomes 0. False leaves
        vectors as they are.
    trainer : Trainer, default=None
        How it is trained alone; None means ``Trainer()``. In :class:`MMDLS` the trainer of the whole model counts.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    n_vector_features_ : int or None
        D; None if no patient had vectors.
    mean_, std_ : ndarray of shape (D,)
        Of the training vectors, with ``standardize``.
    network_ : mmdls.modules.BagNet
    history_ : pandas.DataFrame
        Losses, one row an epoch.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    References
    ----------
    .. [1] Ilse M, Tomczak JM, Welling M. Attention-based deep multiple instance learning. ICML, 2018.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"slide_vectors": [rng.normal(size=(rng.integers(1, 9), 5)) for _ in range(30)]})
    >>> encoder = VectorBagEncoder(embedding_dim=8, trainer=Trainer(max_epochs=2), random_state=0)
    >>> encoder.fit(X, rng.integers(0, 2, 30)).transform(X).shape
    (30, 8)
    """

    reads = "vectors"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "pooling": [str, callable, Part],
        "embedding_dim": [count(1)],
        "standardize": ["boolean"],
        "trainer": [Trainer, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        pooling: Any = "gated_attention",
        embedding_dim: int = 64,
        standardize: bool = True,
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        self.standardize = standardize
        self.trainer = trainer
        self.random_state = random_state

    def _slots(self) -> dict[str, Slot]:
        return {"pooling": Slot(poolings), "trainer": Slot({}, default=Trainer)}

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"embedding_dim": optuna.distributions.CategoricalDistribution([32, 64, 128])}

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Learn the length of a vector, and mean and standard deviation of its numbers."""
        super().fit_preprocessing(X, y, sample_weight)
        data = VectorData.read_column(self._column(X))
        self.n_vector_features_ = data.item_shape[0] if data.present.any() else None
        if self.standardize:
            weight = np.ones(len(data)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
            self.mean_, self.std_ = data.moments(weight)

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> VectorData:
        """Read the vectors of all patients; arrays are not copied, files are memory-mapped.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, 1)
            The column of vectors.
        n_jobs : int, default=None
            Threads that read.
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        VectorData

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            If a cell holds no vectors, or D is not that of ``fit``; the message names the rows.
        """
        width = getattr(self, "n_vector_features_", None)
        data = VectorData.read_column(self._column(X), width, n_jobs=n_jobs, verbose=verbose if is_first_rank() else 0)
        if width is None and hasattr(self, "n_vector_features_"):
            # The network was built for no patient; the model leaves the modality aside.
            return VectorData([None if bag is None else bag[:, :1] for bag in data.bags], 1)
        return data

    def build(self, data: VectorData) -> BagNet:
        """A network for vectors like these, with weights from torch's current random state."""
        (width,) = data.item_shape
        backbone: nn.Module = nn.Identity()
        if self.standardize:
            varies = self.std_ > 1e-6 * np.abs(self.mean_)
            factor = np.where(varies, 1 / np.where(varies, self.std_, 1.0), 0.0)
            numbers = torch.get_default_dtype()
            backbone = Standardize(torch.as_tensor(self.mean_, dtype=numbers), torch.as_tensor(factor, dtype=numbers))
        return BagNet(backbone, width, build(poolings, self.pooling, self.embedding_dim), self.embedding_dim)

    def _column(self, X: pd.DataFrame) -> pd.Series:
        if X.shape[1] != 1:
            raise ValueError(f"VectorBagEncoder reads one column of vectors; got columns {list(X.columns)}.")
        return X.iloc[:, 0]
