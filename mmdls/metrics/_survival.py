"""Discrimination and error at horizons, weighted for censoring."""

from typing import Any

import numpy as np

from mmdls.metrics._censoring import CensoringDistribution, kaplan_meier, step_values
from mmdls.metrics._checks import check_horizon, check_order, check_outcome, check_predictions, known_outcome
from mmdls.metrics._classification import weighted_auc
from mmdls.metrics._notes import collected_warnings, warn
from mmdls.metrics._resamples import over_resamples, ratio
from mmdls.metrics._times import snap_times

__all__ = [
    "brier_score",
    "censored_log_likelihood",
    "cumulative_dynamic_auc",
    "horizon_weights",
    "index_of_prediction_accuracy",
    "integrated_auc",
    "integrated_brier_score",
    "integrated_ipa",
]

_SMALLEST = 1e-6


def horizon_weights(
    survival_train: np.ndarray, survival_test: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-probability-of-censoring weights of what is known at a horizon.

    Parameters
    ----------
    survival_train, survival_test : structured array
        Event and time; the censoring distribution comes from the first: give the scored rows there too, unless the
        training rows are censored in the same way.
    horizon : float
        Months.

    Returns
    -------
    case, control : ndarray of shape (n,)
        ``1 / G(t-)`` for those with the event by the horizon, ``1 / G(horizon)`` for those event-free beyond
        it, 0 for all others. Controls are NaN where there are no such weights: beyond the training follow-up.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> case, control = horizon_weights(y, y, 3.0)
    >>> case.round(3), control.round(3)
    (array([1. , 0. , 1.5, 0. ]), array([0. , 0. , 0. , 1.5]))
    """
    horizon, censoring = check_horizon(horizon), CensoringDistribution(survival_train)
    event, time = check_outcome(survival_test)
    time = snap_times(time, [horizon])
    case = censoring.event_weight(event & (time <= horizon), time)
    free = time > horizon
    return case, np.where(free, censoring.horizon_weight(horizon), 0.0) if free.any() else np.full(len(time), np.nan)


def cumulative_dynamic_auc(
    survival_train: np.ndarray, survival_test: np.ndarray, risk: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Time-dependent AUC: those with the event by a horizon against those event-free beyond it.

    NaN, with an ``UndefinedMetricWarning``, where one of the two groups is empty or weights for censoring do
    not exist.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
        Event and time.
    risk : array of shape (n,) or (n, n_times)
        Higher = earlier event; one column a horizon if it changes with time.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Uno H et al. Evaluating prediction rules for t-year survivors with censored regression models.
       JASA, 2007.
    .. [2] Hung H, Chiang CT. Estimation methods for time-dependent AUC models with survival data. Canadian
       Journal of Statistics, 2010.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(cumulative_dynamic_auc(y, y, [4.0, 2.0, 1.0, 3.0], 3.0), 6)
    0.4
    """
    event, time = check_outcome(survival_test)
    grid = _grid(times)
    risk = np.asarray(risk, dtype=np.float64)
    if risk.ndim == 1:
        risk = np.repeat(risk[:, None], len(grid), axis=1)
    risk = check_predictions(risk, (len(time), len(grid)), "risk")
    each = [
        weighted_auc(column, *horizon_weights(survival_train, survival_test, horizon))
        for column, horizon in zip(risk.T, grid, strict=True)
    ]

    def statistic(block: np.ndarray) -> np.ndarray:
        return _shaped(np.stack([one(block) for one in each], axis=-1), times)

    return over_resamples(statistic, sample_weight, len(time), "no events by then, or " + _beyond(times))


def integrated_auc(
    survival_train: np.ndarray, survival_test: np.ndarray, risk: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Mean of the time-dependent AUC over a span of time, weighted by how many have their event in each part of it.

    Times at which the AUC is not defined are left out, with a warning.

    Parameters
    ----------
    survival_train, survival_test, risk, times, sample_weight
        As in :func:`cumulative_dynamic_auc`.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Lambert J, Chevret S. Summary measure of discrimination in survival models based on cumulative/dynamic
       time-dependent ROC curves. Statistical Methods in Medical Research, 2016.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(integrated_auc(y, y, [4.0, 2.0, 1.0, 3.0], [1.5, 3.0]), 3)
    0.64
    """
    event, time = check_outcome(survival_test)
    grid = _grid(times)
    risk = np.asarray(risk, dtype=np.float64)
    with collected_warnings():
        known = ~np.isnan(np.asarray(cumulative_dynamic_auc(survival_train, survival_test, risk, grid)))
    if not known.all():
        shown = ", ".join(f"{t:g}" for t in grid[~known][:5])
        warn(f"the AUC is not defined at {shown} months: left out of the mean.")
        grid, risk = grid[known], risk[:, known] if risk.ndim == 2 else risk

    def statistic(block: np.ndarray) -> np.ndarray:
        if not len(grid):
            return np.full(len(block), np.nan)
        values = cumulative_dynamic_auc(survival_train, survival_test, risk, grid, block)
        survival = step_values(*kaplan_meier(event, time, block), grid)
        share = -np.diff(survival, prepend=1.0, axis=1)
        return ratio((values * share).sum(axis=1), share.sum(axis=1))

    return over_resamples(statistic, sample_weight, len(time), "the AUC is not defined at any of the times.")


def brier_score(
    survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Squared error of survival probabilities at horizons, weighted for censoring.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
        Event and time.
    survival : array of shape (n,) or (n, n_times)
        Probability to be event-free at each horizon.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)
        NaN at a horizon without censoring weights.

    References
    ----------
    .. [1] Graf E et al. Assessment and comparison of prognostic classification schemes for survival data.
       Statistics in Medicine, 1999.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> brier_score(y, y, [0.0, 0.5, 0.0, 1.0], 3.0)
    0.0
    """
    loss = _brier_losses(survival_train, survival_test, survival, times)

    def statistic(block: np.ndarray) -> np.ndarray:
        return _shaped(ratio(_product(block, loss), block.sum(axis=1)[:, None]), times)

    return over_resamples(statistic, sample_weight, len(loss), _beyond(times))


def integrated_brier_score(
    survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Brier score averaged over a span of time by the trapezoidal rule.

    Times without censoring weights are left out: the span is clipped at the last usable one, with a warning.

    Parameters
    ----------
    survival_train, survival_test : structured array
        As in :func:`brier_score`.
    survival : array of shape (n, n_times)
        Probability to be event-free at each time.
    times : array of shape (n_times,)
        At least two times in months, ascending.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Graf E et al. Assessment and comparison of prognostic classification schemes for survival data.
       Statistics in Medicine, 1999.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> integrated_brier_score(y, y, [[0.5, 0.5]] * 4, [1.0, 3.0])
    0.25
    """
    loss, grid = _usable(_brier_losses(survival_train, survival_test, survival, times), _grid(times))

    def statistic(block: np.ndarray) -> np.ndarray:
        return _mean_over_time(ratio(_product(block, loss), block.sum(axis=1)[:, None]), grid)

    return over_resamples(statistic, sample_weight, len(loss), "fewer than two times have censoring weights.")


def index_of_prediction_accuracy(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the Brier score relative to that of the Kaplan-Meier curve of the reference rows, which ignores the
    patient.

    1 is perfect, 0 no better than giving everybody the training curve, negative worse.

    Parameters
    ----------
    survival_train, survival_test, survival, times, sample_weight
        As in :func:`brier_score`.
    reference : structured array, default=None
        The rows whose Kaplan-Meier curve is compared with: the training rows. None takes ``survival_train``.

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Kattan MW, Gerds TA. The index of prediction accuracy: an intuitive measure useful for evaluating
       risk prediction models. Diagnostic and Prognostic Research, 2018.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> index_of_prediction_accuracy(y, y, [0.0, 0.5, 0.0, 1.0], 3.0)
    1.0
    """
    loss = _brier_losses(survival_train, survival_test, survival, times)
    null = _brier_losses(
        survival_train,
        survival_test,
        _null_model(survival_train if reference is None else reference, len(loss), times),
        times,
    )

    def statistic(block: np.ndarray) -> np.ndarray:
        return _shaped(1 - ratio(_product(block, loss), _product(block, null)), times)

    return over_resamples(statistic, sample_weight, len(loss), _beyond(times))


def integrated_ipa(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the integrated Brier score relative to that of the Kaplan-Meier curve of the reference rows.

    Parameters
    ----------
    survival_train, survival_test, survival, times, sample_weight
        As in :func:`integrated_brier_score`.
    reference : structured array, default=None
        The rows whose Kaplan-Meier curve is compared with: the training rows. None takes ``survival_train``.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(integrated_ipa(y, y, [[0.0, 0.0], [1.0, 0.5], [1.0, 0.0], [1.0, 1.0]], [1.0, 3.0]), 3)
    1.0
    """
    loss, grid = _usable(_brier_losses(survival_train, survival_test, survival, times), _grid(times))
    null = _brier_losses(
        survival_train,
        survival_test,
        _null_model(survival_train if reference is None else reference, len(loss), grid),
        grid,
    )

    def statistic(block: np.ndarray) -> np.ndarray:
        return 1 - ratio(_mean_over_time(_product(block, loss), grid), _mean_over_time(_product(block, null), grid))

    return over_resamples(statistic, sample_weight, len(loss), "fewer than two times have censoring weights.")


def censored_log_likelihood(
    event: Any, time: Any, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Mean log-likelihood of right-censored outcomes: log density at events, log survival at censorings.

    A proper score of the whole curve; higher is better, and differences between models are what it tells. The curve is
    a line between the given times, starting from 1, so its density is constant between them. Outcomes beyond the last
    time count as censored there.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    survival : array of shape (n, n_times)
        Probability to be event-free at each time.
    times : array of shape (n_times,)
        Months, ascending, above 0.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)
        Log of a density per month. Probabilities below 1e-6 count as 1e-6, so that one impossible event does not
        decide alone.

    References
    ----------
    .. [1] Rindt D et al. Survival regression with proper scoring rules and monotonic neural networks. AISTATS, 2022.

    Examples
    --------
    >>> value = censored_log_likelihood([True, False], [1.0, 3.0], [[0.5, 0.25]] * 2, [2.0, 4.0])
    >>> round(value, 4), round(float(np.log(0.25 * 0.375) / 2), 4)
    (-1.1836, -1.1836)
    """
    check_order(event=event, time=time, survival=survival)
    event, time = check_outcome(event, time)
    grid = _grid(times)
    survival = check_predictions(survival, (len(time), len(grid)), "survival")
    time = snap_times(time, grid)
    knots, curve = np.r_[0.0, grid], np.column_stack([np.ones(len(time)), survival])
    # The interval (left, right] that holds the outcome.
    right = np.clip(np.searchsorted(knots, time, side="left"), 1, len(grid))
    row = np.arange(len(time))
    before, after = curve[row, right - 1], curve[row, right]
    width = knots[right] - knots[right - 1]
    part = np.clip((time - knots[right - 1]) / width, 0, 1)
    density = np.maximum(before - after, _SMALLEST) / width
    free = np.maximum(before + (after - before) * part, _SMALLEST)
    score = np.log(np.where(event & (time <= grid[-1]), density, free))

    def statistic(block: np.ndarray) -> np.ndarray:
        return ratio(block @ score, block.sum(axis=1))

    return over_resamples(statistic, sample_weight, len(time), "there are no patients.")


def _beyond(times: Any) -> str:
    return (
        f"no patient is known to be event-free at {', '.join(f'{t:g}' for t in _grid(times))} months, or that is "
        "beyond their follow-up: censoring weights do not exist there."
    )


def _brier_losses(survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, times: Any) -> np.ndarray:
    """Weighted squared errors (n, n_times), NaN where there are no weights."""
    grid = _grid(times)
    survival = np.asarray(survival, dtype=np.float64)
    if survival.ndim == 1:
        survival = survival[:, None]
    survival = check_predictions(survival, (len(survival_test), len(grid)), "survival")
    loss = np.empty_like(survival)
    for k, horizon in enumerate(grid):
        case, control = horizon_weights(survival_train, survival_test, horizon)
        loss[:, k] = case * survival[:, k] ** 2 + control * (1 - survival[:, k]) ** 2
    return loss


def _null_model(survival_train: np.ndarray, n: int, times: Any) -> np.ndarray:
    curve = kaplan_meier(*known_outcome(survival_train))
    return np.tile(step_values(*curve, _grid(times)), (n, 1))


def _product(block: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """``block @ loss`` where a column that is NaN anywhere stays NaN, and nothing else does."""
    return np.where(np.isnan(loss).any(axis=0), np.nan, block @ np.nan_to_num(loss))


def _usable(loss: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(loss).any(axis=0)
    if not known.all():
        end = f"at {grid[known][-1]:g} months" if known.any() else "at its start"
        warn(f"the span {grid[0]:g} to {grid[-1]:g} months is clipped {end}: no weights beyond.", stacklevel=3)
    return loss[:, known], grid[known]


def _mean_over_time(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    if len(grid) < 2:
        return np.full(len(values), np.nan)
    return np.trapezoid(values, grid, axis=1) / (grid[-1] - grid[0])


def _grid(times: Any) -> np.ndarray:
    grid = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if grid.ndim != 1 or not np.isfinite(grid).all() or (grid <= 0).any() or (np.diff(grid) <= 0).any():
        raise ValueError(f"times must be finite months above 0, ascending; got {times}.")
    return grid


def _shaped(values: np.ndarray, times: Any) -> np.ndarray:
    """Drop the axis of times if a single number was asked for."""
    return values[:, 0] if np.ndim(times) == 0 else values
