"""What each member of an ensemble learns from, and the linear part beside the members."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmdls.model_selection import CohortKFold
from mmdls.modules import LinearPart, LinearPredictor, MultimodalNet
from mmdls.training._completion import location_and_scale
from mmdls.training._inputs import Inputs
from mmdls.training._linear import fit_linear
from mmdls.training._targets import Targets

__all__ = ["Member", "fit_linear_part", "folds_of"]

_FOLDS = 5  # in which penalties are chosen where members give no folds


@dataclass
class Member:
    """What one member of an ensemble learns from.

    Parameters
    ----------
    inputs : Inputs
    held : Tensor of shape (n_patients,), bool
        Whom it does not learn from, to select the best epoch.
    """

    inputs: Inputs
    held: Tensor


def folds_of(y: pd.DataFrame, rows: np.ndarray, n_folds: int, seed: int) -> list[np.ndarray]:
    """Divide rows into folds, stratified by outcomes; fewer folds than asked for if there are fewer rows."""
    n_folds = min(n_folds, len(rows))
    if n_folds < 2:
        return []
    learned = y.iloc[rows]
    folds = CohortKFold(n_folds, groups=False, random_state=seed).split(learned, learned)
    return [rows[held] for _, held in folds]


def fit_linear_part(
    inputs: Inputs,
    targets: Targets,
    network: MultimodalNet,
    y: pd.DataFrame,
    rows: np.ndarray,
    held: Sequence[np.ndarray],
    seed: int,
) -> tuple[LinearPart, dict[str, Tensor]]:
    """Fit the linear part of every member on the rows that it does not hold out.

    Parameters
    ----------
    network : MultimodalNet
        Its heads have the losses; their parameters without any feature are the first intercepts.
    rows : ndarray of int
    held : sequence of ndarray of int
        Of each member.

    Returns
    -------
    linear : LinearPart
        That of a single member is fitted on all rows in the end.
    held_out : dict of str to Tensor of shape (n_patients, P)
        By task, the parameters of held-out rows by the fits without them; NaN elsewhere.
    """
    tables, here = inputs.linear_tables()
    center, scale = {}, {}
    for name, table in tables.items():
        seen = table[torch.as_tensor(rows)][here[name][torch.as_tensor(rows)]].double().numpy()
        center[name], scale[name] = map(torch.as_tensor, location_and_scale(seen))
    part = LinearPart(center, scale, {})
    columns = part.columns(tables, here).numpy()
    sizes = np.cumsum([table.shape[1] for table in tables.values()])[:-1]
    folds = list(held) if len(held) > 2 and all(map(len, held)) else folds_of(y, rows, _FOLDS, seed)
    left_out = [*held, np.empty(0, dtype=int)] if len(held) == 1 else held
    held_out: dict[str, Tensor] = {}
    for name, task in targets.tasks.items():
        known = targets.learnable_rows(name, rows)
        head = network.head(name)
        if hasattr(head, "views"):
            continue  # a linear part of its own would part an endpoint from the other
        with torch.no_grad():
            intercept = head(torch.zeros(1, network.width(name)))[0].double().numpy()
        learned = targets.take(torch.as_tensor(known), torch.device("cpu"))
        outcome = learned.outcomes[name]
        fit = fit_linear(
            np.split(columns[known], sizes, axis=1) if tables else [],
            head,
            learned.fields[name],
            [np.flatnonzero(np.isin(known, fold)) for fold in folds],
            [np.flatnonzero(np.isin(known, fold)) for fold in left_out],
            intercept,
            sample_weight=learned.sample_weight,
            n_informative=max(task.is_event(outcome).sum() if task.is_censored else len(known), 1),
        )
        held_out[name] = torch.full((len(y), len(intercept)), torch.nan, dtype=torch.float64)
        for own, coefficients, constant in zip(held, fit.coefficients, fit.intercept, strict=False):
            held_out[name][torch.as_tensor(own)] = torch.as_tensor(columns[own] @ coefficients + constant)
        final = slice(-len(held), None)
        part.predictors[name] = LinearPredictor(
            torch.as_tensor(fit.coefficients[final]), torch.as_tensor(fit.intercept[final])
        )
    return part, held_out
