"""Validation patients, and the tasks that select the best epoch on them."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from mmdls.cohort import Task
from mmdls.model_selection import stratified_holdout
from mmdls.training._members import folds_of
from mmdls.training._ranks import is_first_rank
from mmdls.training._targets import Targets

__all__ = ["hold_out"]

# Events, or patients of the smallest class, below which the losses of an ensemble's held-out patients select nothing.
_FEWEST = 10


def hold_out(
    y: pd.DataFrame,
    targets: Targets,
    rows: np.ndarray,
    fraction: float,
    *,
    n_members: int,
    task_weights: Mapping[str, float] | None,
    seed: int,
) -> tuple[list[np.ndarray], frozenset[str]]:
    """The rows that each member holds out, and the tasks that can select an epoch on them.

    One member holds out a fraction of the rows. Several divide the rows among them, so that each row is held out once.

    The loss of an endpoint without an event, or of a class task with one class, is zero or falls without end whatever
    is learned: it must not decide which epoch is best. :meth:`mmdls.cohort.Task.uninformative` finds such losses.

    Parameters
    ----------
    y : pandas.DataFrame
        The outcomes of all patients.
    targets : Targets
        The same, encoded.
    rows : ndarray of int
        The rows that can be learned from.
    fraction : float
        Fraction of the rows that a single member holds out; 0, or less than one patient, holds out nobody.
    n_members : int
    task_weights : mapping of str to float, default=None
        A task of weight 0 decides nothing.

    Returns
    -------
    held : list of ndarray of int
        Of each member; all empty if no task can select an epoch.
    tasks : frozenset of str

    Warns
    -----
    UserWarning
        If the patients held out say nothing of a task.
    """
    nobody = [np.empty(0, dtype=int) for _ in range(n_members)]
    if not len(rows) * fraction >= 1:
        return nobody, frozenset()
    if n_members == 1:
        held = [rows[stratified_holdout(y.iloc[rows], fraction, random_state=seed)[1]]]
    else:
        held = folds_of(y, rows, n_members, seed)
        held += nobody[len(held) :]
    everybody = np.concatenate(held)
    found = targets.take(torch.as_tensor(everybody), torch.device("cpu"))
    weights = task_weights or {}
    silent = {name: _uninformative(task, found.outcomes[name], n_members) for name, task in found.tasks.items()}
    deciding = frozenset(name for name, reason in silent.items() if not reason and weights.get(name, 1.0) > 0)
    if any(silent.values()) and is_first_rank():
        _warn([reason for reason in silent.values() if reason], len(everybody), sorted(deciding))
    return (held, deciding) if deciding else (nobody, frozenset())


def _uninformative(task: Task, outcome: np.ndarray, n_members: int) -> str:
    """Why a task must not select an epoch; empty if it may."""
    if reason := task.uninformative(outcome):
        return reason
    size = task.effective_size(outcome)
    if n_members == 1 or size >= _FEWEST:
        return ""
    what = "events" if task.is_censored else "patients of the smallest class"
    return f"fewer than {_FEWEST} {what} of {task.name!r} ({size})"


def _warn(silent: Sequence[str], n_held: int, deciding: Sequence[str]) -> None:
    chosen = (
        f"the best epoch is chosen by the losses of {deciding} alone"
        if deciding
        else "nobody is held out: all patients train for all epochs, without early stopping"
    )
    warnings.warn(
        f"the {n_held} patients held out to find the best epoch hold {', '.join(silent)}; {chosen}. A larger "
        "validation_fraction of a single member holds out more; validation_fraction=0 with fewer max_epochs needs "
        "nobody.",
        stacklevel=2,
    )
