"""The folds of a trial: fitting, scoring and pruning."""

from collections.abc import Iterable, Mapping
from typing import Any

import joblib
import numpy as np
import optuna
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from mmdls._parallel import workers_may_die
from mmdls.search._pruning import Epochs

SCORER = "scorer_"


def fit_and_score(
    estimator: Any, X: Any, y: Any, train: np.ndarray, test: np.ndarray, scorers: Mapping[str, Any], routed: Bunch
) -> dict[str, float]:
    """Scores of one fold, by name."""
    X_train, y_train = _safe_split(estimator, X, y, train)
    X_test, y_test = _safe_split(estimator, X, y, test, train)
    # By key, not by attribute: Dask before 2026.7 hands a Bunch on as a plain dict.
    estimator.fit(X_train, y_train, **_check_method_params(X, routed["estimator"]["fit"], indices=train))
    found = {}
    for name, scorer in scorers.items():
        asked = _check_method_params(X, routed.get(SCORER + name, {"score": {}})["score"], indices=test)
        found[name] = float(scorer(estimator, X_test, y_test, **asked))
    return found


def cloned(params: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of parameters, so that trials share no estimators."""
    return {name: clone(value, safe=False) for name, value in params.items()}


def cross_validate(
    trial: optuna.Trial,
    work: Iterable[tuple[Any, ...]],
    n_folds: int,
    objectives: list[str],
    epochs: Epochs,
    n_jobs: int | None,
) -> list[dict[str, float]]:
    """Run the folds of a trial, record their scores in it, and prune it after a fold where the pruner says so.

    Parameters
    ----------
    trial : optuna.Trial
    work : iterable of tuple
        The arguments of :func:`fit_and_score`, one tuple a fold.
    n_folds : int
    objectives : list of str
        A trial with several objectives is never pruned: Optuna has no pruner for them.
    epochs : Epochs
        Prunes inside a fold.
    n_jobs : int or None
        Folds that run at once; only folds that run one after the other can be pruned.

    Returns
    -------
    list of dict of str to float
        Scores by name, one dict a fold.

    Raises
    ------
    optuna.TrialPruned
    """
    alone = joblib.effective_n_jobs(n_jobs) == 1
    may_prune = alone and len(objectives) == 1
    results: Iterable[dict[str, float]]
    if may_prune:
        results = (epochs.run(k, fit_and_score, arguments) for k, arguments in enumerate(work))
    elif alone:
        results = (fit_and_score(*arguments) for arguments in work)
    else:
        with workers_may_die("Finished trials stay in the storage, where one is given, and are not run again."):
            results = joblib.Parallel(n_jobs)(joblib.delayed(fit_and_score)(*arguments) for arguments in work)
    scores: list[dict[str, float]] = []
    for k, found in enumerate(results):
        scores.append(found)
        for name, value in found.items():
            trial.set_user_attr(f"split{k}_test_{name}", float(value))
        if may_prune:
            trial.report(float(np.mean([fold[objectives[0]] for fold in scores])), step=k)
            if k + 1 < n_folds and trial.should_prune():
                raise optuna.TrialPruned(f"after fold {k + 1} of {n_folds}")
    return scores
