"""The sections with results: cohort, performance, comparison, subgroups, hazard ratios."""

import html
import re
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmdls import plotting, tables
from mmdls.evaluation import compare_predictions
from mmdls.metrics._censoring import median_text
from mmdls.report._html import LEVEL, cell, figure, html_list, html_table, metric_name, number, p_value
from mmdls.report._notes import grouped_notes
from mmdls.report._settings import nested
from mmdls.report._study import Study


def cohort(study: Study) -> str:
    return "<h3>Flow of patients</h3>" + _flow(study) + "<h3>Characteristics</h3>" + _characteristics(study)


def _characteristics(study: Study) -> str:
    """Table 1: a row with the name of each variable, and what is said of all its levels, then its levels."""
    by = study.split if study.split is not None else study.centre
    shown = study.X if by is None else study.X.drop(columns=str(by.name), errors="ignore")
    smd, tests = study.split is not None, study.tests and by is not None
    table = tables.describe_cohort(shown, study.y, by, smd=smd, tests=tests)
    general = table.columns.isin(["SMD", "p", "test"])
    readable = _readable(study)
    names, rows = [], []
    for variable in dict.fromkeys(table.index.get_level_values(0)):
        own = table.loc[[variable]]
        levels = [study.label(level, variable) for level in own.index.get_level_values(1)]
        if len(own) == 1:
            names.append(f"{readable.get(variable, study.label(variable))}, {levels[0]}".removesuffix(", "))
            rows.append(own.iloc[0])
            continue
        names += [readable.get(variable, study.label(variable)), *(f"{LEVEL}{level}" for level in levels)]
        rows += [own.iloc[0].where(general, ""), *(row.where(~general, "") for _, row in own.iterrows())]
    columns = [study.label(name, "" if by is None else str(by.name)) for name in table.columns]
    return html_table(pd.DataFrame(rows).set_axis(columns, axis=1).set_axis(names), index=True)


def _readable(study: Study) -> dict[str, str]:
    """The labels of columns; without one the name without its block, where no other column has the same."""
    columns = [str(column) for column in study.X.columns]
    words = {column: (column.partition("_")[2] or column).replace("_", " ") for column in columns}
    times = Counter(words.values())
    return {
        column: study.labels.get(column, word[:1].upper() + word[1:] if times[word] == 1 else column)
        for column, word in words.items()
    }


def _flow(study: Study) -> str:
    steps = dict(study.flow) if study.flow is not None else {"patients in the table": len(study.X)}
    if sum(steps.values()) != len(study.X):
        raise ValueError(
            f"flow must end at the {len(study.X)} patients of X; {' '.join(f'{n:+d}' for n in steps.values())} is "
            f"{sum(steps.values())}. Give the number screened, then every exclusion with a minus."
        )
    boxes, left = [], 0
    for label, change in steps.items():
        left += change
        kind, shown = ("out", f"excluded: {label} (n = {-change})") if change < 0 else ("in", f"{label} (n = {change})")
        boxes.append(f'<div class="{kind}">{html.escape(shown)}</div>')
    boxes.append(f'<div class="in">evaluated (n = {left})</div>')
    known = [f"{study.label(task.name)}: {task.count(task.outcome(study.y))}" for task in study.tasks.values()]
    boxes.append('<div class="leaves">' + "".join(f"<div>{html.escape(k)}</div>" for k in known) + "</div>")
    return '<div class="flow">' + "".join(boxes) + "</div>"


def performance(study: Study) -> str:
    text = (
        f"<p>Value with its 95&nbsp;% interval from {study.n_resamples} bootstrap resamples of patients, the same "
        "for all models. Errors are weighted by the censoring of these patients. A calibration error cannot be "
        "negative and grows by resampling; its lower limit is corrected for that.</p>"
    )
    if study.n_folds:
        text = (
            "<p>Predictions are out of fold: those of a patient come from models that were fitted without the "
            f"patient's fold ({study.n_folds} in all). Metrics are computed within folds and averaged; figures and "
            "calibration errors pool the folds, and the calibration slope is one for all folds, with an intercept for "
            f"each.</p>{nested(study)}{text}"
        )
    for task in study.tasks:
        rows: dict[tuple[str, str], dict[str, str]] = {}
        notes: list[tuple[str, str, str, str]] = []
        for name, table in study.tables.items():
            for row in table[table["task"] == task].to_dict("records"):
                key = (metric_name(row["metric"]), "" if np.isnan(row["horizon"]) else f"{row['horizon']:g}")
                is_p = row["metric"].endswith("_p") and not np.isnan(row["value"])
                text_of = p_value(row["value"]) if is_p else cell(row["value"], row["low"], row["high"])
                rows.setdefault(key, {})[name] = text_of
                if row["note"]:
                    notes.append((name, *key, row["note"]))
        empty = dict.fromkeys(study.names, "")
        frame = pd.DataFrame(
            [{"Metric": m, "Months": h, **empty, **values} for (m, h), values in rows.items()],
            columns=["Metric", "Months", *study.names],
        )
        text += f"<h3>{html.escape(study.label(task))}</h3>" + html_table(frame)
        text += html_list(grouped_notes(notes, study.names))
    return text


