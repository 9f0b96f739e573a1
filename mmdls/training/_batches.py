"""Batches of patients with an even distribution of events and of long and short follow-up."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class _Rows(Dataset):
    """Row numbers as a dataset for skorch; the net itself looks up the data of these rows."""

    def __init__(self, rows: np.ndarray):
        self.rows = np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> int:
        return int(self.rows[item])


class _Batches:
    """Batches of rows: one batch if all fit, else batches drawn anew each epoch.

    Every patient is seen once per epoch. Events, and long and short follow-up times, are distributed evenly over the
    batches, so that each batch has comparable pairs.
    """

    def __init__(self, dataset: _Rows, events: np.ndarray, times: np.ndarray, batch_size: int):
        self.rows = torch.as_tensor(dataset.rows)
        self.events = events
        self.times = times
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_batches = len(self)
        if n_batches == 1:
            yield self.rows, self.rows
            return
        # Rows sorted by events and time are assigned in rounds: each round gives every batch one row, in random order.
        order = np.lexsort((-self.times[self.rows.numpy()], -self.events[self.rows.numpy()]))
        rounds = [part[torch.randperm(len(part))] for part in self.rows[torch.as_tensor(order)].split(n_batches)]
        if len(rounds[-1]) < n_batches:
            padded = torch.full((n_batches,), -1)
            padded[torch.randperm(n_batches)[: len(rounds[-1])]] = rounds[-1]
            rounds[-1] = padded
        for rows in torch.stack(rounds, dim=1):
            rows = rows[rows >= 0]
            yield rows, rows
