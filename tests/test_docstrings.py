"""Every public name has a docstring that says what it is, takes, returns and, but for those listed, how it is used."""

from importlib import import_module

import pytest

import mmdls
from mmdls.registry import Registry

validate = pytest.importorskip("numpydoc.validate").validate

# No docstring, no summary, parameters that are not or wrongly named, nothing about what is returned, no example.
CHECKS = {"GL08", "SS01", "PR01", "PR02", "RT01", "EX01"}
# Parameters stand at MMDLS, of which these take most; the warning is scikit-learn's.
ELSEWHERE = {"MultimodalClassifier", "MultimodalSurvival", "InconsistentVersionWarning"}
# Names without an example of their own. Take one away when it gets its example; add none.
NO_EXAMPLE = set(
    """
    cohort.Cohort cohort.Task cohort.cell_columns cohort.check_cohort cohort.check_features cohort.check_target
    cohort.endpoint_name cohort.refuse_other_tables cohort.survival_target cohort.warn_unused encoders.BagData
    encoders.ModalityData estimators.CorrelationFilter estimators.CoxNet estimators.RadiomicsCox
    estimators.RadiomicsExtractor estimators.SurvivalBoosting estimators.SurvivalForest estimators.VarianceFilter
    evaluation.OutOfFold evaluation.predict_tasks evaluation.risk_cutpoints evaluation.training_outcomes
    explain.ImageExplanation explain.ModalityImportance images.SliceStore images.fingerprint_columns
    images.is_missing images.read_image images.voxel_spacing images.write_mask metrics.CensoringDistribution
    metrics.CoxFit metrics.UndefinedMetricWarning model_selection.check_patients_apart
    model_selection.patient_groups model_selection.strata model_selection.stratified_holdout parts.Composed
    parts.Slot persistence.InconsistentVersionWarning persistence.convert persistence.load
    persistence.network_inputs report.data_hash report.image_hash scans.read_mask scans.suv_factor
    scans.write_segmentation tasks.Case tasks.CompetingRisksTask tasks.NominalTask tasks.OrdinalTask
    tasks.RegressionTask tasks.Settings tasks.Statistic tasks.SurvivalTask testing.all_parts
    testing.check_augmentation testing.check_backbone testing.check_class_head testing.check_competing_risks_head
    testing.check_estimator testing.check_fusion testing.check_pooling testing.check_regression_head
    testing.check_segmentation_net testing.check_survival_head testing.check_task_weights
    testing.check_volume_backbone zoo.Comparison zoo.CrossFittedEmbeddings zoo.EmbeddingSearch
    zoo.FoundationClassifier zoo.FoundationSurvival zoo.LateFusion
    """.split()
)


def public_names():
    """Every public object once, by the first module that offers it."""
    seen = set()
    for module in mmdls._MODULES:
        home = import_module(f"mmdls.{module}")
        for name in home.__all__:
            value = getattr(home, name)
            if callable(value) and not isinstance(value, Registry) and id(value) not in seen:
                seen.add(id(value))
                yield f"mmdls.{module}.{name}"


@pytest.mark.parametrize("name", sorted(public_names()))
def test_a_public_name_says_what_it_takes_returns_and_how_it_is_used(name):
    found = {code: message for code, message in validate(name)["errors"] if code in CHECKS}
    short = name.rpartition(".")[2]
    if short in ELSEWHERE:
        found.pop("PR01", None)
    without = found.pop("EX01", None)
    assert not found, found
    assert bool(without) == (name.removeprefix("mmdls.") in NO_EXAMPLE), without or "it has an example: not in the list"


def test_the_list_of_names_without_an_example_holds_names():
    assert {f"mmdls.{name}" for name in NO_EXAMPLE} <= set(public_names())
