"""Cutting the surroundings of a structure out of a volume."""

import numpy as np

__all__ = ["box_around"]


def box_around(mask: np.ndarray, margin: float = 0.1) -> tuple[slice, slice, slice] | None:
    """The slices that show a structure, and the square around it in all of them.

    Parameters
    ----------
    mask : ndarray of shape (S, H, W), bool
    margin : float, default=0.1
        Added on each side, as a share of the square's side. The square ends at the image's border at the latest.

    Returns
    -------
    (slice, slice, slice) or None
        None if nothing is inside.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((5, 40, 40), dtype=bool)
    >>> mask[1:3, 10:20, 10:18] = True
    >>> box_around(mask)
    (slice(1, 3, None), slice(9, 21, None), slice(8, 20, None))
    """
    if not mask.any():
        return None
    first, last = zip(*((np.flatnonzero(line)[[0, -1]]) for line in _profiles(mask)), strict=True)
    side = max(last[1] - first[1], last[2] - first[2]) + 1
    side = int(np.ceil(side * (1 + 2 * margin)))
    box = [slice(int(first[0]), int(last[0]) + 1)]
    for axis in (1, 2):
        size = mask.shape[axis]
        length = min(side, size)
        start = min(max((first[axis] + last[axis] + 1 - length) // 2, 0), size - length)
        box.append(slice(int(start), int(start) + length))
    return box[0], box[1], box[2]


def _profiles(mask: np.ndarray) -> list[np.ndarray]:
    rows = mask.any(axis=2)
    return [rows.any(axis=1), rows.any(axis=0), mask.any(axis=(0, 1))]
