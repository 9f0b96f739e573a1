"""``cv_results_`` from the trials of a study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from mmdls.search._space import Space, drawn


def results_table(trials: Sequence[FrozenTrial], space: Space, scores: Sequence[str], n_splits: int) -> dict[str, Any]:
    """One entry per trial: the drawn values, how the trial ended, and every score in every fold."""
    params = [drawn(space, trial) for trial in trials]
    names = sorted({name for one in params for name in one})
    table: dict[str, Any] = {
        "params": np.fromiter(params, dtype=object),
        "state": np.array([t.state.name for t in trials]),
        "error": np.array([t.user_attrs.get("error", "") for t in trials], dtype=object),
        "stopped": np.array([t.user_attrs.get("stopped", "") for t in trials], dtype=object),
        "seconds": np.array([t.user_attrs.get("seconds", np.nan) for t in trials]),
    }
    for name in names:
        table[f"param_{name}"] = np.fromiter((one.get(name) for one in params), dtype=object)
    for name in scores:
        keys = [f"split{k}_test_{name}" for k in range(n_splits)]
        splits = np.array([[t.user_attrs.get(key, np.nan) for key in keys] for t in trials], dtype=float)
        splits = splits.reshape(len(trials), n_splits)
        table |= dict(zip(keys, splits.T, strict=True))
        # An unfinished trial has no mean, since the folds that it has run may be the easier ones.
        table[f"mean_test_{name}"], table[f"std_test_{name}"] = splits.mean(axis=1), splits.std(axis=1)
    return table
