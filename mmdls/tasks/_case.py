"""What the metrics of every kind of task are computed from, and what a metric is."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task
from mmdls.metrics._notes import collected_warnings, warn

__all__ = ["NO_HORIZON", "Case", "Settings", "Shared", "Statistic", "guarded", "noted"]

NO_HORIZON = float("nan")


@dataclass(frozen=True)
class Settings:
    """What is asked of an evaluation.

    Parameters
    ----------
    horizons : tuple of float, default=()
        Months.
    thresholds : tuple of float, default=()
        Risks at which the net benefit is computed.
    tau : float, default=None
        Months up to which Uno's C counts events.

    Examples
    --------
    >>> Settings(horizons=(12, 36), tau=60).horizons
    (12, 36)
    """

    horizons: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    tau: float | None = None


@dataclass(frozen=True)
class Statistic:
    """One metric of one task.

    Parameters
    ----------
    metric : str
    horizon : float
        Months; NaN for a metric without one.
    compute : callable
        Maps weights (R, n) to values (R,), or None to one value.
    binary : (labels, scores), default=None
        For DeLong's test, where it applies.
    resampled : bool, default=True
        False for a p-value.
    counted : callable, default=None
        Returns the numbers of patients and events in the latest value; None means all of the case.
    pooled : callable, default=None
        For a metric of probabilities that one fold is too small for: maps the fold of each patient (n,) to ``compute``
        over all folds. None averages the values of the folds.
    is_distance : bool, default=False
        True for a metric that is never negative and grows by resampling.
    note : str, default=""

    Examples
    --------
    >>> correct = np.array([1.0, 0.0, 1.0, 1.0])
    >>> accuracy = Statistic("accuracy", float("nan"), lambda weights: float(np.average(correct, weights=weights)))
    >>> accuracy.compute(None), accuracy.compute([1, 1, 0, 0]), accuracy.key
    (0.75, 0.5, ('accuracy', 'nan'))
    """

    metric: str
    horizon: float
    compute: Callable[[Any], Any]
    binary: tuple[np.ndarray, np.ndarray] | None = None
    resampled: bool = True
    counted: Callable[[], tuple[int, int]] | None = None
    pooled: Callable[[np.ndarray], Callable[[Any], Any]] | None = None
    is_distance: bool = False
    note: str = ""

    def as_distance(self) -> "Statistic":
        """The same for a calibration error: never negative, and computed over all folds at once."""
        return replace(self, pooled=lambda fold: self.compute, is_distance=True)

    @property
    def key(self) -> tuple[str, str]:
        """Metric and horizon, by which the statistics of two models are matched."""
        return self.metric, f"{self.horizon:g}"


@dataclass(frozen=True)
class Case:
    """Outcomes and predictions of one task, for the patients whose outcome is known.

    Parameters
    ----------
    task : Task
        With the classes in the order of the model.
    outcome : ndarray of shape (n,)
        As :meth:`Task.outcome` gives it.
    predicted : pandas.DataFrame of shape (n, n_columns)
        As :meth:`Task.read_predictions` gives it.
    censoring, reference : structured array of shape (n_rows,), default=()
        Of a censored outcome: the patients on whom the censoring weights are estimated, and those whose mean curve is
        the reference of the index of prediction accuracy.
    clusters : ndarray of shape (n,), default=None
    note : str, default=""
        Added to the statistics that depend on censoring weights.

    Examples
    --------
    >>> from mmdls.cohort import find_tasks
    >>> y = pd.DataFrame({"os_time": [3.0, 9.0, 20.0], "os_event": [1, 1, 0]})
    >>> task = find_tasks(y)["os"]
    >>> predicted = pd.DataFrame({"risk": [2.0, 1.0, 0.0]})
    >>> case = Case(task, task.outcome(y), predicted, censoring=task.outcome(y), reference=task.outcome(y))
    >>> {each.metric: round(float(each.compute(None)), 3) for each in case.statistics(Settings())}
    {'concordance_index': 1.0, 'concordance_index_ipcw': 1.0}
    """

    task: Task
    outcome: np.ndarray
    predicted: pd.DataFrame
    censoring: np.ndarray = field(default_factory=lambda: np.empty(0))
    reference: np.ndarray = field(default_factory=lambda: np.empty(0))
    clusters: np.ndarray | None = None
    note: str = ""

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.outcome)

    @property
    def is_event(self) -> np.ndarray:
        """True for an event, or for a class other than the first, (n,)."""
        return self.task.is_event(self.outcome)

    @property
    def parts(self) -> list["Case"]:
        """The cases over which a metric is averaged; without folds the case itself."""
        return [self]

    def weights(self, n_resamples: int, stratify: bool, random_state: Any) -> np.ndarray:
        """Bootstrap weights (n_resamples, n), with the number of events or of each class kept if stratified."""
        return metrics.bootstrap_weights(
            self.n,
            n_resamples,
            strata=self.task.strata(self.outcome) if stratify else None,
            clusters=self.clusters,
            random_state=random_state,
        )

    def statistics(self, settings: Settings) -> Iterator[Statistic]:
        """The metrics of the task, each as a function of patient weights."""
        return self.task.statistics(self, settings)


def noted(compute: Callable[[], Any]) -> tuple[Any, str]:
    """The result, and the warnings that it raised as a note."""
    with collected_warnings() as found:
        result = compute()
    return result, "; ".join(dict.fromkeys(str(warning).rstrip(".") for warning in found))


class Shared:
    """Cache of a function of patient weights that several rows of a table need, with its warnings."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute
        self.answers: deque[tuple[Any, Any, list[Warning]]] = deque(maxlen=2)

    def __call__(self, weights: Any) -> Any:
        found = next((entry for entry in self.answers if entry[0] is weights), None)
        if found is None:
            with collected_warnings() as caught:
                answer = self.compute(weights)
            found = (weights, answer, list(caught))
            self.answers.append(found)
        for message in found[2]:
            warn(str(message), type(message))
        return found[1]


def guarded(survival: np.ndarray, horizon: float, compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``compute``, or NaN with a warning if the curve of a patient ends before the horizon."""
    n_short = int(np.isnan(survival).sum())
    if not n_short:
        return compute

    def undefined(weights: Any) -> Any:
        if weights is not None:
            return np.full(len(weights), np.nan)
        warn(
            f"the predicted curves of {n_short} patients end before {horizon:g} months.", metrics.UndefinedMetricWarning
        )
        return float("nan")

    return undefined
