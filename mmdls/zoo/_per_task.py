"""One model a task, behind the interface of a model of all tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import MetaEstimatorMixin, clone, is_classifier
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from sksurv.base import SurvivalAnalysisMixin

from mmdls.cohort import Task, align_rows, check_cohort, find_tasks
from mmdls.estimators.survival._risk_groups import fit_cutpoints
from mmdls.evaluation import risk_cutpoints
from mmdls.evaluation._predict import answers, predict_task
from mmdls.search import OptunaSearch

__all__ = ["OneModelPerTask", "answer_of", "fit_with_groups", "last_step", "link_scores"]

_SMALLEST = 1e-6


class OneModelPerTask(_BaseComposition):
    """Fit one model for each task of a cohort, chosen by the kind of the task.

    Parameters
    ----------
    models : list of (str, estimator)
        For each kind of task (``"survival"``, ``"ordinal"``, ``"nominal"``) the estimator that is cloned and fitted
        for every task of this kind. A classifier is given the number of each patient's class; a model of an endpoint is
        given the table of the endpoint, one of scikit-survival its structured array. Kinds that are not listed
        are not answered.

    Attributes
    ----------
    tasks_ : dict of str to Task
        The tasks that are answered.
    models_ : dict of str to fitted estimator
        By task.
    training_outcomes_, risk_cutpoints_ : dict of str to ndarray
        By endpoint: outcomes of the training rows, tertiles of their risks.
    best_params_ : dict
        What searches chose, as ``"<task>: <parameter>"``.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> OneModelPerTask([("survival", ClinicalCox())]).fit(X, y).predict(X).columns.tolist()
    ['dfs', 'os']
    """

    def __init__(self, models: Sequence[tuple[str, Any]]):
        self.models = models

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, those of the models as ``<kind>__<parameter>``."""
        return self._get_params("models", deep=deep)

    def set_params(self, **params: Any) -> "OneModelPerTask":
        """Set parameters, those of the models as ``<kind>__<parameter>``, or a whole model as ``<kind>``."""
        self._set_params("models", **params)
        return self

    def fit(self, X: pd.DataFrame, y: pd.DataFrame, groups: Any = None) -> "OneModelPerTask":
        """Fit each task on the patients whose outcome is known.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort.
        groups : Series of shape (n_patients,), default=None
            Rows that belong together, for models that divide the rows in folds.

        Raises
        ------
        ValueError
            If no model is for a task of ``y``.
        """
        y = align_rows(y, X.index, "y")
        groups = align_rows(groups, X.index, "groups")
        offered = find_tasks(y)
        by_kind = dict(self.models)
        self.tasks_ = {name: task for name, task in offered.items() if task.kind in by_kind}
        if not self.tasks_:
            kinds = {name: task.kind for name, task in offered.items()}
            raise ValueError(f"the models answer tasks of the kinds {list(by_kind)}, and y offers {kinds}.")
        check_cohort(X, y, list(self.tasks_))
        self.models_: dict[str, Any] = {}
        self.training_outcomes_: dict[str, np.ndarray] = {}
        self.risk_cutpoints_: dict[str, np.ndarray] = {}
        for name, task in self.tasks_.items():
            known = y[task.columns[0]].notna().to_numpy()
            rows, own_groups = X.loc[known], None if groups is None else groups[known]
            model = clone(by_kind[task.kind])
            self.models_[name] = fit_with_groups(model, rows, _target(model, y.loc[known], task), own_groups)
            if task.is_censored:
                self._fit_endpoint(rows, y.loc[known], task)
        return self

    def _fit_endpoint(self, X: pd.DataFrame, y: pd.DataFrame, task: Task) -> None:
        model = self.models_[task.name]
        self.training_outcomes_[task.name] = task.outcome(y)
        points = list(risk_cutpoints(model).values())
        if not points:
            risk = predict_task(model, X, task, np.array([]))[1]["risk"]
            points = [fit_cutpoints(risk, endpoint=task.name)]
        self.risk_cutpoints_[task.name] = points[0]

    @property
    def best_params_(self) -> dict[str, Any]:
        """What searches chose, as ``"<task>: <parameter>"``."""
        check_is_fitted(self, "models_")
        return {
            f"{task}: {name}": value
            for task, model in self.models_.items()
            for name, value in getattr(model, "best_params_", {}).items()
        }

    def predict_tasks(self, X: pd.DataFrame, times: Any) -> dict[str, pd.DataFrame]:
        """Predictions of every task.

        Parameters
        ----------
        X : pandas.DataFrame
        times : array of shape (n_times,)
            Months at which survival is read.

        Returns
        -------
        dict of str to pandas.DataFrame
            A class task: probabilities, one column a class. An endpoint: ``risk`` and survival at ``times``.
        """
        check_is_fitted(self, "models_")
        tables = {}
        for name, task in self.tasks_.items():
            codes = tuple(range(len(task.classes)))
            _, table = predict_task(self.models_[name], X, replace(task, classes=codes), np.asarray(times, dtype=float))
            if task.has_classes:
                # A class that no training row had has probability 0.
                table = table.reindex(columns=list(codes), fill_value=0.0)
                table = table.set_axis(pd.Index(list(task.classes), dtype=object), axis=1)
            tables[name] = table
        return tables

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """A risk (higher = earlier event), a label or a number for each task, one row a patient."""
        tables = self.predict_tasks(X, np.array([]))
        return pd.DataFrame({name: answer_of(self.tasks_[name], table) for name, table in tables.items()})

    def predict_proba(self, X: pd.DataFrame, task: str) -> np.ndarray:
        """Probabilities of the classes of one task, (n_patients, n_classes)."""
        return self.predict_tasks(X, np.array([]))[task].to_numpy()


