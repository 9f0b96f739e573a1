"""Sign-weighted bagging: standardised columns of weight +1 or -1, averaged over bootstrap samples."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import optuna
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mmdls._parameters import Finite, count
from mmdls.estimators.columns._screening import Correlated, unit_columns
from mmdls.estimators.columns._tabular import TabularEncoder
from mmdls.estimators.survival._ridge_cox import ProportionalHazards, RidgeCox
from mmdls.estimators.survival._tabular_survival import TabularSurvival
from mmdls.metrics import baseline_cumulative_hazard
from mmdls.metrics._classification import weighted_auc
from mmdls.metrics._concordance import concordance_by_column
from mmdls.registry import estimators

__all__ = ["SignWeightedBagging", "SignWeightedClassifier"]

# Of the slope of scores: as good as none, but a likelihood of patients whom the score separates keeps a maximum.
_PENALTY = 0.01
# Where patients out of bag do not confirm the order of the scores, curves are as good as equal and keep it. A smaller
# slope would make risks so near to each other that scikit-survival counts them as tied.
_LEAST_SLOPE = 1e-3

_CONSTRAINTS: dict[str, list[Any]] = {
    "n_estimators": [count(1)],
    "max_features": [Finite(Real, 0, 1, closed="right")],
    "max_correlation": [Finite(Real, 0, 1, closed="both")],
    "min_concordance": [Finite(Real, 0.5, 1, closed="left")],
    "random_state": ["random_state"],
}
_SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "max_correlation": optuna.distributions.FloatDistribution(0.4, 1.0),
    "min_concordance": optuna.distributions.FloatDistribution(0.5, 0.6),
}


@estimators.register("sign_weighted_bagging")
class SignWeightedBagging(TabularSurvival):
    """Sign-weighted bagging: all that is learned of a column is its sign.

    Each member draws rows with replacement and some of the columns. It leaves out columns whose concordance with the
    endpoint is too close to 1/2 and, in random order, those that correlate with one that it kept; its score is the mean
    of the rest, standardised and with the sign of their concordance. The score is the mean over the members. This won
    the outcome task of HECKTOR 2022 [1]_, where columns outnumbered the events.

    Scores become hazards by a Cox regression on one variable, the score of each patient by the members that did
    not draw it, so that curves are calibrated. Where its slope is not above 0, all curves are as good as the same.

    Parameters
    ----------
    columns : str or sequence of str, default=("clinical", "pet", "radiomics")
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    n_estimators : int, default=200
        Members.
    max_features : float, default=0.5
        Fraction of the columns that a member draws.
    max_correlation : float, default=0.7
        A member leaves out a column whose absolute correlation with one that it kept is larger.
    min_concordance : float, default=0.5
        A member leaves out a column whose concordance, or one less it, does not exceed this.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
        Its last step has ``coef_`` (n_columns,), the mean weight of each standardised column, and ``out_of_bag_``
        (n_patients,), scores of the training rows; NaN for one that every member drew.
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Rebaud L, Escobar T, Khalid F, Girum K, Buvat I. Simplicity is all you need: out-of-the-box nnUNet followed
       by binary-weighted radiomic model for segmentation and outcome prediction in head and neck PET/CT. Head and Neck
       Tumor Segmentation and Outcome Prediction (HECKTOR 2022), Lecture Notes in Computer Science, Springer, 2023.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> SignWeightedBagging(endpoint="os", random_state=0).fit(X, y).predict(X).shape
    (80,)
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        n_estimators: int = 200,
        max_features: float = 0.5,
        max_correlation: float = 0.7,
        min_concordance: float = 0.5,
        random_state: Any = None,
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.max_correlation = max_correlation
        self.min_concordance = min_concordance
        self.random_state = random_state

    _parameter_constraints: ClassVar[dict[str, Any]] = {**TabularSurvival._parameter_constraints, **_CONSTRAINTS}

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return dict(_SPACE)

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        bagging = _SignWeightedCox(**{name: getattr(self, name) for name in _CONSTRAINTS})
        return make_pipeline(TabularEncoder(add_indicator=False), bagging)


