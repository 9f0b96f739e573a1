"""The mean of what several cohorts gave, and its interval."""

import pandas as pd
from scipy import stats

__all__ = ["over_cohorts"]


def over_cohorts(values: pd.Series) -> tuple[float, float, float]:
    """Mean of one number a cohort, and its 95 % interval by Student's t; of one cohort the interval is NaN.

    Parameters
    ----------
    values : pandas.Series of shape (n_cohorts,)
        For the interval of a difference: the differences within cohorts.
    """
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf(0.975, n - 1)) * float(values.sem()) if n > 1 else float("nan")
    return mean, mean - half, mean + half
