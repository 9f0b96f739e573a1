"""SUVmax, SUVmean, SUVpeak, metabolic volume and total lesion glycolysis from PET and a mask."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve
from sklearn.utils._param_validation import StrOptions

from mmdls.cohort import modality_name
from mmdls.estimators._scan_features import ScanFeatures
from mmdls.registry import estimators
from mmdls.scans import Volume
from mmdls.training._intervals import Finite

__all__ = ["PETFeatures"]

# A sphere of 1 mL, in mm.
_RADIUS = (3 * 1000 / (4 * np.pi)) ** (1 / 3)
# Points along each side of a voxel by which its fraction inside the sphere is measured.
_POINTS = 12
_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Reconstructions may scatter around 0; what goes further is HU or the like, and what is higher is Bq/mL.
_LOWEST, _HIGHEST = -5.0, 1000.0


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
        self._share()

    def _share(self) -> float | None:
        """The share of SUVmax of a threshold in per cent."""
        if not isinstance(self.threshold, str):
            return None
        number, sign, rest = self.threshold.partition("%")
        share = float(number) / 100 if number.strip().replace(".", "", 1).isdigit() else np.nan
        if not sign or rest or not 0 < share < 1:
            raise ValueError(f"threshold is a SUV (4.0), a share of SUVmax ('41%') or None; got {self.threshold!r}.")
        return share

    def _names(self) -> list[str]:
        block = modality_name(self.image_column) or self.image_column
        return [f"{block}_{name}" for name in ("suvmax", "suvmean", "suvpeak", "mtv", "tlg")]

    def _measure(self, image: Volume, mask: np.ndarray) -> list[float]:
        lesions, n_lesions = ndimage.label(mask, _TOUCHING)
        if self.lesions == "primary":
            mask = lesions == 1 + np.argmax(np.bincount(lesions[mask])[1:])
        # The sphere reaches beyond the mask.
        margin = np.ceil(_RADIUS / np.array(image.spacing)).astype(int) + 1
        box = tuple(
            slice(max(0, part.start - more), part.stop + more)
            for part, more in zip(ndimage.find_objects(mask.astype(np.uint8))[0], margin, strict=True)
        )
        suv, mask, lesions = image.array[box].astype(float), mask[box], lesions[box]
        highest = suv[mask].max()
        if not 0 < highest <= _HIGHEST or suv.min() < _LOWEST:
            raise ValueError(
                f"values in the mask reach {highest:.3g}, and around it go from {suv.min():.3g} to {suv.max():.3g}: "
                "these are no SUV. Give the PET in SUV, and the mask of this PET."
            )
        inside = suv[mask & (suv >= self._limits(suv, mask, lesions, n_lesions))]
        mtv = inside.size * image.voxel_ml
        mean = inside.mean() if inside.size else np.nan
        return [highest, mean, self._peak(suv, mask, image.spacing), mtv, mean * mtv if inside.size else 0.0]

    def _limits(self, suv: np.ndarray, mask: np.ndarray, lesions: np.ndarray, n_lesions: int) -> Any:
        """The least SUV of the metabolic volume, for each voxel or for all."""
        share = self._share()
        if share is None:
            return -np.inf if self.threshold is None else self.threshold
        labels = np.where(mask, lesions, 0)
        return share * np.r_[0.0, ndimage.maximum(suv, labels, np.arange(1, n_lesions + 1))][labels]

    def _peak(self, suv: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]) -> float:
        kernel = _sphere(spacing, self.fractional_edges)
        total, weight = (fftconvolve(values, kernel, mode="same") for values in (suv, np.ones_like(suv)))
        centres = mask & (suv == suv[mask].max()) if self.peak == "suvmax" else mask
        return float((total[centres] / weight[centres]).max())


def _sphere(spacing: tuple[float, float, float], fractional: bool) -> np.ndarray:
    """How much of each voxel lies in a sphere of 1 mL around the middle one."""
    n = _POINTS if fractional else 1
    squares = []
    for side in spacing:
        reach = int(np.floor(_RADIUS / side + 0.5))
        voxels = np.arange(-reach, reach + 1)[:, None]
        squares.append(((voxels + (np.arange(n) + 0.5) / n - 0.5) * side) ** 2)
    z, y, x = squares
    distance = z[:, None, None, :, None, None] + y[None, :, None, None, :, None] + x[None, None, :, None, None, :]
    return (distance <= _RADIUS**2).mean(axis=(3, 4, 5))
