"""Survival forests and boosted survival trees."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import optuna
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest

from mmdls.estimators.columns._tabular import TabularEncoder
from mmdls.estimators.survival._tabular_survival import TabularSurvival
from mmdls.registry import estimators

__all__ = ["SurvivalBoosting", "SurvivalForest"]

_MAX_FEATURES = [
    StrOptions({"sqrt", "log2"}),
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="right"),
    None,
]


@estimators.register("survival_forest")
class SurvivalForest(TabularSurvival):
    """Random survival forest.

    Parameters
    ----------
    columns : str or sequence of str, default=("clinical", "pet", "radiomics")
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
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
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Ishwaran H, Kogalur UB, Blackstone EH, Lauer MS. Random survival forests. Annals of Applied Statistics, 2008.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> SurvivalForest(endpoint="os", n_estimators=10, random_state=0).fit(X, y).predict(X).shape
    (80,)
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        n_estimators: int = 200,
        min_samples_leaf: int = 10,
        max_features: Any = "sqrt",
        n_jobs: int | None = None,
        random_state: Any = None,
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.n_estimators = n_estimators
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.n_jobs = n_jobs
        self.random_state = random_state

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TabularSurvival._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "min_samples_leaf": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
        "max_features": _MAX_FEATURES,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    @staticmethod
    def search_space() -> dict[str, optuna.distributions.BaseDistribution]:
        """Hyperparameters worth searching."""
        return {
            "min_samples_leaf": optuna.distributions.IntDistribution(3, 40, log=True),
            "max_features": optuna.distributions.FloatDistribution(0.1, 1.0),
        }

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        if len(target) > 1 and len(np.unique(target["time"])) < 2:
            raise ValueError(
                f"all {len(target)} patients have one time, {target['time'][0]:g} months, for which scikit-survival's "
                "forest gives no risks; give exact times, or choose ClinicalCox."
            )
        forest = RandomSurvivalForest(
            n_estimators=self.n_estimators,
            min_samples_leaf=self.min_samples_leaf,
            max_features=self.max_features,
            n_jobs=self.n_jobs,
            random_state=self.random_state,
        )
        return make_pipeline(TabularEncoder(scale=None), forest)


@estimators.register("survival_boosting")
class SurvivalBoosting(TabularSurvival):
    """Gradient-boosted trees on the Cox partial likelihood.

    Parameters
    ----------
    columns : str or sequence of str, default=("clinical", "pet", "radiomics")
        Names of columns, or of blocks: ``"clinical"`` means the columns ``clinical_*``; ``"all"`` is every block of
        numbers or categories.
    endpoint : str, default=None
        Which endpoint of a table; None if it has only one.
    n_estimators : int, default=150
    learning_rate : float, default=0.05
    max_depth : int, default=2
    subsample : float, default=0.7
    max_features : int, float, {"sqrt", "log2"} or None, default=1000
        Columns tried at each split, drawn anew for every split: their number, their share, or None for all. Where there
        are fewer, all are tried.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    pipeline_ : sklearn.pipeline.Pipeline
    training_outcomes_, risk_cutpoints_ : dict
    unique_times_, event_times_ : ndarray
        Months.
    n_features_in_ : int

    References
    ----------
    .. [1] Ridgeway G. The state of boosting. Computing Science and Statistics, 1999.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> SurvivalBoosting(endpoint="os", n_estimators=10, random_state=0).fit(X, y).predict(X).shape
    (80,)
    """

    def __init__(
        self,
        *,
        columns: Sequence[str] | str = ("clinical", "pet", "radiomics"),
        endpoint: str | None = None,
        n_estimators: int = 150,
        learning_rate: float = 0.05,
        max_depth: int = 2,
        subsample: float = 0.7,
        max_features: int | float | str | None = 1000,
        random_state: Any = None,
    ):
        self.columns = columns
        self.endpoint = endpoint
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.subsample = subsample
        self.max_features = max_features
        self.random_state = random_state

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TabularSurvival._parameter_constraints,
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_depth": [Interval(Integral, 1, None, closed="left")],
        "subsample": [Interval(Real, 0, 1, closed="right")],
        "max_features": _MAX_FEATURES,
        "random_state": ["random_state"],
    }
    _unweighted = "scikit-survival's boosting leaves weights out of the risk sets and the baseline hazard"

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
            max_features=self.max_features,
            random_state=self.random_state,
        )
        return make_pipeline(TabularEncoder(scale=None), boosting)
