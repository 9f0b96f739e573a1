"""Predictions and outcomes of one task, brought together: who is scored, in which classes, weighted by which censoring.

A case gives the statistics of its task (:mod:`mmdls.evaluation._statistics`) and the weights of the bootstrap.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task, align_rows, check_target, class_codes, survival_target
from mmdls.evaluation._predict import check_horizons
from mmdls.evaluation._statistics import METRICS, Settings, Statistic, class_statistics, endpoint_statistics
from mmdls.metrics._notes import collected_warnings, warn

__all__ = [
    "SMALLEST_SAMPLE",
    "Case",
    "cases",
    "check_names",
    "check_resampling",
    "known_tasks",
    "make_case",
    "settings_of",
]

# Fewer patients of known outcome, as in a fold, are weighted by the censoring of all patients.
SMALLEST_SAMPLE = 50
_ROUNDED_SUM = 0.01


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
    censoring, reference : structured array, default=None
        Of an endpoint: the patients whose censoring the weights describe, and those whose Kaplan-Meier curve is what
        the index of prediction accuracy compares with.
    clusters : ndarray of shape (n,), default=None
    note : str, default=""
        For the statistics that depend on the weights of censoring.
    """

    task: Task
    outcome: np.ndarray
    predicted: pd.DataFrame
    censoring: np.ndarray | None = None
    reference: np.ndarray | None = None
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
                statistic = replace(statistic, compute=mean, counted=lambda mean=mean: mean.counted, binary=None)
            yield statistic


class _MeanOverFolds:
    """A metric inside folds, averaged over those where it is defined."""

    def __init__(self, names: list[Any], parts: list[Case], statistics: list[Statistic | None]) -> None:
        self.names, self.parts, self.statistics = names, parts, statistics
        self.counted: tuple[int, int] = (0, 0)

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
        self.counted = sum(p.n for p in counted), sum(int(p.is_event.sum()) for p in counted)
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
    tasks = check_target(y, list(predictions))
    clusters = _one_value_a_patient(clusters, y.index, "clusters")
    folds = _one_value_a_patient(folds, y.index, "folds")
    for name, table in predictions.items():
        table = _checked_table(table, name, y.index)
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
            if inside.censoring is not None and inside.n < SMALLEST_SAMPLE:
                inside = replace(inside, censoring=case.censoring)
            if inside.reference is not None and name not in (reference or {}):
                inside = replace(inside, reference=case.reference)
            if inside.n:
                parts.append((label, inside))
        fields = {field: getattr(case, field) for field in Case.__dataclass_fields__}
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
        _risk_and_survival(table, task.name).loc[rows],
        scored,
        training,
        None if groups is None else groups[rows],
    )
    return replace(case, note=_censoring_note(scored, training)) if training is not own and case.n else case


def _known(given: np.ndarray | None, own: np.ndarray) -> np.ndarray:
    """The rows of known outcome among those that were given, else the patients themselves."""
    if given is None:
        return own
    given = given[~np.isnan(given[given.dtype.names[1]])]
    return given if len(given) else own


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
    both = np.concatenate([scored[list(scored.dtype.names)].astype(training.dtype), training])
    event, time = (both[field] for field in training.dtype.names)
    group = np.repeat([0, 1], [len(scored), len(training)])
    with collected_warnings():
        p = metrics.logrank_test(~event.astype(bool), time, group)[1]
    if not p < 0.01:
        return ""
    return (
        f"the scored patients are censored otherwise than the training rows (still observed at {times[place]:.0f} "
        f"months: {first:.0%} and {second:.0%}); weights are those of the scored patients."
    )


def _one_value_a_patient(values: Any, index: pd.Index, name: str) -> pd.Series | None:
    if values is None:
        return None
    if isinstance(values, pd.DataFrame):
        raise TypeError(f"{name} must be a Series or an array of one value a patient; got a DataFrame.")
    return values if isinstance(values, pd.Series) else pd.Series(align_rows(values, index, name), index=index)


def _checked_table(table: Any, name: str, patients: pd.Index) -> pd.DataFrame:
    if isinstance(table, pd.Series):
        table = table.to_frame("risk")
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"predictions of {name!r} must be a Series or a DataFrame with the patients as index; got "
            f"{type(table).__name__}."
        )
    unknown = table.index[~table.index.isin(patients)]
    if len(unknown):
        raise KeyError(f"y lacks {len(unknown)} of the patients predicted for {name!r}, such as {list(unknown[:3])}.")
    repeated = table.index[table.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"predictions of {name!r} hold more than one row for {len(repeated)} patients, such as "
            f"{list(repeated[:3])}; give one prediction a patient. Of repeated cross-validation evaluate each repeat."
        )
    return table


