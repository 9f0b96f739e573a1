"""Right-censored endpoints: time and event of one kind, such as overall survival."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmdls.cohort import Task
from mmdls.cohort._endpoints import endpoint_numbers, refuse_no_follow_up, warn_if_implausible
from mmdls.metrics import concordance_index, median_follow_up, tied_times
from mmdls.metrics._censoring import median_text
from mmdls.registry import survival_heads, tasks
from mmdls.tasks._association import cox_association
from mmdls.tasks._case import Case, Settings, Statistic
from mmdls.tasks._figures import Figure, FigureSettings, survival_figures
from mmdls.tasks._reading import refuse_unknown_risks, risk_and_survival
from mmdls.tasks._survival_statistics import survival_statistics

__all__ = ["SurvivalTask"]

_DTYPE = [("event", bool), ("time", np.float64)]


@tasks.register("survival")
@dataclass(frozen=True)
class SurvivalTask(Task):
    """A right-censored endpoint: columns ``<name>_time`` (months) and ``<name>_event`` (1 = seen, 0 = censored).

    Outcomes are structured arrays with the fields ``event`` (bool) and ``time`` (float64, NaN = unknown).

    Parameters
    ----------
    name, columns, classes
        As in :class:`mmdls.cohort.Task`.

    Examples
    --------
    >>> y = pd.DataFrame({"os_time": [3.0, np.nan, 20.0], "os_event": [1, np.nan, 0]})
    >>> (task,) = SurvivalTask.find(y)
    >>> task.name, task.outcome(y)["event"].tolist(), task.outcome(y)["time"].tolist()
    ('os', [True, False, False], [3.0, nan, 20.0])
    """

    kind = "survival"
    suffixes = ("time", "event")
    about = "risk and survival curve"
    estimator_type = "survival"
    answered_by = "predict_survival_function"
    is_censored = True
    is_conditioned = True
    has_horizons = True
    heads = survival_heads
    default_head = "cox"
    main_metric = "concordance_index"
    compared_metrics = ("concordance_index", "cumulative_dynamic_auc", "integrated_brier_score")
    added_metrics = ("concordance_index", "integrated_brier_score", "integrated_ipa")
    metrics = (
        "concordance_index",
        "concordance_index_ipcw",
        "concordance_index_antolini",
        "cumulative_dynamic_auc",
        "brier_score",
        "index_of_prediction_accuracy",
        "integrated_brier_score",
        "integrated_ipa",
        "observed_expected_ratio",
        "calibration_slope",
        "calibration_ici",
        "calibration_e50",
        "calibration_e90",
        "log_likelihood",
        "d_calibration_p",
    )
    scores = {
        "concordance_index": (1, False),
        "concordance_index_ipcw": (1, False),
        "cumulative_dynamic_auc": (1, False),
        "integrated_brier_score": (-1, True),
        "integrated_ipa": (1, True),
    }

    @classmethod
    def example(cls, rng: np.random.Generator, n_patients: int = 60) -> pd.DataFrame:
        """Random times and events, some unknown."""
        y = pd.DataFrame({"task_time": rng.exponential(30, n_patients), "task_event": rng.random(n_patients) < 0.6})
        y = y.astype(float)
        y.iloc[::7] = np.nan
        return y

    def check(self, y: pd.DataFrame) -> None:
        """Refuse impossible times and events; warn of times that are implausible for months."""
        time, _ = endpoint_numbers(y, self.columns)
        warn_if_implausible(time, self.columns[0], stacklevel=5)

    def learnable(self, y: pd.DataFrame) -> "SurvivalTask":
        """Refuse an endpoint without any event, or any follow-up."""
        time, event = endpoint_numbers(y, self.columns)
        if not (event == 1).any():
            raise ValueError(
                f"endpoint {self.name!r} has no event among {int((~np.isnan(event)).sum())} patients with known "
                "outcome; nothing can be learned about it. Leave it out of y, or fit on more patients."
            )
        refuse_no_follow_up(time, self.columns[0])
        return self

    def outcome(self, y: pd.DataFrame) -> np.ndarray:
        """Events and times, ``(n_patients,)``; unknown ones have time NaN and event False."""
        time, event = endpoint_numbers(y, self.columns)
        outcome = np.empty(len(time), dtype=_DTYPE)
        outcome["time"], outcome["event"] = time, np.nan_to_num(event).astype(bool)
        return outcome

    def is_event(self, outcome: np.ndarray) -> np.ndarray:
        """Who had the event, (n_patients,), bool."""
        return outcome["event"]

    def strata(self, outcome: np.ndarray) -> np.ndarray:
        """1 = event, 0 = censored, -1 = unknown."""
        return np.where(self.known(outcome), outcome["event"].astype(int), -1)

    def needed_strata(self, outcome: np.ndarray) -> np.ndarray:
        """Both parts of a split need events; censored patients they may lack."""
        return np.array([1])

    def sort_keys(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """By time; of equal times the censored one is the longer."""
        return ~outcome["event"], outcome["time"]

    def uninformative(self, outcome: np.ndarray) -> str:
        """Nobody was still followed when somebody else had the event."""
        known = outcome[self.known(outcome)]
        event, time = known["event"], known["time"]
        if event.any() and (time >= time[event].min()).sum() > 1:
            return ""
        return f"no event of {self.name!r} with another patient still followed"

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """The time."""
        return self.columns[:1]

    def effective_size(self, outcome: np.ndarray) -> int:
        """Patients with the event."""
        return int(outcome["event"].sum())

    def count(self, outcome: np.ndarray) -> str:
        """Known outcomes and events."""
        n_events, n = int(outcome["event"].sum()), int(self.known(outcome).sum())
        return f"{super().count(outcome)}, {n_events} events" + (f" ({n_events / n:.0%})" if n else "")

    def describe(self, y: pd.DataFrame) -> dict[str, str]:
        """Events, the median with its 95 % interval, and the median follow-up by reverse Kaplan-Meier."""
        outcome = self.outcome(y)
        known = outcome[self.known(outcome)]
        n_events, n = int(known["event"].sum()), len(y)  # with the unknown ones, whose row is of the same whole
        follow_up = median_follow_up(known["event"], known["time"]) if len(known) else np.nan
        return {
            "events": f"{n_events} ({n_events / n:.0%})" if n else "0",
            "median, months [95 % interval]": median_text(known["event"], known["time"]) if len(known) else "",
            "median follow-up, months": "not reached" if np.isnan(follow_up) else f"{follow_up:.1f}",
        }

    def targets(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """Event and time; times apart by rounding only are tied."""
        return outcome["event"], tied_times(outcome["time"])

    def fit_head(self, head: Any, answers: Any, targets: Sequence[Any], sample_weight: Any = None) -> None:
        """Fit the baseline hazard."""
        head.fit_baseline(answers, *targets, *(() if sample_weight is None else (sample_weight,)))

    def predictions(self, head: Any, answers: Any, times: np.ndarray, end: float) -> pd.DataFrame:
        """``risk`` (higher = earlier event) and the survival probability at each time, NaN beyond the follow-up."""
        table = pd.DataFrame({"risk": head.risk(answers).numpy()})
        if not len(times):
            return table
        survival = head.survival_function(answers, answers.new_tensor(times).double()).numpy()
        return pd.concat([table, pd.DataFrame(np.where(times <= end, survival, np.nan), columns=times)], axis=1)

    def summary(self, predictions: pd.DataFrame) -> np.ndarray:
        """The risk."""
        return predictions["risk"].to_numpy()

    def score(self, outcome: np.ndarray, predictions: pd.DataFrame) -> float:
        """Harrell's C-index."""
        return float(concordance_index(outcome["event"], outcome["time"], predictions["risk"].to_numpy()))

    def read_predictions(self, table: pd.DataFrame, y: pd.DataFrame) -> tuple[Task, pd.DataFrame]:
        """``risk``, and survival by months as floats."""
        found = risk_and_survival(table, self.name)
        refuse_unknown_risks(found.loc[self.known(self.outcome(y)), ["risk"]], self.name)
        return self, found

    def statistics(self, case: Case, settings: Settings) -> Iterator[Statistic]:
        """Discrimination, calibration and error, with weights for censoring."""
        return survival_statistics(case, settings)

    def figures(
        self, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: FigureSettings
    ) -> Iterator[Figure]:
        """Risk groups, and discrimination, error, calibration and net benefit over time."""
        return survival_figures(self.name, outcome, predictions, settings)

    def association(self, outcome: np.ndarray, scores: Sequence[pd.DataFrame]) -> tuple[float, np.ndarray]:
        """Cox regression on the risks."""
        risks = np.column_stack([table["risk"].to_numpy() for table in scores])
        return cox_association(outcome["event"], outcome["time"], risks)
