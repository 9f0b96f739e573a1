"""Intervals for parameters: scikit-learn's, which NaN, infinity and booleans are not in."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval

__all__ = ["Finite", "count", "share"]


class Finite(Interval):
    """An interval of ``sklearn.utils._param_validation`` that NaN, infinities and booleans do not lie in.

    scikit-learn's own lets NaN pass, since every comparison with it is false, and counts True as 1.

    Examples
    --------
    >>> [Finite(Real, 0, None, closed="left").is_satisfied_by(value) for value in (0.5, float("nan"), True)]
    [True, False, False]
    """

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value lies inside."""
        return bool(super().is_satisfied_by(val) and not isinstance(val, bool) and np.isfinite(val))


def count(least: int) -> Finite:
    """A whole number from ``least`` on."""
    return Finite(Integral, least, None, closed="left")


def share() -> Finite:
    """A number from 0 to below 1."""
    return Finite(Real, 0, 1, closed="left")
