"""Probabilities of masks from a trained network, at the size of the image."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from mmdls.modules.segmentation import STRUCTURES
from mmdls.training._compute import Compute
from mmdls.training._masks import with_context_slices

__all__ = ["mask_probabilities"]


def mask_probabilities(
    network: nn.Module,
    slices: Tensor,
    size: tuple[int, ...],
    *,
    context_slices: int,
    batch_size: int,
    test_time_augmentation: bool,
    compute: Compute,
    verbose: int,
) -> Iterator[np.ndarray]:
    """Probabilities of all structures in one patient's slices, a batch at a time.

    Parameters
    ----------
    network : torch.nn.Module
    slices : Tensor of shape (S, h, w), uint8
        At the size that the network sees.
    size : (int, int)
        Height H and width W of the result.
    context_slices, batch_size : int
    test_time_augmentation : bool
        Take the mean with the mirrored slice.
    compute : Compute
    verbose : int

    Yields
    ------
    ndarray of shape (s, K, H, W), float32
    """
    device = compute.torch_device
    network = network.to(device).eval()
    same = torch.zeros(len(slices), dtype=torch.int64)
    steps = range(0, len(slices), batch_size)
    bar = tqdm(total=len(slices), desc="slices", unit="slice", leave=False, disable=not verbose or len(steps) < 4)
    with bar:
        for start in steps:
            rows = torch.arange(start, min(start + batch_size, len(slices)))
            batch = with_context_slices(slices, same, rows, context_slices).to(device).float().div_(255)
            with torch.inference_mode(), compute.autocast():
                found = _sigmoids(network, batch)
                if test_time_augmentation:
                    found = (found + _sigmoids(network, batch.flip(-1)).flip(-1)) / 2
                # Interpolating logits, not probabilities, keeps the contour at probability 1/2 in place.
                logits = torch.logit(found, eps=1e-6)
                full = functional.interpolate(logits, size, mode="bilinear").sigmoid()
            bar.update(len(rows))
            yield full.cpu().numpy()


def _sigmoids(network: nn.Module, images: Tensor) -> Tensor:
    logits = network(images.contiguous(memory_format=torch.channels_last))
    return torch.cat([logits[name].float() for name in STRUCTURES], dim=1).sigmoid()