def comparison(study: Study) -> str:
    if len(study.names) < 2:
        return "<p>One model: nothing to compare.</p>"
    text = (
        f"<p>Differences to <b>{html.escape(study.names[0])}</b> on the same resamples; p by DeLong's test for AUC, "
        "otherwise by the paired bootstrap, corrected by Holm within each table.</p>"
    )
    few = [metric for task in study.tasks.values() for metric in task.compared_metrics or (task.main_metric,)]
    for name in study.names[1:]:
        if not set(study.predictions[name]) & set(study.predictions[study.names[0]]):
            text += f"<p>{html.escape(name)} answers no task of {html.escape(study.names[0])}.</p>"
            continue
        both = study.tables[name].merge(study.tables[study.names[0]], on=["task", "metric"])["metric"]
        metrics = [metric for metric in dict.fromkeys(few) if metric in set(both)]
        table = compare_predictions(
            study.predictions[name], study.predictions[study.names[0]], study.y, metrics=metrics, **study.options
        )
        frame = pd.DataFrame(
            {
                "Task": table["task"].map(study.label),
                "Metric": table["metric"].map(metric_name),
                "Months": [number(h, "g") for h in table["horizon"]],
                name: [number(v, ".3f") for v in table["first"]],
                study.names[0]: [number(v, ".3f") for v in table["second"]],
                "Difference": [cell(*r) for r in table[["difference", "low", "high"]].to_numpy()],
                "Better": [_better(study, row, name) for row in table.to_dict("records")],
                "p": table["p"].map(p_value),
                "p (Holm)": table["p_holm"].map(p_value),
                "Test": table["test"],
            }
        )
        text += f"<h3>{html.escape(name)} against {html.escape(study.names[0])}</h3>" + html_table(frame)
    shared = [t for t in study.tasks if all(t in p for p in study.predictions.values())]
    if shared:
        nested = {name: {t: p[t] for t in shared} for name, p in study.predictions.items()}
        table = tables.added_value(nested, study.y, **study.options)
        frame = pd.DataFrame(
            {
                "Task": table["task"].map(study.label),
                "Model": table["model"],
                "Metric": table["metric"].map(metric_name),
                "Value": [number(v, ".3f") for v in table["value"]],
                "Gain": [
                    "" if np.isnan(r[0]) else cell(*r) for r in table[["gain", "low", "high"]].to_numpy(np.float64)
                ],
                "That is": [_direction(study, row, row["gain"]) for row in table.to_dict("records")],
                "p": table["p"].map(p_value),
                "p (Holm)": table["p_holm"].map(p_value),
            }
        )
        text += "<h3>Added value of each model over the one before</h3>"
        text += (
            "<p>Differences of metrics on the same patients, with the p-values of paired resamples. They are "
            "conditional on the fitted models.</p>" + html_table(frame)
        )
    return text


def _better(study: Study, row: dict[str, Any], name: str) -> str:
    """The model in whose favour a difference speaks."""
    direction = _direction(study, row, row["difference"])
    return {"better": name, "worse": study.names[0], "unclear": "neither"}.get(direction, "")


def _direction(study: Study, row: dict[str, Any], difference: float) -> str:
    """Whether a difference is better or worse; unclear, where its interval holds 0."""
    metric = re.sub(r"_cause\d$", "_cause1", row["metric"])  # every cause has the directions of the first
    sign, _ = study.tasks[row["task"]].scores.get(metric, (0, False))
    if not sign or np.isnan(row["low"] + row["high"]):
        return ""
    if row["low"] <= 0 <= row["high"]:
        return "unclear"
    return "better" if sign * difference > 0 else "worse"


