"""The metrics of one cause among competing risks, as functions of patient weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.metrics._notes import warn
from mmdls.tasks._case import NO_HORIZON, Case, Settings, Statistic, guarded

__all__ = ["CAUSE_METRICS", "cause_statistics"]

CAUSE_METRICS = (
    "concordance_index",
    "concordance_index_ipcw",
    "cumulative_dynamic_auc",
    "brier_score",
    "index_of_prediction_accuracy",
    "observed_expected_ratio",
    "integrated_brier_score",
    "integrated_ipa",
)


def cause_statistics(case: Case, settings: Settings, cause: int, incidence: pd.DataFrame) -> Iterator[Statistic]:
    """Metrics of one cause; ``incidence`` (n, n_times) is its cumulative incidence, columns = months, ascending."""
    test, censoring, reference, note = case.outcome, case.censoring, case.reference, case.note
    risk = case.predicted[f"risk_{cause}"].to_numpy()

    yield Statistic(
        "concordance_index",
        NO_HORIZON,
        lambda w: metrics.concordance_index_cause(test["cause"], test["time"], risk, w, cause=cause),
    )
    yield Statistic(
        "concordance_index_ipcw",
        NO_HORIZON,
        lambda w: metrics.concordance_index_ipcw_cause(censoring, test, risk, settings.tau, w, cause=cause),
        note=note,
    )
    for h in settings.horizons:
        if h not in incidence:
            continue
        values = incidence[h].to_numpy()

        def auc(w: Any, h: float = h, values: np.ndarray = values) -> Any:
            return metrics.cumulative_dynamic_auc_cause(censoring, test, values, h, w, cause=cause)

        def brier(w: Any, h: float = h, values: np.ndarray = values) -> Any:
            return metrics.brier_score_cause(censoring, test, values, h, w, cause=cause)

        def ipa(w: Any, h: float = h, values: np.ndarray = values) -> Any:
            return metrics.index_of_prediction_accuracy_cause(
                censoring, test, values, h, w, cause=cause, reference=reference
            )

        def observed(w: Any, h: float = h, values: np.ndarray = values) -> Any:
            return metrics.observed_expected_ratio_cause(test["cause"], test["time"], values, h, w, cause=cause)

        yield Statistic("cumulative_dynamic_auc", h, guarded(values, h, auc), note=note)
        yield Statistic("brier_score", h, guarded(values, h, brier), note=note)
        yield Statistic("index_of_prediction_accuracy", h, guarded(values, h, ipa), note=note)
        yield Statistic("observed_expected_ratio", h, guarded(values, h, observed))
    whole = incidence.loc[:, incidence.notna().all()]
    if whole.shape[1] < 2:
        return
    grid, curves = whole.columns.to_numpy(dtype=np.float64), whole.to_numpy()

    def clipped(weights: Any) -> None:
        if weights is None and whole.shape[1] < incidence.shape[1]:
            warn(f"integrated to {grid[-1]:g} months, where predicted curves end.")

    def integrated_brier(w: Any) -> Any:
        clipped(w)
        return metrics.integrated_brier_score_cause(censoring, test, curves, grid, w, cause=cause)

    def integrated_ipa(w: Any) -> Any:
        clipped(w)
        return metrics.integrated_ipa_cause(censoring, test, curves, grid, w, cause=cause, reference=reference)

    yield Statistic("integrated_brier_score", NO_HORIZON, integrated_brier, note=note)
    yield Statistic("integrated_ipa", NO_HORIZON, integrated_ipa, note=note)
