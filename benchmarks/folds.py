"""One model on one split, in the form in which a run is stored."""

from typing import Any

import pandas as pd

from benchmarks.designs import Split
from benchmarks.models import HORIZONS
from mmdls.cohort import find_tasks
from mmdls.zoo._folds import fit_fold

__all__ = ["left_out"]


def left_out(
    model: Any, name: str, split: Split, X: pd.DataFrame, y: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Fit a model on the training rows of a split, and predict the rows left out.

    Parameters
    ----------
    model : estimator
    name : str
        Of the model, for messages.
    split : Split
    X, y : pandas.DataFrame

    Returns
    -------
    predictions : dict of str to pandas.DataFrame
        Of a class task, probabilities by class; of an endpoint risk, group (0 = low) and survival at the horizons.
    note : dict
        Seconds, hyperparameters that were chosen, warnings.
    """
    fit = fit_fold(name, split.name, model, X, y, (split.train, split.test), horizons=HORIZONS)
    tables = {}
    for task in find_tasks(y).values():
        table = fit.predictions[task.name]
        if task.has_classes:
            table = table.reindex(columns=list(task.classes), fill_value=0.0)
            tables[task.name] = table.set_axis([str(c) for c in task.classes], axis=1)
            continue
        table = table.assign(group=table["group"].cat.codes)[["risk", "group", *map(float, HORIZONS)]]
        tables[task.name] = table.rename(columns={float(h): f"survival_{h}" for h in HORIZONS})
    note = {"seconds": round(fit.seconds, 1), **fit.chosen}
    return tables, note | ({"warnings": " | ".join(fit.messages)} if fit.messages else {})
