"""Validation of windows of intensities, sizes in pixels, and labels of masks; how callers call their own arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["MaskArguments", "as_size", "as_window", "check_label"]


@dataclass(frozen=True)
class MaskArguments:
    """What the user's own arguments are called that say how a mask is read, for messages.

    Parameters
    ----------
    label, resample : str
        Those that choose the structure, and let a mask be resampled.
    names, allow_empty : str or None
        Those with the numbers of structures by name, and that accepts an empty mask; None if the user has none.
    """

    label: str = "label"
    resample: str = "resample_mask"
    names: str | None = None
    allow_empty: str | None = None


def as_window(window: Any, name: str = "intensity_range") -> tuple[float, float]:
    """A window (low, high) of intensities.

    Parameters
    ----------
    window : sequence of two numbers
    name : str, default="intensity_range"
        Of the parameter, for messages.

    Raises
    ------
    ValueError
        If it is anything but two finite numbers, the second above the first.
    """
    if not (_is_pair(window) and all(_is_number(end) for end in window) and window[0] < window[1]):
        raise ValueError(f"{name} must be (low, high) with low < high; got {window!r}.")
    return float(window[0]), float(window[1])


def as_size(size: Any, name: str = "image_size") -> tuple[int, int]:
    """Height and width in pixels.

    Parameters
    ----------
    size : int or (int, int)
        One number is both.
    name : str, default="image_size"
        Of the parameter, for messages.

    Raises
    ------
    ValueError
        If it is anything but one or two whole numbers of 1 or more.
    """
    pair = tuple(size) if _is_pair(size) else (size, size)
    if not all(_is_count(side) for side in pair):
        raise ValueError(f"{name} must be a whole number of 1 or more, or (height, width); got {size!r}.")
    return int(pair[0]), int(pair[1])


def check_label(label: Any, name: str = "label", *, by_name: bool = False) -> None:
    """Refuse a label that cannot select pixels of a mask.

    Parameters
    ----------
    label : int, sequence of int, or None
    name : str, default="label"
        Of the parameter, for messages.
    by_name : bool, default=False
        Whether names of structures are labels too.

    Raises
    ------
    ValueError
        If it is no positive whole number, nor a sequence of them.
    """
    if label is None:
        return
    labels = label if isinstance(label, (Sequence, np.ndarray)) and not isinstance(label, str) else [label]
    if not len(labels) or not all(_is_count(one) or (by_name and isinstance(one, str) and one) for one in labels):
        kinds = "a whole number above 0 or a name" if by_name else "a whole number above 0"
        raise ValueError(f"{name} must be {kinds}, or several; got {label!r}.")


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list, np.ndarray)) and len(value) == 2


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
