"""From files to arrays: reading images and masks, and one contiguous store of all slices of a cohort."""

from mmdls.images._cutting import box_around
from mmdls.images._fingerprint import fingerprint, fingerprint_columns
from mmdls.images._masks import read_mask
from mmdls.images._nifti import voxel_spacing, write_mask
from mmdls.images._reading import is_missing, read_image
from mmdls.images._store import SliceStore

__all__ = [
    "SliceStore",
    "box_around",
    "fingerprint",
    "fingerprint_columns",
    "is_missing",
    "read_image",
    "read_mask",
    "voxel_spacing",
    "write_mask",
]
