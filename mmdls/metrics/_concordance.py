"""Harrell's, Uno's and Antolini's concordance for all resamples at once, in O(n log n) for each predicted time."""

from functools import reduce
from typing import Any

import numpy as np

from mmdls.metrics._censoring import CensoringDistribution
from mmdls.metrics._checks import check_order, check_outcome, check_predictions
from mmdls.metrics._classification import weight_below
from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import over_resamples, ratio
from mmdls.metrics._times import snap_times

__all__ = ["concordance_by_column", "concordance_index", "concordance_index_antolini", "concordance_index_ipcw"]

_LEAF = 32  # size of the blocks that are compared by a matrix product
_NUMBERS = 2**20  # weights per block of resamples, which go through the levels of a merge sort together
# Of Antolini's C: pairs in memory at once, weights per block of resamples, and events from which a column is sorted.
_COMPARISONS = 2**20
_CURVE_NUMBERS = 2**23
_MANY = 64
_FEW_PATIENTS = 1000  # up to so many, all pairs of a column are compared, which is faster than sorting them


def concordance_index(event: Any, time: Any, risk: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Harrell's C: the fraction of comparable pairs in which the patient of higher risk has the event first.

    A pair is comparable if its earlier time is an event. A patient censored at the time of an event counts as later;
    two events at one time are not comparable. Equal risks count one half. NaN, with an ``UndefinedMetricWarning``,
    if no pair can be compared.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    risk : array of shape (n,)
        Higher = earlier event.
    sample_weight : array of shape (n,) or (R, n), default=None
        Weight of each patient; the weight of a pair is the product. One row a resample (see
        :func:`bootstrap_weights`) gives the C-index of every resample.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Harrell FE et al. Evaluating the yield of medical tests. JAMA, 1982.

    Examples
    --------
    >>> concordance_index([True, True, False], [1.0, 2.0, 3.0], [0.9, 0.1, 0.5])
    0.6666666666666666
    """
    check_order(event=event, time=time, risk=risk)
    event, time = check_outcome(event, time)
    risk = check_predictions(risk, (len(time),), "risk")
    return _concordance(event, time, risk, event.astype(np.float64), sample_weight)


def concordance_by_column(event: np.ndarray, time: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """:func:`concordance_index` of many risks of the same patients; what does not depend on the risk is computed once.

    Parameters
    ----------
    event, time : ndarray of shape (n,)
    columns : ndarray of shape (n, p)
        Finite.
    weights : ndarray of shape (R, n)

    Returns
    -------
    ndarray of shape (p, R)
        NaN where no pair can be compared.
    """
    event, time = check_outcome(event, time)
    weights = weights.astype(np.float64)
    own = weights[:, event]
    total = (own * Pairs(event, time, np.zeros(len(time))).later(weights)[:, event]).sum(axis=1)
    later = _later(event, time, np.flatnonzero(event)) if len(time) <= _FEW_PATIENTS else None

    def won(risk: np.ndarray) -> np.ndarray:
        if later is None:
            return Pairs(event, time, risk).lower(weights)[:, event]
        return weights @ _wins(later, risk[event], risk).T

    return np.stack([ratio(np.einsum("rc,rc->r", own, won(risk)), total) for risk in columns.T])


def concordance_index_ipcw(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    risk: Any,
    tau: float | None = None,
    sample_weight: Any = None,
) -> float | np.ndarray:
    """Uno's C: concordance up to a time tau, weighted so that it does not depend on the censoring.

    Each event weighs ``1 / G(t-)**2``, with the censoring distribution G by Kaplan-Meier on the rows of
    ``survival_train``. The left limit ``G(t-)`` is the probability of still being observed just before the event
    (scikit-survival takes ``G(t)``, which differs where an event and a censoring share a time). Events after
    the last of these times have no weight: tau is clipped there, with a warning if that leaves out events.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
        Event and time.
    risk : array of shape (n,)
        Higher = earlier event.
    tau : float, default=None
        Months; only events before tau count. None means up to the last time with weights.
    sample_weight : array of shape (n,) or (R, n), default=None
        As in :func:`concordance_index`; the censoring distribution stays the same.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Uno H et al. On the C-statistics for evaluating overall adequacy of risk prediction procedures with
       censored survival data. Statistics in Medicine, 2011.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> concordance_index_ipcw(y, y, [4.0, 2.0, 1.0, 3.0])
    0.5714285714285714
    """
    censoring = CensoringDistribution(survival_train)
    event, time = check_outcome(survival_test)
    risk = check_predictions(risk, (len(time),), "risk")
    time = snap_times(time, censoring.times)
    inside = event if tau is None else event & (snap_times(time, [tau]) < tau)
    lost = inside & (time > censoring.last)
    if lost.any():
        warn(
            f"tau clipped at {censoring.last:g} months, the end of the follow-up that the weights come from: "
            f"{lost.sum()} later events have no censoring weight."
        )
    return _concordance(event, time, risk, censoring.event_weight(event & inside, time) ** 2, sample_weight)


def concordance_index_antolini(
    event: Any, time: Any, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Antolini's C: how often predicted survival at a patient's event is lower than that of patients still at risk.

    Suited to survival curves that cross; under proportional hazards it equals Harrell's C, with the same pairs and
    one half for ties. An event outside the span of ``times`` is read from the nearest column.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    survival : array of shape (n, n_times)
        Probability of being event-free at each of ``times``; a step function between them.
    times : array of shape (n_times,)
        Months, ascending.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Antolini L et al. A time-dependent discrimination index for survival data. Statistics in Medicine, 2005.

    Examples
    --------
    >>> survival = [[0.5, 0.1], [0.6, 0.2], [0.9, 0.8]]
    >>> concordance_index_antolini([True, True, False], [1.0, 2.0, 3.0], survival, [1.0, 2.0])
    1.0
    """
    check_order(event=event, time=time, survival=survival)
    event, time = check_outcome(event, time)
    times = np.asarray(times, dtype=np.float64)
    survival = check_predictions(survival, (len(time), len(times)), "survival")
    column = np.clip(np.searchsorted(times, snap_times(time, times), side="right") - 1, 0, None)
    pairs = Pairs(event, time, np.zeros(len(time)))
    crowded = np.bincount(column[event], minlength=len(times)) >= _MANY
    # Sorted by column, so that a block of events reads neighbouring columns of predictions.
    cases = np.flatnonzero(event & ~crowded[column])
    cases = cases[np.argsort(column[cases], kind="stable")]
    size = max(1, _COMPARISONS // max(len(time), 1))

    def won_in(k: int, block: np.ndarray) -> np.ndarray:
        """Won pairs of all events of one column: with patients of the same column, and with those of later ones."""
        own, beyond, score = column == k, column > k, -survival[:, k]
        inside = Pairs(event[own], time[own], score[own]).lower(block[:, own])[:, event[own]]
        after = weight_below(score[own & event], score[beyond])(block[:, beyond])
        return np.einsum("rc,rc->r", block[:, own & event], inside + after)

    def statistic(block: np.ndarray) -> np.ndarray:
        won = np.zeros(len(block))
        for k in np.flatnonzero(crowded):
            won += won_in(int(k), block)
        for start in range(0, len(cases), size):
            case = cases[start : start + size]
            at, mine = survival[:, column[case]].T, survival[case, column[case]]
            win = _wins(_later(event, time, case), -mine, -at)
            won += np.einsum("rc,rc->r", block[:, case], block @ win.T)
        return ratio(won, (block * pairs.later(block))[:, event].sum(axis=1))

    return over_resamples(
        statistic,
        sample_weight,
        len(time),
        "no event at which predicted curves of two patients can be compared.",
        _CURVE_NUMBERS,
    )


def _concordance(
    event: np.ndarray, time: np.ndarray, risk: np.ndarray, event_weight: np.ndarray, sample_weight: Any
) -> float | np.ndarray:
    pairs = Pairs(event, time, risk)

    def statistic(block: np.ndarray) -> np.ndarray:
        later, lower = pairs.sums(block)
        own = block * event_weight
        return ratio((own * lower).sum(axis=1), (own * later).sum(axis=1))

    return over_resamples(
        statistic,
        sample_weight,
        len(time),
        "no pair of patients is comparable: no event precedes another patient's time.",
        _NUMBERS,
    )


def _later(event: np.ndarray, time: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """With whom each of some events can be compared, (n_cases, n): patients still at risk after it."""
    return (time > time[cases, None]) | (~event & (time == time[cases, None]))


def _wins(later: np.ndarray, risk: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where an event has the higher risk of a comparable pair, one half where risks are equal, (n_cases, n)."""
    return later * (0.5 * (risk[:, None] > others) + 0.5 * (risk[:, None] >= others))


class Pairs:
    """The comparable pairs of patients, for any patient weights.

    Patients are sorted by time, events before censorings of the same time, and events at one time by risk. The
    comparable partners of an event are then the patients after it, and the concordant ones, of lower risk, are
    inversions between this order and the order of risks. Ties of risk count one half: the mean of two orders of equal
    risks, one in which they are never inversions and one in which they always are (except events at one time, which
    are not comparable).
    """

    def __init__(self, event: np.ndarray, time: np.ndarray, risk: np.ndarray) -> None:
        self.order = np.lexsort((risk, ~event, time))
        event, time, risk = event[self.order], time[self.order], risk[self.order]
        # The first partner of each event: after the events of the same time.
        key = np.unique(time, return_inverse=True)[1] * 2 + ~event
        self.first = np.searchsorted(key, key, side="right")
        place = np.arange(len(time))
        tie = np.r_[0, np.cumsum((np.diff(risk) != 0) | (np.diff(key) != 0))] if len(time) else place
        self.inversions = [Inversions(np.argsort(np.lexsort((place, risk))))]
        if len(np.unique(risk)) < len(risk):
            self.inversions.append(Inversions(np.argsort(np.lexsort((place, -tie, risk)))))

    def sums(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each event, the weight of its partners, and of those with lower risk, both (R, n)."""
        return self.later(weights), self.lower(weights)

    def lower(self, weights: np.ndarray) -> np.ndarray:
        """For each event, the weight of its partners of lower risk, (R, n)."""
        lower = np.empty_like(weights)
        columns = np.ascontiguousarray(weights[:, self.order].T)
        counts = [inversions(columns) for inversions in self.inversions]
        lower[:, self.order] = reduce(np.add, counts).T / len(counts)
        return lower

    def later(self, weights: np.ndarray) -> np.ndarray:
        """For each event, the weight of its partners, (R, n)."""
        until = np.concatenate([np.zeros((len(weights), 1)), weights[:, self.order].cumsum(axis=1)], axis=1)
        later = np.empty_like(weights)
        later[:, self.order] = until[:, -1:] - until[:, self.first]
        return later


class Inversions:
    """For each position, the weight of all later positions of lower rank.

    A merge sort from the bottom up: in a block sorted by rank, a cumulative sum of the weights of the right half gives
    the result for all of the left half. The smallest blocks are matrix products. What does not depend on the weights is
    found once.

    Parameters
    ----------
    rank : ndarray of int, shape (n,)
        A permutation of 0 to n - 1.
    """

    def __init__(self, rank: np.ndarray) -> None:
        self.n = len(rank)
        levels = max(0, int(np.ceil(np.log2(max(self.n, 1) / _LEAF))))
        size = -(-max(self.n, 1) // 2**levels)
        rank = np.r_[rank, np.arange(self.n, size * 2**levels)].reshape(-1, size)
        self.leaves = np.triu(rank[:, None, :] < rank[:, :, None], 1).astype(np.float64)
        # Of each level: positions of the left and of the right halves, by rank, and how many right ones are below.
        self.merges: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        while len(rank) > 1:
            half, rank = rank.shape[1], rank.reshape(len(rank) // 2, -1)
            ascending = np.argsort(rank, axis=1)
            right = ascending >= half
            block = np.arange(len(rank))[:, None]
            place, shape = ascending + 2 * half * block, (len(rank), half)
            below = right.cumsum(axis=1)[~right].reshape(shape) + (half + 1) * block
            self.merges.append((place[~right].reshape(shape), place[right].reshape(shape), below))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Weights (n, R) -> sums (n, R)."""
        n_resamples, (n_leaves, size, _) = weights.shape[1], self.leaves.shape
        weights = np.concatenate([weights, np.zeros((n_leaves * size - self.n, n_resamples))])
        result = (self.leaves @ weights.reshape(n_leaves, size, n_resamples)).reshape(weights.shape)
        for left, right, below in self.merges:
            running = np.zeros((len(right), right.shape[1] + 1, n_resamples))
            np.cumsum(weights[right], axis=1, out=running[:, 1:])
            result[left] += running.reshape(-1, n_resamples)[below]
        return result[: self.n]
