"""Hounsfield units (HU): checks that an image is in HU, and its greys under a window."""

from typing import Any

import numpy as np

__all__ = ["check_chest", "check_units", "is_hounsfield", "to_hounsfield", "to_window"]

# Every CT of a chest shows air, near -1000 HU; much lower values are padding in the corners of a slice.
_PADDING, _AIR = -1500, -200
# In a body only bone, contrast agent and metal exceed this; with 1024 added, all soft tissue does.
_DENSE = 500
# A narrower window, or one without negative values, is not in HU.
_NARROWEST = 50


def check_chest(image: np.ndarray, patient: Any) -> None:
    """Refuse a CT of a chest that is neither in HU nor in 8-bit greys.

    Parameters
    ----------
    image : ndarray of shape (S, H, W)
    patient : object
        Id for messages.

    Raises
    ------
    ValueError
        If it shows no air, or soft tissue as 1024 HU and more.
    """
    if image.dtype != np.uint8 and (image.min() > _AIR or _has_offset(image)):
        raise ValueError(
            f"the CT of patient {patient!r} holds {_range(image)}; expected Hounsfield units with air near -1000, or "
            "8-bit greys. If 1024 was added to keep stored values above zero, subtract it; other greys go to uint8 "
            "first."
        )


def is_hounsfield(window: tuple[float, float]) -> bool:
    """Whether a window must be one in HU: it begins below zero, and is not as narrow as one of standardised values."""
    low, high = window
    return low < 0 and high - low >= _NARROWEST


def check_units(
    image: np.ndarray,
    intensity_range: tuple[float, float],
    patient: Any,
    name: str = "intensity_range",
    greys: str = "None",
) -> None:
    """Refuse an image, or a part of one, that is not in HU although the window is.

    Parameters
    ----------
    image : ndarray of shape (S, H, W)
    intensity_range : (float, float)
        A window with a negative lower end and a width of 50 or more is in HU; other windows refuse nothing.
    patient : object
        Id for messages.
    name : str, default="intensity_range"
        Of the parameter, for messages.
    greys : str, default="None"
        Its value for greys, for messages.

    Raises
    ------
    ValueError
        If the image holds greys, values from 0 to 1, or HU with 1024 added.
    """
    if not is_hounsfield(intensity_range):
        return
    window = f"{name}={intensity_range} is a window in Hounsfield units, and the image of patient {patient!r}"
    if image.dtype in (np.uint8, bool) or (0 <= image.min() < image.max() <= 1):
        raise ValueError(
            f"{window} holds greys ({_range(image)}), whose window was chosen before. Pass {name}={greys} for greys, "
            "or give the image in HU."
        )
    if _has_offset(image):
        raise ValueError(
            f"{window} holds {_range(image)}: hardly any below {_AIR}, and {_dense(image):.0%} above {_DENSE}, as when "
            "1024 was added to keep stored values above zero. Subtract it (the rescale intercept of the series), or "
            f"choose {name} in these values, from 0 or more."
        )


def to_hounsfield(image: np.ndarray, grey_range: tuple[float, float]) -> np.ndarray:
    """Convert 8-bit greys to HU; other images are in HU already.

    Parameters
    ----------
    image : ndarray
    grey_range : (float, float)
        HU of the greys 0 and 255.

    Returns
    -------
    ndarray
    """
    if image.dtype != np.uint8:
        return image
    low, high = grey_range
    return (low + (high - low) / 255 * np.arange(256, dtype=np.float32))[image]


def to_window(image: np.ndarray, window: tuple[float, float], grey_range: tuple[float, float]) -> np.ndarray:
    """The greys of an image in HU, or in 8-bit greys, under a window.

    Parameters
    ----------
    image : ndarray
    window : (float, float)
        HU that become 0 and 255.
    grey_range : (float, float)
        HU of the greys 0 and 255 of an 8-bit image.

    Returns
    -------
    ndarray, uint8
    """
    low, high = window
    if image.dtype == np.uint8:
        greys = to_hounsfield(np.arange(256, dtype=np.uint8), grey_range)
        return np.rint((greys - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)[image]
    return np.rint((image.astype(np.float32) - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


def _has_offset(image: np.ndarray) -> bool:
    """Whether nearly no pixel is air or lung, and many are denser than soft tissue."""
    inside = image[image > _PADDING]
    return bool(len(inside)) and float(np.mean(inside < _AIR)) < 0.02 and _dense(image) > 0.05


def _dense(image: np.ndarray) -> float:
    inside = image[image > _PADDING]
    return float(np.mean(inside > _DENSE))


def _range(image: np.ndarray) -> str:
    return f"{image.dtype} from {image.min():g} to {image.max():g}"
