"""The studies of a search: one for its trials, and one beside it for the epochs of every network in every fold."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import optuna
from optuna.study import StudyDirection

from mmdls.search._pruning import RunningMeanPruner
from mmdls.search._storage import opened, quiet


def create_studies(
    name: str, storage: Any, sampler: Any, pruner: Any, epoch_pruner: Any, n_objectives: int, seed: int, verbose: int
) -> tuple[optuna.Study, Callable[[int, int], optuna.Study]]:
    """Create the studies of a search, or load those of the same name from its storage.

    Parameters
    ----------
    name : str
    storage, pruner, epoch_pruner
        As in :class:`OptunaSearch`; pruners are copied.
    sampler : optuna sampler
    n_objectives : int
    seed : int
        Seeds the samplers of the epochs' studies.
    verbose : int
        As in :class:`OptunaSearch`.

    Returns
    -------
    study : optuna.Study
    epoch_study : callable
        ``(fold, network) -> study``, in which every epoch of that network is a step of a trial.
    """
    with quiet(verbose):
        kept = opened(storage)

    def make(**settings: Any) -> optuna.Study:
        with quiet(verbose):
            return optuna.create_study(storage=kept, load_if_exists=True, **settings)

    epoch_pruner = epoch_pruner or optuna.pruners.PercentilePruner(
        90.0, n_startup_trials=5, n_warmup_steps=10, n_min_trials=5
    )

    @functools.cache
    def epoch_study(fold: int, network: int) -> optuna.Study:
        return make(
            study_name=f"{name}-fold{fold}-network{network}",
            sampler=optuna.samplers.RandomSampler(seed),
            pruner=copy.deepcopy(epoch_pruner),
            direction="maximize",
        )

    directions = [StudyDirection.MAXIMIZE] * n_objectives
    pruner = RunningMeanPruner() if pruner is None else copy.deepcopy(pruner)
    return make(study_name=name, sampler=sampler, pruner=pruner, directions=directions), epoch_study
