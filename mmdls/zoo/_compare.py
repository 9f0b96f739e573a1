"""Compare models out of fold: the same folds, patients and resamples for all."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mmdls._parallel import workers_may_die
from mmdls.cohort import Task, align_rows, check_cohort, check_features, find_tasks
from mmdls.evaluation import compare_predictions, evaluate_predictions
from mmdls.evaluation._checks import warn_of_late_horizons
from mmdls.evaluation._predict import check_horizons, time_grid
from mmdls.metrics import holm_correction
from mmdls.metrics._comparison import p_text
from mmdls.registry import models as registered
from mmdls.zoo._catalogue import create
from mmdls.zoo._folds import Fit, aligned_groups, fit_fold, for_all_tasks, kinds_of, splits_of, splitter_of
from mmdls.zoo._inputs import lacking_inputs, missing_inputs, unavailable

__all__ = ["Comparison", "compare_models", "folds_of", "groups_of", "of_main_metric"]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_models` found. ``mmdls.report.report(comparison, X, y, path)`` writes it as one HTML file.

    Parameters
    ----------
    predictions : dict of str to dict of str to pandas.DataFrame
        By model and task, for the patients left out; survival columns are months, ``group`` is the risk group.
    scores : pandas.DataFrame
        One row a model and metric, with its interval; a model that cannot answer a task has a row that says why.
    differences : pandas.DataFrame
        Every other model minus the reference model, by the main metric of each task; ``p_holm`` is corrected for all
        rows.
    risk_groups : pandas.DataFrame
        One row a patient, one column ``(model, endpoint)``; cut-points were learned in the training folds.
    folds : Series of shape (n_patients,)
        The fold that each patient was left out in.
    reference : str
        The reference model.
    tasks : dict of str to Task
    fits : pandas.DataFrame
        One row a model and fold: number of training and test rows, seconds, hyperparameters that were chosen.
    messages : pandas.DataFrame
        Warnings of the models, each once: model, folds, message.
    models : dict of str to estimator or registered name
        What was compared.
    cv : str
        How the folds were made.
    random_state : int
        Of the folds and of the resamples.

    Examples
    --------
    >>> from mmdls import compare_models
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> X, y = X.filter(regex="^clinical_|^pet_"), y[["os_time", "os_event"]]
    >>> found = compare_models(["clinical_cox", "coxnet"], X, y, cv=2, n_resamples=10)
    >>> found.reference, list(found.predictions), found.risk_groups.shape
    ('clinical_cox', ['clinical_cox', 'coxnet'], (60, 2))
    """

    predictions: dict[str, dict[str, pd.DataFrame]]
    scores: pd.DataFrame
    differences: pd.DataFrame
    risk_groups: pd.DataFrame
    folds: pd.Series
    reference: str
    tasks: dict[str, Task] = field(repr=False)
    fits: pd.DataFrame = field(repr=False)
    messages: pd.DataFrame = field(repr=False)
    models: dict[str, Any] = field(repr=False)
    cv: str
    random_state: int

    def table(self) -> pd.DataFrame:
        """The main metric of each task, and the difference to the reference model, as text.

        Returns
        -------
        pandas.DataFrame
            Index (task, model); columns metric, value, difference, p.
        """
        shown = self.scores[of_main_metric(self.scores, self.tasks) | (self.scores["metric"] == "")]
        against = self.differences.set_index(["task", "model"])
        rows = []
        for row in shown.to_dict("records"):
            key, new = (row["task"], row["model"]), {"difference": "", "p (Holm)": ""}
            value = row["note"] if row["metric"] == "" else _cell(row["value"], row["low"], row["high"])
            if key in against.index:
                other = against.loc[key]
                new = {"difference": _cell(other["difference"], other["low"], other["high"], "+")}
                new["p (Holm)"] = p_text(other["p_holm"])
            rows.append({"task": row["task"], "model": row["model"], "metric": row["metric"], "value": value, **new})
        columns = ["task", "model", "metric", "value", "difference", "p (Holm)"]
        table = pd.DataFrame(rows, columns=columns)
        order = {name: k for k, name in enumerate(self.tasks)}
        return table.sort_values("task", key=lambda c: c.map(order), kind="stable").set_index(["task", "model"])

    def __str__(self) -> str:
        return (
            f"{self.table().to_string()}\nDifferences are to the reference model, {self.reference}; above 0 is better."
        )


