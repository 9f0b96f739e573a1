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

from mmdls.images import is_missing, read_image
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
    read_mask: Callable[..., np.ndarray],
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
    read_mask : callable
        ``(structure, cell, patient, cell of the image, image) -> mask``.
    n_jobs : int or None
        Threads.
    verbose : int

    Returns
    -------
    LabelledSlices
    """
    cells = X.reindex(columns=[image_column, *(f"{name}_mask" for name in structures)])

    def read(patient: Any, row: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        image = read_image(row[0], patient)
        check_chest(image, patient)
        known = torch.tensor([not is_missing(cell) for cell in row[1:]])
        masks = torch.zeros(len(image), len(structures), *size, dtype=torch.uint8)
        for k, (name, cell) in enumerate(zip(structures, row[1:], strict=True)):
            if known[k]:
                mask = read_mask(name, cell, patient, row[0], image)
                masks[:, k] = resize(torch.as_tensor(mask).to(torch.uint8) * 255, size)
        return resize(torch.as_tensor(window(image)), size), masks, known

    work = (joblib.delayed(read)(patient, row) for patient, *row in cells.itertuples())
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
