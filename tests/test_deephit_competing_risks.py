"""DeepHit of several causes: incidences and survival sum to 1, and the loss is what it says, term by term."""

import numpy as np
import pytest
import torch

from mmdls.metrics import cumulative_incidence
from mmdls.modules import DeepHitCompetingRisksHead, DeepHitHead
from tests.simulated_outcomes import draw_competing_risks


def prepared(n_causes=2, n=150, seed=0, **options):
    _, causes, time = draw_competing_risks(n, seed, decimals=0)
    causes, time = torch.as_tensor(causes), torch.as_tensor(time)
    head = DeepHitCompetingRisksHead(3, n_causes, **options)
    head.prepare(causes.clamp(max=n_causes), time)
    features = torch.as_tensor(np.random.default_rng(seed).normal(size=(n, 3)), dtype=torch.float32)
    with torch.no_grad():
        head.linear.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return head, head(features).detach().double(), causes.clamp(max=n_causes), time


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_incidences_and_survival_sum_to_one_at_every_time(scale):
    head, parameters, _, time = prepared()
    everywhere = torch.cat([torch.zeros(1), time, time + 0.01, torch.linspace(0, 300, 50)]).double()
    incidence = head.cumulative_incidence(scale * parameters, everywhere)
    survival = head.survival_function(scale * parameters, everywhere)
    torch.testing.assert_close(incidence.sum(dim=1) + survival, torch.ones_like(survival), rtol=0, atol=1e-10)
    in_order = incidence[:, :, everywhere.argsort()]
    assert (in_order.diff(dim=2) >= 0).all() and (in_order[:, :, 0] == 0).all()
    alone = head.cumulative_incidence(scale * parameters[7:8], everywhere)
    torch.testing.assert_close(alone, incidence[7:8], rtol=0, atol=1e-12)


def test_without_features_incidences_are_those_of_aalen_and_johansen():
    head, _, causes, time = prepared(n_intervals=8)
    parameters = head(torch.zeros(1, 3)).detach()
    ends = head.event_times[head.progress[1:] % 1 == 0]
    assert len(ends) == 8
    times, expected = cumulative_incidence(causes.numpy(), time.numpy(), n_causes=2)
    expected = expected[:, np.searchsorted(times, ends.numpy())]
    assert (expected[:, -1] > 0.2).all()
    # In the last interval everybody at risk dies, and training starts from a finite hazard.
    np.testing.assert_allclose(head.cumulative_incidence(parameters, ends)[0, :, :-1], expected[:, :-1], atol=1e-6)


def test_with_one_cause_it_is_deephit():
    head, parameters, causes, time = prepared(n_causes=1)
    one = DeepHitHead(3)
    one.prepare(causes > 0, time)
    used = int(one.progress[-1])
    torch.testing.assert_close(head.linear.bias[:used], one.linear.bias[:used])
    loss, expected = head.loss(parameters, causes, time), one.loss(parameters, causes > 0, time)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    grid = time.unique().double()
    torch.testing.assert_close(
        head.cumulative_incidence(parameters, grid)[:, 0],
        1 - one.survival_function(parameters, grid),
        atol=1e-10,
        rtol=0,
    )
    assert np.corrcoef(head.risk(parameters)[:, 0], one.risk(parameters))[0, 1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("n_intervals", [5, 200])
def test_the_likelihood_is_that_of_the_steps_of_the_curves(n_intervals):
    head, parameters, causes, time = prepared(n_intervals=n_intervals, ranking_weight=0.0)
    weight = torch.arange(len(time)) % 3 + 0.0
    total = 0.0
    for i, (k, t) in enumerate(zip(causes.tolist(), time.double(), strict=True)):
        at = torch.stack([t - 0.4, t])
        if k:
            before, after = head.cumulative_incidence(parameters[i : i + 1], at)[0, k - 1]
            total -= weight[i] * torch.log(after - before)
        else:
            total -= weight[i] * torch.log(head.survival_function(parameters[i : i + 1], at)[0, 1])
    expected = total / weight[causes > 0].sum()
    torch.testing.assert_close(head.loss(parameters, causes, time, weight), expected.double(), rtol=1e-6, atol=0)


def test_pairs_are_those_of_an_event_and_of_who_was_followed_longer():
    head, parameters, causes, time = prepared(n=40, ranking_weight=1.0, sigma=0.3)
    plain = DeepHitCompetingRisksHead(3, 2, ranking_weight=0.0)
    plain.prepare(causes, time)
    incidence = head.cumulative_incidence(parameters, time.double())
    terms = [
        torch.exp((incidence[j, causes[i] - 1, i] - incidence[i, causes[i] - 1, i]) / 0.3)
        for i in range(40)
        for j in range(40)
        if causes[i] > 0 and time[j] > time[i]
    ]
    found = head.loss(parameters, causes, time) - plain.loss(parameters, causes, time)
    torch.testing.assert_close(found, torch.stack(terms).mean(), rtol=1e-9, atol=0)


def test_a_cause_without_events_is_next_to_impossible_and_held_out_events_of_it_are_finite():
    _, causes, time = draw_competing_risks(80, 0)
    causes, time = torch.as_tensor(causes), torch.as_tensor(time)
    head = DeepHitCompetingRisksHead(1, 3)
    head.prepare(causes, time)
    parameters = head(torch.zeros(80, 1))
    assert head.cumulative_incidence(parameters, time)[:, 2].max() < 1e-5
    assert torch.isfinite(head.loss(parameters, torch.full_like(causes, 3), time))


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="'n_causes' parameter of DeepHitCompetingRisksHead must be an int .*Got 0"):
        DeepHitCompetingRisksHead(1, 0)
    with pytest.raises(ValueError, match="'ranking_weight' parameter of DeepHitCompetingRisksHead must be a float"):
        DeepHitCompetingRisksHead(1, 2, ranking_weight=-1)
    with pytest.raises(RuntimeError, match="call prepare with training rows first"):
        DeepHitCompetingRisksHead(1, 2).cumulative_incidence(torch.zeros(1, 40), torch.ones(1))
