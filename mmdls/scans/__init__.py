"""Scans: volumes with their geometry in millimetres and their unit.

:class:`ScanView` loads on first use: what reads scans need not wait for scikit-learn.
"""

from typing import TYPE_CHECKING, Any

from mmdls.scans._masks import read_mask
from mmdls.scans._reading import read_scan
from mmdls.scans._resampling import resample
from mmdls.scans._suv import suv_factor
from mmdls.scans._views import WINDOWS, apply_window, crop_mm, slices_around_largest_area
from mmdls.scans._volume import Volume, same_geometry
from mmdls.scans._writing import write_nifti, write_segmentation

if TYPE_CHECKING:
    from mmdls.scans._scan_view import ScanView as ScanView

__all__ = [
    "WINDOWS",
    "ScanView",
    "Volume",
    "apply_window",
    "crop_mm",
    "read_mask",
    "read_scan",
    "resample",
    "same_geometry",
    "slices_around_largest_area",
    "suv_factor",
    "write_nifti",
    "write_segmentation",
]


def __getattr__(name: str) -> Any:
    if name != "ScanView":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    from mmdls.scans._scan_view import ScanView

    return ScanView


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
