"""Tables and figures of the benchmark, from the answers that its models gave for patients left out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from benchmarks.models import BASELINE
from mmdls._files import whole_file
from mmdls.cohort import find_tasks, survival_target
from mmdls.evaluation import compare_predictions, evaluate_predictions, resample_predictions
from mmdls.metrics import holm_correction, percentile_interval
from mmdls.metrics._comparison import p_text
from mmdls.report import report
from mmdls.report._html import metric_name
from mmdls.report._study import ENDPOINTS
from mmdls.zoo._compare import of_main_metric

__all__ = [
    "against_others",
    "draw",
    "gain_over_chance",
    "per_patient",
    "show",
    "show_against",
    "show_controls",
    "show_oracle",
    "survival_scores",
    "tabulate",
    "write_report",
]

Answers = dict[str, dict[str, pd.DataFrame]]


def tabulate(answers: Answers, y: pd.DataFrame, n_resamples: int = 1000, baseline: str = BASELINE) -> pd.DataFrame:
    """One row a model and task: the main metric with its interval, and the difference to the baseline.

    Each metric is a mean over folds, since risks of different folds come from different models, and over repeats; an
    interval is that of one repeat, on average.
    """
    rows, tasks = [], find_tasks(y)
    for name, tables in answers.items():
        found = []
        for repeat in _repeats(tables):
            predictions, folds = _predictions(tables, tasks, repeat, y)
            options = {"horizons": (), "n_resamples": n_resamples, "folds": folds, "random_state": repeat}
            found.append(evaluate_predictions(predictions, y, metrics=_main_metrics(tasks), **options))
        scores = _mean(found, ["value", "low", "high"])
        against = None
        if name != baseline and baseline in answers:
            against = _difference(tables, answers[baseline], y, n_resamples).set_index("task")
        for row in scores[of_main_metric(scores, tasks)].itertuples():
            new = {"task": row.task, "model": name, "metric": row.metric, "value": row.value, "low": row.low}
            new |= {"high": row.high, "n": row.n, "n_events": row.n_events}
            if against is not None and row.task in against.index:
                other = against.loc[row.task]
                new |= {"difference": other["difference"], "difference_low": other["low"]}
                new |= {"difference_high": other["high"], "p": other["p"]}
            rows.append(new)
    return _in_order(pd.DataFrame(rows), y)


def against_others(answers: Answers, y: pd.DataFrame, reference: str, n_resamples: int | None = None) -> pd.DataFrame:
    """One model minus each other one, by task, on the same patients and resamples; one p-value is corrected for all.

    A bootstrap of B resamples gives no p-value below 2 / (B + 1). ``n_resamples=None`` takes 100 for each comparison
    and 1,000 at least, so that the correction for many comparisons cannot by itself hide all of them.
    """
    rows = []
    others = [name for name in answers if name != reference]
    if n_resamples is None:
        n_resamples = max(1000, 100 * len(others) * len(find_tasks(y)))
    for name in others:
        difference = _difference(answers[reference], answers[name], y, n_resamples)
        rows.append(difference.assign(model=reference, against=name))
    columns = [
        "task",
        "model",
        "against",
        "metric",
        "first",
        "second",
        "difference",
        "low",
        "high",
        "p",
        "n",
        "n_events",
    ]
    table = pd.concat(rows)[columns]
    table.insert(10, "p_holm", holm_correction(table["p"]))
    return _in_order(table, y)


def show_against(table: pd.DataFrame) -> str:
    """The differences as text that fits a terminal of 100 columns."""
    first = f"{table['model'].iloc[0]} minus"
    task, model, metric = _widths(table.assign(model=table["against"]), first)
    lines = [f"{'task':{task}} {first:{model}} {'':{metric}} {'difference (> 0: better)':25}   p (Holm)"]
    previous = None
    for row in table.to_dict("records"):
        name = row["task"] if row["task"] != previous else ""
        difference = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        label = metric_name(row["metric"])
        lines.append(
            f"{name:{task}} {row['against']:{model}} {label:{metric}} {difference:25}   {p_text(row['p_holm'])}"
        )
        previous = row["task"]
    return "\n".join(lines)


def _widths(table: pd.DataFrame, model: str = "model") -> tuple[int, int, int]:
    """Of the columns of tasks, of models and of names of metrics in a text, with the head of the second."""
    names = ["task", *table["task"]], [model, *table["model"]], map(metric_name, table["metric"])
    task, model_width, metric = (max(map(len, column)) for column in names)
    return task, model_width, metric


def show(table: pd.DataFrame, baseline: str = BASELINE) -> str:
    """The table as text that fits a terminal of 100 columns."""
    task, model, metric = _widths(table)
    lines = [f"{'task':{task}} {'model':{model}} {'':{metric}} {'value [95% interval]':22} against {baseline}"]
    previous = None
    for row in table.to_dict("records"):
        line = f"{row['task'] if row['task'] != previous else '':{task}} {row['model']:{model}} "
        value = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        line += f"{metric_name(row['metric']):{metric}} {value:20}"
        if np.isfinite(row.get("difference", np.nan)):
            line += f"   {row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        lines.append(line.rstrip())
        previous = row["task"]
    if np.isfinite(table.get("difference", pd.Series(dtype=float)).to_numpy(dtype=np.float64)).any():
        lines.append("A difference above 0 is better.")
    return "\n".join(lines)


def draw(answers: Answers, y: pd.DataFrame, task: str, path: Path) -> None:
    """Kaplan-Meier curves by the risk groups that each model learned on its training folds, of the first repeat."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from mmdls.plotting import kaplan_meier

    shown = [name for name in answers if "group" in answers[name][task]]
    columns = min(len(shown), 2 if len(shown) <= 4 else 3)
    rows = -(-len(shown) // columns)
    size = (4.9 * columns, 5.2 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel()[len(shown) :]:
        ax.remove()
    for ax, name in zip(axes.ravel(), shown, strict=False):
        table = answers[name][task]
        table = table[table["repeat"] == table["repeat"].min()]
        outcome = survival_target(y.loc[table.index], task)
        known = ~np.isnan(outcome["time"])
        kaplan_meier(
            outcome["event"][known],
            outcome["time"][known],
            table["group"].to_numpy()[known],
            labels={0: "low risk", 1: "middle", 2: "high risk"},
            ylabel=ENDPOINTS.get(task, task),
            ax=ax,
        )
        ax.set_title(name, loc="left")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)


def gain_over_chance(answers: Answers, y: pd.DataFrame, truth: pd.DataFrame, n_resamples: int = 1000) -> pd.DataFrame:
    """Which share of the oracle's gain in C-index over chance, and over the baseline, each model reaches.

    Parameters
    ----------
    answers : dict of str to dict of str to pandas.DataFrame
    y : pandas.DataFrame
    truth : pandas.DataFrame
        The true risks, ``<endpoint>_risk``.
    n_resamples : int, default=1000
        All risks meet the same resamples of the patients whom all models answered, inside the same folds.

    Returns
    -------
    pandas.DataFrame
        Columns task, model, concordance_index, oracle, of_the_oracle, of_the_gap_to_the_oracle, low, high: the interval
        of the last share, that of one repeat on average. It is NaN where the baseline reaches the oracle in 2.5% of
        the resamples: the share is then without bounds.
    """
    tasks, rows = find_tasks(y), []
    for endpoint in [
        name for name, task in tasks.items() if task.estimator_type == "survival" and f"{name}_risk" in truth
    ]:
        found = []
        for repeat in sorted(set.intersection(*(set(_repeats(tables)) for tables in answers.values()))):
            tables = {name: own[endpoint][own[endpoint]["repeat"] == repeat] for name, own in answers.items()}
            shared = y.index[np.logical_and.reduce([y.index.isin(table.index) for table in tables.values()])]
            folds = next(iter(tables.values()))["fold"].reindex(y.index)
            risks = {name: table.loc[shared, "risk"] for name, table in tables.items()}
            risks["oracle"] = truth.loc[shared, f"{endpoint}_risk"]
            draws = {
                name: resample_predictions(
                    {endpoint: risk},
                    y,
                    metrics=["concordance_index"],
                    n_resamples=n_resamples,
                    folds=folds,
                    random_state=repeat,
                ).iloc[0]
                for name, risk in risks.items()
            }
            found.append(pd.DataFrame(draws))
        for name in answers if found else ():
            rows.append((endpoint, name, *np.mean([_shares(draws, name) for draws in found], axis=0)))
    columns = [
        "task",
        "model",
        "concordance_index",
        "oracle",
        "of_the_oracle",
        "of_the_gap_to_the_oracle",
        "low",
        "high",
    ]
    return _in_order(pd.DataFrame(rows, columns=columns), y)


def _shares(draws: pd.DataFrame, name: str) -> list[float]:
    """C-index of a model and of the oracle, the model's shares and the interval of the second.

    The first row is that of the cohort, the others are those of the resamples.
    """
    oracle, base = draws["oracle"], draws.get(BASELINE, np.nan)
    of_oracle = (draws[name] - 0.5) / (oracle - 0.5)
    of_gap = (draws[name] - base) / (oracle - base)
    unbounded = ((oracle - base).iloc[1:] <= 0).mean() >= 0.025
    interval = (np.nan, np.nan) if unbounded or len(draws) == 1 else percentile_interval(of_gap.iloc[1:])
    return [draws[name].iloc[0], oracle.iloc[0], of_oracle.iloc[0], of_gap.iloc[0], *interval]


def show_oracle(efficiency: pd.DataFrame, reference: str) -> str:
    """What nobody can surpass, and how far one model is on the way from the baseline to it."""
    lines = []
    for task, own in efficiency.groupby("task", sort=False):
        line = f"{task:8} {'oracle':13} {metric_name('concordance_index')} {own['oracle'].iloc[0]:.3f}   "
        row = own[own["model"] == reference]
        if len(row) and reference != BASELINE and np.isfinite(row["of_the_gap_to_the_oracle"].iloc[0]):
            share, low, high = (100 * row[c].iloc[0] for c in ("of_the_gap_to_the_oracle", "low", "high"))
            line += f"{reference}: {share:.0f}% [{low:.0f}, {high:.0f}] of the way"
        lines.append(line.rstrip())
    return "\n".join(lines)


def show_controls(table: pd.DataFrame, chance: Mapping[str, float]) -> str:
    """One line a control, one value a task, and the main metric at chance.

    A star is a difference from chance, corrected (Holm) for the number of values shown; its p-value takes the width of
    the interval for that of a normal distribution. Where chance is 0, less than 0 is no finding: who learns noise
    predicts worse than the mean does.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`tabulate` gives it.
    chance : mapping of str to float
        By task.
    """
    levels = table["task"].map(chance)
    error = ((table["high"] - table["low"]) / (2 * norm.ppf(0.975))).astype(float)
    away = (table["value"] - levels).astype(float)
    away = away.abs().where((levels > 0) | (away > 0) | away.isna(), 0.0)
    # A control without any spread, such as one constant answer, is at chance.
    p_values = np.where(error > 0, 2 * norm.sf(away / error.where(error > 0, 1.0)), np.where(away > 0, 0.0, 1.0))
    table = table.assign(p=np.where(away.isna() | error.isna(), np.nan, p_values))
    table["p"] = holm_correction(table["p"])
    widths = {task: max(8, len(task)) for task in dict.fromkeys(table["task"])}
    width = max(13, table["model"].str.len().max())
    lines = [f"{'control':{width}} " + " ".join(f"{task:>{n}}" for task, n in widths.items())]
    for name, own in table.groupby("model", sort=False):
        own, cells = own.set_index("task"), []
        for task, n in widths.items():
            value, p = own.loc[task, ["value", "p"]].astype(float)
            cells.append(f"{value:{n - 1}.3f}{'*' if p < 0.05 else ' '}")
        lines.append(f"{name:{width}} " + " ".join(cells).rstrip())
    cells = [f"{chance[task]:{n - 1}.3f} " for task, n in widths.items()]
    lines.append(f"{'chance':{width}} " + " ".join(cells).rstrip())
    return "\n".join([*lines, "* differs from chance: p < .05 after Holm over all values of the controls"])


def per_patient(answers: Answers) -> pd.DataFrame:
    """Every answer of every model for every patient, one row a patient and repeat."""
    parts = {}
    for name, tables in answers.items():
        for task, table in tables.items():
            table = table.set_index("repeat", append=True).drop(columns="fold")
            parts |= {f"{name}/{task}/{column}": table[column] for column in table}
    wide = pd.DataFrame(parts)
    first = next(iter(next(iter(answers.values())).values()))
    wide.insert(0, "fold", first.set_index("repeat", append=True)["fold"])
    return wide.reset_index("repeat")


def _predictions(
    tables: Mapping[str, pd.DataFrame], tasks: Mapping[str, Any], repeat: int, y: pd.DataFrame
) -> tuple[dict[str, Any], pd.Series]:
    """What :func:`mmdls.evaluation.evaluate_predictions` reads, of one repeat, and each patient's fold."""
    predictions, folds = {}, pd.Series(None, index=y.index, dtype=object)
    for task, table in tables.items():
        table = table[table["repeat"] == repeat]
        folds[table.index] = table["fold"]
        if tasks[task].has_classes:
            predictions[task] = table[[str(c) for c in tasks[task].classes]].set_axis(list(tasks[task].classes), axis=1)
        else:
            table = table.drop(columns=["fold", "repeat"])
            predictions[task] = table.rename(columns=lambda c: c.removeprefix("survival_"))
    return predictions, folds


def _main_metrics(tasks: Mapping[str, Any]) -> list[str]:
    return sorted({task.main_metric for task in tasks.values()})


def _repeats(tables: Mapping[str, pd.DataFrame]) -> list[int]:
    """The repeats for which a model answered every task."""
    return sorted(set.intersection(*(set(table["repeat"]) for table in tables.values())))


def _difference(
    first: Mapping[str, pd.DataFrame], second: Mapping[str, pd.DataFrame], y: pd.DataFrame, n_resamples: int
) -> pd.DataFrame:
    """One model minus another on the same patients and resamples, the mean over the repeats that both finished.

    The p-value of several repeats, which are not independent, is twice their mean [1]_.

    References
    ----------
    .. [1] Vovk V, Wang R. Combining p-values via averaging. Biometrika, 2020.
    """
    tasks, found = find_tasks(y), []
    for repeat in sorted(set(_repeats(first)) & set(_repeats(second))):
        ours, folds = _predictions(first, tasks, repeat, y)
        theirs, _ = _predictions(second, tasks, repeat, y)
        options = {"horizons": (), "n_resamples": n_resamples, "folds": folds, "random_state": repeat}
        table = compare_predictions(ours, theirs, y, metrics=_main_metrics(tasks), **options)
        found.append(table[of_main_metric(table, tasks)])
    mean = _mean(found, ["first", "second", "difference", "low", "high", "p"])
    return mean if len(found) == 1 else mean.assign(p=(2 * mean["p"]).clip(upper=1))


def _in_order(table: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
    """Rows by task: endpoints first."""
    last_first = reversed(find_tasks(y).values())
    order = {task.name: i for i, task in enumerate(sorted(last_first, key=lambda task: not task.is_censored))}
    return table.sort_values("task", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def _mean(tables: list[pd.DataFrame], numbers: list[str]) -> pd.DataFrame:
    """Tables of the same rows as one, with the means of some columns."""
    first = tables[0].copy()
    first[numbers] = np.mean([table[numbers].to_numpy(dtype=float) for table in tables], axis=0)
    return first


def survival_scores(
    endpoint: str, risk: pd.Series, y: pd.DataFrame, n_resamples: int = 1000
) -> tuple[float, float, float]:
    """C-index of a risk of some patients, and its interval."""
    options = {"metrics": ["concordance_index"], "horizons": (), "n_resamples": n_resamples}
    row = evaluate_predictions({endpoint: risk}, y, **options).iloc[0]
    return row["value"], row["low"], row["high"]


def write_report(
    answers: Answers,
    X: pd.DataFrame,
    y: pd.DataFrame,
    identity: Mapping[str, Any],
    path: Path,
    labels: Mapping[str, str] | None = None,
) -> None:
    """One HTML file of what was predicted; nothing is fitted. Of several repeats it shows the first."""
    tasks = find_tasks(y)
    models, folds = {}, None
    for name, tables in answers.items():
        models[name], folds = _predictions(tables, tasks, 0, y)
        for task, table in tables.items():
            if "group" in table:
                first = table[table["repeat"] == 0]
                groups = pd.Categorical.from_codes(first["group"], ["low", "middle", "high"], ordered=True)
                models[name][task]["group"] = groups
    options = {"settings": identity, "labels": labels, "horizons": (36,), "n_resamples": 100}
    report(models, X, y, path, folds=folds, title="Clinical, imaging and multimodal models", **options)
