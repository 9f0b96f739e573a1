"""A picture of what was prepared of a patient, for eyes to check: planes with the outlines of lung and lesion."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from mmdls.images._png import pillow
from mmdls.scans import WINDOWS, Volume, resample

__all__ = ["draw_sheet", "planes_of"]

_TILE = 288
_LINE = 18
_COLOURS = {"lung": (70, 170, 255), "lesion": (255, 60, 50)}
# SUV that is black.
_HOT = 8.0
# Where slices are shown, from the first with the structure (0) to the last (1).
_SHARES = (0.15, 0.5, 0.85)
_LEGEND = "blue: lung, red: lesion; the patient's right is on the left; last column: from the front"


@dataclass(frozen=True)
class _Plane:
    """One plane of a scan across an axis, and of masks on its voxels."""

    axis: int
    index: int
    scan: Volume
    masks: dict[str, Volume]


def planes_of(scan: Volume, name: str = "", mask: Volume | None = None) -> list[_Plane]:
    """Three slices through a structure, and a plane from the front; without one through the scan.

    Parameters
    ----------
    scan : Volume
    name : str, default=""
        ``"lesion"`` or ``"lung"``.
    mask : Volume, default=None
        Of the structure, with something inside.

    Returns
    -------
    list of planes
        Copies, so that the scan can be freed.
    """
    shown = np.arange(len(scan.array)) if mask is None else np.flatnonzero(mask.array.any(axis=(1, 2)))
    row = scan.shape[1] // 2 if mask is None else int(np.argmax(np.count_nonzero(mask.array, axis=(0, 2))))
    levels = dict.fromkeys(int(shown[round(share * (len(shown) - 1))]) for share in _SHARES)
    places = [*((0, level) for level in levels), (1, row)]
    planes = [_Plane(axis, index, _slab(scan, axis, index), {}) for axis, index in places]
    return planes if mask is None else with_mask(planes, name, mask)


def with_mask(planes: list[_Plane], name: str, mask: Volume) -> list[_Plane]:
    """Planes that show one more structure.

    Parameters
    ----------
    planes : list of planes
    name : str
    mask : Volume
        On the voxels of the scan that the planes are of.

    Returns
    -------
    list of planes
    """
    return [replace(one, masks={**one.masks, name: _slab(mask, one.axis, one.index)}) for one in planes]


def draw_sheet(
    title: str, planes: list[_Plane], zoom: float, pet: Volume | None = None, on_pet: Volume | None = None
) -> Any:
    """The picture.

    Parameters
    ----------
    title : str
    planes : list of planes
        Of the CT, or of the PET without one.
    zoom : float
        Side in mm of the part around the lesion that is shown again.
    pet : Volume, default=None
        In SUV, to show on the planes of the CT.
    on_pet : Volume, default=None
        The lesion on the voxels of the PET.

    Returns
    -------
    PIL.Image.Image
    """
    uptake = f"PET, SUV 0 to {_HOT:g}"
    if planes[0].scan.unit == "HU":
        rows = [("CT, level -600, width 1500", [_tile(plane, "lung") for plane in planes])]
        if "lesion" in planes[0].masks:
            near = [_tile(_near(plane, zoom), "mediastinum") for plane in planes]
            rows.append((f"CT, level 40, width 400, {zoom:g} mm", near))
        if pet is not None:
            rows.append((uptake, [_tile(_on_pet(plane, pet, on_pet)) for plane in planes]))
    else:
        rows = [(uptake, [_tile(plane) for plane in planes])]
    image = pillow()
    page = image.new("RGB", (len(planes) * _TILE, 2 * _LINE + len(rows) * (_TILE + _LINE)), "white")
    _write(page, 0, title)
    for i, (caption, tiles) in enumerate(rows):
        top = _LINE + i * (_TILE + _LINE)
        _write(page, top, caption)
        page.paste(image.fromarray(np.concatenate(tiles, axis=1)), (0, top + _LINE))
    _write(page, page.height - _LINE, _LEGEND)
    return page


def _write(page: Any, top: int, text: str) -> None:
    from PIL import ImageDraw, ImageFont  # pip install "mmdls[imaging]"

    ImageDraw.Draw(page).text((4, top + 2), text, fill="black", font=ImageFont.load_default(12))


def _slab(volume: Volume, axis: int, index: int) -> Volume:
    start = np.zeros(3)
    start[axis] = index
    affine = volume.affine.copy()
    affine[:3, 3] = volume.places(start)
    return replace(volume, array=np.take(volume.array, [index], axis=axis).copy(), affine=affine)


def _on_pet(plane: _Plane, pet: Volume, mask: Volume | None) -> _Plane:
    """The PET where a plane of the CT lies."""
    masks = {} if mask is None else {"lesion": resample(mask, like=plane.scan)}
    return replace(plane, scan=resample(pet, like=plane.scan), masks=masks)


def _near(plane: _Plane, size: float) -> _Plane:
    """The part of a plane around the lesion."""
    inside = plane.masks["lesion"].array
    box = []
    for axis, length in enumerate(inside.shape):
        shown = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        middle = (shown[0] + shown[-1] + 1) / 2 if len(shown) else length / 2
        side = min(length, max(1, round(size / plane.scan.spacing[axis])))
        start = int(np.clip(round(middle - side / 2), 0, length - side))
        box.append(slice(start, start + side))
    part = {name: replace(mask, array=mask.array[tuple(box)]) for name, mask in plane.masks.items()}
    return replace(plane, scan=replace(plane.scan, array=plane.scan.array[tuple(box)]), masks=part)


def _tile(plane: _Plane, window: str | None = None) -> np.ndarray:
    """A plane as a square picture with outlines, the head up."""
    values = np.take(plane.scan.array, 0, axis=plane.axis).astype(np.float32)
    if window is None:
        grey = 1 - values / _HOT
    else:
        low, high = WINDOWS[window]
        grey = (values - low) / (high - low)
    picture = _fitted(grey.clip(0, 1) * 255, plane, beyond=0 if window else 255)
    tile = np.repeat(picture[:, :, None], 3, axis=2).astype(np.uint8)
    for name, mask in plane.masks.items():
        inside = _fitted(np.take(mask.array, 0, axis=plane.axis).astype(np.float32), plane) > 0.5
        tile[inside & ~ndimage.binary_erosion(inside)] = _COLOURS[name]
    return tile


def _fitted(picture: np.ndarray, plane: _Plane, beyond: float = 0) -> np.ndarray:
    """A plane of the right proportions in the middle of a tile."""
    sides = np.array([side for axis, side in enumerate(plane.scan.spacing) if axis != plane.axis])
    # Pixels of the plane for each of the tile.
    steps = (np.array(picture.shape) * sides).max() / _TILE / sides
    offset = (np.array(picture.shape) - 1) / 2 - steps * (_TILE - 1) / 2
    tile = ndimage.affine_transform(picture, steps, offset, (_TILE, _TILE), order=1, cval=beyond)
    return tile[::-1] if plane.axis == 1 else tile
