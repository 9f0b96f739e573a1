"""One self-contained HTML file with all that a reviewer asks for; what only the author knows stays open."""

import base64
import hashlib
import html
import io
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics, plotting, tables
from mmdls.cohort import check_target, modalities, survival_target
from mmdls.evaluation import compare, evaluate_predictions, predict_tasks, training_outcomes
from mmdls.report._tripod import ITEMS

__all__ = ["report"]

_OPEN = "OPEN: for the author"
_CARD = ("Intended use", "Users", "Not to be used for", "Limitations", "Ethical considerations", "Contact")
_PACKAGES = ("mmdls", "numpy", "scipy", "pandas", "scikit-learn", "scikit-survival", "torch", "skorch", "matplotlib")
_NAMES = {
    "concordance_index": "Harrell's C",
    "concordance_index_ipcw": "Uno's C",
    "concordance_index_antolini": "Antolini's C",
    "cumulative_dynamic_auc": "Time-dependent AUC",
    "brier_score": "Brier score",
    "index_of_prediction_accuracy": "Index of prediction accuracy",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
    "observed_expected_ratio": "Observed / expected",
    "calibration_ici": "Calibration error, mean (ICI)",
    "calibration_e50": "Calibration error, median (E50)",
    "calibration_e90": "Calibration error, 90th percentile (E90)",
    "integrated_brier_score": "Integrated Brier score",
    "integrated_prediction_accuracy": "Integrated prediction accuracy",
    "log_likelihood": "Log-likelihood per patient",
    "d_calibration_p": "D-calibration, p",
    "auc": "AUC",
    "log_loss": "Log loss",
    "likelihood_ratio": "Likelihood ratio (chi-squared)",
}
_PLANNED = ("concordance_index", "cumulative_dynamic_auc", "integrated_brier_score", "auc", "log_loss")


