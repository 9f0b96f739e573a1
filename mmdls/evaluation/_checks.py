"""Checks of predictions and of the arguments of an evaluation: read by name, refused where they cannot be right."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from mmdls._hints import did_you_mean
from mmdls.cohort import align_rows, find_tasks, id_places
from mmdls.cohort._classes import plain_value
from mmdls.evaluation._predict import check_horizons
from mmdls.registry import tasks
from mmdls.tasks import Settings

__all__ = [
    "check_found",
    "check_level",
    "check_names",
    "check_resampling",
    "checked_table",
    "one_value_a_patient",
    "paired",
    "settings_of",
    "warn_of_late_horizons",
]


def checked_table(table: Any, name: str, patients: pd.Index) -> pd.DataFrame:
    """Predictions of one task as a table, one row a patient, indexed by the ids of ``patients``."""
    if isinstance(table, pd.Series):
        table = table.to_frame("risk")
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"predictions of {name!r} must be a Series or a DataFrame with the patients as index; got "
            f"{type(table).__name__}."
        )
    place = id_places(table.index, patients)
    unknown = table.index[place < 0]
    if len(unknown):
        raise KeyError(f"y lacks {len(unknown)} of the patients predicted for {name!r}, such as {list(unknown[:3])}.")
    repeated = table.index[table.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"predictions of {name!r} hold more than one row for {len(repeated)} patients, such as "
            f"{list(repeated[:3])}; give one prediction a patient. For repeated cross-validation use evaluate_repeats."
        )
    return table.set_axis(patients[place], axis=0)


def one_value_a_patient(values: Any, index: pd.Index, name: str) -> pd.Series | None:
    """Folds or clusters as a Series, indexed by patient id; an array has the rows of ``y``."""
    if values is None:
        return None
    if isinstance(values, pd.DataFrame):
        raise TypeError(f"{name} must be a Series or an array of one value a patient; got a DataFrame.")
    return values if isinstance(values, pd.Series) else pd.Series(align_rows(values, index, name), index=index)


def settings_of(horizons: Any, thresholds: Any = (), tau: Any = None) -> Settings:
    """Horizons, thresholds and tau as checked :class:`Settings`."""
    if isinstance(thresholds, str | bytes) or np.ndim(thresholds) != 1:
        raise TypeError(f"thresholds must be a sequence of risks, such as thresholds=(0.2,); got {thresholds!r}.")
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds must be risks above 0 and below 1; got {list(thresholds)}.")
    if tau is not None and not (np.isfinite(tau) and tau > 0):
        raise ValueError(f"tau must be months above 0, or None; got {tau!r}.")
    return Settings(check_horizons(horizons), tuple(dict.fromkeys(map(float, thresholds))), tau)


def warn_of_late_horizons(horizons: Any, y: pd.DataFrame, stacklevel: int = 3) -> None:
    """Warn if all horizons lie beyond the follow-up of everybody, as days among months do."""
    months = settings_of(horizons).horizons
    outcomes = [task.outcome(y) for task in find_tasks(y).values() if task.is_censored]
    times = [outcome["time"] for outcome in outcomes if "time" in (outcome.dtype.names or ())]
    last = max((np.nanmax(each) for each in times if not np.isnan(each).all()), default=np.inf)
    if months and min(months) > last:
        warnings.warn(
            f"all horizons, {[float(f'{month:g}') for month in months]}, lie beyond the longest follow-up, {last:.1f} "
            "months, so that nothing can be said of them. Horizons are months; 365 days are 12.",
            stacklevel=stacklevel,
        )


def check_level(confidence_level: Any) -> None:
    """Check the level of an interval."""
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must lie above 0 and below 1, such as 0.95; got {confidence_level!r}.")


def check_resampling(n_resamples: Any, confidence_level: Any, stratify: bool, clusters: Any) -> None:
    """Check the arguments of the bootstrap."""
    if not isinstance(n_resamples, int | np.integer) or isinstance(n_resamples, bool) or n_resamples < 0:
        raise ValueError(f"n_resamples must be a whole number of 0 or more; got {n_resamples!r}.")
    check_level(confidence_level)
    if stratify and clusters is not None:
        raise ValueError(
            "stratify=True keeps the number of events in every resample, clusters= draws whole clusters; both at once "
            "is not possible. Choose one."
        )


def metric_names() -> list[str]:
    """The metrics of every kind of task, each once; those of single classes and thresholds are not among them."""
    return list(dict.fromkeys(metric for kind in tasks.available().values() for metric in kind.metrics))


def check_names(asked: Sequence[str] | None) -> None:
    """Refuse unknown names of metrics."""
    if asked is None:
        return
    if isinstance(asked, str):
        raise TypeError(f"metrics must be a sequence of names, such as metrics=[{asked!r}]; got the text {asked!r}.")
    known = metric_names()
    unknown = [name for name in asked if name not in known and not str(name).startswith(("auc_", "net_benefit_"))]
    if unknown:
        shown = list(dict.fromkeys(re.sub(r"_cause\d+$", "_cause<cause>", name) for name in known))
        hint = did_you_mean(unknown[0], shown)
        raise ValueError(f"metrics names {unknown}, which are no metrics.{hint} Known: {', '.join(shown)}.")


def check_found(asked: Sequence[str] | None, found: Iterable[str], stacklevel: int = 3) -> None:
    """Refuse metrics of an unknown class or threshold, and a list of which no metric was computed; warn of some."""
    if asked is None:
        return
    found = sorted(set(found))
    unknown = [name for name in asked if name not in found and name not in metric_names()]
    lacking = [name for name in asked if name not in found]
    if not lacking:
        return
    close = [name for name in found if name.startswith(f"{lacking[0]}_")] or get_close_matches(lacking[0], found, n=1)
    message = (
        f"metrics names {unknown or lacking}, which these predictions do not give; "
        f"computed: {found}.{f' Did you mean {close}?' if close else ''} Brier scores and calibration need "
        "columns of survival or incidence at the horizons, net benefits need thresholds=."
    )
    if unknown or len(lacking) == len(asked):
        raise ValueError(message)
    warnings.warn(message, stacklevel=stacklevel)


def paired(
    first: Mapping[str, Any], second: Mapping[str, Any], y: pd.DataFrame
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Predictions of two models, restricted to the tasks and patients that both predict."""
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError(f"no task is predicted by both: the first predicts {list(first)}, the second {list(second)}.")
    tasks = find_tasks(y)
    pair: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in shared:
        both = first[name].index[first[name].index.isin(second[name].index)]
        if not len(both):
            raise ValueError(
                f"predictions of {name!r} have no patient in common: the first has {list(first[name].index[:3])}, the "
                f"second {list(second[name].index[:3])}."
            )
        for predictions, given in zip(pair, (first, second), strict=True):
            predictions[name] = given[name].loc[both.unique()]
        if name in tasks and tasks[name].has_classes:
            known = [list(map(plain_value, given[name].columns)) for given in (first, second)]
            if set(known[0]) != set(known[1]):
                raise ValueError(
                    f"predictions of {name!r} have different classes, {known[0]} and {known[1]}, so scores cannot "
                    "be compared. Compare models of the same classes."
                )
    return pair
