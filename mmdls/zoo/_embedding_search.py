"""A search that learns the images once: the rest of a network is tuned on embeddings that stay as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import align_rows, cell_columns, cell_kind
from mmdls.model_selection import CohortKFold
from mmdls.search import OptunaSearch
from mmdls.search._storage import Storage

__all__ = ["EmbeddingSearch", "FirstFold"]


class FirstFold:
    """One split: the first fold of a :class:`mmdls.model_selection.CohortKFold` is held out.

    Parameters
    ----------
    n_splits : int, default=3
        One in so many rows is held out.
    random_state : int, default=0
    """

    def __init__(self, n_splits: int = 3, random_state: int = 0):
        self.n_splits = n_splits
        self.random_state = random_state

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Training rows and rows held out, stratified by the outcomes."""
        yield next(CohortKFold(self.n_splits, random_state=self.random_state).split(X, y, groups))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Always 1."""
        return 1

    def __repr__(self) -> str:
        return f"FirstFold(n_splits={self.n_splits}, random_state={self.random_state})"


class EmbeddingSearch(MetaEstimatorMixin, BaseEstimator):
    """Tune fusion and heads of a network on embeddings that are learned once, then train everything end to end.

    The embeddings are learned on two thirds of the training rows, and trials are scored on the last third, which they
    have not seen. The best parameters are then fitted end to end on all training rows. Trials cost seconds instead of
    minutes; what is tuned must not be a parameter of their encoders. Without images and vectors it is a plain search.

    Parameters
    ----------
    estimator : MMDLS
    search_space : dict of str to optuna distribution, default=None
        None asks the estimator and its parts.
    n_trials : int, default=10
    storage : str, path or optuna storage, default=None
        Where trials are kept, as in :class:`mmdls.OptunaSearch`.
    random_state : int, default=0
        Of the rows held out and of the sampler.

    Attributes
    ----------
    best_estimator_ : MMDLS
    best_params_ : dict
    best_score_ : float

    Examples
    --------
    >>> import optuna
    >>> from mmdls import MMDLS, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X, y = X[["clinical_age", "lesion_image"]], y[["os_time", "os_event"]]
    >>> network = MMDLS(n_members=1, trainer=Trainer(max_epochs=1), random_state=0)
    >>> space = {"fusion": optuna.distributions.CategoricalDistribution(["gated", "additive"])}
    >>> list(EmbeddingSearch(network, space, n_trials=1).fit(X, y).best_params_)
    ['fusion']
    """

    storage = Storage()

    def __init__(
        self,
        estimator: Any,
        search_space: Mapping[str, Any] | None = None,
        *,
        n_trials: int = 10,
        storage: Any = None,
        random_state: int = 0,
    ):
        self.estimator = estimator
        self.search_space = search_space
        self.n_trials = n_trials
        self.storage = storage
        self.random_state = random_state

    def fit(self, X: pd.DataFrame, y: pd.DataFrame, groups: Any = None) -> "EmbeddingSearch":
        """Learn embeddings, search, and fit the best parameters on all rows.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort.
        groups : Series of shape (n_patients,), default=None
            Rows that belong together stay on one side of the split.

        Returns
        -------
        EmbeddingSearch
        """
        y = align_rows(y, X.index, "y")
        ((kept, held),) = FirstFold(random_state=self.random_state).split(X, y, align_rows(groups, X.index, "groups"))
        table = X
        if any(cell_kind(column) not in (None, "masks") for column in X.columns):
            table = _embedded(clone(self.estimator).fit(X.iloc[kept], y.iloc[kept]), X)
        search = OptunaSearch(
            clone(self.estimator),
            self.search_space,
            cv=[(kept, held)],
            n_trials=self.n_trials,
            storage=self.storage,
            refit=False,
            random_state=self.random_state,
        ).fit(table, y)
        self.best_params_, self.best_score_ = search.best_params_, search.best_score_
        self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y)
        return self

    def predict(self, X: pd.DataFrame) -> Any:
        """As the best estimator predicts."""
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_.predict(X)


def _embedded(model: Any, X: pd.DataFrame) -> pd.DataFrame:
    """The same patients with each column of images or vectors replaced by what the fitted encoder sees in it."""
    parts = [X.drop(columns=cell_columns(X))]
    for _, encoder, columns in model.modalities_:
        if cell_kind(columns[0]) is not None:
            parts.append(pd.DataFrame(encoder.transform(X[columns]), X.index, encoder.get_feature_names_out()))
    return pd.concat(parts, axis=1)