def heterogeneity(study: Study) -> str:
    name, text = study.main, ""
    predictions = study.predictions[name]
    options = {**study.options, "horizons": ()}
    if study.centre is not None:
        table = tables.subgroups(predictions, study.y, study.centre.to_frame("centre"), **options)
        text += f"<h3>By centre: {html.escape(name)}</h3><div class='figures'>"
        for (task, metric), own in table.groupby(["task", "metric"], sort=False):
            own = own[own["group"] != "all"]
            label, caption = f"{metric_name(metric)}, {study.label(task)}", "centres"
            if own["value"].isna().all():
                why = ", ".join(dict.fromkeys(own["note"])) or "not defined"
                text += f"<p>{html.escape(label)}: {html.escape(why)} in all centres.</p>"
                continue
            chance = study.tasks[task].chance_level
            drawn: dict[str, Any] = {"label": "level", "reference": chance, "xlabel": label}
            if chance > 0:  # the mean is one of log odds, of a metric between 0 and 1
                drawn["pooled"] = tables.random_effects_summary(own["value"], own["low"], own["high"])
                if drawn["pooled"]["n_centres"]:
                    caption += ", random-effects mean (diamond), 95 % prediction interval of a new centre (line)"
            text += figure(partial(plotting.forest, own, **drawn), f"{label}: {caption}.", folder=study.folder)
        text += "</div>"
    if study.groups.shape[1]:
        table = tables.subgroups(predictions, study.y, study.groups, **options)
        frame = pd.DataFrame(
            {
                "Group": table["group"].map(study.label),
                "Level": [
                    study.label(level, study.columns.get(group, group))
                    for group, level in zip(table["group"], table["level"], strict=True)
                ],
                "Task": table["task"].map(study.label),
                "Metric": table["metric"].map(metric_name),
                "Value": [
                    note if note.startswith("suppressed") else cell(*row)
                    for note, row in zip(
                        table["note"].fillna("").astype(str),
                        table[["value", "low", "high"]].to_numpy(dtype=np.float64),
                        strict=True,
                    )
                ],
                "n": [number(n, ".0f") for n in table["n"].astype(float)],
                "Events": [number(n, ".0f") for n in table["n_events"].astype(float)],
                "Note": table["note"].fillna("").where(~table["note"].fillna("").str.startswith("suppressed"), ""),
            }
        )
        text += f"<h3>Subgroups: {html.escape(name)}</h3>" + html_table(frame)
    return text or "<p>Neither centres nor subgroups were given.</p>"


def hazards(study: Study) -> str:
    name, text = study.main, ""
    for task in study.tasks.values():
        if task.estimator_type != "survival" or task.name not in study.predictions[name]:
            continue
        answers = study.predictions[name][task.name]
        risk = answers if isinstance(answers, pd.Series) else answers["risk"]
        covariates = pd.DataFrame({f"score of {name}": risk})
        if isinstance(answers, pd.DataFrame) and "group" in answers.columns:
            groups = pd.DataFrame({"risk group": answers["group"].astype("category")})
            table = pd.concat(
                [tables.hazard_table(study.y, task.name, part) for part in (covariates, groups)], ignore_index=True
            )
        else:
            table = tables.hazard_table(study.y, task.name, covariates)
        medians = _medians(task.outcome(study.y), answers, study)
        frame = pd.DataFrame(
            {
                "Covariate": table["covariate"],
                "Level": table["level"],
                "n": table["n"],
                "Events": table["n_events"],
                "Median, months": [medians.get(level, "") for level in table["level"]],
                "Hazard ratio": [cell(*r) for r in table[["hazard_ratio", "low", "high"]].to_numpy()],
                "p": table["p"].map(p_value),
                "p, proportional hazards": table["p_proportional"].map(p_value),
                "Note": table["note"],
            }
        )
        text += f"<h3>{html.escape(study.label(task.name))}</h3>" + html_table(frame)
    if study.treatment is not None and text:
        table = tables.interaction_table(study.predictions[name], study.y, study.treatment)
        frame = pd.DataFrame(
            {
                "Task": table["task"].map(study.label),
                "Treatment": table["treatment"],
                "n": table["n"],
                "Events": table["n_events"],
                "Hazard ratio per SD": [cell(*r) for r in table[["hazard_ratio", "low", "high"]].to_numpy()],
                "Interaction": [
                    "reference" if first else cell(*r)
                    for first, r in zip(
                        ~table["task"].duplicated(),
                        table[["interaction", "interaction_low", "interaction_high"]].to_numpy(np.float64),
                        strict=True,
                    )
                ],
                "p": table["p"].map(p_value),
            }
        )
        text += "<h3>Score and treatment</h3><p>Interaction: ratio of the hazard ratio to that under the first "
        text += "treatment. Without randomisation it is no evidence of a treatment benefit.</p>" + html_table(frame)
    return text or "<p>No endpoint was predicted.</p>"


def _medians(outcome: np.ndarray, answers: Any, study: Study) -> dict[str, str]:
    """Median survival of every risk group, with its 95 % interval."""
    if isinstance(answers, pd.Series) or "group" not in answers.columns:
        return {}
    groups = answers["group"].reindex(study.y.index)
    known = ~np.isnan(outcome["time"])
    parts = {str(group): known & (groups == group).to_numpy(bool, na_value=False) for group in groups.dropna().unique()}
    return {name: median_text(outcome["event"][own], outcome["time"][own]) for name, own in parts.items() if own.any()}
