"""Images and masks of a table as labelled slices, and the choice of validation patients."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mmdls.images._files import check_places
from mmdls.images._hounsfield import check_chest
from mmdls.training._masks import LabelledSlices, resize

__all__ = ["hold_out", "read_labelled", "warn_of_absent"]


def read_labelled(
    X: pd.DataFrame,
    image_column: str,
    structures: Sequence[str],
    *,
    size: tuple[int, int],
    window: Callable[[np.ndarray], np.ndarray],
    read: Callable[..., tuple[np.ndarray, Mapping[str, np.ndarray], Any]],
    n_jobs: int | None,
    verbose: int,
) -> LabelledSlices:
    """All slices of patients who have an image and a mask.

    Parameters
    ----------
    X : pandas.DataFrame
        With the image's column, and the columns ``<structure>_mask`` that are known.
    image_column : str
    structures : sequence of K str
    size : (int, int)
        Height and width of the network's input.
    window : callable
        Converts an image to greys, uint8.
    read : callable
        ``(cell of the image, cells of the masks by structure, patient) -> (image, known masks by structure, ...)``.
    n_jobs : int or None
        Threads.
    verbose : int

    Returns
    -------
    LabelledSlices
    """
    cells = X.reindex(columns=[image_column, *(f"{name}_mask" for name in structures)])
    for name in structures:
        check_places(cells[f"{name}_mask"], cells.index, f"{name}_mask")

    def labelled(patient: Any, row: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        image, found, _ = read(row[0], dict(zip(structures, row[1:], strict=True)), patient)
        check_chest(image, patient)
        masks = torch.zeros(len(image), len(structures), *size, dtype=torch.uint8)
        for name, mask in found.items():
            masks[:, structures.index(name)] = resize(torch.as_tensor(mask).to(torch.uint8) * 255, size)
        return resize(torch.as_tensor(window(image)), size), masks, torch.tensor([name in found for name in structures])

    work = (joblib.delayed(labelled)(patient, row) for patient, *row in cells.itertuples())
    bar = tqdm(total=len(X), desc="reading images", unit="patient", disable=not verbose, leave=False)
    stacks = []
    with bar:
        for stack in joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(work):
            stacks.append(stack)
            bar.update()
    counts = torch.tensor([len(images) for images, _, _ in stacks])
    return LabelledSlices(
        images=torch.cat([images for images, _, _ in stacks]),
        masks=torch.cat([masks for _, masks, _ in stacks]),
        known=torch.stack([known for _, _, known in stacks]).repeat_interleave(counts, dim=0),
        patients=torch.arange(len(stacks)).repeat_interleave(counts),
    )


def warn_of_absent(slices: LabelledSlices, labels: Mapping[str, Any]) -> None:
    """Warn of structures whose known masks are all empty.

    Parameters
    ----------
    slices : LabelledSlices
    labels : dict of str to object
        The structures, in their order, with the labels that count as inside.
    """
    shown = slices.masks.flatten(2).amax(dim=2).amax(dim=0)
    for k, (name, label) in enumerate(labels.items()):
        if slices.known[:, k].any() and not shown[k]:
            warnings.warn(
                f"no {name}_mask has any pixel inside, with {name}_label={label!r}: only the absence of a {name} can "
                "be learned.",
                stacklevel=3,
            )


def hold_out(slices: LabelledSlices, fraction: float, rng: np.random.RandomState) -> np.ndarray:
    """Validation patients, chosen among those with the most known masks."""
    n_patients = int(slices.patients[-1]) + 1
    wanted = min(round(n_patients * fraction), n_patients - 1)
    if fraction > 0 and wanted == 0 and n_patients > 3:
        wanted = 1
    first = torch.searchsorted(slices.patients, torch.arange(n_patients))
    n_known = slices.known[first].sum(dim=1).numpy()
    order = np.lexsort((rng.permutation(n_patients), -n_known))
    # A random half of twice as many, so that not every patient with complete masks is taken from training.
    best = order[: max(2 * wanted, 1)]
    return rng.permutation(best)[:wanted]
