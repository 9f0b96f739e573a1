"""Reading one patient's mask of one structure, on the pixels of its image."""

import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from mmdls.images._files import find_image, of_patient, slice_files
from mmdls.images._nifti import Grid, grid_of
from mmdls.images._reading import read_image
from mmdls.images._settings import MaskArguments, check_label

__all__ = ["read_mask"]

# Labels that were stored as fractions, or scaled, are whole numbers up to this.
_ROUNDING = 1e-3


def read_mask(
    cell: Any,
    patient: Any = None,
    like: tuple[int, ...] | None = None,
    *,
    image: Any = None,
    label: int | Sequence[int] | None = None,
    resample_mask: bool = False,
    allow_empty: bool = False,
) -> np.ndarray:
    """Read a patient's mask.

    Parameters
    ----------
    cell : path, sequence of paths, or ndarray
        As for :func:`read_image`: 0 outside and one other value inside, or several values, of which ``label`` selects.
    patient : default=None
        Id for messages.
    like : tuple of int, default=None
        Shape (S, H, W) of the image that the mask belongs to.
    image : path, sequence of paths, or ndarray, default=None
        The image that the mask belongs to; its pixels are not read. If both are NIfTI files, voxels of the same index
        must lie within a tenth of a voxel's shortest side, in any order of the axes. If both are folders, the numbers
        in the names of their slices are compared.
    label : int or sequence of int, default=None
        The values that are inside; all others are outside.
    resample_mask : bool, default=False
        Resample a NIfTI mask to the voxels of its NIfTI image, by the nearest neighbour.
    allow_empty : bool, default=False
        Accept a mask without any pixel inside, which means that the structure is absent.

    Returns
    -------
    ndarray of shape (S, H, W), bool

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As for :func:`read_image`, and if the mask does not fit its image, is empty, or holds several values while
        ``label`` is None.

    Warns
    -----
    UserWarning
        If a resampled mask reaches beyond its image, or the slices of mask and image have different numbers.

    Examples
    --------
    >>> import numpy as np
    >>> lobes = np.array([[[0, 1, 1, 2, 3]]])
    >>> read_mask(lobes, label=[1, 2])
    array([[[False,  True,  True,  True, False]]])
    """
    how: Any = {"label": label, "resample_mask": resample_mask, "allow_empty": allow_empty}
    return read_structure(cell, patient, like, image=image, **how)


def read_structure(
    cell: Any,
    patient: Any = None,
    like: tuple[int, ...] | None = None,
    *,
    image: Any = None,
    label: int | Sequence[int] | None = None,
    resample_mask: bool = False,
    allow_empty: bool = False,
    arguments: MaskArguments = MaskArguments(),
) -> np.ndarray:
    """As :func:`read_mask`; messages name the user's own arguments."""
    of = of_patient(patient)
    mask = read_image(cell, patient)
    inside = choose(mask, label, of, arguments)
    if not (allow_empty or inside.any()):
        which = "" if label is None else f" of label {label}; it holds {np.unique(mask)[:10].tolist()}"
        raise ValueError(f"the mask{of} is empty: no pixel is inside{which}. Use None if there is no mask.")
    if isinstance(image, np.ndarray) and like is None:
        like = image.shape if image.ndim == 3 else (1, *image.shape)
    grid, image_grid = _grid(cell, patient), _grid(image, patient)
    if grid is not None and image_grid is not None:
        inside = _on_grid(inside, grid, image_grid, of=of, resample_mask=resample_mask, arguments=arguments)
    elif like is not None and mask.shape != tuple(like):
        raise ValueError(
            f"the mask{of} has shape {mask.shape} and its image {tuple(like)}; both need the same slices and pixels."
        )
    else:
        _compare_numbers(cell, image, patient)
    return inside


def choose(
    mask: np.ndarray, label: Any, of: str, arguments: MaskArguments = MaskArguments(), own: bool = False
) -> np.ndarray:
    """The pixels of one structure, bool; ``own`` gives the memory of the mask away, which is used where it suffices."""
    check_label(label, arguments.label)
    if label is None and mask.dtype == bool:
        return mask
    # Slice by slice, which takes no copies of the whole.
    is_rounded = mask.dtype.kind == "f" and all((np.abs(part - np.rint(part)) < _ROUNDING).all() for part in mask)
    values = np.rint if is_rounded else np.asarray
    if label is None:
        lowest, label = values(mask.min(initial=0)), values(mask.max(initial=0))
        if lowest < 0 or not all(_among(values(part), [0, label]).all() for part in mask):
            held = np.unique(values(mask))
            more = f" and {len(held) - 10} more" if len(held) > 10 else ""
            raise ValueError(
                f"the mask{of} holds the values {held[:10].tolist()}{more}; expected 0 outside and one other value "
                f"inside. Choose one label or several, for example {arguments.label}=1."
            )
        label = label if label > 0 else []
    inside = mask.view(bool) if own and mask.itemsize == 1 else np.empty(mask.shape, dtype=bool)
    for part, chosen in zip(mask, inside, strict=True):
        chosen[...] = _among(values(part), np.ravel(label))
    return inside


