"""Encoding the items of bags, such as slices, and back-propagating through them in the memory of one micro-batch.

Training cuts the computation at the item embeddings:

1. All items of the batch are encoded without gradients, one micro-batch at a time.
2. Pooling, fusion, heads and loss see the whole batch and give the gradient of every item embedding.
3. The items are encoded once more, one micro-batch at a time, and these gradients are back-propagated.

The result is the exact gradient of the whole batch, so the risk set of a Cox loss may be the whole cohort. Graphs of
the first pass are kept as far as a fixed memory budget allows, so that small items are encoded only once.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmdls.encoders import BagData
from mmdls.modules import BagNet, MultimodalNet
from mmdls.training._compute import Compute, within_memory
from mmdls.training._inputs import Inputs
from mmdls.training._ranks import random_state, set_random_state

__all__ = ["encode_rows", "item_features", "pack", "project_rows"]


@dataclass
class _Replay:
    """What the second pass needs: for each micro-batch its graph, or the random state to compute the graph again."""

    encoder: BagNet
    data: BagData
    index: np.ndarray
    items: Tensor
    micro_batches: list[slice]
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]]

    def backward(self, compute: Compute) -> None:
        """Back-propagate the gradients of the embeddings, encoding again where no graph was kept."""
        if self.items.grad is None:
            return
        for part, first in zip(self.micro_batches, self.first_pass, strict=True):
            if isinstance(first, Tensor):
                embeddings = first
            else:
                set_random_state(first, compute.torch_device)
                embeddings = compute.encode(self.encoder, self.data, self.index[part])
            with compute.threads():
                embeddings.backward(self.items.grad[part])


def pack(
    network: MultimodalNet,
    inputs: Inputs,
    rows: Tensor,
    compute: Compute,
    replays: list[_Replay] | None = None,
    names: Collection[str] | None = None,
) -> dict[str, tuple[Tensor, ...]]:
    """What the network reads of some patients, on the device; the items of bags are encoded in micro-batches.

    Parameters
    ----------
    rows : Tensor of shape (B,)
    replays : list, default=None
        If given, item embeddings become leaves that collect gradients, and what the second pass needs is appended.
    names : collection of str, default=None
        Of these modalities only.

    Returns
    -------
    dict of str to tuple of Tensor
        Of a bag, item embeddings (K, D) without gradients and counts (B,); see :meth:`MultimodalNet.embed`.
    """
    packed: dict[str, tuple[Tensor, ...]] = {}
    for name, data in inputs.data.items():
        if names is not None and name not in names:
            continue
        encoder = network.encoders[name]
        if not (isinstance(encoder, BagNet) and isinstance(data, BagData)):
            packed[name] = tuple(tensor.to(compute.torch_device) for tensor in data.take(rows.numpy()))
        elif name in inputs.frozen:
            index, counts = data.index_of(rows.numpy())
            items = inputs.frozen[name][torch.as_tensor(index)].to(compute.torch_device)
            packed[name] = items, torch.as_tensor(counts, device=compute.torch_device)
        elif encoder.has_fixed_features:
            packed[name] = project_rows(encoder, data, rows, item_features(encoder, data, compute), compute)
        else:
            packed[name] = encode_rows(encoder, data, rows, compute, replays)
    return packed


def encode_rows(
    encoder: BagNet, data: BagData, rows: Tensor, compute: Compute, replays: list[_Replay] | None = None
) -> tuple[Tensor, Tensor]:
    """Item embeddings (K, D) of some patients and their counts (B,); see :func:`pack`."""
    index, counts = data.index_of(rows.numpy())
    items = torch.zeros(len(index), encoder.out_features, device=compute.torch_device)
    own = compute.ranks.own_part(len(index))
    micro_batches = compute.micro_batches(encoder, data, own.stop, own.start)
    bytes_each = used = 0
    first_pass: list[Tensor | tuple[Tensor, Tensor | None]] = []
    if replays is not None:
        _, bytes_each = compute.item_bytes(encoder, data)
    with compute.ranks.own_random_numbers():
        for part in micro_batches:
            keep = replays is not None and used + (part.stop - part.start) * bytes_each <= compute.kept_bytes
            state = random_state(compute.torch_device) if replays is not None and not keep else None
            with torch.set_grad_enabled(keep):
                embeddings = compute.encode(encoder, data, index[part])
            items[part] = embeddings.detach()
            if keep:
                used += (part.stop - part.start) * bytes_each
                first_pass.append(embeddings)
            elif state is not None:
                first_pass.append(state)
    compute.ranks.sum(items)
    if replays is not None:
        replays.append(_Replay(encoder, data, index, items.requires_grad_(), micro_batches, first_pass))
    return items, torch.as_tensor(counts, device=compute.torch_device)


def item_features(encoder: BagNet, data: BagData, compute: Compute) -> Tensor:
    """Features (n_items, C) of all items, on the CPU, cached by the data.

    Only for a backbone whose weights no longer change.
    """

    def make(compute: Compute) -> np.ndarray:
        index = np.arange(data.n_items)
        features = torch.empty(len(index), encoder.projection.in_features)
        with torch.inference_mode():
            for part in compute.micro_batches(encoder, data, len(index)):
                features[part] = compute.features(encoder, data, index[part]).cpu()
        return features.numpy()

    digest = hashlib.blake2b(digest_size=16)
    cls = type(encoder.backbone)
    # Precision and device are part of the key, since features computed with others differ by rounding.
    facts = (cls.__module__, cls.__qualname__, repr(encoder.backbone), encoder.extra_repr(), data.item_shape)
    digest.update(repr((*facts, compute.precision, compute.torch_device.type)).encode())
    for name, tensor in encoder.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.from_numpy(data.cached(f"features-{digest.hexdigest()}", lambda: within_memory(compute, make)))


def project_rows(
    encoder: BagNet, data: BagData, rows: Tensor, features: Tensor, compute: Compute
) -> tuple[Tensor, Tensor]:
    """Item embeddings (K, D) of some patients from features of all items, and their counts (B,)."""
    index, counts = data.index_of(rows.numpy())
    items = encoder.project(features[torch.as_tensor(index)].to(compute.torch_device))
    return items, torch.as_tensor(counts, device=compute.torch_device)
