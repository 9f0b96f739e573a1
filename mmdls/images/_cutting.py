"""Cutting a structure and its surroundings out of a volume."""

import numpy as np

__all__ = ["box_around", "cut_out", "pad_to_square"]


def box_around(mask: np.ndarray, margin: float = 0.1) -> tuple[slice, slice, slice] | None:
    """The slices that show a structure, and the square around it in all of them.

    Parameters
    ----------
    mask : ndarray of shape (S, H, W), bool
    margin : float, default=0.1
        Added on each side, as a fraction of the square's side. The box is cut at the image's border, where it may be
        narrower than a square; it always contains the whole structure.

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
    first, last = zip(*(_ends(mask, axis) for axis in range(3)), strict=True)
    side = max(last[1] - first[1], last[2] - first[2]) + 1
    side = int(np.ceil(side * (1 + 2 * margin)))
    box = [slice(int(first[0]), int(last[0]) + 1)]
    for axis in (1, 2):
        size = mask.shape[axis]
        length = min(side, size)
        start = min(max((first[axis] + last[axis] + 1 - length) // 2, 0), size - length)
        box.append(slice(int(start), int(start) + length))
    return box[0], box[1], box[2]


def cut_out(image: np.ndarray, mask: np.ndarray, margin: float = 0.05) -> np.ndarray:
    """The image inside a mask, on the square around the mask; no pixel of the mask is cut off.

    Parameters
    ----------
    image : ndarray of shape (S, H, W)
    mask : ndarray of shape (S, H, W), bool
        With something inside.
    margin : float, default=0.05
        Added on each side, as a fraction of the square's side.

    Returns
    -------
    ndarray of shape (S, side, side)
        All slices. Pixels outside the mask, and those that the square has beyond the image's border, hold 0, or the
        image's least value if it has negative ones.
    """
    box = box_around(mask, margin)
    if box is None:
        raise ValueError("a mask without any pixel inside cuts nothing out.")
    outside = min(image.min(), 0) if image.dtype.kind in "if" else 0
    inside = np.where(mask, image, outside).astype(image.dtype)[:, box[1], box[2]]
    return pad_to_square(inside, outside)


def pad_to_square(image: np.ndarray, fill: float) -> np.ndarray:
    """Pad slices on both sides with one value until they are square.

    Parameters
    ----------
    image : ndarray of shape (S, H, W)
    fill : float

    Returns
    -------
    ndarray of shape (S, max(H, W), max(H, W))
    """
    side = max(image.shape[1:])
    lacking = [side - size for size in image.shape[1:]]
    before = [(lack // 2, lack - lack // 2) for lack in lacking]
    return np.pad(image, [(0, 0), *before], constant_values=fill) if any(lacking) else image


def _ends(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """The first and the last position along an axis with a pixel inside the mask."""
    others = tuple(other for other in range(mask.ndim) if other != axis)
    places = np.flatnonzero(mask.any(axis=others))
    return int(places[0]), int(places[-1])
