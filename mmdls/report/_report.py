"""The report: one self-contained HTML file; what only the author can answer is marked as open."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls._files import whole_file
from mmdls.report import _card, _figures, _sections, _settings
from mmdls.report._html import PAGE, STYLE, anchor
from mmdls.report._study import Study
from mmdls.zoo import Comparison

__all__ = ["report"]


def report(
    models: Mapping[str, Any] | Comparison,
    X: pd.DataFrame,
    y: pd.DataFrame,
    path: Any = None,
    *,
    main: str | None = None,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = (12, 36, 60),
    by: str | pd.Series | None = "centre",
    folds: Any = None,
    split: pd.Series | None = None,
    treatment: str | pd.Series | None = "treatment",
    groups: pd.DataFrame | None = None,
    flow: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    card: Mapping[str, str] | None = None,
    tests: bool = False,
    labels: Mapping[str, str] | None = None,
    figures: Any = None,
    title: str = "Evaluation of prediction models",
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> str:
    """Evaluate models on a cohort and write one self-contained HTML file.

    Parameters
    ----------
    models : dict of str to fitted estimator or dict of predictions, or Comparison
        The result of :func:`mmdls.compare_models`, with its folds, models and chosen hyperparameters; or models by
        name. The first is the reference of all comparisons,
        for example the clinical model. Order them from small to large: the table of added value compares each with the
        one before. Predictions as in :func:`mmdls.evaluation.evaluate_predictions`; those of an endpoint may have a
        column ``group`` with the risk groups whose cut-points were learned in training. Results of
        :func:`mmdls.cross_predict` bring folds, groups, models and chosen hyperparameters.
    X, y : pandas.DataFrame
        The cohort that is evaluated, one row a patient.
    path : str or Path, default=None
        Where to write; None only returns the text.
    main : str, default=None
        The model of the sections that show one: centres and subgroups, hazard ratios and treatment, model card. None
        means the last.
    training_outcomes : dict of str to structured array of shape (n_rows,), default=None
        By endpoint; None takes them from the first fitted estimator.
    horizons : sequence of float, default=(12, 36, 60)
        Months.
    by : str, Series or None, default="centre"
        Centre of each patient, or the column of ``X`` that holds it; nothing if ``X`` has no column ``"centre"``.
    folds : Series or array of shape (n_patients,), default=None
        The fold in which each patient was left out, if predictions come from cross-validation: metrics are then
        computed within folds, as in :func:`mmdls.evaluation.evaluate_predictions`. Figures and calibration errors pool
        them.
    split : Series, default=None
        For Table 1, when the cohort has parts such as development and external evaluation.
    treatment : str, Series or None, default="treatment"
    groups : DataFrame, default=None
        Subgroups, as in :func:`mmdls.tables.subgroups`; None takes sex, age, smoking, histology, stage, treatment and
        centre where the tables have such columns.
    flow : dict of str to int, default=None
        The number screened, then each exclusion as a negative number; the sum must be the number of rows of ``X``.
    settings : dict, default=None
        How the models were fitted, beyond the parameters of the estimators: seeds, tuning, partition, hardware.
    card : dict of str to str, default=None
        Texts of the author for the model card: intended use, users, limitations. Missing parts are marked as open.
    tests : bool, default=False
        Whether Table 1 has p-values, as in :func:`mmdls.tables.describe_cohort`.
    labels : dict of str to str, default=None
        Readable names of columns, tasks, classes and levels: ``{"clinical_sex": "Sex", "os": "Overall survival"}``; of
        a level of one column ``{"clinical_sex=1": "Male"}``. Overall, disease-free, progression-free and
        recurrence-free survival have theirs already.
    figures : str or Path, default=None
        A new or empty folder that also gets every figure as PDF and SVG, for a journal.
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
    KeyError
        If ``main`` is none of the models, or ``by`` or ``treatment`` no column.
    FileExistsError
        If ``figures`` is a folder with files.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"clinical_age": rng.normal(size=60), "centre": np.resize(["A", "B"], 60)})
    >>> y = pd.DataFrame({"os_time": rng.exponential(30 * np.exp(-X["clinical_age"])), "os_event": 1})
    >>> text = report({"age": {"os": X["clinical_age"]}}, X, y, horizons=(12,), n_resamples=50)
    >>> text.startswith("<!DOCTYPE html>")
    True
    """
    study = Study(
        models,
        X,
        y,
        training_outcomes,
        horizons,
        by,
        folds,
        split,
        treatment,
        groups,
        flow,
        n_resamples,
        random_state,
        main,
        tests,
        labels,
        _new_folder(figures),
    )
    parts = [
        ("Cohort", _sections.cohort(study)),
        ("Performance", _sections.performance(study)),
        ("Comparison of models", _sections.comparison(study)),
        ("Figures", _figures.figures(study)),
        ("Centres and subgroups", _sections.heterogeneity(study)),
        ("Hazard ratios and treatment", _sections.hazards(study)),
        ("Settings, versions, data", _settings.settings(study, settings)),
        ("Model card", _card.card(study, card)),
        ("TRIPOD+AI checklist", _card.checklist(study, card)),
    ]
    links = "".join(f'<a href="#{anchor(name)}">{html.escape(name)}</a>' for name, _ in parts)
    body = "".join(f'<section id="{anchor(n)}"><h2>{html.escape(n)}</h2>{text}</section>' for n, text in parts)
    text = PAGE.format(title=html.escape(title), style=STYLE, links=links, body=body)
    if path is not None:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return text


def _new_folder(figures: Any) -> Path | None:
    if figures is None:
        return None
    folder = Path(figures)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"figures={str(figures)!r} is there and not an empty folder; name another, or empty it.")
    return folder
