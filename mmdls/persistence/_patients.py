"""What a fitted model holds of the patients from whom it learned."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import BSpline

__all__ = ["patients_held"]

_SKIPPED = ("history_", "cv_results_", "combination_", "net_")


def patients_held(model: Any, n_patients: int | None = None) -> list[str]:
    """Places in a model where one row or entry stands for one patient.

    Parameters
    ----------
    model : fitted estimator
    n_patients : int, default=None
        How many it learned from; None means as many as the training outcomes that it keeps.

    Returns
    -------
    list of str
        One sentence a place; empty if there is none. Averages, scales, categories and weights are not told apart from
        patients by their shape, and are not named.
    """
    found: dict[str, Any] = {}
    _collect(model, "model", found, set())
    outcomes = {path: each for path, each in found.items() if ".training_outcomes_[" in path}
    sizes = {len(each) for each in outcomes.values()} | ({n_patients} if n_patients else set())
    said = [
        f"{path}: time and event of {len(each)} training patients, without their ids; needed for censoring weights, "
        "the reference of prediction accuracy and the end of the follow-up"
        for path, each in outcomes.items()
    ]
    for path, each in found.items():
        if path in outcomes:
            continue
        if isinstance(each, pd.DataFrame | pd.Series) and len(each) > 1:
            said.append(f"{path}: a table of {len(each)} rows, with its index, which may hold ids of patients")
        elif isinstance(each, np.ndarray) and each.ndim and len(each) in sizes and len(each) > 1:
            said.append(f"{path}: {len(each)} entries, as many as there were patients")
        elif path.endswith(("unique_times_", "event_times_")) or ".unique_times_[" in path or ".event_times_[" in path:
            said.append(f"{path}: the {len(each)} different times of follow-up at which curves step")
    return said


def _collect(value: Any, path: str, found: dict[str, Any], known: set[int]) -> None:
    if id(value) in known or isinstance(value, str | bytes | int | float | type(None) | type | BSpline):
        return
    known.add(id(value))
    if isinstance(value, np.ndarray | pd.DataFrame | pd.Series):
        found[path] = value
        if isinstance(value, np.ndarray) and value.dtype.kind == "O":
            for i, each in enumerate(value.ravel()):
                _collect(each, f"{path}[{i}]", found, known)
    elif isinstance(value, dict):
        for key, each in value.items():
            _collect(each, f"{path}[{key!r}]", found, known)
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            _collect(each, f"{path}[{i}]", found, known)
    elif hasattr(value, "__dict__"):
        for name, each in vars(value).items():
            if name not in _SKIPPED:
                _collect(each, f"{path}.{name}", found, known)