def _among(values: np.ndarray, labels: Sequence[Any] | np.ndarray) -> Any:
    """Where values are one of a few labels."""
    return np.logical_or.reduce([values == label for label in labels])


def _grid(cell: Any, patient: Any) -> Grid | None:
    """The positions of a NIfTI file's voxels; None for other images."""
    if not isinstance(cell, (str, PathLike)):
        return None
    path, kind, source = find_image(cell, patient)
    return grid_of(path, source) if kind == "nifti" else None


def _on_grid(
    inside: np.ndarray, mask: Grid, image: Grid, *, of: str, resample_mask: bool, arguments: MaskArguments
) -> np.ndarray:
    """A mask on the voxels of its image."""
    if mask.is_known != image.is_known:
        lacking = "image" if mask.is_known else "mask"
        raise ValueError(
            f"the {lacking}{of} has no orientation codes (sform_code = qform_code = 0), so it is not known whether "
            "mask and image lie at the same place. If they have the same voxels, write both with one affine, for "
            "example nibabel.Nifti1Image(mask.dataobj, image.affine)."
        )
    if image.is_same(mask):
        return inside
    if not resample_mask:
        shapes = f"has shape {mask.shape} and its image {image.shape}"
        if mask.shape == image.shape:
            shapes = f"lies elsewhere than its image: voxels of the same index are up to {image.distance(mask):.1f} mm"
            shapes += " apart"
        raise ValueError(
            f"the mask{of} {shapes}; both need the same slices and pixels. Voxels are {_millimetres(mask)} in the mask "
            f"and {_millimetres(image)} in the image, the first ones at {_place(mask)} and {_place(image)}. Give the "
            f"mask of this image, or pass {arguments.resample}=True to bring it to the image's voxels."
        )
    turn = np.linalg.inv(image.affine) @ mask.affine
    places = np.argwhere(inside) @ turn[:3, :3].T + turn[:3, 3]
    beyond = ((places < -0.5) | (places > np.array(image.shape) - 0.5)).any(axis=1).sum()
    back = np.linalg.inv(turn)
    # "grid-constant" includes the outer half of the border voxels, which "constant" would cut off.
    moved = ndimage.affine_transform(
        inside.astype(np.uint8), back[:3, :3], back[:3, 3], image.shape, order=0, mode="grid-constant", cval=0
    ).astype(bool)
    if inside.any() and not moved.any():
        raise ValueError(
            f"the mask{of} has nothing inside on the voxels of its image, {beyond} of its {len(places)} voxels lie "
            "beyond it; give the mask of this image."
        )
    if beyond:
        warnings.warn(
            f"{beyond} of {len(places)} voxels of the mask{of} lie beyond its image and are left out.", stacklevel=3
        )
    return moved


def _millimetres(grid: Grid) -> str:
    return " x ".join(f"{side:.3g}" for side in grid.spacing) + " mm"


def _place(grid: Grid) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in grid.affine[:3, 3]) + ")"


def _compare_numbers(cell: Any, image: Any, patient: Any) -> None:
    """Warn if the slices of a mask and of its image have different numbers."""
    numbers = [_numbers(part, patient) for part in (cell, image)]
    if all(numbers) and numbers[0] != numbers[1]:
        warnings.warn(
            f"the slices of the mask{of_patient(patient)} are numbered {_brief(numbers[0])} and those of its image "
            f"{_brief(numbers[1])}; they are laid over one another in their order. Check that they belong together.",
            stacklevel=4,
        )


def _numbers(cell: Any, patient: Any) -> list[int]:
    """The last number in the name of each slice; empty if one has none, or the cell is no folder of slices."""
    if isinstance(cell, (list, tuple)):
        names = [Path(part).stem for part in cell]
    elif isinstance(cell, (str, PathLike)):
        path, kind, source = find_image(cell, patient)
        names = [file.stem for file in slice_files(path, source)] if kind == "folder" else []
    else:
        names = []
    found = [re.findall(r"\d+", name) for name in names]
    return [int(parts[-1]) for parts in found] if all(found) else []


def _brief(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:4])) + (", ..." if len(numbers) > 4 else "")
