"""Slices of CT or PET to an embedding."""

import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.utils._param_validation import HasMethods
from torch import Tensor, nn

from mmdls._parameters import Finite, count
from mmdls.encoders import BagData
from mmdls.estimators.encoders._bag_encoder import BagEncoder
from mmdls.estimators.encoders._scan_cells import ScanReader
from mmdls.images import SliceStore, is_missing
from mmdls.modules import SliceNet
from mmdls.parts import Part, Slot, build
from mmdls.registry import augmentations, backbones, encoders, poolings
from mmdls.registry import estimators as estimator_registry
from mmdls.scans import ScanView
from mmdls.training._compute import Compute
from mmdls.training._inference import freeze, standardize_features
from mmdls.training._ranks import is_first_rank
from mmdls.training._trainer import Trainer
from mmdls.training._weights_file import WeightsOrigin, start_from_file

__all__ = ["SliceEncoder"]


class SliceData(BagData):
    """The slices of all patients.

    Parameters
    ----------
    store : SliceStore
    n_channels : int, default=1
        Of every slice.
    """

    items = "slices"

    def __init__(self, store: SliceStore, n_channels: int = 1):
        super().__init__(store.counts, (n_channels, *store.image_size))
        self.store = store

    def read(self, index: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Some slices as floats in [0, 1], (k, C, H, W)."""
        return self.store.gather(index, device=device)

    def cached(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array computed from all slices, kept by the store."""
        return self.store.cached(key, make)

    def facts(self) -> tuple[Any, ...]:
        """Numbers of slices, and what their pixels are standardised by."""
        return *super().facts(), (self.store.mean, self.store.std)


@encoders.register("slices")
@estimator_registry.register("slice_encoder")
class SliceEncoder(BagEncoder):
    """A patient's bag of slices to one embedding, by a backbone shared by all slices and a pooling over them.

    As a part of :class:`MMDLS` it is trained end to end with everything else. Alone, in a ``Pipeline`` or a
    ``ColumnTransformer``, ``fit`` trains it with heads of its own for the outcomes in ``y``, and ``transform`` gives
    the embeddings; patients without images come out as NaN, for an imputer to handle.

    Parameters
    ----------
    backbone : str, class or Part, default="antialiased"
        A name in ``mmdls.registry.backbones``, a class that keeps the same contract, or ``Part(name, ...)`` with
        parameters, for example ``Part("antialiased", width=16)``.
    pooling : str, class or Part, default="mean"
        A name in ``mmdls.registry.poolings``, a class that keeps the same contract, or ``Part(name, ...)``.
    embedding_dim : int, default=64
        Width of a slice embedding, and of a patient's.
    image_size : int or (int, int), default=None
        Slices are resized to this height and width; None keeps their own up to ``max_image_size``. They must then be
        the same for all.
    max_image_size : int, default=128
        Without ``image_size``: slices whose longer side has more pixels are reduced until it has as many, smaller ones
        stay as they are. None keeps all.
    intensity_range : (float, float), default=None
        Pixel values mapped to [0, 1], for example ``(-1350, 150)`` HU; None takes 8-bit greys as 0 to 255, floats as
        they are, scans known to be in HU (DICOM, a ``Volume``, slices of :func:`mmdls.prepare_cohort`) under that
        window, and refuses anything else.
    scan : ScanView, default=None
        What is seen of scans: windows as channels, voxels and boxes in millimetres, slices around the largest area of
        the mask; see :class:`mmdls.scans.ScanView`. Windows then stand there, not in ``intensity_range``. None takes
        the voxels of scans as they are, and shows what is inside of the mask if there is one.
    mask_label : int, sequence of int, or str, default=None
        Of masks with several values, those that are inside; None takes masks with one value besides 0. Of contours
        and segmentations the structure, by its number or name; a name means the only structure of masks without names.
    resample_mask : bool, default=False
        Bring masks of scans with other voxels than their image to those of the image, each the value of the nearest
        one; False refuses them.
    max_slices : int, default=16
        Slices read of each patient, in training and in prediction: all of a stack of n up to this number, of a longer
        one those at ``np.linspace(0, n - 1, max_slices).round()``. None reads all. With ``n_slices`` of a ScanView that
        number counts.
    standardize : bool, default=True
        Standardise pixels by mean and spread over all training slices, and let the projection behind the backbone start
        from standardised features.
    backbone_learning_rate : float, default=0.2
        The backbone's share of the model's learning rate.
    weights : path-like, default=None
        A file of weights from which the backbone starts: safetensors, or a state dict of ``torch.save``, with names as
        in the usual files of ImageNet (``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"densenet121"``,
        ``"convnext_tiny"``), also in the forms of RadImageNet and MedicalNet. Batch normalisation becomes
        normalisation by the statistics in the file, which stay as they are. None draws weights.
    augmentation : str, class or Part, default=None
        A name in ``mmdls.registry.augmentations``, such as ``"standard"``, or ``Part("standard", rotation=5)``: random
        changes of slices in training. None changes nothing.
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
    weights_origin_ : object
        Of a file of weights, its ``path``, ``sha256``, and the names in it that were ``used`` and ``unused``; None
        without.
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
        "scan": [ScanView, None],
        "mask_label": [count(1), "array-like", str, None],
        "resample_mask": ["boolean"],
        "max_image_size": [count(1), None],
        "max_slices": [count(1), None],
        "standardize": ["boolean"],
        "backbone_learning_rate": [Finite(Real, 0, None, closed="left")],
        "weights": [str, PathLike, None],
        "augmentation": [str, callable, Part, None],
        "trainable": ["boolean"],
        "memory": [str, PathLike, HasMethods(["cache"]), None],
        "trainer": [Trainer, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        backbone: Any = "antialiased",
        pooling: Any = "mean",
        embedding_dim: int = 64,
        image_size: int | tuple[int, int] | None = None,
        max_image_size: int | None = 128,
        intensity_range: tuple[float, float] | None = None,
        scan: ScanView | None = None,
        mask_label: int | str | Sequence[int] | None = None,
        resample_mask: bool = False,
        max_slices: int | None = 16,
        standardize: bool = True,
        backbone_learning_rate: float = 0.2,
        weights: str | PathLike | None = None,
        augmentation: Any = None,
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
        self.scan = scan
        self.mask_label = mask_label
        self.resample_mask = resample_mask
        self.max_image_size = max_image_size
        self.max_slices = max_slices
        self.standardize = standardize
        self.backbone_learning_rate = backbone_learning_rate
        self.weights = weights
        self.augmentation = augmentation
        self.trainable = trainable
        self.memory = memory
        self.trainer = trainer
        self.random_state = random_state

    def _slots(self) -> dict[str, Slot]:
        return {
            "backbone": Slot(backbones, owned=("in_channels",)),
            "pooling": Slot(poolings),
            "augmentation": Slot(augmentations),
            "scan": Slot({}, default=ScanView),
            "trainer": Slot({}, default=Trainer),
        }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "embedding_dim": optuna.distributions.CategoricalDistribution([32, 64, 128]),
        }

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> SliceData:
        """Read, window and resize the slices of all patients.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_patients, 1 or 2)
            One ``*_image`` column, and a ``*_mask`` column to crop to if there is one. Cells are what
            :func:`mmdls.images.read_image`, :func:`mmdls.scans.read_scan` and :func:`mmdls.scans.read_mask` read, a
            :class:`mmdls.scans.Volume`, or ``(array, spacing)`` with the mm between slices, rows and columns.
        n_jobs : int, default=None
            Threads, if the encoder itself names none.
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        SliceData
        """
        images, masks, reader = self._reader(X)
        store = SliceStore.build(
            X[images].tolist(),
            masks=X[masks[0]].tolist() if masks else None,
            patients=X.index.tolist(),
            image_size=self.image_size,
            intensity_range=self.intensity_range,
            max_image_size=self.max_image_size,
            max_slices=self.max_slices if self.scan is None else None,
            mask_label=self.mask_label,
            resample_mask=self.resample_mask,
            read=reader,
            memory=self.memory,
            n_jobs=n_jobs,
            verbose=verbose if is_first_rank() else 0,
        )
        return SliceData(store, 1 if self.scan is None else self.scan.n_channels)

    def _reader(self, X: pd.DataFrame) -> tuple[str, list[str], ScanReader]:
        """The column of images, that of masks that are read, if any, and how a patient's cells are read."""
        masks = [c for c in X.columns if str(c).endswith("_mask")]
        images = [c for c in X.columns if c not in masks]
        if len(images) != 1 or len(masks) > 1:
            raise ValueError(
                f"{type(self).__name__} reads one image column, and one '*_mask' column at the most; "
                f"got columns {list(X.columns)}."
            )
        how = self.intensity_range, self.mask_label, self.resample_mask, self.max_slices
        reader = ScanReader((images[0], *masks), self.scan, *how)
        return images[0], masks if self.scan is None else self._masks_of_view(X, images[0], masks), reader

    def _masks_of_view(self, X: pd.DataFrame, images: str, masks: list[str]) -> list[str]:
        """The column of masks that a view of scans reads, if it reads any."""
        view: Any = self.scan
        view.check()
        if self.intensity_range is not None:
            raise ValueError("intensity_range and scan are both given; give the window in ScanView alone.")
        if not view.needs_mask:
            if masks:
                warnings.warn(
                    f"{masks[0]!r} is not read: none of crop, margin, n_slices and masked of ScanView is given.",
                    stacklevel=4,
                )
            return []
        if not masks:
            raise ValueError(
                f"{view.needs_mask} of ScanView need the mask of {images!r}; give the encoder its column too, for "
                f"example modalities={{'ct': [{images!r}, 'ct_mask']}}."
            )
        has_image, has_mask = (~X[column].map(is_missing).to_numpy(bool) for column in (images, masks[0]))
        if (lacking := X.index[has_image & ~has_mask]).size:
            raise ValueError(
                f"{len(lacking)} patients have an image in {images!r} and no mask in {masks[0]!r}, which "
                f"{view.needs_mask} of ScanView need: {lacking[:5].tolist()}. Add their masks, or set their images to "
                "None."
            )
        return masks

    def build(self, data: SliceData) -> SliceNet:
        """A network for slices like these, with weights from torch's current random state."""
        store = data.store
        standardize = self.standardize and store.std > 0
        backbone = self._backbone(data.item_shape[0])
        _check_maps(backbone, data.item_shape)
        if self.weights is not None:
            backbone.weights_origin = start_from_file(backbone, self.weights, "weights")
        return SliceNet(
            backbone,
            build(poolings, self.pooling, self.embedding_dim),
            self.embedding_dim,
            mean=float(store.mean) if standardize else 0.0,
            std=float(store.std) if standardize else 1.0,
            augmentation=None if self.augmentation is None else build(augmentations, self.augmentation),
        )

    def _backbone(self, in_channels: int) -> Any:
        return build(backbones, self.backbone, in_channels=in_channels)

    @property
    def weights_origin_(self) -> WeightsOrigin | None:
        """Where the weights that training started from come from; None without a file."""
        return getattr(self.network_.backbone, "weights_origin", None)

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


