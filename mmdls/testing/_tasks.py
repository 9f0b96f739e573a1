"""The contract of a kind of task."""

import pickle
from typing import Any

import numpy as np
import torch

from mmdls.cohort import Task, find_tasks
from mmdls.tasks import Case, Settings

__all__ = ["check_task"]


def check_task(kind: type[Task]) -> None:
    """Outcomes, learning, predictions and metrics of a kind of task fit together, whatever the order of the patients.

    Parameters
    ----------
    kind : subclass of Task
        Registered; its ``example`` gives the outcomes to check it on.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.registry import tasks
    >>> check_task(tasks["survival"])
    """
    rng = np.random.default_rng(0)
    y = kind.example(rng).set_axis([f"P{i}" for i in range(60)])
    (task,) = find_tasks(y).values()
    assert type(task) is kind, f"the columns {list(y.columns)} of its example are found as {task.kind!r}"
    assert pickle.loads(pickle.dumps(task)) == task, "a task must survive pickling"
    task.check(y)
    task = task.learnable(y)
    outcome, order = task.outcome(y), rng.permutation(len(y))
    known = task.known(outcome)
    assert known.dtype == bool and 0 < known.sum() < len(y), "its example must hold known and unknown outcomes"
    assert (known == y.notna().all(axis=1).to_numpy()).all(), "known() must be True where y has a value"
    assert _same(task.outcome(y.iloc[order]), outcome[order]), "outcome() must not depend on the order of the patients"
    assert ((task.strata(outcome) >= 0) == known).all(), "strata() must be -1 for unknown outcomes only"
    assert set(task.needed_strata(outcome)) <= set(task.strata(outcome)), "needed_strata() must be strata"
    assert all(len(key) == len(y) for key in task.sort_keys(outcome)), "sort_keys() must have one value a patient"
    assert task.is_event(outcome).dtype == bool, "is_event() must be boolean"
    assert not task.uninformative(outcome) and task.uninformative(outcome[:1]), "one patient alone is uninformative"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        predictions = _check_learning(task, outcome[known], rng).set_axis(y.index[known])
    _check_evaluation(task, outcome[known], predictions, y[known], rng)


def _check_learning(task: Task, outcome: np.ndarray, rng: np.random.Generator) -> Any:
    """Train the default head on noise; its predictions as a table."""
    assert task.heads is not None and task.default_head in task.heads, "default_head must be one of heads"
    targets = tuple(torch.as_tensor(np.array(values)) for values in task.targets(outcome))
    features, weight = torch.randn(len(outcome), 8), torch.as_tensor(rng.uniform(0.5, 2, len(outcome))).float()
    head = task.heads[task.default_head](8, *task.head_arguments())
    head.prepare(*targets, weight)
    loss = head.loss(head(features), *targets, weight)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss), f"the loss must be a finite number; got {loss}"
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters()), "the loss must teach the head"
    order = torch.as_tensor(rng.permutation(len(outcome)))
    shuffled = head.loss(head(features[order]), *(values[order] for values in targets), weight[order])
    assert torch.allclose(shuffled, loss, rtol=1e-4, atol=1e-5), "the loss must not depend on the order of the patients"
    some = torch.arange(len(outcome)) < len(outcome) * 2 // 3
    alone = head.loss(head(features[some]), *(values[some] for values in targets), weight[some])
    absent = head.loss(head(features), *targets, weight * some)
    assert torch.allclose(alone, absent, rtol=1e-4, atol=1e-5), "a patient of weight 0 must count as absent"
    with torch.no_grad():
        answers = task.answer(head.eval(), head(features))
        task.fit_head(head, answers, targets, weight)
        times = np.array([6.0, 12.0])
        table = task.predictions(head, answers, times, 1e9)
        assert len(table) == len(outcome), "predictions() must have one row a patient"
        part = task.predictions(head, answers[order], times, 1e9)
    assert np.allclose(part.to_numpy(float), table.to_numpy(float)[order], atol=1e-6), "predictions() mixes patients"
    assert len(task.summary(table)) == len(outcome), "summary() must have one value a patient"
    assert 0 <= task.score(outcome, table) <= 1, "score() must lie between 0 and 1"
    return table


def _check_evaluation(task: Task, outcome: np.ndarray, predictions: Any, y: Any, rng: np.random.Generator) -> None:
    """Every metric has a name that is announced, and weights of 1 give its value."""
    task, predicted = task.read_predictions(predictions, y)
    own = outcome if task.is_censored else np.empty(0)
    case = Case(task, outcome, predicted, own, own)
    names = []
    for statistic in case.statistics(Settings((12.0,))):
        value = float(statistic.compute(None))
        names.append(statistic.metric)
        if statistic.resampled:
            weighted = np.asarray(statistic.compute(np.ones((2, len(outcome)))), dtype=float)
            assert weighted.shape == (2,), f"{statistic.metric} must give one value for each row of weights"
            assert np.allclose(weighted, value, atol=1e-6, equal_nan=True), f"weights of 1 change {statistic.metric}"
    unknown = [name for name in names if name not in task.metrics and not name.startswith(("auc_", "net_benefit_"))]
    assert names and not unknown, f"metrics must name {unknown}"
    assert task.main_metric in task.metrics, "main_metric must be one of metrics"
    assert set(task.scores) <= set(task.metrics), "scores must be metrics"


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    fields = one.dtype.names or ()
    if fields:
        return all(_same(one[field], other[field]) for field in fields)
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
