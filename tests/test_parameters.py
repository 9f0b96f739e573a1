"""Parameters that cannot be right are refused by name before anything is read."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.utils._param_validation import InvalidParameterError

from mmdls import MMDLS, MultimodalClassifier, MultimodalSurvival, Part, SliceEncoder, Trainer

WRONG = {
    "n_members": [0, 1.5, "five"],
    "modalities": [5, None],
    "image_encoder": [None, 3],
    "table_encoder": [None, object()],
    "fusion": [3, None],
    "survival_head": [None, 1],
    "ordinal_head": [2, None],
    "heads": ["cox", [1]],
    "hidden_features": [0, -4, 2.5, True, None],
    "class_embedding": [-1, 0.5],
    "dropout": [-0.1, 1.0, float("nan"), "0.1"],
    "modality_dropout": [-0.1, 1.0, float("nan")],
    "unimodal_loss_weight": [-1, float("nan"), float("inf")],
    "auxiliary_horizons": [12, "12", None, (0,), (12, float("nan")), ("12",), (-3.0,)],
    "trainer": [{"max_epochs": 1}, "adam"],
    "random_state": ["seed", 1.5],
    "class_weight": ["balance", 2.0],
    "endpoint": [3, ["os"]],
}
WRONG_TRAINING = {
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
    "callbacks": ["print", [print], [("name", 3)]],
    "checkpoint": [3, True],
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
            kind(**{"trainer": Trainer(max_epochs=1)} | {name: value}).fit(X, y)


@pytest.mark.parametrize("kind", [MMDLS, MultimodalClassifier, MultimodalSurvival, SliceEncoder])
@pytest.mark.parametrize("name", WRONG_TRAINING)
def test_a_wrong_parameter_of_training_is_refused_by_name(kind, name):
    y = np.arange(20) % 2 if kind is MultimodalClassifier else ENDPOINT
    for value in WRONG_TRAINING[name]:
        with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of Trainer .*Got"):
            kind(trainer=Trainer(**{"max_epochs": 1} | {name: value})).fit(X, y)


def test_every_parameter_is_checked():
    for kind in (MMDLS, MultimodalClassifier, MultimodalSurvival):
        names = kind().get_params(deep=False).keys()
        assert names <= kind._parameter_constraints.keys() and names <= WRONG.keys()
    assert Trainer().get_params().keys() == Trainer._parameter_constraints.keys() == WRONG_TRAINING.keys()


def test_the_model_has_few_parameters_of_its_own():
    assert len(MMDLS().get_params(deep=False)) <= 16


def test_what_scikit_learn_users_write_is_right():
    training = {
        "learning_rate": np.float32(1e-3),
        "patience": None,
        "gradient_clip": None,
        "task_weights": {"os": 0.5},
        "verbose": False,
    }
    given = {
        "hidden_features": np.int64(8),
        "dropout": 0,
        "auxiliary_horizons": np.array([6.0]),
        "random_state": np.random.RandomState(0),
    }
    assert len(MMDLS(**given, trainer=Trainer(max_epochs=1, **training)).fit(X, ENDPOINT).history_) == 1


def test_weights_of_tasks_that_are_not_there_are_refused():
    expected = "task_weights names ['dfs'], which are no tasks of y; its tasks are ['os']."
    with pytest.raises(ValueError, match=re.escape(expected)):
        MMDLS(trainer=Trainer(task_weights={"dfs": 2.0})).fit(X, ENDPOINT)


def test_weights_that_are_all_0_are_refused():
    with pytest.raises(ValueError, match=re.escape("task_weights is 0 for every task of y, ['os']")):
        MMDLS(trainer=Trainer(task_weights={"os": 0.0})).fit(X, ENDPOINT)
    y = ENDPOINT.assign(sex=["f", "m"] * 10)
    assert MMDLS(trainer=Trainer(max_epochs=1, task_weights={"os": 0.0}), random_state=0).fit(X, y).tasks_


def test_heads_of_tasks_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"heads names \['dfs'\], which are no tasks of y; its tasks are \['os'\]"):
        MMDLS(heads={"dfs": "cox"}).fit(X, ENDPOINT)


def test_a_head_of_a_kind_that_y_does_not_have_is_not_needed():
    X = pd.DataFrame({"clinical_age": np.arange(20.0)})
    y = pd.DataFrame({"sex": ["f", "m"] * 10})
    model = MMDLS(heads={"regression": "regression"}, trainer=Trainer(max_epochs=1), random_state=0)
    assert list(model.fit(X, y).tasks_) == ["sex"]


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (MMDLS(fusion=Part("gated", depth=1)), "'dropout', 'input_scale', 'n_heads'"),
        (MMDLS(survival_head=Part("cox", depth=1)), "'ties', 'bias'"),
        (MMDLS(heads={"os": Part("cox", depth=1)}), "'ties', 'bias'"),
    ],
)
def test_parameters_that_a_part_does_not_take_are_named_with_those_it_takes(model, known):
    with pytest.raises(ValueError, match=rf"Part\('\w+', depth=1\) has no parameter 'depth'; it has {known}\."):
        model.fit(X, ENDPOINT)


def test_the_columns_of_a_modality_are_names():
    with pytest.raises(ValueError, match="modality 'clinical' needs the names of columns or blocks"):
        MMDLS(modalities={"clinical": 1}, trainer=Trainer(max_epochs=1)).fit(X, ENDPOINT)
