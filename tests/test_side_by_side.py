"""Members of an ensemble that are computed at once learn what they learn one after the other."""

import warnings
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from torch import nn

import mmdls.training._net as loop
from mmdls import MMDLS, Part, SliceEncoder, TabularEncoder, Trainer
from mmdls.registry import (
    competing_risks_heads,
    fusions,
    nominal_heads,
    ordinal_heads,
    poolings,
    regression_heads,
    survival_heads,
    task_weights,
)
from mmdls.training._side_by_side import are_alike

N = 40


def cohort():
    """Two tables, of which patients lack one; tied times; outcomes that are unknown; every kind of task."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5))
    X = pd.DataFrame(x, columns=["a_1", "a_2", "a_3", "b_1", "b_2"], index=[f"P{i}" for i in range(N)])
    X.iloc[:6, :3] = np.nan
    X.iloc[6:9, 3:] = np.nan
    dfs = np.ceil(rng.exponential(10 * np.exp(-x[:, 0])))
    y = pd.DataFrame(
        {
            "kind": rng.choice(["x", "y", "z"], N),
            "grade": pd.Categorical.from_codes(rng.integers(0, 3, N), ["1", "2", "3"], ordered=True),
            "size_value": x[:, 1] + rng.normal(size=N),
            "dfs_time": dfs,
            "dfs_event": rng.random(N) < 0.7,
            "os_time": dfs + np.ceil(rng.exponential(9, N)),
            "os_event": rng.random(N) < 0.6,
            "cr_time": np.ceil(rng.exponential(12, N)),
            "cr_cause": rng.choice([0, 1, 2], N),
        },
        index=X.index,
    )
    y[["dfs_event", "os_event"]] = y[["dfs_event", "os_event"]].astype(float)
    y.loc["P9":"P11", ["grade", "size_value", "os_time", "os_event"]] = np.nan
    return X, y


CASES = [
    *({"image_encoder": SliceEncoder(pooling=name, embedding_dim=8)} for name in poolings),
    {"image_encoder": SliceEncoder(embedding_dim=8), "fusion": "cross_attention"},
    {"image_encoder": SliceEncoder(embedding_dim=8, trainable=False)},
    *({"fusion": name} for name in fusions),
    *({"survival_head": name} for name in survival_heads if name != "coherent"),
    *({"heads": {"grade": name}} for name in ordinal_heads),
    *({"heads": {"kind": name}} for name in nominal_heads),
    *({"heads": {"size": name}} for name in regression_heads),
    *({"heads": {"cr": name}} for name in competing_risks_heads),
    *({"task_weights": name} for name in task_weights),
    {"survival_head": "coherent"},
    {"survival_head": Part("cox", ties="breslow")},
    {"unimodal_loss_weight": 0.0},
    {"n_members": 2},
]


def trained(options, *, weights=None):
    X, y = cohort()
    options = dict(options)
    if "image_encoder" in options:
        rng = np.random.default_rng(2)
        X["ct_image"] = [
            rng.integers(0, 255, (n, 12, 12)).astype(np.uint8) if n else None for n in rng.integers(0, 4, N)
        ]
    trainer = Trainer(max_epochs=2, task_weights=options.pop("task_weights", None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MMDLS(
            **{"n_members": 3, "modality_dropout": 0.0, "random_state": 0, **options},
            table_encoder=TabularEncoder(linear=False),
            trainer=trainer,
        )
        return model.fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("options", CASES, ids=[str(each) for each in CASES])
def test_losses_are_those_of_members_in_turn(options, monkeypatch):
    """Those of the second epoch tell of the gradients of the first."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, values: values)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 2.0], N) if options.get("fusion") else None
    ways = []
    monkeypatch.setattr(loop, "are_alike", lambda networks: ways.append(are_alike(networks)) or ways[-1])
    at_once = trained(options, weights=weights)
    assert ways == [True]
    monkeypatch.setattr(loop, "are_alike", lambda networks: False)
    in_turn = trained(options, weights=weights)
    assert len(at_once.history_.columns) > 10
    pd.testing.assert_frame_equal(
        at_once.history_.drop(columns="dur"), in_turn.history_.drop(columns="dur"), rtol=1e-4, atol=1e-5
    )


class OwnDropout(nn.Dropout):
    """A part of another package."""


def test_parts_of_other_packages_are_computed_in_turn():
    known = [trained({"n_members": 1}).net_.module_.first]
    known.append(deepcopy(known[0]))
    assert are_alike(known) and not are_alike(known[:1])
    known[0].horizons = {"os": (12.0,)}
    assert not are_alike(known)
    known[0].horizons = {}
    known[1].trunk[2] = OwnDropout()
    assert not are_alike(known)
    known[1].trunk[2] = nn.BatchNorm1d(3)
    assert not are_alike(known)
    known[1].trunk[2] = nn.Dropout()
    known[1].trunk.append(known[1].trunk[0])
    assert are_alike(known), "one module in two places"
    known[1].trunk.append(nn.Linear(3, 3))
    known[1].trunk[-1].weight = known[1].trunk[0].weight
    assert not are_alike(known), "one weight in two modules"
