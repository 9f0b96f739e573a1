"""Model card and TRIPOD+AI checklist of a report."""

from collections.abc import Mapping

import pandas as pd

from mmdls.cohort import modalities
from mmdls.report._html import OPEN, cell, html_table, metric_name
from mmdls.report._study import Study
from mmdls.report._tripod import ITEMS

_CARD = ("Intended use", "Users", "Not to be used for", "Limitations", "Ethical considerations", "Contact")


def card(study: Study, card: Mapping[str, str] | None) -> str:
    given = dict(card or {})
    training = {
        name: f"{len(outcome)} patients, {int(study.tasks[name].is_event(outcome).sum())} events"
        for name, outcome in study.training_outcomes.items()
        if name in study.tasks
    }
    rows = [
        ("Models", ", ".join(study.names)),
        ("Main model", study.main),
        ("Inputs", _inputs(study)),
        ("Outputs", _outputs(study)),
        ("Training data", "; ".join(f"{k}: {v}" for k, v in training.items()) or given.pop("Training data", OPEN)),
        ("Evaluation data", f"{len(study.X)} patients" + _centres(study)),
        ("Performance", _headline(study)),
    ]
    rows += [(part, given.pop(part, OPEN)) for part in _CARD] + list(given.items())
    text = html_table(pd.DataFrame(rows, columns=["Part", "Content"]))
    if any(content == OPEN for _, content in rows):
        text = f"<p>What is open is filled by <code>report(..., card={{&quot;{_CARD[0]}&quot;: ...}})</code>.</p>{text}"
    return text


def checklist(study: Study, card: Mapping[str, str] | None) -> str:
    n_missing = int(study.X.isna().to_numpy().sum())
    months = ", ".join(f"{h:g}" for h in study.horizons)
    answers = {
        "use": (card or {}).get("Intended use", ""),
        "outcome": f"{_outputs(study)}; horizons {months} months. Definition and assessment: {OPEN}",
        "predictors": f"{_inputs(study)}. Measurement: {OPEN}",
        "missing": f"{n_missing} missing cells, by variable in Cohort. Handling in the models: {OPEN}",
        "measures": "Discrimination, error, calibration, net benefit, intervals, paired tests: Performance, "
        "Comparison of models, Figures",
        "output": f"{_outputs(study)}. Risk groups by cut-points of the training rows. Thresholds in use: {OPEN}",
        "versions": f"Versions: Settings, versions, data. Availability: {OPEN}",
        "flow": "Cohort" if study.flow is not None else f"Counts: Cohort. Screening and exclusions: {OPEN}",
        "characteristics": "Cohort, with missing values and reverse Kaplan-Meier follow-up",
        "counts": "Cohort, Model card",
        "performance": "Performance; subgroups: Centres and subgroups",
        "limitations": (card or {}).get("Limitations", ""),
    }
    if study.centre is not None:
        answers["centres"] = f"{study.centre.nunique()} centres. Location and setting: {OPEN}"
        answers["heterogeneity"] = "Centres and subgroups, with random-effects mean and prediction interval"
    if study.treatment is not None:
        answers["treatment"] = "Hazard ratios and treatment; Centres and subgroups"
    if study.estimators or study.crossed or study.found is not None:
        answers["settings"] = f"Parameters: Settings, versions, data. Rationale: {OPEN}"
    if study.n_folds:
        answers["partition"] = f"Cross-validation with {study.n_folds} folds: Performance; Settings, versions, data"
    if study.split is not None:
        answers["partition"] = answers["split"] = "Characteristics by split: Cohort"
    rows = [(n, section, topic, answers.get(key, "") or OPEN) for n, section, topic, key in ITEMS]
    n_open = sum(row[3] == OPEN for row in rows)
    text = (
        f"<p>Items in short words, after Collins et al., BMJ 2024;385:e078378; {n_open} of {len(rows)} are open, "
        "others in part.</p>"
    )
    return text + html_table(pd.DataFrame(rows, columns=["Item", "Section", "To report", "Where, or open"]))


def _inputs(study: Study) -> str:
    found = modalities(study.X)
    return ", ".join(f"{name} ({len(c)} columns)" if len(c) > 1 else name for name, c in found.items()) or OPEN


def _outputs(study: Study) -> str:
    return ", ".join(f"{task.name} ({task.about})" for task in study.tasks.values())


def _centres(study: Study) -> str:
    return "" if study.centre is None else f" of {study.centre.nunique()} centres"


def _headline(study: Study) -> str:
    table = study.tables[study.main]
    shown = table[table["metric"] == table["task"].map(lambda name: study.tasks[name].main_metric)]
    texts = [
        f"{r['task']} {metric_name(r['metric'])} {cell(r['value'], r['low'], r['high'])}"
        for r in shown.to_dict("records")
    ]
    return f"{study.main}: " + "; ".join(texts)
