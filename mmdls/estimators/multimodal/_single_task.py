"""The multimodal estimator for one label and for one endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, column_or_1d

from mmdls.cohort import (
    check_cohort,
    class_codes,
    class_labels,
    refuse_other_tables,
)
from mmdls.estimators.multimodal._multimodal import Multimodal
from mmdls.estimators.multimodal._task_answers import cumulative_hazard
from mmdls.estimators.survival._risk_groups import risk_group
from mmdls.registry import estimators as estimator_registry
from mmdls.tasks import NominalTask
from mmdls.training._tables import counted_rows, endpoint_table, outcome_table, patient_weights, scored_outcome
from mmdls.training._trainer import Trainer

__all__ = ["MultimodalClassifier", "MultimodalSurvival"]


@estimator_registry.register("multimodal_classifier")
class MultimodalClassifier(ClassifierMixin, Multimodal, BaseEstimator):
    """One label from several modalities: :class:`MMDLS` as a scikit-learn classifier.

    X is a table of patients or a plain numeric array. The parameters are those of :class:`MMDLS` without those
    of endpoints and of ordered tasks, and:

    Parameters
    ----------
    class_weight : dict of class to float, "balanced" or None, default=None
        Weight of each class, times ``sample_weight`` if that is given; ``"balanced"`` gives all classes the same sum of
        weights, and a class that a dict does not name has weight 1. Probabilities are then those of a cohort in which
        classes are as frequent as their weights make them.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    net_ : skorch.NeuralNet
    modalities_ : list of (name, fitted encoder, columns)
    history_ : pandas.DataFrame
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> MultimodalClassifier(trainer=Trainer(max_epochs=30), random_state=0).fit(X, y).score(X, y) > 0.8
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **Multimodal._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }
    _columns_in_order = True

    def __init__(
        self,
        modalities: str | Sequence[tuple[str, Any, Any]] = "auto",
        *,
        class_weight: Mapping[Any, float] | str | None = None,
        image_encoder: Any = "slices",
        table_encoder: Any = "table",
        fusion: Any = "gated",
        heads: Mapping[str, Any] | None = None,
        hidden_features: int = 64,
        dropout: float = 0.5,
        modality_dropout: float = 0.1,
        unimodal_loss_weight: float = 1.0,
        n_members: int = 5,
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            modalities,
            image_encoder=image_encoder,
            table_encoder=table_encoder,
            fusion=fusion,
            heads=heads,
            hidden_features=hidden_features,
            dropout=dropout,
            modality_dropout=modality_dropout,
            unimodal_loss_weight=unimodal_loss_weight,
            n_members=n_members,
            trainer=trainer,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MultimodalClassifier":
        """Train on labels.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)
        y : pandas.Series, table of one column, or array of shape (n_samples,)
            A Series or a table is joined by patient id, an array goes by place.
        sample_weight : array or Series of shape (n_samples,), default=None

        Returns
        -------
        MultimodalClassifier
        """
        self._check_parameters()
        table = self._table(X, reset=True)
        by_id = isinstance(X, pd.DataFrame)
        y = self._labels(y, table.index, by_id).to_frame()
        table, y, weight = counted_rows(table, y, patient_weights(sample_weight, table.index, by_id=by_id))
        labels = y.iloc[:, 0]
        self.classes_ = np.asarray(tuple(sorted(class_labels(labels))))
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}; a classifier needs at least 2 classes.")
        check_cohort(table, y)
        y = labels.to_frame("label")
        task = NominalTask("label", ("label",), tuple(self.classes_.tolist()))
        if self.class_weight is not None:
            weight = self._class_weights(class_codes(labels, task.classes), weight)
        self._fit(table, y, {"label": task}, weight)
        self.tasks_ = {"label": replace(task, columns=())}  # labels do not say which column of a table they are
        return self

    def _class_weights(self, codes: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        """Weights of patients, times those of their classes."""
        by_class = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes], sample_weight=weight
        )
        if not (np.isfinite(by_class).all() and (by_class >= 0).all()):
            raise ValueError(f"class_weight must hold finite numbers of 0 or more; got {self.class_weight}.")
        return by_class[codes] if weight is None else weight * by_class[codes]

    def _labels(self, y: Any, index: pd.Index, by_id: bool) -> pd.Series:
        """One known label a patient, in the order of the patients."""
        if y is not None and not isinstance(y, pd.Series | pd.DataFrame):
            refuse_other_tables(y, "y")
            y = column_or_1d(y, warn=True)
        table = outcome_table(y, index, by_id=by_id)
        if table.shape[1] != 1:
            raise ValueError(
                f"{type(self).__name__} learns one label; y has the columns {list(table.columns)}. Give one of them, "
                "or use MMDLS, which learns them all."
            )
        labels = table.iloc[:, 0]
        unknown = labels.isna().to_numpy()
        if unknown.any():
            raise ValueError(
                f"Input y contains NaN: {unknown.sum()} of {len(labels)} patients have no label, such as "
                f"{list(labels.index[unknown][:5])}; leave them out of X and y, or use MMDLS, which learns from the "
                "known labels of each task."
            )
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n_samples, n_classes), columns in the order of ``classes_``."""
        return self._predictions(self._outputs(X), "label").to_numpy(copy=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample, (n_samples,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy: the share of samples whose most probable class is theirs.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_samples, n_features)
        y : pandas.Series, or array of shape (n_samples,)
            A Series is joined by patient id.
        sample_weight : array or Series of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        chosen = self.predict_proba(X).argmax(axis=1)
        by_id = isinstance(X, pd.DataFrame)
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(chosen))
        right = class_codes(self._labels(y, index, by_id), self.classes_.tolist()) == chosen
        return float(np.average(right, weights=patient_weights(sample_weight, index, by_id=by_id)))


@estimator_registry.register("multimodal_survival")
class MultimodalSurvival(Multimodal, BaseEstimator):
    """One right-censored endpoint from several modalities, with the methods of scikit-survival.

    X is a table of patients or a plain numeric array; y is a table with the endpoint's time and event, or
    scikit-survival's structured array. The parameters are those of :class:`MMDLS` without those of class tasks, and:

    Parameters
    ----------
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.

    Attributes
    ----------
    unique_times_ : ndarray of shape (n_times,)
        The times (months) at which survival functions step.
    event_times_ : ndarray
        The times at which an event was seen in training.
    training_outcomes_ : dict of str to structured ndarray of shape (n_rows,)
    risk_cutpoints_ : dict of str to ndarray of shape (2,)
    net_ : skorch.NeuralNet
    modalities_ : list of (name, fitted encoder, columns)
    history_ : pandas.DataFrame
    feature_names_in_ : ndarray of str
    n_features_in_ : int

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=2, image_size=16, return_X_y=True, random_state=0)
    >>> model = MultimodalSurvival(endpoint="os", trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    >>> model.predict(X).shape
    (60,)
    """

    _parameter_constraints: dict[str, list[Any]] = {**Multimodal._parameter_constraints, "endpoint": [str, None]}

    def __init__(
        self,
        modalities: str | Mapping[str, Any] | Sequence[tuple[str, Any, Any]] = "auto",
        *,
        endpoint: str | None = None,
        image_encoder: Any = "slices",
        table_encoder: Any = "table",
        fusion: Any = "gated",
        survival_head: Any = "cox",
        heads: Mapping[str, Any] | None = None,
        hidden_features: int = 64,
        dropout: float = 0.5,
        modality_dropout: float = 0.1,
        unimodal_loss_weight: float = 1.0,
        n_members: int = 5,
        auxiliary_horizons: Sequence[float] = (),
        trainer: Trainer | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            modalities,
            image_encoder=image_encoder,
            table_encoder=table_encoder,
            fusion=fusion,
            survival_head=survival_head,
            heads=heads,
            hidden_features=hidden_features,
            dropout=dropout,
            modality_dropout=modality_dropout,
            unimodal_loss_weight=unimodal_loss_weight,
            n_members=n_members,
            auxiliary_horizons=auxiliary_horizons,
            trainer=trainer,
            random_state=random_state,
        )
        self.endpoint = endpoint

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MultimodalSurvival":
        """Train on one endpoint.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        y : pandas.DataFrame or structured array of shape (n_patients,)
            A table is joined by patient id, an array goes by place.
        sample_weight : array or Series of shape (n_patients,), default=None

        Returns
        -------
        MultimodalSurvival
        """
        self._check_parameters()
        table = self._table(X, reset=True)
        by_id = isinstance(X, pd.DataFrame)
        outcomes, name = endpoint_table(y, table.index, self.endpoint, by_id=by_id)
        weight = patient_weights(sample_weight, table.index, by_id=by_id)
        table, outcomes, weight = counted_rows(table, outcomes, weight)
        tasks = check_cohort(table, outcomes, [name])
        self._fit(table, outcomes, tasks, weight)
        self._name = name
        self.unique_times_ = self._times[name]
        outcome = self.training_outcomes_[name]
        self.event_times_ = np.unique(outcome["time"][outcome["event"]])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Risk, higher = earlier event, (n_patients,)."""
        outputs = self._outputs(X)
        return np.array(self._summary(outputs, self._name))

    def predict_survival_function(self, X: Any, return_array: bool = False, times: Any = None) -> np.ndarray:
        """Survival functions.

        Parameters
        ----------
        X : pandas.DataFrame or array
        return_array : bool, default=False
            Give probabilities (n_patients, n_times) at ``unique_times_`` instead of step functions.
        times : sequence of float, default=None
            Months: only the probabilities there are computed and given, NaN beyond the training follow-up.

        Returns
        -------
        ndarray of scikit-survival StepFunction, shape (n_patients,), or of float
        """
        check_is_fitted(self, "net_")
        return self._step_functions(X, self._name, return_array, asked=times)

    def predict_cumulative_hazard_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "net_")
        return self._step_functions(X, self._name, return_array, cumulative_hazard)

    def predict_risk_group(self, X: Any) -> np.ndarray:
        """Risk group, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,)."""
        risk = self.predict(X)
        return risk_group(risk, self.risk_cutpoints_[self._name])

    def score(self, X: Any, y: Any) -> float:
        """Harrell's C-index."""
        outputs = self._outputs(X)
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(outputs.unknown))
        outcome = scored_outcome(y, index, self._name, by_id=isinstance(X, pd.DataFrame))
        return self._task_score(outputs, self._name, outcome)
