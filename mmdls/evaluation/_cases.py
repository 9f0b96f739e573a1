"""Predictions and outcomes of one task, brought together: who is scored, in which classes, weighted by which censoring.

A case gives the statistics of its task (:mod:`mmdls.evaluation._statistics`) and the weights of the bootstrap.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task, align_rows, check_target, class_codes, survival_target
from mmdls.evaluation._checks import (
    check_probability,
    checked_table,
    class_probabilities,
    one_value_a_patient,
    risk_and_survival,
)
from mmdls.evaluation._statistics import Settings, Statistic, class_statistics, endpoint_statistics
from mmdls.metrics._notes import collected_warnings, warn

__all__ = ["SMALLEST_SAMPLE", "Case", "cases", "known_tasks", "make_case"]

# Fewer patients of known outcome, as in a fold, are weighted by the censoring of all patients.
SMALLEST_SAMPLE = 50


@dataclass(frozen=True)
class Case:
    """The patients of known outcome of one task, and what was predicted for them.

    Parameters
    ----------
    task : Task
        As the model knows it: its classes in order.
    outcome : structured array of shape (n,) or int array of shape (n,)
        Event and time (months), or the column of each patient's class.
    predicted : pandas.DataFrame of shape (n, n_columns)
        ``risk`` and survival at months, or one column of probabilities a class.
    censoring, reference : structured array, default=()
        Of an endpoint: the patients whose censoring the weights describe, and those whose Kaplan-Meier curve is what
        the index of prediction accuracy compares with.
    clusters : ndarray of shape (n,), default=None
    note : str, default=""
        For the statistics that depend on the weights of censoring.
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
        """Who had the event, or is outside the first class."""
        return self.outcome["event"] if self.outcome.dtype.names else self.outcome > 0

    @property
    def parts(self) -> list["Case"]:
        """The cases in which a metric is computed before it is averaged."""
        return [self]

    def weights(self, n_resamples: int, stratify: bool, random_state: Any) -> np.ndarray:
        """Bootstrap weights (n_resamples, n), with the number of events or of each class kept if stratified."""
        strata = self.outcome["event"] if self.outcome.dtype.names else self.outcome
        return metrics.bootstrap_weights(
            self.n,
            n_resamples,
            strata=strata if stratify else None,
            clusters=self.clusters,
            random_state=random_state,
        )

    def statistics(self, settings: Settings) -> Iterator[Statistic]:
        """Every metric of the task as a function of patient weights."""
        make = endpoint_statistics if self.outcome.dtype.names else class_statistics
        return make(self, settings)


@dataclass(frozen=True)
class FoldedCase(Case):
    """Patients who were left out of one model a fold: metrics are means over folds, by number of patients."""

    folds: tuple[tuple[Any, Case], ...] = ()

    @property
    def parts(self) -> list[Case]:
        """One case a fold."""
        return [case for _, case in self.folds]

    def statistics(self, settings: Settings) -> Iterator[Statistic]:
        """As without folds, each computed inside the folds."""
        inside = [{s.key: s for s in case.statistics(settings)} for case in self.parts]
        for statistic in super().statistics(settings):
            if statistic.resampled:
                known = [statistics.get(statistic.key) for statistics in inside]
                mean = _MeanOverFolds([name for name, _ in self.folds], self.parts, known)
                statistic = replace(statistic, compute=mean, counted=mean.counted, binary=None)
            yield statistic


class _MeanOverFolds:
    """A metric inside folds, averaged over those where it is defined."""

    def __init__(self, names: list[Any], parts: list[Case], statistics: list[Statistic | None]) -> None:
        self.names, self.parts, self.statistics = names, parts, statistics
        self._counted = 0, 0

    def counted(self) -> tuple[int, int]:
        """Patients and events of the folds where the latest value is defined."""
        return self._counted

    def __call__(self, weights: Any) -> Any:
        values, sizes, start = [], [], 0
        for part, statistic in zip(self.parts, self.statistics, strict=True):
            own = None if weights is None else weights[:, start : start + part.n]
            start += part.n
            missing = np.nan if weights is None else np.full(len(weights), np.nan)
            value = np.asarray(missing if statistic is None else statistic.compute(own), dtype=np.float64)
            values.append(np.nan_to_num(value))
            sizes.append(part.n * ~np.isnan(value))
        total = np.sum(sizes, axis=0)
        with np.errstate(invalid="ignore"):
            mean = np.sum(np.multiply(values, sizes), axis=0) / total
        if weights is not None:
            return mean
        used = [bool(size) for size in sizes]
        counted = [part for part, here in zip(self.parts, used, strict=True) if here]
        self._counted = sum(p.n for p in counted), sum(int(p.is_event.sum()) for p in counted)
        lost = [str(name) for name, here in zip(self.names, used, strict=True) if not here]
        if lost and counted:
            warn(
                f"undefined in {len(lost)} of {len(used)} folds ({', '.join(lost[:5])}{', ...' if lost[5:] else ''}), "
                "which are left out of the mean."
            )
        return float(mean)


