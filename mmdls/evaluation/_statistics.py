"""The metrics of each kind of task, as functions of patient weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdls import metrics
from mmdls.metrics._notes import collected_warnings, warn

if TYPE_CHECKING:
    from mmdls.evaluation._cases import Case

__all__ = ["METRICS", "Settings", "Statistic", "class_statistics", "endpoint_statistics", "noted"]

_NO_HORIZON = float("nan")

# Every metric of an evaluation; those of single classes and thresholds begin with "auc_" and "net_benefit_".
METRICS = (
    "concordance_index",
    "concordance_index_ipcw",
    "concordance_index_antolini",
    "cumulative_dynamic_auc",
    "brier_score",
    "index_of_prediction_accuracy",
    "integrated_brier_score",
    "integrated_ipa",
    "observed_expected_ratio",
    "calibration_slope",
    "calibration_intercept",
    "calibration_ici",
    "calibration_e50",
    "calibration_e90",
    "log_likelihood",
    "d_calibration_p",
    "auc",
    "average_precision",
    "accuracy",
    "sensitivity",
    "specificity",
    "negative_predictive_value",
    "quadratic_weighted_kappa",
    "log_loss",
    "expected_calibration_error",
)


@dataclass(frozen=True)
class Settings:
    """What is asked for: horizons (months), thresholds of the net benefit, and ``tau`` (months) of Uno's C."""

    horizons: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    tau: float | None = None


