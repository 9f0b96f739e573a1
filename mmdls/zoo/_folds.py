"""One model on one fold: fitted on the training rows, its predictions for the rows left out, its warnings."""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sksurv.base import SurvivalAnalysisMixin

from mmdls.cohort import align_rows, find_tasks
from mmdls.estimators.survival._risk_groups import risk_group
from mmdls.evaluation import risk_cutpoints
from mmdls.evaluation._predict import answers
from mmdls.model_selection import CohortKFold
from mmdls.registry import tasks
from mmdls.zoo._per_task import OneModelPerTask, fit_with_groups, last_step

__all__ = [
    "Fit",
    "aligned_groups",
    "fit_fold",
    "for_all_tasks",
    "kinds_of",
    "predictions_of",
    "refuse_frozen",
    "splits_of",
    "splitter_of",
]


@dataclass(frozen=True)
class Fit:
    """What a model said of the rows left out of one fold.

    Parameters
    ----------
    predictions : dict of str to pandas.DataFrame
        By task, as in :func:`mmdls.evaluation.evaluate_predictions`, with a column ``group`` for endpoints.
    chosen : dict
        Hyperparameters that a search chose.
    messages : tuple of str
        Warnings, each once.
    seconds : float
    """

    predictions: dict[str, pd.DataFrame]
    chosen: dict[str, Any]
    messages: tuple[str, ...]
    seconds: float


def splitter_of(cv: Any, random_state: Any) -> Any:
    """The splitter that a number of folds means; anything else as it is."""
    return CohortKFold(int(cv), random_state=random_state) if isinstance(cv, int | np.integer) else cv


def aligned_groups(groups: Any, index: pd.Index) -> pd.Series | None:
    """Groups of rows that belong together, in the order of an index; None for none."""
    if groups is None:
        return None
    values = align_rows(groups, index, "groups")
    return values if isinstance(values, pd.Series) else pd.Series(values, index)


def splits_of(cv: Any, X: pd.DataFrame, y: pd.DataFrame, groups: Any) -> list[tuple]:
    """Training and test rows of each fold, with what would leak refused.

    Parameters
    ----------
    cv : splitter or iterable of (train, test)
    X, y : pandas.DataFrame
    groups : Series of shape (n_patients,) or None

    Returns
    -------
    list of (ndarray of int, ndarray of int)

    Raises
    ------
    ValueError
        If a row, or a group, stands on both sides of a split, or a row is left out twice.
    """
    parts: Iterable[Any] = cv.split(X, y, groups) if hasattr(cv, "split") else cv
    splits = [tuple(np.arange(len(X))[np.asarray(rows)] for rows in part) for part in parts]
    if not splits:
        raise ValueError("cv gives no split; give a number of folds, a splitter or a list of (train, test) rows.")
    for k, (train, test) in enumerate(splits):
        shared = X.index[np.intersect1d(train, test)]
        if len(shared):
            raise ValueError(f"fold {k} leaks: {len(shared)} rows are in training and test: {list(shared[:3])}.")
        if groups is not None:
            both = set(groups.iloc[train]) & set(groups.iloc[test])
            if both:
                raise ValueError(f"fold {k} leaks: the groups {sorted(both, key=str)[:3]} are in training and test.")
    times = np.bincount(np.concatenate([test for _, test in splits]), minlength=len(X))
    if (times > 1).any():
        raise ValueError(
            f"{(times > 1).sum()} rows are left out more than once: {list(X.index[times > 1][:3])}, ...; of repeated "
            "cross-validation compare each repeat, or see mmdls.evaluation.evaluate_repeats."
        )
    return splits


