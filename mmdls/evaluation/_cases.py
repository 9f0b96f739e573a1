"""One task of an evaluation: its outcomes, its predictions, and the patients that estimate the censoring weights.

A :class:`Case` computes the statistics of its task and draws bootstrap weights.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task, align_rows, check_target
from mmdls.evaluation._checks import checked_table, one_value_a_patient
from mmdls.metrics._notes import collected_warnings, warn
from mmdls.tasks import Case, Settings, Statistic

__all__ = ["SMALLEST_SAMPLE", "cases", "known_tasks", "make_case"]

# With fewer patients of known outcome, as in a small fold, the censoring weights come from all patients.
SMALLEST_SAMPLE = 50


@dataclass(frozen=True)
class FoldedCase(Case):
    """Out-of-fold predictions: a metric is its mean over folds, weighted by the number of patients, or pools them."""

    folds: tuple[tuple[Any, Case], ...] = ()

    @property
    def parts(self) -> list[Case]:
        """One case a fold."""
        return [case for _, case in self.folds]

    def statistics(self, settings: Settings) -> Iterator[Statistic]:
        """The metrics of the task, each averaged over folds, or of all folds together."""
        fold = np.repeat(np.arange(len(self.parts)), [part.n for part in self.parts])
        inside = [{s.key: s for s in case.statistics(settings)} for case in self.parts]
        for statistic in super().statistics(settings):
            if statistic.pooled is not None:
                statistic = replace(statistic, compute=statistic.pooled(fold))
            elif statistic.resampled:
                known = [statistics.get(statistic.key) for statistics in inside]
                mean = _MeanOverFolds([name for name, _ in self.folds], self.parts, known)
                statistic = replace(statistic, compute=mean, counted=mean.counted, binary=None)
            yield statistic


class _MeanOverFolds:
    """The mean of a metric over the folds in which it is defined."""

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
    """One case a predicted task; a task without any known outcome in ``y`` is left out with a warning.

    Parameters
    ----------
    known : mapping of str to Task, default=None
        Tasks with the classes of the model.
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
        fold = None if folds is None else _folds_of(folds, table.index)
        if fold is not None:
            table = table.loc[fold.index]
        case = make_case(task, table, y, reference=reference, censoring=censoring, clusters=clusters)
        if not case.n:
            warnings.warn(
                f"no outcome of {name!r} is known for any of the {len(table)} patients; it is left out.", stacklevel=4
            )
            continue
        if fold is None:
            yield case
            continue
        parts = []
        for label, part in table.groupby(fold, sort=True):
            inside = make_case(task, part, y, reference=reference, censoring=censoring, clusters=clusters)
            if inside.n < SMALLEST_SAMPLE:
                inside = replace(inside, censoring=case.censoring)
            if name not in (reference or {}):
                inside = replace(inside, reference=case.reference)
            if inside.n:
                parts.append((label, inside))
        fields = {name: getattr(case, name) for name in Case.__dataclass_fields__}
        yield FoldedCase(**fields, folds=tuple(parts))


def _folds_of(folds: pd.Series, patients: pd.Index) -> pd.Series:
    """The fold of each patient, sorted by fold."""
    fold = align_rows(folds, patients, "folds")
    if fold.isna().any():
        raise ValueError(
            f"folds is missing for {int(fold.isna().sum())} patients, such as {list(fold.index[fold.isna()][:3])}; "
            "give the fold in which each predicted patient was left out."
        )
    return fold.sort_values(kind="stable")


def known_tasks(y: pd.DataFrame) -> dict[str, Task]:
    """The tasks with at least one known outcome in y; all tasks if there is none."""
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
    """The case of one task; ``table`` has the columns that :func:`evaluate_predictions` reads."""
    y = y.loc[table.index, list(task.columns)]
    groups = None if clusters is None else align_rows(clusters, table.index, "clusters").to_numpy()
    task, predicted = task.read_predictions(table, y)
    outcome = task.outcome(y)
    rows = task.known(outcome)
    own = outcome[rows]
    case = Case(task, own, predicted.loc[rows], clusters=None if groups is None else groups[rows])
    if not task.is_censored:
        return case
    scored, training = (_known(task, (given or {}).get(task.name), own) for given in (censoring, reference))
    case = replace(case, censoring=scored, reference=training)
    return replace(case, note=_censoring_note(task, scored, training)) if training is not own and case.n else case


def _known(task: Task, given: np.ndarray | None, own: np.ndarray) -> np.ndarray:
    """The given rows whose outcome is known; the scored patients if nothing was given."""
    if given is None:
        return own
    known = np.empty(len(given), dtype=own.dtype)
    fields = own.dtype.names or ()
    for field, theirs in zip(fields, given.dtype.names or fields, strict=True):
        known[field] = given[theirs]
    known = known[task.known(known)]
    return known if len(known) else own


def _censoring_note(task: Task, scored: np.ndarray, training: np.ndarray) -> str:
    """A note if two censoring distributions differ: significantly (p < 0.01) and by at least 0.1 at some time."""
    if not len(scored) or not len(training):
        return ""
    scored, training = (_any_event(task, rows) for rows in (scored, training))
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


def _any_event(task: Task, outcome: np.ndarray) -> np.ndarray:
    """Event of any kind and time as a structured array, to describe the censoring."""
    both = np.empty(len(outcome), dtype=[("event", bool), ("time", np.float64)])
    both["event"], both["time"] = task.is_event(outcome), outcome["time"]
    return both
