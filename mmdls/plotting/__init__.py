"""Figures: each function draws on ``ax`` and returns it. Needs matplotlib (``pip install "mmdls[plot]"``)."""

from mmdls.plotting._classification import calibration, precision_recall, roc
from mmdls.plotting._cumulative_incidence import cumulative_incidence
from mmdls.plotting._forest import forest
from mmdls.plotting._kaplan_meier import kaplan_meier
from mmdls.plotting._regression import predicted_observed
from mmdls.plotting._survival import auc_over_time, brier_over_time, decision_curve, survival_calibration

__all__ = [
    "auc_over_time",
    "brier_over_time",
    "calibration",
    "cumulative_incidence",
    "decision_curve",
    "forest",
    "kaplan_meier",
    "precision_recall",
    "predicted_observed",
    "roc",
    "survival_calibration",
]
