"""What a model sees of a patient's scan, in one part: voxels of a size, a box around a structure, slices, windows."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from mmdls.images import is_missing, read_image
from mmdls.images import read_mask as read_plain_mask
from mmdls.images._files import of_patient
from mmdls.images._hounsfield import check_units, is_hounsfield
from mmdls.scans._cells import as_mask, as_volume, has_geometry, label_in
from mmdls.scans._resampling import MOST_VOXELS, OUTSIDE, resample, upright
from mmdls.scans._views import apply_window, box_of, check_count, part_of, slices_around_largest_area, windows_of
from mmdls.scans._volume import Volume, same_geometry

__all__ = ["ScanView"]


class ScanView(BaseEstimator):
    """How slices are cut from a scan: voxels of a size, a box around a structure, slices and windows, all in mm and HU.

    It is the parameter ``scan`` of :class:`mmdls.SliceEncoder`; ``set_params(scan__spacing=1.0)`` reaches it.

    Parameters
    ----------
    window : str, (float, float), or sequence of them, default="lung"
        As for :func:`apply_window`; several windows are the channels of a slice.
    spacing : float or (float, float, float), default=None
        Sides of the voxels in mm: between slices, rows and columns. None, or None among the three, keeps the scan's.
    crop : float or (float, float, float), default=None
        Sides in mm of a box with the centre of the mask's box; None among the three keeps the whole side. Rows and
        columns beyond the scan are filled with air, slices beyond it are left out.
    margin : float or (float, float, float), default=None
        Instead of ``crop``: the mask's own box, with so many mm more on each side; None among the three keeps the whole
        side. Rows and columns get the longer of their two lengths, so that the square can be resized undistorted.
    n_slices : int, default=None
        Neighbouring slices, the one with the mask's largest area in the middle; see
        :func:`slices_around_largest_area`.
    masked : bool, default=False
        Set what lies outside of the mask to 0, the low end of every window.
    unit : str, default=None
        Of the values; see :func:`read_scan`. None means HU where a window has a name or begins below zero, else what
        the scan states. PET needs ``"SUV"``.
    modality : str, default=None
        Of a DICOM folder with several series, the one to read: ``"CT"``, ``"PT"`` or ``"MR"``.

    Examples
    --------
    >>> ct = Volume(np.full((10, 40, 40), -600, np.int16), np.eye(4)[:, [2, 1, 0, 3]] * [5, 1, 1, 1], unit="HU")
    >>> mask = Volume(np.zeros((10, 40, 40), bool), ct.affine, unit="label")
    >>> mask.array[3:6, 10:20, 10:20] = True
    >>> view = ScanView(["lung", "mediastinum"], spacing=(None, 2, 2), crop=(None, 32, 32), n_slices=3)
    >>> part, inside = view.cut(ct, mask)
    >>> part.spacing, view.intensities(part, inside).shape
    ((5.0, 2.0, 2.0), (3, 2, 16, 16))
    """

    _BY_MASK: ClassVar[tuple[str, ...]] = ("crop", "margin", "n_slices", "masked")

    def __init__(
        self,
        window: Any = "lung",
        *,
        spacing: float | Sequence[float | None] | None = None,
        crop: float | Sequence[float | None] | None = None,
        margin: float | Sequence[float | None] | None = None,
        n_slices: int | None = None,
        masked: bool = False,
        unit: str | None = None,
        modality: str | None = None,
    ):
        self.window = window
        self.spacing = spacing
        self.crop = crop
        self.margin = margin
        self.n_slices = n_slices
        self.masked = masked
        self.unit = unit
        self.modality = modality

    @property
    def n_channels(self) -> int:
        """Windows of every slice."""
        return len(windows_of(self.window))

    @property
    def needs_mask(self) -> list[str]:
        """The parameters that are given and read the mask."""
        return [name for name in self._BY_MASK if getattr(self, name) not in (None, False)]

    def check(self) -> None:
        """Refuse parameters that say nothing, or contradict each other.

        Raises
        ------
        TypeError, ValueError
        """
        windows_of(self.window)
        for name, least in (("spacing", None), ("crop", None), ("margin", 0.0)):
            _sides(getattr(self, name), name, least)
        if self.margin is not None and self.crop is not None:
            raise ValueError("crop is a box of one size, margin one around each mask; give one of them.")
        if self.n_slices is not None:
            check_count(self.n_slices)
        if not isinstance(self.masked, bool | np.bool_):
            raise TypeError(f"masked is True or False; got {self.masked!r}.")
        for name in ("unit", "modality"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} is a str or None; got {getattr(self, name)!r}.")

    def read(
        self, image: Any, mask: Any = None, *, label: Any = None, resample_mask: bool = False, patient: Any = None
    ) -> tuple[Volume, Volume | None]:
        """A patient's scan and mask, on the same voxels.

        Parameters
        ----------
        image, mask : object
            Cells of a table, as :func:`read_scan` and :func:`read_mask` read them; a Volume, ``(array, spacing)``, or,
            where nothing is said in mm, what :func:`mmdls.images.read_image` reads. None, NaN: there is no mask.
        label : str, int or sequence of int, default=None
            See :func:`read_mask`. A name counts where structures have names; other masks must then hold one structure.
        resample_mask : bool, default=False
            Bring a mask with other voxels to those of the scan; False refuses it.
        patient : default=None
            Id for messages.

        Returns
        -------
        scan : Volume
            In the radiological view, in its own values.
        mask : Volume or None

        Raises
        ------
        FileNotFoundError, TypeError, ValueError
            If a cell cannot be read, a mask is needed and missing, or nothing is known of the size of voxels.
        """
        of, windows = of_patient(patient), windows_of(self.window)
        in_hounsfield = isinstance(self.window, str) or any(map(is_hounsfield, windows))
        unit = self.unit or ("HU" if in_hounsfield else "")
        lacks_mask = is_missing(mask)
        if self.needs_mask and lacks_mask:
            raise ValueError(
                f"there is no mask{of}, which {self.needs_mask} of ScanView need; give the mask, or None as image."
            )
        how: dict[str, Any] = {"label": label_in(mask, label), "resample_mask": resample_mask}
        inside = None
        if has_geometry(image):
            scan = as_volume(image, unit=unit, modality=self.modality, patient=patient)
            if not lacks_mask:
                inside = as_mask(mask, scan, image, patient=patient, **how)
        else:
            pixels = read_image(image, patient)
            if in_mm := [name for name in ("spacing", "crop", "margin") if getattr(self, name) is not None]:
                raise ValueError(
                    f"the image{of} has no voxel size, which {in_mm} of ScanView need: give a DICOM folder, NIfTI, "
                    "NRRD, a mmdls.scans.Volume, or (array, spacing) with the mm between slices, rows and columns."
                )
            scan = Volume(pixels, upright(1.0), unit)
            if not lacks_mask:
                array = read_plain_mask(mask, patient, scan.shape, image=image, **how)
                inside = Volume(array, scan.affine, "label")
        if scan.unit == "HU" and not scan.modality:
            for window in [window for window in windows if is_hounsfield(window)][:1]:
                check_units(scan.array, window, patient, "window", "(0, 255)")
        return scan, inside

    def cut(self, scan: Volume, mask: Volume | None = None) -> tuple[Volume, Volume | None]:
        """The voxels that the model sees, in their own values.

        Parameters
        ----------
        scan : Volume
        mask : Volume, default=None
            bool, on the voxels of the scan.

        Returns
        -------
        scan, mask : Volume
            On the same voxels. Without ``spacing`` they are voxels of the scan; with it each is interpolated once.

        Raises
        ------
        ValueError
            If the mask is needed and missing, empty, or has other voxels.
        """
        self.check()
        if mask is None and self.needs_mask:
            raise ValueError(f"{self.needs_mask} of ScanView need a mask; give it.")
        if mask is not None and not same_geometry(scan, mask):
            raise ValueError("mask and scan have other voxels; bring the mask to them: resample(mask, like=scan).")
        own, shape = np.array(scan.spacing), np.array(scan.shape)
        steps = _sides(self.spacing, "spacing")
        # Of the voxels that are made: their sides and places, in voxels of the scan.
        ratio = np.where(np.isnan(steps) | np.isclose(steps, own, rtol=1e-6), 1.0, steps / own)
        counts = np.ceil(np.round(shape / ratio, 6))
        starts = ((shape - 1) - (counts - 1) * ratio) / 2
        if mask is not None and (self.crop is not None or self.margin is not None):
            first, last = box_of(mask.array)
            boxed = self._box((last - first + 1) * own, own * ratio)
            starts = np.where(np.isnan(boxed), starts, (first + last) / 2 - (boxed - 1) / 2 * ratio)
            counts = np.where(np.isnan(boxed), counts, boxed)
        starts = np.where(ratio == 1, np.rint(starts), starts)
        # Slices are a bag: none is made beyond the scan.
        before = max(np.ceil((-0.5 - starts[0]) / ratio[0] - 1e-6), 0)
        counts[0] = min(np.floor((shape[0] - 0.5 - starts[0]) / ratio[0] + 1e-6) + 1, counts[0]) - before
        if mask is not None and self.n_slices is not None:
            kept = min(int(self.n_slices), counts[0])
            largest = np.rint((slices_around_largest_area(mask, 1)[0] - starts[0]) / ratio[0])
            before = np.clip(largest - (kept - 1) // 2, before, before + counts[0] - kept)
            counts[0] = kept
        starts[0] += before * ratio[0]
        if np.prod(counts) > MOST_VOXELS:
            raise ValueError(f"this view has {np.prod(counts):.3g} voxels; choose a smaller box or larger voxels.")
        lowest = min(low for low, _ in windows_of(self.window))
        part = _taken(scan, starts, counts, ratio, None if scan.unit in OUTSIDE else lowest)
        return part, None if mask is None else _taken(mask, starts, counts, ratio, 0)

    def _box(self, structure: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Voxels along the sides of the box around a structure, both in mm; NaN keeps the whole side."""
        if self.margin is None:
            return np.maximum(np.rint(_sides(self.crop, "crop") / steps), 1)
        slices, rows, columns = structure + 2 * _sides(self.margin, "margin", 0.0)
        square = np.maximum(rows, columns)
        return np.ceil(np.round(np.array([slices, square, square]) / steps, 6))

    def intensities(self, scan: Volume, mask: Volume | None = None) -> np.ndarray:
        """The windows of a scan, from 0 to 1.

        Parameters
        ----------
        scan : Volume
        mask : Volume, default=None
            On the voxels of the scan; read if ``masked``.

        Returns
        -------
        ndarray of shape (S, H, W), or (S, C, H, W) for several windows, float32

        Raises
        ------
        ValueError
            If nothing of the mask is left on these voxels.
        """
        array = apply_window(scan, self.window)
        if not self.masked or mask is None:
            return array
        if not mask.array.any():
            raise ValueError("nothing of the mask is left on these voxels; choose a smaller spacing.")
        return array * (mask.array if array.ndim == 3 else mask.array[:, None])


def _sides(value: Any, name: str, least: float | None = None) -> np.ndarray:
    """Millimetres along slices, rows and columns; NaN where there is None."""
    parts = list(value) if isinstance(value, list | tuple | np.ndarray) else [value] * 3
    numbers = [part for part in parts if part is not None]
    are_lengths = all(isinstance(part, Real) and not isinstance(part, bool) for part in numbers)
    if len(parts) != 3 or not are_lengths or not all(0 < part < np.inf or part == least for part in numbers):
        raise ValueError(
            f"{name} is one length in mm, or three (slices, rows, columns), {'above' if least is None else 'from'} 0; "
            f"got {value!r}."
        )
    return np.array([np.nan if part is None else float(part) for part in parts])


def _taken(volume: Volume, starts: np.ndarray, counts: np.ndarray, ratio: np.ndarray, fill: float | None) -> Volume:
    """Voxels of other places and sides; those of the volume itself, where they are."""
    if (ratio == 1).all():
        return part_of(volume, starts, counts, fill)
    affine = volume.affine.copy()
    affine[:3, :3] *= ratio
    affine[:3, 3] = volume.places(starts)
    return resample(volume, like=Volume(np.broadcast_to(False, counts.astype(int)), affine), fill=fill)
