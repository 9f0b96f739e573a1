"""Validation patients, and the losses on them that select the best epoch."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmdls.model_selection import stratified_holdout
from mmdls.modules import LossName
from mmdls.modules.multimodal import horizon_targets
from mmdls.training._ranks import is_first_rank
from mmdls.training._targets import Targets

__all__ = ["hold_out"]


def hold_out(
    y: pd.DataFrame,
    targets: Targets,
    rows: np.ndarray,
    fraction: float,
    *,
    horizons: Mapping[str, Sequence[float]],
    task_weights: Mapping[str, float] | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, frozenset[LossName]]:
    """Split off validation rows, and select the losses that are informative on them.

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
        Fraction of the rows held out; 0, or less than one patient, holds out nobody.
    horizons : mapping of str to sequence of float
        Months of the auxiliary losses, by task.
    task_weights : mapping of str to float, default=None
        A task of weight 0 decides nothing.

    Returns
    -------
    kept, held : ndarray of int
    losses : frozenset of LossName
        Nobody is held out if there is none.

    Warns
    -----
    UserWarning
        If the patients held out say nothing of a task.
    """
    nobody = rows, np.empty(0, dtype=int), frozenset[LossName]()
    if not len(rows) * fraction >= 1:
        return nobody
    kept, held = stratified_holdout(y.iloc[rows], fraction, random_state=seed)
    found = targets.take(torch.as_tensor(rows[held]), torch.device("cpu"))
    weights = task_weights or {}
    losses, silent = set(), []
    for name, task in found.tasks.items():
        if reason := task.uninformative(found.outcomes[name]):
            silent.append(reason)
            continue
        losses.add(LossName(name))
        if name in horizons:
            event, time = found.fields[name]
            if _tells_apart(horizon_targets(event, time, torch.as_tensor(tuple(horizons[name]), dtype=time.dtype))):
                losses.add(LossName(name, horizons=True))
    losses = {name for name in losses if weights.get(name.task, 1.0) > 0}
    if silent and is_first_rank():
        _warn(silent, len(held), sorted({name.task for name in losses}))
    return (rows[kept], rows[held], frozenset(losses)) if losses else nobody


def _tells_apart(labels: Tensor) -> bool:
    """Whether any column of labels (B, H), NaN = unknown, holds both 0 and 1."""
    return bool(((labels == 0).any(dim=0) & (labels == 1).any(dim=0)).any())


def _warn(silent: Sequence[str], n_held: int, deciding: Sequence[str]) -> None:
    chosen = (
        f"the best epoch is chosen by the losses of {deciding} alone"
        if deciding
        else "nobody is held out: all patients train for all epochs, without early stopping"
    )
    warnings.warn(
        f"the {n_held} patients held out to find the best epoch hold {', '.join(silent)}; {chosen}. A larger "
        "validation_fraction holds out more; validation_fraction=0 with fewer max_epochs needs nobody.",
        stacklevel=2,
    )
