"""What importances have in common: modalities of a table, models that left patients out, and metrics of resamples."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from mmdls.cohort import Task, cell_kind, modalities, require_patients
from mmdls.evaluation import resample_predictions
from mmdls.evaluation._predict import HORIZONS, answers, time_grid
from mmdls.metrics import percentile_interval
from mmdls.training._tables import outcome_table, rows_with_values
from mmdls.zoo._folds import aligned_groups, for_all_tasks, splits_of, splitter_of
from mmdls.zoo._per_task import fit_with_groups, last_step

__all__ = [
    "Fold",
    "blocks_of",
    "checked",
    "chosen_metrics",
    "left_out",
    "masked",
    "metric_draws",
    "present",
    "refuse_what_else_is_read",
    "spread",
]


class Fold(NamedTuple):
    """A model, its training rows, and the rows that it has not seen."""

    model: Any
    train: np.ndarray
    test: np.ndarray


def checked(X: pd.DataFrame, y: Any, groups: Any) -> tuple[pd.DataFrame, pd.Series | None]:
    """Outcomes and groups in the order of X."""
    require_patients(X)
    return outcome_table(y, X.index), aligned_groups(groups, X.index)


def blocks_of(
    X: pd.DataFrame, named: Mapping[str, Any] | None, model: Any, most: int | None = None
) -> dict[str, list[str]]:
    """The columns of each modality: those that are named, or those of X, with masks that the model reads."""
    if named is None:
        blocks = _with_masks(modalities(X), model)
        if not blocks:
            raise ValueError(
                f"X has no columns of a block or image, '<block>_<name>' and '<name>_image'; they are "
                f"{list(X.columns)[:20]}. Rename them, as with X.add_prefix('clinical_')."
            )
    else:
        blocks = {name: [columns] if isinstance(columns, str) else list(columns) for name, columns in named.items()}
    lost = [column for columns in blocks.values() for column in columns if column not in X]
    if not blocks or lost:
        raise ValueError(f"modalities must name columns of X; {lost or 'none'} of {list(X.columns)[:20]}.")
    if "all" in blocks:
        raise ValueError(
            "a modality is called 'all', as the rows of all modalities are; rename it in modalities={...}."
        )
    if most is not None and len(blocks) > most:
        raise ValueError(
            f"{len(blocks)} modalities have {2 ** len(blocks)} subsets, which is too many; join some with "
            f"modalities={{'tables': [...], ...}}, {most} at most: {list(blocks)}."
        )
    return blocks


def _with_masks(blocks: dict[str, list[str]], model: Any) -> dict[str, list[str]]:
    """Modalities of a table with the masks that a single one of the model's own has."""
    named = getattr(last_step(model), "modalities", None)
    own = (
        [[columns] if isinstance(columns, str) else columns for columns in named.values()]
        if isinstance(named, Mapping)
        else []
    )
    masks = Counter(column for columns in own for column in columns if cell_kind(column) == "masks")
    return {
        name: [*block, *(c for columns in own if {*block} & {*columns} for c in columns if masks[c] == 1)]
        for name, block in blocks.items()
    }


def refuse_what_else_is_read(
    model: Any, X: pd.DataFrame, tasks: Mapping[str, Task], columns: Collection[str], full: Mapping[str, pd.DataFrame]
) -> None:
    """Refuse columns that a fitted model reads and that are not among those whose part is asked for.

    Their part would be counted for others, or for nobody. A model reads them if it predicts something else when their
    cells are exchanged between patients.

    Raises
    ------
    ValueError
    """
    others = [column for column in X if column not in columns]
    moved = X.copy(deep=False)
    for column in others:
        moved[column] = X[column].iloc[::-1].set_axis(X.index)
    if others and any(not table.equals(full[name]) for name, table in predicted(model, moved, tasks).items()):
        raise ValueError(
            f"the model reads {others[:10]}, or some of them, which are columns of no block and no image. Rename them "
            "as '<block>_<name>', name them in modalities={...} where that can be given, or leave out of X what the "
            "model shall not read. A mask belongs to the one image beside which the model's own modalities name it."
        )


