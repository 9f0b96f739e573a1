"""Segmentation of lung and lesion in CT."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state

from mmdls.estimators._constraints import SEGMENTOR_CONSTRAINTS
from mmdls.estimators.segmentation._segmentor_predictions import SegmentorPredictions
from mmdls.images import is_missing
from mmdls.images._settings import as_size, as_window, check_label
from mmdls.modules.segmentation import STRUCTURES, make_segmentation_net
from mmdls.registry import CarriesParts
from mmdls.registry import estimators as estimator_registry
from mmdls.training._compute import Compute, seeded
from mmdls.training._encoder_weights import start_encoder
from mmdls.training._labelled import hold_out, read_labelled, warn_of_absent
from mmdls.training._masks import Augmentation, train_masks

__all__ = ["LungLesionSegmentor"]


@estimator_registry.register("lung_lesion_segmentor")
class LungLesionSegmentor(  # type: ignore[call-arg]
    CarriesParts, SegmentorPredictions, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Segment lung and lesion in CT slices; the first step of a ``Pipeline`` from CT to outcomes.

    ``fit`` learns from the columns ``ct_image``, ``lung_mask`` and ``lesion_mask`` of a table of patients. Either mask
    may be missing for a patient; a structure without any mask is not learned and never predicted. ``transform`` adds
    ``lung_image`` and ``lesion_image``, crops around the structures found, for :class:`MMDLS`.

    Images are 8-bit greys or Hounsfield units (HU); other images, such as HU with 1024 added, are refused. Scans
    (DICOM, NRRD, a ``Volume``, ``(array, spacing)``) are in HU, and masks what :func:`mmdls.scans.read_mask` reads.

    Parameters
    ----------
    net : str or class, default="cross_attention_unet"
        A name in ``mmdls.registry.segmentation_nets``, ``"monai:<Name>"`` for a network of MONAI (extra ``monai``), or
        a class that keeps the same contract.
    net_params : dict, default=None
        Arguments of the network, for example ``{"backbone": "resnet18", "backbone_params": {"width": 64}}``.
    backbone_weights : path-like, default=None
        A file of weights from which the encoder starts, as in ``SliceEncoder(weights=...)``.
    image_column : str, default="ct_image"
        The image to read; one column, not a selection, since each mask belongs to one image.
    image_size : int or (int, int), default=128
        Height and width of the network's input; slices are resized to it, and masks back to the image's size.
    context_slices : int, default=0
        Number of slices before and after each slice that the network gets as further channels.
    intensity_range : (float, float), default=(-1350.0, 150.0)
        Window in HU of the network's input.
    grey_range : (float, float), default=(-1350.0, 150.0)
        HU of the greys 0 and 255 of 8-bit images.
    lung_label, lesion_label : int, str or sequence of them, default=None
        The values that are inside, of masks with several values, for example ``(1, 2)`` for both lungs, or the names of
        structures in RTSTRUCT and SEG; None expects masks with one structure.
    resample_mask : bool, default=False
        Resample masks to the voxels of their image, by the nearest neighbour; False refuses masks with other voxels.
    loss : str, default="dice+cross_entropy"
        ``"dice"``, ``"cross_entropy"``, ``"focal"`` or ``"tversky"``, joined by ``+``.
    foreground_fraction : float, default=0.33
        Fraction of the slices in a batch that is replaced by random slices with the rarest structure.
    patch_size : int or (int, int), default=None
        Train on windows of this size, half of them around the rarest structure of a slice; None trains on whole slices.
        Prediction always uses whole slices.
    augment : bool, default=True
        Flip left and right, rotate, zoom, shift; change contrast and brightness; add noise.
    max_epochs : int, default=60
    learning_rate : float, default=4e-3
    weight_decay : float, default=0.01
    batch_size : int, default=16
        Slices per training step, and slices predicted at a time.
    validation_fraction : float, default=0.15
        Fraction of the patients held out for early stopping by their mean Dice; 0 trains for ``max_epochs``.
    patience : int, default=20
        Epochs without a better validation Dice before training stops; the weights of the best epoch are kept. None
        trains for ``max_epochs`` and keeps the last weights.
    threshold : float, default=0.5
        Probability above which a pixel is inside.
    test_time_augmentation : bool, default=False
        Average the prediction with that of the mirrored slice, which takes twice the time.
    lung_components : int, "auto" or None, default="auto"
        Keep this many of the largest connected parts in three dimensions; None keeps all. ``"auto"`` keeps two where
        the slices are known to form a volume: scans with voxels at most 10 mm apart and 100 mm or more from the first
        slice to the last. It keeps all parts for a folder, an array or a ``.npy`` file, whose slices may lie far apart.
    lesion_components : int or None, default=None
        As ``lung_components``, without ``"auto"``: a patient may have any number of lesions.
    lung_inside_body, lesion_inside_body : bool, default=False
        Remove mask pixels outside the body, which is the largest part above -500 HU of a slice, with holes filled.
        Needs true HU and slices that show the whole outline of the body; a lung that touches the image's border counts
        as outside. Masks of a slice without such a part stay unchanged.
    crop_size : int, default=64
        Height and width of ``lung_image`` and ``lesion_image``.
    crop_margin : float, default=0.2
        Margin kept on each side, as a fraction of the structure's width.
    keep_image : bool, default=False
        Whether ``transform`` keeps the CT column, which ``MMDLS(modalities="auto")`` then uses as a modality.
    precision : {"float32", "bf16"}, default="float32"
        ``"bf16"`` computes in mixed precision.
    n_jobs : int, default=None
        Threads that read images.
    device : {"cpu", "cuda", "auto"}, default="cpu"
    verbose : int, default=0
        1 shows progress bars.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    network_ : torch.nn.Module
    structures_ : list of str
        The structures that were learned: ``"lung"``, ``"lesion"``, or both.
    history_ : pandas.DataFrame
        Losses and the validation patients' Dice, one row an epoch.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        The column that prediction reads.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(12, n_slices=2, image_size=32, masks=True, return_X_y=True, random_state=0)
    >>> X = X[["lung_image", "lung_mask", "lesion_mask"]].rename(columns={"lung_image": "ct_image"})
    >>> segmentor = LungLesionSegmentor(image_size=32, max_epochs=2, random_state=0).fit(X)
    >>> list(segmentor.predict(X[["ct_image"]]).columns)
    ['lung_mask', 'lesion_mask']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = SEGMENTOR_CONSTRAINTS

    def __init__(
        self,
        *,
        net: Any = "cross_attention_unet",
        net_params: Mapping[str, Any] | None = None,
        backbone_weights: str | PathLike | None = None,
        image_column: str = "ct_image",
        image_size: int | tuple[int, int] = 128,
        context_slices: int = 0,
        intensity_range: tuple[float, float] = (-1350.0, 150.0),
        grey_range: tuple[float, float] = (-1350.0, 150.0),
        lung_label: int | str | Sequence[int | str] | None = None,
        lesion_label: int | str | Sequence[int | str] | None = None,
        resample_mask: bool = False,
        loss: str = "dice+cross_entropy",
        foreground_fraction: float = 0.33,
        patch_size: int | tuple[int, int] | None = None,
        augment: bool = True,
        max_epochs: int = 60,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.01,
        batch_size: int = 16,
        validation_fraction: float = 0.15,
        patience: int | None = 20,
        threshold: float = 0.5,
        test_time_augmentation: bool = False,
        lung_components: int | str | None = "auto",
        lesion_components: int | None = None,
        lung_inside_body: bool = False,
        lesion_inside_body: bool = False,
        crop_size: int = 64,
        crop_margin: float = 0.2,
        keep_image: bool = False,
        precision: str = "float32",
        n_jobs: int | None = None,
        device: str = "cpu",
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.net = net
        self.net_params = net_params
        self.backbone_weights = backbone_weights
        self.image_column = image_column
        self.image_size = image_size
        self.context_slices = context_slices
        self.intensity_range = intensity_range
        self.grey_range = grey_range
        self.lung_label = lung_label
        self.lesion_label = lesion_label
        self.resample_mask = resample_mask
        self.loss = loss
        self.foreground_fraction = foreground_fraction
        self.patch_size = patch_size
        self.augment = augment
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.threshold = threshold
        self.test_time_augmentation = test_time_augmentation
        self.lung_components = lung_components
        self.lesion_components = lesion_components
        self.lung_inside_body = lung_inside_body
        self.lesion_inside_body = lesion_inside_body
        self.crop_size = crop_size
        self.crop_margin = crop_margin
        self.keep_image = keep_image
        self.precision = precision
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e-2, log=True),
            "loss": optuna.distributions.CategoricalDistribution(["dice+cross_entropy", "dice+focal", "tversky"]),
            "foreground_fraction": optuna.distributions.FloatDistribution(0.0, 0.7),
            "context_slices": optuna.distributions.IntDistribution(0, 2),
        }

    def fit(self, X: pd.DataFrame, y: Any = None) -> "LungLesionSegmentor":
        """Learn masks.

        Parameters
        ----------
        X : pandas.DataFrame
            ``ct_image``, and ``lung_mask``, ``lesion_mask`` or both, of the image's shape. A mask without any pixel
            inside says that the structure is absent; None that it is unknown.
        y : default=None
            Ignored; outcomes pass through a ``Pipeline``.

        Returns
        -------
        LungLesionSegmentor
        """
        self._check_parameters()
        self._check_table(X)
        columns = [f"{name}_mask" for name in STRUCTURES if f"{name}_mask" in X.columns]
        if not columns:
            raise ValueError(
                f"X needs a column 'lung_mask' or 'lesion_mask' to learn from. Columns: {list(X.columns)}."
            )
        has_image = X[self.image_column].map(lambda cell: not is_missing(cell)).to_numpy(dtype=bool)
        has_mask = np.array([[not is_missing(cell) for cell in row] for row in X[columns].to_numpy(dtype=object)])
        learnable = X[has_image & has_mask.any(axis=1)]
        if not len(learnable):
            raise ValueError(f"no patient has both a {self.image_column!r} and a mask; nothing can be learned.")
        rng = check_random_state(self.random_state)
        compute = Compute(device=self.device, precision=self.precision)
        slices = read_labelled(
            learnable,
            self.image_column,
            STRUCTURES,
            size=as_size(self.image_size),
            window=self._window,
            read=self._read,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        warn_of_absent(slices, {name: getattr(self, f"{name}_label") for name in STRUCTURES})
        held = hold_out(slices, self.validation_fraction, rng)
        is_held = torch.isin(slices.patients, torch.as_tensor(held))
        with seeded(rng.randint(2**31 - 1)):
            self.network_ = make_segmentation_net(self.net, 2 * self.context_slices + 1, **(self.net_params or {}))
            if self.backbone_weights is not None:
                start_encoder(self.network_, Path(self.backbone_weights))
            self.history_ = train_masks(
                self.network_,
                slices,
                (~is_held).nonzero()[:, 0],
                is_held.nonzero()[:, 0],
                loss=self.loss,
                max_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                batch_size=self.batch_size,
                context_slices=self.context_slices,
                patience=self.patience,
                foreground_fraction=self.foreground_fraction,
                patch_size=None if self.patch_size is None else as_size(self.patch_size, "patch_size"),
                augmentation=Augmentation() if self.augment else None,
                compute=compute,
                verbose=self.verbose,
            )
        self.network_.eval()
        self.structures_ = [name for name, known in zip(STRUCTURES, slices.known.any(dim=0), strict=True) if known]
        self.feature_names_in_ = np.asarray([self.image_column], dtype=object)
        self.n_features_in_ = 1
        return self

    def _check_parameters(self) -> None:
        self._validate_params()
        for name in ("intensity_range", "grey_range"):
            as_window(getattr(self, name), name)
        for name in ("lung_label", "lesion_label"):
            check_label(getattr(self, name), name, by_name=True)
        size = as_size(self.image_size)
        patch = size if self.patch_size is None else as_size(self.patch_size, "patch_size")
        if any(part > full for part, full in zip(patch, size, strict=True)):
            raise ValueError(f"patch_size must fit into image_size; got {self.patch_size} and {self.image_size}.")
