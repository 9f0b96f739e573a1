"""Survival heads: each loss by a slow computation of its formula in double precision, and curves of random patients."""

import math
import pickle
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import expm

from mmdls import MMDLS, Part, Trainer
from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import (
    AdditiveFusion,
    CoherentHead,
    CoxHead,
    DeepHitHead,
    LogisticHazardHead,
    LossName,
    MTLRHead,
    MultimodalNet,
    PCHazardHead,
    TabularNet,
)
from mmdls.modules.piecewise import falling_share, per_event
from mmdls.registry import competing_risks_heads, survival_heads

N = 18


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def draw(n=N, ties=True):
    """Events and times; with ties censored patients leave at and between the times of events."""
    time = torch.distributions.Exponential(0.05).sample((n,)).double() + 0.1
    event = torch.rand(n) < 0.6
    if ties:
        time = (time / 4).ceil() * 4
        time[~event] += torch.tensor([0.0, 1.0, 2.5]).repeat(n)[: int((~event).sum())]
    time[-1], event[-1] = time.max() + 3, False  # Kaplan-Meier's curve does not reach 0
    return event, time


WEIGHTS = (torch.arange(N) % 4).double()


def pmf(kind, f):
    """Probabilities of an event in each interval, and of none, by the formula of each head."""
    if kind is LogisticHazardHead:
        h = [1 / (1 + math.exp(-x)) for x in f]
        p = [h[k] * math.prod(1 - h[j] for j in range(k)) for k in range(len(f))]
        return [*p, math.prod(1 - x for x in h)]
    scores = [sum(f[k:]) for k in range(len(f))] if kind is MTLRHead else list(f)
    e = [math.exp(x) for x in [*scores, 0.0]]
    return [x / sum(e) for x in e]


def discrete_survival(kind, head, f, event, time, weight):
    """Survival just after every event time: intervals by their formula, steps in them in Kaplan-Meier's shares."""
    event_times = sorted({float(t) for t, e, w in zip(time, event, weight, strict=True) if e and w > 0})
    steps = []
    for t in event_times:
        died = sum(float(w) for w, e, s in zip(weight, event, time, strict=True) if e and s == t)
        left = sum(float(w) for w, s in zip(weight, time, strict=True) if s >= t)
        steps.append(-math.log(1 - died / left))
    interval = [math.ceil(round(float(p), 9)) - 1 for p in head.progress[1:]]
    p = pmf(kind, f[: max(interval) + 1])
    survival = []
    for i, k in enumerate(interval):
        own = [s for s, other in zip(steps, interval, strict=True) if other == k]
        share = sum(s for s, other in zip(steps[: i + 1], interval, strict=False) if other == k) / sum(own)
        survival.append(sum(p[k:]) ** (1 - share) * sum(p[k + 1 :]) ** share)
    return event_times, survival


def slow_discrete(kind, head, parameters, event, time, weight):
    total = ranked = pairs = 0.0
    curves = []
    for row in parameters.tolist():
        event_times, survival = discrete_survival(kind, head, row, event, time, weight)
        curves.append(lambda t, x=event_times, s=survival: ([1.0] + s)[sum(u <= t + 1e-12 for u in x)])
    for i in range(len(time)):
        t, w = float(time[i]), float(weight[i])
        if w == 0:
            continue
        if event[i]:
            total -= w * math.log(curves[i](t - 1e-6) - curves[i](t))
        else:
            total -= w * math.log(curves[i](t))
        for j in range(len(time)):
            if event[i] and time[j] > t:
                pairs += w * float(weight[j])
                ranked += w * float(weight[j]) * math.exp((curves[i](t) - curves[j](t)) / getattr(head, "sigma", 1))
    n_events = sum(float(w) for w, e in zip(weight, event, strict=True) if e)
    return total / n_events + getattr(head, "ranking_weight", 0.0) * ranked / pairs


