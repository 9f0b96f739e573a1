"""Device, precision and micro-batch size of the computation."""

import math
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmdls import kernels
from mmdls._memory import is_out_of_memory
from mmdls.encoders import BagData
from mmdls.modules import BagNet
from mmdls.training._ranks import Ranks, own_device
from mmdls.training._threads import threads_of_torch

__all__ = ["Compute", "channels_last", "seeded", "within_memory"]

Result = TypeVar("Result")

# torch.manual_seed is global: two fits in two threads would draw from one stream, and neither would be reproducible.
_RANDOM_STATE_LOCK = threading.RLock()
# Bytes of the widest feature map of one micro-batch. On a CPU it fits into the cache, and stays below 32 MiB, above
# which the C library requests new pages from the system at every allocation; on a GPU it occupies all multiprocessors.
_WIDEST_MAP_BYTES = {"cpu": 16 * 2**20, "cuda": 2**30}
_MOST_ITEMS = 1024
_TOGETHER = 8  # items that kernels compute at once, at least


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep up to 64 MiB of freed maps for the next ones, whose pages the system would have to clear.

    glibc adapts to the largest block that was mapped and freed, up to 32 MiB: smaller ones it takes from memory that
    it has, of which it gives back to the system what is more than twice as much.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8)


def channels_last(network: nn.Module) -> None:
    """Keep the weights of a network, in place, in the order in which convolutions of images run fastest."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run under a seed, and restore the caller's random state afterwards."""
    with _RANDOM_STATE_LOCK, torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Compute:
    """Device, precision and micro-batch size of the computation.

    Parameters
    ----------
    device : str, default="cpu"
        ``"auto"`` uses a GPU if there is one. Of several processes that train together, each uses its own.
    precision : {"float32", "bf16"}, default="float32"
        ``"bf16"`` computes features of items under bfloat16 autocast.
    micro_batch_size : int or "auto", default="auto"
        Items of a bag, such as slices, encoded at a time; it changes memory and speed only. ``"auto"`` keeps their
        activations in the processor's cache.
    compile : bool, default=False
        Compile the backbones with ``torch.compile`` before training.
    kept_bytes : int, default=512 MiB
        Memory for graphs of the first pass that are kept, so that their items need not be encoded again.
    ranks : Ranks, default=Ranks()
        The processes that train together and divide the items of bags among them.
    n_threads : int
        In which items are encoded; by default those of torch. Few items of a small backbone take one.
    n_halvings : int, default=0
        How often micro-batches were halved, since memory was too small for them.
    """

    device: str = "cpu"
    precision: str = "float32"
    micro_batch_size: int | str = "auto"
    compile: bool = False
    kept_bytes: int = 512 * 2**20
    ranks: Ranks = field(default_factory=Ranks)
    n_threads: int = field(default_factory=torch.get_num_threads)
    n_halvings: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16'; got {self.precision!r}.")
        if self.micro_batch_size != "auto" and not (
            isinstance(self.micro_batch_size, (int, np.integer)) and self.micro_batch_size > 0
        ):
            raise ValueError(f"micro_batch_size must be a positive int or 'auto'; got {self.micro_batch_size!r}.")
        if str(self.device).startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device={self.device!r}, but torch sees no CUDA device; use device='cpu' or 'auto'.")

    @property
    def torch_device(self) -> torch.device:
        """The device itself."""
        if self.device == "auto":
            return own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return own_device(torch.device(self.device))

    def autocast(self) -> torch.autocast:
        """The context in which features of items are computed."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def features(self, encoder: BagNet, data: BagData, index: np.ndarray) -> Tensor:
        """Features of some items, all at once, (k, C)."""
        _keep_freed_memory()
        n_pixels = len(index) * math.prod(data.item_shape[1:])
        with threads_of_torch(1) if n_pixels <= getattr(encoder.backbone, "few_pixels", 0) else self.threads():
            items = self.read(data, index)
            with self.autocast():
                return encoder.features(items)

    def encode(self, encoder: BagNet, data: BagData, index: np.ndarray) -> Tensor:
        """Embed some items, all at once, (k, D)."""
        return encoder.project(self.features(encoder, data, index))

    def threads(self) -> AbstractContextManager[None]:
        """The context in which items are encoded, in one thread or several."""
        return threads_of_torch(self.n_threads)

    def draws_random_numbers(self, encoder: BagNet, data: BagData) -> bool:
        """Whether encoding items in training does; found with one blank item."""
        weight, encoder = encoder.projection.weight, deepcopy(encoder).train()  # normalisation would count the item
        with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())), self.autocast():
            before = torch.get_rng_state()
            item = torch.zeros(1, *data.item_shape, device=weight.device, dtype=weight.dtype)
            encoder.project(encoder.features(item))
            return not torch.equal(before, torch.get_rng_state())

    def read(self, data: BagData, index: np.ndarray) -> Tensor:
        """Some items on the device, (k,) + item_shape."""
        items = data.read(index, device=self.torch_device)
        # Unlike contiguous(), to() also rewrites the strides of a single channel; convolutions choose their algorithm
        # by these strides.
        return items.to(memory_format=torch.channels_last) if items.ndim == 4 else items

    def micro_batches(self, encoder: BagNet, data: BagData, stop: int, start: int = 0) -> list[slice]:
        """Divide the items from start to stop into micro-batches."""
        if self.micro_batch_size == "auto":
            widest, _ = self.item_bytes(encoder, data)
            most = int(np.clip(_WIDEST_MAP_BYTES.get(self.torch_device.type, 2**30) // widest, 1, _MOST_ITEMS))
            # As equal as can be: a small one costs as much as a large one.
            n_items = max(stop - start, 1)
            size = -(-n_items // -(-n_items // most))
        else:
            size = int(self.micro_batch_size)
        size = max(size >> self.n_halvings, 1)
        return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]

    def item_bytes(self, encoder: BagNet, data: BagData) -> tuple[int, int]:
        """Bytes of the widest feature map of one item, and of all maps that its gradient needs."""
        known = _MAP_SIZES.setdefault(encoder, {})
        computed = data.item_shape, self.precision, kernels.info().way
        if computed not in known:
            known[computed] = _map_sizes(encoder, data.item_shape, self)
        return known[computed]


def within_memory(
    compute: Compute, work: Callable[[Compute], Result], again: Callable[[Compute], None] = lambda smaller: None
) -> Result:
    """Work whose memory is that of a micro-batch; where it is too large, the work is done again with half of it.

    Parameters
    ----------
    compute : Compute
    work : callable
        ``work(compute)``.
    again : callable, default=None
        ``again(smaller)`` is called before the work is done again.

    Returns
    -------
    What the work returns.

    Warns
    -----
    UserWarning
        Where micro-batches are halved.
    """
    while True:
        try:
            return work(compute)
        except (MemoryError, RuntimeError) as error:
            largest = _MOST_ITEMS if compute.micro_batch_size == "auto" else int(compute.micro_batch_size)
            if not is_out_of_memory(error) or largest >> compute.n_halvings <= 1 or compute.ranks.size > 1:
                raise
            reason = str(error).partition("\n")[0]
        # Outside of the handler, whose error holds the memory of the failed work.
        compute = replace(compute, n_halvings=compute.n_halvings + 1)
        warnings.warn(
            f"out of memory: {reason} Micro-batches of items are halved and the step is done again; give a smaller "
            f"micro_batch_size (now {compute.micro_batch_size!r}, halved {compute.n_halvings} times).",
            stacklevel=2,
        )
        if compute.torch_device.type == "cuda":
            torch.cuda.empty_cache()
        again(compute)


# By encoder, and shape of an item and how it is computed, which do not change during training.
_MAP_SIZES: weakref.WeakKeyDictionary[BagNet, dict[tuple, tuple[int, int]]] = weakref.WeakKeyDictionary()


def _map_sizes(encoder: BagNet, item_shape: tuple[int, ...], compute: Compute) -> tuple[int, int]:
    """Bytes of the widest map of one item, and of all that is kept for its gradient, found with blank items."""
    maps, widest, kept = _sizes_of_blanks(encoder, item_shape, compute, 1)
    if any(each.ndim > 2 for each in maps):
        return widest, kept
    # Without a map, items are computed several at a time, and one alone takes the memory of all of them.
    _, widest, kept = _sizes_of_blanks(encoder, item_shape, compute, _TOGETHER)
    return -(-widest // _TOGETHER), -(-kept // _TOGETHER)


def _sizes_of_blanks(
    encoder: BagNet, item_shape: tuple[int, ...], compute: Compute, n_items: int
) -> tuple[list[Tensor], int, int]:
    """What a backbone makes of blank items, bytes of the widest map, and of all that is kept for their gradient."""
    weight = encoder.projection.weight
    sizes, own = {}, {tensor.data_ptr() for tensor in (*encoder.parameters(), *encoder.buffers())}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    # The gradient of the items stands for those of weights that do not train.
    asked = not any(parameter.requires_grad for parameter in encoder.backbone.parameters())
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(range(torch.cuda.device_count())),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        compute.autocast(),
    ):
        items = torch.zeros(n_items, *item_shape, device=weight.device, dtype=weight.dtype, requires_grad=asked)
        found = encoder.maps(items)
    maps = [found] if isinstance(found, Tensor) else list(found)
    widest = max([*sizes.values(), *(each.nbytes for each in maps)])
    return maps, widest, max(sum(sizes.values()), widest)
