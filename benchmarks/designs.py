"""Who is trained on and who is left out: folds of patients, whole centres, or a fixed external cohort."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut

from mmdls.cohort import find_tasks
from mmdls.model_selection import CohortKFold

__all__ = ["Split", "centres_left_out", "external_patients", "folds_of_patients"]


@dataclass(frozen=True)
class Split:
    """One division of the patients: what is trained on, and who is left out."""

    name: str
    repeat: int
    train: np.ndarray
    test: np.ndarray


def folds_of_patients(X: pd.DataFrame, y: pd.DataFrame, n_folds: int, n_repeats: int, seed: int) -> Iterator[Split]:
    """Repeated folds, stratified by events, stage, subtype and other outcomes as far as numbers allow.

    Not by centre: strata of outcomes *and* something that can be known of a patient repeat in every fold what the two
    have in common by chance. Whoever knows it then predicts better than chance where there is nothing to predict.
    """
    tasks, first = list(find_tasks(y)), ("os", "stage", "dfs", "subtype")
    on = [*(name for name in first if name in tasks), *(name for name in tasks if name not in first)] or None
    for repeat in range(n_repeats):
        splitter = CohortKFold(n_folds, on=on, random_state=seed + repeat)
        for fold, (train, test) in enumerate(splitter.split(X, y)):
            yield Split(f"{repeat}.{fold}", repeat, train, test)


def centres_left_out(centres: pd.Series) -> Iterator[Split]:
    """Each centre is left out once."""
    for train, test in LeaveOneGroupOut().split(centres, groups=centres):
        yield Split(f"without-{centres.iloc[test[0]]}", 0, train, test)


def external_patients(is_external: pd.Series) -> list[Split]:
    """One fixed cohort is never trained on."""
    outside = is_external.to_numpy(dtype=bool)
    return [Split("external", 0, np.flatnonzero(~outside), np.flatnonzero(outside))]
