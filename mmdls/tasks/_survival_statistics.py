"""The metrics of a right-censored endpoint, as functions of patient weights."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmdls import metrics
from mmdls.metrics._notes import warn
from mmdls.tasks._case import NO_HORIZON, Case, Settings, Shared, Statistic, guarded

__all__ = ["survival_statistics"]


def survival_statistics(case: Case, settings: Settings) -> Iterator[Statistic]:
    """Metrics of a right-censored endpoint."""
    test, censoring, reference, note = case.outcome, case.censoring, case.reference, case.note
    event, time = test["event"], test["time"]
    risk = case.predicted["risk"].to_numpy()
    survival = case.predicted.drop(columns="risk")

    yield Statistic("concordance_index", NO_HORIZON, lambda w: metrics.concordance_index(event, time, risk, w))
    yield Statistic(
        "concordance_index_ipcw",
        NO_HORIZON,
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
        NO_HORIZON,
        lambda w: metrics.concordance_index_antolini(event, time, values, grid, w),
    )
    for name in ("integrated_brier_score", "integrated_ipa"):
        options = {"reference": reference} if name == "integrated_ipa" else {}
        function = getattr(metrics, name)

        def integrated(weights: Any, function: Any = function, options: Any = options) -> Any:
            if weights is None and whole.shape[1] < survival.shape[1]:
                warn(f"integrated to {grid[-1]:g} months, where predicted curves end.")
            return function(censoring, test, values, grid, weights, **options)

        yield Statistic(name, NO_HORIZON, integrated, note=note)
    yield Statistic(
        "log_likelihood",
        NO_HORIZON,
        lambda w: metrics.censored_log_likelihood(event, time, values, grid, w),
    )
    yield Statistic("d_calibration_p", NO_HORIZON, lambda w: _d_calibration(test, grid, values), resampled=False)


def _horizon_statistics(
    case: Case, h: float, survival: np.ndarray, thresholds: tuple[float, ...]
) -> Iterator[Statistic]:
    """Brier score, calibration and net benefit of the probabilities at one horizon."""
    test, censoring, reference, note = case.outcome, case.censoring, case.reference, case.note
    event, time = test["event"], test["time"]

    def at(name: str, function: Callable[[Any], Any], note: str = "") -> Statistic:
        return Statistic(name, h, guarded(survival, h, function), note=note)

    def slope(fold: np.ndarray | None = None) -> Callable[[Any], Any]:
        return guarded(
            survival,
            h,
            lambda w: metrics.survival_calibration_slope(censoring, test, survival, h, w, strata=fold),
        )

    yield at("brier_score", lambda w: metrics.brier_score(censoring, test, survival, h, w), note)
    yield at(
        "index_of_prediction_accuracy",
        lambda w: metrics.index_of_prediction_accuracy(censoring, test, survival, h, w, reference=reference),
        note,
    )
    yield Statistic("calibration_slope", h, slope(), note=note, pooled=slope)
    yield at("observed_expected_ratio", lambda w: metrics.observed_expected_ratio(event, time, survival, h, w))
    errors = Shared(lambda w: metrics.calibration_errors(event, time, survival, h, w))
    for k, name in enumerate(("calibration_ici", "calibration_e50", "calibration_e90")):

        def error(w: Any, k: int = k) -> Any:
            return errors(w)[k]

        yield at(name, error).as_distance()
    for threshold in thresholds:
        for name, predicted in (("net_benefit", survival), ("net_benefit_treat_all", np.zeros(case.n))):

            def benefit(w: Any, s: np.ndarray = predicted, threshold: float = threshold) -> Any:
                return metrics.net_benefit(censoring, test, s, h, threshold, w)

            yield at(f"{name}_{threshold:g}", benefit, note)


def _d_calibration(outcome: np.ndarray, grid: np.ndarray, values: np.ndarray) -> float:
    """P-value of D-calibration, with outcomes censored at the last predicted time."""
    time = np.minimum(outcome["time"], grid[-1])
    event = outcome["event"] & (outcome["time"] <= grid[-1])
    curves = np.column_stack([np.ones(len(outcome)), values])
    # A constant hazard between grid points: linear interpolation of survival is biased upwards over long intervals.
    hazards = -np.log(np.clip(curves, np.finfo(np.float64).tiny, 1))
    own = np.array([np.interp(t, np.r_[0.0, grid], hazard) for t, hazard in zip(time, hazards, strict=True)])
    return metrics.d_calibration(event, np.exp(-own))[1]
