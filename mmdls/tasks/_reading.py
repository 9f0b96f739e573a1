"""Predictions as users hold them: read by name, and refused where they cannot be right."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task
from mmdls.cohort._classes import plain_value
from mmdls.metrics import UndefinedMetricWarning

__all__ = ["class_probabilities", "numbers_of", "refuse_unknown_risks", "risk_and_survival", "warn_of_new_classes"]

_RISE = 1e-6  # of what falls, by rounding


def risk_and_survival(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The column ``risk`` and the survival columns, named by months as floats (a CSV file makes texts of them)."""
    if "risk" not in table.columns:
        raise ValueError(f"predictions of {name!r} need a column 'risk'; they have {list(table.columns)}.")
    months: dict[float, Any] = {}
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
    found = numbers_of(table[["risk", *(months[t] for t in times)]], name).set_axis(["risk", *times], axis=1)
    survival = found[times].to_numpy()
    if len(times) > 1:
        change = survival[:, -1] - survival[:, 0]
        if (change > _RISE).any() and np.nanmean(change) > _RISE:
            raise ValueError(
                f"predictions of {name!r} must hold probabilities of being event-free, which fall with time; they rise "
                f"by {np.nanmean(change):.3g} from {times[0]:g} to {times[-1]:g} months, on average. Of probabilities "
                "of the event give 1 minus these."
            )
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


def numbers_of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Predictions as float64; what is no number is refused with its column."""
    found = {}
    for place, (column, values) in enumerate(table.items()):
        try:
            found[place] = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"predictions of {name!r} must be numbers; column {column!r} holds {values.dtype}, such as "
                f"{values.iloc[0]!r}."
            ) from error
    return pd.DataFrame(found, index=table.index).set_axis(table.columns, axis=1)


def refuse_unknown_risks(risks: pd.DataFrame, name: str) -> None:
    """Refuse risks that are NaN or infinite, with the patients."""
    bad = ~np.isfinite(risks).all(axis=1)
    if bad.any():
        raise ValueError(
            f"risks of {name!r} are NaN or infinite for {int(bad.sum())} patients, such as "
            f"{list(risks.index[bad][:3])}; predict them, or leave these patients out."
        )


def class_probabilities(task: Task, table: pd.DataFrame, labels: pd.Series) -> tuple[tuple[Any, ...], np.ndarray]:
    """The classes in order, and their probabilities (n_patients, n_classes), found by the names of the columns."""
    classes = _class_order(task, table, labels)
    place = {label: i for i, label in enumerate(map(plain_value, table.columns))}
    return classes, table.to_numpy()[:, [place[label] for label in classes]].astype(np.float64)


def _class_order(task: Task, table: pd.DataFrame, labels: pd.Series) -> tuple[Any, ...]:
    """The classes in the order of the task, or sorted if they have none: the order of columns does not matter."""
    columns = list(map(plain_value, table.columns))
    numbers = {str(c): c for c in columns}
    if len(set(columns)) < len(columns):
        raise ValueError(f"predictions of {task.name!r} have more than one column for a class: {columns}.")
    present = sorted(set(map(plain_value, labels.dropna().to_numpy(dtype=object))), key=str)
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
            f"they have {columns}{f', and patients have {missing}' if missing else ''}.{hint}"
        )
    ordered = tuple(label for label in task.classes if label in columns)
    if task.is_ordered:
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


def warn_of_new_classes(task: Task, y: pd.DataFrame, outcome: np.ndarray, what: str) -> None:
    """Warn of labels that no training patient had.

    Parameters
    ----------
    task : Task
        With classes, those of the training patients.
    y : pandas.DataFrame of shape (n_patients, n_columns)
    outcome : ndarray of shape (n_patients,)
        As the task reads it.
    what : str
        From what these patients are left out.
    """
    new = y.loc[~task.known(outcome), task.columns[0]].dropna()
    if len(new):
        warnings.warn(
            f"{len(new)} patients have a {task.name} that no training patient had, {list(new.unique())}; they are left "
            f"out of its {what}. Known are {list(task.classes)}.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
