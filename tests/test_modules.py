"""Networks and heads: laws that hold for any weights."""

import numpy as np
import pytest
import torch
from sksurv.linear_model.coxph import BreslowEstimator

from mmdls.datasets import make_nsclc_cohort
from mmdls.modules import (
    AdditiveFusion,
    AntialiasedBackbone,
    ClassHead,
    ConcatFusion,
    CoxHead,
    GatedFusion,
    LogisticHazardHead,
    LossName,
    MeanPooling,
    MultimodalNet,
    OrdinalHead,
    Outputs,
    SelfAttentionPooling,
    SliceNet,
    TabularNet,
    pad_items,
)
from mmdls.modules.multimodal import horizon_targets
from mmdls.modules.regression import RegressionHead


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_pad_items_puts_every_slice_in_its_place():
    packed = torch.arange(12.0).reshape(6, 2)
    padded, mask = pad_items(packed, torch.tensor([2, 0, 4]))
    assert padded.shape == (3, 4, 2)
    assert torch.equal(padded[mask], packed)
    assert mask.sum(dim=1).tolist() == [2, 0, 4]
    empty, none = pad_items(packed[:0], torch.tensor([0, 0]))
    assert empty.shape == (2, 0, 2) and none.shape == (2, 0)


def test_subsampling_leaves_no_alias():
    """Stripes of a pixel, which would become a constant map, vanish; a constant map stays (away from the border)."""
    blur = AntialiasedBackbone().blurs[0]
    stripes = (torch.arange(32) % 2 * 2.0 - 1).expand(1, 8, 32, 32)
    for pattern in (stripes, stripes.mT, stripes * stripes.mT):
        assert blur(pattern)[..., 1:, 1:].abs().max() < 1e-6
    assert torch.allclose(blur(torch.ones_like(stripes))[..., 1:, 1:], torch.ones(15, 15))


def test_a_shift_by_a_pixel_changes_features_less_than_without_the_blur():
    def change():
        first, moved = (net(each)[-1].mean(dim=(2, 3)) for each in (image, image.roll((1, 1), (2, 3))))
        return (first - moved).norm() / (first - first.mean(dim=0)).norm()

    slices = make_nsclc_cohort(30, n_slices=1, image_size=64, random_state=0).data["lesion_image"]
    image = torch.as_tensor(np.stack(slices) / 255, dtype=torch.float32)
    net = AntialiasedBackbone()
    blurred = change()
    net.blurs = torch.nn.ModuleList(torch.nn.MaxPool2d(1, stride=2) for _ in net.blurs)
    assert blurred < 0.4 * change()


def test_what_a_stage_found_reaches_the_last_map_unnormalised():
    net = AntialiasedBackbone(width=4, depth=4)
    maps = net(torch.rand(2, 1, 40, 40))
    assert [m.shape[1:] for m in maps] == [(4, 20, 20), (12, 10, 10), (28, 5, 5), (60, 3, 3)]
    for before, after, blur in zip(maps, maps[1:], net.blurs, strict=False):
        assert torch.equal(after[:, : before.shape[1]], blur(before))


def test_self_attention_matches_torch():
    """The published pooling is torch's attention with a residual and a mean."""
    pooling = SelfAttentionPooling(16, n_heads=4).eval()
    slices = torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    query, key, value = (
        projection(slices).unflatten(-1, (4, 4)).transpose(1, 2)
        for projection in (pooling.q_proj, pooling.k_proj, pooling.v_proj)
    )
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
    attended = pooling.out_proj(mixed.transpose(1, 2).flatten(2)) + slices
    expected = torch.stack([attended[i, mask[i]].mean(dim=0) for i in range(2)])
    assert torch.allclose(pooling(slices, mask), expected, atol=1e-6)


