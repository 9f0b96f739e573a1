"""Cox regressions with a ridge penalty: the model to beat, and the published radiomics baseline."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import SplineTransformer
from sklearn.utils._param_validation import Interval, StrOptions

from mmdls.estimators.columns._screening import CorrelationFilter, VarianceFilter
from mmdls.estimators.columns._tabular import TabularEncoder
from mmdls.estimators.survival._ridge_cox import RidgeCox
from mmdls.estimators.survival._tabular_survival import LinearSurvival
from mmdls.registry import estimators

__all__ = ["ClinicalCox", "RadiomicsCox"]


class _RidgeRegression(LinearSurvival):
    """What the two regressions share: the penalty in use, and the table of coefficients."""

    def _finish(self) -> None:
        self.alpha_ = self._model.alpha_

    def summary(self, confidence_level: float = 0.95) -> pd.DataFrame:
        """Coefficients as lifelines tabulates them.

        Standard errors are those of the penalised likelihood, as if the penalty, ``alpha_``, had been given: with
        ``alpha=0`` they are the usual ones; a penalty draws coefficients to 0 and makes them smaller. Intervals and
        p-values are Wald's. For hazard ratios without a penalty, and
        tests of proportional hazards, see :func:`mmdls.tables.hazard_table`.

        Parameters
        ----------
        confidence_level : float, default=0.95

        Returns
        -------
        pandas.DataFrame of shape (n_covariates, 9)
            Index ``covariate``, in the units of ``coef_``; columns ``coef``, ``exp(coef)``, ``se(coef)``,
            ``coef lower 95%``, ``coef upper 95%``, ``exp(coef) lower 95%``, ``exp(coef) upper 95%``, ``z``, ``p``.

        Raises
        ------
        ValueError
            If the confidence level is not between 0 and 1.
        """
        if not 0 < confidence_level < 1:
            raise ValueError(f"confidence_level must lie between 0 and 1, such as 0.95; got {confidence_level!r}.")
        coef = self.coef_
        error = np.sqrt(self._model.variance_)
        margin = norm.ppf((1 + confidence_level) / 2) * error
        level, z = f"{100 * confidence_level:g}%", coef / error
        return pd.DataFrame(
            {
                "coef": coef,
                "exp(coef)": np.exp(coef),
                "se(coef)": error,
                f"coef lower {level}": coef - margin,
                f"coef upper {level}": coef + margin,
                f"exp(coef) lower {level}": np.exp(coef - margin),
                f"exp(coef) upper {level}": np.exp(coef + margin),
                "z": z,
                "p": 2 * norm.sf(np.abs(z)),
            }
        )


@estimators.register("clinical_cox")
class ClinicalCox(_RidgeRegression):
    """Cox regression with a ridge penalty on clinical variables: the model to beat.

    Parameters
    ----------
    columns : str or sequence of str, default="clinical"
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    alpha : float or "cv", default="cv"
        Ridge penalty; ``"cv"`` takes the one with the highest cross-validated partial likelihood [1]_ in five folds of
        the training rows. The folds are dealt out by event and time, without chance.
    spline_knots : int, default=None
        Let numbers act through cubic splines with this many knots at their quantiles, linear beyond the outer ones;
        None lets them act linearly (after the power transform of :class:`TabularEncoder`).
    ties : {"efron", "breslow"}, default="efron"
        How tied deaths share a risk set. With ``"breslow"`` a weight is a repetition; Efron's correction counts ties,
        not weights.

    Attributes
    ----------
    alpha_ : float
        The penalty in use.
    coef_ : pandas.Series of shape (n_covariates,)
        Log hazard ratios of the columns that the model reads; :meth:`summary` has their errors.
    pipeline_ : sklearn.pipeline.Pipeline
    training_outcomes_, risk_cutpoints_ : dict
        By endpoint: outcomes of the training rows, tertiles of their risks.
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Statistics in Medicine, 1993.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> model = ClinicalCox(endpoint="os").fit(X, y)
    >>> model.predict(X).shape
    (80,)
    >>> model.summary().columns[:3].tolist()
    ['coef', 'exp(coef)', 'se(coef)']
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = "clinical",
        endpoint: str | None = None,
        alpha: float | str = "cv",
        spline_knots: int | None = None,
        ties: str = "efron",
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.alpha = alpha
        self.spline_knots = spline_knots
        self.ties = ties

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **LinearSurvival._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
        "spline_knots": [Interval(Integral, 2, None, closed="left"), None],
        "ties": [StrOptions({"efron", "breslow"})],
    }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"spline_knots": optuna.distributions.CategoricalDistribution([None, 3, 5])}

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        cox = RidgeCox(alpha=self.alpha, ties=self.ties)
        if self.spline_knots is None:
            return make_pipeline(TabularEncoder(), cox)
        return make_pipeline(TabularEncoder(), _Splines(self.spline_knots), cox)


