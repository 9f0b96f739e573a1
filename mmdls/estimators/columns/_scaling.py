"""Numbers of any unit, offset and spread on one scale."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from mmdls.estimators.columns._quantiles import weighted_quantile

__all__ = ["NumberScaler"]

# Numbers beyond would be infinite in the float32 of a network.
_LARGEST = 1e30
# A steep power may leave the range of the training rows by so many times its width.
_WIDTHS = 100
# A transform that keeps a smaller share of the different values than standardising does is not used.
_MERGED = 0.95
# Columns are bent in blocks that stay in the processor's cache.
_BLOCK = 2**15
_ROUNDS = 200


class NumberScaler(TransformerMixin, BaseEstimator):
    """Bring columns to mean 0 and standard deviation 1, after a Yeo-Johnson transform where that loses nothing.

    A Yeo-Johnson transform is nearly a line for sizes far below 1 and a power or logarithm far above, so the unit would
    decide what it can do: each column is first brought to a typical size of 10, the median size of the numbers other
    than 0. The power is that of the highest normal likelihood. A column with two values is only standardised, since a
    power changes nothing of it, and so is a column of which the power would merge values. A column that did not vary in
    ``fit`` becomes 0.

    Parameters
    ----------
    power : bool, default=True
        False standardises only.

    Attributes
    ----------
    powers_ : ndarray of shape (n_columns,)
        NaN where a column is only standardised.

    References
    ----------
    .. [1] Yeo I-K, Johnson RA. A new family of power transformations to improve normality or symmetry. Biometrika,
       2000.
    .. [2] Marchand T, Muzellec B, Beguier C, Ogier du Terrail J, Andreux M. SecureFedYJ: a safe feature Gaussianization
       protocol for federated learning. NeurIPS, 2022. (The likelihood is concave in the power.)

    Examples
    --------
    >>> years = np.array([[2005.0], [2005.0], [2006.0], [2009.0]])
    >>> NumberScaler(power=False).fit_transform(years).ravel().round(2)
    array([-0.76, -0.76, -0.15,  1.68])
    """

    def __init__(self, power: bool = True):
        self.power = power

    def fit(self, X: np.ndarray, y: Any = None, sample_weight: np.ndarray | None = None) -> "NumberScaler":
        """Learn from X (n, n_columns), finite or NaN; NaN is left out, weights are repetitions."""
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        X, weight = X[weight > 0], weight[weight > 0]
        low, high = np.fmin.reduce(X, axis=0), np.fmax.reduce(X, axis=0)
        self.varied_ = high > low
        self.powers_ = np.full(X.shape[1], np.nan)
        self.limits_ = np.full((2, X.shape[1]), [[-np.inf], [np.inf]])
        self.range_ = np.full((2, X.shape[1]), [[-_LARGEST], [_LARGEST]])
        self.lines_ = _fit_lines(X, weight)
        self.curves_, self.bent_ = np.empty((5, 0)), np.flatnonzero(self.power & (_n_distinct(X) > 2))
        if not len(self.bent_):
            return self
        with np.errstate(over="ignore"):
            width = high[self.bent_] - low[self.bent_]
            self.limits_[:, self.bent_] = low[self.bent_] - width, high[self.bent_] + width
        size = max(_BLOCK // len(X), 1)
        blocks = [self.bent_[i : i + size] for i in range(0, len(self.bent_), size)]
        curves = np.hstack([_fit_curves(X[:, block], weight) for block in blocks])
        bent = _curve(X[:, self.bent_], curves)
        finite = (np.isfinite(bent) | np.isnan(X[:, self.bent_])).all(axis=0)
        bent = np.where(finite, bent, 0.0)
        lines = _fit_lines(bent, weight)
        before, after = _line(X[:, self.bent_], self.lines_[:, self.bent_]), _line(bent, lines)
        kept = _n_distinct(after) >= _MERGED * _n_distinct(before)
        self.bent_, self.curves_, after = self.bent_[kept], curves[:, kept], after[:, kept]
        self.lines_[:, self.bent_] = lines[:, kept]
        self.powers_[self.bent_] = np.where(self.curves_[1] > 0, self.curves_[4], 2 - self.curves_[4])
        low, high = np.fmin.reduce(after, axis=0), np.fmax.reduce(after, axis=0)
        self.range_[:, self.bent_] = low - _WIDTHS * (high - low), high + _WIDTHS * (high - low)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scale X (n, n_columns); finite wherever X has a number."""
        check_is_fitted(self, "powers_")
        scaled = np.clip(X, *self.limits_)
        scaled[:, self.bent_] = _curve(scaled[:, self.bent_], self.curves_)
        scaled = np.clip(_line(scaled, self.lines_), *self.range_)
        return np.where(self.varied_ | np.isnan(X), scaled, 0.0)


