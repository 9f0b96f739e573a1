"""Slices of CT or PET to an embedding."""

from collections.abc import Callable, Sequence
from numbers import Real
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mmdls.cohort import check_cohort, check_features
from mmdls.encoders import BagData, Encoder
from mmdls.images import SliceStore
from mmdls.modules import SliceNet
from mmdls.parts import Composed, Part, Slot, build
from mmdls.registry import backbones, encoders, poolings
from mmdls.registry import estimators as estimator_registry
from mmdls.training._build import fit_network
from mmdls.training._callbacks import history_table
from mmdls.training._compute import Compute
from mmdls.training._inference import embed_patients, freeze, standardize_features
from mmdls.training._inputs import Inputs, counted_rows, outcome_table, patient_weights
from mmdls.training._intervals import Finite, count
from mmdls.training._ranks import is_first_rank
from mmdls.training._trainer import Trainer

__all__ = ["SliceEncoder"]


class SliceData(BagData):
    """The slices of all patients.

    Parameters
    ----------
    store : SliceStore
    """

    items = "slices"

    def __init__(self, store: SliceStore):
        super().__init__(store.counts, (1, *store.image_size))
        self.store = store

    def read(self, index: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Some slices as floats in [0, 1], (k, 1, H, W)."""
        return self.store.gather(index, device=device)

    def cached(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array computed from all slices, kept by the store."""
        return self.store.cached(key, make)

    def facts(self) -> tuple[Any, ...]:
        """Numbers of slices, and what their pixels are standardised by."""
        return *super().facts(), (self.store.mean, self.store.std)


@encoders.register("slices")
@estimator_registry.register("slice_encoder")
class SliceEncoder(Composed, Encoder, TransformerMixin, BaseEstimator):
    """A patient's bag of slices to one embedding, by a backbone shared by all slices and a pooling over them.

    As a part of :class:`MMDLS` it is trained end to end with everything else. Alone, in a ``Pipeline`` or a
    ``ColumnTransformer``, ``fit`` trains it with heads of its own for the outcomes in ``y``, and ``transform`` gives
    the embeddings; patients without images come out as NaN, for an imputer to handle.

    Parameters
    ----------
    backbone : str, class or Part, default="conv"
        A name in ``mmdls.registry.backbones``, a class that keeps the same contract, or ``Part(name, ...)`` with
        parameters, for example ``Part("conv", strides=(2, 2))``.
    pooling : str, class or Part, default="mean"
        A name in ``mmdls.registry.poolings``, a class that keeps the same contract, or ``Part(name, ...)``.
    embedding_dim : int, default=64
        Width of a slice embedding, and of a patient's.
    image_size : int or (int, int), default=None
        Slices are resized to this height and width; None keeps their own, which must then be the same for all.
    intensity_range : (float, float), default=None
        Pixel values mapped to [0, 1], for example ``(-1350, 150)`` HU; None takes 8-bit greys as 0 to 255 and floats as
        they are, and refuses anything else.
    mask_label : int or sequence of int, default=None
        Of masks with several values, those that are inside; None takes masks with one value besides 0.
    resample_mask : bool, default=False
        Bring NIfTI masks with other voxels than their image to those of the image, each the value of the nearest one;
        False refuses them.
    max_slices : int, default=None
        Evenly spaced slices kept of longer stacks; None keeps all.
    standardize : bool, default=True
        Standardise pixels by mean and spread over all training slices, and let the projection behind the backbone start
        from standardised features.
    backbone_learning_rate : float, default=0.2
        The backbone's share of the model's learning rate.
    trainable : bool, default=True
        False leaves the backbone as it was drawn: images are encoded once per fit, not once per epoch.
    memory : str or joblib.Memory, default=None
        Where decoded slices are kept between fits; None keeps them in RAM.
    trainer : Trainer, default=None
        How it is trained alone; None means ``Trainer()``. In :class:`MMDLS` the trainer of the whole model counts.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    network_ : mmdls.modules.SliceNet
    history_ : pandas.DataFrame
        Losses, one row an epoch.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(30, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> encoder = SliceEncoder(embedding_dim=8, trainer=Trainer(max_epochs=2), random_state=0)
    >>> encoder.fit(X[["lesion_image"]], y).transform(X[["lesion_image"]]).shape
    (30, 8)
    """

    reads = "images"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, callable, Part],
        "pooling": [str, callable, Part],
        "embedding_dim": [count(1)],
        "image_size": [count(1), tuple, list, None],
        "intensity_range": [tuple, list, None],
        "mask_label": [count(1), "array-like", None],
        "resample_mask": ["boolean"],
        "max_slices": [count(1), None],
        "standardize": ["boolean"],
        "backbone_learning_rate": [Finite(Real, 0, None, closed="left")],
        "trainable": ["boolean"],
        "memory": [str, PathLike, HasMethods(["cache"]), None],
        "trainer": [Trainer, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        backbone: Any = "conv",
        pooling: Any = "mean",
        embedding_dim: int = 64,
        image_size: int | tuple[int, int] | None = None,
        intensity_range: tuple[float, float] | None = None,
        mask_label: int | Sequence[int] | None = None,
        resample_mask: bool = False,
        max_slices: int | None = None,
        standardize: bool = True,
        backbone_learning_rate: float = 0.2,
        trainable: bool = True,
        memory: Any = None,
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        self.backbone = backbone
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.mask_label = mask_label
        self.resample_mask = resample_mask
        self.max_slices = max_slices
        self.standardize = standardize
        self.backbone_learning_rate = backbone_learning_rate
        self.trainable = trainable
        self.memory = memory
        self.trainer = trainer
        self.random_state = random_state

    def _slots(self) -> dict[str, Slot]:
        return {
            "backbone": Slot(backbones, owned=("in_channels",)),
            "pooling": Slot(poolings),
            "trainer": Slot({}, default=Trainer),
        }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "embedding_dim": optuna.distributions.CategoricalDistribution([32, 64, 128]),
        }

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Check the parameters; everything is learned by the network."""
        self._validate_params()

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> SliceData:
        """Read, window and resize the slices of all patients.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, 1 or 2)
            One ``*_image`` column, and a ``*_mask`` column to crop to if there is one.
        n_jobs : int, default=None
            Threads, if the encoder itself names none.
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        SliceData
        """
        masks = [c for c in X.columns if str(c).endswith("_mask")]
        images = [c for c in X.columns if c not in masks]
        if len(images) != 1 or len(masks) > 1:
            raise ValueError(
                "SliceEncoder reads one image column, and one '*_mask' column at the most; "
                f"got columns {list(X.columns)}."
            )
        store = SliceStore.build(
            X[images[0]].tolist(),
            masks=X[masks[0]].tolist() if masks else None,
            patients=X.index.tolist(),
            image_size=self.image_size,
            intensity_range=self.intensity_range,
            max_slices=self.max_slices,
            mask_label=self.mask_label,
            resample_mask=self.resample_mask,
            memory=self.memory,
            n_jobs=n_jobs,
            verbose=verbose if is_first_rank() else 0,
        )
        return SliceData(store)

    def build(self, data: SliceData) -> SliceNet:
        """A network for slices like these, with weights from torch's current random state."""
        store = data.store
        standardize = self.standardize and store.std > 0
        return SliceNet(
            build(backbones, self.backbone, in_channels=1),
            build(poolings, self.pooling, self.embedding_dim),
            self.embedding_dim,
            mean=float(store.mean) if standardize else 0.0,
            std=float(store.std) if standardize else 1.0,
        )

    def initialize(self, network: SliceNet, data: SliceData, rows: np.ndarray, compute: Compute) -> Tensor | None:
        """Standardise the features of a new network; encode all slices once if it does not train."""
        if not self.trainable:
            return freeze(network, data, rows, compute, standardize=self.standardize)
        if self.standardize:
            standardize_features(network, data, rows, compute)
        return None

    def learning_rate_factors(self) -> dict[str, float]:
        """The backbone learns at its own share of the learning rate."""
        return {"backbone.*": self.backbone_learning_rate}

    def fit(self, X: pd.DataFrame, y: Any, sample_weight: Any = None) -> "SliceEncoder":
        """Train with heads for the outcomes in y.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, 1 or 2)
            One ``*_image`` column, and a ``*_mask`` column to crop to if there is one.
        y : pandas.DataFrame, structured array, or array of shape (n_patients,)
            A table of outcomes, a survival target, or labels.
        sample_weight : array of shape (n_patients,), default=None

        Returns
        -------
        SliceEncoder
        """
        self._validate_params()
        self._trainer.check()
        check_features(X)
        y = outcome_table(y, X.index)
        X, y, sample_weight = counted_rows(X, y, patient_weights(sample_weight, X.index))
        tasks = check_cohort(X, y)
        data = self.prepare(X, n_jobs=self._trainer.n_jobs, verbose=self._trainer.verbose)
        if not data.present.any():
            raise ValueError(f"column {X.columns[0]!r} holds no image at all; nothing can be learned from it.")
        net = fit_network(
            {"slices": self},
            Inputs.of({"slices": data}),
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
        self.set_network(net.module_.encoders["slices"], X.columns)
        return self

    def set_network(self, network: SliceNet, columns: Sequence[str]) -> None:
        """Become fitted with a network that was trained elsewhere.

        Parameters
        ----------
        network : mmdls.modules.SliceNet
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
        X : pandas.DataFrame of shape (n_patients, n_features_in_)

        Returns
        -------
        ndarray of shape (n_patients, embedding_dim)
            NaN for a patient without images.
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
        name = str(self.feature_names_in_[0]).removesuffix("_image")
        return np.asarray([f"{name}_embedding_{i:03d}" for i in range(self.embedding_dim)], dtype=object)

    @property
    def _trainer(self) -> Trainer:
        return Trainer() if self.trainer is None else self.trainer
