"""Size and shape of a lesion: its triangulated surface and its voxels.

The definitions are PyRadiomics'. fastrad has them too, and compares every vertex of the surface with every other, which
takes seconds and gigabytes for a lesion of 150 mL; here only its table of triangles is used.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

__all__ = ["shape_features"]


def shape_features(mask: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """The features of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (S, H, W)
        With at least one voxel.
    spacing : sequence of 3 floats
        Sides of a voxel in mm.

    Returns
    -------
    dict of str to float
        In mm, mm^2 and mm^3.
    """
    sides = np.asarray(spacing, dtype=float)
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    mask = mask[box]
    padded = np.pad(mask, 1)
    area, volume = _surface(padded, sides)
    vertices = _vertices(padded)
    hull = ConvexHull(vertices).vertices
    places = np.argwhere(mask) * sides
    moments = np.linalg.eigvalsh(np.cov(places.T, bias=True)) if len(places) > 1 else np.zeros(3)
    least, minor, major = np.sqrt(np.maximum(moments, 0))
    ball = (36 * np.pi * volume**2) ** (1 / 3)
    return {
        "elongation": minor / major if major else np.nan,
        "flatness": least / major if major else np.nan,
        "least_axis_length": 4 * least,
        "major_axis_length": 4 * major,
        "maximum_2d_diameter_column": _diameter_in_planes(vertices, sides, 1),
        "maximum_2d_diameter_row": _diameter_in_planes(vertices, sides, 2),
        "maximum_2d_diameter_slice": _diameter_in_planes(vertices, sides, 0),
        "maximum_3d_diameter": pdist(vertices[hull] * sides / 2).max(),
        "mesh_volume": volume,
        "minor_axis_length": 4 * minor,
        "sphericity": ball / area,
        "surface_area": area,
        "surface_volume_ratio": area / volume,
        "voxel_volume": len(places) * sides.prod(),
    }


def _surface(padded: np.ndarray, sides: np.ndarray) -> tuple[float, float]:
    """Area and volume of the triangles that marching cubes puts through cubes of eight voxels."""
    from fastrad.features.shape_tables import gridAngles, triTable, vertList

    shape = np.array(padded.shape) - 1
    cubes = np.zeros(shape, dtype=np.int64)
    for bit, corner in enumerate(gridAngles):
        part = tuple(slice(start, start + n) for start, n in zip(corner, shape, strict=True))
        cubes |= padded[part].astype(np.int64) << bit
    # The table has the cubes with at most seven bits; the others are their complements with the surface turned over.
    triangles = np.asarray(triTable)[:, :15].reshape(-1, 5, 3)
    exists = triangles[:, :, 0] >= 0
    a, b, c = np.moveaxis(np.asarray(vertList, dtype=float)[triangles] * sides, 2, 0)
    areas = np.linalg.norm(np.cross(a - c, b - c), axis=-1) * exists / 2
    turn = np.cross(a, b) + np.cross(b, c) + np.cross(c, a)
    own = ((np.cross(a, b) * c).sum(axis=-1) * exists).sum(axis=1)
    moved = (turn * exists[..., None]).sum(axis=1)
    places = np.argwhere((cubes > 0) & (cubes < 255))
    kinds = cubes[tuple(places.T)]
    # The surface of a ragged mask is not closed, and its volume then depends on the origin: the first voxel.
    places = places - 1
    sign, kinds = np.where(kinds >= 128, -1.0, 1.0), np.where(kinds >= 128, kinds ^ 255, kinds)
    # The volume between the origin and a triangle that is moved by o grows by o times its normal.
    volume = sign @ (own[kinds] + (places * sides * moved[kinds]).sum(axis=1)) / 6
    return float(areas.sum(axis=1)[kinds].sum()), float(abs(volume))


def _vertices(padded: np.ndarray) -> np.ndarray:
    """Vertices of the surface, in half voxels: the middles between a voxel inside and its neighbour outside."""
    found = []
    for axis in range(3):
        crossed = np.argwhere(np.diff(padded, axis=axis)) * 2
        crossed[:, axis] += 1
        found.append(crossed)
    return np.concatenate(found)


def _diameter_in_planes(vertices: np.ndarray, sides: np.ndarray, axis: int) -> float:
    """The longest distance between two vertices in one plane across an axis."""
    across, along = [other for other in range(3) if other != axis]
    # Only the first and the last vertex of a line can be ends of the longest distance.
    order = np.lexsort((vertices[:, along], vertices[:, across], vertices[:, axis]))
    ordered = vertices[order]
    starts = np.any(np.diff(ordered[:, [axis, across]], axis=0, prepend=-1) != 0, axis=1)
    ends = np.append(starts[1:], True)
    ordered = ordered[starts | ends]
    planes = np.split(ordered * sides / 2, np.flatnonzero(np.diff(ordered[:, axis])) + 1)
    return max((pdist(plane).max() for plane in planes if len(plane) > 1), default=0.0)
