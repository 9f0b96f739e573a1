"""Cox regression with an elastic-net penalty."""

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import optuna
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils._param_validation import Interval, StrOptions
from sksurv.linear_model import CoxnetSurvivalAnalysis

from mmdls.estimators.columns._tabular import TabularEncoder
from mmdls.estimators.survival._partial_likelihood import best_penalty, deal
from mmdls.estimators.survival._tabular_survival import LinearSurvival
from mmdls.registry import estimators

__all__ = ["CoxNet"]

_SMALLEST = 0.02  # penalty of a path, of the one that leaves no column


@estimators.register("coxnet")
class CoxNet(LinearSurvival):
    """Cox regression with an elastic-net penalty, chosen by cross-validation inside the training rows.

    Parameters
    ----------
    columns : str or sequence of str, default=("clinical", "pet", "radiomics")
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    l1_ratio : float, default=0.5
        1 is the lasso; close to 0 is ridge.
    alpha : float or "cv", default="cv"
        Penalty; ``"cv"`` takes the one of the path with the highest cross-validated partial likelihood [2]_. The folds
        are dealt out by event and time, without chance.
    n_alphas : int, default=20
        Length of the path.
    cv : int, default=5
        Number of folds.

    Attributes
    ----------
    alpha_ : float
        The penalty in use.
    coef_ : pandas.Series of shape (n_covariates,)
        Log hazard ratios of the columns that the model reads, 0 for those that it leaves out. Standard errors there
        are none: they would take the choice of columns for granted.
    pipeline_ : sklearn.pipeline.Pipeline
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Simon N, Friedman J, Hastie T, Tibshirani R. Regularization paths for Cox's proportional hazards model via
       coordinate descent. Journal of Statistical Software, 2011.
    .. [2] Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Statistics in Medicine, 1993.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> model = CoxNet(columns="clinical", endpoint="os").fit(X, y)
    >>> model.predict(X).shape, len(model.predict_survival_function(X[:2]))
    ((80,), 2)
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        l1_ratio: float = 0.5,
        alpha: float | str = "cv",
        n_alphas: int = 20,
        cv: int = 5,
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.l1_ratio = l1_ratio
        self.alpha = alpha
        self.n_alphas = n_alphas
        self.cv = cv

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **LinearSurvival._parameter_constraints,
        "l1_ratio": [Interval(Real, 0, 1, closed="right")],
        "alpha": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "n_alphas": [Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left")],
    }
    _unweighted = "scikit-survival's elastic net has none, and cross-validation would choose its penalty without them"

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"l1_ratio": optuna.distributions.FloatDistribution(0.05, 1.0)}

    def _finish(self) -> None:
        self.alpha_ = float(self._model.alphas_[-1])
        if self.alpha == "cv" and not self._model.coef_.any():
            warnings.warn(
                f"cross-validation chose a penalty, {self.alpha_:.3g}, that leaves no column: all risks are equal. The "
                "columns tell nothing of this endpoint, or the patients are too few.",
                stacklevel=3,
            )

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        model = CoxnetSurvivalAnalysis(l1_ratio=self.l1_ratio, fit_baseline_model=True)
        if self.alpha != "cv":
            return make_pipeline(TabularEncoder(), model.set_params(alphas=[self.alpha]))
        return make_pipeline(TabularEncoder(), _BestOfPath(model, self.n_alphas, self.cv))


class _BestOfPath(BaseEstimator):
    """The elastic net with the penalty of a path that is best in cross-validation."""

    def __init__(self, model: CoxnetSurvivalAnalysis, n_alphas: int, cv: int):
        self.model = model
        self.n_alphas = n_alphas
        self.cv = cv

    def fit(self, X: np.ndarray, y: np.ndarray, groups: Any = None) -> "_BestOfPath":
        path = CoxnetSurvivalAnalysis(l1_ratio=self.model.l1_ratio, n_alphas=self.n_alphas, alpha_min_ratio=_SMALLEST)

        def learned(rows: np.ndarray) -> np.ndarray:
            for n in range(len(alphas), 0, -1):
                try:
                    return path.set_params(alphas=alphas[:n]).fit(X[rows], y[rows]).coef_.T
                except ArithmeticError:  # the smallest penalties have no finite solution
                    continue
            return np.empty((0, X.shape[1]))

        with warnings.catch_warnings():
            # The path starts at the penalty that leaves no column.
            warnings.filterwarnings("ignore", "all coefficients are zero")
            alphas = path.fit(X, y).alphas_
            alpha = best_penalty(alphas, learned, X, y, np.ones(len(X)), "breslow", deal(X, y, groups, self.cv))
            self.best_estimator_ = clone(self.model).set_params(alphas=[alpha]).fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.best_estimator_.predict(X)
