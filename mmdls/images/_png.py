"""PNG slices: grey values as stored; all slices of an image have one size and one bit depth."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["pillow", "read_png", "read_slices"]

_FORMATS = {".tif": "TIFF", ".tiff": "TIFF"}
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")


def pillow() -> Any:
    """Pillow's module ``Image``, an optional dependency."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('PNG slices need Pillow; install it with: pip install "mmdls[imaging]"') from error
    return Image


def read_slices(files: Sequence[Path], source: str) -> np.ndarray:
    """PNG files, in their order, as one image.

    Parameters
    ----------
    files : sequence of Path
    source : str
        Their name for messages.

    Returns
    -------
    ndarray of shape (S, H, W)

    Raises
    ------
    ValueError
        If one is damaged or no grey PNG, or if they differ in size or bit depth.
    """
    slices = [read_png(file, source) for file in files]
    shapes = {image.shape for image in slices}
    if len(shapes) > 1:
        raise ValueError(f"the slices in {source} have different sizes {sorted(shapes)}; one image has one size.")
    examples = {image.dtype.name: file.name for file, image in zip(files, slices, strict=True)}
    if len(examples) > 1:
        raise ValueError(
            f"the slices in {source} have different bit depths, for example {examples}: their greys have no common "
            "scale. Write all of them with one."
        )
    return np.stack(slices)


def read_png(path: Path, source: str) -> np.ndarray:
    """The grey values (H, W) of a PNG file as stored.

    Parameters
    ----------
    path : Path
    source : str
        Name of the image that it belongs to, for messages.

    Returns
    -------
    ndarray of shape (H, W)

    Raises
    ------
    ValueError
        If it is damaged, no PNG, animated, or in colour.
    """
    image_module = pillow()
    place = f"{path.name!r} in {source}"
    try:
        # Pillow detects formats by a file's first bytes, and some of its readers start programs.
        with image_module.open(path, formats=(_FORMATS.get(path.suffix.lower(), "PNG"),)) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            pixels = np.asarray(image) if mode in _GREY_MODES and frames == 1 else None
    except image_module.UnidentifiedImageError as error:
        what = "is empty (0 bytes)" if path.stat().st_size == 0 else "is no image"
        raise ValueError(f"{place} {what}; remove it or replace it by a PNG file.") from error
    except image_module.DecompressionBombError as error:
        raise ValueError(f"{place} claims more pixels than a slice can have ({error}); replace it.") from error
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error) as error:
        raise ValueError(f"{place} is damaged ({error}); replace it.") from error
    if pixels is None:
        what = f"is a colour image (mode {mode})" if frames == 1 else f"is animated ({frames} frames)"
        raise ValueError(f"{place} {what}; slices must be grey. Convert it to 8 or 16 bit grey.")
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
