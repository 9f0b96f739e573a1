"""The way the pixels go through a network.

Training cuts at the slice embeddings. All slices of the batch are encoded without gradients, a piece at a time;
fusion, heads and loss see the whole batch and give the gradient of every slice embedding; then the slices are encoded
once more, a piece at a time, and these gradients are passed on. The result is the exact gradient of the whole batch in
the memory of one piece, so the risk set of a Cox loss may be the whole cohort. Pieces whose graphs fit into a fixed
budget are kept from the first pass, so that small images are encoded once only.
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
    """What the second pass over the images needs: of each piece its first graph, or the random state to repeat it."""

    encoder: SliceNet
    store: SliceStore
    index: np.ndarray
    slices: Tensor
    pieces: list[slice]
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]]
    kept_bytes: int

    def backward(self, compute: Compute) -> None:
        """Pass the embeddings' gradients on, encoding again what was not kept."""
        if self.slices.grad is None:
            return
        for piece, first in zip(self.pieces, self.first_pass, strict=True):
            if isinstance(first, Tensor):
                embeddings = first
            else:
                set_random_state(first, compute.torch_device)
                embeddings = compute.encode(self.encoder, self.store, self.index[piece])
            embeddings.backward(self.slices.grad[piece])


def pack(
    network: MultimodalNet, inputs: Inputs, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Slice embeddings of some patients without gradients, cache-sized pieces at a time: no padding is encoded.

    Parameters
    ----------
    rows : Tensor of shape (B,)
    replays : list, default=None
        If given, the embeddings become leaves that collect gradients, and what is needed to pass these on is appended.

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
    share = compute.ranks.share(len(index))
    pieces = compute.pieces(encoder, store, share.stop, share.start)
    budget, bytes_each, used = 0, 0, 0
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]] = []
    if replays is not None:
        budget = compute.kept_bytes - sum(replay.kept_bytes for replay in replays)
        _, bytes_each = compute.slice_bytes(encoder, store)
    with compute.ranks.own_random_numbers():
        for piece in pieces:
            keep = replays is not None and used + (piece.stop - piece.start) * bytes_each <= budget
            state = random_state(compute.torch_device) if replays is not None and not keep else None
            with torch.set_grad_enabled(keep):
                embeddings = compute.encode(encoder, store, index[piece])
            slices[piece] = embeddings.detach()
            if keep:
                used += (piece.stop - piece.start) * bytes_each
                first_pass.append(embeddings)
            elif state is not None:
                first_pass.append(state)
    compute.ranks.sum(slices)
    if replays is not None:
        replays.append(_Replay(encoder, store, index, slices.requires_grad_(), pieces, first_pass, used))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def slice_features(encoder: SliceNet, store: SliceStore, compute: Compute) -> Tensor:
    """Features (K, C) of all slices of a store, on the CPU, kept beside the slices for the next time.

    Only for a backbone that does not train any more.
    """

    def make() -> np.ndarray:
        index = np.arange(len(store.data))
        features = torch.empty(len(index), encoder.projection.in_features)
        with torch.inference_mode():
            for piece in compute.pieces(encoder, store, len(index)):
                features[piece] = compute.features(encoder, store, index[piece]).cpu()
        return features.numpy()

    digest = hashlib.blake2b(digest_size=16)
    kind = type(encoder.backbone)
    # bf16 rounds, so does every device in its own way.
    facts = (kind.__module__, kind.__qualname__, repr(encoder.backbone), encoder.mean, encoder.std)
    digest.update(repr((*facts, compute.precision, compute.torch_device.type)).encode())
    for name, tensor in encoder.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.from_numpy(store.remember(f"features-{digest.hexdigest()}", make))


def _project_rows(
    encoder: SliceNet, store: SliceStore, rows: Tensor, features: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """Slice embeddings (K, D) of some patients from features of all slices, and their counts (B,)."""
    index, counts = store.slice_index(rows.numpy())
    slices = encoder.project(features[torch.as_tensor(index)].to(compute.torch_device))
    return slices, torch.as_tensor(counts, device=compute.torch_device)


def _is_frozen(encoder: SliceNet) -> bool:
    return not any(weight.requires_grad for weight in encoder.backbone.parameters())
