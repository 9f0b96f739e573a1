"""Single estimators with their default parameters, as registered models."""

from typing import Any, ClassVar

from mmdls import estimators as library
from mmdls.registry import models

__all__: list[str] = []


class _Plain:
    tasks: ClassVar[tuple[str, ...]] = ("survival",)
    inputs: ClassVar[tuple[str, ...]]
    estimator: ClassVar[type]

    @classmethod
    def build(cls) -> Any:
        """An unfitted estimator."""
        return cls.estimator()


@models.register("clinical_cox")
class PlainClinicalCox(_Plain):
    """Ridge Cox regression of clinical variables, penalty from inner folds."""

    inputs = ("clinical",)
    estimator = library.ClinicalCox


@models.register("radiomics_cox")
class PlainRadiomicsCox(_Plain):
    """Published radiomics baseline, penalty from inner folds."""

    inputs = ("radiomics",)
    estimator = library.RadiomicsCox


@models.register("coxnet")
class PlainCoxNet(_Plain):
    """Elastic-net Cox regression of all tables, penalty from inner folds."""

    inputs = ("tables",)

    @classmethod
    def build(cls) -> Any:
        """An unfitted estimator."""
        return library.CoxNet(columns="all")


@models.register("survival_forest")
class PlainSurvivalForest(_Plain):
    """Random survival forest of all tables, not tuned."""

    inputs = ("tables",)

    @classmethod
    def build(cls) -> Any:
        """An unfitted estimator."""
        return library.SurvivalForest(columns="all", random_state=0)


@models.register("survival_boosting")
class PlainSurvivalBoosting(_Plain):
    """Boosted survival trees of all tables, not tuned."""

    inputs = ("tables",)

    @classmethod
    def build(cls) -> Any:
        """An unfitted estimator."""
        return library.SurvivalBoosting(columns="all", random_state=0)


@models.register("mmdls")
class PlainMMDLS(_Plain):
    """MMDLS on whatever the cohort has, not tuned."""

    tasks = ("survival", "ordinal", "nominal", "regression", "competing_risks")
    inputs = ()
    estimator = library.MMDLS


@models.register("multimodal_classifier")
class PlainMultimodalClassifier(_Plain):
    """One network a label, on whatever the cohort has, not tuned."""

    tasks = ("ordinal", "nominal")
    inputs = ()
    estimator = library.MultimodalClassifier


@models.register("multimodal_survival")
class PlainMultimodalSurvival(_Plain):
    """One network an endpoint, on whatever the cohort has, not tuned."""

    inputs = ()
    estimator = library.MultimodalSurvival