class _Bagged(BaseEstimator):
    """Members of random rows and columns, and the scores of rows by those that did not draw them."""

    def __init__(
        self,
        *,
        n_estimators: int = 200,
        max_features: float = 0.5,
        max_correlation: float = 0.7,
        min_concordance: float = 0.5,
        random_state: Any = None,
    ):
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.max_correlation = max_correlation
        self.min_concordance = min_concordance
        self.random_state = random_state

    def _fit_members(
        self,
        X: np.ndarray,
        agreements: Sequence[Callable[[np.ndarray, np.ndarray], np.ndarray]],
        weight: np.ndarray,
        groups: Any = None,
    ) -> np.ndarray:
        """Learn ``coef_`` (n_columns, n_agreements); returns the scores out of bag (n, n_agreements).

        Of columns (n, n_columns) and the weights that rows have in each bag (n_estimators, n), an agreement is the
        concordance of each column with what is predicted, (n_columns, n_estimators).
        """
        rng = check_random_state(self.random_state)
        self.mean_ = np.average(X, axis=0, weights=weight)
        deviation = np.sqrt(np.average((X - self.mean_) ** 2, axis=0, weights=weight))
        varying = deviation > 1e-9 * np.maximum(np.abs(X).max(axis=0), 1e-300)
        self.scale_ = np.where(varying, deviation, 1.0)
        Z = self._standardised(X)
        unit = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        total = np.bincount(unit, weight)
        drawn = rng.multinomial(len(total), total / total.sum(), size=self.n_estimators)[:, unit]
        bags = drawn * weight / (total / np.bincount(unit))[unit]
        with np.errstate(invalid="ignore"):  # a bag may hold no pair that can be compared; it then has no signs
            found = np.stack([agree(X, bags) for agree in agreements])
        margin = np.nan_to_num(found - 0.5).transpose(2, 0, 1)  # (n_estimators, n_agreements, n_columns)
        correlated = Correlated(unit_columns(X, weight), self.max_correlation)
        n_drawn = max(1, round(self.max_features * varying.sum()))
        members = np.zeros(margin.shape)
        for own, margins in zip(members, margin, strict=True):
            columns = rng.permutation(np.flatnonzero(varying))[:n_drawn]
            for signs, by in zip(own, margins, strict=True):
                telling = columns[np.abs(by[columns]) > max(self.min_concordance - 0.5, 1e-12)]
                kept = correlated.uncorrelated(telling)
                signs[kept] = np.sign(by[kept]) / max(len(kept), 1)
        self.coef_ = members.mean(axis=0).T
        outside = (drawn == 0).astype(float)
        with np.errstate(invalid="ignore"):  # of a row that every member drew
            shares = outside / outside.sum(axis=0)
        return np.einsum("bn,nc,bkc->nk", shares, Z, members, optimize=True)

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.scale_

    def _scores(self, X: np.ndarray) -> np.ndarray:
        return self._standardised(X) @ self.coef_


class _SignWeightedCox(ProportionalHazards, _Bagged):
    """Sign-weighted bagging of an endpoint, on complete numbers (n, n_columns) and a structured array."""

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None, groups: Any = None) -> "_SignWeightedCox":
        event, time = y["event"], y["time"]
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)

        def agree(columns: np.ndarray, bags: np.ndarray) -> np.ndarray:
            return concordance_by_column(event, time, columns, bags)

        self.out_of_bag_ = self._fit_members(X, [agree], weight, groups)[:, 0]
        known = ~np.isnan(self.out_of_bag_)
        if not event[known].any():
            raise ValueError(
                f"of the {event.sum()} patients with an event none was left out by any of {self.n_estimators} members, "
                f"so that scores cannot be made hazards; give more n_estimators, or more rows (n_samples = {len(X)})."
            )
        scores, weight = self.out_of_bag_[known], weight[known]
        slope = RidgeCox(_PENALTY).fit(scores[:, None], y[known], weight).coef_[0]
        self.slope_ = max(float(slope), _LEAST_SLOPE)
        self.unique_times_, self.cumulative_hazard_ = baseline_cumulative_hazard(
            event[known], time[known], self.slope_ * scores, ties="breslow", sample_weight=weight
        )
        self.coef_ = self.coef_[:, 0]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Log hazards, (n,)."""
        check_is_fitted(self, "coef_")
        return self.slope_ * self._scores(X)


class SignWeightedClassifier(ClassifierMixin, _Bagged):
    """Sign-weighted bagging of classes: all that is learned of a column is its sign, one a class.

    :class:`SignWeightedBagging` with the AUC in place of the concordance: of two classes that of the second, of more
    that of each class against the rest. Scores become probabilities by a logistic regression on the scores of each row
    by the members that did not draw it.

    Parameters
    ----------
    n_estimators : int, default=200
        Members.
    max_features : float, default=0.5
        Fraction of the columns that a member draws.
    max_correlation : float, default=0.7
        A member leaves out a column whose absolute correlation with one that it kept is larger.
    min_concordance : float, default=0.5
        A member leaves out a column whose AUC, or one less it, does not exceed this.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_features, n_scores)
        Mean weight of each standardised column; one score of two classes, of more one a class.
    out_of_bag_ : ndarray of shape (n_samples, n_scores)
        Scores of the training rows; NaN for one that every member drew.
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = SignWeightedClassifier(random_state=0).fit(X[::2], y[::2])
    >>> model.score(X[1::2], y[1::2]) > 0.85
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = _CONSTRAINTS

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return dict(_SPACE)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SignWeightedClassifier":
        """Learn signs from X (n_samples, n_features) and labels y (n_samples,).

        A row is drawn as often as its weight says; one of weight 0 teaches nothing.

        Raises
        ------
        ValueError
            If there is one class only.
        """
        self._validate_params()
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs two classes; y has one class, {list(self.classes_)}.")
        told = self.classes_ if len(self.classes_) > 2 else self.classes_[1:]

        def agreement(label: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
            own, others = (y == label).astype(float), (y != label).astype(float)
            return lambda columns, bags: np.stack([weighted_auc(column, own, others)(bags) for column in columns.T])

        self.out_of_bag_ = self._fit_members(X, [agreement(label) for label in told], weight)
        known = ~np.isnan(self.out_of_bag_[:, 0])
        if len(np.unique(y[known])) < len(self.classes_):
            raise ValueError(
                f"some class has no row that was left out by any of {self.n_estimators} members, so that scores cannot "
                "be made probabilities; give more n_estimators."
            )
        logistic = LogisticRegression(C=1 / _PENALTY, max_iter=3000)
        self.logistic_ = logistic.fit(self.out_of_bag_[known], y[known], weight[known])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (n_samples, n_classes)."""
        check_is_fitted(self, "logistic_")
        return self.logistic_.predict_proba(self._scores(validate_data(self, X, reset=False)))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class, (n_samples,)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(axis=1)]
