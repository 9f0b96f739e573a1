"""Reading one patient's mask: one structure, on the pixels of its image."""

from typing import Any

import numpy as np

from mmdls.images._files import of_patient
from mmdls.images._reading import read_image

__all__ = ["read_mask"]


def read_mask(
    cell: Any, patient: Any = None, like: tuple[int, ...] | None = None, *, allow_empty: bool = False
) -> np.ndarray:
    """Read a patient's mask.

    Parameters
    ----------
    cell : path or ndarray
        As for :func:`read_image`, with two values at the most; the larger one is inside.
    patient : default=None
        Id for messages.
    like : tuple of int, default=None
        Shape (S, H, W) of the image that it belongs to.
    allow_empty : bool, default=False
        Take a mask without any pixel inside: the structure is known to be absent.

    Returns
    -------
    ndarray of shape (S, H, W), bool

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_image`, and if the shape differs, more than two values are found, or nothing is inside.
    """
    of = of_patient(patient)
    mask = read_image(cell, patient)
    if like is not None and mask.shape != tuple(like):
        raise ValueError(
            f"the mask{of} has shape {mask.shape} and its image {tuple(like)}; both need the same slices and pixels."
        )
    values = np.unique(mask)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise ValueError(
            f"the mask{of} holds the values {values[:5].tolist()}; expected 0 outside and one other value inside. "
            "Choose one label, for example mask == 1."
        )
    if not (allow_empty or values.any()):
        raise ValueError(f"the mask{of} is empty: no pixel is inside. Use None if there is no mask.")
    return mask != 0
