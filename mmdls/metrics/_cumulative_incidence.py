"""Competing risks: codes of causes, the Aalen-Johansen estimator, and what is known of one cause by a horizon."""

from typing import Any

import numpy as np

from mmdls.metrics._censoring import step_values
from mmdls.metrics._checks import check_order, check_outcome, check_predictions, check_weights
from mmdls.metrics._horizons import horizon_weights

__all__ = [
    "any_event",
    "check_cause",
    "check_causes",
    "check_incidence",
    "cumulative_incidence",
    "horizon_weights_cause",
    "incidence_at",
    "known_causes",
]


def cumulative_incidence(
    causes: Any, time: Any = None, sample_weight: Any = None, *, n_causes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Aalen-Johansen estimate of the cumulative incidence of every cause.

    The probability of an event of a cause by a time, in the presence of the other causes. At every time the incidences
    of all causes and the Kaplan-Meier estimate of being free of any event sum to 1. One minus the Kaplan-Meier estimate
    that counts other causes as censored is larger: it belongs to a world in which nobody can die of them.

    Parameters
    ----------
    causes : array of shape (n,), int
        0 = censored, 1, 2, ... = the cause of the event; or a structured array of cause and time.
    time : array of shape (n,), default=None
        Months; None if ``causes`` holds them.
    sample_weight : array of shape (n,) or (R, n), default=None
    n_causes : int, default=None
        Number of causes; None takes the largest code.

    Returns
    -------
    times : ndarray of shape (n_times,)
        The different times, ascending.
    incidence : ndarray of shape (n_causes, n_times) or (R, n_causes, n_times)
        Probability of an event of each cause by each time. Row ``k - 1`` is cause ``k``.

    Raises
    ------
    ValueError
        If a code is beyond ``n_causes``.

    References
    ----------
    .. [1] Aalen OO, Johansen S. An empirical transition matrix for non-homogeneous Markov chains based on censored
       observations. Scandinavian Journal of Statistics, 1978.

    Examples
    --------
    >>> times, incidence = cumulative_incidence([1, 2, 0, 1], [1.0, 2.0, 3.0, 4.0])
    >>> incidence
    array([[0.25, 0.25, 0.25, 0.75],
           [0.  , 0.25, 0.25, 0.25]])
    """
    causes, time = check_causes(causes, time)
    largest = int(causes.max(initial=0))
    n_causes = max(largest, 1) if n_causes is None else n_causes
    if largest > n_causes:
        raise ValueError(f"causes holds the code {largest}; n_causes={n_causes} allows 1 to {n_causes}.")
    weight = check_weights(sample_weight, len(time)).astype(np.float64)
    order = np.argsort(time, kind="stable")
    times, first = np.unique(time[order], return_index=True)
    if not len(times):
        return times, np.zeros((*weight.shape[:-1], n_causes, 0))
    weight, causes = weight[..., order], causes[order]
    own = weight[..., None, :] * (causes == np.arange(1, n_causes + 1)[:, None])
    events = np.add.reduceat(own, first, axis=-1)
    at_risk = np.add.reduceat(weight, first, axis=-1)[..., ::-1].cumsum(axis=-1)[..., None, ::-1]
    hazard = np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0)
    free = np.cumprod(1 - hazard.sum(axis=-2, keepdims=True), axis=-1)
    before = np.concatenate([np.ones_like(free[..., :1]), free[..., :-1]], axis=-1)
    return times, np.cumsum(before * hazard, axis=-1)


def check_causes(causes: Any, time: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Cause (n,) int64 and time (n,) float64, from two arrays or from one structured array.

    Times that differ by floating rounding only come out as one. A boolean event is cause 1.
    """
    if time is None:
        fields = getattr(getattr(causes, "dtype", None), "names", None)
        if fields is None or len(fields) != 2:
            raise ValueError(
                "outcomes of competing risks must be a structured array with a field of causes and a field of times; "
                f"got {type(causes).__name__} {getattr(causes, 'dtype', '')}."
            )
        causes, time = causes[fields[0]], causes[fields[1]]
    check_order(causes=causes, time=time)
    values = np.asarray(causes)
    if values.ndim != 1:
        raise ValueError(f"causes must have shape (n,); got {values.shape}.")
    whole = np.array([_is_code(value) for value in values.tolist()], dtype=bool)
    if not whole.all():
        wrong = list(dict.fromkeys(map(str, values[~whole].tolist())))
        raise ValueError(
            f"causes must be whole numbers, 0 = censored and 1, 2, ... = the cause of the event; got {wrong[:5]} in "
            f"the rows {np.flatnonzero(~whole)[:5].tolist()}. Leave out unknown outcomes."
        )
    codes = values.astype(np.int64)
    return codes, check_outcome(codes > 0, np.asarray(time))[1]


def _is_code(value: Any) -> bool:
    return isinstance(value, bool | int | float) and value >= 0 and value == value // 1


def check_cause(cause: Any) -> int:
    """The code of a cause: a whole number from 1."""
    if isinstance(cause, bool | np.bool_) or not isinstance(cause, int | np.integer) or cause < 1:
        raise ValueError(f"cause must be the code of a cause, 1, 2, ...; got {cause!r}.")
    return int(cause)


def check_incidence(incidence: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities of an event of one cause, finite and between 0 and 1."""
    values = check_predictions(incidence, shape, "incidence")
    if values.size and (values.min() < -1e-9 or values.max() > 1 + 1e-9):
        raise ValueError(
            "incidence must hold probabilities of an event of the cause, between 0 and 1; got "
            f"{values.min():g} to {values.max():g}. A risk or a hazard is none: take it from the cumulative incidence."
        )
    return values


def known_causes(outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cause and time, as in :func:`check_causes`, of the rows of a structured array whose time is known."""
    fields = getattr(getattr(outcome, "dtype", None), "names", None)
    if fields is None or len(fields) != 2:
        return check_causes(outcome)
    return check_causes(outcome[~np.isnan(outcome[fields[1]])])


def horizon_weights_cause(
    outcome_train: np.ndarray, outcome_test: np.ndarray, horizon: float, cause: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-probability-of-censoring weights of what is known of one cause at a horizon.

    Parameters
    ----------
    outcome_train, outcome_test : structured array of shape (n_train,) and (n,)
        Cause and time; the censoring distribution comes from the first.
    horizon : float
        Months.
    cause : int, default=1

    Returns
    -------
    case, control : ndarray of shape (n,)
        ``1 / G(t-)`` for those with an event of this cause by the horizon, and for those with an event of another one;
        controls are the latter and those event-free beyond the horizon, who weigh ``1 / G(horizon)``. All others 0.
        Controls are NaN where there are no such weights.
    """
    causes, time = check_causes(outcome_test)
    train = any_event(*known_causes(outcome_train))
    by_then, free = horizon_weights(train, any_event(causes, time), horizon)
    own = causes == check_cause(cause)
    return np.where(own, by_then, 0.0), np.where(own, 0.0, by_then) + free


def incidence_at(causes: np.ndarray, time: np.ndarray, times: Any, cause: int, sample_weight: Any = None) -> np.ndarray:
    """Aalen-Johansen estimate of one cause at given times, (n_times,) or (R, n_times)."""
    codes = np.where(causes == check_cause(cause), 1, 2 * (causes > 0))
    steps, incidence = cumulative_incidence(codes, time, sample_weight, n_causes=2)
    return 1 - step_values(steps, 1 - incidence[..., 0, :], times)


def any_event(causes: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Structured array of ``event``, of any cause, and ``time``."""
    outcome = np.empty(len(time), dtype=[("event", bool), ("time", np.float64)])
    outcome["event"], outcome["time"] = causes > 0, time
    return outcome
