"""Strong, simple comparators on the numbers of a cohort: scikit-survival's models behind one front."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import SplineTransformer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest
from sksurv.functions import StepFunction
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis

from mmdls.cohort import check_cohort, check_features, find_tasks, modalities, survival_target
from mmdls.estimators._screening import CorrelationFilter, VarianceFilter
from mmdls.estimators._tabular import TabularEncoder
from mmdls.metrics import concordance_index
from mmdls.model_selection import CohortKFold
from mmdls.registry import estimators

__all__ = ["ClinicalCox", "CoxNet", "RadiomicsCox", "SurvivalBoosting", "SurvivalForest"]


class _TabularSurvival(BaseEstimator):
    """One endpoint from some blocks of a cohort; subclasses say which pipeline is fitted."""

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> "_TabularSurvival":
        """Fit on the patients whose outcome is known.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
            A table of patients, of which the columns of ``blocks`` are used, or a plain numeric array.
        y : pandas.DataFrame or structured array of shape (n_patients,)
            A table that holds the endpoint, or scikit-survival's target.

        Returns
        -------
        self
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None; give a table that holds "
                "the endpoint, or a structured survival array."
            )
        features = self._features(X, reset=True)
        name = self.endpoint
        if isinstance(y, pd.DataFrame):
            if name is None:
                survival_target(y)
                name = next(task.name for task in find_tasks(y).values() if task.kind == "survival")
            patients = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(features))
            check_cohort(pd.DataFrame(index=patients), y, [name])
        else:
            name = "survival"
        target = survival_target(y, name if isinstance(y, pd.DataFrame) else None)
        if len(target) != len(features):
            raise ValueError(f"X has {len(features)} patients and y has {len(target)}; both need one row a patient.")
        known = ~np.isnan(target["time"])
        if not target["event"][known].any():
            raise ValueError(f"endpoint {name!r} has no event among {known.sum()} patients; nothing can be learned.")
        self._name = name
        outcome = target[known]
        # scikit-survival refuses time zero only in some models; half a day keeps the order and is the same for all.
        usable = outcome.copy()
        usable["time"] = np.maximum(usable["time"], 1 / 60)
        self.pipeline_ = self._pipeline(usable).fit(features[known], usable)
        self.outcomes_ = {name: outcome}
        risk = self.pipeline_.predict(features[known])
        self.risk_cutpoints_ = {name: np.quantile(risk, [1 / 3, 2 / 3])}
        self.unique_times_ = self._model.unique_times_
        self.event_times_ = np.unique(outcome["time"][outcome["event"]])
        return self

    @property
    def _model(self) -> Any:
        last = self.pipeline_[-1]
        return getattr(last, "best_estimator_", last)

    def _features(self, X: Any, *, reset: bool) -> pd.DataFrame:
        named = isinstance(X, pd.DataFrame) and any(isinstance(column, str) for column in X.columns)
        if not named or not (reset or hasattr(self, "feature_names_in_")):
            values = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
            names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
            return pd.DataFrame(values, columns=names)
        check_features(X)
        if reset:
            found = modalities(X)
            missing = [block for block in self.blocks if block not in found]
            images = [b for b in self.blocks if b in found and found[b][0].endswith("_image")]
            if missing or images:
                raise ValueError(
                    f"{type(self).__name__} reads the blocks {list(self.blocks)}, but X has no columns "
                    f"{[f'{b}_*' for b in missing + images]} of numbers or categories. Columns: {list(X.columns)[:30]}."
                )
            columns = [column for block in self.blocks for column in found[block]]
            self.feature_names_in_ = np.asarray(columns, dtype=object)
            self.n_features_in_ = len(columns)
        gone = [c for c in self.feature_names_in_ if c not in X.columns]
        if gone:
            raise ValueError(
                f"X lacks the columns {gone}, which were there in fit; fill them with NaN for patients without them."
            )
        return X[list(self.feature_names_in_)]

    def predict(self, X: Any) -> np.ndarray:
        """Risk, higher = earlier event, (n_patients,)."""
        check_is_fitted(self, "pipeline_")
        return np.asarray(self.pipeline_.predict(self._features(X, reset=False)), dtype=float)

    def predict_survival_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Survival functions: step functions, or probabilities (n_patients, n_times) at ``unique_times_``."""
        check_is_fitted(self, "pipeline_")
        return self._curves(X, self._model.predict_survival_function, 1.0, return_array)

    def predict_cumulative_hazard_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "pipeline_")
        return self._curves(X, self._model.predict_cumulative_hazard_function, 0.0, return_array)

    def _curves(self, X: Any, method: Any, start: float, return_array: bool) -> np.ndarray:
        values = method(self.pipeline_[:-1].transform(self._features(X, reset=False)), return_array=True)
        if return_array:
            return values
        # scikit-survival's functions hold their first value from time zero on; a curve starts where nobody has died.
        times, values = np.r_[0.0, self.unique_times_], np.c_[np.full(len(values), start), values]
        functions = np.empty(len(values), dtype=object)
        functions[:] = [StepFunction(times, row, domain=(0, None)) for row in values]
        return functions

    def predict_risk_group(self, X: Any) -> np.ndarray:
        """Risk group, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,)."""
        risk = self.predict(X)
        return np.searchsorted(self.risk_cutpoints_[self._name], risk, side="right")

    def score(self, X: Any, y: Any) -> float:
        """Harrell's C-index."""
        risk = self.predict(X)
        target = survival_target(y, self._name if isinstance(y, pd.DataFrame) else None)
        known = ~np.isnan(target["time"])
        return concordance_index(target["event"][known], target["time"][known], risk[known])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


