"""What single columns, or groups of columns that say the same, are worth to a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from mmdls.cohort import cell_kind, find_tasks
from mmdls.evaluation._checks import check_resampling
from mmdls.explain._folds import (
    blocks_of,
    checked,
    chosen_metrics,
    left_out,
    metric_draws,
    predicted,
    refuse_what_else_is_read,
    spread,
)

__all__ = ["feature_importance"]


def feature_importance(
    model: Any,
    X: pd.DataFrame,
    y: Any,
    *,
    metric: str | Mapping[str, str] | None = None,
    cv: Any = 5,
    groups: Any = None,
    correlation: float = 0.8,
    n_repeats: int = 5,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
) -> pd.DataFrame:
    """How much a metric falls when a group of correlated columns is permuted among the patients left out of a fold.

    Columns that say the same are permuted together, since a model that has lost one of them reads the other. An image
    is a column of its own, with its mask. What is permuted is permuted with its gaps.

    Parameters
    ----------
    model : estimator
        Unfitted; one that :func:`mmdls.evaluation.predict_tasks` reads.
    X : pandas.DataFrame of shape (n_patients, n_columns)
    y : pandas.DataFrame, labels or structured array
    metric : str or dict of str to str, default=None
        As in :func:`modality_importance`.
    cv : int, splitter or iterable of (train, test), default=5
    groups : Series or array of shape (n_patients,), default=None
        Rows that belong together.
    correlation : float, default=0.8
        Columns of numbers are one group if all pairs of them have at least this absolute Spearman correlation
        (complete linkage, over all patients).
    n_repeats : int, default=5
        Permutations a fold, whose metrics are averaged.
    n_resamples : int, default=500
        Bootstrap resamples of patients; intervals as in :func:`modality_importance`.
    confidence_level : float, default=0.95
    random_state : int, default=0

    Returns
    -------
    pandas.DataFrame
        One row a task and group, the most important first: task, metric, columns (joined by ``", "``), n_columns, value
        (fall of the metric), low, high.

    Raises
    ------
    ValueError
        If ``n_repeats`` or ``correlation`` is out of its range, a fold tests one patient, whose values cannot be
        exchanged with those of others, or the model reads a column that is of no block and no image.

    References
    ----------
    .. [1] Breiman L. Random forests. Machine Learning, 2001.
    .. [2] Au Q, Herbinger J, Stachl C, Bischl B, Casalicchio G. Grouped feature importance and combined features effect
       plot. Data Mining and Knowledge Discovery, 2022.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(150, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> table = feature_importance(ClinicalCox(columns="all"), X.filter(regex="^clinical_|^pet_"), y[["os_time",
    ...     "os_event"]], n_resamples=0, n_repeats=2, cv=3)
    >>> "pet_suvmax, pet_suvmean, pet_suvpeak" in set(table["columns"])
    True
    """
    if n_repeats < 1 or not 0 < correlation <= 1:
        raise ValueError(
            f"n_repeats must be 1 or more, and correlation above 0 and at most 1; got {n_repeats} and {correlation}."
        )
    check_resampling(n_resamples, confidence_level, False, None)
    y, groups = checked(X, y, groups)
    tasks = find_tasks(y)
    chosen = chosen_metrics(tasks, metric)
    together = _correlated(X, list(blocks_of(X, None, model).values()), correlation)
    rng = np.random.default_rng(random_state)
    full: list[dict[str, pd.DataFrame]] = []
    changed: dict[tuple[int, int], list[dict[str, pd.DataFrame]]] = {}
    folds, ratio = pd.Series(-1, index=X.index), 0.0
    for k, fold in enumerate(left_out(model, X, y, groups, cv, random_state)):
        if len(fold.test) < 2:
            raise ValueError(
                f"fold {k + 1} of cv={cv!r} tests {len(fold.test)} patient: columns are permuted among patients of a "
                "fold, of whom there must be two at least; give fewer folds."
            )
        folds.iloc[fold.test] = k
        ratio += len(fold.test) / len(fold.train)
        rows = X.iloc[fold.test]
        full.append(predicted(fold.model, rows, tasks))
        if k == 0:
            refuse_what_else_is_read(fold.model, rows, tasks, [c for own in together for c in own], full[0])
        for repeat in range(n_repeats):
            for i, columns in enumerate(together):
                order = rng.permutation(len(rows))
                permuted = rows.assign(**{c: rows[c].iloc[order].set_axis(rows.index) for c in columns})
                changed.setdefault((i, repeat), []).append(predicted(fold.model, permuted, tasks))
    chosen = {name: own for name, own in chosen.items() if name in full[0]}

    def draws(parts: list[dict[str, pd.DataFrame]]) -> dict[str, np.ndarray]:
        joined = {name: pd.concat([tables[name] for tables in parts]) for name in chosen}
        return metric_draws(joined, y, chosen, folds, n_resamples=n_resamples, random_state=random_state)

    whole, rows_found = draws(full), []
    for i, columns in enumerate(together):
        each = [draws(changed[i, repeat]) for repeat in range(n_repeats)]
        for name, (own, _) in chosen.items():
            fall = whole[name] - np.mean([one[name] for one in each], axis=0)
            rows_found.append((name, own, ", ".join(columns), len(columns), *spread(fall, confidence_level, ratio)))
    table = pd.DataFrame(rows_found, columns="task metric columns n_columns value low high".split())
    place = table["task"].map(list(chosen).index)
    return table.iloc[np.lexsort([-table["value"], place])].reset_index(drop=True)


def _correlated(X: pd.DataFrame, blocks: list[list[str]], least: float) -> list[list[str]]:
    """Groups of columns, in the order of the first of each; an image is one with its masks."""
    masks = {block[0]: block[1:] for block in blocks if cell_kind(block[0]) is not None}
    columns = [column for block in blocks for column in (block[:1] if block[0] in masks else block)]
    numbers = [c for c in columns if pd.api.types.is_numeric_dtype(X[c]) and X[c].nunique() > 1]
    label = {c: f"alone {c}" for c in columns}
    if len(numbers) > 1:
        distance = 1 - X[numbers].astype(float).corr(method="spearman").abs().fillna(0).to_numpy()
        np.fill_diagonal(distance, 0)
        tree = linkage(squareform(np.clip(distance, 0, None), checks=False), method="complete")
        label |= dict(zip(numbers, map(str, fcluster(tree, 1 - least, criterion="distance")), strict=True))
    found: dict[str, list[str]] = {}
    for column in columns:
        found.setdefault(label[column], []).extend([column, *masks.get(column, [])])
    return list(found.values())
