"""The head of cause-specific hazards: incidences and survival sum to 1; with one cause it is the Cox head."""

import numpy as np
import pytest
import torch

from mmdls.metrics import baseline_cumulative_hazard, cumulative_incidence
from mmdls.modules import CauseSpecificCoxHead, CoxHead
from tests.simulated_outcomes import cause_specific_rates, draw_competing_risks, true_incidence


def tensors(n=200, seed=0, **options):
    signal, causes, time = draw_competing_risks(n, seed, **options)
    return torch.as_tensor(signal), torch.as_tensor(causes), torch.as_tensor(time)


def fitted(scale=1.0, n=200, ties="efron", weight=None, **options):
    signal, causes, time = tensors(n, **options)
    head = CauseSpecificCoxHead(1, 2, ties)
    parameters = torch.stack([signal, -0.5 * signal], dim=1) * scale
    head.fit_baseline(parameters, causes, time, weight)
    return head, parameters, causes, time


@pytest.mark.parametrize("decimals", [None, 0, -1])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_incidences_and_survival_sum_to_one_at_every_time(scale, decimals):
    head, parameters, _, time = fitted(scale, decimals=decimals)
    everywhere = torch.cat([torch.zeros(1), time, time + 0.01, torch.linspace(0, 300, 50)]).double().unique()
    incidence, survival = (
        head.cumulative_incidence(parameters, everywhere),
        head.survival_function(parameters, everywhere),
    )
    assert incidence.dtype == torch.float64 and incidence.shape == (200, 2, len(everywhere))
    torch.testing.assert_close(incidence.sum(dim=1) + survival, torch.ones_like(survival), rtol=0, atol=1e-12)
    assert (incidence.diff(dim=2) >= 0).all() and (incidence >= 0).all() and (incidence <= 1 + 1e-12).all()
    assert (incidence[:, :, 0] == 0).all() and (survival[:, 0] == 1).all()
    alone = head.cumulative_incidence(parameters[7:8], everywhere)
    torch.testing.assert_close(alone, incidence[7:8], rtol=0, atol=1e-15)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("weighted", [False, True])
def test_with_one_cause_it_is_the_cox_head(ties, weighted):
    signal, causes, time = tensors(decimals=0)
    event, parameters = causes > 0, signal[:, None].requires_grad_()
    weight = torch.arange(200) % 3 + 0.5 if weighted else None
    head, cox = CauseSpecificCoxHead(1, 1, ties), CoxHead(1, ties)
    loss, expected = (one.loss(parameters, event.long(), time, weight) for one in (head, cox))
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(value, parameters)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    parameters = parameters.detach()
    for one in (head, cox):
        one.fit_baseline(parameters, event.long(), time, weight)
    curve, expected = (one.survival_function(parameters, time.unique()) for one in (head, cox))
    torch.testing.assert_close(curve, expected, rtol=0, atol=1e-12)
    incidence = head.cumulative_incidence(parameters, time.unique())[:, 0]
    torch.testing.assert_close(incidence, 1 - expected, rtol=0, atol=1e-12)
    order = torch.argsort(parameters[:, 0])
    assert (head.risk(parameters)[order, 0].diff() >= 0).all(), "the same order of patients"


def test_the_loss_is_the_partial_likelihood_of_all_causes_per_event():
    signal, causes, time = tensors(decimals=0)
    weight = torch.arange(200) % 3 + 0.0
    parameters = torch.stack([signal, -signal], dim=1)
    head, cox = CauseSpecificCoxHead(1, 2), CoxHead(1)
    total = 0.0
    for k in (1, 2):
        event = causes == k
        total += cox.loss(parameters[:, k - 1 : k], event, time, weight) * weight[event].sum()
    expected = total / weight[causes > 0].sum()
    torch.testing.assert_close(head.loss(parameters, causes, time, weight), expected)
    repeated = torch.repeat_interleave(torch.arange(200), weight.long())
    breslow = CauseSpecificCoxHead(1, 2, "breslow")
    torch.testing.assert_close(
        breslow.loss(parameters, causes, time, weight),
        breslow.loss(parameters[repeated], causes[repeated], time[repeated]),
    )


