"""Scans: volumes with their geometry in millimetres and their unit."""

from mmdls.scans._masks import read_mask
from mmdls.scans._reading import read_scan
from mmdls.scans._resampling import resample
from mmdls.scans._scan_view import ScanView
from mmdls.scans._suv import suv_factor
from mmdls.scans._views import WINDOWS, apply_window, crop_mm, slices_around_largest_area
from mmdls.scans._volume import Volume, same_geometry
from mmdls.scans._writing import write_nifti, write_segmentation

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
