"""Shifts and scales of centres, shrunk over columns by empirical Bayes, from arrays."""

from dataclasses import dataclass

import numpy as np

__all__ = ["CentreEffects", "estimate_effects"]

_TOLERANCE = 1e-12
_MOST_ITERATIONS = 10_000


@dataclass(frozen=True)
class CentreEffects:
    """What centres do to columns.

    Parameters
    ----------
    mean, deviation : ndarray of shape (n_columns,)
        Mean of a column without covariates, and its pooled deviation within centres; 0 if it does not vary there.
    slopes : ndarray of shape (n_covariates, n_columns)
    shift, scale : ndarray of shape (n_sites, n_columns)
        In units of the deviation; NaN for a column of which a centre has fewer than two values.
    """

    mean: np.ndarray
    deviation: np.ndarray
    slopes: np.ndarray
    shift: np.ndarray
    scale: np.ndarray


def estimate_effects(
    values: np.ndarray, site: np.ndarray, covariates: np.ndarray, reference: int | None, shrink: bool
) -> CentreEffects:
    """Fit the model of Johnson, Li and Rabinovic.

    Parameters
    ----------
    values : ndarray of shape (n_patients, n_columns)
        NaN where missing.
    site : ndarray of int, shape (n_patients,)
        Centre of each patient, 0 to n_sites - 1.
    covariates : ndarray of shape (n_patients, n_covariates)
    reference : int or None
        Centre to which the others are brought.
    shrink : bool
        Whether effects of a centre are shrunk over columns.

    Returns
    -------
    CentreEffects
    """
    indicators = site[:, None] == np.arange(site.max() + 1)
    present = ~np.isnan(values)
    n = indicators.T.astype(float) @ present
    # A single value tells no scale of its centre.
    present &= (n >= 2)[site]
    n = np.where(n >= 2, n, 0)
    design = np.column_stack([indicators, covariates]).astype(float)
    coefficients = np.zeros((design.shape[1], values.shape[1]))
    patterns, column_pattern = np.unique(present.T, axis=0, return_inverse=True)
    for k, rows in enumerate(patterns):
        columns = column_pattern == k
        coefficients[:, columns] = np.linalg.lstsq(design[rows], values[np.ix_(rows, columns)], rcond=None)[0]
    intercepts, slopes = coefficients[: n.shape[0]], coefficients[n.shape[0] :]
    share = n / np.maximum(n.sum(axis=0), 1)
    mean = (share * intercepts).sum(axis=0) if reference is None else intercepts[reference]
    residual = np.where(present, values - design @ coefficients, np.nan)
    spread_of = present if reference is None else present & (site == reference)[:, None]
    deviation = np.sqrt(_mean(residual**2, spread_of))
    # Rounding leaves a residual of a column that does not vary.
    size = np.abs(np.where(present, values, 0)).max(axis=0)
    deviation[~(deviation > 1e-12 * size)] = 0
    unit = np.where(deviation > 0, deviation, np.nan)
    standard = np.where(present, values - mean - covariates @ slopes, np.nan) / unit
    shift, scale = np.full(n.shape, np.nan), np.full(n.shape, np.nan)
    for centre in range(n.shape[0]):
        estimable = (n[centre] > 0) & (deviation > 0)
        if centre == reference:
            shift[centre], scale[centre] = 0, 1
        elif estimable.any():
            found = _one_centre(standard[site == centre][:, estimable], n[centre, estimable], shrink)
            shift[centre, estimable], scale[centre, estimable] = found
    return CentreEffects(mean, deviation, slopes, shift, np.sqrt(scale))


def _one_centre(z: np.ndarray, n: np.ndarray, shrink: bool) -> tuple[np.ndarray, np.ndarray]:
    """Additive effect and variance of one centre's standardised values (n_patients, n_columns)."""
    present = ~np.isnan(z)
    shift = _mean(z, present)
    variance = _mean((z - shift) ** 2, present) * n / (n - 1)
    # Rounding of the mean leaves a variance of values that are all the same.
    variance[np.nanmax(z, axis=0) == np.nanmin(z, axis=0)] = 0
    if not shrink or len(n) < 2 or not variance.any():
        return shift, variance
    prior_mean, prior_variance = shift.mean(), shift.var(ddof=1)
    m, s2 = variance.mean(), variance.var(ddof=1)
    gamma, delta = shift, variance
    for _ in range(_MOST_ITERATIONS):
        # Means of the two posteriors, each given the other; multiplied by s2, which may be 0.
        new_gamma = (n * prior_variance * shift + delta * prior_mean) / (n * prior_variance + delta)
        squares = np.where(present, (z - new_gamma) ** 2, 0).sum(axis=0)
        new_delta = (0.5 * s2 * squares + m * (s2 + m**2)) / (s2 * (n / 2 + 1) + m**2)
        change = max(np.abs(new_gamma - gamma).max(), np.abs(new_delta - delta).max())
        gamma, delta = new_gamma, new_delta
        if change < _TOLERANCE * max(1.0, np.abs(gamma).max(), delta.max()):
            break
    return gamma, delta


def _mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Means of columns over what is present; 0 where nothing is."""
    return np.where(present, values, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
