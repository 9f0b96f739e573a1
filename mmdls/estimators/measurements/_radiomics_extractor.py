"""Radiomics of a lesion from a scan and a mask."""

from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_memory

from mmdls._parameters import Finite, count
from mmdls.estimators.measurements._radiomics import features_of, radiomics
from mmdls.estimators.measurements._radiomics_engines import CLASSES, ENGINES, check_engine
from mmdls.estimators.measurements._scan_features import ScanFeatures
from mmdls.registry import estimators
from mmdls.scans import Volume
from mmdls.scans._resampling import lengths

__all__ = ["RadiomicsExtractor"]


@estimators.register("radiomics_extractor")
class RadiomicsExtractor(ScanFeatures):
    """First-order, shape and texture features of a lesion in three dimensions.

    Needs ``pip install "mmdls[radiomics]"``. The steps of a patient: resample image and mask, leave out voxels by their
    intensity, group intensities into bins, compute.

    Parameters
    ----------
    image_column : str, default="ct_image"
    mask_column : str or None, default=None
        None means ``<name>_mask`` of ``<name>_image``.
    unit : str, default="HU"
        Of the image: of DICOM it is compared with the header or converted ("SUV"), and a Volume in another one is
        refused. Empty takes any.
    engine : {"fastrad", "pyradiomics"}, default="fastrad"
        The package that computes; PyRadiomics must be built by yourself. Both have the same features and definitions.
    classes : sequence of str, default=("firstorder", "shape", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
    bin_width : float, default=25.0
        Width of the bins of intensities, for textures, entropy and uniformity; 25 HU for CT, 0.25 to 0.5 for SUV. Bins
        begin at a multiple of it.
    spacing : float, (float, float, float) or None, default=None
        Sides of voxels in mm (slices, rows, columns) to which images are resampled; None leaves them as they are.
    interpolation : int, default=1
        Degree of the spline that resamples images: 1 is linear, 3 cubic. Masks take the nearest voxel.
    resegment : (float, float) or None, default=None
        Lowest and highest intensity of voxels that stay in the mask, for example ``(-1000, 400)`` HU.
    min_voxels : int, default=64
        Patients with fewer voxels in the mask become NaN: textures of so few mean nothing.
    prefix : str, default="radiomics"
        Block of the columns that come out.
    label : int, sequence of int, str or None, default=None
        The lesion in masks with several labels; of files with names, such as contours, also a name.
    resample_mask : bool, default=False
        Whether masks on other voxels are brought to those of the image (nearest neighbour), or refused.
    memory : str or joblib.Memory, default=None
        Where features are kept, so that the same voxels with the same settings are computed once.
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
    What cannot be computed, such as the elongation of a single voxel, is NaN. Definitions, and which of them
    are those of IBSI, are in ``docs/radiomics.md``.

    References
    ----------
    1. van Griethuysen JJM et al. Computational radiomics system to decode the radiographic phenotype. Cancer Research,
       2017.
    2. Zwanenburg A et al. The Image Biomarker Standardization Initiative. Radiology, 2020.

    Examples
    --------
    A column of volumes, each with the sides of its voxels in mm, and one of masks:

    >>> import numpy as np
    >>> import pandas as pd
    >>> image = np.random.default_rng(0).normal(0, 50, (8, 16, 16))
    >>> X = pd.DataFrame({"ct_image": [(image, (3.0, 1.0, 1.0))], "ct_mask": [np.abs(image) < 60]}, index=["P1"])
    >>> extractor = RadiomicsExtractor(classes=["firstorder", "shape"]).set_output(transform="pandas")
    >>> extractor.fit_transform(X).shape
    (1, 32)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ScanFeatures._parameter_constraints,
        "unit": [str],
        "engine": [StrOptions(set(ENGINES))],
        "classes": ["array-like", tuple],
        "bin_width": [Finite(Real, 0, None, closed="neither")],
        "spacing": [Finite(Real, 0, None, closed="neither"), tuple, list, None],
        "interpolation": [Finite(Integral, 0, 5, closed="both")],
        "resegment": [tuple, list, None],
        "min_voxels": [count(1)],
        "prefix": [str],
        "memory": [str, PathLike, HasMethods(["cache"]), None],
    }

    def __init__(
        self,
        *,
        image_column: str = "ct_image",
        mask_column: str | None = None,
        unit: str = "HU",
        engine: str = "fastrad",
        classes: Sequence[str] = tuple(CLASSES),
        bin_width: float = 25.0,
        spacing: float | Sequence[float] | None = None,
        interpolation: int = 1,
        resegment: Sequence[float] | None = None,
        min_voxels: int = 64,
        prefix: str = "radiomics",
        label: Any = None,
        resample_mask: bool = False,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ):
        self.image_column = image_column
        self.mask_column = mask_column
        self.unit = unit
        self.engine = engine
        self.classes = classes
        self.bin_width = bin_width
        self.spacing = spacing
        self.interpolation = interpolation
        self.resegment = resegment
        self.min_voxels = min_voxels
        self.prefix = prefix
        self.label = label
        self.resample_mask = resample_mask
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_parameters(self) -> None:
        if isinstance(self.classes, str) or not len(self.classes) or set(self.classes) - set(CLASSES):
            raise ValueError(f"classes must be some of {list(CLASSES)}; got {self.classes!r}.")
        if self.spacing is not None:
            lengths(self.spacing, "spacing")
        if self.resegment is not None and not (len(self.resegment) == 2 and self.resegment[0] < self.resegment[1]):
            raise ValueError(f"resegment is the lowest and the highest intensity that stay; got {self.resegment!r}.")
        check_engine(self.engine)

    def _names(self) -> list[str]:
        return [f"{self.prefix}_{name}_{feature}" for name in self.classes for feature in CLASSES[name]]

    def _how(self) -> dict[str, Any]:
        names = ("engine", "classes", "bin_width", "spacing", "interpolation", "resegment", "min_voxels")
        return {name: getattr(self, name) for name in names}

    def _measure(self, image: Volume, mask: np.ndarray) -> list[float]:
        compute = check_memory(self.memory).cache(features_of)
        return list(radiomics(image, mask, **self._how(), compute=compute).values())
