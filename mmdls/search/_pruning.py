"""Pruning of trials, after a fold or after an epoch inside a fold."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from mmdls.training._epoch_callback import epoch_callback


class RunningMeanPruner(optuna.pruners.BasePruner):
    """Stops a trial whose mean over the folds so far is below the median of complete trials after the same fold."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        means = [t.intermediate_values[step] for t in complete if step in t.intermediate_values]
        return len(means) >= 5 and trial.intermediate_values[step] < float(np.median(means))


class Epochs:
    """Asks a pruner after every epoch of a trial.

    Every fold, and every network of a fold if several are trained one after another, has a study of its own: pruners
    compare the best value that a trial has reported, and this must not come from an easier fold. The value reported is
    the mean of this epoch's score and the best scores of the earlier folds, so that one bad fold does not end a trial.
    """

    def __init__(self, study_of: Callable[[int, int], optuna.Study]):
        self.study_of = study_of
        self.before: list[dict[int, float]] = []

    def run(self, fold: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call a function and return its result; raises ``TrialPruned`` if the pruner stops a network trained in it."""
        network = -1
        trials: dict[int, optuna.Trial] = {}
        best: dict[int, float] = {}

        def report(epoch: int, score: float) -> None:
            nonlocal network
            network += epoch == 1
            if not np.isfinite(score):
                return
            if network not in trials:
                trials[network] = self.study_of(fold, network).ask()
            best[network] = max(score, best.get(network, score))
            before = [past[network] for past in self.before if network in past]
            trials[network].report(float(np.mean([*before, score])), epoch)
            if trials[network].should_prune():
                raise optuna.TrialPruned(f"in epoch {epoch} of fold {fold + 1}")

        state = TrialState.FAIL
        try:
            with epoch_callback(report):
                found = function(*arguments)
            state = TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
            raise
        finally:
            for network, trial in trials.items():
                trial.study.tell(trial, best[network] if state == TrialState.COMPLETE else None, state)
        self.before.append(best)
        return found
