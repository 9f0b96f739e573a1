"""Tables of :mod:`benchmarks.small_cohorts`, from the out-of-fold predictions that it keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import find_tasks
from mmdls.evaluation import evaluate_predictions
from mmdls.evaluation._repeats import _corrected, _scores
from mmdls.tasks import Settings
from mmdls.zoo._compare import of_main_metric

__all__ = ["LOSSES", "markdown", "show", "tabulate"]

LOSSES = ("integrated_brier_score", "brier_score")
_SLOPES = ["calibration_slope", "slope_low", "slope_high"]
_BEST, _CHOSEN, _MEAN = "best simple", "chosen simple", "mean simple"


def tabulate(
    found: Sequence[Mapping[str, Any]], outcomes: Mapping[str, pd.DataFrame], defaults: Sequence[str], floor: str
) -> dict[str, pd.DataFrame]:
    """All numbers, in long tables.

    Parameters
    ----------
    found : sequence of dict
        What is kept of each unit.
    outcomes : dict of str to pandas.DataFrame
        By cohort.
    defaults : sequence of str
        Labels of the models that are judged; the first is what further ones are compared with.
    floor : str
        Label of the model without features, whose error is the reference of the index of prediction accuracy (IPA).

    Returns
    -------
    dict of str to pandas.DataFrame
        ``scores``: one row a fold, with the main metric and the error (integrated or plain Brier score). ``metrics``:
        means over folds, IPA, calibration slope (of an endpoint at the median time of its events; of the pooled
        predictions of a repeat, since a fold has too few events; those of the defaults with an interval over 200
        resamples of patients, mean over repeats), seconds of a fit on one processor. ``differences``: with intervals by
        the variance of Nadeau and Bengio. ``seeds``: SD over ``random_state`` in the first fold.
    """
    whole = [each for each in found if not each["seed"]]
    scores = pd.concat([_fold_scores(each, outcomes[each["cohort"]]) for each in whole], ignore_index=True)
    key = ["cohort", "task", "model"]
    metrics = scores.groupby(key, sort=False).agg(
        metric=("metric", "first"), value=("score", "mean"), loss=("loss", "mean")
    )
    metrics = metrics.reset_index()
    reference = metrics[metrics["model"] == floor].set_index(key[:2])["loss"]
    metrics["ipa"] = 1 - metrics["loss"] / reference.reindex(pd.MultiIndex.from_frame(metrics[key[:2]])).to_numpy()
    slopes = pd.concat([_slopes(each, outcomes[each["cohort"]], each["label"] in defaults) for each in whole])
    metrics = metrics.merge(slopes.groupby(key, as_index=False)[_SLOPES].mean(), how="left", on=key)
    # The floor differs between folds only, against their outcomes: that is no slope.
    metrics[_SLOPES] = metrics[_SLOPES].where(metrics["model"] != floor)
    seconds = pd.DataFrame(
        [(e["cohort"], e["label"], s) for e in whole for s in e["seconds"]], columns=["cohort", "model", "seconds"]
    )
    metrics = metrics.merge(seconds.groupby(["cohort", "model"], as_index=False).mean(), how="left")
    return {
        "scores": scores,
        "metrics": metrics,
        "differences": _differences(scores[scores["model"] != floor], defaults),
        "seeds": _seeds([each for each in found if each["label"] in defaults and each["repeat"] == 0], outcomes),
    }


def _fold_scores(kept: Mapping[str, Any], y: pd.DataFrame) -> pd.DataFrame:
    """One row a task and fold."""
    tasks, options = find_tasks(y), {"reference": None, "censoring": None}
    scores = _scores(kept["predictions"], kept["folds"], y, Settings(), options)
    loss = scores[scores["metric"].isin(LOSSES)].set_index(["task", "fold"])["score"].rename("loss")
    scores = scores[of_main_metric(scores, tasks)]
    scores = scores.drop(columns="horizon").join(loss, on=["task", "fold"])
    return scores.assign(cohort=kept["cohort"], model=kept["label"], repeat=kept["repeat"])


def _slopes(kept: Mapping[str, Any], y: pd.DataFrame, interval: bool) -> pd.DataFrame:
    """The calibration slope of each task of one repeat, of all folds together."""
    rows = []
    for name, table in kept["predictions"].items():
        horizons = [time for task, time in kept["horizons"].items() if task == name]
        found = evaluate_predictions(
            {name: table}, y, horizons=horizons, n_resamples=200 if interval else 0, random_state=0
        )
        slope = found.loc[found["metric"] == "calibration_slope", ["value", "low", "high"]].mean()
        rows.append((kept["cohort"], name, kept["label"], *slope))
    return pd.DataFrame(rows, columns=["cohort", "task", "model", *_SLOPES])


def _differences(scores: pd.DataFrame, defaults: Sequence[str]) -> pd.DataFrame:
    """Each default minus each simple model, their best, chosen and mean one; each further default minus the first.

    The best one is that of the scores that are compared. The chosen one of a fold is the best in all other folds of the
    repeat: what somebody gets who compares the simple models and takes the best.
    """
    rows = []
    for (cohort, task), own in scores.groupby(["cohort", "task"], sort=False):
        ratio = own.groupby(["repeat", "fold"])["ratio"].first()
        wide = own.pivot(index=["repeat", "fold"], columns="model", values="score")
        simple = wide.drop(columns=list(defaults), errors="ignore")
        others = [(name, name, simple[name]) for name in simple]
        if len(others):
            best = simple.mean().idxmax()
            others += [(_BEST, best, simple[best]), (_CHOSEN, "", _chosen(simple))]
            others += [(_MEAN, "", simple.mean(axis=1, skipna=False))]
        present = [name for name in defaults if name in wide]
        for name in present:
            first = [(present[0], present[0], wide[present[0]])] if name != present[0] else []
            for against, which, other in others + first:
                difference = (wide[name] - other).dropna()
                value, low, high, _ = _corrected(difference, ratio[difference.index], 0.95)
                mark = "LOSS" if high < 0 else "win" if low > 0 else ""
                rows.append((cohort, task, name, against, which, value, low, high, mark, len(difference)))
    columns = ["cohort", "task", "model", "against", "which", "difference", "low", "high", "mark", "n_scores"]
    return pd.DataFrame(rows, columns=columns)


def _chosen(simple: pd.DataFrame) -> pd.Series:
    """The score in each fold of the model that is the best in the other folds of the repeat; NaN with one fold."""
    of_repeat = simple.groupby(level="repeat")
    others = (of_repeat.transform("sum") - simple).div(of_repeat.transform("size") - 1, axis=0)
    best = others.fillna(-np.inf).to_numpy().argmax(axis=1)
    scores = simple.to_numpy()[np.arange(len(simple)), best]
    return pd.Series(np.where(others.notna().any(axis=1), scores, np.nan), simple.index)


def _seeds(found: Sequence[Mapping[str, Any]], outcomes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The SD of the main metric over random states, on the patients of the first fold."""
    rows = []
    for kept in found:
        y, first = outcomes[kept["cohort"]], kept["folds"].index[kept["folds"] == 0]
        for name, task in find_tasks(y).items():
            if name in kept["predictions"]:
                table = evaluate_predictions(
                    {name: kept["predictions"][name].loc[first]}, y, horizons=(), n_resamples=0
                )
                value = table.loc[table["metric"] == task.main_metric, "value"].iloc[0]
                rows.append((kept["cohort"], name, kept["label"], value))
    table = pd.DataFrame(rows, columns=["cohort", "task", "model", "value"])
    groups = table.groupby(["cohort", "task", "model"], sort=False)["value"]
    return groups.agg(sd="std", mean="mean", n="count").reset_index()


