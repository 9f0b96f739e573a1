"""A patient's scan as one volume, to an embedding."""

from collections.abc import Sequence
from numbers import Real
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from mmdls._parameters import Each, positive
from mmdls.encoders import BagData
from mmdls.estimators.encoders._slices import SliceData, SliceEncoder
from mmdls.images import SliceStore, is_missing
from mmdls.parts import Slot, build
from mmdls.registry import encoders, volume_backbones
from mmdls.registry import estimators as estimator_registry
from mmdls.scans import ScanView
from mmdls.training._trainer import Trainer

__all__ = ["VolumeEncoder"]


class VolumeData(SliceData):
    """The volumes of all patients, each a bag of one.

    Parameters
    ----------
    store : SliceStore
        Their slices.
    n_slices : int
        To which the slices of each volume are resampled.
    n_channels : int, default=1
    """

    items = "volumes"

    def __init__(self, store: SliceStore, n_slices: int, n_channels: int = 1):
        BagData.__init__(self, store.present, (n_channels, n_slices, *store.image_size))
        self.store = store
        self._stacks = np.flatnonzero(store.present)
        self._starts = np.r_[0, np.cumsum(store.counts)]

    def read(self, index: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Some volumes as floats in [0, 1], (k, C, S, H, W)."""
        volumes = torch.empty(len(index), *self.item_shape, device=device)
        n_slices = self.item_shape[1]
        for volume, row in zip(volumes, self._stacks[index], strict=True):
            stack = self.store.gather(np.arange(self._starts[row], self._starts[row + 1]), device=device)
            if len(stack) != n_slices:
                lines = stack.flatten(2).transpose(0, 1)[None]  # (1, C, slices, pixels), resized along the slices only
                size = n_slices, lines.shape[3]
                lines = functional.interpolate(lines, size, mode="bilinear", antialias=True)
                stack = lines[0].transpose(0, 1).unflatten(2, stack.shape[2:])
            volume.copy_(stack.transpose(0, 1))
        return volumes

    def facts(self) -> tuple[Any, ...]:
        """Who has a volume, its size, and what voxels are standardised by."""
        return *super().facts(), self.store.counts


@encoders.register("volumes")
@estimator_registry.register("volume_encoder")
class VolumeEncoder(SliceEncoder):
    """A patient's scan as one volume to one embedding, by a three-dimensional network.

    Cells, masks and patients without images are as for :class:`SliceEncoder`; all slices are read, and each volume is
    resampled to one size. Kernels and strides of the library's own backbones follow the sides of its voxels: thick
    slices are not mixed before the pixels have grown as large. As a part of :class:`MMDLS` it is trained end to end
    with everything else, alone with heads of its own.

    Parameters
    ----------
    backbone : str, class or Part, default="small"
        A name in ``mmdls.registry.volume_backbones``, a class that keeps the same contract, or ``Part(name, ...)``;
        ``"monai:<Name>"`` is a three-dimensional network of MONAI.
    volume_size : int or (int, int, int), default=(32, 64, 64)
        Slices, rows and columns to which each volume is resampled.
    spacing : (float, float, float), default=None
        Sides of the voxels of this size in mm, or their ratios, for kernels and strides. None measures them on the
        first training patients whose cells tell them (DICOM, NIfTI, NRRD, ``Volume``, ``(array, spacing)``), and takes
        them as equal where none does.
    embedding_dim : int, default=64
        Width of the embedding.
    intensity_range, scan, mask_label, resample_mask
        As in :class:`SliceEncoder`. With ``crop`` of a :class:`mmdls.scans.ScanView` all volumes are boxes of one size
        in mm, up to the ends of the scan.
    standardize : bool, default=True
        Standardise voxels by mean and spread over all training volumes, and let the projection behind the backbone
        start from standardised features.
    backbone_learning_rate : float, default=0.2
        The backbone's share of the model's learning rate.
    weights : path-like, default=None
        A file of weights from which the backbone starts, as for :class:`SliceEncoder`, with names as in the files of
        MedicalNet (``"resnet10"``, ``"resnet18"``, ``"resnet34"``, ``"resnet50"``).
    augmentation : str, class or Part, default=None
        As for :class:`SliceEncoder`; all slices of a volume are changed alike.
    trainable : bool, default=True
        False leaves the backbone as it was drawn: volumes are encoded once per fit, not once per epoch.
    memory : str or joblib.Memory, default=None
        Where decoded slices are kept between fits; None keeps them in RAM.
    trainer : Trainer, default=None
        How it is trained alone; None means ``Trainer()``. In :class:`MMDLS` the trainer of the whole model counts.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    spacing_ : tuple of 3 floats
        By which kernels and strides were chosen.
    network_, weights_origin_, history_, n_features_in_, feature_names_in_
        As in :class:`SliceEncoder`.

    References
    ----------
    .. [1] Chen S, Ma K, Zheng Y. Med3D: transfer learning for 3D medical image analysis. arXiv:1904.00625, 2019.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(30, n_slices=4, image_size=16, return_X_y=True, random_state=0)
    >>> encoder = VolumeEncoder(
    ...     volume_size=(4, 16, 16), spacing=(5, 1, 1), embedding_dim=8, trainer=Trainer(max_epochs=2), random_state=0
    ... )
    >>> encoder.fit(X[["lesion_image"]], y).transform(X[["lesion_image"]]).shape
    (30, 8)
    """

    searched = False  # takes long, and needs scans rather than a few slices
    pooling = "mean"  # of a bag of one
    max_slices = None
    max_image_size = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        name: allowed
        for name, allowed in SliceEncoder._parameter_constraints.items()
        if name not in ("pooling", "image_size", "max_image_size", "max_slices")
    } | {"volume_size": [Real, tuple, list], "spacing": [Each(positive(), 3), None]}

    def __init__(
        self,
        *,
        backbone: Any = "small",
        volume_size: int | tuple[int, int, int] = (32, 64, 64),
        spacing: Sequence[float] | None = None,
        embedding_dim: int = 64,
        intensity_range: tuple[float, float] | None = None,
        scan: ScanView | None = None,
        mask_label: int | str | Sequence[int] | None = None,
        resample_mask: bool = False,
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
        self.volume_size = volume_size
        self.spacing = spacing
        self.embedding_dim = embedding_dim
        self.intensity_range = intensity_range
        self.scan = scan
        self.mask_label = mask_label
        self.resample_mask = resample_mask
        self.standardize = standardize
        self.backbone_learning_rate = backbone_learning_rate
        self.weights = weights
        self.augmentation = augmentation
        self.trainable = trainable
        self.memory = memory
        self.trainer = trainer
        self.random_state = random_state

    def _slots(self) -> dict[str, Slot]:
        slots = super()._slots()
        del slots["pooling"]
        return slots | {"backbone": Slot(volume_backbones, owned=("in_channels", "spacing"))}

    @property
    def _size(self) -> tuple[int, int, int]:
        size = self.volume_size
        sides = tuple(size) if isinstance(size, list | tuple) else (size,) * 3
        if len(sides) != 3 or not all(isinstance(side, int | np.integer) and side > 0 for side in sides):
            raise ValueError(
                f"volume_size is the number of slices, rows and columns, or one number for all; got {size!r}."
            )
        return sides

    @property
    def image_size(self) -> tuple[int, int]:  # type: ignore[override]
        """Rows and columns of each volume."""
        return self._size[1:]

    def fit_preprocessing(self, X: pd.DataFrame, y: Any = None, sample_weight: np.ndarray | None = None) -> None:
        """Check the parameters, and measure the sides of voxels on the first training patients."""
        super().fit_preprocessing(X, y, sample_weight)
        self.spacing_ = self._measured(X) if self.spacing is None else tuple(map(float, self.spacing))

    def _measured(self, X: pd.DataFrame, n_patients: int = 5) -> tuple[float, ...]:
        """Median sides of the voxels of the resampled volumes, of the first patients whose cells tell them."""
        images, masks, reader = self._reader(X)
        found: list[np.ndarray] = []
        for patient, image in X[images].items():
            mask = X.loc[patient, masks[0]] if masks else None
            extent = None if is_missing(image) else reader.extent(image, mask, patient)
            if extent is not None:
                found.append(np.array(extent) / self._size)
            if len(found) == n_patients:
                break
        return tuple(np.median(found, axis=0).tolist()) if found else (1.0, 1.0, 1.0)

    def prepare(self, X: pd.DataFrame, *, n_jobs: int | None = None, verbose: int = 0) -> VolumeData:
        """Read and resample the volumes of all patients; see :meth:`SliceEncoder.prepare` for the cells."""
        data = super().prepare(X, n_jobs=n_jobs, verbose=verbose)
        return VolumeData(data.store, self._size[0], data.item_shape[0])

    def _backbone(self, in_channels: int) -> Any:
        return build(volume_backbones, self.backbone, in_channels=in_channels, spacing=self.spacing_)