def for_all_tasks(model: Any) -> Any:
    """The model, or, if it answers a single task, one of it for each task of its kind.

    Parameters
    ----------
    model : estimator

    Returns
    -------
    estimator
        Unfitted.
    """
    last = last_step(model)
    if hasattr(last, "predict_tasks") and "endpoint" not in last.get_params(deep=False) and not is_classifier(last):
        return model
    if is_classifier(model):
        kinds = "classifier"
    elif isinstance(last, SurvivalAnalysisMixin) or last.get_params(deep=False).get("endpoint", "") is None:
        kinds = "survival"
    elif is_regressor(model):
        kinds = "regressor"
    else:
        return model
    each = [(name, model) for name in tasks if tasks[name].estimator_type == kinds]
    return OneModelPerTask(each)


def refuse_frozen(model: Any) -> None:
    """Refuse a model that would not be fitted in the folds, so that it may know the patients who are left out.

    Raises
    ------
    ValueError
        If it is frozen.
    """
    if isinstance(last_step(model), FrozenEstimator):
        raise ValueError(
            "the model is frozen: it would not be fitted without the patients who are left out. Give the estimator "
            "inside it; a model that was fitted on other patients is evaluated by mmdls.evaluate."
        )


def kinds_of(model: Any) -> list[str]:
    """The kinds of tasks that a model of :func:`for_all_tasks` answers, as far as its parameters say them; or none."""
    last = last_step(for_all_tasks(model))
    return [kind for kind, _ in last.models] if isinstance(last, OneModelPerTask) else []


def fit_fold(
    name: str,
    fold: Any,
    model: Any,
    X: pd.DataFrame,
    y: pd.DataFrame,
    split: tuple[np.ndarray, np.ndarray],
    *,
    times: np.ndarray,
    groups: Any = None,
) -> Fit:
    """Fit on the training rows only, and predict the rows left out.

    Parameters
    ----------
    name, fold : str
        For the message of an error.
    model : estimator
        Is cloned.
    X, y : pandas.DataFrame
    split : (ndarray, ndarray) of int
        Training and test rows.
    times : ndarray of shape (n_times,)
        Months at which survival and incidence are predicted.
    groups : Series of shape (n_patients,), default=None

    Returns
    -------
    Fit

    Raises
    ------
    RuntimeError
        If the model fails; the message says which one, and in which fold.
    """
    train, test = split
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            own = None if groups is None else groups.iloc[train]
            fitted = fit_with_groups(clone(model), X.iloc[train], y.iloc[train], own)
            # Of y only the names and kinds of the tasks are read.
            predictions = predictions_of(fitted, X.iloc[test], y, times)
        except Exception as error:
            raise RuntimeError(f"model {name!r} failed in fold {fold}: {type(error).__name__}: {error}") from error
    messages = tuple(dict.fromkeys(str(w.message) for w in caught))
    return Fit(predictions, _chosen(fitted), messages, time.perf_counter() - start)


def predictions_of(model: Any, X: pd.DataFrame, y: pd.DataFrame, times: np.ndarray) -> dict[str, pd.DataFrame]:
    """Predictions of a fitted model, with its risk groups where it learned cut-points.

    Parameters
    ----------
    model : fitted estimator
    X, y : pandas.DataFrame
        Of ``y`` only the names and kinds of tasks are read.
    times : ndarray of shape (n_times,)
        Months at which survival and incidence are predicted.

    Returns
    -------
    dict of str to pandas.DataFrame
        As :func:`mmdls.evaluation.predict_tasks` gives it; endpoints with a column ``group`` (low, middle, high).
    """
    tables = answers(model, X, find_tasks(y), times).tables
    for name, points in risk_cutpoints(model).items():
        if name in tables:
            codes, names = risk_group(tables[name]["risk"], points), _group_names(len(points) + 1)
            tables[name]["group"] = pd.Categorical.from_codes(codes, names, ordered=True)
    return tables


def _group_names(n: int) -> list[str]:
    return {2: ["low", "high"], 3: ["low", "middle", "high"]}.get(n, [f"group {k + 1}" for k in range(n)])


def _chosen(fitted: Any) -> dict[str, Any]:
    while hasattr(fitted, "steps"):
        fitted = fitted.steps[-1][1]
    return dict(getattr(fitted, "best_params_", {}))
