"""Metrics: arrays in, numbers out, one value or the values of all resamples.

Arguments follow scikit-survival's order; a risk is higher for an earlier event. Every metric takes
``sample_weight`` of shape (n,), or (R, n) for R resamples at once. What is undefined is NaN, and an
``UndefinedMetricWarning`` says why.
"""

from mmdls.metrics._agreement import intraclass_correlation
from mmdls.metrics._bootstrap import (
    bca_interval,
    bootstrap_interval,
    bootstrap_weights,
    distance_interval,
    percentile_interval,
)
from mmdls.metrics._brier_cause import (
    brier_score_cause,
    index_of_prediction_accuracy_cause,
    integrated_brier_score_cause,
    integrated_ipa_cause,
)
from mmdls.metrics._calibration import (
    calibration_errors,
    d_calibration,
    net_benefit,
    observed_expected_ratio,
    survival_calibration_curve,
    survival_calibration_slope,
)
from mmdls.metrics._censoring import (
    CensoringDistribution,
    horizon_labels,
    kaplan_meier,
    median_follow_up,
    median_survival,
    step_values,
)
from mmdls.metrics._classification import (
    accuracy_score,
    auc_score,
    average_precision_score,
    brier_score_classes,
    log_loss,
    negative_predictive_value,
    quadratic_weighted_kappa,
    sensitivity,
    specificity,
)
from mmdls.metrics._comparison import bootstrap_p_value, delong_test, holm_correction
from mmdls.metrics._competing_risks import (
    concordance_index_cause,
    concordance_index_ipcw_cause,
    cumulative_dynamic_auc_cause,
    observed_expected_ratio_cause,
)
from mmdls.metrics._concordance import concordance_index, concordance_index_antolini, concordance_index_ipcw
from mmdls.metrics._cox import CoxFit, cox_regression, hazard_ratios
from mmdls.metrics._cumulative_incidence import cumulative_incidence
from mmdls.metrics._hazard import baseline_cumulative_hazard
from mmdls.metrics._horizons import horizon_weights
from mmdls.metrics._recalibration import calibration_intercept, calibration_slope, expected_calibration_error
from mmdls.metrics._regression import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
    spearman_correlation,
)
from mmdls.metrics._resamples import UndefinedMetricWarning
from mmdls.metrics._segmentation import dice_score, hausdorff_distance_95, iou_score, surface_dice
from mmdls.metrics._survival import (
    brier_score,
    censored_log_likelihood,
    cumulative_dynamic_auc,
    index_of_prediction_accuracy,
    integrated_auc,
    integrated_brier_score,
    integrated_ipa,
)
from mmdls.metrics._survival_tests import (
    interaction_test,
    likelihood_ratio_test,
    logrank_test,
    proportional_hazards_test,
)
from mmdls.metrics._times import tied_times

__all__ = [
    "CensoringDistribution",
    "CoxFit",
    "UndefinedMetricWarning",
    "accuracy_score",
    "auc_score",
    "average_precision_score",
    "baseline_cumulative_hazard",
    "bca_interval",
    "bootstrap_interval",
    "bootstrap_p_value",
    "bootstrap_weights",
    "brier_score",
    "brier_score_cause",
    "brier_score_classes",
    "calibration_errors",
    "calibration_intercept",
    "calibration_slope",
    "censored_log_likelihood",
    "concordance_index",
    "concordance_index_antolini",
    "concordance_index_cause",
    "concordance_index_ipcw",
    "concordance_index_ipcw_cause",
    "cox_regression",
    "cumulative_dynamic_auc",
    "cumulative_dynamic_auc_cause",
    "cumulative_incidence",
    "d_calibration",
    "delong_test",
    "dice_score",
    "distance_interval",
    "expected_calibration_error",
    "hausdorff_distance_95",
    "hazard_ratios",
    "holm_correction",
    "horizon_labels",
    "horizon_weights",
    "index_of_prediction_accuracy",
    "index_of_prediction_accuracy_cause",
    "integrated_auc",
    "integrated_brier_score",
    "integrated_brier_score_cause",
    "integrated_ipa",
    "integrated_ipa_cause",
    "interaction_test",
    "iou_score",
    "kaplan_meier",
    "likelihood_ratio_test",
    "intraclass_correlation",
    "log_loss",
    "logrank_test",
    "mean_absolute_error",
    "mean_squared_error",
    "median_follow_up",
    "median_survival",
    "negative_predictive_value",
    "net_benefit",
    "observed_expected_ratio",
    "observed_expected_ratio_cause",
    "percentile_interval",
    "proportional_hazards_test",
    "quadratic_weighted_kappa",
    "r2_score",
    "root_mean_squared_error",
    "sensitivity",
    "spearman_correlation",
    "specificity",
    "step_values",
    "surface_dice",
    "survival_calibration_curve",
    "survival_calibration_slope",
    "tied_times",
]
