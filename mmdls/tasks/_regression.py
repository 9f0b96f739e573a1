"""Numbers to predict, such as a lung function or a tumour volume."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task
from mmdls.registry import regression_heads, tasks
from mmdls.tasks._association import linear_association
from mmdls.tasks._case import NO_HORIZON, Case, Settings, Statistic
from mmdls.tasks._figures import Figure, FigureSettings

__all__ = ["RegressionTask"]

_METRICS = {
    "r2": metrics.r2_score,
    "mean_absolute_error": metrics.mean_absolute_error,
    "root_mean_squared_error": metrics.root_mean_squared_error,
    "spearman_correlation": metrics.spearman_correlation,
}


@tasks.register("regression")
@dataclass(frozen=True)
class RegressionTask(Task):
    """A number: a column ``<name>_value`` in any unit.

    Outcomes are numbers, NaN = unknown. The head learns and predicts them standardised by the mean and the standard
    deviation of the training rows; predictions are in the unit of the column.

    Parameters
    ----------
    name, columns, classes
        As in :class:`mmdls.cohort.Task`.
    mean, std : float, default=0.0 and 1.0
        Of the training rows; :meth:`learnable` finds them.

    Examples
    --------
    >>> y = pd.DataFrame({"fev1_value": [2.0, 3.0, 4.0]})
    >>> (task,) = RegressionTask.find(y)
    >>> task.name, task.learnable(y).mean, task.outcome(y).tolist()
    ('fev1', 3.0, [2.0, 3.0, 4.0])
    """

    mean: float = 0.0
    std: float = 1.0

    kind = "regression"
    suffixes = ("value",)
    about = "number"
    estimator_type = "regressor"
    heads = regression_heads
    default_head = "regression"
    main_metric = "r2"
    chance_level = 0.0
    compared_metrics = ("r2", "mean_absolute_error")
    metrics = tuple(_METRICS)
    scores = {
        "r2": (1, False),
        "mean_absolute_error": (-1, False),
        "root_mean_squared_error": (-1, False),
        "spearman_correlation": (1, False),
    }

    def check(self, y: pd.DataFrame) -> None:
        """Refuse texts, dates, booleans and infinite numbers."""
        column = y[self.columns[0]]
        found = pd.api.types.infer_dtype(column, skipna=True)
        if found not in ("floating", "integer", "mixed-integer-float", "decimal", "empty"):
            known = column.dropna()
            raise TypeError(
                f"{column.name!r} must hold numbers, NaN if unknown; got {found} such as {known.iloc[0]!r}. Convert "
                "them, for example with pandas.to_numeric; labels need a column whose name does not end in '_value'."
            )
        super().check(y)

    def learnable(self, y: pd.DataFrame) -> "RegressionTask":
        """The task with the mean and the standard deviation of these patients; refuse a constant."""
        super().learnable(y)
        values = self.outcome(y)
        values = values[self.known(values)]
        return replace(self, mean=float(values.mean()), std=float(values.std()))

    def targets(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """Standardised values."""
        return ((outcome - self.mean) / self.std,)

    def predictions(self, head: Any, answers: Any, times: np.ndarray, end: float) -> pd.DataFrame:
        """``value``, in the unit of the column."""
        return pd.DataFrame({"value": head.value(answers).double().numpy() * self.std + self.mean})

    def score(self, outcome: np.ndarray, predictions: pd.DataFrame) -> float:
        """Spearman's rank correlation, from 0 = reversed over 0.5 = none to 1 = the same order."""
        return (1 + float(metrics.spearman_correlation(outcome, predictions["value"].to_numpy()))) / 2

    def statistics(self, case: Case, settings: Settings) -> Iterator[Statistic]:
        """Fraction of explained variance, errors in the unit of the column, and rank correlation."""
        y_true, y_pred = case.outcome, case.predicted["value"].to_numpy()
        for name, function in _METRICS.items():

            def compute(weights: Any, function: Any = function) -> Any:
                return function(y_true, y_pred, weights)

            yield Statistic(name, NO_HORIZON, compute)

    def figures(
        self, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: FigureSettings
    ) -> Iterator[Figure]:
        """Observed against predicted values."""
        values = {model: table["value"].to_numpy() for model, table in predictions.items()}
        caption = f"{settings.label(self.name)}, observed against predicted, with R2."
        yield Figure("predicted_observed", (outcome, values), caption, settings.bootstrap)

    def association(self, outcome: np.ndarray, scores: Sequence[pd.DataFrame]) -> tuple[float, np.ndarray]:
        """Linear regression on the predicted values."""
        return linear_association(outcome, np.column_stack([table["value"].to_numpy() for table in scores]))