def slow_pc_hazard(kind, head, parameters, event, time, weight):
    knots = head.intervals.ends.tolist()
    total = n_events = 0.0
    for f, e, t, w in zip(parameters.tolist(), event, time.tolist(), weight.tolist(), strict=True):
        cumulative = rate = 0.0
        for j, (start, end) in enumerate(zip(knots, knots[1:], strict=False)):
            hazard = math.log1p(math.exp(f[j])) / (end - start)
            cumulative += hazard * max(0.0, min(t, end) - start)
            if start < t <= end:
                rate = hazard
        total += w * (cumulative - (math.log(rate) if e else 0.0))
        n_events += w * bool(e)
    return total / n_events


@pytest.mark.parametrize("weight", [torch.ones(N), WEIGHTS])
@pytest.mark.parametrize("n_intervals", [3, 12])
@pytest.mark.parametrize("kind", [LogisticHazardHead, MTLRHead, DeepHitHead, PCHazardHead])
def test_the_loss_is_its_formula(kind, n_intervals, weight):
    event, time = draw()
    head = kind(2, n_intervals).double()
    head.prepare(event, time, weight)
    parameters = torch.randn(N, n_intervals, dtype=torch.float64, requires_grad=True)
    slow = slow_pc_hazard if kind is PCHazardHead else slow_discrete
    expected = slow(kind, head, parameters.detach(), event, time, weight)
    assert head.loss(parameters, event, time, weight).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda p: head.loss(p, event, time, weight), parameters)
    rows = torch.repeat_interleave(torch.arange(N), weight.long())
    repeated = head.loss(parameters[rows], event[rows], time[rows])
    assert torch.allclose(repeated, head.loss(parameters, event, time, weight))


@pytest.mark.parametrize("kind", [LogisticHazardHead, MTLRHead, DeepHitHead, PCHazardHead])
def test_training_starts_at_the_observed_curve(kind):
    from sksurv.nonparametric import kaplan_meier_estimator

    event, time = draw(400, ties=kind is not PCHazardHead)
    head = kind(2, 40)
    head.prepare(event, time)
    x, s = kaplan_meier_estimator(event.numpy(), time.numpy())
    start = head.survival_function(head(torch.zeros(1, 2)).detach(), torch.as_tensor(x))[0].numpy()
    np.testing.assert_allclose(start, s, atol=0.02 if kind is PCHazardHead else 1e-5)


@pytest.mark.parametrize("kind", [LogisticHazardHead, MTLRHead, DeepHitHead])
def test_one_effect_raises_all_hazards_alike(kind):
    """A network learns a proportional effect once, not in each interval."""
    head = kind(2, 5).double()
    head.prepare(*draw(200))
    with torch.no_grad():
        assert (head.linear.weight == 0).all(), "what differs between intervals starts at 0"
        head.linear.shared.weight.copy_(torch.tensor([[1.0, 0.0]]))
        start, raised = head._used_logits(head(torch.tensor([[0.0, 0.0], [0.01, 7.0]]).double()))
    torch.testing.assert_close(raised - start, torch.full_like(start, 0.01), rtol=0.01, atol=0)


def test_a_shared_effect_belongs_to_one_transition():
    head = CoherentHead(1, 4)
    with torch.no_grad():
        head.transitions.linear.shared.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        change = head(torch.ones(1, 1)) - head(torch.zeros(1, 1))
    torch.testing.assert_close(change.view(3, 4), torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 4))


def test_the_risk_of_pc_hazard_is_minus_the_area_under_its_curve():
    event, time = draw()
    head = PCHazardHead(2, 4)
    head.prepare(event, time)
    parameters = 2 * torch.randn(5, 4)
    grid = torch.linspace(0, float(head.intervals.ends[-1]), 20001, dtype=torch.float64)
    area = torch.trapezoid(head.survival_function(parameters, grid), grid, dim=1)
    assert torch.allclose(-head.risk(parameters).double(), area, rtol=1e-4)