def _check_maps(backbone: Any, item_shape: tuple[int, ...]) -> None:
    """Refuse a backbone from elsewhere whose maps are not what the contract says, by one blank item."""
    name = type(backbone).__name__
    if type(backbone).__module__.startswith("mmdls."):
        return
    if not isinstance(backbone, nn.Module):
        raise TypeError(f"a backbone must be an nn.Module; got {name}.")
    training = backbone.training
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, *item_shape))
    backbone.train(training)
    are_maps = isinstance(maps, list | tuple) and all(isinstance(each, Tensor) for each in maps)
    shapes = [tuple(each.shape) for each in maps] if are_maps else []
    channels = list(getattr(backbone, "out_channels", []))
    if not shapes or [(s[1:2], len(s)) for s in shapes] != [((c,), len(item_shape) + 1) for c in channels]:
        got = f"maps of shapes {shapes}" if shapes else f"a {type(maps).__name__}"
        axes = "(B, C, D, H, W)" if len(item_shape) == 4 else "(B, C, H, W)"
        raise TypeError(
            f"forward of the backbone {name} must give a list of maps, {axes} from fine to coarse, and its attribute "
            f"out_channels must list their C; got {got} and out_channels={channels}. "
            f"mmdls.testing.check_backbone({name}) tests the whole contract."
        )
