"""Overlap and distance of masks, in pixels or millimetres."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import UndefinedMetricWarning

__all__ = ["dice_score", "hausdorff_distance_95", "iou_score", "surface_dice"]


def dice_score(mask: Any, predicted: Any) -> float:
    """Twice the overlap of two masks over the sum of their sizes.

    Parameters
    ----------
    mask, predicted : array of one shape, bool
        Any number of dimensions. Two empty masks are NaN, with an ``UndefinedMetricWarning``.

    Returns
    -------
    float

    References
    ----------
    .. [1] Dice LR. Measures of the amount of ecologic association between species. Ecology, 1945.

    Examples
    --------
    >>> dice_score([[1, 1, 0, 0]], [[0, 1, 1, 0]])
    0.5
    """
    mask, predicted = _check_masks(mask, predicted)
    if not (mask.any() or predicted.any()):
        return _undefined("both masks are empty")
    return float(2 * (mask & predicted).sum() / (mask.sum() + predicted.sum()))


def iou_score(mask: Any, predicted: Any) -> float:
    """Overlap of two masks over their union, also called Jaccard index.

    Parameters
    ----------
    mask, predicted
        As in :func:`dice_score`.

    Returns
    -------
    float
        NaN if both masks are empty.

    Examples
    --------
    >>> round(iou_score([[1, 1, 0, 0]], [[0, 1, 1, 0]]), 3)
    0.333
    """
    mask, predicted = _check_masks(mask, predicted)
    if not (mask.any() or predicted.any()):
        return _undefined("both masks are empty")
    return float((mask & predicted).sum() / (mask | predicted).sum())


def hausdorff_distance_95(mask: Any, predicted: Any, spacing: Sequence[float] | float = 1.0) -> float:
    """95th percentile of the distances from the surface of each mask to the other surface; the larger of both.

    Parameters
    ----------
    mask, predicted : array of one shape, bool
        NaN, with an ``UndefinedMetricWarning``, if one is empty.
    spacing : float or sequence of float, default=1.0
        Size of a pixel along each axis in millimetres.

    Returns
    -------
    float
        In the unit of ``spacing``.

    References
    ----------
    .. [1] Huttenlocher DP et al. Comparing images using the Hausdorff distance. IEEE PAMI, 1993.
    .. [2] Maier-Hein L et al. Metrics reloaded: recommendations for image analysis validation. Nature Methods, 2024.

    Examples
    --------
    >>> hausdorff_distance_95([[1, 0, 0, 0]], [[0, 0, 0, 1]], spacing=(5.0, 0.7))
    2.0999999999999996
    """
    distances = _surface_distances(mask, predicted, spacing)
    return float("nan") if distances is None else float(max(np.percentile(each, 95) for each in distances))


def surface_dice(mask: Any, predicted: Any, tolerance: float, spacing: Sequence[float] | float = 1.0) -> float:
    """Fraction of the pixels of both surfaces that lie within a tolerance of the other surface.

    Parameters
    ----------
    mask, predicted : array of one shape, bool
        If one is empty the score is 0; if both are it is NaN, with an ``UndefinedMetricWarning``.
    tolerance : float
        In the unit of ``spacing``.
    spacing : float or sequence of float, default=1.0

    Returns
    -------
    float

    References
    ----------
    .. [1] Nikolov S et al. Clinically applicable segmentation of head and neck anatomy for radiotherapy. JMIR, 2021.

    Examples
    --------
    >>> surface_dice([[1, 1, 0, 0]], [[0, 1, 1, 0]], tolerance=0.5)
    0.5
    """
    mask, predicted = _check_masks(mask, predicted)
    if mask.any() != predicted.any():
        return 0.0
    distances = _surface_distances(mask, predicted, spacing)
    return float("nan") if distances is None else float(np.mean(np.concatenate(distances) <= tolerance))


def _check_masks(mask: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
    mask, predicted = np.asarray(mask), np.asarray(predicted)
    if mask.shape != predicted.shape or not mask.ndim:
        raise ValueError(f"mask and predicted must have one shape; got {mask.shape} and {predicted.shape}.")
    for values in (mask, predicted):
        if values.dtype != bool and not np.isin(values, (0, 1)).all():
            raise ValueError(f"masks must hold 0 and 1 or booleans; got {np.unique(values)[:5]}. Apply a threshold.")
    return mask.astype(bool), predicted.astype(bool)


def _surface_distances(mask: Any, predicted: Any, spacing: Any) -> list[np.ndarray] | None:
    """Distances of the surface of each mask from the other's surface, in the box around both."""
    mask, predicted = _check_masks(mask, predicted)
    sampling = np.broadcast_to(np.asarray(spacing, dtype=np.float64), mask.ndim)
    # Axes of one pixel are dropped: along them every pixel would be surface.
    thick = np.array(mask.shape) > 1
    mask, predicted, sampling = np.squeeze(mask), np.squeeze(predicted), sampling[thick]
    if not (mask.any() and predicted.any()):
        _undefined("a mask is empty")
        return None
    either = np.nonzero(mask | predicted)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in either)
    surfaces = [each & ~binary_erosion(each) for each in (mask[box], predicted[box])]
    return [distance_transform_edt(~b, sampling=sampling)[a] for a, b in (surfaces, surfaces[::-1])]


def _undefined(reason: str) -> float:
    warn(f"{reason}: the score is not defined.", UndefinedMetricWarning, stacklevel=3)
    return float("nan")