@pytest.mark.parametrize("weight, ends", [(None, [0, 3, 6, 9, 12]), ([1] * 6 + [3] * 6, [0, 6, 8, 10, 12])])
def test_intervals_hold_equal_shares_of_the_events(weight, ends):
    head = PCHazardHead(2, 4)
    weight = None if weight is None else torch.tensor(weight).double()
    head.prepare(torch.ones(12), torch.arange(1.0, 13.0), weight)
    assert head.intervals.ends.tolist() == ends


def test_one_event_makes_intervals():
    head = PCHazardHead(2, 4)
    head.prepare(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 5.0]))
    assert head.intervals.ends.tolist() == [0, 2, 5]


def test_hazards_start_at_the_rates_of_rows_that_count_as_often_as_their_weight():
    event, time = draw()
    rows = torch.repeat_interleave(torch.arange(N), WEIGHTS.long())
    weighted, repeated = PCHazardHead(2, 3), PCHazardHead(2, 3)
    weighted.prepare(event, time, WEIGHTS)
    repeated.prepare(event[rows], time[rows])
    for of in (lambda head: head.intervals.ends, lambda head: head(torch.zeros(1, 2)).detach()):
        torch.testing.assert_close(of(weighted), of(repeated))


@pytest.mark.parametrize("name", list(survival_heads))
def test_what_is_read_from_outcomes_is_no_weight(name):
    event, time = draw()
    head = survival_heads[name](2)
    before = {key: value.shape for key, value in head.state_dict().items()}
    head.prepare(event, time)
    head.fit_baseline(head(torch.zeros(N, 2)).detach(), event, time)
    assert {key: value.shape for key, value in head.state_dict().items()} == before


@pytest.mark.parametrize("name", [name for name, kind in survival_heads.items() if hasattr(kind, "search_space")])
def test_a_search_tries_what_a_head_takes(name):
    event, time = draw()
    for parameter, distribution in survival_heads[name].search_space().items():
        for value in getattr(distribution, "choices", None) or (distribution.low, distribution.high):
            head = survival_heads[name](2, **{parameter: value})
            head.prepare(event, time)
            assert torch.isfinite(head.loss(head(torch.zeros(N, 2)), event, time))


# -- both endpoints ----------------------------------------------------------------------------------------------------


def course(n=N):
    """Both endpoints of simulated courses: deaths with and without relapse, censored in any state, some unknown."""
    relapse, death, leaving = torch.distributions.Exponential(torch.tensor([0.05, 0.02, 0.02])).sample((n,)).double().T
    after = relapse + torch.distributions.Exponential(torch.tensor(0.1)).sample((n,)).double()
    died = torch.where(relapse < death, after, death)
    os_event, os_time = died <= leaving, torch.minimum(died, leaving)
    first = torch.minimum(relapse, death)
    dfs_event, dfs_time = first <= leaving, torch.minimum(first, leaving)
    dfs_time[1::5] *= 0.5  # seen last before the end of the follow-up
    dfs_event[1::5] = False
    dfs_time[::6], dfs_event[::6] = torch.nan, False
    return dfs_event, dfs_time, os_event, os_time


def pair(in_features=2, n_intervals=4):
    views = CoherentHead(in_features, n_intervals).double().views(["dfs", "os"])
    return views["dfs"], views["os"]


def prepared(*outcomes):
    dfs_event, dfs_time, os_event, os_time = outcomes
    dfs, os = pair()
    known = ~dfs_time.isnan()
    dfs.prepare(dfs_event[known], dfs_time[known])
    os.prepare(os_event, os_time)
    return dfs, os


