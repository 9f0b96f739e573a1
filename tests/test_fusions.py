"""Fusions and poolings: what each of them says, by an independent computation or a known truth."""

import pytest
import torch

from mmdls.modules import (
    AttentionBlock,
    BottleneckFusion,
    CrossAttentionFusion,
    FilmFusion,
    LateFusion,
    LowRankFusion,
    MaxPooling,
    MeanPooling,
    MultimodalNet,
    RegressionHead,
    SetTransformerPooling,
    SliceNet,
    TabularNet,
    TopKPooling,
)
from mmdls.modules.backbones import ConvBackbone
from mmdls.registry import fusions

WIDTHS = {"lesion": 6, "lung": 6, "clinical": 2}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def embeddings():
    return {name: torch.randn(5, width) for name, width in WIDTHS.items()}


ALL = torch.ones(5, 3, dtype=torch.bool)


def test_low_rank_is_the_tensor_of_all_products(embeddings):
    """The sum over ranks of products is a linear map of the outer product of embeddings, each with a 1 behind it."""
    net = LowRankFusion(WIDTHS, out_features=4, rank=3, dropout=0).double()
    extended = [
        torch.cat([embeddings[n].double() * net.factors.scales[n], torch.ones(5, 1).double()], 1) for n in WIDTHS
    ]
    outer = torch.einsum("bi,bj,bk->bijk", *extended)
    factors = []
    for name in WIDTHS:
        layer = net.factors.maps[name]
        factors.append(torch.cat([layer.weight, 1 + layer.bias[:, None]], dim=1).unflatten(0, (3, 4)))
    tensor = torch.einsum("ro,roi,roj,rok->oijk", net.weight, *factors)
    expected = torch.einsum("bijk,oijk->bo", outer, tensor) + net.bias
    found = net({name: x.double() for name, x in embeddings.items()}, ALL)
    assert torch.allclose(found, expected, atol=1e-10)


def test_film_starts_as_a_sum_and_then_others_scale_and_shift(embeddings):
    net = FilmFusion(WIDTHS, out_features=4, dropout=0)
    own = net.projection(embeddings, ALL)
    assert torch.allclose(net(embeddings, ALL), own.sum(dim=1))
    torch.nn.init.normal_(net.modulation)
    expected = 0
    for i in range(3):
        heard = torch.tanh(sum(own[:, j] for j in range(3) if j != i)) @ net.modulation[i]
        expected = expected + own[:, i] * (1 + heard[:, :4]) + heard[:, 4:]
    assert torch.allclose(net(embeddings, ALL), expected, atol=1e-6)
    alone = ALL & torch.tensor([True, False, False])
    assert torch.allclose(net(embeddings, alone), own[:, 0], atol=1e-6)


def test_late_averages_the_decisions_of_the_modalities_that_are_there(embeddings):
    net, head = LateFusion(WIDTHS, out_features=4).eval(), torch.nn.Linear(4, 2)
    torch.nn.init.normal_(net.score)
    decisions = {}
    for i, name in enumerate(WIDTHS):
        alone = torch.zeros(5, 3, dtype=torch.bool)
        alone[:, i] = True
        decisions[name] = head(net(embeddings, alone))
    weights = torch.softmax(net.score[[0, 2]], dim=0)
    both = head(net(embeddings, ALL & torch.tensor([True, False, True])))
    expected = weights[0] * decisions["lesion"] + weights[1] * decisions["clinical"]
    assert torch.allclose(both, expected, atol=1e-6)


def test_cross_attention_is_that_of_torch_over_the_tokens_of_the_others(embeddings):
    net = CrossAttentionFusion(WIDTHS, out_features=8, n_heads=2).eval()
    items = {"lesion": torch.randn(5, 3, 6), "lung": torch.randn(5, 7, 6)}
    masks = {"lesion": torch.ones(5, 3, dtype=torch.bool), "lung": torch.arange(7) < torch.arange(1, 6)[:, None]}
    found = net(embeddings, ALL, {name: (items[name], masks[name]) for name in items})

    layer = net.attention_layer
    oracle = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        oracle.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.zeros(8), layer.value.bias]))
        oracle.out_proj.load_state_dict(layer.out.state_dict())
    for patient in range(5):
        tokens = {}
        for name, width in WIDTHS.items():
            rows = [embeddings[name][patient : patient + 1]]
            if name in items:
                rows.append(items[name][patient][masks[name][patient]])
            tokens[name] = net.projection.maps[name](torch.cat(rows) * 3 / width)
        total = 0
        for name in WIDTHS:
            others = net.norm(torch.cat([tokens[other] for other in WIDTHS if other != name]))
            asked = net.norm(tokens[name][:1])
            total = total + tokens[name][0] + oracle(asked[None], others[None], others[None])[0][0, 0]
        assert torch.allclose(found[patient], total, atol=1e-5)