def of_main_metric(table: pd.DataFrame, tasks: Mapping[str, Task]) -> pd.Series:
    """Which rows of a table of metrics hold the main metric of their task, bool."""
    return table["metric"] == table["task"].map({name: task.main_metric for name, task in tasks.items()})


def compare_models(
    models: Mapping[str, Any] | Sequence[str],
    X: pd.DataFrame,
    y: pd.DataFrame,
    *,
    cv: Any = 5,
    reference: str | None = None,
    groups: Any = None,
    horizons: Sequence[float] = (12, 36, 60),
    n_resamples: int = 1000,
    n_jobs: int | None = None,
    verbose: int = 0,
    random_state: int = 0,
) -> Comparison:
    """Predict every patient by models that have not seen them, and compare the models on the same folds.

    Everything that a model learns, hyperparameters and cut-points of risk groups included, is learned in the training
    rows of each fold. Metrics are computed inside folds and averaged, since risks of different folds have no common
    scale.

    Parameters
    ----------
    models : dict of str to estimator or registered name, or sequence of registered names
        By the name that the tables show. An estimator is cloned; one that answers a single task (a classifier, a model
        of scikit-survival, ``ClinicalCox()``) is fitted once for each task of its kind. Put a
        :class:`mmdls.zoo.SelectInputs` in front of an estimator that shall see some inputs only.
    X, y : pandas.DataFrame
        A cohort.
    cv : int, splitter or iterable of (train, test), default=5
        A number makes a :class:`mmdls.model_selection.CohortKFold`, stratified by events and classes;
        ``CohortKFold(5, on=("os", "centre"))`` stratifies by centre too. No row may be left out twice.
    reference : str, default=None
        The model that the others are compared with; None means the first.
    groups : str, Series or array of shape (n_patients,), default=None
        Rows that belong together, or the column of ``X`` that says so: they stay on one side of every split, also in
        the folds of searches inside the models, and the bootstrap draws them together.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    n_resamples : int, default=1000
        Bootstrap resamples of patients, the same for all models. Differences take more where the correction for many
        comparisons needs them.
    n_jobs : int, default=None
        Fits at once, through joblib.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, default=0
        Of the folds and of the resamples.

    Returns
    -------
    Comparison

    Raises
    ------
    KeyError
        If a name is not registered, or ``reference`` is none of the models.
    RuntimeError
        If a model fails; the message says which one, and in which fold.
    ValueError
        If a split leaks, or no model can answer anything.

    Warns
    -----
    UserWarning
        If models gave warnings; they are in ``messages``.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(80, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> y = y[["os_time", "os_event"]]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # of columns that a model does not use
    ...     found = compare_models(["clinical_cox", "coxnet"], X, y, cv=2, n_resamples=50)
    >>> found.differences[["task", "model", "reference", "metric"]]
      task   model     reference             metric
    0   os  coxnet  clinical_cox  concordance_index
    """
    check_features(X)
    y = align_rows(y, X.index, "y")
    check_cohort(X, y)
    groups = groups_of(groups, X)
    given = {name: name for name in models} if not isinstance(models, Mapping) else dict(models)
    if not given:
        raise ValueError("models is empty; give at least one, such as compare_models(['clinical_linear'], X, y).")
    reference = next(iter(given)) if reference is None else reference
    if reference not in given:
        raise KeyError(f"reference={reference!r} is none of the models {list(given)}.")
    tasks, times = find_tasks(y), time_grid(check_horizons(horizons))
    warn_of_late_horizons(horizons, y)
    reasons = {name: _unanswered(model, X, tasks) for name, model in given.items()}
    able = [name for name in given if len(reasons[name]) < len(tasks)]
    if not able:
        raise ValueError(f"no model can answer anything: {reasons}.")
    cv = splitter_of(cv, random_state)
    splits = splits_of(cv, X, y, groups)
    jobs = [
        (name, fold, for_all_tasks(create(model) if isinstance(model, str) else model), split)
        for name, model in given.items()
        if name in able
        for fold, split in enumerate(splits)
    ]
    fits = _fitted(jobs, X, y, times, groups, n_jobs, verbose)
    predictions = {name: _joined([fits[name, k] for k in range(len(splits))], y, tasks) for name in able}
    folds = folds_of(splits, X.index)
    options = {"horizons": horizons, "folds": folds, "clusters": groups, "random_state": random_state}
    messages = _messages(fits)
    if len(messages):
        warnings.warn(
            f"{', '.join(dict.fromkeys(messages['model']))} gave {len(messages)} different warnings while they were "
            "fitted; they are in the attribute messages of the result.",
            stacklevel=2,
        )
    scores = [
        evaluate_predictions(predictions[name], y, n_resamples=n_resamples, **options).assign(model=name)
        for name in able
    ]
    return Comparison(
        predictions=predictions,
        scores=_scores(scores, predictions, given, reasons, tasks),
        differences=_differences(predictions, y, reference, tasks, n_resamples, options),
        risk_groups=_risk_groups(predictions, X.index),
        folds=folds,
        reference=reference,
        tasks=tasks,
        fits=_fits_table(fits, splits),
        messages=messages,
        models=given,
        cv=repr(cv) if hasattr(cv, "split") else f"{len(splits)} splits that were given",
        random_state=random_state,
    )


