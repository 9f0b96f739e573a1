"""Metrics as scorers of scikit-learn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task, align_rows, find_tasks, id_places, survival_target
from mmdls.evaluation._cases import SMALLEST_SAMPLE, make_case
from mmdls.evaluation._predict import HORIZONS, check_horizons, outcome_of, predict_task, time_grid, training_outcomes
from mmdls.evaluation._statistics import Settings

__all__ = ["Scorer", "make_scorers"]


def make_scorers(
    y: pd.DataFrame, *, horizons: Sequence[float] = HORIZONS
) -> dict[str, Callable[[Any, Any, Any], float]]:
    """Scorers for the tasks of ``y``, for ``scoring=`` of scikit-learn's ``cross_validate`` and searches.

    Higher is better for all: errors are negative, as in scikit-learn's ``neg_*`` scorers. An undefined score
    is NaN. Weights describe the censoring of the rows that are scored; where these are fewer than 50 patients of ``y``,
    as in cross-validation of a small cohort, that of all patients of ``y``. The reference of the index of prediction
    accuracy are the training outcomes that the fitted estimator carries (``outcomes_``), else the scored rows. Rows of
    a table or a Series are joined by patient id.

    Parameters
    ----------
    y : pandas.DataFrame
        Outcomes of the cohort, whose columns name the tasks.
    horizons : sequence of float, default=(12, 36, 60)
        Months of the time-dependent AUC; Brier scores are integrated up to the last.

    Returns
    -------
    dict of str to callable
        ``<task>_auc``, ``<task>_log_loss``, ``<task>_brier``, ``<task>_kappa`` (ordinal) for classes;
        ``<task>_cindex``, ``<task>_uno``, ``<task>_tauc`` (mean over horizons), ``<task>_ibs``,
        ``<task>_ipa`` for endpoints.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> sorted(make_scorers(y))
    ['os_cindex', 'os_ibs', 'os_ipa', 'os_tauc', 'os_uno', 'subtype_auc', 'subtype_brier', 'subtype_log_loss']
    """
    horizons = check_horizons(horizons)
    scorers: dict[str, Callable[[Any, Any, Any], float]] = {}
    for task in find_tasks(y).values():
        endpoint = len(task.columns) == 2
        cohort = y[list(task.columns)].copy() if endpoint else None
        for name, (metric, sign) in (_SURVIVAL_SCORES if endpoint else _CLASS_SCORES).items():
            if name != "kappa" or task.kind == "ordinal":
                scorers[f"{task.name}_{name}"] = Scorer(task, metric, sign, horizons, cohort)
    return scorers


_CLASS_SCORES = {
    "auc": ("auc", 1),
    "log_loss": ("log_loss", -1),
    "brier": ("brier_score", -1),
    "kappa": ("quadratic_weighted_kappa", 1),
}
_SURVIVAL_SCORES = {
    "cindex": ("concordance_index", 1),
    "uno": ("concordance_index_ipcw", 1),
    "tauc": ("cumulative_dynamic_auc", 1),
    "ibs": ("integrated_brier_score", -1),
    "ipa": ("integrated_prediction_accuracy", 1),
}


@dataclass(frozen=True)
class Scorer:
    """One metric of one task as a callable ``(estimator, X, y) -> float``; see :func:`make_scorers`."""

    task: Task
    metric: str
    sign: int
    horizons: tuple[float, ...]
    cohort: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score a fitted estimator; higher is better."""
        curves = self.metric not in ("concordance_index", "concordance_index_ipcw", "cumulative_dynamic_auc")
        times = time_grid(self.horizons) if curves else np.array([])
        task, table = predict_task(estimator, X, self.task, times)
        outcome = outcome_of(y, self.task, table.index)
        if isinstance(X, pd.DataFrame):
            outcome = align_rows(outcome, table.index, "y")
        else:
            table = table.set_axis(outcome.index)
        case = make_case(
            task, table, outcome, reference=training_outcomes(estimator, [task]), censoring=self._censoring(outcome)
        )
        values = [s.compute(None) for s in case.statistics(Settings(self.horizons)) if s.metric == self.metric]
        return self.sign * float(np.mean(values)) if values else float("nan")

    def _censoring(self, outcome: pd.DataFrame) -> dict[str, np.ndarray] | None:
        """All patients, where those who are scored are few of them."""
        if self.cohort is None or len(outcome) >= SMALLEST_SAMPLE:
            return None
        everybody, place = survival_target(self.cohort, self.task.name), id_places(outcome.index, self.cohort.index)
        scored = survival_target(outcome.set_axis(self.cohort.columns, axis=1), self.task.name)
        known = ~np.isnan(scored["time"])
        if (place < 0).any() or (everybody[place][known] != scored[known]).any():
            return None  # other patients, perhaps under the same row numbers
        return {self.task.name: everybody}
