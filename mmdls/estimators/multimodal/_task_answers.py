"""What a trained network answers, task by task, and what is fitted for that on the training rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sksurv.functions import StepFunction
from torch import Tensor

from mmdls.cohort import Task
from mmdls.estimators.survival._risk_groups import fit_cutpoints
from mmdls.metrics._horizons import check_times
from mmdls.modules import Outputs
from mmdls.parts import require
from mmdls.training._targets import Targets
from mmdls.training._threads import threads_of_torch

__all__ = ["TaskAnswers", "cumulative_hazard"]

_NO_TIMES = np.empty(0)


class TaskAnswers:
    """Answers of the multimodal estimators by task; what the tasks are, only the tasks know."""

    net_: Any
    tasks_: dict[str, Task]
    training_outcomes_: dict[str, np.ndarray]
    risk_cutpoints_: dict[str, np.ndarray]
    # Of endpoints the times at which survival steps; of all tasks the answer for a patient without any modality.
    _times: dict[str, np.ndarray]
    _average: dict[str, Tensor]

    def _outputs(self, X: Any) -> Outputs:
        raise NotImplementedError

    @property
    def _network(self) -> Any:
        """The :class:`Ensemble`; torch's containers hide the methods of its heads from type checkers."""
        return self.net_.module_

    def _head(self, name: str) -> Any:
        """The head of a task, on the CPU, where its answers are read."""
        return self._network.head(name).cpu()

    @property
    def _endpoints(self) -> list[str]:
        """The tasks that are answered by a risk and a survival function."""
        return [name for name, task in self.tasks_.items() if task.estimator_type == "survival"]

    @property
    def _class_tasks(self) -> list[str]:
        return [name for name, task in self.tasks_.items() if task.has_classes]

    def _check_offered(self, name: str, offered: Sequence[str]) -> None:
        if name not in offered:
            task = self.tasks_.get(name)
            hint = "" if task is None else f" It is answered by {task.answered_by}, with the {task.about}."
            raise KeyError(f"{name!r} is none of the tasks this answers for: {list(offered)}.{hint}")

    # -- fitting ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _fit_answers(
        self,
        parameters: Mapping[str, Tensor],
        counted: Tensor,
        y: pd.DataFrame,
        names: Sequence[str],
        sample_weight: np.ndarray | None,
    ) -> None:
        """Average answers of all tasks; baselines, outcomes, time grids and risk cut-points of the named ones.

        ``parameters`` (n, P) of every task are those of patients held out, where there are some, so that baselines and
        cut-points suit new patients: on patients it learned from a model is too sure. NaN: a patient is left out.
        """
        self.training_outcomes_, self.risk_cutpoints_, self._times, self._average = {}, {}, {}, {}
        usable = torch.stack([values.isfinite().all(dim=1) for values in parameters.values()]).all(dim=0)
        here = (counted & usable).numpy()
        if sample_weight is not None:
            here = here & (sample_weight > 0)
        rows = np.flatnonzero(here)
        weight = None if sample_weight is None else sample_weight[rows]
        answers = {name: task.answer(self._head(name), parameters[name]) for name, task in self.tasks_.items()}
        for name, values in answers.items():
            # No training row teaches the network what to answer for a patient of whom nothing is known.
            self._average[name] = torch.as_tensor(np.average(values[rows].numpy(), axis=0, weights=weight))
        targets = Targets.from_table(y, {name: self.tasks_[name] for name in names}, sample_weight)
        for name, task in targets.tasks.items():
            known = targets.learnable_rows(name, rows)
            head = self._head(name)
            known_weight = None if targets.sample_weight is None else targets.sample_weight[known]
            task.fit_head(head, answers[name][known], [field[known] for field in targets.fields[name]], known_weight)
            if task.is_censored:
                outcome = targets.outcomes[name]
                self.training_outcomes_[name] = outcome[task.known(outcome)]
            if name in self._endpoints:
                require(head, f"the head of {name!r}, {type(head).__name__},", ["times"])
                self._times[name] = head.times.numpy()
                risk = task.summary(task.predictions(head, answers[name][known], _NO_TIMES, np.inf))
                self.risk_cutpoints_[name] = fit_cutpoints(risk, known_weight, endpoint=name, stacklevel=5)

    # -- answers ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @threads_of_torch(1)
    def _predictions(
        self, outputs: Outputs, name: str, times: np.ndarray = _NO_TIMES, end: float = np.inf
    ) -> pd.DataFrame:
        """The columns that are predicted for a task; see :meth:`mmdls.cohort.Task.predictions`."""
        task, head = self.tasks_[name], self._head(name)
        answers = task.answer(head, outputs.tasks[name])
        if name in self._average:
            answers = torch.where(outputs.unknown[:, None], self._average[name], answers)
        return task.predictions(head, answers, times, end)

    def _summary(self, outputs: Outputs, name: str) -> Any:
        """A label, a risk or a value of each patient."""
        return self.tasks_[name].summary(self._predictions(outputs, name))

    def _task_score(self, outputs: Outputs, name: str, outcome: np.ndarray) -> float:
        """The score of a task on the patients whose outcome is known."""
        known = self.tasks_[name].known(outcome)
        predictions = self._predictions(outputs, name)[known].reset_index(drop=True)
        return self.tasks_[name].score(outcome[known], predictions)

    def predict_tasks(self, X: Any, times: Sequence[float] = ()) -> dict[str, pd.DataFrame]:
        """Everything that is predicted, from one pass through the network; what :mod:`mmdls.evaluation` reads.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        times : sequence of float, default=()
            Months at which survival is given.

        Returns
        -------
        dict of str to pandas.DataFrame
            By task, one row a patient. A class task: probabilities, one column a class. An endpoint: ``risk`` (higher =
            earlier event) and survival probabilities, one column a time, NaN beyond the training follow-up. Any other
            kind of task: what its class predicts.
        """
        tables = self._tables(self._outputs(X), times)
        return (
            {name: table.set_axis(X.index) for name, table in tables.items()} if isinstance(X, pd.DataFrame) else tables
        )

    def _tables(self, outputs: Outputs, times: Sequence[float]) -> dict[str, pd.DataFrame]:
        """The predictions of every task, from outputs of the network."""
        tables, grid = {}, np.asarray(times, dtype=np.float64)
        for name, task in self.tasks_.items():
            learned = self.training_outcomes_.get(name)
            if task.is_censored and learned is None:  # a checkpoint holds no baseline
                tables[name] = self._predictions(outputs, name)
            else:
                end = np.inf if learned is None else learned["time"].max()
                tables[name] = self._predictions(outputs, name, grid, end)
        return tables

    def predict_spread(self, X: Any, times: Sequence[float] = ()) -> dict[str, pd.DataFrame]:
        """Standard deviation over the members of what :meth:`predict_tasks` gives: a first measure of uncertainty.

        It tells how much predictions depend on the patients and random numbers of the training, not how sure an outcome
        is: a probability of one half may be certain.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        times : sequence of float, default=()
            Months at which survival is given.

        Returns
        -------
        dict of str to pandas.DataFrame
            Tables of the shapes of :meth:`predict_tasks`.

        Raises
        ------
        ValueError
            If the model has one member.
        """
        outputs = self._outputs(X)
        n_members = len(self._network.members)
        if n_members < 2:
            raise ValueError("one member has no spread; fit with n_members of at least 2.")
        each = [
            self._tables(replace(outputs, tasks={name: p[:, k] for name, p in outputs.members.items()}), times)
            for k in range(n_members)
        ]
        tables = {}
        for name, table in each[0].items():
            spread = np.std([one[name].to_numpy() for one in each], axis=0, ddof=1)
            tables[name] = pd.DataFrame(spread, X.index if isinstance(X, pd.DataFrame) else None, table.columns)
        return tables

    def _step_functions(
        self,
        X: Any,
        name: str,
        return_array: bool,
        transform: Callable[[np.ndarray], np.ndarray] = lambda s: s,
        asked: Any = None,
    ) -> np.ndarray:
        """Survival functions of an endpoint, or what they are transformed to; or the values at asked times alone."""
        self._check_offered(name, self._endpoints)
        if name not in self._times:
            raise RuntimeError(
                f"the baseline hazard of {name!r} is unknown, since this model came from a checkpoint; "
                "call fit_baselines(X, y) with patients of known outcome first."
            )
        if asked is not None:
            grid, end = check_times(asked), self.training_outcomes_[name]["time"].max()
            return self._predictions(self._outputs(X), name, grid, end)[list(grid)].to_numpy(copy=True)
        times = self._times[name]
        values = transform(self._predictions(self._outputs(X), name, times)[list(times)].to_numpy(copy=True))
        if return_array:
            return values
        start = float(transform(np.ones(1))[0])
        grid, values = np.r_[0.0, times], np.c_[np.full(len(values), start), values]
        if times[0] == 0:
            grid, values = grid[1:], values[:, 1:]
        functions = np.empty(len(values), dtype=object)
        functions[:] = [StepFunction(grid, row, domain=(0, None)) for row in values]
        return functions


def cumulative_hazard(survival: np.ndarray) -> np.ndarray:
    """Cumulative hazards of survival probabilities, finite where survival is 0."""
    return -np.log(np.clip(survival, np.finfo(float).tiny, None)) + 0.0