def groups_of(groups: Any, X: pd.DataFrame) -> pd.Series | None:
    """Groups by patient, given as values or as the name of a column of X; KeyError if there is no such column."""
    if not isinstance(groups, str):
        return aligned_groups(groups, X.index)
    if groups not in X.columns:
        raise KeyError(f"groups names {groups!r}; X has the columns {list(X.columns)[:30]}.")
    return X[groups]


def folds_of(splits: Sequence[tuple], index: pd.Index) -> pd.Series:
    """The fold that each patient was left out in, NaN for those who never were."""
    folds = pd.Series(np.nan, index, dtype=object, name="fold")
    for fold, (_, test) in enumerate(splits):
        folds.iloc[test] = fold
    return folds


def _unanswered(model: Any, X: pd.DataFrame, tasks: Mapping[str, Task]) -> dict[str, str]:
    """By task, why a model cannot answer it, as far as this is known before it is fitted."""
    if isinstance(model, str):
        recipe = registered[model]
        gone, kinds = lacking_inputs(recipe.inputs, X), recipe.tasks
    else:
        gone, kinds = missing_inputs(model, X), kinds_of(model)
    if gone:
        return dict.fromkeys(tasks, f"X has no {' and no '.join(gone)}")
    if why := unavailable(create(model) if isinstance(model, str) else model):
        return dict.fromkeys(tasks, why)
    return {t.name: f"does not answer {t.kind} tasks" for t in tasks.values() if kinds and t.kind not in kinds}


def _fitted(
    jobs: list[tuple], X: pd.DataFrame, y: pd.DataFrame, times: Any, groups: Any, n_jobs: Any, verbose: int
) -> dict[tuple[str, int], Fit]:
    """Every model on every fold."""

    def run(name: str, fold: int, model: Any, split: Any) -> tuple[str, int, Fit]:
        return name, fold, fit_fold(name, fold, model, X, y, split, times=times, groups=groups)

    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    found = {}
    with (
        workers_may_die("The fits that were finished are not kept."),
        tqdm(total=len(jobs), desc="models x folds", unit="fit", file=sys.stderr, disable=not verbose) as bar,
    ):
        for name, fold, fit in parallel(joblib.delayed(run)(*job) for job in jobs):
            found[name, fold] = fit
            bar.set_postfix_str(f"{name}, fold {fold}: {fit.seconds:.0f} s")
            bar.update()
    return found


def _joined(fits: list[Fit], y: pd.DataFrame, tasks: Mapping[str, Task]) -> dict[str, pd.DataFrame]:
    """The predictions of all folds, in the order of the patients."""
    joined = {}
    for name, task in tasks.items():
        parts = [fit.predictions[name] for fit in fits if name in fit.predictions]
        if not parts:
            continue
        # A fold whose training rows lack a class gives it no probability.
        table = pd.concat([task.complete(part, y) for part in parts])
        joined[name] = table.loc[y.index[y.index.isin(table.index)]]
    return joined


