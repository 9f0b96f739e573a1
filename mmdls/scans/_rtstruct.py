"""Contours of DICOM structure sets (RTSTRUCT), rasterised onto the voxels of their scan."""

from itertools import combinations
from typing import Any

import numpy as np

from mmdls.images._settings import MaskArguments
from mmdls.scans._headers import Refusal, check_frames, chosen_number, items, name, number, numbers, text
from mmdls.scans._volume import Volume

__all__ = ["RTSTRUCT", "rasterise"]

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
# Parts of a slice by which a contour may lie beside it.
_TOLERANCE = 0.1
# Shares of the smaller of two contours up to which they lie beside, or from which one is in the other: borders touch.
_PART = 0.05
# Pixels between a contour and a hole in it, as the difference of radii; what is thinner is a copy of the contour.
_THINNEST = 0.5


def rasterise(dataset: Any, like: Volume | None, label: Any, resample: bool, arguments: MaskArguments) -> np.ndarray:
    """The voxels whose centres lie inside the contours of one structure.

    Of several contours of a slice, one inside another is a hole, and copies count once, also with other corners. Those
    that overlap in part are refused, unless their type (CLOSEDPLANAR_XOR) says that the common part is outside.

    Parameters
    ----------
    dataset : pydicom.Dataset
    like : Volume
        The scan.
    label : str or int
        Name or number of the structure; None takes the only one.
    resample : bool
        Contours that lie between the slices count for the slice nearest to them, instead of being refused.
    arguments : MaskArguments

    Returns
    -------
    ndarray of shape (S, H, W), bool
    """
    if like is None:
        raise Refusal("has contours, which become voxels on those of their scan: pass like=, the scan")
    contours, is_exclusive = _contours(dataset, like.frame, label, arguments.label)
    places = [like.indices(points) for points in contours]
    if max(np.ptp(place[:, 0]) for place in places) > 2 * _TOLERANCE:
        raise Refusal("has contours that are not parallel to the slices of like; read the scan that they were drawn on")
    heights = np.array([place[:, 0].mean() for place in places])
    planes = np.rint(heights).astype(int)
    beside = np.abs(heights - planes).max()
    if beside > _TOLERANCE:
        if not resample:
            raise Refusal(
                f"has contours up to {beside * like.spacing[0]:.2g} mm beside the slices of like; read the scan that "
                f"they were drawn on, or pass {arguments.resample}=True"
            )
        return _between(places, heights, like, is_exclusive)
    _check_inside(places, planes, like)
    mask = np.zeros(like.shape, dtype=bool)
    for plane in np.unique(planes):
        own = [places[i][:, 1:] for i in np.flatnonzero(planes == plane)]
        mask[plane] = _slice(own, like.shape[1:], is_exclusive)
    return mask


def _slice(polygons: list[np.ndarray], shape: tuple[int, ...], is_exclusive: bool) -> np.ndarray:
    """The pixels inside the contours of one slice."""
    if len(polygons) > 1 and not is_exclusive:
        polygons = _without_copies(polygons, shape)
        lows, highs = ([end(one, axis=0) for one in polygons] for end in (np.min, np.max))
        for i, j in combinations(range(len(polygons)), 2):
            if (lows[i] < highs[j]).all() and (lows[j] < highs[i]).all():
                first, second = fill([polygons[i]], shape), fill([polygons[j]], shape)
                least = max(1, min(first.sum(), second.sum()))
                if _PART < (first & second).sum() / least < 1 - _PART:
                    raise Refusal("has contours that overlap in part on one slice, so that it is not known whether "
                                  "what they share is inside; join them in the program that drew them")  # fmt: skip
    return fill(polygons, shape)


def _without_copies(polygons: list[np.ndarray], shape: tuple[int, ...]) -> list[np.ndarray]:
    """The polygons of a slice, without those that repeat another one with other corners or rounding."""
    kept: list[tuple[np.ndarray, np.ndarray, float]] = []
    for polygon in polygons:
        inside, radius = fill([polygon], shape), np.sqrt(_area(polygon) / np.pi)
        for _, other, other_radius in kept:
            least = max(1, min(inside.sum(), other.sum()))
            if abs(radius - other_radius) < _THINNEST and (inside & other).sum() / least >= 1 - _PART:
                break
        else:
            kept.append((polygon, inside, radius))
    return [polygon for polygon, _, _ in kept]


