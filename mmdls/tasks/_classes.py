"""Class tasks: labels without an order, and ordered ones such as the stage."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mmdls.cohort import Task, class_codes, class_labels
from mmdls.metrics import auc_score
from mmdls.metrics._checks import check_probabilities
from mmdls.registry import nominal_heads, ordinal_heads, tasks
from mmdls.tasks._association import logistic_association
from mmdls.tasks._case import Case, Settings, Statistic
from mmdls.tasks._class_statistics import class_statistics
from mmdls.tasks._figures import Figure, FigureSettings, class_figures
from mmdls.tasks._reading import class_probabilities

__all__ = ["NominalTask", "OrdinalTask"]


@tasks.register("nominal")
@dataclass(frozen=True)
class NominalTask(Task):
    """Labels without an order: any column of ``y`` that no other kind of task claims.

    Outcomes are the numbers of the classes, -1 = unknown.

    Parameters
    ----------
    name, columns, classes
        As in :class:`mmdls.cohort.Task`.

    Examples
    --------
    >>> y = pd.DataFrame({"subtype": ["LUSC", "LUAD", None]})
    >>> (task,) = NominalTask.find(y)
    >>> task.classes, task.outcome(y).tolist()
    (('LUAD', 'LUSC'), [1, 0, -1])
    """

    kind = "nominal"
    about = "classes"
    answered_by = "predict_proba"
    has_classes = True
    estimator_type = "classifier"
    heads = nominal_heads
    default_head = "softmax"
    main_metric = "auc"
    compared_metrics = ("auc", "log_loss")
    metrics: ClassVar[tuple[str, ...]] = (
        "auc",
        "average_precision",
        "accuracy",
        "sensitivity",
        "specificity",
        "negative_predictive_value",
        "brier_score",
        "log_loss",
        "expected_calibration_error",
        "calibration_slope",
        "calibration_intercept",
    )
    scores: ClassVar[Mapping[str, tuple[int, bool]]] = {
        "auc": (1, False),
        "log_loss": (-1, False),
        "brier_score": (-1, False),
    }

    @classmethod
    def find(cls, y: pd.DataFrame) -> list[Task]:
        """Every column as labels; :func:`mmdls.cohort.find_tasks` asks only for those that are left."""
        return [cls(column, (column,), class_labels(y[column])) for column in y.columns]

    @classmethod
    def example(cls, rng: np.random.Generator, n_patients: int = 60) -> pd.DataFrame:
        """Random labels, some unknown."""
        labels = pd.Series(rng.choice(["a", "b", "c"], n_patients), dtype=object)
        return labels.mask(np.arange(n_patients) % 7 == 0).to_frame("task")

    def check(self, y: pd.DataFrame) -> None:
        """Labels were checked when they were found."""

    def learnable(self, y: pd.DataFrame) -> Task:
        """The task with the classes that are there; refuse a single one."""
        counts = np.bincount(self.outcome(y) + 1, minlength=len(self.classes) + 1)[1:]
        absent = [label for label, count in zip(self.classes, counts, strict=True) if not count]
        present = tuple(label for label in self.classes if label not in absent)
        if len(present) < 2:
            raise ValueError(
                f"task {self.name!r} has {len(present)} class(es): {list(present)}; at least 2 classes "
                "are needed to learn it. Leave it out of y, or fit on patients of every class."
            )
        if absent:
            warnings.warn(
                f"no patient has the classes {absent} of {self.name!r}; the model learns {list(present)} only "
                "and can never predict the others.",
                stacklevel=6,
            )
        return replace(self, classes=present)

    def outcome(self, y: pd.DataFrame) -> np.ndarray:
        """The number of each patient's class, -1 where unknown."""
        return class_codes(y[self.columns[0]], self.classes)

    def is_event(self, outcome: np.ndarray) -> np.ndarray:
        """Whose class is not the first."""
        return outcome > 0

    def strata(self, outcome: np.ndarray) -> np.ndarray:
        """The numbers of the classes."""
        return outcome

    def uninformative(self, outcome: np.ndarray) -> str:
        """All patients are of one class."""
        return "" if len(np.unique(outcome[self.known(outcome)])) > 1 else f"no two classes of {self.name!r}"

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    def effective_size(self, outcome: np.ndarray) -> int:
        """Patients of the smallest class."""
        return int(self._sizes(outcome).min())

    def count(self, outcome: np.ndarray) -> str:
        """Known labels, and patients of every class."""
        sizes = self._sizes(outcome)
        inside = ", ".join(f"{n} {label}" for n, label in zip(sizes, self.classes, strict=True))
        return f"known of {sizes.sum()} ({inside})"

    def describe(self, y: pd.DataFrame) -> dict[str, str]:
        """The number of patients of every class."""
        sizes = self._sizes(self.outcome(y))
        n = len(y)  # with the unknown ones, so that their row is of the same whole
        return {
            str(label): f"{size} ({size / n:.0%})" if n else "0"
            for label, size in zip(self.classes, sizes, strict=True)
        }

    def _sizes(self, outcome: np.ndarray) -> np.ndarray:
        """Patients of every class, (n_classes,), int."""
        return np.bincount(outcome[outcome >= 0], minlength=len(self.classes))

    def head_arguments(self) -> tuple[Any, ...]:
        """The number of classes."""
        return (len(self.classes),)

    def answer(self, head: Any, parameters: Any) -> Any:
        """Probabilities (B, K)."""
        return head.probabilities(parameters)

    def predictions(self, head: Any, answers: Any, times: np.ndarray, end: float) -> pd.DataFrame:
        """Probabilities, one column a class in their order."""
        return pd.DataFrame(answers.numpy(), columns=pd.Index(list(self.classes), dtype=object))

    def summary(self, predictions: pd.DataFrame) -> pd.Categorical:
        """The most probable class; of equal ones the first."""
        return pd.Categorical.from_codes(predictions.to_numpy().argmax(axis=1), categories=list(self.classes))

    def score(self, outcome: np.ndarray, predictions: pd.DataFrame) -> float:
        """ROC AUC, of more than two classes one against the rest."""
        return float(auc_score(outcome, predictions.to_numpy()))

    def read_predictions(self, table: pd.DataFrame, y: pd.DataFrame) -> tuple[Task, pd.DataFrame]:
        """Probabilities, one column a class in their order; those of patients of known class are checked."""
        labels = y[self.columns[0]]
        classes, probability = class_probabilities(self, table, labels)
        known = labels.notna().to_numpy()
        check_probabilities(probability[known], f"predictions of {self.name!r}", table.index[known])
        columns = pd.Index(list(classes), dtype=object)
        return replace(self, classes=classes), pd.DataFrame(probability, index=table.index, columns=columns)

    def complete(self, predictions: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
        """All classes in their order; one that was not learned has probability 0."""
        return predictions.reindex(columns=pd.Index(list(self.classes), dtype=object), fill_value=0.0)

    def statistics(self, case: Case, settings: Settings) -> Iterator[Statistic]:
        """Discrimination, calibration and error of the probabilities."""
        return class_statistics(case, settings)

    def figures(
        self, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: FigureSettings
    ) -> Iterator[Figure]:
        """ROC, precision-recall and calibration of the classes."""
        return class_figures(self.name, self.classes, outcome, predictions, settings)

    def association(self, outcome: np.ndarray, scores: Sequence[pd.DataFrame]) -> tuple[float, np.ndarray]:
        """Multinomial logistic regression on the log odds, among the classes that there are."""
        present, labels = np.unique(outcome, return_inverse=True)
        return logistic_association(labels, [table.to_numpy()[:, present] for table in scores])


@tasks.register("ordinal")
@dataclass(frozen=True)
class OrdinalTask(NominalTask):
    """Ordered labels: a column of ``y`` that is an ordered categorical.

    Parameters
    ----------
    name, columns, classes
        As in :class:`mmdls.cohort.Task`.

    Examples
    --------
    >>> stages = pd.CategoricalDtype(["I", "II", "III", "IV"], ordered=True)
    >>> y = pd.DataFrame({"stage": pd.Series(["IV", "I", "III"], dtype=stages)})
    >>> (task,) = OrdinalTask.find(y)
    >>> task.classes, task.outcome(y).tolist()
    (('I', 'II', 'III', 'IV'), [3, 0, 2])
    """

    kind = "ordinal"
    about = "ordered classes"
    heads = ordinal_heads
    default_head = "continuation_ratio"
    is_ordered = True
    metrics = (*NominalTask.metrics, "quadratic_weighted_kappa")
    scores = {**NominalTask.scores, "quadratic_weighted_kappa": (1, False)}

    @classmethod
    def find(cls, y: pd.DataFrame) -> list[Task]:
        """The ordered categoricals."""
        ordered = [c for c in y.columns if isinstance(y[c].dtype, pd.CategoricalDtype) and y[c].dtype.ordered]
        return [cls(column, (column,), class_labels(y[column])) for column in ordered]

    @classmethod
    def example(cls, rng: np.random.Generator, n_patients: int = 60) -> pd.DataFrame:
        """Random ordered labels, some unknown."""
        y = super().example(rng, n_patients)
        return y.astype(pd.CategoricalDtype(["c", "a", "b"], ordered=True))

    def summary(self, predictions: pd.DataFrame) -> pd.Categorical:
        """The most probable class, as an ordered categorical; of equal ones the first."""
        return super().summary(predictions).as_ordered()
