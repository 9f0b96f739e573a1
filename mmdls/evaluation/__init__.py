"""Evaluation of models with intervals, comparison of models, and scorers for scikit-learn."""

from mmdls.evaluation._compare import compare, compare_predictions
from mmdls.evaluation._evaluate import evaluate, evaluate_predictions
from mmdls.evaluation._out_of_fold import OutOfFold
from mmdls.evaluation._predict import predict_tasks, risk_cutpoints, training_outcomes
from mmdls.evaluation._repeats import evaluate_repeats
from mmdls.evaluation._resample import resample_predictions
from mmdls.evaluation._scorers import make_scorers

__all__ = [
    "OutOfFold",
    "compare",
    "compare_predictions",
    "evaluate",
    "evaluate_predictions",
    "evaluate_repeats",
    "make_scorers",
    "predict_tasks",
    "resample_predictions",
    "risk_cutpoints",
    "training_outcomes",
]
