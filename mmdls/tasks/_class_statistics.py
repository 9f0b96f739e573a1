"""The metrics of class tasks, as functions of patient weights."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmdls import metrics
from mmdls.tasks._case import NO_HORIZON, Case, Settings, Statistic

__all__ = ["class_statistics"]


def class_statistics(case: Case, settings: Settings) -> Iterator[Statistic]:
    """Metrics of a nominal or ordinal class task."""
    codes, probability, classes = case.outcome, case.predicted.to_numpy(), case.task.classes
    two = len(classes) == 2
    binary = (codes, probability[:, 1]) if two else None
    # The predicted class, as for accuracy: equal probabilities go to the first class.
    predicted = probability.argmax(axis=1)

    def of(metric: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Statistic:
        return Statistic(metric, NO_HORIZON, lambda w: function(*arguments, sample_weight=w), **options)

    yield of("auc", metrics.auc_score, codes, probability, binary=binary)
    if not two:
        for k, label in enumerate(classes):
            own = (codes == k).astype(np.int64), probability[:, k]
            yield of(f"auc_{label}", metrics.auc_score, *own, binary=own)
    yield of("average_precision", metrics.average_precision_score, codes, probability)
    yield of("accuracy", metrics.accuracy_score, codes, probability)
    if two:
        yield of("sensitivity", metrics.sensitivity, codes, predicted, 0.5)
        yield of("specificity", metrics.specificity, codes, predicted, 0.5)
        yield of("negative_predictive_value", metrics.negative_predictive_value, codes, predicted, 0.5)
    if case.task.is_ordered:
        yield of("quadratic_weighted_kappa", metrics.quadratic_weighted_kappa, codes, predicted, len(classes))
    yield of("brier_score", metrics.brier_score_classes, codes, probability)
    yield of("log_loss", metrics.log_loss, codes, probability)
    yield of("expected_calibration_error", metrics.expected_calibration_error, codes, probability, 10).as_distance()
    if two:

        def slope(fold: np.ndarray | None = None) -> Callable[[Any], Any]:
            return lambda w: metrics.calibration_slope(codes, probability, w, strata=fold)

        yield Statistic("calibration_slope", NO_HORIZON, slope(), pooled=slope)
        yield of("calibration_intercept", metrics.calibration_intercept, codes, probability)