def report(
    models: Mapping[str, Any],
    X: pd.DataFrame,
    y: pd.DataFrame,
    path: Any = None,
    *,
    outcomes: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = (12, 36, 60),
    by: str | pd.Series | None = "centre",
    folds: Any = None,
    split: pd.Series | None = None,
    treatment: str | pd.Series | None = "treatment",
    groups: pd.DataFrame | None = None,
    flow: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    card: Mapping[str, str] | None = None,
    title: str = "Evaluation of prediction models",
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> str:
    """Evaluate models on a cohort and write everything into one HTML file that needs nothing else.

    Parameters
    ----------
    models : dict of str to fitted estimator or dict of predictions
        By name; the first is the one that the others are compared with, for example the clinical model. Order them
        from small to large: the table of added value compares each with the one before. Predictions as in
        :func:`mmdls.evaluation.evaluate_predictions`; those of an endpoint may have a column ``group`` with the risk
        groups whose cut-points were learned in training.
    X, y : pandas.DataFrame
        The cohort that is evaluated, one row a patient.
    path : str or Path, default=None
        Where to write; None only returns the text.
    outcomes : dict of str to structured array, default=None
        Training outcomes by endpoint; None takes them from the first fitted estimator.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    by : str, Series or None, default="centre"
        Centre of each patient, or the column of ``X`` that holds it; ignored if ``X`` has no such column.
    folds : Series or array of shape (n_patients,), default=None
        Which fold each patient was left out in, if the predictions come from cross-validation: metrics are then
        computed inside folds, as in :func:`mmdls.evaluation.evaluate_predictions`. Figures pool them.
    split : Series, default=None
        For Table 1, when the cohort has parts such as development and external evaluation.
    treatment : str, Series or None, default="treatment"
    groups : DataFrame, default=None
        Subgroups, as in :func:`mmdls.tables.subgroups`; None takes sex, age, smoking, histology, stage, treatment and
        centre where the tables have such columns.
    flow : dict of str to int, default=None
        From the number screened, by reasons with negative numbers, to the patients of ``X``.
    settings : dict, default=None
        How the models were made, beyond the parameters of the estimators: seeds, tuning, partition, hardware.
    card : dict of str to str, default=None
        What only the author knows, for the model card: intended use, users, limitations. Missing parts stay open.
    title : str
    n_resamples : int, default=1000
    random_state : int or None, default=0

    Returns
    -------
    str
        The HTML text.

    Raises
    ------
    ValueError
        If ``flow`` does not end at the number of patients.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"clinical_age": rng.normal(size=60), "centre": np.resize(["A", "B"], 60)})
    >>> y = pd.DataFrame({"os_time": rng.exponential(30 * np.exp(-X["clinical_age"])), "os_event": 1})
    >>> text = report({"age": {"os": X["clinical_age"]}}, X, y, horizons=(12,), n_resamples=50)
    >>> text.startswith("<!DOCTYPE html>")
    True
    """
    study = _Study(
        models, X, y, outcomes, horizons, by, folds, split, treatment, groups, flow, n_resamples, random_state
    )
    parts = [
        ("Cohort", study.cohort()),
        ("Performance", study.performance()),
        ("Comparison of models", study.comparison()),
        ("Figures", study.figures()),
        ("Centres and subgroups", study.heterogeneity()),
        ("Hazard ratios and treatment", study.hazards()),
        ("Settings, versions, data", study.settings(settings)),
        ("Model card", study.card(card)),
        ("TRIPOD+AI checklist", study.checklist(card)),
    ]
    links = "".join(f'<a href="#{_anchor(name)}">{html.escape(name)}</a>' for name, _ in parts)
    body = "".join(f'<section id="{_anchor(n)}"><h2>{html.escape(n)}</h2>{text}</section>' for n, text in parts)
    text = _PAGE.format(title=html.escape(title), style=_STYLE, links=links, body=body)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


class _Study:
    """The cohort, the predictions, and one method for each section."""

    def __init__(
        self,
        models: Mapping[str, Any],
        X: pd.DataFrame,
        y: pd.DataFrame,
        outcomes: Mapping[str, np.ndarray] | None,
        horizons: Sequence[float],
        by: Any,
        folds: Any,
        split: pd.Series | None,
        treatment: Any,
        groups: pd.DataFrame | None,
        flow: Mapping[str, int] | None,
        n_resamples: int,
        random_state: Any,
    ) -> None:
        if not models:
            raise ValueError("models is empty; give at least one fitted estimator or dict of predictions, by name.")
        self.X, self.y, self.horizons = X, y, tuple(map(float, horizons))
        self.n_resamples, self.random_state = n_resamples, random_state
        self.predictions, self.estimators, self.outcomes = {}, {}, dict(outcomes or {})
        for name, model in models.items():
            if isinstance(model, Mapping):
                self.predictions[name] = dict(model)
            else:
                self.estimators[name] = model
                self.outcomes = {**training_outcomes(model), **self.outcomes}
                self.predictions[name] = _answers(model, X, y, self.horizons)
        self.names = list(self.predictions)
        told = dict.fromkeys(task for answers in self.predictions.values() for task in answers)
        self.tasks = check_target(y, list(told))
        self.centre, self.treatment = self._column(by), self._column(treatment)
        self.split, self.flow = split, flow
        self.groups = self._subgroups() if groups is None else groups
        self.options = {"outcomes": self.outcomes, "horizons": self.horizons, "n_resamples": n_resamples}
        self.options |= {"random_state": random_state, "folds": folds}
        self.tables = {n: evaluate_predictions(p, y, **self.options) for n, p in self.predictions.items()}

    def _column(self, given: Any) -> pd.Series | None:
        if isinstance(given, str):
            return self.X[given] if given in self.X.columns else None
        return given

    def _subgroups(self) -> pd.DataFrame:
        found = {}
        for word in ("sex", "age", "smok", "histolog", "subtype", "stage"):
            for table in (self.X, self.y):
                fitting = [c for c in table.columns if any(p.startswith(word) for p in str(c).lower().split("_"))]
                if fitting and word not in found:
                    found[word] = table[fitting[0]].rename(str(fitting[0]).partition("_")[2] or fitting[0])
        for name, values in (("treatment", self.treatment), ("centre", self.centre)):
            if values is not None:
                found[name] = values.rename(name)
        return pd.DataFrame({series.name: series for series in found.values()}, index=self.y.index)

    # -- sections ----------------------------------------------------------------------------------------------------

    def cohort(self) -> str:
        by = self.split if self.split is not None else self.centre
        shown = self.X if by is None else self.X.drop(columns=str(by.name), errors="ignore")
        table = tables.describe_cohort(shown, self.y, by)
        table.index = [f"{name} {level}".strip() for name, level in table.index]
        return "<h3>Flow of patients</h3>" + self._flow() + "<h3>Characteristics</h3>" + _html(table, index=True)

    def _flow(self) -> str:
        steps = dict(self.flow) if self.flow is not None else {"patients in the table": len(self.X)}
        if sum(steps.values()) != len(self.X):
            raise ValueError(
                f"flow must end at the {len(self.X)} patients of X; {' '.join(f'{n:+d}' for n in steps.values())} is "
                f"{sum(steps.values())}. Give the number screened, then every exclusion with a minus."
            )
        boxes, left = [], 0
        for label, number in steps.items():
            left += number
            kind, shown = (
                ("out", f"excluded: {html.escape(label)} (n = {-number})")
                if number < 0
                else (
                    "in",
                    f"{html.escape(label)} (n = {number})",
                )
            )
            boxes.append(f'<div class="{kind}">{shown}</div>')
        boxes.append(f'<div class="in">evaluated (n = {left})</div>')
        known = []
        for task in self.tasks.values():
            if task.kind == "survival":
                outcome = survival_target(self.y, task.name)
                there = ~np.isnan(outcome["time"])
                known.append(f"{task.name}: outcome known of {there.sum()}, {outcome['event'][there].sum()} events")
            else:
                counts = self.y[task.name].value_counts()
                inside = ", ".join(f"{counts.get(c, 0)} {c}" for c in task.classes)
                known.append(f"{task.name}: known of {counts.sum()} ({inside})")
        boxes.append('<div class="leaves">' + "".join(f"<div>{html.escape(k)}</div>" for k in known) + "</div>")
        return '<div class="flow">' + "".join(boxes) + "</div>"

    def performance(self) -> str:
        text = (
            f"<p>Value with its 95&nbsp;% interval from {self.n_resamples} bootstrap resamples of patients, the same "
            "for all models. Errors weighted for censoring by the training rows. A calibration error cannot be "
            "negative, so the resampled ones of a well calibrated model lie above its value.</p>"
        )
        for task in self.tasks:
            rows, notes = {}, []
            for name, table in self.tables.items():
                for row in table[table["task"] == task].to_dict("records"):
                    key = (_metric_name(row["metric"]), "" if np.isnan(row["horizon"]) else f"{row['horizon']:g}")
                    rows.setdefault(key, {})[name] = _cell(row["value"], row["low"], row["high"])
                    if row["note"]:
                        notes.append(f"{name}, {' '.join(key).strip()}: {row['note']}")
            frame = pd.DataFrame(
                [{"Metric": m, "Months": h, **values} for (m, h), values in rows.items()],
                columns=["Metric", "Months", *self.names],
            ).fillna("")
            text += f"<h3>{html.escape(task)}</h3>" + _html(frame) + _list(notes)
        return text

    def comparison(self) -> str:
        if len(self.names) < 2:
            return "<p>One model: nothing to compare.</p>"
        text = (
            f"<p>Differences to <b>{html.escape(self.names[0])}</b> on the same resamples; p by DeLong's test for AUC, "
            "otherwise by the paired bootstrap, corrected by Holm within each table.</p>"
        )
        for name in self.names[1:]:
            table = compare(
                self.predictions[name], self.predictions[self.names[0]], self.y, metrics=_PLANNED, **self.options
            )
            frame = pd.DataFrame(
                {
                    "Task": table["task"],
                    "Metric": table["metric"].map(_metric_name),
                    "Months": [_number(h, "g") for h in table["horizon"]],
                    name: [_number(v, ".3f") for v in table["first"]],
                    self.names[0]: [_number(v, ".3f") for v in table["second"]],
                    "Difference": [_cell(*r) for r in table[["difference", "low", "high"]].to_numpy()],
                    "p": table["p"].map(_p),
                    "p (Holm)": table["p_holm"].map(_p),
                    "Test": table["test"],
                }
            )
            text += f"<h3>{html.escape(name)} against {html.escape(self.names[0])}</h3>" + _html(frame)
        shared = [t for t in self.tasks if all(t in p for p in self.predictions.values())]
        if shared:
            nested = {name: {t: p[t] for t in shared} for name, p in self.predictions.items()}
            table = tables.added_value(nested, self.y, **self.options)
            frame = pd.DataFrame(
                {
                    "Task": table["task"],
                    "Model": table["model"],
                    "Metric": table["metric"].map(_metric_name),
                    "Value": [_number(v, ".3f") for v in table["value"]],
                    "Gain": [
                        "" if np.isnan(r[0]) else _cell(*r) for r in table[["gain", "low", "high"]].to_numpy(np.float64)
                    ],
                    "p": table["p"].map(_p),
                    "p (Holm)": table["p_holm"].map(_p),
                }
            )
            text += "<h3>Added value of each model over the one before</h3>"
            text += (
                "<p>The likelihood ratio tests what a model's score adds to that of the model before in one "
                "regression; its gain is the share of the likelihood of both that the earlier score lacks.</p>"
                + _html(frame)
            )
        return text

    def figures(self) -> str:
        return "".join(
            f'<h3>{html.escape(task.name)}</h3><div class="figures">{"".join(self._task_figures(task))}</div>'
            for task in self.tasks.values()
        )

    def _task_figures(self, task: Any) -> Iterator[str]:
        answers = {name: p[task.name] for name, p in self.predictions.items() if task.name in p}
        if task.kind != "survival":
            yield from self._class_figures(task, answers)
            return
        outcome = survival_target(self.y, task.name)
        known = self.y.index[~np.isnan(outcome["time"])]
        for table in answers.values():
            known = known[known.isin(table.index)]
        test = survival_target(self.y.loc[known], task.name)
        train = self.outcomes.get(task.name, test)
        event, time, resamples = test["event"], test["time"], min(self.n_resamples, 500)
        answers = {n: (t.to_frame("risk") if isinstance(t, pd.Series) else t).loc[known] for n, t in answers.items()}
        options = {"n_resamples": resamples, "random_state": self.random_state}
        for name, table in answers.items():
            if "group" in table.columns and table["group"].notna().any():
                values = table["group"].to_numpy()
                order = {g: str(g) for g in tables.levels(table["group"])}
                caption = f"{task.name} by risk groups of {name}; cut-points learned in training."
                yield _figure(
                    lambda ax, g=values, o=order: plotting.kaplan_meier(event, time, g, labels=o, ax=ax),
                    caption,
                    (6, 5.2),
                )
        if not any("group" in table.columns for table in answers.values()):
            yield _figure(lambda ax: plotting.kaplan_meier(event, time, ax=ax), f"{task.name}, Kaplan-Meier.", (6, 5.2))
        risk = {name: table["risk"].to_numpy(np.float64) for name, table in answers.items()}
        last = min(max(self.horizons, default=60.0), float(time.max()) * 0.98)
        grid = np.linspace(last / 20, last, 20)
        yield _figure(
            lambda ax: plotting.auc_over_time(train, test, risk, grid, ax=ax, **options),
            "Time-dependent AUC with pointwise 95 % intervals.",
        )
        curves = {name: _curves(table) for name, table in answers.items()}
        curves = {name: table for name, table in curves.items() if table.shape[1] > 1}
        shared = sorted(set.intersection(*(set(table.columns) for table in curves.values()))) if curves else []
        if len(shared) > 1:
            survival = {name: table[shared].to_numpy(np.float64) for name, table in curves.items()}
            yield _figure(
                lambda ax: plotting.brier_over_time(train, test, survival, np.array(shared), ax=ax, **options),
                "Brier score, weighted for censoring, against Kaplan-Meier on the training rows.",
            )
        for h in self.horizons:
            at = {name: table[h].to_numpy(np.float64) for name, table in curves.items() if h in table.columns}
            if at and (time > h).any():
                yield _figure(
                    lambda ax, a=at, h=h: plotting.survival_calibration(event, time, a, h, ax=ax),
                    f"Calibration at {h:g} months: smooth curve, and Kaplan-Meier in fifths of predicted risk.",
                    (4.8, 4.8),
                )
                yield _figure(
                    lambda ax, a=at, h=h: plotting.decision_curve(train, test, a, h, ax=ax),
                    f"Net benefit at {h:g} months, weighted for censoring.",
                )

    def _class_figures(self, task: Any, answers: dict[str, pd.DataFrame]) -> Iterator[str]:
        known = self.y.index[self.y[task.name].notna()]
        for table in answers.values():
            known = known[known.isin(table.index)]
        truth = self.y.loc[known, task.name].to_numpy()
        options = {"n_resamples": min(self.n_resamples, 500), "random_state": self.random_state}
        for label in task.classes[1:] if len(task.classes) == 2 else task.classes:
            own = (truth == label).astype(int)
            if own.min(initial=1) == own.max(initial=0):
                continue
            score = {name: table.loc[known, label].to_numpy(np.float64) for name, table in answers.items()}
            name = f"{task.name}: {label} against the rest"
            size = (4.8, 4.8)
            yield _figure(lambda ax, o=own, s=score: plotting.roc(o, s, ax=ax, **options), f"{name}, ROC.", size)
            yield _figure(
                lambda ax, o=own, s=score: plotting.precision_recall(o, s, ax=ax, **options),
                f"{name}, precision and recall.",
                size,
            )
            yield _figure(lambda ax, o=own, s=score: plotting.calibration(o, s, ax=ax), f"{name}, calibration.", size)

    def heterogeneity(self) -> str:
        name, text = self.names[-1], ""
        predictions = self.predictions[name]
        options = {**self.options, "horizons": ()}
        if self.centre is not None:
            table = tables.subgroups(predictions, self.y, self.centre.to_frame("centre"), **options)
            text += f"<h3>By centre: {html.escape(name)}</h3><div class='figures'>"
            for (task, metric), own in table.groupby(["task", "metric"], sort=False):
                own = own[own["group"] != "all"]
                pooled = tables.pooled_value(own["value"], own["low"], own["high"])
                label = f"{_metric_name(metric)}, {task}"
                drawn = {"label": "level", "pooled": pooled, "reference": 0.5, "xlabel": label}
                text += _figure(
                    lambda ax, t=own, o=drawn: plotting.forest(t, ax=ax, **o),
                    f"{label}: centres, random-effects mean (diamond), 95 % interval expected of a new centre (line).",
                    (7.5, 1.3 + 0.34 * (len(own) + 1)),
                )
            text += "</div>"
        if self.groups.shape[1]:
            table = tables.subgroups(predictions, self.y, self.groups, **options)
            frame = pd.DataFrame(
                {
                    "Group": table["group"],
                    "Level": table["level"],
                    "Task": table["task"],
                    "Metric": table["metric"].map(_metric_name),
                    "Value": [_cell(*row) for row in table[["value", "low", "high"]].to_numpy(dtype=np.float64)],
                    "n": [_number(n, ".0f") for n in table["n"].astype(float)],
                    "Events": [_number(n, ".0f") for n in table["n_events"].astype(float)],
                    "Note": table["note"],
                }
            )
            text += f"<h3>Subgroups: {html.escape(name)}</h3>" + _html(frame)
        return text or "<p>Neither centres nor subgroups were given.</p>"

    def hazards(self) -> str:
        name, text = self.names[-1], ""
        for task in self.tasks.values():
            if task.kind != "survival" or task.name not in self.predictions[name]:
                continue
            answers = self.predictions[name][task.name]
            risk = answers if isinstance(answers, pd.Series) else answers["risk"]
            covariates = pd.DataFrame({f"score of {name}": risk})
            if isinstance(answers, pd.DataFrame) and "group" in answers.columns:
                groups = pd.DataFrame({"risk group": answers["group"]})
                table = pd.concat(
                    [tables.hazard_table(self.y, task.name, part) for part in (covariates, groups)], ignore_index=True
                )
            else:
                table = tables.hazard_table(self.y, task.name, covariates)
            frame = pd.DataFrame(
                {
                    "Covariate": table["covariate"],
                    "Level": table["level"],
                    "n": table["n"],
                    "Events": table["n_events"],
                    "Hazard ratio": [_cell(*r) for r in table[["hazard_ratio", "low", "high"]].to_numpy()],
                    "p": table["p"].map(_p),
                    "p, proportional hazards": table["p_proportional"].map(_p),
                    "Note": table["note"],
                }
            )
            text += f"<h3>{html.escape(task.name)}</h3>" + _html(frame)
        if self.treatment is not None and text:
            table = tables.interaction_table(self.predictions[name], self.y, self.treatment)
            frame = pd.DataFrame(
                {
                    "Task": table["task"],
                    "Treatment": table["treatment"],
                    "n": table["n"],
                    "Events": table["n_events"],
                    "Hazard ratio per SD": [_cell(*r) for r in table[["hazard_ratio", "low", "high"]].to_numpy()],
                    "Interaction": [
                        "reference" if first else _cell(*r)
                        for first, r in zip(
                            ~table["task"].duplicated(),
                            table[["interaction", "interaction_low", "interaction_high"]].to_numpy(np.float64),
                            strict=True,
                        )
                    ],
                    "p": table["p"].map(_p),
                }
            )
            text += "<h3>Score and treatment</h3><p>Interaction: ratio of the hazard ratio to that under the first "
            text += "treatment. Without randomisation it says nothing of who benefits.</p>" + _html(frame)
        return text or "<p>No endpoint was predicted.</p>"

    def settings(self, settings: Mapping[str, Any] | None) -> str:
        text = "<h3>Data</h3>" + _html(
            pd.DataFrame(
                [
                    ("patients", len(self.X)),
                    ("columns of X, of y", f"{self.X.shape[1]}, {self.y.shape[1]}"),
                    ("SHA-256 of X", data_hash(self.X)),
                    ("SHA-256 of y", data_hash(self.y)),
                    ("bootstrap resamples, seed", f"{self.n_resamples}, {self.random_state}"),
                ],
                columns=["What", "Value"],
            )
        )
        text += "<p>Image cells that are arrays are part of the hash; of files only the path is.</p>"
        rows = [("Python", platform.python_version()), ("system", platform.platform())]
        for package in _PACKAGES:
            try:
                rows.append((package, version(package)))
            except PackageNotFoundError:
                continue
        text += "<h3>Versions</h3>" + _html(pd.DataFrame(rows, columns=["Package", "Version"]))
        told = dict(settings or {})
        for name, model in self.estimators.items():
            told[name] = type(model).__name__
            told |= {f"{name}: {key}": value for key, value in model.get_params(deep=True).items()}
        if told:
            frame = pd.DataFrame([(key, str(value)[:300]) for key, value in told.items()], columns=["Setting", "Value"])
            text += "<h3>Settings of the models</h3>" + _html(frame)
        else:
            text += f"<h3>Settings of the models</h3><p class='open'>{_OPEN}</p>"
        return text

    def card(self, card: Mapping[str, str] | None) -> str:
        given = dict(card or {})
        training = {
            name: f"{len(outcome)} patients, {int(outcome['event'].sum())} events"
            for name, outcome in self.outcomes.items()
        }
        rows = [
            ("Models", ", ".join(self.names)),
            ("Inputs", self._inputs()),
            ("Outputs", self._outputs()),
            ("Training data", "; ".join(f"{k}: {v}" for k, v in training.items()) or given.pop("Training data", _OPEN)),
            ("Evaluation data", f"{len(self.X)} patients" + self._centres()),
            ("Performance", self._headline()),
        ]
        rows += [(part, given.pop(part, _OPEN)) for part in _CARD] + list(given.items())
        return _html(pd.DataFrame(rows, columns=["Part", "Content"]))

    def checklist(self, card: Mapping[str, str] | None) -> str:
        n_missing = int(self.X.isna().to_numpy().sum())
        months = ", ".join(f"{h:g}" for h in self.horizons)
        answers = {
            "use": (card or {}).get("Intended use", ""),
            "outcome": f"{self._outputs()}; horizons {months} months. Definition and assessment: {_OPEN}",
            "predictors": f"{self._inputs()}. Measurement: {_OPEN}",
            "missing": f"{n_missing} missing cells, by variable in Cohort. Handling in the models: {_OPEN}",
            "measures": "Discrimination, error, calibration, net benefit, intervals, paired tests: Performance, "
            "Comparison of models, Figures",
            "output": f"{self._outputs()}. Risk groups by cut-points of the training rows. Thresholds in use: {_OPEN}",
            "versions": f"Versions: Settings, versions, data. Availability: {_OPEN}",
            "flow": "Cohort" if self.flow is not None else f"Counts: Cohort. Screening and exclusions: {_OPEN}",
            "characteristics": "Cohort, with missing values and reverse Kaplan-Meier follow-up",
            "counts": "Cohort, Model card",
            "performance": "Performance; subgroups: Centres and subgroups",
            "limitations": (card or {}).get("Limitations", ""),
        }
        if self.centre is not None:
            answers["centres"] = f"{self.centre.nunique()} centres. Location and setting: {_OPEN}"
            answers["heterogeneity"] = "Centres and subgroups, with random-effects mean and interval of a new centre"
        if self.treatment is not None:
            answers["treatment"] = "Hazard ratios and treatment; Centres and subgroups"
        if self.estimators:
            answers["settings"] = f"Parameters: Settings, versions, data. Rationale: {_OPEN}"
        if self.split is not None:
            answers["partition"] = answers["split"] = "Characteristics by split: Cohort"
        rows = [(n, section, topic, answers.get(key, "") or _OPEN) for n, section, topic, key in ITEMS]
        n_open = sum(row[3] == _OPEN for row in rows)
        text = (
            f"<p>Items in short words, after Collins et al., BMJ 2024;385:e078378; {n_open} of {len(rows)} are open, "
            "others in part.</p>"
        )
        return text + _html(pd.DataFrame(rows, columns=["Item", "Section", "To report", "Where, or open"]))

    # -- short texts -------------------------------------------------------------------------------------------------

    def _inputs(self) -> str:
        found = modalities(self.X)
        return ", ".join(f"{name} ({len(c)} columns)" if len(c) > 1 else name for name, c in found.items()) or _OPEN

    def _outputs(self) -> str:
        kinds = {"survival": "risk and survival curve", "ordinal": "ordered classes", "classification": "classes"}
        return ", ".join(f"{task.name} ({kinds[task.kind]})" for task in self.tasks.values())

    def _centres(self) -> str:
        return "" if self.centre is None else f" of {self.centre.nunique()} centres"

    def _headline(self) -> str:
        table = self.tables[self.names[-1]]
        shown = table[table["metric"].isin(["concordance_index", "auc"])]
        texts = [
            f"{r['task']} {_metric_name(r['metric'])} {_cell(r['value'], r['low'], r['high'])}"
            for r in shown.to_dict("records")
        ]
        return f"{self.names[-1]}: " + "; ".join(texts)


def data_hash(table: pd.DataFrame) -> str:
    """SHA-256 of a table of patients: names of columns and rows, every cell, arrays by shape and content.

    Parameters
    ----------
    table : pandas.DataFrame
        Paths count as text: what the files hold is not read.

    Returns
    -------
    str
    """
    digest = hashlib.sha256(repr([*map(str, table.columns), *map(str, table.index)]).encode())
    for column in table.columns:
        for cell in table[column]:
            if isinstance(cell, np.ndarray):
                content = f"{cell.dtype.str}{cell.shape}".encode() + np.ascontiguousarray(cell).tobytes()
            else:
                content = repr(cell.item() if isinstance(cell, np.generic) else cell).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _answers(model: Any, X: pd.DataFrame, y: pd.DataFrame, horizons: Sequence[float]) -> dict[str, pd.DataFrame]:
    """Predictions of a fitted estimator, with its risk groups where it learned cut-points."""
    answers = predict_tasks(model, X, y, horizons=horizons)
    cutpoints = getattr(model, "risk_cutpoints_", {})
    for name, points in cutpoints.items():
        if name in answers:
            names = _group_names(len(points) + 1)
            found = np.searchsorted(points, answers[name]["risk"], side="right")
            answers[name]["group"] = pd.Categorical.from_codes(found, names, ordered=True)
    return answers


def _curves(table: pd.DataFrame) -> pd.DataFrame:
    """Survival of all patients at the times that every one of them has."""
    numbers = [c for c in table.columns if isinstance(c, int | float | np.number) and table[c].notna().all()]
    return table[numbers].set_axis([float(c) for c in numbers], axis=1)


def _group_names(n: int) -> list[str]:
    return {2: ["low", "high"], 3: ["low", "middle", "high"]}.get(n, [f"group {k + 1}" for k in range(n)])


def _figure(draw: Callable[[Any], Any], caption: str, size: tuple[float, float] = (5.5, 4.5)) -> str:
    """A figure as an image inside the page; its text is drawn as shapes, so it looks the same everywhere."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the figures of a report need matplotlib: pip install "mmdls[report]".') from error

    figure = Figure(figsize=size, layout="constrained")
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "path", "svg.hashsalt": "mmdls"}):
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        draw(figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _html(table: pd.DataFrame, index: bool = False) -> str:
    shown = table.to_html(index=index, border=0, escape=True, na_rep="")
    shown = shown.replace(_OPEN, f'<span class="open">{_OPEN}</span>')
    return f'<div class="wide">{shown}</div>'


def _list(notes: list[str]) -> str:
    items = "".join(f"<li>{html.escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<ul class="notes">{items}</ul>' if items else ""


def _cell(value: float, low: float = np.nan, high: float = np.nan) -> str:
    if np.isnan(value):
        return "not defined"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def _p(value: float) -> str:
    return "" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _metric_name(metric: str) -> str:
    if metric.startswith("auc_"):
        return f"AUC, {metric.removeprefix('auc_')} against the rest"
    return _NAMES.get(metric, metric.replace("_", " ").capitalize())


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; margin: 0 auto; max-width: 1180px; padding: 0 24px 60px; }
h1 { font-size: 28px; margin: 28px 0 8px; }
h2 { font-size: 21px; margin: 44px 0 8px; padding-bottom: 4px; border-bottom: 2px solid #0072B2; }
h3 { font-size: 16px; margin: 24px 0 8px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; } nav a { color: #0072B2; text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left !important; padding: 3px 16px 3px 0; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
thead th { border-bottom: 1.5px solid #1c2430; white-space: nowrap; } tbody th { font-weight: 500; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 22px; }
figure { margin: 0; break-inside: avoid; } figure img { max-width: 100%; max-height: 480px; }
figcaption, .notes { font-size: 12.5px; color: #4a5562; }
.open { color: #A33E00; font-weight: 600; }
.flow { display: flex; flex-direction: column; align-items: flex-start; gap: 8px; }
.flow div div, .flow .in, .flow .out { border: 1px solid #8996a5; border-radius: 4px; padding: 6px 14px; }
.flow .in { background: #eef5fa; } .flow .out { margin-left: 60px; }
.flow .leaves { display: flex; flex-wrap: wrap; gap: 8px; margin-left: 30px; }
@media print { nav { display: none; } body { max-width: none; } }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><nav>{links}</nav>{body}</body></html>
"""
