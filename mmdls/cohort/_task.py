"""The contract of a kind of task: what can be predicted, and how it is checked, learned, predicted and scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

__all__ = ["Task", "decimals_of", "quartiles_text"]


@dataclass(frozen=True)
class Task:
    """One thing to predict; each kind of task is a subclass, registered in :data:`mmdls.registry.tasks`.

    A subclass says by class attributes how the columns of ``y`` name it and how its head stands in the network, and
    overrides the methods whose default does not fit. The defaults are those of one column of numbers
    ``<name>_<suffix>`` whose missing values are unknown.

    Parameters
    ----------
    name : str
        ``"os"`` for the columns ``os_time`` and ``os_event``; of a label, the column's name.
    columns : tuple of str
        The columns of ``y`` that hold it; none if a model was fitted on labels alone and does not know them.
    classes : tuple, default=()
        The classes in order, of a class task; those of an ordinal task with and without patients.

    Attributes
    ----------
    kind : str
        The name of the kind in the registry.
    suffixes : tuple of str
        The kind is found by columns ``<name>_<suffix>``, one for each suffix. Empty if :meth:`find` is overridden.
    about : str
        The kind in a few words, for messages and reports.
    estimator_type : {"classifier", "regressor", "survival", None}
        Models of scikit-learn or scikit-survival that answer it: see :mod:`mmdls.evaluation`.
    answered_by : str
        The method of :class:`mmdls.MMDLS` that gives its predictions.
    has_classes : bool
        Whether outcomes are class numbers.
    is_ordered : bool
        Whether the classes have an order.
    is_censored : bool
        Whether outcomes may be censored: they are then structured arrays with a field ``"time"`` (months).
    is_conditioned : bool
        Whether its head reads the shared representation joined by the embeddings of the predicted classes, as
        prognosis does, or the shared representation alone, as diagnosis does.
    has_horizons : bool
        Whether auxiliary heads learn if the event was seen by ``auxiliary_horizons``.
    heads : Registry or None
        The heads it may have; :meth:`head_arguments` are given to them behind the width.
    default_head : str
    metrics : tuple of str
        Names of the metrics of :meth:`statistics`, except those of single classes and thresholds.
    main_metric : str
        The metric that stands for the task where there is room for one.
    chance_level : float
        The main metric of a model without information; above 0 only for a main metric between 0 and 1.
    compared_metrics, added_metrics : tuple of str
        The few metrics by which a report compares two models, and by which a table of growing models says what each
        adds; every one is a test. Empty for the main metric alone.
    scores : dict of str to (sign, needs_curves)
        Metrics that are scorers of scikit-learn: ``1`` if higher is better, else ``-1``; whether predictions at times
        are needed.

    Examples
    --------
    A kind of task of its own: the number of metastases, in columns such as ``bone_lesions``.

    >>> class LesionCount(Task):
    ...     kind = "lesion_count"
    ...     suffixes = ("lesions",)
    ...     about = "a number of lesions"
    >>> y = pd.DataFrame({"bone_lesions": [0, 3], "stage": ["IV", "IV"]})
    >>> [(task.name, task.columns) for task in LesionCount.find(y)]
    [('bone', ('bone_lesions',))]
    """

    name: str
    columns: tuple[str, ...]
    classes: tuple[Any, ...] = ()

    kind: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    estimator_type: ClassVar[str | None] = None
    answered_by: ClassVar[str] = "predict"
    has_classes: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False
    is_censored: ClassVar[bool] = False
    is_conditioned: ClassVar[bool] = False
    has_horizons: ClassVar[bool] = False
    heads: ClassVar[Mapping[str, Any] | None] = None
    default_head: ClassVar[str] = ""
    metrics: ClassVar[tuple[str, ...]] = ()
    main_metric: ClassVar[str] = ""
    chance_level: ClassVar[float] = 0.5
    compared_metrics: ClassVar[tuple[str, ...]] = ()
    added_metrics: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[Mapping[str, tuple[int, bool]]] = {}

    # -- which columns of y are such a task ---------------------------------------------------------------------------

    @classmethod
    def find(cls, y: pd.DataFrame) -> list["Task"]:
        """The tasks of this kind among the columns of ``y``, in the order of the columns.

        Parameters
        ----------
        y : pandas.DataFrame of shape (n_patients, n_columns)
            Its columns have names of text, each once.

        Returns
        -------
        list of Task
        """
        found = {}
        for column in y.columns:
            name, _, suffix = column.rpartition("_")
            columns = tuple(f"{name}_{each}" for each in cls.suffixes)
            if name and suffix in cls.suffixes and set(columns) <= set(y.columns):
                found[name] = cls(name, columns)
        return list(found.values())

    @classmethod
    def example(cls, rng: np.random.Generator, n_patients: int = 60) -> pd.DataFrame:
        """Random outcomes as ``y`` holds them, some unknown, for the contract checks.

        Parameters
        ----------
        rng : numpy.random.Generator
        n_patients : int, default=60

        Returns
        -------
        pandas.DataFrame of shape (n_patients, n_columns)
        """
        values = rng.exponential(3, n_patients).round(1)
        values[::7] = np.nan
        return pd.DataFrame({f"task_{suffix}": values for suffix in cls.suffixes})

    # -- outcomes as arrays -------------------------------------------------------------------------------------------

    def check(self, y: pd.DataFrame) -> None:
        """Refuse values that cannot be right, with the rows; warn of those that are implausible.

        Raises
        ------
        TypeError, ValueError
        """
        self.outcome(y)

    def learnable(self, y: pd.DataFrame) -> "Task":
        """The task as it can be learned from these patients, for example with the classes that they have.

        Raises
        ------
        ValueError
            If nothing can be learned.
        """
        values = self.outcome(y)
        if len(np.unique(values[self.known(values)])) < 2:
            raise ValueError(
                f"task {self.name!r} has {int(self.known(values).sum())} known values, all the same; nothing can be "
                "learned about it. Leave it out of y, or fit on more patients."
            )
        return self

    def outcome(self, y: pd.DataFrame) -> np.ndarray:
        """The outcomes of some patients.

        Parameters
        ----------
        y : pandas.DataFrame with the columns of the task

        Returns
        -------
        ndarray of shape (n_patients,)
            Numbers, NaN where unknown; a subclass may give class numbers (-1 = unknown) or a structured array.
        """
        column = y[self.columns[0]]
        try:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{column.name!r} must hold numbers, NaN if unknown; got {column.dtype}: {error}."
            ) from None
        if np.isinf(values).any():
            rows = list(y.index[np.isinf(values)][:5])
            raise ValueError(f"{column.name!r} is infinite in rows {rows}; give a number, or NaN if unknown.")
        return values

    def known(self, outcome: np.ndarray) -> np.ndarray:
        """Whose outcome is known, (n_patients,), bool."""
        if self.is_censored:
            outcome = outcome["time"]
        return outcome >= 0 if outcome.dtype.kind in "iu" else ~np.isnan(outcome)

    def is_event(self, outcome: np.ndarray) -> np.ndarray:
        """Who counts as an event, (n_patients,), bool: the event was seen, or the class is not the first."""
        return np.zeros(len(outcome), dtype=bool)

    def strata(self, outcome: np.ndarray) -> np.ndarray:
        """Groups that a split or a resample keeps in proportion, (n_patients,), int; -1 where unknown."""
        groups = np.full(len(outcome), -1)
        known = self.known(outcome)
        values = outcome[known]
        if len(values):
            groups[known] = np.searchsorted(np.unique(np.quantile(values, [0.25, 0.5, 0.75])), values, side="left")
        return groups

    def needed_strata(self, outcome: np.ndarray) -> np.ndarray:
        """The strata of which training and held-out rows both need patients; ``(n_needed,)``, int."""
        return np.unique(self.strata(outcome)[self.known(outcome)])

    def sort_keys(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """Keys that order patients from the smallest to the largest outcome; the last one counts first."""
        return (outcome,)

    def uninformative(self, outcome: np.ndarray) -> str:
        """Why these patients cannot tell a good model of this task from a bad one; empty if they can."""
        known = outcome[self.known(outcome)]
        return "" if len(np.unique(known)) > 1 else f"no two values of {self.name!r}"

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """The columns that hold a measurement: a feature that puts all patients in its order is a copy of it."""
        return self.columns

    def effective_size(self, outcome: np.ndarray) -> int:
        """How many patients limit the precision: those with an event, those of the smallest class, or all known."""
        return int(self.known(outcome).sum())

    def count(self, outcome: np.ndarray) -> str:
        """How many outcomes are known, and of what, in a few words."""
        return f"outcome known of {int(self.known(outcome).sum())}"

    def describe(self, y: pd.DataFrame) -> dict[str, str]:
        """What a table of characteristics says of some patients, by row of the table."""
        outcome = self.outcome(y)
        values = outcome[self.known(outcome)]
        return {"median [quartiles]": quartiles_text(values, decimals_of(values))}

    # -- learning -----------------------------------------------------------------------------------------------------

    def targets(self, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the loss of the head takes behind its parameters: the fields of the outcomes, each ``(n_patients,)``."""
        return tuple(outcome[field] for field in outcome.dtype.names) if outcome.dtype.names else (outcome,)

    def head_arguments(self) -> tuple[Any, ...]:
        """What a head of this task is given behind the width of its features."""
        return ()

    def event_count(self, outcome: np.ndarray) -> np.ndarray:
        """Events of each patient, (n_patients,), int: batches hold their share of them."""
        return self.is_event(outcome).astype(int) if self.is_censored else np.zeros(len(outcome), dtype=int)

    def follow_up(self, outcome: np.ndarray) -> np.ndarray:
        """Months for which each patient is followed, (n_patients,): batches hold their share of long and short ones."""
        return np.nan_to_num(outcome["time"]) if self.is_censored else np.zeros(len(outcome))

    # -- predictions of a network -------------------------------------------------------------------------------------

    def answer(self, head: Any, parameters: Any) -> Any:
        """What is averaged over training patients for one without any modality, from the parameters (B, P) of a head.

        Parameters
        ----------
        head : torch.nn.Module
        parameters : Tensor of shape (B, P)

        Returns
        -------
        Tensor of shape (B, P) or (B, K)
            The parameters themselves; of a class task the probabilities.
        """
        return parameters

    def fit_head(self, head: Any, answers: Any, targets: Sequence[Any], sample_weight: Any = None) -> None:
        """Fit what the head needs beside its weights, such as a baseline hazard, on the training rows; often nothing.

        Parameters
        ----------
        head : torch.nn.Module
        answers : Tensor of shape (n, P)
        targets : sequence of Tensor, each (n,)
        sample_weight : Tensor of shape (n,), default=None
        """

    def predictions(self, head: Any, answers: Any, times: np.ndarray, end: float) -> pd.DataFrame:
        """The columns that are predicted: what :meth:`read_predictions` reads.

        Parameters
        ----------
        head : torch.nn.Module
        answers : Tensor of shape (B, P)
        times : ndarray of shape (T,)
            Months.
        end : float
            The end of the training follow-up in months; beyond it nothing is predicted (NaN).

        Returns
        -------
        pandas.DataFrame of shape (B, n_columns)
            ``value``; of a class task probabilities, one column a class; of an endpoint ``risk`` and survival.
        """
        return pd.DataFrame({"value": answers[:, 0].double().numpy()})

    def summary(self, predictions: pd.DataFrame) -> Any:
        """One value a patient, (n_patients,), from the columns that are predicted: a label, a risk or a value."""
        return predictions["value"].to_numpy()

    def score(self, outcome: np.ndarray, predictions: pd.DataFrame) -> float:
        """How well patients of known outcome are told apart, 0.5 = not at all, 1 = perfectly; NaN if undefined."""
        raise NotImplementedError(f"{type(self).__name__} needs a method score.")

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def read_predictions(self, table: pd.DataFrame, y: pd.DataFrame) -> tuple["Task", pd.DataFrame]:
        """Predictions as users hold them in the form that :meth:`statistics` reads, and the task as the model knows it.

        Parameters
        ----------
        table : pandas.DataFrame of shape (n_patients, n_columns)
        y : pandas.DataFrame
            The outcomes of the same patients in the same order.

        Returns
        -------
        task : Task
        predictions : pandas.DataFrame of shape (n_patients, n_columns)

        Raises
        ------
        ValueError
            If columns are missing or hold impossible values.
        """
        name = "value" if "value" in table.columns else "risk"  # a Series of predictions is called risk
        if name not in table.columns:
            raise ValueError(f"predictions of {self.name!r} need a column 'value'; they have {list(table.columns)}.")
        values = table[name].astype(np.float64)
        if not np.isfinite(values).all():
            bad = list(table.index[~np.isfinite(values)][:3])
            raise ValueError(f"predictions of {self.name!r} are NaN or infinite for the patients {bad}.")
        return self, values.to_frame("value")

    def complete(self, predictions: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
        """The predictions of a model whose training rows lacked some classes of ``y``, with all: what it says is 0."""
        return predictions

    def statistics(self, case: Any, settings: Any) -> Iterator[Any]:
        """Every metric as a function of patient weights.

        Parameters
        ----------
        case : mmdls.tasks.Case
        settings : mmdls.tasks.Settings

        Yields
        ------
        mmdls.tasks.Statistic
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method statistics.")

    def figures(self, outcome: np.ndarray, predictions: Mapping[str, pd.DataFrame], settings: Any) -> Iterator[Any]:
        """What a report draws of some models; nothing unless overridden.

        Parameters
        ----------
        outcome : ndarray of shape (n,)
            Of patients whose outcome is known.
        predictions : mapping of str to DataFrame
            By model, for these patients, as :meth:`read_predictions` gives them; a categorical column ``group`` holds
            the risk groups of a model that has some.
        settings : mmdls.tasks.FigureSettings

        Yields
        ------
        mmdls.tasks.Figure
        """
        return iter(())

    def association(self, outcome: np.ndarray, scores: Sequence[pd.DataFrame]) -> tuple[float, np.ndarray] | None:
        """Likelihood-ratio statistic of a regression of the outcome on the predictions of models, and coefficients.

        Parameters
        ----------
        outcome : ndarray of shape (n,)
            All known.
        scores : sequence of DataFrame
            Predictions of one or two models, as :meth:`read_predictions` gives them.

        Returns
        -------
        statistic : float
            Twice the gain in log-likelihood over no predictor.
        coefficients : ndarray of shape (n_models,)
            NaN without a finite maximum. Instead of both None, if there is no such regression for this kind.
        """
        return None


def decimals_of(values: np.ndarray) -> int:
    """How many decimals make three digits of a typical number, and not more than the numbers have."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return 0
    wanted = max(0, 2 - int(np.floor(np.log10(np.median(sizes)))))
    return next((n for n in range(wanted) if np.allclose(sizes, np.round(sizes, n), rtol=1e-9)), wanted)


def quartiles_text(values: np.ndarray, decimals: int) -> str:
    """Median and quartiles, ``65.7 [59.0, 71.3]``."""
    if not len(values):
        return ""
    low, middle, high = (f"{value:.{decimals}f}" for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return f"{middle} [{low}, {high}]"