def _target(model: Any, y: pd.DataFrame, task: Task) -> Any:
    """Outcomes of one task as the model wants them."""
    if task.has_classes != is_classifier(model):
        wanted = "a classifier" if task.has_classes else "a model of an endpoint or a number"
        raise TypeError(f"task {task.name!r} ({task.about}) needs {wanted}; got {type(model).__name__}.")
    if isinstance(last_step(model), SurvivalAnalysisMixin):
        return task.outcome(y)
    if task.is_censored:
        return y[list(task.columns)]
    return pd.Series(task.outcome(y), y.index, name=task.name)


def answer_of(task: Task, table: pd.DataFrame) -> pd.Series:
    """One prediction a patient, from the table of a task: the likeliest class, else the risk or the value."""
    return table.idxmax(axis=1) if task.has_classes else table.iloc[:, 0]


def link_scores(model: Any, X: pd.DataFrame, tasks: Mapping[str, Task]) -> dict[str, pd.DataFrame]:
    """What a model says of each task, on a scale that a linear model can read.

    Parameters
    ----------
    model : fitted estimator
        Of one or several of the tasks.
    X : pandas.DataFrame
    tasks : dict of str to Task

    Returns
    -------
    dict of str to pandas.DataFrame
        By task that the model answers: a risk or a number, or the log-probabilities of all classes but the first; the
        columns are numbers.
    """
    found = {}
    for name, table in answers(model, X, tasks, np.array([])).tables.items():
        if tasks[name].has_classes:
            # A model whose training rows lack a class gives no probability of it.
            shares = table.reindex(columns=list(tasks[name].classes), fill_value=0.0).iloc[:, 1:]
            table = np.log(shares.clip(_SMALLEST, 1))
        else:
            table = table.iloc[:, :1]
        found[name] = table.set_axis(pd.RangeIndex(table.shape[1]), axis=1)
    return found


def last_step(model: Any) -> Any:
    """The estimator at the end of pipelines and inside searches, fitted or not."""
    while hasattr(model, "steps") or isinstance(model, MetaEstimatorMixin) and hasattr(model, "estimator"):
        model = model.steps[-1][1] if hasattr(model, "steps") else model.estimator
    return model


def fit_with_groups(model: Any, X: Any, y: Any, groups: Any = None) -> Any:
    """Fit a model, and hand it the groups if it divides rows in folds of its own.

    Parameters
    ----------
    model : estimator
    X, y : tables or arrays
    groups : Series of shape (n_patients,), default=None

    Returns
    -------
    fitted estimator
    """
    if groups is None:
        return model.fit(X, y)
    last, prefix = (model.steps[-1][1], f"{model.steps[-1][0]}__") if hasattr(model, "steps") else (model, "")
    if isinstance(last, OptunaSearch) or has_fit_parameter(last, "groups"):
        return model.fit(X, y, **{f"{prefix}groups": groups})
    return model.fit(X, y)
