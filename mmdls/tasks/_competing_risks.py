"""Competing risks: the time to an event of one of several causes, such as death of cancer and other deaths."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import Task
from mmdls.cohort._causes import MOST_CAUSES
from mmdls.cohort._endpoints import endpoint_numbers, refuse_no_follow_up, shortened, warn_if_implausible
from mmdls.registry import competing_risks_heads, tasks
from mmdls.tasks._case import Case, Settings, Statistic
from mmdls.tasks._cause_statistics import CAUSE_METRICS, cause_statistics
from mmdls.tasks._figures import Figure, FigureSettings
from mmdls.tasks._reading import numbers_of, refuse_unknown_risks

__all__ = ["CompetingRisksTask"]

_DTYPE = [("cause", np.int64), ("time", np.float64)]
_COLUMN = re.compile(r"risk_(?P<risk>[1-9])|incidence_(?P<incidence>[1-9])_(?P<months>\d+(\.\d+)?)")


def _of_every_cause(*names: str) -> tuple[str, ...]:
    """The names of metrics of as many causes as there can be."""
    return tuple(f"{name}_cause{cause}" for cause in range(1, MOST_CAUSES + 1) for name in names)


@tasks.register("competing_risks")
@dataclass(frozen=True)
class CompetingRisksTask(Task):
    """Competing risks: columns ``<name>_time`` (months) and ``<name>_cause`` (0 = censored, 1, 2, ... = cause).

    Outcomes are structured arrays with the fields ``cause`` (int) and ``time`` (float64, NaN = unknown). Predictions
    have the columns ``risk_<cause>``, higher = more likely or earlier event of this cause, and
    ``incidence_<cause>_<months>``, the cumulative incidence. Names of metrics end in ``_cause<cause>``.

    Parameters
    ----------
    name, columns
        As in :class:`mmdls.cohort.Task`.
    classes : tuple of int, default=()
        The causes, 1, 2, ...; :meth:`learnable` finds them.

    Examples
    --------
    >>> y = pd.DataFrame({"death_time": [3.0, 9.0, 20.0], "death_cause": [1, 2, 0]})  # cancer, other, alive
    >>> (task,) = CompetingRisksTask.find(y)
    >>> task.learnable(y).classes, task.outcome(y)["cause"].tolist()
    ((1, 2), [1, 2, 0])
    """

    kind = "competing_risks"
    suffixes = ("time", "cause")
    about = "cumulative incidence of every cause"
    answered_by = "predict_cumulative_incidence"
    is_censored = True
    is_conditioned = True
    heads = competing_risks_heads
    default_head = "cause_specific_cox"
    main_metric = "concordance_index_cause1"
    compared_metrics = _of_every_cause("concordance_index", "cumulative_dynamic_auc", "integrated_brier_score")
    added_metrics = _of_every_cause("concordance_index", "integrated_brier_score", "integrated_ipa")
    metrics = _of_every_cause(*CAUSE_METRICS)
    scores = {
        "concordance_index_cause1": (1, False),
        "concordance_index_ipcw_cause1": (1, False),
        "cumulative_dynamic_auc_cause1": (1, True),
        "integrated_brier_score_cause1": (-1, True),
        "integrated_ipa_cause1": (1, True),
    }

    @classmethod
    def example(cls, rng: np.random.Generator, n_patients: int = 60) -> pd.DataFrame:
        """Random times and causes, some unknown."""
        y = pd.DataFrame({"task_time": rng.exponential(30, n_patients), "task_cause": rng.integers(0, 3, n_patients)})
        y = y.astype(float)
        y.iloc[::7] = np.nan
        return y

    def check(self, y: pd.DataFrame) -> None:
        """Refuse impossible times and causes; warn of times that are implausible for months."""
        warn_if_implausible(self.outcome(y)["time"], self.columns[0], stacklevel=5)

    def learnable(self, y: pd.DataFrame) -> "CompetingRisksTask":
        """The task with causes up to the largest code; refuse one without any event, warn of a cause without events."""
        outcome = self.outcome(y)
        causes = tuple(range(1, int(outcome["cause"].max(initial=0)) + 1))
        if not causes:
            raise ValueError(
                f"{self.name!r} has no event among {int(self.known(outcome).sum())} patients with known outcome; "
                "nothing can be learned about it. Leave it out of y, or fit on more patients."
            )
        refuse_no_follow_up(outcome["time"], self.columns[0])
        absent = [cause for cause in causes if not (outcome["cause"] == cause).any()]
        if absent:
            warnings.warn(
                f"no patient has an event of the causes {absent} of {self.name!r}; their predicted incidence is 0.",
                stacklevel=6,
            )
        return replace(self, classes=causes)

    def outcome(self, y: pd.DataFrame) -> np.ndarray:
        """Causes and times, ``(n_patients,)``; unknown ones have time NaN and cause 0."""
        codes = self._codes(y[self.columns[1]])
        time, _ = endpoint_numbers(y.assign(**{self.columns[1]: np.minimum(codes, 1)}), self.columns)
        outcome = np.empty(len(time), dtype=_DTYPE)
        outcome["time"], outcome["cause"] = time, np.nan_to_num(codes).astype(np.int64)
        return outcome

    def _codes(self, column: pd.Series) -> np.ndarray:
        """Causes as float64, NaN where unknown."""
        expected = f"{column.name!r} must hold whole numbers, 0 = censored and 1, 2, ... = the cause, NaN if unknown"
        column = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
        found = pd.api.types.infer_dtype(column, skipna=True)
        if found not in ("floating", "integer", "mixed-integer-float", "boolean", "empty"):
            labels = list(column.dropna().unique()[:4])
            mapping = ", ".join(f"{label!r}: ..." for label in labels)
            raise TypeError(f"{expected}; got {found}. Give every label a code: y[{column.name!r}].map({{{mapping}}}).")
        codes = column.to_numpy(dtype=np.float64, na_value=np.nan)
        with np.errstate(invalid="ignore"):
            wrong = ~np.isnan(codes) & ~((codes >= 0) & (codes <= MOST_CAUSES) & (codes % 1 == 0))
        if wrong.any():
            raise ValueError(
                f"{expected}; got {list(dict.fromkeys(codes[wrong].tolist()))[:4]} in rows "
                f"{shortened(column.index[wrong])}. At most {MOST_CAUSES} causes are possible; merge rare ones, and "
                "set a code of unknown to NaN, with its time."
            )
        return codes

    def is_event(self, outcome: np.ndarray) -> np.ndarray:
        """Who had an event of any cause, (n_patients,), bool."""
        return outcome["cause"] > 0

    def strata(self, outcome: np.ndarray) -> np.ndarray:
        """The cause, 0 = censored, -1 = unknown."""
        return np.where(self.known(outcome), outcome["cause"], -1)

    def needed_strata(self, outcome: np.ndarray) -> np.ndarray:
        """Both parts of a split need events of every cause; censored patients they may lack."""
        return np.unique(outcome["cause"][outcome["cause"] > 0])

    def sort_keys(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """By time; of equal times the censored one is the longer."""
        return outcome["cause"] == 0, outcome["time"]

    def uninformative(self, outcome: np.ndarray) -> str:
        """Nobody was still followed when somebody else had an event."""
        known = outcome[self.known(outcome)]
        event, time = known["cause"] > 0, known["time"]
        if event.any() and (time >= time[event].min()).sum() > 1:
            return ""
        return f"no event of {self.name!r} with another patient still followed"

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """The time."""
        return self.columns[:1]

    def effective_size(self, outcome: np.ndarray) -> int:
        """Events of the rarest cause."""
        return min(self._sizes(outcome).values(), default=0)

    def count(self, outcome: np.ndarray) -> str:
        """Known outcomes, and events of every cause."""
        inside = ", ".join(f"{n} events of cause {cause}" for cause, n in self._sizes(outcome).items())
        return f"{super().count(outcome)}, {inside or '0 events'}"

    def describe(self, y: pd.DataFrame) -> dict[str, str]:
        """Events of every cause and the median follow-up by reverse Kaplan-Meier."""
        outcome = self.outcome(y)
        known = outcome[self.known(outcome)]
        n = len(y)  # with the unknown ones, whose row is of the same whole
        rows = {
            f"events of cause {cause}": f"{size} ({size / n:.0%})" if n else "0"
            for cause, size in self._sizes(known).items()
        }
        follow_up = metrics.median_follow_up(known["cause"] > 0, known["time"]) if len(known) else np.nan
        return {**rows, "median follow-up, months": "not reached" if np.isnan(follow_up) else f"{follow_up:.1f}"}

    def _sizes(self, outcome: np.ndarray) -> dict[int, int]:
        """Events of every cause."""
        causes = self.classes or np.unique(outcome["cause"][outcome["cause"] > 0]).tolist()
        return {cause: int((outcome["cause"] == cause).sum()) for cause in causes}

    def targets(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """Cause and time; times apart by rounding only are tied."""
        return outcome["cause"], metrics.tied_times(outcome["time"])

    def head_arguments(self) -> tuple[Any, ...]:
        """The number of causes."""
        return (len(self.classes),)

    def fit_head(self, head: Any, answers: Any, targets: Sequence[Any], sample_weight: Any = None) -> None:
        """Fit the baseline hazards."""
        head.fit_baseline(answers, *targets, *(() if sample_weight is None else (sample_weight,)))

    def predictions(self, head: Any, answers: Any, times: np.ndarray, end: float) -> pd.DataFrame:
        """The risk of every cause, and its cumulative incidence at each time, NaN beyond the follow-up."""
        risk = head.risk(answers).numpy()
        table = {f"risk_{cause}": risk[:, k] for k, cause in enumerate(self.classes)}
        if len(times):
            incidence = head.cumulative_incidence(answers, answers.new_tensor(times).double()).numpy()
            incidence = np.where(times <= end, incidence, np.nan)
            for k, cause in enumerate(self.classes):
                for t, values in zip(times, incidence[:, k].T, strict=True):
                    table[f"incidence_{cause}_{t:.10g}"] = values
        return pd.DataFrame(table)

    def cumulative_incidence(self, predictions: pd.DataFrame) -> dict[int, pd.DataFrame]:
        """The predicted cumulative incidence of every cause, (n_patients, n_times), columns = months, ascending."""
        return {
            cause: _incidence(predictions, cause)
            for cause in range(1, MOST_CAUSES + 1)
            if f"risk_{cause}" in predictions
        }

    def summary(self, predictions: pd.DataFrame) -> np.ndarray:
        """The risk of cause 1."""
        return predictions["risk_1"].to_numpy()

    def score(self, outcome: np.ndarray, predictions: pd.DataFrame) -> float:
        """Mean of Wolbers' C over causes, of those for which it is defined."""
        codes, time = outcome["cause"], outcome["time"]
        found = [
            float(metrics.concordance_index_cause(codes, time, predictions[f"risk_{cause}"].to_numpy(), cause=cause))
            for cause in self.classes
        ]
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")

    def read_predictions(self, table: pd.DataFrame, y: pd.DataFrame) -> tuple[Task, pd.DataFrame]:
        """The columns ``risk_<cause>`` and ``incidence_<cause>_<months>``; other columns are left out."""
        read = {column: match for column in table if (match := _COLUMN.fullmatch(str(column)))}
        causes = sorted(int(match["risk"]) for match in read.values() if match["risk"])
        if not causes or causes != list(range(1, len(causes) + 1)):
            raise ValueError(
                f"predictions of {self.name!r} need a column 'risk_<cause>' for every cause from 1, and may have "
                f"columns 'incidence_<cause>_<months>'; they have {list(table.columns)[:8]}."
            )
        found = numbers_of(table[list(read)], self.name)
        risks = found[[f"risk_{cause}" for cause in causes]]
        refuse_unknown_risks(risks, self.name)
        incidence = found.drop(columns=risks.columns)
        wrong = ((incidence < -1e-9) | (incidence > 1 + 1e-9)).any(axis=1)
        if wrong.any():
            raise ValueError(
                f"predictions of {self.name!r} must hold cumulative incidences between 0 and 1; they do not for the "
                f"patients {list(table.index[wrong][:3])}."
            )
        return replace(self, classes=tuple(causes)), found

    def complete(self, predictions: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
        """All causes; one that was not learned has the same risk for everybody and incidence 0 in the follow-up."""
        first = predictions.filter(regex="^(risk|incidence)_1(_|$)")
        for cause in range(2, int(self.outcome(y)["cause"].max(initial=0)) + 1):
            if f"risk_{cause}" not in predictions:
                names = [column.replace("_1", f"_{cause}", 1) for column in first]
                predictions = predictions.join((0.0 * first).set_axis(names, axis=1))
        return predictions

    def statistics(self, case: Case, settings: Settings) -> Iterator[Statistic]:
        """Discrimination, error and calibration of every cause, with weights for censoring."""
        for cause in case.task.classes:
            counted = _counted(case, cause)
            for statistic in cause_statistics(case, settings, cause, _incidence(case.predicted, cause)):
                name = f"{statistic.metric}_cause{cause}"
                yield replace(statistic, metric=name, counted=counted)

    def figures(
        self, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: FigureSettings
    ) -> Iterator[Figure]:
        """The observed cumulative incidence of every cause, and the mean predicted one of each model."""
        for model, table in predictions.items():
            curves = self.cumulative_incidence(table)
            curves = {cause: curve.loc[:, curve.notna().all()] for cause, curve in curves.items()}
            curves = {cause: curve for cause, curve in curves.items() if curve.shape[1]}
            caption = f"{settings.label(self.name)}, cumulative incidence (Aalen-Johansen)"
            yield Figure(
                "cumulative_incidence",
                (outcome["cause"], outcome["time"], curves),
                f"{caption}, and mean prediction of {model}." if curves else f"{caption}.",
            )
            if not curves:
                return


def _incidence(predicted: pd.DataFrame, cause: int) -> pd.DataFrame:
    """The predicted cumulative incidence of one cause, columns = months, ascending."""
    months = {
        float(match["months"]): column
        for column in predicted
        if (match := _COLUMN.fullmatch(column)) and match["incidence"] == str(cause)
    }
    return predicted[[months[t] for t in sorted(months)]].set_axis(sorted(months), axis=1)


def _counted(case: Case, cause: int) -> Callable[[], tuple[int, int]]:
    """Patients, and events of one cause."""
    sizes = case.n, int((case.outcome["cause"] == cause).sum())
    return lambda: sizes