def _n_distinct(X: np.ndarray) -> np.ndarray:
    """How many different numbers each column holds, (n_columns,)."""
    ranked = np.sort(X, axis=0)
    return (ranked[1:] > ranked[:-1]).sum(axis=0) + (~np.isnan(ranked)).any(axis=0)


def _fit_lines(X: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exponent of 2, centre, spread, and mean and deviation of what these two leave, (5, n_columns).

    Powers of 2 and differences of close numbers are exact: an offset or a size near the ends of double precision costs
    no digit.
    """
    exponent = np.frexp(np.fmax.reduce(np.abs(X), axis=0, initial=0.0))[1]
    close = np.ldexp(X, -exponent)
    centre = np.nan_to_num(weighted_quantile(close, 0.5, weight))
    spread = np.fmax.reduce(np.abs(close - centre), axis=0, initial=0.0)
    spread = np.where(spread > 0, spread, 1.0)
    weight = np.where(np.isnan(X), 0.0, weight[:, None])
    total = np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
    small = np.nan_to_num((close - centre) / spread)
    mean = (weight * small).sum(axis=0) / total
    deviation = np.sqrt((weight * (small - mean) ** 2).sum(axis=0) / total)
    return np.array([exponent, centre, spread, mean, np.where(deviation > 0, deviation, 1.0)])


def _line(X: np.ndarray, lines: np.ndarray) -> np.ndarray:
    exponent, centre, spread, mean, deviation = lines
    with np.errstate(over="ignore"):
        return ((np.ldexp(X, -exponent.astype(int)) - centre) / spread - mean) / deviation


def _fit_curves(X: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exponent of 2, sign, centre, shift and power of each column, (5, n_columns).

    The Yeo-Johnson transform of a column without negative numbers is the power of (x + shift), up to a line; relative
    to a centre it keeps all digits of a small spread around a large value, where the usual formula subtracts from 1.
    Columns without positive numbers are turned round.
    """
    typical = weighted_quantile(np.where(X == 0, np.nan, np.abs(X)), 0.5, weight)
    exponent = np.frexp(typical)[1]
    with np.errstate(over="ignore"):
        close = np.ldexp(X, -exponent)
    sign = np.where(np.fmax.reduce(close, axis=0) <= 0, -1.0, 1.0)
    close = sign * close
    one_sided = np.fmin.reduce(close, axis=0) >= 0
    centre = np.where(one_sided, weighted_quantile(close, 0.5, weight), 0.0)
    curves = np.array([exponent, sign, centre, np.ldexp(typical, -exponent) / 10, np.ones(X.shape[1])])

    weight = np.where(np.isnan(X), 0.0, weight[:, None])
    total = weight.sum(axis=0)
    with np.errstate(all="ignore"):
        sides = _Sides(close, centre, curves[3])
        gain = (weight * np.nan_to_num(sides.above - np.log1p(np.maximum(-close, 0.0) / curves[3]))).sum(axis=0)

    def slope(power: np.ndarray) -> np.ndarray:
        """Of the log likelihood; where numbers overflow the power is too far from 1."""
        with np.errstate(all="ignore"):
            bent, change = sides.bend(power)
            size = np.fmax.reduce(np.abs(bent), axis=0)
            bent, change = (np.where(weight > 0, values / size, 0.0) for values in (bent, change))
            bent = bent - (weight * bent).sum(axis=0) / total
            value = gain - total * (weight * bent * change).sum(axis=0) / (weight * bent**2).sum(axis=0)
        return np.where(np.isfinite(value), value, np.where(power > 1, -1e9, 1e9))

    curves[4] = _root(slope, curves[4])
    return curves


def _curve(X: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The Yeo-Johnson transform, up to a line."""
    exponent, sign, centre, shift, power = curves
    with np.errstate(all="ignore"):
        return sign * _Sides(sign * np.ldexp(X, -exponent.astype(int)), centre, shift).bend(power)[0]


class _Sides:
    """Columns (n, n_columns) above and below 0 on the scale of logarithms, which all powers share."""

    def __init__(self, close: np.ndarray, centre: np.ndarray, shift: np.ndarray) -> None:
        self.above = np.log1p((np.maximum(close, 0.0) - centre) / (centre + shift))
        negative = close < 0
        self.two_sided = np.flatnonzero(negative.any(axis=0))
        self.negative = negative[:, self.two_sided]
        self.zero = np.log(shift / (centre + shift))[self.two_sided]
        self.below = np.log1p(np.maximum(-close[:, self.two_sided], 0.0) / shift[self.two_sided])

    def bend(self, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The transform, and what it gains with the power (n_columns,)."""
        bent, change = _power(self.above, power)
        if len(self.two_sided):
            zero, power = self.zero, power[self.two_sided]
            (at_zero, change_at_zero), steep = _power(zero, power), np.exp(power * zero)
            below, below_change = _power(self.below, 2 - power)
            change_below = change_at_zero - steep * (zero * below - below_change)
            bent[:, self.two_sided] = np.where(self.negative, at_zero - steep * below, bent[:, self.two_sided])
            change[:, self.two_sided] = np.where(self.negative, change_below, change[:, self.two_sided])
        return bent, change


def _power(logarithm: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(exp(logarithm) ** power - 1) / power and its derivative by the power, with their limits where it is 0."""
    exponent = power * logarithm
    grown = np.expm1(exponent)
    value = np.where(power == 0, logarithm, grown / power)
    # The difference cancels near 0.
    near = logarithm**2 * (1 / 2 + exponent * (1 / 3 + exponent * (1 / 8 + exponent * (1 / 30 + exponent / 144))))
    change = np.where(np.abs(exponent) < 1e-2, near, (logarithm * (grown + 1) - value) / power)
    return value, change


def _root(function: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Where falling functions, one a column, cross 0: steps that double, then false position with bisections."""
    old, f_old = start, function(start)
    way = np.where(f_old > 0, 1.0, -1.0)
    new, step = start + way, way
    f_new = function(new)
    for _ in range(_ROUNDS):
        before = f_new * way > 0
        if not before.any():
            break
        step = 2 * step
        old, f_old, new = np.where(before, new, old), np.where(before, f_new, f_old), np.where(before, new + step, new)
        f_new = function(new)
    found = np.zeros(len(start), dtype=bool)
    for i in range(_ROUNDS):
        with np.errstate(all="ignore"):
            straight = new - f_new * (new - old) / (f_new - f_old)
        halves = (i % 3 == 2) | ~np.isfinite(straight)
        proposed = np.where(found, new, np.where(halves, (new + old) / 2, straight))
        found |= ~halves & (np.abs(proposed - new) <= 1e-13 * (1 + np.abs(new)))
        f_proposed = function(proposed)
        crossed = f_proposed * f_new < 0
        # The end that stays counts half, so that it does not stay for ever.
        old, f_old = np.where(crossed, new, old), np.where(crossed, f_new, f_old / 2)
        new, f_new = proposed, f_proposed
        if found.all():
            break
    return new
