"""Models of the tables of a cohort: linear models, forests, boosted trees, each tuned in inner folds."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from mmdls.estimators import (
    ClinicalCox,
    CoxNet,
    RadiomicsCox,
    SignWeightedBagging,
    SignWeightedClassifier,
    SurvivalBoosting,
    SurvivalForest,
    TabularEncoder,
)
from mmdls.metrics import auc_score
from mmdls.model_selection import CohortKFold
from mmdls.registry import models
from mmdls.search import OptunaSearch
from mmdls.zoo._inputs import SelectInputs
from mmdls.zoo._per_task import OneModelPerTask

__all__ = ["mean_auc", "tuned_linear"]

_FAILED_FITS = (FloatingPointError, ValueError, ArithmeticError, np.linalg.LinAlgError)


def mean_auc(model: Any, X: pd.DataFrame, y: pd.Series) -> float:
    """Mean over classes of the AUC, one class against the rest; a class that these patients lack is left out.

    Parameters
    ----------
    model : fitted classifier
    X : pandas.DataFrame
    y : Series of shape (n_patients,)

    Returns
    -------
    float
    """
    found = [k for k, name in enumerate(model.classes_) if 0 < (y == name).sum() < len(y)]
    probability = model.predict_proba(X)
    return float(np.mean([auc_score(np.asarray(y == model.classes_[k], int), probability[:, k]) for k in found]))


def tuned_linear(inputs: Sequence[str]) -> Pipeline:
    """Ridge Cox regression of endpoints, ridge logistic regression of classes, ridge of numbers; tuned in inner folds.

    Parameters
    ----------
    inputs : sequence of str
        As in :class:`mmdls.zoo.SelectInputs`.

    Returns
    -------
    Pipeline
        Unfitted.
    """
    space = {"alpha": FloatDistribution(0.1, 1e4, log=True), "spline_knots": CategoricalDistribution([None, 3, 5])}
    ridge = make_pipeline(TabularEncoder(), Ridge()), {"ridge__alpha": FloatDistribution(0.1, 1e4, log=True)}
    return _tuned(inputs, ClinicalCox(columns="all"), space, *_logistic(), number=ridge)


def _tuned(
    inputs: Sequence[str],
    survival: Any,
    survival_space: Any,
    classifier: Any,
    classifier_space: Any,
    number: tuple[Any, Any] | None = None,
) -> Pipeline:
    """One model a task on some inputs, each tuned in three folds of its training rows."""

    def search(model: Any, space: Any, scoring: Any = None) -> OptunaSearch:
        folds = CohortKFold(3, random_state=0)
        return OptunaSearch(model, space, scoring=scoring, cv=folds, n_trials=10, catch=_FAILED_FITS, random_state=0)

    each = [("survival", search(survival, survival_space))]
    each += [(kind, search(classifier, classifier_space, mean_auc)) for kind in ("ordinal", "nominal")]
    each += [("regression", search(*number))] if number else []
    return Pipeline([("inputs", SelectInputs(tuple(inputs))), ("model", OneModelPerTask(each))])


def _logistic(scale: str = "power", **penalty: Any) -> tuple[Pipeline, dict[str, Any]]:
    model = LogisticRegression(max_iter=3000, C=0.1, random_state=0, **penalty)
    space = {"logisticregression__C": FloatDistribution(1e-3, 10, log=True)}
    return make_pipeline(TabularEncoder(scale=scale), model), space


class _Tables:
    tasks: ClassVar[tuple[str, ...]] = ("survival", "ordinal", "nominal")
    inputs: ClassVar[tuple[str, ...]] = ("tables",)


class _Linear(_Tables):
    tasks = (*_Tables.tasks, "regression")

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        return tuned_linear(cls.inputs)


class _ElasticNet(_Tables):
    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        cox = CoxNet(columns="all")
        return _tuned(cls.inputs, cox, CoxNet.search_space(), *_logistic(l1_ratio=0.5, solver="saga"))


class _Forest(_Tables):
    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        survival = SurvivalForest(columns="all", n_estimators=100, random_state=0)
        forest = make_pipeline(
            TabularEncoder(scale=None), RandomForestClassifier(200, min_samples_leaf=5, random_state=0)
        )
        space = {"randomforestclassifier__min_samples_leaf": IntDistribution(2, 30, log=True)}
        return _tuned(cls.inputs, survival, SurvivalForest.search_space(), forest, space)


class _Boosting(_Tables):
    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        survival = SurvivalBoosting(columns="all", random_state=0)
        trees = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.05, random_state=0)
        space = {"histgradientboostingclassifier__max_leaf_nodes": IntDistribution(3, 31, log=True)}
        boosting = make_pipeline(TabularEncoder(scale=None), trees)
        return _tuned(cls.inputs, survival, SurvivalBoosting.search_space(), boosting, space)


@models.register("radiomics_linear")
class RadiomicsLinear(_Tables):
    """Published radiomics baseline and logistic regression, tuned."""

    inputs = ("radiomics",)

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        space = {"alpha": FloatDistribution(1.0, 1e4, log=True)}
        return _tuned(cls.inputs, RadiomicsCox(), space, *_logistic(scale="standard"))


@models.register("clinical_linear")
class ClinicalLinear(_Linear):
    """Ridge Cox and logistic regression of clinical variables, tuned."""

    inputs = ("clinical",)


@models.register("pet_linear")
class PetLinear(_Linear):
    """Ridge Cox and logistic regression of PET features, tuned."""

    inputs = ("pet",)


@models.register("clinical_pet_linear")
class ClinicalPetLinear(_Linear):
    """Ridge Cox and logistic regression of clinical data and PET, tuned."""

    inputs = ("clinical", "pet")


@models.register("tables_linear")
class TablesLinear(_Linear):
    """Ridge Cox and logistic regression of all tables, tuned."""


@models.register("clinical_elastic_net")
class ClinicalElasticNet(_ElasticNet):
    """Elastic-net Cox and logistic regression of clinical variables, tuned."""

    inputs = ("clinical",)


@models.register("tables_elastic_net")
class TablesElasticNet(_ElasticNet):
    """Elastic-net Cox and logistic regression of all tables, tuned."""


@models.register("clinical_forest")
class ClinicalForest(_Forest):
    """Random forests of clinical variables, tuned."""

    inputs = ("clinical",)


@models.register("tables_forest")
class TablesForest(_Forest):
    """Random forests of all tables, tuned."""


@models.register("clinical_boosting")
class ClinicalBoosting(_Boosting):
    """Boosted trees of clinical variables, tuned."""

    inputs = ("clinical",)


@models.register("tables_boosting")
class TablesBoosting(_Boosting):
    """Boosted trees of all tables, tuned."""


@models.register("tables_sign_weighted")
class TablesSignWeighted(_Tables):
    """Sign-weighted bagging of all tables; nothing is tuned."""

    @classmethod
    def build(cls) -> Pipeline:
        """An unfitted estimator."""
        classifier = make_pipeline(TabularEncoder(add_indicator=False), SignWeightedClassifier(random_state=0))
        each = [("survival", SignWeightedBagging(columns="all", random_state=0))]
        each += [(kind, classifier) for kind in ("ordinal", "nominal")]
        return Pipeline([("inputs", SelectInputs(cls.inputs)), ("model", OneModelPerTask(each))])