def test_ordinal_head_is_a_likelihood():
    head = OrdinalHead(4, 3)
    logits = torch.randn(50, 2, dtype=torch.float64)
    probabilities = head.probabilities(logits)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert (probabilities > 0).all()
    target = torch.randint(0, 3, (50,))
    expected = -probabilities[torch.arange(50), target].log().mean()
    assert torch.allclose(head.loss(logits, target), expected)
    for dtype in (torch.float32, torch.float64):
        wild = torch.cartesian_prod(*[torch.tensor([-1e4, -800.0, -40.0, 0.0, 40.0, 800.0, 1e4], dtype=dtype)] * 2)
        for kind in (OrdinalHead(4, 3), ClassHead(4, 2)):
            extreme = kind.probabilities(wild)
            assert (extreme > 0).all() and (extreme <= 1).all()
            torch.testing.assert_close(extreme.sum(dim=1), torch.ones(49, dtype=dtype))
        expected = torch.sigmoid(-wild.double())[:, 0]
        torch.testing.assert_close(
            OrdinalHead(4, 3).probabilities(wild)[:, 0].double(), expected, rtol=1e-5, atol=1e-30
        )
    extreme = head.loss(torch.tensor([[100.0, -100.0]]), torch.tensor([0]))
    assert torch.allclose(extreme, torch.tensor(100.0))


@pytest.mark.parametrize("head", [ClassHead, OrdinalHead])
def test_weights_repeat_patients(head):
    head = head(4, 3)
    logits = head(torch.randn(6, 4))
    target = torch.tensor([0, 1, 2, 2, 1, 0])
    weight = torch.tensor([1.0, 2, 0, 3, 1, 1])
    rows = torch.repeat_interleave(torch.arange(6), weight.long())
    assert torch.allclose(head.loss(logits, target, weight), head.loss(logits[rows], target[rows]))


@pytest.fixture
def survival_data():
    n = 200
    time = torch.randint(1, 30, (n,)).double()
    event = torch.rand(n) < 0.6
    return torch.randn(n, 1, dtype=torch.float64), event, time


def test_breslow_baseline_equals_scikit_survival(survival_data):
    log_hazard, event, time = survival_data
    head = CoxHead(3, ties="breslow")
    head.fit_baseline(log_hazard, event, time)
    oracle = BreslowEstimator().fit(log_hazard[:, 0].numpy(), event.numpy(), time.numpy())
    step = oracle.cum_baseline_hazard_
    assert torch.allclose(head.times, torch.as_tensor(step.x))
    assert torch.allclose(head.log_cumulative_hazard.exp(), torch.as_tensor(step.y), rtol=1e-10)


def test_efron_baseline_by_hand():
    """Two tied events among hazards 1, 2, 4: 1/7 + 1/(7 - 3/2)."""
    head = CoxHead(1)
    log_hazard = torch.tensor([[1.0], [2.0], [4.0]]).log()
    head.fit_baseline(log_hazard, torch.tensor([True, True, False]), torch.tensor([1.0, 1.0, 2.0]))
    assert head.log_cumulative_hazard[0].exp().item() == pytest.approx(1 / 7 + 1 / 5.5, rel=1e-6)
    assert head.log_cumulative_hazard[1].exp().item() == pytest.approx(1 / 7 + 1 / 5.5, rel=1e-6)


def test_baseline_survives_extreme_hazards(survival_data):
    log_hazard, event, time = survival_data
    wild = CoxHead(3)
    wild.fit_baseline(log_hazard * 1000, event, time)
    survival = wild.survival_function(log_hazard * 1000, wild.times)
    assert torch.isfinite(survival).all() and (survival.diff(dim=1) <= 0).all()
    head = CoxHead(3)
    head.fit_baseline(log_hazard + 300, event, time)
    moderate = CoxHead(3)
    moderate.fit_baseline(log_hazard, event, time)
    grid = torch.linspace(0, 40, 30, dtype=torch.float64)
    assert torch.allclose(
        head.survival_function(log_hazard + 300, grid), moderate.survival_function(log_hazard, grid), rtol=1e-6
    )


