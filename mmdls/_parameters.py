"""What parameters may be: scikit-learn's constraints, with intervals that booleans, NaN and infinity are not in."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

__all__ = ["Each", "Finite", "amount", "count", "one_of", "positive", "share"]


class Finite(Interval):
    """An interval of ``sklearn.utils._param_validation`` that booleans do not lie in, nor NaN and infinities.

    scikit-learn's own counts True as 1.

    Parameters
    ----------
    type : {numbers.Integral, numbers.Real}
    left, right : number or None
        The ends; None is open to infinity.
    closed : {"left", "right", "both", "neither"}
        The ends that belong to it.

    Examples
    --------
    >>> [Finite(Real, 0, None, closed="left").is_satisfied_by(value) for value in (0.5, float("nan"), True)]
    [True, False, False]
    """

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value lies inside."""
        return bool(super().is_satisfied_by(val) and not isinstance(val, bool) and np.isfinite(val))


class Each(Options):
    """A sequence, not empty, whose items all satisfy a constraint.

    Parameters
    ----------
    item : constraint
    length : int, default=None
        How many items there must be.

    Examples
    --------
    >>> print(Each(count(1), 2))
    a sequence of 2 items, each an int in the range [1, inf)
    >>> [Each(count(1)).is_satisfied_by(value) for value in ((2, 2), [0], (), 2, "ab")]
    [True, False, False, False, False]
    """

    def __init__(self, item: Any, length: int | None = None):
        super().__init__(Sequence, set())
        self.item = item
        self.length = length

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value is such a sequence."""
        items = val.tolist() if isinstance(val, np.ndarray) else val
        if not isinstance(items, list | tuple) or not items or len(items) != (self.length or len(items)):
            return False
        return all(map(self.item.is_satisfied_by, items))

    def __str__(self) -> str:
        return f"a sequence of {self.length or 'at least 1'} items, each {self.item}"


def count(least: int, most: int | None = None) -> Finite:
    """A whole number.

    Parameters
    ----------
    least : int
    most : int, default=None
        None sets no limit.

    Returns
    -------
    Finite

    Examples
    --------
    >>> print(count(1))
    an int in the range [1, inf)
    """
    return Finite(Integral, least, most, closed="left" if most is None else "both")


def amount() -> Finite:
    """A number from 0 on.

    Returns
    -------
    Finite

    Examples
    --------
    >>> print(amount())
    a float in the range [0.0, inf)
    """
    return Finite(Real, 0, None, closed="left")


def positive() -> Finite:
    """A number above 0.

    Returns
    -------
    Finite

    Examples
    --------
    >>> print(positive())
    a float in the range (0.0, inf)
    """
    return Finite(Real, 0, None, closed="neither")


def share() -> Finite:
    """A number from 0 to below 1.

    Returns
    -------
    Finite

    Examples
    --------
    >>> print(share())
    a float in the range [0.0, 1.0)
    """
    return Finite(Real, 0, 1, closed="left")


def one_of(*texts: str) -> StrOptions:
    """One of some texts.

    Parameters
    ----------
    *texts : str

    Returns
    -------
    sklearn.utils._param_validation.StrOptions

    Examples
    --------
    >>> [one_of("efron", "breslow").is_satisfied_by(value) for value in ("efron", "exact", None)]
    [True, False, False]
    """
    return StrOptions({*texts})
