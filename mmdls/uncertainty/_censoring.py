"""Inverse probabilities of still being followed, by Kaplan-Meier or by a model of censoring."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from mmdls.cohort import Task
from mmdls.evaluation._predict import answers
from mmdls.metrics import CensoringDistribution
from mmdls.zoo._folds import for_all_tasks

__all__ = ["KaplanMeierCensoring", "ModelledCensoring", "just_before"]


def just_before(times: np.ndarray) -> np.ndarray:
    """Times at which a step function has its limits from the left, (n_times,)."""
    return times * (1 - 1e-6)


class KaplanMeierCensoring:
    """The same for all patients, or for all of a group.

    Parameters
    ----------
    outcome : structured ndarray of shape (n,)
    groups : ndarray of shape (n,)
        Patients of a group that is not among these get the curve of all.
    """

    def __init__(self, outcome: np.ndarray, groups: np.ndarray):
        self._all = CensoringDistribution(outcome)
        self._of_group = {group: CensoringDistribution(outcome[groups == group]) for group in np.unique(groups)}

    def inverse(self, X: pd.DataFrame, groups: np.ndarray, times: np.ndarray) -> np.ndarray:
        """``1 / P(followed until just before t)``, (n_patients, n_times); infinite beyond the follow-up."""
        inverse = np.empty((len(groups), len(times)))
        for group in np.unique(groups):
            curve = self._of_group.get(group, self._all)
            weight = curve.event_weight(np.ones(len(times), dtype=bool), times)
            inverse[groups == group] = np.where(weight > 0, weight, np.inf)
        return inverse


class ModelledCensoring:
    """By a survival model whose event is the end of the follow-up.

    Parameters
    ----------
    model : estimator
        Is cloned.
    X : pandas.DataFrame
    outcome : structured ndarray of shape (n_patients,)
        Rows of unknown outcome are left out.
    task : Task
    """

    def __init__(self, model: Any, X: pd.DataFrame, outcome: np.ndarray, task: Task):
        known = task.known(outcome)
        time, event = task.columns
        y = pd.DataFrame({time: outcome["time"], event: ~outcome["event"]}, index=X.index)[known]
        self._task = task
        self._model = for_all_tasks(clone(model)).fit(X[known], y)

    def inverse(self, X: pd.DataFrame, groups: np.ndarray, times: np.ndarray) -> np.ndarray:
        """As :meth:`KaplanMeierCensoring.inverse`."""
        # An event comes before a censoring at the same time.
        table = answers(self._model, X, {self._task.name: self._task}, just_before(times)).tables[self._task.name]
        followed = table.drop(columns="risk").to_numpy(dtype=np.float64)
        if followed.shape[1] != len(times):
            raise TypeError(f"the model of censoring, {type(self._model).__name__}, gives no survival functions.")
        with np.errstate(divide="ignore", over="ignore"):
            return np.where(np.isnan(followed), np.inf, 1 / followed)