@estimators.register("clinical_cox")
class ClinicalCox(_TabularSurvival):
    """Cox regression with a ridge penalty on clinical variables: the model to beat.

    Parameters
    ----------
    blocks : sequence of str, default=("clinical",)
        Blocks of columns to use, such as ``("clinical", "pet")``.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    alpha : float, default=1.0
        Ridge penalty.
    spline_knots : int, default=None
        Let numbers act through cubic splines with this many knots at their quantiles, linear beyond the outer ones;
        None lets them act linearly (after the power transform of :class:`TabularEncoder`).
    ties : {"efron", "breslow"}, default="efron"

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    outcomes_, risk_cutpoints_ : dict
        By endpoint: outcomes of the training rows, tertiles of their risks.
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> ClinicalCox(endpoint="os").fit(X, y).predict(X).shape
    (80,)
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ("clinical",),
        endpoint: str | None = None,
        alpha: float = 1.0,
        spline_knots: int | None = None,
        ties: str = "efron",
    ):
        self.blocks = blocks
        self.endpoint = endpoint
        self.alpha = alpha
        self.spline_knots = spline_knots
        self.ties = ties

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "alpha": optuna.distributions.FloatDistribution(1e-2, 1e3, log=True),
            "spline_knots": optuna.distributions.CategoricalDistribution([None, 3, 5]),
        }

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        cox = CoxPHSurvivalAnalysis(alpha=self.alpha, ties=self.ties)
        if self.spline_knots is None:
            return make_pipeline(TabularEncoder(), cox)
        if self.spline_knots < 2:
            raise ValueError(f"spline_knots must be at least 2, or None; got {self.spline_knots}.")
        return make_pipeline(TabularEncoder(), _Splines(self.spline_knots), cox)


class _Splines(TransformerMixin, BaseEstimator):
    """Columns with more values than knots become cubic splines of themselves; others stay."""

    def __init__(self, n_knots: int):
        self.n_knots = n_knots

    def fit(self, X: np.ndarray, y: Any = None) -> "_Splines":
        self.curved_ = np.array([len(np.unique(column)) > 2 * self.n_knots for column in X.T], dtype=bool)
        if self.curved_.any():
            self.splines_ = SplineTransformer(
                self.n_knots, degree=3, knots="quantile", extrapolation="linear", include_bias=False
            ).fit(X[:, self.curved_])
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        if not self.curved_.any():
            return X
        return np.column_stack([self.splines_.transform(X[:, self.curved_]), X[:, ~self.curved_]])


@estimators.register("radiomics_cox")
class RadiomicsCox(_TabularSurvival):
    """The published radiomics baseline: variance filter, z-scores, greedy correlation filter, ridge Cox.

    Parameters
    ----------
    blocks : sequence of str, default=("radiomics",)
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    min_variance : float, default=1e-8
        Features that vary less are left out.
    max_correlation : float, default=0.95
        Of two features that correlate more, the later one is left out.
    alpha : float, default=0.1
        Ridge penalty.
    ties : {"efron", "breslow"}, default="efron"

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ("radiomics",),
        endpoint: str | None = None,
        min_variance: float = 1e-8,
        max_correlation: float = 0.95,
        alpha: float = 0.1,
        ties: str = "efron",
    ):
        self.blocks = blocks
        self.endpoint = endpoint
        self.min_variance = min_variance
        self.max_correlation = max_correlation
        self.alpha = alpha
        self.ties = ties

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "alpha": optuna.distributions.FloatDistribution(1e-2, 1e4, log=True),
            "max_correlation": optuna.distributions.FloatDistribution(0.7, 0.99),
        }

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        return make_pipeline(
            TabularEncoder(scale=None, indicators=False),
            VarianceFilter(self.min_variance),
            TabularEncoder(scale="standard", indicators=False),
            CorrelationFilter(self.max_correlation),
            CoxPHSurvivalAnalysis(alpha=self.alpha, ties=self.ties),
        )


