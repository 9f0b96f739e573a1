"""Numbers of arrays and tensors as safetensors."""

from collections.abc import Mapping
from typing import Any

import safetensors.numpy
import safetensors.torch

__all__ = ["read_arrays", "read_tensors", "write_arrays", "write_tensors"]


def write_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Arrays {name: ndarray} as bytes."""
    return safetensors.numpy.save(dict(arrays))


def read_arrays(data: bytes) -> dict[str, Any]:
    """Arrays of bytes, of which each may be written to."""
    return {
        name: array if array.flags.writeable else array.copy() for name, array in safetensors.numpy.load(data).items()
    }


def write_tensors(tensors: Mapping[str, Any]) -> bytes:
    """Tensors {name: Tensor} as bytes."""
    return safetensors.torch.save(dict(tensors))


def read_tensors(data: bytes) -> dict[str, Any]:
    """Tensors of bytes, each in memory of its own: where numbers start decides on the last digit of their products."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}