def cases(
    predictions: Mapping[str, Any],
    y: pd.DataFrame,
    *,
    reference: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    clusters: Any = None,
    folds: Any = None,
    known: Mapping[str, Task] | None = None,
) -> Iterator[Case]:
    """One case a predicted task; a task of which ``y`` knows no outcome is left out with a warning.

    Parameters
    ----------
    known : mapping of str to Task, default=None
        Tasks as the model knows them.
    """
    if not isinstance(predictions, Mapping):
        raise TypeError(
            f"predictions must be a dict with a table for each task, such as {{'os': risks}}; got "
            f"{type(predictions).__name__}."
        )
    tasks = check_target(y, list(predictions))
    clusters = one_value_a_patient(clusters, y.index, "clusters")
    folds = one_value_a_patient(folds, y.index, "folds")
    for name, table in predictions.items():
        table = checked_table(table, name, y.index)
        task = (known or {}).get(name, tasks[name])
        case = make_case(task, table, y, reference=reference, censoring=censoring, clusters=clusters)
        if not case.n:
            warnings.warn(
                f"no outcome of {name!r} is known for any of the {len(table)} patients; it is left out.", stacklevel=4
            )
            continue
        if folds is None:
            yield case
            continue
        fold = align_rows(folds, table.index, "folds")
        if fold.isna().any():
            raise ValueError(
                f"folds is missing for {int(fold.isna().sum())} patients, such as {list(fold.index[fold.isna()][:3])}; "
                "give the fold in which each predicted patient was left out."
            )
        table = table.loc[fold.sort_values(kind="stable").index]
        case = make_case(task, table, y, reference=reference, censoring=censoring, clusters=clusters)
        parts = []
        for label, part in table.groupby(fold.loc[table.index], sort=True):
            inside = make_case(task, part, y, reference=reference, censoring=censoring, clusters=clusters)
            if inside.n < SMALLEST_SAMPLE:
                inside = replace(inside, censoring=case.censoring)
            if name not in (reference or {}):
                inside = replace(inside, reference=case.reference)
            if inside.n:
                parts.append((label, inside))
        fields = {name: getattr(case, name) for name in Case.__dataclass_fields__}
        yield FoldedCase(**fields, folds=tuple(parts))


def known_tasks(y: pd.DataFrame) -> dict[str, Task]:
    """The tasks of which y knows at least one outcome, else all of them."""
    tasks = check_target(y)
    known = {name: task for name, task in tasks.items() if y[task.columns[0]].notna().any()}
    return known or tasks


def make_case(
    task: Task,
    table: pd.DataFrame,
    y: pd.DataFrame,
    *,
    reference: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    clusters: pd.Series | None = None,
) -> Case:
    """Predictions of one task (columns as :func:`evaluate_predictions` wants them) and what became of the patients."""
    y = y.loc[table.index, list(task.columns)]
    groups = None if clusters is None else align_rows(clusters, table.index, "clusters").to_numpy()
    if len(task.columns) == 1:
        return _class_case(task, table, y[task.name], groups)
    outcome = survival_target(y, task.name)
    rows = ~np.isnan(outcome["time"])
    own = outcome[rows]
    scored, training = (_known((given or {}).get(task.name), own) for given in (censoring, reference))
    case = Case(
        task,
        own,
        risk_and_survival(table, task.name).loc[rows],
        scored,
        training,
        None if groups is None else groups[rows],
    )
    return replace(case, note=_censoring_note(scored, training)) if training is not own and case.n else case


def _known(given: np.ndarray | None, own: np.ndarray) -> np.ndarray:
    """The rows of known outcome among those that were given, else the patients themselves."""
    if given is None:
        return own
    event, time = given.dtype.names or ("event", "time")
    known = np.empty(len(given), dtype=own.dtype)
    known["event"], known["time"] = given[event], given[time]
    known = known[~np.isnan(known["time"])]
    return known if len(known) else own


def _censoring_note(scored: np.ndarray, training: np.ndarray) -> str:
    """Says where two censoring distributions differ clearly: beyond chance, and by a tenth of all patients."""
    if not len(scored) or not len(training):
        return ""
    curves = [metrics.CensoringDistribution(rows) for rows in (scored, training)]
    end = min(curve.last for curve in curves)
    times = np.union1d(curves[0].times, curves[1].times)
    times = times[times <= end]
    if not len(times):
        return ""
    values = [metrics.step_values(curve.times, curve.observed, times) for curve in curves]
    place = int(np.abs(values[0] - values[1]).argmax())
    first, second = float(values[0][place]), float(values[1][place])
    if abs(first - second) < 0.1:
        return ""
    both = np.concatenate([scored, training])
    group = np.repeat([0, 1], [len(scored), len(training)])
    with collected_warnings():
        p = metrics.logrank_test(~both["event"], both["time"], group)[1]
    if not p < 0.01:
        return ""
    return (
        f"the censoring of the scored patients differs from that of the training rows (still observed at "
        f"{times[place]:.0f} months: {first:.0%} and {second:.0%}); the weights are those of the scored patients"
    )


def _class_case(task: Task, table: pd.DataFrame, labels: pd.Series, groups: np.ndarray | None) -> Case:
    classes, probability = class_probabilities(task, table, labels)
    rows = labels.notna().to_numpy()
    check_probability(probability[rows], table.index[rows], task.name)
    return Case(
        replace(task, classes=classes),
        class_codes(labels, classes)[rows],
        pd.DataFrame(probability[rows], index=table.index[rows], columns=pd.Index(list(classes), dtype=object)),
        clusters=None if groups is None else groups[rows],
    )
