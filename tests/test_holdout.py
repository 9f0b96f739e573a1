"""Patients held out to find the best epoch: events among them, and losses that say something of the model."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmdls.training._build as build_module
from mmdls import MMDLS, Trainer
from mmdls.estimators import TabularEncoder
from mmdls.model_selection import stratified_holdout


def outcomes(n, n_deaths, seed):
    """Four tasks; deaths are as rare as asked for, one stage is rare too."""
    rng = np.random.default_rng(seed)
    died = rng.permutation(np.arange(n) < n_deaths)
    stages = rng.permutation(np.r_[["IV"] * min(3, n), rng.choice(["I-II", "III"], max(n - 3, 0))][:n])
    y = pd.DataFrame(
        {
            "subtype": rng.choice(["LUAD", "LUSC"], n),
            "stage": pd.Categorical(stages, ["I-II", "III", "IV"], ordered=True),
            "dfs_time": rng.uniform(1, 30, n),
            "dfs_event": rng.random(n) < 0.4,
            "os_event": died,
        }
    )
    y["os_time"] = y["dfs_time"] + 5
    return y


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(2, 150), share=st.floats(0, 1), fraction=st.floats(0.02, 0.6), seed=st.integers(0, 99), data=st.data()
)
def test_both_parts_hold_the_events_of_the_most_important_outcome(n, share, fraction, seed, data):
    y = outcomes(n, round(n * share), seed)
    target = data.draw(st.sampled_from(["table", "structured", "labels"]))
    died = y["os_event"].to_numpy()
    given_y = y
    if target == "structured":
        given_y = np.array(list(zip(died, y["os_time"], strict=True)), dtype=[("event", bool), ("time", float)])
    elif target == "labels":
        given_y = np.where(died, "dead", "alive")
    kept, held = stratified_holdout(given_y, fraction, random_state=seed)
    assert len(held) == min(max(round(n * fraction), 1), n - 1)
    n_deaths, wanted = died.sum(), died.sum() * len(held) / n
    if n_deaths > 1:
        # Both classes of plain labels need a row, and one row cannot be of both.
        assert (target != "labels" or len(held) > 1) <= died[held].sum() <= n_deaths - 1
    if n_deaths == 1 and n > 2:
        assert died[kept].sum() == 1, "who alone has the event is learned from"
    if target != "labels" and n_deaths > 1:
        assert abs(died[held].sum() - np.clip(wanted, 1, n_deaths - 1)) <= 1


@pytest.mark.parametrize("n_deaths", [2, 3, 4, 8])
def test_rare_events_and_rare_classes_are_on_both_sides(n_deaths):
    for seed in range(40):
        y = outcomes(120, n_deaths, seed)
        kept, held = stratified_holdout(y, 0.15, random_state=seed)
        for part in (y.iloc[kept], y.iloc[held]):
            assert part["os_event"].any() and part["dfs_event"].any()
            assert set(part["stage"]) == {"I-II", "III", "IV"} and set(part["subtype"]) == {"LUAD", "LUSC"}
        assert abs(y["dfs_event"].iloc[held].sum() - y["dfs_event"].sum() * 0.15) <= 1.5


def test_who_is_held_out_is_drawn_and_unknown_outcomes_have_their_share():
    y = outcomes(100, 30, 0).astype({"os_event": float})
    y.loc[y.index[:40], ["os_time", "os_event"]] = np.nan
    counts = np.zeros(100)
    for seed in range(200):
        held = stratified_holdout(y, 0.2, random_state=seed)[1]
        counts[held] += 1
        assert abs(y["os_event"].iloc[held].isna().sum() - 8) <= 1
    assert counts.min() > 10, "everybody can be held out"
    many = pd.Series(np.arange(5000) % 2500)
    assert len(stratified_holdout(many, 0.3, random_state=0)[1]) == 1500


def survivors(n_events, n=80, seed=0):
    """A cohort of one strong variable, one endpoint and few events; ``stage`` knows nothing."""
    rng = np.random.default_rng(seed)
    x, ids = rng.normal(size=n), [f"P{i}" for i in range(n)]
    event = np.zeros(n, bool)
    event[np.argsort(-x)[:n_events]] = True
    time = np.where(event, rng.uniform(1, 20, n), rng.uniform(20, 60, n))
    X = pd.DataFrame({"clinical_x": x, "clinical_z": rng.normal(size=n)}, index=ids)
    return X, pd.DataFrame({"os_time": time, "os_event": event}, index=ids)


def test_without_an_event_to_hold_out_nobody_is_held_out():
    X, y = survivors(1)
    with pytest.warns(UserWarning, match="no event of 'os'.*nobody is held out: all patients train for all epochs"):
        model = MMDLS(n_members=1, trainer=Trainer(max_epochs=30, patience=2), random_state=0).fit(X, y)
    assert len(model.history_) == 30 and "valid_loss" not in model.history_
    whole = MMDLS(n_members=1, trainer=Trainer(max_epochs=30, patience=2, validation_fraction=0), random_state=0).fit(
        X, y
    )
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))


@pytest.mark.parametrize("silent", ["endpoint", "classes", "weight"])
def test_a_loss_without_information_never_decides(silent):
    X, y = survivors(1 if silent == "endpoint" else 30)
    rng = np.random.default_rng(1)
    y["stage"] = np.where(X["clinical_z"] + rng.normal(size=80) > 0, "high", "low")
    weights = None
    if silent == "classes":
        y["stage"] = np.where(np.arange(80) == 5, "high", "low")
    if silent == "weight":
        weights = {"os": 0.0}
    trainer = Trainer(max_epochs=12, task_weights=weights)
    model = MMDLS(n_members=1, auxiliary_horizons=(12.0,), trainer=trainer, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    named = [str(warning.message) for warning in caught if "patients held out to" in str(warning.message)]
    gone, deciding = ("stage", "os") if silent == "classes" else ("os", "stage")
    history = model.history_
    assert f"valid_{gone}_loss" not in history and f"train_{gone}_loss" in history
    others = [c for c in history if c.startswith("valid_") and c not in ("valid_loss", "valid_loss_best")]
    np.testing.assert_allclose(history["valid_loss"], history[others].sum(axis=1), rtol=1e-6)
    assert f"valid_{deciding}_loss" in others
    if silent == "weight":
        assert not named
    else:
        what = "no event of 'os'" if silent == "endpoint" else "no two classes of 'stage'"
        assert len(named) == 1 and what in named[0] and f"by the losses of ['{deciding}'] alone" in named[0]


@pytest.mark.parametrize("seed", range(3))
def test_few_events_are_learned_with_validation_as_without(seed):
    X, y = survivors(4, seed=seed)
    score = MMDLS(trainer=Trainer(max_epochs=60), random_state=seed).fit(X, y).score(X, y)
    assert score > 0.9


def test_too_few_events_leave_the_linear_predictor_alone():
    X, y = survivors(6)
    with pytest.warns(UserWarning, match=r"fewer than 10 events of 'os' \(6\); nobody is held out"):
        model = MMDLS(
            n_members=5, table_encoder=TabularEncoder(linear=True), trainer=Trainer(max_epochs=3), random_state=0
        ).fit(X, y)
    assert model.combination_.loc["os"].tolist() == [0, 1]
    X, y = survivors(12)
    model = MMDLS(
        n_members=5, table_encoder=TabularEncoder(linear=True), trainer=Trainer(max_epochs=3), random_state=0
    ).fit(X, y)
    assert "valid_os_loss" in model.history_


def test_every_patient_is_held_out_by_one_member(monkeypatch):
    X, y = survivors(30)
    found = []
    monkeypatch.setattr(build_module, "train", lambda ensemble, members, *a, **k: found.extend(members) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        MMDLS(n_members=5, random_state=0).fit(X, y)
    held = torch.stack([member.held for member in found])
    assert len(found) == 5 and (held.sum(dim=0) == 1).all()
    events = y["os_event"].to_numpy()
    assert [int(events[rows].sum()) for rows in held.numpy()] == [6] * 5
