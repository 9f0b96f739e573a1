"""The figures that a report shows of a task: what is drawn, with a caption; :mod:`mmdls.plotting` draws it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Figure", "FigureSettings", "class_figures", "survival_figures"]


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Parameters
    ----------
    function : str
        The name of a function of :mod:`mmdls.plotting`.
    arguments : tuple
    caption : str
    options : mapping of str to object, default={}
        Arguments given by name, without ``ax``.
    size : (float, float), default=None
        Inches, at text of 10 points; it is printed at 7. None means that of the function.
    title : str, default=""
        Above the axes, for a figure of one model.

    Examples
    --------
    >>> Figure("roc", ([0, 1], [0.2, 0.9]), "Mutation, ROC.", {"n_resamples": 0}).function
    'roc'
    """

    function: str
    arguments: tuple[Any, ...]
    caption: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[float, float] | None = None
    title: str = ""


@dataclass(frozen=True)
class FigureSettings:
    """Settings of the figures of a report.

    Parameters
    ----------
    horizons : tuple of float, default=()
        Months.
    n_resamples : int, default=500
        Of the intervals.
    random_state : int or None, default=0
    training_outcome : ndarray of shape (n_train,), default=None
        Outcomes of the training rows of a censored task; None takes those of the patients who are shown.
    labels : mapping of str to str, default={}
        Readable names of tasks and classes.

    Examples
    --------
    >>> FigureSettings(horizons=(12.0, 36.0)).n_resamples
    500
    """

    horizons: tuple[float, ...] = ()
    n_resamples: int = 500
    random_state: Any = 0
    training_outcome: np.ndarray | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, name: Any) -> str:
        """The readable name of a task or class."""
        return self.labels.get(str(name), str(name))

    @property
    def bootstrap(self) -> dict[str, Any]:
        """The options of figures with intervals."""
        return {"n_resamples": self.n_resamples, "random_state": self.random_state}


def class_figures(
    name: str,
    classes: tuple[Any, ...],
    outcome: np.ndarray,
    predictions: Mapping[str, pd.DataFrame],
    settings: FigureSettings,
) -> Iterator[Figure]:
    """ROC, precision-recall and calibration of each class against the rest; of two classes of the second one."""
    for k, label in enumerate(classes):
        is_class = (outcome == k).astype(int)
        if len(classes) == 2 and k == 0 or is_class.min(initial=1) == is_class.max(initial=0):
            continue
        # By position: columns named True and False would be taken for a mask.
        position = {model: list(table.columns).index(label) for model, table in predictions.items()}
        score = {model: table.iloc[:, position[model]].to_numpy() for model, table in predictions.items()}
        title = f"{settings.label(name)}: {settings.label(label)} against the rest"
        for function, what in (("roc", "ROC"), ("precision_recall", "precision and recall")):
            yield Figure(function, (is_class, score), f"{title}, {what}.", settings.bootstrap)
        yield Figure("calibration", (is_class, score), f"{title}, calibration.")


def survival_figures(
    name: str, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: FigureSettings
) -> Iterator[Figure]:
    """Kaplan-Meier by risk groups, AUC and Brier score over time, calibration and net benefit at the horizons."""
    event, time = outcome["event"], outcome["time"]
    shown = settings.label(name)
    axis = {} if shown == name else {"ylabel": shown}
    training = outcome if settings.training_outcome is None else settings.training_outcome
    for model, table in predictions.items():
        if "group" in table.columns and table["group"].notna().any():
            has_group = table["group"].notna().to_numpy()
            groups = table["group"].to_numpy()[has_group]
            labels = {group: str(group) for group in table["group"].cat.categories}
            yield Figure(
                "kaplan_meier",
                (event[has_group], time[has_group], groups),
                f"{shown} by risk groups of {model}; cut-points learned in training.",
                {"labels": labels, **axis},
                title=model,
            )
    if not any("group" in table.columns for table in predictions.values()):
        yield Figure("kaplan_meier", (event, time), f"{shown}, Kaplan-Meier.", axis)
    risk = {model: table["risk"].to_numpy() for model, table in predictions.items()}
    last = min(max(settings.horizons, default=60.0), float(time.max()) * 0.98)
    yield Figure(
        "auc_over_time",
        (training, outcome, risk, np.linspace(last / 20, last, 20)),
        "Time-dependent AUC with pointwise 95 % intervals.",
        settings.bootstrap,
    )
    curves = {model: _curves(table) for model, table in predictions.items()}
    curves = {model: table for model, table in curves.items() if table.shape[1] > 1}
    shared = sorted(set.intersection(*(set(table.columns) for table in curves.values()))) if curves else []
    if len(shared) > 1:
        survival = {model: table[shared].to_numpy() for model, table in curves.items()}
        yield Figure(
            "brier_over_time",
            (training, outcome, survival, np.array(shared)),
            "Brier score, weighted for censoring, against Kaplan-Meier on the training rows.",
            settings.bootstrap,
        )
    at = {h: {m: t[h].to_numpy() for m, t in curves.items() if h in t.columns} for h in settings.horizons}
    drawn = [h for h in settings.horizons if at[h] and (time > h).any()]
    for h in drawn:
        yield Figure(
            "survival_calibration",
            (event, time, at[h], h),
            f"Calibration at {h:g} months: smooth curve with band; Kaplan-Meier in fifths of predicted risk.",
            {**settings.bootstrap, "n_resamples": min(settings.n_resamples, 200)},
        )
    for h in drawn:
        yield Figure(
            "decision_curve", (training, outcome, at[h], h), f"Net benefit at {h:g} months, weighted for censoring."
        )


def _curves(table: pd.DataFrame) -> pd.DataFrame:
    """Survival at the times at which all patients have a value."""
    return table[[c for c in table.columns if isinstance(c, float) and table[c].notna().all()]]
