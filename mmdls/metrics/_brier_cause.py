"""Error of predicted cumulative incidences of one cause among several."""

from typing import Any

import numpy as np

from mmdls.metrics._cumulative_incidence import check_incidence, horizon_weights_cause, incidence_at, known_causes
from mmdls.metrics._horizons import (
    NO_SPAN,
    beyond_follow_up,
    check_times,
    integrated_loss,
    integrated_loss_reduction,
    loss_reduction,
    mean_loss,
    usable_times,
)
from mmdls.metrics._resamples import over_resamples

__all__ = [
    "brier_score_cause",
    "index_of_prediction_accuracy_cause",
    "integrated_brier_score_cause",
    "integrated_ipa_cause",
]


def brier_score_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    incidence: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    cause: int = 1,
) -> float | np.ndarray:
    """Squared error of the cumulative incidence of one cause at horizons, weighted for censoring.

    The truth is 1 for an event of this cause by the horizon, and 0 for an event of another cause or none.

    Parameters
    ----------
    outcome_train, outcome_test : structured array of shape (n_train,) and (n,)
        Cause (0 = censored, 1, 2, ...) and time. The censoring distribution comes from the first: the scored rows
        themselves, or training rows that are censored in the same way.
    incidence : array of shape (n,) or (n, n_times)
        Probability of an event of this cause by each horizon.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None
    cause : int, default=1

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)
        NaN at a horizon without censoring weights.

    References
    ----------
    .. [1] Graf E et al. Assessment and comparison of prognostic classification schemes for survival data.
       Statistics in Medicine, 1999.
    .. [2] Schoop R et al. Quantifying the predictive accuracy of time-to-event models in the presence of competing
       risks. Biometrical Journal, 2011.

    Examples
    --------
    >>> y = np.array([(2, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> brier_score_cause(y, y, [0.5, 1.0, 1.0, 0.0], 3.0)
    0.0625
    """
    loss = _losses(outcome_train, outcome_test, incidence, times, cause)
    return over_resamples(mean_loss(loss, times), sample_weight, len(loss), beyond_follow_up(times))


def integrated_brier_score_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    incidence: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    cause: int = 1,
) -> float | np.ndarray:
    """Brier score of one cause averaged over a span of time by the trapezoidal rule.

    Times without censoring weights are left out: the span is clipped at the last usable one, with a warning.

    Parameters
    ----------
    outcome_train, outcome_test, sample_weight, cause
        As in :func:`brier_score_cause`.
    incidence : array of shape (n, n_times)
        Probability of an event of this cause by each time.
    times : array of shape (n_times,)
        At least two times in months, ascending.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> y = np.array([(2, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> integrated_brier_score_cause(y, y, [[0.5, 0.5]] * 4, [1.0, 3.0])
    0.25
    """
    loss, grid = usable_times(_losses(outcome_train, outcome_test, incidence, times, cause), times)
    return over_resamples(integrated_loss(loss, grid), sample_weight, len(loss), NO_SPAN)


def index_of_prediction_accuracy_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    incidence: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    cause: int = 1,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the ratio of the Brier score of one cause to that of the Aalen-Johansen estimate of the reference rows.

    1 is perfect, 0 no better than the same incidence for all patients, below 0 worse than that.

    Parameters
    ----------
    outcome_train, outcome_test, incidence, times, sample_weight, cause
        As in :func:`brier_score_cause`.
    reference : structured array of shape (n_reference,), default=None
        Rows of the cumulative incidence that is the reference: the training rows. None uses ``outcome_train``.

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Kattan MW, Gerds TA. The index of prediction accuracy: an intuitive measure useful for evaluating
       risk prediction models. Diagnostic and Prognostic Research, 2018.

    Examples
    --------
    >>> y = np.array([(2, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> index_of_prediction_accuracy_cause(y, y, [0.5, 1.0, 1.0, 0.0], 3.0)
    0.75
    """
    loss = _losses(outcome_train, outcome_test, incidence, times, cause)
    null = _reference_losses(outcome_train, outcome_test, times, cause, reference)
    return over_resamples(loss_reduction(loss, null, times), sample_weight, len(loss), beyond_follow_up(times))


def integrated_ipa_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    incidence: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    cause: int = 1,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the ratio of the integrated Brier score of one cause to that of the reference's Aalen-Johansen curve.

    Parameters
    ----------
    outcome_train, outcome_test, incidence, times, sample_weight, cause
        As in :func:`integrated_brier_score_cause`.
    reference : structured array of shape (n_reference,), default=None
        As in :func:`index_of_prediction_accuracy_cause`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> y = np.array([(2, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> integrated_ipa_cause(y, y, [[0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], [1.0, 3.0])
    1.0
    """
    loss, grid = usable_times(_losses(outcome_train, outcome_test, incidence, times, cause), times)
    null = _reference_losses(outcome_train, outcome_test, grid, cause, reference)
    return over_resamples(integrated_loss_reduction(loss, null, grid), sample_weight, len(loss), NO_SPAN)


def _losses(outcome_train: np.ndarray, outcome_test: np.ndarray, incidence: Any, times: Any, cause: int) -> np.ndarray:
    """Weighted squared errors (n, n_times), NaN where there are no weights."""
    grid = check_times(times)
    incidence = np.asarray(incidence, dtype=np.float64)
    if incidence.ndim == 1:
        incidence = incidence[:, None]
    incidence = check_incidence(incidence, (len(outcome_test), len(grid)))
    loss = np.empty_like(incidence)
    for k, horizon in enumerate(grid):
        case, control = horizon_weights_cause(outcome_train, outcome_test, horizon, cause)
        loss[:, k] = case * (1 - incidence[:, k]) ** 2 + control * incidence[:, k] ** 2
    return loss


def _reference_losses(
    outcome_train: np.ndarray, outcome_test: np.ndarray, times: Any, cause: int, reference: np.ndarray | None
) -> np.ndarray:
    rows = known_causes(outcome_train if reference is None else reference)
    curve = incidence_at(*rows, check_times(times), cause)
    return _losses(outcome_train, outcome_test, np.tile(curve, (len(outcome_test), 1)), times, cause)
