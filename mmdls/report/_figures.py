"""The figures of a report."""

import html
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmdls import plotting, tables
from mmdls.cohort import survival_target
from mmdls.report._html import figure
from mmdls.report._study import Study


def figures(study: Study) -> str:
    return "".join(
        f'<h3>{html.escape(task.name)}</h3><div class="figures">{"".join(_task_figures(study, task))}</div>'
        for task in study.tasks.values()
    )


def _task_figures(study: Study, task: Any) -> Iterator[str]:
    answers = {name: p[task.name] for name, p in study.predictions.items() if task.name in p}
    if task.kind != "survival":
        yield from _class_figures(study, task, answers)
        return
    outcome = survival_target(study.y, task.name)
    known = study.y.index[~np.isnan(outcome["time"])]
    for table in answers.values():
        known = known[known.isin(table.index)]
    test = survival_target(study.y.loc[known], task.name)
    train = study.outcomes.get(task.name, test)
    event, time, resamples = test["event"], test["time"], min(study.n_resamples, 500)
    answers = {n: (t.to_frame("risk") if isinstance(t, pd.Series) else t).loc[known] for n, t in answers.items()}
    options: dict[str, Any] = {"n_resamples": resamples, "random_state": study.random_state}
    for name, table in answers.items():
        if "group" in table.columns and table["group"].notna().any():
            own = table["group"].notna().to_numpy()
            values = table["group"].to_numpy()[own]
            order = {g: str(g) for g in tables.levels(table["group"])}
            caption = f"{task.name} by risk groups of {name}; cut-points learned in training."
            yield figure(
                partial(plotting.kaplan_meier, event[own], time[own], values, labels=order),
                caption,
                (6, 5.2),
            )
    if not any("group" in table.columns for table in answers.values()):
        yield figure(partial(plotting.kaplan_meier, event, time), f"{task.name}, Kaplan-Meier.", (6, 5.2))
    risk = {name: table["risk"].to_numpy(np.float64) for name, table in answers.items()}
    last = min(max(study.horizons, default=60.0), float(time.max()) * 0.98)
    grid = np.linspace(last / 20, last, 20)
    yield figure(
        partial(plotting.auc_over_time, train, test, risk, grid, **options),
        "Time-dependent AUC with pointwise 95 % intervals.",
    )
    curves = {name: _curves(table) for name, table in answers.items()}
    curves = {name: table for name, table in curves.items() if table.shape[1] > 1}
    shared = sorted(set.intersection(*(set(table.columns) for table in curves.values()))) if curves else []
    if len(shared) > 1:
        survival = {name: table[shared].to_numpy(np.float64) for name, table in curves.items()}
        yield figure(
            partial(plotting.brier_over_time, train, test, survival, np.array(shared), **options),
            "Brier score, weighted for censoring, against Kaplan-Meier on the training rows.",
        )
    for h in study.horizons:
        at = {name: table[h].to_numpy(np.float64) for name, table in curves.items() if h in table.columns}
        if at and (time > h).any():
            yield figure(
                partial(plotting.survival_calibration, event, time, at, h),
                f"Calibration at {h:g} months: smooth curve, and Kaplan-Meier in fifths of predicted risk.",
                (4.8, 4.8),
            )
            yield figure(
                partial(plotting.decision_curve, train, test, at, h),
                f"Net benefit at {h:g} months, weighted for censoring.",
            )


def _class_figures(study: Study, task: Any, answers: dict[str, pd.DataFrame]) -> Iterator[str]:
    known = study.y.index[study.y[task.name].notna()]
    for table in answers.values():
        known = known[known.isin(table.index)]
    truth = study.y.loc[known, task.name].to_numpy()
    options: dict[str, Any] = {"n_resamples": min(study.n_resamples, 500), "random_state": study.random_state}
    for label in task.classes[1:] if len(task.classes) == 2 else task.classes:
        own = (truth == label).astype(int)
        if own.min(initial=1) == own.max(initial=0):
            continue
        # By position: a list of booleans would select columns as a mask.
        place = {name: list(table.columns).index(label) for name, table in answers.items()}
        score = {n: table.loc[known].iloc[:, place[n]].to_numpy(np.float64) for n, table in answers.items()}
        name = f"{task.name}: {label} against the rest"
        size = (4.8, 4.8)
        yield figure(partial(plotting.roc, own, score, **options), f"{name}, ROC.", size)
        yield figure(
            partial(plotting.precision_recall, own, score, **options),
            f"{name}, precision and recall.",
            size,
        )
        yield figure(partial(plotting.calibration, own, score), f"{name}, calibration.", size)


def _curves(table: pd.DataFrame) -> pd.DataFrame:
    """Survival at the times at which all patients have a value."""
    numbers = [c for c in table.columns if isinstance(c, int | float | np.number) and table[c].notna().all()]
    return table[numbers].set_axis([float(c) for c in numbers], axis=1)
