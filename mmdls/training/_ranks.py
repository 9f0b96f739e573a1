"""Several processes (ranks) that train one model, one a GPU.

Encoding slices takes nearly all the time, so each rank encodes its part of a batch's slices. The embeddings are then
exchanged, and every rank computes fusion, heads and loss on the whole batch, so the risk set of a Cox loss stays
whole. Each rank back-propagates through its own slices; summed over ranks, the gradients are those of one process.
For what all ranks compute, they use the same random numbers. Values that rounding could make different on each rank,
such as the losses that decide when to stop, are taken from the first rank.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn

__all__ = ["Ranks", "is_first_rank", "own_device", "random_state", "set_random_state"]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first_rank() -> bool:
    """True in the first of several processes, and in a single process."""
    return not _together() or distributed.get_rank() == 0


def own_device(device: torch.device) -> torch.device:
    """The device of this process: "cuda" without a number becomes the GPU of its local rank."""
    if device.type == "cuda" and device.index is None and _together():
        number = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


@dataclass
class Ranks:
    """The processes that train one model, and the number of this one; by default a single process.

    Parameters
    ----------
    rank, size : int, default=0 and 1
    device : torch.device, default=torch.device("cpu")
        Where tensors are exchanged.
    seed : int, default=0
        The same on all ranks.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size > 1:
            # Dropout inside encoders draws from a stream of its own on each rank: the ranks encode different slices,
            # and the common stream must stay the same on all of them.
            seed = self.seed + 1 + self.rank
            cuda = self.device.type == "cuda"
            self._own_state = (
                torch.Generator().manual_seed(seed).get_state(),
                torch.Generator(self.device).manual_seed(seed).get_state() if cuda else None,
            )

    @classmethod
    def join(cls, device: torch.device, seed: int) -> "Ranks":
        """All processes of ``torch.distributed``, if it is initialised; torch's random state starts from one seed."""
        if not _together():
            return cls(seed=seed)
        common = torch.tensor(seed, device=device)
        distributed.broadcast(common, src=0)
        torch.manual_seed(int(common))
        return cls(distributed.get_rank(), distributed.get_world_size(), device, int(common))

    def check(self, *facts: object) -> None:
        """Refuse to train one model on different cohorts or with different parameters.

        Raises
        ------
        ValueError
            On every rank, if the facts of one of them differ.
        """
        if self.size == 1:
            return
        digest = hashlib.blake2b(digest_size=7)
        for fact in facts:
            exact = isinstance(fact, (Tensor, np.ndarray))
            digest.update(np.asarray(fact).tobytes() if exact else repr(fact).encode())
        number = int.from_bytes(digest.digest())
        highest = torch.tensor([number, -number], device=self.device)
        distributed.all_reduce(highest, distributed.ReduceOp.MAX)
        if highest.sum() != 0:
            raise ValueError(
                f"{self.size} processes share torch.distributed and train one model together, but they were given "
                "different patients, outcomes or parameters. Call fit with the same arguments in every process (an "
                "encoder or transformer that draws random numbers needs a random_state), or train separate models "
                "without a process group."
            )

    def own_part(self, n: int) -> slice:
        """This rank's part of n items; the parts of all ranks differ by at most one item."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """Draw random numbers from this rank's own stream; the common stream does not advance."""
        if self.size == 1:
            yield
            return
        common = random_state(self.device)
        set_random_state(self._own_state, self.device)
        try:
            yield
        finally:
            self._own_state = random_state(self.device)
            set_random_state(common, self.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.size > 1 and tensor.numel():
            distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Replace a tensor, in place, by the first rank's: rounding may differ between GPUs, decisions must not."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def drop_shared_gradients(self, network: nn.Module) -> None:
        """Drop gradients that all ranks have computed, except on the first, so that the sum counts them once."""
        if self.rank:
            network.zero_grad(set_to_none=True)

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum the gradients over ranks; a weight that has no gradient on any rank keeps none."""
        if self.size == 1:
            return
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        found = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=self.device)
        gradients = [weight.new_zeros(weight.numel()) if weight.grad is None else weight.grad for weight in weights]
        totals = self.sum(torch.cat([gradient.flatten() for gradient in gradients])).split([w.numel() for w in weights])
        for weight, any_rank, total in zip(weights, self.sum(found).tolist(), totals, strict=True):
            if any_rank:
                weight.grad = torch.empty_like(weight.detach()).copy_(total.view(weight.shape))

    def broadcast_weights(self, network: nn.Module) -> None:
        """Copy the first rank's weights and buffers to all ranks."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                tensor.copy_(self.broadcast(tensor.to(self.device).contiguous()))


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The random state of torch on the CPU, and that of a CUDA device if there is one."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Restore a state that :func:`random_state` has returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
