"""Times that differ by floating-point rounding only are tied."""

from typing import Any

import numpy as np

__all__ = ["snap_times", "tied_times"]

_TOLERANCE = float(np.sqrt(np.finfo(np.float64).eps))


def tied_times(time: Any) -> np.ndarray:
    """Make times equal that differ by floating-point rounding only, so that they count as tied.

    Dates divided by the length of a month, or ``0.1 + 0.2`` and ``0.3``, give times that differ although they are
    meant to be equal; ties, risk sets and pairs would depend on the last bits. Neighbours in the sorted list of
    distinct times are tied if they differ by at most ``tolerance``, or ``tolerance`` times the mean of that list,
    where the tolerance is the square root of the machine epsilon (1.5e-8); a run of such neighbours takes its
    earliest time. This is the rule of ``aeqSurv`` (``timefix=TRUE``) in R's package survival.

    Parameters
    ----------
    time : array of shape (n,)
        Months; NaN stays NaN.

    Returns
    -------
    ndarray of shape (n,), float64

    References
    ----------
    .. [1] Therneau TM. A package for survival analysis in R, vignette "Roundoff error and tied times". 2024.

    Examples
    --------
    >>> tied_times([0.1 + 0.2, 0.3, 0.5]).tolist()
    [0.3, 0.3, 0.5]
    """
    time = np.asarray(time, dtype=np.float64)
    different = np.unique(time[np.isfinite(time)])
    apart = np.diff(different) > _margin(different)
    if apart.all():
        return time
    earliest = different[np.r_[True, apart]]
    place = np.searchsorted(earliest, time, side="right") - 1
    return np.where(np.isfinite(time), earliest[np.maximum(place, 0)], time)


def snap_times(values: Any, times: Any) -> np.ndarray:
    """Replace each value by the one of ``times`` from which it differs by floating-point rounding only, if any.

    The rule of :func:`tied_times` between two lists, such as horizons or times of test rows and the steps of a curve.

    Parameters
    ----------
    values : array of any shape
        Months.
    times : array of shape (k,)
        Months, ascending.

    Returns
    -------
    ndarray of the shape of ``values``, float64

    Examples
    --------
    >>> snap_times([0.1 + 0.2, 0.4], [0.3, 0.5]).tolist()
    [0.3, 0.4]
    """
    values, times = np.asarray(values, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if not len(times):
        return values
    place = np.searchsorted(times, values)
    below, above = times[np.maximum(place - 1, 0)], times[np.minimum(place, len(times) - 1)]
    nearest = np.where(np.abs(values - below) <= np.abs(values - above), below, above)
    return np.where(np.abs(values - nearest) <= _margin(times), nearest, values)


def _margin(different: np.ndarray) -> float:
    return _TOLERANCE * max(1.0, float(np.abs(different).mean()) if len(different) else 0.0)