def test_heads_that_are_prepared_again_forget_the_outcomes_before():
    first, second = course(), course()
    dfs, os = prepared(*first)
    assert dfs.transitions is os.transitions and not os.transitions.outcomes, "a model keeps no outcome of a patient"
    known = ~second[1].isnan()
    dfs.prepare(second[0][known], second[1][known])
    os.prepare(*second[2:])
    for again, new in zip((dfs, os), prepared(*second), strict=True):
        nothing = torch.zeros(1, 2, dtype=torch.float64)
        torch.testing.assert_close(again(nothing), new(nothing), rtol=0, atol=0)
        torch.testing.assert_close(again.times, new.times, rtol=0, atol=0)


def transition(head, f, start, end):
    """Transition probabilities between the three states, and the matrix of hazards at the end."""
    knots, found, last = head.transitions.intervals.ends.tolist(), np.eye(3), None
    for j, (a, b) in enumerate(zip(knots, knots[1:], strict=False)):
        relapse, death, after = (math.log1p(math.exp(f[k][j])) / (b - a) for k in range(3))
        q = np.array([[-relapse - death, relapse, death], [0, -after, after], [0, 0, 0]])
        found = found @ expm(q * max(0.0, min(end, b) - max(start, a)))
        if a < end <= b or (end == 0 and j == 0):
            last = q
    return found, last


def test_both_losses_are_the_likelihood_of_the_course():
    dfs_event, dfs_time, os_event, os_time = course()
    dfs, os = prepared(dfs_event, dfs_time, os_event, os_time)
    parameters = torch.randn(N, 12, dtype=torch.float64, requires_grad=True)
    known = ~dfs_time.isnan()
    total = {"dfs": 0.0, "os": 0.0, "os alone": 0.0}
    for i in range(N):
        f = parameters[i].detach().reshape(3, 4).tolist()
        t, e = float(os_time[i]), bool(os_event[i])
        p, q = transition(os, f, 0, t)
        alone = p[0, 0] * q[0, 2] + p[0, 1] * q[1, 2] if e else p[0, 0] + p[0, 1]
        total["os alone"] -= math.log(alone)
        if not known[i]:
            total["os"] -= math.log(alone)
            continue
        s, first = float(dfs_time[i]), bool(dfs_event[i])
        before, at = transition(os, f, 0, s)
        marginal = before[0, 0] * (-at[0, 0] if first else 1)
        total["dfs"] -= math.log(marginal)
        p, q = transition(os, f, s, t)
        if not first:
            joint = before[0, 0] * (p[0, 0] * q[0, 2] + p[0, 1] * q[1, 2] if e else p[0, 0] + p[0, 1])
        elif e and s == t:
            joint = before[0, 0] * at[0, 2]
        else:
            joint = before[0, 0] * at[0, 1] * p[1, 1] * (q[1, 2] if e else 1)
        total["os"] -= math.log(joint) - math.log(marginal)
    n_first, n_deaths = int(dfs_event.sum()), int(os_event.sum())
    loss = dfs.loss(parameters[known], dfs_event[known], dfs_time[known])
    assert loss.item() == pytest.approx(total["dfs"] / n_first, rel=1e-9)
    given = (dfs_event, dfs_time)
    loss = os.loss(parameters, os_event, os_time, given=given)
    assert loss.item() == pytest.approx(total["os"] / n_deaths, rel=1e-9)
    assert os.loss(parameters, os_event, os_time).item() == pytest.approx(total["os alone"] / n_deaths, rel=1e-9)
    assert torch.autograd.gradcheck(lambda p: os.loss(p, os_event, os_time, given=given), parameters)
    assert torch.autograd.gradcheck(lambda p: dfs.loss(p[known], dfs_event[known], dfs_time[known]), parameters)
    weight = WEIGHTS
    rows = torch.repeat_interleave(torch.arange(N), weight.long())
    repeated = os.loss(parameters[rows], os_event[rows], os_time[rows], given=(dfs_event[rows], dfs_time[rows]))
    assert torch.allclose(repeated, os.loss(parameters, os_event, os_time, weight, given=given))


