"""Models of scikit-learn and scikit-survival, read as models of this library are: one task, and its table.

What a model is, scikit-survival's base class and scikit-learn's tags say. Such a model does not know which columns of y
hold its task, so that the task has none.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sksurv import metrics as sksurv_metrics
from sksurv.base import SurvivalAnalysisMixin

from mmdls.cohort import Task
from mmdls.cohort._classes import plain_value
from mmdls.metrics import step_values
from mmdls.tasks import NominalTask, RegressionTask, SurvivalTask

__all__ = ["inner_model", "predict_one_task", "survival_table"]

_SCORED = (
    sksurv_metrics.as_concordance_index_ipcw_scorer,
    sksurv_metrics.as_cumulative_dynamic_auc_scorer,
    sksurv_metrics.as_integrated_brier_score_scorer,
)


def inner_model(model: Any, X: Any = None) -> tuple[Any, Any]:
    """The model inside pipelines, searches, frozen models, selections of features and scikit-survival's scorers.

    Parameters
    ----------
    model : fitted estimator
    X : table or array, default=None

    Returns
    -------
    model : fitted estimator
    X : table, array or None
        What the transformers in front of the model make of X.
    """
    if isinstance(model, FrozenEstimator):
        return inner_model(model.estimator, X)
    if isinstance(model, _SCORED):
        return inner_model(model.estimator_, X)
    if hasattr(model, "best_estimator_"):
        return inner_model(model.best_estimator_, X)
    if isinstance(model, RFE):
        return inner_model(model.estimator_, None if X is None else model.transform(X))
    if isinstance(model, Pipeline):
        for _, step in model.steps[:-1]:
            if X is not None and step is not None and step != "passthrough":
                X = step.transform(X)
        return inner_model(model.steps[-1][1], X)
    return model, X


def predict_one_task(model: Any, X: Any, times: np.ndarray) -> tuple[Task, pd.DataFrame]:
    """The task of a model of scikit-learn or scikit-survival, without columns of y, and its table.

    Parameters
    ----------
    model : fitted estimator
    X : table or array
    times : ndarray of shape (n_times,)
        Months.

    Returns
    -------
    task : Task
    table : pandas.DataFrame of shape (n_patients, n_columns)

    Raises
    ------
    TypeError
        If the model predicts nothing that can be evaluated.
    """
    # By their tags IPCRidge is a regressor and NaiveSurvivalSVM a classifier.
    if isinstance(model, SurvivalAnalysisMixin):
        return SurvivalTask("", ()), survival_table(model, X, times)
    name, tags = type(model).__name__, get_tags(model) if hasattr(model, "__sklearn_tags__") else None
    kind = None if tags is None else tags.estimator_type
    if kind == "regressor":
        return RegressionTask("", ()), pd.DataFrame({"value": np.ravel(model.predict(X))})
    if kind == "classifier" and not hasattr(model, "predict_proba"):
        raise TypeError(
            f"{name} is a classifier without predict_proba; evaluation needs probabilities. Choose one that gives "
            "them, for example by wrapping it in sklearn.calibration.CalibratedClassifierCV."
        )
    if kind == "classifier":
        probability = model.predict_proba(X)
        classes = tuple(plain_value(value) for value in np.ravel(model.classes_))
        return NominalTask("", (), classes), pd.DataFrame(probability, columns=pd.Index(classes, dtype=object))
    if tags is not None and tags.transformer_tags is not None:
        raise TypeError(f"{name} transforms X and predicts nothing; evaluate the model that reads its columns.")
    raise TypeError(
        f"a model must be a classifier or regressor by scikit-learn's tags, a sksurv.base.SurvivalAnalysisMixin, or "
        f"have tasks_ and predict_tasks(X, times) as the models of mmdls do; got {name}. Predictions of any model are "
        "evaluated by evaluate_predictions."
    )


def survival_table(model: Any, X: Any, times: np.ndarray, end: float = -np.inf) -> pd.DataFrame:
    """Risk and survival of a model with the methods of scikit-survival.

    Parameters
    ----------
    model : fitted estimator
    X : table or array
    times : ndarray of shape (n_times,)
        Months.
    end : float, default=-inf
        The end of the training follow-up, if it is later than the last step of the survival functions.

    Returns
    -------
    pandas.DataFrame of shape (n_patients, 1 + n_times)
        ``risk`` (higher = earlier event), and survival at each time: 1 before the first step, NaN beyond the follow-up.
        Without survival functions only the risk.
    """
    risk = np.asarray(model.predict(X), dtype=np.float64)
    # So scikit-survival marks models that predict a time.
    table = pd.DataFrame({"risk": risk if getattr(model, "_predict_risk_score", True) else -risk})
    if not len(times) or not hasattr(model, "predict_survival_function"):
        return table
    survival = [
        np.where(times <= max(f.x[-1], end), step_values(f.x, f(f.x), times), np.nan)
        for f in model.predict_survival_function(X)
    ]
    return pd.concat([table, pd.DataFrame(np.stack(survival), columns=times)], axis=1)
