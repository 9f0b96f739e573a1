"""Weights of a backbone from a file."""

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load
from torch import nn

from mmdls.modules.pretrained import load_weights

__all__ = ["WeightsOrigin", "start_from_file"]


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights that training started from come from.

    Parameters
    ----------
    path : str
        As it was given.
    sha256 : str
        Of the file.
    used : dict of str to str
        The tensors of the backbone, and the names in the file of what they got.
    unused : tuple of str
        Names in the file for which the backbone has no place.
    """

    path: str
    sha256: str
    used: dict[str, str]
    unused: tuple[str, ...]


def start_from_file(backbone: nn.Module, path: str | PathLike, parameter: str) -> WeightsOrigin:
    """Load the weights of a backbone; nothing in the file is executed.

    Parameters
    ----------
    backbone : nn.Module
    path : path-like
        A file of safetensors (``.safetensors``), or a state dict as ``torch.save`` writes it.
    parameter : str
        Where the path was given, for the messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of weights, or they do not fit.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}; correct {parameter}, or use None.")
    try:
        if file.suffix == ".safetensors":
            weights = load(file.read_bytes())
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file may raise anything
        said = str(error).partition("\n")[0]
        if not said or isinstance(error, UnpicklingError):  # which advises to load the file without this protection
            said = type(error).__name__
        raise ValueError(
            f"{str(path)!r} cannot be read as weights: it must hold tensors only, as safetensors or "
            f"torch.save(network.state_dict(), path) write them ({said})."
        ) from error
    if not isinstance(weights, dict):
        raise ValueError(f"{str(path)!r} must hold a state dict; got {type(weights).__name__}.")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    used, unused = load_weights(backbone, weights)
    return WeightsOrigin(str(path), digest, used, tuple(unused))