def test_a_network_gives_the_later_endpoint_the_outcome_of_the_earlier_one():
    dfs_event, dfs_time, os_event, os_time = course()
    dfs, os = (head.float() for head in prepared(dfs_event, dfs_time, os_event, os_time))
    net = MultimodalNet(
        {"age": TabularNet(2)}, AdditiveFusion({"age": 2}, 2), {}, {"dfs": dfs, "os": os}, {}, hidden_features=2
    )
    outputs = net.eval()({"age": (torch.randn(N, 2),)}, torch.ones(N, 1, dtype=torch.bool))
    targets, known = {"dfs": (dfs_event, dfs_time), "os": (os_event, os_time)}, {"dfs": ~dfs_time.isnan()}
    known["os"] = torch.arange(N) > 2
    found = net.losses(outputs, targets, known)[LossName("os")]
    given = dfs_event[3:], dfs_time[3:]
    assert torch.equal(found, os.loss(outputs.tasks["os"][3:], os_event[3:], os_time[3:], given=given))
    assert not torch.allclose(found, os.loss(outputs.tasks["os"][3:], os_event[3:], os_time[3:]))


def test_curves_are_those_of_the_transition_matrix():
    dfs, os = prepared(*course())
    parameters = 2 * torch.randn(4, 12, dtype=torch.float64)
    grid = torch.cat([torch.linspace(0, float(os.times[-1]), 9, dtype=torch.float64), os.transitions.intervals.ends])
    for view, states in ((dfs, [0]), (os, [0, 1])):
        found = view.survival_function(parameters, grid)
        for i in range(4):
            f = parameters[i].reshape(3, 4).tolist()
            expected = [transition(os, f, 0, float(t))[0][0, states].sum() for t in grid]
            np.testing.assert_allclose(found[i], expected, atol=1e-12)


