"""Parameters that cannot be right are refused by name before anything is read."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.utils._param_validation import InvalidParameterError

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival

WRONG = {
    "modalities": [5, None],
    "image_encoder": ["conv", 3],
    "table_encoder": ["scale", object()],
    "fusion": [3, None],
    "fusion_params": ["dropout", [1]],
    "survival": [None, 1],
    "survival_params": [["efron"]],
    "ordinal": ["probit", None],
    "hidden_features": [0, -4, 2.5, True, None],
    "class_embedding": [-1, 0.5],
    "dropout": [-0.1, 1.0, float("nan"), "0.1"],
    "modality_dropout": [-0.1, 1.0, float("nan")],
    "modality_supervision": [-1, float("nan"), float("inf")],
    "horizons": [12, "12", None, (0,), (12, float("nan")), ("12",), (-3.0,)],
    "task_weights": ["os", [1.0], {"os": -1.0}, {"os": float("nan")}, {"os": "1"}],
    "optimizer": ["sgd", None],
    "max_epochs": [0, -1, 1.5, None],
    "learning_rate": [0, -1e-3, float("nan"), float("inf"), "fast"],
    "weight_decay": [-1, float("nan")],
    "batch_size": [0, -5, 2.5],
    "micro_batch_size": [0, "all", 1.5],
    "validation_fraction": [-0.1, 1.0, float("nan"), 5],
    "patience": [0, -1, 2.5],
    "schedule": ["linear", True],
    "gradient_clip": [-1, 0, float("nan"), "5"],
    "precision": ["half", None],
    "compile": ["yes", 2],
    "n_jobs": [1.5, "2"],
    "device": [0, None],
    "verbose": ["loud", -1],
    "random_state": ["seed", 1.5],
    "class_weight": ["balance", 2.0],
    "endpoint": [3, ["os"]],
}
X = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["clinical_x", "clinical_z"])
ENDPOINT = pd.DataFrame({"os_time": np.arange(1.0, 21), "os_event": np.arange(20) % 2})


@pytest.mark.parametrize("kind", [MMDLS, MultimodalClassifier, MultimodalSurvival])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_is_refused_by_name(kind, name):
    if name not in kind().get_params(deep=False):
        pytest.skip("not a parameter of it")
    y = np.arange(20) % 2 if kind is MultimodalClassifier else ENDPOINT
    for value in WRONG[name]:
        with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of {kind.__name__} .*Got"):
            kind(**{"max_epochs": 1} | {name: value}).fit(X, y)


def test_every_parameter_is_checked():
    for kind in (MMDLS, MultimodalClassifier, MultimodalSurvival):
        names = kind().get_params(deep=False).keys()
        assert names <= kind._parameter_constraints.keys() and names <= WRONG.keys()


def test_what_scikit_learn_users_write_is_right():
    given = {
        "hidden_features": np.int64(8),
        "dropout": 0,
        "learning_rate": np.float32(1e-3),
        "horizons": np.array([6.0]),
        "patience": None,
        "gradient_clip": None,
        "random_state": np.random.RandomState(0),
        "task_weights": {"os": 0.5},
        "verbose": False,
    }
    assert len(MMDLS(max_epochs=1, **given).fit(X, ENDPOINT).history_) == 1


def test_weights_of_tasks_that_are_not_there_are_refused():
    expected = "task_weights names ['dfs'], which are no tasks of y; its tasks are ['os']."
    with pytest.raises(ValueError, match=re.escape(expected)):
        MMDLS(task_weights={"dfs": 2.0}).fit(X, ENDPOINT)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("fusion_params", MMDLS(fusion_params={"depth": 1})),
        ("survival_params", MMDLS(survival_params={"depth": 1})),
    ],
)
def test_parameters_that_a_part_does_not_take_are_named_with_those_it_takes(name, model):
    with pytest.raises(TypeError, match=rf"{name} names \['depth'\], which \w+ does not take; it takes \["):
        model.fit(X, ENDPOINT)


def test_the_columns_of_a_modality_are_names():
    with pytest.raises(ValueError, match="modalities must give the columns of 'clinical' as a name or a list of names"):
        MMDLS(modalities={"clinical": 1}, max_epochs=1).fit(X, ENDPOINT)