def test_logistic_hazard_recovers_kaplan_meier():
    """Without features the fitted curve is the Kaplan-Meier curve at the ends of the intervals."""
    from sksurv.nonparametric import kaplan_meier_estimator

    n = 4000
    time = torch.distributions.Exponential(0.05).sample((n,)).double()
    censoring = torch.rand(n).double() * 60
    event, time = time <= censoring, torch.minimum(time, censoring)
    head = LogisticHazardHead(1, n_intervals=15)
    head.prepare(event, time)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = head.loss(head(torch.zeros(n, 1)), event, time)
        loss.backward()
        return loss

    optimizer.step(closure)
    x, s = kaplan_meier_estimator(event.numpy(), time.numpy())
    ends = head.times[:-1]
    expected = torch.as_tensor(s[x.searchsorted(ends.numpy(), side="right") - 1])
    fitted = head.survival_function(head(torch.zeros(1, 1)).detach(), ends)[0]
    assert (fitted - expected).abs().max() < 0.02


def test_horizon_labels_leave_the_censored_out():
    event = torch.tensor([True, False, True, False])
    time = torch.tensor([10.0, 10.0, 40.0, torch.nan])
    labels = horizon_targets(event, time, torch.tensor([12.0, 36.0]))
    expected = torch.tensor([[1, 1], [torch.nan, torch.nan], [0, 0], [torch.nan, torch.nan]])
    assert torch.equal(labels.nan_to_num(-1), expected.nan_to_num(-1))


def _net(**kwargs):
    from mmdls.modules import ConvBackbone

    encoders = {
        "ct": SliceNet(ConvBackbone(width=4), MeanPooling(8), 8),
        "pet": TabularNet(3, (6,)),
    }
    return MultimodalNet(
        encoders,
        GatedFusion({"ct": 8, "pet": 6}, out_features=8),
        {"subtype": ClassHead(8, 2), "stage": OrdinalHead(8, 3)},
        {"os": CoxHead(16)},
        {"subtype": 2, "stage": 3},
        hidden_features=16,
        **kwargs,
    )


def test_unknown_outcomes_do_not_move_the_loss():
    net = _net(horizons={"os": (12.0,)}).eval()
    packed = {"ct": (net.encoders["ct"].encode(torch.rand(8, 1, 8, 8)), torch.tensor([2, 2, 2, 2]))}
    outputs = net(packed | {"pet": (torch.randn(4, 3),)}, torch.ones(4, 2, dtype=torch.bool))
    targets = {
        "subtype": (torch.tensor([0, 1, 1, -1]),),
        "stage": (torch.tensor([2, 0, 1, -1]),),
        "os": (torch.tensor([True, False, True, True]), torch.tensor([3.0, 4, 20, torch.nan]).double()),
    }
    known = dict.fromkeys(targets, torch.tensor([True, True, True, False]))
    losses = net.losses(outputs, targets, known)
    first = Outputs(
        outputs.shared[:3],
        {name: output[:3] for name, output in outputs.tasks.items()},
        {name: output[:3] for name, output in outputs.horizons.items()},
    )
    fewer = net.losses(
        first,
        {name: tuple(field[:3] for field in fields) for name, fields in targets.items()},
        {name: rows[:3] for name, rows in known.items()},
    )
    assert losses.keys() == {LossName("subtype"), LossName("stage"), LossName("os"), LossName("os", horizons=True)}
    for name in losses:
        assert torch.allclose(losses[name], fewer[name]), name


def test_a_batch_that_knows_nothing_gives_connected_zeros():
    net = _net(horizons={"os": (12.0,)})
    packed = {"ct": (net.encoders["ct"].encode(torch.rand(4, 1, 8, 8)), torch.tensor([2, 2]))}
    outputs = net(packed | {"pet": (torch.randn(2, 3),)}, torch.ones(2, 2, dtype=torch.bool))
    unknown = torch.tensor([-1, -1])
    nothing = torch.full((2,), torch.nan, dtype=torch.float64)
    targets = {"subtype": (unknown,), "stage": (unknown,), "os": (torch.tensor([False, False]), nothing)}
    losses = net.losses(outputs, targets, dict.fromkeys(targets, torch.tensor([False, False])))
    total = sum(losses.values())
    assert total.item() == 0
    total.backward()


def test_survival_is_conditioned_on_the_predicted_classes():
    net = _net().eval()
    shared = torch.randn(5, 8)
    before = net.predict(shared).tasks["os"]
    with torch.no_grad():
        net.class_embeddings["stage"].weight.mul_(10)
    assert not torch.allclose(before, net.predict(shared).tasks["os"])
    assert not _net(class_embedding=0).class_embeddings


