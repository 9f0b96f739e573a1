"""What a model sees of a patient's scan, in one part: voxels of a size, a box around a structure, slices, windows."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from mmdls.images import is_missing, read_image
from mmdls.images._files import of_patient
from mmdls.images._hounsfield import check_units, is_hounsfield
from mmdls.images._masks import read_structure
from mmdls.images._settings import MaskArguments
from mmdls.scans._cells import as_mask, as_volume, has_geometry, label_in
from mmdls.scans._cutting import cut, sides_of
from mmdls.scans._resampling import OUTSIDE, upright
from mmdls.scans._views import apply_window, check_count, windows_of
from mmdls.scans._volume import Volume

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
            sides_of(getattr(self, name), name, least)
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
        return self._read(image, mask, label=label, resample_mask=resample_mask, patient=patient)

    def _read(
        self,
        image: Any,
        mask: Any,
        *,
        label: Any,
        resample_mask: bool,
        patient: Any,
        arguments: MaskArguments = MaskArguments(),
    ) -> tuple[Volume, Volume | None]:
        """As :meth:`read`; messages name the user's own arguments."""
        of, windows = of_patient(patient), windows_of(self.window)
        in_hounsfield = isinstance(self.window, str) or any(map(is_hounsfield, windows))
        unit = self.unit or ("HU" if in_hounsfield else "")
        lacks_mask = is_missing(mask)
        if self.needs_mask and lacks_mask:
            raise ValueError(
                f"there is no mask{of}, which {self.needs_mask} of ScanView need; give the mask, or None as image."
            )
        how: dict[str, Any] = {"label": label_in(mask, label), "resample_mask": resample_mask, "arguments": arguments}
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
                array = read_structure(mask, patient, scan.shape, image=image, **how)
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
        lowest = min(low for low, _ in windows_of(self.window))
        fill = None if scan.unit in OUTSIDE else lowest
        how = {name: getattr(self, name) for name in ("spacing", "crop", "margin", "n_slices")}
        return cut(scan, mask, **how, fill=fill)

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
