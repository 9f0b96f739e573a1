"""A tabular foundation model, TabPFN, of classes and endpoints, where package and weights are on this machine."""

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mmdls.estimators import TabularEncoder
from mmdls.estimators.survival._tabular_survival import TabularSurvival
from mmdls.registry import models
from mmdls.zoo._inputs import SelectInputs
from mmdls.zoo._per_task import OneModelPerTask

__all__ = ["FoundationClassifier", "FoundationSurvival", "StackedHazards"]

_VARIABLE = "MMDLS_TABPFN_WEIGHTS"
_SMALLEST = 1e-6


class FoundationClassifier(ClassifierMixin, BaseEstimator):
    """TabPFN [1]_ with weights from a file of this machine: a network that learned from simulated tables how to learn.

    Training rows are read beside the rows to predict; no weight changes. Nothing is ever downloaded. Needs
    ``pip install "mmdls[foundation]"`` and a file of weights, each with its own licence.

    Parameters
    ----------
    weights : path, default=None
        The checkpoint of a classifier; None reads the path from the environment variable ``MMDLS_TABPFN_WEIGHTS``.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    model_ : tabpfn.TabPFNClassifier
    n_features_in_ : int

    References
    ----------
    .. [1] Hollmann N et al. Accurate predictions on small data with a tabular foundation model. Nature, 2025.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = FoundationClassifier(weights="tabpfn-classifier.ckpt")
    >>> model.fit(X[::2], y[::2]).predict_proba(X[1::2]).shape  # doctest: +SKIP
    (75, 3)
    """

    def __init__(self, weights: Any = None, *, random_state: Any = None):
        self.weights = weights
        self.random_state = random_state

    def unavailable(self) -> str:
        """Why it cannot be fitted on this machine; "" if it can."""
        try:
            from tabpfn import TabPFNClassifier  # noqa: F401
        except ImportError as error:
            return f'TabPFN cannot be imported ({error}); pip install "mmdls[foundation]" brings it'
        path = self._path()
        if not path.is_file():
            what = f"{path} is no file" if path.name else f"neither weights nor {_VARIABLE} is set"
            return f"TabPFN needs weights on this machine and {what}; name the checkpoint of a classifier"
        return ""

    def _path(self) -> Path:
        return Path(os.environ.get(_VARIABLE, "") if self.weights is None else self.weights)

    def fit(self, X: Any, y: Any) -> "FoundationClassifier":
        """Keep the rows X (n_samples, n_features) and labels y (n_samples,) that are read at prediction.

        Raises
        ------
        ImportError
            If the package or the weights are not on this machine.
        ValueError
            If there is one class only.
        """
        if why := self.unavailable():
            raise ImportError(f"{why}.")
        from tabpfn import TabPFNClassifier

        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs two classes; y has one class, {list(self.classes_)}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # TabPFN refuses more than 1,000 rows without a GPU, only because they take long.
        model = TabPFNClassifier(model_path=str(self._path()), random_state=seed, ignore_pretraining_limits=True)
        self.model_ = model.fit(X, codes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n_samples, n_classes)."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict_proba(validate_data(self, X, reset=False)), dtype=np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class, (n_samples,)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(axis=1)]


