"""Agreement of repeated measurements: intraclass correlations."""

from typing import Any

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from mmdls.metrics._notes import warn

__all__ = ["intraclass_correlation"]

FORMS = ("ICC(1,1)", "ICC(2,1)", "ICC(3,1)")


def intraclass_correlation(measurements: Any, form: str = "ICC(2,1)") -> float | np.ndarray:
    """Share of the variance of a single measurement that is due to differences between subjects.

    Parameters
    ----------
    measurements : array-like of shape (n_subjects, n_repeats) or (n_subjects, n_repeats, n_variables)
        Without missing values.
    form : {"ICC(1,1)", "ICC(2,1)", "ICC(3,1)"}, default="ICC(2,1)"
        ``"ICC(1,1)"``: repeats are interchangeable (one-way random effects). ``"ICC(2,1)"``: each repeat is of one of
        several scanners or readers that stand for many, and their differences are errors (two-way random effects,
        absolute agreement). ``"ICC(3,1)"``: constant differences between repeats are no errors (two-way mixed effects,
        consistency).

    Returns
    -------
    float, or ndarray of shape (n_variables,)
        At most 1; NaN for a variable without any variance.

    Raises
    ------
    ValueError
        If the form is unknown, a value is missing, or there are fewer than two subjects or repeats.

    References
    ----------
    Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychological Bulletin, 1979.

    Examples
    --------
    >>> measurements = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> [round(intraclass_correlation(measurements, form), 2) for form in ("ICC(1,1)", "ICC(2,1)", "ICC(3,1)")]
    [0.17, 0.29, 0.71]
    """
    values = np.asarray(measurements, dtype=float)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}.")
    if values.ndim not in (2, 3) or min(values.shape[:2]) < 2:
        raise ValueError(
            "measurements must have the shape (n_subjects, n_repeats) or (n_subjects, n_repeats, n_variables), with "
            f"two subjects and two repeats at least; got {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("measurements must be finite; leave subjects with a missing measurement out.")
    n, k = values.shape[:2]
    # Differences to the first measurement have the same variance and lose no digits to a large mean.
    values = values - values[:1, :1]
    subject, repeat, grand = values.mean(axis=1), values.mean(axis=0), values.mean(axis=(0, 1))
    between = k * ((subject - grand) ** 2).sum(axis=0)
    raters = n * ((repeat - grand) ** 2).sum(axis=0)
    within = ((values - subject[:, None]) ** 2).sum(axis=(0, 1))
    error = ((values - subject[:, None] - repeat + grand) ** 2).sum(axis=(0, 1))
    bms, jms = between / (n - 1), raters / (k - 1)
    noise = within / (n * (k - 1)) if form == "ICC(1,1)" else error / ((n - 1) * (k - 1))
    total = bms + (k - 1) * noise + (k * (jms - noise) / n if form == "ICC(2,1)" else 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(total > 0, (bms - noise) / total, np.nan)
    if np.isnan(found).any():
        warn("the intraclass correlation of measurements that are all equal is undefined.", UndefinedMetricWarning)
    return found if values.ndim == 3 else float(found)