@dataclass(frozen=True)
class Statistic:
    """One metric of one task.

    Parameters
    ----------
    metric : str
    horizon : float
        Months; NaN for a metric without one.
    compute : callable
        Weights (R, n), or None for one value -> values (R,) or a value.
    binary : (labels, scores), default=None
        If DeLong's test applies.
    resampled : bool, default=True
        False for what is itself a p-value.
    counted : callable, default=None
        Gives the patients and events that the latest value rests on; None means all of the case.
    note : str, default=""
    """

    metric: str
    horizon: float
    compute: Callable[[Any], Any]
    binary: tuple[np.ndarray, np.ndarray] | None = None
    resampled: bool = True
    counted: Callable[[], tuple[int, int]] | None = None
    note: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Metric and horizon, equal for equal statistics of two models."""
        return self.metric, f"{self.horizon:g}"


def lost_resamples(draws: np.ndarray) -> str:
    """A note of the resamples in which a metric is undefined; empty if it never is."""
    n_lost = int(np.isnan(draws).sum())
    return f"undefined in {n_lost} of {len(draws)} resamples" if n_lost else ""


def noted(compute: Callable[[], Any]) -> tuple[Any, str]:
    """The result, and the warnings on the way to it as a note."""
    with collected_warnings() as found:
        result = compute()
    return result, "; ".join(dict.fromkeys(str(warning).rstrip(".") for warning in found))


def endpoint_statistics(case: Case, settings: Settings) -> Iterator[Statistic]:
    """Metrics of a right-censored endpoint."""
    test, censoring, reference, note = case.outcome, case.censoring, case.reference, case.note
    event, time = test["event"], test["time"]
    risk = case.predicted["risk"].to_numpy()
    survival = case.predicted.drop(columns="risk")

    yield Statistic("concordance_index", _NO_HORIZON, lambda w: metrics.concordance_index(event, time, risk, w))
    yield Statistic(
        "concordance_index_ipcw",
        _NO_HORIZON,
        lambda w: metrics.concordance_index_ipcw(censoring, test, risk, settings.tau, w),
        note=note,
    )
    for h in settings.horizons:

        def auc(w: Any, h: float = h) -> Any:
            return metrics.cumulative_dynamic_auc(censoring, test, risk, h, w)

        yield Statistic("cumulative_dynamic_auc", h, auc, note=note)
    for h in settings.horizons:
        if h in survival.columns:
            yield from _horizon_statistics(case, h, survival[h].to_numpy(), settings.thresholds)
    whole = survival.loc[:, survival.notna().all()]
    if whole.shape[1] < 2:
        return
    grid, values = whole.columns.to_numpy(dtype=np.float64), whole.to_numpy()
    yield Statistic(
        "concordance_index_antolini",
        _NO_HORIZON,
        lambda w: metrics.concordance_index_antolini(event, time, values, grid, w),
    )
    for name in ("integrated_brier_score", "integrated_ipa"):
        options = {"reference": reference} if name == "integrated_ipa" else {}
        function = getattr(metrics, name)

        def integrated(weights: Any, function: Any = function, options: Any = options) -> Any:
            if weights is None and whole.shape[1] < survival.shape[1]:
                warn(f"integrated to {grid[-1]:g} months, where predicted curves end.")
            return function(censoring, test, values, grid, weights, **options)

        yield Statistic(name, _NO_HORIZON, integrated, note=note)
    yield Statistic(
        "log_likelihood",
        _NO_HORIZON,
        lambda w: metrics.censored_log_likelihood(event, time, values, grid, w),
    )
    yield Statistic("d_calibration_p", _NO_HORIZON, lambda w: _d_calibration(test, grid, values), resampled=False)


def _horizon_statistics(
    case: Case, h: float, survival: np.ndarray, thresholds: tuple[float, ...]
) -> Iterator[Statistic]:
    """Error, calibration and net benefit of the probabilities at one horizon."""
    test, censoring, reference, note = case.outcome, case.censoring, case.reference, case.note
    event, time = test["event"], test["time"]

    def at(name: str, function: Callable[[Any], Any], note: str = "") -> Statistic:
        return Statistic(name, h, _guarded(survival, h, function), note=note)

    yield at("brier_score", lambda w: metrics.brier_score(censoring, test, survival, h, w), note)
    yield at(
        "index_of_prediction_accuracy",
        lambda w: metrics.index_of_prediction_accuracy(censoring, test, survival, h, w, reference=reference),
        note,
    )
    yield at("calibration_slope", lambda w: metrics.survival_calibration_slope(censoring, test, survival, h, w), note)
    yield at("observed_expected_ratio", lambda w: metrics.observed_expected_ratio(event, time, survival, h, w))
    errors = _Shared(lambda w: metrics.calibration_errors(event, time, survival, h, w))
    for k, name in enumerate(("calibration_ici", "calibration_e50", "calibration_e90")):

        def error(w: Any, k: int = k) -> Any:
            return errors(w)[k]

        yield at(name, error)
    for threshold in thresholds:
        for name, predicted in (("net_benefit", survival), ("net_benefit_treat_all", np.zeros(case.n))):

            def benefit(w: Any, s: np.ndarray = predicted, threshold: float = threshold) -> Any:
                return metrics.net_benefit(censoring, test, s, h, threshold, w)

            yield at(f"{name}_{threshold:g}", benefit, note)


def class_statistics(case: Case, settings: Settings) -> Iterator[Statistic]:
    """Metrics of a nominal or ordinal class task."""
    codes, probability, classes = case.outcome, case.predicted.to_numpy(), case.task.classes
    two = len(classes) == 2
    binary = (codes, probability[:, 1]) if two else None
    # The class that is predicted, as for accuracy: a tie of two probabilities goes to the first class.
    predicted = probability.argmax(axis=1)

    def of(metric: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Statistic:
        return Statistic(metric, _NO_HORIZON, lambda w: function(*arguments, sample_weight=w), **options)

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
    if case.task.kind == "ordinal":
        yield of("quadratic_weighted_kappa", metrics.quadratic_weighted_kappa, codes, predicted, len(classes))
    yield of("brier_score", metrics.brier_score_classes, codes, probability)
    yield of("log_loss", metrics.log_loss, codes, probability)
    yield of("expected_calibration_error", metrics.expected_calibration_error, codes, probability, 10)
    if two:
        yield of("calibration_slope", metrics.calibration_slope, codes, probability)
        yield of("calibration_intercept", metrics.calibration_intercept, codes, probability)


def _d_calibration(outcome: np.ndarray, grid: np.ndarray, values: np.ndarray) -> float:
    """P-value of the test, with all outcomes beyond the last predicted time censored there."""
    time = np.minimum(outcome["time"], grid[-1])
    event = outcome["event"] & (outcome["time"] <= grid[-1])
    curves = np.column_stack([np.ones(len(outcome)), values])
    # A constant hazard between grid points: a straight line of survival would be too high, the more the longer it is.
    hazards = -np.log(np.clip(curves, np.finfo(np.float64).tiny, 1))
    own = np.array([np.interp(t, np.r_[0.0, grid], hazard) for t, hazard in zip(time, hazards, strict=True)])
    return metrics.d_calibration(event, np.exp(-own))[1]


class _Shared:
    """A function of patient weights that several rows of a table share; keeps its latest answers and their warnings."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute
        self.answers: deque[tuple[Any, Any, list[Warning]]] = deque(maxlen=2)

    def __call__(self, weights: Any) -> Any:
        found = next((entry for entry in self.answers if entry[0] is weights), None)
        if found is None:
            with collected_warnings() as caught:
                answer = self.compute(weights)
            found = (weights, answer, list(caught))
            self.answers.append(found)
        for message in found[2]:
            warn(str(message), type(message))
        return found[1]


def _guarded(survival: np.ndarray, horizon: float, compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """NaN with a reason where a patient's curve ends before the horizon."""
    n_short = int(np.isnan(survival).sum())
    if not n_short:
        return compute

    def undefined(weights: Any) -> Any:
        if weights is not None:
            return np.full(len(weights), np.nan)
        warn(
            f"the predicted curves of {n_short} patients end before {horizon:g} months.", metrics.UndefinedMetricWarning
        )
        return float("nan")

    return undefined
