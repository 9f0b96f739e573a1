"""Metrics as scorers of scikit-learn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task, align_rows, find_tasks, id_places
from mmdls.evaluation._cases import SMALLEST_SAMPLE, make_case
from mmdls.evaluation._predict import HORIZONS, check_horizons, outcome_of, predict_task, time_grid, training_outcomes
from mmdls.tasks import Settings

__all__ = ["Scorer", "make_scorers"]


def make_scorers(
    y: pd.DataFrame, *, horizons: Sequence[float] = HORIZONS
) -> dict[str, Callable[[Any, Any, Any], float]]:
    """Scorers for the tasks of ``y``, for ``scoring=`` of scikit-learn's ``cross_validate`` and searches.

    Higher is better for all of them: losses are negative, as in scikit-learn's ``neg_*`` scorers. An undefined score
    is NaN. Censoring weights are estimated on the scored rows; if these are fewer than 50, as in cross-validation of a
    small cohort, on all patients of ``y``. The index of prediction accuracy compares with the Kaplan-Meier curve of the
    training outcomes (``training_outcomes_`` of the fitted estimator), or of the scored rows if the estimator keeps
    none. Rows of a table or a Series are joined by patient id.

    Parameters
    ----------
    y : pandas.DataFrame
        Outcomes of the cohort, whose columns name the tasks.
    horizons : sequence of float, default=(12, 36, 60)
        Months of the time-dependent AUC; Brier scores are integrated up to the last.

    Returns
    -------
    dict of str to callable
        The names are ``<task>_<metric>``, with the names of metrics in the table of :func:`mmdls.evaluation.evaluate`.
        Class tasks: ``auc``, ``log_loss``, ``brier_score``, and ``quadratic_weighted_kappa`` if the classes are
        ordered. Endpoints: ``concordance_index``, ``concordance_index_ipcw``, ``cumulative_dynamic_auc`` (mean over
        horizons), ``integrated_brier_score``, ``integrated_ipa``.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUAD", "LUSC"], "os_time": [3.0, 9.0], "os_event": [1, 0]})
    >>> sorted(make_scorers(y))[:4]
    ['os_concordance_index', 'os_concordance_index_ipcw', 'os_cumulative_dynamic_auc', 'os_integrated_brier_score']
    """
    horizons = check_horizons(horizons)
    scorers: dict[str, Callable[[Any, Any, Any], float]] = {}
    for task in find_tasks(y).values():
        cohort = y[list(task.columns)].copy() if task.is_censored else None
        for metric in task.scores:
            scorers[f"{task.name}_{metric}"] = Scorer(task, metric, horizons, cohort)
    return scorers


@dataclass(frozen=True)
class Scorer:
    """One metric of one task as a callable ``(estimator, X, y) -> float``; see :func:`make_scorers`."""

    task: Task
    metric: str
    horizons: tuple[float, ...]
    cohort: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score a fitted estimator; higher is better."""
        sign, needs_curves = self.task.scores[self.metric]
        times = time_grid(self.horizons) if needs_curves else np.array([])
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
        return sign * float(np.mean(values)) if values else float("nan")

    def _censoring(self, outcome: pd.DataFrame) -> dict[str, np.ndarray] | None:
        """All patients, where those who are scored are few of them."""
        if self.cohort is None or len(outcome) >= SMALLEST_SAMPLE:
            return None
        everybody, place = self.task.outcome(self.cohort), id_places(outcome.index, self.cohort.index)
        scored = self.task.outcome(outcome.set_axis(self.cohort.columns, axis=1))
        known = self.task.known(scored)
        if (place < 0).any() or (everybody[place][known] != scored[known]).any():
            return None  # other patients, perhaps under the same row numbers
        return {self.task.name: everybody}
