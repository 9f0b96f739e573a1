"""Passes over a cohort without training: predictions, embeddings, features of items that do not train."""

from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from mmdls.encoders import BagData
from mmdls.modules import BagNet, Ensemble, LinearPart, MultimodalNet, Outputs
from mmdls.training._compute import Compute, channels_last, within_memory
from mmdls.training._inputs import Inputs
from mmdls.training._threads import threads_of_torch
from mmdls.training._two_pass import encode_rows, item_features, pack, project_rows

__all__ = ["embed_patients", "forward_cohort", "freeze", "ready_to_predict", "standardize_features"]


def forward_cohort(
    ensemble: Ensemble,
    inputs: Inputs | Sequence[Inputs],
    compute: Compute,
    n_patients: int = 256,
    *,
    attention: bool = False,
) -> Outputs:
    """Outputs for every patient, by an ensemble whose networks are :func:`ready_to_predict`.

    Parameters
    ----------
    ensemble : Ensemble
    inputs : Inputs, or sequence of Inputs
        The same patients for all members, or for each as it reads them.
    compute : Compute
    n_patients : int, default=256
        Patients at a time.
    attention : bool, default=False
        Whether weights of modalities and slices are asked for, where fusion and poolings compute them.

    Returns
    -------
    Outputs
        On the CPU, float64.
    """
    _place(ensemble, compute.torch_device)
    each = [inputs] * len(ensemble.members) if isinstance(inputs, Inputs) else list(inputs)
    found: list[Outputs] = []

    def again(smaller: Compute) -> None:
        nonlocal compute
        compute = smaller

    with torch.inference_mode(), threads_of_torch(1):
        for rows in torch.arange(len(each[0])).split(n_patients):
            linear = _linear_predictions(ensemble.linear, each[0], rows, compute.torch_device)
            outputs = []
            for network, own in zip(ensemble.networks, each, strict=True):
                forward = partial(_forward, network, own, rows, attention)
                outputs.append(within_memory(compute, forward, again))
            found.append(outputs[0] if len(outputs) == 1 and not linear else ensemble.combine(outputs, linear))
    return Outputs.join(found)


def _linear_predictions(
    linear: LinearPart | None, inputs: Inputs, rows: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Parameters (B, n_members, P) of every task for some patients by the linear part; nothing without one."""
    if linear is None:
        return {}
    tables, present = inputs.linear_tables(rows)
    return linear(linear.columns(tables, present).to(device))


def _place(network: nn.Module, device: torch.device) -> None:
    """Put a network on a device, in evaluation; one that is there already is not moved, which would take longer."""
    if not _is_placed(network, device):
        network.to(device).eval()


def _is_placed(network: nn.Module, device: torch.device) -> bool:
    """Whether a network and its parts are on a device, in evaluation; torch's own walks take several milliseconds."""
    waiting: list[nn.Module | None] = [network]
    while waiting:
        part = waiting.pop()
        if part is None:
            continue
        if part.training:
            return False
        for tensor in chain(part._parameters.values(), part._buffers.values()):
            if tensor is not None and tensor.device != device:
                return False
        waiting += part._modules.values()
    return True


def _forward(network: MultimodalNet, inputs: Inputs, rows: Tensor, attention: bool, compute: Compute) -> Outputs:
    packed = {
        name: tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch)
        for name, batch in pack(network, inputs, rows, compute).items()
    }
    present = inputs.present[rows].to(compute.torch_device)
    outputs = network(packed, present)
    if not attention:
        return outputs
    if hasattr(network.fusion, "attention"):
        outputs.attention.modalities = network.fusion.attention(
            outputs.embeddings, inputs.measured[rows].to(compute.torch_device)
        )
    for name, encoder in network.encoders.items():
        weights = encoder.attention(*packed[name]) if isinstance(encoder, BagNet) else None
        if weights is not None:
            outputs.attention.items[name] = weights
    return outputs


def embed_patients(encoder: BagNet, data: BagData, compute: Compute, n_patients: int = 256) -> Tensor:
    """Embeddings (n, D) of all patients, on the CPU, by a network whose pooling is in double precision."""
    encoder.to(compute.torch_device).eval()
    features = item_features(encoder, data, compute) if encoder.costly_features else None
    with torch.inference_mode():
        embeddings = []
        for rows in torch.arange(len(data)).split(n_patients):
            if features is None:
                encode = partial(encode_rows, encoder, data, rows)
                items, counts = within_memory(compute, encode)
            else:
                items, counts = project_rows(encoder, data, rows, features, compute)
            embeddings.append(encoder.pool(items.double(), counts).cpu())
        return torch.cat(embeddings)


def ready_to_predict(network: MultimodalNet) -> MultimodalNet:
    """Convert everything but the networks of single items to double precision.

    In single precision the last digits of a matrix product depend on the number of rows. In double precision a patient
    gets the same prediction alone as among others.
    """
    channels_last(network.double().eval())
    for encoder in network.encoders.values():
        if isinstance(encoder, BagNet):
            encoder.backbone.float()
            encoder.projection.float()
    return network


def freeze(encoder: BagNet, data: BagData, rows: np.ndarray, compute: Compute, *, standardize: bool = False) -> Tensor:
    """Encode all items once, and freeze the encoder's backbone and projection.

    Parameters
    ----------
    rows : ndarray of int
        The training rows, for the standardisation of features.
    standardize : bool, default=False
        As in :func:`standardize_features`.

    Returns
    -------
    Tensor of shape (n_items, D)
        Item embeddings, on the CPU.
    """
    encoder.to(compute.torch_device).eval()
    features = item_features(encoder, data, compute)
    index, _ = data.index_of(rows)
    if standardize and len(index):
        encoder.standardize_features(features[torch.as_tensor(_evenly(index))].to(compute.torch_device))
    encoder.backbone.requires_grad_(False)
    encoder.projection.requires_grad_(False)
    with torch.no_grad():
        return encoder.project(features.to(compute.torch_device)).cpu()


def standardize_features(encoder: BagNet, data: BagData, rows: np.ndarray, compute: Compute) -> None:
    """Standardise the features of a new network by up to 2,048 items of the training rows."""
    index, _ = data.index_of(rows)
    if not len(index):
        return
    index = _evenly(index)
    encoder.to(compute.torch_device)

    def features(compute: Compute) -> Tensor:
        parts = compute.micro_batches(encoder, data, len(index))
        return torch.cat([compute.features(encoder, data, index[part]) for part in parts])

    with torch.no_grad():
        encoder.standardize_features(within_memory(compute, features))


def _evenly(index: np.ndarray, n: int = 2048) -> np.ndarray:
    """At most n entries of an index, evenly spaced."""
    return index[np.unique(np.linspace(0, len(index) - 1, n).astype(int))]