class _Splines(TransformerMixin, BaseEstimator):
    """Columns with more values than knots become cubic splines of themselves; others stay."""

    def __init__(self, n_knots: int):
        self.n_knots = n_knots

    def fit(self, X: np.ndarray, y: Any = None, sample_weight: np.ndarray | None = None) -> "_Splines":
        self.curved_ = np.array([len(np.unique(column)) > 2 * self.n_knots for column in X.T], dtype=bool)
        if self.curved_.any():
            self.splines_ = SplineTransformer(
                self.n_knots, degree=3, knots="quantile", extrapolation="linear", include_bias=False
            ).fit(X[:, self.curved_], sample_weight=np.ones(len(X)) if sample_weight is None else sample_weight)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        if not self.curved_.any():
            return X
        return np.column_stack([self.splines_.transform(X[:, self.curved_]), X[:, ~self.curved_]])

    def get_feature_names_out(self, input_features: np.ndarray) -> np.ndarray:
        if not self.curved_.any():
            return input_features
        curved = self.splines_.get_feature_names_out(input_features[self.curved_])
        return np.concatenate([curved, input_features[~self.curved_]])


@estimators.register("radiomics_cox")
class RadiomicsCox(_RidgeRegression):
    """The published radiomics baseline: variance filter, z-scores, greedy correlation filter, ridge Cox.

    The penalty, however, is chosen by the data; ``alpha=0.1`` is the published one.

    Parameters
    ----------
    columns : str or sequence of str, default="radiomics"
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    min_variance : float, default=1e-8
        Features that vary less are left out.
    max_correlation : float, default=0.95
        Of two features that correlate more, the later one is left out.
    alpha : float or "cv", default="cv"
        Ridge penalty; ``"cv"`` takes the one with the highest cross-validated partial likelihood [1]_ in five folds of
        the training rows. The folds are dealt out by event and time, without chance.
    ties : {"efron", "breslow"}, default="efron"
        How tied deaths share a risk set. With ``"breslow"`` a weight is a repetition; Efron's correction counts ties,
        not weights.

    Attributes
    ----------
    alpha_ : float
        The penalty in use.
    coef_ : pandas.Series of shape (n_covariates,)
        Log hazard ratios of the columns that the model reads; :meth:`summary` has their errors.
    pipeline_ : sklearn.pipeline.Pipeline
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Statistics in Medicine, 1993.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> RadiomicsCox(endpoint="os").fit(X, y).predict(X).shape
    (80,)
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = "radiomics",
        endpoint: str | None = None,
        min_variance: float = 1e-8,
        max_correlation: float = 0.95,
        alpha: float | str = "cv",
        ties: str = "efron",
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.min_variance = min_variance
        self.max_correlation = max_correlation
        self.alpha = alpha
        self.ties = ties

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **LinearSurvival._parameter_constraints,
        "min_variance": [Interval(Real, 0, None, closed="left")],
        "max_correlation": [Interval(Real, 0, 1, closed="both")],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
        "ties": [StrOptions({"efron", "breslow"})],
    }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"max_correlation": optuna.distributions.FloatDistribution(0.7, 0.99)}

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        return make_pipeline(
            TabularEncoder(scale=None, add_indicator=False),
            VarianceFilter(self.min_variance),
            TabularEncoder(scale="standard", add_indicator=False),
            CorrelationFilter(self.max_correlation),
            RidgeCox(alpha=self.alpha, ties=self.ties),
        )
