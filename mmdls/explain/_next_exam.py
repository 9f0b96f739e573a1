"""Which missing examination would change a patient's uncertainty most."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls._hints import did_you_mean
from mmdls.cohort import Task
from mmdls.cohort import modalities as find_modalities
from mmdls.evaluation._adapters import inner_model
from mmdls.evaluation._predict import HORIZONS
from mmdls.explain._folds import blocks_of, present

__all__ = ["which_exam_next"]

_GRID = 60


def which_exam_next(
    model: Any,
    x: pd.DataFrame,
    X_reference: pd.DataFrame,
    *,
    modalities: Mapping[str, Any] | None = None,
    horizon: float = max(HORIZONS),
    n_draws: int = 50,
    random_state: Any = 0,
) -> pd.DataFrame:
    """The expected change of a prediction's uncertainty by each examination that a patient lacks.

    The result of an examination is unknown, so it is drawn: the columns of the modality are those of reference patients
    who have it and are like the patient in the numbers that they share. The mean uncertainty of these
    predictions, minus that of the present one, is the expected change; below 0 the examination is expected to help.

    It is a measure of what a model would do with the examination, not of its benefit: a model that is too sure of
    itself shows no change, and a result may rightly make a prediction less certain.

    Parameters
    ----------
    model : fitted estimator
        With ``predict_tasks`` and ``tasks_``, such as :class:`mmdls.MMDLS`; it must accept missing values.
    x : pandas.DataFrame of shape (1, n_columns)
        One patient, with one modality or more missing: its cells are missing, or it has none of its columns.
    X_reference : pandas.DataFrame of shape (n_patients, n_columns)
        Patients from whom examinations are drawn, for example those of the training. The patient's own row, by its
        id, is left out.
    modalities : dict of str to columns, default=None
        Examinations; None means the blocks and image columns of ``X_reference``.
    horizon : float, default=60
        Months up to which survival is uncertain.
    n_draws : int, default=50
        Reference patients at most, the most similar first: the mean squared difference of standardised ranks over
        the columns of numbers that both have.
    random_state : int, default=0
        Decides between equally similar patients.

    Returns
    -------
    pandas.DataFrame
        One row a task and missing modality, the largest fall first within a task: task, exam, measure, now, expected,
        change, se (standard error of the change over the draws), n_draws. Measures: ``"entropy"`` of the classes in
        nats; ``"sd_months"``, the standard deviation of the event-free months up to the horizon (the end of the
        training follow-up, if earlier) by the predicted curve. Other kinds of tasks are left out.

    Raises
    ------
    TypeError
        If the model has no ``predict_tasks``.
    ValueError
        If nothing is missing, no reference patient has a missing modality, a number is out of its range, or x has
        some columns of a modality but not all.

    References
    ----------
    .. [1] Lindley DV. On a measure of the information provided by an experiment. Annals of Mathematical
       Statistics, 1956.
    .. [2] Ma C et al. EDDI: efficient dynamic discovery of high-value information with partial VAE. ICML, 2019.

    Examples
    --------
    >>> from mmdls import MMDLS, Trainer
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X = X.filter(regex="^clinical_|^pet_")
    >>> model = MMDLS(trainer=Trainer(max_epochs=1), random_state=0).fit(X, y[["stage"]])
    >>> which_exam_next(model, X[:1].assign(**X.filter(like="pet_").loc[:, :] * float("nan")), X, n_draws=10)[
    ...     ["task", "exam", "measure", "n_draws"]]
        task exam  measure  n_draws
    0  stage  pet  entropy       10
    """
    if len(x) != 1:
        raise ValueError(f"x must be a table of one patient, as X.loc[['P1']]; it has {len(x)} rows.")
    if n_draws < 1 or not horizon > 0:
        raise ValueError(f"n_draws must be 1 or more, and horizon above 0 months; got {n_draws} and {horizon}.")
    blocks = blocks_of(X_reference, modalities, model)
    _check_columns(x, blocks)
    x = x.reindex(columns=X_reference.columns)
    X_reference = X_reference[~X_reference.index.isin(x.index)]
    final, _ = inner_model(model)
    if not hasattr(final, "predict_tasks"):
        raise TypeError(f"model must have predict_tasks, as MMDLS has; got {type(final).__name__}.")
    absent = [name for name, has in zip(blocks, present(x, blocks)[0], strict=True) if not has]
    if not absent:
        raise ValueError(f"the patient lacks none of the modalities {list(blocks)}; there is no examination to choose.")
    order = _most_similar(x, X_reference, blocks, random_state)
    now = _uncertainty(model, x, final.tasks_, horizon)
    rows = []
    for exam in absent:
        have = present(X_reference, {exam: blocks[exam]})[:, 0]
        donors = [place for place in order if have[place]][:n_draws]
        if not donors:
            raise ValueError(f"no patient of X_reference has the modality {exam!r}, which {x.index[0]!r} lacks.")
        drawn = X_reference.iloc[donors]
        filled = drawn.assign(**{c: _repeated(x[c], drawn.index) for c in drawn if c not in blocks[exam]})
        for task, (measure, values) in _uncertainty(model, filled, final.tasks_, horizon).items():
            change = values - now[task][1][0]
            se = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
            rows.append((task, exam, measure, now[task][1][0], values.mean(), change.mean(), se, len(donors)))
    table = pd.DataFrame(rows, columns="task exam measure now expected change se n_draws".split())
    place = table["task"].map(list(now).index)
    return table.iloc[np.lexsort([table["change"], place])].reset_index(drop=True)


def _check_columns(x: pd.DataFrame, blocks: Mapping[str, list[str]]) -> None:
    """Refuse a patient of whom a modality has lost some of its columns, or who has features that nobody else has."""
    for name, columns in blocks.items():
        lost = [column for column in columns if column not in x]
        if lost and len(lost) < len(columns):
            hint = did_you_mean(lost[0], x.columns)
            raise ValueError(
                f"x lacks the columns {lost[:5]} of {name!r}, of which it has others.{hint} "
                "Fill what is not known with NaN, or leave out all columns of a modality that the patient lacks."
            )
    known = {column for columns in blocks.values() for column in columns}
    for column in (own for columns in find_modalities(x).values() for own in columns):
        if column not in known and (hint := did_you_mean(column, known, cutoff=0.8)):
            raise ValueError(f"x has the column {column!r}, which no modality of X_reference has.{hint}")


def _repeated(cell: pd.Series, index: pd.Index) -> pd.Series:
    """One cell for every patient of an index."""
    return cell.iloc[np.zeros(len(index), dtype=int)].set_axis(index)


def _uncertainty(
    model: Any, X: pd.DataFrame, tasks: Mapping[str, Task], horizon: float
) -> dict[str, tuple[str, np.ndarray]]:
    """By task: what is measured, and of every patient, (n_patients,)."""
    final, X = inner_model(model, X)
    grid = np.linspace(0, horizon, _GRID + 1)[1:]
    found = {}
    for name, table in final.predict_tasks(X, grid).items():
        if tasks[name].has_classes:
            p = table.to_numpy(dtype=np.float64)
            found[name] = "entropy", -np.sum(p * np.log(np.clip(p, 1e-300, None)), axis=1)
        elif tasks[name].estimator_type == "survival":
            curve = table[list(grid)].to_numpy(dtype=np.float64)
            known = ~np.isnan(curve).any(axis=0)
            times = np.r_[0.0, grid[known]]
            curve = np.c_[np.ones(len(curve)), curve[:, known]]
            # E T and E T^2 of the months until the event or the horizon: integrals of S and of 2 t S.
            mean = np.trapezoid(curve, times, axis=1)
            square = np.trapezoid(2 * times * curve, times, axis=1)
            found[name] = "sd_months", np.sqrt(np.clip(square - mean**2, 0, None))
    return found


def _most_similar(x: pd.DataFrame, X: pd.DataFrame, blocks: Mapping[str, list[str]], random_state: Any) -> np.ndarray:
    """Rows of a table: first those like a patient in the ranks of the numbers that both have, else at random."""
    columns = [
        c for names in blocks.values() for c in names if pd.api.types.is_numeric_dtype(X[c]) and x[c].notna().all()
    ]
    ties = np.random.default_rng(random_state).random(len(X))
    if not columns:
        return np.argsort(ties)
    both = pd.concat([x[columns], X[columns]]).astype(float).rank(pct=True)
    distance = ((both.iloc[1:] - both.iloc[0]) ** 2).mean(axis=1).fillna(np.inf).to_numpy()
    return np.lexsort([ties, distance])
