"""Shapley values of modalities: what each adds to the metric of a model, and to the answer for each patient."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from mmdls.cohort import find_tasks
from mmdls.cohort import modalities as modalities_of
from mmdls.evaluation._checks import check_resampling
from mmdls.explain._folds import (
    Fold,
    blocks_of,
    checked,
    chosen_metrics,
    left_out,
    masked,
    metric_draws,
    predicted,
    present,
    refuse_what_else_is_read,
    spread,
)
from mmdls.zoo._folds import for_all_tasks
from mmdls.zoo._per_task import fit_with_groups

__all__ = ["ModalityImportance", "modality_importance"]

_MOST = 10  # modalities: 1,024 subsets


@dataclass(frozen=True)
class ModalityImportance:
    """What :func:`modality_importance` found.

    Parameters
    ----------
    cohort : pandas.DataFrame
        One row a task and modality: task, metric, modality, value, low, high, n (patients who have the modality).
        Values of a task sum to its row ``"all"``, the metric of the full model minus that of no modality.
    patients : dict of str to pandas.DataFrame of shape (n_patients, n_outputs * n_modalities)
        By task, what each modality adds to each patient's prediction, columns (output, modality): outputs are
        ``"risk"``, the probability of each class, or the value. They sum to the prediction minus that of no modality; a
        modality that the patient lacks adds 0.
    subsets : pandas.DataFrame
        The metric of each task (column) for each subset of modalities (index, joined by ``" + "``; ``""`` is none).

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> from mmdls.explain import modality_importance
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X, y = X.filter(regex="^clinical_|^pet_"), y[["os_time", "os_event"]]
    >>> found = modality_importance(ClinicalCox(columns="all"), X, y, n_resamples=0, refit=True, cv=2)
    >>> found.patients["os"].columns.tolist(), found.subsets.index.tolist()
    ([('risk', 'clinical'), ('risk', 'pet')], ['', 'clinical', 'pet', 'clinical + pet'])
    """

    cohort: pd.DataFrame
    patients: dict[str, pd.DataFrame]
    subsets: pd.DataFrame


def modality_importance(
    model: Any,
    X: pd.DataFrame,
    y: Any,
    *,
    metric: str | Mapping[str, str] | None = None,
    cv: Any = 5,
    groups: Any = None,
    modalities: Mapping[str, Any] | None = None,
    refit: bool = False,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    random_state: Any = 0,
) -> ModalityImportance:
    """Exact Shapley values of modalities, over all subsets of those that a patient has, by models that left him out.

    The value of a subset is the metric of out-of-fold predictions that see this subset only. A modality's Shapley
    value is its mean gain over all orders in which modalities may be added [1]_; no order is preferred, and
    two modalities that say the same share what they say. The empty subset is an answer without any data: the average
    prediction of the patients left out of the fold, which also stands for a patient who has nothing of a subset.

    Parameters
    ----------
    model : estimator
        Unfitted; one that :func:`mmdls.evaluation.predict_tasks` reads. It must accept missing values, unless
        ``refit``.
    X : pandas.DataFrame of shape (n_patients, n_columns)
    y : pandas.DataFrame, labels or structured array
    metric : str or dict of str to str, default=None
        A metric that is a scorer (``task.scores``), for all tasks that have it, or by task; None means the main metric
        of each task. Gains of losses are their fall.
    cv : int, splitter or iterable of (train, test), default=5
    groups : Series or array of shape (n_patients,), default=None
        Rows that belong together, such as two scans of a patient.
    modalities : dict of str to columns, default=None
        None means the blocks and image columns of X. At most ten; each column of a block or image stands in one.
    refit : bool, default=False
        False fits one model a fold, and sets the columns of the other modalities to missing at prediction: what this
        model makes of them. True fits a model for every subset on its columns alone: what the modalities could tell.
    n_resamples : int, default=500
        Bootstrap resamples of patients, the same for all subsets. Intervals are made wider than those of the
        resamples, for the chance of training [3]_; 0 leaves them out.
    confidence_level : float, default=0.95
    random_state : int, default=0
        Of folds and resamples.

    Returns
    -------
    ModalityImportance

    Raises
    ------
    ValueError
        If ``modalities`` leave out a column of a block or an image, or hold one twice, or the model reads a column that
        is in none.

    References
    ----------
    .. [1] Shapley LS. A value for n-person games. Contributions to the Theory of Games, 1953.
    .. [2] Covert I, Lundberg S, Lee SI. Understanding global feature contributions with additive importance measures.
       NeurIPS, 2020.
    .. [3] Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning, 2003.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(150, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> found = modality_importance(ClinicalCox(columns="all"), X.filter(regex="^clinical_|^pet_"), y[["os_time",
    ...     "os_event"]], n_resamples=0, refit=True, cv=3)
    >>> found.cohort["modality"].tolist()
    ['clinical', 'pet', 'all']
    """
    check_resampling(n_resamples, confidence_level, False, None)
    y, groups = checked(X, y, groups)
    blocks = blocks_of(X, modalities, model, _MOST)
    _refuse_shared_or_left_over(X, blocks)
    names, tasks = list(blocks), find_tasks(y)
    chosen = chosen_metrics(tasks, metric)
    here = present(X, blocks)
    subsets = [subset for size in range(len(names) + 1) for subset in combinations(range(len(names)), size)]
    parts: dict[tuple[int, ...], list[dict[str, pd.DataFrame]]] = {subset: [] for subset in subsets}
    folds, ratio = pd.Series(-1, index=X.index), 0.0
    for k, fold in enumerate(left_out(model, X, y, groups, cv, random_state)):
        folds.iloc[fold.test] = k
        ratio += len(fold.test) / len(fold.train)
        if k == 0:
            rows = X.iloc[fold.test]
            columns = {column for own in blocks.values() for column in own}
            refuse_what_else_is_read(fold.model, rows, tasks, columns, predicted(fold.model, rows, tasks))
        for subset, tables in _by_subset(fold, model, X, y, groups, blocks, here, tasks, refit).items():
            parts[subset].append(tables)
    chosen = {name: own for name, own in chosen.items() if name in parts[()][0]}
    outputs = {
        subset: {name: pd.concat([tables[name] for tables in found]) for name in chosen}
        for subset, found in parts.items()
    }
    options = {"n_resamples": n_resamples, "random_state": random_state}
    draws = {subset: metric_draws(tables, y, chosen, folds, **options) for subset, tables in outputs.items()}

    rows, patients = [], {}
    for name, (own, _) in chosen.items():
        values = _shapley({subset: found[name] for subset, found in draws.items()}, len(names))
        whole = draws[subsets[-1]][name] - draws[()][name]
        counted = here[tasks[name].known(tasks[name].outcome(y)) & (folds >= 0).to_numpy()]
        for i, label in enumerate([*names, "all"]):
            n = len(counted) if label == "all" else int(counted[:, i].sum())
            shown = whole if label == "all" else values[i]
            rows.append((name, own, label, *spread(shown, confidence_level, ratio), n))
        patients[name] = _of_patients({subset: tables[name] for subset, tables in outputs.items()}, names)
    cohort = pd.DataFrame(rows, columns=["task", "metric", "modality", "value", "low", "high", "n"])
    signs = {name: sign for name, (_, sign) in chosen.items()}
    table = pd.DataFrame(
        {name: [signs[name] * draws[subset][name][0] for subset in subsets] for name in chosen},
        index=pd.Index([" + ".join(names[i] for i in subset) for subset in subsets], name="modalities"),
    )
    return ModalityImportance(cohort, patients, table)


def _refuse_shared_or_left_over(X: pd.DataFrame, blocks: Mapping[str, list[str]]) -> None:
    """A column that no subset hides would be counted for another modality; one of two modalities for neither."""
    given = Counter(column for columns in blocks.values() for column in columns)
    left_over = [column for columns in modalities_of(X).values() for column in columns if column not in given]
    if left_over:
        raise ValueError(
            f"modalities must hold every column of the blocks and images of X; they lack {left_over[:10]}. Add a "
            "modality for these columns, or drop them from X."
        )
    shared = sorted(column for column, places in given.items() if places > 1)
    if shared:
        raise ValueError(f"modalities must not share columns; {shared[:10]} stand in more than one place.")


def _by_subset(
    fold: Fold,
    model: Any,
    X: pd.DataFrame,
    y: pd.DataFrame,
    groups: Any,
    blocks: dict[str, list[str]],
    here: np.ndarray,
    tasks: Any,
    refit: bool,
) -> dict[tuple[int, ...], dict[str, pd.DataFrame]]:
    """Predictions for the patients left out of a fold, by subset of modalities."""
    names, rows = list(blocks), X.iloc[fold.test]
    full = predicted(fold.model, rows, tasks)
    # Every patient of the fold gets it, so it tells nobody apart.
    average = {name: table.mean() for name, table in full.items()}
    found = {}
    for size in range(len(names) + 1):
        for subset in combinations(range(len(names)), size):
            seen = here[fold.test][:, list(subset)].any(axis=1)
            tables = {
                name: pd.DataFrame(np.tile(average[name], (len(rows), 1)), rows.index, full[name].columns)
                for name in full
            }
            if seen.any():
                hidden = [c for i, name in enumerate(names) if i not in subset for c in blocks[name]]
                if not hidden:
                    told = {name: table[seen] for name, table in full.items()}
                elif refit:
                    train = X.iloc[fold.train].drop(columns=hidden)
                    own = None if groups is None else groups.iloc[fold.train]
                    fitted = fit_with_groups(clone(for_all_tasks(model)), train, y.iloc[fold.train], own)
                    told = predicted(fitted, rows[seen].drop(columns=hidden), tasks)
                else:
                    told = predicted(fold.model, masked(rows[seen], hidden), tasks)
                for name in tables:
                    tables[name].iloc[seen] = told[name].to_numpy()
            found[subset] = tables
    return found


def _shapley(values: Mapping[tuple[int, ...], Any], n: int) -> list[Any]:
    """The Shapley value of each of n players, from the values (arrays of one shape) of all subsets."""
    found = []
    for player in range(n):
        total = np.zeros_like(np.asarray(values[()], dtype=np.float64))
        for subset in values:
            if player not in subset:
                weight = factorial(len(subset)) * factorial(n - len(subset) - 1) / factorial(n)
                total = total + weight * (values[tuple(sorted((*subset, player)))] - values[subset])
        found.append(total)
    return found


def _of_patients(tables: Mapping[tuple[int, ...], pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """What each modality adds to each prediction of each patient; columns (output, modality)."""
    columns = [column for column in tables[()].columns if not isinstance(column, float)]  # without survival at times
    parts = _shapley(
        {subset: table[columns].to_numpy(dtype=np.float64) for subset, table in tables.items()}, len(names)
    )
    both = pd.MultiIndex.from_product([columns, names], names=["output", "modality"])
    stacked = np.stack(parts, axis=2).reshape(len(tables[()]), -1)
    return pd.DataFrame(stacked, tables[()].index, both)
