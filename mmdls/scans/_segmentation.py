"""DICOM segmentations (SEG): one frame for each slice and segment, in any order, empty ones left out."""

from pathlib import Path
from typing import Any

import numpy as np

from mmdls.scans._dicom import Plane, affine_of, axes_of, pixels, plane_of
from mmdls.scans._headers import Refusal, chosen_number, items, name, number, open_dicom, text
from mmdls.scans._resampling import MOST_VOXELS
from mmdls.scans._volume import Volume

__all__ = ["SEGMENTATION", "read_segmentation"]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
# Parts of a slice by which frames may deviate from a regular grid.
_TOLERANCE = 0.1


def read_segmentation(path: Path, label: Any, argument: str) -> Volume:
    """One segment, on the voxels of its frames.

    Parameters
    ----------
    path : Path
    label : str, int or None
        Label or number of the segment; None takes the only one.
    argument : str
        Name of the argument that chooses the segment, for messages.

    Returns
    -------
    Volume
        bool, from the first to the last slice that any segment has a frame of.
    """
    header = open_dicom(path)
    names = {
        int(number(one, "SegmentNumber") or 0): name(one, "SegmentLabel") for one in items(header, "SegmentSequence")
    }
    chosen = chosen_number(names, label, "segments", names, argument)
    if text(header, "SegmentationType") != "BINARY":
        raise Refusal(
            "has fractions or labels instead of yes and no (SegmentationType is not BINARY); store a binary one"
        )
    common, frames = items(header, "SharedFunctionalGroupsSequence"), items(header, "PerFrameFunctionalGroupsSequence")
    rows, columns, count = (int(number(header, tag) or 0) for tag in ("Rows", "Columns", "NumberOfFrames"))
    if not frames or len(frames) != count or count * rows * columns > MOST_VOXELS:
        raise Refusal(f"describes {len(frames)} frames and claims {count} of {rows} x {columns}")
    planes = [plane_of(path, i, [frame, *common]) for i, frame in enumerate(frames)]
    places, affine = _grid(planes, common)
    array = np.zeros((places.max() + 1, rows, columns), dtype=bool)
    stored = pixels(path, rows, columns)
    for i, frame in enumerate(frames):
        groups = [item for group in (frame, *common) for item in items(group, "SegmentIdentificationSequence")]
        named = [number(item, "ReferencedSegmentNumber") for item in groups]
        if len(named) != 1 or named[0] not in names:
            raise Refusal("has frames that name none of its segments, or several (ReferencedSegmentNumber)")
        if named[0] == chosen:
            array[places[i]] |= stored[i] != 0
    return Volume(array, affine, "label", "SEG", text(header, "FrameOfReferenceUID"))


def _grid(planes: list[Plane], common: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The slice of each frame, and the affine of all."""
    axes, sides = axes_of(planes, "has frames with different {}")
    normal = axes[0]
    positions = np.array([plane.position for plane in planes])
    heights = positions @ normal
    first = int(heights.argmin())
    step = _step(heights, common)
    places = np.rint((heights - heights[first]) / step)
    on_grid = positions[first] + np.outer(places * step, normal)
    if np.abs(positions - on_grid).max() > _TOLERANCE * min(step, *sides) or places.max() > 2**16:
        raise Refusal("has frames that lie on no regular grid")
    return places.astype(int), affine_of(axes, step, sides, positions[first])


def _step(heights: np.ndarray, common: list[Any]) -> float:
    """Millimetres from slice to slice: as stated, or the least distance of two frames."""
    measures = [item for group in common for item in items(group, "PixelMeasuresSequence")]
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        stated = [value for item in measures if (value := number(item, tag))]
        gaps = np.diff(np.unique(np.round(heights, 3)))
        # The thickness of slices need not be their distance.
        if stated and stated[0] > 0 and (tag == "SpacingBetweenSlices" or not len(gaps)):
            return stated[0]
        if len(gaps):
            return float(gaps.min())
    raise Refusal("has one slice, and neither SpacingBetweenSlices nor SliceThickness")
