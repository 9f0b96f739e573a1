"""Names of blocks, tasks and endpoints are the user's: any text trains, is stored and loaded again."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from mmdls import MMDLS, TabularEncoder, Trainer
from mmdls.modules import LossName
from mmdls.modules.containers import NamedModules, state_key

NAMES = [
    "T.stage",
    "training",
    "forward",
    "a.b",
    "a%2Eb",
    "a/b",
    "ä",
    "@",
    "os (x alone)",
    "x_loss (horizons)",
    "[a]*?",
    "items",
    "",
    "%",
]


_TEXT = st.lists(st.sampled_from(["os", "_loss", " ", "(", ")", " alone", "horizons"]), max_size=6).map("".join)


@settings(deadline=None)
@given(st.lists(st.text(), unique=True, max_size=8))
@example(NAMES)
@example(["_modules", "%74raining", "training", "%", "", "\ud800"])
def test_every_name_has_a_key_of_its_own_that_a_state_dict_survives(names):
    assert len({state_key(name) for name in names}) == len(names)
    modules = nn.Sequential(NamedModules({name: nn.Linear(1, 1) for name in names}), nn.Linear(1, 1))
    assert list(modules[0]) == list(modules[0].keys()) == names and len(modules[0]) == len(names)
    modules.train().eval().double()
    state = {key: torch.full_like(value, place) for place, (key, value) in enumerate(modules.state_dict().items())}
    assert len(state) == 2 * len(names) + 2 and all(key.count(".") <= 2 for key in state)
    modules.load_state_dict(state)
    for place, name in enumerate(names):
        assert name in modules[0] and modules[0][name].weight.item() == 2 * place
    again = pickle.loads(pickle.dumps(modules))
    assert [part.weight.item() for part in again[0].values()] == [2 * place for place in range(len(names))]


@settings(deadline=None)
@given(st.lists(st.tuples(_TEXT, st.none() | _TEXT, st.booleans()), unique=True, max_size=8))
@example([("os", None, True), ("os", "horizons", False), ("os_loss (horizons)", None, False)])
@example([("os", "a alone)_loss (b", False), ("os_loss (a alone)", "b", False), ("os_loss (b alone)", None, False)])
def test_every_loss_has_a_label_of_its_own(given_names):
    names = {LossName(task, None if horizons else modality, horizons) for task, modality, horizons in given_names}
    assert len({name.label for name in names}) == len(names)


@pytest.mark.filterwarnings("ignore:the risks of")
def test_a_model_trains_and_restores_its_best_weights_whatever_the_names_are():
    rng = np.random.default_rng(0)
    ids = [f"P{i}" for i in range(60)]
    blocks = NAMES[::2] + ["training", "a%2Eb"]
    X = pd.DataFrame({f"{name}_x_1": rng.normal(size=60) for name in blocks}, index=ids)
    y = pd.DataFrame({name: rng.choice(["low", "high"], 60) for name in NAMES[1::2]}, index=ids)
    for name in ("T.os", "training", "os@ä"):
        y[f"{name}_time"], y[f"{name}_event"] = rng.exponential(20, 60), rng.random(60) < 0.6
    y = y.drop(columns="training")  # the name of an endpoint now
    model = MMDLS(
        hidden_features=4,
        class_embedding=2,
        auxiliary_horizons=(12.0,),
        trainer=Trainer(learning_rate=0.3, patience=1, max_epochs=25, schedule=None),
    ).set_params(random_state=0)
    model.fit(X, y)
    assert len(model.history_) < 25, "it stopped early, and went back to the best epoch"
    assert {name for name, _, _ in model.modalities_} == set(blocks) and set(model.predict(X)) == set(model.tasks_)
    again = pickle.loads(pickle.dumps(model))
    again._network.load_state_dict(model._network.state_dict())
    pd.testing.assert_frame_equal(again.predict(X), model.predict(X))
    assert set(model.attention_weights(X)) == set(blocks)


def test_names_of_a_dict_are_any_and_those_of_a_list_are_prefixes_of_parameters():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 2)), columns=["age", "suv"])
    y = pd.DataFrame({"os_time": rng.exponential(20, 40), "os_event": rng.random(40) < 0.6})
    for names in (("a__b", "fusion"), ("pet", "T.1"), ("", "training")):
        chosen = {name: [column] for name, column in zip(names, X, strict=True)}
        model = MMDLS(modalities=chosen, trainer=Trainer(max_epochs=1), random_state=0).fit(X, y)
        assert tuple(name for name, _, _ in model.modalities_) == names
    for names, told in (
        (("a", "a"), "not unique"),
        (("a__b", "c"), "must not contain __"),
        (("fusion", "c"), "conflict"),
    ):
        listed = [(name, TabularEncoder(), [column]) for name, column in zip(names, X, strict=True)]
        with pytest.raises(ValueError, match=told):
            MMDLS(listed, trainer=Trainer(max_epochs=1)).fit(X, y)
