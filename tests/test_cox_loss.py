"""The Cox loss against closed forms, R, torchsurv and automatic differentiation."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from mmdls.modules import cox_loss
from mmdls.modules.heads import CoxHead
from mmdls.modules.losses import CoxRiskSet


def plain(log_hazard, event, time, ties="efron", weight=None):
    """The definition, event by event, for automatic differentiation."""
    weight = torch.ones_like(log_hazard) if weight is None else weight
    total = log_hazard.sum() * 0
    for t in torch.unique(time[event]):
        tied = event & (time == t)
        risk = torch.logsumexp(log_hazard[time >= t] + weight[time >= t].log(), 0)
        own = torch.logsumexp(log_hazard[tied] + weight[tied].log(), 0)
        size, mean = int(tied.sum()), weight[tied].mean()
        total = total + (weight[tied] * log_hazard[tied]).sum()
        for k in range(size):
            share = k / size if ties == "efron" else 0.0
            total = total - mean * (risk + torch.log1p(-share * (own - risk).exp()))
    return -total / (weight * event).sum()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    n = 60
    return (
        torch.as_tensor(rng.normal(size=n)),
        torch.as_tensor(rng.random(n) < 0.6),
        torch.as_tensor(rng.integers(1, 12, n).astype(float)),
        torch.as_tensor(rng.integers(1, 4, n).astype(float)),
    )


def assert_follows_the_definition(eta, event, time, ties, weight):
    """Value and gradient are those of the definition, written out; returns the loss."""
    ours, theirs = eta.clone().requires_grad_(), eta.clone().requires_grad_()
    loss, expected = cox_loss(ours, event, time, ties, weight), plain(theirs, event, time, ties, weight)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    expected.backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)
    return loss


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_follow_the_definition(data, ties, weighted):
    eta, event, time, weight = data
    assert_follows_the_definition(eta, event, time, ties, weight if weighted else None)


@pytest.mark.parametrize("n_tied", [1, 2, 5])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("weighted", [False, True])
def test_few_or_no_ties_follow_the_definition(data, ties, weighted, n_tied):
    """One tie among more different times than events; without any, Efron's and Breslow's likelihoods are one."""
    eta, event, _, weight = data
    weight = weight if weighted else None
    time = torch.randperm(len(eta), generator=torch.Generator().manual_seed(0)).double()
    time[event.nonzero()[:n_tied, 0]] = 17.5
    loss = assert_follows_the_definition(eta, event, time, ties, weight)
    if n_tied == 1:
        assert loss.item() == cox_loss(eta, event, time, "breslow", weight).item()


def test_the_gradient_is_not_differentiated_again(data):
    """It has a closed form, which knows nothing of second derivatives; half of them would be silently wrong."""
    eta, event, time, _ = data
    eta = eta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cox_loss(eta, event, time).square(), eta, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_integer_weights_are_repetitions_without_ties(ties):
    eta = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
    event, time = torch.tensor([False, True, False]), torch.tensor([3.0, 1.0, 2.0])
    weight = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
    rows = torch.tensor([0, 0, 1, 2, 2, 2])
    weighted = cox_loss(eta, event, time, ties, weight)
    assert weighted.item() == pytest.approx(cox_loss(eta[rows], event[rows], time[rows], ties).item(), rel=1e-12)


@pytest.mark.parametrize(("ties", "beta"), [("breslow", math.log((3 + math.sqrt(33)) / 2)), ("efron", 1.6768575)])
def test_therneau_and_grambsch_example(ties, beta):
    """The six patients of Therneau and Grambsch (2000), appendix E, whose estimates have closed forms."""
    time = torch.tensor([1.0, 1, 6, 6, 8, 9])
    event = torch.tensor([True, False, True, True, False, True])
    x = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)

    def score(b):
        eta = (x * b).requires_grad_()
        cox_loss(eta, event, time, ties).backward()
        return float((eta.grad * x).sum())

    assert brentq(score, 0, 5, xtol=1e-12) == pytest.approx(beta, abs=1e-7)


@pytest.mark.parametrize("suffix", ["_efron", "_breslow", ""])
def test_r_likelihoods(data_dir, suffix):
    """Log partial likelihoods by R's coxph on the lung and gbsg sets; without ties Efron and Breslow are one."""
    name = "benchmark_cox_with_ties.json" if suffix else "benchmark_cox_without_ties.json"
    for case in json.loads((data_dir / "golden_survival" / "torchsurv" / name).read_text()):
        eta = torch.as_tensor(case[f"log_hazard{suffix}"], dtype=torch.float64).flatten()
        event = torch.as_tensor(case["status"]).bool()
        time = torch.as_tensor(case["time"], dtype=torch.float64)
        expected = -np.ravel(case[f"log_likelihood{suffix}"])[0] / int(event.sum())
        for ties in [suffix.lstrip("_")] if suffix else ["efron", "breslow"]:
            # R printed its numbers to four or five digits.
            assert cox_loss(eta, event, time, ties).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.filterwarnings("ignore:Ties in")
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_torchsurv(data, ties):
    """Its own mean divides by unique times; the sum over the number of events is ours."""
    cox = pytest.importorskip("torchsurv.loss.cox")
    eta, event, time, _ = data
    total = cox.neg_partial_log_likelihood(eta, event, time, ties_method=ties, reduction="sum")
    # torchsurv 0.2.0 adds up in single precision whatever it is given, so no closer agreement can be had.
    assert cox_loss(eta, event, time, ties).item() == pytest.approx(total.item() / int(event.sum()), rel=1e-6)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_order_of_patients_does_not_matter(data, ties):
    eta, event, time, _ = data
    values = set()
    for seed in range(20):
        order = torch.randperm(len(eta), generator=torch.Generator().manual_seed(seed))
        values.add(round(cox_loss(eta[order], event[order], time[order], ties).item(), 12))
    assert len(values) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [100.0, 1000.0])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_extreme_log_hazards_are_exact(data, size, ties, dtype):
    eta, event, time, _ = data
    eta = (torch.sign(eta) * size).to(dtype)
    ours, theirs = eta.clone().requires_grad_(), eta.double().requires_grad_()
    loss, expected = cox_loss(ours, event, time, ties), plain(theirs, event, time, ties)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outlier", [-900.0, 900.0])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_one_extreme_patient_leaves_the_others_their_gradients(data, ties, outlier, weighted):
    """Beyond what exp() can hold the loss goes through logarithms; ordinary patients stand in the same risk sets."""
    eta, event, time, weight = data
    weight = weight if weighted else None
    for patient in (int(time.argmax()), int(time.argmin()), 7):
        wild = eta.clone()
        wild[patient] += outlier
        assert wild.max() - wild.min() > 600
        ours, theirs = wild.clone().requires_grad_(), wild.clone().requires_grad_()
        loss, expected = cox_loss(ours, event, time, ties, weight), plain(theirs, event, time, ties, weight)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        loss.backward()
        expected.backward()
        assert ((ours.grad.abs() > 1e-4) & (ours.grad.abs() < 1)).sum() > 20, "gradients that say something"
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_both_ways_through_the_loss_are_one(data, ties, weighted, monkeypatch):
    """The way through logarithms, taken for ordinary patients."""
    eta, event, time, weight = data
    weight = weight if weighted else None
    found = []
    for limit in (600, 0):
        monkeypatch.setattr("mmdls.modules.losses._SPAN", limit)
        each = eta.clone().requires_grad_()
        loss = cox_loss(each, event, time, ties, weight)
        loss.backward()
        found.append((loss.detach(), each.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_no_event_gives_a_zero_that_is_connected():
    eta = torch.randn(4, requires_grad=True)
    loss = cox_loss(eta, torch.zeros(4, dtype=torch.bool), torch.arange(4.0))
    loss.backward()
    assert loss.item() == 0 and (eta.grad == 0).all()


def test_a_risk_set_can_be_kept(data):
    eta, event, time, _ = data
    kept = CoxRiskSet.of(event, time)
    assert cox_loss(eta, event, time, risk_set=kept) == cox_loss(eta, event, time)


def test_wrong_shapes_and_ties_are_refused(data):
    eta, event, time, weight = data
    with pytest.raises(ValueError, match="one shape"):
        cox_loss(eta[:, None], event, time)
    for lengths in ((59, 60, 60), (60, 59, 60), (60, 60, 59), (1, 60, 60)):
        with pytest.raises(
            ValueError, match=r"one shape \(n,\), or log_hazard \(k, n\); got \(\d+,\), \(\d+,\), \(\d+,\)"
        ):
            cox_loss(*(part[:n] for part, n in zip((eta, event, time), lengths, strict=True)))
    for wrong in (weight[:59], weight[:1], weight[:, None], weight.sum()):
        with pytest.raises(ValueError, match=r"sample_weight must have one shape with log_hazard, \(60,\); got"):
            cox_loss(eta, event, time, sample_weight=wrong)
    with pytest.raises(ValueError, match="risk_set orders 59 patients; log_hazard has 60"):
        cox_loss(eta, event, time, risk_set=CoxRiskSet.of(event[:59], time[:59]))
    with pytest.raises(ValueError, match="ties must be"):
        cox_loss(eta, event, time, ties="exact")


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("spread", [1.0, 500.0])
def test_a_patient_of_weight_zero_is_absent(ties, spread):
    rng = np.random.default_rng(3)
    log_hazard = torch.as_tensor(rng.normal(size=30) * spread).requires_grad_()
    event, time = torch.as_tensor(rng.random(30) < 0.6), torch.as_tensor(rng.integers(1, 9, size=30).astype(float))
    weight = torch.as_tensor(rng.random(30) + 0.1)
    gone = (time == time.max()) | (torch.arange(30) % 4 == 0)  # nobody left at the latest time
    weight[gone] = 0.0
    with_zeros = cox_loss(log_hazard, event, time, ties, weight)
    without = cox_loss(log_hazard[~gone], event[~gone], time[~gone], ties, weight[~gone])
    assert with_zeros.item() == pytest.approx(without.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(with_zeros, log_hazard)
    assert (gradient[gone] == 0).all() and torch.isfinite(gradient).all()
    nobody = cox_loss(log_hazard, event, time, ties, torch.zeros(30))
    assert nobody.item() == 0 and nobody.requires_grad


def test_heads_sort_the_same_patients_once(data, monkeypatch):
    eta, event, time, _ = data
    one, two, calls, sort = CoxHead(3), CoxHead(3), [], CoxRiskSet.of
    monkeypatch.setattr(CoxRiskSet, "of", lambda *arguments: calls.append(1) or sort(*arguments))
    for head in (one, two, one):
        assert head.loss(eta[:, None], event, time) == cox_loss(eta, event, time, risk_set=sort(event, time))
    assert len(calls) == 1
    others = torch.randperm(len(time))
    mixed = one.loss(eta[others, None], event[others], time[others])
    torch.testing.assert_close(mixed, one.loss(eta[:, None], event, time))
    with torch.inference_mode():
        assert one.loss(eta[:, None], event.clone(), time.clone()) == cox_loss(eta, event, time)


@pytest.mark.parametrize("which", ["event", "time", "another event"])
def test_what_changes_in_place_is_sorted_again(data, which):
    eta, event, time, _ = data
    event, time, head = event.clone(), time.clone(), CoxHead(3)
    before = head.loss(eta[:, None], event, time)
    if which == "event":
        event[:10] = ~event[:10]
    elif which == "time":
        time.copy_(time.flip(0))
    else:
        event = ~event
    after = head.loss(eta[:, None], event, time)
    assert after != before and after == cox_loss(eta, event.clone(), time.clone())


def test_one_prediction_under_many_weights_is_many_losses(data):
    eta, event, time, weight = data
    weights = torch.stack([weight, weight.flip(0), torch.ones_like(weight)])

    def loss(eta, weight):
        return cox_loss(eta, event, time, sample_weight=weight)

    gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(None, 0))(eta, weights)
    for gradient, value, each in zip(gradients, losses, weights, strict=True):
        expected = torch.func.grad_and_value(loss)(eta, each)
        torch.testing.assert_close((gradient, value), expected)