def show(tables: Mapping[str, pd.DataFrame], defaults: Sequence[str], floor: str) -> dict[str, pd.DataFrame]:
    """The tables as text, by title, each in 100 columns.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        As :func:`tabulate` returns them.
    defaults, floor
        As in :func:`tabulate`.

    Returns
    -------
    dict of str to pandas.DataFrame
    """
    metrics, differences = tables["metrics"], tables["differences"]
    models = list(dict.fromkeys([*defaults, *metrics["model"]]))

    def wide(table: pd.DataFrame, value: str, rows: Sequence[str], form: str = "{:.3f}") -> pd.DataFrame:
        cells = table.pivot_table(index=list(rows), columns="model", values=value, sort=False, dropna=False)
        cells = cells.dropna(how="all").reindex(columns=[name for name in models if name in cells])
        cells = cells.map(lambda number: "" if pd.isna(number) else form.format(number))
        short = {name: name.removeprefix("tables_").removesuffix("_linear") for name in models if name not in defaults}
        return cells.rename(columns=short).rename_axis(columns=None)

    key = ["cohort", "task"]
    shown = {"(1) Main metric (C-index, AUC), mean over folds": wide(metrics, "value", key)}
    for name in [each for each in defaults if each in set(differences["model"])]:
        own = differences[differences["model"] == name]
        cells = own.assign(cell=[_cell(*row) for row in own[["difference", "low", "high", "mark"]].to_numpy()])
        columns = [_BEST, _CHOSEN, _MEAN, *(each for each in defaults[:1] if each != name)]
        cells = cells.pivot_table(index=key, columns="against", values="cell", aggfunc="first", sort=False)
        cells = cells.reindex(columns=columns).astype(object)
        cells.insert(
            0, "best", own[own["against"] == _BEST].set_index(key)["which"].astype(str).str.removeprefix("tables_")
        )
        cells.loc[("cohorts", ""), columns] = [_over_cohorts(own[own["against"] == each]) for each in columns]
        title = f"(2) {name} minus simple models; 95 % intervals of repeated folds"
        shown[title] = cells.fillna("").rename_axis(columns=None)
    slopes = wide(metrics, "calibration_slope", key, "{:.2f}")
    for name in [each for each in defaults if each in slopes]:
        own = metrics[metrics["model"] == name].set_index(key)[_SLOPES].reindex(slopes.index)
        slopes[name] = [
            "" if np.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in own.values
        ]
    shown["(3a) Calibration slope (ideal 1)"] = slopes
    shown[f"(3b) IPA, in % of the error of the {floor}"] = wide(
        metrics.assign(ipa=100 * metrics["ipa"]), "ipa", key, "{:.1f}"
    )
    shown["(4) SD of the main metric over random_state, one fold"] = wide(tables["seeds"], "sd", key)
    shown["(5) Seconds of a fit and its predictions, of one processor"] = wide(
        metrics.drop_duplicates(["cohort", "model"]), "seconds", ["cohort"], "{:.1f}"
    )
    return shown


def _over_cohorts(differences: pd.DataFrame) -> str:
    """The mean over cohorts with its interval, and how many rows were lost."""
    means = differences.groupby("cohort")["difference"].mean().dropna()
    # Without overlap of training rows the corrected interval is Student's.
    value, low, high, _ = _corrected(means, pd.Series(0.0, means.index), 0.95)
    return _cell(value, low, high, f"{(differences['mark'] == 'LOSS').sum()} LOSS")


def _cell(value: float, low: float, high: float, mark: str) -> str:
    interval = "" if pd.isna(low) else f" [{low:+.3f}, {high:+.3f}]"
    return "" if pd.isna(value) else f"{value:+.3f}{interval} {mark}".rstrip()


def markdown(table: pd.DataFrame) -> str:
    """A table, its index too, in Markdown."""
    table = table.reset_index()
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy(dtype=str).tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
