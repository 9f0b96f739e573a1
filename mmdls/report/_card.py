"""Settings, model card and TRIPOD+AI checklist of a report."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmdls._provenance import data_hash, image_hash, versions
from mmdls._secrets import without_secrets
from mmdls.cohort import modalities
from mmdls.report._html import OPEN, cell, html_table, metric_name
from mmdls.report._study import Study
from mmdls.report._tripod import ITEMS

_CARD = ("Intended use", "Users", "Not to be used for", "Limitations", "Ethical considerations", "Contact")


def settings(study: Study, settings: Mapping[str, Any] | None) -> str:
    text = "<h3>Data</h3>" + html_table(
        pd.DataFrame(
            [
                ("patients", len(study.X)),
                ("columns of X, of y", f"{study.X.shape[1]}, {study.y.shape[1]}"),
                ("SHA-256 of X", data_hash(study.X)),
                ("SHA-256 of y", data_hash(study.y)),
                ("SHA-256 of images and masks", image_hash(study.X) or "none"),
                ("bootstrap resamples, seed", f"{study.n_resamples}, {study.random_state}"),
            ],
            columns=["What", "Value"],
        )
    )
    text += "<h3>Versions</h3>" + html_table(pd.DataFrame(versions(), columns=["Package", "Version"]))
    shown = dict(settings or {})
    if study.found is not None:
        shown |= {"cross-validation": study.found.cv, "seed of the folds": study.found.random_state}
    for crossed in study.crossed.values():
        shown |= {"cross-validation": crossed.cv, "seed of the folds": crossed.random_state}
    fitted = study.estimators | {name: crossed.model for name, crossed in study.crossed.items()}
    for name, model in (fitted if study.found is None else study.found.models).items():
        if isinstance(model, str):
            shown[name] = f"{model}, a registered model"
            continue
        shown[name] = type(model).__name__
        shown |= {f"{name}: {key}": value for key, value in model.get_params(deep=True).items()}
    if shown:
        frame = pd.DataFrame(
            [(key, without_secrets(str(value))[:300]) for key, value in shown.items()], columns=["Setting", "Value"]
        )
        text += "<h3>Settings of the models</h3>" + html_table(frame)
    else:
        text += f"<h3>Settings of the models</h3><p class='open'>{OPEN}</p>"
    fits = [crossed.fits.assign(model=name) for name, crossed in study.crossed.items()]
    if fits or study.found is not None:
        table = pd.concat(fits) if study.found is None else study.found.fits
        text += "<h3>Fits, and the hyperparameters that they chose</h3>" + html_table(_fits(table))
    return text


def _fits(fits: pd.DataFrame) -> pd.DataFrame:
    chosen = [", ".join(f"{key}={value}" for key, value in each.items()) for each in fits["chosen"]]
    names = {"model": "Model", "fold": "Fold", "n_train": "Fitted on", "n_test": "Predicted", "seconds": "Seconds"}
    return fits.rename(columns=names)[list(names.values())].assign(Chosen=chosen)


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
    return html_table(pd.DataFrame(rows, columns=["Part", "Content"]))


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