def _area(polygon: np.ndarray) -> float:
    rows, columns = (polygon - polygon.mean(axis=0)).T
    return float(abs(rows @ np.roll(columns, -1) - columns @ np.roll(rows, -1)) / 2)


def fill(polygons: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centres lie inside an odd number of polygons.

    Parameters
    ----------
    polygons : list of ndarray of shape (n, 2)
        Rows and columns of their corners; the last is joined to the first.
    shape : (int, int)

    Returns
    -------
    ndarray of shape (H, W), bool
    """
    height, width = shape
    crossings = np.zeros((height, width + 1), dtype=np.int64)
    for polygon in polygons:
        start, end = polygon, np.roll(polygon, -1, axis=0)
        low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
        # Rows that an edge crosses, its upper end left out, so that a corner counts once.
        first, last = np.clip(np.ceil([low, high]), 0, height).astype(int)
        counts = last - first
        edge = np.repeat(np.arange(len(polygon)), counts)
        rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        run = end[edge] - start[edge]
        columns = start[edge, 1] + (rows - start[edge, 0]) * run[:, 1] / run[:, 0]
        np.add.at(crossings, (rows, np.clip(np.ceil(columns), 0, width).astype(int)), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


def _contours(dataset: Any, frame: str, label: Any, argument: str) -> tuple[list[np.ndarray], bool]:
    """Corners (n, 3) in mm of the contours of one structure, and whether what two of them share is outside."""
    structures = items(dataset, "StructureSetROISequence")
    names = {int(number(roi, "ROINumber") or 0): name(roi, "ROIName") for roi in structures}
    if not names:
        raise Refusal("has no structures")
    if len(names) < len(structures):
        raise Refusal("has several structures with the same ROINumber, so that their contours cannot be told apart")
    chosen = chosen_number(names, label, "structures", sorted(names.values()), argument)
    own = next(roi for roi in structures if int(number(roi, "ROINumber") or 0) == chosen)
    check_frames(text(own, "ReferencedFrameOfReferenceUID") or text(dataset, "FrameOfReferenceUID"), frame)
    found, kinds = [], set()
    for one in items(dataset, "ROIContourSequence"):
        if number(one, "ReferencedROINumber") != chosen:
            continue
        for contour in items(one, "ContourSequence"):
            kind, count = text(contour, "ContourGeometricType"), number(contour, "NumberOfContourPoints")
            points = numbers(contour, "ContourData", 3 * int(count or 0))
            if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR") or points is None or len(points) < 9:
                raise Refusal(f"has parts of {names[chosen]!r} that enclose no area, such as points and open lines")
            found.append(points.reshape(-1, 3))
            kinds.add(kind)
    if not found:
        raise Refusal(f"has no contours of {names[chosen]!r}")
    return found, "CLOSEDPLANAR_XOR" in kinds


def _check_inside(places: list[np.ndarray], planes: np.ndarray, like: Volume) -> None:
    edges = np.concatenate(places)[:, 1:]
    far = (planes < 0) | (planes >= like.shape[0])
    if far.any() or (edges < -1).any() or (edges > like.shape[1:]).any():
        raise Refusal(
            f"has contours outside of like, {int(far.sum())} of {len(planes)} beyond its first or last slice: it "
            "belongs to another scan"
        )


def _between(places: list[np.ndarray], heights: np.ndarray, like: Volume, is_exclusive: bool) -> np.ndarray:
    """Contours drawn on other slices: each slice has those of the drawn one next to it, half a gap away at most."""
    drawn, which = np.unique(np.round(heights, 3), return_inverse=True)
    gap = float(np.median(np.diff(drawn))) if len(drawn) > 1 else 1.0
    mask = np.zeros(like.shape, dtype=bool)
    _check_inside(places, np.rint(heights).astype(int), like)
    layers = [
        _slice([places[i][:, 1:] for i in np.flatnonzero(which == k)], like.shape[1:], is_exclusive)
        for k in range(len(drawn))
    ]
    for plane in range(like.shape[0]):
        nearest = int(np.abs(drawn - plane).argmin())
        if abs(drawn[nearest] - plane) <= gap / 2:
            mask[plane] = layers[nearest]
    return mask