def test_the_course_teaches_the_hazards():
    """Known truth: constant hazards .05, .02, .1; both losses together find all three, which OS alone cannot."""
    dfs_event, dfs_time, os_event, os_time = course(1500)
    dfs, os = prepared(dfs_event, dfs_time, os_event, os_time)
    known, nothing = ~dfs_time.isnan(), torch.zeros(1500, 2, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(os.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        first = dfs.loss(dfs(nothing[known]), dfs_event[known], dfs_time[known])
        loss = first + os.loss(os(nothing), os_event, os_time, given=(dfs_event, dfs_time))
        loss.backward()
        return loss

    optimizer.step(closure)
    split = os.transitions.split(os(nothing[:1]).detach())[0]
    rates = torch.nn.functional.softplus(split) / os.transitions.intervals.widths
    np.testing.assert_allclose(rates[:, :3].mean(dim=1), [0.05, 0.02, 0.1], rtol=0.2)


def test_no_curve_of_ten_thousand_random_patients_rises_or_crosses():
    event, time = draw(200, ties=False)
    grid = torch.cat([torch.linspace(0, 150, 20, dtype=torch.float64), time[:8]]).sort().values
    for name, kind in survival_heads.items():
        head = kind(2)
        head.prepare(event, time)
        width = head(torch.zeros(1, 2)).shape[1]
        scale = torch.tensor([0.1, 1.0, 10.0, 100.0]).repeat(2500)[:, None]
        parameters = torch.randn(10_000, width) * (scale.clamp(max=10) if kind is CoxHead else scale)
        head.fit_baseline(parameters[:200], event, time)
        survival = head.survival_function(parameters, grid)
        assert ((survival >= 0) & (survival <= 1)).all() and (survival.diff(dim=1) <= 0).all(), name
        assert torch.isfinite(head.risk(parameters)).all(), name
        assert torch.isfinite(head.loss(parameters[:200], event, time)), name
        if isinstance(head, CoherentHead):
            first = head.views(["dfs", "os"])["dfs"].survival_function(parameters, grid)
            assert (first.diff(dim=1) <= 0).all() and (first <= survival).all()


@pytest.fixture(scope="module")
def cohort():
    X, y = make_nsclc_cohort(70, n_slices=1, image_size=8, n_radiomics=3, return_X_y=True, random_state=0)
    return X.filter(regex="clinical_|pet_"), y


@pytest.mark.parametrize("settings", [{}, {"n_members": 2, "table_encoder__linear": True, "trainer__max_epochs": 2}])
def test_curves_of_a_model_never_cross(cohort, settings):
    X, y = cohort
    model = MMDLS(survival_head="coherent", trainer=Trainer(max_epochs=5), random_state=0).set_params(**settings)
    model = model.fit(X, y)
    times = np.linspace(0, float(y["os_time"].max()), 50)
    for one in (model, pickle.loads(pickle.dumps(model))):
        tables = one.predict_tasks(X, times)
        dfs, os = (tables[name].drop(columns="risk").to_numpy() for name in ("dfs", "os"))
        both = np.isfinite(dfs) & np.isfinite(os)
        assert both[:, :25].all() and (dfs <= os)[both].all()
        assert (np.diff(os[:, both.all(axis=0)], axis=1) <= 0).all()
    if settings:
        assert model._network.weights("dfs") == model._network.weights("os") == [1.0, 0.0]
    head = model._network.first.head("os")
    assert head.transitions is model._network.first.head("dfs").transitions
    assert not head.transitions.outcomes, "a fitted model keeps no outcomes"


def test_a_head_of_two_endpoints_says_what_it_needs(cohort):
    X, y = cohort
    quick = {"trainer": Trainer(max_epochs=1), "random_state": 0}
    with pytest.raises(ValueError, match=r"answers 'dfs' and 'os' together.*chosen for \['os'\]"):
        MMDLS(survival_head="coherent", **quick).fit(X, y[["os_time", "os_event"]])
    renamed = y.rename(columns=lambda name: name.replace("dfs", "pfs"))
    with pytest.raises(ValueError, match=r"chosen for \['os', 'pfs'\]"):
        MMDLS(survival_head="coherent", **quick).fit(X, renamed)
    model = MMDLS(survival_head=Part("coherent", earlier="pfs"), **quick).fit(X, renamed)
    assert set(model.tasks_) >= {"pfs", "os"}
    three = y.assign(ttp_time=y["dfs_time"], ttp_event=y["dfs_event"])
    heads = MMDLS(survival_head="coherent", heads={"ttp": "cox"}, **quick).fit(X, three)._network.first
    assert isinstance(heads.head("ttp"), CoxHead) and isinstance(heads.head("dfs"), CoherentHead)


@pytest.mark.parametrize("wrong", [{"ranking_weight": -0.1}, {"sigma": 0.0}, {"sigma": -1.0}])
def test_deephit_refuses_a_ranking_that_has_no_meaning(wrong):
    with pytest.raises(ValueError, match=f"{[*wrong][0]!r} parameter of DeepHitHead must be a float"):
        DeepHitHead(4, **wrong)


def test_patients_of_small_weight_have_times():
    event, time = torch.tensor([True, True, False]), torch.tensor([1.0, 2.0, 3.0])
    head = PCHazardHead(4, n_intervals=2)
    head.prepare(event, time, torch.tensor([0.5, 0.25, 0.0]))
    assert head.times.tolist() == [1.0, 2.0]


def test_a_sum_over_no_event_is_zero_and_has_a_gradient():
    summed = torch.tensor([3.0, 5.0], requires_grad=True)
    found = per_event(summed, torch.tensor([0, 2]))
    assert found.tolist() == [0.0, 2.5]
    found.sum().backward()
    assert summed.grad.tolist() == [0.0, 0.5]


def test_the_falling_share_is_its_formula_at_any_size():
    values = torch.tensor([1e-6, 5e-4, 9.9e-4, 1.1e-3, 0.5, 40.0], dtype=torch.float64)
    torch.testing.assert_close(falling_share(values), -torch.expm1(-values) / values, rtol=1e-9, atol=0)


ODD = {
    "one event": lambda time, event: (time, np.arange(len(time)) == 3),
    "the last one dies": lambda time, event: (time, time == time.max()),
    "all die": lambda time, event: (time, event | True),
    "one time": lambda time, event: (time * 0 + 12, event),
    "all die at one time": lambda time, event: (time * 0 + 12, event | True),
    "events at one time": lambda time, event: (np.where(event, 10.0, time), event),
    "events at 0": lambda time, event: (np.where(event, 0.0, time), event),
    "censored at 0": lambda time, event: (np.where(event, time, 0.0), event),
    "years": lambda time, event: (np.ceil(time / 12) * 12, event),
}


@pytest.mark.filterwarnings("ignore:the times of", "ignore:the . patients held out")
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("head", survival_heads)
def test_odd_outcomes_are_learned(head, case):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 2)), columns=["clinical_a", "clinical_b"])
    time, event = ODD[case](rng.exponential(20, 30).round(1) + 0.1, rng.random(30) < 0.6)
    y = pd.DataFrame({"os_time": time, "os_event": event.astype(float)})
    if head == "coherent":
        y = y.assign(dfs_time=y["os_time"], dfs_event=y["os_event"])
    model = MMDLS(survival_head=head, n_members=1, trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
    curves = model.predict_survival_function(X, "os", times=np.linspace(0, time.max(), 7)[1:])
    assert curves.shape == (30, 6) and ((curves >= 0) & (curves <= 1)).all() and (np.diff(curves, axis=1) <= 0).all()
    assert np.isfinite(model.predict(X).to_numpy()).all()


def test_an_endpoint_without_events_or_follow_up_is_refused():
    X = pd.DataFrame({"clinical_a": np.arange(20.0)})
    for time, event, said in ((5.0, 0, "'os' has no event among 20"), (0.0, 1, "every known time of 'os_time' is 0")):
        with pytest.raises(ValueError, match=said), pytest.warns(UserWarning) if time == 0 else nullcontext():
            MMDLS().fit(X, pd.DataFrame({"os_time": [time] * 20, "os_event": [event] * 20}))


@pytest.mark.parametrize("name", sorted(set(survival_heads) - {"coherent"}))
def test_one_event_time_tells_patients_apart(name):
    """As of outcomes that are known by calendar year only."""
    time, event = torch.full((8,), 12.0), torch.arange(8) % 2 == 0
    head = survival_heads[name](1)
    head.prepare(event, time)
    with torch.no_grad():
        start = head(torch.zeros(1, 1))
        parameters = start + torch.tensor([[-1.0], [0.0], [1.0]])
    head.fit_baseline(start.expand(8, -1), event, time)
    survival = head.survival_function(parameters, torch.tensor([12.0]))[:, 0]
    assert (head.risk(parameters).diff() * survival.diff() < 0).all()


@pytest.mark.parametrize("name", sorted(competing_risks_heads))
def test_one_event_time_tells_causes_apart(name):
    time, cause = torch.full((9,), 12.0), torch.arange(9) % 3
    head = competing_risks_heads[name](1, n_causes=2)
    head.prepare(cause, time)
    with torch.no_grad():
        start = head(torch.zeros(1, 1))
        first = torch.arange(start.shape[1]) < start.shape[1] // 2
        parameters = start + torch.tensor([[-1.0], [0.0], [1.0]]) * first
    head.fit_baseline(start.expand(9, -1), cause, time)
    incidence = head.cumulative_incidence(parameters, torch.tensor([12.0]))[:, :, 0]
    torch.testing.assert_close(head.risk(parameters).double(), 12 * incidence)
    assert (incidence[:, 0].diff() > 0).all()
