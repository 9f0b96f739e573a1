"""Late fusion: one model a modality, joined by a regression on their predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import align_rows, find_tasks
from mmdls.estimators import ClinicalCox
from mmdls.zoo._embedding_search import FirstFold
from mmdls.zoo._inputs import missing_inputs
from mmdls.zoo._per_task import OneModelPerTask, answer_of, fit_with_groups, link_scores

__all__ = ["LateFusion"]

_JOINED_BY = [
    ("survival", ClinicalCox(columns="score")),
    *[(kind, make_pipeline(SimpleImputer(), LogisticRegression())) for kind in ("ordinal", "nominal")],
]


class LateFusion(_BaseComposition):
    """Fit one model a modality and join their predictions by a ridge regression.

    The weights of the models are learned on a third of the training rows, which the models have not seen; the models
    are then fitted on all rows. A model whose inputs the cohort lacks is left out. Endpoints and labels are answered.

    Parameters
    ----------
    models : list of (str, estimator)
        Models of all tasks, by name.
    random_state : int, default=0
        Of the rows held out.

    Attributes
    ----------
    models_ : dict of str to fitted estimator
    fusions_ : dict of str to OneModelPerTask
        By task.
    tasks_ : dict of str to Task
    training_outcomes_, risk_cutpoints_ : dict of str to ndarray
        By endpoint; the cut-points are tertiles of the risks of the rows held out.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> from mmdls.zoo import OneModelPerTask
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X, y = X.filter(regex="^clinical_|^pet_"), y[["os_time", "os_event"]]
    >>> models = [(name, OneModelPerTask([("survival", ClinicalCox(columns=name))])) for name in ("clinical", "pet")]
    >>> model = LateFusion(models).fit(X, y)
    >>> list(model.models_), model.predict(X).shape
    (['clinical', 'pet'], (80, 1))
    """

    def __init__(self, models: Sequence[tuple[str, Any]], *, random_state: int = 0):
        self.models = models
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, those of the models as ``<name>__<parameter>``."""
        return self._get_params("models", deep=deep)

    def set_params(self, **params: Any) -> "LateFusion":
        """Set parameters, those of the models as ``<name>__<parameter>``."""
        self._set_params("models", **params)
        return self

    def fit(self, X: pd.DataFrame, y: pd.DataFrame, groups: Any = None) -> "LateFusion":
        """Fit the models on a part, the weights on the rest, then the models on all rows.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort.
        groups : Series of shape (n_patients,), default=None
            Rows that belong together stay on one side of every split.

        Raises
        ------
        ValueError
            If ``X`` has the inputs of no model, or ``y`` no endpoint and no label.
        """
        y, groups = align_rows(y, X.index, "y"), align_rows(groups, X.index, "groups")
        offered, kinds = find_tasks(y), dict(_JOINED_BY)
        self.tasks_ = {name: task for name, task in offered.items() if task.kind in kinds}
        if not self.tasks_:
            found = {name: task.kind for name, task in offered.items()}
            raise ValueError(f"predictions of the kinds {list(kinds)} can be joined, and y offers {found}.")
        y = y[[column for task in self.tasks_.values() for column in task.columns]]
        used = {name: model for name, model in self.models if not missing_inputs(model, X)}
        if not used:
            raise ValueError(f"X has the inputs of none of the models {[name for name, _ in self.models]}.")
        ((kept, held),) = FirstFold(random_state=self.random_state).split(X, y, groups)
        parts = {name: self._fitted(model, X, y, groups, kept) for name, model in used.items()}
        scores = self._scores(parts, X.iloc[held])
        self.fusions_ = {
            name: OneModelPerTask(_JOINED_BY).fit(scores[name], y.iloc[held][list(task.columns)])
            for name, task in self.tasks_.items()
        }
        self.models_ = {name: self._fitted(model, X, y, groups, np.arange(len(X))) for name, model in used.items()}
        self.training_outcomes_ = {t.name: t.outcome(y) for t in self.tasks_.values() if t.is_censored}
        self.risk_cutpoints_ = {k: v for fusion in self.fusions_.values() for k, v in fusion.risk_cutpoints_.items()}
        return self

    def _fitted(self, model: Any, X: pd.DataFrame, y: pd.DataFrame, groups: Any, rows: np.ndarray) -> Any:
        own = None if groups is None else groups.iloc[rows]
        return fit_with_groups(clone(model), X.iloc[rows], y.iloc[rows], own)

    @property
    def best_params_(self) -> dict[str, Any]:
        """What searches inside the models chose, as ``"<model>: <parameter>"``."""
        check_is_fitted(self, "models_")
        found: dict[str, Any] = {}
        for name, model in self.models_.items():
            chosen = getattr(model[-1] if hasattr(model, "steps") else model, "best_params_", {})
            found |= {f"{name}: {parameter}": value for parameter, value in chosen.items()}
        return found

    def predict_tasks(self, X: pd.DataFrame, times: Any) -> dict[str, pd.DataFrame]:
        """Predictions of every task, as :meth:`OneModelPerTask.predict_tasks` gives them."""
        check_is_fitted(self, "models_")
        scores = self._scores(self.models_, X)
        return {name: fusion.predict_tasks(scores[name], times)[name] for name, fusion in self.fusions_.items()}

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """A risk for each endpoint and a label for each class task, one row a patient."""
        tables = self.predict_tasks(X, np.array([]))
        return pd.DataFrame({name: answer_of(self.tasks_[name], table) for name, table in tables.items()})

    def _scores(self, models: dict[str, Any], X: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """For each task what every model says of it."""
        each = {name: link_scores(model, X, self.tasks_) for name, model in models.items()}
        return {
            task: pd.concat(
                [own[task].add_prefix(f"score_{name}_") for name, own in each.items() if task in own], axis=1
            )
            for task in self.tasks_
        }
