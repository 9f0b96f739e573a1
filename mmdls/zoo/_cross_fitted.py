"""Images as numbers beside the tables: each training patient is seen by a network that never learned its outcomes."""

from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from mmdls.cohort import align_rows, cell_columns, find_tasks
from mmdls.model_selection import CohortKFold
from mmdls.zoo._per_task import fit_with_groups, link_scores

__all__ = ["CrossFittedEmbeddings"]


class CrossFittedEmbeddings(MetaEstimatorMixin, BaseEstimator):
    """Fit a model of tables to which a network's embeddings of the images are added, without leaking an outcome.

    A network that learned a patient's outcomes remembers them in what it sees of the patient, so that a model of its
    embeddings trusts the images too much. Here the training rows are dealt out in folds, and the images of each fold
    are embedded by a network that was trained on the others [1]_. An embedding is what the network says of all tasks: a
    risk, a number, or the log-probabilities of all classes but the first. Of what networks of different folds see, this
    alone has a common meaning. It is standardised with mean and deviation of the rows that the network had not learned.
    Of new patients the mean of all networks is read.

    Parameters
    ----------
    network : estimator
        Of all tasks, such as :class:`mmdls.MMDLS`; it reads the images.
    estimator : estimator
        Of all tasks, such as :class:`OneModelPerTask`; it reads the tables, and the embeddings as the block
        ``embedding``.
    n_splits : int, default=3
        Networks.
    random_state : int, default=0
        Of the folds.

    Attributes
    ----------
    networks_ : list of fitted estimator
    embeddings_ : pandas.DataFrame of shape (n_patients, n_scores)
        Of the training rows.
    estimator_ : fitted estimator
    tasks_, training_outcomes_, risk_cutpoints_ : dict
        As of ``estimator_``.

    References
    ----------
    .. [1] van der Laan MJ, Polley EC, Hubbard AE. Super learner. Statistical Applications in Genetics and Molecular
       Biology, 2007.

    Examples
    --------
    >>> from mmdls import ClinicalCox, MMDLS, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> from mmdls.zoo import OneModelPerTask
    >>> X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X, y = X[["clinical_age", "lesion_image"]], y[["os_time", "os_event"]]
    >>> network = MMDLS(n_members=1, trainer=Trainer(max_epochs=1), random_state=0)
    >>> tables = OneModelPerTask([("survival", ClinicalCox(columns=["clinical", "embedding"]))])
    >>> CrossFittedEmbeddings(network, tables, n_splits=2).fit(X, y).embeddings_.shape
    (40, 1)
    """

    def __init__(self, network: Any, estimator: Any, *, n_splits: int = 3, random_state: int = 0):
        self.network = network
        self.estimator = estimator
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: pd.DataFrame, y: pd.DataFrame, groups: Any = None) -> "CrossFittedEmbeddings":
        """Fit one network a fold, then the estimator on all rows.

        Parameters
        ----------
        X, y : pandas.DataFrame
            A cohort with images.
        groups : Series of shape (n_patients,), default=None
            Rows that belong together are in one fold.

        Returns
        -------
        CrossFittedEmbeddings

        Raises
        ------
        ValueError
            If ``X`` has no image.
        """
        y, groups = align_rows(y, X.index, "y"), align_rows(groups, X.index, "groups")
        if not cell_columns(X):
            raise ValueError(f"X has no image to embed; its columns are {list(X.columns)[:30]}.")
        self._offered, self.networks_, self.scales_, parts = find_tasks(y), [], [], []
        for kept, held in CohortKFold(self.n_splits, random_state=self.random_state).split(X, y, groups):
            own = None if groups is None else groups.iloc[kept]
            network = fit_with_groups(clone(self.network), X[cell_columns(X)].iloc[kept], y.iloc[kept], own)
            scores = self._scores(network, X.iloc[held])
            mean, deviation = scores.mean(), scores.std(ddof=0).replace(0, 1)
            parts.append((scores - mean) / deviation)
            self.networks_.append(network)
            self.scales_.append((mean, deviation))
        self.embeddings_ = pd.concat(parts).loc[X.index]
        self.estimator_ = fit_with_groups(clone(self.estimator), self._beside(X, self.embeddings_), y, groups)
        self.tasks_ = self.estimator_.tasks_
        self.training_outcomes_ = self.estimator_.training_outcomes_
        self.risk_cutpoints_ = self.estimator_.risk_cutpoints_
        return self

    @property
    def best_params_(self) -> dict[str, Any]:
        """What searches inside the estimator chose."""
        check_is_fitted(self, "estimator_")
        return dict(getattr(self.estimator_, "best_params_", {}))

    def predict_tasks(self, X: pd.DataFrame, times: Any) -> dict[str, pd.DataFrame]:
        """Predictions of every task, as :meth:`OneModelPerTask.predict_tasks` gives them."""
        return self.estimator_.predict_tasks(self._embedded(X), times)

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """A risk (higher = earlier event), a label or a number for each task, one row a patient."""
        return self.estimator_.predict(self._embedded(X))

    def _embedded(self, X: pd.DataFrame) -> pd.DataFrame:
        check_is_fitted(self, "estimator_")
        each = [
            (self._scores(network, X) - mean) / deviation
            for network, (mean, deviation) in zip(self.networks_, self.scales_, strict=True)
        ]
        return self._beside(X, sum(each[1:], each[0]) / len(each))

    def _scores(self, network: Any, X: pd.DataFrame) -> pd.DataFrame:
        return pd.concat(link_scores(network, X[cell_columns(X)], self._offered), axis=1)

    @staticmethod
    def _beside(X: pd.DataFrame, embeddings: pd.DataFrame) -> pd.DataFrame:
        names = [f"embedding_{k}" for k in range(embeddings.shape[1])]
        return X.drop(columns=cell_columns(X)).join(embeddings.set_axis(names, axis=1))