class StackedHazards(BaseEstimator):
    """An endpoint as a question of two classes [1]_: of those at risk in an interval, who has the event in it?

    Follow-up is cut into intervals with equal numbers of events. A patient gives one row for each interval in which
    they were at risk, with its number as one more column; so censored patients count as long as they were seen, curves
    cannot rise, and the classifier needs no weights. Of an interval in which somebody was censored they give a row if
    they were seen for half of it. Within an interval the hazard is constant.

    Parameters
    ----------
    classifier : estimator
        With ``predict_proba``.
    n_intervals : int, default=5
        At most.

    Attributes
    ----------
    classifier_ : fitted estimator
    edges_ : ndarray of shape (n_intervals + 1,)
        Months, from 0 to the last event.
    unique_times_ : ndarray of shape (n_times,)
        Times of events.

    References
    ----------
    .. [1] Craig E, Zhong C, Tibshirani R. Survival stacking: casting survival analysis as a classification problem.
       arXiv:2107.13480, 2021.
    """

    def __init__(self, classifier: Any, n_intervals: int = 5):
        self.classifier = classifier
        self.n_intervals = n_intervals

    def fit(self, X: np.ndarray, y: np.ndarray) -> "StackedHazards":
        """Fit on complete numbers (n_samples, n_features) and a structured array of event and time (n_samples,)."""
        event, time = y["event"], y["time"]
        shares = np.arange(1, self.n_intervals + 1) / self.n_intervals
        self.edges_ = np.r_[0.0, np.unique(np.quantile(time[event], shares, method="inverted_cdf"))]
        rows, labels = [], []
        for k, (start, end) in enumerate(zip(self.edges_[:-1], self.edges_[1:], strict=True)):
            happened = event & (time > start) & (time <= end)
            counted = happened | (time > end) | (~event & (time > start) & (time >= (start + end) / 2))
            rows.append(self._with_interval(X[counted], k))
            labels.append(happened[counted])
        label = np.concatenate(labels)
        if label.all():
            raise ValueError("every patient has the event in the first interval; nothing tells them apart.")
        self.classifier_ = clone(self.classifier).fit(np.concatenate(rows), label)
        self.unique_times_ = np.unique(time[event])
        return self

    @staticmethod
    def _with_interval(X: np.ndarray, k: int) -> np.ndarray:
        return np.column_stack([X, np.full(len(X), k)])

    def predict_cumulative_hazard_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Cumulative hazards at ``unique_times_``, (n_samples, n_times)."""
        check_is_fitted(self, "classifier_")
        start, end = self.edges_[:-1, None], self.edges_[1:, None]
        asked = np.concatenate([self._with_interval(X, k) for k in range(len(start))])
        share = self.classifier_.predict_proba(asked)[:, 1].reshape(len(start), len(X)).T
        passed = ((self.unique_times_ - start) / (end - start)).clip(0, 1)
        return -np.log1p(-share.clip(_SMALLEST, 1 - _SMALLEST)) @ passed

    def predict_survival_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Survival probabilities at ``unique_times_``, (n_samples, n_times)."""
        return np.exp(-self.predict_cumulative_hazard_function(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The mean of the cumulative hazards at the times of events, (n_samples,)."""
        return self.predict_cumulative_hazard_function(X).mean(axis=1)


class FoundationSurvival(TabularSurvival):
    """:class:`FoundationClassifier` of an endpoint, through :class:`StackedHazards`.

    Parameters
    ----------
    columns : str or sequence of str, default="all"
        Names of columns, or of blocks; ``"all"`` is every block of numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    weights : path, default=None
        As of :class:`FoundationClassifier`.
    n_intervals : int, default=5
        As of :class:`StackedHazards`; rows to read, and so time, grow with them.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> model = FoundationSurvival(columns="clinical", endpoint="os", weights="tabpfn-classifier.ckpt")
    >>> model.fit(X[:60], y[:60]).predict(X[60:]).shape  # doctest: +SKIP
    (20,)
    """

    _unweighted = "TabPFN takes none"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TabularSurvival._parameter_constraints,
        "n_intervals": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = "all",
        endpoint: str | None = None,
        weights: Any = None,
        n_intervals: int = 5,
        random_state: Any = None,
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.weights = weights
        self.n_intervals = n_intervals
        self.random_state = random_state

    def unavailable(self) -> str:
        """Why it cannot be fitted on this machine; "" if it can."""
        return FoundationClassifier(self.weights).unavailable()

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        classifier = FoundationClassifier(self.weights, random_state=self.random_state)
        return make_pipeline(TabularEncoder(scale=None), StackedHazards(classifier, self.n_intervals))


@models.register("tables_foundation")
class TablesFoundation:
    """A tabular foundation model, TabPFN, of all tables; not tuned."""

    tasks: ClassVar[tuple[str, ...]] = ("survival", "ordinal", "nominal")
    inputs: ClassVar[tuple[str, ...]] = ("tables",)

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        classifier = make_pipeline(TabularEncoder(scale=None), FoundationClassifier(random_state=0))
        each = [("survival", FoundationSurvival(random_state=0))]
        each += [(kind, classifier) for kind in ("ordinal", "nominal")]
        return Pipeline([("inputs", SelectInputs(cls.inputs)), ("model", OneModelPerTask(each))])
