"""One model on one split, in the form in which a run is stored."""

from typing import Any

import numpy as np
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
        As :func:`mmdls.evaluation.predict_tasks` gives them, with names of text: survival at a month is
        ``survival_<months>``. Groups are numbers, 0 = low.
    note : dict
        Seconds, hyperparameters that were chosen, warnings.
    """
    fit = fit_fold(name, split.name, model, X, y, (split.train, split.test), times=np.array(HORIZONS, dtype=float))
    tables = {}
    for task in find_tasks(y).values():
        table = task.complete(fit.predictions[task.name], y)
        if not task.has_classes:
            table = table.rename(columns=lambda c: f"survival_{c:g}" if isinstance(c, float) else c)
            if "group" in table:
                table["group"] = table["group"].cat.codes
        tables[task.name] = table.rename(columns=str)
    note = {"seconds": round(fit.seconds, 1), **fit.chosen}
    return tables, note | ({"warnings": " | ".join(fit.messages)} if fit.messages else {})