@estimators.register("coxnet")
class CoxNet(_TabularSurvival):
    """Cox regression with an elastic-net penalty, chosen by cross-validation inside the training rows.

    Parameters
    ----------
    blocks : sequence of str, default=("clinical", "pet", "radiomics")
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    l1_ratio : float, default=0.5
        1 is the lasso; close to 0 is ridge.
    alpha : float or "cv", default="cv"
        Penalty; ``"cv"`` takes the one of the path with the highest cross-validated C-index.
    n_alphas : int, default=20
        Length of the path.
    cv : int, default=4
    random_state : int, RandomState instance or None, default=None
        Of the inner folds.

    Attributes
    ----------
    alpha_ : float
        The penalty in use.
    pipeline_ : sklearn.pipeline.Pipeline
    outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Simon N, Friedman J, Hastie T, Tibshirani R. Regularization paths for Cox's proportional hazards model via
       coordinate descent. Journal of Statistical Software, 2011.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        l1_ratio: float = 0.5,
        alpha: float | str = "cv",
        n_alphas: int = 20,
        cv: int = 4,
        random_state: Any = None,
    ):
        self.blocks = blocks
        self.endpoint = endpoint
        self.l1_ratio = l1_ratio
        self.alpha = alpha
        self.n_alphas = n_alphas
        self.cv = cv
        self.random_state = random_state

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {"l1_ratio": optuna.distributions.FloatDistribution(0.05, 1.0)}

    def fit(self, X: Any, y: Any) -> "CoxNet":
        """Fit on the patients whose outcome is known; see :meth:`ClinicalCox.fit`."""
        super().fit(X, y)
        self.alpha_ = float(self._model.alphas_[-1])
        if self.alpha == "cv" and not self._model.coef_.any():
            warnings.warn(
                f"cross-validation chose a penalty, {self.alpha_:.3g}, that leaves no column: all risks are equal. The "
                "columns tell nothing of this endpoint, or the patients are too few.",
                stacklevel=2,
            )
        return self

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        model = CoxnetSurvivalAnalysis(l1_ratio=self.l1_ratio, fit_baseline_model=True)
        if self.alpha != "cv":
            return make_pipeline(TabularEncoder(), model.set_params(alphas=[self.alpha]))
        return make_pipeline(TabularEncoder(), _CoxNetPath(model, self.n_alphas, self.cv, self.random_state))


class _CoxNetPath(BaseEstimator):
    """Choose the penalty along the path by cross-validation."""

    def __init__(self, model: CoxnetSurvivalAnalysis, n_alphas: int, cv: int, random_state: Any):
        self.model = model
        self.n_alphas = n_alphas
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_CoxNetPath":
        path = CoxnetSurvivalAnalysis(l1_ratio=self.model.l1_ratio, n_alphas=self.n_alphas, alpha_min_ratio=0.02).fit(
            X, y
        )
        folds = CohortKFold(self.cv, random_state=check_random_state(self.random_state).randint(2**31 - 1))
        search = GridSearchCV(self.model, {"alphas": [[alpha] for alpha in path.alphas_]}, cv=folds, error_score=0.5)
        with warnings.catch_warnings():
            # The path starts at the penalty that leaves no column, and may end where the fit diverges (it scores 0.5).
            warnings.filterwarnings("ignore", "all coefficients are zero")
            warnings.simplefilter("ignore", FitFailedWarning)
            search.fit(X, y)
        self.best_estimator_ = search.best_estimator_
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.best_estimator_.predict(X)


@estimators.register("survival_forest")
class SurvivalForest(_TabularSurvival):
    """Random survival forest.

    Parameters
    ----------
    blocks : sequence of str, default=("clinical", "pet", "radiomics")
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    n_estimators : int, default=200
    min_samples_leaf : int, default=10
    max_features : str, int or float, default="sqrt"
    n_jobs : int, default=None
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Ishwaran H, Kogalur UB, Blackstone EH, Lauer MS. Random survival forests. Annals of Applied Statistics, 2008.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        n_estimators: int = 200,
        min_samples_leaf: int = 10,
        max_features: Any = "sqrt",
        n_jobs: int | None = None,
        random_state: Any = None,
    ):
        self.blocks = blocks
        self.endpoint = endpoint
        self.n_estimators = n_estimators
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.n_jobs = n_jobs
        self.random_state = random_state

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "min_samples_leaf": optuna.distributions.IntDistribution(3, 40, log=True),
            "max_features": optuna.distributions.FloatDistribution(0.1, 1.0),
        }

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        forest = RandomSurvivalForest(
            n_estimators=self.n_estimators,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features,
            n_jobs=self.n_jobs,
            random_state=self.random_state,
        )
        return make_pipeline(TabularEncoder(scale=None), forest)


@estimators.register("survival_boosting")
class SurvivalBoosting(_TabularSurvival):
    """Gradient-boosted trees on the Cox partial likelihood.

    Parameters
    ----------
    blocks : sequence of str, default=("clinical", "pet", "radiomics")
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    n_estimators : int, default=150
    learning_rate : float, default=0.05
    max_depth : int, default=2
    subsample : float, default=0.7
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Ridgeway G. The state of boosting. Computing Science and Statistics, 1999.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[str] = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        n_estimators: int = 150,
        learning_rate: float = 0.05,
        max_depth: int = 2,
        subsample: float = 0.7,
        random_state: Any = None,
    ):
        self.blocks = blocks
        self.endpoint = endpoint
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.subsample = subsample
        self.random_state = random_state

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "n_estimators": optuna.distributions.IntDistribution(50, 400),
            "max_depth": optuna.distributions.IntDistribution(1, 4),
            "learning_rate": optuna.distributions.FloatDistribution(0.01, 0.2, log=True),
        }

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        boosting = GradientBoostingSurvivalAnalysis(
            n_estimators=self.n_estimators,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            subsample=self.subsample,
            random_state=self.random_state,
        )
        return make_pipeline(TabularEncoder(scale=None), boosting)
