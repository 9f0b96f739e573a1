"""Risk groups: cut-points learned from the training risks, and the group of a risk."""

import warnings
from typing import Any

import numpy as np

__all__ = ["fit_cutpoints", "risk_group"]

# One patient alone and in a batch differ by the rounding of float32; equal risks stay equal.
_ROUNDING = 1e-6


def fit_cutpoints(
    risk: Any, sample_weight: Any = None, *, endpoint: str | None = None, stacklevel: int = 3
) -> np.ndarray:
    """Tertiles of the training risks.

    A tertile is the lowest risk that at least a third (two thirds) of the patients do not exceed, so a weight is a
    repetition, a weight of 0 no patient, and the scale of the weights means nothing.

    Parameters
    ----------
    risk : array of shape (n_patients,)
    sample_weight : array of shape (n_patients,), default=None
    endpoint : str, default=None
        For the warning.
    stacklevel : int, default=3
        As in :func:`warnings.warn`; 3 is the caller of the function that calls this one.

    Returns
    -------
    ndarray of shape (2,)

    Warns
    -----
    UserWarning
        If the cut-points leave one of the three groups without a training patient.

    Examples
    --------
    >>> fit_cutpoints([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    array([0.2, 0.4])
    """
    risk = np.asarray(risk, dtype=np.float64)
    weight = np.ones(len(risk)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    order = np.argsort(risk, kind="stable")
    below = weight[order].cumsum()
    thirds = below[-1] * np.array([1 / 3, 2 / 3])
    # Sums of weights round; a third that is reached up to that is reached.
    cutpoints = risk[order][np.searchsorted(below, thirds * (1 - 1e-9))]
    sizes = np.bincount(risk_group(risk[weight > 0], cutpoints), minlength=3)
    if not sizes.all():
        warnings.warn(
            f"the risks{f' of {endpoint!r}' if endpoint else ''} hold {len(np.unique(risk[weight > 0]))} different "
            f"values among {sizes.sum()} training patients, and their tertiles, {cutpoints[0]:.4g} and "
            f"{cutpoints[1]:.4g}, make groups of {sizes.tolist()} patients (low, middle, high). An empty group means "
            "nothing: compare the groups that hold patients, or the risks themselves.",
            stacklevel=stacklevel,
        )
    return cutpoints


def risk_group(risk: Any, cutpoints: Any) -> np.ndarray:
    """The group of each risk; a risk equal to a cut-point belongs to the lower group.

    Parameters
    ----------
    risk : array of shape (n_patients,)
    cutpoints : array of shape (n_cutpoints,)
        Ascending.

    Returns
    -------
    ndarray of int, shape (n_patients,)
        0 (low) to ``n_cutpoints`` (high).

    Examples
    --------
    >>> risk_group([0.1, 0.2, 0.3, 0.5], [0.2, 0.4])
    array([0, 0, 1, 2])
    """
    cutpoints = np.asarray(cutpoints, dtype=np.float64)
    rounding = _ROUNDING * np.abs(cutpoints).max(initial=0.0)
    return np.searchsorted(cutpoints + rounding, np.asarray(risk, dtype=np.float64), side="left")
