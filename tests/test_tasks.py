"""Kinds of tasks: found by the names of columns, one contract, and defects that its check names."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mmdls import registry
from mmdls.cohort import find_tasks
from mmdls.registry import Registry
from mmdls.tasks import NominalTask, OrdinalTask, SurvivalTask
from mmdls.testing import check_task


@pytest.fixture
def y():
    stage = pd.Categorical(["I", "II", "II"], ["I", "II", "III"], ordered=True)
    return pd.DataFrame({"os_event": [1, 0, 1], "stage": stage, "os_time": [3.0, 4.0, np.nan], "sex": ["f", "m", None]})


def test_tasks_are_found_in_the_order_of_the_columns(y):
    assert [(name, type(task)) for name, task in find_tasks(y).items()] == [
        ("os", SurvivalTask),
        ("stage", OrdinalTask),
        ("sex", NominalTask),
    ]


def test_half_of_an_endpoint_is_refused_with_what_is_missing(y):
    with pytest.raises(ValueError, match=r"'os_time' without .*'os_event' \(survival\)"):
        find_tasks(y.drop(columns="os_event"))


def test_a_column_that_two_kinds_claim_is_refused_with_both(y, monkeypatch):
    @dataclass(frozen=True)
    class CountTask(SurvivalTask):
        kind = "count"
        suffixes = ("event",)

    kinds = Registry("tasks", "mmdls.tasks")
    for kind in (CountTask, SurvivalTask, OrdinalTask, NominalTask):
        kinds.register(kind.kind)(kind)
    monkeypatch.setattr("mmdls.cohort._schema.tasks", kinds)
    with pytest.raises(ValueError, match="'os_event'.*two tasks: count .* survival"):
        find_tasks(y)


def test_two_tasks_of_one_name_are_refused_with_both(y):
    for column in ("os_value", "os"):
        with pytest.raises(ValueError, match=rf"two tasks of y are called 'os': survival .*\['{column}'\]. Rename"):
            find_tasks(y.assign(**{column: y["os_time"] if column == "os_value" else "a"}))


# -- wrong kinds, each with one defect that the check must name ------------------------------------------------------


@dataclass(frozen=True)
class PlacesTask(NominalTask):
    def outcome(self, y):
        return np.where(super().outcome(y) < 0, -1, np.arange(len(y)) % 3)


@dataclass(frozen=True)
class ForgetfulTask(NominalTask):
    def strata(self, outcome):
        return np.maximum(outcome, 0)


@dataclass(frozen=True)
class UndeclaredTask(NominalTask):
    metrics = ("auc",)


@dataclass(frozen=True)
class MixingTask(NominalTask):
    def answer(self, head, parameters):
        return head.probabilities(parameters).sort(dim=0).values

    def predictions(self, head, answers, times, end):
        return super().predictions(head, answers.sort(dim=0).values, times, end)


@dataclass(frozen=True)
class HeadlessTask(NominalTask):
    default_head = "none"


@pytest.mark.parametrize(
    ("kind", "defect"),
    [
        (PlacesTask, "order of the patients"),
        (ForgetfulTask, "strata"),
        (UndeclaredTask, "metrics must name"),
        (MixingTask, "mixes patients"),
        (HeadlessTask, "default_head"),
    ],
)
def test_the_check_names_what_is_wrong(kind, defect, monkeypatch):
    kinds = Registry("tasks", "mmdls.tasks")
    kinds.register("nominal")(kind)
    monkeypatch.setattr("mmdls.cohort._schema.tasks", kinds)
    with pytest.raises(AssertionError, match=defect):
        check_task(kind)


def test_higher_is_better_in_the_main_metric_of_every_kind():
    """Tables of comparisons say so of all differences."""
    kinds = [registry.tasks[name] for name in registry.tasks]
    assert len(kinds) > 4 and all(kind.scores[kind.main_metric][0] == 1 for kind in kinds)
