"""Weights learned elsewhere, brought into the backbones."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmdls.modules.backbones._normalisation import FrozenNorm
from mmdls.modules.backbones._resnet import PlainShortcut, Shortcut

__all__ = ["load_weights"]

# Under these keys a file may hold the weights beside other things, such as the epoch.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")


def load_weights(backbone: nn.Module, weights: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Copy weights from a state dict, under their usual names, into a backbone.

    Names may stand behind any common prefix (``module.``, ``backbone.``, ``encoder.`` ...), layers may be numbered as
    in a plain sequence (RadImageNet), and the weights may stand in a container (MedicalNet's ``state_dict``). Where
    there are running statistics of batch normalisation, the layer becomes one that uses them as they are, frozen, so
    that an image's features do not depend on the images beside it. Otherwise group normalisation takes scale and shift.

    A first convolution that sees another number of channels gets the mean over those of the file, scaled so that equal
    channels give the same response. A kernel of volumes that is flat along an axis gets the sum over that axis, so that
    what does not vary along it gives the same response. Where the file has no weights for the shortcuts of a ResNet
    (MedicalNet of 18 and 34 layers), they become ones without weights.

    Parameters
    ----------
    backbone : nn.Module
        Changed in place.
    weights : dict of str to Tensor

    Returns
    -------
    used : dict of str to str
        The backbone's tensors, and the names in ``weights`` of what they got.
    unused : list of str
        Names in ``weights`` that the backbone has no place for, such as those of a classifier.

    Raises
    ------
    ValueError
        If names or shapes do not fit, the weights are those of a deeper network, or what the backbone takes is not
        finite.
    """
    tensors = _tensors(weights)
    names = _naming(backbone, tensors)
    for path, module in list(backbone.named_modules()):
        if isinstance(module, nn.GroupNorm) and names(f"{path}.running_mean") in tensors:
            parent, _, key = path.rpartition(".")
            setattr(backbone.get_submodule(parent), key, FrozenNorm(module.num_channels, module.eps))
        if isinstance(module, Shortcut) and names(f"{path}.0.weight") not in tensors:
            parent, _, key = path.rpartition(".")
            setattr(backbone.get_submodule(parent), key, PlainShortcut(module))
    own = backbone.state_dict()
    used, loaded = {}, {}
    first = next((name for name, value in own.items() if value.ndim > 2), None)
    for name, value in own.items():
        theirs = names(name)
        if theirs not in tensors:
            raise ValueError(
                f"the weights lack {theirs!r}, which {type(backbone).__name__} needs; they have "
                f"{list(tensors)[:5]} ... Choose the file of a network of the same kind and depth."
            )
        given = _numbers(tensors[theirs], theirs, value.dtype)
        if name == first and given.ndim == value.ndim and given.shape[1] not in (0, value.shape[1]):
            given = given.sum(dim=1, keepdim=True).expand(-1, value.shape[1], *given.shape[2:]) / value.shape[1]
        flat = [axis for axis in range(2, value.ndim) if value.ndim == given.ndim == 5 and value.shape[axis] == 1]
        given = given.sum(dim=flat, keepdim=True) if flat else given
        if given.shape != value.shape:
            raise ValueError(
                f"{theirs!r} has shape {tuple(tensors[theirs].shape)} in the weights, and {name!r} of "
                f"{type(backbone).__name__} {tuple(value.shape)}. Choose the file of a network of the same kind, and "
                "the width it was made with."
            )
        used[name], loaded[name] = theirs, given
    unused = [name for name in tensors if name not in set(used.values())]
    parts = {_part(name, names("")) for name in used.values()}
    deeper = [n for n in unused if _part(n, names("")) in parts and not n.endswith("num_batches_tracked")]
    if deeper:
        raise ValueError(
            f"the weights have {deeper[:3]}, for which {type(backbone).__name__} has no layers; they are those of "
            "another, deeper network."
        )
    backbone.load_state_dict(loaded)
    return used, unused


def _tensors(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, which may stand in a container."""
    for key in _CONTAINERS:
        if isinstance(weights.get(key), Mapping):
            return _tensors(weights[key])
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors or (nameless := [name for name in tensors if not isinstance(name, str)]):
        got = f"the names {nameless[:5]}" if tensors else f"no tensor under {list(weights)[:5]}"
        raise ValueError(f"weights are a state dict, of tensors by the names of layers; got {got}.")
    return tensors


def _numbers(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A tensor of weights as numbers of a type, which must be able to hold them."""
    fits = tensor.is_floating_point() == dtype.is_floating_point and tensor.layout is torch.strided
    if not fits or tensor.is_meta:
        raise ValueError(
            f"{name!r} must be a dense tensor of {dtype} or the like; got {tensor.dtype}, {tensor.layout}, on "
            f"{tensor.device}. Save the weights of the whole network as plain numbers."
        )
    numbers = tensor.to(dtype)
    if not numbers.isfinite().all() or (name.endswith("running_var") and (numbers < 0).any()):
        wrong = "NaN or infinity" if not numbers.isfinite().all() else "a variance below 0"
        raise ValueError(f"{name!r} holds {wrong}, as {dtype}; the file is damaged, or its training diverged.")
    return numbers


def _naming(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> Callable[[str], str]:
    """From names of the backbone to those of a file: the way in which most of them are found there."""
    own = list(backbone.state_dict())
    found = max(_ways(backbone, own[0], tensors), key=lambda way: sum(way(name) in tensors for name in own))
    return found


def _ways(backbone: nn.Module, first: str, tensors: Mapping[str, Tensor]) -> Iterator[Callable[[str], str]]:
    sequence = getattr(backbone, "sequence", ())

    def numbered(name: str) -> str:
        part, point, rest = name.partition(".")
        return f"{sequence.index(part)}{point}{rest}" if part in sequence else name

    def dotted(name: str) -> str:  # of old DenseNets
        return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)

    for way in (str, numbered, dotted, lambda name: numbered(dotted(name))):
        ending = way(first)
        prefixes = {name.removesuffix(ending) for name in tensors if name.endswith(ending)}
        for prefix in sorted({"", *(prefix for prefix in prefixes if prefix.endswith("."))}):
            yield lambda name, way=way, prefix=prefix: prefix + way(name)  # type: ignore[misc]


def _part(name: str, prefix: str) -> str:
    """The first part of a name behind a prefix."""
    return name.removeprefix(prefix).partition(".")[0]
