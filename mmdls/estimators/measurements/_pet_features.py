"""SUVmax, SUVmean, SUVpeak, metabolic volume and total lesion glycolysis from PET and a mask."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from mmdls._parameters import Finite
from mmdls.cohort import modality_name
from mmdls.estimators.measurements._scan_features import ScanFeatures
from mmdls.estimators.measurements._uptake import UPTAKE, share_of, uptake
from mmdls.registry import estimators
from mmdls.scans import Volume

__all__ = ["PETFeatures"]


@estimators.register("pet_features")
class PETFeatures(ScanFeatures):
    """Uptake of a lesion: SUVmax, SUVmean, SUVpeak, MTV (mL) and TLG (g), from a PET in SUV and a mask.

    Parameters
    ----------
    image_column : str, default="pet_image"
        PET in SUV: a folder of DICOM slices is converted, and other files must hold SUV.
    mask_column : str or None, default=None
        None means ``<name>_mask`` of ``<name>_image``.
    threshold : float, str or None, default=None
        Which voxels of the mask are the metabolic volume, of which SUVmean, MTV and TLG are: None all; a number those
        with this SUV at least, for example 2.5 or 4.0; ``"41%"`` those with this share of SUVmax at least, each lesion
        by its own.
    lesions : {"all", "primary"}, default="all"
        ``"all"`` measures the whole mask; ``"primary"`` only its largest connected part.
    peak : {"highest", "suvmax"}, default="highest"
        Where the sphere of 1 mL is whose mean is SUVpeak: around the voxel of the mask that makes it highest, or around
        the voxel of SUVmax. It reads voxels outside of the mask too.
    fractional_edges : bool, default=True
        Whether a voxel counts by its fraction inside the sphere, or whole if its centre is inside, as IBSI has it.
    label : int, sequence of int, str or None, default=None
        The lesion in masks with several labels; of files with names, such as contours, also a name.
    resample_mask : bool, default=False
        Whether masks on other voxels are brought to those of the PET (nearest neighbour), or refused.
    n_jobs : int, default=None
        Processes over patients.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    failures_ : pandas.DataFrame
        ``reason`` of each patient whom the last ``transform`` could not measure.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Notes
    -----
    Negative voxels, which some reconstructions have, count as they are; a lesion without any uptake, and values below
    -5 or above 1000 in it or around it, are refused, since these are no SUV.

    TLG is SUVmean x MTV. If no voxel of the mask reaches the threshold, MTV and TLG are 0 and SUVmean is NaN. With
    nodes and metastases in the mask these numbers tell the stage: to predict it, use the primary only.

    References
    ----------
    1. Wahl RL et al. From RECIST to PERCIST: evolving considerations for PET response criteria in solid tumors.
       Journal of Nuclear Medicine, 2009.
    2. Zwanenburg A et al. The Image Biomarker Standardization Initiative. Radiology, 2020.

    Examples
    --------
    >>> import pandas as pd
    >>> suv = np.full((9, 9, 9), 3.0)
    >>> suv[4, 4, 4] = 5.0
    >>> X = pd.DataFrame({"pet_image": [(suv, 2.0)], "pet_mask": [suv > 0]})
    >>> PETFeatures(threshold=4.0).set_output(transform="pandas").fit_transform(X).round(3)
       pet_suvmax  pet_suvmean  pet_suvpeak  pet_mtv  pet_tlg
    0         5.0          5.0        3.016    0.008     0.04
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ScanFeatures._parameter_constraints,
        "threshold": [Finite(Real, 0, None, closed="neither"), str, None],
        "lesions": [StrOptions({"all", "primary"})],
        "peak": [StrOptions({"highest", "suvmax"})],
        "fractional_edges": ["boolean"],
    }
    unit = "SUV"

    def __init__(
        self,
        *,
        image_column: str = "pet_image",
        mask_column: str | None = None,
        threshold: float | str | None = None,
        lesions: str = "all",
        peak: str = "highest",
        fractional_edges: bool = True,
        label: Any = None,
        resample_mask: bool = False,
        n_jobs: int | None = None,
        verbose: int = 0,
    ):
        self.image_column = image_column
        self.mask_column = mask_column
        self.threshold = threshold
        self.lesions = lesions
        self.peak = peak
        self.fractional_edges = fractional_edges
        self.label = label
        self.resample_mask = resample_mask
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_parameters(self) -> None:
        share_of(self.threshold)

    def _names(self) -> list[str]:
        block = modality_name(self.image_column) or self.image_column
        return [f"{block}_{name}" for name in UPTAKE]

    def _how(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("threshold", "lesions", "peak", "fractional_edges")}

    def _measure(self, image: Volume, mask: np.ndarray) -> list[float]:
        return list(uptake(image, mask, **self._how()).values())
