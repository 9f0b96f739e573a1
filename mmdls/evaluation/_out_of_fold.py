"""Predictions of patients by models that were fitted without them, with the folds in which they were made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

__all__ = ["OutOfFold", "own_folds"]


@dataclass(frozen=True)
class OutOfFold(Mapping):
    """Predictions by task, as :func:`mmdls.evaluation.evaluate_predictions` reads them, that know their folds.

    Evaluation, comparison and report take folds and groups from them, so that metrics are computed within folds and
    groups are drawn whole.

    Parameters
    ----------
    predictions : dict of str to pandas.DataFrame
        By task, one row a patient; an endpoint has a column ``group``, the risk group by cut-points of the training
        folds.
    folds : Series of shape (n_patients,)
        The fold in which each patient was left out.
    groups : Series of shape (n_patients,) or None
        What belongs together and was left out together.
    model : estimator
        What was fitted in each fold, unfitted.
    fits : pandas.DataFrame
        One row a fold: number of training and test rows, seconds, hyperparameters that were chosen.
    messages : pandas.DataFrame
        Warnings of the fits, each once.
    cv : str
        How the folds were made.
    random_state : int
        Of the folds.

    Examples
    --------
    >>> from mmdls import ClinicalCox, cross_predict
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> predictions = cross_predict(ClinicalCox(endpoint="os"), X, y, cv=2)
    >>> list(predictions), predictions["os"].shape[0], predictions.folds.nunique(), list(predictions.risk_groups)
    (['os'], 80, 2, ['os'])
    """

    predictions: dict[str, pd.DataFrame] = field(repr=False)
    folds: pd.Series = field(repr=False)
    groups: pd.Series | None = field(repr=False)
    model: Any
    fits: pd.DataFrame = field(repr=False)
    messages: pd.DataFrame = field(repr=False)
    cv: str
    random_state: int

    def __getitem__(self, task: str) -> pd.DataFrame:
        return self.predictions[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def risk_groups(self) -> pd.DataFrame:
        """The risk group of each patient, one column an endpoint."""
        found = {task: table["group"] for task, table in self.predictions.items() if "group" in table}
        return pd.DataFrame(found, index=self.folds.index)


def own_folds(predictions: Sequence[Any], folds: Any, clusters: Any = None) -> tuple[Any, Any]:
    """Folds and clusters: those that are given, else those that the predictions know.

    Parameters
    ----------
    predictions : sequence
        :class:`OutOfFold`, or anything that knows no folds.
    folds, clusters : Series, array or None

    Returns
    -------
    folds, clusters : Series, array or None

    Raises
    ------
    ValueError
        If they were made in different folds, and none are given.
    """
    own = [each for each in predictions if isinstance(each, OutOfFold)]
    if clusters is None:
        clusters = next((each.groups for each in own if each.groups is not None), None)
    if folds is not None or not own:
        return folds, clusters
    first, *others = [each.folds.dropna() for each in own]
    for other in others:
        shared = first.index.intersection(other.index)
        if not first.loc[shared].astype(str).equals(other.loc[shared].astype(str)):
            raise ValueError(
                "the predictions were made in different folds, so that they are of models that learned from different "
                "patients; make them with the same cv and random_state."
            )
    return pd.concat([first, *others]).loc[lambda found: ~found.index.duplicated()], clusters
