"""Passes over a cohort without training: predictions, embeddings, features of images that do not train."""

import numpy as np
import torch
from torch import Tensor

from mmdls.images import SliceStore
from mmdls.modules import MultimodalNet, Outputs, SliceNet
from mmdls.training._compute import Compute, channels_last
from mmdls.training._inputs import Inputs
from mmdls.training._two_pass import _project_rows, pack, slice_features

__all__ = ["embed_patients", "forward_cohort", "freeze", "ready_to_predict", "standardize_features"]


def forward_cohort(network: MultimodalNet, inputs: Inputs, compute: Compute, n_patients: int = 256) -> Outputs:
    """Outputs for every patient, by a network that is :func:`ready_to_predict`.

    Returns
    -------
    Outputs
        On the CPU, float64, with attention weights of modalities and slices where fusion and poolings compute them.
    """
    network.to(compute.torch_device).eval()
    found: list[Outputs] = []
    with torch.inference_mode():
        for rows in torch.arange(len(inputs)).split(n_patients):
            packed = pack(network, inputs, rows, compute)
            packed = {name: (slices.double(), counts) for name, (slices, counts) in packed.items()}
            tables = {name: table[rows].double().to(compute.torch_device) for name, table in inputs.tables.items()}
            present = inputs.present[rows].to(compute.torch_device)
            outputs = network(packed, tables, present)
            if hasattr(network.fusion, "attention"):
                outputs.modality_weights = network.fusion.attention(outputs.embeddings, present)
            outputs.slice_weights = {
                name: network.encoders[name].attention(*slices)
                for name, slices in packed.items()
                if hasattr(network.encoders[name].pooling, "attention")
            }
            found.append(outputs)
    return Outputs.join(found)


def embed_patients(encoder: SliceNet, store: SliceStore, compute: Compute, n_patients: int = 256) -> Tensor:
    """Embeddings (n, D) of all patients of a store, on the CPU."""
    encoder.to(compute.torch_device).eval()
    features = slice_features(encoder, store, compute)
    with torch.inference_mode():
        embeddings = []
        for rows in torch.arange(len(store)).split(n_patients):
            slices, counts = _project_rows(encoder, store, rows, features, compute)
            embeddings.append(encoder.pool(slices.double(), counts).cpu())
        return torch.cat(embeddings)


def ready_to_predict(network: MultimodalNet) -> MultimodalNet:
    """Convert everything behind the slice encoders to double precision.

    In single precision the last digits of a matrix product depend on the number of rows. In double precision a patient
    gets the same prediction alone as among others.
    """
    channels_last(network.double().eval())
    for encoder in network.encoders.values():
        if isinstance(encoder, SliceNet):
            encoder.backbone.float()
            encoder.projection.float()
    return network


def freeze(
    encoder: SliceNet, store: SliceStore, rows: np.ndarray, compute: Compute, *, standardize: bool = False
) -> Tensor:
    """Encode all slices of a store once, and freeze the encoder's backbone and projection.

    Parameters
    ----------
    rows : ndarray of int
        The training rows, for the standardisation of features.
    standardize : bool, default=False
        As in :func:`standardize_features`.

    Returns
    -------
    Tensor of shape (K, D)
        Slice embeddings, on the CPU.
    """
    encoder.to(compute.torch_device).eval()
    features = slice_features(encoder, store, compute)
    index, _ = store.slice_index(rows)
    if standardize and len(index):
        encoder.standardize_features(features[torch.as_tensor(_evenly(index))].to(compute.torch_device))
    encoder.backbone.requires_grad_(False)
    encoder.projection.requires_grad_(False)
    with torch.no_grad():
        return encoder.project(features.to(compute.torch_device)).cpu()


def standardize_features(encoder: SliceNet, store: SliceStore, rows: np.ndarray, compute: Compute) -> None:
    """Standardise the features of a new network by up to 2,048 slices of the training rows."""
    index, _ = store.slice_index(rows)
    if not len(index):
        return
    index = _evenly(index)
    encoder.to(compute.torch_device)
    with torch.no_grad():
        parts = compute.micro_batches(encoder, store, len(index))
        encoder.standardize_features(torch.cat([compute.features(encoder, store, index[part]) for part in parts]))


def _evenly(index: np.ndarray, n: int = 2048) -> np.ndarray:
    """At most n entries of an index, evenly spaced."""
    return index[np.unique(np.linspace(0, len(index) - 1, n).astype(int))]