def _scores(
    tables: list[pd.DataFrame],
    predictions: Mapping[str, Any],
    given: Mapping[str, Any],
    reasons: Mapping[str, Mapping[str, str]],
    tasks: Mapping[str, Task],
) -> pd.DataFrame:
    """All metrics, and a row for each task that a model does not answer."""
    nothing = []
    for name in given:
        for task in tasks:
            if task not in predictions.get(name, {}):
                why = reasons[name].get(task, f"does not answer {tasks[task].kind} tasks")
                nothing.append({"task": task, "model": name, "metric": "", "note": why})
    empty = pd.DataFrame(nothing, columns=tables[0].columns).astype({"n": float, "n_events": float})
    table = pd.concat([*tables, empty.astype(object)] if nothing else tables, ignore_index=True)
    numbers = ["horizon", "value", "low", "high", "n", "n_events"]
    table[numbers] = table[numbers].astype(float)
    order = {name: k for k, name in enumerate(given)}
    table = table.sort_values("model", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    table.insert(0, "model", table.pop("model"))
    return table


def _differences(
    predictions: Mapping[str, dict[str, pd.DataFrame]],
    y: pd.DataFrame,
    reference: str,
    tasks: Mapping[str, Task],
    n_resamples: int,
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Every other model minus the reference model; one p-value is corrected for all."""
    base = predictions.get(reference, {})
    others = {name: own for name, own in predictions.items() if name != reference and set(own) & set(base)}
    if n_resamples:
        # B resamples give no p-value below 2 / (B + 1), which the correction multiplies by the number of comparisons.
        n_resamples = max(n_resamples, 100 * sum(len(set(own) & set(base)) for own in others.values()))
    rows = []
    for name, own in others.items():
        metrics = sorted({tasks[task].main_metric for task in own if task in base})
        table = compare_predictions(own, base, y, metrics=metrics, n_resamples=n_resamples, **options)
        rows.append(table[of_main_metric(table, tasks)].assign(model=name, reference=reference))
    columns = ["task", "model", "reference", "metric", "horizon", "first", "second", "difference", "low", "high", "p"]
    columns += ["p_holm", "test", "n", "n_events", "note"]
    if not rows:
        return pd.DataFrame(columns=columns)
    found = pd.concat(rows, ignore_index=True)[columns]
    return found.assign(p_holm=holm_correction(found["p"]))


def _risk_groups(predictions: Mapping[str, Mapping[str, pd.DataFrame]], index: pd.Index) -> pd.DataFrame:
    found = {
        (name, task): table["group"].reindex(index)
        for name, own in predictions.items()
        for task, table in own.items()
        if "group" in table
    }
    columns = pd.MultiIndex.from_tuples(list(found), names=["model", "endpoint"]) if found else None
    return pd.DataFrame(found, index=index).set_axis(columns, axis=1) if found else pd.DataFrame(index=index)


def _fits_table(fits: Mapping[tuple[str, int], Fit], splits: Sequence[tuple]) -> pd.DataFrame:
    rows = [
        (name, fold, len(splits[fold][0]), len(splits[fold][1]), round(fit.seconds, 1), fit.chosen)
        for (name, fold), fit in sorted(fits.items(), key=lambda item: item[0])
    ]
    return pd.DataFrame(rows, columns=["model", "fold", "n_train", "n_test", "seconds", "chosen"])


def _messages(fits: Mapping[tuple[str, int], Fit]) -> pd.DataFrame:
    folds: dict[tuple[str, str], list[int]] = {}
    for (name, fold), fit in sorted(fits.items(), key=lambda item: item[0]):
        for message in fit.messages:
            folds.setdefault((name, message), []).append(fold)
    rows = [(name, where, message) for (name, message), where in folds.items()]
    return pd.DataFrame(rows, columns=["model", "folds", "message"])


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    if np.isnan(value):
        return "undefined"
    interval = "" if np.isnan(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value:{sign}.3f}{interval}"
