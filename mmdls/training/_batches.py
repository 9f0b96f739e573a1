"""Batches of patients, each with its share of events and of long and short follow-up."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class _Rows(Dataset):
    """The rows of some patients; everything else is looked up by the net."""

    def __init__(self, rows: np.ndarray):
        self.rows = np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> int:
        return int(self.rows[item])


class _Batches:
    """Batches of rows: all at once if they fit, else drawn anew each epoch with events and follow-up spread evenly.

    Every patient is seen once an epoch, and each batch holds its share of events and of long and short times, so that
    each has comparable pairs.
    """

    def __init__(self, dataset: _Rows, events: np.ndarray, times: np.ndarray, size: int, **_: Any):
        self.rows = torch.as_tensor(dataset.rows)
        self.events = events
        self.times = times
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.rows) // max(self.size, 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_batches = len(self)
        if n_batches == 1:
            yield self.rows, self.rows
            return
        # Like cards, sorted by events and time and dealt in rounds, each round to the batches in a random order.
        order = np.lexsort((-self.times[self.rows.numpy()], -self.events[self.rows.numpy()]))
        rounds = [part[torch.randperm(len(part))] for part in self.rows[torch.as_tensor(order)].split(n_batches)]
        if len(rounds[-1]) < n_batches:
            spread = torch.full((n_batches,), -1)
            spread[torch.randperm(n_batches)[: len(rounds[-1])]] = rounds[-1]
            rounds[-1] = spread
        for rows in torch.stack(rounds, dim=1):
            rows = rows[rows >= 0]
            yield rows, rows
