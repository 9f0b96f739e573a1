"""The figures of a report."""

import html
from collections.abc import Iterator
from functools import partial

import pandas as pd

from mmdls import plotting, tables
from mmdls.cohort import Task
from mmdls.report._html import figure
from mmdls.report._study import Study
from mmdls.tasks import FigureSettings


def figures(study: Study) -> str:
    return "".join(
        f"<h3>{html.escape(study.label(task.name))}</h3>"
        f'<div class="figures">{"".join(_task_figures(study, task))}</div>'
        for task in study.tasks.values()
    )


def _task_figures(study: Study, task: Task) -> Iterator[str]:
    answers = {name: p[task.name] for name, p in study.predictions.items() if task.name in p}
    known = study.y.index[task.known(task.outcome(study.y))]
    for table in answers.values():
        known = known[known.isin(table.index)]
    if not len(known):
        return
    predictions = {}
    for name, table in answers.items():
        table = (table.to_frame("risk") if isinstance(table, pd.Series) else table).loc[known]
        _, predictions[name] = task.read_predictions(table, study.y.loc[known])
        if "group" in table.columns and not task.has_classes:
            kind = pd.CategoricalDtype(tables.levels(table["group"]), ordered=True)
            predictions[name] = predictions[name].assign(group=table["group"].astype(kind))
    settings = FigureSettings(
        study.horizons,
        min(study.n_resamples, 500),
        study.random_state,
        study.training_outcomes.get(task.name),
        study.labels,
    )
    for drawn in task.figures(task.outcome(study.y.loc[known]), predictions, settings):
        function = getattr(plotting, drawn.function)
        yield figure(
            partial(function, *drawn.arguments, **drawn.options), drawn.caption, drawn.size, study.folder, drawn.title
        )