@pytest.mark.parametrize("fusion", [AdditiveFusion, GatedFusion])
def test_what_modalities_say_adds_up(fusion):
    net = fusion({"ct": 40, "clinical": 2}, out_features=8).eval()
    embeddings = {"ct": torch.randn(5, 40), "clinical": torch.randn(5, 2)}
    both, ct, clinical = (
        net(embeddings, torch.tensor([shown], dtype=torch.bool).expand(5, 2)) for shown in ([1, 1], [1, 0], [0, 1])
    )
    assert torch.allclose(both, ct + clinical, atol=1e-6)
    assert not net(embeddings, torch.zeros(5, 2, dtype=torch.bool)).any()


@pytest.mark.parametrize("fusion", [AdditiveFusion, GatedFusion])
def test_a_present_modality_stands_in_for_an_absent_one(fusion):
    """Known truth: of y = a + b with correlation .8, a alone expects 1.8 a, both together a + b."""
    torch.manual_seed(0)
    a = torch.randn(2000, 1)
    b = 0.8 * a + 0.6 * torch.randn(2000, 1)
    present = torch.tensor([[True, True], [True, False]]).repeat(1000, 1)
    net = fusion({"a": 1, "b": 1}, out_features=4, dropout=0)
    readout = torch.nn.Linear(4, 1)
    adam = torch.optim.Adam([*net.parameters(), *readout.parameters()], 0.02)
    for _ in range(300):
        error = (readout(net({"a": a, "b": b}, present)) - a - b).square()
        adam.zero_grad()
        error.mean().backward()
        adam.step()
    assert error[::2].mean() < 0.02
    assert error[1::2].mean() < 0.36 * 1.1  # the variance of what only b knows


def test_wide_modalities_do_not_learn_faster_than_narrow_ones():
    """One step of Adam moves what each modality adds by about the same length."""
    torch.manual_seed(0)
    net = AdditiveFusion({"radiomics": 128, "clinical": 4}, out_features=8, dropout=0)
    embeddings = {"radiomics": torch.ones(1, 128), "clinical": torch.ones(1, 4)}
    present = torch.ones(1, 2, dtype=torch.bool)
    before = net.summands(embeddings, present).detach()
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    net(embeddings, present).sum().backward()
    adam.step()
    moved = (net.summands(embeddings, present) - before).norm(dim=2)[0]
    assert torch.allclose(moved[0], moved[1], rtol=1e-3)


def test_modality_dropout_always_leaves_one():
    net = _net(modality_dropout=0.9).train()
    present = torch.tensor([[True, True], [False, True]]).repeat(200, 1)
    hidden = net._hide(present)
    assert hidden.any(dim=1).all()
    assert not (hidden & ~present).any()
    assert hidden.float().mean() < present.float().mean()


def test_heads_of_single_modalities_have_their_own_loss_and_tasks():
    """One has another loss than the head of its task, and one task has no such head."""
    torch.manual_seed(0)
    fusion = ConcatFusion({"pet": 3, "clinical": 3}, out_features=8)
    own = RegressionHead(3, "huber", 0.1)
    net = MultimodalNet(
        {"pet": TabularNet(3), "clinical": TabularNet(3)},
        fusion,
        {"a": RegressionHead(8), "b": RegressionHead(8)},
        {},
        {},
        unimodal_heads={"pet": {"a": own}},
        unimodal_loss_weight=1.0,
    )
    present, target = torch.ones(6, 2, dtype=torch.bool), torch.linspace(-3, 3, 6)
    outputs = net({"pet": (torch.randn(6, 3),), "clinical": (torch.randn(6, 3),)}, present)
    fields, known = dict.fromkeys("ab", (target,)), dict.fromkeys("ab", torch.ones(6, dtype=torch.bool))
    losses = net.losses(outputs, fields, known, present=present)
    assert [name.label for name in losses] == ["a_loss", "b_loss", "a_loss (pet alone)"]
    torch.testing.assert_close(losses["a", "pet", False], own.loss(outputs.unimodal["a", "pet"], target))
