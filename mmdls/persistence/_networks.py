"""Networks and tensors as JSON; weights are kept by name beside it."""

from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from skorch.history import History
from torch import Tensor, nn

from mmdls.training._net import CohortNet, answering

__all__ = ["decode_torch", "encode_module", "encode_torch", "fill_module"]

# What torch makes anew in every module.
_HOOKS = frozenset(
    name for name, value in vars(nn.Module()).items() if "hook" in name or name == "_is_full_backward_hook"
)
_OWN = frozenset(("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"))


def encode_torch(value: Any, path: str, node: Callable[[Any, str], Any], tensors: MutableMapping[str, Tensor]) -> Any:
    """JSON of a value of torch or skorch, NotImplemented for another kind.

    Parameters
    ----------
    value : object
    path : str
        Where it stands in the model.
    node : callable
        ``(value, path) -> JSON`` of what is inside.
    tensors : mutable mapping of str to Tensor
        Gets the numbers of tensors, on the CPU.
    """
    if isinstance(value, Tensor):
        return {"tensor": _encode_tensor(value, path, tensors)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, torch.dtype):
        return {"torch_dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.Size):
        return {"size": list(value)}
    if isinstance(value, CohortNet):
        return {"net": [node(value.module_, f"{path}.module_"), node(list(value.history), f"{path}.history")]}
    return NotImplemented


def decode_torch(tag: str, content: Any, value: Callable[[Any], Any], tensors: MutableMapping[str, Tensor]) -> Any:
    """The value of JSON that :func:`encode_torch` gave, NotImplemented for a tag of another kind."""
    if tag == "tensor":
        return _decode_tensor(content, tensors)
    if tag == "device":
        return torch.device(content)
    if tag == "torch_dtype":
        found = getattr(torch, content, None)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"the file names the type {content!r}, which torch does not have.")
        return found
    if tag == "size":
        return torch.Size(content)
    if tag == "net":
        module, history = (value(part) for part in content)
        if not isinstance(module, nn.Module):
            raise ValueError("the file has a net without a network.")
        return answering(module, History(history))
    return NotImplemented


def encode_module(module: nn.Module, path: str) -> dict[str, Any]:
    """The attributes of a module that are to be saved.

    Raises
    ------
    TypeError
        If it has hooks, which are functions.
    """
    state = vars(module)
    hooked = [name for name in _HOOKS & state.keys() if state[name] not in (None, OrderedDict())]
    if hooked:
        raise TypeError(f"{path} has {hooked}; a saved model holds no code. Remove the hooks before saving.")
    return {name: value for name, value in state.items() if name not in _HOOKS and name != "_compiled_call_impl"}


def fill_module(module: nn.Module, state: dict[str, Any]) -> None:
    """Give an empty module its attributes.

    Raises
    ------
    ValueError
        If they are not those of a module.
    """
    kinds = {"_parameters": Tensor, "_buffers": Tensor, "_modules": nn.Module}
    for name, kind in kinds.items():
        if not all(each is None or isinstance(each, kind) for each in dict(state.get(name, {})).values()):
            raise ValueError(f"the file has a network whose {name} are of another kind.")
    nn.Module.__init__(module)
    if strange := [name for name in state if name in _HOOKS]:
        raise ValueError(f"the file has a network with {strange}.")
    vars(module).update(state)


def _encode_tensor(tensor: Tensor, path: str, tensors: MutableMapping[str, Tensor]) -> dict[str, Any]:
    """A tensor by reference, with the order of its axes in memory, by which convolutions choose their algorithm."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise TypeError(f"{path} is a tensor of {tensor.dtype}, {tensor.layout}, which cannot be saved; make it dense.")
    plain = tensor.detach().cpu()
    content: dict[str, Any] = {"numbers": f"t{len(tensors):04d}", "shape": list(plain.shape)}
    if not plain.is_contiguous() or list(plain.stride()) != _contiguous(plain.shape):
        if _is_dense(plain.shape, plain.stride()):
            content["stride"] = list(plain.stride())
            plain = torch.as_strided(plain, (plain.numel(),), (1,), plain.storage_offset())
    # A view would be written with all that it is a view of.
    tensors[content["numbers"]] = plain.contiguous().clone()
    if isinstance(tensor, nn.Parameter):
        content["parameter"] = tensor.requires_grad
    return content


def _decode_tensor(content: Any, tensors: MutableMapping[str, Tensor]) -> Tensor:
    shape = [int(length) for length in content["shape"]]
    tensor = tensors[content["numbers"]]
    if "stride" in content:
        stride = [int(step) for step in content["stride"]]
        if len(stride) != len(shape) or min(stride) < 0 or not _is_dense(shape, stride):
            raise ValueError("the file has a tensor with impossible strides.")
        tensor = torch.as_strided(tensor, shape, stride)
    else:
        tensor = tensor.reshape(shape) if tensor.ndim != len(shape) else tensor
    if list(tensor.shape) != shape:
        raise ValueError("the file has a tensor of another shape than it says.")
    return nn.Parameter(tensor, requires_grad=bool(content["parameter"])) if "parameter" in content else tensor


def _contiguous(shape: Any) -> list[int]:
    steps = [1]
    for length in reversed(list(shape)[1:]):
        steps.append(steps[-1] * max(length, 1))
    return steps[::-1] if len(shape) else []


def _is_dense(shape: Any, stride: Any) -> bool:
    """Whether the numbers fill memory without gaps, in some order of the axes."""
    expected = 1
    for step, length in sorted((s, n) for s, n in zip(stride, shape, strict=True) if n != 1):
        if step != expected:
            return False
        expected *= length
    return all(length > 0 for length in shape)