def test_where_causes_share_a_time_the_loss_of_survival_is_divided_by_their_hazards():
    head, parameters, causes, time = fitted(decimals=-1)
    times = time.unique()
    assert len(times) < 15 and all((causes[time == times[0]] == k).any() for k in (1, 2))
    hazard = torch.stack([cox.log_cumulative_hazard.exp() for cox in head.causes]) * parameters.exp()[:, :, None]
    step = torch.diff(hazard, prepend=torch.zeros(200, 2, 1))
    survival = torch.exp(-hazard.sum(dim=1))
    lost = torch.cat([torch.ones(200, 1), survival[:, :-1]], dim=1) - survival
    fraction = (step / step.sum(dim=1, keepdim=True)).nan_to_num()
    expected = (fraction * lost[:, None]).cumsum(dim=2)
    torch.testing.assert_close(head.cumulative_incidence(parameters, times), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_baselines_are_those_of_the_metrics(ties):
    head, parameters, causes, time = fitted(decimals=0, ties=ties)
    for k, cox in enumerate(head.causes):
        times, hazard = baseline_cumulative_hazard(causes == k + 1, time, parameters[:, k], ties)
        np.testing.assert_array_equal(head.times, times)
        np.testing.assert_allclose(cox.log_cumulative_hazard.exp(), hazard, rtol=1e-9)


def test_without_features_it_is_close_to_aalen_johansen():
    head, parameters, causes, time = fitted(0.0, n=3000)
    times, expected = cumulative_incidence(causes.numpy(), time.numpy())
    found = head.cumulative_incidence(parameters[:1], torch.as_tensor(times))[0]
    inside = times < 60  # with few at risk, exp(-hazard) and the product of 1 - steps differ
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=2e-3)


def test_hazards_that_are_learned_give_the_known_incidence():
    signal, causes, time = tensors(4000, 1)
    head = CauseSpecificCoxHead(1, 2).double()
    features = signal[:, None]
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = head.loss(head(features), causes, time)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.fit_baseline(head(features), causes, time)
        at, months = torch.linspace(-2, 2, 9, dtype=torch.float64), np.array([6.0, 12.0, 24.0])
        found = head.cumulative_incidence(head(at[:, None]), torch.as_tensor(months + 0.1))
    truth = true_incidence(cause_specific_rates(at.numpy()), months)
    np.testing.assert_allclose(found, truth, atol=0.03)


def test_the_risk_follows_the_incidence_not_the_hazard():
    """A cause whose hazard is the same for everybody is met less often by those whom another cause takes."""
    head, parameters, _, time = fitted()
    parameters = torch.stack([parameters[:, 0], torch.zeros(200)], dim=1)
    order = torch.argsort(parameters[:, 0])
    risk = head.risk(parameters)[order]
    assert (risk[:, 0].diff() > 0).all() and (risk[:, 1].diff() < 0).all()
    end = float(time.max()) * (1 + 1 / len(time.unique()))
    months = torch.linspace(0, end, 20_001, dtype=torch.float64)
    lost = torch.trapezoid(head.cumulative_incidence(parameters, months), months)
    torch.testing.assert_close(head.risk(parameters), lost, rtol=0, atol=0.02)


def test_the_risk_is_known_before_the_baseline_is_fitted():
    signal, causes, time = tensors()
    head = CauseSpecificCoxHead(1, 2)
    head.prepare(causes, time)
    parameters = torch.stack([signal, torch.zeros(200)], dim=1)
    risk = head.risk(parameters)[torch.argsort(signal)]
    assert (risk[:, 0].diff() > 0).all() and (risk[:, 1].diff() < 0).all()


def test_blocks_of_patients_are_the_whole(monkeypatch):
    head, parameters, _, time = fitted()
    whole = head.cumulative_incidence(parameters, time.unique())
    monkeypatch.setattr("mmdls.modules.competing_risks._NUMBERS", 1000)
    torch.testing.assert_close(head.cumulative_incidence(parameters, time.unique()), whole, rtol=0, atol=0)


def test_a_cause_without_events_has_no_incidence_and_no_gradient():
    signal, causes, time = tensors()
    head = CauseSpecificCoxHead(1, 3)
    parameters = torch.stack([signal, signal, signal], dim=1).requires_grad_()
    head.loss(parameters, causes, time).backward()
    assert (parameters.grad[:, 2] == 0).all() and (parameters.grad[:, :2] != 0).any()
    head.fit_baseline(parameters.detach(), causes, time)
    assert (head.cumulative_incidence(parameters.detach(), time.unique())[:, 2] == 0).all()


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="'n_causes' parameter of CauseSpecificCoxHead must be an int .*Got 0"):
        CauseSpecificCoxHead(1, 0)
    with pytest.raises(ValueError, match="'ties' parameter of CauseSpecificCoxHead must be a str among"):
        CauseSpecificCoxHead(1, 2, ties="exact")
    head = CauseSpecificCoxHead(1, 2)
    for method in (head.survival_function, head.cumulative_incidence):
        with pytest.raises(RuntimeError, match="call fit_baseline with training rows first"):
            method(torch.zeros(1, 2), torch.ones(1))
