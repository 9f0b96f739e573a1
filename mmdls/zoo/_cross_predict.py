"""Predict every patient of a cohort by models that were fitted without the patient."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from sklearn.base import clone

from mmdls.cohort import align_rows, check_cohort, check_features, find_tasks
from mmdls.evaluation import OutOfFold
from mmdls.evaluation._predict import check_horizons, time_grid
from mmdls.zoo._catalogue import create
from mmdls.zoo._compare import _fits_table, _fitted, _joined, _messages, folds_of, groups_of
from mmdls.zoo._folds import for_all_tasks, refuse_frozen, splits_of, splitter_of

__all__ = ["cross_predict"]


def cross_predict(
    model: Any,
    X: pd.DataFrame,
    y: pd.DataFrame,
    cv: Any = 5,
    groups: Any = None,
    *,
    horizons: Sequence[float] = (12, 36, 60),
    n_jobs: int | None = None,
    verbose: int = 0,
    random_state: int = 0,
) -> OutOfFold:
    """Predict every patient by a model that was fitted without the patient's fold.

    The result is what :func:`mmdls.evaluation.evaluate_predictions`, :func:`mmdls.evaluation.compare_predictions`,
    :func:`mmdls.compare` and :func:`mmdls.report.report` read as predictions, with its folds.

    Parameters
    ----------
    model : estimator or registered name
        Is cloned; one that answers a single task is fitted once for each task of its kind.
    X, y : pandas.DataFrame
        A cohort.
    cv : int, splitter or iterable of (train, test), default=5
        As in :func:`mmdls.compare_models`. No row may be left out twice.
    groups : str, Series or array of shape (n_patients,), default=None
        Rows that belong together, or the column of ``X`` that says so: they are left out together.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    n_jobs : int, default=None
        Fits at once, through joblib.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, default=0
        Of the folds.

    Returns
    -------
    OutOfFold
        A mapping of tasks to tables: probabilities of classes; risk, survival by month and risk group of endpoints. Its
        ``folds`` and ``risk_groups`` have a row a patient.

    Raises
    ------
    RuntimeError
        If the model fails; the message says in which fold.
    ValueError
        If a split leaks, or the model is frozen, so that it would not be fitted in the folds.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> from mmdls.evaluation import evaluate_predictions
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> predictions = cross_predict(ClinicalCox(), X, y, cv=3)
    >>> list(predictions), predictions.folds.nunique(), predictions.risk_groups.columns.tolist()
    (['dfs', 'os'], 3, ['dfs', 'os'])
    >>> evaluate_predictions(predictions, y, horizons=(), n_resamples=0)["metric"][0]
    'concordance_index'
    """
    check_features(X)
    y = align_rows(y, X.index, "y")
    check_cohort(X, y)
    groups = groups_of(groups, X)
    tasks, times = find_tasks(y), time_grid(check_horizons(horizons))
    name = model if isinstance(model, str) else type(model).__name__
    model = create(model) if isinstance(model, str) else clone(model)
    refuse_frozen(model)
    cv = splitter_of(cv, random_state)
    splits = splits_of(cv, X, y, groups)
    each = for_all_tasks(model)
    fits = _fitted([(name, k, each, split) for k, split in enumerate(splits)], X, y, times, groups, n_jobs, verbose)
    return OutOfFold(
        predictions=_joined([fits[name, k] for k in range(len(splits))], y, tasks),
        folds=folds_of(splits, X.index),
        groups=groups,
        model=model,
        fits=_fits_table(fits, splits),
        messages=_messages(fits),
        cv=repr(cv) if hasattr(cv, "split") else f"{len(splits)} splits that were given",
        random_state=random_state,
    )