def test_modalities_meet_only_in_the_bottleneck(embeddings):
    """What the first layer writes into the bottleneck is all that the second hears of other modalities."""
    net = BottleneckFusion(WIDTHS, out_features=8, n_bottlenecks=1, dropout=0).eval()
    changed = embeddings | {"clinical": embeddings["clinical"] + 1}
    heads = []

    def keep(module, arguments, output):
        heads.append(output[:, 1].detach())

    for layer in net.layers:
        layer["lesion"].register_forward_hook(keep)
    with torch.no_grad():
        net(embeddings, ALL)
        net(changed, ALL)
    first, second, first_changed, second_changed = heads
    assert torch.equal(first, first_changed) and not torch.allclose(second, second_changed)
    with pytest.raises(ValueError, match="parameter of BottleneckFusion must be an int"):
        BottleneckFusion(WIDTHS, n_layers=1)


def test_a_product_of_modalities_is_learned_where_a_sum_cannot():
    """Known truth: y = a * b, which no sum of functions of a and of b explains at all."""
    a, b = torch.randn(2, 1000, 1)
    present = torch.ones(1000, 2, dtype=torch.bool)
    explained = {}
    for name in ("additive", "low_rank", "film"):
        net = fusions[name]({"a": 1, "b": 1}, out_features=8, dropout=0)
        readout = torch.nn.Linear(8, 1)
        adam = torch.optim.Adam([*net.parameters(), *readout.parameters()], 0.02)
        for _ in range(200):
            error = (readout(net({"a": a, "b": b}, present)) - a * b).square().mean()
            adam.zero_grad()
            error.backward()
            adam.step()
        explained[name] = 1 - float(error.detach() / (a * b).var())
    assert explained["additive"] < 0.05 and explained["low_rank"] > 0.95 and explained["film"] > 0.8


@pytest.mark.parametrize("name", [name for name in fusions if getattr(fusions[name], "reads_tokens", False)])
def test_a_network_gives_its_fusion_the_items_of_bags(name):
    encoders = {"ct": SliceNet(ConvBackbone(width=4), MeanPooling(8), 8), "clinical": TabularNet(3, (6,))}
    fusion = fusions[name]({"ct": 8, "clinical": 6}, out_features=8)
    net = MultimodalNet(encoders, fusion, {"size": RegressionHead(8)}, {}, {}).eval()
    counts = torch.tensor([3, 1, 0])
    items, table = torch.rand(4, 8, requires_grad=True), torch.randn(3, 3)
    present = torch.tensor([[True, True], [True, True], [False, True]])
    whole = net({"ct": (items, counts), "clinical": (table,)}, present).tasks["size"]
    # The mean of the first patient's slices stays; only who reads the slices themselves sees a change.
    moved = items.detach().clone()
    moved[:2] += torch.tensor([[1.0], [-1.0]])
    other = net({"ct": (moved, counts), "clinical": (table,)}, present).tasks["size"]
    assert not torch.allclose(whole[0], other[0]) and torch.allclose(whole[1:], other[1:])
    alone = net({"ct": (items[3:], counts[1:2]), "clinical": (table[1:2],)}, present[1:2]).tasks["size"]
    assert torch.allclose(alone, whole[1:2], atol=1e-6)
    whole.sum().backward()
    assert (items.grad.abs().sum(dim=1) > 0).all()


# -- poolings ----------------------------------------------------------------------------------------------------------


def test_top_k_lies_between_maximum_and_mean():
    slices, mask = torch.randn(3, 6, 4), torch.arange(6) < torch.tensor([[6], [2], [1]])
    assert torch.allclose(TopKPooling(4, k=1)(slices, mask), MaxPooling(4)(slices, mask))
    assert torch.allclose(TopKPooling(4, k=9)(slices, mask), MeanPooling(4)(slices, mask))
    by_hand = slices[0].sort(dim=0, descending=True).values[:3].mean(dim=0)
    assert torch.allclose(TopKPooling(4, k=3)(slices, mask)[0], by_hand)
    with pytest.raises(ValueError, match="'k' parameter of TopKPooling must be an int .*Got 0"):
        TopKPooling(4, k=0)


def test_the_set_transformer_is_made_of_torch_transformer_layers():
    """Its blocks are torch's encoder layer (normalisation behind, GELU) where tokens attend to themselves."""
    block = AttentionBlock(8, 2)
    oracle = torch.nn.TransformerEncoderLayer(8, 2, 8, 0.0, "gelu", batch_first=True)
    attention = block.attention
    with torch.no_grad():
        own = oracle.self_attn
        own.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        own.in_proj_bias.copy_(torch.cat([attention.query.bias, torch.zeros(8), attention.value.bias]))
        own.out_proj.load_state_dict(attention.out.state_dict())
        oracle.linear1.load_state_dict(block.layers[0].state_dict())
        oracle.linear2.load_state_dict(block.layers[2].state_dict())
    tokens, mask = torch.randn(2, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    expected = oracle(tokens, src_key_padding_mask=~mask)
    assert torch.allclose(block(tokens, tokens, mask[:, None])[mask], expected[mask], atol=1e-5)

    pooling = SetTransformerPooling(8, n_heads=2, n_layers=1).eval()
    pooling.blocks[0].load_state_dict(block.state_dict())
    read = pooling.reader(pooling.seed.expand(2, 1, 8), expected.nan_to_num(), mask[:, None])[:, 0]
    assert torch.allclose(pooling(tokens, mask), read, atol=1e-5)
