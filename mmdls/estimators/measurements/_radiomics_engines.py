"""Engines of radiomics: packages that compute the features of one lesion."""

import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from mmdls.estimators.measurements._lesion_shape import shape_features

__all__ = ["CLASSES", "ENGINES", "check_engine", "load_engine"]

# Features of each class that every engine has, by PyRadiomics' definitions.
_NAMES = {
    "firstorder": """
        10th_percentile 90th_percentile energy entropy interquartile_range kurtosis maximum mean
        mean_absolute_deviation median minimum range robust_mean_absolute_deviation root_mean_squared
        skewness total_energy uniformity variance
    """,
    "shape": """
        elongation flatness least_axis_length major_axis_length maximum_2d_diameter_column
        maximum_2d_diameter_row maximum_2d_diameter_slice maximum_3d_diameter mesh_volume minor_axis_length
        sphericity surface_area surface_volume_ratio voxel_volume
    """,
    "glcm": """
        autocorrelation cluster_prominence cluster_shade cluster_tendency contrast correlation
        difference_average difference_entropy difference_variance id idm idmn idn imc1 imc2 inverse_variance
        joint_average joint_energy joint_entropy maximum_probability mcc sum_average sum_entropy sum_squares
    """,
    "glrlm": """
        gray_level_non_uniformity gray_level_non_uniformity_normalized gray_level_variance
        high_gray_level_run_emphasis long_run_emphasis long_run_high_gray_level_emphasis
        long_run_low_gray_level_emphasis low_gray_level_run_emphasis run_entropy run_length_non_uniformity
        run_length_non_uniformity_normalized run_percentage run_variance short_run_emphasis
        short_run_high_gray_level_emphasis short_run_low_gray_level_emphasis
    """,
    "glszm": """
        gray_level_non_uniformity gray_level_non_uniformity_normalized gray_level_variance
        high_gray_level_zone_emphasis large_area_emphasis large_area_high_gray_level_emphasis
        large_area_low_gray_level_emphasis low_gray_level_zone_emphasis size_zone_non_uniformity
        size_zone_non_uniformity_normalized small_area_emphasis small_area_high_gray_level_emphasis
        small_area_low_gray_level_emphasis zone_entropy zone_percentage zone_variance
    """,
    "gldm": """
        dependence_entropy dependence_non_uniformity dependence_non_uniformity_normalized
        dependence_variance gray_level_non_uniformity gray_level_variance high_gray_level_emphasis
        large_dependence_emphasis large_dependence_high_gray_level_emphasis
        large_dependence_low_gray_level_emphasis low_gray_level_emphasis small_dependence_emphasis
        small_dependence_high_gray_level_emphasis small_dependence_low_gray_level_emphasis
    """,
    "ngtdm": """
        busyness coarseness complexity contrast strength
    """,
}
CLASSES = {name: tuple(text.split()) for name, text in _NAMES.items()}

Engine = Callable[[np.ndarray, np.ndarray, Sequence[float], float, Sequence[str]], dict[str, float]]


def by_fastrad(
    image: np.ndarray, mask: np.ndarray, spacing: Sequence[float], bin_width: float, classes: Sequence[str]
) -> dict[str, float]:
    """Features by fastrad, but for the shape, for which it needs a matrix of all pairs of vertices.

    Parameters
    ----------
    image, mask : ndarray of shape (S, H, W)
    spacing : sequence of 3 floats
        Slices, rows, columns, in mm.
    bin_width : float
    classes : sequence of str

    Returns
    -------
    dict of str to float
        By ``<class>_<feature>``.
    """
    import torch
    from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

    sides = tuple(float(side) for side in spacing)
    others = [name for name in classes if name != "shape"]
    found = {}
    if others:
        settings = FeatureSettings(feature_classes=others, bin_width=float(bin_width), device="cpu")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that voxels are not isotropic; spacing= is how to make them so
            scan = MedicalImage(torch.as_tensor(image.astype(np.float64)), sides)
            found = FeatureExtractor(settings).extract(scan, Mask(torch.as_tensor(mask), sides))
    if "firstorder" in others:
        # Of an even number of voxels fastrad takes the lower middle one.
        found["firstorder:median"] = np.median(image[mask])
    shape = shape_features(mask, sides) if "shape" in classes else {}
    return {key.replace(":", "_"): float(value) for key, value in found.items()} | {
        f"shape_{name}": float(value) for name, value in shape.items()
    }


def by_pyradiomics(
    image: np.ndarray, mask: np.ndarray, spacing: Sequence[float], bin_width: float, classes: Sequence[str]
) -> dict[str, float]:
    """Features by PyRadiomics; parameters and results as of :func:`by_fastrad`.

    Parameters
    ----------
    image, mask : ndarray of shape (S, H, W)
    spacing : sequence of 3 floats
    bin_width : float
    classes : sequence of str

    Returns
    -------
    dict of str to float
    """
    import SimpleITK
    from radiomics import featureextractor

    logging.getLogger("radiomics").setLevel(logging.ERROR)
    scans = [SimpleITK.GetImageFromArray(array) for array in (image.astype(np.float64), mask.astype(np.uint8))]
    for scan in scans:
        scan.SetSpacing([float(side) for side in spacing[::-1]])
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=float(bin_width), additionalInfo=False)
    extractor.disableAllFeatures()
    for name in classes:
        extractor.enableFeatureClassByName(name)
    plain = {f"{name}_{feature}".replace("_", ""): f"{name}_{feature}" for name in classes for feature in CLASSES[name]}
    found = {}
    for key, value in extractor.execute(*scans).items():
        squeezed = key.removeprefix("original").replace("_", "").lower().replace("0percentile", "0thpercentile")
        if squeezed in plain:
            found[plain[squeezed]] = float(value)
    return found


ENGINES: dict[str, Engine] = {"fastrad": by_fastrad, "pyradiomics": by_pyradiomics}
_PACKAGES = {"fastrad": "fastrad", "pyradiomics": "radiomics"}


def check_engine(name: str) -> None:
    """Refuse an engine whose package is not there; it is not imported, which takes seconds.

    Raises
    ------
    ImportError
        With the way to get it.
    """
    if find_spec(_PACKAGES[name]) is None:
        raise _absent(name, f"there is no {_PACKAGES[name]}")


def load_engine(name: str) -> Engine:
    """The engine of a name, if its package can be imported.

    Parameters
    ----------
    name : str

    Returns
    -------
    callable

    Raises
    ------
    ImportError
        With the way to get it.
    """
    try:
        if name == "fastrad":
            import fastrad  # noqa: F401
        else:
            import radiomics  # noqa: F401
    except ImportError as error:
        raise _absent(name, error) from error
    return ENGINES[name]


def _absent(name: str, why: Any) -> ImportError:
    way = 'pip install "mmdls[radiomics]"'
    if name == "pyradiomics":
        way = 'build it as docs/radiomics.md says, beside pip install "mmdls[scans]" for SimpleITK'
    return ImportError(f"engine={name!r} needs a package that cannot be imported ({why}): {way}.")
