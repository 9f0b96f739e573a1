"""A training that was killed goes on where it was, to the result of one that was not."""

import hashlib
import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.history import History
from torch import Tensor, nn

from mmdls._files import seal, unsealed, whole_file
from mmdls.training._net import CohortNet
from mmdls.training._ranks import random_state, set_random_state

__all__ = ["Checkpoint"]

_PATIENTS = 16  # read at a time, for the hash


class Checkpoint(Callback):
    """Write the state of a training after every epoch, and start from it if it is there.

    A file belongs to one training, by a hash of everything it depends on: patients, outcomes, weights at the start,
    random state, parameters, versions. It is removed when the training is finished.

    Parameters
    ----------
    folder : path
    facts : sequence
        What the training depends on besides the patients, the network and the random state.
    """

    def __init__(self, folder: Any, facts: Any):
        self.folder = folder
        self.facts = facts

    def on_train_begin(self, net: CohortNet, **kwargs: object) -> None:
        """Go on where a training like this one was killed."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path_ = folder / f"{_digest(net, self.facts)}.pt"
        if not self.path_.is_file():
            return
        content = unsealed(self.path_)
        if content is None:
            warnings.warn(f"the checkpoint {str(self.path_)!r} is damaged; training starts anew.", stacklevel=2)
            return
        _restore(net, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))

    def on_epoch_end(self, net: CohortNet, **kwargs: object) -> None:
        """Write the state."""
        with whole_file(self.path_) as partial:
            torch.save(_state(net), partial)
            seal(partial)

    def on_train_end(self, net: CohortNet, **kwargs: object) -> None:
        """Nothing is left to go on with, unless Ctrl-C ended the training."""
        if net.interrupt_ is None:
            self.path_.unlink(missing_ok=True)


def _digest(net: CohortNet, facts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    packages = ("mmdls", "torch", "skorch", "numpy")
    digest.update(repr((facts, net.module_, net.criterion_, [version(name) for name in packages])).encode())
    tensors = [*_weights(net).values(), random_state(net.compute.torch_device)[0]]
    tensors += [field for fields in net.targets.fields.values() for field in fields]
    if net.targets.sample_weight is not None:
        tensors.append(net.targets.sample_weight)
    for member in net.members:
        tensors += [member.held, member.inputs.present]
    for tensor in tensors:
        _update(digest, tensor)
    for data in net.members[0].inputs.data.values():
        for rows in np.array_split(np.arange(len(data)), -(-len(data) // _PATIENTS)):
            for tensor in data.take(rows):
                _update(digest, tensor)
    return digest.hexdigest()


def _update(digest: Any, tensor: Tensor) -> None:
    array = tensor.detach().cpu().contiguous().numpy()
    digest.update(repr((array.shape, array.dtype)).encode())
    digest.update(array.tobytes())


def _weights(net: CohortNet) -> dict[str, Tensor]:
    """Parameters and buffers, also those that a saved model leaves out."""
    parts: dict[str, nn.Module] = {"module": net.module_, "criterion": net.criterion_}
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }


def _state(net: CohortNet) -> dict[str, Any]:
    return {
        "weights": {name: tensor.detach() for name, tensor in _weights(net).items()},
        "optimizer": net.optimizer_.state_dict(),
        "callbacks": {name: _plain_state(callback) for name, callback in net.callbacks_},
        "history": json.dumps(list(net.history), default=float),
        "held_out": net.held_out_,
        "random_state": random_state(net.compute.torch_device),
    }


def _restore(net: CohortNet, state: dict[str, Any]) -> None:
    with torch.no_grad():
        for name, tensor in _weights(net).items():
            tensor.copy_(state["weights"][name])
    net.optimizer_.load_state_dict(state["optimizer"])
    for called, callback in net.callbacks_:
        for name, value in state["callbacks"].get(called, {}).items():
            own: Any = getattr(callback, name, None)
            if hasattr(own, "load_state_dict"):
                own.load_state_dict(value)
            else:
                setattr(callback, name, value)
    net.history_ = History(json.loads(state["history"]))
    net.held_out_ = state["held_out"]
    set_random_state(state["random_state"], net.compute.torch_device)


def _plain_state(callback: Callback) -> dict[str, Any]:
    """What a callback has learned: its attributes that end in ``_`` and are plain, or have a state of their own."""
    found = {}
    for name, value in vars(callback).items():
        if name.endswith("_"):
            own = value.item() if isinstance(value, np.generic) else value
            if hasattr(own, "state_dict") and not isinstance(own, type):
                own = own.state_dict()
            if _is_plain(own):
                found[name] = own
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
