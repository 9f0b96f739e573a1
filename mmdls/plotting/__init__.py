"""Figures: each function draws on ``ax`` and returns it. Needs matplotlib (``pip install "mmdls[plot]"``).

Legends stand below the axes, where they cover no data: give axes of a figure with ``layout="constrained"``, which makes
room for them.
"""

from mmdls.plotting._axes import journal_style
from mmdls.plotting._calibration import calibration, survival_calibration
from mmdls.plotting._classification import precision_recall, roc
from mmdls.plotting._cumulative_incidence import cumulative_incidence
from mmdls.plotting._forest import forest
from mmdls.plotting._kaplan_meier import kaplan_meier
from mmdls.plotting._regression import predicted_observed
from mmdls.plotting._survival import auc_over_time, brier_over_time, decision_curve

__all__ = [
    "auc_over_time",
    "brier_over_time",
    "calibration",
    "cumulative_incidence",
    "decision_curve",
    "forest",
    "journal_style",
    "kaplan_meier",
    "precision_recall",
    "predicted_observed",
    "roc",
    "survival_calibration",
]
