"""Encoding the slices of a batch, and back-propagating through them in the memory of one micro-batch.

Training cuts the computation at the slice embeddings:

1. All slices of the batch are encoded without gradients, one micro-batch at a time.
2. Fusion, heads and loss see the whole batch and give the gradient of every slice embedding.
3. The slices are encoded once more, one micro-batch at a time, and these gradients are back-propagated.

The result is the exact gradient of the whole batch, so the risk set of a Cox loss may be the whole cohort. Graphs of
the first pass are kept as far as a fixed memory budget allows, so that small images are encoded only once.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmdls.images import SliceStore
from mmdls.modules import MultimodalNet, SliceNet
from mmdls.training._compute import Compute
from mmdls.training._inputs import Inputs
from mmdls.training._ranks import random_state, set_random_state

__all__ = ["encode_rows", "pack", "slice_features"]


@dataclass
class _Replay:
    """What the second pass needs: for each micro-batch its graph, or the random state to compute the graph again."""

    encoder: SliceNet
    store: SliceStore
    index: np.ndarray
    slices: Tensor
    micro_batches: list[slice]
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]]
    kept_bytes: int

    def backward(self, compute: Compute) -> None:
        """Back-propagate the gradients of the embeddings, encoding again where no graph was kept."""
        if self.slices.grad is None:
            return
        for part, first in zip(self.micro_batches, self.first_pass, strict=True):
            if isinstance(first, Tensor):
                embeddings = first
            else:
                set_random_state(first, compute.torch_device)
                embeddings = compute.encode(self.encoder, self.store, self.index[part])
            embeddings.backward(self.slices.grad[part])


def pack(
    network: MultimodalNet, inputs: Inputs, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Slice embeddings of some patients without gradients, one micro-batch at a time; only real slices are encoded.

    Parameters
    ----------
    rows : Tensor of shape (B,)
    replays : list, default=None
        If given, the embeddings become leaves that collect gradients, and what the second pass needs is appended.

    Returns
    -------
    dict of str to (Tensor of shape (K, D), counts of shape (B,))
    """
    packed = {}
    for name, store in inputs.stores.items():
        encoder = network.encoders[name]
        if name in inputs.frozen:
            index, counts = store.slice_index(rows.numpy())
            slices = inputs.frozen[name][torch.as_tensor(index)].to(compute.torch_device)
            packed[name] = slices, torch.as_tensor(counts, device=compute.torch_device)
        elif _is_frozen(encoder):
            packed[name] = _project_rows(encoder, store, rows, slice_features(encoder, store, compute), compute)
        else:
            packed[name] = encode_rows(encoder, store, rows, compute, replays)
    return packed


def encode_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients and their counts (B,); see :func:`pack`."""
    index, counts = store.slice_index(rows.numpy())
    slices = torch.zeros(len(index), encoder.out_features, device=compute.torch_device)
    own = compute.ranks.own_part(len(index))
    micro_batches = compute.micro_batches(encoder, store, own.stop, own.start)
    budget, bytes_each, used = 0, 0, 0
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]] = []
    if replays is not None:
        budget = compute.kept_bytes - sum(replay.kept_bytes for replay in replays)
        _, bytes_each = compute.slice_bytes(encoder, store)
    with compute.ranks.own_random_numbers():
        for part in micro_batches:
            keep = replays is not None and used + (part.stop - part.start) * bytes_each <= budget
            state = random_state(compute.torch_device) if replays is not None and not keep else None
            with torch.set_grad_enabled(keep):
                embeddings = compute.encode(encoder, store, index[part])
            slices[part] = embeddings.detach()
            if keep:
                used += (part.stop - part.start) * bytes_each
                first_pass.append(embeddings)
            elif state is not None:
                first_pass.append(state)
    compute.ranks.sum(slices)
    if replays is not None:
        replays.append(_Replay(encoder, store, index, slices.requires_grad_(), micro_batches, first_pass, used))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def slice_features(encoder: SliceNet, store: SliceStore, compute: Compute) -> Tensor:
    """Features (K, C) of all slices of a store, on the CPU, cached in the store.

    Only for a backbone whose weights no longer change.
    """

    def make() -> np.ndarray:
        index = np.arange(len(store.data))
        features = torch.empty(len(index), encoder.projection.in_features)
        with torch.inference_mode():
            for part in compute.micro_batches(encoder, store, len(index)):
                features[part] = compute.features(encoder, store, index[part]).cpu()
        return features.numpy()

    digest = hashlib.blake2b(digest_size=16)
    cls = type(encoder.backbone)
    # Precision and device are part of the key, since features computed with others differ by rounding.
    facts = (cls.__module__, cls.__qualname__, repr(encoder.backbone), encoder.mean, encoder.std)
    digest.update(repr((*facts, compute.precision, compute.torch_device.type)).encode())
    for name, tensor in encoder.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.from_numpy(store.cached(f"features-{digest.hexdigest()}", make))


def _project_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, features: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients from features of all slices, and their counts (B,)."""
    index, counts = store.slice_index(rows.numpy())
    slices = encoder.project(features[torch.as_tensor(index)].to(compute.torch_device))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def _is_frozen(encoder: SliceNet) -> bool:
    return not any(weight.requires_grad for weight in encoder.backbone.parameters())
