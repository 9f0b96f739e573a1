"""The contract of a ready model of the zoo."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier

from mmdls.evaluation import predict_tasks
from mmdls.registry import tasks
from mmdls.testing._saving import reloaded
from mmdls.testing._studies import study_of_kind

__all__ = ["check_model"]

_HORIZONS = (6.0, 12.0)
_BEYOND = 10_000.0  # months, after the end of any follow-up
_LEAST_SCORE = 0.55  # of training patients whose outcomes follow what every modality shows; 0.5 is chance
_QUICK = {"n_trials": 1, "max_epochs": 10, "n_estimators": 10, "random_state": 0}


def check_model(recipe: Any) -> None:
    """It makes a new unfitted estimator at each call, and answers the kinds of tasks that it claims.

    For each kind the model is fitted on 60 simulated patients, some without a modality, some of unknown outcome. Search
    trials, epochs and trees are set to few, by their usual names (``n_trials``, ``max_epochs``, ``n_estimators``), to
    keep the check quick. Predictions are those of :func:`mmdls.evaluation.predict_tasks`.

    Parameters
    ----------
    recipe : class
        With ``tasks`` and ``inputs``, tuples of str, and ``build()``.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.registry import models
    >>> check_model(models["clinical_cox"])
    """
    name = recipe.__name__
    for said in ("tasks", "inputs"):
        values = getattr(recipe, said, None)
        assert isinstance(values, tuple) and all(isinstance(value, str) for value in values), (
            f"{name}.{said} must be a tuple of names; got {values!r}"
        )
    unknown = [kind for kind in recipe.tasks if kind not in tasks]
    assert recipe.tasks and not unknown, f"{name}.tasks must name kinds of tasks; {unknown} are none of {list(tasks)}"
    first, second = recipe.build(), recipe.build()
    for method in ("fit", "get_params", "set_params"):
        assert callable(getattr(first, method, None)), f"build() of {name} must give an estimator; it lacks {method}"
    assert first is not second, f"build() of {name} must give a new estimator at each call"
    assert not [key for key in vars(first) if key.endswith("_") and not key.startswith("_")], (
        f"{name} is fitted already"
    )
    assert repr(clone(first)) == repr(first) == repr(second), f"{name} must survive clone unchanged"
    for kind in recipe.tasks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a small cohort with gaps
                _check_answers(recipe, kind)
        except Exception as error:
            raise AssertionError(f"{name} does not answer {kind!r} tasks as it claims: {error}") from error


def _check_answers(recipe: Any, kind: str) -> None:
    """Fit the model for one task, and check what it predicts."""
    X, y, task = study_of_kind(tasks[kind], recipe.inputs)
    outcome = task.outcome(y)
    known = task.known(outcome)
    model = recipe.build()
    last = {name: name.rpartition("__")[2] for name in model.get_params(deep=True)}
    model.set_params(**{name: _QUICK[end] for name, end in last.items() if end in _QUICK})
    # Classifiers refuse unknown labels, as those of scikit-learn do.
    rows = known if is_classifier(model) else np.ones(len(X), dtype=bool)
    model.fit(X[rows], y[rows])

    def predicted(X: pd.DataFrame, *horizons: float) -> pd.DataFrame:
        tables = predict_tasks(model, X, y.loc[X.index], horizons=horizons)
        assert list(tables) == [task.name], f"predictions must be of the task {task.name!r}; got {list(tables)}"
        table = tables[task.name]
        assert table.index.equals(X.index), "predictions must have the index of X, one row a patient"
        assert table.columns.is_unique, f"predictions have a column twice: {list(table.columns)}"
        return table

    table, later = predicted(X, *_HORIZONS), predicted(X, *_HORIZONS, _BEYOND)
    if (loaded := reloaded(model, "model.mmdls")) is not None:
        saved = predict_tasks(loaded, X, y.loc[X.index], horizons=_HORIZONS)[task.name]
        assert table.equals(saved), "a saved model answers differently once it is loaded"
    bad = [column for column in table if not np.isfinite(table[column].astype(float)).all()]
    assert not bad, f"predictions must be finite, also of patients who lack a modality; {bad[:3]} are not"
    if task.has_classes:
        assert set(table) == set(task.classes), f"predictions must have the columns {list(task.classes)}"
        proper = (table >= 0).all(axis=None) and np.allclose(table.sum(axis=1), 1)
        assert proper, "probabilities must sum to 1, and none be below 0"
    read, values = task.learnable(y).read_predictions(table, y)
    score = read.score(outcome[known], values[known])
    assert score > _LEAST_SCORE, (
        "predictions must follow the outcomes (a higher risk is an earlier event); of training patients who are easy "
        f"to tell apart their score is {score:.2f}, where 1 is perfect and 0.5 is chance"
    )
    read.read_predictions(later, y)
    missing = later.isna()
    assert (missing.all() | ~missing.any()).all() and missing.any(axis=None) == task.is_censored, (
        "predictions must be NaN for all patients beyond the follow-up, and nowhere else"
    )
    shared = [column for column in table if column in later]
    order = np.random.default_rng(0).permutation(len(X))[: len(X) // 2]
    for changed, rows, why in (
        (later, np.arange(len(X)), "other horizons"),
        (predicted(X.iloc[order], *_HORIZONS), order, "fewer patients in another order"),
    ):
        same = np.allclose(changed[shared], table[shared].iloc[rows], rtol=1e-4, atol=1e-4)
        assert same, f"{why} change the predictions"
