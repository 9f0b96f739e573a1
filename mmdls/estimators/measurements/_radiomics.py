"""Radiomics of one lesion; scikit-learn is not needed for them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmdls.estimators.measurements._radiomics_engines import CLASSES, load_engine
from mmdls.scans import Volume, resample
from mmdls.scans._resampling import finer
from mmdls.scans._views import box_of, part_of

__all__ = ["features_of", "radiomics"]


def features_of(
    image: np.ndarray,
    mask: np.ndarray,
    spacing: tuple[float, float, float],
    bin_width: float,
    classes: tuple[str, ...],
    engine: str,
) -> dict[str, float]:
    """The features of an engine, as a function of values alone, which a cache can tell apart."""
    return load_engine(engine)(image, mask, spacing, bin_width, classes)


def radiomics(
    image: Volume,
    mask: np.ndarray,
    *,
    engine: str,
    classes: Sequence[str],
    bin_width: float,
    spacing: Any,
    interpolation: int,
    resegment: Sequence[float] | None,
    min_voxels: int,
    compute: Callable[..., dict[str, float]] = features_of,
) -> dict[str, float]:
    """The features that :class:`mmdls.RadiomicsExtractor` describes, which explains the parameters.

    Parameters
    ----------
    image : Volume
    mask : ndarray of shape (S, H, W), bool
        With something inside.
    engine, classes, bin_width, spacing, interpolation, resegment, min_voxels
    compute : callable, default=features_of
        The same, or one that remembers.

    Returns
    -------
    dict of str to float
        By ``<class>_<feature>``; NaN for what cannot be computed.

    Raises
    ------
    ValueError
        If too few voxels are left in the mask.
    """
    first, last = box_of(mask)
    region = Volume(mask, image.affine, unit="label")
    if spacing is not None:
        like = finer(image, spacing, around=(first, last))
        image, region = resample(image, like=like, order=interpolation), resample(region, like=like)
    else:
        image, region = (part_of(volume, first, last - first + 1) for volume in (image, region))
    inside = np.asarray(region.array, dtype=bool)
    if resegment is not None:
        inside = inside & (image.array >= resegment[0]) & (image.array <= resegment[1])
    n_voxels = np.count_nonzero(inside)
    if n_voxels < min_voxels:
        raise ValueError(f"{n_voxels} voxels are left in the mask, and min_voxels={min_voxels} are needed.")
    first, last = box_of(inside)
    box = tuple(map(slice, first, last + 1))
    arrays = np.ascontiguousarray(image.array[box]), np.ascontiguousarray(inside[box])
    found = compute(*arrays, image.spacing, bin_width, tuple(classes), engine)
    values = {f"{name}_{one}": found.get(f"{name}_{one}", np.nan) for name in classes for one in CLASSES[name]}
    return {name: value if np.isfinite(value) else np.nan for name, value in values.items()}
