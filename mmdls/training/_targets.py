"""What a network learns: the outcomes of a cohort's tasks, as the tasks and as their losses read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmdls.cohort import Task

__all__ = ["Targets"]


@dataclass
class Targets:
    """What a network learns, for some patients; everything is by the name of the task.

    Parameters
    ----------
    tasks : mapping of str to Task
    outcomes : dict of str to ndarray of shape (n_patients,)
        As :meth:`mmdls.cohort.Task.outcome` gives them.
    fields : dict of str to tuple of Tensor, each (n_patients,)
        What the loss of the task's head takes behind its parameters, see :meth:`mmdls.cohort.Task.targets`.
    known : dict of str to Tensor of shape (n_patients,), bool
    sample_weight : Tensor of shape (n_patients,), default=None
    """

    tasks: Mapping[str, Task]
    outcomes: dict[str, np.ndarray]
    fields: dict[str, tuple[Tensor, ...]]
    known: dict[str, Tensor]
    sample_weight: Tensor | None = None

    @classmethod
    def from_table(cls, y: pd.DataFrame, tasks: Mapping[str, Task], sample_weight: Any = None) -> "Targets":
        """Encode the tasks of a table of outcomes that has passed the checks."""
        outcomes = {name: task.outcome(y) for name, task in tasks.items()}
        if sample_weight is not None:
            sample_weight = torch.as_tensor(np.asarray(sample_weight, dtype=np.float32).copy())
        return cls(
            tasks,
            outcomes,
            {name: tuple(map(_tensor, task.targets(outcomes[name]))) for name, task in tasks.items()},
            {name: _tensor(task.known(outcomes[name])) for name, task in tasks.items()},
            sample_weight,
        )

    def any_known(self) -> np.ndarray:
        """Who has an outcome of at least one task, (n_patients,), bool."""
        return np.any([known.numpy() for known in self.known.values()], axis=0)

    def event_count(self) -> np.ndarray:
        """Events of each patient, over all tasks, (n_patients,), int."""
        return np.sum([task.event_count(self.outcomes[name]) for name, task in self.tasks.items()], axis=0)

    def follow_up(self) -> np.ndarray:
        """Months for which each patient is followed, the sum over tasks, (n_patients,)."""
        return np.sum([task.follow_up(self.outcomes[name]) for name, task in self.tasks.items()], axis=0)

    def learnable_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Those of some rows whose outcome of a task is known.

        Raises
        ------
        ValueError
            If nothing can be learned from them, for example since none of them had the event.
        """
        task, outcome = self.tasks[name], self.outcomes[name]
        known = rows[self.known[name].numpy()[rows]]
        if not np.isin(task.strata(outcome[known]), task.needed_strata(outcome)).any():
            what = f"endpoint {name!r} has no event" if task.is_censored else f"task {name!r} has no value"
            raise ValueError(
                f"{what} among the {len(known)} patients who have a modality, a known outcome and a weight above 0; "
                "nothing can be learned about it. Leave it out of y, or fit on more patients."
            )
        return known

    def of(self, name: str, rows: np.ndarray) -> tuple[Tensor, ...]:
        """What the head of a task takes of some rows: its targets and, if there are any, the weights."""
        given = self.fields[name] if self.sample_weight is None else (*self.fields[name], self.sample_weight)
        return tuple(field[torch.as_tensor(rows)] for field in given)

    def take(self, rows: Tensor, device: torch.device) -> "Targets":
        """The outcomes of some patients; tensors on a device."""
        return Targets(
            self.tasks,
            {name: outcome[rows.numpy()] for name, outcome in self.outcomes.items()},
            {name: tuple(field[rows].to(device) for field in fields) for name, fields in self.fields.items()},
            {name: known[rows].to(device) for name, known in self.known.items()},
            None if self.sample_weight is None else self.sample_weight[rows].to(device),
        )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.array(values))  # a copy, since a field of a structured array may be unaligned