def _risk_and_survival(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Column ``risk``, and columns of survival by months as floats, also where a CSV made texts of them."""
    if "risk" not in table.columns:
        raise ValueError(f"predictions of {name!r} need a column 'risk'; they have {list(table.columns)}.")
    months = {}
    for column in table.columns:
        try:
            value = float(column)
        except (TypeError, ValueError):
            continue
        if isinstance(column, bool) or not np.isfinite(value) or "_" in str(column):
            continue
        if value in months:
            raise ValueError(
                f"predictions of {name!r} hold the survival at {value:g} months twice: columns {months[value]!r} and "
                f"{column!r}. Drop one of them."
            )
        months[value] = column
    times = sorted(months)
    found = table[["risk", *(months[t] for t in times)]].astype(np.float64).set_axis(["risk", *times], axis=1)
    survival = found[times].to_numpy()
    wrong = (survival < -1e-9) | (survival > 1 + 1e-9)
    if wrong.any():
        row = wrong.any(axis=1)
        raise ValueError(
            f"predictions of {name!r} must hold probabilities of being event-free between 0 and 1 at "
            f"{[t for t, bad in zip(times, wrong.any(axis=0), strict=True) if bad][:3]} months; got "
            f"{survival[wrong][:3].tolist()} for the patients {list(table.index[row][:3])}. A column whose name is a "
            "number is read as survival at that month."
        )
    return found


def _class_case(task: Task, table: pd.DataFrame, labels: pd.Series, groups: np.ndarray | None) -> Case:
    classes = _class_order(task, table, labels)
    place = {label: i for i, label in enumerate(map(_plain, table.columns))}
    probability = table.to_numpy()[:, [place[label] for label in classes]].astype(np.float64)
    rows = labels.notna().to_numpy()
    _check_probability(probability[rows], table.index[rows], task.name)
    return Case(
        Task(task.name, task.kind, task.columns, classes),
        class_codes(labels, classes)[rows],
        pd.DataFrame(probability[rows], index=table.index[rows], columns=pd.Index(list(classes), dtype=object)),
        clusters=None if groups is None else groups[rows],
    )


def _class_order(task: Task, table: pd.DataFrame, labels: pd.Series) -> tuple[Any, ...]:
    """The classes in order: that of the task if it has one, else sorted, so that the order of columns means nothing."""
    columns = list(map(_plain, table.columns))
    numbers = {str(c): c for c in columns}
    if len(set(columns)) < len(columns):
        raise ValueError(f"predictions of {task.name!r} have more than one column for a class: {columns}.")
    present = sorted(set(map(_plain, labels.dropna().to_numpy(dtype=object))), key=str)
    missing = [label for label in present if label not in columns]
    if missing or not columns:
        hint = ""
        if missing and all(str(label) in numbers for label in missing):
            hint = (
                f" The names of the columns are of another kind ({type(numbers[str(missing[0])]).__name__}, not "
                f"{type(missing[0]).__name__}), as after a CSV file; rename them."
            )
        raise ValueError(
            f"predictions of {task.name!r} need one column of probabilities a class, {list(task.classes or present)}; "
            f"they have {columns}.{hint}"
        )
    ordered = tuple(label for label in task.classes if label in columns)
    if task.kind == "ordinal":
        unplaced = [label for label in columns if label not in ordered]
        if unplaced:
            raise ValueError(
                f"predictions of {task.name!r} have the classes {unplaced}, whose place in the order "
                f"{list(task.classes)} is not known; give y the ordered categories of the model."
            )
        return ordered
    try:
        return tuple(sorted(columns))
    except TypeError:
        return tuple(columns)


def _check_probability(probability: np.ndarray, patients: pd.Index, name: str) -> None:
    bad = ~np.isfinite(probability).all(axis=1)
    what = "are NaN or infinite"
    if not bad.any():
        bad = ((probability < -1e-9) | (probability > 1 + 1e-9)).any(axis=1)
        what = "are no probabilities between 0 and 1"
    if not bad.any():
        bad = np.abs(probability.sum(axis=1) - 1) > _ROUNDED_SUM
        what = "do not sum to 1"
    if bad.any():
        raise ValueError(
            f"predictions of {name!r} {what} for {int(bad.sum())} patients, such as {list(patients[bad][:3])}: "
            f"{probability[bad][:2].round(4).tolist()}. Give the probability of every class, as predict_proba does."
        )


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def settings_of(horizons: Any, thresholds: Any = (), tau: Any = None) -> Settings:
    """Horizons, thresholds and tau, refused by name where they cannot be right."""
    if isinstance(thresholds, str | bytes) or np.ndim(thresholds) != 1:
        raise TypeError(f"thresholds must be a sequence of risks, such as thresholds=(0.2,); got {thresholds!r}.")
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds must be risks above 0 and below 1; got {list(thresholds)}.")
    if tau is not None and not (np.isfinite(tau) and tau > 0):
        raise ValueError(f"tau must be months above 0, or None; got {tau!r}.")
    return Settings(check_horizons(horizons), tuple(map(float, thresholds)), tau)


def check_resampling(n_resamples: Any, level: Any, stratify: bool, clusters: Any) -> None:
    """Refuse what cannot be drawn, by name."""
    if not isinstance(n_resamples, int | np.integer) or isinstance(n_resamples, bool) or n_resamples < 0:
        raise ValueError(f"n_resamples must be a whole number of 0 or more; got {n_resamples!r}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie above 0 and below 1, such as 0.95; got {level!r}.")
    if stratify and clusters is not None:
        raise ValueError(
            "stratify=True keeps the number of events in every resample, clusters= draws whole clusters; both at once "
            "is not possible. Choose one."
        )


def check_names(asked: Sequence[str] | None) -> None:
    """Refuse what is no name of a metric."""
    if asked is None:
        return
    if isinstance(asked, str):
        raise TypeError(f"metrics must be a sequence of names, such as metrics=[{asked!r}]; got the text {asked!r}.")
    unknown = [name for name in asked if name not in METRICS and not str(name).startswith(("auc_", "net_benefit_"))]
    if unknown:
        close = get_close_matches(str(unknown[0]), METRICS, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"metrics names {unknown}, which are no metrics.{hint} Known: {', '.join(METRICS)}.")
