"""The logistic hazard head: Kaplan-Meier without features, the classical likelihood, and numbers of any size."""

import numpy as np
import pandas as pd
import pytest
import torch

from mmdls import MultimodalSurvival, Trainer
from mmdls.metrics import kaplan_meier, step_values
from mmdls.modules import LogisticHazardHead

COHORTS = ("continuous", "months", "visits", "few events", "all die", "one event", "event at zero")


def draw(kind, seed=0):
    rng = np.random.default_rng(seed)
    n = 25 if kind == "few events" else 200
    time, censoring = rng.exponential(20, n), rng.uniform(0, 60, n)
    if kind == "few events":
        censoring = censoring / 10
    if kind == "all die":
        censoring = censoring + 1e3
    event, time = time <= censoring, np.minimum(time, censoring)
    if kind == "months":
        time = np.ceil(time)
    if kind == "visits":
        time, event = rng.choice([6.0, 12.0, 24.0], n), rng.random(n) < 0.8
    if kind == "one event":
        event = np.arange(n) == 3
    if kind == "event at zero":
        time[:10], event[:10] = 0.0, True
    return event, time


def fitted_without_features(event, time, n_intervals, weight=None):
    """The head with nothing but its bias, fitted to the end."""
    head = LogisticHazardHead(1, n_intervals).double()
    event, time = torch.as_tensor(event), torch.as_tensor(time)
    weight = None if weight is None else torch.as_tensor(weight)
    head.prepare(event, time, weight)
    nothing = torch.zeros(len(event), 1, dtype=torch.float64)
    with torch.no_grad():
        head.linear.bias.add_(torch.linspace(-1, 1, n_intervals))  # away from the start, which is right already
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = head.loss(head(nothing), event, time, weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    return head, head(nothing[:1]).detach()


@pytest.mark.parametrize("n_intervals", [1, 4, 20, 300])
@pytest.mark.parametrize("kind", COHORTS)
def test_without_features_it_is_kaplan_meier_at_every_time(kind, n_intervals):
    event, time = draw(kind)
    head, parameters = fitted_without_features(event, time, n_intervals)
    everywhere = np.unique(np.r_[0.0, time, time + 0.01, np.linspace(0, time.max() + 30, 200)])
    curve = head.survival_function(parameters, torch.as_tensor(everywhere))[0].numpy()
    # A hazard that ends at S = 0 is infinite, and is only approached.
    np.testing.assert_allclose(curve, step_values(*kaplan_meier(event, time), everywhere), atol=2e-3)
    np.testing.assert_array_equal(head.times, np.unique(time))


def test_with_weights_it_is_the_kaplan_meier_of_repeated_patients():
    event, time = draw("months")
    weight = np.random.default_rng(1).integers(0, 4, len(time)).astype(float)
    head, parameters = fitted_without_features(event, time, 8, weight)
    rows = np.repeat(np.arange(len(time)), weight.astype(int))
    expected = step_values(*kaplan_meier(event[rows], time[rows]), np.unique(time))
    curve = head.survival_function(parameters, torch.as_tensor(np.unique(time)))[0].numpy()
    np.testing.assert_allclose(curve, expected, atol=1e-3)
    scaled = LogisticHazardHead(1, 8)
    scaled.prepare(torch.as_tensor(event), torch.as_tensor(time), torch.as_tensor(weight) * 7)
    torch.testing.assert_close(scaled.progress, head.progress)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_an_interval_for_every_event_time_is_the_classical_likelihood(scale):
    """Gensheimer and Narasimhan: an event is the last of a row of Bernoulli trials; times at an end lie inside."""
    event, time = draw("visits")
    head = LogisticHazardHead(3)
    head.prepare(torch.as_tensor(event), torch.as_tensor(time))
    assert head.event_times.tolist() == [6.0, 12.0, 24.0] and head.progress.tolist() == [0.0, 1.0, 2.0, 3.0]
    logits = torch.randn(len(time), 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits *= scale
    hazard = torch.sigmoid(logits).numpy()
    log_event, log_survived = -np.logaddexp(0, -logits.numpy()), -np.logaddexp(0, logits.numpy())
    place = np.searchsorted([6.0, 12.0, 24.0], time)
    total = 0.0
    for row, (died, interval) in enumerate(zip(event, place, strict=True)):
        total -= log_survived[row, :interval].sum()
        total -= log_event[row, interval] if died else log_survived[row, interval]
    loss = head.loss(logits, torch.as_tensor(event), torch.as_tensor(time))
    assert float(loss) == pytest.approx(total / event.sum(), rel=1e-6 if scale > 1 else 1e-9)
    curve = head.survival_function(logits, torch.tensor([5.9, 6.0, 11.9, 24.0, 99.0])).numpy()
    survived = (1 - hazard[:, :3]).cumprod(axis=1)
    expected = np.c_[np.ones(len(time)), survived[:, 0], survived[:, 0], survived[:, 2], survived[:, 2]]
    np.testing.assert_allclose(curve, expected, rtol=1e-9, atol=1e-12)
    # Beyond the last event time by the mean of 8 months between them.
    mean = 6.0 + survived @ [6.0, 12.0, 8.0]
    np.testing.assert_allclose(head.risk(logits), -mean, rtol=1e-9)


@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_logits_of_any_size_give_finite_losses_and_gradients(size):
    event, time = (torch.as_tensor(values) for values in draw("continuous"))
    head = LogisticHazardHead(1, 6)
    head.prepare(event, time)
    logits = (torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).sign() * size).requires_grad_()
    loss = head.loss(logits, event, time)
    loss.backward()
    exact = head.loss(logits.detach().double(), event, time)
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    curve = head.survival_function(logits.detach(), time.unique())
    assert ((curve >= 0) & (curve <= 1)).all() and (curve.diff(dim=1) <= 0).all()


def test_times_that_training_did_not_know_are_placed():
    head = LogisticHazardHead(1, 3)
    head.prepare(torch.tensor([True, True, True, False]), torch.tensor([2.0, 4.0, 6.0, 9.0]))
    logits = torch.zeros(3, 3)
    event = torch.ones(3, dtype=torch.bool)
    known = head.loss(logits, event, torch.tensor([2.0, 4.0, 6.0]))
    torch.testing.assert_close(head.loss(logits, event, torch.tensor([1.0, 3.0, 99.0])), known)
    censored = head.loss(logits, torch.tensor([True, False, False]), torch.tensor([2.0, 3.0, 99.0]))
    torch.testing.assert_close(censored, torch.tensor(5 * np.log(2.0), dtype=torch.float32))
    with pytest.raises(ValueError, match="there is no event"):
        head.prepare(torch.tensor([False]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="'n_intervals' parameter of LogisticHazardHead must be an int .*Got 0"):
        LogisticHazardHead(1, 0)
    with pytest.raises(RuntimeError, match="call prepare with training rows first"):
        LogisticHazardHead(1).survival_function(logits, torch.ones(1))


@pytest.mark.parametrize("kind", ["visits", "months", "continuous"])
def test_mean_curves_of_a_model_agree_with_kaplan_meier_at_any_time(kind):
    event, time = draw(kind)
    ids = [f"P{i}" for i in range(len(time))]
    X = pd.DataFrame({"clinical_x": np.random.default_rng(2).normal(size=len(time))}, index=ids)
    y = pd.DataFrame({"os_time": time, "os_event": event}, index=ids)
    model = MultimodalSurvival(
        survival_head="logistic_hazard", trainer=Trainer(max_epochs=60, validation_fraction=0), random_state=0
    ).fit(X, y)
    curves = model.predict_survival_function(X)
    at = np.r_[np.quantile(time, [0.1, 0.3, 0.5, 0.7]), 3.0, 9.0, 12.0, 18.0]
    found = np.mean([curve(at) for curve in curves], axis=0)
    np.testing.assert_allclose(found, step_values(*kaplan_meier(event, time), at), atol=0.03)


def test_curves_are_flat_from_the_last_event_to_the_end_of_follow_up():
    event, time = draw("continuous")
    event &= time <= 25
    ids = [f"P{i}" for i in range(len(time))]
    X = pd.DataFrame({"clinical_x": np.zeros(len(time)) + np.arange(len(time))}, index=ids)
    y = pd.DataFrame({"os_time": time, "os_event": event}, index=ids)
    model = MultimodalSurvival(survival_head="logistic_hazard", trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    curve = model.predict_survival_function(X[:1])[0]
    assert curve(time.max()) == curve(30.0) == curve(time[event].max()) < curve(10.0) < 1
    assert model.unique_times_[-1] == time.max()
