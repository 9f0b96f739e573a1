"""Tests of Table 1: whether groups of patients differ in a variable."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, kruskal, mannwhitneyu

from mmdls import metrics
from mmdls.metrics._comparison import p_text

__all__ = ["compare_groups", "is_number"]

_N_PERMUTATIONS = 9999
_FEWEST_EXPECTED = 5  # patients in a cell, for the distribution of chi-squared


def is_number(values: pd.Series) -> bool:
    """Whether a column is described by its quartiles."""
    return bool(pd.api.types.is_numeric_dtype(values) and values.nunique() > 2)


def compare_groups(values: Any, groups: list[np.ndarray]) -> tuple[str, str]:
    """The p-value and the name of the test as text, both empty where no two groups can be compared.

    Parameters
    ----------
    values : Series, or outcomes of a task, of shape (n,)
        Missing values are left out.
    groups : list of arrays of shape (n,), bool
    """
    if isinstance(values, np.ndarray) and values.dtype.names:
        if "event" not in values.dtype.names:
            return "", ""  # no test of competing risks
        known, name = ~np.isnan(values["time"]), "log-rank"
    else:
        if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.integer):  # classes, -1 where unknown
            values = pd.Series(values.astype(object)).where(values >= 0)
        values = pd.Series(values)
        known, name = values.notna().to_numpy(), ""
    parts = [rows & known for rows in groups if (rows & known).any()]
    if len(parts) < 2:
        return "", ""
    used, codes = np.logical_or.reduce(parts), np.argmax(parts, axis=0)
    if name:
        p = metrics.logrank_test(values["event"][used], values["time"][used], codes[used])[1]
        return p_text(p), "" if np.isnan(p) else name
    if is_number(values):
        samples = [values[rows].to_numpy(dtype=np.float64) for rows in parts]
        if np.ptp(np.concatenate(samples)) == 0:
            return "", ""
        name = "Mann-Whitney" if len(parts) == 2 else "Kruskal-Wallis"
        return p_text((mannwhitneyu if len(parts) == 2 else kruskal)(*samples).pvalue), name
    table = pd.crosstab(values[used].astype(object).to_numpy(), codes[used]).to_numpy()
    return _of_counts(table) if len(table) > 1 else ("", "")


def _of_counts(table: np.ndarray) -> tuple[str, str]:
    statistic, p, _, expected = chi2_contingency(table, correction=False)
    if expected.min() >= _FEWEST_EXPECTED:
        return p_text(p), "chi-squared"
    if table.shape == (2, 2):
        return p_text(fisher_exact(table).pvalue), "Fisher's exact"
    level, group = (np.repeat(indices.ravel(), table.ravel()) for indices in np.indices(table.shape))
    rng, n_extreme, n_groups = np.random.default_rng(0), 0, table.shape[1]
    for _ in range(_N_PERMUTATIONS):
        counts = np.bincount(level * n_groups + rng.permutation(group), minlength=table.size).reshape(table.shape)
        n_extreme += ((counts - expected) ** 2 / expected).sum() >= statistic - 1e-9
    return p_text((n_extreme + 1) / (_N_PERMUTATIONS + 1)), "chi-squared, permuted"