def present(X: pd.DataFrame, blocks: Mapping[str, list[str]]) -> np.ndarray:
    """Who has a value of which modality, (n_patients, n_modalities), bool."""
    return np.column_stack([rows_with_values(X[columns]) for columns in blocks.values()])


def masked(X: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The table with every cell of some columns missing."""
    return X.assign(**{column: X[column].where(np.zeros(len(X), dtype=bool)) for column in columns})


def left_out(model: Any, X: pd.DataFrame, y: pd.DataFrame, groups: Any, cv: Any, random_state: Any) -> Iterator[Fold]:
    """One model a fold, fitted without the patients whom it is asked about."""
    model = for_all_tasks(model)
    for train, test in splits_of(splitter_of(cv, random_state), X, y, groups):
        own = None if groups is None else groups.iloc[train]
        yield Fold(fit_with_groups(clone(model), X.iloc[train], y.iloc[train], own), train, test)


def predicted(model: Any, X: pd.DataFrame, tasks: Mapping[str, Task]) -> dict[str, pd.DataFrame]:
    """What a model predicts, with all classes of the tasks."""
    tables = answers(model, X, tasks, time_grid(HORIZONS)).tables
    return {name: tasks[name].complete(table, table) for name, table in tables.items()}


def chosen_metrics(tasks: Mapping[str, Task], metric: str | Mapping[str, str] | None) -> dict[str, tuple[str, int]]:
    """The metric of each task, and 1 if higher is better, else -1."""
    found = {}
    if isinstance(metric, Mapping) and (unknown := [name for name in metric if name not in tasks]):
        raise ValueError(f"metric names {unknown}, which are no tasks of y: {list(tasks)}.")
    for name, task in tasks.items():
        own = metric.get(name) if isinstance(metric, Mapping) else metric
        own = own or task.main_metric
        if own not in task.scores:
            if isinstance(metric, str):
                continue  # the metric of another kind of task
            raise ValueError(f"metric of {name!r} must be one of {list(task.scores)}; got {own!r}.")
        found[name] = own, task.scores[own][0]
    if not found:
        offered = {name: list(task.scores) for name, task in tasks.items()}
        raise ValueError(f"metric={metric!r} is none of those by task: {offered}.")
    return found


def metric_draws(
    predictions: Mapping[str, pd.DataFrame],
    y: pd.DataFrame,
    chosen: Mapping[str, tuple[str, int]],
    folds: pd.Series,
    **options: Any,
) -> dict[str, np.ndarray]:
    """By task the metric, of all patients first, then of each resample of patients; higher is better."""
    found = {}
    for name, (metric, sign) in chosen.items():
        draws = resample_predictions(
            {name: predictions[name]}, y, metrics=[metric], horizons=HORIZONS, folds=folds, **options
        )
        found[name] = sign * draws.to_numpy().mean(axis=0)
    return found


def spread(draws: np.ndarray, confidence_level: float, ratio: float) -> tuple[float, float, float]:
    """Value and interval of what stands for all patients first, then for resamples.

    Resamples tell how the value varies with the patients who are asked. The models were fitted on patients too, of whom
    most are the same in every fold, so that the variance between trainings cannot be seen. It is taken to be as large
    as between test sets of that size: the interval is wider than that of the resamples by the square root of 1 plus
    ``ratio``, the sum over folds of test rows a training row.

    References
    ----------
    .. [1] Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning, 2003.
    """
    if len(draws) < 2:
        return float(draws[0]), np.nan, np.nan
    low, high = percentile_interval(draws[0] + np.sqrt(1 + ratio) * (draws[1:] - draws[0]), confidence_level)
    return float(draws[0]), float(low), float(high)
